package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// saysApart writes a head and a body so that a pipe does not bring them together.
func (p *peer) saysApart(head, body string) { p.say(head); p.say(body) }

// download is a backend that answers everything with n bytes.
func download(n string) script {
	return func(c *peer) {
		for {
			if _, _, err := c.request(); err != nil {
				return
			}
			c.say("HTTP/1.1 200 OK\r\nContent-Length: ", n, "\r\n\r\n")
			endless(c, false)
		}
	}
}

// TestPausesAreNobodysIdleness: with every timeout shorter than the pauses, and a minimum rate above the limit, what is held up by us
// is neither the client's nor the backend's fault.
func TestPausesAreNobodysIdleness(t *testing.T) {
	const limit = "bytes: 100, burst: 1000" // a piece of 1000 bytes every ten seconds
	text := documents("127.0.0.1:1", "timeouts: {request: 0s, body: 1s, send: 1s, idle: 1s}", "bounds: {bodyRate: 10KiB}", bytesLimit(limit),
		document("Backend", "b", `endpoints: [{address: "127.0.0.1:1"}]`, "timeouts: {response: 1s, idleBody: 1s}"))
	f := func(name, request, upload, answer string, want time.Duration) {
		t.Helper()
		inBubble(t, text, func(c *peer) {
			for {
				if _, _, err := c.request(); err != nil {
					return
				}
				c.say(answer)
			}
		}, func(v *virtual) {
			c := v.connect()
			began := time.Now()
			go c.saysApart(request, upload)
			a, _, err := c.tryAnswer("GET")
			if err != nil || a.StatusCode != 200 || time.Since(began) != want {
				t.Errorf("%s: %v, %v after %v, want 200 after %v", name, a, err, time.Since(began), want)
			}
			v.ends("passed", 200)
		})
	}
	f("download", get, "", "HTTP/1.1 200 OK\r\nContent-Length: 6000\r\n\r\n"+said(6000), 50*time.Second)
	f("upload", post(6000, ""), said(6000), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 50*time.Second)
	f("upload that came with the head", post(3000, said(3000)), "", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 20*time.Second)

	// A tunnel is not silent while it pauses.
	inBubble(t, text, func(c *peer) {
		_, _ = c.head()
		c.say(switching)
		_, _ = io.Copy(c, c.r)
	}, func(v *virtual) {
		c := v.connect()
		c.say(upgradeTo)
		if head, err := c.head(); err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
			t.Fatalf("no upgrade: %q, %v", head, err)
		}
		began := time.Now()
		go c.say(said(3000))
		if got, err := c.take(3000); got != said(3000) || err != nil {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
		if took := time.Since(began); took != 50*time.Second { // 6000 bytes both ways
			t.Errorf("it took %v, want 50s", took)
		}
		_ = c.Close()
		if line := v.logged(1)[0]; line["bytes_in"] != 3000. || line["bytes_out"] != 3000. {
			t.Errorf("logged %v", line)
		}
	})
}

// TestPausesEndWithTheRequest: the request's own time ends a pause, wherever it is.
func TestPausesEndWithTheRequest(t *testing.T) {
	f := func(name, request, upload string, status int, reason, phase string, asked bool) {
		t.Helper()
		inBubble(t, documents("127.0.0.1:1", "timeouts: {request: 3s}", bytesLimit("bytes: 1000, per: 1h")), download("100000"), func(v *virtual) {
			c := v.connect()
			began := time.Now()
			go c.saysApart(request, upload)
			a, err := http.ReadResponse(c.r, nil)
			if err != nil || a.StatusCode != status {
				t.Fatalf("%s: %v, %v, want status %d", name, a, err, status)
			}
			_, _ = io.ReadAll(a.Body)
			if took := time.Since(began); took < 3*time.Second || took > 3*time.Second+longestPause+upstreamTick {
				t.Errorf("%s: it ended after %v, want the 3 s it may take", name, took)
			}
			line := v.ends(reason, status)
			if line.text("phase") != phase || (line["backend"] != nil) != asked {
				t.Errorf("%s: logged %v, want phase %s", name, line, phase)
			}
		})
	}
	f("download", get, "", 200, "request_timeout", "response_body", true)
	f("upload", post(10_000, ""), said(10_000), 504, "request_timeout", "response_head", true)
	f("upload that came with the head", post(3000, said(3000)), "", 504, "request_timeout", "decision", false)
}

// upstreamTick is how often upstream looks for what is overdue.
const upstreamTick = 100 * time.Millisecond

