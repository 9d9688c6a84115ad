package admit

import (
	"hash/maphash"
	"sync/atomic"
)

const (
	// maxTenantBreakers is how many tenants can have a breaker of their own, of all policies with perTenant together. Tenants that
	// policy names have theirs in any case; of the others, those for whom there is no room share one.
	maxTenantBreakers = 10_000
	// tenantChains is how many chains the breakers of one policy are spread over.
	tenantChains = 1024
)

// tenantBreakers are the breakers of one policy with perTenant, by the name of the tenant. Each is made at its tenant's first request
// and forgotten once it is at rest. Looking one up takes no lock: chains are changed at one place at a time, and who stands on
// a breaker that is taken out finds the rest of the chain behind it.
type tenantBreakers struct {
	seed   maphash.Seed
	made   atomic.Int64
	chains [tenantChains]atomic.Pointer[watch]
}

func newTenantBreakers() *tenantBreakers { return &tenantBreakers{seed: maphash.MakeSeed()} }

func (b *tenantBreakers) chain(tenant string) *atomic.Pointer[watch] {
	return &b.chains[maphash.String(b.seed, tenant)%tenantChains]
}

// find returns the breaker of a tenant, nil when it has none.
func (b *tenantBreakers) find(tenant string) *watch {
	w := b.chain(tenant).Load()
	for w != nil && w.tenant != tenant {
		w = w.next.Load()
	}
	return w
}

// add puts in the breaker of a tenant that has none. The cell is locked, as it is for forget.
func (b *tenantBreakers) add(w *watch) {
	head := b.chain(w.tenant)
	w.next.Store(head.Load())
	head.Store(w)
	b.made.Add(1)
}

// forget takes out the breakers that are to be forgotten.
func (b *tenantBreakers) forget(which func(*watch) bool) {
	for i := range b.chains {
		at := &b.chains[i]
		for w := at.Load(); w != nil; w = w.next.Load() {
			if which(w) {
				at.Store(w.next.Load())
				b.made.Add(-1)
			} else {
				at = &w.next
			}
		}
	}
}

func (b *tenantBreakers) each(f func(*watch)) {
	for i := range b.chains {
		for w := b.chains[i].Load(); w != nil; w = w.next.Load() {
			f(w)
		}
	}
}

// breakerOf returns the breaker of a policy that a tenant's requests meet, made if need be. Tenants without a cell of their own have
// no name, and share one.
func (t *Table) breakerOf(c *breakerCell, tenant string, now int64) *watch {
	if w := t.glanceBreaker(c, tenant); w != nil {
		return w
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.tenants.find(tenant); w != nil {
		return w // another request was first
	}
	w := c.newWatch(now, tenant)
	c.tenants.add(w)
	return w
}

// glanceBreaker returns the breaker of a policy that a tenant's requests meet; nil when it is to be made.
func (t *Table) glanceBreaker(c *breakerCell, tenant string) *watch {
	if c.tenants == nil || tenant == "" {
		return c.all
	}
	w := c.tenants.find(tenant)
	if w == nil && t.named[tenant] == nil && t.tenantBreakers() >= maxTenantBreakers {
		return c.all
	}
	return w
}

// tenantBreakers returns how many breakers of a tenant's own there are.
func (t *Table) tenantBreakers() (n int64) {
	for _, c := range t.breakers {
		if c.tenants != nil {
			n += c.tenants.made.Load()
		}
	}
	return n
}
