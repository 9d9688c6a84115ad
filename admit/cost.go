package admit

// mostCost is the largest cost that a request's header may say, and that a document may.
const mostCost = 1_000_000_000

// noCost is what a header says that holds no cost.
const noCost = -1

// costOf returns the tokens that a request on the route spends on every limit in requests, or noCost when its header says
// no number from 0 to mostCost, or says it twice.
func (r *Route) costOf(h Headers) int64 {
	if r.costBy == "" {
		return r.cost
	}
	value, n := h.Lookup(r.costBy)
	switch n {
	case 0:
		return r.cost
	case 1:
		if extra := parseCost(value); extra != noCost {
			return r.cost + extra
		}
	}
	return noCost
}

// parseCost reads digits and nothing else.
func parseCost(text []byte) int64 {
	if len(text) == 0 {
		return noCost
	}
	cost := int64(0)
	for _, c := range text {
		if c < '0' || c > '9' {
			return noCost
		}
		if cost = 10*cost + int64(c-'0'); cost > mostCost {
			return noCost
		}
	}
	return cost
}
