package policy

import (
	"math"
	"net/netip"
	"strings"
	"time"
)

// PolicyTestSpec is a unit test of policies. `sidecar test` runs it with the code that decides in a sidecar, on a clock of its own;
// a running sidecar passes over documents of this kind, so they may stand beside what they test.
type PolicyTestSpec struct {
	// Documents are further files and directories under test, besides those that the command line names. A relative one is taken
	// from the folder of this document.
	Documents []string `yaml:"documents"`
	// Service is the fleet to test for. Empty means the one that the Sidecar names.
	Service string `yaml:"service" weir:"format=dnslabel"`
	// Cases are run one by one, each with full buckets at its start.
	Cases []TestCase `yaml:"cases" weir:"required"`
}

// TestCase is some requests, and what is expected of them.
type TestCase struct {
	// Name says what the case shows.
	Name string `yaml:"name" weir:"required"`
	// Requests arrive in the order of their times, and at one time in the order written.
	Requests []TestRequests `yaml:"requests" weir:"required"`
	// Expect lists what must come of them.
	Expect []TestExpectation `yaml:"expect" weir:"required"`
}

// TestRequests are like requests that arrive at regular times. Without count and for it is a single one.
type TestRequests struct {
	// Tenant is who they are from. Empty leaves that to the identity sources of the Sidecar.
	Tenant string `yaml:"tenant" weir:"format=tenant"`
	// Method of the requests.
	Method string `yaml:"method" weir:"default=GET,format=method"`
	// Host that they name.
	Host string `yaml:"host" weir:"format=host"`
	// Path that they ask for, in canonical form and without a query.
	Path string `yaml:"path" weir:"default=/,format=target"`
	// Headers that they carry.
	Headers map[string]string `yaml:"headers" weir:"format=headername"`
	// Client is the address that they come from.
	Client string `yaml:"client"`
	// At is when the first one arrives, from the start of the case.
	At Duration `yaml:"at" weir:"default=0s"`
	// Every is the time between two of them. 0 means that all come at once.
	Every Duration `yaml:"every" weir:"default=0s"`
	// Count is how many they are.
	Count *int `yaml:"count" weir:"min=1,max=1000000"`
	// For is how long they go on, in place of count. Goes with every.
	For *Duration `yaml:"for" weir:"min=1ns"`
	// Takes is how long the backend takes for each: it is in flight for so long.
	Takes Duration `yaml:"takes" weir:"default=0s"`
	// Status is what the backend answers, for breakers to judge.
	Status int `yaml:"status" weir:"default=200,min=200,max=599"`
}

// TestExpectation is a condition on the requests of a case. Its filters choose among them; at least one of allowed, denied,
// shadowDenied, available and level says what must be.
type TestExpectation struct {
	// Tenant counts only the requests of this tenant.
	Tenant string `yaml:"tenant" weir:"format=tenant"`
	// Route counts only the requests of this route.
	Route string `yaml:"route" weir:"format=dnslabel"`
	// From counts only requests that arrived at this time or later.
	From Duration `yaml:"from" weir:"default=0s"`
	// Until counts only requests that arrived before this time.
	Until *Duration `yaml:"until" weir:"min=1ns"`
	// Reason counts only denials for this reason, as metrics and logs name it.
	Reason string `yaml:"reason"`
	// Limit, as policy/limit, counts what this one limit said rather than what became of the requests.
	Limit string `yaml:"limit"`
	// Allowed is how many passed.
	Allowed *int `yaml:"allowed" weir:"min=0"`
	// Denied is how many were refused.
	Denied *int `yaml:"denied" weir:"min=0"`
	// ShadowDenied is how many a limit in shadow would have refused. Goes with limit.
	ShadowDenied *int `yaml:"shadowDenied" weir:"min=0"`
	// Available is how many tokens the limit has for the tenant at the time at. Goes with tenant and limit.
	Available *int64 `yaml:"available" weir:"min=0"`
	// Breaker counts only denials by this BreakerPolicy, or names the one that level is about.
	Breaker string `yaml:"breaker" weir:"format=dnslabel"`
	// Level of the breaker at the time at: that of the tenant's own where each has one.
	Level string `yaml:"level" weir:"enum=Normal|Degraded|HalfOpen|Open"`
	// At is when available and level are looked at, once all that happens at that moment has happened.
	At *Duration `yaml:"at"`
}

// MaxTestRequests is how many requests a case may make.
const MaxTestRequests = 1_000_000

// Arrivals returns how many requests these are.
func (r *TestRequests) Arrivals() int {
	switch {
	case r.Count != nil:
		return *r.Count
	case r.For != nil && r.Every > 0:
		return int(min(max((*r.For+r.Every-1)/r.Every, 1), math.MaxInt32))
	}
	return 1
}

func (d *decoder) policyTest(s *PolicyTestSpec) {
	names := firsts{}
	for i := range s.Cases {
		c, at := &s.Cases[i], joinIndex("spec.cases", i)
		d.unique(names, c.Name, at+".name")
		total := 0
		for j := range c.Requests {
			d.testRequests(&c.Requests[j], joinIndex(at+".requests", j))
			total += c.Requests[j].Arrivals()
		}
		if total > MaxTestRequests {
			d.fail(at+".requests", "%d requests are too many; a case has at most %d", total, MaxTestRequests)
		}
		for j := range c.Expect {
			d.testExpectation(&c.Expect[j], joinIndex(at+".expect", j))
		}
	}
}

func (d *decoder) testRequests(r *TestRequests, at string) {
	if r.Count != nil && r.For != nil {
		d.fail(at+".for", "count says how many already; want one of them")
	}
	if r.For != nil && r.Every == 0 {
		d.fail(at+".for", "goes with every, which is not set")
	}
	if _, err := netip.ParseAddr(r.Client); r.Client != "" && err != nil {
		d.fail(at+".client", "%s is not an IP address", quote(r.Client))
	}
	const latest = Duration(8 * 365 * 24 * time.Hour)
	if last := float64(r.At) + float64(r.Every)*float64(r.Arrivals()-1) + float64(r.Takes); last > float64(latest) {
		d.fail(at, "the last one ends after more than 8 years, the longest that a case may take")
	}
	for name := range r.Headers {
		if strings.EqualFold(name, "Host") {
			d.fail(joinKey(at+".headers", name), "is not among the headers here; use host")
		}
	}
}

func (d *decoder) testExpectation(e *TestExpectation, at string) {
	if e.Allowed == nil && e.Denied == nil && e.ShadowDenied == nil && e.Available == nil && e.Level == "" &&
		!d.misspelled(at, []string{"allowed", "denied", "shadowDenied", "available", "level"}) {
		d.fail(at, "expects nothing; set allowed, denied, shadowDenied, available or level")
	}
	d.goesWith(at, "shadowDenied", "limit")
	d.goesWith(at, "available", "limit")
	d.goesWith(at, "available", "tenant")
	d.goesWith(at, "available", "at")
	d.goesWith(at, "level", "breaker")
	d.goesWith(at, "level", "at")
	d.goesWith(at, "at", "available", "level")
	d.goesWith(at, "breaker", "denied", "level")
	d.goesWith(at, "reason", "denied")
	if e.Reason != "" && e.Limit != "" {
		d.fail(at+".reason", "does not go with limit, which has one reason only")
	}
	if e.Breaker != "" && e.Limit != "" {
		d.fail(at+".breaker", "does not go with limit; make two expectations of it")
	}
	if e.Until != nil && *e.Until <= e.From {
		d.fail(at+".until", "%s is not after from, which is %s", *e.Until, e.From)
	}
}
