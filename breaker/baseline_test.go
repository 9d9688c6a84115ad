package breaker

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// onlyRate are settings that judge the rate alone, in samples of a second over a baseline of ten.
func onlyRate(t testing.TB, change func(q *QPS)) *Settings {
	return valid(t, func(s *Settings) {
		*s = Settings{QPS: QPS{Sample: time.Second, Baseline: 10 * time.Second, Deviation: 0.5, Periods: 2, Recover: 2, MinRate: 10}}
		if change != nil {
			change(&s.QPS)
		}
	})
}

// offer is a Counts of requests that all passed their limits.
func offer(n int64) Counts { return Counts{Offered: n, Passed: n} }

// TestCorridor plays the edges of what is judged.
func TestCorridor(t *testing.T) {
	f := func(change func(q *QPS), usual, then int64, want ...string) {
		t.Helper()
		j := NewJudge(0, onlyRate(t, change))
		var h heard
		for i := int64(1); i <= 14; i++ {
			n := usual
			if i > 12 {
				n = then
			}
			tr, changed := j.Step(i*second, offer(n), 0)
			h.hear(t, tr, changed)
		}
		h.want(t, want...)
	}
	up := func(q *QPS) { q.Direction = Up }
	down := func(q *QPS) { q.Direction = Down }
	both := func(q *QPS) { q.Direction = Both }

	// The ends of the corridor belong to it.
	f(up, 100, 150)
	f(up, 100, 151, "0:14 normal → degraded: rise")
	f(down, 100, 50)
	f(down, 100, 49, "0:14 normal → degraded: fall")
	// Only the side that is asked for.
	f(up, 100, 0)
	f(down, 100, 1000)
	f(both, 100, 49, "0:14 normal → degraded: fall")
	f(both, 100, 151, "0:14 normal → degraded: rise")
	// A rise is measured from the least rate, and a baseline below it cannot fall.
	f(both, 1, 15)
	f(both, 1, 16, "0:14 normal → degraded: rise")
	f(both, 9, 0)
	f(both, 10, 0, "0:14 normal → degraded: fall")
	// A deviation of more than the whole never falls.
	f(func(q *QPS) { q.Direction, q.Deviation = Both, 2 }, 100, 0)
	// Nothing rises from nothing where no floor is set.
	f(func(q *QPS) { q.MinRate = 0 }, 0, 1000)
	// One more sample in a row, and it is too early.
	f(func(q *QPS) { q.Periods = 3 }, 100, 1000)
}

// TestColdStart sees that nothing is judged until a fifth of the baseline was seen, here two samples.
func TestColdStart(t *testing.T) {
	f := func(rates []int64, want ...string) {
		t.Helper()
		j := NewJudge(0, onlyRate(t, nil))
		var h heard
		for i, n := range rates {
			tr, changed := j.Step(int64(i+1)*second, offer(n), 0)
			h.hear(t, tr, changed)
		}
		h.want(t, want...)
	}
	// The second sample is not judged, and is half of the baseline then.
	f([]int64{100, 1000, 1000, 1000})
	// The third and fourth are.
	f([]int64{100, 100, 1000, 1000}, "0:04 normal → degraded: rise")
	// A deviation must be in a row.
	f([]int64{100, 100, 100, 1000, 100, 1000, 100, 1000})
	// So must recovery.
	f([]int64{100, 100, 100, 1000, 1000, 100, 1000, 100, 100, 100}, "0:05 normal → degraded: rise", "0:09 degraded → normal: back")
}

