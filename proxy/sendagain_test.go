package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// endpoints is a Backend of these addresses, in turn, with further fields of its spec.
func endpoints(addresses []string, fields ...string) string {
	all := "endpoints: ["
	for _, a := range addresses {
		all += fmt.Sprintf("{address: %q}, ", a)
	}
	return document("Backend", "b", append([]string{strings.TrimSuffix(all, ", ") + "]", "balance: RoundRobin"}, fields...)...)
}

const (
	getRequest = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	putRequest = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
	postChunks = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
	putChunks  = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
	busy       = "HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 4\r\n\r\nbusy"
)

// The first endpoint in turn fails in some way, the second answers: who gets to see which?
func TestSendingAgain(t *testing.T) {
	f := func(name, retries, request string, fails script, want, tries int) {
		t.Helper()
		got := make(chan string, 10)
		bad, good := newBackend(t, fails), answering(t, ok, got)
		s := serve(t, documents("", endpoints([]string{bad.addr, good.addr}, retries)))
		c := s.dial()
		c.say(request)
		a, body := c.answer("GET")
		if a.StatusCode != want {
			t.Errorf("%s: got %d %s, want %d", name, a.StatusCode, body, want)
		}
		if n := s.metric("weir_upstream_retries_total"); int(n) != tries-1 {
			t.Errorf("%s: %v counted as sent again, want %d", name, n, tries-1)
		}
		var n float64
		until(t, "every try is counted", func() bool { n = s.metric("weir_upstream_requests_total"); return n >= float64(tries) })
		if int(n) != tries {
			t.Errorf("%s: %v tries counted, want %d", name, n, tries)
		}
		line := s.logged(1)[0]
		if want == 200 {
			if line.text("endpoint") != good.addr || line.text("reason") != "passed" {
				t.Errorf("%s: logged %v, want the endpoint that answered", name, line)
			}
			_, sent, _ := strings.Cut(request, "\r\n\r\n")
			if _, arrived, _ := strings.Cut(<-got, "\r\n\r\n"); strings.Contains(sent, "hi") && !strings.Contains(arrived, "hi") {
				t.Errorf("%s: the body arrives as %q", name, arrived)
			}
		}
		if want == 503 && body != "busy" {
			t.Errorf("%s: the answer is %q, want the service's own", name, body)
		}
		if s.requests() != 1 {
			t.Errorf("%s: %d requests counted", name, s.requests())
		}
	}
	says503 := func(c *peer) {
		for {
			if _, _, err := c.request(); err != nil {
				return
			}
			c.say(busy)
		}
	}
	says503AndStalls := func(c *peer) {
		_, _, _ = c.request()
		c.say("HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\nbusy")
		_, _, _ = c.request()
	}
	breaks := func(c *peer) { _, _, _ = c.request() }

	const on503, onReset = `retries: {on: ["503"]}`, "retries: {on: [reset]}"
	f("503", on503, getRequest, says503, 200, 2)
	f("503 with a body that never ends", on503, getRequest, says503AndStalls, 200, 2)
	f("503 to a PUT", on503, putRequest, says503, 200, 2)
	f("503 to a PUT in chunks", on503, putChunks, says503, 200, 2)
	f("503 to a POST", on503, postChunks, says503, 503, 1)
	f("503 that nobody asked to try again", onReset, getRequest, says503, 503, 1)
	f("503 and no attempts", `retries: {on: ["503"], attempts: 0}`, getRequest, says503, 503, 1)
	f("503 and no budget", `retries: {on: ["503"], budget: 0%}`, getRequest, says503, 503, 1)
	f("a break", onReset, getRequest, breaks, 200, 2)
	f("a break after a PUT", onReset, putRequest, breaks, 200, 2)
	f("a break after a POST", onReset, postChunks, breaks, 502, 1)
	f("a break that nobody asked to try again", on503, getRequest, breaks, 502, 1)
}

