package policy

import (
	"slices"
	"time"
)

// Breaker is a BreakerPolicySpec, resolved.
type Breaker struct {
	Name      string
	Backend   int // index into Snapshot.Backends of what it watches; -1: a route
	Route     int // index into Snapshot.Routes; -1: a backend
	PerTenant bool
	Baseline  *BaselineSettings // nil: the rate is not judged
	Failures  *FailureSettings  // nil: calls are not judged
	Origin    Origin
}

// BaselineSettings is a QPSBaseline, resolved.
type BaselineSettings struct {
	Sample, Baseline time.Duration
	Deviation        float64 // part of the baseline, above 0
	Periods, Recover int
	Rise, Fall       bool // at least one
	MinRate          int  // requests a second
}

// FailureSettings is a Failures with its BreakerOpen, resolved.
type FailureSettings struct {
	Window      time.Duration
	Ratio       float64 // 0 to 1; 0: none opens
	MinRequests int
	SlowerThan  time.Duration // 0: none is slow
	SlowRatio   float64       // 0 to 1
	Consecutive int           // 0: none opens
	For, MaxFor time.Duration
	Probes      int
	Ramp        time.Duration
	Statuses    []string // as written, at least one: "5xx" or "503"
}

// Failed reports whether an answer of that status is a failure.
func (f *FailureSettings) Failed(status int) bool {
	for _, s := range f.Statuses {
		if int(s[0]-'0') == status/100 && (s[1:] == "xx" || int(s[1]-'0')*10+int(s[2]-'0') == status%100) {
			return true
		}
	}
	return false
}

// resolveBreakers fills snapshot.Breakers.
func (c *compiler) resolveBreakers() {
	for _, d := range c.breakers.docs {
		spec := d.Spec.(*BreakerPolicySpec)
		b := Breaker{
			Name: d.Name, Backend: -1, Route: -1, PerTenant: spec.PerTenant, Origin: d.Origin,
			Baseline: resolveBaseline(spec.QPSBaseline), Failures: resolveFailures(spec.Failures, &spec.Open),
		}
		if spec.Target.Kind == string(KindBackend) {
			b.Backend = c.lookUp(d, "spec.target.name", &c.backends, spec.Target.Name)
		} else {
			b.Route = c.lookUp(d, "spec.target.name", &c.routes, spec.Target.Name)
		}
		c.snapshot.Breakers = append(c.snapshot.Breakers, b)
	}
}

func resolveBaseline(q *QPSBaseline) *BaselineSettings {
	if q == nil {
		return nil
	}
	return &BaselineSettings{
		Sample: time.Duration(q.Sample), Baseline: time.Duration(q.Baseline), Deviation: float64(q.Deviation) / 100,
		Periods: q.Periods, Recover: q.Recover, Rise: q.Direction != "Fall", Fall: q.Direction != "Rise", MinRate: q.MinRate,
	}
}

func resolveFailures(f *Failures, o *BreakerOpen) *FailureSettings {
	if f == nil {
		return nil
	}
	s := &FailureSettings{
		Window: time.Duration(f.Window), Ratio: float64(f.Ratio) / 100, MinRequests: f.MinRequests,
		SlowerThan: time.Duration(f.SlowerThan), SlowRatio: float64(f.SlowRatio) / 100, Consecutive: f.Consecutive,
		For: time.Duration(o.For), MaxFor: time.Duration(o.MaxFor), Probes: o.Probes, Ramp: time.Duration(o.Ramp),
	}
	if s.Statuses = slices.Clone(f.Statuses); len(s.Statuses) == 0 {
		s.Statuses = []string{"5xx"}
	}
	return s
}

func resolveFallback(f *Fallback) *FallbackAnswer {
	if f == nil {
		return nil
	}
	return &FallbackAnswer{Status: f.Status, ContentType: f.ContentType, Body: f.Body, StaleFor: time.Duration(f.StaleFor)}
}

// checkBreakers reports breakers that can shed nothing, and routes that nothing sheds.
func (c *compiler) checkBreakers() {
	s := &c.snapshot
	shed := make(map[int]bool) // NonCore routes that a breaker sheds
	for i, d := range c.breakers.docs {
		b := &s.Breakers[i]
		if b.Baseline == nil {
			continue
		}
		found := false
		for r := range s.Routes {
			if s.Routes[r].NonCore && s.mayMeet(r, b) {
				found, shed[r] = true, true
			}
		}
		if !found {
			c.report(d, Warning, "spec.qpsBaseline", "Degraded sheds nothing: no Route to the target has criticality NonCore")
		}
	}
	for r, d := range c.routes.docs {
		if s.Routes[r].NonCore && !shed[r] {
			c.report(d, Warning, "spec.criticality", "NonCore means nothing here: no BreakerPolicy with qpsBaseline has this Route or its backend for a target")
		}
	}
}

// mayMeet reports whether requests of a route may meet a breaker: by the route itself, or by a backend that the route, a part of its
// split or a tenant's own terms lead to.
func (s *Snapshot) mayMeet(route int, b *Breaker) bool {
	if b.Backend < 0 {
		return b.Route == route
	}
	r := &s.Routes[route]
	return r.Backend == b.Backend ||
		slices.ContainsFunc(r.Split, func(part Split) bool { return part.Backend == b.Backend }) ||
		slices.ContainsFunc(s.Policies, func(p TenantPolicy) bool { return p.Backend == b.Backend })
}
