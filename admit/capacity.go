package admit

import (
	"sync"
	"sync/atomic"
	"time"

	"weir/limit"
	"weir/policy"
)

// capacity is the cell of one backend: the requests that it has, and those that wait for it. It is adopted by the backend's name. A
// request leaves the cell that it entered, whatever table is in use by then, so places are neither lost nor
// given twice over a change of policy; and terms are read from the cell, so a changed number holds for all at once.
type capacity struct {
	name    string
	gate    limit.Gate
	terms   atomic.Pointer[capacityTerms]
	waiting atomic.Int32
	mu      sync.Mutex
	line    line // guarded by mu

	dropped [dropCount]atomic.Uint64
}

// capacityTerms are a backend's `capacity`, ready to be asked.
type capacityTerms struct {
	most     int64           // in flight; unbounded where the policy sets none
	adaptive *limit.Adaptive // finds how many of these; nil: all
	queue    policy.QueueSettings
}

// drop is why a request did not get the place that it asked for.
type drop uint8

const (
	dropFull    drop = iota // no room in the queue, at once or later
	dropTimeout             // it waited for as long as it may
	dropGone                // it ended by itself: its client left, or its own time was over
	dropCount
)

func (d drop) String() string { return [dropCount]string{"full", "timeout", "gone"}[d] }

// buildBackends makes the cells of the backends, those of prev where there are any. New terms hold from Adopt on.
func (t *Table) buildBackends(prev *Table) {
	before := make(map[string]*capacity)
	if prev != nil {
		for _, c := range prev.backends {
			before[c.name] = c
		}
	}
	for i := range t.snapshot.Backends {
		b := &t.snapshot.Backends[i]
		c := before[b.Name]
		if c == nil {
			c = &capacity{name: b.Name}
			c.line = line{waiting: &c.waiting, mu: &c.mu, pacer: new(pacer)}
			c.terms.Store(newCapacityTerms(b.Capacity, nil))
		}
		t.backends = append(t.backends, c)
	}
}

// newCapacityTerms continue old, which may be nil: what was found out about a backend's capacity is kept.
func newCapacityTerms(s *policy.CapacitySettings, old *capacityTerms) *capacityTerms {
	terms := &capacityTerms{most: unbounded}
	if s == nil {
		return terms
	}
	terms.queue = s.Queue
	if s.Concurrency > 0 {
		terms.most = int64(s.Concurrency)
	}
	switch {
	case !s.Adaptive:
	case old != nil && old.adaptive != nil:
		terms.adaptive = old.adaptive
		if terms.most != old.most { // it ends the experiment that is under way
			terms.adaptive.SetMost(int64(s.Concurrency))
		}
	default:
		terms.adaptive = limit.NewAdaptive(limit.AdaptiveOptions{Most: int64(s.Concurrency)})
	}
	return terms
}

// adoptBackends puts the table's terms in force. Whoever waits and fits by now is called.
func (t *Table) adoptBackends(now int64) {
	for i, c := range t.backends {
		terms := newCapacityTerms(t.snapshot.Backends[i].Capacity, c.terms.Load())
		c.terms.Store(terms)
		c.callNext(now, terms)
	}
}

// limit is how many requests the backend is given at once.
func (t *capacityTerms) limit() int64 {
	if t.adaptive == nil {
		return t.most
	}
	return t.adaptive.Limit()
}

// bounded says whether there is a limit at all.
func (t *capacityTerms) bounded() bool { return t.adaptive != nil || t.most != unbounded }

// told is how full the backend is; zero without a bound.
func (c *capacity) told() TraceBackend {
	terms := c.terms.Load()
	if !terms.bounded() {
		return TraceBackend{}
	}
	return TraceBackend{InFlight: c.gate.InFlight(), Capacity: terms.limit(), Waiting: int64(c.waiting.Load())}
}

// leave ends a request that had a place.
func (c *capacity) leave(now int64, latency time.Duration) {
	terms := c.terms.Load()
	if terms.adaptive != nil && latency > 0 {
		terms.adaptive.Record(now, latency, c.gate.InFlight())
	}
	c.gate.Leave()
	c.callNext(now, terms)
}

// callNext gives free places to those who wait.
func (c *capacity) callNext(now int64, terms *capacityTerms) {
	if c.waiting.Load() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.next(now, bound{gate: &c.gate, most: terms.limit()})
}

// join lets a request of a tenant wait for a place.
func (c *capacity) join(now int64, w *waiter, tn *Tenant, terms *capacityTerms) waitState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.join(now, w, tn.flow(), int64(tn.plan.terms.Weight), terms.queue.Length, bound{gate: &c.gate, most: terms.limit()})
}

// waitingOf returns how many requests of a flow wait.
func (c *capacity) waitingOf(flow string) int64 {
	if c.waiting.Load() == 0 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.queue.LenOf(flow)
}
