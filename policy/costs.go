package policy

import "slices"

// checkCosts reports routes whose requests cost more than a bucket holds that they spend from: not one of them can pass.
func (c *compiler) checkCosts() {
	for i, d := range c.routes.docs {
		route := &c.snapshot.Routes[i]
		if route.Cost <= 1 { // every bucket holds 1
			continue
		}
		if l := c.tooSmallFor(i, route.Cost); l != nil {
			c.report(d, Warning, "spec.cost.request",
				"a request costs %d, but limit %s of TenantPolicy %s (%s) never holds more than %d: every one under it is refused",
				route.Cost, l.Name, l.Policy, l.Origin, l.Burst)
		}
	}
}

// tooSmallFor returns the smallest enforced limit in requests that applies on a route and holds less than its requests cost;
// nil when there is none. One that blocks is not meant: it refuses whatever the cost.
func (c *compiler) tooSmallFor(route int, cost int64) (least *LimitRule) {
	for i := range c.snapshot.Policies {
		limits := c.snapshot.Policies[i].Limits
		for j := range limits {
			l := &limits[j]
			applies := len(l.Routes) == 0 || slices.Contains(l.Routes, route)
			if applies && l.Unit == UnitRequests && !l.Shadow && l.Requests > 0 && l.Burst < cost && (least == nil || l.Burst < least.Burst) {
				least = l
			}
		}
	}
	return least
}
