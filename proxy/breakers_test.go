package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// moody is a backend that answers by what a request's path is for: with that status, or as its mood is.
type moody struct {
	mood  atomic.Value // string: an answer, "reset" or "stall"; "" is well
	asked atomic.Int64
	extra atomic.Value // string: further fields of a good answer
}

func (m *moody) script() script {
	return func(c *peer) {
		for {
			head, _, err := c.request()
			if err != nil {
				return
			}
			m.asked.Add(1)
			mood, _ := m.mood.Load().(string)
			switch {
			case mood == "reset":
				return
			case mood == "stall":
				_, _ = c.r.Peek(1) // until the proxy gives up
				return
			case mood != "":
				c.say(mood)
			default:
				extra, _ := m.extra.Load().(string)
				target := strings.Fields(head)[1]
				c.say(fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", extra, len(target), target))
			}
		}
	}
}

const broken = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"

// ask sends a GET of acme's with further fields, and returns the answer.
func (p *peer) ask(path string, further ...string) (*http.Response, string) {
	p.t.Helper()
	p.say("GET ", path, " HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\n", strings.Join(further, ""), "\r\n")
	return p.answer("GET")
}

// wants asks and checks the status.
func (p *peer) wants(status int, path string, further ...string) (http.Header, string) {
	p.t.Helper()
	a, body := p.ask(path, further...)
	if a.StatusCode != status {
		p.t.Fatalf("GET %s: %d %q, want %d", path, a.StatusCode, body, status)
	}
	return a.Header, body
}

// changes are the changes of levels that were logged, as "orders normal>open too_many_fail".
func (s *sidecar) changes() (texts []string) {
	s.t.Helper()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for line := range bytes.Lines(s.log.all) {
		var l struct{ Breaker, Tenant, From, To, Cause string }
		if json.Unmarshal(line, &l) == nil && l.From != "" {
			texts = append(texts, strings.TrimSuffix(l.Breaker+"/"+l.Tenant, "/")+" "+l.From+">"+l.To+" "+l.Cause)
		}
	}
	return texts
}

func (s *sidecar) wantChanges(want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.changes()); diff != "" {
		s.t.Errorf("logged changes (-want +got):\n%s", diff)
	}
}

// failing is a breaker that opens when 5 calls of a second failed, for two seconds.
func failing(further ...string) string {
	return document("BreakerPolicy", "orders", append([]string{"target: {kind: Backend, name: b}",
		"failures: {window: 1s, ratio: 50%, minRequests: 5}", "open: {for: 2s, probes: 2, ramp: 0s}"}, further...)...)
}

func TestBreakerOpensProbesAndCloses(t *testing.T) {
	var m moody
	inBubble(t, documents("b:1", failing()), m.script(), func(v *virtual) {
		c := v.connect()
		c.wants(200, "/")
		m.mood.Store(broken)
		for range 6 {
			c.wants(500, "/")
		}
		<-time.After(150 * time.Millisecond) // a look at the breaker
		asked := m.asked.Load()
		header, body := c.wants(503, "/")
		if header.Get("Retry-After") != "3" && header.Get("Retry-After") != "2" || header.Get("Proxy-Status") != "weir; error=destination_unavailable" ||
			!strings.Contains(body, "temporary-reduced-capacity") || !strings.Contains(body, "Backend is recovering") {
			t.Errorf("%v %s", header, body)
		}
		if n := m.asked.Load(); n != asked {
			t.Error("an open breaker lets requests through")
		}
		lines := v.logged(8)
		if l := lines[7]; l.text("reason") != "breaker_open" || l.text("breaker") != "orders" || l.text("by") != "proxy" || l.text("phase") != "decision" || l["fallback"] != nil {
			t.Errorf("logged %v", l)
		}
		// A probe that fails: open again, for longer.
		<-time.After(2 * time.Second)
		c.wants(500, "/")
		<-time.After(150 * time.Millisecond)
		c.wants(503, "/")
		// Two that come back well: closed.
		m.mood.Store("")
		<-time.After(4 * time.Second)
		c.wants(200, "/")
		c.wants(200, "/")
		c.wants(503, "/")
		<-time.After(150 * time.Millisecond)
		for range 5 {
			c.wants(200, "/")
		}
		v.wantChanges("orders normal>open too_many_fail", "orders open>half_open waited", "orders half_open>open probes_failed",
			"orders open>half_open waited", "orders half_open>normal probes_passed")
		if n := v.requests("reason", "breaker_open", "code", "5xx"); n != 3 {
			t.Errorf("%d are counted as refused, want 3", n)
		}
		if v.metric("weir_breaker_transitions_total", "breaker", "orders") != 5 || v.metric("weir_breaker_level", "breaker", "orders") != 0 {
			t.Error("the changes of level are not counted, or the level is not what it is")
		}
	})
}

