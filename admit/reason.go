package admit

// Reason says why a request ended as it did. It is one closed enum, used alike for the status, the metric label and the
// log field, so the three always agree.
type Reason uint8

// The reasons. Passed is the only one that means the backend's answer was relayed whole.
const (
	Passed Reason = iota

	// Refused by policy.
	NoIdentity    // 401: no source yielded a tenant
	UnknownTenant // 403: a tenant that no policy covers
	NoRoute       // 404: no route matches
	Limited       // 429: a token bucket is empty
	Blocked       // 403: a limit with `requests: 0`
	TooCostly     // 429: costs more than the bucket can ever hold; no Retry-After
	Concurrency   // 429: too many requests in flight
	Overload      // 503: the backend has as many requests as it can take
	Shed          // 503: a NonCore route while a breaker is Degraded
	BreakerOpen   // 503: a breaker spares the route or its backend

	// Refused by the wire (the guard says which rule; see wire.Cause).
	BadRequest

	// Our own state.
	Draining // 503
	Internal // 500: a defect of ours, recovered

	// The backend's side.
	BackendRefused  // 502: the connection could not be made
	BackendReset    // 502: the connection broke before the answer was whole
	BackendProtocol // 502: the answer breaks HTTP
	NoEndpoint      // 503: no endpoint to choose
	PoolFull        // 503: every connection is in use
	ConnectTimeout  // 504
	ResponseTimeout // 504: no header section in time
	BodyIdleTimeout // 504, or a cut answer: the answer's body stalled
	RequestTimeout  // 504, or a cut answer: the whole took too long

	// The client's side.
	ClientGone        // 499: it left before the answer was whole
	ClientBody        // 400: its body broke HTTP or ended early
	ClientBodyTooLong // 413
	ClientTimeout     // 408: it stalled

	reasonCount
)

// ReasonCount is the number of reasons: the length of an array indexed by Reason.
const ReasonCount = int(reasonCount)

// String returns the snake_case name used in metrics and logs.
func (r Reason) String() string {
	switch r {
	case Passed:
		return "passed"
	case NoIdentity:
		return "no_identity"
	case UnknownTenant:
		return "unknown_tenant"
	case NoRoute:
		return "no_route"
	case Limited:
		return "limited"
	case Blocked:
		return "blocked"
	case TooCostly:
		return "too_costly"
	case Concurrency:
		return "concurrency"
	case Overload:
		return "overload"
	case Shed:
		return "shed"
	case BreakerOpen:
		return "breaker_open"
	case BadRequest:
		return "bad_request"
	case Draining:
		return "draining"
	case Internal:
		return "internal"
	case BackendRefused:
		return "backend_refused"
	case BackendReset:
		return "backend_reset"
	case BackendProtocol:
		return "backend_protocol"
	case NoEndpoint:
		return "no_endpoint"
	case PoolFull:
		return "pool_full"
	case ConnectTimeout:
		return "connect_timeout"
	case ResponseTimeout:
		return "response_timeout"
	case BodyIdleTimeout:
		return "body_idle_timeout"
	case RequestTimeout:
		return "request_timeout"
	case ClientGone:
		return "client_gone"
	case ClientBody:
		return "client_body"
	case ClientBodyTooLong:
		return "client_body_too_long"
	case ClientTimeout:
		return "client_timeout"
	}
	return "invalid"
}

// Status returns the HTTP status that tells a client of the reason; 0 for Passed, whose status is the backend's.
// A policy's `reject.status` replaces the 429 of Limited, TooCostly and Concurrency.
func (r Reason) Status() int {
	switch r {
	case Passed:
		return 0
	case NoIdentity:
		return 401
	case UnknownTenant, Blocked:
		return 403
	case NoRoute:
		return 404
	case Limited, TooCostly, Concurrency:
		return 429
	case BadRequest, ClientBody:
		return 400
	case BackendRefused, BackendReset, BackendProtocol:
		return 502
	case Overload, Shed, BreakerOpen, Draining, NoEndpoint, PoolFull:
		return 503
	case ConnectTimeout, ResponseTimeout, BodyIdleTimeout, RequestTimeout:
		return 504
	case ClientGone:
		return 499
	case ClientBodyTooLong:
		return 413
	case ClientTimeout:
		return 408
	}
	return 500
}
