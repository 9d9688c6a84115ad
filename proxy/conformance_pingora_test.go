package proxy

import (
	"strings"
	"testing"
)

func pingoraBehaviours() []behaviour {
	const (
		basic, upstream, core = "pingora-proxy/tests/test_basic.rs", "pingora-proxy/tests/test_upstream.rs", "pingora-core/src/protocols/http/v1/server.rs"
		onlyGet               = "it is forwarded as a plain request: websocket is asked for with GET and without a body"
	)
	return []behaviour{
		{basic, "test_dropped_conn_get", "a GET that meets a connection which its backend drops is sent again", holds, "", pingoraDroppedGet},
		{basic, "test_dropped_conn_post_empty_body", "so is a POST without a body", differs, "the backend had read it, so it may have done it: 502. What it cannot have read is sent again", pingoraDroppedPost},
		{basic, "test_dropped_conn_post_body", "so is a POST with a small body", differs, "for the same reason", pingoraDroppedPost},
		{basic, "test_dropped_conn_post_body_over", "a POST with a large body is a 502", holds, "", pingoraDroppedLargePost},
		{upstream, "test_close_on_response_before_downstream_finish", "an answer that comes before the end of the upload passes, and the client's connection ends", holds, "", TestEarlyAnswerToAnUpload},
		{upstream, "test_upgrade_smoke", "an upgrade passes, and bytes after it", holds, "", TestUpgradeOnTheWire},
		{upstream, "test_upgrade_body", "the body of an upgrade request passes too", differs, onlyGet, TestOtherUpgradesStayHere},
		{upstream, "test_upgrade_body_after_101", "also after the 101", differs, onlyGet, TestOtherUpgradesStayHere},
		{upstream, "test_ws_server_ends_conn", "a backend that closes ends the client's half", holds, "", TestHalfClose},
		{core, "test_upgrade_without_content_length_with_ws_data", "bytes after a 101 belong to the tunnel until it closes", holds, "", TestBytesThatDoNotWait},
		{core, "test_upgraded_body_on_non_upgraded_session_panics", "without a 101 there is no tunnel", holds, "", TestBackendDeclinesTheUpgrade},
	}
}

// dropping is a backend that answers the first request of each connection, and drops the connection when it has read
// another one.
func dropping(t *testing.T) *backend {
	return newBackend(t, func(c *peer) {
		if _, body, err := c.request(); err == nil {
			c.say(ok[:len(ok)-2] + (body + "ok")[:2])
			_, _, _ = c.request()
		}
	})
}

func pingoraDroppedGet(t *testing.T) {
	c := serve(t, documents(dropping(t).addr)).dial()
	for range 4 { // within the budget of retries
		c.say(get)
		c.expect(200)
	}
}

func pingoraDroppedPost(t *testing.T) {
	for _, body := range []string{"", "cat!"} {
		s := serve(t, documents(dropping(t).addr))
		c := s.dial()
		c.open()
		c.say(post(len(body), body))
		c.expect(502)
		s.endsAfter(2, "backend_reset", 502)
		c.say(post(len(body), body))
		c.expect(200)
	}
}

func pingoraDroppedLargePost(t *testing.T) {
	body := strings.Repeat("e", 64<<10+1)
	s := serve(t, documents(dropping(t).addr))
	c := s.dial()
	c.open()
	c.say(post(len(body), body))
	c.expect(502)
	s.endsAfter(2, "backend_reset", 502)
}
