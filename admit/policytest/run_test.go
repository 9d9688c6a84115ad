package policytest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weir/admit"
	"weir/policy"
)

const house = `
apiVersion: weir.dev/v1alpha1
kind: Sidecar
metadata: {name: orders}
spec:
  identity:
  - {header: X-Tenant-ID, trust: any}
  - clientCIDR: [{cidr: 10.1.0.0/16, tenant: batch}]
---
apiVersion: weir.dev/v1alpha1
kind: Backend
metadata: {name: orders}
spec: {endpoints: [{address: "127.0.0.1:9000"}]}
---
apiVersion: weir.dev/v1alpha1
kind: Route
metadata: {name: pay}
spec: {match: [{path: /pay, methods: [POST]}], backend: orders}
---
apiVersion: weir.dev/v1alpha1
kind: Route
metadata: {name: rest}
spec: {match: [{path: /*}], backend: orders}
---
apiVersion: weir.dev/v1alpha1
kind: Backend
metadata: {name: small}
spec: {endpoints: [{address: "127.0.0.1:9001"}], capacity: {concurrency: 2, queue: 4, queueTimeout: 1s}}
---
apiVersion: weir.dev/v1alpha1
kind: Route
metadata: {name: small}
spec: {match: [{path: /small}], backend: small}
---
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata: {name: patient}
spec:
  tenants: {names: [patient]}
  concurrency: {max: 2, queue: 2, queueTimeout: 1s}
---
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata: {name: everybody}
spec:
  tenants: {any: true}
  limits:
  - {name: steady, requests: 10, burst: 20}
  - {name: payments, requests: 1, per: 1m, routes: [pay]}
  - {name: dark, requests: 5, burst: 5, mode: Shadow}
  concurrency: {max: 30}
---
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata: {name: gold}
spec:
  tenants: {names: [globex]}
  limits: [{name: extra, requests: 100}]
---
`

// ran runs the one case written as the items of `requests` and `expect`.
func ran(t *testing.T, requests, expect string) *Result {
	t.Helper()
	return ranIn(t, house, requests, expect)
}

// ranIn runs it against other documents.
func ranIn(t *testing.T, documents, requests, expect string) *Result {
	t.Helper()
	test := fmt.Sprintf("apiVersion: %s\nkind: PolicyTest\nmetadata: {name: x}\nspec: {cases: [{name: x, requests: [%s], expect: [%s]}]}\n",
		policy.APIVersion, requests, expect)
	docs, problems := policy.Decode("x.yaml", []byte(documents+test))
	for _, p := range problems {
		t.Fatalf("cannot decode: %s", p)
	}
	snapshot, problems := policy.Compile(docs, policy.CompileOptions{})
	if snapshot == nil {
		t.Fatalf("cannot compile: %v", problems)
	}
	spec := docs[len(docs)-1].Spec.(*policy.PolicyTestSpec)
	result, err := Run(snapshot, &spec.Cases[0])
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
	return result
}

func TestMet(t *testing.T) {
	f := func(requests, expect string) {
		t.Helper()
		for _, failure := range ran(t, requests, expect).Failures {
			t.Errorf("%s: %s: unexpected failure: %s: %s (%s)", requests, expect, failure.Field, failure.Message, failure.Detail)
		}
	}

	// A burst at once.
	f("{tenant: acme, count: 50}", "{allowed: 20, denied: 30}, {reason: limited, denied: 30}, {reason: concurrency, denied: 0}")
	// The burst, then the rate, by the time of arrival.
	f("{tenant: acme, every: 10ms, for: 2s}", "{until: 1s, allowed: 29}, {from: 1s, allowed: 10}, {allowed: 39, denied: 161}")
	// One limit, and one in shadow, of a tenant that policy does not name.
	f("{tenant: acme, count: 50}", "{limit: everybody/steady, allowed: 20, denied: 30}, {limit: everybody/dark, allowed: 5, shadowDenied: 15, denied: 0}")
	// Levels: at the same moment after the requests, and later.
	f("{tenant: acme, at: 1s}", "{tenant: acme, limit: everybody/steady, at: 0s, available: 20}")
	f("{tenant: acme, count: 15, at: 1s}", "{tenant: acme, limit: everybody/steady, at: 1s, available: 5}, {tenant: acme, limit: everybody/steady, at: 1500ms, available: 10}")
	// Each tenant on its own, in the order of arrival.
	f("{tenant: acme, count: 25}, {tenant: globex, count: 19}", "{tenant: acme, denied: 5}, {tenant: globex, denied: 0, allowed: 19}")
	// Routes, by method and path.
	f(`{tenant: acme, method: POST, path: /pay, count: 2}, {tenant: acme, path: "/pay?x=1", count: 2}`, "{route: pay, allowed: 1, denied: 1}, {route: rest, allowed: 2}, {limit: everybody/payments, denied: 1}")
	// Who the tenant is: given, from a header, from the address, and nobody.
	f(`{headers: {x-tenant-id: acme}}, {client: 10.1.2.3}, {client: "::ffff:10.1.2.3"}, {client: 10.2.0.1}`,
		"{tenant: acme, allowed: 1}, {tenant: batch, allowed: 2}, {reason: no_identity, denied: 1}")
	// A place is free for who arrives as another request ends.
	f("{tenant: acme, takes: 1s, count: 20}, {tenant: acme, takes: 1s, at: 500ms, count: 5}, {tenant: acme, takes: 1s, at: 999ms, count: 4}",
		"{allowed: 29, denied: 0}")
	f("{tenant: acme, every: 100ms, takes: 3s, count: 40}", "{until: 3s, allowed: 30}, {from: 3s, allowed: 10}")
	f("{tenant: acme, every: 100ms, takes: 3001ms, count: 40}", "{until: 3s, allowed: 30}, {from: 3s, until: 3100ms, denied: 1}, {reason: concurrency, denied: 1}, {allowed: 39}")
	// A queue before the gate: there is room for two to wait, and not for ever.
	f("{tenant: patient, takes: 400ms, count: 5}", "{allowed: 4, denied: 1}, {reason: concurrency, denied: 1}")
	f("{tenant: patient, takes: 1500ms, count: 4}", "{allowed: 2}, {reason: concurrency, denied: 2}")
	f("{tenant: patient, takes: 400ms, count: 4}", "{limit: everybody/steady, allowed: 4}, {tenant: patient, limit: everybody/steady, at: 0s, available: 18}")
	// A backend that is full: the lighter tenant pushes out who has waited longest, and what was spent comes back.
	f("{tenant: loud, path: /small, takes: 400ms, count: 8}, {tenant: quiet, path: /small, takes: 400ms, at: 100ms}",
		"{tenant: loud, allowed: 5, denied: 3}, {tenant: quiet, allowed: 1, denied: 0}, {reason: overload, denied: 3}, {tenant: loud, limit: everybody/steady, at: 0s, available: 14}")
	f("{tenant: loud, path: /small, takes: 1500ms, count: 3}", "{allowed: 2}, {reason: overload, denied: 1}")
	// A year, in no time.
	f("{tenant: acme, every: 24h, count: 365}", "{allowed: 365}")
}

