package admit

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
)

func TestMatchUnknownTenant(t *testing.T) {
	const sidecar = "Sidecar weir {unknownTenant: %s, identity: [{header: X-Tenant-ID, trust: any}]}\n"
	policies := `
		TenantPolicy gold {tenants: {names: [acme]}, limits: [{name: steady, requests: 50, per: 1h}]}
		TenantPolicy eu {tenants: {match: "eu-*"}, limits: [{name: steady, requests: 40, per: 1h}]}
		TenantPolicy strangers {tenants: {unknown: true}, limits: [{name: steady, requests: 3, per: 1h}]}`
	f := func(mode, policies, tenant string, reason Reason, label string, most int) {
		t.Helper()
		r := newRig(t, fmt.Sprintf(sidecar, mode)+policies)
		m := r.table.Match(r.now, requestOf(tenant, "/"))
		if m.Reason != reason || m.Tenant.Label() != label || string(m.Identity) != tenant || (m.Backend >= 0) != (reason == Passed) {
			t.Errorf("%s, tenant %q: got %v under label %q, identity %q, backend %d; want %v under %q",
				mode, tenant, m.Reason, m.Tenant.Label(), m.Identity, m.Backend, reason, label)
		}
		if got := r.passes(tenant, 100); got != most {
			t.Errorf("%s, tenant %q: unexpected number of requests passed: got %d, want %d", mode, tenant, got, most)
		}
	}

	f("Deny", policies, "", NoIdentity, noneLabel, 0)
	f("Deny", policies, "globex", UnknownTenant, noneLabel, 0)
	f("Deny", policies, "eu-1", Passed, otherLabel, 40)
	f("Deny", policies, "acme", Passed, "acme", 50)
	f("Default", policies, "", Passed, otherLabel, 3)
	f("Default", policies, "globex", Passed, otherLabel, 3)
	f("Default", policies, "eu-1", Passed, otherLabel, 40)
	f("Default", policies, "acme", Passed, "acme", 50)
	// Without a policy for the unknown there is nothing to go by.
	f("Default", `TenantPolicy gold {tenants: {names: [acme]}}`, "", NoIdentity, noneLabel, 0)
	f("Default", `TenantPolicy gold {tenants: {names: [acme]}}`, "globex", UnknownTenant, noneLabel, 0)
	f("Shared", policies, "", NoIdentity, noneLabel, 0)
	policies += "\nTenantPolicy all {tenants: {any: true}, limits: [{name: steady, requests: 7, per: 1h}]}"
	f("Shared", policies, "", Passed, otherLabel, 7)
	f("Shared", policies, "globex", Passed, otherLabel, 7)
	f("Deny", policies, "globex", Passed, otherLabel, 7)
	f("Deny", policies, "", NoIdentity, noneLabel, 0)
	// No policy at all: nobody passes.
	f("Deny", "", "acme", UnknownTenant, noneLabel, 0)
	f("Shared", "", "", NoIdentity, noneLabel, 0)
}

// All unknown requests together have one bucket.
func TestMatchUnknownShare(t *testing.T) {
	r := newRig(t, `
		Sidecar weir {unknownTenant: Default, identity: [{header: X-Tenant-ID, trust: any}]}
		TenantPolicy gold {tenants: {names: [acme]}}
		TenantPolicy strangers {tenants: {unknown: true}, limits: [{name: steady, requests: 3, per: 1h}]}`)
	r.wantPasses("", 1, 1)
	r.wantPasses("globex", 1, 1)
	r.wantPasses("initech", 2, 1)
	r.wantPasses("", 1, 0)

	r = newRig(t, `
		Sidecar weir {unknownTenant: Shared, identity: [{header: X-Tenant-ID, trust: any}]}
		TenantPolicy all {tenants: {any: true}, limits: [{name: steady, requests: 3, per: 1h}]}`)
	r.wantPasses("", 5, 3)
	r.wantPasses("globex", 5, 3)
	r.wantPasses("", 5, 0)
}

