package admit

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"weir/policy"
)

// documents draws a set of documents over few names, so that rules meet often. Two sets of one seed have the same shape and
// other numbers now and then.
type documents struct{ *rand.Rand }

func (d documents) one(of ...string) string { return of[d.IntN(len(of))] }

func (d documents) lines() string {
	var b strings.Builder
	var sources []string
	for range 1 + d.IntN(3) {
		sources = append(sources, d.one("{header: X-Tenant-ID, trust: any}", "{header: X-Proxied}", `{host: "{tenant}.example.com"}`, `{path: "/t/{tenant}/"}`,
			`{spiffe: {pathPattern: "/ns/{tenant}/*"}}`, "{clientCIDR: [{cidr: 10.1.0.0/16, tenant: acme}]}", "{apiKey: {header: X-API-Key, keysFile: keys}}"))
	}
	fmt.Fprintf(&b, "Sidecar weir {unknownTenant: %s, trustedProxies: [192.0.2.0/24], identity: [%s]}\n", d.one("Deny", "Default", "Shared"), strings.Join(sources, ", "))
	for _, name := range []string{"main", "other", "third"} {
		capacity := d.one("", "", ", capacity: {concurrency: 1}", ", capacity: {concurrency: 2, queue: 1, queueTimeout: 2s}", ", capacity: {concurrency: 1, queue: 3, queueTimeout: 5s}")
		fmt.Fprintf(&b, "Backend %s {endpoints: [{address: 127.0.0.1:9000}]%s}\n", name, capacity)
	}
	for _, name := range []string{"pay", "read", "rest"} {
		to := d.one("backend: main", "backend: other", "split: [{backend: main, weight: 3}, {backend: other, weight: 1}, {backend: third, weight: 0, tenants: [acme, eu-2]}]")
		match := d.one("path: /pay, methods: [POST]", "path: /pay/*", "host: api.example.com", `host: "*.example.com", path: /t/*`, "headers: {X-Beta: yes}", "path: /*")
		cost := d.one("", "", ", cost: {request: 2}", ", cost: {request: 0, header: X-Cost}", ", cost: {header: X-Cost}")
		gives := d.one("", "", ", criticality: NonCore", ", criticality: NonCore, fallback: {status: 203, staleFor: 1m}")
		fmt.Fprintf(&b, "Route %s {match: [{%s}, {path: /%s}], %s%s%s}\n", name, match, name, to, cost, gives)
	}
	for i := range d.IntN(4) {
		judges := d.one(", qpsBaseline: {sample: 2s, baseline: 20s, deviation: 20%, periods: 1, recover: 2, minRate: 0, direction: Both}",
			", failures: {minRequests: 4, ratio: 40%}, open: {for: 5s, maxFor: 20s, probes: 2, ramp: 20s}",
			", failures: {minRequests: 4, ratio: 40%, consecutive: 2}, open: {for: 20s, probes: 1, ramp: 0s}, qpsBaseline: {sample: 1s, baseline: 10s, periods: 1, minRate: 1}")
		target := d.one("Backend, name: main", "Backend, name: other", "Route, name: pay", "Route, name: rest")
		fmt.Fprintf(&b, "BreakerPolicy b%d {target: {kind: %s}, perTenant: %s%s}\n", i, target, d.one("false", "false", "true"), judges)
	}
	for i := range 1 + d.IntN(6) {
		selector := d.one("names: [acme]", "names: [acme, eu-1]", `match: "eu-*"`, `match: "*-1"`, "any: true", "any: true", "unknown: true")
		var fields, limits []string
		for _, name := range []string{"steady", "hourly", "ceiling"}[:d.IntN(4)] {
			if d.IntN(9) == 0 {
				limits = append(limits, fmt.Sprintf("{name: %s, bytes: 1KiB, mode: %s}", name, d.one("Enforce", "Shadow")))
				continue
			}
			limits = append(limits, fmt.Sprintf("{name: %s, requests: %s, per: %s, bucket: %s, mode: %s, final: %s%s}", name, d.one("1", "2", "3", "5", "9", "0"),
				d.one("1s", "1m", "1h"), d.one("Tenant", "Tenant", "TenantAndRoute", "Shared"), d.one("Enforce", "Enforce", "Shadow"), d.one("false", "false", "true"),
				d.one("", ", routes: [pay]", ", routes: [pay, rest]")))
		}
		fields = append(fields, "tenants: {"+selector+"}", "limits: ["+strings.Join(limits, ", ")+"]")
		if d.IntN(3) == 0 {
			fields = append(fields, fmt.Sprintf("concurrency: {max: %d%s}", 1+d.IntN(3), d.one("", ", queue: 1, queueTimeout: 1s", ", queue: 2, queueTimeout: 5s")))
		}
		if d.IntN(4) == 0 {
			fields = append(fields, fmt.Sprintf("weight: %d", 1+d.IntN(3)))
		}
		if d.IntN(4) == 0 {
			fields = append(fields, "backend: "+d.one("main", "other", "third"))
		}
		if d.IntN(4) == 0 {
			fields = append(fields, d.one("reject: {status: 503}", "reject: {headers: Both}"))
		}
		fmt.Fprintf(&b, "TenantPolicy p%d {%s}\n", i, strings.Join(fields, ", "))
	}
	return b.String()
}

