package admit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weir/admit/token"
	"weir/admit/token/tokentest"
	"weir/policy"
)

// testNow is when identifiers are asked, and tokens are valid: it has the wall time 1700000000.
const testNow = int64(time.Hour)

func wallOf(now int64) time.Time { return time.Unix(1_700_000_000, now-testNow) }

// claimsOf are those of a token for a tenant that is valid for a minute.
func claimsOf(tenant string) string {
	return fmt.Sprintf(`{"aud":"orders","exp":1700000060,"tenant":%q}`, tenant)
}

func jwtSource(header string) policy.IdentitySource {
	return policy.IdentitySource{JWT: &policy.JWTIdentity{
		Header: header, Claim: "tenant", Algorithms: []string{"RS256", "ES256", "EdDSA"}, Audience: "orders",
	}}
}

func keySetOf(t testing.TB, keys ...*tokentest.Key) policy.KeySet {
	t.Helper()
	set, problems := policy.ParseKeySet("jwks", tokentest.Set(keys...))
	if len(problems) > 0 {
		t.Fatalf("cannot parse keys: %v", problems)
	}
	return set
}

func TestIdentifierJWT(t *testing.T) {
	one, two := tokentest.New("one", "EdDSA"), tokentest.New("two", "ES256")
	s := sidecarOf(
		jwtSource("Authorization"),
		policy.IdentitySource{APIKey: &policy.APIKeyIdentity{Header: "X-API-Key"}},
		jwtSource("X-Token"),
		policy.IdentitySource{ClientCIDR: cidrTenants(t, "0.0.0.0/0 rest")},
	)
	s.KeySets = []policy.KeySet{keySetOf(t, one), keySetOf(t, two)}
	s.APIKeys = []policy.APIKeyTable{keyTable("secret", "initech")}
	id := mustIdentify(t, s)
	f := func(fields fieldList, want string, wantSource int, wantFault token.Fault) {
		t.Helper()
		req := &Request{Header: fields, Peer: publicPeer, Client: publicPeer}
		checkTenant(t, id, req, want, wantSource)
		if _, _, fault := id.tenant(testNow, req); fault != wantFault {
			t.Errorf("unexpected fault of %q: got %s, want %s", fields, fault, wantFault)
		}
	}
	acme := one.Token(claimsOf("acme"))

	// With the scheme in any casing, and without.
	f(fieldList{{"Authorization", "Bearer " + acme}}, "acme", 0, token.None)
	f(fieldList{{"authorization", "bearer " + acme}}, "acme", 0, token.None)
	f(fieldList{{"AUTHORIZATION", "BEARER   " + acme}}, "acme", 0, token.None)
	f(fieldList{{"Authorization", acme}}, "acme", 0, token.None)
	// Each source has its own keys.
	f(fieldList{{"X-Token", two.Token(claimsOf("globex"))}}, "globex", 2, token.None)
	f(fieldList{{"X-Token", "Bearer " + two.Token(claimsOf("globex"))}}, "globex", 2, token.None)
	f(fieldList{{"X-Token", acme}}, "", 2, token.UnknownKey)
	f(fieldList{{"Authorization", "Bearer " + two.Token(claimsOf("globex"))}}, "", 0, token.UnknownKey)
	// The first source that finds a claim decides, even when the next would yield a tenant.
	f(fieldList{{"Authorization", acme}, {"X-API-Key", "secret"}, {"X-Token", two.Token(claimsOf("globex"))}}, "acme", 0, token.None)
	f(fieldList{{"Authorization", "Bearer x"}, {"X-API-Key", "secret"}}, "", 0, token.Malformed)
	// Another scheme is no token, and neither is nothing.
	f(fieldList{{"Authorization", "Basic dXNlcjpwYXNz"}}, "rest", 3, token.None)
	f(fieldList{{"Authorization", "Basic " + acme}, {"X-API-Key", "secret"}}, "initech", 1, token.None)
	f(fieldList{{"Authorization", "Bearerx " + acme}}, "rest", 3, token.None)
	f(nil, "rest", 3, token.None)
	// A scheme without a token, an empty field, other space.
	f(fieldList{{"Authorization", "Bearer"}}, "", 0, token.Malformed)
	f(fieldList{{"Authorization", "Bearer "}}, "", 0, token.Malformed)
	f(fieldList{{"Authorization", ""}}, "", 0, token.Malformed)
	f(fieldList{{"Authorization", "Bearer\t" + acme}}, "", 0, token.Malformed)
	f(fieldList{{"Authorization", "Bearer " + acme + " " + acme}}, "", 0, token.Malformed)
	f(fieldList{{"Authorization", "Bearer " + acme + ", Basic x"}}, "", 0, token.Malformed)
	// Two fields, even if one of them is no token or both are the same.
	f(fieldList{{"Authorization", acme}, {"authorization", acme}}, "", 0, token.Malformed)
	f(fieldList{{"Authorization", "Basic x"}, {"Authorization", "Bearer " + acme}}, "", 0, token.Malformed)
	// A valid token without the claim does not fall through.
	f(fieldList{{"Authorization", one.Token(`{"aud":"orders","exp":1700000060}`)}, {"X-API-Key", "secret"}}, "", 0, token.Tenant)
}

