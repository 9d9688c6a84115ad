package limit

import (
	"math"
	"sync/atomic"
)

// Gate counts requests in flight, in 4 bytes, and lets in no more than a maximum. The zero value is empty. All
// methods may be called concurrently.
type Gate struct{ inFlight atomic.Int32 }

// Enter lets one request in if fewer than max are in flight, and reports whether it did. max is
// passed in, so it may change at any time: those already in stay in. A max of 0 or less lets nobody in,
// and one of 2^31 or more 2^31-1.
func (g *Gate) Enter(max int64) bool {
	for {
		n := g.inFlight.Load()
		if int64(n) >= min(max, math.MaxInt32) {
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

// Assume begins with n requests in, in a gate that nobody uses yet: for asking what would be, without doing it.
func (g *Gate) Assume(n int64) { g.inFlight.Store(int32(n)) }

// InFlight returns how many are in.
func (g *Gate) InFlight() int64 { return int64(g.inFlight.Load()) }
