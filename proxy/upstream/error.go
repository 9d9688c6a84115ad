package upstream

import "fmt"

// Cause is the closed enum of how a call to a backend fails.
type Cause uint8

// The causes. Each has one admit.Reason; see the proxy.
const (
	NoCause Cause = iota

	// Before anything was written. Another endpoint was tried already where there is one.
	ConnectRefused // the connection could not be made
	ConnectTimeout // the connection was not made within timeouts.connect
	PoolFull       // pool.maxConnections are all in use
	NoEndpoint     // the backend has no endpoint
	TLSCertificate // the endpoint's certificate is not that of a backend that is believed
	TLSProtocol    // the endpoint does not speak TLS as we do
	TLSAlert       // the endpoint refused TLS with us, as for want of a certificate; it may say so only after the request

	// While the answer was awaited or read.
	Reset           // the connection broke, or closed before the first byte of an answer
	Protocol        // the answer breaks HTTP or is beyond our bounds
	Truncated       // the connection closed inside the header section or the body
	ResponseTimeout // no header section, or no progress of the upload, within timeouts.response
	BodyIdle        // no byte of the body within timeouts.idleBody
	RequestTimeout  // the request's own deadline

	// Ours.
	Canceled // Cancel was called, or the set was closed

	causeCount
)

// OfTLS says whether TLS is what went wrong. The names of these are those of RFC 9209 then.
func (c Cause) OfTLS() bool { return c == TLSCertificate || c == TLSProtocol || c == TLSAlert }

// String returns the snake_case name used in metrics and logs.
func (c Cause) String() string {
	switch c {
	case NoCause:
		return "none"
	case ConnectRefused:
		return "connect_refused"
	case ConnectTimeout:
		return "connect_timeout"
	case PoolFull:
		return "pool_full"
	case NoEndpoint:
		return "no_endpoint"
	case TLSCertificate:
		return "tls_certificate_error"
	case TLSProtocol:
		return "tls_protocol_error"
	case TLSAlert:
		return "tls_alert_received"
	case Reset:
		return "reset"
	case Protocol:
		return "protocol"
	case Truncated:
		return "truncated"
	case ResponseTimeout:
		return "response_timeout"
	case BodyIdle:
		return "body_idle"
	case RequestTimeout:
		return "request_timeout"
	case Canceled:
		return "canceled"
	}
	return "invalid"
}

// Error says why a call to a backend failed. Its text names addresses and system errors: it is for logs, not for clients.
type Error struct {
	Cause Cause
	// Endpoint is the address spoken to last; empty when there was none.
	Endpoint string
	// Replayable is true when the backend certainly has read no byte of the request, so that even a POST may be sent again
	// on another connection: nothing was written, or the backend had closed the connection before the request reached it.
	Replayable bool
	// Err is what was seen; nil when the cause says it all.
	Err error
}

// Error returns a sentence for logs.
func (e *Error) Error() string {
	switch {
	case e.Endpoint == "" && e.Err == nil:
		return fmt.Sprintf("cannot reach backend: %s", e.Cause)
	case e.Endpoint == "":
		return fmt.Sprintf("cannot reach backend: %s: %v", e.Cause, e.Err)
	case e.Err == nil:
		return fmt.Sprintf("cannot finish call to %s: %s", e.Endpoint, e.Cause)
	}
	return fmt.Sprintf("cannot finish call to %s: %s: %v", e.Endpoint, e.Cause, e.Err)
}

// Unwrap returns what was seen.
func (e *Error) Unwrap() error { return e.Err }
