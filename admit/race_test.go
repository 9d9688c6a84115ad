package admit

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/policy"
)

// Under load and 300 changes of rates, each tenant passes what its rates add up to: no swap loses a token or refills one. All
// tenants always want more than they get. The clock is a counter that every request moves.
func TestSwapsUnderLoad(t *testing.T) {
	const (
		swaps   = 300
		workers = 4
		step    = 50 * time.Microsecond // between two requests
		period  = 50 * time.Millisecond // between two swaps, at least
		burst   = 20
	)
	tenants := []string{"acme", "walk-in", "", "turncoat", "late-1"} // the last one has no room
	documents := func(rate int) string {
		named := "acme"
		if rate%20 == 0 {
			named = "acme, turncoat"
		}
		limit := fmt.Sprintf("limits: [{name: steady, requests: %d, burst: %d}]", rate, burst)
		return `Sidecar weir {unknownTenant: Default, identity: [{header: X-Tenant-ID, trust: any}]}
			TenantPolicy named {tenants: {names: [` + named + `]}, ` + limit + `}
			TenantPolicy any {tenants: {any: true}, ` + limit + `}
			TenantPolicy strangers {tenants: {unknown: true}, ` + limit + `}`
	}
	rates := []int{110, 400, 250, 900, 130, 600, 1000} // multiples of 20 name the turncoat
	var snaps []*policy.Snapshot
	for _, rate := range rates {
		snaps = append(snaps, snapshotOf(t, documents(rate)))
	}

	var clock, end atomic.Int64
	end.Store(math.MaxInt64)
	var live atomic.Pointer[Table]
	table, err := Build(nil, snaps[0], 0, Options{AnyTenants: ways})
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
	table.Adopt(0)
	live.Store(table)
	// All places are taken: two by walk-in and the turncoat, the others by tenants with a request in flight.
	for i := range ways - 2 {
		tn := table.find(0, fmt.Sprintf("resident-%d", i))
		tn.seat.gate.Enter(unbounded)
	}
	for _, name := range []string{"walk-in", "turncoat"} {
		table.find(0, name).buckets()[0].Take(0, 1)
	}

	// While a table is swapped and adopted, which takes long if its goroutine is preempted, either rate is right.
	var least, most float64 // integrals of the rate, in tokens
	add := func(from, to int64, a, b int) {
		seconds := float64(to-from) / float64(time.Second)
		least, most = least+seconds*float64(min(a, b)), most+seconds*float64(max(a, b))
	}
	since, done := int64(0), 0
	var swapping sync.Mutex
	swap := func() {
		if !swapping.TryLock() {
			return
		}
		defer swapping.Unlock()
		if done == swaps || clock.Load() < since+int64(period) {
			return
		}
		before := rates[done%len(rates)]
		done++
		after := rates[done%len(rates)]
		next, err := Build(live.Load(), snaps[done%len(snaps)], clock.Load(), Options{AnyTenants: ways})
		if err != nil {
			t.Errorf("unexpected error: %v", err)
			return
		}
		swapped := clock.Load()
		live.Store(next)
		next.Adopt(clock.Load())
		add(since, swapped, before, before)
		since = clock.Load()
		add(swapped, since, before, after)
		if done == swaps {
			end.Store(clock.Load() + int64(period))
		}
	}

	passed := make([][]int, workers)
	var wg sync.WaitGroup
	for w := range workers {
		passed[w] = make([]int, len(tenants))
		wg.Go(func() {
			for i := w; ; i++ {
				now := clock.Add(int64(step))
				if now > end.Load() {
					return
				}
				table := live.Load()
				m := table.Match(now, requestOf(tenants[i%len(tenants)], "/"))
				v := table.Decide(now, &m)
				if v.Reason == Passed {
					passed[w][i%len(tenants)]++
				} else if v.Reason != Limited {
					t.Errorf("unexpected reason: %v", v.Reason)
				}
				table.Settle(&m, &v, Outcome{Reason: v.Reason})
				swap()
			}
		})
	}
	wg.Wait()
	last := rates[done%len(rates)]
	add(since, end.Load(), last, last)
	for i, tenant := range tenants {
		sum := 0
		for w := range passed {
			sum += passed[w][i]
		}
		// A few requests are under way at each end.
		if got, least, most := float64(sum), 0.98*least, burst+most*1.005+10; got > most || got < least {
			t.Errorf("%q passed %v times over %d swaps, want %.0f to %.0f", tenant, got, done, least, most)
		}
	}
}
