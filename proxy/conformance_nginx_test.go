package proxy

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func nginxBehaviours() []behaviour {
	const (
		unfinished, extra, idem          = "proxy_unfinished.t", "proxy_extra_data.t", "proxy_non_idempotent.t"
		limit, limit2, delay, dryRun     = "limit_req.t", "limit_req2.t", "limit_req_delay.t", "limit_req_dry_run.t"
		noCache, onlyFailures, noOtherOf = "nothing is cached", "only answers from 500 to 599 can be listed: a 404 is what was asked for", "HTTP/2 and HTTP/3 are not spoken"
	)
	return []behaviour{
		{unfinished, "no last chunk", "an answer that broke off gets no last chunk, whatever its framing was", holds, "", TestTruncationIsNeverACleanEnd},
		{unfinished, "complete", "a complete one gets it", holds, "", TestAnswerAsTheClientGetsIt},
		{unfinished, "big", "a large answer that breaks off is passed as far as it came, and is no clean end", holds, "", nginxBigUnfinished},
		{unfinished, "cache", "what broke off is not cached", nothing, noCache, nil},
		{unfinished, "disk", "a buffer on disk that fails is no clean end", nothing, "nothing is buffered on disk", nil},
		{extra, "extra", "what follows the announced length reaches nobody, and the connection is not used again", holds, "", nginxExtraData},
		{extra, "zero", "nor does what follows an empty answer", holds, "", nginxExtraData},
		{extra, "HEAD", "nor does the body of an answer to HEAD", holds, "", haproxyBodyToHead},
		{extra, "short", "an answer that is too short is no clean end", holds, "", TestTruncationIsNeverACleanEnd},
		{extra, "cache", "answers to HEAD are not cached for GET with their bodies", nothing, noCache, nil},
		{idem, "post", "a POST that a backend has read is never sent again", holds, "", nginxPostOnce},
		{idem, "keepalive post", "nor on a connection that was used before", holds, "", nginxPostOnce},
		{idem, "get", "a GET is sent to the next endpoint when the first breaks off, if the policy says so", holds, "", TestSendingAgain},
		{idem, "404", "so it is on an answer of choice", differs, onlyFailures, TestSendingAgain},
		{idem, "non_idempotent", "an option sends everything again", nothing, "what may have been done is not done twice, by no option", nil},
		{limit, "burst", "what is beyond rate and burst is refused", holds, "", nginxBurst},
		{limit, "status", "the status of refusals is the policy's", holds, "", nginxStatus},
		{limit, "rejects", "refusals cost nothing: after the time of one request one passes", holds, "", nginxBurst},
		{limit, "negative", "a long silence saves up no more than the burst", holds, "", nginxSilence},
		{limit, "delayed answer", "an answer that had to wait for its turn is whole", later, "there are no queues yet: what is over the limit is refused at once", nil},
		{limit2, "both", "of two limits the stricter decides", holds, "", nginxTwoLimits},
		{limit2, "keys", "each key has its own", holds, "", nginxTwoLimits},
		{limit2, "no key", "what has no key is not limited", differs, "a missing identity never means unlimited", nginxNoKey},
		{delay, "delay", "some of the burst passes at once, the rest waits", later, "there are no queues yet", nil},
		{dryRun, "reject", "a limit on trial refuses nobody and says whom it would have refused", holds, "", nginxDryRun},
		{dryRun, "delay", "nor does it delay", later, "there are no queues yet", nil},
		{"h2_limit_req.t", "h2", "limits hold for HTTP/2", nothing, noOtherOf, nil},
		{"h3_limit_req.t", "h3", "limits hold for HTTP/3", nothing, noOtherOf, nil},
	}
}

func nginxBigUnfinished(t *testing.T) {
	body := strings.Repeat(strings.Repeat("X", 98)+"\r\n", 10000) + "unfinished\r\n"
	f := func(announced int, whole bool) {
		t.Helper()
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			c.say("HTTP/1.1 200 OK\r\nContent-Length: "+strconv.Itoa(announced)+"\r\nConnection: close\r\n\r\n", body)
		})
		c := serve(t, documents(b.addr)).dial()
		c.say(get11("/", "Connection: close"))
		got, err := c.rest()
		if (err == nil) != whole || whole && !strings.HasSuffix(got, "\r\n\r\n"+body) {
			t.Errorf("%d bytes and %v", len(got), err)
		}
	}

	f(len(body)+88, false)
	f(len(body), true)
}

