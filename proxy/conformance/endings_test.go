package conformance

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
)

// ending is one way in which a request can end without the whole answer of a backend.
type ending struct {
	name string
	// What is special about the documents: fields of the Sidecar's and of the Backend's spec, and a policy.
	sidecar, backend, policy string
	// script is what the backend does once a request is there whole; nil: it answers.
	script func(c *backendConn)
	// client is what the client does.
	client func(c *client)

	status                   int
	reason, by, phase, cause string // as the log and the metrics have it
	upstream                 string // the one code that the backend's counters have; empty: none
	proxyStatus              string // error in Proxy-Status; empty: the client gets no answer of ours
	cuts                     bool   // the process ends with it
}

// client is the client's side of an ending.
type client struct {
	t *testing.T
	*net.TCPConn
	s *sidecar
	b *backend
}

func (c *client) say(parts ...string) {
	for _, p := range parts {
		if _, err := io.WriteString(c.TCPConn, p); err != nil {
			c.t.Fatal(err)
		}
	}
}

// reached waits until the backend has got a text.
func (c *client) reached(text string) {
	until(c.t, func() string { return fmt.Sprintf("%q at the backend", text) }, func() bool {
		for _, bc := range c.b.all() {
			if in, _ := bc.received(); strings.Contains(in, text) {
				return true
			}
		}
		return false
	})
}

// reads waits until the client has got a text.
func (c *client) reads(text string) {
	got, buf := "", make([]byte, 1024)
	for !strings.Contains(got, text) {
		n, err := c.Read(buf)
		if got += string(buf[:n]); err != nil {
			c.t.Fatalf("%v after %q", err, got)
		}
	}
}

// leaves closes with an RST, hangsUp in order.
func (c *client) leaves()  { _ = c.SetLinger(0); _ = c.Close() }
func (c *client) hangsUp() { _ = c.CloseWrite() }

const (
	getRequest  = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
	postHead    = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n"
	chunkedHead = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
	okChunks    = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
)

func asks(c *client) { c.say(getRequest) }

func says(raw string) func(*backendConn) { return func(c *backendConn) { c.say(raw) } }

func saysAndShuts(raw string) func(*backendConn) {
	return func(c *backendConn) { c.say(raw); c.finish() }
}

func silent(*backendConn) {}

