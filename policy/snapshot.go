package policy

import (
	"crypto"
	"net/netip"
	"slices"
	"time"
)

// Snapshot is all documents of one revision, compiled. It is immutable and safe for concurrent use: nothing in it may be
// changed after [Compile] returned it, and nothing in it refers to the documents it came from.
type Snapshot struct {
	// Hash identifies the content: hex SHA-256 over the documents' canonical form, sorted by kind and name, the service, and the
	// keys. It does not cover where the documents were written.
	Hash string
	// Sidecar is this process's own settings.
	Sidecar SidecarSettings
	// Backends, Routes, Policies and Breakers are sorted by name, and refer to backends and routes by index.
	Backends []Backend
	Routes   []Route
	Policies []TenantPolicy
	Breakers []Breaker
	// Documents describes what was compiled, sorted by kind and name, for status pages and for `why`.
	Documents []DocumentInfo
	// Warnings are what is legal but probably not meant; they never keep a snapshot from being applied.
	Warnings []Problem

	coverage *coverage // nil in a snapshot made by hand
}

// TLSFiles returns the files that the TLS of listeners and backends is read from, in no particular order.
func (s *Snapshot) TLSFiles() []string {
	var files []string
	for i := range s.Sidecar.Listeners {
		if t := s.Sidecar.Listeners[i].TLS; t != nil {
			files = append(files, t.CertFile, t.KeyFile, t.ClientCAFile)
		}
	}
	for i := range s.Backends {
		if t := s.Backends[i].TLS; t != nil {
			files = append(files, t.CAFile, t.CertFile, t.KeyFile)
		}
	}
	return slices.DeleteFunc(files, func(path string) bool { return path == "" })
}

// DocumentInfo names one document of a snapshot.
type DocumentInfo struct {
	Kind   Kind
	Name   string
	Origin Origin
	Digest string // hex SHA-256 of its canonical form
}

// Origin is where a document or a field was written. Line and Column count from 1; 0 means unknown.
type Origin struct {
	File   string // path, etcd key, or "command line"
	Line   int
	Column int
}

// SidecarSettings is a SidecarSpec, resolved.
type SidecarSettings struct {
	Name           string
	Service        string
	Listeners      []ListenerSettings
	Admin          Admin
	TrustedProxies []netip.Prefix
	Identity       []IdentitySource // validated; exactly one source set in each, Trust set with Header only
	APIKeys        []APIKeyTable    // one for each Identity with apiKey, in order; see Snapshot.WithKeys
	KeySets        []KeySet         // one for each Identity with jwt, in order; see Snapshot.WithKeys
	UnknownTenant  UnknownMode
	PolicyFiles    []string               // files and directories of `policies`
	Sources        []PolicySourceSettings // all of `policies`, in order: a later one takes precedence
	LastGood       string                 // empty: none
	HeaderTimeout  time.Duration
	IdleTimeout    time.Duration
	BodyTimeout    time.Duration
	SendTimeout    time.Duration
	RequestTimeout time.Duration // 0: no bound
	LameDuck       time.Duration
	DrainTimeout   time.Duration
	Bounds         BoundsSettings
	AccessLog      AccessLog
}

// PolicySourceSettings is one PolicySource, resolved. Exactly one of File and Etcd is set.
type PolicySourceSettings struct {
	Name string      // of all sources with Etcd or with a name of their own, no two have the same
	File string      // a file or a directory
	Etcd *EtcdSource // with paths resolved
}

// ListenerSettings is one Listener, resolved.
type ListenerSettings struct {
	Name    string
	Network string       // "tcp" or "unix"
	Address string       // host:port or the socket's path
	TLS     *ListenerTLS // with paths resolved; nil: plain HTTP
}

// BoundsSettings is Bounds in plain numbers.
type BoundsSettings struct {
	HeaderBytes, HeaderCount, URIBytes int
	BodyBytes                          int64 // 0: no bound
	BodyRate                           int64 // bytes per second; 0: no minimum
	Connections, ConnectionsPerIP      int   // ConnectionsPerIP 0: no bound
}

