package upstream

import "math/bits"

// scanLimit is how many endpoints are compared one by one. Beyond it two drawn by weight are enough: the better of two
// random choices is nearly as even as the best of all, and its cost does not grow.
const scanLimit = 16

// endpoint is one address of a backend with its part of the traffic.
type endpoint struct {
	pool   *pool
	weight uint64
	upTo   uint64 // weights of all endpoints up to and including this one
}

// leastRequests returns the index of the endpoint with the fewest requests in flight for its weight. Among equals the draw
// decides by weight, so an idle backend is spread by weight too. There must be at least one endpoint.
func leastRequests(endpoints []endpoint, draw uint64) int {
	n := len(endpoints)
	if n == 1 {
		return 0
	}
	if n > scanLimit {
		a := drawByWeight(endpoints, draw)
		b := drawByWeight(endpoints, nextDraw(draw))
		if loadedLess(endpoints[b].pool.inFlight.Load(), endpoints[b].weight, endpoints[a].pool.inFlight.Load(), endpoints[a].weight) {
			return b
		}
		return a
	}
	best, tied := 0, endpoints[0].weight
	load := endpoints[0].pool.inFlight.Load()
	for i := 1; i < n; i++ {
		e := &endpoints[i]
		l := e.pool.inFlight.Load()
		switch {
		case loadedLess(l, e.weight, load, endpoints[best].weight):
			best, load, tied = i, l, e.weight
		case !loadedLess(load, endpoints[best].weight, l, e.weight):
			tied += e.weight
			draw = nextDraw(draw)
			if below(draw, tied) < e.weight {
				best, load = i, l
			}
		}
	}
	return best
}

// loadedLess compares requests in flight per weight without dividing. Loads and weights are far below 2^31.
func loadedLess(loadA int64, weightA uint64, loadB int64, weightB uint64) bool {
	return uint64(max(loadA, 0))*weightB < uint64(max(loadB, 0))*weightA
}

// drawByWeight returns the index at which the draw falls on the line of all weights.
func drawByWeight(endpoints []endpoint, draw uint64) int {
	at := below(draw, endpoints[len(endpoints)-1].upTo)
	lo, hi := 0, len(endpoints)-1
	for lo < hi {
		if mid := (lo + hi) / 2; endpoints[mid].upTo > at {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// below maps a draw evenly onto [0, n).
func below(draw, n uint64) uint64 {
	hi, _ := bits.Mul64(draw, n)
	return hi
}

// nextDraw makes one random number into another: a step of Knuth's MMIX congruential generator, good in its high bits,
// which are the ones below uses.
func nextDraw(draw uint64) uint64 { return draw*6364136223846793005 + 1442695040888963407 }