func TestIdentifierSPIFFE(t *testing.T) {
	spiffe := func(pattern, domain string) policy.IdentitySource {
		return policy.IdentitySource{SPIFFE: &policy.SPIFFEIdentity{PathPattern: pattern, TrustDomain: domain}}
	}
	id := mustIdentify(t, sidecarOf(
		spiffe("/ns/{tenant}/sa/gateway", "prod.test"),
		spiffe("/{tenant}/*", "dev.test"),
		spiffe("/any/{tenant}", ""),
		policy.IdentitySource{ClientCIDR: cidrTenants(t, "0.0.0.0/0 rest")},
	))
	f := func(spiffe, want string, wantSource int) {
		t.Helper()
		checkTenant(t, id, &Request{SPIFFE: spiffe, Client: publicPeer}, want, wantSource)
	}

	f("spiffe://prod.test/ns/acme/sa/gateway", "acme", 0)
	f("spiffe://dev.test/acme", "acme", 1)
	f("spiffe://dev.test/acme/a/b", "acme", 1)
	f("spiffe://elsewhere.test/any/Acme", "Acme", 2)
	// An ID is what it is as a whole.
	f("spiffe://prod.test/ns/acme/sa/gateway/x", "rest", 3)
	f("spiffe://prod.test/ns/acme/sa/gateway-2", "rest", 3)
	f("spiffe://elsewhere.test/any/acme/x", "rest", 3)
	// Another trust domain is another's, however alike.
	f("spiffe://prod.test.evil.test/ns/acme/sa/gateway", "rest", 3)
	f("spiffe://prod.tes/ns/acme/sa/gateway", "rest", 3)
	f("spiffe://dev.test/ns/acme/sa/gateway", "ns", 1)
	// Another shape.
	f("spiffe://prod.test/ns/acme", "rest", 3)
	f("spiffe://prod.test/NS/acme/sa/gateway", "rest", 3)
	f("spiffe://prod.test", "rest", 3)
	// No certificate, or none with an ID.
	f("", "rest", 3)
	// A certificate that breaks the standard, and whatever else is no ID.
	f(BrokenSPIFFE, "", 0)
	f("https://prod.test/ns/acme/sa/gateway", "", 0)
	// A tenant that is none.
	f("spiffe://prod.test/ns/"+strings.Repeat("a", 129)+"/sa/gateway", "", 0)
}

