package admit

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"weir/policy"
)

var (
	proxyPeer  = netip.MustParseAddr("10.0.0.1")
	publicPeer = netip.MustParseAddr("203.0.113.7")
)

func cidrTenants(t testing.TB, pairs ...string) []policy.CIDRTenant {
	t.Helper()
	var list []policy.CIDRTenant
	for _, p := range pairs {
		network, tenant, _ := strings.Cut(p, " ")
		list = append(list, policy.CIDRTenant{CIDR: policy.CIDR(netip.MustParsePrefix(network)), Tenant: tenant})
	}
	return list
}

func keyTable(keyTenant ...string) policy.APIKeyTable {
	table := make(policy.APIKeyTable)
	for i := 0; i < len(keyTenant); i += 2 {
		table[sha256.Sum256([]byte(keyTenant[i]))] = keyTenant[i+1]
	}
	return table
}

func sidecarOf(identity ...policy.IdentitySource) *policy.SidecarSettings {
	return &policy.SidecarSettings{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}, Identity: identity}
}

func mustIdentify(t testing.TB, s *policy.SidecarSettings) *identifier {
	t.Helper()
	id, err := newIdentifier(nil, s, wallOf)
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
	return id
}

// checkTenant compares the tenant and the source; the tenant "" is nil.
func checkTenant(t *testing.T, id *identifier, req *Request, want string, wantSource int) {
	t.Helper()
	if req.Header == nil {
		req.Header = fieldList(nil)
	}
	got, source, _ := id.tenant(testNow, req)
	if string(got) != want || (got == nil) != (want == "") || source != wantSource {
		t.Errorf("unexpected tenant: got %q of source %d, want %q of source %d", got, source, want, wantSource)
	}
}

func TestIdentifierHeader(t *testing.T) {
	const trusted, anyPeer = "trustedProxies", "any"
	f := func(trust string, peer netip.Addr, fields fieldList, want string, wantSource int) {
		t.Helper()
		// The network behind it shows what falls through.
		id := mustIdentify(t, sidecarOf(policy.IdentitySource{Header: "X-Tenant-ID", Trust: trust}, policy.IdentitySource{ClientCIDR: cidrTenants(t, "0.0.0.0/0 rest")}))
		checkTenant(t, id, &Request{Header: fields, Peer: peer, Client: publicPeer}, want, wantSource)
	}

	// Four casings.
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", "acme"}}, "acme", 0)
	f(trusted, proxyPeer, fieldList{{"x-tenant-id", "acme"}}, "acme", 0)
	f(trusted, proxyPeer, fieldList{{"X-TENANT-ID", "acme"}}, "acme", 0)
	f(trusted, proxyPeer, fieldList{{"X-Tenant-Id", "acme"}}, "acme", 0)
	// Tenants compare byte for byte.
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", "ACME"}}, "ACME", 0)
	// Absent: the next source.
	f(trusted, proxyPeer, nil, "rest", 1)
	f(trusted, proxyPeer, fieldList{{"X_Tenant_ID", "acme"}, {"X-Tenant", "acme"}}, "rest", 1)
	// Forged by a peer that is not believed: as if absent, in every casing, however broken.
	f(trusted, publicPeer, fieldList{{"X-Tenant-ID", "acme"}}, "rest", 1)
	f(trusted, publicPeer, fieldList{{"x-tenant-id", "acme"}}, "rest", 1)
	f(trusted, publicPeer, fieldList{{"X-TENANT-ID", "acme"}}, "rest", 1)
	f(trusted, publicPeer, fieldList{{"X-Tenant-Id", "acme"}}, "rest", 1)
	f(trusted, publicPeer, fieldList{{"X-Tenant-ID", "a"}, {"X-Tenant-ID", "b"}}, "rest", 1)
	f("", publicPeer, fieldList{{"X-Tenant-ID", "acme"}}, "rest", 1)
	f(trusted, netip.Addr{}, fieldList{{"X-Tenant-ID", "acme"}}, "rest", 1)
	// Said out loud, anybody is believed.
	f(anyPeer, publicPeer, fieldList{{"X-Tenant-ID", "acme"}}, "acme", 0)
	f(anyPeer, netip.Addr{}, fieldList{{"X-Tenant-ID", "acme"}}, "acme", 0)
	// A trusted peer in other clothes.
	f(trusted, netip.MustParseAddr("::ffff:10.0.0.1"), fieldList{{"X-Tenant-ID", "acme"}}, "acme", 0)
	f(trusted, netip.MustParseAddr("fe80::1%eth0"), fieldList{{"X-Tenant-ID", "acme"}}, "acme", 0)
	// Twice is a broken claim, even if both say the same.
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", "a"}, {"x-tenant-id", "b"}}, "", 0)
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", "a"}, {"X-Tenant-ID", "a"}}, "", 0)
	f(anyPeer, publicPeer, fieldList{{"X-Tenant-ID", "a"}, {"X-TENANT-ID", "b"}}, "", 0)
	// Bounds: 1 to 128 visible ASCII bytes, and nothing else falls through.
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", strings.Repeat("a", 128)}}, strings.Repeat("a", 128), 0)
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", strings.Repeat("a", 129)}}, "", 0)
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", ""}}, "", 0)
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", " \t"}}, "", 0)
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", "a b"}}, "", 0)
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", "a\x00"}}, "", 0)
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", "a\x7f"}}, "", 0)
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", "\u00e4"}}, "", 0)
	f(trusted, proxyPeer, fieldList{{"X-Tenant-ID", "!~"}}, "!~", 0)
}

