package proxy

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// keeping are a breaker that opens at the first broken calls and stays open, and routes that keep answers for a minute.
func keeping() string {
	return document("BreakerPolicy", "orders", "target: {kind: Backend, name: b}",
		"failures: {window: 1s, ratio: 1%, minRequests: 1}", "open: {for: 10m, maxFor: 10m}") +
		document("Route", "all", "backend: b", "fallback: {status: 503, body: static, staleFor: 1m}") +
		document("Route", "beta", `match: [{headers: {X-Beta: "1"}}]`, "backend: b", "fallback: {body: other, staleFor: 1m}") +
		document("Route", "other", "match: [{path: /other/*}]", "backend: b", "fallback: {body: other, staleFor: 1m}")
}

// openUp has the breaker open by a call that breaks, and waits until it is.
func (v *virtual) openUp(m *moody, c *peer) {
	v.t.Helper()
	m.mood.Store(broken)
	c.wants(500, "/broken")
	<-time.After(150 * time.Millisecond)
	v.wantChanges("orders normal>open too_many_fail")
}

const stale = "weir; hit; detail=breaker_open"

// After an answer was kept, the same request gets it, and no other does.
func TestStaleAnswerIsForTheSameRequest(t *testing.T) {
	f := func(request string, want bool) {
		t.Helper()
		var m moody
		m.extra.Store("ETag: \"e\"\r\nVary: accept-encoding\r\n")
		inBubble(t, documents("b:1", keeping()), m.script(), func(v *virtual) {
			c := v.connect()
			c.wants(200, "/a?q=1", "Accept-Encoding: gzip\r\n")
			v.openUp(&m, c)
			c.say(request + "\r\n")
			a, body := c.answer(strings.Fields(request)[0])
			isStale := a.StatusCode == 200 && a.Header.Get("Cache-Status") == stale && a.Header.Get("Age") == "0" && a.Header.Get("ETag") == `"e"`
			switch {
			case isStale != want:
				t.Errorf("%q: %d %v %q, want a stale answer: %v", request, a.StatusCode, a.Header, body, want)
			case want && strings.HasPrefix(request, "GET") && body != "/a?q=1" || want && a.ContentLength != 6:
				t.Errorf("%q: stale with %q, %d long", request, body, a.ContentLength)
			case !want && a.StatusCode == 503 && (body != "static" && body != "" || a.Header.Get("Retry-After") == "" || a.Header.Get("Cache-Control") != "no-store"):
				t.Errorf("%q: %v %q", request, a.Header, body)
			}
			line := v.logged(3)[2]
			if word := map[bool]string{true: "stale", false: "static"}[want]; line.text("fallback") != word || line.text("reason") != "breaker_open" ||
				line.text("phase") != "decision" || line["status"] != float64(a.StatusCode) || v.metric("weir_fallbacks_total", "answer", word) != 1 {
				t.Errorf("%q: logged %v", request, line)
			}
		})
	}
	head := func(line string) string {
		return line + " HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\nAccept-Encoding: gzip\r\n"
	}
	same := head("GET /a?q=1")
	f(same, true)
	f(head("GET /./a?q=1"), true)
	f(head("HEAD /a?q=1"), true)
	f(same+"If-None-Match: \"e\"\r\nRange: bytes=0-1\r\n", true)
	f(head("GET /a?q=2"), false)
	f(head("GET /a"), false)
	f(head("GET /b?q=1"), false)
	f(head("GET /other/a?q=1"), false)
	f(head("DELETE /a?q=1"), false)
	f(strings.Replace(same, "acme", "globex", 1), false)
	f(strings.Replace(same, "Host: h", "Host: i", 1), false)
	f(strings.Replace(same, "gzip", "br", 1), false)
	f(same+"X-Beta: 1\r\n", false)
	f(same+"Cookie: a=b\r\n", false)
	f(same+"Authorization: Bearer a\r\n", false)
	f(same+"Cache-Control: no-cache\r\n", false)
	f(same+"If-Match: \"e\"\r\n", false)
}

