package limit

import (
	"fmt"
	"math/bits"
	"time"
)

// Legal ranges of [NewRate].
const (
	MaxRequests = 1_000_000_000 // in a second; one per nanosecond
	MinPer      = time.Millisecond
	MaxPer      = 744 * time.Hour
)

const (
	// subtickBits makes the unit of the arithmetic ("subtick") 1/16 ns. It is one unit for all
	// rates, so that a Take racing a Restate misjudges one request at most.
	subtickBits = 4
	// horizon is the latest now that is told apart from later ones: 2^58 ns, nine years.
	horizon = int64(1) << (62 - subtickBits)
	// maxDebt keeps clock + debt + one more Take below 2^63. It is 4.5 years of refill.
	maxDebt = int64(1)<<61 - 1
)

// Rate says how fast a bucket refills and how much it holds. It comes from [NewRate] only, is immutable and
// comparable, and carries the arithmetic of [Bucket]: pure functions of a timestamp, the theoretical arrival
// time (TAT), and of now.
//
// The TAT is when the bucket will be full again, in units of 1/16 ns on the clock of now: opaque to
// callers, 0 for a bucket never used. now is nanoseconds since some start on one monotonic clock,
// 0 to 2^58 (nine years); what lies outside counts as the nearest end, so wall-clock nanoseconds since
// 1970 do not serve.
//
// # Rounding
//
// A token costs its interval, per/requests, rounded up to the next 1/16 ns. Hence tokens are exact:
// n tokens cost n times one token, in whatever portions they are taken or refunded, and a full
// bucket gives its whole burst at one instant. No window admits more than burst + rate × window.
// The price is a rate that is too low by less than (1/16 ns)/interval: 0.0063 % at 1e6/s, 0.1 % at
// 16e6/s, 0.63 % at 1e8/s, and 5.9 % just below 1e9/s; nothing where the interval is a multiple of
// 1/16 ns, such as 1e9/s.
type Rate struct {
	requests int64
	per      time.Duration
	burst    int64 // 0 when blocked
	cost     int64 // subticks per token
	depth    int64 // burst × cost
}

// NewRate returns the rate of so many requests, or bytes, per duration with so much burst.
//
// requests 0 blocks everything, and burst is then ignored; otherwise requests is at least 1, per is
// [MinPer] to [MaxPer], together at most one request per nanosecond, and burst is at least 1 and at
// most what refills within 4.5 years.
func NewRate(requests int64, per time.Duration, burst int64) (Rate, error) {
	switch {
	case requests < 0:
		return Rate{}, fmt.Errorf("cannot make a rate of %d requests: legal are 0 or more", requests)
	case per < MinPer || per > MaxPer:
		return Rate{}, fmt.Errorf("cannot make a rate per %v: legal are %v to %v", per, MinPer, MaxPer)
	case requests > int64(per):
		return Rate{}, fmt.Errorf("cannot make a rate of %d requests per %v: legal are at most %d, one per nanosecond", requests, per, int64(per))
	case requests == 0:
		// The books need some cost of a token; see Restate.
		return Rate{per: per, cost: int64(per) << subtickBits}, nil
	}
	// per ≤ 2^52 ns, so neither the shift nor the sum overflows.
	cost := (int64(per)<<subtickBits + requests - 1) / requests
	if most := maxDebt / cost; burst < 1 || burst > most {
		return Rate{}, fmt.Errorf("cannot make a rate of %d requests per %v with a burst of %d: legal are 1 to %d", requests, per, burst, most)
	}
	return Rate{requests: requests, per: per, burst: burst, cost: cost, depth: burst * cost}, nil
}

// Decision is the answer to a Take.
type Decision struct {
	OK         bool          // the tokens were taken
	Never      bool          // no waiting helps: n exceeds the burst, or the rate blocks
	Remaining  int64         // whole tokens left, after this Take if it is OK
	RetryAfter time.Duration // least wait until the same Take passes if nothing else happens; 0 if OK or Never
}

// Requests returns the requests granted in each Per; 0 when the rate blocks.
func (r *Rate) Requests() int64 { return r.requests }

// Per returns the duration over which Requests are granted.
func (r *Rate) Per() time.Duration { return r.per }

// Burst returns how many tokens a full bucket holds; 0 when the rate blocks.
func (r *Rate) Burst() int64 { return r.burst }

// Blocks reports whether the rate admits nothing at all.
func (r *Rate) Blocks() bool { return r.requests == 0 }

