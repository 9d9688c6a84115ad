package admit

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
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

// No flood resets a victim's bucket.
func TestDemandVictim(t *testing.T) {
	r := newRigOf(t, Options{AnyTenants: ways}, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 10h}]}`)
	r.wantPasses("victim", 10, 10)
	for i := range 100_000 {
		r.try("flood-"+strconv.Itoa(i), "/")
		if i%1000 == 0 {
			r.wait(30 * time.Second)
		}
	}
	// 50 minutes have passed, which is no token yet.
	r.wantPasses("victim", 20, 0)
	if v := r.try("victim", "/"); v.RetryAfter != 10*time.Minute {
		t.Errorf("unexpected wait: got %v, want 10m", v.RetryAfter)
	}
	r.wait(10 * time.Minute)
	r.wantPasses("victim", 20, 1)
}

// Whoever rotates through a thousand names gets no more than whoever sticks to as many as there are cells.
func TestDemandRotation(t *testing.T) {
	const requests = 200_000
	admitted := func(names int) (passed int) {
		r := newRigOf(t, Options{AnyTenants: ways}, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, burst: 10}]}`)
		for i := range requests {
			passed += r.passes("name-"+strconv.Itoa(i%names), 1)
			r.wait(50 * time.Microsecond)
		}
		return passed
	}

	// 17 buckets, ten seconds.
	fixed, rotated := admitted(ways+1), admitted(1000)
	if most := (ways + 1) * (10 + 10*10); fixed > most || fixed < most*98/100 {
		t.Errorf("unexpected number passed without rotation: got %d, want about %d", fixed, most)
	}
	if rotated > fixed {
		t.Errorf("rotating through 1000 names passed %d requests, sticking to %d names %d", rotated, ways+1, fixed)
	}
}

// A million names cost no more memory than the cells.
func TestDemandFlood(t *testing.T) {
	const capacity = 1024
	r := newRigOf(t, Options{AnyTenants: capacity}, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 1, per: 1s, burst: 2}]}`)
	var name [24]byte
	req := requestOf("", "/")
	header := &byteField{name: "X-Tenant-ID"}
	req.Header = header
	flood := func(from, to int) {
		for i := from; i < to; i++ {
			header.value = strconv.AppendInt(append(name[:0], "tenant-"...), int64(i)*7919, 10)
			m := r.table.Match(r.now, req)
			v := r.table.Decide(r.now, &m)
			r.settle(&m, &v)
			r.now += int64(time.Millisecond)
		}
	}
	flood(0, 100_000)
	before := heapInUse()
	flood(100_000, 1_000_000)
	after := heapInUse()
	if grown := int64(after) - int64(before); grown > 256<<10 {
		t.Errorf("the heap grew by %d bytes over 900,000 names", grown)
	}
	s := r.table.OnDemand(r.now)
	if s.Cells > s.Capacity || s.Capacity != capacity {
		t.Errorf("unexpected state: got %+v, want at most %d cells", s, capacity)
	}
	cells := 0
	r.table.demand.each(r.table, func(tn *Tenant) {
		if tn.name != "" {
			cells++
		}
	})
	if cells != s.Cells {
		t.Errorf("%d cells counted, there are %d", s.Cells, cells)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
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

// While the clock stands still nobody is ever at rest again after a request has passed, so that a table with one set admits one
// request for each of its cells and one for the overflow, whatever the goroutines do to each other. A request that spent
// from a cell given away under its feet would be one more.
func TestEvictionRace(t *testing.T) {
	const rounds, workers, names = 60, 4, 60
	snap := snapshotOf(t, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 1, per: 1h}]}`)
	for range rounds {
		table, err := Build(nil, snap, 0, Options{AnyTenants: ways})
		if err != nil {
			t.Fatalf("unexpected error: %v", err)
		}
		table.Adopt(0)
		var wg sync.WaitGroup
		passed := make([]int, workers)
		for w := range workers {
			wg.Go(func() {
				for i := range names {
					name := strconv.Itoa((i*(w+1) + w) % names)
					m := table.Match(1, requestOf(name, "/"))
					if i%3 == 0 {
						runtime.Gosched()
					}
					v := table.Decide(1, &m)
					if v.Reason == Passed {
						passed[w]++
					}
					table.Settle(&m, &v, Outcome{Reason: v.Reason})
				}
			})
		}
		wg.Wait()
		sum := 0
		for _, n := range passed {
			sum += n
		}
		if sum > ways+1 || sum < ways {
			t.Fatalf("unexpected number of requests passed: got %d, want %d", sum, ways+1)
		}
	}
}