// What is public is for requests with credentials as well.
func TestStaleAnswerForAnybody(t *testing.T) {
	var m moody
	m.extra.Store("Cache-Control: public\r\nAge: 100\r\n")
	inBubble(t, documents("b:1", keeping()), m.script(), func(v *virtual) {
		c := v.connect()
		c.wants(200, "/a", "Cookie: a=b\r\n")
		v.openUp(&m, c)
		<-time.After(5 * time.Second)
		for _, with := range []string{"Cookie: c=d\r\n", "Authorization: Basic x\r\n", ""} {
			if header, body := c.wants(200, "/a", with); header.Get("Cache-Status") != stale || header.Get("Age") != "105" || body != "/a" {
				t.Errorf("%q: %v %q", with, header, body)
			}
		}
	})
}

// It is given for as long as the document says, and then forgotten.
func TestStaleAnswerAges(t *testing.T) {
	var m moody
	inBubble(t, documents("b:1", keeping()), m.script(), func(v *virtual) {
		c := v.connect()
		c.wants(200, "/a")
		c.wants(200, "/b")
		v.openUp(&m, c)
		if v.metric("weir_stale_answers") != 2 || v.metric("weir_stale_bytes") == 0 {
			t.Errorf("%v answers are kept, want 2", v.metric("weir_stale_answers"))
		}
		<-time.After(59 * time.Second)
		if header, _ := c.wants(200, "/a"); header.Get("Age") != "59" {
			t.Errorf("%v", header)
		}
		<-time.After(2 * time.Second)
		c.wants(503, "/a")
		if n := v.metric("weir_stale_answers"); n != 0 {
			t.Errorf("%v answers are kept, want none", n)
		}
	})
}

