package limit

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Adaptive finds how many requests a backend can be given at once, from the latency of those that it answered. Make one with
// [NewAdaptive].
//
// It experiments: it tries a slightly different limit now and then, and compares. Where more requests at once make each of
// them slower in proportion, the last ones only queue inside the backend: the limit is past the knee. Where fewer at once
// make none of them faster, there was no queue. So no latency is held against one that was remembered from better times,
// and a backend that becomes slow keeps its concurrency unless a cut makes it faster. This is a search for the knee by finite
// differences, after Kiefer and Wolfowitz (1952), in which each comparison is sequential, after Wald (1945).
//
//   - A rest measures the latency at the limit found so far.
//   - A probe up measures it at a higher limit, which stays when latency rose by clearly less than a queue would add.
//   - A probe down measures it at a lower limit, which stays when latency fell by about what a queue had added. It costs
//     throughput when there was no queue. So it follows a latency that rose by itself, and otherwise comes once in many rounds.
//   - The first strides are long. They become longer while they succeed, and shorter when they fail, down to an eighth.
//   - A probe ends as soon as its difference stands out from the scatter, and after some hundred requests in any case.
//   - Load that does not fill the limit teaches nothing and moves nothing.
//
// Hence the limit is as good as some hundred answers can tell: the wider latencies scatter, and the fewer answers there are in a
// second, the longer it takes. Latencies are compared by the mean of their logarithms, which a few outliers do not move.
//
// All methods may be called concurrently. None allocates, and Limit and Record never wait.
type Adaptive struct {
	limit atomic.Int64

	mu        sync.Mutex // Record only tries it: a request that ends while another is recorded is left out
	most      int64
	last      int64     // the latest now
	base      int64     // the limit found so far, which is in force between probes
	direction direction // of the probe that runs
	stride    float64   // how far the next probe goes, as a logarithm
	rounds    int64     // rests before a probe down that has no other cause
	level     float64   // the mean of earlier rests; +Inf before the first
	rest      series    // at base
	probe     series    // at limit, while a probe runs
}

// AdaptiveOptions are the bounds of an [Adaptive].
type AdaptiveOptions struct {
	// Most is what the limit never exceeds; 0 and less: 1000.
	Most int64
	// Start is the limit to begin with, brought down to Most; 0 and less: 10. A start far above what the backend can do takes
	// as long to come down as the backend takes to answer what it was given.
	Start int64
}

const (
	defaultMost  = 1000
	defaultStart = 10

	leap = 0.6931 // the longest stride: the logarithm of 2
	pace = 0.2231 // the shortest where latencies scatter: the logarithm of 1.25
	step = 0.12   // the shortest where they do not

	queued    = 0.7 // a queue is where latency changes by more than this part of what the requests in flight change by
	filled    = 0.8 // load fills a limit when this part of it is in flight on average
	certainty = 2   // how many standard errors tell a difference from chance
	outlier   = 2   // a latency whose logarithm is further from the mean expected counts as if it were this far

	fewest = 16  // requests in a series at least
	enough = 200 // a series that has as many, and eight turns of its limit, is judged as it stands
	often  = 8   // a series is looked at each time as many more requests have ended
	rarely = 16  // rounds between probes down that have no cause; more for limits so small that one place is a tenth or more

	pause = int64(time.Second) // a series is begun anew after a longer pause, and when the clock goes back by more
)

type direction int8

const (
	none direction = 0
	up   direction = 1
	down direction = -1
)

// NewAdaptive returns a limit that begins at o.Start.
func NewAdaptive(o AdaptiveOptions) *Adaptive {
	a := &Adaptive{stride: leap, level: math.Inf(1)}
	if a.base = o.Start; o.Start <= 0 {
		a.base = defaultStart
	}
	a.SetMost(o.Most)
	return a
}

// SetMost changes what the limit never exceeds; 0 and less: 1000. What was learnt stays.
func (a *Adaptive) SetMost(most int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.most = most; most <= 0 {
		a.most = defaultMost
	}
	a.base = min(a.base, a.most)
	a.settle()
}

// Limit returns how many requests the backend may have at once, from 1 to the bound. It may change with each Record. Requests
// in flight beyond a limit that fell are to be left alone.
func (a *Adaptive) Limit() int64 { return a.limit.Load() }

// Record counts a request that ended at now: how long the backend took for it, and how many it had just before, this one
// included.
//
// It is for requests that the backend worked on. A failure that comes at once, such as a refused connection or a 503, is none:
// it would look like a fast backend. A request that was given up after a timeout is one, with the time that it waited. The time
// ends with the head of the answer, since a slow client is no slow backend. A latency or a number below 1 is not counted.
func (a *Adaptive) Record(now int64, latency time.Duration, inFlight int64) {
	if latency <= 0 || inFlight <= 0 {
		return
	}
	log := math.Log(float64(latency))
	if !a.mu.TryLock() {
		return
	}
	a.record(now, int64(latency), log, float64(inFlight))
	a.mu.Unlock()
}

