package admit

import "net/netip"

// Request is what the rooms from match to settle read of a message. It is a value: the slices belong to the connection
// and are valid until the handler returns, and nobody changes them.
type Request struct {
	Method []byte
	Host   []byte // as sent, port included
	Path   []byte // canonical path, without the query; what policy matches
	Header Headers
	Peer   netip.Addr // the connection's other end, unmapped
	Client netip.Addr // who the request is from: Peer, or what a trusted proxy said
	// SPIFFE is the SPIFFE ID of the client's certificate, which the listener has verified: empty when the certificate has none, or
	// when there is no certificate; BrokenSPIFFE when it has one that breaks the standard.
	SPIFFE string
	// Random is a number by chance, the same for every look at the request: it says when a breaker that closes again lets the request
	// through, and spreads counting over several lines of memory.
	Random uint32
	// Passes is memory for what breakers say to the request, in use from Decide to Settle; nil: it is allocated where one is met.
	Passes *Passes
}

// BrokenSPIFFE stands in Request.SPIFFE for a certificate that breaks the standard of X.509-SVIDs.
const BrokenSPIFFE = "spiffe:"

// Headers looks up header fields of one request.
type Headers interface {
	// Lookup returns the value of the first field of that name, white space trimmed, and how many fields of that
	// name there are. Names are compared without case. It allocates nothing.
	Lookup(name string) (value []byte, count int)
	// Nth returns the value of field i of that name, counting from 0, white space trimmed; nil when there are fewer.
	Nth(name string, i int) []byte
}
