package proxy

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"weir/proxy/wire"
)

func haproxyBehaviours() []behaviour {
	const (
		messaging = "http-messaging/"
		reuse     = "connection/http_reuse_"
		http2     = "HTTP/2 is not spoken"
		noBuffer  = "bodies are never waited for: they stream"
		oneMode   = "there is one way of reuse, and it is the one of http_reuse_always with a look at the connection before"
	)
	return []behaviour{
		{messaging + "h1_host_normalization.vtc", "mismatch", "a target whose authority is not Host, or several Hosts, are refused", holds, "", haproxyHostMismatch},
		{messaging + "h1_host_normalization.vtc", "default ports", "authority and Host are compared without default and empty ports", differs, "they must be spelled alike but for case: nothing behind us has to know which ports are default ones", haproxyDefaultPorts},
		{messaging + "h1_host_normalization.vtc", "userinfo", "user information in a target is skipped", differs, "it is refused: some servers take it for credentials", haproxyUserinfo},
		{messaging + "h1_host_normalization.vtc", "CONNECT", "CONNECT to an authority is served", differs, "a reverse proxy opens no tunnels: 405", haproxyConnect},
		{messaging + "h1_authority_fragment_char.vtc", "fragment", "`#` ends the authority, where the option allows it at all", differs, "`#` is refused everywhere: there is no such option", haproxyFragment},
		{messaging + "h1_request_target_validation.vtc", "forms", "each method takes the forms of target that are its own, and no others", holds, "", haproxyTargets},
		{messaging + "h1_request_target_validation.vtc", "CONNECT", "CONNECT takes an authority with a port", differs, "405, whatever the target", haproxyConnect},
		{messaging + "h1_to_h1.vtc", "bodies", "GET, HEAD and POST with no body, an empty one and one of some bytes arrive as they are, on one connection", holds, "", haproxyMethodsAndBodies},
		{messaging + "h1_to_h1.vtc", "after close", "what follows a request that asked to close is not served", holds, "", haproxyAfterClose},
		{messaging + "h1_to_h1.vtc", "broken lengths", "an empty Content-Length, and a list with an empty member, are refused", holds, "", haproxyLengths},
		{messaging + "h1_to_h2_upgrade.vtc", "preface", "the preface of HTTP/2 switches the connection", differs, http2 + ": the preface is refused with 405", haproxyPreface},
		{messaging + "h2_desync_attacks.vtc", "desync", "framing fields in HTTP/2 do not become those of HTTP/1.1", nothing, http2, nil},
		{messaging + "h2_to_h1.vtc", "translation", "requests are translated from HTTP/2", nothing, http2, nil},
		{messaging + "scheme_based_normalize.vtc", "ports", "default ports are dropped from :authority", nothing, http2, nil},
		{messaging + "http-ntlm.vtc", "challenge", "an answer that asks to authenticate the connection does not break its reuse", holds, "", haproxyChallenge},
		{messaging + "http-ntlm.vtc", "private", "a connection that a user has authenticated serves nobody else", holds, "", haproxyAuthenticatedConnection},
		{messaging + "http_abortonclose.vtc", "waiting", "a client that leaves while its backend works ends the call, and is logged as the one who left", holds, "", TestClientLeaves},
		{messaging + "http_abortonclose.vtc", "queue", "a client that leaves while it queues is forgotten", later, "there are no queues yet: a pool that is full refuses at once", nil},
		{messaging + "http_abortonclose.vtc", "down", "a backend that takes no connection is answered for", holds, "", TestBackendDown},
		{messaging + "http_bodyless_response.vtc", "HEAD", "a body that comes with the answer to HEAD reaches nobody, and the client's connection goes on", holds, "", haproxyBodyToHead},
		{messaging + "http_bodyless_spliced_response.vtc", "HEAD", "the same for large ones", holds, "", haproxyBodyToHead},
		{messaging + "http_request_buffer.vtc", "stalled", "a body that stalls is a 408", holds, "", haproxyStalledBody},
		{messaging + "http_request_buffer.vtc", "cut", "a client that leaves before the last line end of its chunks has sent no request", holds, "", TestClientLeavesInItsUpload},
		{messaging + "http_request_buffer.vtc", "buffer", "a backend is asked only when the body is there", differs, noBuffer + "; half of one never looks whole to a backend", TestBothWaysAtOnce},
		{messaging + "http_splicing.vtc", "megabytes", "a megabyte each way arrives whole, of known and of unknown length", holds, "", haproxyMegabytes},
		{messaging + "http_splicing_chunk.vtc", "chunks", "so do chunks of many sizes", holds, "", haproxyMegabytes},
		{messaging + "truncated.vtc", "slow chunks", "an answer in many small chunks with pauses arrives whole", holds, "", haproxySlowChunks},
		{messaging + "http_transfer_encoding.vtc", "length and chunks", "of a request with Content-Length and chunks the chunks count, and its connection ends", differs, "it is refused: two proxies may choose differently", haproxyLengthAndChunks},
		{messaging + "http_transfer_encoding.vtc", "old request", "an HTTP/1.0 request in chunks is served", differs, "it is refused: HTTP/1.0 has no chunks", haproxyOldChunks},
		{messaging + "http_transfer_encoding.vtc", "old answer", "so is such an answer", differs, "it is a 502, for the same reason", haproxyAmbiguousAnswers},
		{messaging + "http_transfer_encoding.vtc", "length and chunks in answers", "of an answer with both the chunks count", differs, "it is a 502, and the connection is not used again", haproxyAmbiguousAnswers},
		{messaging + "http_transfer_encoding.vtc", "TE", "of TE only a plain `trailers` is forwarded", differs, "TE stays here", httputilTE},
		{messaging + "http_transfer_encoding.vtc", "codings", "a request with any other coding than chunks is refused", holds, "", haproxyCodings},
		{messaging + "http_transfer_encoding.vtc", "422", "`gzip, chunked` is a 422", differs, "it is a 400 like every other coding", haproxyCodings},
		{messaging + "http_transfer_encoding.vtc", "codings of answers", "an answer with another coding is a 502", holds, "", haproxyCodingsOfAnswers},
		{messaging + "http_wait_for_body.vtc", "wait", "rules may wait for a part of a body", nothing, noBuffer, nil},
		{messaging + "protocol_upgrade.vtc", "custom", "an upgrade to any protocol passes", differs, "only websocket passes: what nobody here knows cannot be bounded", TestOtherUpgradesStayHere},
		{messaging + "protocol_upgrade.vtc", "POST", "an upgrade may come with a body", differs, "RFC 6455 has it with GET and without a body; anything else is forwarded as a plain request", TestOtherUpgradesStayHere},
		{messaging + "protocol_upgrade.vtc", "h2c", "h2c is never asked for", holds, "", TestOtherUpgradesStayHere},
		{messaging + "srv_ws.vtc", "versions", "the version towards the backend is chosen for WebSocket", nothing, http2, nil},
		{messaging + "websocket.vtc", "handshake", "the handshake passes with its key and its proof, and bytes after it", holds, "", TestUpgradeOnTheWire},
		{messaging + "websocket.vtc", "no key", "a handshake without a key is a 400", differs, "the key is between the two ends; the backend refuses what it does not want", haproxyKeyless},
		{messaging + "websocket.vtc", "no proof", "a 101 without the proof of the key is a 502", differs, "the proof is for the client, which checks it", haproxyKeyless},
		{messaging + "websocket.vtc", "several protocols", "websocket among others is refused", differs, "it is forwarded as a plain request", TestOtherUpgradesStayHere},
		{reuse + "always.vtc", "reuse", "one client's connection to the backend serves the next client", holds, "", haproxyReuse},
		{reuse + "aggressive.vtc", "reuse", "a connection that was used twice serves others", differs, oneMode, haproxyReuse},
		{reuse + "safe.vtc", "reuse", "a client's later requests use connections of others", differs, oneMode + ", for first requests too", haproxyReuse},
		{reuse + "never.vtc", "reuse", "a client may have connections of its own", differs, "a tenant may, so that it cannot take those of others", TestTenantsHaveTheirOwnConnections},
		{reuse + "dispatch.vtc", "reuse", "so it may with a destination from the request", nothing, oneMode, nil},
		{reuse + "be_transparent.vtc", "destinations", "connections are never used for another destination", holds, "", haproxyDestinations},
		{reuse + "conn_hash.vtc", "destinations", "nor for another port", holds, "", haproxyDestinations},
		{reuse + "conn_hash.vtc", "TLS", "nor for another name in TLS", later, "there is no TLS to backends yet", nil},
	}
}

