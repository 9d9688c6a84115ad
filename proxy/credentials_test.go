package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weir/admit"
	"weir/admit/token/tokentest"
	"weir/policy"
	"weir/proxy/certs/certtest"
)

// identified are documents with these sources of identity.
func identified(backend, identity string, further ...string) string {
	return strings.Replace(documents(backend, further...), "[{header: X-Tenant-ID, trust: any}]", identity, 1)
}

// keyed gives a snapshot with one jwt source its keys.
func keyed(t testing.TB, s *policy.Snapshot, keys ...*tokentest.Key) *policy.Snapshot {
	t.Helper()
	set, problems := policy.ParseKeySet("jwks", tokentest.Set(keys...))
	if len(problems) > 0 {
		t.Fatalf("cannot parse keys: %v", problems)
	}
	return s.WithKeys([]policy.Keys{{Set: set}})
}

// claimsUntil are those of a token for acme.
func claimsUntil(expiry string) string {
	return `{"aud":"orders","exp":` + expiry + `,"tenant":"acme"}`
}

const jwtIdentity = "[{jwt: {jwksFile: k, audience: orders}}, {clientCIDR: [{cidr: 127.0.0.0/8, tenant: rest}]}]"

// A token says who the tenant is, and goes on to the backend as it came; one that is not valid says why not.
func TestJWTThroughTheWire(t *testing.T) {
	t.Parallel()
	key, evil := tokentest.New("one", "ES256"), tokentest.New("one", "ES256")
	got := make(chan string, 1)
	s := start(t, keyed(t, compile(t, identified(answering(t, ok, got).addr, jwtIdentity)), key), SystemClock(), nil)
	c := s.dial() // one connection for all: none of this is a reason to close it
	requests, rejected := 0, 0
	say := func(sent string) {
		requests++
		c.say("GET / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: evil\r\n" + sent + "\r\n")
	}
	f := func(sent, tenant string) {
		t.Helper()
		say(sent)
		c.expect(200)
		head := within(t, "the backend has it", got)
		if diff := cmp.Diff(tenant, strings.Join(fields(head, "X-Tenant-ID"), " ")); diff != "" {
			t.Errorf("%q: %s", sent, diff)
		}
		if !strings.Contains(head, sent) {
			t.Errorf("the backend got %q, want it with %q", head, sent)
		}
		if line := s.endsAfter(requests, "passed", 200); line.text("tenant") != tenant {
			t.Errorf("%q: %v", sent, line)
		}
	}
	refused := func(sent, cause, says string) {
		t.Helper()
		say(sent)
		rejected++
		a, body := c.expect(401)
		if got := a.Header.Get("WWW-Authenticate"); got != `Bearer realm="tenant", error="invalid_token", error_description="`+says+`"` {
			t.Errorf("%q: the challenge is %q", sent, got)
		}
		line := s.endsAfter(requests, "no_identity", 401)
		if line.text("cause") != cause || line.text("by") != "policy" || line.text("tenant") != "" {
			t.Errorf("%q: %v, want %s", sent, line, cause)
		}
		if got := s.metric("weir_tokens_rejected_total"); got != float64(rejected) || s.metric("weir_tokens_rejected_total", "cause", cause) == 0 {
			t.Errorf("%q: counted %v, want %d", sent, got, rejected)
		}
		if strings.Contains(body, "ey") || a.Close {
			t.Errorf("%q: %q, close %v", sent, body, a.Close)
		}
	}
	acme := key.Token(claimsUntil("4000000000"))

	f("Authorization: Bearer "+acme+"\r\n", "acme")
	f("authorization: bearer "+acme+"\r\n", "acme")
	f("AUTHORIZATION: "+acme+"\r\n", "acme")
	f("Authorization: Bearer "+acme+"\r\n", "acme")
	f("Authorization: Basic dXNlcjpwYXNz\r\n", "rest")
	f("", "rest")
	refused("Authorization: Bearer "+evil.Token(claimsUntil("4000000000"))+"\r\n", "token_signature", "The signature is not valid")
	refused("Authorization: Bearer "+key.Token(claimsUntil("1700000000"))+"\r\n", "token_expired", "The token has expired")
	refused("Authorization: Bearer "+acme+"\r\nAuthorization: Bearer "+acme+"\r\n", "token_malformed", "This is no signed token in compact form")
	refused("Authorization: Bearer "+strings.Repeat("a", 9<<10)+"\r\n", "token_malformed", "This is no signed token in compact form")
	refused("Authorization:\r\n", "token_malformed", "This is no signed token in compact form")
	refused("Authorization: Bearer "+key.Token(`{"aud":"billing","exp":4000000000,"tenant":"acme"}`)+"\r\n", "token_audience", "The token is for another audience")
	f("Authorization: Bearer "+acme+"\r\n", "acme")
}

