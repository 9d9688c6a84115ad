package admit

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// one is a random number that says nothing.
func one() float64 { return 0 }

// tick looks at the breakers and returns the changes of level, as "name from-to".
func (r *rig) tick() []string {
	var changes []string
	r.table.Tick(r.now, one, func(c BreakerChange) {
		text := fmt.Sprintf("%s %s-%s", c.Breaker, c.From, c.To)
		if c.Tenant != "" {
			text += " of " + c.Tenant
		}
		changes = append(changes, text)
	})
	slices.Sort(changes)
	return changes
}

// wantTick lets a second pass, and compares the changes of level that come with it.
func (r *rig) wantTick(want ...string) {
	r.Helper()
	r.wait(time.Second)
	if diff := cmp.Diff(want, r.tick()); diff != "" {
		r.Errorf("unexpected changes of level (-want +got):\n%s", diff)
	}
}

// end makes one whole request that ends so, if it passes.
func (r *rig) end(tenant, path string, o Outcome) Reason {
	m, v := r.open(tenant, path)
	if v.Reason != Passed {
		r.settle(m, v)
		return v.Reason
	}
	o.Now = r.now
	r.table.Settle(m, v, o)
	return Passed
}

// ends makes some.
func (r *rig) ends(n int, tenant, path string, o Outcome) {
	for range n {
		r.end(tenant, path, o)
	}
}

// level is that of the breaker of a policy, or of a tenant's own.
func (r *rig) level(name, tenant string) string {
	for _, s := range r.table.Breakers(r.now) {
		if s.Breaker == name && s.Tenant == tenant {
			return s.Level.String()
		}
	}
	return "none"
}

func (r *rig) wantLevel(name, tenant, want string) {
	r.Helper()
	if got := r.level(name, tenant); got != want {
		r.Errorf("%s of %q: unexpected level: got %s, want %s", name, tenant, got, want)
	}
}

var (
	good   = Outcome{Status: 200, Latency: time.Millisecond}
	failed = Outcome{Status: 500, Latency: time.Millisecond}
	reset  = Outcome{Reason: BackendReset, Status: 502}
)

const failing = `
	Backend main {endpoints: [{address: 127.0.0.1:9000}]}
	Backend other {endpoints: [{address: 127.0.0.1:9001}]}
	Route rest {backend: main}
	Route other {match: [{path: /other}], backend: other}
	TenantPolicy all {tenants: {any: true}, limits: [{name: steady, requests: 1000}, {name: none, requests: 0, routes: [other]}]}
	TenantPolicy less {tenants: {names: [small]}, limits: [{name: steady, requests: 1, per: 1h}]}
	BreakerPolicy main {target: {kind: Backend, name: main}, failures: {minRequests: 10, statuses: ["500"]}, open: {for: 5s, probes: 2, ramp: 0s}}`

// A breaker opens for all that goes to its target, lets probes through, and closes.
func TestBreakerOpens(t *testing.T) {
	r := newRig(t, failing)
	r.ends(18, "acme", "/", good)
	r.ends(2, "acme", "/", failed)
	r.want("acme", "/", Passed, "") // nothing is judged before the tick
	r.wantTick()                    // 2 of 21
	r.ends(1, "acme", "/", failed)
	r.wantTick("main normal-open")
	v := r.try("globex", "/")
	if v.Reason != BreakerOpen || v.Breaker != "main" || v.RetryAfter != 5*time.Second {
		t.Errorf("unexpected verdict: got %v of %q, retry after %v; want breaker_open of main, 5s", v.Reason, v.Breaker, v.RetryAfter)
	}
	r.wantAvailable("globex", "steady", 1000) // which its limits were not asked
	for range 4 {
		r.wantTick()
	}
	r.wantTick("main open-half_open")
	first, second := r.visit("acme"), r.visit("acme")
	first.is(Passed)
	second.is(Passed)
	r.want("acme", "/", BreakerOpen, "")
	first.settle()
	second.settle()
	r.wantTick("main half_open-normal")
	r.wantPasses("acme", 5, 5)
}

