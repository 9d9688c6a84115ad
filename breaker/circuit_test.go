package breaker

import (
	"testing"
	"time"
)

// onlyCalls are settings that judge calls alone.
func onlyCalls(t testing.TB, change func(s *Settings)) *Settings {
	return valid(t, func(s *Settings) {
		s.QPS = QPS{}
		if change != nil {
			change(s)
		}
	})
}

// TestWhatOpens plays single steps of calls.
func TestWhatOpens(t *testing.T) {
	f := func(change func(s *Settings), c Counts, want Cause) {
		t.Helper()
		j := NewJudge(0, onlyCalls(t, change))
		if tr, _ := j.Step(second, c, 0); tr.Cause != want || want != NoCause && tr.To != Open {
			t.Errorf("%+v: %+v, want cause %v", c, tr, want)
		}
	}
	// The ratio itself opens, and what is below it does not.
	f(nil, Counts{Requests: 100, Failures: 10}, TooManyFail)
	f(nil, Counts{Requests: 100, Failures: 9}, NoCause)
	f(func(s *Settings) { s.Failures.Ratio = 0.07 }, Counts{Requests: 100, Failures: 7}, TooManyFail)
	f(func(s *Settings) { s.Failures.Ratio = 1 }, Counts{Requests: 100, Failures: 99}, NoCause)
	f(func(s *Settings) { s.Failures.Ratio = 1 }, Counts{Requests: 100, Failures: 100}, TooManyFail)
	// Too few requests say nothing.
	f(nil, Counts{Requests: 19, Failures: 19}, NoCause)
	f(nil, Counts{Requests: 20, Failures: 2}, TooManyFail)
	// Slow calls.
	f(nil, Counts{Requests: 20, Slow: 10}, TooManySlow)
	f(nil, Counts{Requests: 20, Slow: 9}, NoCause)
	// A ratio of 0 is not judged.
	f(func(s *Settings) { s.Failures.Ratio = 0 }, Counts{Requests: 100, Failures: 100}, NoCause)
	f(func(s *Settings) { s.Failures.SlowRatio = 0 }, Counts{Requests: 100, Slow: 100}, NoCause)
	// Several in a row, however few they are.
	f(nil, Counts{Requests: 5, Failures: 5, Streak: 5}, NoCause)
	f(func(s *Settings) { s.Failures.Consecutive = 5 }, Counts{Requests: 5, Failures: 5, Streak: 5}, Consecutive)
	f(func(s *Settings) { s.Failures.Consecutive = 5 }, Counts{Requests: 5, Failures: 4, Streak: 4}, NoCause)
	// Calls are not judged at all.
	f(func(s *Settings) { *s = Settings{} }, Counts{Requests: 100, Failures: 100, Streak: 100}, NoCause)
}

