package admit

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"weir/breaker"
)

// ample lets through whatever a benchmark asks for, exhausted nothing after the first request of each tenant.
const (
	ample     = "{name: a, requests: 1000}"
	exhausted = "{name: a, requests: 1, per: 744h}"
)

// crowd is many tenants, three limits each with that as the first: named, or on demand. Each has made one request.
func crowd(t testing.TB, n int, named bool, first string) (*rig, []*Request) {
	t.Helper()
	names := make([]string, n)
	reqs := make([]*Request, n)
	for i := range n {
		names[i] = "tenant-" + strconv.Itoa(i*7919)
		reqs[i] = requestOf("", "/")
		reqs[i].Header = &byteField{"X-Tenant-ID", []byte(names[i])}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { reqs[i], reqs[j] = reqs[j], reqs[i] })
	selector := "any: true"
	if named {
		selector = "names: [" + strings.Join(names, ", ") + "]"
	}
	r := newRig(t, fmt.Sprintf("TenantPolicy p {tenants: {%s}, concurrency: {max: 10}, limits: [%s, {name: b, requests: 100000, per: 1h, bucket: TenantAndRoute}, {name: c, requests: 1000000, per: 24h}]}", selector, first))
	for _, req := range reqs {
		m := r.table.Match(r.now, req)
		v := r.table.Decide(r.now, &m)
		r.settle(&m, &v)
	}
	return r, reqs
}

func TestNoAllocations(t *testing.T) {
	f := func(what, documents, tenant string, passes bool) {
		t.Helper()
		r := newRig(t, documents)
		req := requestOf("", "/")
		req.Header = &byteField{"X-Tenant-ID", []byte(tenant)}
		if tenant == "" {
			req.Header = &byteField{}
		}
		req.Passes = new(Passes)
		states := make([]LimitState, 0, 8)
		n := testing.AllocsPerRun(1000, func() {
			r.now += 1000
			m := r.table.Match(r.now, req)
			v := r.table.Decide(r.now, &m)
			if (v.Reason == Passed) != passes {
				t.Errorf("%s: unexpected reason: %v", what, v.Reason)
			}
			states = r.table.Limits(r.now, &m, states[:0])
			r.settle(&m, &v)
		})
		if n != 0 {
			t.Errorf("%s: unexpected allocations: got %v, want 0", what, n)
		}
	}

	shared := "Sidecar weir {unknownTenant: Shared, identity: [{header: X-Tenant-ID, trust: any}]}\n"
	allow := "limits: [{name: a, requests: 1000000}, {name: b, requests: 1000000, bucket: TenantAndRoute}, {name: c, requests: 1000000, bucket: Shared}, {name: d, requests: 1, mode: Shadow}]}"
	deny := "limits: [{name: a, requests: 1000000}, {name: b, requests: 0}, {name: c, requests: 1000000, bucket: Shared}]}"
	f("named, allowed", "TenantPolicy p {tenants: {names: [acme]}, "+allow, "acme", true)
	f("named, denied", "TenantPolicy p {tenants: {names: [acme]}, "+deny, "acme", false)
	trial := "\nTenantPolicy t {tenants: {any: true}, limits: [{name: b, requests: 10, mode: Shadow}]}"
	f("named, allowed, compared", "TenantPolicy p {tenants: {names: [acme]}, "+allow+trial, "acme", true)
	f("named, denied, compared", "TenantPolicy p {tenants: {names: [acme]}, "+deny+trial, "acme", false)
	f("on demand, allowed", "TenantPolicy p {tenants: {any: true}, "+allow, "acme", true)
	f("on demand, denied", "TenantPolicy p {tenants: {any: true}, "+deny, "acme", false)
	f("matched, allowed", `TenantPolicy p {tenants: {match: "a*"}, `+allow, "acme", true)
	f("unknown, allowed", shared+"TenantPolicy p {tenants: {any: true}, "+allow, "", true)
	f("unknown, denied", shared+"TenantPolicy p {tenants: {any: true}, "+deny, "", false)
	guarded := "\nRoute all {backend: main}\nBreakerPolicy b {target: {kind: Route, name: all}, qpsBaseline: {}, failures: {}}\nBreakerPolicy c {target: {kind: Backend, name: main}, perTenant: true, failures: {}}"
	f("on demand, allowed, with breakers", "TenantPolicy p {tenants: {any: true}, "+allow+guarded, "acme", true)
	f("on demand, denied, with breakers", "TenantPolicy p {tenants: {any: true}, "+deny+guarded, "acme", false)
	f("unknown, allowed, with breakers", shared+"TenantPolicy p {tenants: {any: true}, "+allow+guarded, "", true)
	f("unknown, refused", "TenantPolicy p {tenants: {names: [acme]}, "+allow, "", false)
	f("uncovered, refused", "TenantPolicy p {tenants: {names: [acme]}, "+allow, "globex", false)
}

