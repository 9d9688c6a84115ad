package proxy

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// short are timeouts that a test can wait for. The proxy looks for what is overdue every 100 ms.
const short = `timeouts: {connect: 60ms, response: 60ms, idleBody: 60ms}`

func shortBackend(address string) string {
	return document("Backend", "b", `endpoints: [{address: "`+address+`"}]`, short)
}

// hold is a script's end that waits for the proxy's: nothing more is said, and what comes is thrown away.
func hold(c *peer) { _, _ = c.rest() }

func TestBackendDown(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	s := serve(t, documents(address))
	c := s.dial()
	c.say(get)
	a, body := c.expect(502)
	if a.Header.Get("Proxy-Status") != "weir; error=connection_refused" || !strings.Contains(body, "Backend unreachable") {
		t.Errorf("%v %s", a.Header, body)
	}
	line := s.ends("backend_refused", 502)
	if line.text("backend") != "b" || line.text("endpoint") != address {
		t.Errorf("the log does not say who was asked: %v", line)
	}
	// The next request on the same connection works once the backend is up.
	b := newBackendOn(t, "tcp", address, func(c *peer) {
		for {
			if _, _, err := c.request(); err != nil {
				return
			}
			c.say(ok)
		}
	})
	c.say(get)
	c.expect(200)
	if b.connections() != 1 {
		t.Errorf("%d connections", b.connections())
	}
}

// TestBackendEnds is what becomes of a request when its backend fails before the client was told anything.
func TestBackendEnds(t *testing.T) {
	t.Parallel()
	f := func(answer string, closes bool, reason string, status int, proxyStatus string) {
		t.Helper()
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			c.say(answer)
			if !closes {
				hold(c)
			}
		})
		s := serve(t, documents("", shortBackend(b.addr)))
		c := s.dial()
		c.say(get)
		a, body := c.expect(status)
		if got := a.Header.Get("Proxy-Status"); got != "weir; error="+proxyStatus {
			t.Errorf("%q: Proxy-Status %q", answer, got)
		}
		if strings.Contains(body, "SECRET") {
			t.Errorf("%q: the backend's bytes are in our answer: %s", answer, body)
		}
		s.ends(reason, status)
		// It was not the client's fault: its connection lives on.
		c.open()
	}

	// The connection ends before the answer, or within its head.
	f("", true, "backend_reset", 502, "connection_terminated")
	f("HTTP/1.1 200 OK\r\nSECRET: 1\r\nContent-", true, "backend_reset", 502, "connection_terminated")
	// What comes is no answer, or one that breaks HTTP.
	f("SECRET\r\n\r\n", false, "backend_protocol", 502, "http_protocol_error")
	f("HTTP/1.1 099 SECRET\r\n\r\n", false, "backend_protocol", 502, "http_protocol_error")
	f("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", false, "backend_protocol", 502, "http_protocol_error")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n", false, "backend_protocol", 502, "http_protocol_error")
	f("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", false, "backend_protocol", 502, "http_protocol_error")
	// Nothing comes at all, or only a part of the head.
	f("", false, "response_timeout", 504, "http_response_timeout")
	f("HTTP/1.1 200 OK\r\nA: ", false, "response_timeout", 504, "http_response_timeout")
}

func TestBackendEndsAfterEarlyHints(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say(get)
	if head, err := c.head(); !strings.HasPrefix(head, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n") || err != nil {
		t.Fatalf("%q %v", head, err)
	}
	c.expect(502)
	s.ends("backend_reset", 502)
}

// TestBackendEndsInTheBody is what becomes of an answer that stops or breaks after its head was passed on.
func TestBackendEndsInTheBody(t *testing.T) {
	t.Parallel()
	f := func(further, reason string) {
		t.Helper()
		more := make(chan struct{})
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
			<-more
			c.say(further)
			hold(c)
		})
		s := serve(t, documents("", shortBackend(b.addr)))
		c := s.dial()
		c.say(get)
		if _, err := c.head(); err != nil {
			t.Fatal(err)
		}
		close(more)
		if body, err := c.rest(); err == nil || strings.Contains(body, "0\r\n\r\n") {
			t.Errorf("%q: the client gets %q, %v: want a cut", further, body, err)
		}
		s.ends(reason, 200)
	}

	f("", "body_idle_timeout")
	f("zzz", "backend_protocol")
}

