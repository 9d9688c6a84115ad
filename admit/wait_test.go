package admit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// news says whether there is any for a request that waits.
func news(v *Verdict) bool {
	select {
	case <-v.Ready():
		return true
	default:
		return false
	}
}

// visit is a request that is not settled yet.
type visit struct {
	*rig
	m *Match
	v *Verdict
}

func (r *rig) visit(tenant string) visit {
	m, v := r.open(tenant, "/")
	return visit{r, m, v}
}

func (q visit) settle() { q.rig.settle(q.m, q.v) }

// resume goes on with a request for which there is news.
func (q visit) resume() {
	q.Helper()
	if !q.v.Waits() || !news(q.v) {
		q.Fatalf("unexpected state: waits %v, want news for one that waits", q.v.Waits())
	}
	q.table.Resume(q.now, q.m, q.v)
}

func (q visit) waits() {
	q.Helper()
	if !q.v.Waits() || news(q.v) || q.v.Reason != Passed {
		q.Errorf("unexpected verdict: waits %v for %v, want one that waits without news", q.v.Waits(), q.v.Reason)
	}
}

func (q visit) is(want Reason) {
	q.Helper()
	if q.v.Waits() || q.v.Reason != want {
		q.Errorf("unexpected verdict: got %v, waits %v; want %v", q.v.Reason, q.v.Waits(), want)
	}
}

const queued = `
TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 1h}], concurrency: {max: 1, queue: 2, queueTimeout: 50ms}}`

func TestWaitAtTheGate(t *testing.T) {
	r := newRig(t, queued)
	first, second, third, fourth := r.visit("acme"), r.visit("acme"), r.visit("acme"), r.visit("acme")
	first.is(Passed)
	second.waits()
	third.waits()
	// There is no room for one more.
	fourth.is(Concurrency)
	fourth.settle()
	r.wantAvailable("acme", "steady", 9) // who waits has spent nothing
	if s, _ := r.table.Tenant(r.now, "acme"); s.Waiting != 2 || s.InFlight != 1 {
		t.Errorf("unexpected state: got %d in flight, %d waiting; want 1 and 2", s.InFlight, s.Waiting)
	}

	// First come, first served.
	first.settle()
	third.waits()
	second.resume()
	second.is(Passed)
	r.wantAvailable("acme", "steady", 8)

	// Time passes: the deadline is the end.
	if third.v.Until() != r.now+int64(50*time.Millisecond) {
		t.Errorf("unexpected end of the wait: got %d, want %d", third.v.Until(), r.now+int64(50*time.Millisecond))
	}
	r.wait(50*time.Millisecond - 1)
	r.table.Resume(r.now, third.m, third.v)
	third.waits()
	r.wait(1)
	r.table.Resume(r.now, third.m, third.v)
	third.is(Concurrency)
	third.settle()
	second.settle()
	if s, _ := r.table.Tenant(r.now, "acme"); s.Waiting != 0 || s.InFlight != 0 {
		t.Errorf("unexpected state: got %d in flight, %d waiting; want none", s.InFlight, s.Waiting)
	}
	r.wantPasses("acme", 10, 8)
}

// A request whose time is over is told so as soon as anybody looks at the queue, and never gets a place.
func TestWaitEndsBeforeThePlace(t *testing.T) {
	r := newRig(t, queued)
	first, second := r.visit("acme"), r.visit("acme")
	r.wait(time.Second)
	first.settle()
	second.resume()
	second.is(Concurrency)
	second.settle()
	r.want("acme", "/", Passed, "")
}

// Nobody waits who a bucket would refuse now; and who was let in finds the bucket as it is by then.
func TestWaitAndBuckets(t *testing.T) {
	r := newRig(t, queued)
	r.wantPasses("acme", 8, 8)
	first, second, third := r.visit("acme"), r.visit("acme"), r.visit("acme") // one token is left for two
	first.is(Passed)
	second.waits()
	third.waits()
	first.settle()
	second.resume()
	second.is(Passed)
	fourth := r.visit("acme")
	fourth.is(Limited)
	if fourth.v.Limit == nil || fourth.v.RetryAfter <= 0 {
		t.Errorf("unexpected verdict: got limit %v, retry after %v; want the limit and its wait", fourth.v.Limit, fourth.v.RetryAfter)
	}
	fourth.settle()
	second.settle()
	third.resume()
	third.is(Limited)
	third.settle()
	if n := r.table.named["acme"].seat.gate.InFlight(); n != 0 {
		t.Errorf("unexpected requests in flight: got %d, want 0", n)
	}
}

const crowded = `
Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {concurrency: 1, queue: 2, queueTimeout: 50ms}}
TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 1h}]}
TenantPolicy all {tenants: {any: true}}`