func TestIdentifierAPIKey(t *testing.T) {
	s := sidecarOf(
		policy.IdentitySource{APIKey: &policy.APIKeyIdentity{Header: "X-API-Key"}},
		policy.IdentitySource{Path: "/t/{tenant}/"},
		policy.IdentitySource{APIKey: &policy.APIKeyIdentity{Header: "X-Old-Key"}},
		policy.IdentitySource{ClientCIDR: cidrTenants(t, "0.0.0.0/0 rest")},
	)
	s.APIKeys = []policy.APIKeyTable{keyTable("secret", "acme", "other", "globex", "", "nobody"), keyTable("old", "initech")}
	id := mustIdentify(t, s)
	f := func(fields fieldList, want string, wantSource int) {
		t.Helper()
		checkTenant(t, id, &Request{Header: fields, Peer: publicPeer, Client: publicPeer, Path: []byte("/")}, want, wantSource)
	}

	f(fieldList{{"x-api-key", "secret"}}, "acme", 0)
	f(fieldList{{"X-API-KEY", "other"}}, "globex", 0)
	// Each source has its own table.
	f(fieldList{{"X-Old-Key", "old"}}, "initech", 2)
	f(fieldList{{"X-Old-Key", "secret"}}, "", 2)
	// A key that nobody gave out, an empty one (whatever the table says) and two keys never fall through.
	f(fieldList{{"X-API-Key", "old"}}, "", 0)
	f(fieldList{{"X-API-Key", "SECRET"}}, "", 0)
	f(fieldList{{"X-API-Key", ""}}, "", 0)
	f(fieldList{{"X-API-Key", "secret"}, {"X-API-Key", "secret"}}, "", 0)
	// The hash of a key is not the key.
	f(fieldList{{"X-API-Key", fmt.Sprintf("%x", sha256.Sum256([]byte("secret")))}}, "", 0)
	// No key does.
	f(nil, "rest", 3)
}

func TestIdentifierTemplates(t *testing.T) {
	id := mustIdentify(t, sidecarOf(
		policy.IdentitySource{Host: "{tenant}.api.example.com"},
		policy.IdentitySource{Path: "/t/{tenant}/"},
		policy.IdentitySource{ClientCIDR: cidrTenants(t, "0.0.0.0/0 rest")},
	))
	f := func(host, path, want string, wantSource int) {
		t.Helper()
		checkTenant(t, id, &Request{Host: []byte(host), Path: []byte(path), Client: publicPeer}, want, wantSource)
	}

	// The first that yields one wins.
	f("acme.api.example.com", "/t/globex/x", "acme", 0)
	f("ACME.api.example.com:80", "/", "acme", 0)
	f("api.example.com", "/t/globex/x", "globex", 1)
	f("api.example.com", "/x", "rest", 2)
	// The tenant is missing.
	f("api.example.com", "/t/", "rest", 2)
	f("api.example.com", "/t", "rest", 2)
	f("", "*", "rest", 2)
	// The tenant is there and broken.
	f(".api.example.com", "/t/globex/x", "", 0)
	f(strings.Repeat("a", 129)+".api.example.com", "/t/globex/x", "", 0)
	f("\u00e4.api.example.com", "/t/globex/x", "", 0)
	f("api.example.com", "/t//x", "", 1)
	f("api.example.com", "/t/"+strings.Repeat("a", 129), "", 1)
	f("api.example.com", "/t/a b/", "", 1)
}

