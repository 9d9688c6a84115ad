package proxy

import (
	"io"
	"regexp"
	"strings"
	"testing"
)

// asBackend sends one request and returns what the backend got of it, with the fresh request id as ID.
func asBackend(t *testing.T, request string, further ...string) string {
	t.Helper()
	got := make(chan string, 1)
	b := answering(t, ok, got)
	c := serve(t, documents(b.addr, further...)).dial()
	c.say(request)
	if a, body := c.answer("GET"); a.StatusCode != 200 {
		t.Fatalf("%q got %d %s", request, a.StatusCode, body)
	}
	return freshID.ReplaceAllString(within(t, "the backend has the request", got), "X-Request-Id: ID\r\n")
}

var freshID = regexp.MustCompile("X-Request-Id: [0-9a-f]{32}\r\n")

const (
	trustLoopback = "trustedProxies: [127.0.0.0/8]"
	added         = "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nX-Request-Id: ID\r\nVia: 1.1 weir\r\n\r\n"
)

func TestRequestAsTheBackendGetsIt(t *testing.T) {
	t.Parallel()
	f := func(request, want string) {
		t.Helper()
		if got := asBackend(t, request); got != want {
			t.Errorf("%q arrives as\n%q, want\n%q", request, got, want)
		}
	}

	// Names, their order and case, values and what is between them stay as they are.
	f("GET /a//b?x=%20&y HTTP/1.1\r\nUser-AGENT:x  y\r\nhOsT: h\r\naccept:\t*/*\r\nX-b: 1\r\nx-B:  2 \r\nEmpty:\r\n\r\n",
		"GET /a//b?x=%20&y HTTP/1.1\r\nUser-AGENT:x  y\r\nhOsT: h\r\naccept:\t*/*\r\nX-b: 1\r\nx-B:  2 \r\nEmpty:\r\n"+added)
	// Hop-by-hop fields stay here, those included that Connection nominates; neither framing nor identity can be nominated.
	f("POST / HTTP/1.1\r\nHost: h\r\nConnection: x-a, keep-alive, X-Tenant-ID,content-length\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\n"+
		"TE: gzip\r\nTrailer: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nProxy-Connection: close\r\nProxy-Authorization: x\r\nProxy: x\r\n"+
		"X-Kept: 1\r\nX-Tenant-ID: acme\r\nContent-Length: 2\r\n\r\nhi",
		"POST / HTTP/1.1\r\nHost: h\r\nX-Kept: 1\r\nContent-Length: 2\r\nX-Tenant-ID: acme\r\n"+added+"hi")
	// One identity field, in the spelling of the policy, whatever the client's is.
	for _, name := range []string{"X-Tenant-ID", "x-tenant-id", "X-TENANT-ID", "x-TENANT-Id"} {
		f("GET / HTTP/1.1\r\nHost: h\r\n"+name+": acme\r\nA: b\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\nX-Tenant-ID: acme\r\n"+added)
	}
	// An absolute target goes out in origin form, an HTTP/1.0 request as HTTP/1.1; without Host it has none to forward.
	f("GET http://h/x?y HTTP/1.1\r\nHost: h\r\n\r\n", "GET /x?y HTTP/1.1\r\nHost: h\r\n"+added)
	f("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: \r\n"+
		"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Request-Id: ID\r\nVia: 1.0 weir\r\n\r\n")
	// What came before is kept in Via.
	f("GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 a\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 a\r\n"+added)
	// A chunked body keeps its framing, without extensions and trailers.
	f("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n02\r\nde\r\n0\r\nX-Tenant-ID: evil\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"+added+"5\r\nabcde\r\n0\r\n\r\n")
	f("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"+added+"0\r\n\r\n")
}

