package wire

// Body is how a message's body is framed.
type Body uint8

// The framings.
const (
	BodyNone    Body = iota // no body, by rule or because nothing announces one
	BodyLength              // Content-Length
	BodyChunked             // Transfer-Encoding: chunked
	BodyToClose             // answers only: until the backend closes
)

// Head is what one scan knows of a request. Every slice lies in the connection's buffer: it is valid until the next Read
// of the Conn, and nobody changes it. With a Fault, only what was scanned before it is set.
type Head struct {
	Fields
	Method  []byte // as sent; method names are case-sensitive
	Target  []byte // as sent, for logs
	Path    []byte // canonical, for matching: see canonicalPath; `*` for OPTIONS *
	RawPath []byte // what is forwarded: as sent, but without dot segments and without an absolute form's authority
	Query   []byte // what follows `?`, as sent; nil without `?`
	Host    []byte // as sent, port included; empty only on HTTP/1.0
	Minor   uint8  // 0 or 1
	Body    Body
	Length  int64 // with BodyLength; 0 otherwise

	KeepAlive        bool // the client wants the connection to live on
	Expect100        bool // the client waits for 100 before it sends its body
	UpgradeWebSocket bool // GET, HTTP/1.1, Connection: upgrade, Upgrade: websocket, no body
	Fault            Cause

	scan scanner
	path []byte // holds Path and RawPath where they are not slices of the target; kept from message to message
}