func TestRequestTimeout(t *testing.T) {
	t.Parallel()
	f := func(answer, reason string, status int) {
		t.Helper()
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			c.say(answer)
			hold(c)
		})
		s := serve(t, documents(b.addr, "timeouts: {request: 60ms}"))
		c := s.dial()
		c.say(get)
		a, _, err := c.tryAnswer("GET")
		if a == nil || a.StatusCode != status || (status == 200) != (err != nil) {
			t.Errorf("%v %v, want %d", a, err, status)
		}
		s.ends(reason, status)
	}

	f("", "request_timeout", 504)
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "request_timeout", 200)
}

func TestRouteTimeoutReplacesTheSidecars(t *testing.T) {
	t.Parallel()
	b := newBackend(t, hold)
	s := serve(t, documents(b.addr, "timeouts: {request: 1h}", document("Route", "r", "match: [{path: /*}]", "backend: b", "timeout: 60ms")))
	c := s.dial()
	c.say(get)
	c.expect(504)
	s.ends("request_timeout", 504)
}

func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	// A listener whose queue is full takes no connection.
	ln := fullListener(t)
	s := serve(t, documents("", shortBackend(ln)))
	c := s.dial()
	c.say(get)
	c.expect(504)
	s.ends("connect_timeout", 504)
}

func TestPoolFull(t *testing.T) {
	t.Parallel()
	held := make(chan struct{})
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		held <- struct{}{}
		<-held
		c.say(ok)
	})
	s := serve(t, documents("", document("Backend", "b", `endpoints: [{address: "`+b.addr+`"}]`, "pool: {maxConnections: 1}")))
	first := s.dial()
	first.say(get)
	within(t, "the backend is busy", held)
	c := s.dial()
	c.say(get)
	c.expect(503)
	if line := s.logged(1)[0]; line.text("reason") != "pool_full" || line.text("backend") != "b" {
		t.Errorf("%v", line)
	}
	held <- struct{}{}
	first.expect(200)
}

func TestClientLeaves(t *testing.T) {
	t.Parallel()
	f := func(network string, leave func(c *peer)) {
		t.Helper()
		asked, cancelled := make(chan struct{}), make(chan struct{})
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			close(asked)
			hold(c)
			close(cancelled)
		})
		text := documents(b.addr)
		if network == "unix" {
			text = strings.Replace(text, "127.0.0.1:0", "unix:"+t.TempDir()+"/s", 1)
		}
		s := serve(t, text)
		c := s.dial()
		c.say(get)
		within(t, "the backend is asked", asked)
		left := time.Now()
		leave(c)
		within(t, "the call is cancelled", cancelled)
		if took := time.Since(left); took > time.Second {
			t.Errorf("cancelled after %v", took)
		}
		if line := s.ends("client_gone", 499); line.text("cause") != "peer_gone" {
			t.Errorf("%v", line)
		}
		if s.metric("weir_upstream_requests_total", "code", "canceled") != 1 || s.metric("weir_upstream_requests_total") != 1 {
			t.Error("it is not counted as cancelled alone")
		}
	}

	f("tcp", func(c *peer) { _ = c.Close() })
	f("tcp", func(c *peer) { _ = c.Conn.(*net.TCPConn).SetLinger(0); _ = c.Close() })
	f("tcp", func(c *peer) { _ = c.Conn.(*net.TCPConn).CloseWrite() })
	f("unix", func(c *peer) { _ = c.Close() })
	// While further requests wait behind the first.
	f("tcp", func(c *peer) { c.say(get, get); _ = c.Close() })
}

func TestClientLeavesInTheAnswer(t *testing.T) {
	t.Parallel()
	cancelled := make(chan struct{})
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
		hold(c)
		close(cancelled)
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say(get)
	if _, err := c.head(); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	within(t, "the call is cancelled", cancelled)
	s.ends("client_gone", 499)
}

