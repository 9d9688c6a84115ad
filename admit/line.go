package admit

import (
	"sync"
	"sync/atomic"

	"weir/limit"
)

// line is the requests that wait for a place behind one gate, a tenant's or a backend's. While nobody waits, the gate alone
// decides and nobody takes the lock.
type line struct {
	// waiting is how many wait. Who joins raises it before looking at the gate for the last time, and who leaves the gate
	// looks at it afterwards, so no place stays free while somebody waits.
	waiting *atomic.Int32
	mu      *sync.Mutex // guards what follows

	queue limit.FairQueue
	pacer *pacer // nil: whoever is called goes at once
	bound bound  // the latest that was said
	home  *stripe
	seat  *seat // of the tenant whose gate it is before; nil: a backend's, which stays
}

// bound is a gate and how many may be behind it. A request of an older table may still bring what the older policy says: the
// bound of the latest generation holds.
type bound struct {
	gate       *limit.Gate
	most       int64
	generation uint64
}

// waiter is one request in a line. It is pooled: channels and entries are made once.
type waiter struct {
	entry limit.Entry
	ready chan struct{} // holds one piece of news at most
	cell  *capacity     // of which backend; nil: the tenant's gate
	until int64         // when the wait ends at the latest
	mu    *sync.Mutex   // the line's; guards what follows
	line  *line         // valid while it waits in line
	state waitState
	goes  int64 // when one that was called goes
}

// waitState is how far a wait has come.
type waitState uint8

const (
	inLine    waitState = iota
	called              // it has a place
	timedOut            // its time is over
	pushedOut           // others made it give up its turn, or there was no room for it
)

func newWaiter() any {
	w := &waiter{ready: make(chan struct{}, 1)}
	w.entry.Owner = w
	return w
}

// join puts w at the end of a flow, for a place within the bound. The state says what became of it at once. The line is locked.
func (l *line) join(now int64, w *waiter, flow string, weight int64, room int, b bound) waitState {
	w.mu, w.line, w.state = l.mu, l, inLine
	l.expire(now)
	l.waiting.Add(1)
	l.set(b)
	l.call(now)
	if dropped := l.queue.Push(&w.entry, flow, weight, w.until, room); dropped != nil {
		l.end(dropped, pushedOut)
	}
	l.call(now)
	return w.at(now)
}

// next calls those who can have a place now. The line is locked.
func (l *line) next(now int64, b bound) {
	l.expire(now)
	l.set(b)
	l.call(now)
}

// unlock lets go of a line. One before a tenant's gate in which nobody waits any more serves another tenant.
func (l *line) unlock() {
	mu := l.mu
	if l.seat != nil && l.queue.Len() == 0 {
		l.home.forget(l)
	}
	mu.Unlock()
}

// set notes a bound. The line is locked.
func (l *line) set(b bound) {
	if b.generation >= l.bound.generation {
		l.bound = b
	}
}

// look says how far a wait has come at now.
func (w *waiter) look(now int64) waitState {
	w.mu.Lock()
	if w.state == inLine && now >= w.until {
		l := w.line
		l.queue.Remove(&w.entry)
		l.end(&w.entry, timedOut)
		l.unlock()
		return timedOut
	}
	defer w.mu.Unlock()
	return w.at(now)
}

// at says how far the wait has come. Who is called and does not go yet still waits, and now knows until when. The line is locked.
func (w *waiter) at(now int64) waitState {
	if w.state == called && now < w.goes {
		w.until = w.goes
		return inLine
	}
	return w.state
}

// quit ends a wait, and says how far it had come.
func (w *waiter) quit() waitState {
	w.mu.Lock()
	if w.state != inLine {
		defer w.mu.Unlock()
		return w.state
	}
	l := w.line
	l.queue.Remove(&w.entry)
	l.waiting.Add(-1)
	l.unlock()
	return inLine
}

// call lets in whoever is next as long as there are places. The line is locked.
func (l *line) call(now int64) {
	for l.queue.Len() > 0 && l.bound.gate.Enter(l.bound.most) {
		w := l.queue.Pop().Owner.(*waiter)
		if w.goes = now; l.pacer != nil {
			w.goes = min(l.pacer.turn(now, l.bound.most, l.queue.Len() > 0), w.until)
		}
		l.end(&w.entry, called)
	}
}

// expire sends away those whose time is over. The line is locked.
func (l *line) expire(now int64) {
	for e := l.queue.Expired(now); e != nil; e = l.queue.Expired(now) {
		l.end(e, timedOut)
	}
}

// end tells a waiter that is out of the queue. The line is locked.
func (l *line) end(e *limit.Entry, state waitState) {
	w := e.Owner.(*waiter)
	l.waiting.Add(-1)
	w.state, w.line = state, nil
	select {
	case w.ready <- struct{}{}:
	default:
		panic("BUG: a waiter was told twice")
	}
}
