package admit

import (
	"sync/atomic"
	"time"
)

// Outcome is how a request ended.
type Outcome struct {
	Reason Reason
	Status int    // what the client was told, or would have been
	Delays Delays // of both directions
	// Now is when it ended, on the clock of Decide: whoever is next in a queue is called then.
	Now int64
	// Latency is the time from when the request left for the backend to the head of its answer; 0: there was none.
	Latency time.Duration
	// Awaited is how long the backend had the whole request without a head of its answer, when the request ended so; else 0.
	Awaited time.Duration
}

// Settle ends a request: it leaves the gate and the backend, or the queue where it waits for them, calls whoever is next
// there, tells the breakers, and counts the outcome. What a request has spent that ends while it waits stays spent. It is called exactly once
// for each Match, whatever became of the request; v is its Verdict, or the zero Verdict of a request that was never decided on.
func (t *Table) Settle(m *Match, v *Verdict, o Outcome) {
	if v.settled {
		panic("BUG: request settled twice")
	}
	v.settled = true
	if v.wait != nil {
		m.passes.offer(m.random, v.AtBackend())
		t.giveUp(v)
	}
	m.passes.record(m.random, &o)
	if v.backend != nil {
		v.backend.leave(o.Now, o.Latency)
	}
	if v.entered {
		m.Tenant.leave(o.Now)
		m.Tenant.countDelays(m.Route, o.Delays)
	}
	m.Tenant.requests().add(m.Route.name, o)
}

// classes are the first digits of a status; 0 for none.
const classes = 6

// requests counts the requests of one tenant label, by route, reason and class of status. What never occurs takes no memory.
type requests struct {
	routes atomic.Pointer[map[string]*routeRequests] // copied to change
	shadow [2][2]atomic.Uint64                       // by whether they were refused, and whether limits in shadow would refuse; see try
}

type routeRequests [ReasonCount]atomic.Pointer[[classes]atomic.Uint64]

func (r *requests) add(route string, o Outcome) {
	counts := r.of(route)
	byClass := counts[o.Reason].Load()
	if byClass == nil {
		counts[o.Reason].CompareAndSwap(nil, new([classes]atomic.Uint64))
		byClass = counts[o.Reason].Load()
	}
	class := o.Status / 100
	if class < 0 || class >= classes {
		class = 0
	}
	byClass[class].Add(1)
}

// of returns the counters of a route, made at its first request.
func (r *requests) of(route string) *routeRequests {
	for {
		routes := r.routes.Load()
		if routes != nil {
			if c := (*routes)[route]; c != nil {
				return c
			}
		}
		next := make(map[string]*routeRequests)
		if routes != nil {
			for name, c := range *routes {
				next[name] = c
			}
		}
		next[route] = new(routeRequests)
		r.routes.CompareAndSwap(routes, &next)
	}
}

// keep forgets the routes that a table does not have.
func (r *requests) keep(t *Table) {
	for {
		routes := r.routes.Load()
		if routes == nil {
			return
		}
		next := make(map[string]*routeRequests)
		for name, c := range *routes {
			if t.routeNames[name] {
				next[name] = c
			}
		}
		if len(next) == len(*routes) || r.routes.CompareAndSwap(routes, &next) {
			return
		}
	}
}