// build is Build over such documents; API keys are k and a tenant.
func (d documents) build(t *testing.T, prev *Table, now int64) *Table {
	t.Helper()
	snap := snapshotOf(t, d.lines())
	var keys []policy.Keys
	for range snap.Sidecar.KeyFiles() {
		keys = append(keys, policy.Keys{API: policy.APIKeyTable{sha256.Sum256([]byte("k-acme")): "acme", sha256.Sum256([]byte("k-eu")): "eu-1"}})
	}
	snap = snap.WithKeys(keys)
	table, err := Build(prev, snap, now, Options{AnyTenants: ways})
	if err != nil {
		t.Fatal(err)
	}
	table.Adopt(now)
	return table
}

// request draws a request that these documents may have something to say to.
func (d documents) request() *Request {
	tenant := d.one("acme", "acme", "globex", "eu-1", "eu-2", "us-1", fmt.Sprint("x", d.IntN(60)), "bad tenant", "")
	fields := fieldList{}
	if d.IntN(4) > 0 {
		fields = append(fields, [2]string{"X-Tenant-ID", tenant})
	}
	if d.IntN(4) == 0 {
		fields = append(fields, [2]string{"X-Proxied", tenant})
	}
	if d.IntN(5) == 0 {
		fields = append(fields, [2]string{"X-API-Key", d.one("k-acme", "k-eu", "k-wrong")})
	}
	if d.IntN(3) == 0 {
		fields = append(fields, [2]string{"X-Beta", d.one("yes", "no")})
	}
	if d.IntN(3) == 0 {
		fields = append(fields, [2]string{"X-Cost", d.one("0", "1", "3", "12", "much")})
	}
	if d.IntN(30) == 0 {
		fields = append(fields, fields...)
	}
	peer := netip.MustParseAddr(d.one("192.0.2.1", "198.51.100.7", "10.1.2.3"))
	return &Request{
		Method: []byte(d.one("GET", "POST")), Host: []byte(d.one("api.example.com", "acme.example.com", "h", "eu-2.example.com:8080")),
		Path: []byte(d.one("/pay", "/pay/1", "/read", "/rest", "/t/acme/x", "/t/globex/", "/")), Header: fields, Peer: peer, Client: peer,
		Random: d.Uint32(), SPIFFE: d.one("", "", "spiffe://example.org/ns/eu-2/sa", "spiffe://example.org/other", BrokenSPIFFE),
	}
}

// outcome draws how a request ends that was let through.
func (d documents) outcome(now int64) Outcome {
	reason := Passed
	if d.IntN(6) == 0 {
		reason = BackendReset
	}
	status, _ := strconv.Atoi(d.one("200", "200", "200", "500"))
	return Outcome{Reason: reason, Status: status, Now: now, Latency: time.Millisecond}
}