// A body that is not there whole cannot be sent again.
func TestUploadsAreNotSentAgain(t *testing.T) {
	bad := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say(busy)
		_, _ = c.take(1 << 20)
	})
	good := answering(t, ok, nil)
	s := serve(t, documents("", endpoints([]string{bad.addr, good.addr}, `retries: {on: ["503", reset]}`)))
	c := s.dial()
	c.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nx")
	if a, body := c.answer("PUT"); a.StatusCode != 503 || body != "busy" {
		t.Errorf("got %d %q, want the service's 503", a.StatusCode, body)
	}
	if n := s.metric("weir_upstream_retries_total"); n != 0 {
		t.Errorf("%v sent again", n)
	}
}

// An outage does not become a storm: retries are a part of the requests, or the few that are always allowed.
func TestRetriesWithinTheBudget(t *testing.T) {
	bad := answering(t, busy, nil)
	s := serve(t, documents("", endpoints([]string{bad.addr}, `retries: {on: ["503"], attempts: 10, budget: 10%}`)))
	c := s.dial()
	const requests = 200
	for range requests {
		c.say(getRequest)
		c.expect(503)
	}
	if n := s.metric("weir_upstream_retries_total"); n < 10 || n > requests/10 {
		t.Errorf("%v retries of %d requests, want 10 %% of them at most", n, requests)
	}
}

func TestConnectingAgain(t *testing.T) {
	f := func(retries string, dials int) {
		t.Helper()
		dead, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		dead.Close()
		s := serve(t, documents("", endpoints([]string{dead.Addr().String()}, retries)))
		c := s.dial()
		c.say(postChunks)
		c.expect(502)
		if n := s.metric("weir_upstream_dials_total"); int(n) != dials {
			t.Errorf("%s: %v dials, want %d", retries, n, dials)
		}
		s.ends("backend_refused", 502)
	}
	f("", 1)
	f("retries: {on: [reset]}", 1)
	f("retries: {on: [connect], attempts: 3}", 4)
}

// One tenant's requests hang and use up its connections; the others go on.
func TestTenantsHaveTheirOwnConnections(t *testing.T) {
	b := newBackend(t, func(c *peer) {
		for {
			head, _, err := c.request()
			if err != nil {
				return
			}
			if strings.HasPrefix(head, "GET /hang") {
				_, _, _ = c.request()
				return
			}
			c.say(ok)
		}
	})
	s := serve(t, documents("", endpoints([]string{b.addr}, "pool: {perTenant: true, maxConnections: 2}")))
	as := func(tenant, path string) *peer {
		c := s.dial()
		c.say("GET " + path + " HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: " + tenant + "\r\n\r\n")
		return c
	}
	for range 2 {
		as("loud", "/hang")
	}
	until(t, "both hang", func() bool { return s.metric("weir_upstream_connections", "state", "active") == 2 })
	as("loud", "/").expect(503)
	as("quiet", "/").expect(200)
	as("other", "/").expect(200)
	if lines := s.logged(3); lines[0].text("reason") != "pool_full" || lines[0].text("tenant") != "loud" {
		t.Errorf("logged %v, want pool_full of the loud one", lines[0])
	}
}

// A tenant's requests go to one endpoint.
func TestTenantsAreAtOneEndpoint(t *testing.T) {
	one, two, three := answering(t, ok, nil), answering(t, ok, nil), answering(t, ok, nil)
	text := strings.Replace(endpoints([]string{one.addr, two.addr, three.addr}), "RoundRobin", "ConsistentHash", 1)
	s := serve(t, documents("", text))
	c := s.dial()
	const tenants = 60 // so many that all endpoints are surely somebody's
	for i := range 3 * tenants {
		c.say(fmt.Sprintf("GET / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: t%d\r\n\r\n", i%tenants))
		c.expect(200)
	}
	homes := map[string]string{}
	for _, line := range s.logged(3 * tenants) {
		tenant, at := line.text("tenant"), line.text("endpoint")
		if homes[tenant] == "" {
			homes[tenant] = at
		}
		if homes[tenant] != at {
			t.Errorf("%s went to %s and to %s", tenant, homes[tenant], at)
		}
	}
	if len(homes) != tenants || one.connections() == 0 || two.connections() == 0 || three.connections() == 0 {
		t.Errorf("tenants are at %v, want them at all three", homes)
	}
}