func TestClientLeavesInItsUpload(t *testing.T) {
	t.Parallel()
	f := func(request string, leave func(c *peer), reason, cause string, status int) {
		t.Helper()
		got := make(chan string)
		begun := make(chan struct{})
		b := newBackend(t, func(c *peer) {
			head, _ := c.head()
			close(begun)
			rest, _ := c.rest()
			got <- head + rest
		})
		s := serve(t, documents(b.addr))
		c := s.dial()
		c.say(request)
		within(t, "the upload has begun", begun)
		leave(c)
		all := within(t, "the backend sees the end", got)
		if strings.Contains(all, "0\r\n\r\n") || strings.HasSuffix(all, "hello") {
			t.Errorf("half an upload looks whole: %q", all)
		}
		if status != 499 {
			c.expect(status)
			c.closed()
		}
		if line := s.ends(reason, status); line.text("cause") != cause {
			t.Errorf("%v, want cause %s", line, cause)
		}
		if s.metric("weir_upstream_requests_total", "code", "canceled") != 1 || s.metric("weir_upstream_requests_total") != 1 {
			t.Error("it is not counted as cancelled alone")
		}
	}
	const chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"

	// It leaves in the middle, also between two chunks, where its end would be easy to take for the body's.
	f(post(5, "hel"), func(c *peer) { _ = c.Close() }, "client_gone", "body_cut", 499)
	f(chunked, func(c *peer) { _ = c.Close() }, "client_gone", "body_cut", 499)
	f(chunked, func(c *peer) { _ = c.Conn.(*net.TCPConn).CloseWrite() }, "client_gone", "body_cut", 499)
	f(chunked, func(c *peer) { c.say("0\r\n"); _ = c.Conn.(*net.TCPConn).CloseWrite() }, "client_gone", "body_cut", 499)
	// It sends something that is no chunk.
	f(chunked, func(c *peer) { c.say("zz\r\n") }, "client_body", "bad_chunk", 400)
	f(chunked, func(c *peer) { c.say("-1\r\n") }, "client_body", "bad_chunk", 400)
	f(chunked, func(c *peer) { c.say("0\r\nbad trailer\r\n\r\n") }, "client_body", "bad_trailer", 400)
}

func TestBadBodyThatCameWithTheHeadReachesNoBackend(t *testing.T) {
	t.Parallel()
	b := answering(t, ok, nil)
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcde\r\n")
	c.expect(400)
	c.closed()
	line := s.ends("client_body", 400)
	if line["backend"] != nil || b.connections() != 0 {
		t.Errorf("%v, %d connections", line, b.connections())
	}
}

func TestBodyTooLong(t *testing.T) {
	t.Parallel()
	b := newBackend(t, hold)
	s := serve(t, documents(b.addr, "bounds: {bodyBytes: 4}"))
	// Announced: refused at once. In chunks: where it goes over, also when it comes later.
	for i, parts := range [][]string{
		{post(5, "hello")},
		{"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n", "1\r\no\r\n0\r\n\r\n"},
	} {
		c := s.dial()
		before := b.connections()
		c.say(parts[0])
		for _, p := range parts[1:] {
			until(t, "the backend is connected", func() bool { return b.connections() > before })
			c.say(p)
		}
		c.expect(413)
		c.closed()
		s.endsAfter(i+1, "client_body_too_long", 413)
	}
}

func TestEarlyAnswerToAnUpload(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say(answer)
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say(post(64<<20, ""))
	sent := make(chan struct{})
	go func() { // a client that sends on and on, until it is told not to
		defer close(sent)
		piece := strings.Repeat("x", 32<<10)
		for range 64 << 20 / len(piece) {
			if _, err := c.Write([]byte(piece)); err != nil {
				return
			}
		}
	}()
	a, body := c.answer("POST")
	if a.StatusCode != 413 || body != "no" || !a.Close {
		t.Errorf("%d %q %v, want the backend's 413 and the connection's end", a.StatusCode, body, a.Header)
	}
	s.ends("passed", 413)
	_ = c.Close()
	within(t, "the client has stopped", sent)
}

