package admit

import (
	"time"

	"weir/limit"
)

// Verdict is the answer to "may this pass". It is made and copied for every limit that is asked: its size is of matter.
type Verdict struct {
	Reason Reason // Passed, Limited, Blocked, TooCostly or Concurrency; that of the Match when this was refused

	firm    bool // refused by what no limit in shadow stands for
	entered bool // the gate, which Settle leaves
	settled bool

	Limit      *Limit        // the limit that answered; nil for Passed and Concurrency
	RetryAfter time.Duration // with Limited: waiting so long is enough, if nobody else spends
	// Shadow is the limit in mode Shadow that would have refused the request, if those in shadow stood in the place of the
	// enforced ones of their names; nil when they would not have refused it, or were not asked.
	Shadow *Limit
}

// Decide says whether a request may pass, and spends its cost: first the tenant's gate, then every enforced limit in requests that
// applies, the tenant's own in the order of its plan and then those it shares. It is all or nothing: when one denies, what was
// spent before is refunded and the gate left. The limits after it are still asked, without spending, and the strictest
// answer wins. The limits in shadow are then asked apart; see try.
func (t *Table) Decide(now int64, m *Match) Verdict {
	if m.Reason != Passed {
		return Verdict{Reason: m.Reason}
	}
	v := Verdict{Reason: Concurrency, firm: true}
	entered := t.enter(now, m)
	tn := m.Tenant
	list := tn.plan.on(m.Route.index)
	if entered {
		v = tn.spend(list.enforced, now, m.Cost)
	}
	if tn.plan.tries {
		tn.try(&v, list.shadow, now, m.Cost)
	}
	if entered && v.Reason != Passed {
		tn.seat.gate.Leave()
		entered = false
	}
	v.entered = entered
	return v
}

// try asks the limits in shadow what they would have said, if they stood in the place of the enforced ones of their names, and
// compares. All or nothing among themselves, they spend from buckets of their own. They see what the enforced limits let pass,
// and what was refused by none but those that they stand for: their buckets are those of a sidecar that enforces them. What
// others refused would be refused all the same. Limits in bytes refuse nothing, and have no part in it.
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