func (a *Adaptive) record(now, latency int64, log, inFlight float64) {
	if gap := now - a.last; gap < -pause || gap > pause && (gap-pause)/8 > latency {
		a.last = now
		a.settle()
	}
	a.last = max(a.last, now)
	if a.direction != none {
		if a.probe.add(a.last-latency, log, inFlight) {
			a.judge()
		}
		return
	}
	if a.rest.add(a.last-latency, log, inFlight) && (a.rest.variance() <= a.stride*a.stride/25 || a.rest.enough()) {
		a.choose()
	}
}

// settle begins a rest.
func (a *Adaptive) settle() {
	a.rest = after(a.last, a.base, a.limit.Load(), a.rest.mean())
	a.direction = none
	a.limit.Store(a.base)
}

// choose ends a rest: it begins a probe, or another rest.
func (a *Adaptive) choose() {
	if a.rest.load() < filled*float64(a.base) {
		a.settle()
		return
	}
	a.rounds--
	moved := a.moved()
	a.stride = max(a.stride, min(math.Abs(moved), leap))
	switch {
	case a.base > 1 && (moved > 0 || moved == 0 && a.rounds <= 0):
		a.try(down)
	case a.base < a.most:
		a.try(up)
	default:
		a.settle()
	}
}

// moved returns by how much the latency changed at an unchanged limit since earlier rests; 0 when it did not clearly.
func (a *Adaptive) moved() float64 {
	mean := a.rest.mean()
	if math.IsInf(a.level, 1) {
		a.level = mean
		return 0
	}
	change := mean - a.level
	if math.Abs(change) < a.shortest()/2 || change*change < certainty*certainty*2*a.rest.variance() {
		a.level += change / 4
		return 0
	}
	if change < 0 {
		a.level = mean
		return change
	}
	return change / 2 // should there be no queue, the probe down costs less
}

// shortest returns the shortest stride: what can be told from the scatter of a rest.
func (a *Adaptive) shortest() float64 {
	return max(step, min(3*math.Sqrt(a.rest.variance()), pace))
}

// try begins a probe.
func (a *Adaptive) try(d direction) {
	to := a.base + int64(float64(a.base)*math.Expm1(float64(d)*a.stride))
	if d == up {
		to = min(max(to, a.base+1), a.most)
	} else {
		to = max(min(to, a.base-1), 1)
	}
	a.direction = d
	a.probe = after(a.last, to, a.base, a.rest.mean())
	a.limit.Store(to)
}

// judge ends a probe whose result is clear, or that has lasted long enough.
func (a *Adaptive) judge() {
	change := a.probe.mean() - a.rest.mean()
	load := math.Log(a.probe.load() / a.rest.load())
	beyond := change - queued*load // how much more the latency changed than without a queue
	chance := certainty * certainty * (a.probe.variance() + a.rest.variance())
	if beyond*beyond < chance && !a.probe.enough() {
		return
	}
	tried := math.Log(float64(a.limit.Load()) / float64(a.base))
	queue := beyond*load > 0
	if load/tried > 0.5 && queue == (a.direction == down) {
		a.accept(math.Abs(tried))
		return
	}
	a.stride = max(a.stride/2, a.shortest())
	if a.direction == down {
		a.level = a.rest.mean()
		a.rounds = max(rarely, 5*rarely/a.base)
		if change < -a.shortest() && change*change > chance { // the knee is in between, about where the latency says
			a.rounds, a.stride = 0, -change
		}
	}
	a.settle()
}

// accept makes the limit of the probe the base, and its series the beginning of a rest.
func (a *Adaptive) accept(tried float64) {
	a.base = a.limit.Load()
	a.rest = a.probe
	if a.direction == down {
		a.level = min(a.level, a.rest.mean())
		a.rounds = 0
	}
	a.stride = max(a.shortest(), min(2*tried, leap))
	a.direction = none
}

// series is the latencies under one limit, as logarithms.
type series struct {
	began    int64   // when the limit was set
	skip     float64 // requests that end before counting begins
	limit    float64
	centre   float64 // the mean expected; 0: not known
	n        float64
	sum      float64 // of the logarithms less centre
	squares  float64
	inFlight float64
}

// after returns an empty series for a limit that is set at now. Counting begins when as many requests have ended as there
// were under the limit before, or are under this one, and one of those that began under this one.
func after(now, limit, before int64, centre float64) series {
	return series{began: now, skip: float64(max(limit, before)), limit: float64(limit), centre: centre}
}

// add counts a request that began at the time given, and reports whether it is time to look at the series.
func (s *series) add(began int64, log, inFlight float64) bool {
	if s.skip > 0 || s.n == 0 && began < s.began {
		s.skip--
		return false
	}
	if log -= s.centre; s.centre != 0 {
		log = max(-outlier, min(log, outlier))
	}
	s.n++
	s.sum += log
	s.squares += log * log
	s.inFlight += inFlight
	return int64(s.n)%often == 0 && s.n >= fewest && s.n >= s.limit
}

func (s *series) enough() bool { return s.n >= enough && s.n >= 8*s.limit }

// load returns how many requests were in flight on average.
func (s *series) load() float64 { return s.inFlight / s.n }

// mean returns the mean of the logarithms.
func (s *series) mean() float64 { return s.centre + s.sum/max(s.n, 1) }

// variance returns that of the mean, the square of its standard error.
func (s *series) variance() float64 {
	return max(0, s.squares/s.n-s.sum/s.n*s.sum/s.n) / s.n
}