// Whoever nothing would let pass is told so, and one limit's denial does not hide the breaker.
func TestBreakerAndLimits(t *testing.T) {
	r := newRig(t, failing+`
	BreakerPolicy route {target: {kind: Route, name: other}, failures: {minRequests: 1}}`)
	r.want("small", "/", Passed, "")
	r.want("small", "/", Limited, "less/steady")
	r.ends(10, "acme", "/", reset)
	r.wantTick("main normal-open")
	r.want("small", "/", BreakerOpen, "")
	r.want("acme", "/other", Blocked, "all/none")
	// A probe is not spent on a request that its limits refuse.
	for range 4 {
		r.wantTick()
	}
	r.wantTick("main open-half_open")
	for range 5 {
		r.want("small", "/", Limited, "less/steady")
	}
	r.want("acme", "/", Passed, "")
	r.want("acme", "/", Passed, "")
	r.want("acme", "/", BreakerOpen, "")
}

// Behind an open breaker, who is blocked is told so, and that counts as a denial of the limit.
func TestBreakerAndBlocked(t *testing.T) {
	r := newRig(t, failing+"\nTenantPolicy none {tenants: {names: [gone]}, limits: [{name: none, requests: 0, routes: [rest]}]}")
	r.ends(10, "acme", "/", reset)
	r.wantTick("main normal-open")
	r.want("gone", "/", Blocked, "none/none")
	r.want("gone", "/", Blocked, "none/none")
	m := r.table.Match(r.now, requestOf("gone", "/"))
	for _, d := range r.table.Decisions(&m, nil) {
		if want := map[string]uint64{"none": 2}[d.Limit]; d.Deny != want || d.Allow != 0 {
			t.Errorf("%s: unexpected decisions: got %d allowed, %d denied; want 0 and %d", d.Limit, d.Allow, d.Deny, want)
		}
	}
}

// What is shed counts for the rate only as far as the tenant's limits would have let it pass.
func TestShedBeyondLimits(t *testing.T) {
	f := func(beyond func(r *rig)) {
		t.Helper()
		r := newRig(t, rates+"\nTenantPolicy one {tenants: {names: [one]}, concurrency: {max: 1}}")
		for range 10 {
			r.second(100, "acme", "/")
		}
		r.second(200, "acme", "/")
		r.second(200, "acme", "/")
		r.wantLevel("main", "", "degraded")
		for range 2 {
			beyond(r)
			r.second(100, "acme", "/")
		}
		r.wantLevel("main", "", "normal")
	}

	f(func(r *rig) { // its bucket is empty
		r.ends(10, "flood", "/", good)
		for range 1000 {
			r.want("flood", "/extra", Shed, "")
		}
	})
	f(func(r *rig) { // its gate is full
		m, v := r.open("one", "/")
		for range 1000 {
			r.want("one", "/extra", Shed, "")
		}
		r.settle(m, v)
	})
}

// Tenants for whom there is no room share a breaker as they share a cell, in Explain as well.
func TestBreakerOfThoseWithoutACell(t *testing.T) {
	r := newRigOf(t, Options{AnyTenants: ways}, strings.Replace(failing, "target:", "perTenant: true, target:", 1))
	for range ways {
		r.visit(fmt.Sprint("resident-", r.table.OnDemand(r.now).Cells)).is(Passed)
	}
	r.ends(20, "late", "/", failed)
	r.wantTick("main normal-open")
	if got := r.table.Explain(r.now, Question{Request: requestOf("later", "/")}).Verdict.Reason; got != "breaker_open" {
		t.Errorf("unexpected verdict: explained %s, want breaker_open", got)
	}
	r.want("later", "/", BreakerOpen, "")
}