// TestLateTicks sees what becomes of samples that are not as long as they should be.
func TestLateTicks(t *testing.T) {
	type tick struct {
		at time.Duration
		n  int64
	}
	f := func(ticks []tick, want ...string) {
		t.Helper()
		j := NewJudge(0, onlyRate(t, nil))
		var h heard
		now := int64(0)
		for range 12 {
			now += second
			j.Step(now, offer(100), 0)
		}
		for _, tick := range ticks {
			tr, changed := j.Step(now+int64(tick.at), offer(tick.n), 0)
			h.hear(t, tr, changed)
		}
		h.want(t, want...)
	}
	// Early ticks wait for the sample to end.
	f([]tick{{500 * time.Millisecond, 1000}, {900 * time.Millisecond, 1000}})
	f([]tick{{500 * time.Millisecond, 500}, {time.Second, 500}, {1500 * time.Millisecond, 500}, {2 * time.Second, 500}}, "0:14 normal → degraded: rise")
	// A late one is judged by the time it really took.
	f([]tick{{2 * time.Second, 200}, {4 * time.Second, 200}, {6 * time.Second, 200}})
	f([]tick{{2 * time.Second, 2000}, {4 * time.Second, 2000}}, "0:16 normal → degraded: rise")
	// One that is too late is no sample, and breaks the row.
	f([]tick{{time.Second, 1000}, {4 * time.Second, 3000}, {5 * time.Second, 1000}})
	f([]tick{{time.Second, 1000}, {4 * time.Second, 3000}, {5 * time.Second, 1000}, {6 * time.Second, 1000}}, "0:18 normal → degraded: rise")
	// A tick that is repeated, or goes back, changes nothing.
	f([]tick{{time.Second, 1000}, {time.Second, 0}, {-5 * time.Second, 0}, {2 * time.Second, 1000}}, "0:14 normal → degraded: rise")
	// After a gap longer than the baseline, all is forgotten, and ten times the traffic is normal.
	f([]tick{{time.Hour, 0}, {time.Hour + time.Second, 1000}, {time.Hour + 2*time.Second, 1000}, {time.Hour + 3*time.Second, 1000}, {time.Hour + 4*time.Second, 1000}})
	f([]tick{{time.Second, 1000}, {2 * time.Second, 1000}, {time.Hour, 0}}, "0:14 normal → degraded: rise", "60:12 degraded → normal: gap")
	// A clock at its very end does not overflow.
	f([]tick{{math.MaxInt64 - 13*time.Second, 0}, {math.MaxInt64 - 12*time.Second, 0}})
}

// TestAcceptance measures how long a lasting new level is refused, and that a shorter one leaves the baseline among what was usual.
func TestAcceptance(t *testing.T) {
	f := func(q QPS, factor float64) {
		t.Helper()
		s := valid(t, func(s *Settings) { *s = Settings{QPS: q} })
		random := rand.New(rand.NewPCG(1, 2))
		j := NewJudge(0, s)
		now := int64(0)
		step := func(rate float64) (Transition, bool) {
			now += int64(q.Sample)
			return j.Step(now, offer(poisson(random, rate*q.Sample.Seconds())), 0)
		}
		for now < int64(2*q.Baseline) {
			if tr, changed := step(200); changed {
				t.Fatalf("steady traffic: %v", said(tr))
			}
		}
		var degraded, back int64
		for back == 0 && now < int64(10*q.Baseline) {
			tr, changed := step(200 * factor)
			switch {
			case changed && tr.To == Degraded:
				degraded = tr.At
			case changed:
				back = tr.At
			case degraded > 0 && now-degraded < int64(q.Baseline)*8/10 && !near(j.rate.median, 200, 30):
				t.Fatalf("the baseline is %.0f after %v at %v times 200", j.rate.median, time.Duration(now-degraded), factor)
			}
		}
		if took := time.Duration(back - degraded); took < q.Baseline*8/10 || took > q.Baseline*13/10 {
			t.Errorf("a lasting level of %v times is accepted after %v, want about a baseline, %v", factor, took, q.Baseline)
		}
	}
	// The usual settings, up and down.
	q := usual().QPS
	q.Direction = Both
	f(q, 2)
	f(q, 20)
	f(q, 0.2)
	// Many samples for each part of the baseline.
	q.Sample, q.Periods, q.Recover, q.Deviation = time.Second, 5, 5, 0.5
	f(q, 3)
	// Few parts.
	q.Sample, q.Baseline, q.Periods, q.Recover = 10*time.Second, 3*time.Minute, 2, 2
	f(q, 3)
}

