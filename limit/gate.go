package limit

import "sync/atomic"

// Gate counts requests in flight and lets in no more than a maximum. The zero value is empty. All
// methods may be called concurrently.
type Gate struct{ inFlight atomic.Int64 }

// Enter lets one request in if fewer than max are in flight, and reports whether it did. max is
// passed in, so it may change at any time: those already in stay in. A max of 0 or less lets nobody in.
func (g *Gate) Enter(max int64) bool {
	for {
		n := g.inFlight.Load()
		if n >= max {
			return false
		}
		if g.inFlight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Leave ends one request that was let in, exactly once for each.
func (g *Gate) Leave() {
	if g.inFlight.Add(-1) < 0 {
		panic("BUG: Gate.Leave without Enter")
	}
}

// InFlight returns how many are in.
func (g *Gate) InFlight() int64 { return g.inFlight.Load() }
