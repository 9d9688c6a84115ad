package admit

import "testing"

func TestBucketScopes(t *testing.T) {
	const routes = `
		Route cart {match: [{path: /cart}], backend: main}
		Route shop {match: [{path: /}], backend: main}`
	rigOf := func(limit string) *rig {
		return newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [{name: l, requests: 3, per: 1h, `+limit+`}]}`+routes)
	}
	f := func(r *rig, tenant, path string, want int) {
		t.Helper()
		passed := 0
		for range 10 {
			if r.try(tenant, path).Reason == Passed {
				passed++
			}
		}
		if passed != want {
			t.Errorf("%q for %s: unexpected number of 10 requests passed: got %d, want %d", tenant, path, passed, want)
		}
	}

	// One bucket for each tenant.
	r := rigOf("bucket: Tenant")
	f(r, "a", "/cart", 3)
	f(r, "a", "/", 0)
	f(r, "b", "/", 3)
	// One for each tenant and route.
	r = rigOf("bucket: TenantAndRoute")
	f(r, "a", "/cart", 3)
	f(r, "a", "/", 3)
	f(r, "b", "/cart", 3)
	f(r, "a", "/cart", 0)
	// One for all.
	r = rigOf("bucket: Shared")
	f(r, "a", "/cart", 3)
	f(r, "b", "/", 0)
	// Some routes only.
	r = rigOf("bucket: Tenant, routes: [cart]")
	f(r, "a", "/", 10)
	f(r, "a", "/cart", 3)
	f(r, "a", "/", 10)
	r = rigOf("bucket: TenantAndRoute, routes: [cart]")
	f(r, "a", "/", 10)
	f(r, "a", "/cart", 3)
	r = rigOf("bucket: Shared, routes: [cart]")
	f(r, "a", "/", 10)
	f(r, "a", "/cart", 3)
	f(r, "b", "/cart", 0)
	f(r, "b", "/", 10)
}

// Limits of all routes and of some apply together, in whatever order they are written.
func TestBucketScopesTogether(t *testing.T) {
	f := func(limits string) {
		t.Helper()
		r := newRig(t, `
			TenantPolicy p {tenants: {names: [acme]}, limits: [`+limits+`]}
			Route cart {match: [{path: /cart}], backend: main}
			Route pay {match: [{path: /pay}], backend: main}
			Route shop {match: [{path: /}], backend: main}`)
		told := func(path string) string {
			m, v := r.open("acme", path)
			names := ""
			for _, l := range r.table.Limits(r.now, m, nil) {
				names += l.Name + " "
			}
			r.settle(m, v)
			return names
		}
		g := func(path, want string) {
			t.Helper()
			if got := told(path); got != want {
				t.Errorf("%s: unexpected limits: got %q, want %q", path, got, want)
			}
		}
		g("/", "all each everybody ")
		g("/cart", "all some each everybody ")
		g("/pay", "all some each few everybody ")
		r.wantAvailable("acme", "all", 97)
		r.wantAvailable("acme", "some", 48)
		r.wantAvailable("acme", "each", 9) // the emptiest
		r.wantAvailable("acme", "few", 6)
		r.wantAvailable("acme", "everybody", 997)
	}

	f(`{name: all, requests: 100, per: 1h}, {name: some, requests: 50, per: 1h, routes: [cart, pay]}, {name: each, requests: 10, per: 1h, bucket: TenantAndRoute}, {name: few, requests: 7, per: 1h, bucket: TenantAndRoute, routes: [pay]}, {name: everybody, requests: 1000, per: 1h, bucket: Shared}`)
	// Shared ones are asked last.
	f(`{name: everybody, requests: 1000, per: 1h, bucket: Shared}, {name: all, requests: 100, per: 1h}, {name: some, requests: 50, per: 1h, routes: [cart, pay]}, {name: each, requests: 10, per: 1h, bucket: TenantAndRoute}, {name: few, requests: 7, per: 1h, bucket: TenantAndRoute, routes: [pay]}`)
}

// Subsets of the patterns are many. Tenants that would need more plans than a table makes are unknown, never unlimited.
func TestTooManyPlans(t *testing.T) {
	documents := ""
	const patterns = 13 // 8,192 subsets
	for i := range patterns {
		documents += "TenantPolicy p-" + string(rune('a'+i)) + ` {tenants: {match: "*` + string(rune('a'+i)) + `*"}, limits: [{name: l-` + string(rune('a'+i)) + `, requests: 1, per: 1h}]}` + "\n"
	}
	r := newRig(t, documents)
	passed, unknown := 0, 0
	for set := 1; set < 1<<patterns; set++ {
		name := ""
		for i := range patterns {
			if set&(1<<i) != 0 {
				name += string(rune('a' + i))
			}
		}
		switch v := r.try(name, "/"); v.Reason {
		case Passed:
			passed++
			if r.try(name, "/").Reason != Limited {
				t.Fatalf("%q passed twice", name)
			}
		case UnknownTenant:
			unknown++
		default:
			t.Fatalf("%q: unexpected reason %v", name, v.Reason)
		}
	}
	if passed != maxPlans || unknown != 1<<patterns-1-maxPlans || len(r.table.plans) > maxPlans+2 {
		t.Errorf("%d passed and %d were unknown with %d plans, want %d and %d", passed, unknown, len(r.table.plans), maxPlans, 1<<patterns-1-maxPlans)
	}
}
