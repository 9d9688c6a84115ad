package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"weir/policy"
	"weir/proxy/certs/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder is a place for files.
type folder struct {
	t   testing.TB
	dir string
}

func newFolder(t testing.TB) folder { return folder{t, t.TempDir()} }

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

// write replaces a file and returns its path.
func (f folder) write(name string, data []byte) string {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), data, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return f.path(name)
}

// pair writes a certificate and its key.
func (f folder) pair(a *certtest.Authority, l certtest.Leaf) {
	f.t.Helper()
	cert, key := a.Issue(l)
	f.write("tls.crt", cert)
	f.write("tls.key", key)
}

func (f folder) listener(require bool, ca string) []policy.ListenerSettings {
	return []policy.ListenerSettings{{Name: "https", TLS: &policy.ListenerTLS{
		CertFile: f.path("tls.crt"), KeyFile: f.path("tls.key"), ClientCAFile: ca, RequireClientCert: require,
	}}}
}

func backend(t policy.ClientTLS) []policy.Backend { return []policy.Backend{{Name: "orders", TLS: &t}} }

func options(log io.Writer) Options { return Options{Clock: time.Now, Logger: zerolog.New(log)} }

func build(t testing.TB, prev *Set, listeners []policy.ListenerSettings, backends []policy.Backend) *Set {
	t.Helper()
	s, err := Build(prev, listeners, backends, options(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shake lets two sides shake hands and exchange a byte each way, and returns what each has to say of it.
func shake(t testing.TB, client, server *tls.Config) (cs, ss tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // a pipe takes no byte before it is read, and both sides write at once
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	cc, sc := tls.Client(a, client), tls.Server(b, server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var p [1]byte
		if serverErr = sc.Handshake(); serverErr == nil {
			_, serverErr = io.ReadFull(sc, p[:])
		}
		if serverErr == nil {
			_, serverErr = sc.Write(p[:])
		}
		_ = b.(*net.TCPConn).CloseWrite() // no reset, that would overtake what was said
	}()
	var p [1]byte
	_, clientErr = cc.Write([]byte("x"))
	if clientErr == nil {
		_, clientErr = io.ReadFull(cc, p[:]) // with TLS 1.3 a refusal of our certificate comes here
	}
	a.Close()
	<-done
	return cc.ConnectionState(), sc.ConnectionState(), clientErr, serverErr
}

func TestHandshake(t *testing.T) {
	ca, files := certtest.New("ca"), newFolder(t)
	files.pair(ca, certtest.Leaf{Names: []string{"orders.internal", "127.0.0.1"}})
	caFile := files.write("ca.crt", ca.PEM)
	ours := policy.ClientTLS{CAFile: caFile, CertFile: files.path("tls.crt"), KeyFile: files.path("tls.key")}
	f := func(require bool, clientCA string, client policy.ClientTLS, address string, wantCert bool) {
		t.Helper()
		s := build(t, nil, files.listener(require, clientCA), backend(client))
		cs, ss, clientErr, serverErr := shake(t, s.Client("orders").Endpoint(address).Config(), s.Server("https").Config())
		if clientErr != nil || serverErr != nil {
			t.Errorf("%v, %v", clientErr, serverErr)
			return
		}
		if cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != "http/1.1" {
			t.Errorf("version %x, protocol %q", cs.Version, cs.NegotiatedProtocol)
		}
		if got := len(ss.VerifiedChains) > 0; got != wantCert {
			t.Errorf("a verified client certificate: %v, want %v", got, wantCert)
		}
	}
	// the name of the endpoint, by name and by address
	f(false, "", policy.ClientTLS{CAFile: caFile}, "orders.internal:443", false)
	f(false, "", policy.ClientTLS{CAFile: caFile}, "127.0.0.1:443", false)
	// a name of its own, also for a socket
	f(false, "", policy.ClientTLS{CAFile: caFile, ServerName: "orders.internal"}, "other:443", false)
	f(false, "", policy.ClientTLS{CAFile: caFile, ServerName: "orders.internal"}, "/run/a.sock", false)
	// a client certificate: not asked for, optional and absent, optional and there, required and there
	f(false, "", ours, "127.0.0.1:443", false)
	f(false, caFile, policy.ClientTLS{CAFile: caFile}, "127.0.0.1:443", false)
	f(false, caFile, ours, "127.0.0.1:443", true)
	f(true, caFile, ours, "127.0.0.1:443", true)
}

func TestHandshakeErrors(t *testing.T) {
	ca, other, files := certtest.New("ca"), certtest.New("other"), newFolder(t)
	files.pair(ca, certtest.Leaf{Names: []string{"orders.internal"}})
	caFile, otherFile := files.write("ca.crt", ca.PEM), files.write("other.crt", other.PEM)
	strangers := newFolder(t)
	strangers.pair(other, certtest.Leaf{Names: []string{"stranger"}})
	shown := func(s folder, caFile string) policy.ClientTLS {
		return policy.ClientTLS{CAFile: caFile, CertFile: s.path("tls.crt"), KeyFile: s.path("tls.key"), ServerName: "orders.internal"}
	}
	f := func(clientCA string, client policy.ClientTLS, change func(*tls.Config), wantClient, wantServer string) {
		t.Helper()
		s := build(t, nil, files.listener(clientCA != "", clientCA), backend(client))
		config := s.Client("orders").Endpoint("a:1").Config().Clone()
		change(config)
		_, _, clientErr, serverErr := shake(t, config, s.Server("https").Config())
		if clientErr == nil || !strings.Contains(clientErr.Error(), wantClient) {
			t.Errorf("the client says %v, want %s", clientErr, wantClient)
		}
		if serverErr == nil || !strings.Contains(serverErr.Error(), wantServer) {
			t.Errorf("the server says %v, want %s", serverErr, wantServer)
		}
	}
	plain := func(*tls.Config) {}
	// the server's certificate: of an unknown authority, of another name
	f("", policy.ClientTLS{CAFile: otherFile, ServerName: "orders.internal"}, plain, "unknown authority", "bad certificate")
	f("", policy.ClientTLS{CAFile: caFile, ServerName: "a.internal"}, plain, "not a.internal", "bad certificate")
	f("", policy.ClientTLS{CAFile: caFile}, plain, "not a", "bad certificate") // the endpoint's host
	// the client's: none, of an unknown authority
	f(caFile, policy.ClientTLS{CAFile: caFile, ServerName: "orders.internal"}, plain, "certificate required", "didn't provide a certificate")
	f(caFile, shown(strangers, caFile), plain, "unknown certificate authority", "unknown authority")
	// HTTP/2 only, and a version of the last century
	f("", shown(files, caFile), func(c *tls.Config) { c.NextProtos = []string{"h2"} }, "no application protocol", "unsupported application protocols")
	f("", shown(files, caFile), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
		"protocol version not supported", "unsupported versions")
}

func TestBuildErrors(t *testing.T) {
	ca, files := certtest.New("ca"), newFolder(t)
	now := time.Now()
	cert, key := ca.Issue(certtest.Leaf{Names: []string{"a.internal"}})
	otherCert, otherKey := ca.Issue(certtest.Leaf{})
	old, oldKey := ca.Issue(certtest.Leaf{Names: []string{"a.internal"}, Begins: now.AddDate(0, 0, -2), Expires: now.AddDate(0, 0, -1)})
	early, earlyKey := ca.Issue(certtest.Leaf{Names: []string{"a.internal"}, Begins: now.AddDate(0, 0, 1), Expires: now.AddDate(0, 0, 2)})
	f := func(cert, key, caPEM []byte, want ...string) {
		t.Helper()
		for name, data := range map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": caPEM} {
			if err := os.RemoveAll(files.path(name)); err != nil {
				t.Fatal(err)
			}
			if data != nil {
				files.write(name, data)
			}
		}
		check := func(listeners []policy.ListenerSettings, backends []policy.Backend, more string) {
			t.Helper()
			s, err := Build(nil, listeners, backends, options(io.Discard))
			if err == nil {
				t.Errorf("built %v, want %s", s, want)
				return
			}
			for _, part := range append(want, more) {
				if part = strings.ReplaceAll(part, "DIR", files.dir); !strings.Contains(err.Error(), part) {
					t.Errorf("the error is %q, want %q in it", err, part)
				}
			}
		}
		check(files.listener(true, files.path("ca.crt")), nil, `cannot load the TLS of listener "https": `)
		check(nil, backend(policy.ClientTLS{CAFile: files.path("ca.crt"), CertFile: files.path("tls.crt"), KeyFile: files.path("tls.key")}),
			`cannot load the TLS of backend "orders": `)
	}
	// a file that is missing
	f(nil, key, ca.PEM, "certFile DIR/tls.crt: no such file or directory; correct the path")
	f(cert, nil, ca.PEM, "keyFile DIR/tls.key: no such file or directory; correct the path")
	f(cert, key, nil, "CA file DIR/ca.crt: no such file or directory; correct the path")
	// empty, swapped, not PEM, broken
	f([]byte{}, key, ca.PEM, "certificate DIR/tls.crt: it has no certificate in PEM")
	f(cert, []byte{}, ca.PEM, "private key DIR/tls.key: it has no private key in PEM")
	f(key, cert, ca.PEM, "certificate DIR/tls.crt", "swapped?")
	f(cert, cert, ca.PEM, "private key DIR/tls.key", "swapped?")
	f(cert, key, key, "authorities DIR/ca.crt: it has no certificate in PEM")
	f([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), key, ca.PEM, "certificate DIR/tls.crt: cannot parse certificate number 1")
	f(cert, key, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "authorities DIR/ca.crt: cannot parse certificate number 1")
	// a key with a passphrase, in both forms
	f(cert, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), ca.PEM, "DIR/tls.key", "passphrase")
	f(cert, []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n"),
		ca.PEM, "DIR/tls.key", "passphrase")
	// two that do not belong together, also because the chain stands first
	f(cert, otherKey, ca.PEM, "private key DIR/tls.key with certificate DIR/tls.crt", "of one pair")
	f(slices.Concat(ca.PEM, cert), key, ca.PEM, "of one pair")
	f(otherCert, key, ca.PEM, "of one pair")
	// not valid now, in the chain's second place too
	f(old, oldKey, ca.PEM, "certificate DIR/tls.crt: number 1 in it, of a.internal, expired on ", "; renew it")
	f(early, earlyKey, ca.PEM, "number 1 in it, of a.internal, is valid from ", "the clock of this machine says")
	f(slices.Concat(cert, old), key, ca.PEM, "number 2 in it, of a.internal, expired on ")
	f(cert, key, old, "authorities DIR/ca.crt: none of the 1 in it is in force: a.internal expired on ")

	// what is no file
	files.write("tls.crt", cert)
	files.write("tls.key", key)
	_, err := Build(nil, files.listener(true, files.dir), nil, options(io.Discard))
	if err == nil || !strings.Contains(err.Error(), "it is no regular file") {
		t.Errorf("of a folder: %v", err)
	}
	if err := os.Truncate(files.path("tls.key"), largestFile+1); err != nil {
		t.Fatal(err)
	}
	_, err = Build(nil, files.listener(false, ""), nil, options(io.Discard))
	if err == nil || !strings.Contains(err.Error(), "want at most") {
		t.Errorf("of a large file: %v", err)
	}
}

func TestReadAdvice(t *testing.T) {
	if got := readAdvice(os.ErrPermission); !strings.Contains(got, "user that this process runs as") {
		t.Errorf("of a file that must not be read: %q", got)
	}
	if got := readAdvice(io.EOF); got != "" {
		t.Errorf("of anything else: %q", got)
	}
}

func TestBuildAdopts(t *testing.T) {
	ca, files := certtest.New("ca"), newFolder(t)
	files.pair(ca, certtest.Leaf{})
	caFile := files.write("ca.crt", ca.PEM)
	plain := []policy.ListenerSettings{{Name: "https"}}
	one := build(t, nil, files.listener(false, ""), backend(policy.ClientTLS{CAFile: caFile}))

	// the same settings: nothing is read again
	if err := os.Remove(caFile); err != nil {
		t.Fatal(err)
	}
	same := build(t, one, files.listener(false, ""), backend(policy.ClientTLS{CAFile: caFile}))
	if same.Server("https") != one.Server("https") || same.Client("orders") != one.Client("orders") {
		t.Error("what did not change was not adopted")
	}
	// other settings: new, and the old set is as it was
	files.write("ca.crt", ca.PEM)
	changed := build(t, one, files.listener(true, caFile), backend(policy.ClientTLS{CAFile: caFile, ServerName: "x"}))
	if changed.Server("https") == one.Server("https") || changed.Client("orders") == one.Client("orders") {
		t.Error("what changed was adopted")
	}
	// forgotten: gone, unless it is a listener in use
	if gone := build(t, one, plain, nil); gone.Server("https") != nil || gone.Client("orders") != nil {
		t.Error("what nobody uses is kept")
	}
	one.Server("https").Config()
	if kept := build(t, one, plain, nil); kept.Server("https") != one.Server("https") {
		t.Error("a listener in use lost its TLS")
	}
	// none at all
	if (*Set)(nil).Client("orders") != nil || build(t, nil, plain, nil).Server("https") != nil {
		t.Error("there is TLS where none was asked for")
	}
}

// A rotation reaches the next handshake. What is broken leaves in force what was read before, says so once, and counts every look.
func TestReload(t *testing.T) {
	ca, next, files := certtest.New("ca"), certtest.New("next"), newFolder(t)
	files.pair(ca, certtest.Leaf{Names: []string{"first"}})
	clients := newFolder(t)
	clients.pair(ca, certtest.Leaf{Names: []string{"client-1"}})
	caFile := clients.write("ca.crt", slices.Concat(ca.PEM, next.PEM))
	var log bytes.Buffer
	s, err := Build(nil, files.listener(true, caFile), backend(policy.ClientTLS{
		CAFile: caFile, CertFile: clients.path("tls.crt"), KeyFile: clients.path("tls.key"),
	}), options(&log))
	if err != nil {
		t.Fatal(err)
	}
	server := s.Server("https").Config()
	endpoint := s.Client("orders").Endpoint("a:1")
	f := func(wantServer, wantClient string) {
		t.Helper()
		config := endpoint.Config().Clone()
		config.ServerName = wantServer
		cs, ss, clientErr, serverErr := shake(t, config, server)
		if clientErr != nil || serverErr != nil {
			t.Fatalf("%v, %v", clientErr, serverErr)
		}
		if got := subject(cs.PeerCertificates[0]); got != wantServer {
			t.Errorf("the server is %s, want %s", got, wantServer)
		}
		if got := subject(ss.PeerCertificates[0]); got != wantClient {
			t.Errorf("the client is %s, want %s", got, wantClient)
		}
	}
	said := func(text string) (n int) {
		n = strings.Count(log.String(), text)
		log.Reset()
		return n
	}
	f("first", "client-1")
	// nothing changed, though the files are newer
	cert, err := os.ReadFile(files.path("tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	files.write("tls.crt", cert)
	s.Reload()
	if log.Len() != 0 {
		t.Errorf("it says %s", &log)
	}
	// both sides rotate
	files.pair(next, certtest.Leaf{Names: []string{"second"}})
	s.Reload()
	if n := said("TLS files rotated"); n != 1 {
		t.Errorf("%d lines of a rotation, want 1", n)
	}
	f("second", "client-1")
	clients.pair(next, certtest.Leaf{Names: []string{"client-2"}})
	s.Reload()
	f("second", "client-2")
	log.Reset()
	// half a rotation, twice looked at
	third, thirdKey := next.Issue(certtest.Leaf{Names: []string{"third"}})
	files.write("tls.crt", third)
	s.Reload()
	s.Reload()
	if n := said("TLS files not taken"); n != 1 {
		t.Errorf("%d lines of a broken rotation, want 1", n)
	}
	f("second", "client-2")
	if got := gather(t, s)[`weir_tls_reload_failures_total{name="https",use="listener"}`]; got != 2 {
		t.Errorf("%v failures, want 2", got)
	}
	// another fault is said, too
	if err := os.Remove(files.path("tls.key")); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	if n := said("no such file"); n != 1 {
		t.Errorf("%d lines of the missing file, want 1", n)
	}
	// the other half
	files.write("tls.key", thirdKey)
	s.Reload()
	f("third", "client-2")
	// a fault that is taken back
	files.write("tls.crt", cert)
	s.Reload()
	files.write("tls.crt", third)
	log.Reset()
	s.Reload()
	if n := said("again what is in force"); n != 1 {
		t.Errorf("%d lines of the end of a fault, want 1", n)
	}
	f("third", "client-2")
}

// Sessions are resumed across a rotation of the server's certificate; a client whose authority is no longer believed is not.
func TestResumption(t *testing.T) {
	ca, next, files := certtest.New("ca"), certtest.New("next"), newFolder(t)
	files.pair(ca, certtest.Leaf{Names: []string{"a"}})
	clients := newFolder(t)
	clients.pair(ca, certtest.Leaf{Names: []string{"client"}})
	caFile := clients.write("ca.crt", ca.PEM)
	s := build(t, nil, files.listener(true, caFile), backend(policy.ClientTLS{
		CAFile: files.write("server-ca.crt", ca.PEM), CertFile: clients.path("tls.crt"), KeyFile: clients.path("tls.key"),
	}))
	server := s.Server("https").Config()
	endpoint := s.Client("orders").Endpoint("a:1")
	f := func(want bool) {
		t.Helper()
		cs, ss, clientErr, serverErr := shake(t, endpoint.Config(), server)
		if clientErr != nil || serverErr != nil {
			t.Fatalf("%v, %v", clientErr, serverErr)
		}
		if cs.DidResume != want || ss.DidResume != want || len(ss.VerifiedChains) == 0 {
			t.Errorf("resumed %v and %v, %d chains; want %v", cs.DidResume, ss.DidResume, len(ss.VerifiedChains), want)
		}
	}
	f(false)
	f(true)
	// another endpoint has sessions of its own
	if other := s.Client("orders").Endpoint("a:1").Config(); other.ClientSessionCache == endpoint.Config().ClientSessionCache {
		t.Error("two endpoints share their sessions")
	}
	files.pair(ca, certtest.Leaf{Names: []string{"a"}})
	s.Reload()
	f(true)
	// our own certificate is another: the session of the old one is forgotten
	clients.pair(ca, certtest.Leaf{Names: []string{"client"}})
	s.Reload()
	f(false)
	f(true)
	// the client's authority goes, while the client does not know
	clients.write("ca.crt", next.PEM)
	s.Reload()
	_, _, clientErr, serverErr := shake(t, endpoint.Config(), server)
	var unknown x509.UnknownAuthorityError
	if clientErr == nil || !errors.As(serverErr, &unknown) {
		t.Errorf("a client of yesterday's authority: %v, %v", clientErr, serverErr)
	}
}

// gather returns the metrics by their text.
func gather(t testing.TB, s *Set) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(NewCollector(func() *Set { return s })); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+`="`+l.GetValue()+`"`)
			}
			got[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return got
}

func TestCollector(t *testing.T) {
	ca, files := certtest.New("ca"), newFolder(t)
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	files.pair(ca, certtest.Leaf{Expires: expires})
	s := build(t, nil, files.listener(false, ""), backend(policy.ClientTLS{CAFile: files.write("ca.crt", ca.PEM)}))
	s.Server("https").HandshakeFailed()
	got := gather(t, s)
	for name, want := range map[string]float64{
		`weir_tls_certificate_expiry_timestamp_seconds{name="https",use="listener"}`: float64(expires.Unix()),
		`weir_tls_reload_failures_total{name="https",use="listener"}`:                0,
		`weir_tls_reload_failures_total{name="orders",use="backend"}`:                0,
		`weir_tls_handshake_failures_total{listener="https"}`:                        1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	if len(got) != 4 {
		t.Errorf("there are %d series, want 4: a backend without a certificate of ours has no expiry: %v", len(got), got)
	}
	if got := gather(t, nil); len(got) != 0 {
		t.Errorf("before the first set: %v", got)
	}
}

func TestFollow(t *testing.T) {
	ca, files := certtest.New("ca"), newFolder(t)
	files.pair(ca, certtest.Leaf{Names: []string{"first"}})
	now := time.Now()
	s, err := Build(nil, files.listener(false, ""), nil, Options{Clock: func() time.Time { return now }, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	inForce := func() string { return subject(s.Server("https").current.Load().Certificates[0].Leaf) }
	files.pair(ca, certtest.Leaf{Names: []string{"second"}})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var following sync.WaitGroup
		following.Go(func() { Follow(ctx, func() *Set { return s }) })
		timer := time.NewTimer(Interval + time.Millisecond)
		if got := inForce(); got != "first" {
			t.Errorf("at once it is %s", got)
		}
		<-timer.C
		if got := inForce(); got != "second" {
			t.Errorf("after %v it is %s", Interval, got)
		}
		cancel()
		following.Wait()
	})
}