// said is what Match and Decide come to, in the words of a trace.
func (t *Table) said(m *Match, v *Verdict) [9]string {
	backend := ""
	if m.Backend >= 0 {
		backend = t.snapshot.Backends[m.Backend].Name
	}
	limit := func(l *Limit) string {
		if l == nil {
			return "/"
		}
		return l.Policy() + "/" + l.Name()
	}
	known := m.Tenant != t.nobody && m.Tenant != t.unknown
	reason := v.Reason.String()
	if v.Waits() {
		reason = "waits for tenant"
		if v.AtBackend() {
			reason = "waits for backend"
		}
	}
	return [9]string{
		string(m.Identity), fmt.Sprint(m.Source, known), m.Route.Name(), backend, reason, limit(v.Limit), v.RetryAfter.String(), limit(v.Shadow), v.Breaker,
	}
}

func (t *Trace) said() [9]string {
	shadow, reason := "/", t.Verdict.Reason
	if t.Verdict.WaitsFor != "" {
		reason = "waits for " + t.Verdict.WaitsFor
	}
	if t.Shadow != nil {
		shadow = t.Shadow.Policy + "/" + t.Shadow.Limit
	}
	return [9]string{
		t.Identity.Tenant, fmt.Sprint(t.Identity.Source, t.Tenant.Known), t.Route.Name, t.Backend.Name, reason,
		t.Verdict.Policy + "/" + t.Verdict.Limit, t.Verdict.RetryAfter.String(), shadow, t.Verdict.Breaker,
	}
}

// For 100,000 requests over hundreds of random sets of documents, of one of which each time follows the other, what Explain says is
// what Match and Decide then do. Requests stay in flight for a while, and time goes on.
func TestExplainIsTheVerdict(t *testing.T) {
	const sets, swaps, requests = 125, 4, 200
	reasons := make(map[string]int)
	for set := range sets {
		d := documents{rand.New(rand.NewPCG(uint64(set), 4))}
		now := int64(time.Hour)
		var table *Table
		type open struct {
			table *Table
			m     Match
			v     Verdict
		}
		var flying []open
		for swap := range swaps {
			table = d.build(t, table, now)
			for n := range requests {
				now += d.Int64N(int64(time.Second))
				table.Tick(now, d.Float64, func(c BreakerChange) { reasons[c.From.String()+" to "+c.To.String()]++ })
				req := d.request()
				q := Question{Request: req}
				trace := table.Explain(now, q)
				if n%10 == 0 {
					if diff := cmp.Diff(trace, table.Explain(now, q)); diff != "" {
						t.Fatalf("set %d, swap %d, request %d: asked again, another answer:\n%s", set, swap, n, diff)
					}
				}
				m := table.Match(now, req)
				v := table.Decide(now, &m)
				if want, got := table.said(&m, &v), trace.said(); want != got {
					t.Fatalf("set %d, swap %d, request %d: Explain and Decide differ (-decided +explained):\n%s\n%s", set, swap, n, cmp.Diff(want, got), trace.Text())
				}
				for _, b := range trace.Breakers {
					reasons[b.Level+" says "+b.Says]++
				}
				if want := table.statusOf(&m, v.Reason); !v.Waits() && trace.Verdict.Status != want {
					t.Fatalf("set %d, request %d: status %d, want %d", set, n, trace.Verdict.Status, want)
				}
				reasons[trace.said()[4]]++
				if v.Shadow != nil {
					reasons["shadow"]++
				}
				if flying = append(flying, open{table, m, v}); len(flying) > 3 {
					end := d.IntN(len(flying))
					o := &flying[end]
					outcome := Outcome{Reason: o.v.Reason, Now: now}
					if o.v.Reason == Passed {
						outcome = d.outcome(now)
					}
					o.table.Settle(&o.m, &o.v, outcome)
					flying = append(flying[:end], flying[end+1:]...)
				}
				for i := range flying {
					if o := &flying[i]; o.v.Waits() {
						o.table.Resume(now, &o.m, &o.v)
					}
				}
			}
		}
	}
	t.Log(reasons)
	for _, word := range []string{"passed", "no_identity", "unknown_tenant", "no_route", "limited", "blocked", "too_costly", "concurrency", "bad_request",
		"overload", "waits for tenant", "waits for backend", "shed", "breaker_open", "normal says pass", "normal says refuse", "degraded says pass",
		"degraded says shed", "half_open says probe", "half_open says refuse", "open says refuse"} {
		if reasons[word] < 100 {
			t.Errorf("only %d requests were %s: the documents show too little", reasons[word], word)
		}
	}
	if reasons["shadow"] < 100 {
		t.Errorf("only %d requests would have been refused in shadow", reasons["shadow"])
	}
}