// Newcomers without room must not cost allocations either, or a flood would be a flood of garbage.
func TestNoAllocationsInOverflow(t *testing.T) {
	r := newRigOf(t, Options{AnyTenants: ways}, `TenantPolicy p {tenants: {any: true}, limits: [{name: a, requests: 1, per: 1h}]}`)
	fill(r)
	req := requestOf("", "/")
	req.Header = &byteField{"X-Tenant-ID", []byte("late")}
	n := testing.AllocsPerRun(1000, func() {
		m := r.table.Match(r.now, req)
		v := r.table.Decide(r.now, &m)
		r.settle(&m, &v)
	})
	if n != 0 {
		t.Errorf("unexpected allocations: got %v, want 0", n)
	}
}

// The memory of a tenant on demand, its name of 13 bytes and its place in the table included: also after rates have changed.
func TestBytesPerTenant(t *testing.T) {
	const n = 40000
	f := func(what string, most int, before, after string) {
		t.Helper()
		base := heapInUse()
		r := newRig(t, "TenantPolicy p {tenants: {any: true}, "+before+"}")
		req := requestOf("", "/")
		header := &byteField{name: "X-Tenant-ID"}
		req.Header = header
		empty := heapInUse()
		measure := func(when string) {
			t.Helper()
			for i := range n {
				header.value = fmt.Appendf(header.value[:0], "tenant-%06d", i)
				m := r.table.Match(r.now, req)
				v := r.table.Decide(r.now, &m)
				r.settle(&m, &v)
			}
			full := heapInUse()
			cells := r.table.OnDemand(r.now).Cells
			each := float64(full-empty) / float64(cells)
			place := float64(empty-base) / 65536
			t.Logf("%s %s: %.0f bytes for each of %d tenants, and %.0f for each place", what, when, each, cells, place)
			if each+place > float64(most) {
				t.Errorf("%s %s: a tenant on demand takes %.0f bytes and its place %.0f, want at most %d together", what, when, each, place, most)
			}
		}
		measure("at first")
		r.swap("TenantPolicy p {tenants: {any: true}, " + after + "}")
		r.swap("TenantPolicy p {tenants: {any: true}, " + after + "}") // which forgets what the first one of all adopted
		measure("after a change")
	}

	f("one limit", 128, "limits: [{name: a, requests: 1000}]", "limits: [{name: a, requests: 2000}]")
	f("three limits", 192,
		"limits: [{name: a, requests: 1000}, {name: b, requests: 1000}, {name: c, requests: 1000, per: 1h}]",
		"limits: [{name: a, requests: 2000}, {name: b, requests: 2000}, {name: c, requests: 2000, per: 1h}]")
	// What all share costs each nothing.
	f("shared limits", 128,
		"limits: [{name: a, requests: 1000}, {name: b, requests: 100000, bucket: Shared}, {name: c, requests: 100000, bucket: Shared}]",
		"limits: [{name: a, requests: 2000}, {name: b, requests: 200000, bucket: Shared}, {name: c, requests: 200000, bucket: Shared}]")
}

// BenchmarkDecide is one decision for one of 10,000 tenants with three limits each, allowed and denied: alone, and with the
// look-up before it and the counting after it.
func BenchmarkDecide(b *testing.B) {
	f := func(name string, named, whole bool, first string, want Reason) {
		b.Run(name, func(b *testing.B) {
			r, reqs := crowd(b, 10000, named, first)
			matches := make([]Match, len(reqs))
			for i := range reqs {
				matches[i] = r.table.Match(r.now, reqs[i])
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				r.now += 10000
				m := &matches[i%len(matches)]
				if whole {
					*m = r.table.Match(r.now, reqs[i%len(reqs)])
				}
				v := r.table.Decide(r.now, m)
				if v.Reason != want {
					b.Fatalf("unexpected verdict: %v", v.Reason)
				}
				if whole {
					r.table.Settle(m, &v, Outcome{Reason: v.Reason, Status: max(200, v.Reason.Status())})
				} else if v.entered {
					m.Tenant.seat.gate.Leave()
				}
			}
		})
	}
	f("named/allowed", true, false, ample, Passed)
	f("named/denied", true, false, exhausted, Limited)
	f("on-demand/allowed", false, false, ample, Passed)
	f("on-demand/denied", false, false, exhausted, Limited)
	f("named/match-decide-settle/allowed", true, true, ample, Passed)
	f("named/match-decide-settle/denied", true, true, exhausted, Limited)
	f("on-demand/match-decide-settle/allowed", false, true, ample, Passed)
	f("on-demand/match-decide-settle/denied", false, true, exhausted, Limited)
}

