package policy

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// told is a provenance, one line for each limit and term.
func told(p Provenance) []string {
	var lines []string
	at := func(o Origin) Origin { return Origin{File: o.File, Line: o.Line} }
	fate := func(r *Replacement) string {
		if r == nil {
			return "stands"
		}
		return fmt.Sprintf("replaced by %s at %s: %s", r.Policy, at(r.Origin), r.Why)
	}
	for _, l := range p.Limits {
		lines = append(lines, fmt.Sprintf("%s/%s (%s) at %s %s", l.Policy, l.Name, l.Selector, at(l.Origin), fate(l.Replaced)))
	}
	for _, t := range p.Terms {
		lines = append(lines, fmt.Sprintf("%s %s: %s (%s) at %s %s", t.Policy, t.Term, t.Value, t.Selector, at(t.Origin), fate(t.Replaced)))
	}
	return lines
}

func TestProvenance(t *testing.T) {
	f := func(tenant, policies string, want ...string) {
		t.Helper()
		s := mustCompile(t, set(t, "set.yaml", identity+orders+policies))
		if diff := cmp.Diff(want, told(s.Provenance(s.Covering(tenant, nil)))); diff != "" {
			t.Errorf("provenance of %s (-want +got):\n%s", tenant, diff)
		}
	}

	// The more specific limit stands, and the place of both is told.
	f("eu-1", `
		TenantPolicy a {tenants: {any: true}, limits: [{name: x, requests: 1}, {name: y, requests: 1}]}
		TenantPolicy b {tenants: {match: 'eu-*'}, limits: [{name: x, requests: 2}]}`,
		`b/x (match eu-*) at set.yaml:20 stands`,
		`a/x (any) at set.yaml:15 replaced by b at set.yaml:20: it is more specific`,
		`a/y (any) at set.yaml:15 stands`)

	// Final, once and twice.
	f("acme", `
		TenantPolicy a {tenants: {any: true}, limits: [{name: x, requests: 1, final: true}, {name: y, requests: 1, final: true}]}
		TenantPolicy b {tenants: {names: [acme]}, limits: [{name: x, requests: 2}, {name: y, requests: 2, final: true}]}`,
		`b/x (names) at set.yaml:20 replaced by a at set.yaml:15: it is final`,
		`b/y (names) at set.yaml:20 replaced by a at set.yaml:15: both are final, and it is less specific`,
		`a/x (any) at set.yaml:15 stands`,
		`a/y (any) at set.yaml:15 stands`)

	// Equally specific, final or not.
	f("acme", `
		TenantPolicy a {tenants: {any: true}, limits: [{name: x, requests: 1}, {name: y, requests: 1, final: true}]}
		TenantPolicy b {tenants: {any: true}, limits: [{name: x, requests: 2}, {name: y, requests: 2, final: true}]}`,
		`a/x (any) at set.yaml:15 stands`,
		`a/y (any) at set.yaml:15 stands`,
		`b/x (any) at set.yaml:20 replaced by a at set.yaml:15: it is equally specific, and its policy is the first by name`,
		`b/y (any) at set.yaml:20 replaced by a at set.yaml:15: both are final and equally specific, and its policy is the first by name`)

	// Enforced and in shadow, apart.
	f("acme", `
		TenantPolicy a {tenants: {any: true}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {names: [acme]}, limits: [{name: x, requests: 2, mode: Shadow}]}`,
		`b/x (names) at set.yaml:20 stands`,
		`a/x (any) at set.yaml:15 stands`)

	// What is no limit: the most specific that says something stands.
	f("acme", `
		TenantPolicy a {tenants: {any: true}, concurrency: {max: 5}, backend: orders}
		TenantPolicy b {tenants: {any: true}, concurrency: {max: 6}}
		TenantPolicy c {tenants: {names: [acme]}, concurrency: {max: 7}, reject: {status: 503, headers: Off}}
		TenantPolicy d {tenants: {any: true}, headers: Both}`,
		`c concurrency: max 7 (names) at set.yaml:25 stands`,
		`a concurrency: max 5 (any) at set.yaml:15 replaced by c at set.yaml:25: it is more specific`,
		`b concurrency: max 6 (any) at set.yaml:20 replaced by c at set.yaml:25: it is more specific`,
		`a backend: orders (any) at set.yaml:15 stands`,
		`c reject: status 503, headers Off (names) at set.yaml:25 stands`,
		`d headers: Both (any) at set.yaml:30 stands`)
	f("acme", `
		TenantPolicy a {tenants: {any: true}, concurrency: {max: 5}}
		TenantPolicy b {tenants: {any: true}, concurrency: {max: 6}}`,
		`a concurrency: max 5 (any) at set.yaml:15 stands`,
		`b concurrency: max 6 (any) at set.yaml:20 replaced by a at set.yaml:15: it is equally specific, and its policy is the first by name`)

	// Nobody covers the tenant.
	f("acme", `
		TenantPolicy a {tenants: {names: [globex]}, limits: [{name: x, requests: 1}]}`)
}

// What stands by its provenance is the plan, in its order; what fell is named with what stands.
func TestProvenanceIsThePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := snapshotOf(policies(t)...)
		s.Backends = make([]Backend, 3)
		for i := range s.Backends {
			s.Backends[i].Name = fmt.Sprint("backend", i)
		}
		set := s.Covering(rapid.SampledFrom([]string{"acme", "eu-1", "globex"}).Draw(t, "tenant"), nil)
		plan, told := s.Plan(set), s.Provenance(set)
		var stands []LimitRule
		for _, l := range told.Limits {
			if l.Replaced == nil {
				stands = append(stands, l.LimitRule)
			}
		}
		if diff := cmp.Diff(plan.Limits, stands); diff != "" {
			t.Fatalf("what stands differs from the plan (-plan +provenance):\n%s", diff)
		}
		for _, l := range told.Limits {
			if l.Replaced != nil && !slices.ContainsFunc(plan.Limits, func(r LimitRule) bool {
				return r.Policy == l.Replaced.Policy && r.namesake() == l.namesake()
			}) {
				t.Fatalf("%s/%s is replaced by %s, which does not stand", l.Policy, l.Name, l.Replaced.Policy)
			}
		}
		concurrency, backend := "", ""
		for _, term := range told.Terms {
			switch {
			case term.Replaced != nil:
			case term.Term == "concurrency":
				concurrency = term.Value
			case term.Term == "backend":
				backend = term.Value
			}
		}
		want := ""
		if plan.Concurrency > 0 {
			want = fmt.Sprint("max ", plan.Concurrency)
		}
		if concurrency != want {
			t.Fatalf("concurrency %q, want %q", concurrency, want)
		}
		if plan.Backend >= 0 && backend != s.Backends[plan.Backend].Name || plan.Backend < 0 && backend != "" {
			t.Fatalf("backend %q, want number %d", backend, plan.Backend)
		}
	})
}
