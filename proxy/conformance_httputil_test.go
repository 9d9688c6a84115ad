package proxy

import (
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func httputilBehaviours() []behaviour {
	const (
		noHook        = "there is no code of a user's in the way of a request"
		brokenEscapes = "one with a broken escape is refused, every other passes byte by byte"
		noBasePath    = "a backend is an address; targets are forwarded under the path they came with"
	)
	list := []behaviour{
		{"", "TestReverseProxy", "Host, repeated fields and cookies pass; hop-by-hop fields do not; X-Forwarded-For is added; a backend that hangs up is a 502", holds, "", httputilRoundTrip},
		{"", "TestReverseProxy (TE)", "of TE only `trailers` is forwarded", differs, "TE stays here: whoever sends trailers because of it would send them for nothing", httputilTE},
		{"", "TestReverseProxy (trailers)", "announced and unannounced trailers reach the client", later, "trailers are checked and dropped until a policy can name those that may pass", nil},
		{"", "TestReverseProxyStripHeadersPresentInConnection", "fields that Connection names stay here, in both directions, also when it has several lines", holds, "", httputilNominated},
		{"", "TestReverseProxyStripEmptyConnection", "an empty first Connection line hides none of the names after it", holds, "", httputilEmptyConnection},
		{"", "TestXForwardedFor", "what a proxy before us said is kept and appended to, if it is trusted", holds, "", TestClaimsOfTrustedPeers},
		{"", "TestXForwardedFor_Omit", "X-Forwarded-For can be left out", nothing, "nobody can switch it off; " + noHook, nil},
		{"", "TestReverseProxyRewriteStripsForwarded", "what a client claims about forwarding is not believed", holds, "", TestClaimsOfPeersThatAreNotTrusted},
		{"", "TestReverseProxyQuery", "the query arrives as it was sent", holds, "", httputilQuery},
		{"", "TestReverseProxyFlushInterval", "a body that is there is not held back", holds, "", TestEachPieceIsPassedOnAtOnce},
		{"", "TestReverseProxyResponseControllerFlushInterval", "pieces pass at once", holds, "", TestEachPieceIsPassedOnAtOnce},
		{"", "TestReverseProxyFlushIntervalHeaders", "the head passes before there is any of the body", holds, "", httputilHeadFirst},
		{"", "TestReverseProxyCancellation", "a client that leaves cancels the backend's work", holds, "", TestClientLeaves},
		{"", "TestNilBody", "an HTTP/1.0 request without a body is answered", holds, "", httputilOldRequest},
		{"", "TestUserAgentHeader", "User-Agent passes as sent, and none is invented", holds, "", httputilUserAgent},
		{"", "TestReverseProxyGetPutBuffer", "buffers for bodies are lent and given back", holds, "", TestHugeDownloadInConstantMemory},
		{"", "TestReverseProxy_Post", "an upload of a megabyte arrives whole", holds, "", httputilPost},
		{"", "TestReverseProxy_NilBody", "a request without a body is forwarded without framing", holds, "", linkerdNoFraming},
		{"", "TestReverseProxy_AllocatedHeader", "a request without a single field is handled like any other", holds, "", httputilNoFields},
		{"", "TestReverseProxyModifyResponse", "a hook may change or refuse an answer", nothing, noHook, nil},
		{"", "TestReverseProxyErrorHandler", "a backend that cannot be reached is a 502", holds, "", TestBackendDown},
		{"", "TestReverseProxy_CopyBuffer", "an answer that is shorter than announced is logged as such", holds, "", TestTruncationIsNeverACleanEnd},
		{"", "TestServeHTTPDeepCopy", "what is logged of a request is what was matched, whatever was forwarded", holds, "", httputilLogsAsSent},
		{"", "TestClonesRequestHeaders", "fields that are added for the backend are not seen as the client's", holds, "", httputilLogsAsSent},
		{"", "TestModifyResponseClosesBody", "a hook that refuses an answer ends it", nothing, noHook, nil},
		{"", "TestReverseProxy_PanicBodyError", "an answer that breaks off is no clean end for the client", holds, "", TestTruncationIsNeverACleanEnd},
		{"", "TestReverseProxy_PanicClosesIncomingBody", "uploads to a backend whose answers break off end too, and nothing is left of them", holds, "", httputilBrokenAnswersToUploads},
		{"", "TestSelectFlushInterval", "event streams and bodies of unknown length are never held back", holds, "", TestEachPieceIsPassedOnAtOnce},
		{"", "TestReverseProxyWebSocket", "an upgrade to WebSocket and what follows pass both ways", holds, "", TestUpgradeOnTheWire},
		{"", "TestReverseProxyWebSocketCancellation", "when the proxy has to end it, the client of an upgraded connection sees a clean end", holds, "", TestDrainOfTunnels},
		{"", "TestReverseProxyWebSocketHalfTCP", "either side of an upgraded connection may end its half, and the other half goes on", holds, "", TestHalfClose},
		{"", "TestReverseProxyUpgradeNoCloseWrite", "a client that closes an upgraded connection closes the backend's", holds, "", httputilClosedTunnel},
		{"", "TestUnannouncedTrailer", "trailers pass that were not announced", later, "see TestReverseProxy (trailers)", nil},
		{"", "TestSetURL", "a base path is put before targets", nothing, noBasePath, nil},
		{"", "TestSingleJoinSlash", "base path and target are joined by one slash", nothing, noBasePath, nil},
		{"", "TestJoinURLPath", "escapes survive the joining", nothing, noBasePath, nil},
		{"", "TestReverseProxyRewriteReplacesOut", "a hook may replace the request", nothing, noHook, nil},
		{"", "Test1xxHeadersNotModifiedAfterRoundTrip", "a client that leaves while interim answers come disturbs nobody", holds, "", httputilLeavesAtInterim},
		{"", "Test1xxResponses", "interim answers pass in their order with all their fields", holds, "", httputilInterim},
		{"", "TestReverseProxyQueryParameterSmugglingDirectorDoesNotParseForm", "a query that parsers disagree about is forwarded as it is", differs, brokenEscapes, httputilQuery},
		{"", "TestReverseProxyQueryParameterSmugglingDirectorParsesForm", "it is cleaned when the proxy itself has parsed it", nothing, "a query is never parsed here", nil},
		{"", "TestReverseProxyQueryParameterSmugglingRewrite", "it is cleaned by default", differs, "nothing here depends on the query, so nothing of it is dropped: " + brokenEscapes, httputilQuery},
		{"", "TestReverseProxyQueryParameterSmugglingRewritePreservesRawQuery", "it can be kept raw", differs, brokenEscapes, httputilQuery},
		{"", "TestReverseProxyHijackCopyError", "after the 101 no second head is written, whatever happens", holds, "", httputilBrokenTunnel},
		{"", "TestReverseProxyInvalidUpstream100ContinueDoNotHang", "a client that waits for 100 gets its 502 at once when there is no backend", holds, "", httputilExpectWithoutBackend},
	}
	for i := range list {
		list[i].file = "reverseproxy_test.go"
	}
	return list
}

func httputilRoundTrip(t *testing.T) {
	const answer = "HTTP/1.1 404 Not Found\r\nX-Multi: foo\r\nX-Multi: bar\r\nSet-Cookie: flavor=chocolate\r\nUpgrade: foo\r\nTrailers: no field\r\n" +
		"Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nContent-Length: 16\r\n\r\nI am the backend"
	arrived := make(chan string, 1)
	c := serve(t, documents(answering(t, answer, arrived).addr)).dial()
	c.say(get11("/", "Host: some-name", "Connection: close, TE", "TE: foo", "TE: bar, trailers", "Proxy-Connection: x", "Upgrade: foo"))
	a, body := c.expect(404)
	if body != "I am the backend" || len(a.Header["Set-Cookie"]) != 1 || a.Header.Get("Trailers") != "no field" {
		t.Errorf("%q %v", body, a.Header)
	}
	if diff := cmp.Diff([]string{"foo", "bar"}, a.Header["X-Multi"]); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"Upgrade", "Keep-Alive", "Proxy-Connection"} {
		if a.Header.Get(name) != "" {
			t.Errorf("the client got %s", name)
		}
	}
	head := within(t, "the backend has it", arrived)
	lacks(t, head, "Connection", "TE", "Proxy-Connection", "Upgrade", "Transfer-Encoding", "Content-Length")
	if field(head, "Host") != "some-name" || field(head, "X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("%q", head)
	}
	s := serve(t, documents(newBackend(t, func(c *peer) { _, _ = c.head() }).addr))
	c = s.dial()
	c.say(get)
	c.expect(502)
}

