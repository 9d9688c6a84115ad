package wire

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// scan scans one request whole.
func scan(raw string, s Settings) *Head {
	h := new(Head)
	ScanRequest(h, []byte(raw), s.normal())
	return h
}

func TestFaults(t *testing.T) {
	s := DefaultSettings()
	s.HeaderBytes, s.HeaderCount, s.URIBytes, s.BodyBytes = 2<<10, 5, 40, 1000
	s.Identity = []string{"X-Tenant-ID"}
	f := func(raw string, want Cause, status int) {
		t.Helper()
		h := scan(raw, s)
		if h.Fault != want || h.Fault.Status() != status {
			t.Errorf("%.80q: %v %d, want %v %d", raw, h.Fault, h.Fault.Status(), want, status)
		}
	}
	get := func(fields string) string { return "GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" }
	target := func(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n" }
	host := func(host string) string { return "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }

	// the request line
	f("GET /\r\n\r\n", BadRequestLine, 400)
	f(" GET / HTTP/1.1\r\n\r\n", BadRequestLine, 400)
	f("GET /  HTTP/1.1\r\n\r\n", BadRequestLine, 400)
	f("GET / HTTP/1.1 \r\n\r\n", BadRequestLine, 400)
	f("G\x00T / HTTP/1.1\r\n\r\n", BadRequestLine, 400)
	f("GET / HTTP/1.2\r\n\r\n", BadVersion, 505)
	f("GET / HTTP/3.0\r\n\r\n", BadVersion, 505)
	f("CONNECT a:443 HTTP/1.1\r\n\r\n", MethodNotAllowed, 405)
	f("TRACE / HTTP/1.1\r\n\r\n", MethodNotAllowed, 405)
	f("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", MethodNotAllowed, 405)
	f(target("/"+strings.Repeat("a", 40)), TargetTooLong, 414)
	f("GET /"+strings.Repeat("a", 3<<10), TargetTooLong, 414)
	// the target
	f(target("/a#b"), BadTarget, 400)
	f(target("/?a#b"), BadTarget, 400)
	f(target(`/a\b`), BadTarget, 400)
	f(target("/a\x7fb"), BadTarget, 400)
	f(target("/../a"), BadTarget, 400)
	f(target("/a/%2E./%2e%2e/b"), BadTarget, 400)
	f(target("*"), BadTarget, 400)
	f(target("a/b"), BadTarget, 400)
	f(target("ftp://a/"), BadTarget, 400)
	f(target("/%"), BadEscape, 400)
	f(target("/%4"), BadEscape, 400)
	f(target("/%4g"), BadEscape, 400)
	f(target("/?%4g"), BadEscape, 400)
	f(target("/a%00"), BadEscape, 400)
	f(target("/?%00"), BadEscape, 400)
	f(target("/a%5cb"), BadEscape, 400)
	f(target("http://b/"), HostMismatch, 400)
	f(target("http://u@a/"), BadHost, 400)
	f(target("http:///"), BadHost, 400)
	// lines
	f(get("A: b\n"), BareLineEnd, 400)
	f(get("A: b\rc\r\n"), BareLineEnd, 400)
	f("GET / HTTP/1.1\nHost: a\n\n", BareLineEnd, 400)
	f(get("A: b\r\n c\r\n"), FoldedField, 400)
	f(get("A: b\r\n\tc\r\n"), FoldedField, 400)
	f(get("A : b\r\n"), SpaceBeforeColon, 400)
	f(get("A b\r\n"), BadFieldName, 400)
	f(get(": b\r\n"), BadFieldName, 400)
	f(get("A\xe9: b\r\n"), BadFieldName, 400)
	f(get("nocolon\r\n"), BadFieldName, 400)
	f(get("A: b\x00\r\n"), BadFieldValue, 400)
	f(get("A: \x7f\r\n"), BadFieldValue, 400)
	f(get("Content_Length: 1\r\n"), AliasedName, 400)
	f(get("X_Forwarded-Whatever: 1\r\n"), AliasedName, 400)
	f(get("x_tenant_id: a\r\n"), AliasedName, 400)
	f(get("A: "+strings.Repeat("b", 3<<10)+"\r\n"), HeaderTooLarge, 431)
	f(get("A: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n"), TooManyFields, 431)
	// Host
	f("GET / HTTP/1.1\r\n\r\n", MissingHost, 400)
	f(get("Host: a\r\n"), ManyHosts, 400)
	f("GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", ManyHosts, 400)
	for _, bad := range []string{"", "u@a", "a b", "a,b", "a/b", "a:", "a:x", "a:65536", "a:1:2", "[::1", "[]", "[::1]x", "[g::]", ":80", "a%41", "\xe4"} {
		f(host(bad), BadHost, 400)
	}
	// framing
	for _, bad := range []string{"", "+1", "-1", "1 1", "1,1", "0x1", "9223372036854775808", "99999999999999999999"} {
		f(get("Content-Length: "+bad+"\r\n"), BadLength, 400)
	}
	f(get("Content-Length: 1\r\ncontent-length: 1\r\n"), ManyLengths, 400)
	f(get("Content-Length: 1001\r\n"), BodyTooLong, 413)
	for _, bad := range []string{"", "identity", "gzip, chunked", "chunked, chunked", "chunked;a", "chunked,"} {
		f(get("Transfer-Encoding: "+bad+"\r\n"), BadEncoding, 400)
	}
	f(get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), BadEncoding, 400)
	f("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BadEncoding, 400)
	f(get("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"), LengthAndEncoding, 400)
	f(get("Expect: 200-ok\r\n"), BadExpect, 417)
	f(get("Expect: 100-continue\r\nExpect: 100-continue\r\n"), BadExpect, 417)
	f(get("Connection: "+strings.Repeat("a,", 65)+"\r\n"), BadConnection, 400)
	// what is just within the bounds
	f(target("/"+strings.Repeat("a", 39)), None, 0)
	f(get("A: b\r\nA: b\r\nA: b\r\nA: b\r\n"), None, 0)
	f(get("Content-Length: 1000\r\n"), None, 0)
	f(get("Connection: "+strings.Repeat("a,", 64)+"\r\n"), None, 0)
	f(get("X_Whatever: b\r\n"), None, 0)
	f(get("A: caf\xe9\tb\r\n"), None, 0)
	for _, good := range []string{"a", "a:0", "a:65535", "1.2.3.4", "[::1]", "[::ffff:1.2.3.4]:80", "A-b_c.d~"} {
		f(host(good), None, 0)
	}
	fill := 2<<10 - len(get("A: \r\n"))
	f(get("A: "+strings.Repeat("b", fill)+"\r\n"), None, 0)
	f(get("A: "+strings.Repeat("b", fill+1)+"\r\n"), HeaderTooLarge, 431)
}

func TestFacts(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		h := scan(raw, DefaultSettings())
		got := fmt.Sprintf("%v %s path=%s raw=%s query=%q host=%s 1.%d body=%d/%d keep=%v expect=%v upgrade=%v", h.Fault, h.Method, h.Path,
			h.RawPath, h.Query, h.Host, h.Minor, h.Body, h.Length, h.KeepAlive, h.Expect100, h.UpgradeWebSocket)
		if got != want {
			t.Errorf("%q\n got %s\nwant %s", raw, got, want)
		}
	}
	// plain
	f("GET /a?b=c?d HTTP/1.1\r\nHost: h:80\r\n\r\n",
		`none GET path=/a raw=/a query="b=c?d" host=h:80 1.1 body=0/0 keep=true expect=false upgrade=false`)
	// methods are passed as they are
	f("get / HTTP/1.1\r\nhost: h\r\n\r\n",
		`none get path=/ raw=/ query="" host=h 1.1 body=0/0 keep=true expect=false upgrade=false`)
	// HTTP/1.0 needs no Host and closes unless it says otherwise
	f("GET / HTTP/1.0\r\n\r\n", `none GET path=/ raw=/ query="" host= 1.0 body=0/0 keep=false expect=false upgrade=false`)
	f("GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n",
		`none GET path=/ raw=/ query="" host= 1.0 body=0/0 keep=true expect=false upgrade=false`)
	// close wins, in whichever field it is
	f("GET / HTTP/1.1\r\nHost: h\r\nConnection: \r\nConnection: keep-alive\r\nconnection: , CLOSE ,\r\n\r\n",
		`none GET path=/ raw=/ query="" host=h 1.1 body=0/0 keep=false expect=false upgrade=false`)
	// absolute form
	f("GET HTTP://H:80/a?b HTTP/1.1\r\nHost: h:80\r\n\r\n",
		`none GET path=/a raw=/a query="b" host=h:80 1.1 body=0/0 keep=true expect=false upgrade=false`)
	f("GET https://h?b HTTP/1.1\r\nHost: h\r\n\r\n",
		`none GET path=/ raw=/ query="b" host=h 1.1 body=0/0 keep=true expect=false upgrade=false`)
	f("GET http://h/ HTTP/1.0\r\n\r\n", `none GET path=/ raw=/ query="" host=h 1.0 body=0/0 keep=false expect=false upgrade=false`)
	// asterisk form, also in the shape a proxy gets it
	f("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
		`none OPTIONS path=* raw=* query="" host=h 1.1 body=0/0 keep=true expect=false upgrade=false`)
	f("OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n",
		`none OPTIONS path=* raw=* query="" host=h 1.1 body=0/0 keep=true expect=false upgrade=false`)
	// framing
	f("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0007\r\nExpect: 100-Continue\r\n\r\n",
		`none POST path=/ raw=/ query="" host=h 1.1 body=1/7 keep=true expect=true upgrade=false`)
	f("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked \r\nExpect: 100-continue\r\n\r\n",
		`none GET path=/ raw=/ query="" host=h 1.1 body=2/0 keep=true expect=true upgrade=false`)
	// nobody waits for 100 without a body, nor on HTTP/1.0
	f("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
		`none POST path=/ raw=/ query="" host=h 1.1 body=1/0 keep=true expect=false upgrade=false`)
	f("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
		`none POST path=/ raw=/ query="" host= 1.0 body=1/1 keep=false expect=false upgrade=false`)
	// only a whole upgrade to websocket is one
	f("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n",
		`none GET path=/ raw=/ query="" host=h 1.1 body=0/0 keep=true expect=false upgrade=true`)
	for _, not := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n\r\n",
	} {
		f(not, `none GET path=/ raw=/ query="" host=h 1.1 body=0/0 keep=true expect=false upgrade=false`)
	}
}

