package breaker

import (
	"sync"
	"sync/atomic"
	"time"
)

// Breaker is the breaker of one target: counters that requests write, terms that they read, and a judge between the two. All
// methods may be called concurrently. Requests never wait for a tick.
type Breaker struct {
	*counters
	view atomic.Pointer[view]

	mu    sync.Mutex // guards what follows; no request takes it
	judge Judge
	last  totals // when they were last collected; calls of the generation in view
}

// New returns a breaker at level Normal that has seen nothing. s is valid and must not change any more.
func New(now int64, s *Settings) *Breaker {
	b := &Breaker{counters: new(counters), judge: newJudge(now, s)}
	b.publish()
	return b
}

// Offer counts a request, once for each, as soon as it is known whether it passed the limits of its tenant. Those that the breaker
// itself turned away are counted as well, by what their limits would have said: otherwise shedding would look like
// recovery. stripe spreads concurrent callers over several lines of memory: any number that tends to differ between
// goroutines, such as that of a connection. It changes the cost and nothing else.
func (b *Breaker) Offer(stripe uint32, passed bool) {
	l := &b.lines[stripe%stripes]
	if passed {
		l.passed.Add(1)
	} else {
		l.denied.Add(1)
	}
}

// Admit says whether a request may go on. random is a number of the request's own, all 32 bits of it. core requests are not shed
// at Degraded.
func (b *Breaker) Admit(now int64, random uint32, core bool) Pass {
	v := b.view.Load()
	if v.free {
		return Pass{view: v}
	}
	return v.admit(now, random, core, true)
}

// Ask says what Admit would say now, and takes no probe. There is nothing to record.
func (b *Breaker) Ask(now int64, random uint32, core bool) Pass {
	p := b.view.Load().admit(now, random, core, false)
	p.view = nil
	return p
}

// Record counts how an admitted request ended; it is called exactly once for each, with [Ignored] for one that did not get as far
// as the target. One that was admitted before the last change of the circuit is ignored: it tells of another time. slow says that
// it took longer than it should; of an Ignored one it means nothing. stripe is as for Offer. The zero Pass is ignored.
func (b *Breaker) Record(p Pass, stripe uint32, o Outcome, slow bool) {
	if !p.OK() || p.view == nil {
		return
	}
	if o == Ignored {
		if p.Answer == Probe {
			p.view.left.Add(1)
		}
		return
	}
	v := b.view.Load()
	if p.view.generation != v.generation {
		return
	}
	b.record(stripe, v.generation, o, slow)
	if v.streak > 0 {
		b.streak.record(v.generation, o == HardFailure, v.streak)
	}
}

// Tick judges what was counted since the last tick: see [Judge.Step].
func (b *Breaker) Tick(now int64, jitter float64) (Transition, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, changed := b.judge.Step(now, b.collect(), jitter)
	b.publish()
	return t, changed
}

// Collect returns what was counted since the last Tick or Collect, for somebody else to judge.
func (b *Breaker) Collect() Counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.collect()
}

// Set puts other settings in force: see [Judge.Set].
func (b *Breaker) Set(now int64, s *Settings) (Transition, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, changed := b.judge.Set(now, s)
	b.publish()
	return t, changed
}

// Status returns how the breaker stands at now.
func (b *Breaker) Status(now int64) Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.judge.Status(now)
}

// AtRest says whether nothing is worth being remembered: see [Judge.AtRest].
func (b *Breaker) AtRest() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.judge.AtRest()
}

// State returns what the breaker has learned until now: see [Judge.State].
func (b *Breaker) State(now int64) State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.judge.State(now)
}

// Restore puts the breaker into a state, such as a fleet's: see [Judge.Restore].
func (b *Breaker) Restore(now int64, s State) (Transition, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, changed := b.judge.Restore(now, s)
	b.publish()
	return t, changed
}

