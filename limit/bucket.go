package limit

import (
	"sync"
	"sync/atomic"
	"time"
)

// Bucket is a token bucket whose rate may change while it is used. Make one with [NewBucket].
//
// All methods may be called concurrently and take effect one after the other, exactly: a Take falls
// either before a Set, and is then part of the debt that Set restates, or after it, and is then decided
// by the new rate. Only Set allocates and locks, and no Take ever waits for it.
type Bucket struct {
	current atomic.Pointer[epoch]
	setting sync.Mutex // one Set at a time
}

// epoch is the time between two Sets. Its TAT ends as frozen, for good: a Take that still holds an
// old epoch can therefore not mistake a restated TAT for the one it read.
type epoch struct {
	tat  atomic.Int64
	rate *Rate
	next *epoch // written before tat is frozen, read only after
}

const frozen = -1 // no rate yields a negative TAT

// NewBucket returns a full bucket. r must not change any more.
func NewBucket(r *Rate) *Bucket {
	b := &Bucket{}
	b.current.Store(&epoch{rate: r})
	return b
}

// Take takes n tokens at now, or none: see [Rate.Take].
func (b *Bucket) Take(now, n int64) Decision {
	clock := subticks(now)
	for e := b.current.Load(); ; {
		tat := e.tat.Load()
		if tat == frozen {
			e = e.next
			continue
		}
		next, ok := e.rate.advance(tat, clock, n)
		if next == tat || e.tat.CompareAndSwap(tat, next) {
			return e.rate.decision(next, clock, n, ok)
		}
	}
}

// Debit takes n tokens at now, there or not, and returns how long to wait until that fits: see [Rate.Debit].
func (b *Bucket) Debit(now, n int64) time.Duration {
	for e := b.current.Load(); ; {
		tat := e.tat.Load()
		if tat == frozen {
			e = e.next
			continue
		}
		next, wait := e.rate.Debit(tat, now, n)
		if e.tat.CompareAndSwap(tat, next) {
			return wait
		}
	}
}

// Refund gives back n tokens of earlier Takes, also of those before a Set.
func (b *Bucket) Refund(n int64) {
	for e := b.current.Load(); ; {
		tat := e.tat.Load()
		if tat == frozen {
			e = e.next
			continue
		}
		if e.tat.CompareAndSwap(tat, e.rate.Refund(tat, n)) {
			return
		}
	}
}

// Set changes the rate at now and keeps the debt in tokens: see [Rate.Restate]. An equal rate changes
// nothing. r must not change any more.
func (b *Bucket) Set(now int64, r *Rate) {
	b.setting.Lock()
	defer b.setting.Unlock()
	e := b.current.Load()
	if *e.rate == *r {
		return
	}
	e.next = &epoch{rate: r}
	for {
		tat := e.tat.Load()
		e.next.tat.Store(r.Restate(tat, now, e.rate))
		if e.tat.CompareAndSwap(tat, frozen) {
			break
		}
	}
	b.current.Store(e.next)
}

// Available returns the whole tokens that could be taken at now.
func (b *Bucket) Available(now int64) int64 {
	tat, r := b.read()
	return r.Available(tat, now)
}

// Full reports whether nothing is owed at now.
func (b *Bucket) Full(now int64) bool {
	tat, r := b.read()
	return r.Full(tat, now)
}

// FullIn returns how long after now the bucket is full again.
func (b *Bucket) FullIn(now int64) time.Duration {
	tat, r := b.read()
	return r.FullIn(tat, now)
}

// Rate returns the rate in force.
func (b *Bucket) Rate() *Rate {
	_, r := b.read()
	return r
}

// read returns a TAT and the rate it was kept under.
func (b *Bucket) read() (tat int64, r *Rate) {
	for e := b.current.Load(); ; e = e.next {
		if tat := e.tat.Load(); tat != frozen {
			return tat, e.rate
		}
	}
}

// Cell is a token bucket of 8 bytes, for tables of very many: the rate is passed in. The zero value is a full
// bucket. All methods may be called concurrently, with one rate at a time; see [Cell.Restate].
type Cell struct{ tat atomic.Int64 }

// Take takes n tokens at now, or none: see [Rate.Take].
func (c *Cell) Take(r *Rate, now, n int64) Decision {
	clock := subticks(now)
	for {
		tat := c.tat.Load()
		next, ok := r.advance(tat, clock, n)
		if next == tat || c.tat.CompareAndSwap(tat, next) {
			return r.decision(next, clock, n, ok)
		}
	}
}

// Refund gives back n tokens of earlier Takes.
func (c *Cell) Refund(r *Rate, n int64) {
	for {
		tat := c.tat.Load()
		if c.tat.CompareAndSwap(tat, r.Refund(tat, n)) {
			return
		}
	}
}

// Restate passes the cell from one rate to another at now: see [Rate.Restate]. It is called once for each
// change. A Take or Refund that still passes the old rate afterwards is charged at the old
// interval, by that one call; whoever needs it exact uses a [Bucket].
func (c *Cell) Restate(now int64, from, to *Rate) {
	for {
		tat := c.tat.Load()
		next := to.Restate(tat, now, from)
		if next == tat || c.tat.CompareAndSwap(tat, next) {
			return
		}
	}
}

// Available returns the whole tokens that could be taken at now.
func (c *Cell) Available(r *Rate, now int64) int64 { return r.Available(c.tat.Load(), now) }

// Full reports whether nothing is owed at now.
func (c *Cell) Full(r *Rate, now int64) bool { return r.Full(c.tat.Load(), now) }

// FullIn returns how long after now the cell is full again.
func (c *Cell) FullIn(r *Rate, now int64) time.Duration { return r.FullIn(c.tat.Load(), now) }
