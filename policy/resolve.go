package policy

import (
	"cmp"
	"maps"
	"math"
	"math/bits"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// resolveSidecar fills snapshot.Sidecar.
func (c *compiler) resolveSidecar() {
	d, spec := c.sidecar, c.sidecar.Spec.(*SidecarSpec)
	s := SidecarSettings{
		Name:           d.Name,
		Service:        cmp.Or(c.service, spec.Service, d.Name),
		Admin:          spec.Admin,
		UnknownTenant:  unknownMode(spec.UnknownTenant),
		LastGood:       ResolvePath(d.Origin, spec.LastGood),
		HeaderTimeout:  time.Duration(spec.Timeouts.Header),
		IdleTimeout:    time.Duration(spec.Timeouts.Idle),
		BodyTimeout:    time.Duration(spec.Timeouts.Body),
		SendTimeout:    time.Duration(spec.Timeouts.Send),
		RequestTimeout: time.Duration(spec.Timeouts.Request),
		LameDuck:       time.Duration(spec.Timeouts.LameDuck),
		DrainTimeout:   time.Duration(spec.Timeouts.Drain),
		Bounds: BoundsSettings{
			HeaderBytes:      int(spec.Bounds.HeaderBytes),
			HeaderCount:      spec.Bounds.HeaderCount,
			URIBytes:         int(spec.Bounds.URIBytes),
			BodyBytes:        int64(spec.Bounds.BodyBytes),
			BodyRate:         int64(spec.Bounds.BodyRate),
			Connections:      spec.Bounds.Connections,
			ConnectionsPerIP: spec.Bounds.ConnectionsPerIP,
		},
		AccessLog: spec.AccessLog,
	}
	if path := s.AccessLog.Path; path != "stdout" && path != "stderr" {
		s.AccessLog.Path = ResolvePath(d.Origin, path)
	}
	for _, network := range spec.TrustedProxies {
		s.TrustedProxies = append(s.TrustedProxies, netip.Prefix(network))
	}
	s.resolveSources(d.Origin, spec.Policies)
	for _, source := range spec.Identity {
		if source.APIKey != nil {
			key := *source.APIKey
			key.KeysFile = ResolvePath(d.Origin, key.KeysFile)
			source.APIKey = &key
		}
		if source.JWT != nil {
			source.JWT = resolveJWT(d.Origin, source.JWT)
		}
		source.ClientCIDR = slices.Clone(source.ClientCIDR)
		if source.Header == "" {
			source.Trust = ""
		}
		s.Identity = append(s.Identity, source)
	}
	for _, l := range spec.Listeners {
		network, address := SplitAddress(l.Address)
		settings := ListenerSettings{Name: l.Name, Network: network, Address: address}
		if l.TLS != nil {
			files := *l.TLS
			resolvePaths(d.Origin, &files.CertFile, &files.KeyFile, &files.ClientCAFile)
			settings.TLS = &files
		}
		s.Listeners = append(s.Listeners, settings)
	}
	if len(s.Listeners) == 0 {
		s.Listeners = []ListenerSettings{{Name: "http", Network: "tcp", Address: ":8080"}}
	}
	c.snapshot.Sidecar = s
}

func resolveJWT(o Origin, written *JWTIdentity) *JWTIdentity {
	jwt := *written
	jwt.JWKSFile = ResolvePath(o, jwt.JWKSFile)
	jwt.Algorithms = slices.Clone(jwt.Algorithms)
	if len(jwt.Algorithms) == 0 {
		jwt.Algorithms = []string{"RS256", "ES256", "EdDSA"}
	}
	return &jwt
}

func unknownMode(s string) UnknownMode {
	switch s {
	case "Default":
		return UnknownDefault
	case "Shared":
		return UnknownShared
	}
	return UnknownDeny
}

// ResolvePath returns a path of a document as a path of this process: a relative one is taken from the folder of the document's
// file, and from the working directory when the document comes from the command line. An empty path stays empty. It only joins
// names and asks nothing of the file system.
func ResolvePath(o Origin, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(o.File), path)
}

func resolvePaths(o Origin, paths ...*string) {
	for _, path := range paths {
		*path = ResolvePath(o, *path)
	}
}

// SplitAddress returns what net.Dial and net.Listen take for an address of a document.
func SplitAddress(s string) (network, address string) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return "unix", path
	}
	return "tcp", s
}

