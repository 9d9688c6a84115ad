package admit

import "sync"

// holding is how a tenant is held by a table.
type holding uint8

const (
	heldOwn      holding = iota // it has a cell of its own
	heldNot                     // it has none: its first request makes one, with full buckets
	heldTogether                // it shares a cell with others, since there is no room
	heldUnknown                 // no policy covers it, or it has no identity
)

// String says it for people.
func (h holding) String() string {
	return [...]string{
		heldOwn: "its own", heldNot: "none yet", heldTogether: "shared with other newcomers", heldUnknown: "shared by all unknown tenants",
	}[h]
}

// rehearse returns a table for one request of a tenant, empty for none, that stands where t stands now. It has copies of whatever a
// decision could change, so that [Table.Match] and [Table.Decide] themselves say what t would say, and nothing has happened: no
// cell is made, moved or evicted, nothing is spent and nothing is counted.
func (t *Table) rehearse(now int64, name string) (*Table, holding) {
	r := &Table{
		snapshot: t.snapshot, options: t.options, generation: t.generation, router: t.router, identifier: t.identifier,
		routes: t.routes, allRoutes: t.allRoutes, noRoute: t.noRoute, nobody: t.nobody,
		breakers: t.breakers, guards: t.guards, rehearsed: t,
		others: new(requests), limits: make(map[limitKey]*Limit), named: make(map[string]*Tenant),
		waiters: &sync.Pool{New: newWaiter}, gates: newGateLines(),
	}
	for _, c := range t.backends {
		r.backends = append(r.backends, c.sketch(now))
	}
	if t.unknown != nil {
		r.unknown = r.sketch(t, now, "", t.unknown.plan, t.unknown)
	}
	if name == "" {
		return r, heldUnknown
	}
	if tn := t.named[name]; tn != nil {
		r.named[name] = r.sketch(t, now, name, tn.plan, tn)
		return r, heldOwn
	}
	p := t.planToBe(name)
	if p == nil {
		return r, heldUnknown
	}
	old, how := t.demand.glance(t, p, now, name)
	own := name
	if how == heldTogether {
		own = ""
	}
	tn := r.sketch(t, now, own, p, old)
	if old == nil || old.plan.generation < t.generation {
		tn.restate(t.changed(now))
	}
	r.named[name] = tn
	return r, how
}

// sketch makes a cell of r under the terms of a plan, with copies of what old has in t.
func (r *Table) sketch(t *Table, now int64, name string, p *plan, old *Tenant) *Tenant {
	terms := &p.terms
	for i := range terms.Limits {
		k := limitKey{terms.Limits[i].Policy, terms.Limits[i].Name}
		if r.limits[k] != nil {
			continue // the unknown have it, too
		}
		l := *t.limits[k]
		l.others = new(decisions)
		if l.shared != nil {
			l.shared = l.shared.Copy()
		}
		r.limits[k] = &l
	}
	tn := r.newTenant(name, r.newPlan(p.key, p.terms), nil)
	if old == nil {
		return tn
	}
	t.gates.expire(now, old.seat)
	tn.seat.gate.Assume(old.seat.gate.InFlight())
	tn.seat.waiting.Store(old.seat.waiting.Load())
	from, buckets, before := tn.plan.adopted(old.plan), tn.buckets(), old.buckets()
	for i := range buckets {
		switch {
		case from == nil:
			buckets[i].Share(before[i].Copy())
		case from[i] >= 0:
			buckets[i].Share(before[from[i]].Copy())
		}
	}
	return tn
}

// sketch makes a cell of a backend as full as c. Who waits is only a number there: see rejects. Those whose time is over are sent
// away first, as by whoever would come now.
func (c *capacity) sketch(now int64) *capacity {
	if c.waiting.Load() > 0 {
		c.mu.Lock()
		c.line.expire(now)
		c.mu.Unlock()
	}
	copied := &capacity{name: c.name}
	copied.line = line{waiting: &copied.waiting, mu: &copied.mu}
	copied.gate.Assume(c.gate.InFlight())
	copied.waiting.Store(c.waiting.Load())
	copied.terms.Store(c.terms.Load())
	return copied
}

// rejects says whether the queue that a rehearsed request of t waits in would not have taken it.
func (t *Table) rejects(m *Match, v *Verdict) bool {
	tn := m.Tenant
	if !v.AtBackend() {
		return int(tn.seat.waiting.Load()) > tn.plan.terms.Queue.Length // it counts itself
	}
	c := t.backends[m.Backend]
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.line.queue.Takes(tn.flow(), int64(tn.plan.terms.Weight), c.terms.Load().queue.Length)
}

// planToBe is planOfUnnamed without remembering what had to be made for it.
func (t *Table) planToBe(name string) *plan {
	policies := t.snapshot.Covering(name, nil)
	if len(policies) == 0 {
		return nil
	}
	t.mu.RLock()
	p, full := t.plans[string(planMemo(policies, nil))], t.unnamed >= maxPlans
	t.mu.RUnlock()
	switch {
	case p != nil:
		return p
	case full:
		return nil
	}
	return t.newPlan(t.planKey(policies), t.snapshot.Plan(policies))
}

// glance returns the cell that a request of an unnamed tenant would go on from, nil for a fresh one, without making, bringing along
// or evicting any.
func (d *demandTable) glance(t *Table, p *plan, now int64, name string) (old *Tenant, how holding) {
	set, tag := d.find(name)
	if tn, _ := d.sets[set].get(tag, name); tn != nil {
		return tn, heldOwn
	}
	if d.hasRoom(set, len(p.slots), now) {
		return t.released[name], heldNot
	}
	if tn := p.overflow.Load(); tn != nil {
		return tn, heldTogether
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.overflow[p.key], heldTogether
}