// Of two breakers that turn a request away, open goes before shed, and the longer wait before the shorter. One that lets it pass
// gets its probe back.
func TestStrictestBreaker(t *testing.T) {
	f := func(want string, waits time.Duration, passes ...Verdict) {
		t.Helper()
		var v Verdict
		for _, p := range passes {
			v = stricter(v, p)
		}
		if v.Breaker != want || v.RetryAfter != waits {
			t.Errorf("unexpected verdict: got %q for %v, want %q for %v", v.Breaker, v.RetryAfter, want, waits)
		}
	}
	shed := Verdict{Reason: Shed, Breaker: "shed", RetryAfter: time.Hour}
	open := Verdict{Reason: BreakerOpen, Breaker: "open", RetryAfter: time.Second}
	longer := Verdict{Reason: BreakerOpen, Breaker: "longer", RetryAfter: time.Minute}
	f("open", time.Second, shed, open)
	f("open", time.Second, open, shed)
	f("longer", time.Minute, open, longer, shed)
	f("shed", time.Hour, shed, Verdict{Reason: Limited, RetryAfter: 2 * time.Hour})

	r := newRig(t, failing+`
	BreakerPolicy rest {target: {kind: Route, name: rest}, failures: {minRequests: 10, statuses: ["500"]}, open: {for: 20s, probes: 2, ramp: 0s}}`)
	r.ends(10, "acme", "/", failed)
	r.wantTick("main normal-open", "rest normal-open")
	for range 4 {
		r.wantTick()
	}
	r.wantTick("main open-half_open")
	for range 10 {
		if v := r.try("acme", "/"); v.Breaker != "rest" {
			t.Errorf("unexpected breaker: got %q, want rest", v.Breaker)
		}
	}
	for range 14 {
		r.wantTick()
	}
	r.wantTick("rest open-half_open")
	r.wantPasses("acme", 2, 2)
	r.wantTick("main half_open-normal", "rest half_open-normal")
}

// Whose fault it is: each of these ends many requests, and the breaker opens or does not.
func TestBlame(t *testing.T) {
	f := func(what string, o Outcome, want string) {
		t.Helper()
		r := newRig(t, strings.Replace(failing, "minRequests: 10", "minRequests: 10, slowerThan: 1s", 1))
		r.ends(20, "acme", "/", o)
		r.wait(time.Second)
		r.tick()
		if got := r.level("main", ""); got != want {
			t.Errorf("%s: unexpected level: got %s, want %s", what, got, want)
		}
	}

	f("answered", good, "normal")
	f("a status that is listed", failed, "open")
	f("one that is not", Outcome{Status: 503}, "normal")
	f("a status that is none", Outcome{Status: 999}, "normal")
	f("slow", Outcome{Status: 200, Latency: 1100 * time.Millisecond}, "open")
	f("as slow as it may be", Outcome{Status: 200, Latency: time.Second}, "normal")
	for _, r := range []Reason{BackendRefused, BackendReset, BackendProtocol, ConnectTimeout, ResponseTimeout, BodyIdleTimeout} {
		f(r.String(), Outcome{Reason: r, Status: r.Status()}, "open")
	}
	for _, r := range []Reason{NoEndpoint, PoolFull, Draining, Internal, ClientBody, ClientBodyTooLong, ClientTimeout, ClientGone, RequestTimeout} {
		f(r.String(), Outcome{Reason: r, Status: r.Status()}, "normal")
	}
	f("too long for its route, without an answer", Outcome{Reason: RequestTimeout, Status: 504, Awaited: time.Millisecond}, "open")
	f("left a backend that stalls", Outcome{Reason: ClientGone, Status: 499, Awaited: 1100 * time.Millisecond}, "open")
	f("left early", Outcome{Reason: ClientGone, Status: 499, Awaited: time.Second}, "normal")
	f("a WebSocket that broke off", Outcome{Reason: BackendReset, Status: 101, Latency: time.Millisecond}, "normal")
	f("a WebSocket that nobody used", Outcome{Reason: BodyIdleTimeout, Status: 101, Latency: time.Millisecond}, "normal")
}

const rates = `
	Backend main {endpoints: [{address: 127.0.0.1:9000}]}
	Route rest {backend: main}
	Route extra {match: [{path: /extra}], backend: main, criticality: NonCore}
	TenantPolicy all {tenants: {any: true}, limits: [{name: steady, requests: 1000}]}
	TenantPolicy flood {tenants: {names: [flood]}, limits: [{name: steady, requests: 10}]}
	BreakerPolicy main {target: {kind: Backend, name: main}, qpsBaseline: {sample: 1s, baseline: 20s, minRate: 5, periods: 2, recover: 2}}`

// second makes requests at a rate for a second, and looks at the breakers.
func (r *rig) second(rate int, tenant, path string) []string {
	r.ends(rate, tenant, path, good)
	r.wait(time.Second)
	return r.tick()
}

