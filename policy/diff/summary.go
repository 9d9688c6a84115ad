package diff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"weir/policy"
)

// Summary says on one line what a document is about, as in limit steady 100/s, burst 200, tenants acme, globex.
func Summary(d *policy.Document) string {
	switch s := d.Spec.(type) {
	case *policy.TenantPolicySpec:
		return tenantPolicy(s)
	case *policy.RouteSpec:
		return route(s)
	case *policy.BackendSpec:
		return backend(s)
	case *policy.BreakerPolicySpec:
		return breaker(s)
	case *policy.SidecarSpec:
		return sidecar(d.Name, s)
	case *policy.PolicyTestSpec:
		return fmt.Sprintf("%d %s", len(s.Cases), noun(len(s.Cases), "case"))
	}
	return ""
}

func tenantPolicy(s *policy.TenantPolicySpec) string {
	var parts []string
	for i := range s.Limits {
		if i == most {
			parts = append(parts, fmt.Sprintf("%d more limits", len(s.Limits)-most))
			break
		}
		parts = append(parts, "limit "+plain(s.Limits[i].Name)+" "+limitWords(&s.Limits[i]))
	}
	if s.Concurrency != nil {
		parts = append(parts, fmt.Sprintf("%d at once", s.Concurrency.Max))
	}
	if s.Weight != nil {
		parts = append(parts, fmt.Sprintf("weight %d", *s.Weight))
	}
	if s.Backend != "" {
		parts = append(parts, "backend "+plain(s.Backend))
	}
	parts = append(parts, tenantWords(s.Tenants))
	if len(s.Services) > 0 {
		parts = append(parts, noun(len(s.Services), "service")+" "+listed(s.Services))
	}
	return strings.Join(parts, ", ")
}

func route(s *policy.RouteSpec) string {
	var takes []string
	for _, m := range s.Match {
		words := plain(cmp.Or(m.Host+m.Path, "everything"))
		if len(m.Methods) > 0 {
			words = strings.Join(m.Methods, "|") + " " + words
		}
		takes = append(takes, words)
	}
	if len(takes) == 0 {
		takes = []string{"everything"}
	}
	to := plain(s.Backend)
	if len(s.Split) > 0 {
		var parts []string
		for _, p := range s.Split {
			parts = append(parts, fmt.Sprintf("%s %d", plain(p.Backend), p.Weight))
		}
		to = shortened(parts)
	}
	words := shortened(takes) + " → " + to
	if s.Criticality == "NonCore" {
		words += ", non-core"
	}
	return words
}

func backend(s *policy.BackendSpec) string {
	var at []string
	for _, e := range s.Endpoints {
		at = append(at, plain(e.Address))
	}
	if s.DNS != nil {
		at = append(at, fmt.Sprintf("%s:%d by DNS", plain(s.DNS.Name), s.DNS.Port))
	}
	words := shortened(at)
	if s.Capacity != nil && s.Capacity.Concurrency > 0 {
		words += fmt.Sprintf(", %d at once", s.Capacity.Concurrency)
	}
	return words
}

func breaker(s *policy.BreakerPolicySpec) string {
	parts := []string{strings.ToLower(s.Target.Kind) + " " + plain(s.Target.Name)}
	if q := s.QPSBaseline; q != nil {
		parts = append(parts, fmt.Sprintf("rate leaves its baseline by %s (%s)", q.Deviation, q.Direction))
	}
	if f := s.Failures; f != nil {
		parts = append(parts, fmt.Sprintf("%s fail within %s", f.Ratio, f.Window))
	}
	return strings.Join(parts, ", ")
}

func sidecar(name string, s *policy.SidecarSpec) string {
	words := "service " + plain(cmp.Or(s.Service, name))
	var at []string
	for _, l := range s.Listeners {
		at = append(at, plain(l.Address))
	}
	if slices.Sort(at); len(at) > 0 {
		words += ", listens on " + shortened(at)
	}
	return words
}
