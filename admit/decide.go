package admit

import "time"

// Verdict is the answer to "may this pass".
type Verdict struct {
	Reason     Reason        // Passed, Limited, Blocked, TooCostly or Concurrency; that of the Match when this was refused
	Limit      *Limit        // the limit that answered; nil for Passed and Concurrency
	RetryAfter time.Duration // with Limited: waiting so long is enough, if nobody else spends

	entered bool // the gate, which Settle leaves
	settled bool
}

// Decide says whether a request may pass, and spends its cost: first the tenant's gate, then every enforced limit in requests that
// applies, the tenant's own in the order of its plan and then those it shares. It is all or nothing: when one denies, what was
// spent before is refunded and the gate left. The limits after it are still asked, without spending, and the strictest
// answer wins. A request that passes is then shown to the limits in shadow, which spend for themselves, count what they
// would deny, and deny nothing.
func (t *Table) Decide(now int64, m *Match) Verdict {
	if m.Reason != Passed {
		return Verdict{Reason: m.Reason}
	}
	if !t.enter(now, m) {
		return Verdict{Reason: Concurrency}
	}
	tn := m.Tenant
	list := tn.plan.on(m.Route.index)
	if v := tn.spend(list.enforced, now, m.Cost); v.Reason != Passed {
		tn.seat.gate.Leave()
		return v
	}
	for i := range list.shadow {
		c := &list.shadow[i]
		if tn.bucket(c.limit, c.slot).Take(now, m.Cost).OK {
			tn.decisions(c).allow.Add(1)
		} else {
			tn.decisions(c).shadowDeny.Add(1)
		}
	}
	return Verdict{entered: true}
}

// enter takes the request through its tenant's gate. If the cell was given away since Match, it is looked up anew: what
// is spent on a forgotten cell would be spent on nothing.
func (t *Table) enter(now int64, m *Match) bool {
	for {
		tn := m.Tenant
		if !tn.seat.gate.Enter(tn.plan.most) {
			return false
		}
		// A named tenant can have lost no more than a place among the cells on demand.
		if !tn.seat.evicted.Load() || t.named[tn.name] == tn {
			return true
		}
		tn.seat.gate.Leave()
		if m.Tenant = t.place(now, tn.name); m.Tenant == nil {
			panic("BUG: an evicted tenant is no longer covered by its table")
		}
	}
}

// spend takes n tokens from each limit of the list, or from none.
func (tn *Tenant) spend(list []check, now, n int64) Verdict {
	for i := range list {
		if v := tn.take(&list[i], now, n); v.Reason != Passed {
			for j := range list[:i] {
				tn.bucket(list[j].limit, list[j].slot).Refund(n)
			}
			return tn.strictest(v, list[i+1:], now, n)
		}
	}
	for i := range list {
		tn.decisions(&list[i]).allow.Add(1)
	}
	return Verdict{}
}

// take spends on one limit, and counts a denial.
func (tn *Tenant) take(c *check, now, n int64) Verdict {
	d := tn.bucket(c.limit, c.slot).Take(now, n)
	if d.OK {
		return Verdict{}
	}
	tn.decisions(c).deny.Add(1)
	v := Verdict{Reason: Limited, Limit: c.limit, RetryAfter: d.RetryAfter}
	switch {
	case tn.bucket(c.limit, c.slot).Rate().Blocks():
		v.Reason = Blocked
	case d.Never:
		v.Reason = TooCostly
	}
	return v
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
		v = stricter(v, other)
	}
	return v
}

// stricter returns the answer that keeps a client away for longer; the first of two equal ones. Blocked is for good, a request
// that can never pass is refused until it changes, and a wait is as strict as it is long.
func stricter(a, b Verdict) Verdict {
	if rank(b) > rank(a) || rank(b) == rank(a) && b.RetryAfter > a.RetryAfter {
		return b
	}
	return a
}

func rank(v Verdict) int {
	switch v.Reason {
	case Blocked:
		return 4
	case TooCostly:
		return 3
	case Limited:
		return 2
	case Concurrency:
		return 1
	}
	return 0
}
