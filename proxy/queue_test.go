package proxy

import (
	"strings"
	"testing"
	"time"
)

// busyBackend answers when it is released, and says each time that it was asked.
func busyBackend(t testing.TB) (b *backend, asked chan string, release chan struct{}) {
	asked, release = make(chan string, 16), make(chan struct{})
	b = newBackend(t, func(c *peer) {
		for {
			head, _, err := c.request()
			if err != nil {
				return
			}
			asked <- head
			<-release
			c.say(ok)
		}
	})
	return b, asked, release
}

// withCapacity are the documents of a backend with a capacity.
func withCapacity(address, capacity string, further ...string) string {
	backend := document("Backend", "b", `endpoints: [{address: "`+address+`"}]`, "capacity: "+capacity)
	return documents("", append(further, backend)...)
}

// waiting waits for so many requests of all tenants to wait.
func (s *sidecar) waiting(n int) {
	s.t.Helper()
	until(s.t, "requests wait", func() bool { return s.metric("weir_waiting") == float64(n) })
}

// Whoever waits goes when somebody has gone, with the body that it has not sent yet.
func TestQueue(t *testing.T) {
	t.Parallel()
	f := func(which, capacity, tenant string) {
		t.Helper()
		b, asked, release := busyBackend(t)
		s := serve(t, withCapacity(b.addr, capacity, limited(tenant)))
		first, second := s.dial(), s.dial()
		first.say(get)
		within(t, "the first is in flight", asked)
		second.say("POST /p HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		s.waiting(1)
		release <- struct{}{}
		first.expect(200)
		s.logged(1) // a line follows its answer, and might otherwise follow the second's
		// Not before it goes is the client asked for its body.
		if line, err := second.head(); line != "HTTP/1.1 100 Continue\r\n\r\n" || err != nil {
			t.Errorf("%s: got %q, %v; want 100", which, line, err)
		}
		second.say("hello")
		if head := within(t, "the second is in flight", asked); !strings.HasPrefix(head, "POST /p ") {
			t.Errorf("%s: the backend got %q", which, head)
		}
		release <- struct{}{}
		second.expect(200)
		lines := s.logged(2)
		if ms, _ := lines[1]["queued_ms"].(float64); ms <= 0 || lines[0]["queued_ms"] != nil {
			t.Errorf("%s: the log says that they waited for %v and %v; want nothing and some time", which, lines[0]["queued_ms"], lines[1]["queued_ms"])
		}
		if n := s.metric("weir_queue_seconds", "queue", which); n != 1 || s.metric("weir_queue_seconds") != 1 {
			t.Errorf("%s: %v waits are counted, %v in all; want 1", which, n, s.metric("weir_queue_seconds"))
		}
		s.endsAfter(2, "passed", 200)
	}

	f("backend", "{concurrency: 1, queue: 1, queueTimeout: 20s}", "weight: 2")
	f("tenant", "{concurrency: 9}", "concurrency: {max: 1, queue: 1, queueTimeout: 20s}")
}

func TestQueueRefuses(t *testing.T) {
	t.Parallel()
	f := func(capacity, tenant, reason string, status int, retryAfter, kind string) {
		t.Helper()
		b, asked, release := busyBackend(t)
		s := serve(t, withCapacity(b.addr, capacity, limited(tenant)))
		first, second := s.dial(), s.dial()
		first.say(get)
		within(t, "the first is in flight", asked)
		second.say(get)
		a, body := second.expect(status)
		if a.Header.Get("Retry-After") != retryAfter || !strings.Contains(body, kind) {
			t.Errorf("%s: got Retry-After %q and %s; want %q and %s", reason, a.Header.Get("Retry-After"), body, retryAfter, kind)
		}
		if line := s.logged(1)[0]; line.text("reason") != reason || line["status"] != float64(status) || line.text("phase") != "decision" {
			t.Errorf("unexpected line: got %v, want %s and %d", line, reason, status)
		}
		close(release)
		first.expect(200)
		second.open() // nothing is wrong with its connection
	}

	// No queue, or the wait is too long.
	f("{concurrency: 1}", "weight: 1", "overload", 503, "1", "temporary-reduced-capacity")
	f("{concurrency: 1, queue: 1, queueTimeout: 20ms}", "weight: 1", "overload", 503, "1", "temporary-reduced-capacity")
	f("{concurrency: 9}", "concurrency: {max: 1, queue: 1, queueTimeout: 20ms}", "concurrency", 429, "", "quota-exceeded")
}

// The request's own time may be over first.
func TestQueueWithinTheDeadline(t *testing.T) {
	t.Parallel()
	b, asked, release := busyBackend(t)
	s := serve(t, withCapacity(b.addr, "{concurrency: 1, queue: 1, queueTimeout: 20s}",
		document("Route", "slow", "match: [{path: /slow}]", "backend: b"), document("Route", "rest", "backend: b", "timeout: 50ms")))
	first, second := s.dial(), s.dial()
	first.say(strings.Replace(get, " / ", " /slow ", 1))
	within(t, "the first is in flight", asked)
	second.say(get)
	second.expect(504)
	if line := s.logged(1)[0]; line.text("reason") != "request_timeout" {
		t.Errorf("unexpected line: got %v, want request_timeout", line)
	}
	if n := s.metric("weir_queue_dropped_total", "cause", "gone"); n != 1 {
		t.Errorf("%v are counted as gone, want 1", n)
	}
	close(release)
	first.expect(200)
}

// A client that leaves gives up its turn: soon, and nobody asks the backend for it.
func TestQueueWhoLeaves(t *testing.T) {
	t.Parallel()
	f := func(capacity, tenant, request string) {
		t.Helper()
		b, asked, release := busyBackend(t)
		s := serve(t, withCapacity(b.addr, capacity, limited(tenant)))
		first, second := s.dial(), s.dial()
		first.say(get)
		within(t, "the first is in flight", asked)
		second.say(request)
		s.waiting(1)
		left := time.Now()
		_ = second.Close()
		line := s.logged(1)[0]
		if took := time.Since(left); took > 5*time.Second { // half a second where nothing else runs
			t.Errorf("it took %v", took)
		}
		if line.text("reason") != "client_gone" || line["status"] != 499.0 || line.text("by") != "client" || line.text("phase") != "decision" {
			t.Errorf("unexpected line: got %v, want client_gone with 499", line)
		}
		s.waiting(0)
		third := s.dial()
		third.say(strings.Replace(get, " / ", " /third ", 1))
		s.waiting(1)
		release <- struct{}{}
		first.expect(200)
		if head := within(t, "the third is in flight", asked); !strings.HasPrefix(head, "GET /third ") {
			t.Errorf("the backend got %q", head)
		}
		release <- struct{}{}
		third.expect(200)
	}

	f("{concurrency: 1, queue: 1, queueTimeout: 20s}", "weight: 1", get)
	f("{concurrency: 9}", "concurrency: {max: 1, queue: 1, queueTimeout: 20s}", get)
	// In the middle of a body that nobody has read.
	f("{concurrency: 1, queue: 1, queueTimeout: 20s}", "weight: 1", post(10, "half"))
}

// Who waits may be served while the drain lasts, and is told at its end.
func TestQueueInADrain(t *testing.T) {
	t.Parallel()
	b, asked, release := busyBackend(t)
	s := serve(t, withCapacity(b.addr, "{concurrency: 1, queue: 2, queueTimeout: 20s}", "timeouts: {drain: 500ms}"))
	first, second, third := s.dial(), s.dial(), s.dial()
	first.say(get)
	within(t, "the first is in flight", asked)
	second.say(get)
	s.waiting(1)
	third.say(get)
	s.waiting(2)
	s.Drain()
	release <- struct{}{}
	first.expect(200)
	within(t, "the second is in flight", asked)
	release <- struct{}{}
	if a, _ := second.expect(200); !a.Close {
		t.Error("no Connection: close")
	}
	within(t, "the third is in flight", asked)
	release <- struct{}{}
	third.expect(200)
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func TestQueueAtTheEndOfADrain(t *testing.T) {
	t.Parallel()
	b, asked, release := busyBackend(t)
	defer close(release)
	s := serve(t, withCapacity(b.addr, "{concurrency: 1, queue: 2, queueTimeout: 20s}", "timeouts: {drain: 60ms}"))
	first, second := s.dial(), s.dial()
	first.say(get)
	within(t, "the first is in flight", asked)
	second.say(get)
	s.waiting(1)
	s.end()
	if err := within(t, "the proxy ends", s.ended); err == nil {
		t.Error("no error, though requests were cut")
	}
	if a, _ := second.expect(503); !a.Close || a.Header.Get("Retry-After") != "1" {
		t.Errorf("%v", a.Header)
	}
	for _, line := range s.logged(2) {
		if line.text("reason") != "draining" {
			t.Errorf("unexpected line: got %v, want draining", line)
		}
	}
}
