package admit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"weir/policy"
)

// Options bound what tenants can make a table hold, and say how it is scraped.
type Options struct {
	// AnyTenants is how many tenants that policy covers without naming them have a cell of their own at once, rounded up to
	// a multiple of 16. 0 means 65,536. The first table that has such cells decides for all that follow it.
	AnyTenants int
	// MetricTenants is how many named tenants, the first by name, have a metric label of their own. All others are summed
	// under `__other__`. 0 means 1,000.
	MetricTenants int
	// Clock reads the clock of `now` when metrics are scraped; requests bring their own reading. nil means that
	// weir_limit_available is not collected.
	Clock func() int64
	// Wall returns the wall time of a reading of the clock of `now`, by which tokens expire. Snapshots with jwt need it.
	Wall func(now int64) time.Time
}

// Table is the live structure that requests read: a snapshot and the cells of its tenants and routes. Safe for concurrent use.
type Table struct {
	snapshot   *policy.Snapshot
	options    Options
	generation uint64 // counts the tables, each built on the one before
	router     *router
	identifier *identifier

	routes     []*Route
	allRoutes  []int
	noRoute    *Route
	routeNames map[string]bool  // the stand-in's included
	backends   []*capacity      // by index in Snapshot.Backends
	breakers   []*breakerCell   // by index in Snapshot.Breakers
	guards     [][]*breakerCell // by index in Snapshot.Backends: those that have it for their target
	rehearsed  *Table           // the table that this one stands in for; nil: it stands for itself
	waiters    *sync.Pool       // of *waiter; of all tables, and so is what follows
	gates      *gateLines
	limits     map[limitKey]*Limit

	named    map[string]*Tenant
	released map[string]*Tenant // once named, now not: their debts wait here for the tenant to come on demand
	unknown  *Tenant            // of requests without a tenant of their own; nil: they are denied
	nobody   *Tenant            // stand-in, for counting
	others   *requests          // of tenants without a label of their own
	demand   *demandTable       // nil until a policy covers tenants without naming them
	adopted  atomic.Int64       // when; changed rates hold from then. notAdopted before

	mu       sync.RWMutex // guards what follows; requests take it for what a table has not seen before
	built    bool
	plans    map[string]*plan   // by the indexes of the policies
	unnamed  int                // plans made since Build
	mappings map[[2]*plan][]int // see continues
}

const notAdopted = -1

// Build makes the table of a snapshot. Cells are adopted from prev, which may be nil and goes on enforcing what it
// did: until Adopt no rate changes. The error says what of the snapshot cannot be used.
func Build(prev *Table, snap *policy.Snapshot, now int64, o Options) (*Table, error) {
	if o.AnyTenants == 0 {
		o.AnyTenants = 65536
	}
	if o.MetricTenants == 0 {
		o.MetricTenants = 1000
	}
	t := &Table{
		snapshot: snap, options: o, others: new(requests),
		plans: make(map[string]*plan), mappings: make(map[[2]*plan][]int),
		named: make(map[string]*Tenant), released: make(map[string]*Tenant),
		waiters: &sync.Pool{New: newWaiter}, gates: newGateLines(),
	}
	t.adopted.Store(notAdopted)
	var err error
	if t.router, err = newRouter(snap.Routes); err != nil {
		return nil, fmt.Errorf("cannot build routes: %w", err)
	}
	var known *identifier
	if prev != nil {
		known = prev.identifier
	}
	if t.identifier, err = newIdentifier(known, &snap.Sidecar, o.Wall); err != nil {
		return nil, fmt.Errorf("cannot build identity: %w", err)
	}
	if t.limits, err = buildLimits(prev, snap); err != nil {
		return nil, err
	}
	if prev != nil {
		t.generation, t.others, t.demand = prev.generation+1, prev.others, prev.demand
		t.waiters, t.gates = prev.waiters, prev.gates
	}
	if t.demand == nil && t.coversUnnamed() {
		t.demand = newDemandTable(o.AnyTenants)
	}
	t.buildRoutes()
	t.buildBackends(prev)
	if err = t.buildBreakers(prev, now); err != nil {
		return nil, err
	}
	t.buildNamed(prev, now)
	t.buildUnknown(prev)
	t.built = true
	return t, nil
}