func TestClaimsOfPeersThatAreNotTrusted(t *testing.T) {
	t.Parallel()
	got := asBackend(t, "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: evil\r\n"+
		"X-Forwarded-Port: 1\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nX-Request-Id: mine\r\nA: b\r\n\r\n")
	if want := "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n" + added; got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestClaimsOfTrustedPeers(t *testing.T) {
	t.Parallel()
	f := func(request, want string) {
		t.Helper()
		request = "GET / HTTP/1.1\r\nHost: h\r\n" + request + "\r\n"
		want = "GET / HTTP/1.1\r\nHost: h\r\n" + want + "Via: 1.1 weir\r\n\r\n"
		if got := asBackend(t, request, trustLoopback); got != want {
			t.Errorf("got\n%q, want\n%q", got, want)
		}
	}

	// What it says is kept, and the peer appended.
	f("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\nX-Forwarded-Port: 1\r\nForwarded: for=x\r\nX-Real-IP: 1.1.1.1\r\nX-Request-Id: mine\r\n",
		"X-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\nX-Forwarded-Port: 1\r\nForwarded: for=x\r\nX-Real-IP: 1.1.1.1\r\n"+
			"X-Forwarded-For: 1.1.1.1, 127.0.0.1\r\nX-Request-Id: mine\r\n")
	// Several fields are one list; empty ones say nothing.
	f("X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Forwarded-For:\r\nx-forwarded-for: 3.3.3.3\r\n",
		"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nX-Request-Id: ID\r\n")
	// A request id that cannot be repeated everywhere is replaced: two of them, empty, a quote, too long.
	for _, bad := range []string{"X-Request-Id: a\r\nX-Request-Id: a\r\n", "X-Request-Id:\r\n", "X-Request-Id: a\"b\r\n", "X-Request-Id: a b\r\n",
		"X-Request-Id: \xc3\xa9\r\n", "X-Request-Id: " + strings.Repeat("x", 129) + "\r\n"} {
		f(bad, "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nX-Request-Id: ID\r\n")
	}
	// The longest one is not.
	longest := "X-Request-Id: " + strings.Repeat("x", 128) + "\r\n"
	f(longest, "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"+longest)
}

func TestUnderscoreAliasesAreRefused(t *testing.T) {
	t.Parallel()
	b := answering(t, ok, nil)
	for _, name := range []string{"X_Tenant_ID", "x_tenant-id", "X_Forwarded_For", "Content_Length"} {
		s := serve(t, documents(b.addr))
		c := s.dial()
		c.say("GET / HTTP/1.1\r\nHost: h\r\n" + name + ": 1\r\n\r\n")
		c.expect(400)
		c.closed()
		if line := s.ends("bad_request", 400); line.text("cause") != "aliased_name" {
			t.Errorf("%s: %v", name, line)
		}
	}
}

// asClient returns every byte that a client gets for a request, when the backend gives that answer and closes if so.
func asClient(t *testing.T, request, answer string, closes bool) (got string, err error) {
	t.Helper()
	b := newBackend(t, func(c *peer) {
		for {
			if _, _, err := c.request(); err != nil {
				return
			}
			c.say(answer)
			if closes {
				return
			}
		}
	})
	c := serve(t, documents(b.addr)).dial()
	c.say(request)
	return c.rest()
}

func TestAnswerAsTheClientGetsIt(t *testing.T) {
	t.Parallel()
	f := func(request, answer string, closes bool, want string) {
		t.Helper()
		if got, err := asClient(t, request, answer, closes); got != want || err != nil {
			t.Errorf("%q arrives as\n%q %v, want\n%q", answer, got, err, want)
		}
	}
	// Clients that close make the end visible.
	const (
		get  = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
		head = "HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
		old  = "GET / HTTP/1.0\r\n\r\n"
	)

	// Names, order, case and the reason pass; what concerns the backend's connection does not.
	f(get, "HTTP/1.1 299 Quite  Fine\r\nServer: x\r\nsEt-cOOkie: a\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: x\r\nSet-Cookie:b\r\ncontent-length: 02\r\n\r\nok", false,
		"HTTP/1.1 299 Quite  Fine\r\nServer: x\r\nsEt-cOOkie: a\r\nSet-Cookie:b\r\ncontent-length: 2\r\nConnection: close\r\n\r\nok")
	// Nothing is invented.
	f(get, "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", false, "HTTP/1.1 200 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	// Chunks are the proxy's own; extensions and trailers end here.
	f(get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n", false,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nabcde\r\n0\r\n\r\n")
	// An answer that ends with the connection is framed.
	f(get, "HTTP/1.1 200 OK\r\n\r\nabc", true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	f(get, "HTTP/1.0 200 OK\r\n\r\n", true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n")
	// Answers without a body, whatever they announce.
	f(head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
	f(head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
	f(get, "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", false, "HTTP/1.1 204 No Content\r\nA: b\r\nConnection: close\r\n\r\n")
	f(get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", false,
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\nConnection: close\r\n\r\n")
	// Early hints pass; 100 is the proxy's own affair; an old client gets neither.
	const interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
	f(get, interim+ok, false, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	f(old, interim+ok, false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	// An old client cannot read chunks: the connection's end is the answer's.
	f(old, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
	f("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nabc", true, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
}

func TestOldClientsKeepTheirConnection(t *testing.T) {
	t.Parallel()
	const keep = "GET / HTTP/1.0\r\nConnection: keep-alive\r\nX-Tenant-ID: acme\r\n\r\n"
	s := serve(t, documents(answering(t, ok, nil).addr, document("TenantPolicy", "two", "tenants: {any: true}", "limits: [{name: l, requests: 2, per: 1h}]")))
	c := s.dial()
	for range 2 {
		c.say(keep)
		if a, body := c.expect(200); body != "ok" || a.Header.Get("Connection") != "keep-alive" {
			t.Fatalf("%v %q", a.Header, body)
		}
	}
	// Our own answer keeps it as well.
	c.say(keep)
	if a, _ := c.expect(429); a.Header.Get("Connection") != "keep-alive" {
		t.Errorf("%v", a.Header)
	}
	c.say("GET / HTTP/1.0\r\n\r\n")
	c.expect(200)
	c.closed()
}

func TestTruncationIsNeverACleanEnd(t *testing.T) {
	t.Parallel()
	f := func(request, answer, want string) {
		t.Helper()
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			c.say(answer)
		})
		s := serve(t, documents(b.addr))
		c := s.dial()
		c.say(request)
		if got, err := c.rest(); got != want || err == nil {
			t.Errorf("%q arrives as %q, %v; want %q and a reset", answer, got, err, want)
		}
		s.ends("backend_reset", 200)
	}
	const old = "GET / HTTP/1.0\r\n\r\n"

	// Of an announced length, of chunks, in a chunk's frame, before the last chunk.
	f(get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
	f(get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	f(get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	f(get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	// For an old client the connection's end would be a clean one: it gets a reset.
	f(old, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
	f(old, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabc")
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(c *peer) {
		for {
			head, body, err := c.request()
			if err != nil {
				return
			}
			path := strings.Fields(head)[1]
			c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			_, _ = io.WriteString(c, "10\r\n"+(path + body + strings.Repeat(".", 16))[:16]+"\r\n0\r\n\r\n")
		}
	})
	// The second of a and b is denied, and does not swallow what follows it.
	s := serve(t, documents(b.addr, document("TenantPolicy", "one", "tenants: {any: true}", "limits: [{name: l, requests: 1, per: 1h}]")))
	c := s.dial()
	for _, tenant := range []string{"a", "a", "b", "b", "c"} {
		c.say("POST /" + tenant + " HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: " + tenant + "\r\nContent-Length: 5\r\n\r\nhello")
	}
	for _, want := range []string{"/ahello", "", "/bhello", "", "/chello"} {
		a, body := c.answer("POST")
		if want == "" && a.StatusCode == 429 {
			continue
		}
		if a.StatusCode != 200 || strings.TrimRight(body, ".") != want {
			t.Fatalf("%d %q, want %q", a.StatusCode, body, want)
		}
	}
	s.logged(5)
}
