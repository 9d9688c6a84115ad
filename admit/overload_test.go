package admit

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is a table with a backend behind it, in virtual time: senders send, the backend serves as many at once as it has places,
// and whoever waits resumes when there is news or its time is over.
type world struct {
	*rig
	random  *rand.Rand
	service func() time.Duration
	senders map[string]*sender
	events  events
	waiting []*guest
	seq     int

	from    int64 // when counting begins
	serving int64
	since   int64 // of serving
	busy    int64 // place-nanoseconds since from
	most    int64 // served at once
}

// sender is one tenant's load and what became of it.
type sender struct {
	tenant  string
	gap     func() time.Duration
	served  []time.Duration // from arrival to answer
	refused map[Reason]int
}

// guest is one request.
type guest struct {
	sender  *sender
	arrived int64
	match   *Match
	verdict *Verdict
}

type event struct {
	at  int64
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newWorld(t testing.TB, seed uint64, documents string) *world {
	t.Helper()
	w := &world{rig: newRig(t, documents), random: rand.New(rand.NewPCG(seed, 3)), senders: map[string]*sender{}}
	w.from, w.since = w.now, w.now
	return w
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, event{w.now + int64(d), w.seq, do})
}

// exponential draws times that know nothing of those before.
func (w *world) exponential(mean time.Duration) func() time.Duration {
	return func() time.Duration { return time.Duration(w.random.ExpFloat64() * float64(mean)) }
}

func fixed(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// workers are a backend that works on so many requests at once, and has the others wait inside.
func (w *world) workers(n int, service func() time.Duration) func() time.Duration {
	free := make([]int64, n)
	return func() time.Duration {
		first := 0
		for i := range free {
			if free[i] < free[first] {
				first = i
			}
		}
		free[first] = max(free[first], w.now) + int64(service())
		return time.Duration(free[first] - w.now)
	}
}

// send begins a sender's load.
func (w *world) send(tenant string, gap func() time.Duration) {
	c := &sender{tenant: tenant, gap: gap, refused: map[Reason]int{}}
	w.senders[tenant] = c
	var next func()
	next = func() {
		w.arrive(c)
		w.after(c.gap(), next)
	}
	w.after(c.gap(), next)
}

func (w *world) arrive(c *sender) {
	g := &guest{sender: c, arrived: w.now}
	g.match, g.verdict = w.open(c.tenant, "/")
	w.decided(g)
}

// decided goes on with a request whose verdict has changed.
func (w *world) decided(g *guest) {
	if g.verdict.Waits() {
		w.waiting = append(w.waiting, g)
		w.after(time.Duration(g.verdict.Until()-w.now), func() {
			if i := slices.Index(w.waiting, g); i >= 0 {
				w.resume(i)
			}
		})
		return
	}
	if g.verdict.Reason != Passed {
		if w.counting() {
			g.sender.refused[g.verdict.Reason]++
		}
		w.settle(g.match, g.verdict)
		return
	}
	w.serve(1)
	takes := w.service()
	w.after(takes, func() {
		w.serve(-1)
		if w.counting() {
			g.sender.served = append(g.sender.served, time.Duration(w.now-g.arrived))
		}
		w.table.Settle(g.match, g.verdict, Outcome{Status: 200, Now: w.now, Latency: takes})
	})
}

func (w *world) counting() bool { return w.now >= w.from }

func (w *world) serve(n int64) {
	if w.now > w.from {
		w.busy += w.serving * (w.now - max(w.since, w.from))
	}
	w.serving, w.since = w.serving+n, w.now
	w.most = max(w.most, w.serving)
}

func (w *world) resume(i int) {
	g := w.waiting[i]
	w.waiting = slices.Delete(w.waiting, i, i+1)
	w.table.Resume(w.now, g.match, g.verdict)
	w.decided(g)
}

// run lets time pass. What happens in the first part of it is not counted.
func (w *world) run(unseen, seen time.Duration) {
	w.from = w.now + int64(unseen)
	end := w.from + int64(seen)
	for len(w.events) > 0 && w.events[0].at <= end {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
		for i := 0; i < len(w.waiting); i++ {
			select {
			case <-w.waiting[i].verdict.Ready():
				w.resume(i)
				i = -1
			default:
			}
		}
	}
	w.now = end
	w.serve(0)
}

// utilisation is the part of the backend's places that was taken.
func (w *world) utilisation(places int64) float64 {
	return float64(w.busy) / float64(places*(w.now-w.from))
}

func (c *sender) percentile(p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(c.served))
	return sorted[int(float64(len(sorted)-1)*p)]
}

func (c *sender) refusals() (n int) {
	for _, of := range c.refused {
		n += of
	}
	return n
}

const overloaded = `
Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {concurrency: 10, queue: 100, queueTimeout: 100ms}}
TenantPolicy all {tenants: {any: true}}`