// TestPausesEndWithTheDrain: what pauses when the drain is over is cut like everything else.
func TestPausesEndWithTheDrain(t *testing.T) {
	f := func(name, request, upload, reason string, status int) {
		t.Helper()
		inBubble(t, documents("127.0.0.1:1", "timeouts: {request: 0s, drain: 5s}", bytesLimit("bytes: 1000, per: 1h")), func(c *peer) {
			head, err := c.head()
			switch {
			case err != nil:
			case strings.HasPrefix(head, "GET /ws"):
				c.say(switching)
				endless(c, false)
			case strings.HasPrefix(head, "GET"):
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
				endless(c, false)
			default:
				hold(c)
			}
		}, func(v *virtual) {
			c := v.connect()
			go c.saysApart(request, upload)
			read := make(chan struct{})
			go func() { _, _ = io.Copy(io.Discard, c.r); close(read) }()
			<-time.After(time.Second)
			began := time.Now()
			err := v.stop()
			if took := time.Since(began); took > 5*time.Second+lastAccept+longestPause+20*time.Millisecond {
				t.Errorf("%s: the drain took %v", name, took)
			}
			if cut := err != nil; cut != (status != 101) {
				t.Errorf("%s: Serve: %v", name, err)
			}
			<-read
			v.ends(reason, status)
		})
	}
	f("download", get, "", "draining", 200)
	f("upload", post(10_000, ""), said(10_000), "draining", 503)
	f("upload that came with the head", post(3000, said(3000)), "", "draining", 503)
	f("tunnel", upgradeTo, "", "draining", 101)
}

// TestPausesEndWithTheClient is over sockets, for only those tell that a client has left: in under a second, of an hour. They do
// so once what it has sent before has arrived.
func TestPausesEndWithTheClient(t *testing.T) {
	t.Parallel()
	f := func(name, request, upload string, took int, status int) {
		t.Helper()
		b := newBackend(t, func(c *peer) {
			if head, _ := c.head(); strings.HasPrefix(head, "GET") {
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", said(100_000))
			}
			hold(c)
		})
		s := serve(t, documents(b.addr, patient, bytesLimit("bytes: 1000, per: 1h")))
		c := s.dial()
		c.say(request)
		if upload != "" {
			until(t, name+": the head is forwarded", func() bool { return b.connections() == 1 })
			c.say(upload)
		}
		until(t, name+": the limit is spent", func() bool { return s.metric("weir_limit_bytes_total") == 1000 })
		if took > 0 {
			_, _ = c.head()
			if _, err := c.take(took); err != nil {
				t.Fatal(err)
			}
		}
		left := time.Now()
		_ = c.Close()
		line := s.ends("client_gone", status)
		if after := time.Since(left); after > 900*time.Millisecond {
			t.Errorf("%s: seen after %v", name, after)
		}
		if n := s.metric("weir_upstream_requests_total"); line["backend"] != nil && (n != 1 || s.metric("weir_upstream_requests_total", "code", "canceled") != 1) {
			t.Errorf("%s: it is not counted as cancelled alone", name)
		}
	}
	f("download", get, "", 1000, 499)
	f("upload", post(20_000, ""), said(20_000), 0, 499)
	f("upload that came with the head", post(3000, said(3000)), "", 0, 499)
}

// TestBackendDiesDuringAPause: what has come is passed on, and then the answer is cut; an upload hears of it at once.
func TestBackendDiesDuringAPause(t *testing.T) {
	text := documents("127.0.0.1:1", patient, bytesLimit("bytes: 1000"))
	inBubble(t, text, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", said(2500))
	}, func(v *virtual) {
		c := v.connect()
		go c.say(get)
		_, _ = c.head()
		began := time.Now()
		if got, err := c.rest(); got != said(2500) || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if took := time.Since(began); took != 1500*time.Millisecond {
			t.Errorf("it took %v, want 1.5s", took)
		}
		v.ends("backend_reset", 200)
	})
	inBubble(t, documents("127.0.0.1:1", patient, bytesLimit("bytes: 1000, per: 1h")), func(c *peer) {
		_, _ = c.head()
		_, _ = c.take(1000)
		<-time.After(time.Second)
	}, func(v *virtual) {
		c := v.connect()
		began := time.Now()
		go c.saysApart(post(10_000, ""), said(10_000))
		c.expect(502)
		if took := time.Since(began); took != time.Second {
			t.Errorf("it was told after %v, want 1s", took)
		}
		v.ends("backend_reset", 502)
	})
}

// TestChangedLimitIsFeltDuringAPause: whoever waits for an hour is let go within a second of a change.
func TestChangedLimitIsFeltDuringAPause(t *testing.T) {
	text := func(terms string) string { return documents("127.0.0.1:1", patient, bytesLimit(terms)) }
	inBubble(t, text("bytes: 1000, per: 1h"), download("5000"), func(v *virtual) {
		c := v.connect()
		c.say(get)
		_, _ = c.head()
		_, _ = c.take(1000)
		<-time.After(10 * time.Second)
		v.apply(text("bytes: 1000"))
		began := time.Now()
		go func() { // a tenant on demand follows when somebody comes
			other := v.connect()
			other.say(get)
			_, _ = other.head()
		}()
		if _, err := c.take(1000); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 1250*time.Millisecond {
			t.Errorf("the next second's worth came after %v", took)
		}
	})
}