// Degraded sheds NonCore routes, and goes on counting those it sheds: the level falls when the rate does.
func TestBreakerSheds(t *testing.T) {
	r := newRig(t, rates)
	for range 10 {
		r.second(100, "acme", "/")
	}
	var changes []string
	for range 3 {
		changes = append(changes, r.second(100, "acme", "/")...)
		changes = append(changes, r.second(0, "acme", "/")...) // within a fall nothing counts: the direction is up
	}
	for range 2 {
		r.ends(100, "acme", "/", good)
		changes = append(changes, r.second(100, "acme", "/extra")...)
	}
	v := r.try("acme", "/extra")
	if v.Reason != Shed || v.Breaker != "main" || v.RetryAfter != 2*time.Second {
		t.Errorf("unexpected verdict: got %v of %q, retry after %v; want shed of main, 2s", v.Reason, v.Breaker, v.RetryAfter)
	}
	r.want("acme", "/", Passed, "")
	for range 5 { // all that is over the baseline is shed by now
		r.ends(100, "acme", "/", good)
		changes = append(changes, r.second(100, "acme", "/extra")...)
	}
	for range 2 {
		changes = append(changes, r.second(100, "acme", "/")...)
	}
	if diff := cmp.Diff([]string{"main normal-degraded", "main degraded-normal"}, changes); diff != "" {
		t.Errorf("unexpected changes (-want +got):\n%s", diff)
	}
	r.want("acme", "/extra", Passed, "")
}

// A flood that its own limits stop is offered, and judged by nobody.
func TestBreakerAndFlood(t *testing.T) {
	r := newRig(t, rates)
	for range 10 {
		r.second(100, "acme", "/")
	}
	for range 10 {
		r.ends(1000, "flood", "/extra", good)
		if changes := r.second(100, "acme", "/"); changes != nil {
			t.Errorf("unexpected changes: %v", changes)
		}
	}
	s := r.table.Breakers(r.now)[0]
	if n := s.Numbers; n.Offered != 1100 || n.Rate != 110 || n.Baseline < 100 || n.Baseline > 110 || n.High < 135 || s.Target != "Backend main" {
		t.Errorf("unexpected state: %+v", s)
	}
}

// With perTenant, what becomes of one tenant's requests is nothing to another.
func TestBreakerPerTenant(t *testing.T) {
	r := newRig(t, strings.Replace(failing, "target:", "perTenant: true, target:", 1))
	r.ends(20, "acme", "/", failed)
	r.ends(20, "small", "/", good)
	r.ends(20, "globex", "/", good)
	r.wantTick("main normal-open of acme")
	r.want("acme", "/", BreakerOpen, "")
	r.want("globex", "/", Passed, "")
	r.wantLevel("main", "", "normal")
	r.wantLevel("main", "acme", "open")
	r.wantLevel("main", "globex", "normal")
	// Who has been quiet for a window is forgotten; an open breaker is not.
	for range 4 {
		r.wantTick()
	}
	r.wantTick("main open-half_open of acme")
	for range 10 {
		r.wantTick()
	}
	r.wantLevel("main", "globex", "none")
	r.wantLevel("main", "acme", "half_open")
	// A request in flight keeps what will be told of it.
	v := r.visit("globex")
	for range 20 {
		r.wantTick()
	}
	r.wantLevel("main", "globex", "normal")
	v.settle()
	for range 11 {
		r.wantTick()
	}
	r.wantLevel("main", "globex", "none")
}

// There is room for so many tenants that policy does not name; the others share one. Those that are named have theirs in any case.
func TestBreakerTenantsAreBounded(t *testing.T) {
	r := newRig(t, strings.Replace(failing, "target:", "perTenant: true, target:", 1))
	for i := range maxTenantBreakers + 50 {
		r.try(fmt.Sprint("t", i), "/")
	}
	if n := r.table.tenantBreakers(); n != maxTenantBreakers {
		t.Fatalf("unexpected number of breakers: got %d, want %d", n, maxTenantBreakers)
	}
	r.ends(20, "late", "/", failed)
	r.ends(20, "small", "/", failed)
	r.wantTick("main normal-open")
	r.want("later", "/", BreakerOpen, "")
	r.want("t1", "/", Passed, "")
	if got := r.level("main", "small"); got == "none" {
		t.Error("a named tenant has no breaker of its own")
	}
	for range 11 {
		r.wait(time.Second)
		r.tick()
	}
	if n := r.table.tenantBreakers(); n != 0 {
		t.Errorf("unexpected number of breakers at rest: got %d, want 0", n)
	}
}

