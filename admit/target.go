package admit

import (
	"time"

	"weir/policy"
)

// Route is the cell of one route.
type Route struct {
	index   int
	name    string
	timeout time.Duration
	cost    int64
	costBy  string         // the header that adds to it; empty: none
	backend int            // -1 when it splits
	split   []policy.Split // empty unless it splits
	weights uint64         // their sum
	pinned  map[string]int // tenants that a part of the split lists, to their backend
	core    bool           // no breaker sheds it
	// breakers have the route for their target.
	breakers []*breakerCell
}

// Name returns the route's name; empty for the stand-in of requests that no route matched.
func (r *Route) Name() string { return r.name }

// Index returns the route's index in Snapshot.Routes; -1 for the stand-in.
func (r *Route) Index() int { return r.index }

// Timeout returns the route's own bound of the whole request; 0 when it has none.
func (r *Route) Timeout() time.Duration { return r.timeout }

func (t *Table) buildRoutes() {
	t.noRoute = &Route{index: -1, backend: -1}
	t.routeNames = map[string]bool{t.noRoute.name: true}
	for i := range t.snapshot.Routes {
		t.routeNames[t.snapshot.Routes[i].Name] = true
		t.routes = append(t.routes, newRoute(i, &t.snapshot.Routes[i]))
		t.allRoutes = append(t.allRoutes, i)
	}
}

func newRoute(index int, from *policy.Route) *Route {
	r := &Route{
		index: index, name: from.Name, timeout: from.Timeout, cost: from.Cost, costBy: from.CostBy,
		backend: from.Backend, split: from.Split, core: !from.NonCore,
	}
	for i := range from.Split {
		r.weights += uint64(from.Split[i].Weight)
		for _, name := range from.Split[i].Tenants {
			if r.pinned == nil {
				r.pinned = make(map[string]int)
			}
			r.pinned[name] = from.Split[i].Backend
		}
	}
	return r
}

// target chooses the backend of a request, as an index into Snapshot.Backends: that of the part of the route's split that
// lists the tenant, then the tenant's own (own, -1: none), then one by the split's weights, then the route's.
func (r *Route) target(identity []byte, own int, req *Request) int {
	if r.pinned != nil {
		if backend, ok := r.pinned[string(identity)]; ok {
			return backend
		}
	}
	switch {
	case own >= 0:
		return own
	case len(r.split) == 0:
		return r.backend
	}
	return r.weighted(identity, req)
}

// weighted spreads tenants over the split's backends by their weights. The choice is a hash of the route and the tenant (of
// the client's address where there is none), so that a tenant always gets the same backend, from every sidecar.
func (r *Route) weighted(identity []byte, req *Request) int {
	if r.weights == 0 {
		return r.split[0].Backend
	}
	h := hash(offset, r.name)
	if len(identity) > 0 {
		h = hash(h, identity)
	} else {
		address := req.Client.As16()
		h = hash(h, address[:])
	}
	at := mix(h) % r.weights
	for i := range r.split {
		w := uint64(r.split[i].Weight)
		if at < w {
			return r.split[i].Backend
		}
		at -= w
	}
	panic("BUG: weights do not add up")
}

const offset = 14695981039346656037

// hash is FNV-1a, which has no seed: all sidecars must choose alike.
func hash[T string | []byte](h uint64, s T) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return (h ^ 0xff) * 1099511628211
}

// mix spreads the hash over all bits, since FNV's low ones are weak for short keys.
func mix(h uint64) uint64 {
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 32
	return h
}
