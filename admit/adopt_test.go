package admit

import (
	"runtime"
	"testing"
	"time"
	"weak"
)

func TestAdoptDebt(t *testing.T) {
	const sharer = `Sidecar weir {unknownTenant: Shared, identity: [{header: X-Tenant-ID, trust: any}]}`
	f := func(tenant, before, after string, want int) {
		t.Helper()
		r := newRig(t, before)
		r.wantPasses(tenant, 20, 10)
		for range 5 {
			r.swap(before)
			r.wantPasses(tenant, 1, 0)
		}
		r.swap(after)
		r.wantPasses(tenant, 200, want)
	}

	p := `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 10h}]}`
	any := `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 10h}]}`
	// Named, on demand, unknown.
	f("acme", p, p, 0)
	f("acme", any, any, 0)
	f("", sharer+"\n"+any, sharer+"\n"+any, 0)
	// The documents around it change.
	f("acme", p, p+"\nTenantPolicy q {tenants: {names: [globex]}, limits: [{name: other, requests: 1}]}", 0)
	f("acme", p, p+"\nTenantPolicy q {tenants: {any: true}, limits: [{name: other, requests: 5}]}", 0)
	f("acme", p, p+"\nRoute extra {match: [{path: /extra}], backend: main}\nRoute all {match: [{path: /*}], backend: main}", 0)
	// A greater burst gives the difference, a lower one nothing.
	f("acme", p, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 10h, burst: 15}]}`, 5)
	f("acme", any, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 10h, burst: 15}]}`, 5)
	f("acme", p, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 10h, burst: 2}]}`, 0)
	// Shared buckets are adopted as such.
	f("acme", `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 10h, bucket: Shared}]}`,
		`TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 10h, bucket: Shared}]}`, 0)
	// Between named and on demand, and from one policy to another that sets the same limit.
	f("acme", p, any, 0)
	f("acme", any, p, 0)
	f("acme", any, any+"\nTenantPolicy gold {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 10h, burst: 12}]}", 2)
	f("acme", any, `TenantPolicy renamed {tenants: {match: "a*"}, limits: [{name: steady, requests: 10, per: 10h}]}`, 0)
	// Another name, or another sort of bucket, is another limit.
	f("acme", p, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: other, requests: 10, per: 10h}]}`, 10)
	f("acme", p, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 10h, bucket: Shared}]}`, 10)
	f("acme", p, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 10h, bucket: TenantAndRoute}]}`, 10)
}

// A changed rate restates the debt in tokens: after the change an empty bucket waits as long as the new rate says.
func TestAdoptRate(t *testing.T) {
	f := func(selector, bucket, tenant string) {
		t.Helper()
		with := func(limit string) string {
			limit += ", bucket: " + bucket
			return "Sidecar weir {unknownTenant: Shared, identity: [{header: X-Tenant-ID, trust: any}]}\nTenantPolicy p {tenants: {" + selector + "}, limits: [{name: steady, " + limit + "}]}"
		}
		r := newRig(t, with("requests: 1, burst: 10"))
		r.wantPasses(tenant, 20, 10)
		// Raised: half a second for a token, not ten of the old ones.
		r.swap(with("requests: 2, burst: 10"))
		if v := r.try(tenant, "/"); v.RetryAfter != 500*time.Millisecond {
			t.Errorf("%s: unexpected wait after the rate was raised: got %v, want 500ms", selector, v.RetryAfter)
		}
		// Lowered: nothing given away.
		r.wait(250 * time.Millisecond)
		r.swap(with("requests: 1, per: 10s, burst: 10"))
		r.wantPasses(tenant, 5, 0)
		if v := r.try(tenant, "/"); v.RetryAfter != 5*time.Second {
			t.Errorf("%s: unexpected wait after the rate was lowered: got %v, want 5s", selector, v.RetryAfter)
		}
		// A tenant that comes only later is restated as of the change.
		r.swap(with("requests: 10, burst: 10"))
		r.wait(time.Second - time.Millisecond*50)
		r.wantPasses(tenant, 20, 10)
	}

	f("names: [acme]", "Tenant", "acme")
	f("any: true", "Tenant", "acme")
	f("any: true", "Tenant", "")
	f(`match: "a*"`, "TenantAndRoute", "acme")
	f("names: [acme]", "Shared", "acme")
	f("any: true", "Shared", "acme")
}

