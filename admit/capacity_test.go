package admit

import (
	"testing"
	"time"
)

// What is found about a backend's capacity is kept as long as its policy wants it found.
func TestAdaptiveCapacity(t *testing.T) {
	backend := func(capacity string) string {
		return "Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: " + capacity + "}\nTenantPolicy p {tenants: {any: true}}"
	}
	r := newRig(t, backend("{adaptive: true, queue: 5}"))
	limit := func() int64 { return r.table.backends[0].terms.Load().limit() }
	want := func(least, most int64) {
		t.Helper()
		if got := limit(); got < least || got > most {
			t.Errorf("unexpected limit: got %d, want %d to %d", got, least, most)
		}
	}
	want(10, 10)
	var all []visit
	for range 10 {
		all = append(all, r.visit("a"))
		all[len(all)-1].is(Passed)
	}
	more := r.visit("a")
	more.waits()
	more.settle()

	// A backend that takes as long however much it has is given more.
	for range 2000 {
		first := all[0]
		all = append(all[:0], all[1:]...)
		r.wait(time.Millisecond)
		r.table.Settle(first.m, first.v, Outcome{Now: r.now, Latency: 10 * time.Millisecond})
		for int64(len(all)) < limit() {
			all = append(all, r.visit("a"))
			all[len(all)-1].is(Passed)
		}
	}
	want(20, 1000)
	found := limit()
	r.swap(backend("{adaptive: true, queue: 7}"))
	want(found, found)
	r.swap(backend("{adaptive: true, concurrency: 8}"))
	want(1, 8)
	r.swap(backend("{concurrency: 5}"))
	want(5, 5)
	r.swap(backend("{adaptive: true}"))
	want(10, 10)
}

// The capacity of a backend that nobody has written down is found, under the load of one tenant who sends 20 times as much, and the
// other one does not suffer.
func TestOverloadOfAnUnknownCapacity(t *testing.T) {
	w := newWorld(t, 4, `
Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {adaptive: true, queue: 100, queueTimeout: 100ms}}
TenantPolicy all {tenants: {any: true}}`)
	const workers, service = 20, 10 * time.Millisecond
	w.service = w.workers(workers, w.exponential(service))
	w.send("a", w.exponential(service/workers/20))
	w.send("b", w.exponential(service/workers*10))
	w.run(5*time.Second, 10*time.Second)
	a, b := w.senders["a"], w.senders["b"]
	if got := w.table.backends[0].terms.Load().limit(); got < workers*8/10 || got > workers*2 {
		t.Errorf("unexpected limit: got %d, want about %d", got, workers)
	}
	if used := float64(len(a.served)+len(b.served)) * float64(service) / float64(workers*10*time.Second); used < 0.9 {
		t.Errorf("unexpected utilisation: got %.3f, want at least 0.9", used)
	}
	if b.refusals() > 0 {
		t.Errorf("unexpected refusals of b: got %v, want none", b.refused)
	}
}

// Turns that come at once are spread, for a small part of the time; turns that are apart are left alone.
func TestPacer(t *testing.T) {
	const places, service, rounds = 10, int64(10 * time.Millisecond), 1000
	f := func(what string, begins []int64, wantGap, wantCost int64) {
		t.Helper()
		var p pacer
		free := append([]int64(nil), begins...) // when each place is free
		waited := int64(0)
		for range rounds * places {
			next := 0
			for i := range free {
				if free[i] < free[next] {
					next = i
				}
			}
			at := p.turn(free[next], places, true)
			waited += at - free[next]
			free[next] = at + service
		}
		gap := int64(0)
		for range places {
			next, then := 0, int64(1<<62)
			for i := range free {
				if free[i] < free[next] {
					next = i
				}
			}
			for i := range free {
				if i != next {
					then = min(then, free[i])
				}
			}
			gap = max(gap, then-free[next])
			free[next] += service
		}
		if gap > wantGap {
			t.Errorf("%s: unexpected longest time between two turns: got %v, want at most %v", what, time.Duration(gap), time.Duration(wantGap))
		}
		if most := min(wantCost, rounds*places*service/paceCost); waited > most {
			t.Errorf("%s: unexpected time that places waited: got %v, want at most %v", what, time.Duration(waited), time.Duration(most))
		}
	}
	spread := make([]int64, places)
	for i := range spread {
		spread[i] = int64(i) * service / places
	}

	// All at once: the first spreading costs half a service time for each place, and the rest nothing.
	f("at once", make([]int64, places), service/2, places*service/2)
	// Evenly spread from the beginning.
	f("spread", spread, service/places, 0)
}

// BenchmarkOverload is a decision on a request of which 20 times as many come as the backend can take, the end of those that are served
// included.
func BenchmarkOverload(b *testing.B) {
	r := newRig(b, overloaded)
	var reqs []*Request
	for _, tenant := range []string{"a", "b", "c"} {
		req := requestOf("", "/")
		req.Header = &byteField{"X-Tenant-ID", []byte(tenant)}
		reqs = append(reqs, req)
	}
	type request struct {
		m Match
		v Verdict
	}
	var serving, waiting []*request
	spare := make([]*request, 0, 256)
	for range cap(spare) {
		spare = append(spare, new(request))
	}
	refused, i := 0, 0
	step := func() {
		i++
		r.now += int64(50 * time.Microsecond)
		q := spare[len(spare)-1]
		spare = spare[:len(spare)-1]
		q.m = r.table.Match(r.now, reqs[i%len(reqs)])
		q.v = r.table.Decide(r.now, &q.m)
		waiting = append(waiting, q)
		if i%20 == 0 && len(serving) > 0 {
			r.settle(&serving[0].m, &serving[0].v)
			spare = append(spare, serving[0])
			serving = append(serving[:0], serving[1:]...)
		}
		kept := waiting[:0]
		for _, q := range waiting {
			if q.v.Waits() && (len(q.v.Ready()) > 0 || r.now >= q.v.Until()) {
				r.table.Resume(r.now, &q.m, &q.v)
			}
			switch {
			case q.v.Waits():
				kept = append(kept, q)
			case q.v.Reason == Passed:
				serving = append(serving, q)
			default:
				refused++
				r.settle(&q.m, &q.v)
				spare = append(spare, q)
			}
		}
		waiting = kept
	}
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
	b.ReportMetric(float64(refused)/float64(b.N), "refused/op")
}
