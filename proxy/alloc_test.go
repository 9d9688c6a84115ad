//go:build !race

package proxy

import (
	"io"
	"strings"
	"testing"

	"weir/admit"
	"weir/admit/token/tokentest"
	"weir/proxy/wire"
)

// theirs is fasthttp's: the byte on the heap with which a server of ReduceMemoryUsage waits for the next request. Everything
// else, from one read of the client's socket to the next, allocates nothing.
const theirs = 1

// TestPausesAllocateNothing pauses for a few microseconds at a time.
func TestPausesAllocateNothing(t *testing.T) {
	s := serve(t, documents("127.0.0.1:1", bytesLimit("bytes: 100MiB, burst: 1KiB")))
	m := s.Table().Match(0, &admit.Request{Header: &wire.Head{}})
	v := s.Table().Decide(0, &m)
	p := pacer{Meter: s.Table().Meter(&m)}
	pauses := 0
	n := testing.AllocsPerRun(100, func() {
		for p.begin(1 << 10); p.pause(s.clock.Now(), nil); {
			pauses++
		}
	})
	s.Table().Settle(&m, &v, admit.Outcome{Delays: p.Delays()})
	if n != 0 || pauses < 50 {
		t.Errorf("%v allocations in %d pauses", n, pauses)
	}
}

// TestAllocations is not for the race detector, which makes pools forget.
func TestAllocations(t *testing.T) {
	f := func(name, request, limits, log string, said ...string) {
		t.Helper()
		answer := "HTTP/1.1 200 OK\r\n" + strings.Join(said, "") + "Content-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024)
		s := serve(t, documents(canned(t, answer).addr, log, limited(limits)))
		s.access.SetOutput(io.Discard)
		c := s.dial()
		c.say(request)
		c.answer("GET") // the only one that oneAnHour allows
		exchange := exchangeOf(t, c, request, sizeOf(t, c, request))
		for range 2 * logRing { // the ring's lines have their memory then
			exchange()
		}
		if n := testing.AllocsPerRun(2000, exchange); n > theirs {
			t.Errorf("%s: %v allocations, %d of them fasthttp's", name, n, theirs)
		}
	}

	const most, none, one = "limits: [{name: l, requests: 1000000, per: 1s}]", "limits: [{name: l, requests: 0, per: 1s}]", oneAnHour
	const traffic = "limits: [{name: l, bytes: 100MiB}, {name: s, bytes: 100MiB, bucket: Shared}, {name: d, bytes: 1, mode: Shadow}]"
	const logged = "accessLog: {format: json}"
	f("allowed", get, most, silent)
	f("allowed with a body", post(5, "hello"), most, silent)
	f("allowed and logged", get, most, logged)
	f("metered", get, traffic, silent)
	f("metered with a body", post(5, "hello"), traffic, silent)
	f("told of limits", get, most+"\n  headers: Both", silent)
	f("told of limits of both sides", get, most+"\n  headers: Both", silent,
		"RateLimit: \"l\";r=1000000;t=1, \"own\";r=5;t=1\r\n", "X-RateLimit-Remaining: 2000000\r\n")
	f("blocked", get, none, silent)
	f("limited", get, one, silent)
	f("limited and logged", get, one, logged)
}

// A request whose tenant is that of a token costs no more once the token is known.
func TestTokenAllocations(t *testing.T) {
	key := tokentest.New("", "EdDSA")
	backend := canned(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	s := start(t, keyed(t, compile(t, identified(backend.addr, jwtIdentity, silent)), key), SystemClock(), nil)
	c := s.dial()
	request := "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + key.Token(claimsUntil("4000000000")) + "\r\n\r\n"
	exchange := exchangeOf(t, c, request, sizeOf(t, c, request))
	if n := testing.AllocsPerRun(2000, exchange); n > theirs {
		t.Errorf("%v allocations, %d of them fasthttp's", n, theirs)
	}
}

// Breakers, and what they let a client have instead, allocate nothing either; an answer that is kept is copied once in a second.
func TestBreakerAllocations(t *testing.T) {
	const bare, fallbacks = "backend: b", "backend: b\n  fallback: {body: static, staleFor: 1h}"
	f := func(name, request, route string, opened bool) {
		t.Helper()
		b := newBackend(t, func(c *peer) {
			good, bad, in := []byte(kibibyte+strings.Repeat("x", 1024)), []byte(broken), make([]byte, 64<<10)
			for {
				n, err := c.Conn.Read(in)
				if err != nil {
					return
				}
				out := good
				if n > len("GET /broken") && string(in[:len("GET /broken")]) == "GET /broken" {
					out = bad
				}
				if _, err := c.Conn.Write(out); err != nil {
					return
				}
			}
		})
		s := serve(t, documents(b.addr, silent, document("Route", "r", strings.Split(route, "\n  ")...),
			document("BreakerPolicy", "of-backend", "target: {kind: Backend, name: b}", "failures: {window: 1s, minRequests: 1, ratio: 1%, slowerThan: 1h}", "open: {for: 1h, maxFor: 1h}"),
			document("BreakerPolicy", "of-route", "target: {kind: Route, name: r}", "perTenant: true", "qpsBaseline: {}", "failures: {minRequests: 1000000000}")))
		c := s.dial()
		c.wants(200, "/")
		if opened {
			c.wants(500, "/broken")
			until(t, "the breaker is open", func() bool { return len(s.changes()) > 0 })
		}
		exchange := exchangeOf(t, c, request, sizeOf(t, c, request))
		if n := testing.AllocsPerRun(2000, exchange); n > theirs {
			t.Errorf("%s: %v allocations, %d of them fasthttp's", name, n, theirs)
		}
	}
	post := strings.Replace(get, "GET", "POST", 1)
	f("allowed", get, bare, false)
	f("allowed and kept", get, fallbacks, false)
	f("refused", get, bare, true)
	f("stale", get, fallbacks, true)
	f("static", post, fallbacks, true)
}