func endings(t *testing.T) []ending {
	nobody, full := freeAddress(t), fullListener(t)
	quick := "timeouts: {response: 200ms, idleBody: 200ms}"
	return []ending{
		// The client breaks a rule, in the head and in the body, before and after a backend is asked.
		{name: "bad field", client: func(c *client) { c.say("GET / HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n") },
			status: 400, reason: "bad_request", by: "client", phase: "request_head", cause: "space_before_colon", proxyStatus: "http_request_error"},
		{name: "bad version", client: func(c *client) { c.say("GET / HTTP/3.0\r\nHost: a.test\r\n\r\n") },
			status: 505, reason: "bad_request", by: "client", phase: "request_head", cause: "bad_version", proxyStatus: "http_request_error"},
		{name: "two identities", client: func(c *client) { c.say("GET / HTTP/1.1\r\nHost: a.test\r\nX-Tenant-Id: a\r\nX-Tenant-Id: b\r\n\r\n") },
			status: 400, reason: "bad_request", by: "client", phase: "request_head", cause: "bad_identity", proxyStatus: "http_request_error"},
		{name: "declared body too long", sidecar: "bounds: {bodyBytes: 5}", client: func(c *client) { c.say(postHead) },
			status: 413, reason: "client_body_too_long", by: "client", phase: "request_head", cause: "body_too_long", proxyStatus: "http_request_error"},
		{name: "broken body that came at once", client: func(c *client) { c.say(chunkedHead + "zz\r\n") },
			status: 400, reason: "client_body", by: "client", phase: "request_body", cause: "bad_chunk", proxyStatus: "http_request_error"},
		{name: "broken body that came later", client: func(c *client) { c.say(chunkedHead + "5\r\nhello\r\n"); c.reached("hello"); c.say("zz\r\n") },
			status: 400, reason: "client_body", by: "client", phase: "request_body", cause: "bad_chunk", upstream: "canceled", proxyStatus: "http_request_error"},
		{name: "body too long in the end", sidecar: "bounds: {bodyBytes: 5}",
			client: func(c *client) { c.say(chunkedHead + "5\r\nhello\r\n"); c.reached("hello"); c.say("1\r\nx\r\n") },
			status: 413, reason: "client_body_too_long", by: "client", phase: "request_body", cause: "body_too_long", upstream: "canceled", proxyStatus: "http_request_error"},
		// The client leaves or stalls.
		{name: "leaves in its head", client: func(c *client) { c.say("GET / HTTP/1.1\r\nHost: a"); c.hangsUp() },
			status: 499, reason: "client_gone", by: "client", phase: "request_head", cause: "truncated_head"},
		{name: "stalls in its head", sidecar: "timeouts: {header: 300ms}", client: func(c *client) { c.say("GET / HTTP/1.1\r\nHost: a") },
			status: 408, reason: "client_timeout", by: "client", phase: "request_head", cause: "head_timeout", proxyStatus: "http_request_error"},
		{name: "hangs up in its body", client: func(c *client) { c.say(postHead + "hello"); c.reached("hello"); c.hangsUp() },
			status: 499, reason: "client_gone", by: "client", phase: "request_body", cause: "body_cut", upstream: "canceled"},
		{name: "leaves in its body", client: func(c *client) { c.say(postHead + "hello"); c.reached("hello"); c.leaves() },
			status: 499, reason: "client_gone", by: "client", phase: "request_body", cause: "peer_gone", upstream: "canceled"},
		{name: "leaves while it waits", script: silent, client: func(c *client) { asks(c); c.reached("GET /"); c.leaves() },
			status: 499, reason: "client_gone", by: "client", phase: "response_head", cause: "peer_gone", upstream: "canceled"},
		{name: "hangs up while it waits", script: silent, client: func(c *client) { asks(c); c.reached("GET /"); c.hangsUp() },
			status: 499, reason: "client_gone", by: "client", phase: "response_head", cause: "peer_gone", upstream: "canceled"},
		{name: "leaves in the answer",
			script: func(c *backendConn) {
				c.say(okChunks)
				for err := error(nil); err == nil; { // until the sidecar has given up
					_, err = io.WriteString(c.Conn, "400\r\n"+strings.Repeat("x", 1024)+"\r\n")
				}
			},
			client: func(c *client) { asks(c); c.reads("hello"); c.leaves() },
			status: 499, reason: "client_gone", by: "client", phase: "response_body", cause: "peer_gone", upstream: "canceled"},
		{name: "leaves after an upgrade", script: says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello"),
			client: func(c *client) { c.say(asked["upgrade"]); c.reads("hello"); c.leaves() },
			status: 499, reason: "client_gone", by: "client", phase: "upgraded", cause: "peer_gone", upstream: "canceled"},
		// The backend cannot be reached.
		{name: "backend refuses", backend: `endpoints: [{address: "` + nobody + `"}]`, client: asks,
			status: 502, reason: "backend_refused", by: "backend", phase: "connect", cause: "connect_refused", upstream: "connect_refused", proxyStatus: "connection_refused"},
		{name: "backend does not accept", backend: `endpoints: [{address: "` + full + `"}], timeouts: {connect: 200ms}`, client: asks,
			status: 504, reason: "connect_timeout", by: "backend", phase: "connect", cause: "connect_timeout", upstream: "connect_timeout", proxyStatus: "connection_timeout"},
		{name: "pool is full", backend: "pool: {maxConnections: 1}", script: silent,
			client: func(c *client) {
				other, err := net.Dial("tcp", c.s.addr)
				if err != nil {
					c.t.Fatal(err)
				}
				c.t.Cleanup(func() { _ = other.Close() })
				_, _ = io.WriteString(other, getRequest)
				c.reached("GET /")
				c.say(getRequest)
			},
			status: 503, reason: "pool_full", by: "proxy", phase: "connect", cause: "pool_full", upstream: "pool_full", proxyStatus: "connection_limit_reached"},
		// The backend breaks off, breaks HTTP or stalls, before and in its answer.
		{name: "backend closes before its answer", script: saysAndShuts(""), client: asks,
			status: 502, reason: "backend_reset", by: "backend", phase: "response_head", cause: "reset", upstream: "reset", proxyStatus: "connection_terminated"},
		{name: "backend resets before its answer", script: (*backendConn).reset, client: asks,
			status: 502, reason: "backend_reset", by: "backend", phase: "response_head", cause: "reset", upstream: "reset", proxyStatus: "connection_terminated"},
		{name: "backend closes in its head", script: saysAndShuts("HTTP/1.1 200 OK\r\nX:"), client: asks,
			status: 502, reason: "backend_reset", by: "backend", phase: "response_head", cause: "truncated", upstream: "truncated", proxyStatus: "connection_terminated"},
		{name: "backend closes in its body", script: saysAndShuts(okChunks), client: asks,
			status: 200, reason: "backend_reset", by: "backend", phase: "response_body", cause: "truncated", upstream: "truncated"},
		{name: "backend breaks HTTP in its head", script: says("HTTP/1.1 099 X\r\n\r\n"), client: asks,
			status: 502, reason: "backend_protocol", by: "backend", phase: "response_head", cause: "protocol", upstream: "protocol", proxyStatus: "http_protocol_error"},
		{name: "backend breaks HTTP in its body", script: says(okChunks), client: func(c *client) { asks(c); c.reads("hello"); c.b.all()[0].say("zz\r\n") },
			status: 200, reason: "backend_protocol", by: "backend", phase: "response_body", cause: "protocol", upstream: "protocol"},
		{name: "backend says nothing", backend: quick, script: silent, client: asks,
			status: 504, reason: "response_timeout", by: "backend", phase: "response_head", cause: "response_timeout", upstream: "response_timeout", proxyStatus: "http_response_timeout"},
		{name: "backend stalls in its body", backend: quick, script: says(okChunks), client: asks,
			status: 200, reason: "body_idle_timeout", by: "backend", phase: "response_body", cause: "body_idle", upstream: "body_idle"},
		{name: "the whole takes too long", sidecar: "timeouts: {request: 200ms}", script: silent, client: asks,
			status: 504, reason: "request_timeout", by: "proxy", phase: "response_head", cause: "request_timeout", upstream: "request_timeout", proxyStatus: "http_response_timeout"},
		{name: "the answer takes too long", sidecar: "timeouts: {request: 200ms}", script: says(okChunks), client: asks,
			status: 200, reason: "request_timeout", by: "proxy", phase: "response_body", cause: "request_timeout", upstream: "request_timeout"},
		// Policy says no.
		{name: "blocked", policy: "limits: [{name: l, requests: 0}]", client: asks,
			status: 403, reason: "blocked", by: "policy", phase: "decision", proxyStatus: "http_request_denied"},
		{name: "limited", policy: "limits: [{name: l, requests: 1, per: 1h}]", client: func(c *client) { asks(c); c.reads("ok"); asks(c) },
			status: 429, reason: "limited", by: "policy", phase: "decision", proxyStatus: "http_request_denied", upstream: "2xx"},
		{name: "too many at once", policy: "concurrency: {max: 1}", script: silent,
			client: func(c *client) {
				other, err := net.Dial("tcp", c.s.addr)
				if err != nil {
					c.t.Fatal(err)
				}
				c.t.Cleanup(func() { _ = other.Close() })
				_, _ = io.WriteString(other, getRequest)
				c.reached("GET /")
				c.say(getRequest)
			},
			status: 429, reason: "concurrency", by: "policy", phase: "decision", proxyStatus: "http_request_denied"},
		{name: "no identity", sidecar: "unknownTenant: Deny", client: asks,
			status: 401, reason: "no_identity", by: "policy", phase: "decision", proxyStatus: "http_request_denied"},
		{name: "unknown tenant", sidecar: "unknownTenant: Deny", policy: "-", client: func(c *client) { c.say("GET / HTTP/1.1\r\nHost: a.test\r\nX-Tenant-Id: x\r\n\r\n") },
			status: 403, reason: "unknown_tenant", by: "policy", phase: "decision", proxyStatus: "http_request_denied"},
		// The process ends.
		{name: "drain cuts it", sidecar: "timeouts: {drain: 200ms}", script: silent,
			client: func(c *client) {
				asks(c)
				c.reached("GET /")
				resp, err := c.s.http.Post("http://"+c.s.admin+"/drain", "", nil)
				if err != nil {
					c.t.Fatal(err)
				}
				_ = resp.Body.Close()
			},
			status: 503, reason: "draining", by: "proxy", phase: "response_head", cause: "canceled", proxyStatus: "connection_terminated", cuts: true},
	}
}

