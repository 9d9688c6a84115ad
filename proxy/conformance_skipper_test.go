package proxy

import (
	"testing"
)

func skipperBehaviours() []behaviour {
	const (
		upgrade, client, request, main = "upgrade_test.go", "clienttimeout_test.go", "request_test.go", "proxy_test.go"
		timeouts, long                 = "backendtimeout_test.go", "longpoll_test.go"
	)
	return []behaviour{
		{upgrade, "TestServeHTTP", "an upgrade passes to a backend, and messages in it", holds, "", TestWebSocket},
		{upgrade, "TestServeHTTP (method)", "an upgrade may come with POST", differs, "websocket is asked for with GET; anything else is forwarded as a plain request", TestOtherUpgradesStayHere},
		{upgrade, "TestServeHTTP (rejected)", "a backend that refuses answers for itself, with its fields and its body", holds, "", TestBackendDeclinesTheUpgrade},
		{upgrade, "TestServeHTTP (101 without upgrade)", "a 101 that upgrades to nothing is a failure of the backend", holds, "", TestBackendUpgradesToSomethingElse},
		{upgrade, "TestServeHTTP (no backend)", "a backend that is down is answered for", holds, "", skipperUpgradeWithoutBackend},
		{upgrade, "TestServeHTTP (hangs)", "a backend that closes ends the client's side", holds, "", TestHalfClose},
		{upgrade, "TestValidGetUpgradeRequestCaseInsensitivity", "the words of a handshake have no case", holds, "", skipperUpgradeCase},
		{upgrade, "TestEmptyGetUpgradeRequest, TestInvalidGetUpgradeRequest", "half a request for an upgrade is none", holds, "", TestOtherUpgradesStayHere},
		{upgrade, "TestAuditLogging", "what passes can be copied into a log", nothing, "payloads are never logged", nil},
		{upgrade, "TestDialBackendHTTPSTimesOutOnStalledHandshake and its kin", "the dial for an upgrade is bounded", holds, "", TestConnectTimeout},
		{client, "TestClientTimeout", "a client that gives up ends the backend's work and is logged as such", holds, "", TestClientLeaves},
		{client, "TestClientCancellation", "so are many who leave in the middle of their uploads, each once", holds, "", skipperCutUploads},
		{client, "TestReadTimeoutSocketClosed", "an upload that stalls is answered, and its connection ends", holds, "", haproxyStalledBody},
		{client, "TestClientTimeoutBeforeStreaming", "a client that leaves before its answer is no failure of the backend", holds, "", TestClientLeaves},
		{request, "TestRequestInvalidChunkedEncoding", "broken chunks are a 400", holds, "", skipperBrokenChunks},
		{long, "TestNotifyBackendOnClosedClient", "a client that leaves is noticed in about a second, while it is waited for, in the head, in the body", holds, "", TestClientLeaves},
		{long, "TestNotifyBackendOnClosedClient (streaming)", "also while its answer streams", holds, "", TestClientLeavesInTheAnswer},
		{timeouts, "TestSlowService", "a backend that is too slow is a 504", holds, "", TestBackendEnds},
		{timeouts, "TestFastService", "one that is not is not", holds, "", TestUploadMayLastLongerThanTheWaitForAnswers},
		{timeouts, "TestBackendTimeoutInTheMiddleOfServiceResponse", "one that stalls in its answer has its answer cut", holds, "", TestBackendEndsInTheBody},
		{"backendratelimit_test.go", "TestServerShouldCloseWhenAllRequestsAreFulfilled", "the end waits for requests in flight", holds, "", linkerdDrain},
		{"lb_failingbackend_test.go", "TestConnectionRefused", "an endpoint that takes no connection is passed over", holds, "", skipperDeadEndpoint},
		{main, "TestStreaming", "an answer streams", holds, "", TestEachPieceIsPassedOnAtOnce},
		{main, "TestHostHeader", "Host arrives as the client sent it", holds, "", httputilRoundTrip},
		{main, "TestUserAgent", "User-Agent is not changed", holds, "", httputilUserAgent},
		{main, "TestHopHeaderRemoval", "hop-by-hop fields stay here", holds, "", TestRequestAsTheBackendGetsIt},
		{main, "TestHopHeaderRemovalDisabled", "unless an option lets them pass", nothing, "there is no such option", nil},
		{main, "TestFilterPanic", "a defect in the way of a request is a 500, and the process goes on", holds, "", TestDefectsAreSettledToo},
		{main, "TestResponseHeaderTimeout", "the wait for a head is bounded", holds, "", TestBackendEnds},
		{main, "TestBackendServiceUnavailable", "a 503 of the backend's passes", holds, "", skipperBackend503},
		{main, "TestRoundtripperRetry", "a connection that has gone stale is replaced unnoticed", holds, "", TestStaleConnectionIsNotSeen},
		{main, "TestAccessLogOnFailedRequest", "a request that failed is logged with its status", holds, "", TestBackendDown},
		{main, "TestBranding", "the proxy names itself in Server", differs, "a proxy that is not there: Server is the backend's, and Via has our name on the way in", skipperServer},
		{"ratelimit_test.go", "TestCheckLocalRateLimit", "what is over the limit is refused, and another client is not concerned", holds, "", nginxTwoLimits},
		{"ratelimit_test.go", "TestRetryAfterHeader", "a refusal says when to come again", holds, "", TestWhatALimitedClientIsTold},
		{"pathpatch_test.go", "TestPathPatch", "escapes in a path survive", holds, "", skipperEscapes},
	}
}