func haproxyHostMismatch(t *testing.T) {
	refused(t, 400,
		get11("http://hostname1/", "Host: hostname2"),
		get11("http://hostname:80/", "Host: hostname:81"),
		get11("http://hostname:8080/", "Host: hostname"),
		get11("http://hostname/", "Host: hostname:81"),
		get11("http://hostname1/", "Host: hostname1", "Host: hostname2"),
		get11("http://hostname1/", "Host: hostname1:80", "Host: hostname1"),
		get11("/", "Host: a", "Host: a"))
}

func haproxyDefaultPorts(t *testing.T) {
	refused(t, 400,
		get11("http://hostname:80/", "Host: hostname"),
		get11("http://hostname/", "Host: hostname:80"),
		get11("https://hostname:443/", "Host: hostname"),
		get11("http://hostname:/", "Host: hostname"),
		get11("http://:", "Host: :80"))
	head, status, _, _ := asks(t, get11("http://HostName:80/c1", "Host: hostname:80"), ok)
	if status != "200" || !strings.HasPrefix(head, "GET /c1 HTTP/1.1\r\n") || field(head, "Host") != "hostname:80" {
		t.Errorf("%s %q", status, head)
	}
}

func haproxyUserinfo(t *testing.T) {
	refused(t, 400, get11("http://toto:poue@hostname/c1", "Host: hostname"), get11("/", "Host: toto@hostname"))
}

