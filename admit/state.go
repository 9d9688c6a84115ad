package admit

import (
	"maps"
	"slices"
	"time"

	"weir/policy"
)

// LimitState is how one limit stands for one tenant, for RateLimit header fields and pages.
type LimitState struct {
	Name      string
	Policy    string
	Unit      policy.Unit // of Requests, Burst and Available
	Requests  int64
	Per       time.Duration
	Burst     int64
	Available int64         // whole tokens
	Next      time.Duration // until there is one more; 0 when the bucket is full or blocked
	Reset     time.Duration // until the bucket is full again
	Shadow    bool          // it denies nothing
	// Concurrent is true for the tenant's gate: Requests may be in flight at once, Available more may be let in now, and
	// there are no times.
	Concurrent bool
}

// TenantState is how one tenant stands, for pages.
type TenantState struct {
	Name        string
	InFlight    int64
	Waiting     int64        // for the tenant's gate or for a backend; the latter are in flight as well
	Concurrency int          // the most in flight; 0: no bound
	Weight      int          // relative part of a backend that is full
	Limits      []LimitState // in the order in which they are asked; of several buckets for routes the emptiest
}

// DemandState is how many tenants have state without being named.
type DemandState struct {
	Cells    int // with a cell of their own
	Capacity int // of those; sets of cells fill unevenly, so some newcomers share a cell before that
	Overflow int // cells in use that newcomers share because there was no room, one for each combination of policies
}

// gateName is what clients are told that the tenant's gate is called.
const gateName = "concurrency"

// Limits appends the state of every enforced limit that applies to the request: those that Decide asks, in that order, then those
// in bytes, and then the tenant's gate where there is one. It allocates nothing when dst has room.
func (t *Table) Limits(now int64, m *Match, dst []LimitState) []LimitState {
	if m.Route.index < 0 {
		return dst
	}
	list := m.Tenant.plan.on(m.Route.index)
	for i := range list.enforced {
		dst = append(dst, m.Tenant.state(list.enforced[i].limit, list.enforced[i].slot, now))
	}
	for i := range list.bytes {
		if c := &list.bytes[i]; !c.limit.rule.Shadow {
			dst = append(dst, m.Tenant.state(c.limit, c.slot, now))
		}
	}
	if most := m.Tenant.plan.terms.Concurrency; most > 0 {
		dst = append(dst, gateState(most, m.Tenant.seat.gate.InFlight()))
	}
	return dst
}

// gateState is the state of a gate with so many in flight.
func gateState(most int, inFlight int64) LimitState {
	return LimitState{Name: gateName, Requests: int64(most), Available: max(int64(most)-inFlight, 0), Concurrent: true}
}

// Decisions is how often a limit has decided for a tenant label so far.
type Decisions struct {
	Policy, Limit           string
	Allow, Deny, ShadowDeny uint64
}

// Decisions appends what the limits of a request's tenant have decided so far, those in shadow included, for the label that the
// tenant counts under.
func (t *Table) Decisions(m *Match, dst []Decisions) []Decisions {
	for i := range m.Tenant.plan.limits {
		l := m.Tenant.plan.limits[i].Limit
		d := m.Tenant.decisions(&check{limit: l, rule: i})
		dst = append(dst, Decisions{l.Policy(), l.Name(), d.allow.Load(), d.deny.Load(), d.shadowDeny.Load()})
	}
	return dst
}

// Tenants returns the state of every named tenant, sorted by name.
func (t *Table) Tenants(now int64) []TenantState {
	states := make([]TenantState, 0, len(t.named))
	for _, name := range slices.Sorted(maps.Keys(t.named)) {
		states = append(states, t.states(t.named[name], now))
	}
	return states
}

// Tenant returns the state of one tenant, named or not; false when it has none, because it is unknown, or shares a cell, or
// has not sent a request for a while.
func (t *Table) Tenant(now int64, name string) (TenantState, bool) {
	if tn := t.cell(name); tn != nil {
		return t.states(tn, now), true
	}
	return TenantState{}, false
}

// OnDemand returns what tenants without a name in policy take.
func (t *Table) OnDemand(now int64) DemandState {
	if t.demand == nil {
		return DemandState{}
	}
	return t.demand.state(now)
}

func (t *Table) states(tn *Tenant, now int64) TenantState {
	s := TenantState{
		Name: tn.name, InFlight: tn.seat.gate.InFlight(), Waiting: t.waitingOf(tn),
		Concurrency: tn.plan.terms.Concurrency, Weight: tn.plan.terms.Weight,
	}
	for i := range tn.plan.limits {
		l := &tn.plan.limits[i]
		if l.from == l.to && l.shared == nil {
			continue // for each route, and there is none
		}
		s.Limits = append(s.Limits, tn.state(l.Limit, tn.emptiest(l, now), now))
	}
	return s
}

// waitingOf returns how many of a tenant's requests wait, before its gate and for backends.
func (t *Table) waitingOf(tn *Tenant) int64 {
	n := int64(tn.seat.waiting.Load())
	for _, c := range t.backends {
		n += c.waitingOf(tn.flow())
	}
	return n
}

func (tn *Tenant) state(l *Limit, slot int, now int64) LimitState {
	level := tn.bucket(l, slot).Level(now)
	return LimitState{
		Name: l.rule.Name, Policy: l.rule.Policy, Unit: l.rule.Unit, Requests: l.rule.Requests, Per: l.rule.Per, Burst: l.rate.Burst(),
		Available: level.Available, Next: level.Next, Reset: level.Full, Shadow: l.rule.Shadow,
	}
}

// emptiest returns the slot of a limit with the fewest tokens.
func (tn *Tenant) emptiest(l *planned, now int64) int {
	least := l.from
	for slot := l.from + 1; slot < l.to; slot++ {
		if tn.bucket(l.Limit, slot).Available(now) < tn.bucket(l.Limit, least).Available(now) {
			least = slot
		}
	}
	return least
}