func TestNotMet(t *testing.T) {
	f := func(requests, expect string, want ...string) {
		t.Helper()
		var got []string
		for _, failure := range ran(t, requests, expect).Failures {
			text := fmt.Sprintf("%d %s: %s", failure.Expect, failure.Field, failure.Message)
			if failure.Detail != "" {
				text += "; " + failure.Detail
			}
			got = append(got, text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s: failures (-want +got):\n%s", requests, expect, diff)
		}
	}

	// Counts, with the first denial.
	f("{tenant: acme, every: 10ms, count: 50}", "{allowed: 20, denied: 26, reason: limited}",
		"0 allowed: got 24, want 20; the first one denied came at 220ms: limited by everybody/steady, retry after 80ms")
	f("{tenant: acme, count: 20}", "{allowed: 20}, {denied: 1}", "1 denied: got 0, want 1")
	f("{tenant: acme, count: 20}", "{limit: everybody/dark, shadowDenied: 14}", "0 shadowDenied: got 15, want 14")
	// Levels.
	f("{tenant: acme}", "{tenant: acme, limit: everybody/steady, at: 0s, available: 20}", "0 available: got 19 at 0s, want 20")
	f("{tenant: acme}", "{tenant: acme, limit: gold/extra, at: 0s, available: 100}", `0 available: gold/extra does not apply to tenant "acme"`)
	// Filters that nothing fits would be met by 0.
	f("{tenant: acme}", "{tenant: acne, denied: 0}", `0 tenant: no request of the case is from tenant "acne"`)
	f("{tenant: acme}", "{route: pays, denied: 0}", `0 route: no Route is named "pays"; there are pay, rest, small`)
	f("{tenant: acme}", "{limit: everybody/stead, denied: 0}", `0 limit: there is no limit "everybody/stead"; there are everybody/steady, everybody/payments, everybody/dark, gold/extra`)
	if got := ran(t, "{tenant: acme}", "{reason: limitd, denied: 0}").Failures; len(got) != 1 || !strings.HasPrefix(got[0].Message, `"limitd" is not a reason; the reasons are no_identity,`) {
		t.Errorf("unexpected failures: %+v", got)
	}
}

// Whatever the order in which groups are written, requests arrive by their times, and equal runs give equal results.
func TestOrder(t *testing.T) {
	first := ran(t, "{tenant: b, at: 1s}, {tenant: a}, {tenant: c, at: 1s}, {tenant: d, every: 400ms, count: 3}", "{allowed: 6}")
	var order []string
	for _, q := range first.Requests {
		order = append(order, fmt.Sprint(q.Tenant, q.At))
	}
	want := []string{"a0s", "d0s", "d400ms", "d800ms", "b1s", "c1s"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Error(diff)
	}
	second := ran(t, "{tenant: b, at: 1s}, {tenant: a}, {tenant: c, at: 1s}, {tenant: d, every: 400ms, count: 3}", "{allowed: 6}")
	if diff := cmp.Diff(first, second, cmp.AllowUnexported(Request{}, said{})); diff != "" {
		t.Error(diff)
	}
}

func TestRunFailure(t *testing.T) {
	s := &policy.Snapshot{Sidecar: policy.SidecarSettings{Identity: []policy.IdentitySource{{}}}}
	if _, err := Run(s, &policy.TestCase{}); err == nil {
		t.Fatal("unexpected success")
	}
}

func BenchmarkRun(b *testing.B) {
	docs, _ := policy.Decode("x.yaml", []byte(house))
	snapshot, _ := policy.Compile(docs, policy.CompileOptions{})
	count := 10000
	c := &policy.TestCase{Requests: []policy.TestRequests{{Tenant: "acme", Method: "GET", Path: "/", Every: policy.Duration(time.Millisecond), Count: &count}}}
	for b.Loop() {
		r, err := Run(snapshot, c)
		if err != nil || r.Requests[0].Reason != admit.Passed {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*count), "ns/request")
}