// Without a token, and without another source, the client is told that it needs one.
func TestJWTChallenge(t *testing.T) {
	t.Parallel()
	text := strings.Replace(identified("127.0.0.1:1", "[{jwt: {jwksFile: k, audience: orders}}]"), "Shared", "Deny", 1)
	s := start(t, keyed(t, compile(t, text), tokentest.New("", "EdDSA")), SystemClock(), nil)
	c := s.dial()
	c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if a, _ := c.expect(401); a.Header.Get("WWW-Authenticate") != `Bearer realm="tenant"` {
		t.Errorf("%v", a.Header)
	}
	if got := s.metric("weir_tokens_rejected_total"); got != 0 {
		t.Errorf("%v tokens rejected", got)
	}
}

// A token that was believed is not any more once it has expired, on the same connection.
func TestJWTExpires(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	clock := Clock{Start: time.Unix(1_700_000_000, 0), Now: now.Load}
	f := jwtAt(t, clock, &now)
	f(0, 200)
	f(89*time.Second, 200)
	f(90*time.Second, 401) // 30 s of leeway are over

	// A machine whose clock is set right after the start, as at boot.
	var later, set atomic.Int64
	clock = Clock{Start: time.Unix(0, 0), Now: later.Load, Set: func() time.Time { return time.Unix(set.Load(), 0) }}
	f = jwtAt(t, clock, &later)
	set.Store(1_800_000_000)
	f(time.Second, 401)
	set.Store(1_700_000_000)
	f(2*time.Second, 200)
}