// What a breaker has learned survives a change of documents, unless it has another target.
func TestBreakerIsAdopted(t *testing.T) {
	r := newRig(t, failing)
	r.ends(20, "acme", "/", failed)
	r.wantTick("main normal-open")
	flying, v := r.open("acme", "/other")
	r.swap(failing + `
	BreakerPolicy second {target: {kind: Backend, name: main}, failures: {}}`)
	r.want("acme", "/", BreakerOpen, "")
	r.wantTick()
	// A request of the table before may end now.
	r.settle(flying, v)
	// Other numbers: what is not judged any more is Normal, and that is announced.
	r.swap(strings.Replace(failing, `failures: {minRequests: 10, statuses: ["500"]}, open: {for: 5s, probes: 2, ramp: 0s}`, "qpsBaseline: {}", 1))
	r.want("acme", "/", Passed, "")
	r.wantTick("main open-normal")
	// Until Adopt nothing changes.
	r.swap(failing)
	next, err := Build(r.table, snapshotOf(t, strings.Replace(failing, "minRequests: 10", "minRequests: 1", 1)), r.now, r.options)
	if err != nil {
		t.Fatal(err)
	}
	r.ends(1, "acme", "/", failed)
	r.wantTick()
	r.table = next
	r.table.Adopt(r.now)
	r.wantTick("main normal-open")
	// Another target begins anew.
	r.swap(strings.Replace(failing, "kind: Backend, name: main", "kind: Backend, name: other", 1))
	r.wantLevel("main", "", "normal")
}

func TestTickEvery(t *testing.T) {
	f := func(want time.Duration, lines string) {
		t.Helper()
		if got := newRig(t, "Route all {backend: main}\n"+lines).table.TickEvery(); got != want {
			t.Errorf("unexpected time between ticks: got %v, want %v", got, want)
		}
	}

	f(0, "TenantPolicy p {tenants: {any: true}}")
	f(time.Second, "BreakerPolicy a {target: {kind: Backend, name: main}, qpsBaseline: {}}")
	f(200*time.Millisecond, "BreakerPolicy a {target: {kind: Backend, name: main}, qpsBaseline: {}}\nBreakerPolicy b {target: {kind: Route, name: all}, failures: {window: 2s}}")
}

// A breaker that can wait for the next tick is not looked at; one that cannot is.
func TestTickIsDue(t *testing.T) {
	r := newRig(t, "Route all {backend: main}\nTenantPolicy p {tenants: {any: true}}\n"+
		"BreakerPolicy fast {target: {kind: Backend, name: main}, failures: {window: 1s, minRequests: 1}}\nBreakerPolicy slow {target: {kind: Backend, name: main}, failures: {window: 10s, minRequests: 1}}")
	r.tick()
	r.end("acme", "/", failed)
	r.wait(100 * time.Millisecond)
	if diff := cmp.Diff([]string{"fast normal-open"}, r.tick()); diff != "" {
		t.Error(diff)
	}
	for range 8 {
		r.wait(100 * time.Millisecond)
		if changes := r.tick(); changes != nil {
			t.Errorf("unexpected changes: %v", changes)
		}
	}
	r.wait(100 * time.Millisecond)
	if diff := cmp.Diff([]string{"slow normal-open"}, r.tick()); diff != "" {
		t.Error(diff)
	}
}

// More breakers for one request than fit into the memory that it brings.
func TestManyBreakers(t *testing.T) {
	lines := "Route all {backend: main}\nTenantPolicy p {tenants: {any: true}}"
	var want []string
	for i := range 9 {
		lines += fmt.Sprintf("\nBreakerPolicy b%d {target: {kind: Backend, name: main}, failures: {minRequests: 1}}", i)
		want = append(want, fmt.Sprintf("b%d normal-open", i))
	}
	r := newRig(t, lines)
	var passes Passes
	for range 2 {
		req := requestOf("acme", "/")
		req.Passes = &passes
		m := r.table.Match(r.now, req)
		v := r.table.Decide(r.now, &m)
		r.table.Settle(&m, &v, failed)
	}
	if passes.more != nil || passes.n != 0 || passes.few != [4]pass{} {
		t.Error("memory of a request that has ended holds on to breakers")
	}
	r.wantTick(want...)
}

