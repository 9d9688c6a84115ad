package breaker

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// call is one call that was admitted, and how it ended.
func call(t testing.TB, b *Breaker, now int64, o Outcome) {
	t.Helper()
	p := b.Admit(now, math.MaxUint32, true)
	if !p.OK() {
		t.Fatalf("not admitted at %s: %+v", clock(now), p)
	}
	b.Record(p, 0, o, false)
}

// opened returns a breaker that opened at 1 s.
func opened(t testing.TB, s *Settings) *Breaker {
	t.Helper()
	b := New(0, s)
	for range 100 {
		call(t, b, 0, HardFailure)
	}
	if tr, _ := b.Tick(second, 0); tr.To != Open {
		t.Fatalf("%+v", tr)
	}
	return b
}

// halfOpen returns a breaker that is half open since 6 s.
func halfOpen(t testing.TB, s *Settings) *Breaker {
	t.Helper()
	b := opened(t, s)
	if tr, _ := b.Tick(6*second, 0); tr.To != HalfOpen {
		t.Fatalf("%+v", tr)
	}
	return b
}

// TestAdmit sees what requests are told at each level.
func TestAdmit(t *testing.T) {
	const half = 1 << 31
	f := func(b *Breaker, now int64, random uint32, core bool, want Answer, wantRetry time.Duration) {
		t.Helper()
		p := b.Admit(now, random, core)
		if p.Answer != want || p.RetryAfter != wantRetry || p.OK() != (want == Admitted || want == Probe) {
			t.Errorf("%+v, want answer %v, retry after %v", p, want, wantRetry)
		}
	}
	// Normal.
	b := New(0, valid(t, nil))
	f(b, 0, 0, false, Admitted, 0)
	f(b, 0, math.MaxUint32, true, Admitted, 0)
	// Open: all are told the same wait. A request that was read before it opened is not told less than the time to the next probe.
	b = opened(t, onlyCalls(t, nil))
	f(b, second, 0, true, Refused, 5*time.Second)
	f(b, 4*second, half, false, Refused, 5*time.Second)
	f(b, 7*second, math.MaxUint32, true, Refused, 5*time.Second)
	f(b, second-1, 0, true, Refused, 5*time.Second+1)
	// HalfOpen: three probes. The others wait at least as long as the ramp.
	b.Tick(6*second, 0)
	f(b, 6*second, math.MaxUint32, true, Probe, 0)
	f(b, 6*second, 0, false, Probe, 0)
	f(b, 6*second, 0, true, Probe, 0)
	f(b, 7*second, 0, true, Refused, 10*time.Second)
	// The ramp: those whose number it has reached. The others pass when they come again, whatever their number is then.
	b = halfOpen(t, onlyCalls(t, nil))
	for range 3 {
		call(t, b, 6*second, Success)
	}
	b.Tick(7*second, 0)
	f(b, 7*second, 0, true, Admitted, 0)
	f(b, 7*second, half, true, Refused, 10*time.Second)
	f(b, 6*second, half, true, Refused, 10*time.Second)
	f(b, 12*second-1, half, true, Refused, 10*time.Second)
	f(b, 12*second, half, true, Admitted, 0)
	f(b, 17*second, math.MaxUint32, true, Admitted, 0)
	// After a longer wait, that.
	b = halfOpen(t, onlyCalls(t, func(s *Settings) { s.Open.Ramp = time.Second }))
	for range 3 {
		b.Admit(6*second, 0, true)
	}
	f(b, 6*second, 0, true, Refused, 5*time.Second)
	// No ramp.
	b = halfOpen(t, onlyCalls(t, func(s *Settings) { s.Open.Ramp = 0 }))
	for range 3 {
		call(t, b, 6*second, Success)
	}
	b.Tick(7*second, 0)
	f(b, 7*second, math.MaxUint32, true, Admitted, 0)
	f(b, 6*second, math.MaxUint32, true, Admitted, 0)
	// Degraded: NonCore is shed, for as long as it takes to be back at least.
	b = New(0, onlyRate(t, nil))
	for i := range int64(14) {
		for range 100 + 900*(i/12) {
			b.Offer(0, true)
		}
		b.Tick((i+1)*second, 0)
	}
	f(b, 14*second, 0, false, Shed, 2*time.Second)
	f(b, 14*second, 0, true, Admitted, 0)
	f(b, 13*second, math.MaxUint32, true, Admitted, 0)
}

