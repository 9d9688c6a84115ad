package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"weir/policy"
	"weir/proxy/certs"
	"weir/proxy/certs/certtest"
	"weir/proxy/wire"
)

// identity is a certificate with its key, in files.
type identity struct {
	dir string
	t   testing.TB
}

func newIdentity(t testing.TB, a *certtest.Authority, l certtest.Leaf) identity {
	t.Helper()
	id := identity{t.TempDir(), t}
	id.rotate(a, l)
	return id
}

func (id identity) cert() string { return filepath.Join(id.dir, "tls.crt") }
func (id identity) key() string  { return filepath.Join(id.dir, "tls.key") }

// rotate replaces both files.
func (id identity) rotate(a *certtest.Authority, l certtest.Leaf) {
	id.t.Helper()
	cert, key := a.Issue(l)
	writeFile(id.t, id.cert(), cert)
	writeFile(id.t, id.key(), key)
}

// load is the pair as a server takes it.
func (id identity) load() tls.Certificate {
	id.t.Helper()
	pair, err := tls.LoadX509KeyPair(id.cert(), id.key())
	if err != nil {
		id.t.Fatal(err)
	}
	return pair
}

func writeFile(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func caFile(t testing.TB, authorities ...*certtest.Authority) string {
	t.Helper()
	var all []byte
	for _, a := range authorities {
		all = append(all, a.PEM...)
	}
	return writeFile(t, filepath.Join(t.TempDir(), "ca.crt"), all)
}

// localhost is what a server of these tests is called.
func localhost() certtest.Leaf { return certtest.Leaf{Names: []string{"127.0.0.1"}} }

// serverConfig is a server's with a certificate for 127.0.0.1.
func serverConfig(t testing.TB, a *certtest.Authority) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{newIdentity(t, a, localhost()).load()}}
}

// overTLS makes a script one over TLS.
func overTLS(config *tls.Config, script func(n int, c *tls.Conn, r *bufio.Reader)) func(int, net.Conn, *bufio.Reader) {
	return func(n int, c net.Conn, _ *bufio.Reader) {
		s := tls.Server(c, config)
		defer s.Close()
		script(n, s, bufio.NewReader(s))
	}
}

// plainly is a script that does not mind TLS.
func plainly(script func(int, net.Conn, *bufio.Reader)) func(int, *tls.Conn, *bufio.Reader) {
	return func(n int, c *tls.Conn, r *bufio.Reader) { script(n, c, r) }
}