// TestRetriesAreDebitedOnce: what is sent again has been paid for.
func TestRetriesAreDebitedOnce(t *testing.T) {
	b := answering(t, ok, nil)
	breaks := newBackend(t, func(c *peer) { _, _, _ = c.request() })
	s := serve(t, documents("", endpoints([]string{breaks.addr, b.addr}, "retries: {on: [reset]}"), bytesLimit("bytes: 1MiB, per: 1h")))
	c := s.dial()
	c.say(strings.Replace(post(1000, said(1000)), "POST", "PUT", 1))
	c.expect(200)
	s.logged(1)
	if n := s.metric("weir_upstream_retries_total"); n != 1 {
		t.Fatalf("%v sent again, want 1", n)
	}
	if n := s.metric("weir_limit_bytes_total"); n != 1002 {
		t.Errorf("%v bytes debited, want 1000 up and 2 down", n)
	}
}

// TestOurOwnAnswersAreNotDebited: nor are the bodies of requests that were refused.
func TestOurOwnAnswersAreNotDebited(t *testing.T) {
	b := answering(t, ok, nil)
	s := serve(t, documents(b.addr, limited("limits: [{name: steady, requests: 1, per: 1h}, {name: traffic, bytes: 1MiB, per: 1h}]")))
	c := s.dial()
	c.say(get)
	c.expect(200)
	c.say(post(5, "hello"))
	a, _ := c.expect(429)
	policies := a.Header.Get("RateLimit-Policy")
	if want := `"steady";q=1;w=3600, "traffic";q=1048576;qu="content-bytes";w=3600`; policies != want {
		t.Errorf("RateLimit-Policy: got %s, want %s", policies, want)
	}
	s.logged(2)
	if n := s.metric("weir_limit_bytes_total"); n != 2 {
		t.Errorf("%v bytes debited, want the 2 of the answer that passed", n)
	}
	if n := s.metric("weir_limit_decisions_total", "limit", "traffic", "decision", "allow"); n != 1 {
		t.Errorf("%v requests counted for the limit in bytes, want 1", n)
	}
}

// TestShadowDelaysNobody: a limit in shadow counts what it would have done.
func TestShadowDelaysNobody(t *testing.T) {
	inBubble(t, documents("127.0.0.1:1", patient, bytesLimit("bytes: 10, per: 1h, mode: Shadow")), func(c *peer) {
		_, _, _ = c.request()
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n", said(50_000))
	}, func(v *virtual) {
		c := v.connect()
		began := time.Now()
		go c.say(post(50_000, said(50_000)))
		if _, body := c.expect(200); body != said(50_000) || time.Since(began) != 0 {
			t.Errorf("%d bytes after %v", len(body), time.Since(began))
		}
		v.logged(1)
		if v.metric("weir_limit_decisions_total", "decision", "shadow_delay") != 1 || v.metric("weir_limit_decisions_total") != 1 || v.metric("weir_limit_bytes_total") != 100_000 {
			t.Error("want one shadow_delay, and every byte")
		}
	})
}

// TestLimitedBodyInConstantMemory pours a large body through a limit that is nearly never reached.
func TestLimitedBodyInConstantMemory(t *testing.T) {
	const size = 64 << 20
	b := newBackend(t, func(c *peer) {
		for {
			if _, err := c.head(); err != nil {
				return
			}
			c.say("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
			pour(c, size, false)
		}
	})
	c := serve(t, documents(b.addr, bytesLimit("bytes: 400MiB, burst: 1MiB"))).dial()
	read := func() {
		c.say(get)
		_, _ = c.head()
		if got := drink(c, size, false); got != size {
			t.Errorf("%d bytes, want %d", got, size)
		}
	}
	read()
	if grown := heapGrowth(read); grown > maxGrowth {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
}

// TestBadCost: what is no cost is a bad request, before anything is spent or asked.
func TestBadCost(t *testing.T) {
	b := answering(t, ok, nil)
	s := serve(t, documents(b.addr, document("Route", "r", "backend: b", "cost: {header: X-Cost}"), limited("limits: [{name: steady, requests: 10, per: 1h}]")))
	with := func(field string) string { return strings.Replace(get, "\r\n\r\n", "\r\n"+field+"\r\n\r\n", 1) }
	for i, field := range []string{"X-Cost: x", "X-Cost:", "X-Cost: -1", "X-Cost: 1000000001", "X-Cost: 1\r\nx-cost: 1"} {
		c := s.dial()
		c.say(with(field))
		c.expect(400)
		c.closed()
		line := s.endsAfter(i+1, "bad_request", 400)
		if line.text("cause") != "bad_cost" || line.text("phase") != "request_head" || line.text("by") != "client" {
			t.Errorf("%q: logged %v", field, line)
		}
	}
	if n := s.metric("weir_wire_rejected_total", "cause", "bad_cost"); n != 5 {
		t.Errorf("%v counted, want 5", n)
	}
	if n := s.metric("weir_limit_decisions_total"); n != 0 || b.connections() != 0 {
		t.Errorf("%v decisions and %d connections to the backend, want none", n, b.connections())
	}
	// Ten tokens: six and the one of every request, then three are left.
	c := s.dial()
	c.say(with("X-Cost: 6"))
	c.expect(200)
	c.say(with("X-Cost: 3"))
	c.expect(429)
	c.say(with("X-Cost: 2"))
	c.expect(200)
}