// collect returns what was counted since it was last called.
func (b *Breaker) collect() Counts {
	generation := b.view.Load().generation
	t, l := b.total(generation), b.last
	b.last = t
	passed := int64(t.passed - l.passed)
	return Counts{
		Offered: passed + int64(t.denied-l.denied), Passed: passed,
		Requests: int64(t.requests - l.requests), Failures: int64(t.failures - l.failures), Slow: int64(t.slow - l.slow),
		Streak: b.streak.of(generation),
	}
}

// publish shows requests what the judge has decided, if that is new.
func (b *Breaker) publish() {
	old, t := b.view.Load(), b.judge.terms()
	if old != nil && old.terms == t {
		return
	}
	next := &view{terms: t}
	if old != nil && old.generation == t.generation && old.round == t.round {
		next.left = old.left
	} else {
		next.left = new(atomic.Int64)
		next.left.Store(t.probes)
	}
	if old == nil || old.generation != t.generation {
		calls := b.total(t.generation)
		b.last.requests, b.last.failures, b.last.slow = calls.requests, calls.failures, calls.slow
		b.streak.begin(t.generation)
	}
	b.view.Store(next)
}

// terms are what the judge has decided, as requests are told it.
type terms struct {
	phase      Level // Normal, HalfOpen or Open
	shed       bool  // NonCore
	free       bool  // all pass
	generation uint64
	round      int
	probes     int64 // to let through in this round
	since      int64 // of the phase
	until      int64
	ramp       time.Duration // how long after closing until all requests are let through; 0 when that is over
	shedFor    time.Duration // how long it takes at least until none is shed
	retryFor   time.Duration // how long whoever is refused is told to wait
	streak     int64         // of hard failures that is enough; 0 when they are not judged
}

// view is the terms and what is left of their probes.
type view struct {
	terms
	left *atomic.Int64 // shared by the views of one round
}

// admit is [Breaker.Admit] where the answer is not plain.
//
// Everybody who is refused is told to wait for the same length of time, and nobody for a moment in time: so those who do as they are
// told come back as evenly as they came. Waits that end together, or within the ramp, would bring back at once
// whoever came in all the time that it was open, and open it again.
func (v *view) admit(now int64, random uint32, core, take bool) Pass {
	p := Pass{view: v}
	switch {
	case v.phase == Open:
		p.Answer, p.RetryAfter = Refused, max(v.retryFor, time.Duration(v.until-now))
	case v.shed && !core:
		p.Answer, p.RetryAfter = Shed, v.shedFor
	case v.phase == HalfOpen && v.probe(take):
		p.Answer = Probe
	case v.phase == HalfOpen, v.ramp > 0 && now < v.passesAt(random):
		p.Answer, p.RetryAfter = Refused, v.retryFor
	}
	return p
}

// passesAt returns when the ramp lets requests of this random number through; from then on it always does.
func (t *terms) passesAt(random uint32) int64 {
	return t.since + int64(float64(t.ramp)*(float64(random)/(1<<32)))
}

// probe says whether there are probes left, and takes one of them.
func (v *view) probe(take bool) bool {
	for {
		n := v.left.Load()
		if n <= 0 {
			return false
		}
		if !take || v.left.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// share is the part of random numbers that pass at now.
func (t *terms) share(now int64) float64 {
	switch {
	case t.phase != Normal:
		return 0
	case t.ramp == 0:
		return 1
	}
	return min(max(float64(now-t.since)/float64(t.ramp), 0), 1)
}

// Answer is what a breaker says to a request.
type Answer uint8

// The answers.
const (
	Admitted Answer = iota // it may go on
	Probe                  // it may go on, and what becomes of it decides whether others may
	Shed                   // it is NonCore, and the rate has left its baseline
	Refused                // the target is spared
)

// Pass is the answer to one request, and what its end is recorded with. The zero Pass admits, and records nothing.
type Pass struct {
	Answer Answer
	// RetryAfter says, to one that may not go on, when it is worth another try. To one that is shed, it is the earliest end of
	// that. To one that is refused, as long as the last wait, and at least until the next probe; once there are probes,
	// as long as the ramp if that is longer.
	RetryAfter time.Duration

	view *view
}

// OK reports whether the request may go on.
func (p Pass) OK() bool { return p.Answer <= Probe }