func httputilTE(t *testing.T) {
	for _, te := range []string{"trailers", "trailers, deflate", "gzip"} {
		head, _, _, _ := asks(t, get11("/", "Connection: TE", "TE: "+te), ok)
		lacks(t, head, "TE")
	}
}

func httputilNominated(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nConnection: Upgrade, X-Token\r\nConnection: x-SOME\r\nX-Some: 1\r\nX-Token: 2\r\nX-Kept: 3\r\nContent-Length: 2\r\n\r\nok"
	arrived := make(chan string, 1)
	c := serve(t, documents(answering(t, answer, arrived).addr)).dial()
	c.say(get11("/", "Connection: Upgrade, X-Token", "Connection: x-SOME", "X-Some: 1", "X-Token: 2", "X-Kept: 3"))
	back, err := c.head()
	if err != nil {
		t.Fatal(err)
	}
	for _, head := range []string{within(t, "the backend has it", arrived), back} {
		lacks(t, head, "Connection", "X-Token", "X-Some")
		if field(head, "X-Kept") != "3" {
			t.Errorf("%q", head)
		}
	}
}

func httputilEmptyConnection(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nConnection:\r\nConnection: X-Some\r\nX-Some: 1\r\nContent-Length: 2\r\n\r\nok"
	arrived := make(chan string, 1)
	c := serve(t, documents(answering(t, answer, arrived).addr)).dial()
	c.say(get11("/", "Connection:", "Connection: X-Some", "X-Some: 1"))
	back, err := c.head()
	if err != nil {
		t.Fatal(err)
	}
	lacks(t, within(t, "the backend has it", arrived), "Connection", "X-Some")
	lacks(t, back, "Connection", "X-Some")
}

