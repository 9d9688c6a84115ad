package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"weir/policy"
)

const (
	upgradeTo = "GET /ws HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)

// switched is a backend that agrees to every upgrade and hands its end of the tunnel over. It is closed with the test.
func switched(t testing.TB) (*backend, <-chan *peer) {
	ends, done := make(chan *peer, 1), make(chan struct{})
	b := newBackend(t, func(c *peer) {
		if _, err := c.head(); err != nil {
			return
		}
		c.say(switching)
		ends <- c
		<-done
	})
	t.Cleanup(func() { close(done) }) // the first of all, for the backend waits for its scripts
	return b, ends
}

// tunnelTo opens a tunnel through s and returns both ends.
func tunnelTo(t testing.TB, s *sidecar, ends <-chan *peer) (client, backend *peer) {
	t.Helper()
	client = s.dial()
	client.say(upgradeTo)
	if head, err := client.head(); err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("no upgrade: %q, %v", head, err)
	}
	backend = within(t, "the backend agrees", ends)
	_ = backend.SetDeadline(time.Now().Add(patience))
	return client, backend
}

func closeSending(p *peer) { _ = p.Conn.(interface{ CloseWrite() error }).CloseWrite() }

func resetConn(p *peer) { _ = p.Conn.(*net.TCPConn).SetLinger(0); _ = p.Close() }

// passes checks that what one end says reaches the other.
func passes(t testing.TB, from, to *peer, text string) {
	t.Helper()
	from.say(text)
	if got, err := to.take(len(text)); got != text || err != nil {
		t.Fatalf("%q arrived, %v; want %q", got, err, text)
	}
}

// TestWebSocket speaks the protocol with a library on both ends.
func TestWebSocket(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			Subprotocols: []string{"echo"}, CompressionMode: websocket.CompressionContextTakeover,
		})
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(-1)
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, message); err != nil {
				return
			}
		}
	}))
	defer service.Close()
	s := serve(t, documents(service.Listener.Addr().String(), limited("concurrency: {max: 1}")))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	dial := func() (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(ctx, "ws://"+s.addr+"/chat", &websocket.DialOptions{
			HTTPClient: &http.Client{Transport: transport}, HTTPHeader: http.Header{"X-Tenant-ID": {"acme"}},
			Subprotocols: []string{"echo"}, CompressionMode: websocket.CompressionContextTakeover,
		})
	}
	c, _, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	if c.Subprotocol() != "echo" {
		t.Errorf("subprotocol %q", c.Subprotocol())
	}
	f := func(kind websocket.MessageType, message []byte) {
		t.Helper()
		if err := c.Write(ctx, kind, message); err != nil {
			t.Fatal(err)
		}
		gotKind, got, err := c.Read(ctx)
		if err != nil || gotKind != kind || !bytes.Equal(got, message) {
			t.Fatalf("%v, %d bytes, %v; want %v, %d bytes", gotKind, len(got), err, kind, len(message))
		}
	}
	random := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)

	f(websocket.MessageText, []byte("hello"))
	f(websocket.MessageText, nil)
	f(websocket.MessageBinary, random)
	f(websocket.MessageText, []byte("hello again"))

	// It holds its place in the gate as long as it is open.
	if n := s.metric("weir_inflight"); n != 1 {
		t.Errorf("%v in flight", n)
	}
	_, refused, err := dial()
	if err == nil || refused == nil || refused.StatusCode != 429 {
		t.Fatalf("a second one: %v, %v; want 429", refused, err)
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("the close handshake failed: %v", err)
	}
	line := s.endsAfter(2, "passed", 101)
	if n, _ := line["bytes_in"].(float64); n < float64(len(random)) {
		t.Errorf("logged %v bytes in", n)
	}
	if n, _ := line["bytes_out"].(float64); n < float64(len(random)) {
		t.Errorf("logged %v bytes out", n)
	}
	if n := s.metric("weir_upstream_requests_total", "code", "1xx"); n != 1 {
		t.Errorf("%v calls ended with 1xx", n)
	}
}

