package admit

import (
	"encoding/json"
	"time"

	"weir/policy"
)

// Trace is how a request is decided, step by step: who it is from, where it goes, every rule that could have had a say with the
// place where it is written, and the verdict. It is a plain value, and its JSON is part of what users rely on: fields are
// added, not changed. It has no secrets: no keys, no tokens, no header values but the tenant.
type Trace struct {
	// At is the wall time of the decision.
	At time.Time `json:"at"`
	// Recorded says that it was decided then, as remembered; false means that it would be decided so at that time.
	Recorded bool `json:"recorded"`
	// RequestID is of a recorded request; else empty.
	RequestID string `json:"requestID,omitempty"`
	// Notes say what limits the trace, for people.
	Notes    []string      `json:"notes,omitempty"`
	Request  TraceRequest  `json:"request"`
	Identity TraceIdentity `json:"identity"`
	Tenant   TraceTenant   `json:"tenant"`
	Route    TraceRoute    `json:"route"`
	Backend  TraceBackend  `json:"backend"`
	// Breakers are those of the route and of the backend, in the order in which they are asked; of a request that was refused
	// before that none.
	Breakers []TraceBreaker `json:"breakers,omitempty"`
	// Limits are those of all policies that cover the tenant: enforced and in shadow, those that stand and those that do not.
	Limits []TraceLimit `json:"limits"`
	// Terms are what the policies say besides limits.
	Terms   []TraceTerm  `json:"terms"`
	Verdict TraceVerdict `json:"verdict"`
	// Shadow is what the verdict would be with the limits in shadow in the place of the enforced ones of their names; nil
	// without any, or where they have no say.
	Shadow *TraceVerdict `json:"shadow,omitempty"`
}

// TraceRequest is the request, as far as policy looks at it.
type TraceRequest struct {
	Method string `json:"method"`
	Host   string `json:"host"`
	// Path is canonical and without the query.
	Path string `json:"path"`
	// Client is whom the request is from, as trusted proxies say; empty on a Unix socket.
	Client string `json:"client"`
	// Cost is the number of tokens that it takes of each limit in requests; 0 when it is refused before that.
	Cost int64 `json:"cost"`
}

// TraceIdentity is who the request says it is from, and which source of the Sidecar said so.
type TraceIdentity struct {
	// Given says that the tenant was given with the question: no source was asked.
	Given bool `json:"given"`
	// Tenant is empty when no source found a claim, or when what it found is no tenant.
	Tenant string `json:"tenant"`
	// Source is the index in the Sidecar's spec.identity; -1: none.
	Source int `json:"source"`
	// Kind and Detail are the source's field and what it looks at, as in header and X-Tenant-ID.
	Kind   string `json:"kind,omitempty"`
	Detail string `json:"detail,omitempty"`
	// Asked are the sources that were asked, in order: those before Source found nothing.
	Asked []string `json:"asked,omitempty"`
	// Fault says why a token is not valid that was to say who it is.
	Fault string `json:"fault,omitempty"`
	// Origin is where the Sidecar is written.
	Origin Place `json:"origin"`
}

// TraceTenant is the tenant as policy knows it.
type TraceTenant struct {
	// Known says that a policy covers the tenant; else it is unknown.
	Known bool `json:"known"`
	// Policies are all that apply, the most specific first, as in "gold (names)".
	Policies []string `json:"policies"`
	// Cell says what holds its state: its own, none yet, or one shared with others.
	Cell string `json:"cell,omitempty"`
	// InFlight is the number of its requests under way, and Concurrency the most of them; 0: no bound.
	InFlight    int64 `json:"inFlight"`
	Concurrency int   `json:"concurrency"`
	// Waiting is the number of its requests that wait for that bound.
	Waiting int64 `json:"waiting,omitempty"`
}

// TraceRoute is the route that takes the request.
type TraceRoute struct {
	// Name is empty when none matches.
	Name   string `json:"name"`
	Origin Place  `json:"origin"`
	// Match is the entry of spec.match that fits, as in "spec.match[0]: path /pay"; empty when it is not known.
	Match string `json:"match,omitempty"`
	// Before is the route that would have taken the request without this one, and Why it did not.
	Before string `json:"before,omitempty"`
	Why    string `json:"why,omitempty"`
}

// TraceBackend is where the request goes when it passes.
type TraceBackend struct {
	Name string `json:"name"`
	Why  string `json:"why,omitempty"`
	// InFlight is the number of requests that it has been given, Capacity the most of them, and Waiting how many wait for a
	// place; all 0 where it has no bound, and in what is recorded.
	InFlight int64 `json:"inFlight,omitempty"`
	Capacity int64 `json:"capacity,omitempty"`
	Waiting  int64 `json:"waiting,omitempty"`
}