// Every source of identity is offered what is forged, expired, duplicated and oversized. None of it becomes a tenant, and none of it
// makes the request one of the source that comes after: "rest", which takes everybody.
func TestIdentifierRefusesBadInput(t *testing.T) {
	key, evil := tokentest.New("one", "EdDSA"), tokentest.New("one", "EdDSA")
	huge, hugePath := strings.Repeat("a", 129), "/t/"+strings.Repeat("a", 64<<10)+"/"
	token := func(k *tokentest.Key, claims string) Request {
		return Request{Header: fieldList{{"Authorization", "Bearer " + k.Token(claims)}}}
	}
	fields := func(list ...[2]string) Request { return Request{Header: fieldList(list), Peer: proxyPeer} }
	f := func(what string, source policy.IdentitySource, req Request, want Reason) {
		t.Helper()
		s := sidecarOf(source, policy.IdentitySource{ClientCIDR: cidrTenants(t, "0.0.0.0/0 rest")})
		if source.JWT != nil {
			s.KeySets = []policy.KeySet{keySetOf(t, key)}
		}
		if source.APIKey != nil {
			s.APIKeys = []policy.APIKeyTable{keyTable("secret", "acme")}
		}
		id := mustIdentify(t, s)
		if req.Header == nil {
			req.Header = fieldList(nil)
		}
		req.Client = publicPeer
		tenant, at, _ := id.tenant(testNow, &req)
		if want == Passed { // passed over
			if string(tenant) != "rest" || at != 1 {
				t.Errorf("%s: got %q of source %d, want it passed over", what, tenant, at)
			}
			return
		}
		if tenant != nil || at != 0 || id.refusal(at) != want {
			t.Errorf("%s: got %q of source %d, want it refused as %s", what, tenant, at, want)
		}
	}
	header, apiKey, jwt := policy.IdentitySource{Header: "X-Tenant-ID"}, policy.IdentitySource{APIKey: &policy.APIKeyIdentity{Header: "X-API-Key"}}, jwtSource("Authorization")
	spiffe := policy.IdentitySource{SPIFFE: &policy.SPIFFEIdentity{PathPattern: "/ns/{tenant}/*", TrustDomain: "prod.test"}}
	host, path := policy.IdentitySource{Host: "{tenant}.test"}, policy.IdentitySource{Path: "/t/{tenant}/"}

	f("header, forged", header, Request{Header: fieldList{{"X-Tenant-ID", "acme"}}, Peer: publicPeer}, Passed)
	f("header, duplicated", header, fields([2]string{"X-Tenant-ID", "acme"}, [2]string{"x-tenant-id", "acme"}), BadRequest)
	f("header, oversized", header, fields([2]string{"X-Tenant-ID", huge}), BadRequest)
	f("API key, forged", apiKey, fields([2]string{"X-API-Key", "secreT"}), NoIdentity)
	f("API key, duplicated", apiKey, fields([2]string{"X-API-Key", "secret"}, [2]string{"X-API-Key", "secret"}), NoIdentity)
	f("API key, oversized", apiKey, fields([2]string{"X-API-Key", strings.Repeat("secret", 10_000)}), NoIdentity)
	f("token, forged", jwt, token(evil, claimsOf("acme")), NoIdentity)
	f("token, expired", jwt, token(key, `{"aud":"orders","exp":1699999000,"tenant":"acme"}`), NoIdentity)
	f("token, of another audience", jwt, token(key, `{"aud":"billing","exp":1700000060,"tenant":"acme"}`), NoIdentity)
	f("token, duplicated", jwt, fields([2]string{"Authorization", key.Token(claimsOf("acme"))}, [2]string{"Authorization", key.Token(claimsOf("acme"))}), NoIdentity)
	f("token, claim duplicated", jwt, token(key, `{"tenant":"evil","aud":"orders","exp":1700000060,"tenant":"acme"}`), NoIdentity)
	f("token, oversized", jwt, token(key, strings.Replace(claimsOf("acme"), "{", `{"pad":"`+strings.Repeat("x", 8<<10)+`",`, 1)), NoIdentity)
	f("token, tenant oversized", jwt, token(key, claimsOf(huge)), NoIdentity)
	f("SPIFFE, forged", spiffe, Request{SPIFFE: "spiffe://evil.test/ns/acme/x"}, Passed)
	f("SPIFFE, duplicated", spiffe, Request{SPIFFE: BrokenSPIFFE}, NoIdentity)
	f("SPIFFE, oversized", spiffe, Request{SPIFFE: "spiffe://prod.test/ns/" + huge + "/x"}, NoIdentity)
	f("host, forged", host, Request{Host: []byte("acme.test.evil.example")}, Passed)
	f("host, duplicated", host, Request{Host: []byte("acme.acme.test")}, Passed)
	f("host, oversized", host, Request{Host: []byte(huge + ".test")}, BadRequest)
	f("path, forged", path, Request{Path: []byte("/x/t/acme/")}, Passed)
	f("path, duplicated", path, Request{Path: []byte("/t//acme/")}, BadRequest)
	f("path, oversized", path, Request{Path: []byte(hugePath)}, BadRequest)

	// A network has no claim that could be broken: the address is the peer's, or what a trusted proxy said.
	networks := mustIdentify(t, sidecarOf(policy.IdentitySource{ClientCIDR: cidrTenants(t, "10.1.0.0/16 batch")}))
	checkTenant(t, networks, &Request{Peer: addrOf("10.1.2.3"), Client: publicPeer}, "", -1)
	checkTenant(t, networks, &Request{Peer: addrOf("10.1.2.3")}, "", -1)
}

func TestChallenge(t *testing.T) {
	f := func(identity string, keys policy.KeySet, field, want string) {
		t.Helper()
		snap := snapshotOf(t, "Sidecar weir {identity: ["+identity+"]}")
		if keys != nil {
			snap = snap.WithKeys([]policy.Keys{{Set: keys}})
		}
		table, err := Build(nil, snap, testNow, Options{Wall: wallOf})
		if err != nil {
			t.Fatal(err)
		}
		req := requestOf("", "/")
		if field != "" {
			req.Header = fieldList{{"Authorization", field}}
		}
		m := table.Match(testNow, req)
		if m.Reason != NoIdentity {
			t.Fatalf("unexpected reason: got %s", m.Reason)
		}
		if got := table.Challenge(&m); got != want {
			t.Errorf("unexpected challenge: got %q, want %q", got, want)
		}
		if n := testing.AllocsPerRun(10, func() { _ = table.Challenge(&m) }); n != 0 {
			t.Errorf("unexpected allocations: got %v, want 0", n)
		}
	}
	key := tokentest.New("", "EdDSA")
	const jwt = "{jwt: {jwksFile: k, audience: orders}}"

	f("{header: X-Tenant-ID, trust: any}", nil, "", `Weir realm="tenant"`)
	// Who sent no token is not told of an error.
	f(jwt, keySetOf(t, key), "", `Bearer realm="tenant"`)
	f(jwt, keySetOf(t, key), "Basic x", `Bearer realm="tenant"`)
	// Who sent one is.
	f(jwt, keySetOf(t, key), "Bearer x", `Bearer realm="tenant", error="invalid_token", error_description="This is no signed token in compact form"`)
	f(jwt, keySetOf(t, key), key.Token(`{"aud":"orders","exp":1,"tenant":"acme"}`), `Bearer realm="tenant", error="invalid_token", error_description="The token has expired"`)
}