// buildTLS is build for a backend with TLS.
func buildTLS(t testing.TB, prev *Set, certsBefore *certs.Set, b policy.Backend, settings policy.ClientTLS) (*Set, *certs.Set) {
	t.Helper()
	b.TLS = &settings
	cs, err := certs.Build(certsBefore, nil, []policy.Backend{b}, certs.Options{Clock: time.Now, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Build(prev, []policy.Backend{b}, Options{Clock: clock(), Logger: zerolog.Nop(), Certificates: cs})
	if err != nil {
		t.Fatal(err)
	}
	s.Adopt(prev)
	t.Cleanup(s.Close)
	return s, cs
}

// tlsBackend is a backend at that address that believes the authority.
func tlsBackend(t testing.TB, a *certtest.Authority, address string) *Backend {
	t.Helper()
	s, _ := buildTLS(t, nil, nil, backendOf("a", address), policy.ClientTLS{CAFile: caFile(t, a)})
	return s.Backend(0)
}

func TestTLS(t *testing.T) {
	ca := certtest.New("ca")
	var states []tls.ConnectionState
	var mu sync.Mutex
	config := serverConfig(t, ca)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, certtest.Pool(ca)
	address := listen(t, overTLS(config, func(_ int, c *tls.Conn, r *bufio.Reader) {
		for {
			head, body, err := readRequest(r)
			if err != nil {
				return
			}
			mu.Lock()
			states = append(states, c.ConnectionState())
			mu.Unlock()
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			if strings.Contains(head, "close") {
				return
			}
		}
	}))
	client := newIdentity(t, ca, certtest.Leaf{Names: []string{"spiffe://example.com/weir"}})
	s, _ := buildTLS(t, nil, nil, backendOf("a", address), policy.ClientTLS{CAFile: caFile(t, ca), CertFile: client.cert(), KeyFile: client.key()})
	b := s.Backend(0)
	f := func(head string, body string, wantReused, wantResumed bool) {
		t.Helper()
		c := acquire(t, b)
		if c.Reused() != wantReused {
			t.Errorf("reused %v, want %v", c.Reused(), wantReused)
		}
		h, err := c.Exchange([]byte(head), []byte(body), wire.Asked{})
		if err != nil || h.Status != 200 {
			t.Fatal(h, err)
		}
		got, err := c.Buffered()
		got = append([]byte(nil), got...)
		for p := make([]byte, 1000); err == nil && !c.BodyDone(); {
			var n int
			n, err = c.ReadBody(p)
			got = append(got, p[:n]...)
		}
		if string(got) != body || err != nil {
			t.Fatalf("%d bytes came back of %d: %v", len(got), len(body), err)
		}
		c.Release()
		mu.Lock()
		state := states[len(states)-1]
		mu.Unlock()
		if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "" || len(state.VerifiedChains) == 0 {
			t.Errorf("version %x, protocol %q, %d chains", state.Version, state.NegotiatedProtocol, len(state.VerifiedChains))
		}
		if state.DidResume != wantResumed {
			t.Errorf("resumed %v, want %v", state.DidResume, wantResumed)
		}
	}
	f(get, "", false, false)
	// one record, many records
	f("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", "hello", true, false)
	f("POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", strings.Repeat("x", 100_000), true, false)
	// the next connection takes up the session of the last
	f("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "", true, false)
	eventually(t, "the end arrives", func() bool { return acquireOnly(t, b) })
	f(get, "", false, true)
}

// acquireOnly says whether the next connection would be new, and gives back one that would not.
func acquireOnly(t testing.TB, b *Backend) bool {
	t.Helper()
	p := b.roster.Load().all[0].pool
	c := p.takeIdle()
	if c != nil {
		p.putIdle(c, 10)
	}
	return c == nil
}

// The first failure of any kind has its own cause, and a text that names it.
func TestTLSErrors(t *testing.T) {
	ca, other := certtest.New("ca"), certtest.New("other")
	f := func(want Cause, text string, script func(int, net.Conn, *bufio.Reader), trusted *certtest.Authority, serverName string) {
		t.Helper()
		settings := policy.ClientTLS{CAFile: caFile(t, trusted), ServerName: serverName}
		backend := backendOf("a", listen(t, script))
		if want == ConnectTimeout {
			backend.ConnectTimeout = 50 * time.Millisecond
		}
		s, _ := buildTLS(t, nil, nil, backend, settings)
		b := s.Backend(0)
		c, err := b.Acquire(Call{Now: b.shared.clock()})
		if err == nil { // a refusal that comes after our end of the handshake
			_, _, err = call(c, get, wire.Asked{})
			c.Release()
		}
		if e := wantCause(t, err, want); !strings.Contains(e.Error(), text) || e.Replayable != (c == nil) {
			t.Errorf("%v, replayable %v; want %s", e, e.Replayable, text)
		}
		eventually(t, "nothing is left", func() bool { return b.stats.quota.live.Load() == 0 && b.roster.Load().all[0].inFlight.Load() == 0 })
		if n := b.stats.ended[classCount+int(want)].Load(); n != 1 {
			t.Errorf("%d counted as %s", n, want)
		}
	}
	answers := func(config *tls.Config) func(int, net.Conn, *bufio.Reader) {
		return overTLS(config, plainly(always(ok)))
	}
	good := serverConfig(t, ca)
	expired := &tls.Config{Certificates: []tls.Certificate{newIdentity(t, ca, certtest.Leaf{
		Names: []string{"127.0.0.1"}, Begins: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour),
	}).load()}}
	mutual, h2, old := good.Clone(), good.Clone(), good.Clone()
	mutual.ClientAuth = tls.RequireAndVerifyClientCert
	h2.NextProtos = []string{"h3"}
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	// whose certificate is not believed: of an unknown authority, of another name, expired
	f(TLSCertificate, "tls_certificate_error: tls: failed to verify certificate: x509: certificate signed by unknown authority", answers(good), other, "")
	f(TLSCertificate, "x509: certificate is not valid for any names, but wanted to match orders.internal", answers(good), ca, "orders.internal")
	f(TLSCertificate, "x509: certificate has expired", answers(expired), ca, "")
	// who refuses us: for want of a certificate, for our protocol, for our version
	f(TLSAlert, "tls_alert_received: remote error: tls: certificate required", answers(mutual), ca, "")
	f(TLSAlert, "no application protocol", answers(h2), ca, "")
	f(TLSAlert, "protocol version not supported", answers(old), ca, "")
	// who does not speak TLS, or stops in the middle
	f(TLSProtocol, "tls_protocol_error: tls: first record does not look like a TLS handshake", func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		_, _ = io.Copy(io.Discard, r)
	}, ca, "")
	f(TLSProtocol, "EOF", func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = r.Peek(1)
		_, _ = r.Discard(r.Buffered())
	}, ca, "")
	f(ConnectTimeout, "deadline exceeded", func(_ int, _ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }, ca, "")
}