// What the backend is to blame for opens the breaker, and nothing else.
func TestWhoseFaultOpensTheBreaker(t *testing.T) {
	f := func(mood string, request string, opens bool, further ...string) {
		t.Helper()
		var m moody
		m.mood.Store(mood)
		inBubble(t, documents("b:1", append(further, failing())...), m.script(), func(v *virtual) {
			for range 6 {
				c := v.connect()
				c.say(request)
				if strings.HasSuffix(request, "gone") { // a client that leaves at once
					_ = c.Close()
					continue
				}
				if a, _, err := c.tryAnswer("GET"); err != nil && a == nil {
					t.Errorf("%q: %v", mood, err)
				}
			}
			v.logged(6)
			<-time.After(150 * time.Millisecond)
			if got := len(v.changes()) > 0; got != opens {
				t.Errorf("%q, %q: opened %v, want %v: %v", mood, request, got, opens, v.log.lines(t))
			}
		})
	}
	timeouts := document("Backend", "b", `endpoints: [{address: "b:1"}]`, "timeouts: {response: 100ms}")
	f("", get, false)
	f(broken, get, true)
	f("reset", get, true)
	f("what?\r\n\r\n", get, true)
	f("stall", get, true, timeouts)
	f("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", get, false)
	// The client's fault, or ours.
	f("", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", false)
	f("", "GET /\r\n\r\n", false)
	f("", get, false, limited("limits: [{name: l, requests: 0}]"))
	f("", get, false, document("Backend", "b", `endpoints: [{address: "b:1"}]`, "capacity: {concurrency: 1}"))
}

// A client that leaves before a slow backend answers tells of a slow one; a client that leaves soon, of nothing.
func TestWhoLeavesAStalledBackend(t *testing.T) {
	t.Parallel()
	// f has a request in two parts, and how long the client takes between them, and from the second until it leaves.
	f := func(request, rest string, uploads, leaves time.Duration, want ...string) {
		t.Helper()
		var m moody
		m.mood.Store("stall")
		var passed atomic.Int64
		clock := SystemClock()
		now := clock.Now
		clock.Now = func() int64 { return now() + passed.Load() }
		s := start(t, compile(t, documents(newBackend(t, m.script()).addr, document("BreakerPolicy", "orders", "target: {kind: Backend, name: b}",
			"failures: {window: 10m, minRequests: 3, slowerThan: 20s, slowRatio: 50%}"))), clock, nil)
		for i := range 4 {
			c := s.dial()
			c.say(request)
			until(t, "the request is there", func() bool { return s.metric("weir_inflight") == 1 })
			passed.Add(int64(uploads))
			c.say(rest)
			until(t, "the backend is asked", func() bool { return m.asked.Load() == int64(i+1) })
			passed.Add(int64(leaves))
			_ = c.Close()
			s.logged(i + 1)
		}
		until(t, "they are judged", func() bool { return len(s.changes()) > 0 || len(want) == 0 })
		if len(want) == 0 { // nothing of them is counted: what is, came after them
			m.mood.Store("")
			s.dial().wants(200, "/")
			until(t, "a call is judged", func() bool { return s.Table().Breakers(0)[0].Numbers.Requests > 0 })
		}
		s.wantChanges(want...)
		for _, l := range s.logged(4)[:4] {
			if l.text("reason") != "client_gone" {
				t.Errorf("logged %v", l)
			}
		}
	}
	const long = 21 * time.Second
	f(get, "", 0, 0)
	f(get, "", 0, long, "orders normal>open too_many_slow")
	f(post(5, "he"), "llo", 0, long, "orders normal>open too_many_slow")
	// It was the client that took long.
	f(post(5, "he"), "llo", long, 0)
}

func TestBreakerForEachTenant(t *testing.T) {
	var m moody
	inBubble(t, documents("b:1", failing("perTenant: true")), func(c *peer) {
		for {
			head, _, err := c.request()
			if err != nil {
				return
			}
			m.asked.Add(1)
			if field(head, "X-Tenant-ID") == "acme" {
				c.say(broken)
			} else {
				c.say(ok)
			}
		}
	}, func(v *virtual) {
		acme, globex := v.connect(), v.connect()
		other := func(status int) {
			t.Helper()
			globex.say(strings.Replace(get, "acme", "globex", 1))
			globex.expect(status)
		}
		for range 6 {
			acme.wants(500, "/")
			other(200)
		}
		<-time.After(150 * time.Millisecond)
		for range 6 {
			acme.wants(503, "/")
			other(200)
		}
		v.wantChanges("orders/acme normal>open too_many_fail")
	})
}

const shedding = "qpsBaseline: {sample: 1s, baseline: 10s, deviation: 50%, periods: 2, minRate: 1, recover: 2}"

// send makes so many requests a second for a while, and returns the statuses.
func (p *peer) send(path string, perSecond int, d time.Duration) map[int]int {
	p.t.Helper()
	got := map[int]int{}
	for range int(d.Seconds() * float64(perSecond)) {
		a, _ := p.ask(path)
		got[a.StatusCode]++
		<-time.After(time.Second / time.Duration(perSecond))
	}
	return got
}

// A rate that rises sheds what is NonCore, with its fallback, and leaves Core alone.
func TestDegradedShedsNonCore(t *testing.T) {
	var m moody
	inBubble(t, documents("b:1", document("BreakerPolicy", "orders", "target: {kind: Backend, name: b}", shedding),
		document("Route", "avatars", "match: [{path: /avatars/*}]", "backend: b", "criticality: NonCore", "fallback: {status: 203, contentType: image/svg+xml, body: <svg/>}"),
		document("Route", "extras", "match: [{path: /extras/*}]", "backend: b", "criticality: NonCore"),
		document("Route", "rest", "backend: b")), m.script(), func(v *virtual) {
		core, avatars, extras := v.connect(), v.connect(), v.connect()
		var noncore map[int]int
		var busy sync.WaitGroup
		busy.Go(func() { noncore = avatars.send("/avatars/1", 4, 12*time.Second) })
		if got := core.send("/pay", 10, 12*time.Second); got[200] != 120 {
			t.Errorf("core: %v", got)
		}
		busy.Wait()
		if noncore[200] != 48 {
			t.Errorf("noncore: %v", noncore)
		}
		v.wantChanges()
		// Twice the rate.
		if got := core.send("/pay", 30, 3500*time.Millisecond); got[200] != 105 {
			t.Errorf("core: %v", got)
		}
		v.wantChanges("orders normal>degraded rise")
		asked := m.asked.Load()
		header, body := avatars.wants(203, "/avatars/1")
		if body != "<svg/>" || header.Get("Content-Type") != "image/svg+xml" || header.Get("Cache-Control") != "no-store" ||
			header.Get("Retry-After") != "" || header.Get("Proxy-Status") != "weir; error=http_request_denied" {
			t.Errorf("%v %q", header, body)
		}
		if header, body := extras.wants(503, "/extras/1"); header.Get("Retry-After") != "2" && header.Get("Retry-After") != "3" || !strings.Contains(body, "temporary-reduced-capacity") {
			t.Errorf("%v %q", header, body)
		}
		if m.asked.Load() != asked {
			t.Error("what is shed reaches the backend")
		}
		lines := v.log.lines(t)
		for _, l := range lines {
			if shed := l.text("route") != "rest" && l.text("reason") == "shed"; l.text("reason") != "passed" && !shed {
				t.Errorf("logged %v", l)
			} else if shed && (l.text("breaker") != "orders" || l.text("phase") != "decision" || l.text("by") != "proxy") {
				t.Errorf("logged %v", l)
			}
		}
		// And back.
		if got := core.send("/pay", 10, 4*time.Second); got[200] != 40 {
			t.Errorf("core: %v", got)
		}
		avatars.wants(200, "/avatars/1")
		v.wantChanges("orders normal>degraded rise", "orders degraded>normal back")
		if v.requests("reason", "shed", "code", "2xx") != 1 || v.requests("reason", "shed", "code", "5xx") != 1 {
			t.Error("what was shed is not counted by what it got")
		}
		if v.metric("weir_fallbacks_total", "answer", "static") != 1 || v.metric("weir_fallbacks_total") != 1 {
			t.Error("the fallback is not counted")
		}
	})
}

// Breakers come and go with the documents, and the sampler with them.
func TestBreakersOfOtherDocuments(t *testing.T) {
	var m moody
	m.mood.Store(broken)
	inBubble(t, documents("b:1"), m.script(), func(v *virtual) {
		c := v.connect()
		apply := func(further ...string) {
			t.Helper()
			if err := v.Apply(compile(t, documents("b:1", further...))); err != nil {
				t.Fatal(err)
			}
		}
		fail := func() {
			t.Helper()
			for range 6 {
				c.ask("/")
			}
			<-time.After(150 * time.Millisecond)
		}
		fail()
		apply(failing())
		v.wantChanges()
		fail()
		c.wants(503, "/")
		// Taken over, and told of what changes with the documents.
		apply(failing(), silent)
		c.wants(503, "/")
		apply(document("BreakerPolicy", "orders", "target: {kind: Backend, name: b}", shedding))
		<-time.After(1100 * time.Millisecond) // a look at the breaker
		c.wants(500, "/")
		v.wantChanges("orders normal>open too_many_fail", "orders open>normal changed")
		apply()
		fail()
		c.wants(500, "/")
		apply(failing())
		fail()
		c.wants(503, "/")
	})
}

// A defect while a change is told does not end judgement.
func TestBreakersGoOnAfterADefect(t *testing.T) {
	var m moody
	m.mood.Store(broken)
	pen := new(once)
	inBubble(t, documents("b:1", failing()), m.script(), func(v *virtual) {
		v.logger = zerolog.New(pen)
		c := v.connect()
		for range 6 {
			c.wants(500, "/")
		}
		<-time.After(150 * time.Millisecond)
		c.wants(503, "/")
		m.mood.Store("")
		<-time.After(2100 * time.Millisecond)
		c.wants(200, "/") // a probe
		if n := v.metric("weir_panics_recovered_total"); n != 1 {
			t.Errorf("%v defects are counted, want 1", n)
		}
	})
}