func TestCanonicalPath(t *testing.T) {
	f := func(sent, path, forwarded string) {
		t.Helper()
		h := scan("GET "+sent+" HTTP/1.1\r\nHost: h\r\n\r\n", DefaultSettings())
		if got, want := fmt.Sprint(h.Fault, " ", string(h.Path), " ", string(h.RawPath)), "none "+path+" "+forwarded; got != want {
			t.Errorf("%s: %s, want %s", sent, got, want)
		}
	}
	// nothing to do
	f("/", "/", "/")
	f("/a.b/c..d/...", "/a.b/c..d/...", "/a.b/c..d/...")
	f("/A/a", "/A/a", "/A/a")
	f("/{a|b}/caf\xe9", "/{a|b}/caf\xe9", "/{a|b}/caf\xe9")
	// escapes are decoded once; what is forwarded stays
	f("/%61%2E%7e", "/a.~", "/%61%2E%7e")
	f("/a%2fb%2Fc", "/a/b/c", "/a%2fb%2Fc")
	f("/a/%252e%252e/b", "/a/%2e%2e/b", "/a/%252e%252e/b")
	f("/a%0d%0aX:%20y", "/a\r\nX: y", "/a%0d%0aX:%20y")
	f("/a%3Fb", "/a?b", "/a%3Fb")
	// empty segments and parameters are no part of the name
	f("//a///b//", "/a/b/", "//a///b//")
	f("/a;x=1/b;y", "/a/b", "/a;x=1/b;y")
	f("/a%3bx%2fb", "/a/b", "/a%3bx%2fb")
	f("/;x/a", "/a", "/;x/a")
	// dot segments are resolved in what is forwarded too
	f("/a/../b", "/b", "/b")
	f("/a/./b", "/a/b", "/a/b")
	f("/a/..;/b", "/b", "/b")
	f("/a/.;x/%62", "/a/b", "/a/%62")
	f("/a/%2E%2e/b", "/b", "/b")
	f("/a%2f..%2fb%2fc", "/b/c", "/b%2fc")
	f("/x;p/a%2Fb%2f../c", "/x/a/c", "/x;p/a%2Fc")
	f("/a//../b", "/b", "/b")
	f("/a/b/..", "/a/", "/a/")
	f("/a/.", "/a/", "/a/")
	f("/a/b/../../", "/", "/")
	f("/.well-known/x", "/.well-known/x", "/.well-known/x")
}