// Take decides on n tokens at now, all or none, and returns the TAT that follows: tat itself unless
// tokens were taken. A negative n counts as 0, and 0 tokens pass unless the rate blocks.
func (r *Rate) Take(tat, now, n int64) (next int64, d Decision) {
	clock := subticks(now)
	next, ok := r.advance(tat, clock, n)
	return next, r.decision(next, clock, n, ok)
}

// advance is the part of Take that leads to the next TAT. The rest is kept apart so that it need not be
// computed between the load and the swap of a TAT that is contended for.
func (r *Rate) advance(tat, clock, n int64) (next int64, ok bool) {
	if n <= 0 {
		return tat, !r.Blocks()
	}
	if n > r.burst {
		return tat, false
	}
	debt := max(tat-clock, 0) + n*r.cost
	if debt > r.depth {
		return tat, false
	}
	return clock + debt, true
}

// decision describes what advance did, from the TAT that it returned.
func (r *Rate) decision(tat, clock, n int64, ok bool) Decision {
	debt := max(tat-clock, 0)
	d := Decision{OK: ok, Remaining: r.left(debt)}
	switch {
	case ok:
	case r.Blocks() || n > r.burst:
		d.Never = true
	default:
		d.RetryAfter = wait(debt + n*r.cost - r.depth)
	}
	return d
}

// Refund returns the TAT after n tokens that were taken come back, whatever they were taken with.
// The bucket never holds more than its burst. A negative n counts as 0.
func (r *Rate) Refund(tat, n int64) int64 {
	hi, lo := bits.Mul64(uint64(max(n, 0)), uint64(r.cost))
	if hi != 0 || lo > uint64(tat) {
		return 0
	}
	return tat - int64(lo)
}

// Restate turns a TAT kept under the rate from into one under r: at now, the bucket owes as many
// tokens as before, also when that is more than the new burst. Rounding is against the caller, by less
// than 1/16 ns of refill under r. now must not lie before that of an earlier Restate.
//
// A rate that blocks pays off debts like one of 1 request per its Per. A debt of more than
// 4.5 years of refill under r is cut to that.
func (r *Rate) Restate(tat, now int64, from *Rate) int64 {
	clock := subticks(now)
	if tat <= clock {
		return tat
	}
	return clock + r.restated(tat-clock, from)
}

// restated turns a debt under the rate from into one of as many tokens under r, rounded up.
func (r *Rate) restated(debt int64, from *Rate) int64 {
	hi, lo := bits.Mul64(uint64(debt), uint64(r.cost))
	lo, carry := bits.Add64(lo, uint64(from.cost)-1, 0)
	hi += carry
	if hi >= uint64(from.cost) {
		return maxDebt
	}
	restated, _ := bits.Div64(hi, lo, uint64(from.cost))
	return int64(min(restated, uint64(maxDebt)))
}

// Available returns the whole tokens that could be taken at now.
func (r *Rate) Available(tat, now int64) int64 { return r.left(max(tat-subticks(now), 0)) }

// Full reports whether nothing is owed at now, so that forgetting the bucket would give nothing away.
func (r *Rate) Full(tat, now int64) bool { return tat <= subticks(now) }

// FullIn returns how long after now the bucket is full again.
func (r *Rate) FullIn(tat, now int64) time.Duration { return wait(max(tat-subticks(now), 0)) }

// Level is how full a bucket is at one instant.
type Level struct {
	Available int64         // whole tokens that could be taken
	Next      time.Duration // least wait until there is one more if nothing is taken; 0 when the bucket is full or blocked
	Full      time.Duration // least wait until nothing is owed
}

// Level returns how full the bucket is at now. What it returns belongs together: it comes from one TAT.
func (r *Rate) Level(tat, now int64) Level {
	debt := max(tat-subticks(now), 0)
	l := Level{Available: r.left(debt), Full: wait(debt)}
	if l.Available < r.burst {
		l.Next = wait(debt + (l.Available+1)*r.cost - r.depth)
	}
	return l
}

// left returns the whole tokens a bucket with that debt holds.
func (r *Rate) left(debt int64) int64 { return max(r.depth-debt, 0) / r.cost }

// subticks returns now in the unit of the TAT.
func subticks(now int64) int64 { return min(max(now, 0), horizon) << subtickBits }

// wait returns the whole nanoseconds in which that many subticks pass.
func wait(subticks int64) time.Duration {
	return time.Duration((subticks + 1<<subtickBits - 1) >> subtickBits)
}
