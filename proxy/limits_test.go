package proxy

import (
	"crypto/sha256"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"
	"github.com/google/go-cmp/cmp"

	"weir/policy"
)

// limited is a tenant policy for everybody.
func limited(fields ...string) string {
	return document("TenantPolicy", "gold", append([]string{"tenants: {any: true}"}, fields...)...)
}

const (
	oneAnHour   = "limits: [{name: steady, requests: 1, per: 1h}]"
	twoPerHour  = "limits: [{name: steady, requests: 2, per: 1h}, {name: burst, requests: 1, per: 10m, burst: 5}]"
	problemKind = "https://iana.org/assignments/http-problem-types#quota-exceeded"
)

// member is one of a structured field's list: a string with parameters.
type member struct {
	Name   string
	Params map[string]any
}

// structured reads a list of strings with a parser that is not ours, in order; every parameter once.
func structured(t *testing.T, values []string) (members []member) {
	t.Helper()
	list, err := httpsfv.UnmarshalList(values)
	if err != nil || len(list) == 0 {
		t.Fatalf("%q is no structured field: %v", values, err)
	}
	for _, m := range list {
		item, isItem := m.(httpsfv.Item)
		if !isItem {
			t.Fatalf("%q has a list in it", values)
		}
		name, isString := item.Value.(string)
		if !isString {
			t.Fatalf("%q: the name %v is no string", values, item.Value)
		}
		params := map[string]any{}
		for _, key := range item.Params.Names() {
			params[key], _ = item.Params.Get(key)
		}
		members = append(members, member{name, params})
	}
	if text, err := httpsfv.Marshal(list); err != nil || text != strings.Join(values, ", ") {
		t.Errorf("%q is not in its canonical form %q: %v", values, text, err) // nor is a parameter there twice
	}
	return members
}