func TestWaitForTheBackend(t *testing.T) {
	r := newRig(t, crowded)
	first, second := r.visit("other"), r.visit("acme")
	first.is(Passed)
	second.waits()
	if !second.v.AtBackend() {
		t.Error("unexpected place of the wait: got the gate, want the backend")
	}
	r.wantAvailable("acme", "steady", 9)

	// Too late: what was spent is refunded.
	r.wait(50 * time.Millisecond)
	r.table.Resume(r.now, second.m, second.v)
	second.is(Overload)
	second.settle()
	r.wantAvailable("acme", "steady", 10)

	// Pushed out by a lighter tenant.
	second, third := r.visit("acme"), r.visit("acme")
	fourth := r.visit("third")
	fourth.waits()
	second.resume()
	second.is(Overload)
	r.wantAvailable("acme", "steady", 9)
	// No room, and nobody heavier.
	fifth := r.visit("acme")
	fifth.is(Overload)
	r.wantAvailable("acme", "steady", 9)

	// The place goes on as it is left.
	first.settle()
	third.resume()
	third.is(Passed)
	fourth.waits()
	third.settle()
	fourth.resume()
	fourth.is(Passed)
	for _, q := range []visit{second, fourth, fifth} {
		q.settle()
	}
	c := r.table.backends[0]
	if c.gate.InFlight() != 0 || c.waiting.Load() != 0 {
		t.Errorf("unexpected state: got %d in flight, %d waiting; want none", c.gate.InFlight(), c.waiting.Load())
	}
	for cause, want := range map[drop]uint64{dropTimeout: 1, dropFull: 2, dropGone: 0} {
		if got := c.dropped[cause].Load(); got != want {
			t.Errorf("unexpected count of %v: got %d, want %d", cause, got, want)
		}
	}
}

func TestOverloadWithoutAQueue(t *testing.T) {
	r := newRig(t, `
Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {concurrency: 1}}
TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 1h}, {name: dark, requests: 10, per: 1h, mode: Shadow}], concurrency: {max: 5}}`)
	first, second := r.visit("acme"), r.visit("acme")
	first.is(Passed)
	second.is(Overload)
	r.wantAvailable("acme", "steady", 9)
	r.wantAvailable("acme", "dark", 9) // it was not shown what did not pass
	if n := r.table.named["acme"].seat.gate.InFlight(); n != 1 {
		t.Errorf("unexpected requests behind the gate: got %d, want 1", n)
	}
	second.settle()
	first.settle()
	r.want("acme", "/", Passed, "")
}

// Who ends while it waits gives up its turn, and a place that it was called to goes to the next.
func TestSettleWhileWaiting(t *testing.T) {
	f := func(documents string) {
		t.Helper()
		r := newRig(t, documents)
		first, second, third := r.visit("acme"), r.visit("acme"), r.visit("acme")
		third.waits()
		second.settle()
		third.waits()
		fourth := r.visit("acme")
		fourth.waits() // the room is free again
		first.settle() // calls the third, which leaves before it knows
		third.settle()
		fourth.resume()
		fourth.is(Passed)
		fourth.settle()
		r.want("acme", "/", Passed, "")
	}

	f(queued)
	f(crowded)
}

// Behind the gate there may be another queue.
func TestWaitTwice(t *testing.T) {
	r := newRig(t, `
Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {concurrency: 1, queue: 2, queueTimeout: 50ms}}
TenantPolicy p {tenants: {names: [acme]}, concurrency: {max: 1, queue: 2, queueTimeout: 50ms}}
TenantPolicy all {tenants: {any: true}}`)
	other, first, second := r.visit("other"), r.visit("acme"), r.visit("acme")
	other.is(Passed)
	first.waits()
	second.waits()
	if !first.v.AtBackend() || second.v.AtBackend() {
		t.Error("unexpected places of the waits, want the backend for the first and the gate for the second")
	}
	r.wait(10 * time.Millisecond)
	first.settle() // its client left
	second.resume()
	second.waits()
	if !second.v.AtBackend() || second.v.Until() != r.now+int64(50*time.Millisecond) {
		t.Errorf("unexpected wait until %d, want %d at the backend", second.v.Until(), r.now+int64(50*time.Millisecond))
	}
	other.settle()
	second.resume()
	second.is(Passed)
	second.settle()
}