// A claim that is no tenant is refused, even where unknown tenants are welcome.
func TestMatchBrokenIdentity(t *testing.T) {
	r := newRig(t, `
		Sidecar weir {unknownTenant: Shared, identity: [{header: X-Tenant-ID, trust: any}]}
		TenantPolicy all {tenants: {any: true}}`)
	f := func(fields fieldList) {
		t.Helper()
		req := requestOf("", "/")
		req.Header = fields
		m := r.table.Match(r.now, req)
		if m.Reason != BadRequest || m.Tenant != r.table.nobody || m.Backend != -1 {
			t.Errorf("%q: unexpected match: got %v, backend %d, want bad_request", fields, m.Reason, m.Backend)
		}
	}

	f(fieldList{{"X-Tenant-ID", ""}})
	f(fieldList{{"X-Tenant-ID", "two words"}})
	f(fieldList{{"X-Tenant-ID", "acme"}, {"x-tenant-id", "acme"}})
}

func TestMatchSpecificity(t *testing.T) {
	r := newRig(t, `
		TenantPolicy all {tenants: {any: true}, limits: [{name: steady, requests: 5, per: 1h}, {name: ceiling, requests: 30, per: 1h, final: true}]}
		TenantPolicy eu {tenants: {match: "eu-*"}, limits: [{name: steady, requests: 20, per: 1h}]}
		TenantPolicy gold {tenants: {names: [eu-gold]}, limits: [{name: steady, requests: 50, per: 1h}, {name: ceiling, requests: 1000, per: 1h}]}`)
	r.wantPasses("us-1", 100, 5)
	r.want("us-1", "/", Limited, "all/steady")
	r.wantPasses("eu-1", 100, 20)
	r.want("eu-1", "/", Limited, "eu/steady")
	// The ceiling is final.
	r.wantPasses("eu-gold", 100, 30)
	r.want("eu-gold", "/", Limited, "all/ceiling")
}

func TestMatchRoute(t *testing.T) {
	r := newRig(t, `
		TenantPolicy all {tenants: {any: true}}
		Route cart {match: [{path: /cart}], timeout: 2s, backend: main}
		Route shop {match: [{path: /shop/*}], backend: main}`)
	m := r.table.Match(r.now, requestOf("acme", "/cart"))
	if m.Route.Name() != "cart" || m.Route.Index() != 0 || m.Route.Timeout().Seconds() != 2 || m.Backend != 0 || m.Reason != Passed {
		t.Errorf("unexpected match: got route %q, index %d, timeout %v, backend %d, %v", m.Route.Name(), m.Route.Index(), m.Route.Timeout(), m.Backend, m.Reason)
	}
	m = r.table.Match(r.now, requestOf("acme", "/none"))
	if m.Route.Name() != "" || m.Route.Index() != -1 || m.Route.Timeout() != 0 || m.Backend != -1 || m.Reason != NoRoute {
		t.Errorf("unexpected match: got route %q, index %d, timeout %v, backend %d, %v", m.Route.Name(), m.Route.Index(), m.Route.Timeout(), m.Backend, m.Reason)
	}
	if got := r.table.Limits(r.now, &m, nil); len(got) != 0 {
		t.Errorf("unexpected limits without a route: got %+v", got)
	}
}

const splitDocuments = `
	Sidecar weir {unknownTenant: Shared, identity: [{header: X-Tenant-ID, trust: any}]}
	Backend blue {endpoints: [{address: 127.0.0.1:9001}]}
	Backend green {endpoints: [{address: 127.0.0.1:9002}]}
	Backend own {endpoints: [{address: 127.0.0.1:9003}]}
	Backend pinned {endpoints: [{address: 127.0.0.1:9004}]}
	TenantPolicy all {tenants: {any: true}}
	TenantPolicy gold {tenants: {names: [acme, globex]}, backend: own}
	Route plain {match: [{path: /plain}], backend: blue}
	Route split {match: [{path: /split}], split: [{backend: blue, weight: 80}, {backend: green, weight: 20}, {backend: pinned, weight: 0, tenants: [globex, initech]}]}
	Route other {match: [{path: /other}], split: [{backend: blue, weight: 50}, {backend: green, weight: 50}]}`

