package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weir/proxy/certs/certtest"
)

// tlsConfigs are those of two sides that believe each other.
func tlsConfigs(t testing.TB) (client, server *tls.Config) {
	t.Helper()
	ca := certtest.New("ca")
	pair, err := tls.X509KeyPair(ca.Issue(certtest.Leaf{Names: []string{"weir.internal"}}))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: certtest.Pool(ca), ServerName: "weir.internal"},
		&tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: certtest.Pool(ca)}
}

// tlsPair is two ends that have shaken hands.
func tlsPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	clientConfig, serverConfig := tlsConfigs(t)
	a, b := rawPair(t, "tcp")
	cc, sc := tls.Client(&watched{Conn: a}, clientConfig), tls.Server(b, serverConfig)
	wait := background(t, func() { _ = sc.Handshake() })
	if err := cc.Handshake(); err != nil {
		t.Fatal(err)
	}
	wait()
	return cc, sc
}

// watched is a socket below TLS.
type watched struct {
	net.Conn
	cut    atomic.Bool // it ended before TLS did
	writes atomic.Int64
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.cut.Store(true)
	}
	return n, err
}

func (w *watched) Write(p []byte) (int, error) {
	w.writes.Add(1)
	return w.Conn.Write(p)
}

func wasCut(client net.Conn) bool { return client.(*tls.Conn).NetConn().(*watched).cut.Load() }

// The first Read shakes hands. Whoever takes longer than a head may is dropped: without a byte, with part of a hello, and without
// reading our part of it.
func TestHandshakeTimeout(t *testing.T) {
	clientConfig, serverConfig := tlsConfigs(t)
	deafness := make(chan struct{})
	f := func(network string, wantWrites int64, behave func(client net.Conn)) {
		t.Helper()
		g := newStepped(timeoutSettings())
		client, server := rawPair(t, network)
		w := &watched{Conn: server}
		c := g.NewConn(tls.Server(w, serverConfig))
		ended := background(t, func() { noMessage(t, c) })
		behaving := background(t, func() { behave(client) })
		waitUntil(t, "our part begins", func() bool { return w.writes.Load() == wantWrites })
		g.expire(t, &c.reader, phaseShake, 5*time.Second)
		ended()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		_ = client.Close()
		if network == "pipe" {
			close(deafness)
		}
		behaving()
		if g.Len() != 0 {
			t.Errorf("%d connections left", g.Len())
		}
	}
	f("tcp", 0, func(net.Conn) {})
	f("tcp", 0, func(client net.Conn) { _, _ = client.Write([]byte{22, 3, 1, 1, 0, 1}) })
	f("pipe", 1, func(client net.Conn) { _ = tls.Client(deaf{client, deafness}, clientConfig).Handshake() })
}

// deaf takes nothing that it is sent, as long as that lasts.
type deaf struct {
	net.Conn
	lasts <-chan struct{}
}

func (d deaf) Read([]byte) (int, error) {
	<-d.lasts
	return 0, io.EOF
}

// Who fails the handshake reads why, though it has sent more by then: a reset would destroy what it is told.
func TestHandshakeFails(t *testing.T) {
	clientConfig, serverConfig := tlsConfigs(t)
	mutual := serverConfig.Clone()
	mutual.ClientAuth = tls.RequireAndVerifyClientCert
	f := func(server *tls.Config, change func(c *tls.Config), want string) {
		t.Helper()
		g := newStepped(timeoutSettings())
		a, b := rawPair(t, "tcp")
		c := g.NewConn(tls.Server(b, server))
		ended := background(t, func() {
			noMessage(t, c)
			_ = c.Close()
		})
		config := clientConfig.Clone()
		change(config)
		client := tls.Client(a, config)
		err := client.Handshake()
		if err == nil {
			_, _ = io.WriteString(client, get+strings.Repeat("x", 10_000))
			_, err = io.ReadAll(client)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the client reads %v, want %s", err, want)
		}
		_ = client.Close()
		ended()
		if c.blk != nil || g.Len() != 0 {
			t.Errorf("%d connections left", g.Len())
		}
	}
	f(mutual, func(*tls.Config) {}, "certificate required")
	f(&tls.Config{Certificates: serverConfig.Certificates, NextProtos: []string{"http/1.1"}},
		func(c *tls.Config) { c.NextProtos = []string{"h2"} }, "no application protocol")
	f(serverConfig, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11; c.MinVersion = tls.VersionTLS10 }, "protocol version")
}

