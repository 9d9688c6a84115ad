package breaker

import "time"

// circuit says whether calls are let through at all: Normal, Open or HalfOpen. Each change begins a generation,
// and only calls that were admitted in it count.
type circuit struct {
	phase      Level
	generation uint64
	since      int64         // of the phase
	until      int64         // Open: when probes are let through. HalfOpen: when silent ones are replaced
	wait       time.Duration // the last time it was open
	openings   int           // since it was last closed for long enough
	probes     int64         // HalfOpen: how many may be let through in this round
	round      int           // of probes
	recent     window        // of calls, when Normal
	probed     calls         // of probes, when HalfOpen
	seen       Numbers       // what was judged last; its calls only
}

// step adds what was counted since the last step. jitter is what a wait that was doubled is shortened by: 0 to 1 mean nothing
// to a fifth.
func (c *circuit) step(s *Settings, now int64, n Counts, jitter float64) Cause {
	ended := calls{n.Requests, n.Failures, n.Slow}
	switch c.phase {
	case Open:
		if now < c.until {
			return NoCause
		}
		c.enter(HalfOpen, now)
		c.until = now + int64(c.wait)
		c.probes = s.Open.Probes
		return Waited
	case HalfOpen:
		c.probed.add(ended)
		return c.judgeProbes(s, now, n.Streak, jitter)
	}
	c.recent.add(now, s.Failures.Window, ended)
	c.see(c.recent.sum, n.Streak)
	if c.openings > 0 && now-c.since >= int64(s.Open.Ramp+s.Failures.Window) {
		c.openings = 0
	}
	cause := s.Failures.judge(c.seen)
	if cause != NoCause {
		c.open(s, now, jitter)
	}
	return cause
}

// judge says what of the calls opens, if anything does.
func (f *Failures) judge(n Numbers) Cause {
	switch {
	case f.Consecutive > 0 && n.Streak >= f.Consecutive:
		return Consecutive
	case n.Requests < f.MinRequests:
		return NoCause
	case reached(n.Failures, n.Requests, f.Ratio):
		return TooManyFail
	case reached(n.Slow, n.Requests, f.SlowRatio):
		return TooManySlow
	}
	return NoCause
}

// judgeProbes measures probes by the same ratios, as parts of all probes: so one that fails is enough as soon as those that are
// still out could not make up for it.
func (c *circuit) judgeProbes(s *Settings, now int64, streak int64, jitter float64) Cause {
	c.see(c.probed, streak)
	f, all := &s.Failures, s.Open.Probes
	switch {
	case reached(c.probed.failures, all, f.Ratio), reached(c.probed.slow, all, f.SlowRatio), streak > 0 && streak >= f.inARow(all):
		c.open(s, now, jitter)
		return ProbesFailed
	case c.probed.requests >= all:
		c.enter(Normal, now)
		return ProbesPassed
	case now >= c.until:
		c.until = now + int64(c.wait)
		c.probes = all - c.probed.requests
		c.round++
	}
	return NoCause
}

// inARow returns how many hard failures in a row are enough when there are only so many calls; 0 if none are.
func (f *Failures) inARow(calls int64) int64 { return min(f.Consecutive, calls) }

// reached says whether n of all are at least a part of them. A part of 0 is not judged.
func reached(n, all int64, part float64) bool {
	return n > 0 && part > 0 && float64(n)/float64(all) >= part
}

// open stops calls for a while: twice as long as the last time, unless that is long ago.
func (c *circuit) open(s *Settings, now int64, jitter float64) {
	c.wait = s.Open.For
	if c.openings > 0 {
		c.wait = s.Open.MaxFor
		if shift := c.openings; shift < 32 && s.Open.For < s.Open.MaxFor>>shift {
			c.wait = s.Open.For << shift
		}
		c.wait -= time.Duration(float64(c.wait) * min(max(jitter, 0), 1) / 5)
	}
	c.openings++
	c.enter(Open, now)
	c.until = now + int64(c.wait)
}

// enter begins a phase and a generation.
func (c *circuit) enter(phase Level, now int64) {
	*c = circuit{
		phase: phase, generation: c.generation + 1, since: now, wait: c.wait, openings: c.openings, seen: c.seen,
		recent: window{last: now},
	}
}

// see keeps what a judgement stands on.
func (c *circuit) see(n calls, streak int64) {
	c.seen = Numbers{Requests: n.requests, Failures: n.failures, Slow: n.slow, Streak: streak}
}
