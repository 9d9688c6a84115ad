package proxy

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// attempt is one request of many: when it was sent, and what it got.
type attempt struct {
	at     int64
	status int
}

// load sends requests from several clients at a steady rate until stop is closed, and returns all attempts in order.
func (s *sidecar) load(clients int, pause time.Duration, stop <-chan struct{}) (all []attempt) {
	s.t.Helper()
	var mu sync.Mutex
	var done sync.WaitGroup
	for range clients {
		c := s.dial()
		done.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for !isClosed(stop) {
				<-tick.C
				at := s.clock.Now()
				_ = c.SetDeadline(time.Now().Add(patience))
				c.say(get)
				a, _, err := c.tryAnswer("GET")
				if err != nil {
					c.t.Errorf("no answer: %v", err)
					return
				}
				mu.Lock()
				all = append(all, attempt{at, a.StatusCode})
				mu.Unlock()
			}
		})
	}
	done.Wait()
	slices.SortFunc(all, func(a, b attempt) int { return int(a.at - b.at) })
	return all
}

// sent is how many attempts there were within a time; with a status, how many got that.
func sent(all []attempt, from, to int64, status int) (n int) {
	for _, a := range all {
		if a.at >= from && a.at < to && (status == 0 || a.status == status) {
			n++
		}
	}
	return n
}

// part is which part of the attempts within a time got a status.
func part(all []attempt, from, to int64, status int) float64 {
	return float64(sent(all, from, to, status)) / float64(max(sent(all, from, to, 0), 1))
}

// Against a backend that breaks every connection, over loopback and in real time: the breaker opens within a window of calls, keeps
// nearly all load off, closes with the first probes after the backend is well, and lets requests back in bit by bit.
func TestBreakerAgainstAFailingBackend(t *testing.T) {
	t.Parallel()
	const window, ramp = time.Second, 2 * time.Second
	var m moody
	s := serve(t, documents(newBackend(t, m.script()).addr, silent, document("BreakerPolicy", "orders", "target: {kind: Backend, name: b}",
		"failures: {window: 1s, ratio: 20%, minRequests: 20}", "open: {for: 400ms, maxFor: 400ms, probes: 3, ramp: 2s}")))
	stop := make(chan struct{})
	loaded := make(chan []attempt, 1)
	go func() { loaded <- s.load(8, 20*time.Millisecond, stop) }()
	changed := func(n int) string {
		t.Helper()
		var all []string
		until(t, "the breaker's level changes", func() bool { all = s.changes(); return len(all) >= n })
		return all[n-1]
	}

	until(t, "the backend is used to the load", func() bool { return m.asked.Load() > 200 })
	m.mood.Store("reset")
	broke := s.clock.Now()
	if c := changed(1); c != "orders normal>open too_many_fail" {
		t.Fatal(c)
	}
	opened, before := s.Table().Breakers(0)[0].Since, m.asked.Load()
	until(t, "probes have failed a few times", func() bool { return len(s.changes()) >= 5 }) // open, and each time half open
	healed, reached := s.clock.Now(), m.asked.Load()-before
	m.mood.Store("")
	until(t, "it closes", func() bool { return slices.Contains(s.changes(), "orders half_open>normal probes_passed") })
	closed := s.Table().Breakers(0)[0].Since
	until(t, "the ramp is over", func() bool { return s.clock.Now() > closed+int64(ramp+window/2) })
	close(stop)
	all := within(t, "all clients are done", loaded)

	offered := sent(all, opened, healed, 0)
	t.Logf("open %v after the fault; %d of %d requests reached the broken backend while open; closed %v after the end of the fault; passed in the quarters of the ramp: %.2f %.2f %.2f %.2f",
		time.Duration(opened-broke), reached, offered, time.Duration(closed-healed), part(all, closed, closed+int64(ramp)/4, 200),
		part(all, closed+int64(ramp)/4, closed+int64(ramp)/2, 200), part(all, closed+int64(ramp)/2, closed+int64(ramp)*3/4, 200),
		part(all, closed+int64(ramp)*3/4, closed+int64(ramp), 200))
	// A fifth of a window's calls have to fail. What counts is how many, not how long a busy machine took for them.
	if failed, usual := sent(all, broke, opened, 502), sent(all, broke-int64(window), broke, 200); failed > usual {
		t.Errorf("%d calls failed before it opened, want fewer than the %d of a window", failed, usual)
	}
	if offered < 100 || reached*20 > int64(offered) {
		t.Errorf("%d of %d requests reached the broken backend while the breaker was open, want at most a twentieth", reached, offered)
	}
	// One round of probes may have been under way when the backend was well again.
	after := s.changes()[5:]
	if failed := slices.Index(after, "orders half_open>normal probes_passed"); failed > 3 {
		t.Errorf("it did not close with the first probes after the backend was well: %v", s.changes())
	}
	if last := s.changes()[len(s.changes())-1]; last != "orders half_open>normal probes_passed" {
		t.Errorf("it did not stay closed: %v", s.changes())
	}
	if first, last := part(all, closed, closed+int64(ramp)/4, 200), part(all, closed+int64(ramp)*3/4, closed+int64(ramp), 200); first > 0.3 || last < 0.6 {
		t.Errorf("%.2f of requests pass in the first quarter of the ramp, and %.2f in the last; want an eighth, and seven of them", first, last)
	}
	if p := part(all, closed+int64(ramp+ramp/20), s.clock.Now(), 200); p != 1 {
		t.Errorf("%.2f of requests pass after the ramp, want all", p)
	}
}