// TestShedding sees that NonCore requests are no probes while the rate is out as well, and that a change of the rate does not
// hand out the probes again.
func TestShedding(t *testing.T) {
	b := halfOpen(t, valid(t, nil))
	first := b.Admit(6*second, 0, false)
	state := b.State(6 * second)
	state.Degraded = true
	b.Restore(6*second, state)
	if p := b.Admit(6*second, 0, false); first.Answer != Probe || p.Answer != Shed {
		t.Errorf("NonCore got %v, then %v, want a probe, then shed", first.Answer, p.Answer)
	}
	for i := range 3 {
		if p := b.Admit(6*second, 0, true); p.OK() != (i < 2) {
			t.Errorf("Core request %d: %+v, want two probes more", i, p)
		}
	}
}

// TestGenerations sees that calls count only in the time in which they were admitted.
func TestGenerations(t *testing.T) {
	b := New(0, onlyCalls(t, func(s *Settings) { s.Failures.Consecutive = 5 }))
	f := func(want Counts) {
		t.Helper()
		if got := b.Collect(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	early := b.Admit(0, 0, true)
	late := b.Admit(0, 0, true)
	b.Record(early, 1, HardFailure, true)
	f(Counts{Requests: 1, Failures: 1, Slow: 1, Streak: 1})
	for range 100 {
		call(t, b, 0, HardFailure)
	}
	b.Tick(second, 0)
	// Open: what was admitted before is ignored, and so is what was not admitted at all.
	b.Record(late, 2, HardFailure, true)
	b.Record(b.Admit(second, 0, true), 2, HardFailure, true)
	b.Record(Pass{}, 2, HardFailure, true)
	f(Counts{})
	// HalfOpen: a success from before is no probe's.
	b.Tick(6*second, 0)
	b.Record(late, 2, Success, false)
	f(Counts{})
	probe := b.Admit(6*second, 0, true)
	for range 2 {
		call(t, b, 6*second, Success)
	}
	b.Record(probe, 3, Success, true)
	f(Counts{Requests: 3, Slow: 1})
}

// TestOutcomes sees what each outcome counts as.
func TestOutcomes(t *testing.T) {
	f := func(outcomes []Outcome, slow bool, want Counts) {
		t.Helper()
		b := New(0, onlyCalls(t, func(s *Settings) { s.Failures.Consecutive = 3 }))
		for i, o := range outcomes {
			b.Record(b.Admit(0, 0, true), uint32(i), o, slow)
		}
		if got := b.Collect(); got != want {
			t.Errorf("%v: %+v, want %+v", outcomes, got, want)
		}
	}
	f([]Outcome{Success}, false, Counts{Requests: 1})
	f([]Outcome{Success}, true, Counts{Requests: 1, Slow: 1})
	f([]Outcome{Failure}, false, Counts{Requests: 1, Failures: 1})
	f([]Outcome{HardFailure}, true, Counts{Requests: 1, Failures: 1, Slow: 1, Streak: 1})
	f([]Outcome{Ignored, Ignored}, true, Counts{})
	// A streak is ended by an answer, whichever, and by nothing that is ignored.
	f([]Outcome{HardFailure, HardFailure, Ignored}, false, Counts{Requests: 2, Failures: 2, Streak: 2})
	f([]Outcome{HardFailure, HardFailure, Success}, false, Counts{Requests: 3, Failures: 2})
	f([]Outcome{HardFailure, HardFailure, Failure, HardFailure}, false, Counts{Requests: 4, Failures: 4, Streak: 1})
	// Once it is long enough it stays until it is judged.
	f([]Outcome{HardFailure, HardFailure, HardFailure, Success, HardFailure}, false, Counts{Requests: 5, Failures: 4, Streak: 3})
}

// TestSilentProbes sees that probes which never report are replaced, and that those which are given back are not lost.
func TestSilentProbes(t *testing.T) {
	b := halfOpen(t, onlyCalls(t, nil))
	f := func(now int64, want ...Answer) {
		t.Helper()
		for _, answer := range want {
			if p := b.Admit(now, 0, true); p.Answer != answer {
				t.Errorf("at %s: %v, want %v", clock(now), p.Answer, answer)
			}
		}
	}
	reports := b.Admit(6*second, 0, true)
	silent := b.Admit(6*second, 0, true)
	leaves := b.Admit(6*second, 0, true)
	f(6*second, Refused)
	// The third one's client leaves, and another takes its place.
	b.Record(leaves, 0, Ignored, false)
	f(7*second, Probe, Refused)
	// One comes back. The two others are replaced once they took as long as the wait.
	b.Record(reports, 0, Success, false)
	b.Tick(11*second-1, 0)
	f(11*second-1, Refused)
	b.Tick(11*second, 0)
	f(11*second, Probe, Probe, Refused)
	// One that is given back after it was replaced is no more than it was.
	b.Record(silent, 0, Ignored, false)
	f(12*second, Refused)
	// So it goes on, and nothing is blocked for ever.
	b.Tick(16*second, 0)
	f(16*second, Probe, Probe, Refused)
	b.Tick(21*second, 0)
	last, other := b.Admit(21*second, 0, true), b.Admit(21*second, 0, true)
	b.Record(last, 0, Success, false)
	b.Record(other, 0, Success, false)
	if tr, _ := b.Tick(22*second, 0); tr.Cause != ProbesPassed || tr.Numbers.Requests != 3 {
		t.Errorf("%+v, want closed by three probes", tr)
	}
}

// TestRampIsASingleRise sees that the share of requests grows evenly, and that nobody who passed is refused later.
func TestRampIsASingleRise(t *testing.T) {
	b := halfOpen(t, onlyCalls(t, nil))
	for range 3 {
		call(t, b, 6*second, Success)
	}
	b.Tick(6*second, 0)
	random := rand.New(rand.NewPCG(1, 2))
	var numbers [10_000]uint32
	for i := range numbers {
		numbers[i] = random.Uint32()
	}
	var passed [len(numbers)]bool
	for now := 6 * second; now <= 16*second; now += second / 4 {
		n := 0
		for i, number := range numbers {
			p := b.Admit(now, number, true)
			if passed[i] && !p.OK() {
				t.Fatalf("number %d passed before %s", number, clock(now))
			}
			if later := now + int64(p.RetryAfter); !b.Admit(later, number, true).OK() {
				t.Fatalf("number %d is refused at %d, as it was told to come", number, later)
			}
			if passed[i] = p.OK(); passed[i] {
				n++
			}
		}
		share := float64(now-6*second) / float64(10*second)
		if got := b.Status(now).Share; got != share || !near(float64(n)/float64(len(numbers)), share, 0.02) {
			t.Errorf("%d of %d pass at %s, the share is said to be %v, want %v", n, len(numbers), clock(now), got, share)
		}
	}
}

// TestRace counts every request while ticks come, and sees that none is lost and no generation takes another's calls.
func TestRace(t *testing.T) {
	b := New(0, valid(t, func(s *Settings) { s.Failures.Consecutive = 10 }))
	var now, admitted, offered, passed, probes, halfOpens atomic.Int64
	var requests, sampler sync.WaitGroup
	done := make(chan struct{})
	var total Counts
	sampler.Go(func() {
		level := Normal
		random := rand.New(rand.NewPCG(1, 1))
		for {
			select {
			case <-done:
				return
			default:
			}
			if random.IntN(2) == 0 {
				total = total.Add(b.Collect())
				b.Status(now.Load())
				continue
			}
			// A Tick keeps what it collects to itself: collect before it, and lose at most what comes in between.
			tr, changed := b.Tick(now.Add(second), random.Float64())
			if !changed {
				continue
			}
			if tr.From != level {
				t.Errorf("from %v after %v", tr.From, level)
			}
			if level = tr.To; level == HalfOpen {
				halfOpens.Add(1)
			}
		}
	})
	for seed := range uint64(4) {
		requests.Go(func() {
			random := rand.New(rand.NewPCG(seed, 2))
			for i := 0; i < 50_000 || halfOpens.Load() < 20 && i < 10_000_000; i++ {
				pass := random.IntN(3) > 0
				b.Offer(uint32(seed), pass)
				offered.Add(1)
				if !pass {
					continue
				}
				passed.Add(1)
				p := b.Admit(now.Load(), random.Uint32(), random.IntN(2) == 0)
				if !p.OK() {
					continue
				}
				admitted.Add(1)
				if p.Answer == Probe {
					probes.Add(1)
				}
				b.Record(p, uint32(seed), Outcome(random.IntN(4)), random.IntN(2) == 0)
			}
		})
	}
	requests.Wait()
	close(done)
	sampler.Wait()
	if n := halfOpens.Load(); n < 20 {
		t.Errorf("half open only %d times", n)
	}
	// What ticks took is in the judge; sums over all are in the counters.
	sum := b.total(0)
	if got := int64(sum.passed); got != passed.Load() {
		t.Errorf("%d passed, want %d", got, passed.Load())
	}
	if got := int64(sum.passed + sum.denied); got != offered.Load() {
		t.Errorf("%d offered, want %d", got, offered.Load())
	}
	if other := b.total(1); int64(sum.requests+other.requests) > admitted.Load() {
		t.Errorf("%d calls counted, and only %d admitted", sum.requests+other.requests, admitted.Load())
	}
	if total.Requests < 0 || total.Failures < 0 || total.Slow < 0 || total.Failures > total.Requests {
		t.Errorf("collected %+v", total)
	}
}

// TestProbesInAll lets many goroutines ask a half-open breaker at once.
func TestProbesInAll(t *testing.T) {
	b := halfOpen(t, onlyCalls(t, func(s *Settings) { s.Open.Probes = 7 }))
	var passed atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10_000 {
				if b.Admit(6*second, 0, true).OK() {
					passed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if passed.Load() != 7 {
		t.Errorf("%d probes, want 7", passed.Load())
	}
}

// TestAllocations sees that neither requests nor ticks without a change allocate.
func TestAllocations(t *testing.T) {
	f := func(name string, b *Breaker, now int64) {
		t.Helper()
		if n := testing.AllocsPerRun(1000, func() {
			b.Offer(1, true)
			b.Record(b.Admit(now, 1, false), 1, HardFailure, true)
			b.Record(b.Admit(now, 1<<31, true), 1, Success, false)
		}); n != 0 {
			t.Errorf("%s: %v allocations for each request", name, n)
		}
		b.Tick(now, 0) // the judgement of the above
		if n := testing.AllocsPerRun(1000, func() {
			now += second
			b.Tick(now, 0)
		}); n > 0.1 {
			t.Errorf("%s: %v allocations for each tick", name, n)
		}
	}
	f("normal", New(0, valid(t, func(s *Settings) { s.Failures.Consecutive = 5 })), 0)
	f("open", opened(t, onlyCalls(t, nil)), second)
	f("half open", halfOpen(t, onlyCalls(t, func(s *Settings) { s.Open.Probes = 1_000_000 })), 6*second)
}

// TestMemory makes ten thousand breakers, opens half of them, and measures. A baseline takes no more when it is full.
func TestMemory(t *testing.T) {
	const many, bound = 10_000, 2048
	s := valid(t, nil)
	all := make([]*Breaker, many)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range all {
		all[i] = New(0, s)
		if i%2 == 0 {
			for range 50 {
				call(t, all[i], 0, Failure)
			}
			all[i].Tick(second, 0)
		}
	}
	each := float64(heap()-before) / many
	runtime.KeepAlive(all)
	t.Logf("%.0f bytes each", each)
	if each > bound {
		t.Errorf("a breaker takes %.0f bytes, want at most %d", each, bound)
	}
}

// TestLinesAreCacheLines sees that neither two stripes nor the streak share one.
func TestLinesAreCacheLines(t *testing.T) {
	if got := unsafe.Sizeof(line{}); got != lineSize {
		t.Errorf("a line has %d bytes, want %d", got, lineSize)
	}
	if got := unsafe.Sizeof(counters{}); got != (stripes+1)*lineSize {
		t.Errorf("the counters have %d bytes, want %d lines", got, stripes+1)
	}
	for range 100 {
		if at := uintptr(unsafe.Pointer(New(0, valid(t, nil)).counters)); at%lineSize != 0 {
			t.Fatalf("counters begin at %d, want a multiple of %d", at, lineSize)
		}
	}
}

// Ask says what Admit then says, and takes nothing, whatever the level.
func TestAsk(t *testing.T) {
	s := valid(t, func(s *Settings) { s.QPS = QPS{} })
	b := New(0, s)
	same := func(now int64, random uint32, want Answer) {
		t.Helper()
		asked := b.Ask(now, random, true)
		for range 10 {
			if again := b.Ask(now, random, true); again != asked {
				t.Fatalf("asked again: %+v after %+v", again, asked)
			}
		}
		b.Record(asked, 0, HardFailure, true) // which records nothing
		p := b.Admit(now, random, true)
		if p.Answer != want || asked.Answer != want || p.RetryAfter != asked.RetryAfter {
			t.Fatalf("at %s: asked %+v, admitted %+v, want %v", clock(now), asked, p, want)
		}
		if p.OK() {
			b.Record(p, 0, Success, false)
		}
	}
	same(0, 0, Admitted)
	for range 30 {
		b.Record(b.Admit(0, 0, true), 0, Failure, false)
	}
	b.Tick(second, 0)
	same(second, 0, Refused)
	now := 6 * second
	b.Tick(now, 0)
	for range 3 {
		same(now, 0, Probe)
	}
	same(now, 0, Refused)
	b.Tick(7*second, 0)
	same(8*second, 1<<30, Refused)
	same(12*second, 1<<30, Admitted)
}

// A breaker is at rest when it was quiet for as long as it remembers, and never while it is anything but Normal.
func TestAtRest(t *testing.T) {
	f := func(what string, change func(*Settings), use func(*Breaker), want int64) {
		t.Helper()
		b := New(0, valid(t, change))
		use(b)
		for now := second; now <= 20*minute; now += second {
			b.Tick(now, 0)
			if b.AtRest() {
				if now != want {
					t.Errorf("%s: at rest at %s, want %s", what, clock(now), clock(want))
				}
				return
			}
		}
		if want != 0 {
			t.Errorf("%s: never at rest, want %s", what, clock(want))
		}
	}
	calls := func(s *Settings) { s.QPS = QPS{} }
	rate := func(s *Settings) { s.Failures, s.Open = Failures{}, Opening{} }
	call := func(n int, o Outcome) func(*Breaker) {
		return func(b *Breaker) {
			for range n {
				b.Record(b.Admit(0, 0, true), 0, o, false)
			}
		}
	}

	f("new", nil, func(*Breaker) {}, second)
	f("a call", calls, call(1, Success), 11*second)
	f("open, and then without probes", calls, call(20, Failure), minute+6*second)
	f("a call and a request", nil, func(b *Breaker) { b.Offer(0, true); call(1, Success)(b) }, 5*minute+5*second)
	f("a request", rate, func(b *Breaker) { b.Offer(0, false); b.Offer(0, true) }, 5*minute+5*second)
}
