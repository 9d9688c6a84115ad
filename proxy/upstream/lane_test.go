package upstream

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/policy"
	"weir/proxy/wire"
)

// laned is a backend whose tenants have so many connections each.
func laned(connections int, addresses ...string) policy.Backend {
	b := backendOf("a", addresses...)
	b.PoolPerTenant, b.MaxConnections, b.MaxIdle = true, connections, connections
	return b
}

func acquireFor(t testing.TB, b *Backend, tenant string) *Conn {
	t.Helper()
	c, err := b.Acquire(Call{Now: b.shared.clock(), Tenant: tenant})
	if err != nil {
		t.Fatalf("Acquire for %q: %v", tenant, err)
	}
	return c
}

// Whoever uses up its connections is refused; all others go on. Connections are never shared between tenants.
func TestTenantsAreBulkheads(t *testing.T) {
	b := build(t, nil, laned(3, listen(t, always(ok)), listen(t, always(ok)))).Backend(0)
	var loud []*Conn
	for range 3 {
		loud = append(loud, acquireFor(t, b, "loud"))
	}
	for range 5 {
		_, err := b.Acquire(Call{Now: b.shared.clock(), Tenant: "loud"})
		if e := wantCause(t, err, PoolFull); !e.Replayable {
			t.Error("PoolFull is not replayable")
		}
		for _, tenant := range []string{"quiet", "other", ""} {
			succeed(t, acquireFor(t, b, tenant))
		}
	}
	mine := map[*Conn]bool{}
	for _, c := range loud {
		mine[c] = true
		succeed(t, c)
	}
	for range 3 {
		c := acquireFor(t, b, "loud")
		if !mine[c] || !c.Reused() {
			t.Error("not one of the tenant's own connections")
		}
		defer c.Release()
	}
	for range 3 {
		c := acquireFor(t, b, "quiet")
		if mine[c] {
			t.Error("another tenant's connection")
		}
		defer c.Release()
	}
	want := `
# HELP weir_upstream_connections Connections to the endpoints of a backend: idle ones wait in the pool, active ones are being dialled or serve a request.
# TYPE weir_upstream_connections gauge
weir_upstream_connections{backend="a",state="active"} 6
weir_upstream_connections{backend="a",state="idle"} 2
`
	set := &Set{shared: b.shared, backends: []*Backend{b}}
	if err := testutil.CollectAndCompare(NewCollector(func() *Set { return set }), strings.NewReader(want), "weir_upstream_connections"); err != nil {
		t.Error(err)
	}
}

// Lanes are bounded: the one idle longest makes room, and those that find none share one.
func TestLanesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.adopt(nil, laned(1, "one:80"))
		defer w.end(s)
		b := s.Backend(0)
		b.lanes.bound = 3
		tenants := func() int { return len(*b.lanes.byTenant.Load()) }
		for _, tenant := range []string{"a", "b", "c", "a"} {
			succeed(t, acquireFor(t, b, tenant))
			<-time.After(time.Second)
		}
		a := (*b.lanes.byTenant.Load())["a"]
		succeed(t, acquireFor(t, b, "d"))
		if m := *b.lanes.byTenant.Load(); len(m) != 3 || m["b"] != nil || m["a"] != a || m["d"] == nil {
			t.Errorf("lanes are %v, want b to make room", m)
		}
		live, idle := b.lanes.counts()
		if live != 3 || idle != 3 {
			t.Errorf("%d live, %d idle, want 3 of 3 lanes", live, idle)
		}
		held := []*Conn{acquireFor(t, b, "a"), acquireFor(t, b, "c"), acquireFor(t, b, "d"), acquireFor(t, b, "e")}
		if n := tenants(); n != 3 {
			t.Errorf("%d lanes, want 3", n)
		}
		// e has no lane of its own, and shares one with f.
		_, err := b.Acquire(Call{Now: b.shared.clock(), Tenant: "f"})
		wantCause(t, err, PoolFull)
		for _, c := range held {
			succeed(t, c)
		}
		succeed(t, acquireFor(t, b, "f"))
		if (*b.lanes.byTenant.Load())["f"] == nil {
			t.Error("a lane that was idle made no room")
		}
		// What is not used any more goes, with its connections.
		<-time.After(31 * time.Second)
		live, idle = b.lanes.counts()
		if n := tenants(); n != 0 || live != 0 || idle != 0 {
			t.Errorf("%d lanes, %d live, %d idle after the idle timeout", n, live, idle)
		}
		succeed(t, acquireFor(t, b, "a"))
	})
}