func TestIdentifierClientCIDR(t *testing.T) {
	f := func(networks []policy.CIDRTenant, client string, want string) {
		t.Helper()
		id := mustIdentify(t, sidecarOf(policy.IdentitySource{ClientCIDR: networks}))
		var addr netip.Addr
		if client != "" {
			addr = netip.MustParseAddr(client)
		}
		source := 0
		if want == "" {
			source = -1
		}
		// The peer is in every network, and must not be asked.
		checkTenant(t, id, &Request{Peer: netip.MustParseAddr("10.1.2.3"), Client: addr}, want, source)
	}

	// The longest prefix wins, whatever the order.
	overlapping := cidrTenants(t, "10.1.0.0/16 mid", "10.0.0.0/8 wide", "10.1.2.3/32 one", "10.1.2.0/24 narrow")
	for range 2 {
		f(overlapping, "10.1.2.3", "one")
		f(overlapping, "10.1.2.4", "narrow")
		f(overlapping, "10.1.3.4", "mid")
		f(overlapping, "10.2.3.4", "wide")
		f(overlapping, "11.2.3.4", "")
		slices.Reverse(overlapping)
	}
	// IPv4 in IPv6 clothes is IPv4, and an IPv6 network of everything does not have it.
	f(overlapping, "::ffff:10.1.2.3", "one")
	f(cidrTenants(t, "::/0 six"), "10.1.2.3", "")
	f(cidrTenants(t, "::/0 six"), "::ffff:10.1.2.3", "")
	f(cidrTenants(t, "0.0.0.0/0 four"), "2001:db8::1", "")
	// IPv6, with and without zone.
	six := cidrTenants(t, "2001:db8::/32 doc", "2001:db8:1::/48 site", "fe80::/10 link")
	f(six, "2001:db8::1", "doc")
	f(six, "2001:db8:1::1", "site")
	f(six, "fe80::1%eth0", "link")
	f(six, "::1", "")
	// Bits behind the prefix do not matter.
	f([]policy.CIDRTenant{{CIDR: policy.CIDR(netip.MustParsePrefix("10.1.2.3/8")), Tenant: "wide"}}, "10.9.9.9", "wide")
	// An unknown client is in no network.
	f(cidrTenants(t, "0.0.0.0/0 four", "::/0 six"), "", "")
	// The same twice is said once.
	f(cidrTenants(t, "10.0.0.0/8 wide", "10.0.0.0/8 wide"), "10.1.1.1", "wide")
}

func TestIdentifierRefusal(t *testing.T) {
	s := sidecarOf(policy.IdentitySource{Header: "X-Tenant-ID"}, policy.IdentitySource{APIKey: &policy.APIKeyIdentity{Header: "X-API-Key"}},
		policy.IdentitySource{Host: "{tenant}.test"}, policy.IdentitySource{Path: "/{tenant}/"},
		policy.IdentitySource{JWT: &policy.JWTIdentity{}}, policy.IdentitySource{SPIFFE: &policy.SPIFFEIdentity{PathPattern: "/{tenant}"}})
	s.APIKeys, s.KeySets = []policy.APIKeyTable{nil}, []policy.KeySet{nil}
	id := mustIdentify(t, s)
	f := func(source int, want Reason) {
		t.Helper()
		if got := id.refusal(source); got != want {
			t.Errorf("unexpected reason for source %d: got %s, want %s", source, got, want)
		}
	}

	f(-1, NoIdentity)
	f(0, BadRequest)
	f(1, NoIdentity)
	f(2, BadRequest)
	f(3, BadRequest)
	f(4, NoIdentity)
	f(5, NoIdentity)
}

