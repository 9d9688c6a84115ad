package limit

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// within is how long a simulated limit may take to find the knee.
const within = 4 * time.Second

// answersEnough returns a service time at which so many workers give some thousand answers a second, where latencies scatter.
func answersEnough(workers int) time.Duration {
	return time.Duration(max(2, workers/5)) * time.Millisecond
}

// TestAdaptiveFindsTheKnee starts anywhere and asks for all that a backend can do without queueing. Four runs are averaged, since
// a few hundred latencies that scatter are sometimes misread.
func TestAdaptiveFindsTheKnee(t *testing.T) {
	f := func(workers int, s service, start int64, shared bool, most float64) {
		t.Helper()
		const runs = 4
		var limit, utilisation, mean, p99 float64
		for seed := range uint64(runs) {
			sim := newSimulation(seed, start, workers, s)
			sim.shared = shared
			sim.run(within)
			r := sim.run(3 * time.Second)
			limit += r.meanLimit() / float64(workers) / runs
			utilisation += r.utilisation() / runs
			mean += r.mean() / runs
			p99 += r.quantile(0.99) / runs
		}
		if limit < 0.9 || limit > most {
			t.Errorf("%d workers, from %d: the limit is %.2f of the knee, want 0.9 to %g", workers, start, limit, most)
		}
		if utilisation < 0.95 {
			t.Errorf("%d workers, from %d: utilisation %.3f, want at least 0.95", workers, start, utilisation)
		}
		alone, alone99 := s.unloaded()
		if got := mean / alone; got > most+0.15 {
			t.Errorf("%d workers, from %d: the mean latency is %.2f of that without load, want at most %g", workers, start, got, most+0.15)
		}
		// With few workers of equal speed, one request too many waits for a good part of what the others take.
		if got := p99 / alone99; got > most+0.15 && workers >= 10 {
			t.Errorf("%d workers, from %d: the 99th percentile is %.2f of that without load, want at most %g", workers, start, got, most+0.15)
		}
	}
	const fifo, shared = false, true
	for _, workers := range []int{2, 5, 10, 20} {
		short := answersEnough(workers)
		for _, start := range []int64{1, 10, 5 * int64(workers)} {
			f(workers, fixed(10*time.Millisecond), start, fifo, 1.35)
			f(workers, fixed(10*time.Millisecond), start, shared, 1.35)
			// The wider latencies scatter, the more answers it takes.
			f(workers, exponential(short), start, fifo, 1.35)
			f(workers, bimodal(short), start, fifo, 1.35)
		}
	}
	f(200, fixed(10*time.Millisecond), 1, fifo, 1.35)
	f(200, exponential(10*time.Millisecond), 1000, fifo, 1.35)
	// Shared out time and a wide scatter are the hardest to tell from a queue.
	f(20, exponential(answersEnough(20)), 10, shared, 2)
	f(20, bimodal(answersEnough(20)), 10, shared, 2)
}

// TestAdaptiveOverload offers more than a backend can do, by chance, and refuses what finds no place.
func TestAdaptiveOverload(t *testing.T) {
	f := func(s service, times float64) {
		t.Helper()
		const workers = 20
		sim := newSimulation(1, 10, workers, s)
		mean, _ := s.unloaded()
		sim.gap = mean / workers / times
		sim.run(within)
		r := sim.run(10 * time.Second)
		if got := r.meanLimit() / workers; got < 0.9 || got > 1.5 {
			t.Errorf("%g times the load: the limit is %.2f of the knee, want 0.9 to 1.5", times, got)
		}
		if got := r.utilisation(); got < 0.95 {
			t.Errorf("%g times the load: utilisation %.3f, want at least 0.95", times, got)
		}
		if got := r.mean() / mean; got > 1.5 {
			t.Errorf("%g times the load: the mean latency is %.2f of that without load, want at most 1.5", times, got)
		}
	}
	f(fixed(5*time.Millisecond), 20)
	f(fixed(5*time.Millisecond), 4)
	f(exponential(2*time.Millisecond), 20)
	f(exponential(2*time.Millisecond), 4)
}