// Every request is offered, also one that ends while it waits.
func TestOffersOfThoseWhoWait(t *testing.T) {
	r := newRig(t, `
		Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {concurrency: 1, queue: 2, queueTimeout: 1h}}
		Route all {backend: main}
		TenantPolicy gold {tenants: {names: [acme]}, concurrency: {max: 1, queue: 1}}
		TenantPolicy all {tenants: {any: true}}
		BreakerPolicy main {target: {kind: Backend, name: main}, qpsBaseline: {sample: 1s, baseline: 20s, minRate: 5}}`)
	r.visit("acme").is(Passed)
	gate, place := r.visit("acme"), r.visit("other")
	gate.waits()
	place.waits()
	gate.settle()
	place.settle()
	r.visit("other").waits()
	r.visit("other").waits()
	r.visit("other").is(Overload)
	r.wait(time.Second)
	r.tick()
	if n := r.table.Breakers(r.now)[0].Numbers; n.Offered != 4 || n.Rate != 3 {
		t.Errorf("unexpected rates: got %v offered, %v passed; want 4 and 3", n.Offered, n.Rate)
	}
}

func TestCollectBreakers(t *testing.T) {
	names := []string{"weir_breaker_level", "weir_breaker_transitions_total", "weir_breaker_qps", "weir_breaker_qps_passed",
		"weir_breaker_qps_baseline", "weir_breaker_qps_corridor"}
	r := newRig(t, strings.Replace(failing, "target:", "perTenant: true, target:", 1))
	r.ends(20, "acme", "/", failed)
	r.ends(20, "globex", "/", failed)
	r.ends(20, "initech", "/", good)
	r.wantTick("main normal-open of acme", "main normal-open of globex")
	r.wantMetrics(`
# HELP weir_breaker_level Level of a breaker: 0 normal, 1 degraded, 2 open, probes or not; with perTenant the worst of all tenants.
# TYPE weir_breaker_level gauge
weir_breaker_level{breaker="main"} 2
# HELP weir_breaker_transitions_total Changes of a breaker's level; with perTenant of all tenants together.
# TYPE weir_breaker_transitions_total counter
weir_breaker_transitions_total{breaker="main",from="half_open",to="normal"} 0
weir_breaker_transitions_total{breaker="main",from="half_open",to="open"} 0
weir_breaker_transitions_total{breaker="main",from="normal",to="open"} 2
weir_breaker_transitions_total{breaker="main",from="open",to="half_open"} 0
`, names...)

	r = newRig(t, rates)
	r.second(50, "acme", "/")
	r.wantMetrics(`
# HELP weir_breaker_level Level of a breaker: 0 normal, 1 degraded, 2 open, probes or not; with perTenant the worst of all tenants.
# TYPE weir_breaker_level gauge
weir_breaker_level{breaker="main"} 0
# HELP weir_breaker_qps Requests a second that came for a breaker's target in its last sample, whatever became of them.
# TYPE weir_breaker_qps gauge
weir_breaker_qps{breaker="main"} 50
# HELP weir_breaker_qps_passed Of these, the requests a second that their tenants' limits let pass, or would have: what is compared with the baseline.
# TYPE weir_breaker_qps_passed gauge
weir_breaker_qps_passed{breaker="main"} 50
`, names[0], names[2], names[3], names[4], names[5])
	for range 5 {
		r.second(100, "acme", "/")
	}
	r.ends(20, "flood", "/", good)
	r.second(100, "acme", "/")
	r.wantMetrics(`
# HELP weir_breaker_qps Requests a second that came for a breaker's target in its last sample, whatever became of them.
# TYPE weir_breaker_qps gauge
weir_breaker_qps{breaker="main"} 120
# HELP weir_breaker_qps_passed Of these, the requests a second that their tenants' limits let pass, or would have: what is compared with the baseline.
# TYPE weir_breaker_qps_passed gauge
weir_breaker_qps_passed{breaker="main"} 110
# HELP weir_breaker_qps_baseline Requests a second that a breaker takes for usual, as soon as it knows.
# TYPE weir_breaker_qps_baseline gauge
weir_breaker_qps_baseline{breaker="main"} 100
# HELP weir_breaker_qps_corridor Requests a second between which a breaker is at level normal, of the sides that are judged.
# TYPE weir_breaker_qps_corridor gauge
weir_breaker_qps_corridor{bound="high",breaker="main"} 135
`, names[2:]...)
}