func haproxyConnect(t *testing.T) {
	refused(t, 405,
		requestOf("CONNECT", "hostname:80", "Host: hostname:80"),
		requestOf("CONNECT", "hostname", "Host: hostname"),
		requestOf("CONNECT", "/", "Host: hostname"),
		requestOf("CONNECT", "http://hostname:80", "Host: hostname"))
}

func haproxyFragment(t *testing.T) {
	refused(t, 400, get11("http://hostname#frag", "Host: hostname"), get11("http://hostname/abc#frag", "Host: hostname"), get11("/abc#frag"))
}

func haproxyTargets(t *testing.T) {
	for _, r := range []string{requestOf("OPTIONS", "*"), requestOf("OPTIONS", "/"), requestOf("OPTIONS", "http://h"), get11("/")} {
		if _, status, _, _ := asks(t, r, ok); status != "200" {
			t.Errorf("%q got %s", r, status)
		}
	}
	refused(t, 400, requestOf("OPTIONS", "*/test"), get11("*"), get11("h:80"), get11("admin"), get11("admin/a/b"))
}

func haproxyMethodsAndBodies(t *testing.T) {
	const body = "this must be delivered, like it or not"
	for _, method := range []string{"GET", "HEAD", "POST"} {
		got := make(chan string, 3)
		c := serve(t, documents(answering(t, map[bool]string{true: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false: ok}[method == "HEAD"], got).addr)).dial()
		c.say(requestOf(method, "/1"), requestOf(method, "/2", "Content-Length: 0"), requestOf(method, "/3", "Content-Length: "+strconv.Itoa(len(body)))+body)
		for range 3 {
			if a, _ := c.answer(method); a.StatusCode != 200 {
				t.Fatalf("%s: %d", method, a.StatusCode)
			}
		}
		for i, want := range []string{"", "", body} {
			head, arrived, _ := strings.Cut(within(t, "the backend has it", got), "\r\n\r\n")
			if arrived != want || (i == 1) != (field(head, "Content-Length") == "0") {
				t.Errorf("%s: %q %q", method, head, arrived)
			}
		}
	}
}

func haproxyAfterClose(t *testing.T) {
	got := make(chan string, 2)
	s := serve(t, documents(answering(t, ok, got).addr))
	c := s.dial()
	c.say(get11("/", "Content-Length: 0", "Connection: close"), "this is not sent\r\n\r\n", get)
	c.expect(200)
	c.closed()
	s.ends("passed", 200)
}

func haproxyLengths(t *testing.T) {
	refused(t, 400, get11("/", "Content-Length: 0,"), get11("/", "Content-Length:"), get11("/", "Content-Length: 0, 0"))
}