// Changed numbers hold at once, also for those who wait; and a request leaves the cell that it entered.
func TestQueuesAcrossSwaps(t *testing.T) {
	f := func(before, after string) {
		t.Helper()
		r := newRig(t, before)
		first, second, third := r.visit("acme"), r.visit("acme"), r.visit("acme")
		old := r.table
		r.swap(after)
		second.rig = &rig{TB: t, table: old, now: r.now}
		second.resume()
		second.is(Passed)
		third.waits()
		fourth := r.visit("acme") // of the new table, behind one of the old
		fourth.waits()
		first.settle()
		third.resume()
		third.is(Passed)
		second.settle()
		fourth.resume()
		fourth.is(Passed)
		third.settle()
		fourth.settle()
		if s, _ := r.table.Tenant(r.now, "acme"); s.InFlight != 0 || s.Waiting != 0 || r.table.backends[0].gate.InFlight() != 0 {
			t.Errorf("unexpected state: got %+v and %d at the backend, want nothing in flight", s, r.table.backends[0].gate.InFlight())
		}
	}
	gate := func(numbers string) string {
		return `TenantPolicy p {tenants: {names: [acme]}, concurrency: ` + numbers + `}`
	}
	onDemand := func(numbers string) string {
		return `TenantPolicy p {tenants: {any: true}, concurrency: ` + numbers + `}`
	}
	backend := func(numbers string) string {
		return `Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: ` + numbers + `}
			TenantPolicy p {tenants: {any: true}}`
	}

	f(gate("{max: 1, queue: 2}"), gate("{max: 2, queue: 2}"))
	f(backend("{concurrency: 1, queue: 2}"), backend("{concurrency: 2, queue: 2}"))

	// Nobody waits for a bound that is no more.
	r := newRig(t, backend("{concurrency: 1, queue: 2}"))
	first, second := r.visit("acme"), r.visit("acme")
	r.swap(backend("{concurrency: 0}"))
	second.resume()
	second.is(Passed)
	first.settle()
	second.settle()

	// A tenant on demand comes along at its next request.
	r = newRig(t, onDemand("{max: 1, queue: 2}"))
	first, second = r.visit("acme"), r.visit("acme")
	r.swap(onDemand("{max: 3, queue: 2}"))
	third := r.visit("acme")
	third.is(Passed)
	second.resume()
	second.is(Passed)
	for _, q := range []visit{first, second, third} {
		q.settle()
	}
}

// Queues, clients that leave and changes of policy, all at once: every place is given back, none is given twice, and nobody waits
// for ever.
func TestQueuesRace(t *testing.T) {
	// Few tenants that wait for one another, and so many that their cells are taken away and made anew.
	t.Run("few", func(t *testing.T) { raceForPlaces(t, Options{}, 3) })
	t.Run("many", func(t *testing.T) { raceForPlaces(t, Options{AnyTenants: ways}, 3*ways) })
}

func raceForPlaces(t *testing.T, o Options, tenants int) {
	documents := []string{`
Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {concurrency: 4, queue: 8, queueTimeout: 10s}}
TenantPolicy p {tenants: {any: true}, concurrency: {max: 3, queue: 4, queueTimeout: 10s}}`, `
Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {concurrency: 3, queue: 6, queueTimeout: 10s}}
TenantPolicy p {tenants: {any: true}, weight: 3, concurrency: {max: 2, queue: 4, queueTimeout: 10s}}`}
	r := newRigOf(t, o, documents[0])
	start := time.Now()
	now := func() int64 { return int64(time.Hour) + int64(time.Since(start)) }
	var live atomic.Pointer[Table]
	live.Store(r.table)
	var inside, refused, passed atomic.Int64
	var clients, swaps sync.WaitGroup
	stop := make(chan struct{})
	swaps.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next, err := Build(live.Load(), snapshotOf(t, documents[i%2]), now(), r.options)
			if err != nil {
				t.Errorf("unexpected error: %v", err)
				return
			}
			live.Store(next)
			next.Adopt(now())
		}
	})
	for i := range 16 {
		clients.Go(func() {
			for k := range 500 {
				req := requestOf(fmt.Sprint("tenant-", (i*7+k*tenants/16)%tenants), "/")
				table := live.Load()
				m := table.Match(now(), req)
				v := table.Decide(now(), &m)
				for left := false; v.Waits() && !left; {
					if (i+k)%7 == 0 {
						left = true
						continue
					}
					select {
					case <-v.Ready():
					case <-time.After(time.Duration(v.Until() - now())):
					}
					table.Resume(now(), &m, &v)
				}
				switch {
				case v.Waits():
				case v.Reason == Passed:
					if n := inside.Add(1); n > 4 {
						t.Errorf("unexpected requests at the backend: got %d, want at most 4", n)
					}
					passed.Add(1)
					inside.Add(-1)
				default:
					refused.Add(1)
				}
				table.Settle(&m, &v, Outcome{Reason: v.Reason, Now: now()})
			}
		})
	}
	clients.Wait()
	close(stop)
	swaps.Wait()
	if passed.Load() == 0 {
		t.Error("no request passed")
	}
	c := live.Load().backends[0]
	if c.gate.InFlight() != 0 || c.waiting.Load() != 0 || c.line.queue.Len() != 0 {
		t.Errorf("unexpected state of the backend: got %d in flight, %d waiting, %d in the queue; want none",
			c.gate.InFlight(), c.waiting.Load(), c.line.queue.Len())
	}
	table := live.Load()
	table.demand.each(table, func(tn *Tenant) {
		if s := table.states(tn, now()); s.InFlight != 0 || s.Waiting != 0 {
			t.Errorf("unexpected state of %q: got %d in flight, %d waiting; want none", tn.name, s.InFlight, s.Waiting)
		}
	})
}