// Until Adopt the old rates hold, for tenants of both tables.
func TestBuildChangesNothing(t *testing.T) {
	f := func(selector string) {
		t.Helper()
		r := newRig(t, "TenantPolicy p {tenants: {"+selector+"}, limits: [{name: steady, requests: 10, per: 10s}]}")
		r.wantPasses("acme", 20, 10)
		next, err := Build(r.table, snapshotOf(t, "TenantPolicy p {tenants: {"+selector+"}, limits: [{name: steady, requests: 1000, per: 1s, burst: 10}]}"), r.now, r.options)
		if err != nil {
			t.Fatalf("unexpected error: %v", err)
		}
		r.wait(time.Second)
		r.wantPasses("acme", 20, 1)
		r.table = next
		r.table.Adopt(r.now)
		r.wait(5 * time.Millisecond)
		r.wantPasses("acme", 200, 5)
	}

	f("names: [acme]")
	f("any: true")
}

// A tenant keeps its debt on every way between named and on demand, also when it comes between Build and the swap.
func TestAdoptReleased(t *testing.T) {
	named := `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 10h}]}`
	onDemand := `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 10h}]}`
	nobody := `TenantPolicy p {tenants: {names: [globex]}, limits: [{name: steady, requests: 10, per: 10h}]}`

	r := newRig(t, named)
	r.wantPasses("acme", 4, 4)
	r.swap(onDemand)
	r.wantPasses("acme", 2, 2)
	r.swap(named)
	r.wantPasses("acme", 1, 1)
	// Out of sight for a while.
	r.swap(onDemand)
	r.swap(onDemand)
	r.swap(nobody)
	r.want("acme", "/", UnknownTenant, "")
	r.swap(nobody)
	r.swap(named)
	r.wantPasses("acme", 20, 3)
	r.swap(nobody)
	r.swap(nobody)
	r.swap(onDemand)
	r.wantPasses("acme", 20, 0)
	// What is paid off is forgotten.
	r.swap(nobody)
	r.wait(10 * time.Hour)
	r.swap(nobody)
	r.swap(nobody)
	if n := len(r.table.released); n != 0 {
		t.Errorf("unexpected number of tenants released: got %d, want 0", n)
	}

	// Spent between Build and the swap.
	r = newRig(t, named)
	next, err := Build(r.table, snapshotOf(t, onDemand), r.now, r.options)
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
	r.wantPasses("acme", 10, 10)
	r.table = next
	r.table.Adopt(r.now)
	r.wantPasses("acme", 10, 0)
}

// A request that runs on the table before spends from the same buckets and leaves their rates alone.
func TestOldTable(t *testing.T) {
	f := func(selector string) {
		t.Helper()
		r := newRig(t, "TenantPolicy p {tenants: {"+selector+"}, limits: [{name: steady, requests: 10, per: 10h}]}")
		r.wantPasses("acme", 1, 1)
		old := &rig{TB: t, table: r.table, now: r.now}
		r.swap("TenantPolicy p {tenants: {" + selector + "}, limits: [{name: steady, requests: 10, per: 1h}]}")
		r.wantPasses("acme", 2, 2)
		old.wantPasses("acme", 3, 3)
		r.wantPasses("acme", 20, 4)
		old.wantPasses("acme", 3, 0)
		if v := r.try("acme", "/"); v.RetryAfter != 6*time.Minute {
			t.Errorf("%s: unexpected wait: got %v, want 6m", selector, v.RetryAfter)
		}
	}

	f("names: [acme]")
	f("any: true")
}

