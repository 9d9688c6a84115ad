package admit

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"

	"weir/policy"
)

// maxPlans bounds how many plans a table makes for tenants that policy does not name, since these can be covered by any
// subset of the patterns. A tenant that would need one more counts as unknown.
const maxPlans = 4096

// plan is policy.Plan, ready to be walked: for each route the limits to ask, and the buckets that a tenant has of its own. It belongs
// to one table and is shared by all tenants of the same policies. It does not refer to its table: a cell that waits for
// its tenant to come back keeps nothing else alive.
type plan struct {
	generation uint64 // of the table
	terms      policy.Plan
	most       int64     // in flight for each tenant
	key        string    // the names of the policies
	limits     []planned // in the order in which they are asked
	slots      []slot    // the buckets of a tenant's own
	everywhere checks    // on every route that byRoute says nothing of
	byRoute    []*checks // nil when no limit tells routes apart
	tries      bool      // there are limits in shadow, on whatever route
	others     *requests // of tenants without a label of their own
	gates      *gateLines

	overflow atomic.Pointer[Tenant] // see demandTable.overflowOf
}

// planned is one limit of a plan and its slots: one, with `bucket: TenantAndRoute` one for each of its routes, with `bucket: Shared`
// none.
type planned struct {
	*Limit
	from, to int
	tried    bool // it is enforced, and a limit in shadow stands for one of its name
}

// slot is one bucket that a tenant under a plan has of its own.
type slot struct {
	limit *Limit
	route string // only for `bucket: TenantAndRoute`
}

// slotKey is what a bucket of one tenant is adopted by. The policy is no part of it: names of one mode are unique in a plan, and
// a tenant whose limit comes from a more specific policy from now on has not paid its debts.
// Nor does a debt of bytes become one of requests.
type slotKey struct {
	limit, route string
	unit         policy.Unit
	shadow       bool
}

func (s slot) key() slotKey {
	r := &s.limit.rule
	return slotKey{r.Name, s.route, r.Unit, r.Shadow}
}

// check is one limit to ask for a request on one route.
type check struct {
	limit *Limit
	slot  int // index into the tenant's buckets; of no meaning when the bucket is shared
	rule  int // index into the plan's limits
}

// checks are the limits to ask for a request on one route: those in requests before it passes, enforced or in shadow, and
// those in bytes, of both modes, for each piece of its bodies.
type checks struct{ enforced, shadow, bytes []check }

func (c *checks) add(k check) {
	switch {
	case k.limit.rule.Unit == policy.UnitBytes:
		c.bytes = append(c.bytes, k)
	case k.limit.rule.Shadow:
		c.shadow = append(c.shadow, k)
	default:
		c.enforced = append(c.enforced, k)
	}
}

// unbounded is more requests than can be in flight.
const unbounded = int64(1) << 62

// newPlan prepares terms. Shared buckets come after the tenant's own: who is over its own limit never gets to touch what
// it shares with others.
func (t *Table) newPlan(key string, terms policy.Plan) *plan {
	p := &plan{generation: t.generation, key: key, terms: terms, most: unbounded, others: t.others, gates: t.gates}
	if terms.Concurrency > 0 {
		p.most = int64(terms.Concurrency)
	}
	for _, shared := range []bool{false, true} {
		for i := range terms.Limits {
			r := &terms.Limits[i]
			if (r.Bucket == policy.BucketShared) == shared {
				p.add(t, t.limits[limitKey{r.Policy, r.Name}])
			}
		}
	}
	p.markTried()
	return p
}

// markTried finds the enforced limits that those in shadow stand for. Where limits in bytes alone are tried, no verdict differs.
func (p *plan) markTried() {
	names := make(map[string]bool)
	for _, l := range p.limits {
		if l.rule.Shadow {
			names[l.rule.Name] = true
			p.tries = p.tries || l.rule.Unit == policy.UnitRequests
		}
	}
	for i := range p.limits {
		l := &p.limits[i]
		l.tried = !l.rule.Shadow && names[l.rule.Name]
	}
}