func haproxyPreface(t *testing.T) {
	refused(t, 405, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
}

func haproxyChallenge(t *testing.T) {
	const challenge = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 2\r\n\r\nno"
	c := serve(t, documents(answering(t, challenge, nil).addr)).dial()
	for range 4 {
		c.say(get)
		c.expect(401)
	}
}

func haproxyAuthenticatedConnection(t *testing.T) {
	b := newBackend(t, func(c *peer) {
		user := "nobody"
		for {
			head, _, err := c.request()
			if err != nil {
				return
			}
			if credentials := field(head, "Authorization"); strings.Contains(credentials, "alice") {
				user = "alice" // from now on, as servers of that kind do
			}
			c.say("HTTP/1.1 200 OK\r\nX-User: " + user + "\r\nContent-Length: 0\r\n\r\n")
		}
	})
	s := serve(t, documents(b.addr))
	alice, other := s.dial(), s.dial()
	for _, credentials := range [][]string{
		{"Authorization: NTLM alice"}, {"authorization: negotiate alice"}, {"Authorization: Basic x", "Authorization: Negotiate alice"},
	} {
		alice.say(get11("/", credentials...))
		if a, _ := alice.expect(200); a.Header.Get("X-User") == "" {
			t.Errorf("%v", a.Header)
		}
		other.say(get)
		if a, _ := other.expect(200); a.Header.Get("X-User") != "nobody" {
			t.Errorf("%q: another client is taken for %s", credentials, a.Header.Get("X-User"))
		}
	}
	// Credentials of other kinds are of one request, and the connection is used again.
	s.logged(6)
	before := b.connections()
	for range 3 {
		alice.say(get11("/", "Authorization: Bearer x"))
		alice.expect(200)
	}
	if n := b.connections(); n != before {
		t.Errorf("%d connections, %d before", n, before)
	}
}

func haproxyBodyToHead(t *testing.T) {
	f := func(answer string) {
		t.Helper()
		b := newBackend(t, func(c *peer) {
			for {
				head, _, err := c.request()
				if err != nil {
					return
				}
				if strings.HasPrefix(head, "HEAD") {
					c.say(answer)
				} else {
					c.say(ok)
				}
			}
		})
		c := serve(t, documents(b.addr)).dial()
		for range 3 {
			c.say(requestOf("HEAD", "/"))
			head, err := c.head()
			if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
				t.Fatalf("%q %v", head, err)
			}
		}
		c.say(get)
		if _, body := c.expect(200); body != "ok" {
			t.Errorf("%q", body)
		}
	}

	f("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nskipped data")
	f("HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + strings.Repeat("x", 50000))
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	f("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1000000))
}

func haproxyStalledBody(t *testing.T) {
	b := newBackend(t, hold)
	s := serve(t, documents(b.addr))
	settings := wire.DefaultSettings()
	settings.BodyTimeout = 50 * time.Millisecond
	s.guard.Set(settings)
	c := s.dial()
	c.say(post(209, strings.Repeat("x", 208)))
	if a, _ := c.expect(408); !a.Close {
		t.Errorf("%v", a.Header)
	}
	c.closed()
	s.ends("client_timeout", 408)
}

// haproxyMegabytes: each way, of known length, in chunks of many sizes, until the end of the connection.
func haproxyMegabytes(t *testing.T) {
	inChunks := func(sizes ...int) (text string, total int) {
		for _, n := range append(sizes, 0) {
			text += strconv.FormatInt(int64(n), 16) + "\r\n" + strings.Repeat("y", n) + "\r\n"
			total += n
		}
		return text, total
	}
	f := func(request, requestBody string, requestTotal int, answer string, closes bool, answerTotal int) {
		t.Helper()
		got := make(chan int, 1)
		b := newBackend(t, func(c *peer) {
			r, err := http.ReadRequest(c.r)
			if err != nil {
				return
			}
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				t.Error(err)
			}
			got <- int(n)
			c.say(answer)
			if !closes {
				hold(c)
			}
		})
		c := serve(t, documents(b.addr)).dial()
		c.say(request, requestBody)
		if a, body := c.answer("POST"); a.StatusCode != 200 || len(body) != answerTotal {
			t.Errorf("%d, %d bytes of the answer, want %d", a.StatusCode, len(body), answerTotal)
		}
		if n := within(t, "the backend has it", got); n != requestTotal {
			t.Errorf("%d bytes of the request, want %d", n, requestTotal)
		}
	}
	const mb = 1 << 20
	large := strings.Repeat("x", mb)
	length := "Content-Length: " + strconv.Itoa(mb)
	up, upTotal := inChunks(10000, 10000, 10000, 10000, 10000, 50000, 100000, 300000)
	down, downTotal := inChunks(204800, 204800, 204800, 204800, 204800)

	f(requestOf("POST", "/", length), large, mb, "HTTP/1.1 200 OK\r\n"+length+"\r\n\r\n"+large, false, mb)
	f(requestOf("POST", "/", length), large, mb, "HTTP/1.1 200 OK\r\n\r\n"+large, true, mb)
	f(requestOf("POST", "/", "Transfer-Encoding: chunked"), up, upTotal, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+down, false, downTotal)
}

func haproxySlowChunks(t *testing.T) {
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := range 20 {
			c.say("32f\r\n" + strings.Repeat("x", 815) + "\r\n")
			if i%2 == 0 {
				<-tick.C
			}
		}
		c.say(lastChunk)
	})
	c := serve(t, documents(b.addr)).dial()
	c.say(get)
	if _, body := c.expect(200); len(body) != 16300 {
		t.Errorf("%d bytes", len(body))
	}
}