// Snapshot returns what the table was built from.
func (t *Table) Snapshot() *policy.Snapshot { return t.snapshot }

// Adopt is called once, right after requests began to use the table: from now on changed rates hold. Cells on demand
// follow when their tenant comes.
func (t *Table) Adopt(now int64) {
	t.adopted.Store(now)
	t.adoptBackends(now)
	t.adoptBreakers(now)
	for _, l := range t.limits {
		if l.shared != nil {
			l.shared.Set(now, l.rate)
		}
	}
	for _, tn := range t.named {
		tn.restate(now)
	}
	if t.unknown != nil {
		t.unknown.restate(now)
	}
	if t.demand != nil {
		t.demand.prune(t, now)
	}
	for _, r := range t.labelled() {
		r.requests.keep(t)
	}
	t.others.keep(t)
}

// labelled returns the counters of every tenant label but `__other__`.
func (t *Table) labelled() []*counters {
	all := []*counters{t.nobody.own}
	for _, tn := range t.named {
		if tn.own != nil {
			all = append(all, tn.own)
		}
	}
	return all
}

// changed is when the rates of the table began to hold, for a request of now.
func (t *Table) changed(now int64) int64 {
	if since := t.adopted.Load(); since != notAdopted {
		return since
	}
	return now
}

func (t *Table) coversUnnamed() bool {
	for i := range t.snapshot.Policies {
		if s := t.snapshot.Policies[i].Specificity; s == policy.SpecAny || s == policy.SpecMatch {
			return true
		}
	}
	return false
}

// buildNamed makes a cell for every tenant that policy names.
func (t *Table) buildNamed(prev *Table, now int64) {
	var indexes []int
	labels := 0
	for _, name := range t.snapshot.NamedTenants() {
		indexes = t.snapshot.Covering(name, indexes[:0])
		old := prev.cell(name)
		tn := t.newTenant(name, t.planOf(indexes), old)
		if labels < t.options.MetricTenants && name != otherLabel && name != noneLabel {
			tn.label(name, old)
			labels++
		}
		t.named[name] = tn
	}
	if prev == nil {
		return
	}
	for name, tn := range prev.released {
		if t.named[name] == nil && !tn.atRest(now) {
			t.released[name] = tn
		}
	}
	// These may still spend until the swap, even those at rest.
	for name, tn := range prev.named {
		if t.named[name] == nil {
			t.released[name] = tn
		}
	}
}

// cell returns the cell that a tenant has in t, wherever it is; nil when it has none, or without a table.
func (t *Table) cell(name string) *Tenant {
	if t == nil {
		return nil
	}
	if tn := t.named[name]; tn != nil {
		return tn
	}
	if t.demand != nil {
		if tn := t.demand.peek(name); tn != nil {
			return tn
		}
	}
	return t.released[name]
}

// buildUnknown makes the cell of requests that have no tenant, as `unknownTenant` says, and the stand-in.
func (t *Table) buildUnknown(prev *Table) {
	var indexes []int
	switch t.snapshot.Sidecar.UnknownTenant {
	case policy.UnknownDefault:
		indexes = t.snapshot.UnknownPolicies()
	case policy.UnknownShared:
		indexes = t.snapshot.AnyPolicies()
	}
	var oldUnknown, oldNobody *Tenant
	if prev != nil {
		oldUnknown, oldNobody = prev.unknown, prev.nobody
	}
	if len(indexes) > 0 {
		t.unknown = t.newTenant("", t.planOf(indexes), oldUnknown)
	}
	t.nobody = t.newTenant("", t.planOf(nil), oldNobody)
	t.nobody.label(noneLabel, oldNobody)
}
