package admit

import "fmt"

// Inquiry is a question about a request as somebody writes it down, on the command line or on the admin port: a request to be
// explained, or the id of one that was denied.
type Inquiry struct {
	// RequestID asks for the latest denial of a request with that id; nothing else is looked at then.
	RequestID string
	// Tenant, unless it is empty, is the identity. Empty: it is found in the rest, as for a request.
	Tenant string
	// Method is GET when it is empty, and Host localhost. Path is required; a query is of no matter.
	Method, Host, Path string
	// Headers are written "Name: value".
	Headers []string
	// Client is the address at the other end of the connection; 127.0.0.1 when it is empty. What trusted proxies say of others in
	// X-Forwarded-For is believed, as always.
	Client string
	// SPIFFE is the SPIFFE ID of the client's certificate; empty for none.
	SPIFFE string
}

// NotRecentError says that a request id leads nowhere.
type NotRecentError struct{ RequestID string }

// Error says what may be the reason.
func (e *NotRecentError) Error() string {
	return fmt.Sprintf("request %q is not among the last %d denials: it was let through, or came to another sidecar, or is longer ago", e.RequestID, RecentDenials)
}
