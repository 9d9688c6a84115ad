package admit

import (
	"time"

	"weir/limit"
)

// Verdict is the answer to "may this pass". While it waits, the answer is not known yet.
type Verdict struct {
	// Reason is Passed, Limited, Blocked, TooCostly, Concurrency, Overload, Shed or BreakerOpen; that of the Match when this was refused.
	Reason Reason

	firm    bool // refused by what no limit in shadow stands for
	entered bool // the gate, which Settle leaves
	settled bool

	Limit   *Limit // the limit that answered, with Limited, Blocked and TooCostly
	Breaker string // the BreakerPolicy that answered, with Shed and BreakerOpen
	// RetryAfter is, with Limited, how long to wait so that it is enough, if nobody else spends; with Shed and BreakerOpen, when it is
	// worth another try.
	RetryAfter time.Duration
	// Shadow is the limit in mode Shadow that would have refused the request, if those in shadow stood in the place of the
	// enforced ones of their names; nil when they would not have refused it, or were not asked.
	Shadow *Limit

	backend *capacity // of which it has a place, which Settle leaves
	wait    *waiter   // nil: it does not wait
}

// Decide says whether a request may pass, and spends its cost: first the breakers of its route and its backend, then the tenant's
// gate, then every enforced limit in requests that applies, the tenant's own in the order of its plan and then those it shares,
// and last a place at its backend. It is all or nothing: when one denies, what was spent before is refunded and the gate left.
// The limits after it are still asked, without spending, and the strictest answer wins. The limits in shadow are then asked
// apart; see try.
//
// Where the gate or the backend has a queue, the verdict may wait: see [Verdict.Waits].
func (t *Table) Decide(now int64, m *Match) (v Verdict) {
	if m.Reason != Passed {
		v.Reason = m.Reason
		return v
	}
	if len(t.breakers) > 0 && !t.meet(now, m, &v) {
		return v
	}
	if t.enter(now, m, &v) {
		t.pass(now, m, &v)
	}
	return v
}

// enter takes the request through its tenant's gate. Where it does not get through, it is refused or waits.
func (t *Table) enter(now int64, m *Match, v *Verdict) bool {
	for {
		s := m.Tenant.seat
		if (s.waiting.Load() > 0 || !s.gate.Enter(m.Tenant.plan.most)) && !t.waitAtGate(now, m, v) {
			return false
		}
		if t.entered(now, m, v) {
			return true
		}
	}
}

// entered is called with a place behind the gate of the tenant's cell. If the cell was given away since Match, the place
// is none, and the cell is looked up anew: what is spent on a forgotten cell would be spent on nothing.
func (t *Table) entered(now int64, m *Match, v *Verdict) bool {
	tn := m.Tenant
	// A named tenant can have lost no more than a place among the cells on demand.
	if !tn.seat.evicted.Load() || t.named[tn.name] == tn {
		v.entered = true
		return true
	}
	tn.leave(now)
	if m.Tenant = t.place(now, tn.name); m.Tenant == nil {
		panic("BUG: an evicted tenant is no longer covered by its table")
	}
	return false
}

// pass takes a request that is behind the gate to its backend.
func (t *Table) pass(now int64, m *Match, v *Verdict) {
	tn := m.Tenant
	denied := tn.spend(tn.plan.on(m.Route.index).enforced, now, m.Cost)
	if denied.Reason == Passed {
		t.occupy(now, m, v)
		return
	}
	*v = denied
	t.conclude(now, m, v)
	tn.leave(now)
}

// crowded refuses a request for which there is no place behind its tenant's gate.
func (t *Table) crowded(now int64, m *Match, v *Verdict) {
	v.Reason, v.firm = Concurrency, true
	t.conclude(now, m, v)
}

// conclude is called once for each request that breakers let through, when it has passed or is refused.
func (t *Table) conclude(now int64, m *Match, v *Verdict) {
	m.passes.offer(m.random, v.withinLimits())
	t.compare(now, m, v)
}

// compare asks the limits in shadow, where there are any, about a request that is decided on.
func (t *Table) compare(now int64, m *Match, v *Verdict) {
	if tn := m.Tenant; tn.plan.tries {
		tn.try(v, tn.plan.on(m.Route.index).shadow, now, m.Cost)
	}
}

// withinLimits says whether a request that is decided on passed the limits of its tenant.
func (v *Verdict) withinLimits() bool { return v.Reason == Passed || v.Reason == Overload }