func httputilQuery(t *testing.T) {
	f := func(query string) {
		t.Helper()
		head, status, _, _ := asks(t, get11("/x"+query), ok)
		if want := "GET /x" + query + " HTTP/1.1\r\n"; status != "200" || !strings.HasPrefix(head, want) {
			t.Errorf("%s: %.80q, want %.80q", status, head, want)
		}
	}

	f("")
	f("?")
	f("?us=er")
	f("?a=1&a=2;b=3")
	f("?" + strings.Repeat("a=1&", 1500) + "a=1")
	// What has broken escapes, or is over the bound, is refused, never changed.
	refused(t, 400, get11("/x?a=1&a=%zz&b=3"), get11("/x?a=%zz"))
	refused(t, 414, get11("/x?"+strings.Repeat("a=1&", 10000)))
}

func httputilHeadFirst(t *testing.T) {
	release := make(chan struct{})
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nMyHeader: hi\r\nTransfer-Encoding: chunked\r\n\r\n")
		<-release
		c.say(lastChunk)
	})
	c := serve(t, documents(b.addr)).dial()
	c.say(get)
	if head, err := c.head(); field(head, "MyHeader") != "hi" || err != nil {
		t.Errorf("%q %v", head, err)
	}
	close(release)
	if rest, err := c.take(len(lastChunk)); rest != lastChunk || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

func httputilOldRequest(t *testing.T) {
	if _, status, body, _ := asks(t, "GET / HTTP/1.0\r\n\r\n", ok); status != "200" || body != "ok" {
		t.Errorf("%s %q", status, body)
	}
}

func httputilUserAgent(t *testing.T) {
	head, _, _, _ := asks(t, get11("/", "User-Agent: explicit UA"), ok)
	if got := fields(head, "User-Agent"); len(got) != 1 || got[0] != "explicit UA" {
		t.Errorf("%q", got)
	}
	head, _, _, _ = asks(t, get11("/"), ok)
	lacks(t, head, "User-Agent")
}

