package admit

import (
	"time"

	"weir/breaker"
)

// BreakerChange is a change of one breaker's level, with the numbers that it stood on.
type BreakerChange struct {
	Breaker string // the BreakerPolicy
	Target  string // as in "Backend orders"
	Tenant  string // whose breaker it is, with perTenant; else, and for those who share one, empty
	breaker.Transition
}

// BreakerState is how one breaker stands, for pages.
type BreakerState struct {
	Breaker   string // the BreakerPolicy
	Target    string // as in "Backend orders"
	PerTenant bool
	Tenant    string // whose breaker it is, with perTenant; empty is that of those who have none of their own
	breaker.Status
}

// TickEvery returns how often Tick must be called; 0 when there is nothing to look at.
func (t *Table) TickEvery() time.Duration {
	every := time.Duration(0)
	for _, c := range t.breakers {
		if e := c.every(); every == 0 || e < every {
			every = e
		}
	}
	return every
}

func (c *breakerCell) every() time.Duration { return c.terms.Load().settings.Every() }

// Tick judges all breakers for which it is time, and calls announce for each change of level, those included that came with a change of
// documents. One sampler calls it, at least every [Table.TickEvery], on the table in force. chance returns random numbers from
// 0 to 1, so that breakers that open together do not try again together.
func (t *Table) Tick(now int64, chance func() float64, announce func(BreakerChange)) {
	soon := now + int64(t.TickEvery())
	for _, c := range t.breakers {
		for _, change := range c.tick(now, soon, chance) {
			announce(change)
		}
	}
}

// tick judges the breakers of a cell, unless they can wait for a tick that comes as soon as that. Tenants' own that are at rest are
// forgotten.
func (c *breakerCell) tick(now, soon int64, chance func() float64) []BreakerChange {
	c.mu.Lock()
	defer c.mu.Unlock()
	changes := c.pending
	c.pending = nil
	if soon <= c.ticked+int64(c.every()) {
		return changes
	}
	c.ticked = now
	judge := func(w *watch) {
		if change, ok := w.Tick(now, chance()); ok {
			changes = append(changes, c.changed(w, change))
		}
	}
	judge(c.all)
	if c.tenants != nil {
		c.tenants.forget(func(w *watch) bool {
			judge(w)
			return w.flying.Load() == 0 && w.AtRest()
		})
	}
	return changes
}

// changed counts a change of level.
func (c *breakerCell) changed(w *watch, change breaker.Transition) BreakerChange {
	c.changes[change.From][change.To].Add(1)
	return BreakerChange{Breaker: c.name, Target: c.target, Tenant: w.tenant, Transition: change}
}

// Breakers returns the state of every breaker: those of the policies in the order of their names, the one of all before those of
// tenants, which are in no order.
func (t *Table) Breakers(now int64) []BreakerState {
	var states []BreakerState
	for _, c := range t.breakers {
		c.each(func(w *watch) {
			states = append(states, BreakerState{Breaker: c.name, Target: c.target, PerTenant: c.perTenant, Tenant: w.tenant, Status: w.Status(now)})
		})
	}
	return states
}
