package policy

import (
	"slices"
	"strings"
)

// validate checks the rules between fields of one document. It looks at what is written rather than at the decoded values
// where it can, so that a field with a wrong value is not also reported as missing.
func (d *decoder) validate() {
	switch s := d.doc.Spec.(type) {
	case *SidecarSpec:
		d.sidecar(s)
	case *BackendSpec:
		d.backend(s)
	case *RouteSpec:
		d.route(s)
	case *TenantPolicySpec:
		d.tenantPolicy(s)
	case *BreakerPolicySpec:
		d.breakerPolicy(s)
	case *PolicyTestSpec:
		d.policyTest(s)
	case *DistributionSpec:
		d.distribution(s)
	}
}

// fail adds an error at the field at path.
func (d *decoder) fail(path, format string, args ...any) {
	d.add(d.doc.Problem(Error, path, format, args...))
}

// set reports whether the field at path is written with a value other than "", [], false or null.
func (d *decoder) set(path string) bool {
	n := d.doc.tree.value(path)
	switch {
	case n == nil:
		return false
	case n.kind == mappingNode:
		return true
	case n.kind == sequenceNode:
		return len(n.items) > 0
	}
	return n.text != "" && n.scalar != nullScalar && (n.scalar != boolScalar || strings.EqualFold(n.text, "true"))
}

// misspelled reports whether the mapping at path has an unknown key that resembles one of names.
func (d *decoder) misspelled(path string, names []string) bool {
	n := d.doc.tree.value(path)
	return n != nil && slices.ContainsFunc(n.fields, func(e entry) bool { return slices.Contains(names, e.meant) })
}

// exactlyOne demands that just one of the fields at path is set.
func (d *decoder) exactlyOne(path string, names ...string) {
	if n := d.doc.tree.value(path); n != nil && n.kind != mappingNode {
		return // reported already
	}
	var got []string
	for _, name := range names {
		if d.set(joinKey(path, name)) {
			got = append(got, name)
		}
	}
	if len(got) == 0 && !d.misspelled(path, names) {
		d.fail(path, "exactly one of %s must be set; got none", list(names, "and"))
	}
	if len(got) > 1 {
		d.fail(path, "exactly one of %s must be set; got %s", list(names, "and"), list(got, "and"))
	}
}

// firsts finds repetitions: it remembers where each value was first.
type firsts map[string]string

// uniqueAddress is unique for addresses to listen on; port 0 is another port each time.
func (d *decoder) uniqueAddress(seen firsts, address, path string) {
	if !strings.HasSuffix(address, ":0") {
		d.unique(seen, address, path)
	}
}

// unique reports a value that stands at path and stood somewhere before. Empty ones do not count.
func (d *decoder) unique(seen firsts, value, path string) {
	if value == "" {
		return
	}
	if first, ok := seen[value]; ok {
		if d.full() {
			return
		}
		d.fail(path, "%s is already at %s on line %d", quote(value), first, d.doc.origin(first).Line)
		return
	}
	seen[value] = path
}

func (d *decoder) sidecar(s *SidecarSpec) {
	names, addresses := firsts{}, firsts{}
	for i, l := range s.Listeners {
		at := joinIndex("spec.listeners", i)
		d.unique(names, l.Name, at+".name")
		d.uniqueAddress(addresses, l.Address, at+".address")
		if l.TLS != nil {
			d.goesWith(at+".tls", "requireClientCert", "clientCAFile")
		}
	}
	if d.set("spec.admin.address") {
		d.uniqueAddress(addresses, s.Admin.Address, "spec.admin.address")
	}
	for i := range s.Identity {
		d.identity(&s.Identity[i], joinIndex("spec.identity", i))
	}
	d.policySources(s.Policies)
}

// framingNames are fields that frame or route a message, or belong to one connection. None of them can say who a tenant is.
const framingNames = " host connection keep-alive proxy-connection te trailer transfer-encoding content-length upgrade expect "

func (d *decoder) identity(s *IdentitySource, at string) {
	d.exactlyOne(at, "header", "jwt", "apiKey", "spiffe", "host", "path", "clientCIDR")
	if d.doc.written(at+".trust") && !d.set(at+".header") {
		d.fail(at+".trust", "goes with header only")
	}
	d.identityHeader(s.Header, at+".header")
	if s.APIKey != nil {
		d.identityHeader(s.APIKey.Header, at+".apiKey.header")
	}
	if s.JWT != nil {
		d.identityHeader(s.JWT.Header, at+".jwt.header")
		algorithms := firsts{}
		for i, name := range s.JWT.Algorithms {
			d.unique(algorithms, name, joinIndex(at+".jwt.algorithms", i))
		}
	}
	networks := firsts{}
	for i, c := range s.ClientCIDR {
		if c.CIDR != (CIDR{}) {
			d.unique(networks, c.CIDR.String(), joinIndex(at+".clientCIDR", i)+".cidr")
		}
	}
}