// APIKeyTable maps the SHA-256 of a key to its tenant.
type APIKeyTable map[[32]byte]string

// KeySet holds the public keys that verify tokens, in the order of their file.
type KeySet []VerificationKey

// VerificationKey is a public key for signatures.
type VerificationKey struct {
	ID         string           // the `kid` that tokens name it by; empty: none
	Algorithms []string         // what it may verify, in the order of JWTIdentity.Algorithms; at least one
	Key        crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey

	der []byte // the key in a form that can be compared
}

// UnknownMode says what happens to a request whose tenant is unknown. Compile turns a mode without policies to go by into
// UnknownDeny, with a warning: a missing identity never means unlimited.
type UnknownMode uint8

// The modes of `unknownTenant`.
const (
	UnknownDeny    UnknownMode = iota // 401 without an identity, 403 with one
	UnknownDefault                    // the policies with `tenants: {unknown: true}`, of which there is at least one
	UnknownShared                     // one bucket for all of them, under the limits of the `any` policies, of which there is at least one
)

// String is the value as documents have it.
func (m UnknownMode) String() string {
	return [...]string{UnknownDeny: "Deny", UnknownDefault: "Default", UnknownShared: "Shared"}[m]
}

// Backend is a BackendSpec, resolved.
type Backend struct {
	Name            string
	Endpoints       []EndpointSettings // empty with DNS
	DNS             *DNSSettings       // nil: Endpoints
	Balance         Balance
	Health          *HealthSettings // nil: every endpoint is healthy
	Retries         RetrySettings
	PoolPerTenant   bool       // MaxConnections and MaxIdle are each tenant's
	TLS             *ClientTLS // with paths resolved; nil: plain HTTP
	MaxConnections  int
	MaxIdle         int
	IdleTimeout     time.Duration
	ConnectTimeout  time.Duration
	ResponseTimeout time.Duration
	BodyIdleTimeout time.Duration
	Capacity        *CapacitySettings // nil: no bound
}

// CapacitySettings is a Capacity, resolved.
type CapacitySettings struct {
	Concurrency int // most in flight; 0: no bound, or with Adaptive none but what is found
	Adaptive    bool
	Queue       QueueSettings
}

// QueueSettings say who may wait. The zero value is nobody.
type QueueSettings struct {
	Length  int           // how many
	Timeout time.Duration // how long each; above 0 unless Length is 0
}

// EndpointSettings is one Endpoint, resolved.
type EndpointSettings struct {
	Network string // "tcp" or "unix"
	Address string // host:port or the socket's path
	Weight  int
}

// DNSSettings is a DNS, resolved.
type DNSSettings struct {
	Name    string
	Port    int
	Refresh time.Duration
}

// Balance says how an endpoint is chosen.
type Balance uint8

// The values of `balance`.
const (
	LeastRequest Balance = iota
	RoundRobin
	ConsistentHash
)

// String is the value as documents have it.
func (b Balance) String() string {
	return [...]string{LeastRequest: "LeastRequest", RoundRobin: "RoundRobin", ConsistentHash: "ConsistentHash"}[b]
}

// HealthSettings is a Health, resolved.
type HealthSettings struct {
	Path               string // empty: no active checks
	Interval           time.Duration
	Healthy, Unhealthy int
	Passive            *PassiveSettings // nil: none
}

// PassiveSettings is a PassiveHealth, resolved.
type PassiveSettings struct {
	ConsecutiveFailures int
	EjectFor            time.Duration
	MaxEjected          float64 // of the endpoints, 0 to 1
}

// RetrySettings is a Retries, resolved. Budget holds without a Retries as well.
type RetrySettings struct {
	Connect, Reset bool
	Statuses       []int // ascending
	Attempts       int   // 0: none
	Budget         float64
}