// resolveBackends fills snapshot.Backends.
func (c *compiler) resolveBackends() {
	for _, d := range c.backends.docs {
		spec := d.Spec.(*BackendSpec)
		b := Backend{
			Name:            d.Name,
			MaxConnections:  spec.Pool.MaxConnections,
			MaxIdle:         min(spec.Pool.MaxIdle, spec.Pool.MaxConnections),
			IdleTimeout:     time.Duration(spec.Pool.IdleTimeout),
			ConnectTimeout:  time.Duration(spec.Timeouts.Connect),
			ResponseTimeout: time.Duration(spec.Timeouts.Response),
			BodyIdleTimeout: time.Duration(spec.Timeouts.IdleBody),
			PoolPerTenant:   spec.Pool.PerTenant,
			Balance:         balance(spec.Balance),
			Health:          resolveHealth(spec.Health),
			Retries:         resolveRetries(spec.Retries),
			Capacity:        resolveCapacity(spec.Capacity),
		}
		if dns := spec.DNS; dns != nil {
			b.DNS = &DNSSettings{Name: dns.Name, Port: dns.Port, Refresh: time.Duration(dns.Refresh)}
		}
		if spec.TLS != nil {
			files := *spec.TLS
			resolvePaths(d.Origin, &files.CAFile, &files.CertFile, &files.KeyFile)
			if files.ServerName == "" && spec.DNS != nil {
				files.ServerName = strings.TrimSuffix(spec.DNS.Name, ".")
			}
			b.TLS = &files
		}
		for _, e := range spec.Endpoints {
			network, address := SplitAddress(e.Address)
			b.Endpoints = append(b.Endpoints, EndpointSettings{Network: network, Address: address, Weight: e.Weight})
		}
		if b.Capacity != nil && b.Capacity.Concurrency > b.MaxConnections && !b.PoolPerTenant {
			c.report(d, Warning, "spec.capacity.concurrency", "%d is more than the %d of pool.maxConnections: requests beyond these are refused with pool_full instead of waiting",
				b.Capacity.Concurrency, b.MaxConnections)
		}
		c.snapshot.Backends = append(c.snapshot.Backends, b)
	}
}

func balance(s string) Balance {
	switch s {
	case "RoundRobin":
		return RoundRobin
	case "ConsistentHash":
		return ConsistentHash
	}
	return LeastRequest
}

func resolveHealth(h *Health) *HealthSettings {
	if h == nil {
		return nil
	}
	s := &HealthSettings{Path: h.Path, Interval: time.Duration(h.Interval), Healthy: h.Healthy, Unhealthy: h.Unhealthy}
	if p := h.Passive; p != nil {
		s.Passive = &PassiveSettings{
			ConsecutiveFailures: p.ConsecutiveFailures,
			EjectFor:            time.Duration(p.EjectFor),
			MaxEjected:          float64(p.MaxEjected) / 100,
		}
	}
	return s
}

// defaultRetryBudget holds for backends without `retries`: what is sent again since a reused connection broke is bounded too.
const defaultRetryBudget = 0.10

func resolveRetries(r *Retries) RetrySettings {
	if r == nil {
		return RetrySettings{Budget: defaultRetryBudget}
	}
	s := RetrySettings{Attempts: r.Attempts, Budget: float64(r.Budget) / 100}
	for _, cause := range r.On {
		switch cause {
		case "connect":
			s.Connect = true
		case "reset":
			s.Reset = true
		default:
			status, err := strconv.Atoi(cause)
			if err != nil {
				panic("BUG: a retry cause that passed its check: " + cause)
			}
			s.Statuses = append(s.Statuses, status)
		}
	}
	slices.Sort(s.Statuses)
	return s
}

// resolveCapacity returns nil for a capacity that bounds nothing.
func resolveCapacity(c *Capacity) *CapacitySettings {
	if c == nil || c.Concurrency == 0 && !c.Adaptive {
		return nil
	}
	return &CapacitySettings{Concurrency: c.Concurrency, Adaptive: c.Adaptive, Queue: queue(c.Queue, c.QueueTimeout)}
}

func queue(length int, timeout Duration) QueueSettings {
	if length == 0 {
		return QueueSettings{}
	}
	return QueueSettings{Length: length, Timeout: time.Duration(timeout)}
}

// resolveRoutes fills snapshot.Routes. Exactly one Backend and no Route mean a catch-all Route of the Backend's name.
func (c *compiler) resolveRoutes() {
	for _, d := range c.routes.docs {
		spec := d.Spec.(*RouteSpec)
		r := Route{
			Name: d.Name, Backend: -1, Timeout: time.Duration(spec.Timeout), Cost: 1,
			NonCore: spec.Criticality == "NonCore", Fallback: resolveFallback(spec.Fallback),
		}
		if spec.Cost != nil {
			r.Cost, r.CostBy = spec.Cost.Request, spec.Cost.Header
		}
		for _, m := range spec.Match {
			r.Match = append(r.Match, RouteMatch{
				Host:    m.Host,
				Path:    m.Path,
				Methods: slices.Clone(m.Methods),
				Headers: maps.Clone(m.Headers),
			})
		}
		if len(spec.Split) == 0 {
			r.Backend = c.lookUp(d, "spec.backend", &c.backends, spec.Backend)
		}
		for i, part := range spec.Split {
			r.Split = append(r.Split, Split{
				Backend: c.lookUp(d, joinIndex("spec.split", i)+".backend", &c.backends, part.Backend),
				Weight:  part.Weight,
				Tenants: slices.Clone(part.Tenants),
			})
		}
		c.snapshot.Routes = append(c.snapshot.Routes, r)
	}
	if len(c.routes.docs) > 0 {
		return
	}
	if len(c.backends.names) == 1 {
		name := c.backends.names[0]
		c.snapshot.Routes = []Route{{Name: name, Cost: 1}}
		c.routes.name(name)
		return
	}
	c.reportSet(Warning, "no Route, and %d Backends where a single one would imply a Route: every request is answered with 404",
		len(c.backends.names))
}

