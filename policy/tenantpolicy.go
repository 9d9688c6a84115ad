package policy

// TenantPolicySpec sets the terms for some tenants. Every limit of every policy that matches a tenant applies, and the
// strictest answer wins. A limit of the same name in a more specific policy (names > match > any > unknown) replaces the
// less specific one, unless that one is final. Of two equally specific, the first by policy name wins and the other is reported.
type TenantPolicySpec struct {
	// Services are the fleets it applies to. Empty means all that read it.
	Services []string `yaml:"services" weir:"format=dnslabel"`
	// Tenants says whom it applies to.
	Tenants TenantSelector `yaml:"tenants" weir:"required"`
	// Weight is each of these tenants' part of a saturated backend, relative to that of others. The most specific policy that
	// sets it wins; absent everywhere means 1.
	Weight *int `yaml:"weight" weir:"min=1,max=1000"`
	// Limits are rates: token buckets.
	Limits []Limit `yaml:"limits"`
	// Quotas are long windows with a calendar, kept in etcd.
	Quotas []Quota `yaml:"quotas" weir:"later"`
	// Concurrency bounds a tenant's requests in flight. The most specific policy that sets it wins.
	Concurrency *Concurrency `yaml:"concurrency"`
	// Backend sends these tenants to their own backend, whatever the route says. The most specific policy that sets it wins.
	Backend string `yaml:"backend" weir:"format=dnslabel"`
	// Reject says what a refused client is told. The most specific policy that sets it wins.
	Reject *Reject `yaml:"reject"`
	// Headers says what the answers of the backend tell a client of its limits, beside what refusals say: Standard adds
	// RateLimit-Policy and RateLimit, Legacy X-RateLimit-*, Both all of them; Off leaves answers as they are. Where the backend
	// sends such fields itself, the stricter value wins. The most specific policy that sets it wins; where none does, it is Off.
	Headers string `yaml:"headers" weir:"enum=Off|Standard|Legacy|Both"`
}

// TenantSelector says whom a policy applies to. Exactly one field is set.
type TenantSelector struct {
	// Names are tenants, compared byte for byte.
	Names []string `yaml:"names" weir:"format=tenant"`
	// Match is a pattern in which each * stands for any bytes, as in "eu-*".
	Match string `yaml:"match" weir:"format=tenantpattern"`
	// Any applies to every request that has an identity.
	Any bool `yaml:"any"`
	// Unknown applies to requests without an identity or with one that no other policy covers, under `unknownTenant: Default`.
	Unknown bool `yaml:"unknown"`
}

// Limit is a rate: a token bucket that refills at requests (or bytes) per `per` and holds `burst`.
type Limit struct {
	// Name is what metrics, headers and errors say.
	Name string `yaml:"name" weir:"required,format=dnslabel"`
	// Requests per `per`. 0 blocks the tenant. Exactly one of requests and bytes is set.
	Requests *int64 `yaml:"requests" weir:"min=0,max=1000000000"`
	// Bytes of bodies, both directions together, per `per`: bodies are slowed down, and nothing is refused. At most one per nanosecond.
	Bytes *Size `yaml:"bytes"`
	// Per is the time in which an empty bucket refills by `requests` or `bytes`.
	Per Duration `yaml:"per" weir:"default=1s,min=1ms,max=744h"`
	// Burst is how many tokens the bucket holds: a whole number, or for a limit in bytes a size. Absent means as many as requests or bytes.
	Burst *Tokens `yaml:"burst" weir:"min=1"`
	// Scope is this process alone, or all sidecars of the service together.
	Scope string `yaml:"scope" weir:"enum=Sidecar|Fleet,default=Sidecar,later=Fleet"`
	// Bucket says who shares it: one for each tenant, one for each tenant and route, or one for all tenants of this policy.
	Bucket string `yaml:"bucket" weir:"enum=Tenant|TenantAndRoute|Shared,default=Tenant"`
	// Routes it applies to, by name. Empty means all.
	Routes []string `yaml:"routes" weir:"format=dnslabel"`
	// Mode Shadow counts what it would deny and denies nothing.
	Mode string `yaml:"mode" weir:"enum=Enforce|Shadow,default=Enforce"`
	// Final keeps a more specific policy from replacing the limit of this name.
	Final bool `yaml:"final"`
	// WhenAlone says what a Fleet limit is while the fleet's state cannot be reached.
	WhenAlone string `yaml:"whenAlone" weir:"enum=Share|Deny|Allow,default=Share,later=Deny|Allow"`
}

// Quota is a long window with a calendar.
type Quota struct {
	// Name is what metrics, headers and errors say.
	Name string `yaml:"name" weir:"required,format=dnslabel"`
	// Requests in each window.
	Requests int64 `yaml:"requests" weir:"required,min=0"`
	// Window is the calendar's unit.
	Window string `yaml:"window" weir:"required,enum=Hour|Day|Week|Month"`
	// TimeZone is where the window begins, as an IANA name.
	TimeZone string `yaml:"timeZone" weir:"default=UTC"`
}

// Concurrency bounds a tenant's requests in flight.
type Concurrency struct {
	// Max is the most requests in flight for each tenant.
	Max int `yaml:"max" weir:"required,min=1,max=1000000"`
	// Queue is how many of each tenant may wait while there are as many. 0 refuses at once.
	Queue int `yaml:"queue" weir:"default=0,min=0,max=1000000"`
	// QueueTimeout is how long one may wait. Goes with queue.
	QueueTimeout Duration `yaml:"queueTimeout" weir:"default=200ms,min=1ms,max=1h"`
}

// Reject says what a refused client is told.
type Reject struct {
	// Status of the answer to a request over its limits.
	Status int `yaml:"status" weir:"default=429,min=400,max=599"`
	// Headers: Standard sends RateLimit-Policy, RateLimit and Retry-After; Legacy X-RateLimit-* and Retry-After; Both all of them; Off none.
	Headers string `yaml:"headers" weir:"enum=Standard|Legacy|Both|Off,default=Standard"`
}
