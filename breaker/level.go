package breaker

// Level is how much a breaker lets through; each level lets through less than the one before.
type Level uint8

// The levels.
const (
	Normal   Level = iota // all requests; just after HalfOpen a share of them, see [Opening.Ramp]
	Degraded              // requests that matter: NonCore ones are shed
	HalfOpen              // a few probes, which decide what follows
	Open                  // none
)

// String returns the snake_case name used in metrics and logs.
func (l Level) String() string {
	switch l {
	case Normal:
		return "normal"
	case Degraded:
		return "degraded"
	case HalfOpen:
		return "half_open"
	case Open:
		return "open"
	}
	return "invalid"
}

// Gauge returns the level as the metric breaker_level shows it: 0 normal, 1 degraded, 2 open, probes or not.
func (l Level) Gauge() int {
	switch l {
	case Normal:
		return 0
	case Degraded:
		return 1
	}
	return 2
}

// Cause says why a level changed.
type Cause uint8

// The causes.
const (
	NoCause      Cause = iota
	Rise               // the rate was above its corridor for Periods samples
	Fall               // the rate was below its corridor for Periods samples
	Back               // the rate was within its corridor for Recover samples
	Gap                // no sample for longer than the baseline reaches: it starts anew
	TooManyFail        // failed calls reached Ratio
	TooManySlow        // slow calls reached SlowRatio
	Consecutive        // so many hard failures in a row
	Waited             // it was open for as long as it had to be
	ProbesPassed       // enough probes came back, and well
	ProbesFailed       // too many probes failed or were slow
	Changed            // other settings, or a state from elsewhere
)

// String returns the snake_case name used in metrics and logs.
func (c Cause) String() string {
	switch c {
	case NoCause:
		return "none"
	case Rise:
		return "rise"
	case Fall:
		return "fall"
	case Back:
		return "back"
	case Gap:
		return "gap"
	case TooManyFail:
		return "too_many_fail"
	case TooManySlow:
		return "too_many_slow"
	case Consecutive:
		return "consecutive"
	case Waited:
		return "waited"
	case ProbesPassed:
		return "probes_passed"
	case ProbesFailed:
		return "probes_failed"
	case Changed:
		return "changed"
	}
	return "invalid"
}

// Outcome is how a call ended, as far as the target is to blame. Whose fault counts is the caller's to say.
type Outcome uint8

// The outcomes.
const (
	Ignored     Outcome = iota // says nothing about the target: a client left or sent garbage, or we refused it ourselves
	Success                    // the target answered as it should
	Failure                    // the target answered, but with what counts as a failure
	HardFailure                // no answer at all: refused, reset or timed out. It is a Failure, and may be one of several in a row
)

// Numbers are what a judgement stands on.
type Numbers struct {
	// Of the last sample, in requests a second: all that were offered, and those that passed the limits of their tenant.
	// Rate is the one that is judged.
	Offered, Rate float64
	// Baseline is the median that Rate was compared with; 0 until a fifth of it has been seen. Low and High are the corridor
	// around it, ends included; 0 where that side is not judged.
	Baseline, Low, High float64
	// Calls that ended in the window (in HalfOpen: of the probes), those that failed, those that were slow, and how many
	// of the last in a row failed hard. The last is counted only up to what is judged.
	Requests, Failures, Slow, Streak int64
}

// Transition is a change of level, with what it stood on. It is a value for the caller to announce.
type Transition struct {
	At       int64 // ns, on the clock of now
	From, To Level
	Cause    Cause
	Numbers  Numbers
	Until    int64 // to Open: when probes are let through; to HalfOpen: when silent ones are replaced; otherwise 0
}