// Whatever spelling of a path is sent, the same path is matched, and the path that is forwarded is read as the same.
func TestCanonicalPathMetamorphic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segments := rapid.SliceOfN(rapid.StringMatching(`[a-c.]{1,3}`).Filter(func(s string) bool {
			return s != "." && s != ".."
		}), 1, 5).Draw(t, "segments")
		want := "/" + strings.Join(segments, "/")
		spell := func(s string) string {
			var b strings.Builder
			for _, c := range []byte(s) {
				b.WriteString(rapid.SampledFrom([]string{string(c), fmt.Sprintf("%%%02x", c), fmt.Sprintf("%%%02X", c)}).Draw(t, "byte"))
			}
			return b.String()
		}
		noise := rapid.SampledFrom([]string{"", "", "", "/", "/./", "/%2e/", "/.;x/", "/n/../", "/n%2F%2e%2E%2f", "/n;a/..;b/", "//"})
		var sent strings.Builder
		parameter := ""
		for i, s := range segments {
			separator := noise.Draw(t, "noise")
			if separator == "" {
				separator = rapid.SampledFrom([]string{"/", "%2f", "%2F"}).Draw(t, "separator")
			}
			if i == 0 && separator[0] != '/' || strings.HasPrefix(parameter, ";") { // in a parameter, %2f is refused
				separator = "/"
			}
			parameter = rapid.SampledFrom([]string{"", ";", ";x=1", "%3Bx"}).Draw(t, "parameter")
			sent.WriteString(separator + spell(s) + parameter)
		}
		h := scan("GET "+sent.String()+" HTTP/1.1\r\nHost: h\r\n\r\n", DefaultSettings())
		if h.Fault != None || string(h.Path) != want {
			t.Fatalf("%s: %v %q, want %q", sent.String(), h.Fault, h.Path, want)
		}
		again := scan("GET "+string(h.RawPath)+" HTTP/1.1\r\nHost: h\r\n\r\n", DefaultSettings())
		if again.Fault != None || string(again.Path) != want || string(again.RawPath) != string(h.RawPath) {
			t.Fatalf("%s: forwarded as %s, which is read as %v %q", sent.String(), h.RawPath, again.Fault, again.Path)
		}
		for _, s := range strings.FieldsFunc(strings.ToLower(string(h.RawPath)), func(r rune) bool { return r == '/' }) {
			if name, _, _ := strings.Cut(strings.ReplaceAll(s, "%2e", "."), ";"); name == "." || name == ".." {
				t.Fatalf("%s: forwarded with a dot segment: %s", sent.String(), h.RawPath)
			}
		}
	})
}