// What the documents say of TLS is never forgotten on the way.
func TestTLSWithoutCertificates(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a backend with TLS was built without")
		}
	}()
	b := backendOf("a", "127.0.0.1:1")
	b.TLS = new(policy.ClientTLS)
	_, _ = Build(nil, []policy.Backend{b}, Options{Clock: clock(), Logger: zerolog.Nop()})
}

// quiet says whether nothing waits in the socket below TLS.
func quiet(t testing.TB, c *Conn) (quiet bool) {
	t.Helper()
	if c.under.raw == nil {
		return false // there is no descriptor to look at
	}
	if err := c.under.raw.Control(func(fd uintptr) { quiet = silent(fd) }); err != nil {
		t.Fatal(err)
	}
	return quiet
}

// A session ticket that comes late is no unread byte.
func TestTLSTicketsComeLate(t *testing.T) {
	ca := certtest.New("ca")
	config := serverConfig(t, ca)
	config.ClientAuth = tls.RequestClientCert // then tickets are made when the handshake is over
	b := tlsBackend(t, ca, listen(t, overTLS(config, plainly(always(ok)))))
	c := acquire(t, b) // the handshake is over, and nobody has read what follows it
	if c.under.raw == nil {
		return // nobody can look
	}
	eventually(t, "the tickets arrive", func() bool { return !quiet(t, c) })
	if !c.silent() {
		t.Error("the connection was given up for its tickets")
	}
	if !quiet(t, c) {
		t.Error("the tickets are still there")
	}
	if n := testing.AllocsPerRun(100, func() { c.silent() }); n > 2 {
		t.Errorf("a look allocates %v times", n)
	}
	succeed(t, c)
}

