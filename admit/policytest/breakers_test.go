package policytest

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const guarded = `
apiVersion: weir.dev/v1alpha1
kind: Sidecar
metadata: {name: orders}
spec: {identity: [{header: X-Tenant-ID, trust: any}]}
---
apiVersion: weir.dev/v1alpha1
kind: Backend
metadata: {name: orders}
spec: {endpoints: [{address: "127.0.0.1:9000"}]}
---
apiVersion: weir.dev/v1alpha1
kind: Backend
metadata: {name: other}
spec: {endpoints: [{address: "127.0.0.1:9001"}]}
---
apiVersion: weir.dev/v1alpha1
kind: Route
metadata: {name: rest}
spec: {backend: orders}
---
apiVersion: weir.dev/v1alpha1
kind: Route
metadata: {name: avatars}
spec: {match: [{path: /avatars/*}], backend: orders, criticality: NonCore, fallback: {status: 200}}
---
apiVersion: weir.dev/v1alpha1
kind: Route
metadata: {name: own}
spec: {match: [{path: /own}], backend: other}
---
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata: {name: all}
spec: {tenants: {any: true}, limits: [{name: steady, requests: 200}]}
---
apiVersion: weir.dev/v1alpha1
kind: BreakerPolicy
metadata: {name: orders}
spec:
  target: {kind: Backend, name: orders}
  qpsBaseline: {baseline: 1m, minRate: 10}
  failures: {slowerThan: 1s}
---
apiVersion: weir.dev/v1alpha1
kind: BreakerPolicy
metadata: {name: own}
spec: {target: {kind: Route, name: own}, perTenant: true, failures: {minRequests: 10}, open: {ramp: 0s}}
---
`

// usual is a minute and a half of 20 requests a second, after which their breaker knows what is usual.
const usual = "{tenant: acme, every: 50ms, for: 90s}, "

func TestBreakers(t *testing.T) {
	f := func(requests, expect string) {
		t.Helper()
		for _, failure := range ranIn(t, guarded, requests, expect).Failures {
			t.Errorf("%s: %s: unexpected failure: %s: %s (%s)", requests, expect, failure.Field, failure.Message, failure.Detail)
		}
	}

	// A rush sheds what is not core, and only that; and it ends.
	rush := usual + "{tenant: globex, path: /avatars/1, every: 20ms, at: 30s, for: 60s}, {tenant: acme, path: /avatars/1, every: 1s, at: 1s, for: 90s}"
	f(rush, "{breaker: orders, level: Normal, at: 30s}, {breaker: orders, level: Degraded, at: 45s}, {tenant: globex, reason: shed, from: 45s, denied: 2250}")
	f(rush, "{tenant: globex, until: 45s, allowed: 750}, {breaker: orders, from: 45s, denied: 2296}, {route: rest, denied: 0, allowed: 1800}")
	f(usual+"{tenant: globex, path: /avatars/1, every: 20ms, at: 30s, for: 20s}, {tenant: acme, path: /avatars/1, every: 1s, at: 70s, for: 10s}",
		"{breaker: orders, level: Normal, at: 70s}, {tenant: acme, denied: 0}")
	// A flood that its limit stops is no rush.
	f(usual+"{tenant: acme, path: /avatars/1, every: 1s, for: 90s}, {tenant: flood, count: 1000, at: 60s}", "{breaker: orders, level: Normal, at: 80s}, {route: avatars, denied: 0}")
	// A backend that fails, and one that is slow: the breaker opens, probes and closes, a share at a time.
	broken := "{tenant: acme, every: 50ms, for: 10s}, {tenant: acme, every: 50ms, at: 10s, for: 3s, status: 503}, {tenant: acme, every: 50ms, at: 13s, for: 27s}"
	f(broken, "{breaker: orders, level: Open, at: 11s}, {breaker: orders, level: HalfOpen, at: 16s}, {breaker: orders, level: Normal, at: 17s}")
	f(broken, "{reason: breaker_open, from: 11s, until: 16s, denied: 100}, {from: 17s, until: 27s, allowed: 99, denied: 101}, {from: 27s, denied: 0}")
	f("{tenant: acme, every: 50ms, for: 10s, takes: 1001ms}", "{breaker: orders, level: Open, at: 3s}")
	f("{tenant: acme, every: 50ms, for: 10s, takes: 1s}", "{breaker: orders, level: Normal, at: 9s}")
	// One breaker for each tenant.
	f("{tenant: acme, path: /own, count: 10, status: 500}, {tenant: globex, path: /own, every: 100ms, for: 3s}",
		"{tenant: acme, breaker: own, level: Open, at: 1s}, {tenant: globex, breaker: own, level: Normal, at: 1s}, {tenant: globex, denied: 0}")
}

func TestBreakersNotMet(t *testing.T) {
	f := func(requests, expect string, want ...string) {
		t.Helper()
		var got []string
		for _, failure := range ranIn(t, guarded, requests, expect).Failures {
			got = append(got, fmt.Sprintf("%s: %s; %s", failure.Field, failure.Message, failure.Detail))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s: failures (-want +got):\n%s", requests, expect, diff)
		}
	}

	broken := "{tenant: acme, count: 20, status: 500}, {tenant: acme, at: 2s}"
	f(broken, "{breaker: orders, level: Normal, at: 2s}", "level: got Open at 2s, want Normal; ")
	f(broken, "{breaker: orders, denied: 0}", "denied: got 1, want 0; the first one denied came at 2s: breaker_open by orders, retry after 5s")
	f(broken, "{breaker: own, denied: 0}")
	f(broken, "{breaker: order, denied: 0}", `breaker: no BreakerPolicy is named "order"; there are orders, own; `)
	f(broken, "{breaker: own, level: Normal, at: 2s}", `level: each tenant has a breaker of its own by BreakerPolicy "own"; say which tenant's; `)
}