// try asks the limits in shadow what they would have said, if they stood in the place of the enforced ones of their names, and
// compares. All or nothing among themselves, they spend from buckets of their own. They see what passes, and what was refused by
// none but those that they stand for: their buckets are those of a sidecar that enforces them. What others refused, a gate or
// a backend among them, would be refused all the same. Limits in bytes refuse nothing, and have no part in it.
func (tn *Tenant) try(v *Verdict, shadow []check, now, n int64) {
	refused, wouldBe := 0, 0
	if v.Reason != Passed {
		refused = 1
	}
	if !v.firm {
		v.Shadow = tn.spend(shadow, now, n).Limit
	}
	if v.firm || v.Shadow != nil {
		wouldBe = 1
	}
	tn.requests().shadow[refused][wouldBe].Add(1)
}

// spend takes n tokens from each limit of the list, or from none.
func (tn *Tenant) spend(list []check, now, n int64) Verdict {
	for i := range list {
		if v := tn.take(&list[i], now, n); v.Reason != Passed {
			tn.refund(list[:i], n)
			return tn.strictest(v, list[i+1:], now, n)
		}
	}
	for i := range list {
		tn.decisions(&list[i]).allow.Add(1)
	}
	return Verdict{}
}

// look says what the limits of the list would say, and which of them is the strictest. Nothing is spent or counted.
func (tn *Tenant) look(list []check, now, n int64) (v Verdict, by *check) {
	for i := range list {
		c := &list[i]
		b := tn.bucket(c.limit, c.slot)
		d := b.Ask(now, n)
		if d.OK {
			continue
		}
		if other := (Verdict{Reason: reasonOf(b, d), Limit: c.limit, RetryAfter: d.RetryAfter}); by == nil || stricter(v, other) == other {
			v, by = other, c
		}
	}
	return v, by
}

// refund gives n tokens back to each limit of the list.
func (tn *Tenant) refund(list []check, n int64) {
	for i := range list {
		tn.bucket(list[i].limit, list[i].slot).Refund(n)
	}
}

// take spends on one limit, and counts a denial.
func (tn *Tenant) take(c *check, now, n int64) Verdict {
	d := tn.bucket(c.limit, c.slot).Take(now, n)
	if d.OK {
		return Verdict{}
	}
	if c.limit.rule.Shadow {
		tn.decisions(c).shadowDeny.Add(1)
	} else {
		tn.decisions(c).deny.Add(1)
	}
	return Verdict{
		Reason: reasonOf(tn.bucket(c.limit, c.slot), d), Limit: c.limit, RetryAfter: d.RetryAfter, firm: !tn.plan.limits[c.rule].tried,
	}
}

// reasonOf says what a bucket's answer means.
func reasonOf(b *limit.Bucket, d limit.Decision) Reason {
	switch {
	case d.OK:
		return Passed
	case b.Rate().Blocks():
		return Blocked
	case d.Never:
		return TooCostly
	}
	return Limited
}

// strictest asks the limits after the one that denied. Those that would pass are only looked at: a request that is denied
// anyway must not hold a token, not even for a moment, that another one of a shared bucket could have had.
func (tn *Tenant) strictest(v Verdict, rest []check, now, n int64) Verdict {
	for i := range rest {
		c := &rest[i]
		if tn.bucket(c.limit, c.slot).Available(now) >= n {
			continue
		}
		other := tn.take(c, now, n)
		if other.Reason == Passed { // refilled, or refunded, since
			tn.bucket(c.limit, c.slot).Refund(n)
			continue
		}
		firm := v.firm || other.firm
		v = stricter(v, other)
		v.firm = firm
	}
	return v
}

// stricter returns the answer that keeps a client away for longer; the first of two equal ones. Blocked is for good, a request
// that can never pass is refused until it changes, a breaker goes before the limits of one tenant, open before shed, and a
// wait is as strict as it is long.
func stricter(a, b Verdict) Verdict {
	if rank(b) > rank(a) || rank(b) == rank(a) && b.RetryAfter > a.RetryAfter {
		return b
	}
	return a
}

func rank(v Verdict) int {
	switch v.Reason {
	case Blocked:
		return 6
	case TooCostly:
		return 5
	case BreakerOpen:
		return 4
	case Shed:
		return 3
	case Limited:
		return 2
	case Concurrency:
		return 1
	}
	return 0
}