func TestTLSStaleConnectionsAreFoundAtCheckOut(t *testing.T) {
	ca := certtest.New("ca")
	f := func(name string, end func(c *tls.Conn)) {
		t.Helper()
		released, closed := make(chan struct{}), make(chan struct{})
		b := tlsBackend(t, ca, listen(t, overTLS(serverConfig(t, ca), func(n int, c *tls.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			_, _ = io.WriteString(c, ok)
			if n == 0 {
				<-released
				end(c)
				close(closed)
			}
			_, _ = io.Copy(io.Discard, r)
		})))
		first := acquire(t, b)
		succeed(t, first)
		if !first.silent() {
			t.Errorf("%s: given up too early", name)
		}
		close(released)
		<-closed
		eventually(t, name+": the end arrives", func() bool { return !first.silent() })
		c := acquire(t, b)
		if c.Reused() {
			t.Errorf("%s: a dead connection was handed out", name)
		}
		succeed(t, c)
		if n := b.stats.quota.live.Load(); n != 1 {
			t.Errorf("%s: %d live, want 1", name, n)
		}
	}
	f("closed", func(c *tls.Conn) { c.Close() })
	f("closed without a word", func(c *tls.Conn) { c.NetConn().Close() })
	f("reset", func(c *tls.Conn) { reset(c.NetConn()); c.NetConn().Close() })
	f("half closed", func(c *tls.Conn) { _ = c.CloseWrite() })
	f("bytes that nobody asked for", func(c *tls.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 408 Timeout\r\n\r\n") })
	f("the beginning of a record", func(c *tls.Conn) { _, _ = c.NetConn().Write([]byte{23, 3, 3}) })
	f("most of a record", func(c *tls.Conn) { _, _ = c.NetConn().Write([]byte{23, 3, 3, 0, 50, 1, 2, 3}) })
	f("no record at all", func(c *tls.Conn) { _, _ = io.WriteString(c.NetConn(), "HTTP/1.1 408 Timeout\r\n\r\n") })
}

// TestTLSStaleConnectionsNeverFailPOSTs is its namesake over TLS.
func TestTLSStaleConnectionsNeverFailPOSTs(t *testing.T) {
	const posts = 1000
	ca := certtest.New("ca")
	for _, polite := range []bool{true, false} {
		seen := new(sync.Map)
		closed := make(chan struct{})
		b := tlsBackend(t, ca, listen(t, overTLS(serverConfig(t, ca), func(n int, c *tls.Conn, r *bufio.Reader) {
			if !polite {
				defer c.NetConn().Close()
			}
			counted(seen, 1, func() { closed <- struct{}{} })(n, politely{c, polite}, r)
		})))
		failed, replayed, err := poster(b, 0, posts, func() {
			<-closed
			// On a busy machine the kernel can be late even on loopback.
			c := (*b.roster.Load().all[0].pool.table.Load())[0]
			eventually(t, "the end arrives", func() bool { return !quiet(t, c) })
		})
		if failed != 0 {
			t.Errorf("polite %v: %d POSTs failed, %d were sent again: %v", polite, failed, replayed, err)
		}
		count := 0
		seen.Range(func(body, n any) bool {
			if count++; n.(*atomic.Int64).Load() != 1 {
				t.Errorf("POST %s arrived %d times", body, n.(*atomic.Int64).Load())
			}
			return true
		})
		if count != posts {
			t.Errorf("%d different POSTs arrived, want %d", count, posts)
		}
	}
}

// politely closes with or without telling TLS.
type politely struct {
	*tls.Conn
	told bool
}

func (p politely) Close() error {
	if p.told {
		return p.Conn.Close()
	}
	return p.NetConn().Close()
}

// A connection that closed before the request came is told from one that may have read it.
func TestTLSReplayable(t *testing.T) {
	ca := certtest.New("ca")
	f := func(name string, want bool, before, after func(c *tls.Conn, r *bufio.Reader)) {
		t.Helper()
		ready, sent, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
		b := tlsBackend(t, ca, listen(t, overTLS(serverConfig(t, ca), func(_ int, c *tls.Conn, r *bufio.Reader) {
			defer close(done)
			_ = c.Handshake()
			before(c, r)
			close(ready)
			<-sent
			after(c, r)
		})))
		c := acquire(t, b)
		<-ready
		_, err := c.Write([]byte(get))
		close(sent)
		if err == nil {
			_, err = c.ReadHead(wire.Asked{})
		}
		if e := wantCause(t, err, Reset); e.Replayable != want {
			t.Errorf("%s: replayable is %v, want %v (%v)", name, e.Replayable, want, err)
		}
		c.Release()
		<-done
	}
	nothing := func(*tls.Conn, *bufio.Reader) {}
	f("closed before the request", true, func(c *tls.Conn, _ *bufio.Reader) { c.Close() }, nothing)
	f("closed before it, without a word", true, func(c *tls.Conn, _ *bufio.Reader) { c.NetConn().Close() }, nothing)
	f("closed after the request was read", false, nothing, func(c *tls.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		c.Close()
	})
	f("closed after it was read, without a word", false, nothing, func(c *tls.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		c.NetConn().Close()
	})
}

// Only an end that TLS was told of is a clean one.
func TestTLSTruncation(t *testing.T) {
	ca := certtest.New("ca")
	const toClose = "HTTP/1.1 200 OK\r\n\r\nhalf"
	f := func(answer string, polite bool, want Cause) {
		t.Helper()
		b := tlsBackend(t, ca, listen(t, overTLS(serverConfig(t, ca), func(_ int, c *tls.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			_, _ = io.WriteString(c, answer)
			if !polite {
				c.NetConn().Close()
			}
		})))
		c := acquire(t, b)
		_, body, err := call(c, get, wire.Asked{})
		if want == NoCause {
			if err != nil || body != "half" {
				t.Errorf("%q %v", body, err)
			}
		} else {
			wantCause(t, err, want)
		}
		c.Release()
	}
	f(toClose, true, NoCause)
	f(toClose, false, Truncated)
	f("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", false, Truncated)
	f("HTTP/1.1 200 OK\r\nContent-Le", false, Truncated)
}

// A request that is given up does not end as TLS does: nobody can take half of it for the whole. An idle connection does.
func TestTLSGoodbye(t *testing.T) {
	ca := certtest.New("ca")
	config := serverConfig(t, ca)
	f := func(wantCut bool, end func(c *Conn)) {
		t.Helper()
		cut := make(chan bool, 1)
		b := tlsBackend(t, ca, listen(t, func(_ int, c net.Conn, _ *bufio.Reader) {
			u := &underTLS{Conn: c}
			s := tls.Server(u, config)
			r := bufio.NewReader(s)
			if _, _, err := readRequest(r); err == nil {
				_, _ = io.WriteString(s, ok)
			}
			_, err := io.Copy(io.Discard, r)
			cut <- u.cut || err != nil
		}))
		end(acquire(t, b))
		if got := <-cut; got != wantCut {
			t.Errorf("cut is %v, want %v", got, wantCut)
		}
	}
	f(true, func(c *Conn) {
		if _, err := c.Write([]byte("POST / HTTP/1.1\r\nHost: a\r\n\r\nhalf")); err != nil {
			t.Fatal(err)
		}
		c.Cancel(c.Use())
		c.Release()
	})
	f(false, func(c *Conn) {
		succeed(t, c)
		c.expire()
	})
}

// Connections made under other settings are not used under these; those made under the same are, whatever the files have become.
func TestTLSAdoption(t *testing.T) {
	ca := certtest.New("ca")
	server := newIdentity(t, ca, certtest.Leaf{Names: []string{"127.0.0.1", "orders.internal"}})
	address := listen(t, overTLS(&tls.Config{Certificates: []tls.Certificate{server.load()}}, plainly(always(ok))))
	settings := policy.ClientTLS{CAFile: caFile(t, ca)}
	s, cs := buildTLS(t, nil, nil, backendOf("a", address), settings)
	f := func(next policy.ClientTLS, wantReused bool) {
		t.Helper()
		s, cs = buildTLS(t, s, cs, backendOf("a", address), next)
		c := acquire(t, s.Backend(0))
		if c.Reused() != wantReused {
			t.Errorf("reused %v, want %v", c.Reused(), wantReused)
		}
		succeed(t, c)
	}
	f(settings, false)
	f(settings, true)
	cs.Reload()
	f(settings, true)
	settings.ServerName = "orders.internal"
	f(settings, false)
	f(settings, true)
	// from TLS to none
	next := build(t, s, backendOf("a", address))
	if next.Backend(0).roster.Load().all[0].tls != nil {
		t.Error("a backend without TLS has kept it")
	}
}

// While both sides rotate again and again, no request fails: the server's certificate, ours, and the authorities of both.
func TestTLSRotationUnderLoad(t *testing.T) {
	const rotations, workers = 50, 4
	authorities := []*certtest.Authority{certtest.New("a"), certtest.New("b")}
	pool := certtest.Pool(authorities...)
	server := newIdentity(t, authorities[0], localhost())
	client := newIdentity(t, authorities[0], certtest.Leaf{Names: []string{"weir"}})
	var current atomic.Pointer[tls.Certificate]
	pair := server.load()
	current.Store(&pair)
	var clients sync.Map // names of those that asked
	address := listen(t, overTLS(&tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil },
	}, func(_ int, c *tls.Conn, r *bufio.Reader) {
		for _, answer := range []string{ok, ok, ok, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"} { // many handshakes
			if _, _, err := readRequest(r); err != nil {
				return
			}
			clients.Store(c.ConnectionState().PeerCertificates[0].DNSNames[0], true)
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}))
	ca := caFile(t, authorities...)
	s, cs := buildTLS(t, nil, nil, backendOf("a", address), policy.ClientTLS{CAFile: ca, CertFile: client.cert(), KeyFile: client.key()})
	b := s.Backend(0)
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var done atomic.Int64
	for range workers {
		load.Go(func() {
			for ctx.Err() == nil {
				if failed, _, err := poster(b, 0, 1, func() {}); failed != 0 {
					t.Errorf("a request failed: %v", err)
					return
				}
				done.Add(1)
			}
		})
	}
	for i := range rotations {
		a := authorities[i%2]
		server.rotate(a, localhost())
		pair := server.load()
		current.Store(&pair)
		name := fmt.Sprintf("weir-%d", i)
		client.rotate(a, certtest.Leaf{Names: []string{name}})
		writeFile(t, ca, append(append([]byte(fmt.Sprintf("# %d\n", i)), authorities[0].PEM...), authorities[1].PEM...))
		cs.Reload()
		eventually(t, "the new certificate is shown", func() bool { _, shown := clients.Load(name); return shown || t.Failed() })
	}
	cancel()
	load.Wait()
	t.Logf("%d requests and %d dials during %d rotations", done.Load(), b.stats.dials.Load(), rotations)
}

// Checks of health speak TLS as requests do.
func TestTLSChecks(t *testing.T) {
	ca := certtest.New("ca")
	address := listen(t, overTLS(serverConfig(t, ca), plainly(always(ok))))
	b := tlsBackend(t, ca, address)
	if err := b.ask(t.Context(), b.roster.Load().all[0].endpoint, "/healthz"); err != nil {
		t.Error(err)
	}
	b = tlsBackend(t, certtest.New("other"), address)
	if err := b.ask(t.Context(), b.roster.Load().all[0].endpoint, "/healthz"); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("a check of an endpoint that is not believed: %v", err)
	}
}