func nginxExtraData(t *testing.T) {
	f := func(answer, want string) {
		t.Helper()
		b := answering(t, answer, nil)
		c := serve(t, documents(b.addr)).dial()
		for range 2 {
			c.say(get)
			if _, body := c.expect(200); body != want {
				t.Errorf("%q arrives as %q, want %q", answer, body, want)
			}
		}
		if n := b.connections(); n != 2 {
			t.Errorf("%q: %d connections for two requests, want two", answer, n)
		}
	}

	f("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nSEE-THIS-BUT-NOT-THIS", "SEE-THIS")
	f("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nNOT-THIS", "")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nSEE-THIS\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nNOT-THIS", "SEE-THIS")
}

// nginxPostOnce: the backend reads each request and hangs up, on a new connection and on one that was used before.
func nginxPostOnce(t *testing.T) {
	var read atomic.Int64
	b := newBackend(t, func(c *peer) {
		for {
			head, _, err := c.request()
			if err != nil {
				return
			}
			if !strings.HasPrefix(head, "POST") {
				c.say("HTTP/1.1 204 No Content\r\n\r\n")
				continue
			}
			read.Add(1)
			return
		}
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	for i, body := range []string{"", "x"} {
		c.say(post(len(body), body))
		c.expect(502)
		c.say(get)
		c.expect(204)
		c.say(post(len(body), body))
		c.expect(502)
		if n := read.Load(); n != int64(2*(i+1)) {
			t.Errorf("%d POSTs were read after %d were sent", n, 2*(i+1))
		}
	}
}

// paced serves with a clock that stands until it is moved on.
func paced(t *testing.T, fields ...string) (s *sidecar, move func(time.Duration), b *backend) {
	t.Helper()
	var now atomic.Int64
	now.Store(int64(time.Hour))
	b = answering(t, ok, nil)
	s = start(t, compile(t, documents(b.addr, limited(fields...))), Clock{Start: time.Now(), Now: now.Load}, nil)
	return s, func(d time.Duration) { now.Add(int64(d)) }, b
}

// answered sends requests of a tenant and checks the status of each.
func answered(t *testing.T, c *peer, tenant string, statuses ...int) {
	t.Helper()
	for i, status := range statuses {
		c.say(strings.Replace(get, "acme", tenant, 1))
		if a, _ := c.answer("GET"); a.StatusCode != status {
			t.Fatalf("request %d of %s got %d, want %d", i+1, tenant, a.StatusCode, status)
		}
	}
}

func nginxBurst(t *testing.T) {
	s, move, _ := paced(t, "limits: [{name: l, requests: 2, per: 1s, burst: 2}]")
	c := s.dial()
	answered(t, c, "acme", 200, 200, 429, 429, 429)
	move(500 * time.Millisecond)
	answered(t, c, "acme", 200, 429)
}

func nginxStatus(t *testing.T) {
	s, _, _ := paced(t, "limits: [{name: l, requests: 1, per: 1h}]", "reject: {status: 503}")
	answered(t, s.dial(), "acme", 200, 503)
}

func nginxSilence(t *testing.T) {
	s, move, _ := paced(t, "limits: [{name: l, requests: 1000, per: 1s, burst: 2}]")
	c := s.dial()
	answered(t, c, "acme", 200, 200, 429)
	move(24 * time.Hour)
	answered(t, c, "acme", 200, 200, 429)
}

func nginxTwoLimits(t *testing.T) {
	s, move, _ := paced(t, "limits: [{name: fast, requests: 1000, per: 1s}, {name: slow, requests: 1, per: 1m}]")
	c := s.dial()
	answered(t, c, "acme", 200)
	move(100 * time.Millisecond)
	answered(t, c, "acme", 429)
	answered(t, c, "other", 200, 429)
	move(time.Minute)
	answered(t, c, "acme", 200)
}

func nginxNoKey(t *testing.T) {
	s, _, _ := paced(t, "limits: [{name: l, requests: 2, per: 1h}]")
	c := s.dial()
	for _, status := range []int{200, 200, 429} {
		c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		c.expect(status)
	}
}

func nginxDryRun(t *testing.T) {
	s, _, b := paced(t, "limits: [{name: trial, requests: 1, per: 1h, mode: Shadow}]")
	c := s.dial()
	answered(t, c, "acme", 200, 200, 200)
	if n := s.metric("weir_limit_decisions_total", "limit", "trial", "decision", "shadow_deny"); n != 2 {
		t.Errorf("%v would have been refused, want 2", n)
	}
	if b.connections() != 1 {
		t.Errorf("%d connections", b.connections())
	}
}
