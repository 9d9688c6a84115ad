package policy

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRouteCosts(t *testing.T) {
	f := func(cost string, want int64, wantBy string) {
		t.Helper()
		s := mustCompile(t, set(t, "set.yaml", orders+"\nRoute r {backend: orders"+cost+"}"))
		if got := s.Routes[0]; got.Cost != want || got.CostBy != wantBy {
			t.Errorf("%q: got %d and %q, want %d and %q", cost, got.Cost, got.CostBy, want, wantBy)
		}
	}
	// Without a cost, or with only a header, a request costs 1.
	f("", 1, "")
	f(", cost: {}", 1, "")
	f(", cost: {header: X-Cost}", 1, "X-Cost")
	f(", cost: {request: 5}", 5, "")
	f(", cost: {request: 0, header: X-Cost}", 0, "X-Cost")
}

// A route's requests that no bucket of a limit ever holds enough for are worth a warning.
func TestCompileCostWarnings(t *testing.T) {
	f := func(cost, limits string, want ...string) {
		t.Helper()
		s := mustCompile(t, set(t, "set.yaml", identity+orders+"\nRoute dear {backend: orders, match: [{path: /dear}], cost: "+cost+"}"+
			"\nRoute free {backend: orders}\nTenantPolicy p {tenants: {any: true}, limits: ["+limits+"]}"))
		var got []string
		for _, p := range s.Warnings {
			got = append(got, fmt.Sprintf("%s %s: %s", p.Name, p.Path, p.Message))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s under %s: warnings (-want +got):\n%s", cost, limits, diff)
		}
	}

	// It fits exactly.
	f("{request: 50}", "{name: a, requests: 10, burst: 50}")
	// It never fits; the smallest bucket is named.
	f("{request: 51}", "{name: a, requests: 10, burst: 50}, {name: b, requests: 10}",
		"dear spec.cost.request: a request costs 51, but limit b of TenantPolicy p (set.yaml:25:75) never holds more than 10: every one under it is refused")
	f("{request: 51}", "{name: a, requests: 10, routes: [dear]}",
		"dear spec.cost.request: a request costs 51, but limit a of TenantPolicy p (set.yaml:25:39) never holds more than 10: every one under it is refused")
	// What a header adds nobody knows before.
	f("{header: X-Cost}", "{name: a, requests: 1}")
	// A limit of another route, in bytes, in shadow, or of none at all.
	f("{request: 51}", "{name: a, requests: 10, routes: [free]}, {name: b, bytes: 10}, {name: c, requests: 10, mode: Shadow}, {name: d, requests: 0}")
}