func (d *decoder) identityHeader(name, at string) {
	if name != "" && strings.Contains(framingNames, " "+strings.ToLower(name)+" ") {
		d.fail(at, "%s cannot say who the tenant is, since it belongs to the connection or the framing", quote(name))
	}
}

func (d *decoder) backend(s *BackendSpec) {
	d.exactlyOne("spec", "endpoints", "dns")
	addresses := firsts{}
	for i, e := range s.Endpoints {
		at := joinIndex("spec.endpoints", i) + ".address"
		d.unique(addresses, e.Address, at)
		if s.TLS != nil && strings.HasPrefix(e.Address, "unix:") && !d.set("spec.tls.serverName") && !d.misspelled("spec.tls", []string{"serverName"}) {
			d.fail("spec.tls", "serverName must be set, since %s at %s has no host name to verify the certificate against", quote(e.Address), at)
		}
	}
	if s.TLS != nil {
		d.clientTLS("spec.tls")
	}
	if s.Health != nil {
		d.health()
	}
	if s.Capacity != nil {
		d.capacity(s.Capacity)
	}
	if s.Retries != nil {
		causes := firsts{}
		for i, cause := range s.Retries.On {
			d.unique(causes, cause, joinIndex("spec.retries.on", i))
		}
	}
}

// capacity refuses one that bounds nothing, and a queue that nobody ever waits in. Defaults that are written out are fine.
func (d *decoder) capacity(c *Capacity) {
	const at = "spec.capacity"
	if d.doc.tree.value(at).kind != mappingNode {
		return // reported already
	}
	switch {
	case d.misspelled(at, []string{"concurrency", "adaptive"}):
	case !d.doc.written(at+".concurrency") && !d.doc.written(at+".adaptive"):
		d.fail(at, "bounds nothing; set concurrency, adaptive or both")
	case c.Queue > 0 && c.Concurrency == 0 && !c.Adaptive:
		d.fail(at+".queue", "nobody waits where nothing is bounded; set concurrency, adaptive or both")
	}
	d.goesWith(at, "queueTimeout", "queue")
}

func (d *decoder) clientTLS(at string) {
	d.goesWith(at, "certFile", "keyFile")
	d.goesWith(at, "keyFile", "certFile")
}

// goesWith demands that one of the other fields is set where the field name is.
func (d *decoder) goesWith(at, name string, others ...string) {
	isSet := func(other string) bool { return d.set(joinKey(at, other)) }
	if isSet(name) && !slices.ContainsFunc(others, isSet) && !d.misspelled(at, others) {
		d.fail(joinKey(at, name), "goes with %s, which is not set", strings.Join(others, " or "))
	}
}

func (d *decoder) health() {
	const at = "spec.health"
	if d.set(at+".path") || d.doc.tree.value(at).kind != mappingNode { // the latter is reported already
		return
	}
	if !d.set(at+".passive") && !d.misspelled(at, []string{"path", "passive"}) {
		d.fail(at, "judges by nothing; set path, passive or both")
	}
	for _, name := range []string{"interval", "healthy", "unhealthy"} {
		if d.doc.written(joinKey(at, name)) {
			d.fail(joinKey(at, name), "goes with path only")
		}
	}
}

func (d *decoder) route(s *RouteSpec) {
	d.exactlyOne("spec", "backend", "split")
	for i, m := range s.Match {
		d.headerConditions(m.Headers, joinIndex("spec.match", i)+".headers")
	}
	backends, tenants, weight := firsts{}, firsts{}, 0
	for i, t := range s.Split {
		at := joinIndex("spec.split", i)
		d.unique(backends, t.Backend, at+".backend")
		for j, tenant := range t.Tenants {
			d.unique(tenants, tenant, joinIndex(at+".tenants", j))
		}
		weight += max(t.Weight, 0)
	}
	if len(s.Split) > 0 && weight == 0 {
		d.fail("spec.split", "every weight is 0, so nobody takes the tenants that are not listed")
	}
}

