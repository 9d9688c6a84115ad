package main

import (
	"cmp"
	"slices"

	"weir/admit"
	"weir/control"
	"weir/policy"
)

// breakers is what the admin port shows of the live table's breakers: those of one policy, or all when name is empty.
func (p *process) breakers(name string) []control.Breaker {
	table, now := p.proxy.Table(), p.clock.Now()
	judged := make(map[string]*policy.Breaker)
	for i := range table.Snapshot().Breakers {
		b := &table.Snapshot().Breakers[i]
		judged[b.Name] = b
	}
	states := table.Breakers(now)
	slices.SortFunc(states, func(a, b admit.BreakerState) int {
		return cmp.Or(cmp.Compare(a.Breaker, b.Breaker), cmp.Compare(a.Tenant, b.Tenant))
	})
	var list []control.Breaker
	for i := range states {
		if s := &states[i]; name == "" || s.Breaker == name {
			list = append(list, p.shownBreaker(s, judged[s.Breaker]))
		}
	}
	return list
}

func (p *process) shownBreaker(s *admit.BreakerState, judged *policy.Breaker) control.Breaker {
	shown := control.Breaker{
		Name: s.Breaker, Target: s.Target, PerTenant: s.PerTenant, Tenant: s.Tenant,
		Level: s.Level.String(), Since: p.clock.Wall(s.Since), Share: s.Share,
	}
	if s.Until > 0 {
		shown.Until = p.clock.Wall(s.Until)
	}
	n := &s.Numbers
	if judged.Baseline != nil {
		shown.Rate = &control.BreakerRate{Offered: n.Offered, Passed: n.Rate, Baseline: n.Baseline, Low: n.Low, High: n.High}
	}
	if judged.Failures != nil {
		shown.Calls = &control.BreakerCalls{Requests: n.Requests, Failures: n.Failures, Slow: n.Slow}
	}
	return shown
}
