package admit

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func (r *rig) wantMetrics(want string, names ...string) {
	r.Helper()
	c := NewCollector(func() *Table { return r.table })
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), names...); err != nil {
		r.Errorf("unexpected metrics: %v", err)
	}
}

func TestCollect(t *testing.T) {
	r := newRig(t, `
		TenantPolicy gold {tenants: {names: [acme]}, limits: [{name: steady, requests: 2, per: 1h}, {name: dark, requests: 1, per: 1h, mode: Shadow}]}
		TenantPolicy all {tenants: {any: true}, limits: [{name: small, requests: 1, per: 1h}]}
		Route shop {match: [{path: /shop}], backend: main}`)
	for range 3 {
		r.try("acme", "/shop")
	}
	r.try("acme", "/none")
	r.try("globex", "/shop")
	r.try("globex", "/shop")
	r.try("initech", "/shop")
	r.try("", "/shop")
	nobody := r.table.Nobody(ClientGone)
	r.table.Settle(&nobody, &Verdict{}, Outcome{Reason: ClientGone})
	r.open("acme", "/shop")
	r.open("umbrella", "/shop")
	r.wantMetrics(`
# HELP weir_requests_total Requests that have ended, by tenant, route, class of the status and reason.
# TYPE weir_requests_total counter
weir_requests_total{code="2xx",reason="passed",route="shop",tenant="acme"} 1
weir_requests_total{code="4xx",reason="limited",route="shop",tenant="acme"} 2
weir_requests_total{code="4xx",reason="no_route",route="__none__",tenant="acme"} 1
weir_requests_total{code="2xx",reason="passed",route="shop",tenant="__other__"} 2
weir_requests_total{code="4xx",reason="limited",route="shop",tenant="__other__"} 1
weir_requests_total{code="4xx",reason="no_identity",route="shop",tenant="__none__"} 1
weir_requests_total{code="__none__",reason="client_gone",route="__none__",tenant="__none__"} 1
# HELP weir_limit_decisions_total What each limit said of requests; shadow_deny and shadow_delay are what it would have denied and delayed in mode Shadow.
# TYPE weir_limit_decisions_total counter
weir_limit_decisions_total{decision="allow",limit="steady",policy="gold",tenant="acme"} 1
weir_limit_decisions_total{decision="deny",limit="steady",policy="gold",tenant="acme"} 0
weir_limit_decisions_total{decision="allow",limit="dark",policy="gold",tenant="acme"} 1
weir_limit_decisions_total{decision="shadow_deny",limit="dark",policy="gold",tenant="acme"} 0
weir_limit_decisions_total{decision="allow",limit="small",policy="all",tenant="acme"} 1
weir_limit_decisions_total{decision="deny",limit="small",policy="all",tenant="acme"} 3
weir_limit_decisions_total{decision="allow",limit="small",policy="all",tenant="__other__"} 3
weir_limit_decisions_total{decision="deny",limit="small",policy="all",tenant="__other__"} 1
# HELP weir_limit_available Whole tokens, requests or bytes, left in a tenant's bucket of an enforced limit, of several for routes in the emptiest.
# TYPE weir_limit_available gauge
weir_limit_available{limit="steady",tenant="acme"} 1
weir_limit_available{limit="small",tenant="acme"} 0
# HELP weir_shadow_verdicts_total Requests of tenants with limits in shadow, by what was enforced and what would be with those in the place of the enforced ones of their names.
# TYPE weir_shadow_verdicts_total counter
weir_shadow_verdicts_total{enforced="deny",shadow="deny",tenant="acme"} 3
weir_shadow_verdicts_total{enforced="deny",shadow="pass",tenant="acme"} 0
weir_shadow_verdicts_total{enforced="pass",shadow="deny",tenant="acme"} 0
weir_shadow_verdicts_total{enforced="pass",shadow="pass",tenant="acme"} 1
# HELP weir_inflight Requests of a tenant that were let through and have not ended.
# TYPE weir_inflight gauge
weir_inflight{tenant="acme"} 0
weir_inflight{tenant="__other__"} 1
# HELP weir_waiting Requests of a tenant that wait, for the tenant's own gate or for a backend.
# TYPE weir_waiting gauge
weir_waiting{tenant="acme"} 0
weir_waiting{tenant="__other__"} 0
# HELP weir_backend_inflight Requests that a backend has been given and that have not ended.
# TYPE weir_backend_inflight gauge
weir_backend_inflight{backend="main"} 1
`)
}