func TestLookup(t *testing.T) {
	s := DefaultSettings()
	s.Identity = []string{"X-Tenant-ID"}
	h := scan("GET / HTTP/1.1\r\nHost: h\r\nX-A: \t 1 \r\nx-a:2\r\nX-TENANT-id: t\r\nVia:\r\nx-forwarded-PORT: 80\r\n\r\n", s)
	f := func(name, want string, count int) {
		t.Helper()
		if v, n := h.Lookup(name); string(v) != want || n != count {
			t.Errorf("Lookup(%q) = %q, %d", name, v, n)
		}
	}
	// the first of several, trimmed
	f("X-a", "1", 2)
	f("host", "h", 1)
	f("via", "", 1)
	f("x-b", "", 0)
	f("x-ab", "", 0)
	g := func(k Kind, want string, count int) {
		t.Helper()
		if v, n := h.Get(k); string(v) != want || n != count {
			t.Errorf("Get(%d) = %q, %d", k, v, n)
		}
	}
	g(KindIdentity, "t", 1)
	g(KindXForwarded, "80", 1)
	g(KindXForwardedFor, "", 0)
	g(KindOther, "1", 2)
	if got := string(h.Name(3)) + "=" + string(h.Value(3)); got != "X-TENANT-id=t" {
		t.Errorf("field 3 is %s", got)
	}
}

