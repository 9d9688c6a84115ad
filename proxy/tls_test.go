package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/policy"
	"weir/proxy/certs/certtest"
)

// secured is a sidecar with TLS on both sides, and the files that it is made of. Everybody is signed by ca: the listener and the
// backend as 127.0.0.1, the sidecar towards the backend as weir.
type secured struct {
	t        testing.TB
	ca       *certtest.Authority
	dir      string
	listener policy.ListenerTLS
	backend  policy.ClientTLS
	server   atomic.Pointer[tls.Certificate] // of the backend
}

func newSecured(t testing.TB) *secured {
	t.Helper()
	s := &secured{t: t, ca: certtest.New("ca"), dir: t.TempDir()}
	path := func(name string) string { return filepath.Join(s.dir, name) }
	s.listener = policy.ListenerTLS{CertFile: path("listener.crt"), KeyFile: path("listener.key"), ClientCAFile: path("ca.crt")}
	s.backend = policy.ClientTLS{CAFile: path("ca.crt"), CertFile: path("weir.crt"), KeyFile: path("weir.key")}
	s.write("ca.crt", s.ca.PEM)
	s.issue("listener", s.ca, certtest.Leaf{Names: []string{"127.0.0.1"}})
	s.issue("weir", s.ca, certtest.Leaf{Names: []string{"weir"}})
	s.rotateBackend(s.ca)
	return s
}

func (s *secured) write(name string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// issue writes NAME.crt and NAME.key.
func (s *secured) issue(name string, a *certtest.Authority, l certtest.Leaf) {
	s.t.Helper()
	cert, key := a.Issue(l)
	s.write(name+".crt", cert)
	s.write(name+".key", key)
}

func (s *secured) rotateBackend(a *certtest.Authority) {
	s.t.Helper()
	pair := keyPair(s.t, a, "127.0.0.1")
	s.server.Store(&pair)
}

func keyPair(t testing.TB, a *certtest.Authority, name string) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.Issue(certtest.Leaf{Names: []string{name}}))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// script makes a backend's script one over TLS that wants the sidecar's certificate.
func (s *secured) script(inner script) script {
	config := &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.server.Load(), nil },
		ClientCAs:      certtest.Pool(s.ca), ClientAuth: tls.RequireAndVerifyClientCert,
	}
	return func(c *peer) {
		nc := tls.Server(c.Conn, config)
		defer nc.Close()
		inner(newPeer(s.t, nc))
	}
}

// change puts TLS into a snapshot.
func (s *secured) change(snapshot *policy.Snapshot) {
	listener, backend := s.listener, s.backend
	snapshot.Sidecar.Listeners[0].TLS, snapshot.Backends[0].TLS = &listener, &backend
}

// client is the configuration of a client with a certificate of that name; none without.
func (s *secured) client(name string) *tls.Config {
	s.t.Helper()
	c := &tls.Config{RootCAs: certtest.Pool(s.ca), ServerName: "127.0.0.1", NextProtos: []string{"h2", "http/1.1"}}
	if name != "" {
		c.Certificates = []tls.Certificate{keyPair(s.t, s.ca, name)}
	}
	return c
}

// serve starts the sidecar before a backend with that script.
func (s *secured) serve(inner script, further ...string) *sidecar {
	s.t.Helper()
	return serveSnapshot(s.t, documents(newBackend(s.t, s.script(inner)).addr, further...), s.change)
}

// answers is a script that gives each request the same answer, and tells what it got.
func answers(answer string, got chan<- string) script {
	return func(c *peer) {
		for {
			head, body, err := c.request()
			if err != nil {
				return
			}
			if got != nil {
				got <- head + body
			}
			c.say(answer)
		}
	}
}

// dialTLS connects as a client; a handshake that fails is the caller's matter.
func (s *sidecar) dialTLS(config *tls.Config) (*peer, *tls.Conn) {
	s.t.Helper()
	nc := tls.Client(&raw{Conn: s.dial().Conn}, config)
	return newPeer(s.t, nc), nc
}

// raw is a client's socket below TLS.
type raw struct {
	net.Conn
	cut atomic.Bool // it ended before TLS did
}

func (r *raw) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if err != nil {
		r.cut.Store(true)
	}
	return n, err
}

func wasCut(nc *tls.Conn) bool { return nc.NetConn().(*raw).cut.Load() }

const tenantGet = "GET / HTTP/1.1\r\nHost: a\r\nX-Tenant-ID: acme\r\n\r\n"