// add gives a limit its slots, and puts it on the list of every route that it applies to.
func (p *plan) add(t *Table, l *Limit) {
	rule, from := len(p.limits), len(p.slots)
	routes, each := l.rule.Routes, l.rule.Bucket == policy.BucketTenantAndRoute
	if len(routes) == 0 && each {
		routes = t.allRoutes
	}
	if !each {
		if l.shared == nil {
			p.slots = append(p.slots, slot{limit: l})
		}
		if len(routes) == 0 {
			p.everywhere.add(check{l, from, rule})
			for _, c := range p.byRoute {
				if c != nil {
					c.add(check{l, from, rule})
				}
			}
		}
	}
	for _, route := range routes {
		if each {
			p.slots = append(p.slots, slot{l, t.routes[route].name})
		}
		p.forRoute(route, len(t.routes)).add(check{l, len(p.slots) - 1, rule})
	}
	p.limits = append(p.limits, planned{Limit: l, from: from, to: len(p.slots)})
}

// forRoute returns the list of one route, to be changed.
func (p *plan) forRoute(route, routes int) *checks {
	if p.byRoute == nil {
		p.byRoute = make([]*checks, routes)
	}
	if p.byRoute[route] == nil {
		all := &p.everywhere
		p.byRoute[route] = &checks{slices.Clone(all.enforced), slices.Clone(all.shadow), slices.Clone(all.bytes)}
	}
	return p.byRoute[route]
}

// on returns the limits to ask on a route.
func (p *plan) on(route int) *checks {
	if p.byRoute != nil {
		if c := p.byRoute[route]; c != nil {
			return c
		}
	}
	return &p.everywhere
}

// adopted says for each slot of p which one of old it continues; -1: none. It is nil when p has the same slots as old. A limit
// whose mode changes goes on with its own bucket, unless there was one in the new mode already.
func (p *plan) adopted(old *plan) []int {
	if slices.EqualFunc(p.slots, old.slots, func(a, b slot) bool { return a.key() == b.key() }) {
		return nil
	}
	at := make(map[slotKey]int, len(old.slots))
	for i, s := range old.slots {
		at[s.key()] = i
	}
	from := make([]int, len(p.slots))
	for i := range from {
		from[i] = -1
	}
	for _, otherMode := range []bool{false, true} {
		for i, s := range p.slots {
			key := s.key()
			key.shadow = key.shadow != otherMode
			if j, ok := at[key]; ok && from[i] < 0 {
				from[i] = j
				delete(at, key) // a bucket goes on in one place
			}
		}
	}
	return from
}

// planOf returns the plan of the tenants that exactly these policies cover; nil when the table has made as many as it may.
func (t *Table) planOf(policies []int) *plan {
	var few [64]byte
	memo := planMemo(policies, few[:0])
	t.mu.RLock()
	p := t.plans[string(memo)]
	t.mu.RUnlock()
	if p != nil {
		return p
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.plans[string(memo)]; p != nil {
		return p
	}
	if t.built && t.unnamed >= maxPlans {
		return nil
	}
	p = t.newPlan(t.planKey(policies), t.snapshot.Plan(policies))
	t.plans[string(memo)] = p
	if t.built {
		t.unnamed++
	}
	return p
}

// planMemo appends what the table remembers the plan of these policies by.
func planMemo(policies []int, dst []byte) []byte {
	for _, i := range policies {
		dst = binary.AppendUvarint(dst, uint64(i))
	}
	return dst
}

// planKey is the plan.key of these policies.
func (t *Table) planKey(policies []int) string {
	var key strings.Builder
	for _, i := range policies {
		key.WriteString(t.snapshot.Policies[i].Name)
		key.WriteByte(' ')
	}
	return key.String()
}

// continues says what of old's slots those of p continue. It is remembered, since many tenants share their plans; there are
// no more pairs than cells, since each is brought along once.
func (t *Table) continues(p, old *plan) []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := [2]*plan{p, old}
	if from, ok := t.mappings[k]; ok {
		return from
	}
	from := p.adopted(old)
	t.mappings[k] = from
	return from
}