func TestContinueIsDecidedByTheLimiter(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	b := answering(t, ok, got)
	s := serve(t, documents(b.addr, document("TenantPolicy", "one", "tenants: {any: true}", "limits: [{name: l, requests: 1, per: 1h}]")))
	const request = "POST / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

	c := s.dial()
	c.say(request)
	if head, err := c.head(); head != "HTTP/1.1 100 Continue\r\n\r\n" || err != nil {
		t.Fatalf("%q %v", head, err)
	}
	c.say("hello")
	c.expect(200)
	if request := within(t, "the backend has it", got); !strings.HasSuffix(request, "\r\n\r\nhello") || strings.Contains(request, "Expect") {
		t.Errorf("%q", request)
	}
	// The next is over the limit: no 100, so no body.
	c.say(request)
	c.expect(429)
	c.closed()
	s.logged(2)
	// A client that does not wait for 100 gets none.
	c = s.dial()
	c.say(strings.Replace(request, "acme", "other", 1), "hello")
	if a, _ := c.answer("POST"); a.StatusCode != 200 {
		t.Errorf("%d", a.StatusCode)
	}
}

func TestDeniedClientThatStillSendsReadsItsAnswer(t *testing.T) {
	t.Parallel()
	s := serve(t, documents(answering(t, ok, nil).addr, document("TenantPolicy", "none", "tenants: {any: true}", "limits: [{name: l, requests: 0, per: 1h}]")))
	for range 20 {
		c := s.dial()
		c.say(post(1<<20, strings.Repeat("x", 60<<10)))
		if a, _ := c.answer("POST"); a.StatusCode != 403 || !a.Close {
			t.Fatalf("%d %v", a.StatusCode, a.Header)
		}
		_ = c.Close()
	}
}

func TestSlowHead(t *testing.T) {
	t.Parallel()
	s := serve(t, documents("127.0.0.1:1", "timeouts: {header: 60ms, idle: 1h}"))
	c := s.dial()
	c.say("GET / HTTP/1.1\r\nHost")
	a, _ := c.expect(408)
	if !a.Close || a.Header.Get("Date") == "" {
		t.Errorf("%v", a.Header)
	}
	c.closed()
	if line := s.ends("client_timeout", 408); line.text("cause") != "head_timeout" {
		t.Errorf("%v", line)
	}
}