// TestCircuit plays one breaker's calls through opening, probes, reopening and closing.
func TestCircuit(t *testing.T) {
	j := NewJudge(0, onlyCalls(t, nil))
	f := func(now time.Duration, jitter float64, c Counts, wantLevel Level, wantCause Cause, wantUntil time.Duration, wantShare float64) {
		t.Helper()
		tr, _ := j.Step(int64(now), c, jitter)
		s := j.Status(int64(now))
		if s.Level != wantLevel || tr.Cause != wantCause || s.Until != int64(wantUntil) || s.Share != wantShare {
			t.Errorf("at %v: %v by %v until %v with a share of %v, want %v by %v until %v with %v",
				now, s.Level, tr.Cause, time.Duration(s.Until), s.Share, wantLevel, wantCause, wantUntil, wantShare)
		}
		if wantCause != NoCause && tr.Until != int64(wantUntil) {
			t.Errorf("transition until %v, want %v", time.Duration(tr.Until), wantUntil)
		}
	}
	fine, bad := Counts{Requests: 100}, Counts{Requests: 100, Failures: 60}
	// Opening takes the whole window into account. The first wait has no jitter.
	f(1*time.Second, 1, Counts{Requests: 700}, Normal, NoCause, 0, 1)
	f(2*time.Second, 1, bad, Normal, NoCause, 0, 1)
	f(3*time.Second, 1, bad, Open, TooManyFail, 8*time.Second, 0)
	// Nothing is judged while it is open; after the wait there are probes.
	f(7999*time.Millisecond, 1, bad, Open, NoCause, 8*time.Second, 0)
	f(8*time.Second, 1, Counts{}, HalfOpen, Waited, 13*time.Second, 0)
	// One failed probe of three is more than a tenth: open again for twice as long, less a fifth by jitter.
	f(9*time.Second, 0, Counts{Requests: 1}, HalfOpen, NoCause, 13*time.Second, 0)
	f(10*time.Second, 1, Counts{Requests: 1, Failures: 1}, Open, ProbesFailed, 18*time.Second, 0)
	// Twice again and again, up to the longest.
	f(18*time.Second, 0, Counts{}, HalfOpen, Waited, 26*time.Second, 0)
	f(19*time.Second, 0, Counts{Requests: 1, Failures: 1}, Open, ProbesFailed, 39*time.Second, 0)
	f(39*time.Second, 0, Counts{}, HalfOpen, Waited, 59*time.Second, 0)
	f(40*time.Second, 0, Counts{Requests: 1, Failures: 1}, Open, ProbesFailed, 80*time.Second, 0)
	f(80*time.Second, 0, Counts{}, HalfOpen, Waited, 120*time.Second, 0)
	f(81*time.Second, 0, Counts{Requests: 1, Failures: 1}, Open, ProbesFailed, 141*time.Second, 0)
	f(141*time.Second, 0, Counts{}, HalfOpen, Waited, 201*time.Second, 0)
	f(142*time.Second, 0.5, Counts{Requests: 1, Failures: 1}, Open, ProbesFailed, 196*time.Second, 0)
	// Three that come back well close it, and the share rises within the ramp.
	f(196*time.Second, 0, Counts{}, HalfOpen, Waited, 250*time.Second, 0)
	f(197*time.Second, 0, Counts{Requests: 2}, HalfOpen, NoCause, 250*time.Second, 0)
	f(200*time.Second, 0, Counts{Requests: 1}, Normal, ProbesPassed, 0, 0)
	f(201*time.Second, 0, Counts{Requests: 10}, Normal, NoCause, 0, 0.1)
	f(205*time.Second, 0, fine, Normal, NoCause, 0, 0.5)
	f(210*time.Second, 0, fine, Normal, NoCause, 0, 1)
	// What fails before it stayed closed for a ramp and a window doubles on.
	f(219*time.Second, 0, bad, Open, TooManyFail, 279*time.Second, 0)
	f(279*time.Second, 0, Counts{}, HalfOpen, Waited, 339*time.Second, 0)
	f(280*time.Second, 0, Counts{Requests: 3}, Normal, ProbesPassed, 0, 0)
	// Later it begins anew.
	f(290*time.Second, 0, fine, Normal, NoCause, 0, 1)
	f(299*time.Second, 0, fine, Normal, NoCause, 0, 1)
	f(300*time.Second, 1, bad, Open, TooManyFail, 305*time.Second, 0)
	// A tick that comes very late goes on from where it was, step by step.
	f(time.Hour, 0, Counts{}, HalfOpen, Waited, time.Hour+5*time.Second, 0)
	// A step back does nothing.
	f(time.Second, 0, Counts{}, HalfOpen, NoCause, time.Hour+5*time.Second, 0)
}