func TestNewIdentifierFailure(t *testing.T) {
	f := func(s *policy.SidecarSettings, want string) {
		t.Helper()
		_, err := newIdentifier(nil, s, wallOf)
		if err == nil {
			t.Fatalf("expecting an error with %q", want)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("unexpected error: got %q, want it to contain %q", err, want)
		}
	}
	key := policy.IdentitySource{APIKey: &policy.APIKeyIdentity{Header: "X-API-Key"}}

	// A source that this version does not know.
	f(sidecarOf(policy.IdentitySource{Header: "X-A"}, policy.IdentitySource{}), "identity[1]: want one of header, jwt, apiKey, spiffe, host, path and clientCIDR")
	// A source without its table.
	one := sidecarOf(key, key)
	one.APIKeys = []policy.APIKeyTable{nil}
	f(one, "identity[1]: want a table of keys for every apiKey source, have 1")
	// What is no tenant.
	bad := sidecarOf(key)
	bad.APIKeys = []policy.APIKeyTable{keyTable("k", "a b")}
	f(bad, `tenant "a b": want 1 to 128 bytes of visible ASCII`)
	f(sidecarOf(policy.IdentitySource{ClientCIDR: cidrTenants(t, "10.0.0.0/8 ")}), `tenant "": want 1 to 128`)
	// One network of two tenants.
	f(sidecarOf(policy.IdentitySource{ClientCIDR: cidrTenants(t, "10.0.0.0/8 a", "10.1.0.0/8 b")}), `network 10.0.0.0/8 to tenant "b": it is "a"'s`)
	f(sidecarOf(policy.IdentitySource{ClientCIDR: []policy.CIDRTenant{{Tenant: "a"}}}), "clientCIDR[0]: want a network")
	// Templates without place.
	f(sidecarOf(policy.IdentitySource{Host: "api.test"}), `host template "api.test"`)
	f(sidecarOf(policy.IdentitySource{Path: "/t/"}), `path template "/t/"`)
}

func TestIdentityHeaders(t *testing.T) {
	f := func(s *policy.SidecarSettings, wantCanonical string, want ...string) {
		t.Helper()
		if got := CanonicalIdentityHeader(s); got != wantCanonical {
			t.Errorf("unexpected canonical header: got %q, want %q", got, wantCanonical)
		}
		if diff := cmp.Diff(want, IdentityHeaders(s)); diff != "" {
			t.Errorf("unexpected headers (-want +got):\n%s", diff)
		}
	}
	header := func(name string) policy.IdentitySource { return policy.IdentitySource{Header: name} }
	key := policy.IdentitySource{APIKey: &policy.APIKeyIdentity{Header: "X-API-Key"}}

	// Without a header source nobody may send the canonical one either.
	f(sidecarOf(), "X-Tenant-ID", "X-Tenant-ID")
	f(sidecarOf(key), "X-Tenant-ID", "X-Tenant-ID")
	// The first header source, wherever it is.
	f(sidecarOf(key, header("X-Org"), header("X-Tenant-ID")), "X-Org", "X-Org", "X-Tenant-ID")
	// One name in two casings is one name.
	f(sidecarOf(header("X-Org"), header("x-org"), header("X-Account")), "X-Org", "X-Org", "X-Account")
}

// However a claim is broken, it never becomes the tenant of a later source.
func TestIdentifierNeverFallsThrough(t *testing.T) {
	id := mustIdentify(t, sidecarOf(policy.IdentitySource{Header: "X-Tenant-ID"}, policy.IdentitySource{ClientCIDR: cidrTenants(t, "0.0.0.0/0 rest")}))
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 140), 0, 3).Draw(t, "values")
		var fields fieldList
		for _, v := range values {
			fields = append(fields, [2]string{"x-tenant-id", string(v)})
		}
		got, source, _ := id.tenant(testNow, &Request{Header: fields, Peer: proxyPeer, Client: publicPeer})
		switch value, count := fields.Lookup("X-Tenant-ID"); {
		case count == 0:
			if string(got) != "rest" || source != 1 {
				t.Fatalf("unexpected tenant: got %q of %d, want that of the network", got, source)
			}
		case source != 0:
			t.Fatalf("unexpected source: got %d, want 0", source)
		case got != nil && (count > 1 || string(got) != string(value)):
			t.Fatalf("unexpected tenant: got %q of %q", got, values)
		}
	})
}

func FuzzValidTenant(f *testing.F) {
	f.Add([]byte("acme"))
	f.Add([]byte(""))
	f.Add([]byte("a b"))
	f.Add([]byte("\x7f\x80\xff"))
	f.Add([]byte(strings.Repeat("~", 129)))
	f.Fuzz(func(t *testing.T, s []byte) {
		want := len(s) >= 1 && len(s) <= 128 && !slices.ContainsFunc(s, func(c byte) bool { return c < 0x21 || c > 0x7e })
		if got := validTenant(s); got != want {
			t.Fatalf("unexpected answer for %q: got %v, want %v", s, got, want)
		}
		if got := validTenant(string(s)); got != want {
			t.Fatalf("unexpected answer for %q as a string: got %v, want %v", s, got, want)
		}
	})
}