// A connection that shakes hands when the drain begins is served one request, and closes after it; so is one that the server above
// closes then. The request has the time of a head.
func TestHandshakeDuringDrain(t *testing.T) {
	clientConfig, serverConfig := tlsConfigs(t)
	f := func(end func(g *stepped, c *Conn), request bool) {
		t.Helper()
		g := newStepped(timeoutSettings())
		a, b := rawPair(t, "tcp")
		c := g.NewConn(tls.Server(b, serverConfig))
		served := background(t, func() {
			if request {
				if h := message(t, c); h.KeepAlive {
					t.Error("it may go on")
				}
				_ = c.Send([]byte("answer"), nil)
			}
			noMessage(t, c)
			_ = c.Close()
		})
		waitPhase(t, &c.reader, phaseShake)
		end(g, c)
		client := tls.Client(&watched{Conn: a}, clientConfig)
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		waitPhase(t, &c.reader, phaseHead)
		g.CloseIdle()
		want := ""
		if request {
			say(t, client, get)()
			want = "answer"
		} else {
			g.expire(t, &c.reader, phaseHead, 5*time.Second)
		}
		if got, err := io.ReadAll(client); string(got) != want || err != nil || wasCut(client) {
			t.Errorf("got %q, %v, cut %v", got, err, wasCut(client))
		}
		served()
	}
	for _, request := range []bool{true, false} {
		f(func(g *stepped, _ *Conn) { g.CloseIdle() }, request)
		f(func(_ *stepped, c *Conn) { _ = c.Close() }, request)
	}
}

// TLS learns of every end but of one that cuts.
func TestTLSGoodbye(t *testing.T) {
	f := func(wantCut bool, end func(g *Guard, c *Conn)) {
		t.Helper()
		g := fakeGuard(DefaultSettings())
		client, c := pair(t, g, "tls")
		say(t, client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")()
		message(t, c)
		if err := c.Send([]byte("answer"), nil); err != nil {
			t.Fatal(err)
		}
		reading := background(t, func() {
			b, err := io.ReadAll(client)
			if string(b) != "answer" || wasCut(client) != wantCut || wantCut != (err != nil) && wantCut == errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %q, %v, cut %v; want cut %v", b, err, wasCut(client), wantCut)
			}
			_ = client.Close()
		})
		end(g, c)
		reading()
	}
	f(false, func(_ *Guard, c *Conn) { _ = c.Close() }) // it lingers: the body was not read
	f(true, func(_ *Guard, c *Conn) { c.Abort() })
	f(true, func(g *Guard, _ *Conn) { g.CloseAll() })
}

// A small answer is one record and so one system call; a large one is as few as there can be.
func TestTLSWrites(t *testing.T) {
	clientConfig, serverConfig := tlsConfigs(t)
	serverConfig.DynamicRecordSizingDisabled = true
	a, b := rawPair(t, "tcp")
	w := &watched{Conn: b}
	c := fakeGuard(DefaultSettings()).NewConn(tls.Server(w, serverConfig))
	defer c.Close()
	client := tls.Client(a, clientConfig)
	saying := say(t, client, get)
	message(t, c)
	saying()
	f := func(head, body string, want int64) {
		t.Helper()
		var got []byte
		reading := background(t, func() {
			got = make([]byte, len(head)+len(body))
			_, _ = io.ReadFull(client, got)
		})
		before := w.writes.Load()
		if err := c.Send([]byte(head), []byte(body)); err != nil {
			t.Fatal(err)
		}
		if n := w.writes.Load() - before; n != want {
			t.Errorf("%d and %d bytes: %d writes, want %d", len(head), len(body), n, want)
		}
		reading()
		if string(got) != head+body {
			t.Errorf("%d and %d bytes: they did not come as they were sent", len(head), len(body))
		}
	}
	large := strings.Repeat("0123456789", 10_000)
	f("head", "", 1)
	f("head", "body", 1)
	f("head", large[:recordBytes-4], 1)
	f("head", large[:recordBytes-3], 2)
	f("", large[:3*recordBytes], 3)
	f("head", large[:3*recordBytes], 4)
	f(large[:recordBytes+1], "body", 3)
}
