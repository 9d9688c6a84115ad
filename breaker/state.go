package breaker

import (
	"math"
	"time"
)

// State is what a judge has learned, without the calls of its window, which are there again within one. Times are
// relative, so that it can be carried to another process: a fleet's level to its sidecars, or a judge's work to its successor.
type State struct {
	Degraded   bool
	Circuit    Level         // Normal, HalfOpen or Open
	Generation uint64        // grows by one with each change of Circuit
	Since      time.Duration // how long ago Circuit changed
	Until      time.Duration // how long until probes are let through (Open), or replaced (HalfOpen)
	Wait       time.Duration // how long it was or is open
	Openings   int           // without a lasting close between
	Probes     int64         // HalfOpen: how many may be let through in this round; of a fleet, a part for each sidecar
	Round      int           // of probes
	Rates      []float64     // that the baseline stands on, oldest first
	Run        int           // samples in a row that speak for a change of Degraded
	Skipped    bool          // the last rate was left out, while only every other one is let in
}

// State returns what the judge has learned until now.
func (j *Judge) State(now int64) State {
	now = sane(now, j.now)
	c := &j.circuit
	s := State{
		Degraded: j.rate.degraded, Run: j.rate.run, Skipped: j.rate.skipped, Rates: j.rate.history(),
		Circuit: c.phase, Generation: c.generation, Since: time.Duration(now - c.since), Wait: c.wait,
		Openings: c.openings, Probes: c.probes, Round: c.round,
	}
	if c.phase != Normal {
		s.Until = time.Duration(max(c.until-now, 0))
	}
	return s
}

// Restore puts the judge into a state. What it has counted stays if the state is of the same generation. A state from
// elsewhere can do no lasting harm: what is not judged here stays Normal, a wait is bounded by MaxFor, and rates that are
// none are left out.
func (j *Judge) Restore(now int64, state State) (Transition, bool) {
	from := j.Level()
	j.now = sane(now, j.now)
	if j.settings.judgesRate() {
		rates := make([]float64, 0, len(state.Rates))
		for _, r := range state.Rates {
			if r >= 0 && r <= math.MaxInt64 {
				rates = append(rates, r)
			}
		}
		j.rate.remember(&j.settings.QPS, rates)
		j.rate.begun, j.rate.offered, j.rate.passed = j.now, 0, 0
		j.rate.degraded, j.rate.run, j.rate.skipped = state.Degraded, max(state.Run, 0), state.Skipped
	}
	if j.settings.judgesCalls() {
		j.circuit.restore(j.now, &j.settings.Open, state)
	}
	return j.transition(from, Changed)
}

func (c *circuit) restore(now int64, o *Opening, state State) {
	phase := Normal
	if state.Circuit == Open || state.Circuit == HalfOpen {
		phase = state.Circuit
	}
	if c.phase != phase || c.generation != state.Generation {
		c.enter(phase, now)
		c.generation = state.Generation
	}
	bounded := func(d time.Duration) int64 { return int64(min(max(d, 0), o.MaxFor)) }
	c.since = max(now-int64(min(max(state.Since, 0), longest)), 0)
	c.wait = time.Duration(bounded(state.Wait))
	c.openings, c.probes, c.round = max(state.Openings, 0), min(max(state.Probes, 0), o.Probes), state.Round
	c.until = 0
	if phase != Normal {
		c.until = now + bounded(state.Until)
		c.openings, c.wait = max(c.openings, 1), max(c.wait, o.For)
	}
}
