package upstream

import (
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// maxLanes bounds the tenants of one backend that have connections of their own. When there are more at once, the one that was
// idle longest makes room; where none is idle, the newcomers share one lane.
const maxLanes = 1024

// lanes are the pools of a backend with pool.perTenant: a lane for each tenant. They are adopted by the backend's name. A nil
// *lanes has no lane. Safe for concurrent use.
type lanes struct {
	shared *shared

	byTenant atomic.Pointer[map[string]*lane]
	common   lane // of those that find no room

	mu    sync.Mutex // guards replacing the map, and strays
	bound int
	stray []*pool // made for endpoints that had just been retired; for the sweep
}

// lane is one tenant's connections to all endpoints of a backend, under one bound. A nil *lane is everybody's.
type lane struct {
	quota
	lanes   *lanes
	lastUse atomic.Int64
	pools   atomic.Pointer[[]*pool] // one for each endpoint that was used
}

// gone is what a lane's live connections are counted from once it has left the map: whoever still holds it finds it full.
const gone = math.MaxInt64 / 2

func newLanes(s *shared) *lanes {
	ls := &lanes{shared: s, bound: maxLanes}
	ls.byTenant.Store(&map[string]*lane{})
	ls.common.init(ls)
	return ls
}

func (l *lane) init(ls *lanes) {
	l.lanes = ls
	l.pools.Store(&[]*pool{})
}

// of returns the lane of a tenant.
func (ls *lanes) of(tenant string, now int64) *lane {
	if ls == nil {
		return nil
	}
	l := (*ls.byTenant.Load())[tenant]
	if l == nil {
		l = ls.open(tenant)
	}
	l.lastUse.Store(now)
	return l
}

// open makes a lane for a tenant that has none.
func (ls *lanes) open(tenant string) *lane {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	old := *ls.byTenant.Load()
	if l := old[tenant]; l != nil {
		return l
	}
	next := maps.Clone(old)
	if len(next) >= ls.bound && !evictOldest(next) {
		return &ls.common
	}
	l := new(lane)
	l.init(ls)
	next[tenant] = l
	ls.byTenant.Store(&next)
	return l
}

// evictOldest closes the lane that was idle longest. It returns false when all of them have requests in flight.
func evictOldest(byTenant map[string]*lane) bool {
	for range byTenant {
		var tenant string
		var oldest *lane
		for t, l := range byTenant {
			if l.live.Load() == l.idle.Load() && (oldest == nil || l.lastUse.Load() < oldest.lastUse.Load()) {
				tenant, oldest = t, l
			}
		}
		if oldest == nil {
			return false
		}
		for _, p := range *oldest.pools.Load() {
			p.closeIdle()
		}
		if oldest.live.CompareAndSwap(0, gone) {
			delete(byTenant, tenant)
			return true
		}
	}
	return false
}

// closed says that the lane has left the map: the tenant has another one, or will.
func (l *lane) closed() bool { return l != nil && l.live.Load() >= gone }

// pool returns the lane's connections to an endpoint.
func (l *lane) pool(e *endpoint) *pool {
	if l == nil {
		return e.pool
	}
	for _, p := range *l.pools.Load() {
		if p.endpoint == e {
			return p
		}
	}
	return l.addPool(e)
}

func (l *lane) addPool(e *endpoint) *pool {
	l.lanes.mu.Lock()
	defer l.lanes.mu.Unlock()
	old := *l.pools.Load()
	for _, p := range old {
		if p.endpoint == e {
			return p
		}
	}
	p := newPool(l.lanes.shared, &l.quota, e)
	if e.retired.Load() { // take was here already
		p.retired.Store(true)
		l.lanes.stray = append(l.lanes.stray, p)
		return p
	}
	next := append(append(make([]*pool, 0, len(old)+1), old...), p)
	l.pools.Store(&next)
	return p
}

// each calls f for every lane.
func (ls *lanes) each(f func(*lane)) {
	if ls == nil {
		return
	}
	for _, l := range *ls.byTenant.Load() {
		f(l)
	}
	f(&ls.common)
}

// take removes the pools of an endpoint that was marked retired; nil means those of all endpoints.
func (ls *lanes) take(e *endpoint) (taken []*pool) {
	if ls == nil {
		return nil
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.each(func(l *lane) {
		var kept []*pool
		for _, p := range *l.pools.Load() {
			if e == nil || p.endpoint == e {
				taken = append(taken, p)
			} else {
				kept = append(kept, p)
			}
		}
		l.pools.Store(&kept)
	})
	return taken
}

// sweep sweeps all pools, drops lanes that were unused for so long, and returns pools that are retired and not watched yet.
func (ls *lanes) sweep(now int64, idleTimeout time.Duration) (stray []*pool) {
	if ls == nil {
		return nil
	}
	unused := 0
	ls.each(func(l *lane) {
		for _, p := range *l.pools.Load() {
			p.sweep(now, idleTimeout)
		}
		if l != &ls.common && l.live.Load() == 0 && now-l.lastUse.Load() >= int64(idleTimeout) {
			unused++
		}
	})
	ls.mu.Lock()
	defer ls.mu.Unlock()
	stray, ls.stray = ls.stray, nil
	if unused == 0 {
		return stray
	}
	next := maps.Clone(*ls.byTenant.Load())
	maps.DeleteFunc(next, func(_ string, l *lane) bool {
		return now-l.lastUse.Load() >= int64(idleTimeout) && l.live.CompareAndSwap(0, gone)
	})
	ls.byTenant.Store(&next)
	return stray
}

// counts sums up the connections of all lanes.
func (ls *lanes) counts() (live, idle int64) {
	ls.each(func(l *lane) {
		live += l.live.Load()
		idle += l.idle.Load()
	})
	return live, idle
}