// BenchmarkBreakers is what breakers add to a request: Match, Decide and Settle with so many of them.
func BenchmarkBreakers(b *testing.B) {
	f := func(name string, breakers int, perTenant bool, made int, want Reason) {
		b.Run(name, func(b *testing.B) {
			lines := "Route all {backend: main, criticality: NonCore}\nTenantPolicy p {tenants: {any: true}, limits: [{name: a, requests: 1000000000}]}"
			for i := range breakers {
				lines += fmt.Sprintf("\nBreakerPolicy b%d {target: {kind: Backend, name: main}, perTenant: %v, qpsBaseline: {}, failures: {minRequests: 1}}", i, perTenant)
			}
			r := newRig(b, lines)
			for i := range made {
				r.try(fmt.Sprint("t", i), "/")
			}
			if want == BreakerOpen {
				r.ends(1, "acme", "/", failed)
				r.tick()
				r.now += int64(time.Second)
				r.tick()
			}
			req := requestOf("", "/")
			req.Header, req.Passes = &byteField{"X-Tenant-ID", []byte("acme")}, new(Passes)
			b.ReportAllocs()
			for b.Loop() {
				r.now += 1000
				m := r.table.Match(r.now, req)
				v := r.table.Decide(r.now, &m)
				if v.Reason != want {
					b.Fatalf("unexpected verdict: %v", v.Reason)
				}
				r.table.Settle(&m, &v, Outcome{Reason: v.Reason, Status: 200})
			}
		})
	}

	f("none", 0, false, 0, Passed)
	f("1", 1, false, 0, Passed)
	f("2", 2, false, 0, Passed)
	f("4", 4, false, 0, Passed)
	f("1-per-tenant-of-10000", 1, true, 10000, Passed)
	f("1-open", 1, false, 0, BreakerOpen)
}

// BenchmarkTick is the sampler's look at 10,000 breakers, one for each tenant, that have all had a request: in time, and as a
// part of one core at the rate at which they must be looked at.
func BenchmarkTick(b *testing.B) {
	r := newRig(b, `
		Route all {backend: main}
		TenantPolicy p {tenants: {any: true}}
		BreakerPolicy main {target: {kind: Backend, name: main}, perTenant: true, qpsBaseline: {}, failures: {}}`)
	before := heapInUse()
	for i := range maxTenantBreakers {
		r.table.breakerOf(r.table.breakers[0], fmt.Sprint("tenant-", i), r.now)
	}
	each := float64(heapInUse()-before) / maxTenantBreakers
	all := []*watch{}
	r.table.breakers[0].each(func(w *watch) { all = append(all, w) })
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for _, w := range all {
			w.Offer(0, true)
			w.Record(w.Admit(r.now, 0, true), 0, breaker.Success, false)
		}
		r.now += int64(r.table.TickEvery())
		b.StartTimer()
		r.table.Tick(r.now, rand.Float64, func(BreakerChange) {})
	}
	b.ReportMetric(100*b.Elapsed().Seconds()/float64(b.N)/r.table.TickEvery().Seconds(), "%core")
	b.ReportMetric(each, "bytes/breaker")
}

func BenchmarkFind(b *testing.B) {
	f := func(name string, tenants int, named bool) {
		b.Run(name, func(b *testing.B) {
			r, reqs := crowd(b, tenants, named, ample)
			names := make([][]byte, len(reqs))
			for i := range reqs {
				names[i], _ = reqs[i].Header.Lookup("X-Tenant-ID")
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				if tn, _ := r.table.tenant(r.now, names[i%len(names)], 0); tn == nil {
					b.Fatal("no tenant")
				}
			}
		})
	}
	f("named-10000", 10000, true)
	f("on-demand-10000", 10000, false)
	f("on-demand-65536", 65536, false)
}

// BenchmarkFlood is the cost of a name that was never seen, with every place taken by tenants that are not at rest.
func BenchmarkFlood(b *testing.B) {
	r := newRig(b, `TenantPolicy p {tenants: {any: true}, limits: [{name: a, requests: 1, per: 744h}]}`)
	req := requestOf("", "/")
	header := &byteField{name: "X-Tenant-ID"}
	req.Header = header
	i := 0
	one := func() {
		header.value = strconv.AppendInt(header.value[:0], int64(i), 10)
		i++
		m := r.table.Match(r.now, req)
		v := r.table.Decide(r.now, &m)
		r.settle(&m, &v)
	}
	for range 200_000 {
		one()
	}
	b.ReportAllocs()
	for b.Loop() {
		one()
	}
}
