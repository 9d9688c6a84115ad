package breaker

import "sync/atomic"

// Counts are what happened to one target since they were last asked for, in one sidecar or in several.
type Counts struct {
	Offered int64 // requests that came
	Passed  int64 // of those, the ones that passed the limits of their tenant
	// Calls that ended, those that failed (hard or not), and those that were slow. Only calls that were admitted
	// since the last transition to or from Open and HalfOpen; in HalfOpen these are the probes.
	Requests, Failures, Slow int64
	// Streak is how many calls failed hard in a row up to now; it stays once it is as long as opens a breaker.
	Streak int64
}

// Add returns the counts of two sidecars together.
func (c Counts) Add(other Counts) Counts {
	return Counts{
		Offered: c.Offered + other.Offered, Passed: c.Passed + other.Passed,
		Requests: c.Requests + other.Requests, Failures: c.Failures + other.Failures, Slow: c.Slow + other.Slow,
		Streak: max(c.Streak, other.Streak),
	}
}

// stripes are how many lines of counters a breaker has, so that goroutines on several cores seldom write the same one.
const stripes = 4

const lineSize = 64 // bytes of a cache line

// line is one cache line of counters that only grow. Calls are counted apart for every other generation, so that one that is
// counted while the generation changes falls to the old one.
type line struct {
	passed, denied atomic.Uint64
	calls          [2]struct{ requests, failures, slow atomic.Uint64 }
}

// counters are everything that requests write. They are whole cache lines, and allocated by themselves, so that none is shared with
// what requests read.
type counters struct {
	lines  [stripes]line
	streak streak
	_      [lineSize - 8]byte
}

// totals are sums over the lines.
type totals struct{ passed, denied, requests, failures, slow uint64 }

// total sums up, with the calls of a generation.
func (c *counters) total(generation uint64) totals {
	var t totals
	for i := range c.lines {
		l := &c.lines[i]
		t.passed += l.passed.Load()
		t.denied += l.denied.Load()
		calls := &l.calls[generation%2]
		// Failures first: of a call that is being counted, the request may be seen without its failure, not the reverse.
		t.failures += calls.failures.Load()
		t.slow += calls.slow.Load()
		t.requests += calls.requests.Load()
	}
	return t
}

// record counts the end of a call of a generation.
func (c *counters) record(stripe uint32, generation uint64, o Outcome, slow bool) {
	calls := &c.lines[stripe%stripes].calls[generation%2]
	calls.requests.Add(1)
	if o != Success {
		calls.failures.Add(1)
	}
	if slow {
		calls.slow.Add(1)
	}
}

// streak counts hard failures in a row, of one generation: the generation above, the count below. All calls share it, but only
// failures, and the first success after one, write it.
type streak struct{ word atomic.Uint64 }

const streakBits = 32

// of returns the count of a generation.
func (s *streak) of(generation uint64) int64 { return ofStreak(s.word.Load(), generation) }

func ofStreak(word, generation uint64) int64 {
	if word>>streakBits != generation&(1<<streakBits-1) {
		return 0
	}
	return int64(word & (1<<streakBits - 1))
}

// begin starts a generation.
func (s *streak) begin(generation uint64) { s.word.Store(generation << streakBits) }

// record counts the end of a call: a hard failure makes the streak longer, anything else ends it, unless it is as long as enough
// already. Calls of another generation than the one that was begun are ignored.
func (s *streak) record(generation uint64, hard bool, enough int64) {
	for {
		word := s.word.Load()
		n := ofStreak(word, generation)
		if n >= enough || !hard && n == 0 || word>>streakBits != generation&(1<<streakBits-1) {
			return
		}
		next := word + 1
		if !hard {
			next = generation << streakBits
		}
		if s.word.CompareAndSwap(word, next) {
			return
		}
	}
}
