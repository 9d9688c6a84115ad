package admit

import (
	"sync/atomic"
	"time"
	"unsafe"

	"weir/limit"
	"weir/policy"
)

const (
	// otherLabel stands for all tenants that have no metric label of their own.
	otherLabel = "__other__"
	// noneLabel stands for what a request was refused without: a tenant, a route, a status.
	noneLabel = "__none__"
)

// Tenant is the cell of one tenant under one table: its plan, and the buckets, gate and counters that it goes on with from
// table to table.
//
// There may be very many. One on demand with one limit takes 112 bytes beside its place in the table: 48 here, 16 each for the
// seat and the name, and 32 for the bucket.
type Tenant struct {
	name  string
	plan  *plan
	seat  *seat
	first *limit.Bucket // see buckets
	own   *counters     // nil: counted under otherLabel
}

// seat is what the cells of one tenant under successive tables have in common besides buckets.
type seat struct {
	gate limit.Gate
	// evicted says that the cell can no longer be found by its name. Whoever enters the gate looks at it afterwards, and
	// whoever sets it looks at the gate and the buckets afterwards, so nobody spends from a cell that was forgotten.
	evicted atomic.Bool
	// waiting is how many of the tenant's requests wait before the gate: see gateLines. A cell with any is not evicted.
	waiting atomic.Int32
}

// counters are what is counted for one tenant label.
type counters struct {
	label     string
	requests  *requests
	decisions []*decisions // by limit of the plan
}

// Name returns the tenant, byte for byte; empty for the cells that many tenants share, and for stand-ins.
func (tn *Tenant) Name() string { return tn.name }

// Label returns the metric label: the name where policy names the tenant and the cap allows, `__none__` for requests
// refused before they had a tenant, else `__other__`.
func (tn *Tenant) Label() string {
	if tn.own == nil {
		return otherLabel
	}
	return tn.own.label
}

// Plan returns what applies to the tenant; never nil, and not to be changed.
func (tn *Tenant) Plan() *policy.Plan { return &tn.plan.terms }

// buckets returns the tenant's own buckets, by slot of the plan, which knows how many there are.
func (tn *Tenant) buckets() []limit.Bucket { return unsafe.Slice(tn.first, len(tn.plan.slots)) }

// bucket returns the bucket that a limit of the plan takes from: the one of that slot, or the one that all tenants share.
func (tn *Tenant) bucket(l *Limit, slot int) *limit.Bucket {
	if l.shared != nil {
		return l.shared
	}
	return &tn.buckets()[slot]
}

// decisions returns the counters of a limit of the plan.
func (tn *Tenant) decisions(c *check) *decisions {
	if tn.own == nil {
		return c.limit.others
	}
	return tn.own.decisions[c.rule]
}

func (tn *Tenant) requests() *requests {
	if tn.own == nil {
		return tn.plan.others
	}
	return tn.own.requests
}

// newTenant makes a cell under p. It continues old, which may be nil: buckets by slot, and the gate.
func (t *Table) newTenant(name string, p *plan, old *Tenant) *Tenant {
	tn := &Tenant{name: name, plan: p}
	var from []int
	if old == nil {
		tn.seat = new(seat)
	} else {
		tn.seat, from = old.seat, t.continues(p, old.plan)
		if from == nil {
			tn.first = old.first
			return tn
		}
	}
	buckets := make([]limit.Bucket, len(p.slots))
	for i := range buckets {
		if old != nil && from[i] >= 0 {
			buckets[i].Share(&old.buckets()[from[i]])
		} else {
			buckets[i].Init(p.slots[i].limit.rate)
		}
	}
	tn.first = unsafe.SliceData(buckets)
	return tn
}

// label gives a cell counters of its own, those of old where there are any.
func (tn *Tenant) label(label string, old *Tenant) {
	own := &counters{label: label, requests: new(requests)}
	before := make(map[limitKey]*decisions)
	if old != nil && old.own != nil {
		own.requests = old.own.requests
		for i, l := range old.plan.limits {
			before[l.key()] = old.own.decisions[i]
		}
	}
	for _, l := range tn.plan.limits {
		d := before[l.key()]
		if d == nil {
			d = new(decisions)
		}
		own.decisions = append(own.decisions, d)
	}
	tn.own = own
}

// leave ends a request that was behind the gate.
func (tn *Tenant) leave(now int64) {
	tn.seat.gate.Leave()
	tn.callNext(now)
}

// callNext lets in those who wait before the gate, as far as there are places.
func (tn *Tenant) callNext(now int64) { tn.plan.gates.next(now, tn.seat, tn.bound()) }

// bound is the tenant's gate as its plan has it.
func (tn *Tenant) bound() bound {
	return bound{gate: &tn.seat.gate, most: tn.plan.most, generation: tn.plan.generation}
}

// flow is what the tenant is called in a backend's queue. Tenants that share a cell share a flow; the key of a plan, with
// its spaces, is no tenant's name.
func (tn *Tenant) flow() string {
	if tn.name == "" {
		return tn.plan.key
	}
	return tn.name
}

// restate puts the tenant's own buckets under the rates of the plan, as of now. Equal rates change nothing. Shared ones are
// restated by Adopt alone, since a request of an older table may still make a cell. Whoever waits before a gate that is
// wider now is let in.
func (tn *Tenant) restate(now int64) {
	buckets := tn.buckets()
	for i := range buckets {
		buckets[i].Set(now, tn.plan.slots[i].limit.rate)
	}
	tn.callNext(now)
}

// fullIn returns how long after now every bucket of the tenant's own is full again.
func (tn *Tenant) fullIn(now int64) (longest time.Duration) {
	buckets := tn.buckets()
	for i := range buckets {
		longest = max(longest, buckets[i].FullIn(now))
	}
	return longest
}

// atRest says whether forgetting the cell would change nothing: no request in flight or waiting, every bucket of its own full.
func (tn *Tenant) atRest(now int64) bool {
	return tn.seat.gate.InFlight() == 0 && tn.seat.waiting.Load() == 0 && tn.fullIn(now) == 0
}