// Only whole answers are kept, however they are framed, up to a bound.
func TestWhichAnswersAreKept(t *testing.T) {
	f := func(answer string, want string) {
		t.Helper()
		var m moody
		m.mood.Store(answer)
		inBubble(t, documents("b:1", keeping()), func(c *peer) {
			if head, err := c.head(); err == nil && strings.Contains(head, "/broken") {
				c.say(broken)
			} else {
				c.say(answer)
			}
		}, func(v *virtual) {
			c := v.connect()
			c.say("GET /a HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\n\r\n")
			_, got, err := c.tryAnswer("GET")
			if want != "" && (got != want || err != nil) {
				t.Fatalf("%.60q: the client got %.60q, %v", answer, got, err)
			}
			c = v.connect()
			v.openUp(&m, c)
			a, body := c.ask("/a")
			if isStale := a.StatusCode == 200; isStale != (want != "") || isStale && body != want {
				t.Errorf("%.60q: %d %.60q, want %.60q", answer, a.StatusCode, body, want)
			}
			if n := v.stale.keeping.Load(); n != 0 {
				t.Errorf("%.60q: %d are still under way", answer, n)
			}
		})
	}
	large := strings.Repeat("x", 200<<10)
	const lengthed, chunkedHead = "HTTP/1.1 200 OK\r\nContent-Length: ", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	f(lengthed+"5\r\n\r\nhello", "hello")
	f(chunkedHead+"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "hello")
	f("HTTP/1.0 200 OK\r\n\r\nto the end", "to the end")
	f(lengthed+"204800\r\n\r\n"+large, large)
	f(chunkedHead+"32000\r\n"+large+"\r\n0\r\n\r\n", large)
	// Too large, whether it says so or not.
	f(lengthed+"409600\r\n\r\n"+large+large, "")
	f(chunkedHead+"32000\r\n"+large+"\r\n32000\r\n"+large+"\r\n0\r\n\r\n", "")
	// Cut.
	f(lengthed+"9\r\n\r\nhello", "")
	f(chunkedHead+"3\r\nhel\r\n", "")
	// No good answer.
	f("HTTP/1.1 203 Fine\r\nContent-Length: 5\r\n\r\nhello", "")
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\nhello", "")
}

// An answer that is kept goes out as any other: to a client of HTTP/1.0, and as the last one of a connection.
func TestStaleAnswerEndsAConnection(t *testing.T) {
	var m moody
	inBubble(t, documents("b:1", keeping()), m.script(), func(v *virtual) {
		c := v.connect()
		c.wants(200, "/a")
		v.openUp(&m, c)
		// Whoever asks to close is closed.
		if a, body := c.ask("/a", "Connection: close\r\n"); !a.Close || body != "/a" {
			t.Errorf("%v %q", a.Header, body)
		}
		c.closed()
		// HTTP/1.0, kept open.
		c = v.connect()
		for range 2 {
			c.say("GET /a HTTP/1.0\r\nHost: h\r\nX-Tenant-ID: acme\r\nConnection: keep-alive\r\n\r\n")
			if a, body := c.answer("GET"); a.StatusCode != 200 || body != "/a" || a.Header.Get("Connection") != "keep-alive" {
				t.Errorf("%v %q", a.Header, body)
			}
		}
		// In the drain.
		v.Drain()
		if a, body := c.ask("/a"); !a.Close || body != "/a" || a.Header.Get("Cache-Status") != stale {
			t.Errorf("%v %q", a.Header, body)
		}
		c.closed()
	})
}

// Nothing is kept where nothing can need it, and what is kept goes with its route.
func TestStaleAnswersGoWithTheDocuments(t *testing.T) {
	var m moody
	inBubble(t, documents("b:1", keeping()), m.script(), func(v *virtual) {
		c := v.connect()
		f := func(text string, before, after float64) {
			t.Helper()
			c.wants(200, "/a")
			c.wants(200, "/other/a")
			synctest.Wait() // an answer is kept after its client has read it
			if n := v.metric("weir_stale_answers"); n != before {
				t.Errorf("%v answers are kept, want %v", n, before)
			}
			if err := v.Apply(compile(t, documents("b:1", text))); err != nil {
				t.Fatal(err)
			}
			if n := v.metric("weir_stale_answers"); n != after {
				t.Errorf("%v answers are kept after a change, want %v", n, after)
			}
		}
		f(keeping(), 2, 2)
		f(strings.Replace(keeping(), "static, staleFor: 1m", "static, staleFor: 2m", 1), 2, 1)
		f(document("Route", "all", "backend: b", "fallback: {body: static, staleFor: 2m}"), 2, 0)
		f(keeping(), 0, 0)
	})
}

// What another backend has said of the same path is no answer.
func TestStaleAnswerOfAnotherBackend(t *testing.T) {
	var m moody
	both := document("Backend", "b", `endpoints: [{address: "127.0.0.1:1"}]`) + document("Backend", "next", `endpoints: [{address: "127.0.0.1:2"}]`)
	moved := strings.ReplaceAll(strings.ReplaceAll(keeping(), "backend: b", "backend: next"), "name: b}", "name: next}")
	inBubble(t, documents("", both, keeping()), m.script(), func(v *virtual) {
		c := v.connect()
		c.wants(200, "/a")
		c.wants(200, "/b")
		synctest.Wait()
		if err := v.Apply(compile(t, documents("", both, moved))); err != nil {
			t.Fatal(err)
		}
		c.wants(200, "/b")
		v.openUp(&m, c)
		c.wants(503, "/a")
		c.wants(200, "/b")
	})
}

// A defect of the document's author: an answer that needs no body.
func TestStaticAnswerWithoutABody(t *testing.T) {
	var m moody
	inBubble(t, documents("b:1", strings.Replace(keeping(), "status: 503, body: static", "status: 204", 1)), m.script(), func(v *virtual) {
		c := v.connect()
		v.openUp(&m, c)
		if header, body := c.wants(204, "/x"); body != "" || header.Get("Retry-After") != "" || header.Get("Content-Length") != "" {
			t.Errorf("%v %q", header, body)
		}
		c.wants(204, "/y")
	})
}
