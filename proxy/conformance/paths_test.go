package conformance

import (
	"fmt"
	"io"
	"net"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// limitedPath has a limit and a backend of its own; everything else goes elsewhere.
const limitedPath = "/a/b/limited"

// readers are how backends read the path of a target: each as some server in wide use does, with the options that read most into it.
var readers = map[string]func(string) string{
	// As sent.
	"naive": func(p string) string { return p },
	// Escapes are decoded, and that is all: PATH_INFO of CGI and its kin.
	"gateway": decode,
	// net/http: decoded, then path.Clean; a trailing slash stays.
	"net/http": func(p string) string {
		p = decode(p)
		clean := path.Clean("/" + p)
		if strings.HasSuffix(p, "/") && clean != "/" {
			clean += "/"
		}
		return clean
	},
	// Tomcat: parameters go first, then escapes are decoded (of slashes, too), then slashes merge and dots are resolved.
	"tomcat": func(p string) string {
		var segments []string
		for s := range strings.SplitSeq(p, "/") {
			name, _, _ := strings.Cut(s, ";")
			segments = append(segments, name)
		}
		return merged(decode(strings.Join(segments, "/")))
	},
	// Parameters go after the decoding: what some frameworks do a second time.
	"spring": func(p string) string {
		var segments []string
		for s := range strings.SplitSeq(decode(p), "/") {
			name, _, _ := strings.Cut(s, ";")
			segments = append(segments, name)
		}
		return merged(strings.Join(segments, "/"))
	},
	// nginx: decoded, slashes merged, dots resolved.
	"nginx": func(p string) string { return merged(decode(p)) },
	// RFC 3986 section 5.2.4, then decoded; empty segments count.
	"rfc3986": func(p string) string { return decode(resolved(p)) },
}

// decode decodes every escape once; what is no escape stays.
func decode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		if n, _ := fmt.Sscanf(s[i:min(i+3, len(s))], "%%%02x", &c); n == 1 && i+2 < len(s) {
			b.WriteByte(c)
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// resolved takes out dot segments; empty ones are segments like others.
func resolved(p string) string {
	var out []string
	segments := strings.Split(strings.TrimPrefix(p, "/"), "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch {
		case s == "." || s == "..":
			if s == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

// merged is resolved, with runs of slashes as one.
func merged(p string) string {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return resolved(p)
}

// asker sends targets over one connection as long as it lasts.
type asker struct {
	addr string
	nc   net.Conn
	n    int // requests that were answered
}

func (a *asker) close() {
	if a.nc != nil {
		_ = a.nc.Close()
		a.nc = nil
	}
}

// ask returns the status and the body of the answer.
func (a *asker) ask(target string) (status int, body string, err error) {
	if a.nc == nil {
		if a.nc, err = net.Dial("tcp", a.addr); err != nil {
			return 0, "", err
		}
	}
	_ = a.nc.SetDeadline(time.Now().Add(patience))
	if _, err = io.WriteString(a.nc, "GET "+target+" HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
		return 0, "", err
	}
	raw, buf := "", make([]byte, 16<<10)
	for {
		n, err := a.nc.Read(buf)
		raw += string(buf[:n])
		m, used, broken := nextAnswer(raw, "GET", err == io.EOF)
		if broken != nil || used == 0 && err != nil {
			return 0, "", fmt.Errorf("%v %v in %q", broken, err, raw)
		}
		if used == 0 {
			continue
		}
		a.n++
		if len(m.get("Connection")) > 0 {
			a.close()
		}
		return m.status, m.body, nil
	}
}

// onePath is a sidecar with one limited path.
type onePath struct {
	*sidecar
	asker
	limited atomic.Int64 // answers from its backend
}

func newOnePath(t *testing.T) *onePath {
	say := func(name string) string {
		return startBackend(t, func(c *backendConn, m *message) {
			body := name + " " + m.target
			c.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		}).addr
	}
	s := startSidecar(t, "",
		document("Backend", "limited", `endpoints: [{address: "`+say("limited")+`"}]`),
		document("Backend", "rest", `endpoints: [{address: "`+say("rest")+`"}]`),
		document("Route", "limited", `match: [{path: `+limitedPath+`}], backend: limited`),
		document("Route", "rest", `backend: rest`),
		document("TenantPolicy", "everybody", `tenants: {any: true}, limits: [{name: tight, requests: 1000000, per: 1s, routes: [limited]}]`))
	p := &onePath{sidecar: s, asker: asker{addr: s.addr}}
	t.Cleanup(p.close)
	return p
}

// spelled sends one spelling and returns what became of it: refused, limited or rest. A reader that takes what the backend got for
// the limited path while it went elsewhere is an error.
func (p *onePath) spelled(t interface {
	Fatalf(string, ...any)
	Helper()
}, target string) string {
	t.Helper()
	status, body, err := p.ask(target)
	if err != nil {
		t.Fatalf("%q: %v", target, err)
	}
	if status == 400 {
		return "refused"
	}
	where, got, _ := strings.Cut(body, " ")
	if status != 200 || where != "limited" && where != "rest" {
		t.Fatalf("%q: %d %q", target, status, body)
	}
	if where == "limited" {
		p.limited.Add(1)
		return where
	}
	got, _, _ = strings.Cut(got, "?")
	for name, read := range readers {
		if read(got) == limitedPath {
			t.Fatalf("%q reaches the backend as %q without the limit, and %s reads it as %s", target, got, name, limitedPath)
		}
	}
	return where
}

// Every spelling of a limited path has the limit of the plain one, or is refused.
func TestOnePath(t *testing.T) {
	p := newOnePath(t)
	f := func(want string, targets ...string) {
		t.Helper()
		for _, target := range targets {
			if got := p.spelled(t, target); got != want {
				t.Errorf("%q is %s, want %s", target, got, want)
			}
		}
	}
	// The plain one, and every spelling that a server in wide use takes for it.
	f("limited", limitedPath, limitedPath+"?x", "http://a.test"+limitedPath,
		"//a/b/limited", "/a//b/limited", "/a/b//limited", "///a///b///limited",
		"/./a/b/limited", "/a/./b/limited", "/a/././b/./limited", "/a/%2e/b/limited", "/a/%2E/b/limited",
		"/x/../a/b/limited", "/a/x/../b/limited", "/a/b/x/y/../../limited", "/a/x/%2e%2e/b/limited", "/a/x/.%2E/b/limited", "/a/x/%2e./b/limited",
		"/a%2fb%2flimited", "/a%2Fb/limited", "/%2fa/b/limited", "/a/x%2f../b/limited", "/a/x%2f%2e%2e%2fb/limited", "/a/b%2f/limited",
		"/a/x/..;/b/limited", "/a/x/..;y=z/b/limited", "/a/x/%2e%2e;/b/limited", "/a/x/..%3b/b/limited", "/a/.;/b/limited",
		"/a;x/b/limited", "/a/b;x=1;y=2/limited", "/a/b/limited;", "/a/b/limited;x", "/a/b/limited%3bx", "/;/a/b/limited", "/a/;x/b/limited",
		"/%61/b/limited", "/a/b/%6cimited", "/a/b/%6Cimited", "/%61%2f%62%2f%6c%69%6d%69%74%65%64", "/a/b/limite%64;%78",
		"/a/x//../b/limited", "/a/x/;/../b/limited", "/a/x;/..;/b/;/limited")
	// What no reader takes for it stays another path.
	f("rest", "/", "/a/b", "/a/b/limited/", "/a/b/limited/x", "/A/b/limited", "/a/b/limited%20", "/a/b/limited%2f", "/a%252fb/limited",
		"/a/%252e%252e/a/b/limited", "/a/b/%256cimited", "/a/b/limitedx", "/a/b/limited/..", "/a/b/limited/../x", "/a/b/limited%3f")
	// What servers disagree about beyond repair is refused.
	f("refused", "/a\\b\\limited", "/a/b%5climited", "/a/b%5Climited", "/../a/b/limited", "/..;/a/b/limited", "/%2e%2e/a/b/limited", "/a/../../a/b/limited",
		"/a/b/limited%00", "/a/b/limited%00.html", "/a;x%2fb/limited", "/a/b/limited;x%2fy", "/a/b/limited%", "/a/b/%6", "/a/b/limited#x", "/a/b/%zzlimited", "/a/b/lim\tited")
	rapid.Check(t, func(t *rapid.T) {
		for range 30 {
			p.spelled(t, spelling(t))
		}
	})
	// What its backend answered was charged, once each, and nothing else was.
	charged := func() int { return p.metrics().sum("weir_limit_decisions_total", `limit="tight"`, `decision="allow"`) }
	if got, want := charged(), int(p.limited.Load()); got != want {
		t.Errorf("the limit was charged %d times for %d requests", got, want)
	}
	until(t, func() string { return "every answer is counted" }, func() bool { return p.metrics().sum("weir_requests_total") == p.n })
	if got, want := p.metrics().sum("weir_requests_total", `route="limited"`), int(p.limited.Load()); got != want {
		t.Errorf("%d requests on the limited route, %d of its backend", got, want)
	}
	t.Logf("%d spellings, %d of them of the limited path", p.n, p.limited.Load())
}

// spelling makes a target: the limited path in disguise, or any sequence of what disguises are made of.
func spelling(t *rapid.T) string {
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	if rapid.IntRange(0, 3).Draw(t, "any") == 0 {
		s := "/"
		for range rapid.IntRange(1, 12).Draw(t, "length") {
			s += pick("part", "a", "b", "limited", "/", "/", "//", "..", ".", ";", ";x", "%2e", "%2E", "%2f", "%2F", "%3b", "x", "%61", "%6cimited", "%5c", "%25", "%252e", "%252f", "?")
		}
		return s
	}
	twice := rapid.IntRange(0, 7).Draw(t, "twice") == 0
	s := ""
	for _, segment := range []string{"a", "b", "limited"} {
		s += pick("separator", "/", "/", "/", "//", "%2f", "/%2F", "/;/", "/;x/")
		if rapid.IntRange(0, 2).Draw(t, "detour") == 0 {
			s += pick("detour", "./", "%2e/", "%2E;x/", ".%2f", ".;/", "x/../", "x/%2e%2E/", "x/..;/", "x/..;y/", "x%2f..%2f", "x;y/.%2e/", "x//../", "x/y/..//../", "x/%252e%252e/",
				"x/..%3b/", "x%5c../", "../")
		}
		for i := range len(segment) {
			plain, escape := segment[i:i+1], "%"
			if twice {
				escape = "%25"
			}
			s += pick("letter", plain, plain, plain, plain, fmt.Sprintf("%s%02x", escape, segment[i]), fmt.Sprintf("%s%02X", escape, segment[i]))
		}
		s += pick("parameter", "", "", "", ";", ";x", ";x=y;z", "%3bx", ";%2e%2e", ";x%2fy")
	}
	s += pick("end", "", "", "", "/", "/.", "/x/..", "/..;/limited", "?x", "/;/", "%2f", "%2e", "/../limited")
	if s[0] != '/' {
		s = "/" + s
	}
	return s
}
