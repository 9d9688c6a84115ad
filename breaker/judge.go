package breaker

import "time"

// Judge is the judgement of one breaker: its state, stepped by counts and time. It holds no counters, so that
// the sum of several sidecars can be judged like the counts of one. It is not safe for concurrent use.
type Judge struct {
	settings *Settings
	now      int64 // of the last step
	since    int64 // of the level
	circuit  circuit
	rate     detector
}

// NewJudge returns a judge at level Normal that has seen nothing. s is valid and must not change any more.
func NewJudge(now int64, s *Settings) *Judge {
	j := newJudge(now, s)
	return &j
}

func newJudge(now int64, s *Settings) Judge {
	now = sane(now, 0)
	return Judge{settings: s, now: now, since: now, rate: detector{begun: now}, circuit: circuit{recent: window{last: now}}}
}

// sane bounds now: it does not go back, and it can be added to.
func sane(now, last int64) int64 { return min(max(now, last), 1<<62) }

// Step judges what was counted since the last step, and returns the change of level if there is one. It is called
// at least every [Settings.Every]; late, it judges late, and counts of which nobody knows when they came are left out. A now that
// goes back counts as the last one. jitter is a random number from 0 to 1, so that breakers that open together do
// not try again together.
func (j *Judge) Step(now int64, c Counts, jitter float64) (Transition, bool) {
	from := j.Level()
	j.now = sane(now, j.now)
	cause := NoCause
	if j.settings.judgesRate() {
		cause = j.rate.step(&j.settings.QPS, j.now, c, j.circuit.phase != Normal)
	}
	if j.settings.judgesCalls() {
		if opened := j.circuit.step(j.settings, j.now, c, jitter); opened != NoCause {
			cause = opened
		}
	}
	return j.transition(from, cause)
}

// Set puts other settings in force and keeps what was learned: the rates of the baseline, the level, and the calls in the
// window if that is as long as before. What is no longer judged is Normal. s is valid and must not change any more.
func (j *Judge) Set(now int64, s *Settings) (Transition, bool) {
	from, old := j.Level(), j.settings
	j.now, j.settings = sane(now, j.now), s
	switch {
	case !s.judgesRate() || !old.judgesRate():
		j.rate = detector{begun: j.now}
	case s.QPS.Sample != old.QPS.Sample || s.QPS.Baseline != old.QPS.Baseline:
		j.rate.remember(&s.QPS, j.rate.history())
	}
	switch {
	case !s.judgesCalls():
		if j.circuit.phase != Normal {
			j.circuit.enter(Normal, j.now)
		}
		j.circuit.openings = 0
	case s.Failures.Window != old.Failures.Window:
		j.circuit.recent = window{last: j.now}
	}
	return j.transition(from, Changed)
}

func (j *Judge) transition(from Level, cause Cause) (Transition, bool) {
	to := j.Level()
	if to == from {
		return Transition{}, false
	}
	j.since = j.now
	return Transition{At: j.now, From: from, To: to, Cause: cause, Numbers: j.numbers(), Until: j.circuit.until}, true
}

// Level returns the level in force.
func (j *Judge) Level() Level {
	if j.circuit.phase == Normal && j.rate.degraded {
		return Degraded
	}
	return j.circuit.phase
}

// AtRest says whether a new judge could stand in for this one: there was nothing to count in the last window and for as long as the
// baseline reaches, and it is at level Normal and was not open lately. One that is HalfOpen is at rest once it has waited for
// enough probes, in vain, for as long as it is ever open.
func (j *Judge) AtRest() bool {
	c, d := &j.circuit, &j.rate
	if c.phase == HalfOpen {
		return j.now-c.since >= int64(j.settings.Open.MaxFor) && d.silent()
	}
	return c.phase == Normal && c.openings == 0 && c.recent.sum.requests == 0 && !d.degraded && d.silent()
}

func (j *Judge) numbers() Numbers {
	n, calls := j.rate.last, j.circuit.seen
	n.Requests, n.Failures, n.Slow, n.Streak = calls.Requests, calls.Failures, calls.Slow, calls.Streak
	return n
}

// Status is how a breaker stands, for pages and metrics.
type Status struct {
	Level   Level
	Since   int64   // of the level
	Numbers Numbers // of the last sample, and of the calls that were judged last
	Until   int64   // as in Transition; otherwise 0
	Share   float64 // of requests that the circuit lets through at now: 0 unless Normal or Degraded, below 1 on the ramp
}

// Status returns how the breaker stands at now.
func (j *Judge) Status(now int64) Status {
	t := j.terms()
	return Status{Level: j.Level(), Since: j.since, Numbers: j.numbers(), Until: t.until, Share: t.share(now)}
}

// terms are what requests are told from.
func (j *Judge) terms() terms {
	t := terms{phase: j.circuit.phase, generation: j.circuit.generation, since: j.circuit.since, until: j.circuit.until, round: j.circuit.round}
	if t.shed = j.rate.degraded; t.shed {
		t.shedFor = j.settings.QPS.Sample * time.Duration(j.settings.QPS.Recover)
	}
	t.streak = j.settings.Failures.Consecutive
	if t.phase == HalfOpen {
		t.streak = j.settings.Failures.inARow(j.settings.Open.Probes)
		t.probes = j.circuit.probes
	}
	if j.circuit.openings > 0 {
		t.ramp = j.settings.Open.Ramp
		t.retryFor = max(j.circuit.wait, t.ramp)
	}
	if t.phase == Open {
		t.retryFor = j.circuit.wait
	}
	t.free = t.phase == Normal && !t.shed && t.ramp == 0
	return t
}