// TraceBreaker is one breaker that the request meets.
type TraceBreaker struct {
	Name   string `json:"name"`   // of the BreakerPolicy
	Target string `json:"target"` // as in "Backend orders"
	Origin Place  `json:"origin"`
	// Own says that it is the tenant's own, as with perTenant.
	Own   bool   `json:"own,omitempty"`
	Level string `json:"level"` // normal, degraded, half_open or open
	// For is how long it has been at that level, and Until how long it is open until probes are let through, or half open until
	// silent ones are replaced.
	For   Span `json:"for"`
	Until Span `json:"until,omitempty"`
	// Rates of the last sample in requests a second: all that came, those within their tenants' limits, the usual one, and
	// the corridor around it. 0 is unknown, or not judged.
	Offered  float64 `json:"offered,omitempty"`
	Passed   float64 `json:"passed,omitempty"`
	Baseline float64 `json:"baseline,omitempty"`
	Low      float64 `json:"low,omitempty"`
	High     float64 `json:"high,omitempty"`
	// Calls that ended in the window, and those of them that failed and that were slow, as judged last.
	Calls    int64 `json:"calls,omitempty"`
	Failures int64 `json:"failures,omitempty"`
	Slow     int64 `json:"slow,omitempty"`
	// Share is the part of requests that it lets through by chance while it closes again; else 1, or 0 where it is open.
	Share float64 `json:"share"`
	// Says is pass, probe, shed or refuse.
	Says string `json:"says"`
}

// What became of a rule.
const (
	RuleAsked      = "asked"      // it stands, and has a say in this request
	RuleOtherRoute = "otherRoute" // it stands, but not on this route
	RuleReplaced   = "replaced"   // another one stands in its place
	RuleNotAsked   = "notAsked"   // it stands, but the request was refused before limits had a say
)

// TraceLimit is one limit of one policy that covers the tenant.
type TraceLimit struct {
	Policy   string   `json:"policy"`
	Selector string   `json:"selector"` // of the policy: names, match eu-*, any or unknown
	Name     string   `json:"name"`
	Origin   Place    `json:"origin"`
	Unit     string   `json:"unit"`     // requests or bytes; what follows counts them
	Requests int64    `json:"requests"` // refilled per Per
	Per      Span     `json:"per"`
	Burst    int64    `json:"burst"`
	Bucket   string   `json:"bucket"`
	Routes   []string `json:"routes,omitempty"` // empty: all
	Shadow   bool     `json:"shadow,omitempty"`
	Final    bool     `json:"final,omitempty"`
	// State is asked, otherRoute, replaced or notAsked.
	State string `json:"state"`
	// ReplacedBy is set when State is replaced.
	ReplacedBy *TraceReplacement `json:"replacedBy,omitempty"`
	// Level is how its bucket stood right before the decision; nil unless State is asked.
	Level *TraceLevel `json:"level,omitempty"`
}

// TraceLevel is how a bucket stands.
type TraceLevel struct {
	Available int64 `json:"available"` // whole tokens
	FullIn    Span  `json:"fullIn"`
	// Refuses says that it has not what the request costs. A limit in bytes refuses nothing.
	Refuses bool `json:"refuses"`
}

// TraceReplacement is what stands in the place of a rule.
type TraceReplacement struct {
	Policy string `json:"policy"`
	Origin Place  `json:"origin"`
	Why    string `json:"why"` // as in "it is more specific"
}

// TraceTerm is what one policy says of concurrency, backend or reject.
type TraceTerm struct {
	Term       string            `json:"term"`
	Value      string            `json:"value"`
	Policy     string            `json:"policy"`
	Selector   string            `json:"selector"`
	Origin     Place             `json:"origin"`
	ReplacedBy *TraceReplacement `json:"replacedBy,omitempty"` // nil: it stands
}

// What a request may wait for.
const (
	waitsForGate    = "tenant"  // one of its tenant's requests in flight to end
	waitsForBackend = "backend" // a place at its backend
)

// TraceVerdict is the answer.
type TraceVerdict struct {
	Passes bool `json:"passes"`
	// WaitsFor is what the request waits for in a queue, tenant or backend, before anything else is known; else empty.
	WaitsFor string `json:"waitsFor,omitempty"`
	// Reason is the word of metrics and of the access log; empty while it waits.
	Reason string `json:"reason"`
	// Policy and Limit are the limit that answers; empty for a refusal by something else.
	Policy string `json:"policy,omitempty"`
	Limit  string `json:"limit,omitempty"`
	// Breaker is the BreakerPolicy that answers; empty for a refusal by something else.
	Breaker string `json:"breaker,omitempty"`
	// Fallback is what the client gets in the place of a refusal by a breaker, as in "the last good answer, or status 200"; empty: the
	// refusal.
	Fallback string `json:"fallback,omitempty"`
	// RetryAfter is how long until it would pass, if nobody else spends, or after a breaker until it is worth another try; 0 when it
	// passes, or waiting does not help.
	RetryAfter Span `json:"retryAfter"`
	// Status is that of our own answer; 0 when the request passes.
	Status int `json:"status"`
	// Headers are the fields of our answer that tell of limits, as in "Retry-After: 3".
	Headers []string `json:"headers,omitempty"`
}

// Place is a place in documents: file:line:column, as text in JSON.
type Place policy.Origin

// String is file:line:column without the parts that are unknown.
func (p Place) String() string { return policy.Origin(p).String() }

// MarshalText writes what String returns.
func (p Place) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Span is a duration that is written like one of Go, as in "1.5s".
type Span time.Duration

// String is Go's form of a duration.
func (s Span) String() string { return time.Duration(s).String() }

// MarshalText writes what String returns.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// JSON returns the trace as an indented document that ends with a newline.
func (t *Trace) JSON() []byte {
	text, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		panic("BUG: cannot encode a trace: " + err.Error())
	}
	return append(text, '\n')
}