// Whatever is explained, nothing has happened: no cell, no plan, no token, no count.
func TestExplainChangesNothing(t *testing.T) {
	r := newRigOf(t, Options{AnyTenants: ways}, `
		TenantPolicy all {tenants: {any: true}, limits: [{name: steady, requests: 5, per: 1h}, {name: ceiling, requests: 100, per: 1h, bucket: Shared}]}
		TenantPolicy eu {tenants: {match: "eu-*"}, limits: [{name: steady, requests: 1, per: 1h, mode: Shadow}]}
		TenantPolicy gold {tenants: {names: [acme]}}
		Route all {backend: main}
		BreakerPolicy own {target: {kind: Backend, name: main}, perTenant: true, failures: {minRequests: 1}}
		BreakerPolicy main {target: {kind: Backend, name: main}, failures: {minRequests: 1}}`)
	for _, tenant := range []string{"acme", "globex"} {
		r.wantPasses(tenant, 3, 3)
	}
	metrics := func() string {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(NewCollector(func() *Table { return r.table }))
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(families)
	}
	before, plans := metrics(), len(r.table.plans)
	for n := range 100 {
		for _, tenant := range []string{"acme", "globex", "", "eu-1", fmt.Sprint("new-", n)} {
			r.table.Explain(r.now, Question{Request: requestOf(tenant, "/")})
		}
	}
	if after := metrics(); after != before {
		t.Errorf("the metrics have changed from\n%s\nto\n%s", before, after)
	}
	if cells := r.table.OnDemand(r.now).Cells; cells != 1 || len(r.table.plans) != plans {
		t.Errorf("%d cells on demand and %d plans, want 1 and %d", cells, len(r.table.plans), plans)
	}
	if n := r.table.tenantBreakers(); n != 2 {
		t.Errorf("%d breakers of tenants, want 2", n)
	}
	r.wantPasses("globex", 5, 2)
}

// Races with requests and changes of policy: Explain reads what they write.
func TestExplainRaces(t *testing.T) {
	const documents = `TenantPolicy p {tenants: {any: true}, concurrency: {max: 2}, limits: [{name: steady, requests: 5, per: 1s}, {name: ceiling, requests: 9, per: 1s, bucket: Shared}]}`
	r := newRigOf(t, Options{AnyTenants: ways}, documents)
	table := r.table
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 2000 {
			m := table.Match(r.now, requestOf(fmt.Sprint("t", n%40), "/"))
			v := table.Decide(r.now, &m)
			table.Settle(&m, &v, Outcome{Reason: v.Reason})
		}
	}()
	for n := range 2000 {
		if n%500 == 499 {
			r.swap(documents)
		}
		r.table.Explain(r.now, Question{Request: requestOf(fmt.Sprint("t", n%40), "/")})
	}
	<-done
}

