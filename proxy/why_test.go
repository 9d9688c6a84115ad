package proxy

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"weir/admit"
)

const whyDocuments = `---
apiVersion: weir.dev/v1alpha1
kind: Route
metadata: {name: pay}
spec: {match: [{path: /pay/*, methods: [POST]}], backend: b}
---
apiVersion: weir.dev/v1alpha1
kind: Route
metadata: {name: shop}
spec: {match: [{host: shop.example.com}, {path: /shop}], backend: b}
---
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata: {name: base}
spec:
  tenants: {any: true}
  limits:
  - {name: steady, requests: 20, per: 1h}
  - {name: pay, requests: 4, per: 30m, routes: [pay]}
  - {name: ceiling, requests: 100, per: 1h, bucket: Shared}
---
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata: {name: gold}
spec:
  tenants: {names: [acme]}
  limits:
  - {name: steady, requests: 30, per: 1h, burst: 10}
  - {name: trial, requests: 5, per: 1h, mode: Shadow}
  reject: {status: 503, headers: Both}
---
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata: {name: stopped}
spec:
  tenants: {names: [umbrella]}
  limits:
  - {name: stop, requests: 0}
`

// Of random requests, real ones over a connection, at a time that goes on between them only: what Why says before is what the
// client and the log see, and what it says of the request id of each denial is the same.
func TestWhyIsTheVerdict(t *testing.T) {
	t.Parallel()
	const requests = 200
	var now atomic.Int64
	now.Store(int64(time.Hour))
	snapshot := compile(t, documents(answering(t, ok, nil).addr, whyDocuments, "trustedProxies: [127.0.0.0/8]"))
	s := start(t, snapshot, Clock{Start: time.Now(), Now: now.Load}, nil)
	random := rand.New(rand.NewPCG(1, 5))
	one := func(of ...string) string { return of[random.IntN(len(of))] }
	denied := 0
	for n := range requests {
		now.Add(random.Int64N(int64(10 * time.Second)))
		id, tenant := fmt.Sprint("r", n), one("acme", "acme", "globex", "umbrella", "initech", "two words", "")
		q := admit.Inquiry{
			Method: one("GET", "POST"), Host: one("h", "shop.example.com"), Path: one("/pay/1", "/pay/%31", "/shop", "//shop?x=1", "/none", "/pay/../shop"),
			Headers: []string{"X-Request-ID: " + id}, Client: "127.0.0.1",
		}
		if tenant != "" {
			q.Headers = append(q.Headers, "X-Tenant-ID: "+tenant)
		}
		if n%7 == 0 {
			q.Headers = append(q.Headers, "X-Forwarded-For: 192.0.2.9")
		}
		before, err := s.Why(q)
		if err != nil {
			t.Fatal(err)
		}
		c := s.dial()
		c.say(q.Method, " ", q.Path, " HTTP/1.1\r\nHost: ", q.Host, "\r\nContent-Length: 0\r\n", strings.Join(q.Headers, "\r\n"), "\r\n\r\n")
		head, err := c.head()
		if err != nil {
			t.Fatal(err)
		}
		line := s.logged(n + 1)[n]
		said := func(key string) string {
			text, _ := line[key].(string)
			return text
		}
		shadow := "/"
		if before.Shadow != nil {
			shadow = before.Shadow.Policy + "/" + before.Shadow.Limit
		}
		v := &before.Verdict
		want := []string{said("tenant"), said("route"), said("path"), said("client"), said("reason"), said("policy"), said("limit"), cmp.Or(said("shadow"), "/")}
		got := []string{before.Identity.Tenant, before.Route.Name, before.Request.Path, before.Request.Client, v.Reason, v.Policy, v.Limit, shadow}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Fatalf("request %d %+v (-logged +explained):\n%s\n%s", n, q, diff, before.Text())
		}
		if v.Passes {
			if said("backend") != before.Backend.Name {
				t.Errorf("request %d went to %s, explained was %s", n, said("backend"), before.Backend.Name)
			}
			continue
		}
		denied++
		if status := fmt.Sprintf("HTTP/1.1 %d ", v.Status); !strings.HasPrefix(head, status) {
			t.Fatalf("request %d: %q, want %s", n, head, status)
		}
		for _, told := range v.Headers {
			name, value, _ := strings.Cut(told, ": ")
			if name != "Retry-After" {
				if diff := gocmp.Diff(value, strings.Join(fields(head, name), ", ")); diff != "" {
					t.Errorf("request %d: %s (-explained +told):\n%s", n, name, diff)
				}
			} else if said, least := number(t, field(head, name)), number(t, value); said < least || said > least*103/100+1 { // up to 3 % are chance
				t.Errorf("request %d: Retry-After %d, explained was %d", n, said, least)
			}
		}
		now.Add(int64(time.Hour)) // what is remembered does not change
		after, err := s.Why(admit.Inquiry{RequestID: id})
		now.Add(-int64(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		before.Recorded, before.RequestID = true, id
		before.Tenant.Cell, before.Route.Match, before.Route.Before, before.Route.Why = "", "", "", "" // not remembered
		if diff := gocmp.Diff(before, after); diff != "" {
			t.Errorf("request %d (-explained before +remembered):\n%s", n, diff)
		}
	}
	if denied < requests/4 || denied > requests*9/10 {
		t.Errorf("%d of %d were denied: the test shows too little", denied, requests)
	}
}

func TestWhyErrors(t *testing.T) {
	t.Parallel()
	s := serve(t, documents(answering(t, ok, nil).addr))
	f := func(q admit.Inquiry, want string) {
		t.Helper()
		if _, err := s.Why(q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", q, err, want)
		}
	}

	// A path that is none, or that no proxy takes.
	f(admit.Inquiry{}, `cannot use path "": want one that begins with /`)
	f(admit.Inquiry{Path: "pay"}, `cannot use path "pay": want one that begins with /`)
	f(admit.Inquiry{Path: "/%zz"}, "is refused with 400 as bad_escape")
	f(admit.Inquiry{Path: "/../.."}, "is refused with 400")
	f(admit.Inquiry{Path: "/a b"}, "is refused with 400")
	f(admit.Inquiry{Path: "/a\r\nX: y"}, "line break")
	// A method, host and header likewise.
	f(admit.Inquiry{Path: "/", Method: "TRACE"}, "is refused with 405 as method_not_allowed")
	f(admit.Inquiry{Path: "/", Method: "G ET"}, "is refused with 400")
	f(admit.Inquiry{Path: "/", Host: "a b"}, "is refused with 400 as bad_host")
	f(admit.Inquiry{Path: "/", Headers: []string{"nothing"}}, `cannot use header "nothing": want Name: value`)
	f(admit.Inquiry{Path: "/", Headers: []string{"A: b\nC: d"}}, "line break")
	f(admit.Inquiry{Path: "/", Headers: []string{"A: b\r\n C: d"}}, "line break")
	// A client that is no address, a tenant that can be none.
	f(admit.Inquiry{Path: "/", Client: "localhost"}, `cannot use client "localhost": want an IP address`)
	f(admit.Inquiry{Path: "/", Tenant: "two words"}, `cannot use tenant "two words": want 1 to 128 bytes of visible ASCII`)
	// An id that nobody was told.
	f(admit.Inquiry{RequestID: "none"}, `request "none" is not among the last 1024 denials`)
}

// Documents that nobody runs: every bucket is full, and the trace says so.
func TestWhyOf(t *testing.T) {
	trace, err := WhyOf(compile(t, documents("127.0.0.1:1", whyDocuments)), SystemClock(), admit.Inquiry{Tenant: "acme", Path: "/pay/1", Method: "POST"})
	if err != nil {
		t.Fatal(err)
	}
	if !trace.Verdict.Passes || trace.Route.Name != "pay" || len(trace.Notes) != 1 {
		t.Errorf("unexpected trace:\n%s", trace.Text())
	}
	for _, l := range trace.Limits {
		if l.Level != nil && l.Level.Available != l.Burst {
			t.Errorf("%s/%s has %d of %d", l.Policy, l.Name, l.Level.Available, l.Burst)
		}
	}
}

// What breaks HTTP was never decided on, and is not remembered as a denial; a claim of a tenant that is none was.
func TestOnlyDecisionsAreRemembered(t *testing.T) {
	t.Parallel()
	s := serve(t, documents(answering(t, ok, nil).addr, "trustedProxies: [127.0.0.0/8]"))
	n := 0
	f := func(request string, status int, want bool) {
		t.Helper()
		n++
		c := s.dial()
		c.say(request)
		head, err := c.head()
		if err != nil || !strings.HasPrefix(head, fmt.Sprint("HTTP/1.1 ", status)) {
			t.Fatalf("%q %v, want %d", head, err, status)
		}
		id := field(head, "X-Request-Id")
		s.logged(n)
		if _, err := s.Why(admit.Inquiry{RequestID: id}); (err == nil) != want {
			t.Errorf("%q: remembered %v, want %v", request, err == nil, want)
		}
	}

	f("GET / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: a b\r\nX-Request-ID: mine\r\n\r\n", 400, true)
	f("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, false)
	f("GET / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\n\r\n", 200, false)
}