// headerConditions refuses conditions that no request can meet.
func (d *decoder) headerConditions(headers map[string]string, at string) {
	n := d.doc.tree.value(at)
	if n == nil {
		return
	}
	names := firsts{}
	for _, e := range n.fields {
		name := e.key.text
		value, ok := headers[name]
		if !ok {
			continue
		}
		path := joinKey(at, name)
		lower := strings.ToLower(name)
		if first, ok := names[lower]; !ok {
			names[lower] = path
		} else if first != path {
			d.fail(path, "%s is already at %s on line %d, since names are compared without case", quote(name), first, d.doc.origin(first).Line)
		}
		switch {
		case lower == "host":
			d.fail(path, "%s is no condition on a header; use host", quote(name))
		case value != strings.Trim(value, " \t"):
			d.fail(path, "%s would never match, since values are compared without the space around them", quote(value))
		case strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
			d.fail(path, "%s would never match, since it has a control character", quote(value))
		}
	}
}

func (d *decoder) tenantPolicy(s *TenantPolicySpec) {
	if d.doc.written("spec.tenants") {
		d.exactlyOne("spec.tenants", "names", "match", "any", "unknown")
	}
	tenants := firsts{}
	for i, name := range s.Tenants.Names {
		d.unique(tenants, name, joinIndex("spec.tenants.names", i))
	}
	if s.Concurrency != nil {
		d.goesWith("spec.concurrency", "queueTimeout", "queue")
	}
	names := firsts{}
	for i := range s.Limits {
		l, at := &s.Limits[i], joinIndex("spec.limits", i)
		d.unique(names, l.Name, at+".name")
		d.exactlyOne(at, "requests", "bytes")
		d.limitUnits(l, at)
		routes := firsts{}
		for j, r := range l.Routes {
			d.unique(routes, r, joinIndex(at+".routes", j))
		}
	}
	services := firsts{}
	for i, name := range s.Services {
		d.unique(services, name, joinIndex("spec.services", i))
	}
}

// limitUnits checks that a limit's numbers are of the unit that it limits, and that bytes are some.
func (d *decoder) limitUnits(l *Limit, at string) {
	if n, err := ParseSize(d.text(at + ".bytes")); n == 0 && err == nil {
		d.fail(at+".bytes", "0 would stop every body in the middle; want at least 1, or requests: 0 to block the tenant")
	}
	if l.Requests == nil || l.Burst == nil {
		return
	}
	switch burst := d.text(at + ".burst"); {
	case *l.Requests == 0:
		d.fail(at+".burst", "means nothing when requests is 0, which blocks the tenant")
	case hasUnit(burst):
		d.fail(at+".burst", "%s is a size, but the limit is in requests; want a whole number", quote(burst))
	}
}

// text is the scalar at path as it is written, or "" where there is none.
func (d *decoder) text(path string) string {
	if n := d.doc.tree.value(path); n != nil {
		return n.text
	}
	return ""
}

func (d *decoder) breakerPolicy(s *BreakerPolicySpec) {
	if s.QPSBaseline == nil && s.Failures == nil && !d.misspelled("spec", []string{"qpsBaseline", "failures"}) {
		d.fail("spec", "judges by nothing; set qpsBaseline, failures or both")
	}
	if d.set("spec.open") && s.Failures == nil {
		d.fail("spec.open", "goes with failures, which is not set: leaving the baseline degrades, and never opens")
	}
	if s.Open.MaxFor < s.Open.For {
		d.fail("spec.open.maxFor", "%s is less than for, which is %s", s.Open.MaxFor, s.Open.For)
	}
	if q := s.QPSBaseline; q != nil {
		if q.Baseline < 5*q.Sample {
			d.fail("spec.qpsBaseline.baseline", "%s is less than five samples of %s", q.Baseline, q.Sample)
		}
	}
	if f := s.Failures; f != nil {
		if d.doc.written("spec.failures.slowRatio") && f.SlowerThan == 0 {
			d.fail("spec.failures.slowRatio", "goes with slowerThan, which is not set")
		}
		if ratio, err := ParsePercent(d.text("spec.failures.ratio")); ratio == 0 && err == nil && f.Consecutive == 0 && f.SlowerThan == 0 {
			d.fail("spec.failures", "opens for nothing; set ratio, slowerThan or consecutive")
		}
		statuses := firsts{}
		for i, status := range f.Statuses {
			d.unique(statuses, status, joinIndex("spec.failures.statuses", i))
		}
	}
}
