package limit

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// simulation is a backend in virtual time behind a gate with an adaptive limit. It has workers and a queue before them, first
// come, first served.
type simulation struct {
	adaptive *Adaptive
	random   *rand.Rand

	workers int
	slow    float64 // how many times as long as usual everything takes
	service service
	shared  bool // there is no queue, and the workers share out their time among all requests, as processors do

	gap     float64 // the mean time between Poisson arrivals, in ns; 0: somebody always waits before the gate
	clients int64   // with gap 0: how many requests there are at most; 0: no end of them
	next    int64   // arrival

	now      int64
	work     int64   // with shared: how much of its work each request has been given since the start
	inFlight int64   // beyond the gate
	queue    []int64 // when the requests in it came
	serving  serving
	report   report
}

// service draws how long a worker is busy with a request, in ns.
type service func(*rand.Rand) float64

// fixed is nearly always the same. A tenth more or less keeps the workers from marching in step.
func fixed(d time.Duration) service {
	return func(r *rand.Rand) float64 { return (0.9 + 0.2*r.Float64()) * float64(d) }
}

func exponential(d time.Duration) service {
	return func(r *rand.Rand) float64 { return r.ExpFloat64() * float64(d) }
}

// bimodal is half of d, or 5 d for each ninth.
func bimodal(d time.Duration) service {
	return func(r *rand.Rand) float64 {
		if r.IntN(9) == 0 {
			return 5 * float64(d)
		}
		return float64(d) / 2
	}
}

// unloaded returns the mean and the 99th percentile of what a request takes that never waits.
func (s service) unloaded() (mean, p99 float64) {
	r := report{}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		r.latencies = append(r.latencies, s(random))
	}
	return r.mean(), r.quantile(0.99)
}

func newSimulation(seed uint64, start int64, workers int, s service) *simulation {
	return &simulation{
		adaptive: NewAdaptive(AdaptiveOptions{Start: start}),
		random:   rand.New(rand.NewPCG(seed, 1)),
		workers:  workers,
		slow:     1,
		service:  s,
	}
}

// slowDown makes everything take factor times as long as usual, and so what remains of requests that are being served.
func (s *simulation) slowDown(factor float64) {
	if !s.shared {
		for i, r := range s.serving {
			s.serving[i].ends = s.now + int64(float64(r.ends-s.now)*factor/s.slow)
		}
	}
	s.slow = factor
}

// pause lets time pass in which nothing happens.
func (s *simulation) pause(length time.Duration) {
	s.now += int64(length)
	s.next += int64(length)
	for i := range s.queue {
		s.queue[i] += int64(length)
	}
	for i := range s.serving {
		s.serving[i].came += int64(length)
		s.serving[i].ends += int64(length)
	}
}

// run goes on for some time and reports what happened meanwhile.
func (s *simulation) run(length time.Duration) *report {
	s.report = report{length: float64(length)}
	for end := s.now + int64(length); s.now < end; {
		s.admit()
		if s.shared {
			s.share(end)
		} else {
			s.serve(end)
		}
	}
	r := s.report
	return &r
}

// admit lets in who is there.
func (s *simulation) admit() {
	enter := func() {
		s.inFlight++
		s.queue = append(s.queue, s.now)
	}
	if s.gap == 0 {
		most := s.adaptive.Limit()
		if s.clients > 0 {
			most = min(most, s.clients)
		}
		for s.inFlight < most {
			enter()
		}
		return
	}
	for ; s.next <= s.now; s.next += max(1, int64(s.random.ExpFloat64()*s.gap)) {
		if s.inFlight < s.adaptive.Limit() {
			enter()
		}
	}
}

// serve gives requests to free workers and goes to the next event.
func (s *simulation) serve(end int64) {
	for len(s.queue) > 0 && len(s.serving) < s.workers {
		heap.Push(&s.serving, served{came: s.queue[0], ends: s.now + max(1, int64(s.service(s.random)*s.slow))})
		s.queue = s.queue[1:]
	}
	to := s.upTo(end)
	if len(s.serving) > 0 {
		to = min(to, s.serving[0].ends)
	}
	s.pass(to)
	if len(s.serving) > 0 && s.serving[0].ends <= s.now {
		s.finish()
	}
}

// share is serve for workers that share out their time. A request ends when it has been given its work.
func (s *simulation) share(end int64) {
	for _, came := range s.queue {
		heap.Push(&s.serving, served{came: came, ends: s.work + max(1, int64(s.service(s.random)))})
	}
	s.queue = s.queue[:0]
	speed := min(1, float64(s.workers)/float64(max(1, len(s.serving)))) / s.slow
	to := s.upTo(end)
	if len(s.serving) > 0 {
		to = min(to, s.now+max(0, int64(math.Ceil(float64(s.serving[0].ends-s.work)/speed))))
	}
	s.work += int64(math.Ceil(float64(to-s.now) * speed))
	s.pass(to)
	if len(s.serving) > 0 && s.serving[0].ends <= s.work {
		s.finish()
	}
}

// upTo returns the next arrival or the end.
func (s *simulation) upTo(end int64) int64 {
	if s.gap > 0 {
		return min(end, s.next)
	}
	return end
}

func (s *simulation) pass(to int64) {
	length := float64(to - s.now)
	s.report.limit += float64(s.adaptive.Limit()) * length
	s.report.busy += float64(min(len(s.serving), s.workers)) * length
	s.report.workers += float64(s.workers) * length
	s.now = to
}

func (s *simulation) finish() {
	done := heap.Pop(&s.serving).(served)
	s.adaptive.Record(s.now, time.Duration(s.now-done.came), s.inFlight)
	s.inFlight--
	s.report.latencies = append(s.report.latencies, float64(s.now-done.came))
}

// report is what a run showed.
type report struct {
	length    float64
	limit     float64 // over time
	busy      float64 // workers, over time
	workers   float64 // over time
	latencies []float64
}

func (r *report) meanLimit() float64 { return r.limit / r.length }

// utilisation returns how much of the workers' time was used. Since every request is answered, it is also the goodput as a
// part of the capacity that there was.
func (r *report) utilisation() float64 { return r.busy / r.workers }

func (r *report) mean() float64 {
	sum := 0.0
	for _, l := range r.latencies {
		sum += l
	}
	return sum / float64(len(r.latencies))
}

func (r *report) quantile(q float64) float64 {
	slices.Sort(r.latencies)
	return r.latencies[int(q*float64(len(r.latencies)-1))]
}

// served is one request with a worker.
type served struct{ came, ends int64 }

// serving is a heap, the first to end first.
type serving []served

func (s serving) Len() int           { return len(s) }
func (s serving) Less(i, j int) bool { return s[i].ends < s[j].ends }
func (s serving) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *serving) Push(x any)        { *s = append(*s, x.(served)) }
func (s *serving) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