func TestMatchBackend(t *testing.T) {
	r := newRig(t, splitDocuments)
	f := func(tenant, path, want string) {
		t.Helper()
		m := r.table.Match(r.now, requestOf(tenant, path))
		if got := r.table.Snapshot().Backends[m.Backend].Name; got != want {
			t.Errorf("%q for %s: unexpected backend: got %s, want %s", tenant, path, got, want)
		}
	}

	// The route's, and the tenant's own before it.
	f("umbrella", "/plain", "blue")
	f("initech", "/plain", "blue")
	f("acme", "/plain", "own")
	f("", "/plain", "blue")
	// What the split says of a tenant comes before the tenant's own, and that before the weights.
	f("globex", "/split", "pinned")
	f("initech", "/split", "pinned")
	f("acme", "/split", "own")
}

func TestMatchSplit(t *testing.T) {
	const tenants = 20000
	spread := func(r *rig, path string) map[string]int {
		chosen := make(map[string]int)
		for i := range tenants {
			tenant := fmt.Sprintf("tenant-%d", i)
			chosen[tenant] = r.table.Match(r.now, requestOf(tenant, path)).Backend
		}
		return chosen
	}
	f := func(path string, share float64) map[string]int {
		t.Helper()
		r := newRig(t, splitDocuments)
		chosen := spread(r, path)
		green := 0
		for _, backend := range chosen {
			if r.table.Snapshot().Backends[backend].Name == "green" {
				green++
			}
		}
		// Five standard deviations.
		if off := math.Abs(float64(green) - share*tenants); off > 5*math.Sqrt(share*(1-share)*tenants) {
			t.Errorf("%s: unexpected share of green: got %d of %d, want about %v", path, green, tenants, share)
		}
		// Another process chooses alike.
		for tenant, backend := range spread(newRig(t, splitDocuments), path) {
			if chosen[tenant] != backend {
				t.Fatalf("%s: %q went to %d and then to %d", path, tenant, chosen[tenant], backend)
			}
		}
		return chosen
	}

	a, b := f("/split", 0.2), f("/other", 0.5)
	// Routes choose independently: of the fifth that is green on one, half is green on the other.
	both, green := 0, 0
	for tenant, backend := range a {
		if backend == 1 {
			green++
			if b[tenant] == 1 {
				both++
			}
		}
	}
	if share := float64(both) / float64(green); share < 0.45 || share > 0.55 {
		t.Errorf("unexpected share of green tenants that are green on another route: got %v, want about 0.5", share)
	}
}

// Requests without an identity are spread by the client's address.
func TestMatchSplitByClient(t *testing.T) {
	r := newRig(t, splitDocuments)
	seen := make(map[int]int)
	for i := range 1000 {
		req := requestOf("", "/other")
		req.Client = netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
		m := r.table.Match(r.now, req)
		if again := r.table.Match(r.now, req); again.Backend != m.Backend {
			t.Fatalf("%v went to %d and then to %d", req.Client, m.Backend, again.Backend)
		}
		seen[m.Backend]++
	}
	if len(seen) != 2 || seen[0] < 400 || seen[1] < 400 {
		t.Errorf("unexpected spread of 1000 addresses: got %v, want halves", seen)
	}
	// A client without address, as on a Unix socket, gets some backend.
	req := requestOf("", "/other")
	req.Client = netip.Addr{}
	if m := r.table.Match(r.now, req); m.Backend < 0 {
		t.Errorf("no backend for a client without address")
	}
}