const everyRule = `
	Sidecar weir {trustedProxies: [192.0.2.0/24], identity: [{apiKey: {header: X-API-Key, keysFile: keys}}, {header: X-Tenant-ID, trust: any}]}
	TenantPolicy base {tenants: {any: true}, concurrency: {max: 9}, limits: [{name: steady, requests: 10, per: 1h}, {name: ceiling, requests: 100, per: 1h, bucket: Shared, final: true}]}
	TenantPolicy gold {tenants: {names: [acme]}, concurrency: {max: 5}, backend: other, limits: [{name: steady, requests: 2, per: 1h}, {name: exports, requests: 1, per: 1h, routes: [export]}]}
	TenantPolicy trial {tenants: {match: "a*"}, limits: [{name: steady, requests: 1, per: 2h, mode: Shadow}]}
	Route export {match: [{path: /export/*}], backend: main}
	Route pay {match: [{path: /pay, methods: [POST, PUT]}, {path: /pay/*}], backend: main}
	Route rest {backend: main}
	Backend main {endpoints: [{address: 127.0.0.1:9000}]}
	Backend other {endpoints: [{address: 127.0.0.1:9001}]}`

// everyRig is a rig of everyRule, with the table of keys that its Sidecar asks for.
func everyRig(t *testing.T) *rig {
	t.Helper()
	snap := snapshotOf(t, everyRule).WithKeys([]policy.Keys{{API: policy.APIKeyTable{sha256.Sum256([]byte("k-acme")): "acme"}}})
	r := &rig{TB: t, now: int64(time.Hour)}
	var err error
	if r.table, err = Build(nil, snap, r.now, Options{}); err != nil {
		t.Fatal(err)
	}
	r.table.Adopt(r.now)
	return r
}

func TestExplainText(t *testing.T) {
	r := everyRig(t)
	f := func(q Question, want string) {
		t.Helper()
		trace := r.table.Explain(r.now, q)
		if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(trace.Text())); diff != "" {
			t.Errorf("unexpected text (-want +got):\n%s", diff)
		}
	}
	post := func(tenant string) *Request {
		req := requestOf(tenant, "/pay")
		req.Method = []byte("POST")
		return req
	}

	// A known tenant: every rule with its place, what took its place and why.
	for range 2 {
		r.try("acme", "/pay")
	}
	f(Question{Request: post("acme")}, `
request   POST h/pay from 203.0.113.7
identity  acme: header X-Tenant-ID, spec.identity[1] of the Sidecar (set.yaml:2:1)
tenant    known, under gold (names), trial (match a*), base (any); 0 in flight of 5; buckets: its own
route     pay (set.yaml:27:1): spec.match[0]: path /pay, methods POST PUT; before rest, since its path is more specific
backend   other: TenantPolicy gold (set.yaml:15:66)

LIMIT         RATE    LEFT       WRITTEN AT
gold/steady   2/1h    0 of 2     set.yaml:15:82   refuses
gold/exports  1/1h    -          set.yaml:15:120  not on this route, on export
trial/steady  1/2h    0 of 1     set.yaml:20:41   in shadow; would refuse
base/steady   10/1h   -          set.yaml:10:62   replaced by gold (set.yaml:15:82): it is more specific
base/ceiling  100/1h  98 of 100  set.yaml:10:101  bucket Shared; lets pass

TERM               POLICY  WRITTEN AT
concurrency max 5  gold    set.yaml:15:47  stands
concurrency max 9  base    set.yaml:10:43  replaced by gold (set.yaml:15:47): it is more specific
backend other      gold    set.yaml:15:66  stands

verdict    refused: limited by gold/steady, status 429, passes in 30m
           Retry-After: 1800
           RateLimit-Policy: "steady";q=2;w=3600, "ceiling";q=100;w=3600, "concurrency";q=5;qu="concurrent-requests"
           RateLimit: "steady";r=0;t=1800, "ceiling";r=98;t=3528, "concurrency";r=5
in shadow  refused: limited by trial/steady, passes in 2h`)

	// A tenant that is given, and has no cell yet.
	f(Question{Request: requestOf("", "/export/a"), Tenant: "globex"}, `
request   GET h/export/a from 203.0.113.7
identity  globex: given, so no source was asked
tenant    known, under base (any); 0 in flight of 9; buckets: none yet
route     export (set.yaml:22:1): spec.match[0]: path /export/*; before rest, since its path is more specific
backend   main: the route's

LIMIT         RATE    LEFT       WRITTEN AT
base/steady   10/1h   10 of 10   set.yaml:10:62   lets pass
base/ceiling  100/1h  98 of 100  set.yaml:10:101  bucket Shared; lets pass

TERM               POLICY  WRITTEN AT
concurrency max 9  base    set.yaml:10:43  stands

verdict  passes`)

	// Nothing that says who it is, and something that does not.
	f(Question{Request: requestOf("", "/")}, `
request   GET h/ from 203.0.113.7
identity  none: nothing was found by apiKey X-API-Key, header X-Tenant-ID
tenant    unknown
route     rest (set.yaml:32:1): every request

no limits

verdict  refused: no_identity, status 401`)
	wrong := requestOf("", "/")
	wrong.Header = fieldList{{"X-API-Key", "k-wrong"}}
	f(Question{Request: wrong}, `
request   GET h/ from 203.0.113.7
identity  none: what is there is no tenant; apiKey X-API-Key, spec.identity[0] of the Sidecar (set.yaml:2:1)
tenant    unknown
route     rest (set.yaml:32:1): every request

no limits

verdict  refused: no_identity, status 401`)
}

