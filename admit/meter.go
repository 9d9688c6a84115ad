package admit

import (
	"math"
	"time"

	"weir/limit"
)

const (
	// pieceTime is how much of a limit one piece of a body may take, so that no stream holds up another one for long.
	pieceTime = 50 * time.Millisecond
	// leastPiece is the least that a piece may have however slow the limit is, unless its burst is less.
	leastPiece = 1 << 10
)

// Meter is what one direction of a request's bodies spends on the limits in bytes that apply to the request. It works piece
// by piece: [Meter.Piece] says how large the next one may be, [Meter.Begin] begins it, and it may pass when [Meter.Wait] returns 0.
//
// The limits are asked one after the other, the tenant's own before those that it shares: a stream that waits for its own
// takes nothing of what others could have. For one stream that is as long as the longest wait. Limits in shadow are debited and
// make nobody wait.
//
// The zero value has no limits. A Meter belongs to one goroutine at a time; Meters share nothing but buckets and counters.
// Nothing here allocates.
type Meter struct {
	tenant *Tenant
	limits []check
	bytes  int64       // of the piece under way
	at     int         // the limit that has not let it through; len(limits): there is no piece
	rate   *limit.Rate // that the limit had when it said due; nil: it was not debited yet
	due    int64
	delays Delays
}

// Delays are the limits that have delayed a request, or in shadow would have, as bits: those of a request's two Meters are
// joined by |. It is for Settle.
type Delays uint64

// delay is the bit of a limit. A tenant with more than 64 limits in bytes on one route has the rest counted as one.
func delay(limit int) Delays { return 1 << min(limit, 63) }

// Meter returns the meter of one direction of a request that Decide has let through. It is one look-up where no limit in
// bytes applies.
func (t *Table) Meter(m *Match) Meter {
	limits := m.Tenant.plan.on(m.Route.index).bytes
	return Meter{tenant: m.Tenant, limits: limits, at: len(limits)}
}

// On says whether there is anything to ask.
func (m *Meter) On() bool { return len(m.limits) > 0 }

// Delays returns which limits have delayed a piece so far.
func (m *Meter) Delays() Delays { return m.delays }

// Piece returns how many bytes the next piece may have: for each limit as many as refill in 50 ms, but at least 1 KiB, and
// never more than the burst. It is at least 1.
func (m *Meter) Piece() int {
	most := int64(math.MaxInt)
	for i := range m.limits {
		c := &m.limits[i]
		if c.limit.rule.Shadow {
			continue
		}
		r := m.tenant.bucket(c.limit, c.slot).Rate()
		most = min(most, max(r.Refills(pieceTime), leastPiece), r.Burst())
	}
	return int(max(most, 1))
}

// Begin begins a piece of n bytes.
func (m *Meter) Begin(n int) { m.bytes, m.at, m.rate = int64(n), 0, nil }

// Wait debits the piece where that is due, and returns how long it still has to wait before it passes, as things stand: a
// changed limit may mean more or less. It passes when Wait has returned 0.
func (m *Meter) Wait(now int64) time.Duration {
	for ; m.at < len(m.limits); m.at++ {
		c := &m.limits[m.at]
		left := m.left(c, now)
		if left > 0 {
			m.delays |= delay(m.at)
			if !c.limit.rule.Shadow {
				return left
			}
		}
		m.tenant.decisions(c).bytes.Add(uint64(m.bytes))
		m.rate = nil
	}
	return 0
}

// left returns how long the piece has to wait for one limit.
func (m *Meter) left(c *check, now int64) time.Duration {
	bucket := m.tenant.bucket(c.limit, c.slot)
	switch rate := bucket.Rate(); {
	case m.rate == nil:
		m.rate, m.due = rate, now+int64(bucket.Debit(now, m.bytes))
	case m.rate != rate && m.due > now:
		m.rate, m.due = rate, now+int64(rate.Rewait(time.Duration(m.due-now), m.rate))
	}
	return time.Duration(m.due - now)
}

// countDelays counts a request that has ended for every limit in bytes that applied to it.
func (tn *Tenant) countDelays(r *Route, delays Delays) {
	limits := tn.plan.on(r.index).bytes
	for i := range limits {
		c := &limits[i]
		switch d := tn.decisions(c); {
		case delays&delay(i) == 0:
			d.allow.Add(1)
		case c.limit.rule.Shadow:
			d.shadowDelay.Add(1)
		default:
			d.delay.Add(1)
		}
	}
}