func TestClassify(t *testing.T) {
	names := map[string]Kind{
		"host": KindHost, "content-length": KindContentLength, "transfer-encoding": KindTransferEncoding,
		"connection": KindConnection, "keep-alive": KindKeepAlive, "proxy-connection": KindProxyConnection,
		"proxy-authorization": KindProxyAuthorization, "proxy-authenticate": KindProxyAuthenticate, "te": KindTE,
		"trailer": KindTrailer, "upgrade": KindUpgrade, "http2-settings": KindHTTP2Settings, "expect": KindExpect,
		"proxy": KindProxy, "forwarded": KindForwarded, "x-forwarded-for": KindXForwardedFor,
		"x-forwarded-proto": KindXForwardedProto, "x-forwarded-host": KindXForwardedHost,
		"x-forwarded-port": KindXForwarded, "x-real-ip": KindXRealIP, "via": KindVia, "x-request-id": KindXRequestID,
		"traceparent": KindTraceparent,
	}
	if len(names) != int(kindCount)-2 { // Other and Identity have no name
		t.Fatalf("%d names for %d kinds", len(names), kindCount-2)
	}
	for name, want := range names {
		for _, spelling := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:]} {
			if got := classify([]byte(spelling)); got != want {
				t.Errorf("classify(%s) = %d, want %d", spelling, got, want)
			}
		}
		// one letter more, less or different is another name
		for _, other := range []string{name + "x", name[:len(name)-1], "q" + name[1:], name[:len(name)-1] + "q"} {
			if got := classify([]byte(other)); got != KindOther && got != KindXForwarded {
				t.Errorf("classify(%s) = %d", other, got)
			}
		}
	}
}

