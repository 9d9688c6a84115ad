package breaker

import (
	"fmt"
	"time"
)

// Settings say what is judged and how. They are comparable, and shared by all breakers of one policy.
type Settings struct {
	QPS      QPS      // the zero value judges no rate
	Failures Failures // the zero value judges no calls
	Open     Opening  // needed with Failures
}

// Direction says which deviations count.
type Direction uint8

// The directions.
const (
	Up Direction = iota
	Down
	Both
)

// QPS compares the rate of requests with its own past.
type QPS struct {
	// Sample is the length of one sample: 100 ms to 744 h.
	Sample time.Duration
	// Baseline is how far back the past reaches: at least a sample, at most 744 h. It is kept in at most 60 parts.
	Baseline time.Duration
	// Deviation is the part of the baseline by which a rate may leave it; above 0.
	Deviation float64
	// Periods is how many samples in a row must deviate, and Recover how many must be back; both at least 1.
	Periods, Recover int
	// Direction is which side is judged.
	Direction Direction
	// MinRate, in requests a second, is the floor under which nothing is judged: a rise is measured from there at least, a
	// baseline below it cannot fall, and where both are 0 nothing rises. At least 0.
	MinRate float64
}

// Failures counts failed and slow calls in a sliding window.
type Failures struct {
	// Window is how far back calls count: 100 ms to 744 h. It slides in steps of a tenth.
	Window time.Duration
	// Ratio and SlowRatio are the parts of failed and of slow calls that open, from 0 to 1; 0 opens never.
	Ratio, SlowRatio float64
	// MinRequests is how many calls must be in the window before a ratio is judged; at least 1.
	MinRequests int64
	// Consecutive is how many hard failures in a row open, whatever the ratio; 0 opens never.
	Consecutive int64
}

// Opening says how long a breaker is open, and how it closes again.
type Opening struct {
	// For is how long it stays open at first: 1 ms to 744 h. Each reopening doubles that, up to MaxFor, less up to a fifth by
	// jitter. It starts from For again once the breaker stayed closed for a ramp and a window.
	For, MaxFor time.Duration
	// Probes is how many requests half-open lets through; at least 1. One that does not report in time, as long as the last
	// wait was, is replaced, so that it blocks nothing; its report counts whenever it comes.
	Probes int64
	// Ramp is how long the share of requests that are let through takes to rise from none to all after closing; 0 to 744 h.
	Ramp time.Duration
}

// Limits of durations, and of counts that must not overflow when multiplied.
const (
	minSample = 100 * time.Millisecond
	minFor    = time.Millisecond
	longest   = 744 * time.Hour
	most      = 1_000_000_000
)

// Validate returns an error that names the first value out of its range.
func (s *Settings) Validate() error {
	if q := &s.QPS; s.judgesRate() {
		switch {
		case q.Sample < minSample || q.Sample > longest:
			return illegal("a sample of %v", q.Sample, "%v to %v", minSample, longest)
		case q.Baseline < q.Sample || q.Baseline > longest:
			return illegal("a baseline of %v", q.Baseline, "%v, one sample, to %v", q.Sample, longest)
		case !(q.Deviation > 0 && q.Deviation <= most):
			return illegal("a deviation of %v", q.Deviation, "parts above 0")
		case q.Periods < 1 || q.Periods > most:
			return illegal("%d periods", q.Periods, "1 to %d", most)
		case q.Recover < 1 || q.Recover > most:
			return illegal("recovery after %d samples", q.Recover, "1 to %d", most)
		case q.Direction > Both:
			return illegal("direction %d", q.Direction, "Up, Down and Both")
		case !(q.MinRate >= 0 && q.MinRate <= most):
			return illegal("a least rate of %v", q.MinRate, "0 to %d", most)
		}
	}
	if f, o := &s.Failures, &s.Open; s.judgesCalls() {
		switch {
		case f.Window < minSample || f.Window > longest:
			return illegal("a window of %v", f.Window, "%v to %v", minSample, longest)
		case !(f.Ratio >= 0 && f.Ratio <= 1):
			return illegal("a ratio of %v", f.Ratio, "0 to 1")
		case !(f.SlowRatio >= 0 && f.SlowRatio <= 1):
			return illegal("a ratio of slow calls of %v", f.SlowRatio, "0 to 1")
		case f.MinRequests < 1 || f.MinRequests > most:
			return illegal("judgement from %d requests", f.MinRequests, "1 to %d", most)
		case f.Consecutive < 0 || f.Consecutive > most:
			return illegal("%d failures in a row", f.Consecutive, "0 to %d", most)
		case o.For < minFor || o.For > longest:
			return illegal("%v open", o.For, "%v to %v", minFor, longest)
		case o.MaxFor < o.For || o.MaxFor > longest:
			return illegal("at most %v open", o.MaxFor, "%v, the first time, to %v", o.For, longest)
		case o.Probes < 1 || o.Probes > most:
			return illegal("%d probes", o.Probes, "1 to %d", most)
		case o.Ramp < 0 || o.Ramp > longest:
			return illegal("a ramp of %v", o.Ramp, "0s to %v", longest)
		}
	}
	return nil
}

func illegal(what string, value any, legal string, args ...any) error {
	return fmt.Errorf("cannot make a breaker with "+what+": legal are "+legal, append([]any{value}, args...)...)
}

// Every returns the longest time between two ticks at which judgement is not late: 100 ms to 1 s.
func (s *Settings) Every() time.Duration {
	every := time.Second
	if s.judgesRate() {
		every = min(every, s.QPS.Sample)
	}
	if s.judgesCalls() {
		every = min(every, s.Failures.Window/buckets, s.Open.For)
	}
	return max(every, minSample)
}

func (s *Settings) judgesRate() bool  { return s.QPS != QPS{} }
func (s *Settings) judgesCalls() bool { return s.Failures != Failures{} }