func TestCollectQueues(t *testing.T) {
	r := newRig(t, `
		Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {concurrency: 1, queue: 2, queueTimeout: 50ms}}
		Backend spare {endpoints: [{address: 127.0.0.1:9000}]}
		Route all {backend: main}
		TenantPolicy gold {tenants: {names: [acme, globex]}, concurrency: {max: 2, queue: 2}}
		TenantPolicy all {tenants: {any: true}}`)
	r.visit("acme").is(Passed)
	late, left := r.visit("acme"), r.visit("globex")
	gate := r.visit("acme")
	gate.waits()
	full := r.visit("other") // which pushes out the late one
	late.resume()
	late.is(Overload)
	late.settle()
	gate.resume() // which has come through the gate, and pushes out who waits for longest
	gate.waits()
	left.resume()
	left.is(Overload)
	left.settle()
	gate.settle()
	r.visit("initech").waits()
	r.wait(50 * time.Millisecond)
	r.table.Resume(r.now, full.m, full.v)
	full.is(Overload)
	r.wantMetrics(`
# HELP weir_inflight Requests of a tenant that were let through and have not ended.
# TYPE weir_inflight gauge
weir_inflight{tenant="acme"} 1
weir_inflight{tenant="globex"} 0
weir_inflight{tenant="__other__"} 1
# HELP weir_waiting Requests of a tenant that wait, for the tenant's own gate or for a backend.
# TYPE weir_waiting gauge
weir_waiting{tenant="acme"} 0
weir_waiting{tenant="globex"} 0
weir_waiting{tenant="__other__"} 1
# HELP weir_backend_capacity The most requests that a backend is given at once, as it is now.
# TYPE weir_backend_capacity gauge
weir_backend_capacity{backend="main"} 1
# HELP weir_backend_inflight Requests that a backend has been given and that have not ended.
# TYPE weir_backend_inflight gauge
weir_backend_inflight{backend="main"} 1
weir_backend_inflight{backend="spare"} 0
# HELP weir_queue_length Requests that wait for a backend.
# TYPE weir_queue_length gauge
weir_queue_length{backend="main"} 1
# HELP weir_queue_dropped_total Requests that a full backend did not get: no room to wait, waited for too long, or gone while they waited.
# TYPE weir_queue_dropped_total counter
weir_queue_dropped_total{backend="main",cause="full"} 2
weir_queue_dropped_total{backend="main",cause="gone"} 1
weir_queue_dropped_total{backend="main",cause="timeout"} 1
`, "weir_inflight", "weir_waiting", "weir_backend_capacity", "weir_backend_inflight", "weir_queue_length", "weir_queue_dropped_total")
}

// Limits in bytes have words of their own, and count what passed them.
func TestCollectBytes(t *testing.T) {
	r := newRig(t, `
		TenantPolicy gold {tenants: {names: [acme]}, limits: [{name: traffic, bytes: 1KiB}, {name: dark, bytes: 100, mode: Shadow}, {name: still, bytes: 1GiB, per: 1h}]}
		TenantPolicy all {tenants: {any: true}, limits: [{name: small, bytes: 1KiB}]}`)
	r.transfer("acme", "/", 1024, 1024)
	r.transfer("acme", "/")
	r.transfer("globex", "/", 10)
	r.wantMetrics(`
# HELP weir_limit_bytes_total Bytes of bodies, in both directions, that passed a limit in bytes.
# TYPE weir_limit_bytes_total counter
weir_limit_bytes_total{limit="traffic",policy="gold",tenant="acme"} 2048
weir_limit_bytes_total{limit="dark",policy="gold",tenant="acme"} 2048
weir_limit_bytes_total{limit="still",policy="gold",tenant="acme"} 2048
weir_limit_bytes_total{limit="small",policy="all",tenant="acme"} 2048
weir_limit_bytes_total{limit="small",policy="all",tenant="__other__"} 10
# HELP weir_limit_decisions_total What each limit said of requests; shadow_deny and shadow_delay are what it would have denied and delayed in mode Shadow.
# TYPE weir_limit_decisions_total counter
weir_limit_decisions_total{decision="allow",limit="traffic",policy="gold",tenant="acme"} 1
weir_limit_decisions_total{decision="delay",limit="traffic",policy="gold",tenant="acme"} 1
weir_limit_decisions_total{decision="allow",limit="dark",policy="gold",tenant="acme"} 1
weir_limit_decisions_total{decision="shadow_delay",limit="dark",policy="gold",tenant="acme"} 1
weir_limit_decisions_total{decision="allow",limit="still",policy="gold",tenant="acme"} 2
weir_limit_decisions_total{decision="delay",limit="still",policy="gold",tenant="acme"} 0
weir_limit_decisions_total{decision="allow",limit="small",policy="all",tenant="acme"} 2
weir_limit_decisions_total{decision="delay",limit="small",policy="all",tenant="acme"} 0
weir_limit_decisions_total{decision="allow",limit="small",policy="all",tenant="__other__"} 1
`, "weir_limit_bytes_total", "weir_limit_decisions_total")
}