func httputilPost(t *testing.T) {
	body := strings.Repeat("a", 1<<20)
	got, status, _, _ := asks(t, post(len(body), body), ok)
	if status != "200" || !strings.HasSuffix(got, "\r\n\r\n"+body) {
		t.Errorf("%s, and %d bytes arrived", status, len(got))
	}
}

func httputilNoFields(t *testing.T) {
	s := serve(t, documents(newBackend(t, func(c *peer) { _, _ = c.head() }).addr))
	c := s.dial()
	c.say("GET / HTTP/1.0\r\n\r\n")
	c.expect(502)
	c.closed()
}

func httputilLogsAsSent(t *testing.T) {
	_, status, _, s := asks(t, get11("http://h/a/../b?x=y", "X-Forwarded-For: 192.0.2.1"), ok)
	line := s.logged(1)[0]
	if status != "200" || line.text("path") != "/b" || line.text("host") != "h" || line.text("client") != "127.0.0.1" {
		t.Errorf("%s %v", status, line)
	}
}

func httputilBrokenAnswersToUploads(t *testing.T) {
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 84\r\n\r\nhalf of what was announced\n")
	})
	s := serve(t, documents(b.addr))
	const clients, each = 2, 5
	body := strings.Repeat("x", 6<<20)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range each {
				c := s.dial()
				sent := make(chan struct{})
				go func() { c.say(post(len(body), body)); close(sent) }()
				_, _ = c.rest()
				_ = c.Close()
				<-sent
			}
		})
	}
	all.Wait()
	s.logged(clients * each)
	if n := s.requests("code", "2xx", "reason", "passed"); n != 0 {
		t.Errorf("%d answers look whole", n)
	}
}

func httputilClosedTunnel(t *testing.T) {
	b, ends := switched(t)
	s := serve(t, documents(b.addr))
	client, backend := tunnelTo(t, s, ends)
	_ = client.Close()
	backend.closed()
	_ = backend.Close()
	s.ends("passed", 101)
}

func httputilLeavesAtInterim(t *testing.T) {
	cancelled := make(chan struct{})
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		for range 5 {
			c.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
		}
		hold(c)
		close(cancelled)
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say(get)
	if head, err := c.head(); !strings.HasPrefix(head, "HTTP/1.1 103 ") {
		t.Fatalf("%q %v", head, err)
	}
	_ = c.Close()
	within(t, "the call is cancelled", cancelled)
	s.ends("client_gone", 499)
}

func httputilInterim(t *testing.T) {
	const (
		style, script, foo = "Link: </style.css>; rel=preload; as=style\r\n", "Link: </script.js>; rel=preload; as=script\r\n", "Link: </foo.js>; rel=preload; as=script\r\n"
		first              = "HTTP/1.1 103 Early Hints\r\n" + style + script + "\r\n"
		second             = "HTTP/1.1 102 Processing\r\n" + style + script + foo + "\r\n"
		final              = "HTTP/1.1 200 OK\r\n" + style + script + foo + "Content-Length: 5\r\n\r\nHello"
	)
	c := serve(t, documents(answering(t, first+second+final, nil).addr)).dial()
	c.say(get)
	if got, err := c.take(len(first + second + final)); got != first+second+final || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func httputilBrokenTunnel(t *testing.T) {
	b, ends := switched(t)
	s := serve(t, documents(b.addr))
	client, backend := tunnelTo(t, s, ends)
	resetConn(backend)
	if got, err := client.rest(); got != "" || err == nil {
		t.Errorf("%q %v, want nothing and a reset", got, err)
	}
	s.ends("backend_reset", 101)
}

func httputilExpectWithoutBackend(t *testing.T) {
	s := serve(t, documents("127.0.0.1:1"))
	c := s.dial()
	const body = `{"test": "data"}`
	c.say(requestOf("POST", "/test-expect", "Expect: 100-continue", "Content-Length: "+strconv.Itoa(len(body))))
	c.expect(502)
	c.closed()
}
