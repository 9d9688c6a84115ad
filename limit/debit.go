package limit

import "time"

// Debit takes n tokens at now, whether they are there or not, and returns the TAT that follows and how long after now the
// debt fits the bucket. A negative n counts as 0. A debt of more than 4.5 years of refill is cut to that. A rate that blocks
// pays off debts like one of 1 request per its Per, and holds none.
//
// It is for streams, which are slowed down rather than refused. Each piece of a stream is debited, and passes when its wait
// is over. The waits are those of a queue: whoever debits first passes first, and streams that debit one piece at a time
// share the rate by pieces.
//
// # The bound
//
// Where no piece is larger than the burst, and passes exactly when its wait is over, no window admits more than
// burst + rate × window, as with Take. For let D be the burst in time and piece i, of c time, be debited at a, so that
// T(i) = max(T(i-1), a(i)) + c(i), and pass at p(i) = max(a(i), T(i) - D). Neither a nor T goes back, so neither does p.
// Of the pieces j to k that pass within a window w, the last passes no earlier than T(k) - D, so T(k) ≤ p(j) + w + D.
// If the first passed at once, at a(j), the debts of all of them lie between a(j) and T(k): together they are no more
// than T(k) - a(j) ≤ w + D. If it waited, p(j) = T(j) - D, those after it are no more than T(k) - T(j) ≤ w, and itself is
// no more than D. Whoever passes later than he might shifts his own piece and nobody else's.
func (r *Rate) Debit(tat, now, n int64) (next int64, left time.Duration) {
	clock := subticks(now)
	debt := min(max(tat-clock, 0), maxDebt) + min(max(n, 0), maxDebt/r.cost)*r.cost
	debt = min(debt, maxDebt)
	return max(clock+debt, tat), wait(max(debt-r.depth, 0))
}

// Rewait returns the wait, under r, of whoever has left to wait under the rate from: a change of the rate restates what he
// waits for as Restate does the debt. left is what Debit returned, less what has passed since.
func (r *Rate) Rewait(left time.Duration, from *Rate) time.Duration {
	debt := min(max(int64(left), 0), horizon)<<subtickBits + from.depth
	return wait(max(r.restated(debt, from)-r.depth, 0))
}

// Refills returns how many whole tokens refill within a time of at most 4.5 years; less than one when the rate blocks.
func (r *Rate) Refills(within time.Duration) int64 {
	if r.Blocks() {
		return 0
	}
	return min(max(int64(within), 0), maxDebt>>subtickBits) << subtickBits / r.cost
}