func TestRecordReader(t *testing.T) {
	records := []byte{22, 3, 1, 0, 2, 'a', 'b', 23, 3, 3, 0, 0, 23, 3, 3, 1, 0}
	records = append(records, make([]byte, 256)...)
	borders := map[int]bool{0: true, 7: true, 12: true, len(records): true}
	for size := 1; size <= len(records); size++ {
		var r recordReader
		for at := 0; at < len(records); {
			n := min(size, len(records)-at)
			r.pass(records[at : at+n])
			if at += n; r.within() == borders[at] {
				t.Fatalf("in pieces of %d, after %d bytes: within a record is %v", size, at, r.within())
			}
		}
	}
}

// BenchmarkTLS is a keep-alive exchange with a backend, over TLS and plain.
func BenchmarkTLS(b *testing.B) {
	ca := certtest.New("ca")
	for _, secure := range []bool{false, true} {
		b.Run(fmt.Sprintf("tls=%v", secure), func(b *testing.B) {
			var backend *Backend
			if secure {
				backend = tlsBackend(b, ca, listen(b, overTLS(serverConfig(b, ca), plainly(always(ok)))))
			} else {
				backend = build(b, nil, backendOf("a", listen(b, always(ok)))).Backend(0)
			}
			b.ReportAllocs()
			for b.Loop() {
				c := acquire(b, backend)
				if _, err := c.Exchange([]byte(get), nil, wire.Asked{}); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Buffered(); err != nil || !c.BodyDone() {
					b.Fatal(err, c.BodyDone())
				}
				c.Release()
			}
		})
	}
}
