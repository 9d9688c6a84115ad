package proxy

import (
	"strings"
	"testing"
)

func linkerdBehaviours() []behaviour {
	const (
		transparency, shutdown, telemetry = "transparency.rs", "shutdown.rs", "telemetry.rs"
		onlyHTTP                          = "only HTTP/1.1 and HTTP/1.0 are spoken"
		discovery                         = "there is no such control plane"
		ofLibrary                         = "the exposition is the Prometheus library's"
	)
	return []behaviour{
		{transparency, "inbound_http1, outbound_http1", "a plain request and its answer pass", holds, "", linkerdPlain},
		{transparency, "inbound_tcp, outbound_tcp and their kin", "what is no HTTP passes as bytes, also where the server speaks first", nothing, onlyHTTP, nil},
		{transparency, "loop_outbound_http1, loop_inbound_http1", "a proxy does not forward to itself", later, "nobody looks for a loop in Via yet; each turn adds a field to it, so that a loop ends at bounds.headerCount with 431", nil},
		{transparency, "tcp_connections_close_if_client_closes", "the backend sees that the client has closed", holds, "", httputilClosedTunnel},
		{transparency, "http1_removes_connection_headers", "hop-by-hop fields, and those that Connection names, stay here both ways", holds, "", httputilNominated},
		{transparency, "http10_with_host", "an HTTP/1.0 request keeps its Host", holds, "", linkerdOldHost},
		{transparency, "http10_with_host (version)", "its version passes both ways", differs, "each side is spoken to in HTTP/1.1, with what an old client can read", linkerdOldHost},
		{transparency, "http11_absolute_uri_differs_from_host", "an absolute target passes, whatever Host says", differs, "they must be alike, or limiter and backend may see two hosts", haproxyHostMismatch},
		{transparency, "http11_upgrades", "any upgrade passes", differs, "only websocket does", TestOtherUpgradesStayHere},
		{transparency, "l5d_orig_proto_header_isnt_leaked", "a field that two proxies use among themselves does not leak", nothing, "there is no such field", nil},
		{transparency, "http11_upgrade_h2_stripped", "h2c and its settings never reach a backend", holds, "", TestOtherUpgradesStayHere},
		{transparency, "http11_connect", "CONNECT opens a tunnel", differs, "a reverse proxy opens none: 405", haproxyConnect},
		{transparency, "http11_connect_headers_stripped", "an answer to CONNECT has no framing", nothing, "CONNECT is refused", nil},
		{transparency, "http11_connect_bad_requests", "a target of another method's form is refused", holds, "", linkerdBadTargets},
		{transparency, "http1_request_with_body_content_length", "Content-Length arrives", holds, "", linkerdFraming},
		{transparency, "http1_request_with_body_chunked", "so do chunks, both ways", holds, "", linkerdFraming},
		{transparency, "http1_requests_without_body_doesnt_add_transfer_encoding", "no framing is invented for a request without a body, whatever the method", holds, "", linkerdNoFraming},
		{transparency, "http1_content_length_zero_is_preserved", "Content-Length: 0 arrives, both ways", holds, "", linkerdLengthZero},
		{transparency, "http1_bodyless_responses", "answers that have no body get no framing of one", holds, "", TestAnswerAsTheClientGetsIt},
		{transparency, "http1_head_responses", "the answer to HEAD keeps its Content-Length", holds, "", TestAnswerAsTheClientGetsIt},
		{transparency, "http1_response_end_of_file", "an answer that ends with its connection passes; an old client learns its end the same way", holds, "", TestAnswerAsTheClientGetsIt},
		{shutdown, "h2_goaways_connections, h2_exercise_goaways_connections", "answers under way are whole when the proxy ends", holds, "", linkerdDrain},
		{shutdown, "http1_closes_idle_connections", "the connection of an answer under way ends after it", holds, "", linkerdDrain},
		{shutdown, "tcp_waits_for_proxies_to_close", "a tunnel may end by itself first", holds, "", TestDrainOfTunnels},
		{telemetry, "admin_request_count, admin_transport_metrics", "the admin port's own requests are counted", differs, "metrics are of the clients' requests alone", linkerdCounts},
		{telemetry, "metrics_endpoint_inbound_request_count and its kin", "each request is counted once it is seen", differs, "once it has ended: what is counted has a reason and a class", linkerdCounts},
		{telemetry, "response_classification", "answers are counted by their class", holds, "", linkerdCounts},
		{telemetry, "response_latency", "durations are counted once for each request", holds, "", linkerdCounts},
		{telemetry, "outbound_dst_labels", "labels come from discovery", nothing, discovery, nil},
		{telemetry, "metrics_have_no_double_commas", "the exposition is well formed", nothing, ofLibrary, nil},
		{telemetry, "metrics_has_start_time", "the process says when it began", nothing, ofLibrary, nil},
		{telemetry, "metrics_compression", "the exposition may be compressed", nothing, ofLibrary, nil},
		{telemetry, "transport (connections)", "connections are counted when they open, and no more when they close", holds, "", linkerdConnections},
		{telemetry, "transport (connects)", "a connection that is used again is not counted again", holds, "", linkerdConnections},
		{telemetry, "transport (bytes)", "bytes are counted both ways", holds, "", linkerdBytes},
	}
}

func linkerdPlain(t *testing.T) {
	if _, status, body, _ := asks(t, get, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhello h1"); status != "200" || body != "hello h1" {
		t.Errorf("%s %q", status, body)
	}
}

