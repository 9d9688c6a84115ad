package wire

// Cause says which rule of the wire a message broke, or how its connection ended. It is a closed enum, used alike for
// the status, the metric label and the log field, and it is an error, so ReadBody and the scanners return it as one.
type Cause uint8

// The causes. None means that nothing is wrong.
const (
	None Cause = iota

	// The request line.
	BadRequestLine   // 400: not `method SP target SP version CRLF`
	MethodNotAllowed // 405: CONNECT, TRACE, PRI
	BadVersion       // 505: neither HTTP/1.0 nor HTTP/1.1
	TargetTooLong    // 414
	BadTarget        // 400: a form that the method does not allow, `#`, `\`, a control byte, above the root
	BadEscape        // 400: `%` without two hex digits, `%00`, in the path `%5c` and `%2f` in a parameter

	// The header section.
	BareLineEnd      // 400: LF without CR, CR without LF
	FoldedField      // 400: a field continued on the next line
	SpaceBeforeColon // 400
	BadFieldName     // 400: not a token, or a line without a colon
	BadFieldValue    // 400: a control byte
	AliasedName      // 400: `X_Forwarded_For`: an underscore name that many servers read as one that matters
	HeaderTooLarge   // 431
	TooManyFields    // 431
	TruncatedHead    // 400: the peer left in the middle of it
	HeadTimeout      // 408

	// Host.
	MissingHost  // 400: HTTP/1.1 without Host
	ManyHosts    // 400
	BadHost      // 400: empty, user information, not a name or address with an optional port
	HostMismatch // 400: the authority of an absolute target is not Host

	// Framing.
	BadLength         // 400: Content-Length is not 1*DIGIT or does not fit
	ManyLengths       // 400: more than one Content-Length
	BadEncoding       // 400: Transfer-Encoding other than exactly one `chunked`, or on HTTP/1.0
	LengthAndEncoding // 400: both
	BadExpect         // 417
	BadConnection     // 400: Connection nominates an absurd number of names

	// These are of whoever reads the head.
	BadIdentity // 400: a claim of who the tenant is that is sent twice, or is no tenant
	BadCost     // 400: a claim of what the request costs that is sent twice, or is no cost

	// The body.
	BodyTooLong       // 413
	BadChunk          // 400: size, line end
	ExtensionTooLong  // 400: chunk extensions over 256 B each, or more of them than data
	BadTrailer        // 400
	TrailerTooLarge   // 400: over 4 KiB
	BodyTimeout       // 408: stalled, or slower than the minimum rate
	BodyCut           // 400: the peer left before the verified end
	ReadInterrupted   // the read was given up by Conn.Interrupt
	BodyAlreadyFailed // 400: reading went on after an error

	// The connection.
	PeerGone    // 499: a write failed or the peer is known to be gone
	SendTimeout // 499: the peer does not read

	// Answers of backends; the client's status is always 502.
	BadStatusLine
	UnaskedUpgrade // 101 that nobody asked for

	causeCount
)

// CauseCount is the number of causes: the length of an array indexed by Cause.
const CauseCount = int(causeCount)

// String returns the snake_case name used in metrics and logs.
func (c Cause) String() string {
	switch c {
	case None:
		return "none"
	case BadRequestLine:
		return "bad_request_line"
	case MethodNotAllowed:
		return "method_not_allowed"
	case BadVersion:
		return "bad_version"
	case TargetTooLong:
		return "target_too_long"
	case BadTarget:
		return "bad_target"
	case BadEscape:
		return "bad_escape"
	case BareLineEnd:
		return "bare_line_end"
	case FoldedField:
		return "folded_field"
	case SpaceBeforeColon:
		return "space_before_colon"
	case BadFieldName:
		return "bad_field_name"
	case BadFieldValue:
		return "bad_field_value"
	case AliasedName:
		return "aliased_name"
	case HeaderTooLarge:
		return "header_too_large"
	case TooManyFields:
		return "too_many_fields"
	case TruncatedHead:
		return "truncated_head"
	case HeadTimeout:
		return "head_timeout"
	case MissingHost:
		return "missing_host"
	case ManyHosts:
		return "many_hosts"
	case BadHost:
		return "bad_host"
	case HostMismatch:
		return "host_mismatch"
	case BadLength:
		return "bad_length"
	case ManyLengths:
		return "many_lengths"
	case BadEncoding:
		return "bad_encoding"
	case LengthAndEncoding:
		return "length_and_encoding"
	case BadExpect:
		return "bad_expect"
	case BadConnection:
		return "bad_connection"
	case BadIdentity:
		return "bad_identity"
	case BadCost:
		return "bad_cost"
	case BodyTooLong:
		return "body_too_long"
	case BadChunk:
		return "bad_chunk"
	case ExtensionTooLong:
		return "extension_too_long"
	case BadTrailer:
		return "bad_trailer"
	case TrailerTooLarge:
		return "trailer_too_large"
	case BodyTimeout:
		return "body_timeout"
	case BodyCut:
		return "body_cut"
	case ReadInterrupted:
		return "read_interrupted"
	case BodyAlreadyFailed:
		return "body_already_failed"
	case PeerGone:
		return "peer_gone"
	case SendTimeout:
		return "send_timeout"
	case BadStatusLine:
		return "bad_status_line"
	case UnaskedUpgrade:
		return "unasked_upgrade"
	}
	return "invalid"
}

// Error is String: a cause is its own message.
func (c Cause) Error() string { return c.String() }

// OfBody reports whether the cause is of a request's body, which may come long after its head.
func (c Cause) OfBody() bool { return c >= BodyTooLong && c <= BodyAlreadyFailed }

// Status returns the status that tells a client of a fault in its own message: 400, 405, 408, 413, 414, 417, 431, 505,
// 499 for a client that has gone, 502 for what only a backend can do, and 0 for None.
func (c Cause) Status() int {
	switch c {
	case None:
		return 0
	case MethodNotAllowed:
		return 405
	case HeadTimeout, BodyTimeout:
		return 408
	case BodyTooLong:
		return 413
	case TargetTooLong:
		return 414
	case BadExpect:
		return 417
	case HeaderTooLarge, TooManyFields:
		return 431
	case PeerGone, SendTimeout:
		return 499
	case BadStatusLine, UnaskedUpgrade:
		return 502
	case BadVersion:
		return 505
	}
	return 400
}