// TestAdaptiveBrownOut halves what a backend can do, three times in one run, and asks how much of the other half is used
// from the first moment on, and how much of all two seconds after the end.
func TestAdaptiveBrownOut(t *testing.T) {
	f := func(workers int, s service, begin, end func(*simulation)) {
		t.Helper()
		sim := newSimulation(uint64(workers), 10, workers, s)
		sim.run(within)
		for i := range 3 {
			begin(sim)
			if got := sim.run(5 * time.Second).utilisation(); got < 0.9 {
				t.Errorf("%d workers: %.3f of what remained in brown-out %d was used, want at least 0.9", workers, got, i+1)
			}
			end(sim)
			sim.run(2 * time.Second)
			if got := sim.run(2 * time.Second).utilisation(); got < 0.9 {
				t.Errorf("%d workers: %.3f is used after brown-out %d, want at least 0.9", workers, got, i+1)
			}
		}
	}
	for _, workers := range []int{2, 10, 50} {
		short := answersEnough(workers)
		slower := func(sim *simulation) { sim.slowDown(2) }
		usual := func(sim *simulation) { sim.slowDown(1) }
		// Each worker takes twice as long: the limit was right and remains so.
		f(workers, fixed(10*time.Millisecond), slower, usual)
		f(workers, exponential(short), slower, usual)
		f(workers, bimodal(short), slower, usual)
		// Half of the workers go: it was twice too large.
		fewer := func(sim *simulation) { sim.workers = workers / 2 }
		all := func(sim *simulation) { sim.workers = workers }
		f(workers, fixed(10*time.Millisecond), fewer, all)
		f(workers, exponential(short), fewer, all)
		f(workers, bimodal(short), fewer, all)
	}
}

// TestAdaptiveFollowsWorkersThatGo sees that a queue is not kept for long when half of the workers have gone.
func TestAdaptiveFollowsWorkersThatGo(t *testing.T) {
	f := func(s service) {
		t.Helper()
		sim := newSimulation(3, 10, 40, s)
		sim.run(within)
		sim.workers = 20
		sim.run(2 * time.Second)
		mean, _ := s.unloaded()
		if got := sim.run(5*time.Second).mean() / mean; got > 1.5 {
			t.Errorf("the mean latency is %.2f of that without load, want at most 1.5", got)
		}
	}
	f(fixed(10 * time.Millisecond))
	f(exponential(2 * time.Millisecond))
	f(bimodal(2 * time.Millisecond))
}

// TestAdaptiveLowLoad sees that load that does not fill the limit does not move it, however long it lasts, and that what was
// learnt is there after a pause.
func TestAdaptiveLowLoad(t *testing.T) {
	sim := newSimulation(1, 10, 30, fixed(10*time.Millisecond))
	sim.run(within)
	sim.clients = 6
	sim.run(time.Second)
	before := sim.adaptive.Limit()
	for range 100 {
		sim.run(time.Second)
		if got := sim.adaptive.Limit(); got != before {
			t.Fatalf("the limit went from %d to %d under low load", before, got)
		}
	}
	sim.pause(time.Hour)
	sim.clients = 0
	r := sim.run(time.Second)
	if got := r.utilisation(); got < 0.95 {
		t.Errorf("utilisation %.3f after an hour's pause, want at least 0.95", got)
	}
	if got := r.meanLimit(); got < 0.9*30 || got > 1.35*30 {
		t.Errorf("the limit is %.1f after an hour's pause, want about 30", got)
	}
}

// TestAdaptiveStable gives answers of one latency, whatever the limit: no limit is too high, and only load raises it.
func TestAdaptiveStable(t *testing.T) {
	f := func(load, most, wantLow, wantHigh int64) {
		t.Helper()
		a := NewAdaptive(AdaptiveOptions{Most: most})
		for i := range int64(200_000) {
			a.Record(i*int64(time.Millisecond), 10*time.Millisecond, min(load, a.Limit()))
			if got := a.Limit(); i > 50_000 && (got < wantLow || got > wantHigh) {
				t.Fatalf("load %d, bound %d: the limit is %d after %d answers, want %d to %d", load, most, got, i, wantLow, wantHigh)
			}
		}
	}
	// It rises to the bound, and goes a fifth below now and then to see whether there is a queue.
	f(math.MaxInt64, 100, 80, 100)
	f(math.MaxInt64, 1, 1, 1)
	// It rises as far as there is load to fill it.
	f(50, 1000, 40, 80)
	f(1, 1000, 1, 10)
}