func skipperUpgradeWithoutBackend(t *testing.T) {
	s := serve(t, documents("127.0.0.1:1"))
	c := s.dial()
	c.say(upgradeTo)
	c.expect(502)
	c.say(upgradeTo)
	c.expect(502)
	s.endsAfter(2, "backend_refused", 502)
}

func skipperUpgradeCase(t *testing.T) {
	b, ends := switched(t)
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say(get11("/", "CONNECTION: uPgRaDe", "uPGRADE: WEBsocket"))
	if head, err := c.head(); err != nil || field(head, "Upgrade") != "websocket" {
		t.Fatalf("%q %v", head, err)
	}
	backend := within(t, "the backend agrees", ends)
	passes(t, c, backend, "hello")
	_ = backend.Close()
}

func skipperCutUploads(t *testing.T) {
	b := newBackend(t, func(c *peer) { _, _, _ = c.request() })
	s := serve(t, documents(b.addr))
	const clients = 50
	for range clients {
		c := s.dial()
		c.say(post(100, "truncated"))
		_ = c.Close()
	}
	for _, line := range s.logged(clients) {
		if line.text("reason") != "client_gone" || line["status"] != 499. {
			t.Errorf("%v", line)
		}
	}
	if n := s.metric("weir_upstream_requests_total", "code", "reset"); n != 0 {
		t.Errorf("%v calls are the backend's fault", n)
	}
}

func skipperBrokenChunks(t *testing.T) {
	for _, body := range []string{"!\r\nabcd\r\n0\r\n\r\n", "\r\nabcd\r\n0\r\n\r\n", "4\r\nabcd0\r\n\r\n"} {
		refused(t, 400, requestOf("POST", "/", "Transfer-Encoding: chunked")+body)
	}
}

func skipperDeadEndpoint(t *testing.T) {
	b := answering(t, ok, nil)
	s := serve(t, documents("", document("Backend", "b", `endpoints: [{address: "127.0.0.1:1", weight: 1000}, {address: "`+b.addr+`"}]`)))
	c := s.dial()
	for range 10 {
		c.say(post(2, "hi"))
		c.expect(200)
	}
}

func skipperBackend503(t *testing.T) {
	_, status, body, s := asks(t, get, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy")
	if status != "503" || body != "busy" {
		t.Errorf("%s %q", status, body)
	}
	s.ends("passed", 503)
}

func skipperServer(t *testing.T) {
	arrived := make(chan string, 1)
	c := serve(t, documents(answering(t, "HTTP/1.1 200 OK\r\nServer: legacy/1\r\nContent-Length: 2\r\n\r\nok", arrived).addr)).dial()
	c.say(get)
	if a, _ := c.expect(200); len(a.Header["Server"]) != 1 || a.Header.Get("Server") != "legacy/1" || a.Header.Get("Via") != "" {
		t.Errorf("%v", a.Header)
	}
	if head := within(t, "the backend has it", arrived); field(head, "Via") != "1.1 weir" {
		t.Errorf("%q", head)
	}
	s := serve(t, documents("127.0.0.1:1"))
	c = s.dial()
	c.say(get)
	if a, _ := c.expect(502); a.Header.Get("Server") != "" {
		t.Errorf("%v", a.Header)
	}
}

func skipperEscapes(t *testing.T) {
	head, status, _, _ := asks(t, get11("/foo%20bar/b%C3%A4z?q=%2F"), ok)
	if status != "200" || head[:len("GET /foo%20bar/b%C3%A4z?q=%2F HTTP/1.1\r\n")] != "GET /foo%20bar/b%C3%A4z?q=%2F HTTP/1.1\r\n" {
		t.Errorf("%s %q", status, head)
	}
}
