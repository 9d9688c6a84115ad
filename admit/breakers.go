package admit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"weir/breaker"
	"weir/policy"
)

// breakerCell is the cell of one BreakerPolicy. It is adopted by name, as long as target and perTenant stay what they are: what was
// learned of one target says nothing of another. New terms are put into the cell, so they hold for the requests of every
// table at once.
type breakerCell struct {
	breakerKey
	terms   atomic.Pointer[breakerTerms]
	all     *watch          // of all requests; with perTenant of those whose tenant has none of its own
	tenants *tenantBreakers // nil unless perTenant
	changes [levels][levels]atomic.Uint64

	mu      sync.Mutex // guards what follows, and the change of terms; requests take it to make a tenant's breaker
	ticked  int64
	pending []BreakerChange // changes of level that the next Tick announces
}

// breakerKey is what a breaker is adopted by.
type breakerKey struct {
	name      string
	target    string // as in "Backend orders"
	perTenant bool
}

// breakerTerms are a BreakerPolicy, ready to be asked.
type breakerTerms struct {
	settings   breaker.Settings
	slowerThan time.Duration // 0: nothing is slow
	failed     [600]bool     // by status
}

// levels is how many levels a breaker has.
const levels = int(breaker.Open) + 1

// watch is one breaker of a policy.
type watch struct {
	*breaker.Breaker
	cell   *breakerCell
	tenant string // empty: the cell's breaker of all

	// Of a tenant's own, see tenantBreakers.
	flying atomic.Int64 // passes that are not recorded yet
	next   atomic.Pointer[watch]
}

// buildBreakers makes the cells of the breakers, those of prev where there are any. New terms hold from Adopt on.
func (t *Table) buildBreakers(prev *Table, now int64) error {
	before := make(map[breakerKey]*breakerCell)
	if prev != nil {
		for _, c := range prev.breakers {
			before[c.breakerKey] = c
		}
	}
	t.guards = make([][]*breakerCell, len(t.backends))
	for i := range t.snapshot.Breakers {
		b := &t.snapshot.Breakers[i]
		terms := newBreakerTerms(b)
		if err := terms.settings.Validate(); err != nil {
			return fmt.Errorf("cannot build breaker %q: %w", b.Name, err)
		}
		key := breakerKey{b.Name, t.targetOf(b), b.PerTenant}
		c := before[key]
		if c == nil {
			c = newBreakerCell(now, key, terms)
		}
		t.breakers = append(t.breakers, c)
		if b.Backend >= 0 {
			t.guards[b.Backend] = append(t.guards[b.Backend], c)
		} else {
			r := t.routes[b.Route]
			r.breakers = append(r.breakers, c)
		}
	}
	return nil
}

// targetOf is the target of a breaker in words.
func (t *Table) targetOf(b *policy.Breaker) string {
	if b.Backend >= 0 {
		return string(policy.KindBackend) + " " + t.snapshot.Backends[b.Backend].Name
	}
	return string(policy.KindRoute) + " " + t.snapshot.Routes[b.Route].Name
}

func newBreakerCell(now int64, key breakerKey, terms *breakerTerms) *breakerCell {
	c := &breakerCell{breakerKey: key, ticked: now}
	c.terms.Store(terms)
	c.all = c.newWatch(now, "")
	if key.perTenant {
		c.tenants = newTenantBreakers()
	}
	return c
}

func (c *breakerCell) newWatch(now int64, tenant string) *watch {
	return &watch{Breaker: breaker.New(now, &c.terms.Load().settings), cell: c, tenant: tenant}
}

func newBreakerTerms(b *policy.Breaker) *breakerTerms {
	t := &breakerTerms{}
	if q := b.Baseline; q != nil {
		t.settings.QPS = breaker.QPS{
			Sample: q.Sample, Baseline: q.Baseline, Deviation: q.Deviation, Periods: q.Periods, Recover: q.Recover, MinRate: float64(q.MinRate),
		}
		switch {
		case q.Rise && q.Fall:
			t.settings.QPS.Direction = breaker.Both
		case q.Fall:
			t.settings.QPS.Direction = breaker.Down
		}
	}
	f := b.Failures
	if f == nil {
		return t
	}
	t.slowerThan = f.SlowerThan
	t.settings.Failures = breaker.Failures{
		Window: f.Window, Ratio: f.Ratio, SlowRatio: f.SlowRatio, MinRequests: int64(f.MinRequests), Consecutive: int64(f.Consecutive),
	}
	t.settings.Open = breaker.Opening{For: f.For, MaxFor: f.MaxFor, Probes: int64(f.Probes), Ramp: f.Ramp}
	for status := range t.failed {
		t.failed[status] = f.Failed(status)
	}
	return t
}

// adoptBreakers puts the table's terms in force.
func (t *Table) adoptBreakers(now int64) {
	for i, c := range t.breakers {
		c.adopt(now, newBreakerTerms(&t.snapshot.Breakers[i]))
	}
}

func (c *breakerCell) adopt(now int64, terms *breakerTerms) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.terms.Load()
	if *old == *terms {
		return
	}
	c.terms.Store(terms)
	if old.settings == terms.settings {
		return
	}
	c.each(func(w *watch) {
		if change, ok := w.Set(now, &terms.settings); ok {
			c.pending = append(c.pending, c.changed(w, change))
		}
	})
}

// each calls f with every breaker of the cell.
func (c *breakerCell) each(f func(*watch)) {
	f(c.all)
	if c.tenants != nil {
		c.tenants.each(f)
	}
}