// The cell that newcomers share keeps its debt too.
func TestAdoptOverflow(t *testing.T) {
	documents := `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 10h}]}`
	r := newRigOf(t, Options{AnyTenants: ways}, documents)
	fill(r)
	r.wantPasses("late", 4, 4)
	r.swap(documents)
	r.wantPasses("later", 3, 3)
	// The rate changes while nobody comes.
	r.swap(`TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 1h}]}`)
	r.swap(documents)
	r.wantPasses("latest", 20, 3)
	r.swap(documents)
	r.swap(documents)
	r.swap(documents)
	r.wantPasses("late", 20, 0)
}

// A newcomer on the table before must not put a shared bucket back under the rate of before.
func TestOldTableAndSharedBucket(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 1, per: 1h, burst: 10, bucket: Shared}]}`)
	old := &rig{TB: t, table: r.table, now: r.now}
	r.swap(`TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 1, per: 1s, burst: 10, bucket: Shared}]}`)
	r.wantPasses("acme", 1, 1)
	old.wantPasses("newcomer", 20, 9)
	if v := r.try("acme", "/"); v.RetryAfter != time.Second {
		t.Errorf("unexpected wait: got %v, want 1s", v.RetryAfter)
	}
}

// Nor may it put the cell that newcomers share back.
func TestOldTableAndOverflow(t *testing.T) {
	r := newRigOf(t, Options{AnyTenants: ways}, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 1, per: 1h, burst: 10}]}`)
	fill(r)
	old := &rig{TB: t, table: r.table, now: r.now}
	r.swap(`TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 1, per: 2h, burst: 10}]}`)
	r.wantPasses("acme", 1, 1)
	old.wantPasses("newcomer", 20, 9)
	if v := r.try("acme", "/"); v.RetryAfter != 2*time.Hour {
		t.Errorf("unexpected wait: got %v, want 2h", v.RetryAfter)
	}
	if tn := r.table.demand.overflow["p "]; tn.plan.generation != r.table.generation {
		t.Errorf("the shared cell went back to generation %d, want %d", tn.plan.generation, r.table.generation)
	}
}

// Shared cells of policies that are gone are forgotten, once they owe nothing.
func TestOverflowIsPruned(t *testing.T) {
	of := func(policy string) string {
		return "TenantPolicy " + policy + ` {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 1h}]}`
	}
	r := newRigOf(t, Options{AnyTenants: ways}, of("a"))
	for i := range ways {
		r.open("resident-"+time.Duration(i).String(), "/")
	}
	f := func(policy string, want int) {
		t.Helper()
		r.swap(of(policy))
		r.try("late", "/")
		if got := len(r.table.demand.overflow); got != want {
			t.Errorf("unexpected number of overflow cells under %s: got %d, want %d", policy, got, want)
		}
	}

	f("a", 1)
	f("b", 2)
	f("c", 3)
	r.wait(time.Hour)
	f("d", 2) // c may still be in use
	r.wait(time.Hour)
	f("d", 1)
}

// Tables that nobody uses any more are not kept alive by cells that wait for their tenants, nor by what adoption remembers.
func TestRetiredTablesAreFreed(t *testing.T) {
	documents := `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 10h}]}
		TenantPolicy q {tenants: {names: [globex]}, limits: [{name: other, requests: 10, per: 10h}]}`
	r := newRig(t, documents)
	var tables []weak.Pointer[Table]
	for range 10 {
		r.wantPasses("waits-"+time.Duration(len(tables)).String(), 1, 1)
		r.try("comes", "/")
		r.try("globex", "/")
		tables = append(tables, weak.Make(r.table))
		r.swap(documents)
	}
	runtime.GC()
	for i, table := range tables {
		if table.Value() != nil {
			t.Errorf("table %d of %d is still there", i, len(tables))
		}
	}
	runtime.KeepAlive(r)
}