// A flood of tenants makes no flood of lanes and loses no request, whoever is evicted meanwhile.
func TestLanesUnderFlood(t *testing.T) {
	const callers, calls = 8, 300
	s := build(t, nil, laned(2, listen(t, always(ok)), listen(t, always(ok))))
	b := s.Backend(0)
	b.lanes.bound = 4
	var served, full atomic.Int64
	var wg sync.WaitGroup
	for k := range callers {
		wg.Go(func() {
			for i := range calls {
				c, err := b.Acquire(Call{Now: b.shared.clock(), Tenant: fmt.Sprint("t", (i*7+k)%13)})
				if err != nil {
					wantCause(t, err, PoolFull) // in the lane that is shared
					full.Add(1)
					continue
				}
				if _, _, err := call(c, get, wire.Asked{}); err != nil {
					t.Error(err)
				}
				c.Release()
				served.Add(1)
			}
		})
	}
	wg.Wait()
	if n := len(*b.lanes.byTenant.Load()); n > 4 {
		t.Errorf("%d lanes, want at most 4", n)
	}
	if served.Load() < callers*calls/10 || served.Load()+full.Load() != callers*calls {
		t.Errorf("%d served, %d refused of %d", served.Load(), full.Load(), callers*calls)
	}
	s.Close()
	if live, idle := b.lanes.counts(); live != 0 || idle != 0 {
		t.Errorf("%d live, %d idle after Close", live, idle)
	}
	if n := b.roster.Load().all[0].inFlight.Load(); n != 0 {
		t.Errorf("%d in flight after the end", n)
	}
}

// Lanes live on with a snapshot that has them, lose the endpoints that are gone, and end with one that has none.
func TestLanesAreAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.adopt(nil, laned(2, "one:80", "two:80"))
		b := first.Backend(0)
		one, two := acquireFor(t, b, "acme"), acquireFor(t, b, "acme") // to each endpoint one
		succeed(t, one)
		succeed(t, two)
		held := acquireFor(t, b, "globex")
		second := w.adopt(first, laned(2, "one:80"))
		if second.Backend(0).lanes != b.lanes {
			t.Fatal("the lanes were not adopted")
		}
		succeed(t, held)
		for range 3 {
			c := acquireFor(t, second.Backend(0), "globex")
			if c.Endpoint() != "one:80" {
				t.Errorf("went to %s, which is gone", c.Endpoint())
			}
			succeed(t, c)
		}
		// A straggler of the old set is served, without reuse.
		for range 10 {
			c := acquireFor(t, b, "straggler")
			if c.Endpoint() == "two:80" && c.Reused() {
				t.Error("a retired endpoint keeps a connection")
			}
			succeed(t, c)
		}
		third := w.adopt(second, backendOf("a", "one:80"))
		if _, idle := b.lanes.counts(); idle != 0 {
			t.Errorf("%d idle connections of tenants when nobody has lanes", idle)
		}
		succeed(t, acquireFor(t, third.Backend(0), "acme"))
		w.end(third)
	})
}

func TestAcquireAllocatesNothing(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	f := func(change func(*policy.Backend)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			settings := judged(5, "one:80", "two:80", "three:80")
			change(&settings)
			s := w.adopt(nil, settings)
			defer w.end(s)
			b := s.Backend(0)
			roster := b.roster.Load()
			call := Call{Now: b.shared.clock(), Tenant: "acme"}
			if n := testing.AllocsPerRun(1000, func() {
				l := b.lanes.of(call.Tenant, call.Now)
				l.pool(roster.usable[b.choose(roster.usable, &call)].endpoint)
			}); n != 0 {
				t.Errorf("%v, per tenant %v: %v allocations", settings.Balance, settings.PoolPerTenant, n)
			}
		})
	}
	f(func(*policy.Backend) {})
	f(func(b *policy.Backend) { b.Balance = policy.RoundRobin })
	f(func(b *policy.Backend) { b.Balance = policy.ConsistentHash })
	f(func(b *policy.Backend) { b.PoolPerTenant = true })
}

// A tenant's calls come together at one endpoint, and elsewhere when that one refuses.
func TestConsistentHashThroughAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		settings := backendOf("a", "one:80", "two:80", "three:80", "four:80")
		settings.Balance = policy.ConsistentHash
		s := w.adopt(nil, settings)
		defer w.end(s)
		b := s.Backend(0)
		homes := map[string]bool{}
		for i := range 20 {
			tenant := fmt.Sprint("tenant-", i)
			home := ""
			for range 5 {
				c := acquireFor(t, b, tenant)
				if home == "" {
					home = c.Endpoint()
				}
				if c.Endpoint() != home {
					t.Errorf("%s went to %s and to %s", tenant, home, c.Endpoint())
				}
				succeed(t, c)
			}
			homes[home] = true
		}
		if len(homes) != 4 {
			t.Errorf("20 tenants are at %v, want all four", homes)
		}
		c := acquireFor(t, b, "acme")
		home := c.Endpoint()
		c.Release()
		w.refuse(home, true)
		c = acquireFor(t, b, "acme")
		if c.Endpoint() == home {
			t.Error("the endpoint refuses, and is used")
		}
		c.Release()
	})
}