func TestAppendForward(t *testing.T) {
	s := DefaultSettings()
	s.Identity = []string{"X-Tenant-ID"}
	f := func(raw, want string, drop ...Kind) {
		t.Helper()
		h := scan(raw, s)
		if h.Fault != None {
			t.Fatalf("%q: %v", raw, h.Fault)
		}
		if diff := cmp.Diff(want, string(h.AppendForward([]byte("kept:"), Kinds(drop...)))[len("kept:"):]); diff != "" {
			t.Errorf("%q: %s", raw, diff)
		}
	}
	// names, order, case and white space stay
	f("GET /a?b HTTP/1.1\r\nhOST:h\r\nX-b:  1 \r\nx-A:2\r\n\r\n", "GET /a?b HTTP/1.1\r\nhOST:h\r\nX-b:  1 \r\nx-A:2\r\n")
	// an empty query stays
	f("GET /? HTTP/1.1\r\nHost: h\r\n\r\n", "GET /? HTTP/1.1\r\nHost: h\r\n")
	// hop-by-hop fields go, first, last and between
	f("GET / HTTP/1.1\r\nTE: trailers\r\nHost: h\r\nA: 1\r\nKeep-Alive: 5\r\nproxy-CONNECTION: x\r\nB: 2\r\nC: 3\r\nUpgrade: foo\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\nC: 3\r\n")
	f("GET / HTTP/1.1\r\nHost: h\r\nProxy: x\r\nProxy-Authorization: x\r\nTrailer: x\r\nHTTP2-Settings: x\r\nExpect: 100-continue\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\n")
	// what Connection names goes, wherever it stands; identity, framing and forwarding stay
	f("POST / HTTP/1.1\r\nx-A: 1\r\nHost: h\r\nConnection: X-a, close,,host, content-length , X-Tenant-Id\r\nX-B: 2\r\n"+
		"Connection: x-forwarded-for,forwarded,via,X-Request-ID\r\nContent-Length: 3\r\nX-tenant-id: t\r\n"+
		"X-Forwarded-For: 1\r\nForwarded: 2\r\nVia: 3\r\nX-Request-Id: 4\r\nX-A: 5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nX-B: 2\r\nContent-Length: 3\r\nX-tenant-id: t\r\n"+
			"X-Forwarded-For: 1\r\nForwarded: 2\r\nVia: 3\r\nX-Request-Id: 4\r\n")
	// the caller's kinds go too
	f("GET / HTTP/1.1\r\nHost: h\r\nX-tenant-id: t\r\nA: 1\r\nX-Forwarded-For: 1\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\n",
		KindIdentity, KindXForwardedFor)
	// framing is canonical, in its place
	f("POST / HTTP/1.1\r\nA: 1\r\nCONTENT-length:0005\r\nHost: h\r\n\r\n", "POST / HTTP/1.1\r\nA: 1\r\nCONTENT-length: 5\r\nHost: h\r\n")
	f("POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding:\tCHUNKED \r\nA: 1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: chunked\r\nA: 1\r\n")
	// HTTP/1.0 becomes 1.1, with a Host
	f("GET / HTTP/1.0\r\nA: 1\r\n\r\n", "GET / HTTP/1.1\r\nHost: \r\nA: 1\r\n")
	// absolute form becomes origin form
	f("GET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a HTTP/1.1\r\nHost: h\r\n")
	f("GET http://h/a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.1\r\nHost: h\r\n")
	// an upgrade is made anew, or dropped
	f("GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUPGRADE: WebSocket\r\nA: 1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
	f("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n", KindUpgrade)
}

// A cause has one name and one status; the metric's label set is complete.
func TestCauses(t *testing.T) {
	names := map[string]bool{}
	for c := range Cause(CauseCount) {
		if names[c.String()] || c.String() == "invalid" || c.Error() != c.String() {
			t.Errorf("cause %d has the name %q", c, c)
		}
		names[c.String()] = true
		if s := c.Status(); c != None && (s < 400 || s > 599) {
			t.Errorf("%v has the status %d", c, s)
		}
	}
	if Cause(CauseCount).String() != "invalid" {
		t.Error("there are more causes than CauseCount")
	}
}

func TestHeadAllocations(t *testing.T) {
	s := benchSettings()
	buf := []byte(typicalRequest)
	odd := []byte(strings.Replace(typicalRequest, "/v1/", "/./%76;a=b/../v1//", 1))
	response := []byte(typicalResponse)
	bad := []byte("GET / HTTP/1.1\r\nA : b\r\n\r\n")
	var h Head
	var r ResponseHead
	dst := make([]byte, 0, 4096)
	f := func(what string, do func()) {
		t.Helper()
		do() // grows what is kept
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	f("request", func() { h.reset(); ScanRequest(&h, buf, s); dst = h.AppendForward(dst[:0], Kinds(KindIdentity)) })
	f("odd path", func() { h.reset(); ScanRequest(&h, odd, s) })
	f("lookup", func() { h.Lookup("x-tenant-id"); h.Get(KindIdentity) })
	f("fault", func() { h.reset(); ScanRequest(&h, bad, s) })
	f("response", func() {
		r.Reset()
		if _, err := ScanResponseHead(&r, response, Asked{}, s); err != nil {
			t.Fatal(err)
		}
		dst = r.AppendForward(dst[:0], 0)
	})
}
