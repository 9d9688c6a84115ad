package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// lookForConflicts reports what each document may say on its own, but not beside the others.
func (c *compiler) lookForConflicts() {
	c.checkAdmin()
	c.checkIdentity()
	c.checkUnknown()
	c.checkRoutes()
	c.checkLimits()
	c.checkCosts()
	c.checkBreakers()
}

// checkAdmin refuses a listener on the address of the admin port. Where both are written, decoding has refused it.
func (c *compiler) checkAdmin() {
	network, address := SplitAddress(c.snapshot.Sidecar.Admin.Address)
	for _, l := range c.snapshot.Sidecar.Listeners {
		if l.Network == network && l.Address == address && !strings.HasSuffix(address, ":0") {
			c.report(c.sidecar, Error, "spec.admin.address", "%s is the address of listener %s already", quote(address), l.Name)
		}
	}
}

// checkIdentity reports sources that nobody is believed for, and policies that so can never apply.
func (c *compiler) checkIdentity() {
	s := &c.snapshot.Sidecar
	believed := false
	for i, source := range s.Identity {
		at := joinIndex("spec.identity", i) + ".header"
		switch {
		case source.SPIFFE != nil:
			believed = c.checkSPIFFE(joinIndex("spec.identity", i)+".spiffe") || believed
		case source.JWT != nil:
			believed = true
			c.checkJWT(joinIndex("spec.identity", i)+".jwt", source.JWT)
		case source.Header == "":
			believed = true
		case source.Trust == "any":
			believed = true
			// Who writes `trust: any` has said it out loud. The flags of `sidecar run` imply it, which deserves a line.
			if c.sidecar.Origin.File == CommandLine {
				c.report(c.sidecar, Warning, at, "%s is believed from anybody: whoever can reach the listener chooses its tenant", source.Header)
			}
		case len(s.TrustedProxies) == 0:
			c.report(c.sidecar, Warning, at,
				"nobody is believed for %s, since spec.trustedProxies is empty; list the proxies, or say trust: any", source.Header)
		default:
			believed = true
		}
	}
	if believed {
		return
	}
	for i, p := range c.snapshot.Policies {
		if p.Specificity != SpecUnknown {
			c.report(c.applied[i], Warning, "spec.tenants",
				"no request is ever identified as a tenant, since the Sidecar has no identity source that anybody is believed for")
			return // one line says it for all policies
		}
	}
}

// checkSPIFFE reports a source that reads certificates which nobody is asked for.
func (c *compiler) checkSPIFFE(at string) (believed bool) {
	for _, l := range c.snapshot.Sidecar.Listeners {
		if l.TLS != nil && l.TLS.ClientCAFile != "" {
			return true
		}
	}
	c.report(c.sidecar, Warning, at, "no client is asked for a certificate, since no listener has tls.clientCAFile")
	return false
}

// checkJWT reports a source that takes tokens which were issued for others: whoever gets one could pass it on.
func (c *compiler) checkJWT(at string, jwt *JWTIdentity) {
	if jwt.Audience == "" {
		c.report(c.sidecar, Warning, at, "tokens issued for any audience are believed, since audience is not set; any service that gets one can use it here")
	}
}

// checkUnknown turns a mode of unknownTenant that has no policies to go by into Deny.
func (c *compiler) checkUnknown() {
	s := &c.snapshot
	switch {
	case s.Sidecar.UnknownTenant == UnknownDefault && len(s.UnknownPolicies()) == 0:
		c.report(c.sidecar, Warning, "spec.unknownTenant", "Default is Deny here: no TenantPolicy of this service has tenants: {unknown: true}")
		s.Sidecar.UnknownTenant = UnknownDeny
	case s.Sidecar.UnknownTenant == UnknownShared && len(s.AnyPolicies()) == 0:
		c.report(c.sidecar, Warning, "spec.unknownTenant", "Shared is Deny here: no TenantPolicy of this service has tenants: {any: true}")
		s.Sidecar.UnknownTenant = UnknownDeny
	}
	if s.Sidecar.UnknownTenant != UnknownDefault {
		for _, i := range s.UnknownPolicies() {
			c.report(c.applied[i], Warning, "spec.tenants.unknown", "never applies: the Sidecar's unknownTenant is %s, want Default",
				c.sidecar.Spec.(*SidecarSpec).UnknownTenant)
		}
	}
}