// Route is a RouteSpec, resolved. Its index in Snapshot.Routes is its identity within one snapshot.
type Route struct {
	Name    string
	Match   []RouteMatch // validated, hosts in lower case; an empty slice matches every request
	Backend int          // index into Snapshot.Backends; -1 when Split is used
	Split   []Split      // empty unless the route splits
	Timeout time.Duration
	Cost    int64  // tokens that every request spends
	CostBy  string // the request's header that adds to Cost; empty: none
	// NonCore routes are shed by a breaker that is Degraded.
	NonCore  bool
	Fallback *FallbackAnswer // nil: 503
}

// FallbackAnswer is a Fallback, resolved.
type FallbackAnswer struct {
	Status      int
	ContentType string
	Body        string
	StaleFor    time.Duration // 0: no answer of the backend is kept
}

// Split is one part of a split.
type Split struct {
	Backend int      // index into Snapshot.Backends
	Weight  int      // 0: only Tenants
	Tenants []string // always go here
}

// Specificity orders policies: the greater replaces the lesser, limit by limit.
type Specificity uint8

// The selectors of a TenantPolicy, from the least to the most specific.
const (
	SpecUnknown Specificity = iota
	SpecAny
	SpecMatch
	SpecNames
)

// String is the selector's field in documents.
func (s Specificity) String() string {
	return [...]string{SpecUnknown: "unknown", SpecAny: "any", SpecMatch: "match", SpecNames: "names"}[s]
}

// TenantPolicy is a TenantPolicySpec, resolved. Its index in Snapshot.Policies is its identity within one snapshot.
type TenantPolicy struct {
	Name        string
	Specificity Specificity
	Names       []string // SpecNames: sorted
	Pattern     string   // SpecMatch
	Limits      []LimitRule
	Weight      int           // 0: says nothing
	Concurrency int           // 0: says nothing
	Queue       QueueSettings // of Concurrency
	Backend     int           // index into Snapshot.Backends; -1: says nothing
	Reject      *Reject       // nil: says nothing
	Headers     string        // empty: says nothing
	Origins     PolicyOrigins
}

// PolicyOrigins are where a policy says what is no limit; zero where it says nothing.
type PolicyOrigins struct{ Weight, Concurrency, Backend, Reject, Headers Origin }

// BucketScope says who shares a bucket.
type BucketScope uint8

// The values of `bucket`.
const (
	BucketTenant BucketScope = iota
	BucketTenantAndRoute
	BucketShared
)

// String is the value as documents have it.
func (b BucketScope) String() string {
	return [...]string{BucketTenant: "Tenant", BucketTenantAndRoute: "TenantAndRoute", BucketShared: "Shared"}[b]
}

// Unit is what the tokens of a limit are.
type Unit uint8

// The units. Limits in requests refuse, limits in bytes slow bodies down.
const (
	UnitRequests Unit = iota
	UnitBytes
)

// String is the field of documents that sets a limit of this unit.
func (u Unit) String() string { return [...]string{UnitRequests: "requests", UnitBytes: "bytes"}[u] }

// LimitRule is one Limit, resolved. Rules are compared by (Policy, Name).
type LimitRule struct {
	Policy   string // name of its TenantPolicy
	Name     string
	Unit     Unit
	Requests int64 // or bytes, by Unit, in each Per; 0 requests block, and bytes are at least 1
	Per      time.Duration
	Burst    int64 // at least 1 unless Requests is 0
	Bucket   BucketScope
	Routes   []int // indexes into Snapshot.Routes, ascending; empty: all
	Shadow   bool
	Final    bool
	Origin   Origin
}

// Plan is what applies to one tenant: the outcome of specificity, replacement and `final` over the policies that match it.
type Plan struct {
	Limits      []LimitRule // in the order of policy specificity (most specific first), then policy name, then document order
	Weight      int         // at least 1
	Concurrency int         // 0: no bound
	Queue       QueueSettings
	Backend     int    // index into Snapshot.Backends; -1: the route's
	Reject      Reject // defaults applied
	Headers     string // Off, Standard, Legacy or Both: what answers tell that were let through
}