// identitySets are one request that each kind of source has to answer.
func identitySets(t testing.TB) []struct {
	name string
	id   *identifier
	req  Request
} {
	t.Helper()
	keys := make(policy.APIKeyTable)
	for i := range 10000 {
		keys[sha256.Sum256(fmt.Appendf(nil, "key-%d", i))] = fmt.Sprintf("tenant-%d", i)
	}
	keyed := sidecarOf(policy.IdentitySource{APIKey: &policy.APIKeyIdentity{Header: "X-API-Key"}})
	keyed.APIKeys = []policy.APIKeyTable{keys}
	var networks []policy.CIDRTenant
	for i := range 1000 {
		networks = append(networks, cidrTenants(t, fmt.Sprintf("172.%d.%d.0/%d tenant-%d", i/256, i%256, 24-i%4, i%4))...)
	}
	slices.SortFunc(networks, func(a, b policy.CIDRTenant) int { return strings.Compare(a.CIDR.String(), b.CIDR.String()) })
	networks = slices.CompactFunc(networks, func(a, b policy.CIDRTenant) bool { return a.CIDR.Prefix().Masked() == b.CIDR.Prefix().Masked() })
	client := netip.MustParseAddr("172.1.2.3")
	jwt, jwtRequest, spiffe, spiffeRequest := credentialSets(t)
	return []struct {
		name string
		id   *identifier
		req  Request
	}{
		{"header", mustIdentify(t, sidecarOf(policy.IdentitySource{Header: "X-Tenant-ID"})), Request{Peer: proxyPeer, Header: &byteField{"x-tenant-id", []byte("acme")}}},
		{"apiKey", mustIdentify(t, keyed), Request{Header: &byteField{"x-api-key", []byte("key-4711")}}},
		{"jwt", jwt, jwtRequest},
		{"spiffe", spiffe, spiffeRequest},
		{"host", mustIdentify(t, sidecarOf(policy.IdentitySource{Host: "{tenant}.api.example.com"})), Request{Host: []byte("acme.API.example.com:8080")}},
		{"path", mustIdentify(t, sidecarOf(policy.IdentitySource{Path: "/t/{tenant}/"})), Request{Path: []byte("/t/acme/orders/4711")}},
		{"clientCIDR", mustIdentify(t, sidecarOf(policy.IdentitySource{ClientCIDR: networks})), Request{Client: client}},
	}
}

func TestIdentifierAllocatesNothing(t *testing.T) {
	f := func(name string, id *identifier, req Request, want bool) {
		t.Helper()
		if tenant, _, _ := id.tenant(testNow, &req); (tenant != nil) != want {
			t.Fatalf("%s: unexpected tenant: got %q, want one: %v", name, tenant, want)
		}
		if n := testing.AllocsPerRun(100, func() { id.tenant(testNow, &req) }); n != 0 {
			t.Errorf("%s: unexpected allocations: got %v, want 0", name, n)
		}
	}

	broken := map[string]Request{
		"header":     {Peer: proxyPeer, Header: &byteField{"x-tenant-id", []byte("a b")}},
		"apiKey":     {Header: &byteField{"x-api-key", []byte(strings.Repeat("unknown", 100))}},
		"jwt":        {Header: &byteField{"authorization", []byte("Bearer " + strings.Repeat("a", 9<<10))}},
		"spiffe":     {SPIFFE: BrokenSPIFFE},
		"host":       {Host: []byte(strings.Repeat("A", 200) + ".api.example.com")},
		"path":       {Path: []byte("/t//orders")},
		"clientCIDR": {},
	}
	for _, set := range identitySets(t) {
		f(set.name, set.id, set.req, true)
		f(set.name+", broken", set.id, broken[set.name], false)
	}
}

func BenchmarkIdentifierTenant(b *testing.B) {
	for _, set := range identitySets(b) {
		b.Run(set.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if tenant, _, _ := set.id.tenant(testNow, &set.req); tenant == nil {
					b.Fatal("no tenant")
				}
			}
		})
	}
}
