package proxy

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// rateFields are all that an answer says of limits, with the values in order.
func rateFields(h http.Header) map[string][]string {
	said := map[string][]string{}
	for name, values := range h {
		if strings.Contains(name, "Ratelimit") || name == "Retry-After" {
			said[name] = values
		}
	}
	return said
}

// still serves with a clock that stands, so that nothing refills.
func still(t *testing.T, text string) *sidecar {
	t.Helper()
	return start(t, compile(t, text), Clock{Start: time.Now(), Now: func() int64 { return int64(time.Hour) }}, nil)
}

const (
	tenPerHour   = "limits: [{name: steady, requests: 10, per: 1h}]"
	standardTold = "headers: Standard"
)

func TestWhatAnswersTell(t *testing.T) {
	t.Parallel()
	f := func(headers, request, answer string, status int, want map[string][]string) {
		t.Helper()
		s := still(t, documents(answering(t, answer, nil).addr, limited(tenPerHour, headers)))
		c := s.dial()
		c.say(request)
		a, _ := c.answer(strings.Fields(request)[0])
		if diff := cmp.Diff(want, rateFields(a.Header)); diff != "" || a.StatusCode != status {
			t.Errorf("%s: %d (-want +got):\n%s", headers, a.StatusCode, diff)
		}
	}
	standard := map[string][]string{"Ratelimit-Policy": {`"steady";q=10;w=3600`}, "Ratelimit": {`"steady";r=9;t=3240`}}
	legacy := map[string][]string{"X-Ratelimit-Limit": {"10"}, "X-Ratelimit-Remaining": {"9"}, "X-Ratelimit-Reset": {"360"}}
	both := map[string][]string{}
	for _, fields := range []map[string][]string{standard, legacy} {
		for name, values := range fields {
			both[name] = values
		}
	}
	none := map[string][]string{}

	f("backend: b", get, ok, 200, none)
	f("headers: Off", get, ok, 200, none)
	f("headers: Standard", get, ok, 200, standard)
	f("headers: Legacy", get, ok, 200, legacy)
	f("headers: Both", get, ok, 200, both)
	// Refusals have their own word.
	f("headers: Standard\n  reject: {headers: Legacy}", get, ok, 200, standard)
	// Whatever has a head of the backend has them.
	f(standardTold, strings.Replace(get, "GET", "HEAD", 1), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, standard)
	f(standardTold, get, "HTTP/1.1 304 Not Modified\r\n\r\n", 304, standard)
	f(standardTold, get, "HTTP/1.1 204 No Content\r\n\r\n", 204, standard)
	f(standardTold, get, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", 500, standard)
	f(standardTold, get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, standard)
	// What the backend says is tightened.
	const busy = "HTTP/1.1 429 Busy\r\nratelimit: \"steady\";r=100;t=1, \"own\";r=0;t=7\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
	f(standardTold, get, busy, 429, map[string][]string{
		"Ratelimit-Policy": {`"steady";q=10;w=3600`}, "Ratelimit": {`"steady";r=9;t=3240, "own";r=0;t=7`}, "Retry-After": {"7"},
	})
	f("headers: Off", get, busy, 429, map[string][]string{"Ratelimit": {`"steady";r=100;t=1, "own";r=0;t=7`}, "Retry-After": {"7"}})
	// An answer of ours that refuses for no limit says nothing of limits.
	f(standardTold, get, "garbage\r\n\r\n", 502, none)
}

// The state is that after the request, and its gate counts the request itself.
func TestWhatSuccessiveAnswersTell(t *testing.T) {
	t.Parallel()
	s := still(t, documents(answering(t, ok, nil).addr, limited(twoPerHour, "concurrency: {max: 3}", standardTold)))
	c := s.dial()
	for _, want := range []string{`"steady";r=1;t=1800, "burst";r=4;t=2400, "concurrency";r=2`, `"steady";r=0;t=1800, "burst";r=3;t=1800, "concurrency";r=2`} {
		c.say(get)
		a, _ := c.expect(200)
		if got := a.Header.Get("RateLimit"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		structured(t, a.Header["Ratelimit"])
		structured(t, a.Header["Ratelimit-Policy"])
	}
	c.say(get)
	a, _ := c.expect(429)
	if got, want := a.Header.Get("RateLimit"), `"steady";r=0;t=1800, "burst";r=3;t=1800, "concurrency";r=3`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := a.Header.Get("RateLimit-Policy"), `"steady";q=2;w=3600, "burst";q=1;w=600, "concurrency";q=3;qu="concurrent-requests"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What comes back while the backend is at work is told.
func TestAnswersTellOfTheirOwnTime(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	now.Store(int64(time.Hour))
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		now.Add(int64(2 * time.Second))
		c.say(ok)
	})
	s := start(t, compile(t, documents(b.addr, limited("limits: [{name: steady, requests: 10, per: 20s}]", standardTold))),
		Clock{Start: time.Now(), Now: now.Load}, nil)
	c := s.dial()
	c.say(get)
	a, _ := c.expect(200)
	if got, want := a.Header.Get("RateLimit"), `"steady";r=10;t=20`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Interim answers and upgrades are no answers that tell of limits.
func TestWhatIsToldOfNoLimits(t *testing.T) {
	t.Parallel()
	s := still(t, documents(answering(t, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+ok, nil).addr, limited(tenPerHour, standardTold)))
	c := s.dial()
	c.say(get)
	for _, want := range []bool{false, true} {
		head, err := c.head()
		if err != nil || strings.Contains(head, "RateLimit") != want {
			t.Errorf("%q %v", head, err)
		}
	}
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	s = still(t, documents(newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say(switching)
	}).addr, limited(tenPerHour, standardTold)))
	c = s.dial()
	c.say(strings.Replace(get, "\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 1))
	if head, err := c.head(); err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") || strings.Contains(head, "RateLimit") {
		t.Errorf("%q %v", head, err)
	}
}

// Every limit that would refuse the request is named, and no other.
func TestViolatedPolicies(t *testing.T) {
	t.Parallel()
	f := func(limits string, requests int, want string) {
		t.Helper()
		s := still(t, documents(answering(t, ok, nil).addr, limited(limits)))
		c := s.dial()
		for range requests {
			c.say(get)
			c.expect(200)
		}
		c.say(get)
		if _, body := c.expect(429); !strings.Contains(body, `"violated-policies":`+want+`,"request-id"`) {
			t.Errorf("%s: %s", limits, body)
		}
	}

	f("limits: [{name: a, requests: 2, per: 1h}, {name: b, requests: 9, per: 1h}]", 2, `["a"]`)
	f("limits: [{name: a, requests: 9, per: 1h}, {name: b, requests: 2, per: 1h}]", 2, `["b"]`)
	f("limits: [{name: a, requests: 2, per: 1h}, {name: b, requests: 9, per: 1h}, {name: c, requests: 2, per: 2h}]", 2, `["a","c"]`)
}
