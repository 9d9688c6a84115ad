package upstream

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"

	"weir/policy"
)

// choose returns the index of the member that a call goes to. There must be at least one member. A call that is made again goes
// to another endpoint than before where there is one.
func (b *Backend) choose(members []member, call *Call) int {
	i := b.balance(members, call)
	if call.Avoid == "" || members[i].address != call.Avoid || len(members) == 1 {
		return i
	}
	rest := append(append(make([]member, 0, len(members)-1), members[:i]...), members[i+1:]...)
	other := b.balance(weighed(rest), call)
	if other >= i {
		other++
	}
	return other
}

func (b *Backend) balance(members []member, call *Call) int {
	switch {
	case len(members) == 1:
		return 0
	case b.settings.Balance == policy.RoundRobin:
		return inTurn(members, &b.stats.turn)
	case b.settings.Balance == policy.ConsistentHash && call.Tenant != "":
		return byHash(members, hashOf(call.Tenant))
	}
	return leastRequests(members, rand.Uint64())
}

// scanLimit is how many endpoints are compared one by one. Beyond it two drawn by weight are enough: the better of two
// random choices is nearly as even as the best of all, and its cost does not grow.
const scanLimit = 16

// leastRequests returns the index of the endpoint with the fewest requests in flight for its weight. Among equals the draw
// decides by weight, so an idle backend is spread by weight too. There must be at least one endpoint.
func leastRequests(members []member, draw uint64) int {
	n := len(members)
	if n == 1 {
		return 0
	}
	if n > scanLimit {
		a := drawByWeight(members, draw)
		b := drawByWeight(members, nextDraw(draw))
		if loadedLess(members[b].inFlight.Load(), members[b].weight, members[a].inFlight.Load(), members[a].weight) {
			return b
		}
		return a
	}
	best, tied := 0, members[0].weight
	load := members[0].inFlight.Load()
	for i := 1; i < n; i++ {
		m := &members[i]
		l := m.inFlight.Load()
		switch {
		case loadedLess(l, m.weight, load, members[best].weight):
			best, load, tied = i, l, m.weight
		case !loadedLess(load, members[best].weight, l, m.weight):
			tied += m.weight
			draw = nextDraw(draw)
			if below(draw, tied) < m.weight {
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
func drawByWeight(members []member, draw uint64) int {
	at := below(draw, members[len(members)-1].upTo)
	lo, hi := 0, len(members)-1
	for lo < hi {
		if mid := (lo + hi) / 2; members[mid].upTo > at {
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

// inTurn returns the index of the next endpoint in turn. Turns come in rounds, in which each endpoint has one; the heaviest takes
// all of its turns, and one of a third of its weight each third, beginning with another round than its neighbours. So after any
// number of rounds each has had its part to within one request, without state but one counter.
func inTurn(members []member, turn *atomic.Uint64) int {
	n, heaviest := uint64(len(members)), uint64(0)
	for i := range members {
		heaviest = max(heaviest, members[i].weight)
	}
	for {
		t := turn.Add(1) - 1
		round, i := t/n, t%n
		if w := members[i].weight; (round%heaviest*w+i*heaviest/n)%heaviest >= heaviest-w {
			return int(i)
		}
	}
}

// An endpoint passes a tenant on while it has at least crowd requests in flight and more than loadFactor halves of what would be
// its part of all. The first keeps a tenant together while there is little to do, the second a loud one from drowning its
// endpoint.
const (
	crowd      = 8
	loadFactor = 3
)

// byHash returns the index of the endpoint that a key belongs to: of those that are not crowded, the one that draws the best
// lot for the key (rendezvous hashing, weighted by taking an exponential lot of that rate). Each endpoint's lot depends on the
// key and its own address alone: when one goes, only its keys move, to all the others by weight; and every process that knows the
// same addresses chooses alike. Its cost is one logarithm for each endpoint.
func byHash(members []member, key uint64) int {
	total := int64(1)
	for i := range members {
		total += max(members[i].inFlight.Load(), 0)
	}
	weights := members[len(members)-1].upTo
	best, least := 0, math.Inf(1)
	for i := range members {
		m := &members[i]
		if load := m.inFlight.Load(); load >= crowd && 2*uint64(load)*weights >= loadFactor*uint64(total)*m.weight {
			continue
		}
		if lot := lotOf(key, m.seed, m.weight); lot < least {
			best, least = i, lot
		}
	}
	return best
}

// lotOf draws the lot of an endpoint for a key: an exponential variable of the weight's rate.
func lotOf(key, seed, weight uint64) float64 {
	uniform := (float64(mixed(key^seed)>>11) + 0.5) / (1 << 53)
	return -math.Log(uniform) / float64(weight)
}

// hashOf is FNV-1a, mixed: the same in every process and version.
func hashOf(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mixed(h)
}

// mixed spreads each bit over all others: the finalizer of SplitMix64.
func mixed(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