// What a table knows of tokens goes over to the next, unless the keys or the source changed.
func TestTokensAreAdopted(t *testing.T) {
	one, two := tokentest.New("one", "EdDSA"), tokentest.New("two", "EdDSA")
	const policies = "\nTenantPolicy all {tenants: {any: true}}"
	verified := 0
	options := Options{Wall: func(now int64) time.Time { verified++; return wallOf(now) }}
	var table *Table
	f := func(sidecar string, set policy.KeySet, from string, want Reason, wantVerified int) {
		t.Helper()
		snap := snapshotOf(t, "Sidecar weir {identity: ["+sidecar+"]}"+policies).WithKeys([]policy.Keys{{Set: set}})
		next, err := Build(table, snap, testNow, options)
		if err != nil {
			t.Fatal(err)
		}
		table = next
		table.Adopt(testNow)
		req := requestOf("", "/")
		req.Header = fieldList{{"Authorization", from}}
		if m := table.Match(testNow, req); m.Reason != want {
			t.Errorf("unexpected reason: got %s, want %s", m.Reason, want)
		}
		if verified != wantVerified {
			t.Errorf("unexpected number of tokens verified: got %d, want %d", verified, wantVerified)
		}
	}
	const jwt = "{jwt: {jwksFile: k, audience: orders}}"
	token := one.Token(claimsOf("acme"))

	f(jwt, keySetOf(t, one), token, Passed, 1)
	// The same keys, read again; another source beside.
	f(jwt, keySetOf(t, one), token, Passed, 1)
	f("{path: '/t/{tenant}/'}, "+jwt, keySetOf(t, one), token, Passed, 1)
	// A key more or less, and another source, forget what was verified.
	f(jwt, keySetOf(t, one, two), token, Passed, 2)
	f(jwt, keySetOf(t, two), token, NoIdentity, 2)
	f(jwt, keySetOf(t, one), token, Passed, 3)
	f("{jwt: {jwksFile: k, audience: billing}}", keySetOf(t, one), token, NoIdentity, 4)
}

func TestIdentifierWithoutKeysFailure(t *testing.T) {
	f := func(s *policy.SidecarSettings, wall func(int64) time.Time, want string) {
		t.Helper()
		if _, err := newIdentifier(nil, s, wall); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("unexpected error: got %v, want it to contain %q", err, want)
		}
	}
	key := tokentest.New("", "EdDSA")
	two := sidecarOf(jwtSource("A"), jwtSource("B"))
	two.KeySets = []policy.KeySet{keySetOf(t, key)}
	f(two, wallOf, "identity[1]: want a key set for every jwt source")
	two.KeySets = append(two.KeySets, keySetOf(t, key))
	f(two, nil, "identity[0]: want a wall clock for jwt")
	// A pattern without place.
	f(sidecarOf(policy.IdentitySource{SPIFFE: &policy.SPIFFEIdentity{PathPattern: "/ns/*"}}), wallOf, `path template "/ns/*"`)
}

// credentialSets are for identitySets: a token that is known among many, and an ID.
func credentialSets(t testing.TB) (jwt *identifier, jwtRequest Request, spiffe *identifier, spiffeRequest Request) {
	t.Helper()
	key := tokentest.New("", "EdDSA")
	s := sidecarOf(jwtSource("Authorization"))
	s.KeySets = []policy.KeySet{keySetOf(t, key)}
	jwt = mustIdentify(t, s)
	for i := range 100 {
		jwtRequest = Request{Header: &byteField{"authorization", []byte("Bearer " + key.Token(claimsOf(fmt.Sprintf("tenant-%d", i))))}}
		if tenant, _, fault := jwt.tenant(testNow, &jwtRequest); tenant == nil {
			t.Fatalf("token %d: %s", i, fault)
		}
	}
	spiffe = mustIdentify(t, sidecarOf(policy.IdentitySource{SPIFFE: &policy.SPIFFEIdentity{PathPattern: "/ns/{tenant}/*", TrustDomain: "prod.test"}}))
	return jwt, jwtRequest, spiffe, Request{SPIFFE: "spiffe://prod.test/ns/acme/sa/gateway"}
}