// resolvePolicies fills snapshot.Policies with those of this service, and checks all of them.
func (c *compiler) resolvePolicies() {
	for _, d := range c.policies.docs {
		spec := d.Spec.(*TenantPolicySpec)
		p := c.resolvePolicy(d, spec)
		if len(spec.Services) == 0 || slices.Contains(spec.Services, c.snapshot.Sidecar.Service) {
			c.snapshot.Policies = append(c.snapshot.Policies, p)
			c.applied = append(c.applied, d)
		}
	}
	c.snapshot.coverage = newCoverage(&c.snapshot)
}

func (c *compiler) resolvePolicy(d *Document, spec *TenantPolicySpec) TenantPolicy {
	p := TenantPolicy{Name: d.Name, Backend: -1, Headers: spec.Headers}
	switch t := spec.Tenants; {
	case len(t.Names) > 0:
		p.Specificity, p.Names = SpecNames, slices.Clone(t.Names)
		slices.Sort(p.Names)
	case t.Match != "":
		p.Specificity, p.Pattern = SpecMatch, t.Match
	case t.Any:
		p.Specificity = SpecAny
	case t.Unknown:
		p.Specificity = SpecUnknown
	}
	if spec.Headers != "" {
		p.Origins.Headers = d.origin("spec.headers")
	}
	for i := range spec.Limits {
		p.Limits = append(p.Limits, c.resolveLimit(d, joinIndex("spec.limits", i), &spec.Limits[i]))
	}
	if spec.Weight != nil {
		p.Weight, p.Origins.Weight = *spec.Weight, d.origin("spec.weight")
	}
	if q := spec.Concurrency; q != nil {
		p.Concurrency, p.Queue, p.Origins.Concurrency = q.Max, queue(q.Queue, q.QueueTimeout), d.origin("spec.concurrency")
	}
	if spec.Backend != "" {
		p.Backend, p.Origins.Backend = c.lookUp(d, "spec.backend", &c.backends, spec.Backend), d.origin("spec.backend")
	}
	if spec.Reject != nil {
		reject := *spec.Reject
		p.Reject, p.Origins.Reject = &reject, d.origin("spec.reject")
	}
	return p
}

// longestRefill is the longest that an empty bucket may take to be full again. The buckets' arithmetic holds somewhat more.
const longestRefill = 4 * 365 * 24 * time.Hour

func (c *compiler) resolveLimit(d *Document, path string, l *Limit) LimitRule {
	r := LimitRule{
		Policy: d.Name,
		Name:   l.Name,
		Per:    time.Duration(l.Per),
		Bucket: bucketScope(l.Bucket),
		Shadow: l.Mode == "Shadow",
		Final:  l.Final,
		Origin: d.origin(path),
	}
	if l.Bytes != nil {
		r.Unit, r.Requests = UnitBytes, int64(*l.Bytes)
	} else {
		r.Requests = *l.Requests
	}
	for i, name := range l.Routes {
		r.Routes = append(r.Routes, c.lookUp(d, joinIndex(path+".routes", i), &c.routes, name))
	}
	slices.Sort(r.Routes)
	r.Routes = slices.Compact(r.Routes)

	if r.Requests == 0 {
		return r // it blocks, and has no burst
	}
	r.Burst = r.Requests
	if l.Burst != nil {
		r.Burst = int64(*l.Burst)
	}
	if r.Requests > int64(r.Per) {
		c.report(d, Error, path+"."+r.Unit.String(), "%d in %s is more than one a nanosecond, want at most %d", r.Requests, r.Per, int64(r.Per))
		return r
	}
	if most := mostBurst(r.Requests, r.Per); r.Burst > most {
		c.report(d, Error, path+".burst", "a bucket of %d takes more than 4 years to refill at %d in %s, want at most %d",
			r.Burst, r.Requests, r.Per, most)
	}
	return r
}

// mostBurst is the largest burst that refills within longestRefill: that × requests ÷ per, without overflow on the way.
func mostBurst(requests int64, per time.Duration) int64 {
	hi, lo := bits.Mul64(uint64(longestRefill), uint64(requests))
	if hi >= uint64(per) {
		return math.MaxInt64
	}
	most, _ := bits.Div64(hi, lo, uint64(per))
	return int64(min(most, math.MaxInt64))
}

func bucketScope(s string) BucketScope {
	switch s {
	case "TenantAndRoute":
		return BucketTenantAndRoute
	case "Shared":
		return BucketShared
	}
	return BucketTenant
}
