package limit

import (
	"runtime"
	"sync/atomic"
	"time"
)

// Bucket is a token bucket whose rate may change while it is used. Make one with [NewBucket], or begin with
// [Bucket.Init] or [Bucket.Share] where the memory is there already; the zero value is none yet. It takes 32
// bytes: one word here, which several holders of one bucket may each have, and 24 behind it.
//
// All other methods may be called concurrently and take effect one after the other, exactly: a Take falls
// either before a Set, and is then part of the debt that Set restates, or after it, and is then decided
// by the new rate. Only Set allocates, and waits for another Set; no Take ever waits.
type Bucket struct{ current atomic.Pointer[epoch] }

// epoch is the time between two Sets. Its TAT ends as frozen, for good: a Take that still holds an
// old epoch can therefore not mistake a restated TAT for the one it read.
type epoch struct {
	tat  atomic.Int64
	rate *Rate
	next atomic.Pointer[epoch] // what a Set is changing to; not nil once tat is frozen
}

const frozen = -1 // no rate yields a negative TAT

// NewBucket returns a full bucket. r must not change any more.
func NewBucket(r *Rate) *Bucket {
	b := new(Bucket)
	b.Init(r)
	return b
}

// Init makes b a full bucket, new and its own. r must not change any more. Nobody may use b meanwhile.
func (b *Bucket) Init(r *Rate) { b.current.Store(&epoch{rate: r}) }

// Share makes b the same bucket as another: what is taken, refunded or set through one holds for both. Nobody may
// use b meanwhile. If only one of them is used afterwards, the other keeps 24 bytes and a Rate alive for every Set.
func (b *Bucket) Share(other *Bucket) { b.current.Store(other.current.Load()) }

// Take takes n tokens at now, or none: see [Rate.Take].
func (b *Bucket) Take(now, n int64) Decision {
	clock := subticks(now)
	for e := b.current.Load(); ; {
		tat := e.tat.Load()
		if tat == frozen {
			e = b.after(e)
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
			e = b.after(e)
			continue
		}
		next, wait := e.rate.Debit(tat, now, n)
		if e.tat.CompareAndSwap(tat, next) {
			return wait
		}
	}
}

// Ask returns what Take would, and takes nothing.
func (b *Bucket) Ask(now, n int64) Decision {
	tat, r := b.read()
	_, d := r.Take(tat, now, n)
	return d
}

// Refund gives back n tokens of earlier Takes, also of those before a Set.
func (b *Bucket) Refund(n int64) {
	for e := b.current.Load(); ; {
		tat := e.tat.Load()
		if tat == frozen {
			e = b.after(e)
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
	for e := b.current.Load(); ; {
		if e.tat.Load() == frozen {
			e = b.after(e)
			continue
		}
		if *e.rate == *r {
			return
		}
		next := &epoch{rate: r}
		if !e.next.CompareAndSwap(nil, next) {
			runtime.Gosched() // until another Set has frozen this epoch
			continue
		}
		for {
			tat := e.tat.Load()
			next.tat.Store(r.Restate(tat, now, e.rate))
			if e.tat.CompareAndSwap(tat, frozen) {
				b.after(e)
				return
			}
		}
	}
}

// after returns the epoch that follows a frozen one, and begins with it from now on.
func (b *Bucket) after(e *epoch) *epoch {
	next := e.next.Load()
	b.current.CompareAndSwap(e, next)
	return next
}

// Copy returns a bucket of its own that is as b is now: for asking what would be, without doing it.
func (b *Bucket) Copy() *Bucket {
	tat, r := b.read()
	c := NewBucket(r)
	c.current.Load().tat.Store(tat)
	return c
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

// Level returns how full the bucket is at now: see [Rate.Level].
func (b *Bucket) Level(now int64) Level {
	tat, r := b.read()
	return r.Level(tat, now)
}

// Rate returns the rate in force.
func (b *Bucket) Rate() *Rate {
	_, r := b.read()
	return r
}

// read returns a TAT and the rate it was kept under.
func (b *Bucket) read() (tat int64, r *Rate) {
	for e := b.current.Load(); ; e = b.after(e) {
		if tat := e.tat.Load(); tat != frozen {
			return tat, e.rate
		}
	}
}
