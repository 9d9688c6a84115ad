package proxy

import (
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// brittleClock is a clock that panics once, the n-th time that a request reads it.
func brittleClock() (clock Clock, panicAt *atomic.Int64) {
	clock, panicAt = SystemClock(), new(atomic.Int64)
	now := clock.Now
	clock.Now = func() int64 {
		if panicAt.Load() > 0 && onBehalfOfARequest() && panicAt.Add(-1) == 0 {
			panic("the clock fell off the wall")
		}
		return now()
	}
	return clock, panicAt
}

func onBehalfOfARequest() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, ".(*Proxy).handle") {
			return true
		}
		if !more {
			return false
		}
	}
}

func TestDefectsAreSettledToo(t *testing.T) {
	// f lets the n-th reading of the clock fail. The client gets status, or a cut answer for 0.
	f := func(n int64, request string, status int, reason, class string, lines int) {
		t.Helper()
		clock, panicAt := brittleClock()
		s := start(t, compile(t, documents(answering(t, ok, nil).addr, limited("concurrency: {max: 1}"))), clock, nil)
		c := s.dial()
		panicAt.Store(n)
		c.say(request)
		a, body, err := c.tryAnswer("GET")
		if status > 0 {
			if err != nil || a.StatusCode != status {
				t.Fatalf("reading %d: %v %s %v, want %d", n, a, body, err, status)
			}
			if status == 500 && (!a.Close || strings.Contains(body, "wall")) {
				t.Errorf("reading %d: %v %s", n, a.Header, body)
			}
		}
		until(t, "it is settled", func() bool { return s.requests() == 1 })
		if s.requests("reason", reason, "code", class) != 1 || s.metric("weir_panics_recovered_total") != 1 {
			t.Errorf("reading %d: it is not counted as %s, or the defect is not", n, reason)
		}
		if status == 0 {
			if _, err := c.rest(); err == nil {
				t.Errorf("reading %d: the answer's end looks clean", n)
			}
		}
		// Nothing is left behind: the gate is open, and no connection to the backend in use.
		next := s.dial()
		next.say(get)
		next.expect(200)
		s.logged(lines + 1)
		if s.metric("weir_inflight") != 0 || s.metric("weir_upstream_connections", "state", "active") != 0 {
			t.Errorf("reading %d: something is still in flight", n)
		}
	}

	// At the door, before the request is sent, when the answer is there, and after it was passed on.
	f(1, get, 500, "internal", "5xx", 1)
	f(2, get, 500, "internal", "5xx", 1)
	f(2, post(5, "he"), 500, "internal", "5xx", 1)
	f(3, get, 500, "internal", "5xx", 1)
	f(4, get, 0, "internal", "5xx", 1)
	// While counting: the request has ended well, only its line is lost.
	f(5, get, 200, "passed", "2xx", 0)
}

// once panics at the first line that it is to write.
type once struct{ done atomic.Bool }

func (o *once) Write(p []byte) (int, error) {
	if !o.done.Swap(true) {
		panic("the pen is broken")
	}
	return len(p), nil
}

// TestDefectWhileADefectIsReported: even then the request is settled, and nothing but its connection is lost.
func TestDefectWhileADefectIsReported(t *testing.T) {
	clock, panicAt := brittleClock()
	pen := new(once)
	pen.done.Store(true)
	s := start(t, compile(t, documents(answering(t, ok, nil).addr, limited("concurrency: {max: 1}"))), clock, nil, func(p *Proxy) {
		p.logger = zerolog.New(pen)
	})
	c := s.dial()
	pen.done.Store(false)
	panicAt.Store(2)
	c.say(get)
	if b, err := c.rest(); b != "" || err == nil {
		t.Errorf("%q %v, want a cut", b, err)
	}
	s.ends("internal", 500)
	if n := s.metric("weir_panics_recovered_total"); n != 2 {
		t.Errorf("%v defects counted, want 2", n)
	}
	s.dial().open()
}

// TestAnswersCountersAndLogAgree: many requests at once, of every sort.
func TestAnswersCountersAndLogAgree(t *testing.T) {
	b := newBackend(t, func(c *peer) {
		for {
			head, _, err := c.request()
			if err != nil {
				return
			}
			switch {
			case strings.HasPrefix(head, "GET /reset "):
				return
			case strings.HasPrefix(head, "GET /garbage "):
				c.say("what?\r\n\r\n")
				return
			case strings.HasPrefix(head, "GET /cut "):
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
				return
			case strings.HasPrefix(head, "GET /404 "):
				c.say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
			default:
				c.say(ok)
			}
		}
	})
	s := serve(t, documents(b.addr, "bounds: {bodyBytes: 10}", limited("limits: [{name: l, requests: 100, per: 1h}]"),
		document("Route", "all", "match: [{path: /*}]", "backend: b"), document("Route", "gone", "match: [{path: /gone}]", "backend: gone"),
		document("Backend", "b", `endpoints: [{address: "`+b.addr+`"}]`), document("Backend", "gone", `endpoints: [{address: "127.0.0.1:1"}]`)))
	request := func(path string) string { return strings.Replace(get, " / ", " "+path+" ", 1) }
	kinds := []string{
		request("/"), request("/"), post(5, "hello"), request("/404"), request("/reset"), request("/garbage"), request("/cut"), request("/gone"),
		post(11, ""), "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "GET /\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n",
		get + get + request("/404"),
	}
	var mu sync.Mutex
	answers := map[string]int{}
	const clients, rounds = 8, 60
	var done sync.WaitGroup
	for i := range clients {
		done.Go(func() {
			var c *peer
			for round := range rounds {
				if c == nil {
					c = s.dial()
				}
				request := kinds[(i+round)%len(kinds)]
				c.say(request)
				for range max(1, strings.Count(request, "GET ")) {
					a, _, err := c.tryAnswer("GET")
					if a == nil {
						c.t.Errorf("no answer to %q: %v", request, err)
						return
					}
					mu.Lock()
					answers[fmt.Sprint(a.StatusCode)]++
					mu.Unlock()
					if err != nil || a.Close {
						_ = c.Close()
						c = nil
						break
					}
				}
			}
		})
	}
	done.Wait()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	logged := map[string]int{}
	reasons := map[string]int{}
	for _, line := range s.log.lines(t) {
		logged[line.text("status")]++
		reasons[line.text("reason")]++
	}
	if diff := cmp.Diff(answers, logged); diff != "" {
		t.Errorf("answers and log lines (-answers +log):\n%s", diff)
	}
	counted := map[string]int{}
	for reason := range reasons {
		counted[reason] = s.requests("reason", reason)
	}
	if diff := cmp.Diff(reasons, counted); diff != "" {
		t.Errorf("log lines and counters (-log +counters):\n%s", diff)
	}
	total := 0
	for n := range maps.Values(logged) {
		total += n
	}
	if s.requests() != total || total < clients*rounds || len(reasons) < 7 {
		t.Errorf("%d counted, %d logged, of %d and more; reasons %v", s.requests(), total, clients*rounds, reasons)
	}
	if n := int(s.metric("weir_request_duration_seconds")) + s.requests("reason", "bad_request") + s.requests("reason", "client_body_too_long"); n != total {
		t.Errorf("%d durations and broken requests, want %d", n, total)
	}
}