// TestEndings lets requests end in every way, and holds answer, access log and metrics to the same words.
func TestEndings(t *testing.T) {
	for _, e := range endings(t) {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			e.run(t)
		})
	}
}

func (e *ending) run(t *testing.T) {
	b := startBackend(t, func(c *backendConn, m *message) {
		if e.script == nil {
			answerOK(c, m)
			return
		}
		e.script(c)
	})
	backend, policy := `endpoints: [{address: "`+b.addr+`"}], `+e.backend, "tenants: {any: true}, "+e.policy
	if strings.HasPrefix(e.backend, "endpoints") {
		backend = e.backend
	}
	if e.policy == "-" {
		policy = "tenants: {names: [somebody-else]}"
	}
	s := startSidecar(t, e.sidecar, document("Backend", "b", backend), document("TenantPolicy", "p", policy))
	s.cuts = e.cuts
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, TCPConn: nc.(*net.TCPConn), s: s, b: b}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	e.client(c)
	answer := c.answer()
	switch {
	case e.proxyStatus == "" && answer != nil:
		t.Errorf("the client gets a whole answer, %q", answer.whole)
	case e.proxyStatus != "" && answer == nil:
		t.Errorf("the client gets no answer")
	case answer != nil:
		if answer.status != e.status {
			t.Errorf("the client gets %q, want %d", answer.line, e.status)
		}
		e.checkProxyStatus(t, answer)
	}
	var line logLine
	until(t, func() string { return fmt.Sprintf("a line with %s: %+v", e.reason, s.log(0)) }, func() bool {
		for _, line = range s.log(0) {
			if line.Reason == e.reason {
				return true
			}
		}
		return false
	})
	got := fmt.Sprint(line.Status, " by ", line.By, " in ", line.Phase, ": ", line.Cause)
	if want := fmt.Sprint(e.status, " by ", e.by, " in ", e.phase, ": ", e.cause); got != want {
		t.Errorf("the log has %s, want %s", got, want)
	}
	if !e.cuts { // else there is nobody to ask
		e.checkMetrics(t, s)
	}
}

