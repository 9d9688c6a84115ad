package admit

import (
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// someone is a request whose tenant changes without an allocation.
type someone struct {
	Request
	header byteField
}

func newSomeone() *someone {
	s := &someone{Request: *requestOf("", "/"), header: byteField{name: "X-Tenant-ID"}}
	s.Request.Header = &s.header
	return s
}

// comes makes one whole request of a tenant, named by a prefix and a number, and says whether it passed.
func (s *someone) comes(r *rig, prefix string, n uint64) bool {
	s.header.value = strconv.AppendUint(append(s.header.value[:0], prefix...), n, 16)
	m := r.table.Match(r.now, &s.Request)
	v := r.table.Decide(r.now, &m)
	r.settle(&m, &v)
	return v.Reason == Passed
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Ten million random names in ten seconds against a table of the usual size: memory stays within its capacity, and the buckets of
// those who were there before hold to the token what they would hold without a flood.
func TestFloodOfTenMillion(t *testing.T) {
	const (
		victims  = 500
		duration = 10 * time.Second
		phases   = 10 // of a second, in which a token comes back
	)
	names, capacity := 10_000_000, 65536
	if raceEnabled || testing.Short() {
		names, capacity = names/100, capacity/16
	}
	base := heapInUse()
	r := newRigOf(t, Options{AnyTenants: capacity}, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 10s}]}`)
	random := rand.New(rand.NewPCG(1, 2))
	flood, victim := newSomeone(), newSomeone()
	// Some have 10 tokens left, the next ones 9, and so on.
	for i := range uint64(victims) {
		for range i % 11 {
			victim.comes(r, "victim-", i)
		}
	}

	step := int64(duration) / int64(names)
	begin := time.Now()
	var after uint64
	for phase := range phases {
		for range names / phases {
			flood.comes(r, "", random.Uint64())
			r.now += step
		}
		if phase == 0 {
			after = heapInUse() // every place is taken by now
		}
		for i := uint64(phase); i < victims; i += phases {
			used := int64(i % 11)
			if used <= int64(phase)+1 {
				continue // has paid, and may have been forgotten
			}
			got := r.available("victim-"+strconv.FormatUint(i, 16), "steady")
			if earned := (int64(phase) + 1) * step * int64(names/phases) / int64(time.Second); got != 10-used+earned {
				t.Fatalf("victim %d took %d of 10 tokens and has %d after %d s, want %d", i, used, got, phase+1, 10-used+earned)
			}
		}
	}
	t.Logf("%.2f µs for each of %d names", time.Since(begin).Seconds()*1e6/float64(names), names)
	end := heapInUse()
	s := r.table.OnDemand(r.now)
	if s.Capacity != capacity || s.Cells > s.Capacity || s.Cells < s.Capacity*9/10 || s.Overflow != 1 {
		t.Errorf("unexpected state: got %+v, want nearly all cells taken and the overflow in use", s)
	}
	if grown := int64(end) - int64(after); grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes after the first %d names", grown, names/phases)
	}
	if grown, most := end-base, uint64(capacity)*128+256<<10; grown > most {
		t.Errorf("the heap grew by %d bytes in all, want at most %d: 128 for each place, and the documents", grown, most)
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

// Whoever rotates through a thousand names gets no more than whoever sticks to as many as there are buckets: in turn, at random,
// or leaving each name as soon as it is refused.
func TestRotation(t *testing.T) {
	const (
		names    = 1000
		buckets  = ways + 1 // with the one that newcomers share
		step     = 50 * time.Microsecond
		duration = 4 * time.Second
	)
	const most = buckets * (10 + 10*int(duration/time.Second))
	admitted := func(next func(i uint64, passed bool) uint64) (passed int) {
		r := newRigOf(t, Options{AnyTenants: ways}, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, burst: 10}]}`)
		one, name, ok := newSomeone(), uint64(0), true
		for i := range uint64(duration / step) {
			name = next(i, ok)
			if ok = one.comes(r, "name-", name); ok {
				passed++
			}
			r.wait(step)
		}
		return passed
	}
	fixed := admitted(func(i uint64, _ bool) uint64 { return i % buckets })
	if fixed > most || fixed < most*98/100 {
		t.Errorf("unexpected number passed without rotation: got %d, want about %d", fixed, most)
	}
	f := func(how string, next func(i uint64, passed bool) uint64) {
		t.Helper()
		if rotated := admitted(next); rotated > most {
			t.Errorf("rotating %s passed %d requests, sticking to %d names %d of at most %d", how, rotated, buckets, fixed, most)
		}
	}

	f("in turn", func(i uint64, _ bool) uint64 { return i % names })
	random := rand.New(rand.NewPCG(3, 4))
	f("at random", func(uint64, bool) uint64 { return random.Uint64N(names) })
	last := uint64(0)
	f("when refused", func(_ uint64, passed bool) uint64 {
		if !passed {
			last = (last + 1) % names
		}
		return last
	})
	f("through new names only", func(i uint64, _ bool) uint64 { return i })
	// With a place for each name there is nothing to gain either.
	r := newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 10h}]}`)
	one, passed := newSomeone(), 0
	for i := range uint64(20 * names) {
		if one.comes(r, "name-", i%names) {
			passed++
		}
	}
	if want := 10 * names; passed != want {
		t.Errorf("rotating through %d names with a place each passed %d requests, want %d", names, passed, want)
	}
}

// A table can be held: whoever spends a token in each place before it is full again lets nobody else have one. It takes
// as many requests as the places refill tokens. Newcomers then have one bucket together, tenants that have a place or
// a name in policy notice nothing, and the first bucket to be full makes room.
func TestTableHeld(t *testing.T) {
	const rate = 10
	r := newRigOf(t, Options{AnyTenants: ways}, `
		TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 10, burst: 10}]}
		TenantPolicy gold {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, burst: 10}]}`)
	fill(r) // one of these is a tenant like any other, the others are held
	holders, requests := ways-1, 0
	passed := map[string]int{}
	const seconds = 20
	for range seconds * rate {
		for i := range holders {
			r.want("resident-"+strconv.Itoa(i), "/", Passed, "")
			requests++
		}
		for _, name := range []string{"acme", "resident-15", "late", "later"} {
			passed[name] += r.passes(name, 3)
		}
		r.wait(time.Second / rate)
	}
	for _, name := range []string{"acme", "resident-15"} {
		if got, want := passed[name], 10+seconds*rate-1; got < want-1 || got > want {
			t.Errorf("%q passed %d requests in %d s, want %d", name, got, seconds, want)
		}
	}
	if got, want := passed["late"]+passed["later"], 10+seconds*rate-1; got != want {
		t.Errorf("newcomers passed %d requests in %d s, want those of one bucket, %d", got, seconds, want)
	}
	if want := holders * rate * seconds; requests != want {
		t.Errorf("the table was held with %d requests, want %d", requests, want)
	}
	if s := r.table.OnDemand(r.now); s.Cells != ways || s.Overflow != 1 {
		t.Errorf("unexpected state: got %+v, want every place held", s)
	}
	r.wait(time.Second / rate)
	r.wantPasses("late", 20, 10)
	if _, ok := r.table.Tenant(r.now, "late"); !ok {
		t.Errorf("no cell for a newcomer once a bucket was full")
	}
}

// A set without room is looked at again when a bucket may be full, and after lookAgain when a request may have ended.
func TestFullSetIsLookedAtAgain(t *testing.T) {
	documents := `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 1, per: 1s}]}`
	f := func(owes, wait time.Duration, want bool) {
		t.Helper()
		r := newRigOf(t, Options{AnyTenants: ways}, documents)
		r.wait(time.Second)
		m, v := r.open("resident-0", "/") // in flight, and owes nothing later
		r.wait(time.Second)
		for i := 1; i < ways; i++ {
			r.open("resident-"+strconv.Itoa(i), "/")
		}
		if owes > 0 { // nor is it in flight
			r.settle(m, v)
			r.try("resident-0", "/")
			r.wait(time.Second - owes)
		}
		r.try("late", "/")
		if owes == 0 {
			r.settle(m, v)
		}
		r.wait(wait)
		r.try("late", "/")
		if _, got := r.table.Tenant(r.now, "late"); got != want {
			t.Errorf("owing %v: a place for a newcomer after %v: got %v, want %v", owes, wait, got, want)
		}
	}

	// A bucket that is full soon.
	f(20*time.Millisecond, 20*time.Millisecond-1, false)
	f(20*time.Millisecond, 20*time.Millisecond, true)
	// Or late.
	f(time.Second/2, time.Second/2-1, false)
	f(time.Second/2, time.Second/2, true)
	// A request that ends.
	f(0, time.Duration(lookAgain)-1, false)
	f(0, time.Duration(lookAgain), true)
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

// The same while time goes on and buckets are full again, so that cells are given away all the time: together they pass no more
// than what one bucket each and one for the overflow hold and refill.
func TestEvictionRaceInTime(t *testing.T) {
	const (
		workers  = 4
		names    = 60
		step     = time.Microsecond
		requests = 400_000
	)
	r := newRigOf(t, Options{AnyTenants: ways}, `TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: 1000, burst: 1}]}`)
	var clock, passed atomic.Int64
	var wg sync.WaitGroup
	for w := range uint64(workers) {
		wg.Go(func() {
			random, one := rand.New(rand.NewPCG(5, w)), newSomeone()
			for {
				now := clock.Add(int64(step))
				if now > requests*int64(step) {
					return
				}
				one.header.value = strconv.AppendUint(one.header.value[:0], random.Uint64N(names), 10)
				m := r.table.Match(now, &one.Request)
				if now%7 == 0 {
					runtime.Gosched()
				}
				v := r.table.Decide(now, &m)
				if v.Reason == Passed {
					passed.Add(1)
				}
				r.table.Settle(&m, &v, Outcome{Reason: v.Reason})
			}
		})
	}
	wg.Wait()
	milliseconds := int64(requests * step / time.Millisecond)
	if most := (ways + 1) * (1 + milliseconds); passed.Load() > most || passed.Load() < most/2 {
		t.Errorf("%d requests passed in %d ms, want at most %d and nearly as many", passed.Load(), milliseconds, most)
	}
}
