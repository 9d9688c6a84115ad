package policy

// RouteSpec says which requests go to which backend, and on what terms.
type RouteSpec struct {
	// Match lists what the route takes; any one of them suffices. None means every request.
	Match []RouteMatch `yaml:"match"`
	// Backend is the name of the Backend. Exactly one of backend and split is set.
	Backend string `yaml:"backend" weir:"format=dnslabel"`
	// Split spreads requests over several backends by weight; a tenant always gets the same one.
	Split []SplitTarget `yaml:"split"`
	// Criticality: NonCore routes give way first when a breaker is Degraded.
	Criticality string `yaml:"criticality" weir:"enum=Core|NonCore,default=Core"`
	// Fallback answers a request that a breaker shed or refused. Without it: 503 and a problem document.
	Fallback *Fallback `yaml:"fallback"`
	// Timeout bounds the whole request, instead of the Sidecar's timeouts.request. 0 means that one. A WebSocket is bounded to its end.
	Timeout Duration `yaml:"timeout" weir:"default=0s,min=0s"`
	// Cost is how many tokens a request spends on every limit in requests. Absent means 1.
	Cost *Cost `yaml:"cost"`
	// Mirror sends a copy of requests to another backend and ignores the answers.
	Mirror *Mirror `yaml:"mirror" weir:"later"`
	// Aggregate asks several backends at once and answers one JSON object keyed by backend.
	Aggregate *Aggregate `yaml:"aggregate" weir:"later"`
}

// RouteMatch is a condition; all of its fields must hold.
type RouteMatch struct {
	// Host is a name, or "*.example.com" for any label before it. Empty means any. Ports are not compared.
	Host string `yaml:"host" weir:"format=hostpattern"`
	// Path is exact, or ends in /* for everything below it and the path without /* itself. Empty means any.
	Path string `yaml:"path" weir:"format=pathpattern"`
	// Methods are compared by case. Empty means any.
	Methods []string `yaml:"methods" weir:"format=method"`
	// Headers must be present with exactly these values.
	Headers map[string]string `yaml:"headers" weir:"format=headername"`
}

// SplitTarget is one backend's part of a split.
type SplitTarget struct {
	// Backend is the name of the Backend.
	Backend string `yaml:"backend" weir:"required,format=dnslabel"`
	// Weight is its part relative to the others'. 0 takes only the tenants listed.
	Weight int `yaml:"weight" weir:"default=1,min=0,max=1000000"`
	// Tenants always go here, whatever the weights.
	Tenants []string `yaml:"tenants" weir:"format=tenant"`
}

// Fallback is what a client gets in the place of the backend's answer: the last good answer to the same request where staleFor
// keeps one, else a static answer.
type Fallback struct {
	// Status is the static answer's status.
	Status int `yaml:"status" weir:"default=200,min=200,max=599"`
	// ContentType is the static answer's Content-Type.
	ContentType string `yaml:"contentType" weir:"default=text/plain,format=fieldvalue"`
	// Body is the static answer's body.
	Body string `yaml:"body"`
	// StaleFor keeps the backend's last good answer to each GET for so long, for the same tenant, host, path and query only, and
	// only where neither the request nor the answer forbids a cache to. 0 keeps none.
	StaleFor Duration `yaml:"staleFor" weir:"default=0s,min=0s,max=744h"`
}

// Cost is how many tokens a request spends.
type Cost struct {
	// Request is spent by every request. 0 spends nothing, but a blocked tenant stays blocked.
	Request int64 `yaml:"request" weir:"default=1,min=0,max=1000000000"`
	// Header of the request holds a number from 0 to 1000000000 that is spent besides. Whoever may send it can only pay more.
	Header string `yaml:"header" weir:"format=headername"`
}

// Mirror sends a copy of requests to another backend.
type Mirror struct {
	// Backend is the name of the Backend.
	Backend string `yaml:"backend" weir:"required,format=dnslabel"`
	// Percent is the part of requests copied.
	Percent Percent `yaml:"percent" weir:"default=100%"`
}

// Aggregate asks several backends at once.
type Aggregate struct {
	// Backends are the names of the Backends.
	Backends []string `yaml:"backends" weir:"required,format=dnslabel"`
	// Timeout bounds the slowest.
	Timeout Duration `yaml:"timeout" weir:"default=300ms,min=1ms"`
}