func TestTLS(t *testing.T) {
	files := newSecured(t)
	got := make(chan string, 1)
	s := files.serve(answers(ok, got))
	f := func(request string, wantResumed bool, config *tls.Config) *tls.Conn {
		t.Helper()
		c, nc := s.dialTLS(config)
		for range 2 { // twice on one connection
			c.say(request)
			if _, body := c.expect(200); body != "ok" {
				t.Errorf("the body is %q", body)
			}
			if head := within(t, "the request arrives", got); field(head, "X-Forwarded-Proto") != "https" || !strings.HasSuffix(request, head[strings.Index(head, "\r\n\r\n"):]) {
				t.Errorf("the backend got %q", head)
			}
		}
		state := nc.ConnectionState()
		if state.NegotiatedProtocol != "http/1.1" || state.Version != tls.VersionTLS13 || state.DidResume != wantResumed {
			t.Errorf("protocol %q, version %x, resumed %v; want %v", state.NegotiatedProtocol, state.Version, state.DidResume, wantResumed)
		}
		return nc
	}
	config := files.client("")
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	f(tenantGet, false, config).Close()
	f(tenantGet, true, config).Close()
	f("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", true, config).Close()
	f(tenantGet, false, files.client("client"))
	if n := s.metric("weir_upstream_dials_total"); n > 4 { // a request may come before the last one has given its connection back
		t.Errorf("%v connections to the backend for 8 requests", n)
	}
	// what the peer may not say is not believed here either
	c, _ := s.dialTLS(files.client(""))
	c.say("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: http\r\n\r\n")
	if head := within(t, "the request arrives", got); field(head, "X-Forwarded-Proto") != "https" {
		t.Errorf("the backend got %q", head)
	}
	if want := files.expiry("listener.crt"); s.metric("weir_tls_certificate_expiry_timestamp_seconds", "use", "listener", "name", "http") != want {
		t.Errorf("the metric of the expiry is not %v", want)
	}
}

// expiry is that of a certificate, in seconds.
func (s *secured) expiry(name string) float64 {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(s.dir, strings.TrimSuffix(name, ".crt")+".key"))
	if err != nil {
		s.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(data, key)
	if err != nil {
		s.t.Fatal(err)
	}
	return float64(pair.Leaf.NotAfter.Unix())
}

