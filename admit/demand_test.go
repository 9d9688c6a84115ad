package admit

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

// fill takes every cell of a rig with one set, by tenants that are not at rest.
func fill(r *rig) {
	r.Helper()
	for i := range ways {
		r.wantPasses(fmt.Sprintf("resident-%d", i), 1, 1)
	}
	if s := r.table.OnDemand(r.now); s.Cells != ways || s.Capacity != ways || s.Overflow != 0 {
		r.Fatalf("unexpected state: got %+v, want %d cells of %d taken", s, ways, ways)
	}
}

func TestDemandOverflow(t *testing.T) {
	r := newRigOf(t, Options{AnyTenants: ways}, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 10h}]}`)
	fill(r)
	// Newcomers share one bucket.
	r.wantPasses("late", 6, 6)
	r.wantPasses("later", 6, 4)
	r.wantPasses("latest", 6, 0)
	if s := r.table.OnDemand(r.now); s.Cells != ways || s.Overflow != 1 {
		t.Errorf("unexpected state: got %+v, want 1 overflow cell", s)
	}
	// Residents have theirs.
	r.wantPasses("resident-3", 20, 9)
	// Once a resident has paid, its place is free, and nobody else's.
	r.wait(time.Hour)
	r.wantPasses("resident-3", 20, 1)
	r.wantPasses("late", 20, 10)
	if _, ok := r.table.Tenant(r.now, "late"); !ok {
		t.Errorf("no cell for a newcomer after a resident has paid")
	}
	if _, ok := r.table.Tenant(r.now, "resident-3"); !ok {
		t.Errorf("a resident in debt was evicted")
	}
}

// A request in flight keeps its cell.
func TestDemandInFlight(t *testing.T) {
	r := newRigOf(t, Options{AnyTenants: ways}, `TenantPolicy p {tenants: {any: true}, concurrency: {max: 1}}`)
	m, v := r.open("busy", "/")
	for i := range 1000 {
		r.want("flood-"+strconv.Itoa(i), "/", Passed, "")
	}
	r.want("busy", "/", Concurrency, "")
	r.settle(m, v)
	r.want("busy", "/", Passed, "")
}

// Tenants with many buckets each are fewer.
func TestDemandBucketBudget(t *testing.T) {
	documents := `TenantPolicy p {tenants: {any: true}, limits: [{name: each, requests: 1, per: 1h, bucket: TenantAndRoute}]}` + "\n"
	const routes = 20
	for i := range routes {
		documents += fmt.Sprintf("Route r-%d {match: [{path: /%d}], backend: main}\n", i, i)
	}
	r := newRigOf(t, Options{AnyTenants: ways}, documents)
	for i := range 100 {
		r.try("tenant-"+strconv.Itoa(i), "/3")
	}
	want := ways * bucketsPerCell / routes
	if s := r.table.OnDemand(r.now); s.Cells != want || s.Overflow != 1 {
		t.Errorf("unexpected state: got %+v, want %d cells and one overflow", s, want)
	}
	if n := r.table.demand.buckets.Load(); n != int64(want*routes) {
		t.Errorf("unexpected number of buckets counted: got %d, want %d", n, want*routes)
	}
	// Those that have a cell keep it, and cells at rest make room.
	r.want("tenant-0", "/3", Limited, "p/each")
	r.wait(time.Hour)
	for i := range 100 {
		r.try("other-"+strconv.Itoa(i), "/3")
	}
	if s := r.table.OnDemand(r.now); s.Cells != want {
		t.Errorf("unexpected state: got %+v, want %d cells", s, want)
	}
	// Fewer buckets, more cells.
	r.swap(`TenantPolicy p {tenants: {any: true}, limits: [{name: one, requests: 1, per: 1h}]}`)
	r.wait(time.Hour)
	for i := range 100 {
		r.try("other-"+strconv.Itoa(i), "/3")
	}
	if s := r.table.OnDemand(r.now); s.Cells != ways {
		t.Errorf("unexpected state: got %+v, want %d cells", s, ways)
	}
}

// A cell that was given away between Match and Decide is not spent from: that would be spending on nothing.
func TestEvictedBetweenMatchAndDecide(t *testing.T) {
	r := newRigOf(t, Options{AnyTenants: ways}, `TenantPolicy p {tenants: {any: true}, concurrency: {max: 100}, limits: [{name: steady, requests: 1, per: 1h}]}`)
	early := r.table.Match(r.now, requestOf("early", "/"))
	fill(r)
	r.wantPasses("late", 2, 1)
	// The way of everybody else without a cell.
	v := r.table.Decide(r.now, &early)
	if v.Reason != Limited || early.Tenant.Name() != "" {
		t.Errorf("unexpected verdict: got %v in the cell of %q, want limited in the overflow cell", v.Reason, early.Tenant.Name())
	}
	r.settle(&early, &v)
	r.wait(time.Hour)
	early = r.table.Match(r.now, requestOf("early", "/"))
	v = r.table.Decide(r.now, &early)
	if v.Reason != Passed || early.Tenant.Name() != "early" {
		t.Errorf("unexpected verdict: got %v in the cell of %q, want passed in its own", v.Reason, early.Tenant.Name())
	}
	r.settle(&early, &v)
}

// The same for a tenant that is named by the time its old cell is given away, and on demand again later.
func TestEvictedWhileNamed(t *testing.T) {
	onDemand := `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 2, per: 1h}]}`
	r := newRigOf(t, Options{AnyTenants: ways}, onDemand)
	r.wantPasses("acme", 1, 1)
	r.wait(time.Hour)
	r.swap(onDemand + "\n" + `TenantPolicy gold {tenants: {names: [acme]}, limits: [{name: steady, requests: 2, per: 1h}]}`)
	fill(r) // acme's old cell was at rest
	if r.table.demand.peek("acme") != nil {
		t.Fatal("acme still has a cell on demand")
	}
	r.wantPasses("acme", 5, 2)
	r.wantAvailable("acme", "steady", 0)
	r.wait(time.Hour)
	r.wantPasses("acme", 1, 1)
	r.swap(onDemand)
	r.wantPasses("acme", 5, 1)
}
