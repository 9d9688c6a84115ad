package breaker

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestSet sees what other settings change and what they keep.
func TestSet(t *testing.T) {
	f := func(b *Breaker, now int64, s *Settings, want Level, wantCause Cause) {
		t.Helper()
		tr, changed := b.Set(now, s)
		if got := b.Status(now).Level; got != want || tr.Cause != wantCause || changed != (wantCause != NoCause) {
			t.Errorf("level %v by %+v, want %v by %v", got, tr, want, wantCause)
		}
		if open := !b.Admit(now, 0, true).OK(); open != (want == Open) {
			t.Errorf("refused: %v at level %v", open, want)
		}
	}
	// The level stays with other numbers, and the wait that began.
	b := opened(t, valid(t, nil))
	f(b, 2*second, valid(t, func(s *Settings) { s.Failures.Ratio, s.Open.For = 0.5, 10*time.Second }), Open, NoCause)
	if until := b.Status(2 * second).Until; until != 6*second {
		t.Errorf("until %s, want 0:06", clock(until))
	}
	// What is no longer judged is Normal, without a ramp, and begins anew later.
	f(b, 3*second, valid(t, func(s *Settings) { s.Failures, s.Open = Failures{}, Opening{} }), Normal, Changed)
	if p := b.Admit(3*second, math.MaxUint32, true); !p.OK() {
		t.Errorf("%+v", p)
	}
	f(b, 4*second, valid(t, nil), Normal, NoCause)
	for range 100 {
		call(t, b, 4*second, Failure)
	}
	if tr, _ := b.Tick(5*second, 1); tr.Until != 10*second {
		t.Errorf("%+v, want the first wait", tr)
	}
	// The calls of a window stay unless it is another window.
	b = New(0, valid(t, nil))
	for range 19 {
		call(t, b, 0, Failure)
	}
	b.Tick(second, 0)
	f(b, second, valid(t, func(s *Settings) { s.Failures.MinRequests = 19 }), Normal, NoCause)
	if tr, _ := b.Tick(2*second, 0); tr.Cause != TooManyFail {
		t.Errorf("%+v, want open by the calls before", tr)
	}
	b = New(0, valid(t, nil))
	for range 19 {
		call(t, b, 0, Failure)
	}
	b.Tick(second, 0)
	f(b, second, valid(t, func(s *Settings) { s.Failures.MinRequests, s.Failures.Window = 19, time.Minute }), Normal, NoCause)
	if tr, changed := b.Tick(2*second, 0); changed {
		t.Errorf("%+v", tr)
	}
}

// TestSetKeepsBaseline changes how the rate is judged.
func TestSetKeepsBaseline(t *testing.T) {
	f := func(change func(q *QPS), want []float64, wantLevel Level) {
		t.Helper()
		j := NewJudge(0, onlyRate(t, nil))
		for i := int64(1); i <= 14; i++ {
			j.Step(i*second, offer(100+i+1000*(i/13)), 0)
		}
		if j.Level() != Degraded {
			t.Fatalf("level %v", j.Level())
		}
		s := onlyRate(t, change)
		j.Set(14*second, s)
		if diff := cmp.Diff(want, j.rate.history()); diff != "" {
			t.Errorf("rates (-want +got):\n%s", diff)
		}
		if j.Level() != wantLevel {
			t.Errorf("level %v, want %v", j.Level(), wantLevel)
		}
		j.Step(14*second+int64(s.QPS.Sample), offer(0), 0) // and it goes on
	}
	all := []float64{104, 105, 106, 107, 108, 109, 110, 111, 112, 1113}
	f(nil, all, Degraded)
	f(func(q *QPS) { q.Deviation, q.Direction, q.Periods = 0.1, Both, 7 }, all, Degraded)
	// Fewer parts keep the newest, more parts keep all.
	f(func(q *QPS) { q.Baseline = 3 * time.Second }, all[7:], Degraded)
	f(func(q *QPS) { q.Baseline = time.Minute }, all, Degraded)
	// Not judged any more.
	f(func(q *QPS) { *q = QPS{} }, []float64{}, Normal)
}