// The certificate that a client has shown is at hand for whoever asks who it is; one that was not verified never is.
func TestTLSClientCertificate(t *testing.T) {
	files := newSecured(t)
	f := func(require bool, name, want string) {
		t.Helper()
		files.listener.RequireClientCert = require
		p, listeners := files.unserved()
		limited, err := p.limited(listeners)
		if err != nil {
			t.Fatal(err)
		}
		client := tls.Client(dial(t, addressOf(listeners[0])).Conn, files.client(name))
		var saying sync.WaitGroup
		saying.Go(func() { _, _ = io.WriteString(client, tenantGet) })
		nc, err := limited[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := nc.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		saying.Wait()
		got := ""
		if cert := nc.(*clientConn).certificate(); cert != nil {
			got = cert.DNSNames[0]
		}
		if got != want {
			t.Errorf("the certificate is that of %q, want %q", got, want)
		}
	}
	f(false, "", "")
	f(false, "acme", "acme")
	f(true, "acme", "acme")
	if cert := (&clientConn{}).certificate(); cert != nil {
		t.Error("a client without TLS has a certificate")
	}
}

// unserved is a proxy that has applied and listens, and whose connections nobody serves.
func (s *secured) unserved() (*Proxy, []net.Listener) {
	s.t.Helper()
	snapshot := compile(s.t, documents("127.0.0.1:1"))
	s.change(snapshot)
	access := NewAccessLog(io.Discard)
	p, err := New(Options{
		Clock: SystemClock(), Logger: zerolog.Nop(), Registerer: prometheus.NewRegistry(), AccessLog: access, Bounds: snapshot.Sidecar.Bounds,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := p.Apply(snapshot); err != nil {
		s.t.Fatal(err)
	}
	listeners, err := Listen(snapshot.Sidecar.Listeners)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = listeners[0].Close()
		p.end()
		_ = access.Close()
	})
	return p, listeners
}

// A listener that is to speak TLS never speaks anything else.
func TestTLSListenerNeedsItsName(t *testing.T) {
	files := newSecured(t)
	p, listeners := files.unserved()
	listeners[0].(*secureListener).name = "other"
	err := p.Serve(t.Context(), listeners)
	if err == nil || !strings.Contains(err.Error(), `no TLS for a listener "other"`) {
		t.Errorf("Serve: %v", err)
	}
	if _, err := listeners[0].Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
}

func TestTLSRefusals(t *testing.T) {
	files := newSecured(t)
	files.listener.RequireClientCert = true
	s := files.serve(answers(ok, nil))
	failures := 0
	f := func(change func(c *tls.Config), want string) {
		t.Helper()
		config := files.client("client")
		change(config)
		c, _ := s.dialTLS(config)
		c.say(tenantGet)
		if _, err := c.take(1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the client reads %v, want %s", err, want)
		}
		_ = c.Close()
		failures++
		until(t, "the failure is counted", func() bool {
			return s.metric("weir_tls_handshake_failures_total", "listener", "http") == float64(failures)
		})
	}
	// no certificate, one of another authority, HTTP/2 alone, an old version
	f(func(c *tls.Config) { c.Certificates = nil }, "certificate required")
	f(func(c *tls.Config) {
		stranger := keyPair(t, certtest.New("other"), "client")
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger, nil }
	}, "unknown certificate authority")
	f(func(c *tls.Config) { c.NextProtos = []string{"h2"} }, "no application protocol")
	f(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, "protocol version")

	// plain HTTP is told, in one clean piece, though it goes on talking
	c := s.dial()
	c.say(post(100_000, strings.Repeat("x", 20_000)))
	response, body, err := c.tryAnswer("POST")
	if err != nil || response.StatusCode != 400 || !strings.Contains(body, "HTTPS") || !response.Close {
		t.Errorf("plain HTTP gets %v %q %v", response, body, err)
	}
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("and then %q %v", rest, err)
	}
	_ = c.Close()
	// what is neither gets nothing of HTTP
	c = s.dial()
	c.say("\x00\x01\x02\x03\x04\x05\x06\x07")
	if rest, _ := c.rest(); strings.Contains(rest, "HTTP") {
		t.Errorf("noise gets %q", rest)
	}
	_ = c.Close()
	until(t, "the failures are counted", func() bool { return s.metric("weir_tls_handshake_failures_total") == float64(failures+2) })
	// who only knocks is no failure
	_ = s.dial().Close()
	until(t, "all have gone", func() bool { return s.conns.count() == 0 })
	if n := s.metric("weir_tls_handshake_failures_total"); n != float64(failures+2) || s.requests() != 0 {
		t.Errorf("%v failures and %d requests, want %d and 0", n, s.requests(), failures+2)
	}
}

// A client that does not get on with its handshake is dropped when a head would be, and holds up nobody meanwhile.
func TestTLSSlowHandshake(t *testing.T) {
	files := newSecured(t)
	s := files.serve(answers(ok, nil), "timeouts: {header: 100ms}")
	slow := s.dial()
	slow.say("\x16\x03\x01")
	c, _ := s.dialTLS(files.client(""))
	c.say(tenantGet)
	c.expect(200)
	if rest, err := slow.rest(); rest != "" || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the slow one reads %q %v", rest, err)
	}
	if n := s.metric("weir_tls_handshake_failures_total"); n != 1 {
		t.Errorf("%v failures, want 1", n)
	}
}

// What goes wrong with TLS towards a backend has its own word in Proxy-Status, in the access log, the metric and the log.
func TestTLSBackendErrors(t *testing.T) {
	f := func(word, advice string, spoil func(files *secured), inner script) {
		t.Helper()
		files := newSecured(t)
		if inner == nil {
			inner = files.script(answers(ok, nil))
		}
		spoil(files)
		s := serveSnapshot(t, documents(newBackend(t, inner).addr), files.change)
		c, _ := s.dialTLS(files.client(""))
		c.say(tenantGet)
		response, body := c.expect(502)
		if got := response.Header.Get("Proxy-Status"); got != "weir; error="+word {
			t.Errorf("Proxy-Status is %q, want %s", got, word)
		}
		if strings.Contains(body, "x509") || strings.Contains(body, "127.0.0.1") {
			t.Errorf("the client reads %s", body)
		}
		line := s.ends("backend_refused", 502)
		if line.text("cause") != word || line.text("endpoint") == "" {
			t.Errorf("logged %v, want the cause %s", line, word)
		}
		if n := s.metric("weir_upstream_requests_total", "code", word); n != 1 {
			t.Errorf("%v requests counted as %s, want 1", n, word)
		}
		s.log.mu.Lock()
		defer s.log.mu.Unlock()
		if !bytes.Contains(s.log.all, []byte(word)) || !bytes.Contains(s.log.all, []byte(advice)) {
			t.Errorf("the log does not say %s and %s:\n%s", word, advice, s.log.all)
		}
	}
	// a certificate of somebody else's authority, or of another name
	f("tls_certificate_error", "tls.caFile", func(files *secured) { files.write("ca.crt", certtest.New("other").PEM) }, nil)
	f("tls_certificate_error", "tls.serverName", func(files *secured) { files.backend.ServerName = "orders.internal" }, nil)
	// a certificate that the backend wants, and we do not have
	f("tls_alert_received", "tls.certFile", func(files *secured) { files.backend.CertFile, files.backend.KeyFile = "", "" }, nil)
	// a backend that speaks no TLS
	f("tls_protocol_error", "take tls out", func(*secured) {}, func(c *peer) { c.say(ok); _, _ = c.rest() })
}