const explained = `
	Backend main {endpoints: [{address: 127.0.0.1:9000}]}
	Route extra {match: [{path: /extra}], backend: main, criticality: NonCore, fallback: {status: 203, staleFor: 1m}}
	Route plain {match: [{path: /plain}], backend: main, criticality: NonCore}
	TenantPolicy all {tenants: {any: true}, limits: [{name: steady, requests: 1000}]}
	BreakerPolicy calls {target: {kind: Route, name: plain}, perTenant: true, failures: {minRequests: 10, slowerThan: 1s}, open: {for: 2s, maxFor: 8s, probes: 2}}
	BreakerPolicy main {target: {kind: Backend, name: main}, qpsBaseline: {sample: 1s, baseline: 20s, minRate: 5, periods: 2, direction: Both}}`

// What a trace tells of breakers, at each level; and a denial is remembered as it was explained.
func TestExplainBreakers(t *testing.T) {
	r := newRig(t, explained)
	var recent Recent
	f := func(path string, want string) {
		t.Helper()
		req := requestOf("acme", path)
		req.Random = 1 << 31
		trace := r.table.Explain(r.now, Question{Request: req})
		_, text, _ := strings.Cut(trace.Text(), "BREAKER")
		text, limits, _ := strings.Cut(text, "\n\n")
		_, verdict, _ := strings.Cut(limits, "\n\n")
		if diff := cmp.Diff(strings.TrimSpace(want), "BREAKER"+text+"\n\n"+strings.TrimSpace(verdict)); diff != "" {
			t.Errorf("%s: unexpected text (-want +got):\n%s", path, diff)
		}
		if trace.Verdict.Passes {
			return
		}
		m := r.table.Match(r.now, req)
		v := r.table.Decide(r.now, &m)
		recent.Remember(r.table, r.now, []byte("x"), req, &m, &v, trace.Verdict.Status)
		r.settle(&m, &v)
		then := r.now
		r.second(1, "globex", "/plain")
		got, at, ok := recent.Find(r.table, "x")
		if !ok || at != then {
			t.Fatalf("%s: found %v of %d, want one of %d", path, ok, at, then)
		}
		trace.Recorded, trace.RequestID = true, "x"
		trace.Tenant.Cell, trace.Route.Match, trace.Route.Before, trace.Route.Why = "", "", "", ""
		if diff := cmp.Diff(trace, got); diff != "" {
			t.Errorf("%s (-explained +remembered):\n%s", path, diff)
		}
	}

	f("/plain", `
BREAKER  LEVEL          NUMBERS  WRITTEN AT
calls    normal for 0s  -        set.yaml:22:1  Route plain, this tenant's own; lets pass
main     normal for 0s  -        set.yaml:27:1  Backend main; lets pass

verdict  passes`)
	for range 9 {
		r.second(40, "acme", "/plain")
	}
	r.ends(5, "acme", "/plain", Outcome{Status: 200, Latency: 2 * time.Second})
	r.ends(1, "acme", "/plain", failed)
	r.second(35, "acme", "/plain")
	f("/plain", `
BREAKER  LEVEL           NUMBERS                                          WRITTEN AT
calls    normal for 10s  1 of 401 calls failed, 5 slow                    set.yaml:22:1  Route plain, this tenant's own; lets pass
main     normal for 10s  41/s, usually 40/s, at least 26/s, at most 54/s  set.yaml:27:1  Backend main; lets pass

verdict  passes`)
	r.second(60, "acme", "/plain")
	r.second(60, "acme", "/plain")
	f("/extra", `
BREAKER  LEVEL            NUMBERS                                          WRITTEN AT
main     degraded for 0s  60/s, usually 40/s, at least 26/s, at most 54/s  set.yaml:27:1  Backend main; sheds

verdict  refused: shed by main, fallback: the last good answer, or status 203, worth another try in 3s`)
	for range 3 {
		r.second(40, "acme", "/plain")
	}
	r.ends(50, "acme", "/plain", failed)
	r.wantTick("calls normal-open of acme")
	f("/plain", `
BREAKER  LEVEL                      NUMBERS                                          WRITTEN AT
calls    open for 0s, probes in 2s  51 of 291 calls failed, 5 slow                   set.yaml:22:1  Route plain, this tenant's own; refuses
main     normal for 1s              50/s, usually 40/s, at least 26/s, at most 54/s  set.yaml:27:1  Backend main; lets pass

verdict  refused: breaker_open by calls, status 503, worth another try in 2s
         Retry-After: 2`)
	for range 5 { // half open, normal, and then on the ramp
		r.second(40, "acme", "/plain")
	}
	f("/plain", `
BREAKER  LEVEL                    NUMBERS                                          WRITTEN AT
calls    normal for 3s, 30% pass  0 of 120 calls failed                            set.yaml:22:1  Route plain, this tenant's own; refuses
main     normal for 7s            40/s, usually 40/s, at least 26/s, at most 54/s  set.yaml:27:1  Backend main; lets pass

verdict  refused: breaker_open by calls, status 503, worth another try in 10s
         Retry-After: 10`)
}

