package breaker

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The simulated backend answers 60 requests a second at most, of the 30 that come.
const (
	offeredRate = 30
	workers     = 6
	service     = 100 * time.Millisecond // on average
	timeout     = 2 * time.Second        // of the proxy
	slowerThan  = 500 * time.Millisecond
)

// fault is what is wrong with the backend.
type fault uint8

const (
	healthy fault = iota
	killed        // nobody listens
	stalled       // nobody answers, and what came meanwhile is worked off afterwards
	resets        // half of the calls break
	errors        // three in ten calls are answered with an error
	slow          // each takes twenty times as long
	faults
)

func (f fault) String() string {
	return [...]string{"healthy", "killed", "stalled", "resets", "errors", "slow"}[f]
}

// episode is one fault, and what came of it.
type episode struct {
	fault
	from, to, next int64 // next: when the next one begins

	opened, closed  int64 // the first time within, and the first time it was closed after
	inOpen, reached int64 // requests after it opened, and those of them that got to the backend
	core, all       later
}

// later are attempts that were made some time after a fault, and those of them that failed.
type later struct{ attempts, failed int64 }

func (l *later) add(failed bool) {
	l.attempts++
	if failed {
		l.failed++
	}
}

// event is something that happens to one request, or a tick.
type event struct {
	at      int64
	ends    bool // the call ends; otherwise a request comes
	attempt int
	core    bool
	pass    Pass
	outcome Outcome
	began   int64
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// sim is clients, a breaker and a backend, in virtual time.
type sim struct {
	again    float64       // the part of clients that try again
	allIn    time.Duration // after a fault until all requests succeed; Core ones do after 120 s
	random   *rand.Rand
	breaker  *Breaker
	episodes []episode
	now      int64
	current  int // the last episode that began; -1 before the first
	queue    events
	free     [workers]int64 // when each worker is

	level    Level
	closedAt int64 // when it closed last
	arrivals []int // at the backend, in each second after that
	worst    []int // of all closings
}

// TestTenHours breaks the backend in every way, in a seeded order, for ten hours. Clients do as Retry-After tells them, if they try
// again at all, which they do up to three times.
func TestTenHours(t *testing.T) {
	f := func(again float64, allIn, lasts time.Duration) {
		t.Helper()
		t.Run(fmt.Sprintf("%v of clients try again", again), func(t *testing.T) { run(t, again, allIn, int64(lasts)) })
	}
	// What comes back is not enough to be a deviation.
	f(0.2, 120*time.Second, 10*time.Hour)
	// After an outage of a minute so many come back that NonCore requests are shed for another minute.
	f(0.5, 180*time.Second, 5*time.Hour)
}

func run(t *testing.T, again float64, allIn time.Duration, end int64) {
	settings := valid(t, func(s *Settings) { s.QPS.Direction, s.Failures.Consecutive = Both, 10 })
	s := &sim{again: again, allIn: allIn, random: rand.New(rand.NewPCG(5, 8)), breaker: New(0, settings), current: -1}
	s.plan(end)
	var h heard
	for tick, arrival := second, int64(0); s.now < end; {
		at := min(tick, arrival)
		switch {
		case len(s.queue) > 0 && s.queue[0].at < at:
			e := heap.Pop(&s.queue).(event)
			s.begin(e.at)
			s.happen(e)
		case at == arrival:
			s.begin(at)
			s.come(0, s.random.IntN(10) < 7)
			arrival += int64(s.random.ExpFloat64() * float64(time.Second) / offeredRate)
		default:
			s.begin(at)
			tr, changed := s.breaker.Tick(s.now, s.random.Float64())
			h.hear(t, tr, changed)
			s.changed(tr, changed)
			tick += int64(settings.Every())
		}
	}
	s.check(t)
	t.Logf("%d faults, %d transitions; most arrivals in the seconds after closing: %v", len(s.episodes), len(h.said), s.worst)
	if t.Failed() {
		t.Logf("transitions: %v", h.said)
	}
}

// plan draws the faults: from 5 s to 3 minutes each, with five minutes or more between.
func (s *sim) plan(until int64) {
	at := 6 * minute
	for i := 0; at < until-10*minute; i++ {
		e := episode{fault: fault(1 + i%int(faults-1)), from: at}
		if i >= int(faults) {
			e.fault = fault(1 + s.random.IntN(int(faults-1)))
		}
		e.to = e.from + 5*second + s.random.Int64N(175*second)
		e.next = e.to + 5*minute + s.random.Int64N(2*minute)
		s.episodes = append(s.episodes, e)
		at = e.next
	}
}

// begin moves the time on.
func (s *sim) begin(now int64) {
	s.now = now
	if s.current+1 < len(s.episodes) && now >= s.episodes[s.current+1].from {
		s.current++
	}
}

// wrong returns the fault of now.
func (s *sim) wrong() fault {
	if e := s.episode(); e != nil && s.now < e.to {
		return e.fault
	}
	return healthy
}

func (s *sim) episode() *episode {
	if s.current < 0 {
		return nil
	}
	return &s.episodes[s.current]
}

func (s *sim) changed(tr Transition, changed bool) {
	e := s.episode()
	if changed {
		if tr.From == HalfOpen && tr.To < HalfOpen {
			s.closedAt, s.arrivals = s.now, make([]int, 12)
		}
		if tr.To == Open && e != nil && s.now < e.to && e.opened == 0 {
			e.opened = s.now
		}
		s.level = tr.To
	}
	if e != nil && s.now >= e.to && e.closed == 0 && s.level < HalfOpen {
		e.closed = s.now
	}
}

// come is a client's attempt.
func (s *sim) come(attempt int, core bool) {
	e := s.episode()
	s.breaker.Offer(s.random.Uint32(), true)
	p := s.breaker.Admit(s.now, s.random.Uint32(), core)
	open := e != nil && e.opened > 0 && s.now < e.to
	if open {
		e.inOpen++
	}
	if !p.OK() {
		s.failed(attempt, core, p.RetryAfter)
		return
	}
	if open {
		e.reached++
	}
	if i := int((s.now - s.closedAt) / second); s.closedAt > 0 && i < len(s.arrivals) {
		s.arrivals[i]++
		if s.worst == nil {
			s.worst = make([]int, len(s.arrivals))
		}
		s.worst[i] = max(s.worst[i], s.arrivals[i])
	}
	if s.random.IntN(100) == 0 { // the client leaves at once
		heap.Push(&s.queue, event{at: s.now, ends: true, pass: p, outcome: Ignored, began: s.now})
		return
	}
	outcome, took := s.work()
	heap.Push(&s.queue, event{at: s.now + int64(took), ends: true, attempt: attempt, core: core, pass: p, outcome: outcome, began: s.now})
}

// work lets the backend have a request.
func (s *sim) work() (Outcome, time.Duration) {
	takes := service/2 + time.Duration(s.random.Int64N(int64(service)))
	wrong := s.wrong()
	switch {
	case wrong == killed:
		return HardFailure, time.Millisecond
	case wrong == resets && s.random.IntN(2) == 0:
		return HardFailure, takes
	case wrong == slow:
		takes *= 20
	}
	worker := slices.Index(s.free[:], slices.Min(s.free[:]))
	start := max(s.now, s.free[worker])
	if wrong == stalled {
		start = max(start, s.episode().to)
	}
	s.free[worker] = start + int64(takes)
	if took := time.Duration(s.free[worker] - s.now); took < timeout {
		if wrong == errors && s.random.IntN(10) < 3 {
			return Failure, took
		}
		return Success, took
	}
	return HardFailure, timeout
}

// happen ends a call, or lets a client come back.
func (s *sim) happen(e event) {
	if !e.ends {
		s.come(e.attempt, e.core)
		return
	}
	s.breaker.Record(e.pass, s.random.Uint32(), e.outcome, e.at-e.began > int64(slowerThan))
	switch e.outcome {
	case Success:
		s.attempt(e.core, false)
	case Failure, HardFailure:
		s.failed(e.attempt, e.core, time.Second)
	}
}

// failed counts a failed attempt, and lets some clients come back.
func (s *sim) failed(attempt int, core bool, wait time.Duration) {
	s.attempt(core, true)
	if attempt < 3 && s.random.Float64() < s.again {
		heap.Push(&s.queue, event{at: s.now + int64(wait), attempt: attempt + 1, core: core})
	}
}

func (s *sim) attempt(core, failed bool) {
	e := s.episode()
	if e == nil {
		return
	}
	if s.now >= e.to+120*second && core {
		e.core.add(failed)
	}
	if s.now >= e.to+int64(s.allIn) {
		e.all.add(failed)
	}
}

// check says what does not hold of each fault.
func (s *sim) check(t *testing.T) {
	t.Helper()
	window, longest := int64(10*time.Second), int64(time.Minute)
	seen := make(map[fault]int)
	for _, e := range s.episodes {
		seen[e.fault]++
		name := fmt.Sprintf("%v from %s to %s", e.fault, clock(e.from), clock(e.to))
		if e.opened == 0 && e.to-e.from > window || e.opened > e.from+window {
			t.Errorf("%s: opened at %s, want within %v", name, clock(e.opened), time.Duration(window))
		}
		if e.closed > e.to+longest+5*second {
			t.Errorf("%s: closed at %s, want within the longest wait after it", name, clock(e.closed))
		}
		// Where some calls still succeed, probes are now and then lucky.
		if whole := e.fault == killed || e.fault == stalled; whole && e.to-e.from > minute && float64(e.reached) > 0.05*float64(e.inOpen) {
			t.Errorf("%s: %d of %d requests reached the backend while the breaker was open, want at most one in twenty", name, e.reached, e.inOpen)
		}
		for _, l := range []later{e.core, e.all} {
			if l.attempts < 1000 || float64(l.failed) > 0.005*float64(l.attempts) {
				t.Errorf("%s: Core %+v 120 s after it, all %+v %v after it, want at most 0.5 %% failed", name, e.core, e.all, s.allIn)
			}
		}
	}
	if len(seen) != int(faults)-1 {
		t.Errorf("%d sorts of faults", len(seen))
	}
	// The ramp lets 3, then 6, 9 … of the usual 30 a second through. Those who come back are as many more at most, and the rest is
	// noise. A herd would be a minute's clients within a few seconds.
	for i, n := range s.worst {
		if most := 15 + 8*i; n > most {
			t.Errorf("%d requests reached the backend %d s after closing, want at most %d: a herd", n, i, most)
		}
	}
}