// A snapshot whose files cannot be used is refused whole; one that changes them is in force for the next connection, without a
// restart; and a listener that documents forget goes on as it was.
func TestTLSApply(t *testing.T) {
	files := newSecured(t)
	backend := newBackend(t, files.script(answers(ok, nil)))
	snapshotOf := func(change func(listener *policy.ListenerTLS, backend *policy.ClientTLS)) *policy.Snapshot {
		snapshot := compile(t, documents(backend.addr))
		files.change(snapshot)
		change(snapshot.Sidecar.Listeners[0].TLS, snapshot.Backends[0].TLS)
		return snapshot
	}
	s := start(t, snapshotOf(func(*policy.ListenerTLS, *policy.ClientTLS) {}), SystemClock(), nil)
	serves := func(want string) {
		t.Helper()
		config := files.client("")
		config.ServerName = want
		c, _ := s.dialTLS(config)
		c.say(tenantGet)
		c.expect(200)
	}
	serves("127.0.0.1")
	refused := func(change func(listener *policy.ListenerTLS, backend *policy.ClientTLS), want string) {
		t.Helper()
		before := s.live.Load()
		if err := s.Apply(snapshotOf(change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Apply: %v, want %s", err, want)
		}
		if s.live.Load() != before {
			t.Error("something was applied")
		}
		serves("127.0.0.1")
	}
	missing := filepath.Join(files.dir, "missing")
	refused(func(l *policy.ListenerTLS, _ *policy.ClientTLS) { l.CertFile = missing }, `listener "http": cannot read certFile `+missing)
	refused(func(_ *policy.ListenerTLS, b *policy.ClientTLS) { b.CAFile = missing }, `backend "b": cannot read the CA file `+missing)

	files.issue("next", files.ca, certtest.Leaf{Names: []string{"next.internal"}})
	next := snapshotOf(func(l *policy.ListenerTLS, _ *policy.ClientTLS) {
		l.CertFile, l.KeyFile = filepath.Join(files.dir, "next.crt"), filepath.Join(files.dir, "next.key")
	})
	if err := s.Apply(next); err != nil {
		t.Fatal(err)
	}
	serves("next.internal")

	forgotten := snapshotOf(func(*policy.ListenerTLS, *policy.ClientTLS) {})
	forgotten.Sidecar.Listeners[0].TLS = nil
	if err := s.Apply(forgotten); err != nil {
		t.Fatal(err)
	}
	serves("next.internal")
	files.issue("next", files.ca, certtest.Leaf{Names: []string{"later.internal"}})
	s.ReloadCertificates()
	serves("later.internal")
}

// While a sidecar serves it looks at the files by itself.
func TestTLSFollowsFiles(t *testing.T) {
	files := newSecured(t)
	s := files.serve(answers(ok, nil))
	expires := time.Now().Add(30 * time.Minute).Truncate(time.Second)
	files.issue("listener", files.ca, certtest.Leaf{Names: []string{"127.0.0.1"}, Expires: expires})
	until(t, "the new certificate is in force", func() bool {
		return s.metric("weir_tls_certificate_expiry_timestamp_seconds", "use", "listener") == float64(expires.Unix())
	})
}

// While everything rotates again and again - the listener's certificate, the backend's, ours towards the backend, and the authorities
// of all of them - no request fails, and connections that are open go on.
func TestTLSRotationUnderLoad(t *testing.T) {
	const rotations, clients = 50, 4
	files := newSecured(t)
	next := certtest.New("next")
	authorities := []*certtest.Authority{files.ca, next}
	trusted := certtest.Pool(authorities...)
	both := append(bytes.Clone(files.ca.PEM), next.PEM...)
	files.write("ca.crt", both)
	config := &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return files.server.Load(), nil },
		ClientCAs:      trusted, ClientAuth: tls.RequireAndVerifyClientCert,
	}
	backend := newBackend(t, func(c *peer) {
		nc := tls.Server(c.Conn, config)
		defer nc.Close()
		p := newPeer(t, nc)
		for i := 0; ; i++ {
			if _, _, err := p.request(); err != nil {
				return
			}
			if i == 3 { // an early end, so that there are many handshakes
				p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
				return
			}
			p.say(ok)
		}
	})
	s := serveSnapshot(t, documents(backend.addr), files.change)
	client := files.client("client")
	client.RootCAs = trusted
	dialed := func() *peer { c, _ := s.dialTLS(client); return c }
	old := dialed()
	old.say(tenantGet)
	old.expect(200)

	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var done atomic.Int64
	for range clients {
		load.Go(func() {
			for ctx.Err() == nil {
				nc, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Error(err)
					return
				}
				c := newPeer(t, tls.Client(nc, client))
				_ = c.SetDeadline(time.Now().Add(patience))
				for range 3 {
					c.say(post(5, "hello"))
					response, body, err := c.tryAnswer("POST")
					if err != nil || response.StatusCode != 200 || body != "ok" {
						t.Errorf("a request ended with %v %q %v", response, body, err)
						cancel()
						break
					}
					done.Add(1)
				}
				_ = c.Close()
			}
		})
	}
	for i := range rotations {
		a := authorities[i%2]
		files.issue("listener", a, certtest.Leaf{Names: []string{"127.0.0.1"}, Expires: time.Now().Add(time.Duration(i+1) * time.Hour)})
		files.issue("weir", a, certtest.Leaf{Names: []string{"weir"}})
		files.write("ca.crt", append(fmt.Appendf(nil, "# %d\n", i), both...))
		files.rotateBackend(a)
		s.ReloadCertificates()
		fresh, nc := s.dialTLS(client)
		fresh.say(tenantGet)
		fresh.expect(200)
		if got := float64(nc.ConnectionState().PeerCertificates[0].NotAfter.Unix()); got != files.expiry("listener.crt") {
			t.Errorf("rotation %d is not in force", i)
		}
		_ = fresh.Close()
		want := done.Load() + clients
		until(t, "requests go on", func() bool { return done.Load() >= want || ctx.Err() != nil })
	}
	cancel()
	load.Wait()
	old.say(tenantGet)
	old.expect(200)
	until(t, "every request has passed", func() bool { return s.requests("reason", "passed") == s.requests() })
	t.Logf("%d requests, %v dials to the backend during %d rotations", done.Load(), s.metric("weir_upstream_dials_total"), rotations)
}