// TestProbes sees how probes are judged, by the ratios and as parts of all probes.
func TestProbes(t *testing.T) {
	f := func(change func(s *Settings), c Counts, want Cause) {
		t.Helper()
		j := NewJudge(0, onlyCalls(t, change))
		j.Step(second, Counts{Requests: 100, Failures: 100, Slow: 100, Streak: 100}, 0)
		if tr, _ := j.Step(6*second, Counts{}, 0); tr.To != HalfOpen {
			t.Fatalf("%+v", tr)
		}
		if tr, _ := j.Step(7*second, c, 0); tr.Cause != want {
			t.Errorf("%+v: %+v, want cause %v", c, tr, want)
		}
	}
	// Three of them.
	f(nil, Counts{Requests: 3}, ProbesPassed)
	f(nil, Counts{Requests: 2}, NoCause)
	f(nil, Counts{Requests: 1, Failures: 1}, ProbesFailed)
	f(nil, Counts{Requests: 3, Failures: 1}, ProbesFailed)
	f(nil, Counts{Requests: 3, Slow: 1}, ProbesPassed)
	f(nil, Counts{Requests: 2, Slow: 2}, ProbesFailed)
	// Many of them, where one that fails is not yet a tenth.
	many := func(s *Settings) { s.Open.Probes = 100 }
	f(many, Counts{Requests: 9, Failures: 9}, NoCause)
	f(many, Counts{Requests: 10, Failures: 10}, ProbesFailed)
	f(many, Counts{Requests: 100, Failures: 9}, ProbesPassed)
	// Hard failures in a row where the ratio is not judged, and fewer probes than would open it.
	hard := func(s *Settings) { s.Failures.Ratio, s.Failures.Consecutive = 0, 5 }
	f(hard, Counts{Requests: 3, Failures: 3, Streak: 3}, ProbesFailed)
	f(hard, Counts{Requests: 2, Failures: 2, Streak: 2}, NoCause)
	f(hard, Counts{Requests: 3, Failures: 2, Streak: 2}, ProbesPassed)
}

// TestTransitionSaysWhy sees the numbers that a transition stands on.
func TestTransitionSaysWhy(t *testing.T) {
	j := NewJudge(0, valid(t, func(s *Settings) { s.Failures.Consecutive = 50 }))
	f := func(now int64, c Counts, want Transition) {
		t.Helper()
		if got, _ := j.Step(now, c, 0); got != want {
			t.Errorf("%+v\nwant %+v", got, want)
		}
	}
	for i := int64(1); i <= 12; i++ {
		f(5*i*second, Counts{Offered: 600, Passed: 500, Requests: 500, Failures: 20, Slow: 30}, Transition{})
	}
	// The rate, with the calls as they were at the time.
	c := Counts{Offered: 900, Passed: 800, Requests: 800, Failures: 20, Slow: 40, Streak: 2}
	f(65*second, c, Transition{})
	f(70*second, c, Transition{})
	f(75*second, c, Transition{
		At: 75 * second, From: Normal, To: Degraded, Cause: Rise,
		Numbers: Numbers{Offered: 180, Rate: 160, Baseline: 100, High: 135, Requests: 1600, Failures: 40, Slow: 80, Streak: 2},
	})
	// The calls, with the last sample.
	f(76*second, Counts{Offered: 100, Passed: 100, Requests: 100, Failures: 100, Streak: 50}, Transition{
		At: 76 * second, From: Degraded, To: Open, Cause: Consecutive, Until: 81 * second,
		Numbers: Numbers{Offered: 180, Rate: 160, Baseline: 100, High: 135, Requests: 1700, Failures: 140, Slow: 80, Streak: 50},
	})
}

// TestBothDetectors sees that the rate is judged while calls are stopped, and shows when they are not any more.
func TestBothDetectors(t *testing.T) {
	j := NewJudge(0, valid(t, nil))
	var h heard
	now := int64(0)
	f := func(until time.Duration, c Counts) {
		t.Helper()
		for now < int64(until) {
			now += second
			tr, changed := j.Step(now, c, 0)
			h.hear(t, tr, changed)
		}
	}
	f(5*time.Minute, offer(100))
	// Everything fails, and clients try again and again.
	f(5*time.Minute+time.Second, Counts{Offered: 100, Passed: 100, Requests: 100, Failures: 100})
	f(6*time.Minute, offer(300))
	f(6*time.Minute+time.Second, Counts{Offered: 300, Passed: 300, Requests: 3})
	f(6*time.Minute+20*time.Second, Counts{Offered: 300, Passed: 300, Requests: 300})
	f(7*time.Minute, Counts{Offered: 100, Passed: 100, Requests: 100})
	h.want(t,
		"5:01 normal → open: too_many_fail",
		"5:06 open → half_open: waited",
		"6:01 half_open → degraded: probes_passed",
		"6:35 degraded → normal: back")
}