// TestParts sees how a baseline is divided.
func TestParts(t *testing.T) {
	f := func(sample, baseline time.Duration, wantPerSlot, wantParts int) {
		t.Helper()
		q := QPS{Sample: sample, Baseline: baseline}
		if q.perSlot() != wantPerSlot || q.parts() != wantParts {
			t.Errorf("%v in samples of %v: %d parts of %d, want %d of %d", baseline, sample, q.parts(), q.perSlot(), wantParts, wantPerSlot)
		}
	}
	f(5*time.Second, 5*time.Minute, 1, 60)
	f(5*time.Second, 5*time.Second, 1, 1)
	f(4*time.Second, 5*time.Minute, 2, 37)
	f(time.Second, 5*time.Minute, 5, 60)
	f(100*time.Millisecond, longest, 446400, 60)
}

// TestSlowChangeIsFollowed draws traffic that drifts, up and down, by less in a baseline's time than half of what
// deviates, with ticks that come late now and then, and sees that the level stays.
func TestSlowChangeIsFollowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := usual()
		s.QPS.Direction = Both
		j := NewJudge(0, &s)
		rate := rapid.Float64Range(200, 2000).Draw(t, "rate")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		now, drift := int64(0), 0.0
		for i := range 3 * 720 {
			if i%720 == 0 { // an hour
				drift = rapid.Float64Range(-0.15, 0.15).Draw(t, "drift in a baseline")
			}
			took := 5*time.Second + time.Duration(random.Int64N(int64(time.Second)))
			if random.IntN(50) == 0 {
				took += time.Duration(random.Int64N(int64(20 * time.Second)))
			}
			now += int64(took)
			rate = min(max(rate*math.Exp(drift*took.Minutes()/5), 200), 1e6)
			if tr, changed := j.Step(now, offer(poisson(random, rate*took.Seconds())), 0); changed {
				t.Fatalf("%s at %.0f/s: %+v", said(tr), rate, tr.Numbers)
			}
		}
	})
}

// TestSumsAreJudged shares constant traffic out to a number of sidecars that changes with every sample.
func TestSumsAreJudged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := usual()
		s.QPS.Direction = Both
		j := NewJudge(0, &s)
		const inAll = 5000
		for now := int64(s.QPS.Sample); now < int64(20*time.Minute); now += int64(s.QPS.Sample) {
			var sum Counts
			left := int64(inAll)
			for range rapid.IntRange(0, 9).Draw(t, "others") {
				n := rapid.Int64Range(0, left).Draw(t, "part")
				sum, left = sum.Add(offer(n)), left-n
			}
			if tr, changed := j.Step(now, sum.Add(offer(left)), 0); changed {
				t.Fatalf("%s: %+v", said(tr), tr.Numbers)
			}
		}
		if n := j.Status(0).Numbers; n.Rate != 1000 || n.Baseline != 1000 {
			t.Fatalf("%+v, want 1000/s", n)
		}
	})
}

// TestDetectorCountsBoth sees that what limits denied is shown and not judged.
func TestDetectorCountsBoth(t *testing.T) {
	j := NewJudge(0, onlyRate(t, nil))
	for i := int64(1); i < 20; i++ {
		if tr, changed := j.Step(i*second, Counts{Offered: 100 + 1000*(i/10), Passed: 100}, 0); changed {
			t.Errorf("%+v", tr)
		}
	}
	if n := j.Status(0).Numbers; n.Offered != 1100 || n.Rate != 100 || n.Baseline != 100 || n.Low != 0 || n.High != 150 {
		t.Errorf("%+v, want 1100/s offered, 100/s judged, a baseline of 100/s and a corridor up to 150/s", n)
	}
}