func TestIdleConnectionIsClosedWithoutAWord(t *testing.T) {
	t.Parallel()
	s := serve(t, documents(answering(t, ok, nil).addr, "timeouts: {idle: 60ms}"))
	c := s.dial()
	c.open()
	c.closed()
	if n := s.requests(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestHalfAHead(t *testing.T) {
	t.Parallel()
	s := serve(t, documents("127.0.0.1:1"))
	c := s.dial()
	c.say("GET / HTTP/1.1\r\nHo")
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	c.closed()
	if line := s.ends("client_gone", 499); line.text("cause") != "truncated_head" {
		t.Errorf("%v", line)
	}
}

// TestBrokenRequests is one of each sort; all of them are in the wire's own tests.
func TestBrokenRequests(t *testing.T) {
	t.Parallel()
	f := func(request string, status int, cause string) {
		t.Helper()
		s := serve(t, documents("127.0.0.1:1"))
		c := s.dial()
		c.say(request)
		a, _ := c.expect(status)
		c.closed()
		if a.Header.Get("Date") == "" || a.Header.Get("X-Request-Id") == "" || !a.Close {
			t.Errorf("%v", a.Header)
		}
		if (status == http.StatusMethodNotAllowed) != (a.Header.Get("Allow") != "") {
			t.Errorf("%d with Allow %q", status, a.Header.Get("Allow"))
		}
		if line := s.ends("bad_request", status); line.text("cause") != cause {
			t.Errorf("%v, want cause %s", line, cause)
		}
		if got := s.metric("weir_wire_rejected_total", "cause", cause); got != 1 {
			t.Errorf("%v refused for %s", got, cause)
		}
	}

	f("GET /\r\n\r\n", 400, "bad_request_line")
	f("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 405, "method_not_allowed")
	f("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, "bad_version")
	f("GET /"+strings.Repeat("x", 9<<10)+" HTTP/1.1\r\nHost: h\r\n\r\n", 414, "target_too_long")
	f("GET / HTTP/1.1\r\nHost: h\r\n"+strings.Repeat("A: b\r\n", 101)+"\r\n", 431, "too_many_fields")
	f("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "length_and_encoding")
	f("POST / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n", 417, "bad_expect")
}

// TestUploadMayLastLongerThanTheWaitForAnswers: the answer is due once the request was sent.
func TestUploadMayLastLongerThanTheWaitForAnswers(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	b := newBackend(t, func(c *peer) {
		head, body, _ := c.request()
		c.say(ok)
		got <- head + body
	})
	s := serve(t, documents("", shortBackend(b.addr)))
	c := s.dial()
	c.say(post(4, "a"))
	tick := time.NewTicker(120 * time.Millisecond) // twice the timeout
	defer tick.Stop()
	for _, piece := range []string{"b", "c", "d"} {
		<-tick.C
		c.say(piece)
	}
	c.expect(200)
	if all := within(t, "the backend has it", got); !strings.HasSuffix(all, "\r\n\r\nabcd") {
		t.Errorf("%q", all)
	}
	s.ends("passed", 200)
}

// TestAnswerIsDueAfterASlowUpload: the clock does run once the upload is done.
func TestAnswerIsDueAfterASlowUpload(t *testing.T) {
	t.Parallel()
	b := newBackend(t, hold)
	s := serve(t, documents("", shortBackend(b.addr)))
	c := s.dial()
	c.say(post(2, "a"))
	until(t, "the backend is connected", func() bool { return b.connections() == 1 })
	c.say("b")
	c.expect(504)
	s.ends("response_timeout", 504)
}

func TestStaleConnectionIsNotSeen(t *testing.T) {
	t.Parallel()
	// The backend closes each connection after one answer, without a word of it before. What may be repeated never fails.
	b := newBackend(t, func(c *peer) {
		if _, _, err := c.request(); err == nil {
			c.say(ok)
		}
	})
	c := serve(t, documents(b.addr)).dial()
	for range 100 {
		c.say(get)
		c.expect(200)
	}
	// A request that may not be is at least not sent on a connection that is known to be closed.
	closed := make(chan struct{}, 1)
	b = newBackend(t, func(c *peer) {
		if _, _, err := c.request(); err == nil {
			c.say(ok)
			_ = c.Close()
			closed <- struct{}{}
		}
	})
	c = serve(t, documents(b.addr)).dial()
	for range 10 {
		c.say(post(2, "hi"))
		c.expect(200)
		within(t, "the backend has closed", closed)
	}
}

func TestClientLeavesWhileItsAnswerIsWritten(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
		piece := make([]byte, 1<<20)
		for {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say(get)
	if _, err := c.take(1000); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if line := s.ends("client_gone", 499); line["bytes_out"].(float64) <= 0 {
		t.Errorf("%v", line)
	}
}

// TestRequestTimeoutOfAClientThatDoesNotRead: not even it gets more time than others.
func TestRequestTimeoutOfAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		pour(c, 1000000000, false)
	})
	s := serve(t, documents(b.addr, "timeouts: {request: 100ms}"))
	s.dial().say(get)
	s.ends("request_timeout", 504)
}

// deaf is a connection that takes not one byte.
type deaf struct{ net.Conn }

func (deaf) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// TestRequestsThatNobodyReadAreSentAgain, whatever they are, but not for ever.
func TestRequestsThatNobodyReadAreSentAgain(t *testing.T) {
	t.Parallel()
	f := func(deafOnes int, request string, status int, dials int64) {
		t.Helper()
		b := answering(t, ok, nil)
		var dialled atomic.Int64
		s := start(t, compile(t, documents(b.addr)), SystemClock(), nil, func(p *Proxy) {
			p.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				nc, err := new(net.Dialer).DialContext(ctx, network, address)
				if dialled.Add(1) <= int64(deafOnes) && err == nil {
					nc = deaf{nc}
				}
				return nc, err
			}
		})
		c := s.dial()
		c.say(request)
		c.expect(status)
		if dialled.Load() != dials {
			t.Errorf("%d dials, want %d", dialled.Load(), dials)
		}
		s.ends(map[int]string{200: "passed", 502: "backend_reset"}[status], status)
	}

	for _, request := range []string{get, post(5, "hello"), post(100_000, strings.Repeat("x", 100_000))} {
		f(0, request, 200, 1)
		f(maxReplays, request, 200, maxReplays+1)
		f(maxReplays+1, request, 502, maxReplays+1)
	}
}