// checkMetrics says whether the metrics have the words of the log, and the backend's counters only what is the backend's.
func (e *ending) checkMetrics(t *testing.T, s *sidecar) {
	t.Helper()
	now := s.metrics()
	if n := now.sum("weir_request_ends_total", `by="`+e.by+`"`, `phase="`+e.phase+`"`); n != 1 || now.sum("weir_request_ends_total") != 1 {
		t.Errorf("%d ends by %s in %s, %d in all; want 1", n, e.by, e.phase, now.sum("weir_request_ends_total"))
	}
	if n := now.sum("weir_requests_total", `reason="`+e.reason+`"`, fmt.Sprintf(`code="%dxx"`, e.status/100)); n != 1 {
		t.Errorf("%d requests with %s, want 1", n, e.reason)
	}
	rejected := 0
	if e.by == "client" && e.status != 499 && e.cause != "" {
		rejected = 1
	}
	if n := now.sum("weir_wire_rejected_total", `cause="`+e.cause+`"`); n != rejected {
		t.Errorf("%d refused for %q, want %d", n, e.cause, rejected)
	}
	for name, n := range now {
		code, found := strings.CutPrefix(name, `weir_upstream_requests_total{backend="b",code="`)
		if code = strings.TrimSuffix(code, `"}`); found && (n > 0) != (code == e.upstream) {
			t.Errorf("the backend's counters have %v with %s, want only %q", n, code, e.upstream)
		}
	}
}

// checkProxyStatus reads Proxy-Status as RFC 9209 has it: a list with one item, the name of the proxy, and the error as a token.
func (e *ending) checkProxyStatus(t *testing.T, answer *message) {
	t.Helper()
	list, err := httpsfv.UnmarshalList(answer.get("Proxy-Status"))
	if err != nil || len(list) != 1 {
		t.Fatalf("Proxy-Status %q: %v", answer.get("Proxy-Status"), err)
	}
	item, isItem := list[0].(httpsfv.Item)
	if !isItem || item.Value != httpsfv.Token("weir") {
		t.Fatalf("Proxy-Status %q, want an item of weir", answer.get("Proxy-Status"))
	}
	if got, _ := item.Params.Get("error"); got != httpsfv.Token(e.proxyStatus) {
		t.Errorf("Proxy-Status has error=%v, want %s", got, e.proxyStatus)
	}
}

// answer reads one whole answer; nil when there is none.
func (c *client) answer() *message {
	got, buf := "", make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		got += string(buf[:n])
		if m, used, _ := nextAnswer(got, "GET", err == io.EOF); used > 0 {
			return m
		}
		if err != nil {
			return nil
		}
	}
}