// checkRoutes reports matches that an equal one comes before.
func (c *compiler) checkRoutes() {
	first := make(map[string]string)
	for r, d := range c.routes.docs {
		route := &c.snapshot.Routes[r]
		if len(route.Match) == 0 {
			c.checkMatch(first, d, "spec.match", RouteMatch{})
		}
		for i, m := range route.Match {
			c.checkMatch(first, d, joinIndex("spec.match", i), m)
		}
	}
}

func (c *compiler) checkMatch(first map[string]string, d *Document, at string, m RouteMatch) {
	methods := slices.Sorted(slices.Values(m.Methods))
	headers := slices.Sorted(func(yield func(string) bool) {
		for name, value := range maps.All(m.Headers) {
			if !yield(strings.ToLower(name) + ": " + value) {
				return
			}
		}
	})
	key := fmt.Sprintf("%q %q %q %q", m.Host, m.Path, slices.Compact(methods), headers)
	if other, ok := first[key]; ok {
		c.report(d, Warning, at, "never matches: the same is at %s, which comes first by name", other)
		return
	}
	first[key] = fmt.Sprintf("Route %s %s", d.Name, at)
}

// checkLimits reports every limit that falls beside one of the same name and mode that is not more specific: the reader of its own
// document would expect it to stand.
func (c *compiler) checkLimits() {
	s := &c.snapshot
	rivals := make(map[namesake][]rankedLimit) // of the match, any and unknown policies, in the order of policies
	for i := range s.Policies {
		if s.Policies[i].Specificity == SpecNames {
			continue
		}
		for j := range s.Policies[i].Limits {
			l := s.ranked(i, j)
			rivals[l.namesake()] = append(rivals[l.namesake()], l)
		}
	}
	for i := range s.Policies {
		for j := range s.Policies[i].Limits {
			l := s.ranked(i, j)
			if !c.fallsAmong(rivals[l.namesake()], l, j) && l.specificity == SpecNames {
				c.fallsAmong(c.namesakes(l), l, j)
			}
		}
	}
}

// namesakes returns the limits of a limit's name and mode in the other names policies that share a tenant with its own.
func (c *compiler) namesakes(l rankedLimit) []rankedLimit {
	s := &c.snapshot
	var found []rankedLimit
	met := map[int]bool{l.policy: true}
	for _, tenant := range s.Policies[l.policy].Names {
		for _, i := range s.coverage.named[tenant] {
			if met[i] {
				continue
			}
			met[i] = true
			for j := range s.Policies[i].Limits {
				if s.Policies[i].Limits[j].namesake() == l.namesake() {
					found = append(found, s.ranked(i, j))
				}
			}
		}
	}
	return found
}

// fallsAmong reports the first of the rivals beside which the limit, at index j of its policy, falls unexpectedly.
func (c *compiler) fallsAmong(rivals []rankedLimit, l rankedLimit, j int) bool {
	s := &c.snapshot
	for _, r := range rivals {
		if r.specificity > l.specificity || !prevails(r, l) {
			continue
		}
		tenants := s.common(r.policy, l.policy)
		if tenants == "" {
			continue
		}
		noun, why := "limit", ""
		if l.Shadow {
			noun = "shadow limit"
		}
		switch {
		case r.specificity < l.specificity:
			why = "final and less specific"
		case r.Final && !l.Final:
			why = "final and equally specific"
		default:
			why = "equally specific and comes first by name"
		}
		c.report(c.applied[l.policy], Warning, joinIndex("spec.limits", j)+".name",
			"%s %s has no effect for %s: TenantPolicy %s has one of that name (%s), which is %s", noun, l.Name, tenants, r.Policy, r.Origin, why)
		return true
	}
	return false
}

// common describes the tenants that two policies both cover, or returns "" when there are none. Policies for the unknown have only
// one another in common.
func (s *Snapshot) common(i, j int) string {
	a, b := &s.Policies[i], &s.Policies[j]
	if a.Specificity > b.Specificity {
		a, b = b, a
	}
	switch {
	case b.Specificity == SpecUnknown:
		return "the unknown"
	case a.Specificity == SpecUnknown:
		return ""
	case a.Specificity == SpecAny:
		return "any tenant it covers"
	case b.Specificity == SpecMatch:
		if example := overlap(a.Pattern, b.Pattern); example != "" {
			return "tenants such as " + quote(example)
		}
		return ""
	}
	var both []string
	for _, tenant := range b.Names {
		if a.covers(tenant) {
			both = append(both, tenant)
		}
	}
	switch len(both) {
	case 0:
		return ""
	case 1:
		return "tenant " + quote(both[0])
	}
	return fmt.Sprintf("%d tenants, %s the first", len(both), quote(both[0]))
}