// TestRestore carries a state over to a breaker that has seen nothing, on another clock.
func TestRestore(t *testing.T) {
	const elsewhere = 1000 * second
	f := func(b *Breaker, now int64, want State) *Breaker {
		t.Helper()
		state := b.State(now)
		if diff := cmp.Diff(want, state); diff != "" {
			t.Errorf("state (-want +got):\n%s", diff)
		}
		other := New(elsewhere-second, b.judge.settings)
		tr, changed := other.Restore(elsewhere, state)
		if from, to := Normal, b.Status(now).Level; changed != (to != from) || changed && (tr.From != from || tr.To != to || tr.Cause != Changed) {
			t.Errorf("%+v, want a change to %v", tr, to)
		}
		if diff := cmp.Diff(want, other.State(elsewhere)); diff != "" {
			t.Errorf("restored state (-want +got):\n%s", diff)
		}
		return other
	}
	// New.
	f(New(0, valid(t, nil)), second, State{Since: time.Second, Rates: []float64{}})
	// Open.
	b := opened(t, onlyCalls(t, nil))
	other := f(b, 3*second, State{Circuit: Open, Generation: 1, Since: 2 * time.Second, Until: 3 * time.Second, Wait: 5 * time.Second, Openings: 1, Rates: []float64{}})
	if p := other.Admit(elsewhere, 0, true); p.OK() {
		t.Errorf("%+v", p)
	}
	if tr, _ := other.Tick(elsewhere+3*second, 0); tr.To != HalfOpen {
		t.Errorf("%+v, want half open when the other is", tr)
	}
	// HalfOpen, with a part of the probes.
	b.Tick(6*second, 0)
	state := State{Circuit: HalfOpen, Generation: 2, Since: time.Second, Until: 4 * time.Second, Wait: 5 * time.Second, Openings: 1, Probes: 3, Rates: []float64{}}
	other = f(b, 7*second, state)
	state.Generation, state.Probes = 4, 1
	other.Restore(elsewhere, state)
	if first, second := other.Admit(elsewhere, 0, true), other.Admit(elsewhere, 0, true); !first.OK() || second.OK() {
		t.Errorf("%+v, then %+v, want one probe", first, second)
	}
	// Said again, it hands out no more probes, and none that were counted are lost.
	state.Until--
	other.Restore(elsewhere+1, state)
	if p := other.Admit(elsewhere, 0, true); p.OK() {
		t.Errorf("%+v, want no more probes", p)
	}
	// The ramp goes on where it was.
	for range 3 {
		call(t, b, 7*second, Success)
	}
	b.Tick(8*second, 0)
	other = f(b, 12*second, State{Generation: 3, Since: 4 * time.Second, Wait: 5 * time.Second, Openings: 1, Rates: []float64{}})
	if got := other.Status(elsewhere).Share; got != 0.4 {
		t.Errorf("share %v, want 0.4", got)
	}
}

// TestFollow lets one sidecar follow the judge of a fleet for longer than a baseline, and then go on alone.
func TestFollow(t *testing.T) {
	s := onlyRate(t, func(q *QPS) { q.Direction = Both })
	fleet, b := NewJudge(0, s), New(0, s)
	var h heard
	now := int64(0)
	for now < minute {
		now += second
		for range 100 {
			b.Offer(0, true)
		}
		fleet.Step(now, b.Collect().Add(offer(100)), 0)
		tr, changed := b.Restore(now, fleet.State(now))
		h.hear(t, tr, changed)
	}
	for range 3 {
		now += second
		for range 80 {
			b.Offer(0, true)
		}
		tr, changed := b.Tick(now, 0)
		h.hear(t, tr, changed)
	}
	// The baseline is still the fleet's, which whoever goes on alone has to divide first.
	h.want(t, "1:02 normal → degraded: fall")
	if n := b.Status(now).Numbers; n.Baseline != 200 || n.Rate != 80 {
		t.Errorf("%+v, want 80/s against 200/s", n)
	}
}

// TestRestoreWhatIsWrong takes states that cannot be, as a network may bring them.
func TestRestoreWhatIsWrong(t *testing.T) {
	b := New(second, valid(t, nil))
	b.Restore(second, State{
		Circuit: Level(9), Generation: 7, Since: math.MinInt64, Until: math.MaxInt64, Wait: math.MinInt64, Openings: -1, Probes: -5,
		Rates: []float64{math.NaN(), math.Inf(1), -1, 100}, Run: -3,
	})
	want := State{Generation: 7, Rates: []float64{100}}
	if diff := cmp.Diff(want, b.State(second)); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	// An open breaker is not open for longer than here at most, and not without probes.
	b.Restore(second, State{Circuit: Open, Since: math.MaxInt64, Until: math.MaxInt64, Wait: math.MaxInt64})
	want = State{Circuit: Open, Since: time.Second, Until: time.Minute, Wait: time.Minute, Openings: 1, Rates: []float64{}}
	if diff := cmp.Diff(want, b.State(second)); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	if tr, _ := b.Tick(61*second, 0); tr.To != HalfOpen {
		t.Errorf("%+v, want half open", tr)
	}
}

// TestRestoredGoesOnAlike runs a judge and its copy side by side.
func TestRestoredGoesOnAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := usual()
		s.QPS.Direction = Direction(rapid.IntRange(0, 2).Draw(t, "direction"))
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		j, sample, now := NewJudge(0, &s), int64(s.QPS.Sample), int64(0)
		rate := 500.0
		step := func(judges ...*Judge) {
			now += sample
			if random.IntN(30) == 0 {
				rate = float64(random.IntN(2000))
			}
			c := offer(poisson(random, rate))
			for _, j := range judges {
				j.Step(now, c, 0)
			}
		}
		for range rapid.IntRange(0, 200).Draw(t, "before") {
			step(j)
		}
		other := NewJudge(now, &s)
		other.Restore(now, j.State(now))
		for range 200 {
			step(j, other)
			a, b := j.Status(now), other.Status(now)
			a.Since, b.Since = 0, 0
			if a != b {
				t.Fatalf("%+v, and the copy %+v", a, b)
			}
		}
	})
}