// The end of the process is told to TLS, and requests in flight are answered first.
func TestTLSDrain(t *testing.T) {
	files := newSecured(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	s := files.serve(func(c *peer) {
		for {
			head, _, err := c.request()
			if err != nil {
				return
			}
			if strings.Contains(head, "/slow") {
				close(arrived)
				<-release
			}
			c.say(ok)
		}
	})
	idle, idleConn := s.dialTLS(files.client(""))
	idle.say(tenantGet)
	idle.expect(200)
	busy, busyConn := s.dialTLS(files.client(""))
	busy.say("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	within(t, "the slow one arrives", arrived)
	s.Drain()
	idle.closed()
	close(release)
	if response, body := busy.expect(200); body != "ok" || !response.Close {
		t.Errorf("%q, close %v", body, response.Close)
	}
	busy.closed()
	if wasCut(idleConn) || wasCut(busyConn) {
		t.Errorf("cut: the idle one %v, the busy one %v", wasCut(idleConn), wasCut(busyConn))
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// A body passes both ways as it comes; what is cut on one side is cut on the other, and not ended as TLS does.
func TestTLSBodies(t *testing.T) {
	files := newSecured(t)
	const size = 3<<20 + 7
	s := files.serve(func(c *peer) {
		head, err := c.head()
		if err != nil {
			return
		}
		switch {
		case strings.Contains(head, "/echo"):
			c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			piece := make([]byte, 100_000)
			for left := size; left > 0; {
				n, err := c.r.Read(piece[:min(left, len(piece))])
				if err != nil {
					return
				}
				left -= n
				c.say(fmt.Sprintf("%x\r\n", n), string(piece[:n]), "\r\n")
			}
			c.say("0\r\n\r\n")
		case strings.Contains(head, "/cut"):
			c.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
		case strings.Contains(head, "/hold"):
			_, _ = c.rest()
		}
	})
	// three megabytes there and back
	c, _ := s.dialTLS(files.client(""))
	body := strings.Repeat("0123456", size/7+1)[:size]
	var sending sync.WaitGroup
	sending.Go(func() { c.say(fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size), body) })
	if _, got := c.expect(200); got != body {
		t.Errorf("%d bytes came back, want %d", len(got), size)
	}
	sending.Wait()
	// half an answer
	c, nc := s.dialTLS(files.client(""))
	c.say("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n")
	_, got, err := c.tryAnswer("GET")
	if err == nil || !wasCut(nc) || !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("half an answer: %q %v, cut %v", got, err, wasCut(nc))
	}
	// a client that leaves: the backend's call ends with it
	c, _ = s.dialTLS(files.client(""))
	c.say("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
	until(t, "the call is under way", func() bool { return s.metric("weir_upstream_connections", "state", "active") == 1 })
	_ = c.Close()
	until(t, "the call has ended", func() bool { return s.requests("reason", "client_gone") == 1 })
	// a refusal is read to its end, whatever the client goes on to send
	s = files.serve(answers(ok, nil), limited("limits: [{name: l, requests: 0, per: 1s}]"))
	c, nc = s.dialTLS(files.client(""))
	c.say("POST / HTTP/1.1\r\nHost: a\r\nX-Tenant-ID: acme\r\nContent-Length: 100000\r\n\r\n", strings.Repeat("x", 30_000))
	if response, _ := c.expect(403); !response.Close {
		t.Error("it does not close")
	}
	c.closed()
	if wasCut(nc) {
		t.Error("the refusal was cut")
	}
}

// An upgraded connection passes over TLS as over a socket: bytes, the end of one side while the other goes on, then the other end.
func TestTLSUpgrade(t *testing.T) {
	files := newSecured(t)
	s := files.serve(func(c *peer) {
		if _, err := c.head(); err != nil {
			return
		}
		c.say(switching, "early")
		text, err := c.rest() // to the end of what the client sends
		if text != "frames" || err != nil {
			t.Errorf("the backend read %q, %v", text, err)
		}
		c.say("and late")
	})
	c, nc := s.dialTLS(files.client(""))
	c.say(upgradeTo)
	if head, err := c.head(); err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("no upgrade: %q, %v", head, err)
	}
	c.say("frames")
	if err := nc.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if text, err := c.rest(); text != "earlyand late" || err != nil || wasCut(nc) {
		t.Errorf("the client read %q, %v, cut %v", text, err, wasCut(nc))
	}
	until(t, "it has passed", func() bool { return s.requests("reason", "passed") == 1 })
}

// BenchmarkTLS is BenchmarkProxy with TLS on neither, one or both sides.
func BenchmarkTLS(b *testing.B) {
	f := func(name string, listener, backend bool) {
		b.Run(name, func(b *testing.B) {
			files := newSecured(b)
			answer := kibibyte + strings.Repeat("x", 1024)
			inner := func(c *peer) {
				out, in := []byte(answer), make([]byte, 64<<10)
				for {
					if _, err := c.Conn.Read(in); err != nil {
						return
					}
					_, _ = c.Conn.Write(out)
				}
			}
			if backend {
				inner = files.script(inner)
			}
			s := serveSnapshot(b, documents(newBackend(b, inner).addr, silent), func(snapshot *policy.Snapshot) {
				files.change(snapshot)
				if !listener {
					snapshot.Sidecar.Listeners[0].TLS = nil
				}
				if !backend {
					snapshot.Backends[0].TLS = nil
				}
			})
			dialed := func() *peer {
				if !listener {
					return s.dial()
				}
				c, _ := s.dialTLS(files.client(""))
				return c
			}
			size := sizeOf(b, dialed(), browserGet)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				exchange := exchangeOf(b, dialed(), browserGet, size)
				for pb.Next() {
					exchange()
				}
			})
		})
	}
	f("plain", false, false)
	f("clients", true, false)
	f("backend", false, true)
	f("both", true, true)
}