// TestAdaptiveDisturbed plays what may come in between, and sees that nothing comes of it.
func TestAdaptiveDisturbed(t *testing.T) {
	f := func(disturb func(now int64, a *Adaptive)) {
		t.Helper()
		sim := newSimulation(1, 10, 20, fixed(5*time.Millisecond))
		sim.run(within)
		for range 10 {
			disturb(sim.now, sim.adaptive)
			r := sim.run(500 * time.Millisecond)
			if got := r.utilisation(); got < 0.9 {
				t.Errorf("utilisation %.3f, want at least 0.9", got)
			}
			if got := r.meanLimit() / 20; got < 0.9 || got > 1.35 {
				t.Errorf("the limit is %.2f of the knee, want 0.9 to 1.35", got)
			}
		}
	}
	// A request that took for ever, and one that took no time.
	f(func(now int64, a *Adaptive) { a.Record(now, math.MaxInt64, a.Limit()) })
	f(func(now int64, a *Adaptive) { a.Record(now, 1, a.Limit()) })
	// What is not to be counted.
	f(func(now int64, a *Adaptive) {
		for range 1000 {
			a.Record(now, 0, a.Limit())
			a.Record(now, -time.Second, a.Limit())
			a.Record(now, time.Second, 0)
			a.Record(now, time.Second, -1)
		}
	})
	// A clock that goes back a little, and by an hour, and forth by one.
	f(func(now int64, a *Adaptive) { a.Record(now-int64(time.Millisecond), 5*time.Millisecond, a.Limit()) })
	f(func(now int64, a *Adaptive) { a.Record(now-int64(time.Hour), 5*time.Millisecond, a.Limit()) })
	f(func(now int64, a *Adaptive) { a.Record(now+int64(time.Hour), 5*time.Millisecond, a.Limit()) })
	f(func(_ int64, a *Adaptive) { a.Record(math.MaxInt64, 5*time.Millisecond, a.Limit()) })
	f(func(_ int64, a *Adaptive) { a.Record(math.MinInt64, 5*time.Millisecond, a.Limit()) })
	// A bound set anew.
	f(func(_ int64, a *Adaptive) { a.SetMost(0) })
}

// TestAdaptiveClock sees that a clock that jumped does not stop it from learning.
func TestAdaptiveClock(t *testing.T) {
	f := func(jump int64) {
		t.Helper()
		a := NewAdaptive(AdaptiveOptions{Most: 100})
		a.Record(jump, time.Millisecond, a.Limit())
		for i := range int64(20_000) {
			a.Record(i*int64(time.Millisecond), time.Millisecond, a.Limit())
		}
		if got := a.base; got != 100 {
			t.Errorf("after a reading of %v the limit rose to %d, want 100", time.Duration(jump), got)
		}
	}
	f(int64(time.Hour))
	f(-int64(time.Hour))
	f(math.MaxInt64)
	f(math.MinInt64)
}

func TestAdaptiveOptions(t *testing.T) {
	f := func(o AdaptiveOptions, wantStart, wantMost int64) {
		t.Helper()
		a := NewAdaptive(o)
		if got := a.Limit(); got != wantStart {
			t.Errorf("%+v: Limit = %d, want %d", o, got, wantStart)
		}
		for i := range int64(100_000) {
			a.Record(i*int64(time.Millisecond), time.Millisecond, a.Limit())
		}
		if got := a.base; got != wantMost {
			t.Errorf("%+v: the limit rose to %d, want %d", o, got, wantMost)
		}
	}
	f(AdaptiveOptions{}, 10, 1000)
	f(AdaptiveOptions{Most: -1, Start: -1}, 10, 1000)
	f(AdaptiveOptions{Most: 4}, 4, 4)
	f(AdaptiveOptions{Most: 40, Start: 50}, 40, 40)
	f(AdaptiveOptions{Start: 1}, 1, 1000)
	// A bound that falls holds at once, and one that rises makes room.
	a := NewAdaptive(AdaptiveOptions{Most: 50, Start: 50})
	a.SetMost(7)
	if got := a.Limit(); got != 7 {
		t.Errorf("Limit = %d under a bound of 7", got)
	}
	a.SetMost(20)
	for i := range int64(10_000) {
		a.Record(i*int64(time.Millisecond), time.Millisecond, a.Limit())
	}
	if got := a.base; got != 20 {
		t.Errorf("the limit rose to %d, want 20", got)
	}
}

