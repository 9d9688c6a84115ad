package admit

import "time"

// Waits says whether the request has neither passed nor been refused yet: it waits for its tenant's gate or for its backend, until
// [Table.Resume] says otherwise or [Table.Settle] gives up.
func (v *Verdict) Waits() bool { return v.wait != nil }

// Ready receives once when there is news for a request that waits.
func (v *Verdict) Ready() <-chan struct{} { return v.wait.ready }

// Until is when the wait of a request that waits ends at the latest, on the clock of now.
func (v *Verdict) Until() int64 { return v.wait.until }

// AtBackend says whether a request that waits has passed everything but its backend's capacity.
func (v *Verdict) AtBackend() bool { return v.wait.cell != nil }

// Resume is called after Ready or Until of a verdict that waits. The request has passed after it, is refused, or waits
// again: behind the gate of its tenant there may be the queue of its backend.
func (t *Table) Resume(now int64, m *Match, v *Verdict) {
	w := v.wait
	state := w.look(now)
	if state == inLine {
		return
	}
	cell := w.cell
	t.endWait(v)
	if cell != nil {
		t.arrived(now, m, v, cell, state)
		return
	}
	if state != called {
		t.crowded(now, m, v)
		return
	}
	if t.entered(now, m, v) || t.enter(now, m, v) {
		t.pass(now, m, v)
	}
}

// arrived ends the way of a request that a backend has called, or not.
func (t *Table) arrived(now int64, m *Match, v *Verdict, c *capacity, state waitState) {
	switch state {
	case called:
		v.backend = c
		t.conclude(now, m, v)
		return
	case timedOut:
		c.dropped[dropTimeout].Add(1)
	case pushedOut:
		c.dropped[dropFull].Add(1)
	}
	t.overload(now, m, v)
}

// overload refuses a request that its backend has no place for. What it spent is refunded.
func (t *Table) overload(now int64, m *Match, v *Verdict) {
	tn := m.Tenant
	tn.refund(tn.plan.on(m.Route.index).enforced, m.Cost)
	tn.leave(now)
	v.entered, v.Reason, v.firm = false, Overload, true
	t.conclude(now, m, v)
}

// beginWait makes a waiter. endWait lets go of it.
func (t *Table) beginWait(now int64, v *Verdict, cell *capacity, timeout time.Duration) *waiter {
	w := t.waiters.Get().(*waiter)
	w.cell, w.until = cell, now+int64(timeout)
	v.wait = w
	return w
}

// endWait is called when the line has told the waiter all it ever will.
func (t *Table) endWait(v *Verdict) {
	w := v.wait
	v.wait = nil
	select {
	case <-w.ready:
	default:
	}
	w.mu, w.cell = nil, nil
	t.waiters.Put(w)
}

// waitAtGate is for a request that found its tenant's gate full: true when there is a place for it after all. Else it is
// refused, or waits. Nobody waits who a bucket would refuse now.
func (t *Table) waitAtGate(now int64, m *Match, v *Verdict) bool {
	tn := m.Tenant
	queue := tn.plan.terms.Queue
	if queue.Length == 0 {
		t.crowded(now, m, v)
		return false
	}
	enforced := tn.plan.on(m.Route.index).enforced
	if denied := tn.strictest(Verdict{}, enforced, now, m.Cost); denied.Reason != Passed {
		*v = denied
		t.conclude(now, m, v)
		return false
	}
	w := t.beginWait(now, v, nil, queue.Timeout)
	state := t.gates.join(now, w, tn.seat, queue.Length, tn.bound())
	if state == inLine {
		return false
	}
	t.endWait(v)
	if state != called {
		t.crowded(now, m, v)
	}
	return state == called
}

// occupy takes the place at its backend that a request needs last. Without one it waits, or is refused.
func (t *Table) occupy(now int64, m *Match, v *Verdict) {
	c := t.backends[m.Backend]
	terms := c.terms.Load()
	most := terms.limit()
	if c.waiting.Load() == 0 && c.gate.Enter(most) {
		t.arrived(now, m, v, c, called)
		return
	}
	if terms.queue.Length == 0 {
		t.arrived(now, m, v, c, pushedOut)
		return
	}
	tn := m.Tenant
	w := t.beginWait(now, v, c, terms.queue.Timeout)
	state := c.join(now, w, tn, terms)
	if state == inLine {
		return
	}
	t.endWait(v)
	t.arrived(now, m, v, c, state)
}

// giveUp ends the wait of a request that ends while it waits. A place that it was called to meanwhile is the request's, for
// Settle to leave.
func (t *Table) giveUp(v *Verdict) {
	w := v.wait
	cell := w.cell
	state := w.quit()
	t.endWait(v)
	switch {
	case cell == nil:
		v.entered = state == called
	case state == called:
		v.backend = cell
	default:
		cell.dropped[dropGone].Add(1)
	}
}
