package breaker

import (
	"math"
	"testing"
	"time"
)

func TestSettingsAreValid(t *testing.T) {
	f := func(change func(s *Settings), wantEvery time.Duration) {
		t.Helper()
		if got := valid(t, change).Every(); got != wantEvery {
			t.Errorf("every %v, want %v", got, wantEvery)
		}
	}
	// The defaults of the policy; nothing; one of the two.
	f(nil, time.Second)
	f(func(s *Settings) { *s = Settings{} }, time.Second)
	f(func(s *Settings) { s.Failures, s.Open = Failures{}, Opening{} }, time.Second)
	f(func(s *Settings) { s.QPS = QPS{} }, time.Second)
	// The shortest.
	f(func(s *Settings) { s.QPS.Sample = 200 * time.Millisecond }, 200*time.Millisecond)
	f(func(s *Settings) { s.Failures.Window = 3 * time.Second }, 300*time.Millisecond)
	f(func(s *Settings) { s.Failures.Window = 100 * time.Millisecond }, 100*time.Millisecond)
	f(func(s *Settings) { s.Open.For = 400 * time.Millisecond }, 400*time.Millisecond)
	f(func(s *Settings) { s.Open.For = time.Millisecond }, 100*time.Millisecond)
	// The longest.
	f(func(s *Settings) {
		s.QPS.Sample, s.QPS.Baseline, s.Failures.Window = longest, longest, longest
		s.Open = Opening{For: longest, MaxFor: longest, Probes: most, Ramp: longest}
	}, time.Second)
}

func TestSettingsAreNotValid(t *testing.T) {
	f := func(change func(s *Settings), want string) {
		t.Helper()
		s := usual()
		change(&s)
		want = "cannot make a breaker with " + want
		if err := s.Validate(); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	f(func(s *Settings) { s.QPS.Sample = 0 }, "a sample of 0s: legal are 100ms to 744h0m0s")
	f(func(s *Settings) { s.QPS.Sample = longest + 1 }, "a sample of 744h0m0.000000001s: legal are 100ms to 744h0m0s")
	f(func(s *Settings) { s.QPS.Baseline = time.Second }, "a baseline of 1s: legal are 5s, one sample, to 744h0m0s")
	f(func(s *Settings) { s.QPS.Deviation = 0 }, "a deviation of 0: legal are parts above 0")
	f(func(s *Settings) { s.QPS.Deviation = math.NaN() }, "a deviation of NaN: legal are parts above 0")
	f(func(s *Settings) { s.QPS.Periods = 0 }, "0 periods: legal are 1 to 1000000000")
	f(func(s *Settings) { s.QPS.Recover = -1 }, "recovery after -1 samples: legal are 1 to 1000000000")
	f(func(s *Settings) { s.QPS.Direction = 3 }, "direction 3: legal are Up, Down and Both")
	f(func(s *Settings) { s.QPS.MinRate = -1 }, "a least rate of -1: legal are 0 to 1000000000")
	f(func(s *Settings) { s.Failures.Window = time.Millisecond }, "a window of 1ms: legal are 100ms to 744h0m0s")
	f(func(s *Settings) { s.Failures.Ratio = 1.1 }, "a ratio of 1.1: legal are 0 to 1")
	f(func(s *Settings) { s.Failures.SlowRatio = math.NaN() }, "a ratio of slow calls of NaN: legal are 0 to 1")
	f(func(s *Settings) { s.Failures.MinRequests = 0 }, "judgement from 0 requests: legal are 1 to 1000000000")
	f(func(s *Settings) { s.Failures.Consecutive = -1 }, "-1 failures in a row: legal are 0 to 1000000000")
	f(func(s *Settings) { s.Open.For = 0 }, "0s open: legal are 1ms to 744h0m0s")
	f(func(s *Settings) { s.Open.MaxFor = time.Second }, "at most 1s open: legal are 5s, the first time, to 744h0m0s")
	f(func(s *Settings) { s.Open.Probes = 0 }, "0 probes: legal are 1 to 1000000000")
	f(func(s *Settings) { s.Open.Ramp = -1 }, "a ramp of -1ns: legal are 0s to 744h0m0s")
}

// TestNames sees that all have one, and what the metric shows.
func TestNames(t *testing.T) {
	f := func(l Level, want string, wantGauge int) {
		t.Helper()
		if l.String() != want || l.Gauge() != wantGauge {
			t.Errorf("%v, %d, want %s, %d", l, l.Gauge(), want, wantGauge)
		}
	}
	f(Normal, "normal", 0)
	f(Degraded, "degraded", 1)
	f(HalfOpen, "half_open", 2)
	f(Open, "open", 2)
	seen := make(map[string]bool)
	for c := NoCause; c <= Changed; c++ {
		if name := c.String(); seen[name] || name == "invalid" {
			t.Errorf("cause %d is called %s", c, name)
		}
		seen[c.String()] = true
	}
	if Level(9).String() != "invalid" || Cause(99).String() != "invalid" {
		t.Errorf("%v, %v", Level(9), Cause(99))
	}
}
