package upstream

import (
	"sync/atomic"
	"time"

	"weir/policy"
)

const (
	// retryWindow is how many seconds the budget of retries looks back.
	retryWindow = 10
	// retryFloor is how many retries in that time any budget but none allows, so that a quiet backend has some at all.
	retryFloor = 10
)

// retryCounts are what the budget of retries needs to know. The counters only grow; a mark keeps what they were at the beginning
// of a second, so that what happened since can be told.
type retryCounts struct {
	spent    atomic.Uint64 // tries that the budget paid for
	replayed atomic.Uint64 // tries that cost nothing
	latest   atomic.Int64  // second of the latest mark; written by the sweep only, like the marks
	marks    [retryWindow]struct{ first, spent atomic.Uint64 }
}

// Retries is what the backend's policy says of sending a request again.
func (b *Backend) Retries() *policy.RetrySettings { return &b.settings.Retries }

// SpendRetry takes one retry from the budget and counts it. It returns false when the budget is spent: when the retries of the
// last 10 s are retries.budget of the requests that ended in that time, and 10 or more. Lock-free; never more than the budget.
func (b *Backend) SpendRetry() bool {
	c := &b.stats.retries
	if b.settings.Retries.Budget <= 0 {
		return false
	}
	since := &c.marks[(c.latest.Load()+1)%retryWindow]
	requests := int64(b.stats.first() - since.first.Load())
	allowed := uint64(max(retryFloor, int64(b.settings.Retries.Budget*float64(requests))))
	for {
		spent := c.spent.Load()
		if spent-since.spent.Load() >= allowed {
			return false
		}
		if c.spent.CompareAndSwap(spent, spent+1) {
			return true
		}
	}
}

// CountReplay counts a request that is sent again since no backend can have read it, which costs no budget.
func (b *Backend) CountReplay() { b.stats.retries.replayed.Add(1) }

// first is how many requests ended, retries left out. A retry counts before it ends, so those under way make this too few, and
// the budget a little smaller, never larger.
func (s *stats) first() uint64 {
	var ended uint64
	for i := range s.ended {
		ended += s.ended[i].Load()
	}
	return ended - min(ended, s.retries.spent.Load()+s.retries.replayed.Load())
}

// mark makes the marks of the seconds that have begun.
func (s *stats) mark(now int64) {
	c := &s.retries
	second := now / int64(time.Second)
	latest := c.latest.Load()
	if second <= latest {
		return
	}
	first, spent := s.first(), c.spent.Load()
	for i := max(latest+1, second-retryWindow+1); i <= second; i++ {
		c.marks[i%retryWindow].first.Store(first)
		c.marks[i%retryWindow].spent.Store(spent)
	}
	c.latest.Store(second)
}