// AppendForward appends the request as it goes to a backend: the request line in origin form and HTTP/1.1, then the
// fields as sent and in order, without those that are hop-by-hop, nominated by Connection, or of a kind in drop, with a
// canonical framing field. The empty line that ends the section is the caller's, who may append fields first. A Host is
// always there, and so is `Connection: Upgrade` when UpgradeWebSocket is set and drop has no KindUpgrade. It must not be
// called on a head with a Fault.
func (h *Head) AppendForward(dst []byte, drop KindSet) []byte {
	dst = append(dst, h.Method...)
	dst = append(dst, ' ')
	dst = append(dst, h.RawPath...)
	if h.Query != nil {
		dst = append(dst, '?')
		dst = append(dst, h.Query...)
	}
	dst = append(dst, " HTTP/1.1\r\n"...)
	if h.scan.hosts == 0 && !drop.Has(KindHost) {
		dst = append(dst, "Host: "...)
		dst = append(dst, h.Host...)
		dst = append(dst, '\r', '\n')
	}
	dst = h.appendKept(dst, drop, h.Length)
	if h.UpgradeWebSocket && !drop.Has(KindUpgrade) {
		dst = append(dst, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	}
	return dst
}

// reset makes h ready for the next message and keeps its memory.
func (h *Head) reset() {
	*h = Head{Fields: Fields{List: h.List[:0]}, path: h.path[:0]}
}

// ScanRequest scans the head of a request at the start of buf and returns its length, or 0 when more bytes are needed: then
// call it again with the same h and the same bytes plus what has arrived; it goes on where it stopped. At the end,
// h.Fault says whether the head was accepted; with a fault the length is of no meaning beyond being positive. A new
// message needs a fresh or reset h. Of buf no more than s.HeaderBytes are looked at.
func ScanRequest(h *Head, buf []byte, s *Settings) int {
	if len(buf) > s.HeaderBytes {
		buf = buf[:s.HeaderBytes]
	}
	n, cause := h.scanRequest(buf, s)
	if n == 0 && cause == None {
		if len(buf) < s.HeaderBytes {
			return 0
		}
		cause = HeaderTooLarge
		if h.scan.pos == 0 {
			cause = TargetTooLong
		}
	}
	if cause != None {
		h.fail(buf, cause)
		return max(n, 1)
	}
	return n
}

// fail ends the scan of buf with a fault. What was scanned before it stays readable.
func (h *Head) fail(buf []byte, cause Cause) {
	h.Fault, h.KeepAlive = cause, false
	h.raw = buf
	if h.scan.pos > 0 {
		h.Method = buf[:h.scan.method]
		h.Target = buf[h.scan.target:h.scan.targetEnd]
	}
}

func (h *Head) scanRequest(buf []byte, s *Settings) (int, Cause) {
	if h.scan.pos == 0 {
		n, cause := h.scanRequestLine(buf, s)
		if n == 0 || cause != None {
			return 0, cause
		}
		h.scan.pos = uint32(n)
	}
	n, cause := h.scanFields(&h.scan, buf, s, true)
	if n == 0 || cause != None {
		return n, cause
	}
	// The buffer may have moved while the head arrived in pieces: slices are made of the final one.
	h.raw = buf[:n]
	if cause = h.splitRequestLine(buf); cause != None {
		return n, cause
	}
	return n, h.conclude(s)
}

// scanRequestLine checks everything of the request line that needs no field; it is called again from the start until the
// line is complete.
func (h *Head) scanRequestLine(buf []byte, s *Settings) (int, Cause) {
	end := lineEnd(buf)
	if end < 0 {
		return 0, None
	}
	line := buf[:end]
	if end == 0 || line[end-1] != '\r' {
		return 0, BareLineEnd
	}
	line = line[:end-1]
	i := 0
	for i < len(line) && isToken(line[i]) {
		i++
	}
	if i == 0 || i == len(line) || line[i] != ' ' {
		return 0, BadRequestLine
	}
	h.Method = line[:i]
	target := i + 1
	for i = target; i < len(line) && line[i] > ' ' && line[i] != 0x7f; {
		i++
	}
	if i == target || i == len(line) {
		return 0, BadRequestLine
	}
	if line[i] != ' ' {
		if line[i] == '\r' {
			return 0, BareLineEnd
		}
		if line[i] == '\t' {
			return 0, BadRequestLine
		}
		return 0, BadTarget
	}
	h.Target = line[target:i]
	version := line[i+1:]
	if string(version) != "HTTP/1.1" {
		if string(version) != "HTTP/1.0" {
			return 0, h.versionFault(version)
		}
	} else {
		h.Minor = 1
	}
	if refusedMethod(h.Method) {
		return 0, MethodNotAllowed
	}
	if len(h.Target) > s.URIBytes {
		return 0, TargetTooLong
	}
	h.scan.method, h.scan.target, h.scan.targetEnd = uint32(len(h.Method)), uint32(target), uint32(i)
	return end + 1, None
}

// versionFault tells a version that is not spoken here from what is no version at all. The preface of HTTP/2 is a method
// that is not allowed.
func (h *Head) versionFault(v []byte) Cause {
	if refusedMethod(h.Method) {
		return MethodNotAllowed
	}
	if len(v) == len("HTTP/d.d") && string(v[:5]) == "HTTP/" && isDigit(v[5]) && v[6] == '.' && isDigit(v[7]) {
		return BadVersion
	}
	return BadRequestLine
}

func refusedMethod(m []byte) bool {
	switch string(m) {
	case "CONNECT", "TRACE", "PRI":
		return true
	}
	return false
}

// splitRequestLine makes the slices of the request line, and the canonical path.
func (h *Head) splitRequestLine(buf []byte) Cause {
	h.Method = buf[:h.scan.method]
	h.Target = buf[h.scan.target:h.scan.targetEnd]
	origin, authority, cause := splitTarget(h.Target, h.Method)
	if cause != None {
		return cause
	}
	h.scan.authority = authority
	return h.setPath(origin)
}

// conclude judges the section as a whole: Host, framing, Connection, Expect.
func (h *Head) conclude(s *Settings) Cause {
	c := &h.scan
	switch {
	case c.hosts > 1:
		return ManyHosts
	case c.hosts == 1:
		h.Host = h.valueAt(c.host)
		if !validHost(h.Host) {
			return BadHost
		}
		if c.authority != nil && !equalFoldBytes(c.authority, h.Host) {
			return HostMismatch
		}
	case h.Minor == 1:
		return MissingHost
	case c.authority != nil:
		h.Host = c.authority
		if !validHost(h.Host) {
			return BadHost
		}
	}
	var cause Cause
	if h.Body, h.Length, cause = h.framing(c, h.Minor); cause != None {
		return cause
	}
	if s.BodyBytes > 0 && h.Length > s.BodyBytes {
		return BodyTooLong
	}
	persist, cause := h.connection(c)
	if cause != None {
		return cause
	}
	h.KeepAlive = persist.keep(h.Minor)
	if c.expects > 0 {
		if c.expects > 1 || !equalFold(h.valueAt(c.expect), "100-continue") {
			return BadExpect
		}
		h.Expect100 = h.Minor == 1 && (h.Body == BodyChunked || h.Length > 0)
	}
	h.UpgradeWebSocket = persist.upgrade && c.upgrades == 1 && h.Minor == 1 && h.Body != BodyChunked && h.Length == 0 &&
		string(h.Method) == "GET" && equalFold(h.valueAt(c.upgrade), "websocket")
	return None
}
