package policy

import (
	"fmt"
	"strings"
	"testing"
)

// fleet is a large set: 10 backends, 1,000 routes, 1,000 policies that name 10,000 tenants, with three limits each. A tenth of the
// policies are patterns instead.
func fleet(t testing.TB) []*Document {
	var b strings.Builder
	b.WriteString("Sidecar weir {identity: [{host: '{tenant}.example.com'}]}")
	for i := range 10 {
		fmt.Fprintf(&b, "\nBackend b%d {endpoints: [{address: 127.0.0.1:%d}]}", i, 9000+i)
	}
	for i := range 1000 {
		fmt.Fprintf(&b, "\nRoute r%d {backend: b%d, match: [{host: api.example.com, path: /r%d/*, methods: [GET, POST]}]}", i, i%10, i)
	}
	for i := range 1000 {
		selector := fmt.Sprintf("match: 't-%d-*'", i)
		if i%10 > 0 {
			var names []string
			for j := range 11 {
				names = append(names, fmt.Sprintf("t-%d", 11*i+j))
			}
			selector = "names: [" + strings.Join(names, ", ") + "]"
		}
		fmt.Fprintf(&b, "\nTenantPolicy p%d {tenants: {%s}, limits: [{name: steady, requests: 100}, {name: hourly, requests: 10000, per: 1h}, "+
			"{name: checkout, requests: 5, routes: [r%d]}]}", i, selector, i)
	}
	b.WriteString("\nTenantPolicy every {tenants: {any: true}, limits: [{name: steady, requests: 10}, {name: ceiling, requests: 1000, final: true}]}")
	return set(t, "fleet.yaml", b.String())
}

func BenchmarkCompile(b *testing.B) {
	docs := fleet(b)
	b.ReportAllocs()
	for b.Loop() {
		if s := mustCompile(b, docs); len(s.Warnings) > 0 {
			b.Fatal(said(s.Warnings))
		}
	}
}

// What a table does for every named tenant at each change.
func BenchmarkPlanEveryNamedTenant(b *testing.B) {
	s := mustCompile(b, fleet(b))
	tenants := s.NamedTenants()
	b.ReportMetric(float64(len(tenants)), "tenants")
	b.ReportAllocs()
	var covering []int
	for b.Loop() {
		for _, tenant := range tenants {
			covering = s.Covering(tenant, covering[:0])
			s.Plan(covering)
		}
	}
}

// What a request of a tenant never seen before costs.
func BenchmarkCovering(b *testing.B) {
	s := mustCompile(b, fleet(b))
	dst := make([]int, 0, 8)
	b.ReportAllocs()
	for b.Loop() {
		dst = s.Covering("t-500-x", dst[:0])
	}
}