// Tenant a offers 20 times what the backend can do, tenant b a tenth of it, on demand both. What b sees hardly changes, and the
// backend is busy.
func TestOverloadOfOneTenant(t *testing.T) {
	const places, service = 10, 10 * time.Millisecond
	f := func(what string, times func(*world) func() time.Duration) {
		t.Helper()
		run := func(loads ...string) *world {
			w := newWorld(t, 1, overloaded)
			w.service = times(w)
			for _, tenant := range loads {
				w.send(tenant, w.exponential(map[string]time.Duration{"a": service / places / 20, "b": service}[tenant]))
			}
			w.run(time.Second, 10*time.Second)
			return w
		}
		alone, both := run("b"), run("b", "a")
		a, b := both.senders["a"], both.senders["b"]
		ratio := float64(b.percentile(0.99)) / float64(alone.senders["b"].percentile(0.99))
		t.Logf("%s: p99 of b %v, alone %v (%.2f times); utilisation %.3f; refused: %d of a, %d of b; served: %d of a, %d of b",
			what, b.percentile(0.99), alone.senders["b"].percentile(0.99), ratio, both.utilisation(places),
			a.refusals(), b.refusals(), len(a.served), len(b.served))
		if ratio > 1.5 {
			t.Errorf("%s: unexpected p99 of b: got %.2f times what it is alone, want at most 1.5", what, ratio)
		}
		if b.refusals() > 0 || a.refused[Overload] == 0 {
			t.Errorf("%s: unexpected refusals: got %v of a, %v of b; want some of a, none of b", what, a.refused, b.refused)
		}
		if u := both.utilisation(places); u < 0.95 {
			t.Errorf("%s: unexpected utilisation: got %.3f, want at least 0.95", what, u)
		}
		if both.most != places {
			t.Errorf("%s: unexpected requests served at once: got %d, want %d", what, both.most, places)
		}
	}

	// Each takes as long as the others: they end together, unless they are kept apart.
	f("fixed", func(*world) func() time.Duration { return fixed(service) })
	f("jitter", func(w *world) func() time.Duration {
		return func() time.Duration { return time.Duration((0.95 + 0.1*w.random.Float64()) * float64(service)) }
	})
	f("exponential", func(w *world) func() time.Duration { return w.exponential(service) })
}

// Tenants that all offer more than there is share it by their weights.
func TestOverloadIsSharedByWeight(t *testing.T) {
	w := newWorld(t, 2, `
Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {concurrency: 10, queue: 100, queueTimeout: 100ms}}
TenantPolicy all {tenants: {any: true}}
TenantPolicy gold {tenants: {names: [gold]}, weight: 4}`)
	w.service = w.exponential(10 * time.Millisecond)
	w.send("gold", w.exponential(500*time.Microsecond))
	w.send("other", w.exponential(500*time.Microsecond))
	w.run(time.Second, 20*time.Second)
	ratio := float64(len(w.senders["gold"].served)) / float64(len(w.senders["other"].served))
	if ratio < 4*0.97 || ratio > 4*1.03 {
		t.Errorf("unexpected shares: got %.3f to 1, want 4 to 1", ratio)
	}
	if u := w.utilisation(10); u < 0.95 {
		t.Errorf("unexpected utilisation: got %.3f, want at least 0.95", u)
	}
}

// Below its capacity a backend refuses nobody, and nobody is kept waiting who could go.
func TestNoOverload(t *testing.T) {
	w := newWorld(t, 3, overloaded)
	w.service = fixed(10 * time.Millisecond)
	w.send("a", fixed(1100*time.Microsecond))
	w.run(0, 10*time.Second)
	a := w.senders["a"]
	if a.refusals() > 0 || a.percentile(1) > 10*time.Millisecond {
		t.Errorf("unexpected refusals or waits: got %v refused, and the longest took %v; want none, and 10ms", a.refused, a.percentile(1))
	}
}

// A backend whose capacity is found becomes half as fast under twice the load it can take, again and again. It goes on answering
// nearly as much as it still can, from the first moment, and all of it soon after, and nobody has to do anything.
func TestBrownOut(t *testing.T) {
	const workers, service, length = 20, 10 * time.Millisecond, 5 * time.Second
	w := newWorld(t, 4, `
Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {adaptive: true, queue: 200, queueTimeout: 200ms}}
TenantPolicy all {tenants: {any: true}}`)
	slow := time.Duration(1)
	w.service = w.workers(workers, func() time.Duration {
		return time.Duration((0.9+0.2*w.random.Float64())*float64(service)) * slow
	})
	w.send("heavy", w.exponential(service/workers/2))
	w.send("light", w.exponential(service))
	served := func(unseen, seen time.Duration) float64 {
		heavy, light := w.senders["heavy"], w.senders["light"]
		heavy.served, light.served = nil, nil
		w.run(unseen, seen)
		return float64(len(heavy.served)+len(light.served)) * float64(service*slow) / workers / float64(seen)
	}
	served(length, 0) // it is found
	for round := range 3 {
		slow = 2
		brown := served(0, length)
		slow = 1
		after := served(2*time.Second, length)
		t.Logf("round %d: %.3f of half the speed, %.3f of the whole two seconds later", round, brown, after)
		if brown < 0.9 {
			t.Errorf("round %d: unexpected goodput at half the speed: got %.3f of it, want at least 0.9", round, brown)
		}
		if after < 0.95 {
			t.Errorf("round %d: unexpected goodput afterwards: got %.3f, want at least 0.95", round, after)
		}
		if light := w.senders["light"]; light.refusals() > 0 {
			t.Errorf("round %d: unexpected refusals of the light one: %v", round, light.refused)
		}
	}
}