func TestUpgradeOnTheWire(t *testing.T) {
	heads := make(chan string, 1)
	b := newBackend(t, func(c *peer) {
		head, _ := c.head()
		heads <- head
		c.say(switching)
		hold(c)
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say(upgradeTo)
	answer, err := c.head()
	if err != nil {
		t.Fatal(err)
	}
	request := within(t, "the backend is asked", heads)
	f := func(head, name string, want ...string) {
		t.Helper()
		if got := fields(head, name); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	f(request, "Connection", "Upgrade")
	f(request, "Upgrade", "websocket")
	f(request, "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	f(request, "Sec-WebSocket-Version", "13")
	f(answer, "Connection", "Upgrade")
	f(answer, "Upgrade", "websocket")
	f(answer, "Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
	f(answer, "Content-Length")
	f(answer, "Transfer-Encoding")
}

// TestOtherUpgradesStayHere: what is no whole request for websocket is forwarded without a word of an upgrade.
func TestOtherUpgradesStayHere(t *testing.T) {
	f := func(request string) {
		t.Helper()
		got := make(chan string, 1)
		c := serve(t, documents(answering(t, ok, got).addr)).dial()
		c.say(request)
		c.expect(200)
		head := within(t, "the backend is asked", got)
		for _, name := range []string{"Connection", "Upgrade", "HTTP2-Settings"} {
			if v := fields(head, name); len(v) > 0 {
				t.Errorf("%.60q: the backend got %s: %q", request, name, v)
			}
		}
	}
	const get = "GET / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\n"

	f(get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
	f(get + "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n")
	f(get + "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n\r\n")
	f(get + "Connection: Upgrade\r\nUpgrade: websocket/13\r\n\r\n")
	f(get + "Connection: Upgrade\r\n\r\n")
	// Without the word in Connection it is no request for an upgrade.
	f(get + "Upgrade: websocket\r\n\r\n")
	f(get + "Connection: keep-alive\r\nUpgrade: websocket\r\n\r\n")
	// With a body, with another method, from an old client.
	f(get + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx")
	f(get + "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	f(strings.Replace(get, "GET", "POST", 1) + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")
	f(strings.Replace(get, "1.1", "1.0", 1) + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
}

// TestBackendDeclinesTheUpgrade: it is an answer like every other, and what follows the request is the next one.
func TestBackendDeclinesTheUpgrade(t *testing.T) {
	f := func(answer string, status int, body string) {
		t.Helper()
		s := serve(t, documents(answering(t, answer, nil).addr))
		c := s.dial()
		c.say(upgradeTo, get)
		for range 2 {
			if a, got := c.expect(status); got != body || a.Header.Get("Upgrade") != "" {
				t.Errorf("%d %q %v", status, got, a.Header)
			}
		}
		c.open()
		s.endsAfter(3, "passed", status)
	}

	f(ok, 200, "ok")
	f("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403, "no")
	f("HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 426, "no")
}

// TestBackendUpgradesToSomethingElse: a 101 that is not what was asked for reaches nobody.
func TestBackendUpgradesToSomethingElse(t *testing.T) {
	f := func(request, answer string) {
		t.Helper()
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			c.say(answer, "secret")
			hold(c)
		})
		s := serve(t, documents(b.addr))
		c := s.dial()
		c.say(request)
		if a, body := c.expect(502); strings.Contains(body, "secret") || a.Header.Get("Upgrade") != "" {
			t.Errorf("%v %q", a.Header, body)
		}
		s.ends("backend_protocol", 502)
	}

	f(get, switching)
	f(strings.Replace(upgradeTo, "websocket", "h2c", 1), switching)
	f(upgradeTo, strings.Replace(switching, "WebSocket", "h2c", 1))
	f(upgradeTo, strings.Replace(switching, "Upgrade: WebSocket\r\n", "", 1))
	f(upgradeTo, strings.Replace(switching, "Connection: upgrade\r\n", "", 1))
	f(upgradeTo, strings.Replace(switching, "1.1", "1.0", 1))
	f(upgradeTo, strings.Replace(switching, "WebSocket", "WebSocket\r\nUpgrade: h2c", 1))
}

// TestBytesThatDoNotWait: what either side sends right behind its head comes first.
func TestBytesThatDoNotWait(t *testing.T) {
	f := func(request, rest, answer string) {
		t.Helper()
		heard := make(chan string, 1)
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			c.say(answer)
			text, _ := c.rest()
			heard <- text
		})
		s := serve(t, documents(b.addr))
		c := s.dial()
		c.say(request)
		_, _ = c.head()
		if got, err := c.take(len("early answer")); got != "early answer" || err != nil {
			t.Errorf("%q %v", got, err)
		}
		c.say(rest)
		closeSending(c)
		if got := within(t, "the backend heard all", heard); got != "early request, more" {
			t.Errorf("the backend heard %q", got)
		}
		c.closed()
		line := s.ends("passed", 101)
		if line["bytes_in"] != float64(len("early request, more")) || line["bytes_out"] != float64(len("early answer")) {
			t.Errorf("%v", line)
		}
	}

	f(upgradeTo+"early request", ", more", switching+"early answer")
	f(upgradeTo+"early request, more", "", switching+"early answer")
	// What looks like a request is none here.
	f(upgradeTo, "early request, more", switching+"early answer")
}

func TestHalfClose(t *testing.T) {
	f := func(first, second func(client, backend *peer) (from, to *peer), network string) {
		t.Helper()
		done, ends := make(chan struct{}), make(chan *peer, 1)
		address := "127.0.0.1:0"
		if network == "unix" {
			address = t.TempDir() + "/s"
		}
		b := newBackendOn(t, network, address, func(c *peer) {
			_, _ = c.head()
			c.say(switching)
			ends <- c
			<-done
		})
		defer close(done)
		s := serve(t, documents(b.addr))
		client, backend := tunnelTo(t, s, ends)
		from, to := first(client, backend)
		passes(t, from, to, "last words")
		closeSending(from)
		to.closed()
		// The other direction is not concerned.
		from, to = second(client, backend)
		passes(t, from, to, "first")
		passes(t, from, to, "second")
		closeSending(from)
		to.closed()
		s.ends("passed", 101)
	}
	up := func(client, backend *peer) (*peer, *peer) { return client, backend }
	down := func(client, backend *peer) (*peer, *peer) { return backend, client }

	f(up, down, "tcp")
	f(down, up, "tcp")
	f(up, down, "unix")
	f(down, up, "unix")
}

// TestCutTunnel: a reset of one side is one for the other, never an end in good order.
func TestCutTunnel(t *testing.T) {
	f := func(cut func(client, backend *peer) (from, to *peer), reason string, status int) {
		t.Helper()
		b, ends := switched(t)
		s := serve(t, documents(b.addr))
		client, backend := tunnelTo(t, s, ends)
		passes(t, client, backend, "hello")
		passes(t, backend, client, "hello")
		from, to := cut(client, backend)
		resetConn(from)
		if _, err := to.rest(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the other side saw %v, want a reset", err)
		}
		s.ends(reason, status)
	}

	f(func(client, backend *peer) (*peer, *peer) { return client, backend }, "client_gone", 499)
	f(func(client, backend *peer) (*peer, *peer) { return backend, client }, "backend_reset", 101)
}

func TestClientLeavesBeforeTheUpgrade(t *testing.T) {
	asked, cancelled := make(chan struct{}), make(chan struct{})
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		close(asked)
		hold(c)
		close(cancelled)
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say(upgradeTo)
	within(t, "the backend is asked", asked)
	_ = c.Close()
	within(t, "the call is cancelled", cancelled)
	s.ends("client_gone", 499)
}

// TestIdleTunnel: silence of both sides ends it after timeouts.idle, in good order.
func TestIdleTunnel(t *testing.T) {
	const idle = 200 * time.Millisecond
	b, ends := switched(t)
	s := serveSnapshot(t, documents(b.addr), func(p *policy.Snapshot) { p.Sidecar.IdleTimeout = idle })
	client, backend := tunnelTo(t, s, ends)
	// As long as one of them speaks it lives, and neither the time of a request nor that of an answer counts.
	for began := time.Now(); time.Since(began) < 3*idle; {
		passes(t, backend, client, "tick")
	}
	last := time.Now()
	client.closed()
	if took := time.Since(last); took < idle {
		t.Errorf("ended after %v, before its time", took)
	}
	backend.closed()
	s.ends("body_idle_timeout", 101)
}

// TestTunnelOutlivesTheTimesOfRequests: those of the sidecar and of the backend end with the 101.
func TestTunnelOutlivesTheTimesOfRequests(t *testing.T) {
	b, ends := switched(t)
	s := serve(t, documents("", "timeouts: {request: 150ms}", shortBackend(b.addr)))
	client, backend := tunnelTo(t, s, ends)
	for began := time.Now(); time.Since(began) < 500*time.Millisecond; {
		passes(t, client, backend, "tick")
	}
	// Nor does the wait of a backend that takes nothing for a while end it.
	var written atomic.Int64
	big := make([]byte, 64<<20)
	go func() {
		for i := 0; i < len(big); i += 64 << 10 {
			n, _ := client.Write(big[i : i+64<<10])
			written.Add(int64(n))
		}
	}()
	before := int64(-1)
	tick := time.NewTicker(400 * time.Millisecond) // longer than timeouts.response
	defer tick.Stop()
	for before != written.Load() {
		before = written.Load()
		<-tick.C
	}
	if before == int64(len(big)) {
		t.Fatal("the backend reads nothing, but all of it could be sent")
	}
	if n, err := io.CopyN(io.Discard, backend.r, int64(len(big))); err != nil {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
	closeSending(client)
	closeSending(backend)
	s.ends("passed", 101)
}

// TestLifetimeOfATunnel: a route's own timeout bounds it.
func TestLifetimeOfATunnel(t *testing.T) {
	b, ends := switched(t)
	s := serve(t, documents(b.addr, document("Route", "ws", "backend: b", "match: [{path: /ws}]", "timeout: 300ms")))
	client, backend := tunnelTo(t, s, ends)
	passes(t, client, backend, "hello")
	client.closed()
	backend.closed()
	s.ends("request_timeout", 101)
}

// TestDrainOfTunnels: one that ends by itself delays the drain, one that does not is closed at its deadline, in good order.
func TestDrainOfTunnels(t *testing.T) {
	t.Run("ends", func(t *testing.T) {
		b, ends := switched(t)
		s := serve(t, documents(b.addr))
		client, backend := tunnelTo(t, s, ends)
		s.Drain()
		until(t, "no connection is accepted", func() bool {
			nc, err := net.Dial("tcp", s.addr)
			if err == nil {
				_ = nc.Close()
			}
			return err != nil
		})
		passes(t, client, backend, "still here")
		passes(t, backend, client, "so am I")
		_ = client.Close()
		backend.closed()
		_ = backend.Close()
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		s.ends("passed", 101)
	})
	t.Run("does not", func(t *testing.T) {
		b, ends := switched(t)
		s := serve(t, documents(b.addr, "timeouts: {drain: 200ms}"))
		client, backend := tunnelTo(t, s, ends)
		client.say("bytes that nobody reads", strings.Repeat("x", 1<<20))
		passes(t, backend, client, "last words")
		// It has no end to wait for, so that closing it is no failure.
		s.end()
		client.closed()
		if got, err := backend.rest(); err != nil || !strings.HasPrefix(got, "bytes that") {
			t.Errorf("the backend's end: %.20q, %v", got, err)
		}
		if err := s.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		s.ends("draining", 101)
	})
}

// TestTunnelOutlivesItsEndpoint: a policy that drops the endpoint cuts nobody.
func TestTunnelOutlivesItsEndpoint(t *testing.T) {
	b, ends := switched(t)
	s := serve(t, documents(b.addr))
	client, backend := tunnelTo(t, s, ends)
	if err := s.Apply(compile(t, documents(answering(t, ok, nil).addr))); err != nil {
		t.Fatal(err)
	}
	passes(t, client, backend, "hello")
	passes(t, backend, client, "hello")
	closeSending(client)
	closeSending(backend)
	client.closed()
	s.ends("passed", 101)
}

// TestLimitsDecideUpgradesToo: a refused client gets an answer, and no backend hears of it.
func TestLimitsDecideUpgradesToo(t *testing.T) {
	b := newBackend(t, func(c *peer) { t.Error("the backend was asked") })
	s := serve(t, documents(b.addr, limited("limits: [{name: l, requests: 0, per: 1s}]")))
	c := s.dial()
	c.say(upgradeTo)
	c.expect(403)
	s.ends("blocked", 403)
}

// TestMuchThroughATunnel: 64 MiB each way at once arrive as they were sent, in constant memory.
func TestMuchThroughATunnel(t *testing.T) {
	const size = 64 << 20
	b, ends := switched(t)
	s := serve(t, documents(b.addr))
	client, backend := tunnelTo(t, s, ends)
	type sum = [sha256.Size]byte
	send := func(to *peer, seed byte) <-chan sum {
		sent := make(chan sum, 1)
		go func() {
			h := sha256.New()
			from := rand.NewChaCha8([32]byte{seed})
			_, _ = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(h, to)}, io.LimitReader(from, size), make([]byte, 100<<10))
			closeSending(to)
			sent <- sum(h.Sum(nil))
		}()
		return sent
	}
	receive := func(from *peer) <-chan sum {
		got := make(chan sum, 1)
		go func() {
			h := sha256.New()
			_, _ = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{from.r}, make([]byte, 100<<10))
			got <- sum(h.Sum(nil))
		}()
		return got
	}
	grown := heapGrowth(func() {
		up, down := send(client, 1), send(backend, 2)
		atBackend, atClient := receive(backend), receive(client)
		if within(t, "the client has sent", up) != within(t, "the backend has read", atBackend) {
			t.Error("the backend got something else")
		}
		if within(t, "the backend has sent", down) != within(t, "the client has read", atClient) {
			t.Error("the client got something else")
		}
	})
	if grown > maxGrowth {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	line := s.ends("passed", 101)
	if line["bytes_in"] != float64(size) || line["bytes_out"] != float64(size) {
		t.Errorf("%v", line)
	}
}

// TestQuietTunnelsHoldLittle: memory is for those that move bytes.
func TestQuietTunnelsHoldLittle(t *testing.T) {
	const many, reader, most = 200, 64 << 10, 32 << 10 // tunnels, and what each end of the test and the proxy hold for one
	b, ends := switched(t)
	s := serve(t, documents(b.addr))
	grown := heapGrowth(func() {
		for range many {
			client, backend := tunnelTo(t, s, ends)
			passes(t, client, backend, "hello")
			passes(t, backend, client, "hello")
			t.Cleanup(func() { closeSending(client); closeSending(backend) })
		}
	})
	if grown > many*(2*reader+most) {
		t.Errorf("%d tunnels hold %d KiB each", many, grown/many>>10)
	}
}