func TestWhatALimitedClientIsTold(t *testing.T) {
	t.Parallel()
	s := serve(t, documents(answering(t, ok, nil).addr, limited(twoPerHour)))
	c := s.dial()
	for range 2 {
		c.say(get)
		c.expect(200)
	}
	c.say(get)
	// The names of the fields are written as in the draft.
	head, err := c.head()
	if err != nil || !strings.Contains(head, "\r\nRateLimit-Policy: ") || !strings.Contains(head, "\r\nRateLimit: ") || !strings.Contains(head, "\r\nDate: ") {
		t.Fatalf("%q %v", head, err)
	}
	body, err := c.take(number(t, field(head, "Content-Length")))
	if err != nil {
		t.Fatal(err)
	}

	if wait := number(t, field(head, "Retry-After")); wait < 1795 || wait > 1800*103/100 {
		t.Errorf("Retry-After %d, want what is left of half an hour and at most 3 %% more", wait)
	}
	want := []member{{"steady", map[string]any{"q": int64(2), "w": int64(3600)}}, {"burst", map[string]any{"q": int64(1), "w": int64(600)}}}
	if diff := cmp.Diff(want, structured(t, fields(head, "RateLimit-Policy"))); diff != "" {
		t.Error(diff)
	}
	// No window that is told ends after Retry-After while nothing is left in it.
	state := structured(t, fields(head, "RateLimit"))
	if len(state) != 2 || state[0].Name != "steady" || state[1].Name != "burst" || state[0].Params["r"] != int64(0) ||
		state[1].Params["r"] != int64(3) || state[1].Params["t"] != int64(1800) {
		t.Errorf("RateLimit %v", state)
	}
	if end, _ := state[0].Params["t"].(int64); end < 1795 || end > int64(number(t, field(head, "Retry-After"))) {
		t.Errorf("RateLimit %v", state)
	}
	status, err := httpsfv.UnmarshalList(fields(head, "Proxy-Status"))
	if err != nil || len(status) != 1 {
		t.Fatalf("%q %v", head, err)
	}
	if item, _ := status[0].(httpsfv.Item); item.Value != httpsfv.Token("weir") {
		t.Errorf("Proxy-Status %v", item)
	} else if why, _ := item.Params.Get("error"); why != httpsfv.Token("http_request_denied") {
		t.Errorf("Proxy-Status %v", item)
	}
	if field(head, "Content-Type") != "application/problem+json" {
		t.Errorf("%q", head)
	}
	var problem map[string]any
	if err := json.Unmarshal([]byte(body), &problem); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if diff := cmp.Diff(map[string]any{
		"type": problemKind, "title": "Rate limit exceeded", "status": 429.0, "detail": "Wait for the time in Retry-After, then send again.",
		"violated-policies": []any{"steady"}, "request-id": field(head, "X-Request-Id"),
	}, problem); diff != "" {
		t.Error(diff)
	}
	line := s.endsAfter(3, "limited", 429)
	if line.text("policy") != "gold" || line.text("limit") != "steady" || line.text("tenant") != "acme" || line.text("request_id") != problem["request-id"] ||
		line["backend"] != nil || line["endpoint"] != nil {
		t.Errorf("%v", line)
	}
	// The connection lives on, and another tenant is not affected.
	c.say(strings.Replace(get, "acme", "other", 1))
	c.expect(200)
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFormsOfRefusal(t *testing.T) {
	t.Parallel()
	f := func(reject, request string, status int, contentType string, sent ...string) {
		t.Helper()
		s := serve(t, documents(answering(t, ok, nil).addr, limited(oneAnHour, reject)))
		c := s.dial()
		c.say(get)
		c.expect(200)
		c.say(request)
		method := strings.Fields(request)[0]
		a, body := c.answer(method)
		var got []string
		for _, name := range []string{"RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"} {
			if a.Header[name] != nil || len(a.Header.Values(name)) > 0 {
				got = append(got, name)
			}
		}
		if a.StatusCode != status || a.Header.Get("Content-Type") != contentType || !cmp.Equal(got, sent) {
			t.Errorf("%s: %d %s with %v, want %d %s with %v", reject, a.StatusCode, a.Header.Get("Content-Type"), got, status, contentType, sent)
		}
		if (method == "HEAD") != (body == "") {
			t.Errorf("%s has the body %q", method, body)
		}
		if contentType != "application/problem+json" && !strings.HasPrefix(body, "Rate limit exceeded. ") {
			t.Errorf("text is %q", body)
		}
		if len(sent) > 3 {
			if a.Header.Get("X-RateLimit-Limit") != "1" || a.Header.Get("X-RateLimit-Remaining") != "0" || a.Header.Get("X-RateLimit-Reset") != "3600" {
				t.Errorf("%v", a.Header)
			}
		}
		c.open() // HEAD's answer ended where it should
	}
	const (
		asJSON = "application/problem+json"
		asText = "text/plain; charset=utf-8"
		none   = "backend: b"
	)
	standard := []string{"RateLimit-Policy", "RateLimit", "Retry-After"}
	legacy := []string{"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"}
	accept := func(a string) string { return strings.Replace(get, "\r\n\r\n", "\r\nAccept: "+a+"\r\n\r\n", 1) }

	f(none, get, 429, asJSON, standard...)
	f("reject: {headers: Standard}", get, 429, asJSON, standard...)
	f("reject: {headers: Legacy}", get, 429, asJSON, legacy...)
	f("reject: {headers: Both}", get, 429, asJSON, append(standard[:2:2], legacy...)...)
	f("reject: {headers: Off}", get, 429, asJSON)
	f("reject: {status: 503}", get, 503, asJSON, standard...)
	f(none, strings.Replace(get, "GET", "HEAD", 1), 429, asJSON, standard...)
	f(none, accept("text/plain"), 429, asText, standard...)
	f(none, accept("text/plain, */*"), 429, asJSON, standard...)
	f(none, accept("text/plain;q=0.5, application/json"), 429, asJSON, standard...)
	f(none, accept("text/html"), 429, asJSON, standard...)
}

func TestRefusalsWithoutAWait(t *testing.T) {
	t.Parallel()
	f := func(limits, reason string, status int, violated string) {
		t.Helper()
		s := serve(t, documents("127.0.0.1:1", limited(limits)))
		c := s.dial()
		c.say(get)
		a, body := c.expect(status)
		if a.Header.Get("Retry-After") != "" || strings.Contains(body, "violated-policies") != (violated != "") || !strings.Contains(body, violated) {
			t.Errorf("%s: %v %s", limits, a.Header, body)
		}
		s.ends(reason, status)
	}

	// Nothing is ever allowed.
	f("limits: [{name: none, requests: 0, per: 1h}]", "blocked", 403, "")
	// Waiting for somebody else's request has no time.
	t.Run("concurrency", func(t *testing.T) {
		asked, release := make(chan struct{}), make(chan struct{})
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			asked <- struct{}{}
			<-release
			c.say(ok)
		})
		s := serve(t, documents(b.addr, limited("concurrency: {max: 1}")))
		first, second := s.dial(), s.dial()
		first.say(get)
		within(t, "the first is in flight", asked)
		second.say(get)
		a, body := second.expect(429)
		if a.Header.Get("Retry-After") != "" || !strings.Contains(body, `"violated-policies":["concurrency"]`) {
			t.Errorf("%v %s", a.Header, body)
		}
		if n := s.metric("weir_inflight"); n != 1 {
			t.Errorf("%v in flight", n)
		}
		close(release)
		first.expect(200)
	})
}