func haproxyLengthAndChunks(t *testing.T) {
	refused(t, 400, requestOf("POST", "/", "Transfer-Encoding: chunked", "Content-Length: 31")+"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
}

func haproxyOldChunks(t *testing.T) {
	refused(t, 400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
}

func haproxyAmbiguousAnswers(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.0 200 Ok\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 Ok\r\nTransfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n0\r\n\r\nHTTP/1.1 200 Ok\r\n\r\nsmuggled",
	} {
		_, status, body, s := asks(t, get, answer)
		if status != "502" || strings.Contains(body, "smuggled") {
			t.Errorf("%q: %s %q", answer, status, body)
		}
		s.ends("backend_protocol", 502)
	}
}

func haproxyCodings(t *testing.T) {
	for _, coding := range []string{"chunked, chunked", "chunked, gzip, chunked", "chunked, gzip", "gzip", "gzip, chunked", "identity", "chunked;q=1"} {
		refused(t, 400, requestOf("POST", "/", "Transfer-Encoding: "+coding)+"0\r\n\r\n")
	}
}

func haproxyCodingsOfAnswers(t *testing.T) {
	for _, coding := range []string{"chunked, chunked", "chunked, gzip, chunked", "chunked, gzip", "gzip"} {
		_, status, _, s := asks(t, get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: "+coding+"\r\n\r\n0\r\n\r\n")
		if status != "502" {
			t.Errorf("%s: %s", coding, status)
		}
		s.ends("backend_protocol", 502)
	}
}

func haproxyKeyless(t *testing.T) {
	b := newBackend(t, func(c *peer) {
		if head, _ := c.head(); field(head, "Upgrade") == "websocket" {
			c.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			text, _ := c.take(4)
			c.say(text)
		}
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say(get11("/", "Connection: upgrade", "Upgrade: websocket"))
	if head, err := c.head(); err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("%q %v", head, err)
	}
	passes(t, c, c, "PING")
}

func haproxyReuse(t *testing.T) {
	b := answering(t, ok, nil)
	s := serve(t, documents(b.addr))
	for i := range 3 {
		c := s.dial()
		c.open()
		c.open()
		_ = c.Close()
		s.logged(2 * (i + 1))
	}
	if n := b.connections(); n != 1 {
		t.Errorf("%d connections for six requests of three clients", n)
	}
}

func haproxyDestinations(t *testing.T) {
	answer := func(name string) string { return strings.Replace(ok, "ok", name, 1) }
	s1, s2 := answering(t, answer("s1"), nil), answering(t, answer("s2"), nil)
	s := serve(t, documents("",
		document("Backend", "b1", `endpoints: [{address: "`+s1.addr+`"}]`), document("Backend", "b2", `endpoints: [{address: "`+s2.addr+`"}]`),
		document("Route", "r1", "match: [{path: /s1}]", "backend: b1"), document("Route", "r2", "match: [{path: /s2}]", "backend: b2")))
	c := s.dial()
	for _, want := range []string{"s1", "s1", "s2", "s1", "s2", "s2", "s1"} {
		c.say(get11("/" + want))
		if _, body := c.expect(200); body != want {
			t.Fatalf("%q, want %q", body, want)
		}
	}
	if s1.connections() != 1 || s2.connections() != 1 {
		t.Errorf("%d and %d connections", s1.connections(), s2.connections())
	}
}