// Requests, changes of documents, ticks, questions and scrapes, all at once. When all is over, no tenant's breaker is left: each
// that was asked was told how its request ended.
func TestBreakersRace(t *testing.T) {
	documents := func(own, minRequests int) string {
		return fmt.Sprintf(`
			Route all {backend: main, criticality: NonCore}
			TenantPolicy all {tenants: {any: true}, limits: [{name: steady, requests: 100}]}
			BreakerPolicy main {target: {kind: Backend, name: main}, perTenant: %v, qpsBaseline: {sample: 1s, baseline: 5s, minRate: 0, periods: 1, direction: Both}}
			BreakerPolicy own {target: {kind: Route, name: all}, perTenant: true, failures: {window: 1s, minRequests: %d}, open: {for: 1s, ramp: 1s}}`,
			own == 1, minRequests)
	}
	r := newRigOf(t, Options{AnyTenants: 4 * ways}, documents(0, 5))
	var live atomic.Pointer[Table]
	live.Store(r.table)
	var clock atomic.Int64
	clock.Store(r.now)
	var requests, others sync.WaitGroup
	var over atomic.Bool
	for w := range 3 {
		requests.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 5))
			var passes Passes
			for range 5000 {
				now := clock.Add(int64(time.Millisecond))
				table := live.Load()
				req := requestOf(fmt.Sprint("t", random.IntN(100)), "/")
				req.Random, req.Passes = random.Uint32(), &passes
				m := table.Match(now, req)
				v := table.Decide(now, &m)
				o := Outcome{Reason: v.Reason, Now: now}
				if v.Reason == Passed && random.IntN(3) == 0 {
					o.Reason = BackendReset
				}
				table.Settle(&m, &v, o)
			}
		})
	}
	others.Go(func() {
		for i := 0; !over.Load(); i++ {
			next, err := Build(live.Load(), snapshotOf(t, documents(i%2, 4+i%2)), clock.Load(), r.options)
			if err != nil {
				t.Error(err)
				return
			}
			live.Store(next)
			next.Adopt(clock.Load())
		}
	})
	others.Go(func() {
		for !over.Load() {
			live.Load().Tick(clock.Load(), rand.Float64, func(BreakerChange) {})
			runtime.Gosched()
		}
	})
	others.Go(func() {
		c := NewCollector(live.Load)
		for !over.Load() {
			live.Load().Explain(clock.Load(), Question{Request: requestOf("t1", "/")})
			live.Load().Breakers(clock.Load())
			testutil.CollectAndCount(c)
		}
	})
	requests.Wait()
	over.Store(true)
	others.Wait()
	r.table, r.now = live.Load(), clock.Load()
	for range 150 { // open ones have waited for probes in vain by then
		r.wait(time.Second)
		r.tick()
	}
	for _, s := range r.table.Breakers(r.now) {
		if s.Tenant != "" {
			t.Errorf("the breaker of %s is still there: %+v", s.Tenant, s)
		}
	}
	if n := r.table.tenantBreakers(); n != 0 {
		t.Errorf("unexpected number of tenants' breakers: got %d, want 0", n)
	}
}