// TestAdaptiveBounds records whatever comes.
func TestAdaptiveBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.Int64Range(1, 300).Draw(t, "most")
		a := NewAdaptive(AdaptiveOptions{Most: most, Start: rapid.Int64().Draw(t, "start")})
		now := rapid.Int64().Draw(t, "now")
		for range rapid.IntRange(1, 20).Draw(t, "stretches") {
			latency := rapid.Int64Range(-1, int64(time.Minute)).Draw(t, "latency")
			load := rapid.Int64Range(-1, 600).Draw(t, "load")
			apart := rapid.Int64Range(-int64(time.Second), int64(time.Minute)).Draw(t, "apart")
			for range rapid.IntRange(1, 3000).Draw(t, "answers") {
				now += apart
				a.Record(now, time.Duration(latency), min(load, a.Limit()))
				if got := a.Limit(); got < 1 || got > most {
					t.Fatalf("Limit = %d, want 1 to %d", got, most)
				}
			}
		}
	})
}

func FuzzAdaptive(f *testing.F) {
	f.Add(int64(10), int64(5), int64(1_000_000), int64(10_000_000), int64(10), uint64(1))
	f.Add(int64(1000), int64(0), int64(-1), int64(math.MaxInt64), int64(math.MaxInt64), uint64(2))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64), int64(1), int64(1), uint64(3))
	f.Fuzz(func(t *testing.T, most, start, apart, latency, inFlight int64, seed uint64) {
		a := NewAdaptive(AdaptiveOptions{Most: most, Start: start})
		random := rand.New(rand.NewPCG(seed, 1))
		if most <= 0 {
			most = 1000
		}
		var now int64
		for range 3000 {
			now += apart
			a.Record(now, time.Duration(latency>>random.IntN(8)), inFlight>>random.IntN(8))
			if got := a.Limit(); got < 1 || got > most {
				t.Fatalf("Limit = %d, want 1 to %d", got, most)
			}
			if m := a.rest.mean(); math.IsNaN(m) || math.IsNaN(a.level) || math.IsNaN(a.stride) {
				t.Fatalf("mean %v, level %v, stride %v", m, a.level, a.stride)
			}
		}
	})
}

func TestAdaptiveRace(t *testing.T) {
	a := NewAdaptive(AdaptiveOptions{Most: 100})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range int64(20_000) {
				a.Record(j*int64(time.Microsecond), time.Millisecond, a.Limit())
				if j%1000 == 0 {
					a.SetMost(100 - int64(i))
				}
				if got := a.Limit(); got < 1 || got > 100 {
					t.Errorf("Limit = %d, want 1 to 100", got)
				}
			}
		})
	}
	all.Wait()
}

func TestAdaptiveDoesNotAllocate(t *testing.T) {
	a, now := NewAdaptive(AdaptiveOptions{Most: 100}), int64(0)
	if n := testing.AllocsPerRun(10_000, func() {
		now += 1000
		a.Record(now, time.Millisecond, a.Limit())
	}); n != 0 {
		t.Errorf("Record allocates %v times", n)
	}
}

func BenchmarkAdaptiveRecord(b *testing.B) {
	a, now := NewAdaptive(AdaptiveOptions{Most: 100}), int64(0)
	b.ReportAllocs()
	for b.Loop() {
		now += 1000
		a.Record(now, time.Millisecond+time.Duration(now%1000), a.Limit())
	}
}

func BenchmarkAdaptiveRecordParallel(b *testing.B) {
	a := NewAdaptive(AdaptiveOptions{Most: 100})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := int64(0)
		for pb.Next() {
			now += 1000
			a.Record(now, time.Millisecond+time.Duration(now%1000), a.Limit())
		}
	})
}
