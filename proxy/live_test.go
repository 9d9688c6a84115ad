package proxy

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// apply puts documents in force.
func (s *sidecar) apply(text string) {
	s.t.Helper()
	if err := s.Apply(compile(s.t, text)); err != nil {
		s.t.Fatal(err)
	}
}

func TestChangesUnderLoadLoseNoRequest(t *testing.T) {
	a, b := answering(t, ok, nil), answering(t, ok, nil)
	text := func(i int) string {
		backend := []*backend{a, b}[i%2].addr
		return documents(backend, "timeouts: {request: "+strconv.Itoa(10+i)+"s}", document("Route", "r", "match: [{path: /*}]", "backend: b", "timeout: "+strconv.Itoa(10+i%3)+"s"),
			limited("limits: [{name: l"+strconv.Itoa(i%5)+", requests: 1000000000, per: 1s}]"))
	}
	s := serve(t, text(0))
	var stop atomic.Bool
	var sent atomic.Int64
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			c := s.dial()
			for n := 0; !stop.Load(); n++ {
				request := get
				if (n+i)%2 == 0 {
					request = post(5, "hello")
				}
				c.say(request)
				a, body, err := c.tryAnswer("GET")
				if err != nil || a.StatusCode != 200 || body != "ok" {
					t.Errorf("request %d: %v %s %v", n, a, body, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	for i := range 300 {
		before := sent.Load()
		s.apply(text(i + 1))
		until(t, "requests go on", func() bool { return sent.Load() > before || t.Failed() })
	}
	stop.Store(true)
	clients.Wait()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if n := s.requests("reason", "passed"); n != int(sent.Load()) || n < 300 {
		t.Errorf("%d counted, %d answered", n, sent.Load())
	}
}

func TestRetiredBackendDrains(t *testing.T) {
	asked, release, closed := make(chan struct{}), make(chan struct{}), make(chan struct{}, 2)
	old := newBackend(t, func(c *peer) {
		for {
			head, err := c.head()
			if err != nil {
				closed <- struct{}{}
				return
			}
			if strings.HasPrefix(head, "GET /slow ") {
				asked <- struct{}{}
				<-release
			}
			c.say(ok)
		}
	})
	next := answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext", nil)
	s := serve(t, documents(old.addr))
	// Two connections to the old backend: one at rest, one with a request in flight.
	slow, quick := s.dial(), s.dial()
	slow.say(strings.Replace(get, " / ", " /slow ", 1))
	within(t, "it is in flight", asked)
	quick.open()
	s.apply(documents(next.addr))
	within(t, "the idle connection is closed", closed)
	quick.say(get)
	if _, body := quick.expect(200); body != "next" {
		t.Errorf("a new request went to the old backend")
	}
	close(release)
	if _, body := slow.expect(200); body != "ok" {
		t.Errorf("%q", body)
	}
	within(t, "the other connection is closed after its request", closed)
}

func TestRetiredRoutesHaveNoSeries(t *testing.T) {
	b := answering(t, ok, nil)
	route := func(name string) string { return document("Route", name, "match: [{path: /*}]", "backend: b") }
	s := serve(t, documents(b.addr, route("old"), route("kept")))
	c := s.dial()
	c.open()
	s.logged(1)
	if s.metric("weir_request_duration_seconds", "route", "old")+s.metric("weir_request_duration_seconds", "route", "kept") != 1 {
		t.Fatal("the request's duration is not counted")
	}
	s.apply(documents(b.addr, route("kept"), route("new")))
	if s.has("weir_request_duration_seconds", "old") || !s.has("weir_request_duration_seconds", "kept") || !s.has("weir_request_duration_seconds", "new") {
		t.Error("want series of kept and new, and none of old")
	}
}

// has says whether there is a series of that route.
func (s *sidecar) has(name, route string) bool {
	families, err := s.registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == "route" && l.GetValue() == route {
					return true
				}
			}
		}
	}
	return false
}

func TestApplyThatFailsChangesNothing(t *testing.T) {
	s := serve(t, documents(answering(t, ok, nil).addr))
	before := s.Snapshot()
	broken := compile(t, documents("127.0.0.1:1"))
	broken.Backends[0].Endpoints[0].Network = "carrier-pigeon"
	if err := s.Apply(broken); err == nil || !strings.Contains(err.Error(), "carrier-pigeon") {
		t.Errorf("Apply: %v", err)
	}
	if s.Snapshot() != before || s.Table().Snapshot() != before {
		t.Error("something of it is in force")
	}
	s.dial().open()
}

func TestNothingIsAppliedAfterTheEnd(t *testing.T) {
	text := documents(answering(t, ok, nil).addr)
	s := serve(t, text)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(compile(t, text)); err == nil {
		t.Error("applied")
	}
}

// TestHeadScannedUnderOtherSettings: a connection that waited for its request while the policy changed is judged by the new one.
func TestHeadScannedUnderOtherSettings(t *testing.T) {
	got := make(chan string, 1)
	b := answering(t, ok, got)
	text := documents(b.addr)
	s := serve(t, text)
	c, again := s.dial(), s.dial() // a broken claim ends its connection
	c.open()
	within(t, "the first", got)
	again.open()
	within(t, "the first", got)
	s.apply(strings.Replace(text, "X-Tenant-ID", "X-Org", 1))
	// The new identity header cannot be smuggled in beside ours, nor by its alias.
	c.say("GET / HTTP/1.1\r\nHost: h\r\nX-Org: acme\r\nx-org: evil\r\n\r\n")
	c.expect(400)
	again.say("GET / HTTP/1.1\r\nHost: h\r\nx-ORG: acme\r\nX-Tenant-ID: other\r\n\r\n")
	again.expect(200)
	head := within(t, "the second", got)
	if strings.Count(strings.ToLower(head), "x-org") != 1 || field(head, "X-Org") != "acme" || field(head, "X-Tenant-ID") != "other" {
		t.Errorf("%q", head)
	}
	waits := s.dial()
	waits.open()
	s.apply(text)
	waits.say("GET / HTTP/1.1\r\nHost: h\r\nX_Tenant_ID: evil\r\n\r\n")
	waits.expect(400)
}