// TestGateIsLeftOnEveryPath: whatever becomes of a request, the next one finds the gate open.
func TestGateIsLeftOnEveryPath(t *testing.T) {
	t.Parallel()
	f := func(reason string, request string, leave bool, answer string, closes bool) {
		t.Helper()
		asked := make(chan struct{}, 10)
		b := newBackend(t, func(c *peer) {
			for {
				head, err := c.head()
				if err != nil {
					return
				}
				if strings.HasPrefix(head, "GET /next ") {
					c.say(ok)
					continue
				}
				asked <- struct{}{}
				c.say(answer)
				if closes {
					return
				}
			}
		})
		timeouts := shortBackend(b.addr)
		if leave {
			timeouts = document("Backend", "b", `endpoints: [{address: "`+b.addr+`"}]`)
		}
		s := serve(t, documents("", timeouts, "bounds: {bodyBytes: 10}", limited("concurrency: {max: 1}")))
		c := s.dial()
		c.say(request)
		if leave {
			within(t, "the backend is asked", asked)
			_ = c.Close()
		} else {
			_, _, _ = c.tryAnswer("GET")
		}
		if line := s.logged(1)[0]; line.text("reason") != reason {
			t.Errorf("ended with %v, want %s", line, reason)
		}
		next := s.dial()
		next.say(strings.Replace(get, "GET / ", "GET /next ", 1))
		next.expect(200)
		s.logged(2)
		if n := s.metric("weir_inflight"); n != 0 {
			t.Errorf("%s: %v in flight", reason, n)
		}
	}
	const chunked = "POST / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\nTransfer-Encoding: chunked\r\n\r\n"

	f("passed", get, false, ok, false)
	f("backend_reset", get, false, "", true)
	f("backend_protocol", get, false, "x\r\n\r\n", false)
	f("backend_reset", get, false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na", true)
	f("response_timeout", get, false, "", false)
	f("body_idle_timeout", get, false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na", false)
	f("client_gone", get, true, "", false)
	f("client_gone", post(5, "a"), true, "", false)
	f("client_body", chunked+"x\r\n", false, "", false)
	f("client_body_too_long", chunked+"b\r\nhello world\r\n", false, "", false)
	f("bad_request", "GET / HTTP/1.1\r\n\r\n", false, "", false)
}

func TestUnknownTenants(t *testing.T) {
	t.Parallel()
	f := func(mode, request string, status int, reason, tenant string) {
		t.Helper()
		text := strings.Replace(documents(answering(t, ok, nil).addr, "timeouts: {request: 5s}",
			document("TenantPolicy", "gold", "tenants: {names: [acme]}"),
			document("TenantPolicy", "rest", "tenants: {unknown: true}", oneAnHour)), "unknownTenant: Shared", "unknownTenant: "+mode, 1)
		s := serve(t, text)
		for i := range 2 { // the second tells a limit from none
			c := s.dial() // a broken claim ends its connection
			c.say(request)
			c.answer("GET")
			s.logged(i + 1)
		}
		line := s.logged(2)[1]
		if line["status"] != float64(status) || line.text("reason") != reason || line.text("tenant") != tenant {
			t.Errorf("%s: %v; want %d %s for %q", mode, line, status, reason, tenant)
		}
	}
	nobody := strings.Replace(get, "X-Tenant-ID: acme\r\n", "", 1)
	stranger := strings.Replace(get, "acme", "stranger", 1)

	f("Deny", get, 200, "passed", "acme")
	f("Deny", nobody, 401, "no_identity", "")
	f("Deny", stranger, 403, "unknown_tenant", "stranger")
	f("Default", nobody, 429, "limited", "")
	f("Default", stranger, 429, "limited", "stranger")
	f("Default", get, 200, "passed", "acme")
	// A broken claim is nobody's, whatever the mode.
	f("Default", strings.Replace(get, "X-Tenant-ID: acme\r\n", "X-Tenant-ID: acme\r\nx-tenant-id: acme\r\n", 1), 400, "bad_request", "")
}

func TestUnknownTenantsShareOneBucket(t *testing.T) {
	t.Parallel()
	s := serve(t, documents(answering(t, ok, nil).addr, limited(oneAnHour)))
	nobody := strings.Replace(get, "X-Tenant-ID: acme\r\n", "", 1)
	a, b := s.dial(), s.dial()
	a.say(nobody)
	a.expect(200)
	b.say(nobody)
	b.expect(429)
}

func TestUnauthenticatedAnswerSaysHow(t *testing.T) {
	t.Parallel()
	s := serve(t, strings.Replace(documents("127.0.0.1:1"), "Shared", "Deny", 1))
	c := s.dial()
	c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if a, _ := c.expect(401); a.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("%v", a.Header)
	}
}

// TestIdentityThroughTheWire: each source of identity, and the one field that tells the backend.
func TestIdentityThroughTheWire(t *testing.T) {
	t.Parallel()
	f := func(identity, request, tenant string) {
		t.Helper()
		got := make(chan string, 1)
		b := answering(t, ok, got)
		s := serveSnapshot(t, strings.Replace(documents(b.addr), "[{header: X-Tenant-ID, trust: any}]", identity, 1), func(s *policy.Snapshot) {
			if strings.Contains(identity, "apiKey") {
				s.Sidecar.APIKeys = []policy.APIKeyTable{{sha256.Sum256([]byte("s3cret")): "acme"}}
			}
		})
		c := s.dial()
		c.say(request)
		c.expect(200)
		head := within(t, "the backend has it", got)
		var want []string
		if tenant != "" {
			want = []string{tenant}
		}
		if diff := cmp.Diff(want, fields(head, "X-Tenant-ID")); diff != "" {
			t.Errorf("%s: %s", identity, diff)
		}
		if line := s.ends("passed", 200); line.text("tenant") != tenant {
			t.Errorf("%s: %v", identity, line)
		}
	}
	const evil = "X-Tenant-ID: evil\r\n"

	f("[{header: X-Tenant-ID, trust: any}]", get, "acme")
	f("[{header: X-Tenant-ID}]", get, "") // not from a peer that is not trusted
	f(`[{host: "{tenant}.example.com"}]`, "GET / HTTP/1.1\r\nHost: acme.example.com\r\n"+evil+"\r\n", "acme")
	f(`[{path: "/t/{tenant}/"}]`, "GET /t/acme/x HTTP/1.1\r\nHost: h\r\n"+evil+"\r\n", "acme")
	f(`[{clientCIDR: [{cidr: 127.0.0.0/8, tenant: acme}]}]`, "GET / HTTP/1.1\r\nHost: h\r\n"+evil+"\r\n", "acme")
	f(`[{apiKey: {keysFile: keys}}]`, "GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: s3cret\r\n"+evil+"\r\n", "acme")
}

func TestRouting(t *testing.T) {
	t.Parallel()
	named := func(name string) *backend {
		return answering(t, "HTTP/1.1 200 OK\r\nContent-Length: "+strconv.Itoa(len(name))+"\r\n\r\n"+name, nil)
	}
	backends := ""
	for _, name := range []string{"main", "gold", "next", "api"} {
		backends += document("Backend", name, `endpoints: [{address: "`+named(name).addr+`"}]`)
	}
	s := serve(t, documents("", backends,
		document("Route", "all", "match: [{path: /*}]", "backend: main"),
		document("Route", "api", "match: [{path: /api/*}]", "backend: api"),
		document("Route", "split", "match: [{path: /split}]", "split: [{backend: main, weight: 1}, {backend: next, weight: 1, tenants: [pinned]}]"),
		document("TenantPolicy", "gold", "tenants: {names: [rich]}", "backend: gold"),
		document("TenantPolicy", "all", "tenants: {any: true}")))
	c := s.dial()
	ask := func(path, tenant string) string {
		t.Helper()
		c.say("GET " + path + " HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: " + tenant + "\r\n\r\n")
		_, body := c.expect(200)
		return body
	}
	f := func(path, tenant, want string) {
		t.Helper()
		if got := ask(path, tenant); got != want {
			t.Errorf("%s of %s went to %s, want %s", path, tenant, got, want)
		}
	}

	f("/", "acme", "main")
	f("/api/x", "acme", "api")
	f("/", "rich", "gold") // tenant routing
	f("/split", "rich", "gold")
	f("/split", "pinned", "next")
	// A split by weight: a tenant stays where it is, and both get their part.
	count := map[string]int{}
	for i := range 200 {
		tenant := "t" + strconv.Itoa(i)
		where := ask("/split", tenant)
		count[where]++
		f("/split", tenant, where)
	}
	if count["main"] < 60 || count["next"] < 60 || count["main"]+count["next"] != 200 {
		t.Errorf("split into %v", count)
	}
}

func TestNoRoute(t *testing.T) {
	t.Parallel()
	s := serve(t, documents("127.0.0.1:1", document("Route", "api", "match: [{path: /api/*}]", "backend: b")))
	c := s.dial()
	c.say(get)
	c.expect(404)
	if line := s.ends("no_route", 404); line.text("route") != "" || line["backend"] != nil {
		t.Errorf("%v", line)
	}
}

// TestEndpointsGetRequestsByTheirLoad: a request goes where the fewest are in flight.
func TestEndpointsGetRequestsByTheirLoad(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hanging := func(c *peer) {
		for {
			if _, err := c.head(); err != nil {
				return
			}
			<-release
			c.say(ok)
		}
	}
	a, b := newBackend(t, hanging), newBackend(t, hanging)
	s := serve(t, documents("", document("Backend", "b", `endpoints: [{address: "`+a.addr+`"}, {address: "`+b.addr+`"}]`)))
	clients := make([]*peer, 10)
	for i := range clients {
		clients[i] = s.dial()
		clients[i].say(get)
		until(t, "it is asked", func() bool { return a.connections()+b.connections() == i+1 })
	}
	if a.connections() != 5 || b.connections() != 5 {
		t.Errorf("%d and %d, want 5 each", a.connections(), b.connections())
	}
	close(release)
	for _, c := range clients {
		c.expect(200)
	}
}

func TestUnixSockets(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "weir")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	got := make(chan string, 1)
	b := newBackendOn(t, "unix", dir+"/b", func(c *peer) {
		for {
			head, _, err := c.request()
			if err != nil {
				return
			}
			got <- head
			c.say(ok)
		}
	})
	s := serve(t, strings.Replace(documents(b.addr), "127.0.0.1:0", "unix:"+dir+"/p", 1))
	c := s.dial()
	c.say(get)
	c.expect(200)
	// The peer has no address to pass on.
	if head := within(t, "the backend has it", got); len(fields(head, "X-Forwarded-For")) > 0 {
		t.Errorf("%q", head)
	}
	if line := s.ends("passed", 200); line.text("client") != "" || line.text("endpoint") != dir+"/b" {
		t.Errorf("%v", line)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/p"); err == nil {
		t.Error("the socket is left behind")
	}
}