// jwtAt returns what sends a request, with a token that expires at 1700000060, at a time and wants a status.
func jwtAt(t *testing.T, clock Clock, now *atomic.Int64) func(at time.Duration, status int) {
	key := tokentest.New("one", "EdDSA")
	s := start(t, keyed(t, compile(t, identified(answering(t, ok, nil).addr, jwtIdentity, "timeouts: {request: 0s, idle: 24h, header: 24h, body: 24h, send: 24h}")), key), clock, nil)
	c := s.dial()
	return func(at time.Duration, status int) {
		t.Helper()
		now.Store(int64(at))
		c.say("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + key.Token(claimsUntil("1700000060")) + "\r\n\r\n")
		c.expect(status)
	}
}

// The keys are rotated as an issuer does it, the new one added before the old one goes, while clients send. No request fails, and in the
// end the old key is worth nothing.
func TestKeysRotateUnderLoad(t *testing.T) {
	t.Parallel()
	snapshot := compile(t, identified(answering(t, ok, nil).addr, jwtIdentity))
	keys := []*tokentest.Key{tokentest.New("0", "EdDSA")}
	s := start(t, keyed(t, snapshot, keys...), SystemClock(), nil)
	var current atomic.Pointer[string]
	sign := func(key *tokentest.Key) {
		text := key.Token(claimsUntil("4000000000"))
		current.Store(&text)
	}
	sign(keys[0])
	request := func(token string) string {
		return "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + token + "\r\n\r\n"
	}
	var stop atomic.Bool
	var sent [4]atomic.Int64
	var clients sync.WaitGroup
	for i := range sent {
		clients.Go(func() {
			c := s.dial()
			for !stop.Load() {
				c.say(request(*current.Load()))
				if a, body, err := c.tryAnswer("GET"); err != nil || a.StatusCode != 200 || body != "ok" {
					t.Errorf("request %d: %v %s %v", sent[i].Load(), a, body, err)
					return
				}
				sent[i].Add(1)
			}
		})
	}
	// everybody has begun a request after this was called, so that nobody sends an old token any more
	everybodyGoesOn := func() {
		for i := range sent {
			before := sent[i].Load()
			until(t, "requests go on", func() bool { return sent[i].Load() > before+1 || t.Failed() })
		}
	}
	names := []string{"1", "2", "3", "4", "5", "6", "7", "8"}
	for _, name := range names {
		next := tokentest.New(name, "EdDSA")
		for _, set := range [][]*tokentest.Key{append(keys, next), {next}} {
			if err := s.Apply(keyed(t, snapshot, set...)); err != nil {
				t.Fatal(err)
			}
			sign(next)
			everybodyGoesOn()
		}
		keys = []*tokentest.Key{next}
	}
	stop.Store(true)
	clients.Wait()
	c := s.dial()
	c.say(request(tokentest.New("7", "EdDSA").Token(claimsUntil("4000000000"))))
	c.expect(401)
	c.say(request(*current.Load()))
	c.expect(200)
}

// A key that was taken out of the set is worth nothing from the next request on, on an open connection too.
func TestKeyWithdrawn(t *testing.T) {
	t.Parallel()
	snapshot := compile(t, identified(answering(t, ok, nil).addr, jwtIdentity))
	old, next := tokentest.New("old", "EdDSA"), tokentest.New("next", "EdDSA")
	s := start(t, keyed(t, snapshot, old), SystemClock(), nil)
	c := s.dial()
	f := func(status int) {
		t.Helper()
		c.say("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + old.Token(claimsUntil("4000000000")) + "\r\n\r\n")
		c.expect(status)
	}
	f(200)
	if err := s.Apply(keyed(t, snapshot, next)); err != nil {
		t.Fatal(err)
	}
	f(401)
}

// A tenant by the SPIFFE ID of a certificate, over real TLS.
func TestSPIFFEThroughTheWire(t *testing.T) {
	t.Parallel()
	files := newSecured(t)
	got := make(chan string, 1)
	text := identified(newBackend(t, files.script(answers(ok, got))).addr,
		`[{spiffe: {pathPattern: "/ns/{tenant}/sa/gateway", trustDomain: prod.test}}, {clientCIDR: [{cidr: 127.0.0.0/8, tenant: rest}]}]`)
	s := serveSnapshot(t, text, files.change)
	with := func(a *certtest.Authority, l certtest.Leaf) *tls.Config {
		pair, err := tls.X509KeyPair(a.Issue(l))
		if err != nil {
			t.Fatal(err)
		}
		config := files.client("")
		// shown whatever the server asks for
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		return config
	}
	leaf := func(names ...string) certtest.Leaf { return certtest.Leaf{Names: names} }
	f := func(config *tls.Config, tenant string) *tls.Conn {
		t.Helper()
		c, nc := s.dialTLS(config)
		for range 2 { // twice on one connection
			c.say(tenantGet)
			c.expect(200)
			if head := within(t, "the backend has it", got); field(head, "X-Tenant-ID") != tenant {
				t.Errorf("the backend got %q, want the tenant %q", head, tenant)
			}
		}
		return nc
	}
	refused := func(config *tls.Config) {
		t.Helper()
		c, _ := s.dialTLS(config)
		for range 2 { // the connection stays
			c.say(tenantGet)
			if a, _ := c.expect(401); a.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%v", a.Header)
			}
		}
	}
	const gateway = "spiffe://prod.test/ns/acme/sa/gateway"

	f(with(files.ca, leaf(gateway)), "acme")
	f(with(files.ca, leaf(gateway, "gateway.example.com")), "acme") // names for DNS do not matter
	// A resumed session is of the same client.
	config := with(files.ca, leaf(gateway))
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	f(config, "acme").Close()
	if nc := f(config, "acme"); !nc.ConnectionState().DidResume {
		t.Error("the session was not resumed")
	}
	// No certificate, none with an ID, an ID of another shape or trust domain.
	f(files.client(""), "rest")
	f(with(files.ca, leaf("gateway.example.com")), "rest")
	f(with(files.ca, leaf("https://prod.test/ns/acme/sa/gateway")), "rest")
	f(with(files.ca, leaf("spiffe://prod.test/ns/acme/sa/other")), "rest")
	f(with(files.ca, leaf(gateway+"/x")), "rest")
	f(with(files.ca, leaf("spiffe://dev.test/ns/acme/sa/gateway")), "rest")
	// Duplicated, broken, oversized.
	refused(with(files.ca, leaf(gateway, gateway)))
	refused(with(files.ca, leaf(gateway, "https://example.com/")))
	refused(with(files.ca, leaf("spiffe://prod.test/ns/a%63me/sa/gateway")))
	refused(with(files.ca, leaf("spiffe://prod.test/ns/"+strings.Repeat("a", 129)+"/sa/gateway")))
	// Forged and expired ones do not get as far.
	for _, config := range []*tls.Config{
		with(certtest.New("evil"), leaf(gateway)),
		with(files.ca, certtest.Leaf{Names: []string{gateway}, Begins: time.Now().AddDate(0, 0, -2), Expires: time.Now().Add(-time.Hour)}),
		with(files.ca, certtest.Leaf{Names: []string{gateway}, Begins: time.Now().Add(time.Hour)}),
	} {
		c, _ := s.dialTLS(config)
		c.say(tenantGet)
		if a, _, err := c.tryAnswer("GET"); err == nil {
			t.Errorf("answered with %d", a.StatusCode)
		}
	}
}

// What the standard of X.509-SVIDs says of a certificate that was verified.
func TestSPIFFEID(t *testing.T) {
	f := func(cert *x509.Certificate, want string, uris ...string) {
		t.Helper()
		for _, text := range uris {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, u)
		}
		if got := spiffeIDOf(cert); got != want {
			t.Errorf("%q: got %q, want %q", uris, got, want)
		}
	}
	leaf := func() *x509.Certificate { return &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature} }
	const id = "spiffe://prod.test/ns/acme"

	f(leaf(), id, id)
	f(leaf(), id, "SPIFFE://prod.test/ns/acme")
	// None.
	f(nil, "")
	f(leaf(), "")
	f(leaf(), "", "https://prod.test/ns/acme")
	f(leaf(), "", "urn:spiffe:x", "https://example.com")
	// More than one URI, in any order.
	f(leaf(), admit.BrokenSPIFFE, id, id)
	f(leaf(), admit.BrokenSPIFFE, id, "https://example.com")
	f(leaf(), admit.BrokenSPIFFE, "https://example.com", id)
	// Who may sign others is no workload.
	f(&x509.Certificate{IsCA: true}, admit.BrokenSPIFFE, id)
	f(&x509.Certificate{KeyUsage: x509.KeyUsageCertSign}, admit.BrokenSPIFFE, id)
	f(&x509.Certificate{KeyUsage: x509.KeyUsageCRLSign}, admit.BrokenSPIFFE, id)
	// What is no ID of a workload.
	for _, broken := range []string{
		"spiffe://", "spiffe:", "spiffe://prod.test", "spiffe://prod.test/", "spiffe:///ns/acme", "spiffe://prod.test/ns/", "spiffe://prod.test//acme", "spiffe://prod.test/../acme",
		"spiffe://prod.test/ns/acme?x=1", "spiffe://prod.test/ns/acme#x", "spiffe://prod.test:443/ns/acme", "spiffe://user@prod.test/ns/acme", "spiffe://Prod.test/ns/acme",
		"spiffe://prod.test/ns/a%2Fb", "spiffe://prod.test/ns/a~b", "spiffe://prod.test/" + strings.Repeat("a", maxSPIFFEBytes),
	} {
		f(leaf(), admit.BrokenSPIFFE, broken)
	}
}