// The JSON of a trace is what programs rely on. It has no key, token or header but the tenant.
func TestExplainJSON(t *testing.T) {
	r := everyRig(t)
	req := requestOf("", "/pay")
	req.Header = fieldList{{"X-API-Key", "k-acme"}, {"Cookie", "secret"}}
	trace := r.table.Explain(r.now, Question{Request: req})
	text := string(trace.JSON())
	for _, want := range []string{
		`"tenant": "acme"`, `"kind": "apiKey"`, `"origin": "set.yaml:15:82"`, `"per": "1h0m0s"`, `"state": "otherRoute"`, `"why": "it is more specific"`,
		`"available": 2`, `"passes": true`, `"reason": "passed"`, `"shadow": {`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
	for _, secret := range []string{"k-acme", "secret", "Cookie"} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is in\n%s", secret, text)
		}
	}
}

// Of two routes that take a request, which rule of the router let the first one win.
func TestWhyBefore(t *testing.T) {
	f := func(a, b, want string) {
		t.Helper()
		r := newRig(t, "TenantPolicy p {tenants: {any: true}}\nRoute a {backend: main, match: [{"+a+"}]}\nRoute b {backend: main, match: [{"+b+"}]}")
		req := requestOf("acme", "/pay/1")
		req.Host, req.Header = []byte("api.example.com"), fieldList{{"X-Tenant-ID", "acme"}, {"X-Beta", "1"}, {"X-Old", "1"}}
		if got := r.table.Explain(r.now, Question{Request: req}).Route; got.Name != "a" || got.Before != "b" || got.Why != want {
			t.Errorf("%s before %s: got %+v, want a before b since %s", a, b, got, want)
		}
	}

	f("host: api.example.com", `host: "*.example.com", path: /pay/1`, "its host is more specific")
	f(`host: "*.example.com"`, "path: /pay/1", "its host is more specific")
	f("path: /pay/1", "path: /pay/*", "its path is more specific")
	f("path: /pay/*", "path: /*", "its path is more specific")
	f("path: /*", "methods: [GET]", "its path is more specific")
	f(`headers: {X-Beta: "1", X-Old: "1"}`, `headers: {X-Beta: "1"}, methods: [GET]`, "it asks for more headers")
	f("methods: [GET]", "path: ''", "it names methods")
	f("methods: [GET]", "methods: [GET, POST]", "it is the first by name")
}

func TestSpanShort(t *testing.T) {
	f := func(d time.Duration, want string) {
		t.Helper()
		if got := Span(d).short(); got != want {
			t.Errorf("%v is written %s, want %s", d, got, want)
		}
	}

	f(0, "0s")
	f(1, "1µs")
	f(1500*time.Microsecond, "1.5ms")
	f(2*time.Second+1, "2.01s")
	f(59*time.Minute+59*time.Second+1, "1h")
	f(90*time.Minute, "1h30m")
	f(10*time.Minute, "10m")
	f(24*time.Hour, "24h")
}