func linkerdOldHost(t *testing.T) {
	const answer = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
	arrived := make(chan string, 1)
	c := serve(t, documents(answering(t, answer, arrived).addr)).dial()
	c.say("GET / HTTP/1.0\r\nHost: transparency.test\r\n\r\n")
	a, _ := c.expect(200)
	if a.ProtoMinor != 1 || !a.Close {
		t.Errorf("the client got HTTP/1.%d, close %v", a.ProtoMinor, a.Close)
	}
	head := within(t, "the backend has it", arrived)
	if !strings.HasPrefix(head, "GET / HTTP/1.1\r\n") || field(head, "Host") != "transparency.test" {
		t.Errorf("%q", head)
	}
}

func linkerdBadTargets(t *testing.T) {
	refused(t, 405,
		requestOf("CONNECT", "/origin-form", "Host: test"), requestOf("CONNECT", "/", "Host: test"), requestOf("CONNECT", "http://test/bar", "Host: test"),
		requestOf("CONNECT", "http://test", "Host: test"), requestOf("CONNECT", "*", "Host: test"), "CONNECT test HTTP/1.0\r\nHost: test\r\n\r\n")
	refused(t, 400, get11("test", "Host: test"))
}

func linkerdFraming(t *testing.T) {
	got, status, _, _ := asks(t, requestOf("POST", "/", "Content-Length: 5")+"hello", ok)
	if status != "200" || field(got, "Content-Length") != "5" || !strings.HasSuffix(got, "\r\n\r\nhello") {
		t.Errorf("%s %q", status, got)
	}
	got, status, body, _ := asks(t, requestOf("POST", "/", "Transfer-Encoding: chunked")+"5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nworld\r\n0\r\n\r\n")
	if status != "200" || body != "world" || field(got, "Transfer-Encoding") != "chunked" || !strings.HasSuffix(got, "\r\n\r\n5\r\nhello\r\n0\r\n\r\n") {
		t.Errorf("%s %q %q", status, body, got)
	}
}

var withoutBody = []string{"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"}

func linkerdNoFraming(t *testing.T) {
	const answer = "HTTP/1.1 204 No Content\r\n\r\n"
	for _, method := range withoutBody {
		head, status, _, _ := asks(t, requestOf(method, "/"), answer)
		if status != "204" {
			t.Errorf("%s: %s", method, status)
		}
		lacks(t, head, "Transfer-Encoding", "Content-Length")
	}
}

func linkerdLengthZero(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for _, method := range withoutBody {
		arrived := make(chan string, 1)
		c := serve(t, documents(answering(t, answer, arrived).addr)).dial()
		c.say(requestOf(method, "/", "Content-Length: 0"))
		back, err := c.head()
		if err != nil || field(back, "Content-Length") != "0" {
			t.Errorf("%s: the client got %q %v", method, back, err)
		}
		if head := within(t, "the backend has it", arrived); field(head, "Content-Length") != "0" {
			t.Errorf("%s: the backend got %q", method, head)
		}
	}
}

func linkerdDrain(t *testing.T) {
	body := strings.Repeat("1", 16<<10)
	asked, release := make(chan struct{}), make(chan struct{})
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		close(asked)
		<-release
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 16384\r\n\r\n", body[:100])
		c.say(body[100:])
		hold(c)
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say(get)
	within(t, "the backend is asked", asked)
	s.end()
	until(t, "the drain has begun", s.Draining)
	close(release)
	if a, got := c.expect(200); got != body || !a.Close {
		t.Errorf("%d bytes, close %v", len(got), a.Close)
	}
	c.closed()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func linkerdCounts(t *testing.T) {
	b := newBackend(t, func(c *peer) {
		for {
			head, _, err := c.request()
			if err != nil {
				return
			}
			c.say("HTTP/1.1 " + field(head, "X-Status") + " Status\r\nContent-Length: 0\r\n\r\n")
		}
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	classes := map[string]int{}
	for i, status := range []string{"200", "200", "301", "404", "404", "404", "500"} {
		c.say(get11("/", "X-Status: "+status))
		c.answer("GET")
		s.logged(i + 1)
		classes[status[:1]+"xx"]++
		for class, n := range classes {
			if got := s.requests("code", class, "route", "b", "reason", "passed"); got != n {
				t.Fatalf("%d requests of %s after %d", got, class, n)
			}
		}
		if n := s.metric("weir_request_duration_seconds", "route", "b"); n != float64(i+1) {
			t.Fatalf("%v durations after %d requests", n, i+1)
		}
	}
}

func linkerdConnections(t *testing.T) {
	s := serve(t, documents(answering(t, ok, nil).addr))
	open := func(n float64) {
		t.Helper()
		until(t, "the clients' connections are counted", func() bool { return s.metric("weir_client_connections") == n })
	}
	open(0)
	a, b := s.dial(), s.dial()
	open(2)
	for i := range 3 {
		a.open()
		s.logged(2*i + 1) // by then its connection to the backend is free
		b.open()
		s.logged(2*i + 2)
	}
	if n := s.metric("weir_upstream_dials_total"); n != 1 {
		t.Errorf("%v dials for requests that came one by one", n)
	}
	if n := s.metric("weir_upstream_connections"); n != 1 {
		t.Errorf("%v connections to the backend", n)
	}
	_ = a.Close()
	open(1)
	_ = b.Close()
	open(0)
}

func linkerdBytes(t *testing.T) {
	_, _, _, s := asks(t, post(5, "hello"), "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nhello h")
	line := s.ends("passed", 200)
	if line["bytes_in"] != 5. || line["bytes_out"] != 7. {
		t.Errorf("%v", line)
	}
}