// Counters go on across changes; what is gone from policy is gone from the metrics.
func TestCollectRetired(t *testing.T) {
	requests := func(want string) string {
		const head = "# HELP weir_requests_total Requests that have ended, by tenant, route, class of the status and reason.\n# TYPE weir_requests_total counter\n"
		return head + want + "\n"
	}
	both := `
		TenantPolicy gold {tenants: {names: [acme, globex]}}
		Route cart {match: [{path: /cart}], backend: main}
		Route shop {match: [{path: /shop}], backend: main}`
	r := newRig(t, both)
	for _, tenant := range []string{"acme", "globex"} {
		r.try(tenant, "/cart")
		r.try(tenant, "/shop")
	}
	r.swap(both)
	r.try("acme", "/shop")
	r.wantMetrics(requests(`weir_requests_total{code="2xx",reason="passed",route="cart",tenant="acme"} 1
weir_requests_total{code="2xx",reason="passed",route="shop",tenant="acme"} 2
weir_requests_total{code="2xx",reason="passed",route="cart",tenant="globex"} 1
weir_requests_total{code="2xx",reason="passed",route="shop",tenant="globex"} 1`), "weir_requests_total")
	before := r.table
	m, v := r.open("acme", "/cart")
	r.swap(`
		TenantPolicy gold {tenants: {names: [acme]}}
		Route shop {match: [{path: /shop}], backend: main}`)
	if n := len(*r.table.named["acme"].own.requests.routes.Load()); n != 1 {
		t.Errorf("unexpected number of routes counted: got %d, want 1", n)
	}
	before.Settle(m, v, Outcome{Status: 200})
	r.wantMetrics(requests(`weir_requests_total{code="2xx",reason="passed",route="shop",tenant="acme"} 2`), "weir_requests_total")
	c := NewCollector(func() *Table { return r.table })
	if n := testutil.CollectAndCount(c, "weir_inflight"); n != 2 {
		t.Errorf("unexpected series of weir_inflight: got %d, want acme and __other__", n)
	}
}

// What is counted under __other__ goes on too, and a request in flight is counted once when its tenant gets a name.
func TestCollectOthers(t *testing.T) {
	all := `TenantPolicy all {tenants: {any: true}, limits: [{name: small, requests: 2, per: 1h}]}`
	r := newRig(t, all)
	r.passes("acme", 1)
	r.open("acme", "/")
	r.open("globex", "/")
	r.swap(all + "\nTenantPolicy gold {tenants: {names: [acme]}}")
	r.passes("globex", 2)
	r.passes("acme", 1)
	r.wantMetrics(`
# HELP weir_limit_decisions_total What each limit said of requests; shadow_deny and shadow_delay are what it would have denied and delayed in mode Shadow.
# TYPE weir_limit_decisions_total counter
weir_limit_decisions_total{decision="allow",limit="small",policy="all",tenant="__other__"} 4
weir_limit_decisions_total{decision="deny",limit="small",policy="all",tenant="__other__"} 1
weir_limit_decisions_total{decision="allow",limit="small",policy="all",tenant="acme"} 0
weir_limit_decisions_total{decision="deny",limit="small",policy="all",tenant="acme"} 1
# HELP weir_inflight Requests of a tenant that were let through and have not ended.
# TYPE weir_inflight gauge
weir_inflight{tenant="acme"} 1
weir_inflight{tenant="__other__"} 1
`, "weir_limit_decisions_total", "weir_inflight")
}

// Labels are bounded, and no tenant can take one that has a meaning of its own.
func TestCollectLabels(t *testing.T) {
	r := newRigOf(t, Options{MetricTenants: 2}, `TenantPolicy p {tenants: {names: [c, a, __other__, b, __none__]}, limits: [{name: steady, requests: 1, per: 1h}]}`)
	f := func(tenant, want string) {
		t.Helper()
		m := r.table.Match(r.now, requestOf(tenant, "/"))
		if got := m.Tenant.Label(); got != want {
			t.Errorf("%q: unexpected label: got %q, want %q", tenant, got, want)
		}
	}

	f("a", "a")
	f("b", "b")
	f("c", otherLabel)
	f("__other__", otherLabel)
	f("__none__", otherLabel)
	f("stranger", noneLabel)
	for _, tenant := range []string{"a", "b", "c", "__other__", "__none__", "stranger"} {
		r.try(tenant, "/")
	}
	// A registry refuses two series of one name.
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(NewCollector(func() *Table { return r.table }))
	if _, err := reg.Gather(); err != nil {
		t.Errorf("unexpected error: %v", err)
	}
	if n := testutil.CollectAndCount(NewCollector(func() *Table { return r.table }), "weir_limit_available"); n != 2 {
		t.Errorf("unexpected series of weir_limit_available: got %d, want 2", n)
	}
}

func TestCollectNoTable(t *testing.T) {
	c := NewCollector(func() *Table { return nil })
	if n := testutil.CollectAndCount(c); n != 0 {
		t.Errorf("unexpected number of metrics without a table: got %d, want 0", n)
	}
}

func TestCollectLint(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 1, per: 1h}]}`)
	r.try("acme", "/")
	problems, err := testutil.CollectAndLint(NewCollector(func() *Table { return r.table }))
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
