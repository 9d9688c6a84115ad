package main

import (
	"cmp"
	"slices"

	"weir/admit"
	"weir/control"
	"weir/policy"
)

// tenants is what the admin port shows of the live table: one tenant, or all that are named when name is empty.
func (p *process) tenants(name string) control.TenantList {
	table, now := p.proxy.Table(), p.clock.Now()
	demand := table.OnDemand(now)
	list := control.TenantList{OnDemand: demand.Cells, Overflow: demand.Overflow, Capacity: demand.Capacity}
	states := []admit.TenantState{}
	if name == "" {
		states = table.Tenants(now)
	} else if s, ok := table.Tenant(now, name); ok {
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b admit.TenantState) int { return cmp.Compare(a.Name, b.Name) })
	for i := range states {
		list.Tenants = append(list.Tenants, shownTenant(&states[i]))
	}
	return list
}

func shownTenant(s *admit.TenantState) control.Tenant {
	t := control.Tenant{Name: s.Name, InFlight: s.InFlight, Waiting: s.Waiting, Concurrency: s.Concurrency, Weight: s.Weight}
	for _, l := range s.Limits {
		shown := control.TenantLimit{
			Policy: l.Policy, Name: l.Name, Per: l.Per.String(), Burst: l.Burst, Available: l.Available, Shadow: l.Shadow,
		}
		if l.Unit == policy.UnitBytes {
			shown.Bytes = l.Requests
		} else {
			shown.Requests = l.Requests
		}
		t.Limits = append(t.Limits, shown)
	}
	return t
}
