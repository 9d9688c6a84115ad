package breaker

import "time"

// buckets are how many steps a window slides in.
const buckets = 10

// calls are how some calls ended.
type calls struct{ requests, failures, slow int64 }

func (c *calls) add(o calls) {
	c.requests += o.requests
	c.failures += o.failures
	c.slow += o.slow
}

func (c *calls) sub(o calls) {
	c.requests -= o.requests
	c.failures -= o.failures
	c.slow -= o.slow
}

// window sums up the calls of the last time: the bucket under way and the nine before it. The zero value is empty.
type window struct {
	ring [buckets]calls
	sum  calls
	at   int64 // the bucket under way, numbered from time 0
	last int64 // when calls were last added
}

// add slides the window to now and puts into it what ended since the last add. If that is longer ago than the window reaches,
// nobody knows when they ended, and they are left out.
func (w *window) add(now int64, length time.Duration, c calls) {
	late := now-w.last > int64(length)
	w.last = now
	at := now / int64(length/buckets)
	for n := max(w.at+1, at-buckets+1); n <= at; n++ {
		w.sum.sub(w.ring[n%buckets])
		w.ring[n%buckets] = calls{}
	}
	w.at = at
	if !late {
		w.ring[at%buckets].add(c)
		w.sum.add(c)
	}
}
