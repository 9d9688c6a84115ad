package wire

// ResponseHead is what one scan knows of a backend's answer. Its slices lie in the buffer that was scanned.
type ResponseHead struct {
	Fields
	Status int    // 100 to 599
	Reason []byte // as sent, may be empty
	Minor  uint8  // 0 or 1
	Body   Body
	Length int64 // with BodyLength; 0 otherwise
	// Interim is true for 1xx other than 101: another head follows.
	Interim bool
	// Upgrade is true for 101: what follows is no longer HTTP.
	Upgrade bool
	// KeepAlive is true when the connection may carry another exchange once the body's verified end was read and nothing
	// follows it.
	KeepAlive bool

	scan scanner
}

// Asked is what the framing of an answer depends on (RFC 9112 section 6.3).
type Asked struct {
	Head    bool // the request's method was HEAD
	Upgrade bool // the request asked for an upgrade; otherwise 101 is refused
}

// Reset makes h ready for the next answer and keeps its memory.
func (h *ResponseHead) Reset() {
	*h = ResponseHead{Fields: Fields{List: h.List[:0]}}
}

// ScanResponseHead scans the head of an answer at the start of buf. It returns its length; 0 and nil when more bytes are
// needed: then call it again with the same h and the same bytes plus what has arrived. The error is a Cause. A new answer
// needs a Reset h. bounds gives HeaderBytes and HeaderCount. It allocates nothing once h has grown.
func ScanResponseHead(h *ResponseHead, buf []byte, asked Asked, bounds *Settings) (int, error) {
	if len(buf) > bounds.HeaderBytes {
		buf = buf[:bounds.HeaderBytes]
	}
	n, cause := h.scanResponse(buf, asked, bounds)
	if cause != None {
		return 0, cause
	}
	if n == 0 && len(buf) == bounds.HeaderBytes {
		return 0, HeaderTooLarge
	}
	return n, nil
}

func (h *ResponseHead) scanResponse(buf []byte, asked Asked, s *Settings) (int, Cause) {
	if h.scan.pos == 0 {
		end := lineEnd(buf)
		if end < 0 {
			return 0, None
		}
		if end == 0 || buf[end-1] != '\r' {
			return 0, BareLineEnd
		}
		if cause := h.scanStatusLine(buf[:end-1]); cause != None {
			return 0, cause
		}
		h.scan.pos = uint32(end + 1)
	}
	n, cause := h.scanFields(&h.scan, buf, s, false)
	if n == 0 || cause != None {
		return 0, cause
	}
	h.raw = buf[:n]
	h.Reason = buf[h.scan.target:h.scan.targetEnd]
	return n, h.conclude(asked)
}

// scanStatusLine reads `HTTP/1.x SP status [SP reason]`; the space that the RFC asks for before an empty reason is often
// left out.
func (h *ResponseHead) scanStatusLine(line []byte) Cause {
	if len(line) < len("HTTP/1.1 200") || string(line[:7]) != "HTTP/1." || line[8] != ' ' {
		return BadStatusLine
	}
	if line[7] != '0' && line[7] != '1' {
		return BadStatusLine
	}
	h.Minor = line[7] - '0'
	a, b, c := line[9], line[10], line[11]
	if a < '1' || a > '5' || !isDigit(b) || !isDigit(c) {
		return BadStatusLine
	}
	h.Status = int(a-'0')*100 + int(b-'0')*10 + int(c-'0')
	reason := line[12:]
	if len(reason) > 0 && reason[0] != ' ' {
		return BadStatusLine
	}
	for _, ch := range reason {
		if ch < ' ' && ch != '\t' || ch == 0x7f {
			return BadStatusLine
		}
	}
	h.scan.target, h.scan.targetEnd = uint32(min(13, len(line))), uint32(len(line))
	return None
}

func (h *ResponseHead) conclude(asked Asked) Cause {
	c := &h.scan
	body, length, cause := h.framing(c, h.Minor)
	if cause != None {
		return cause
	}
	persist, cause := h.connection(c)
	if cause != None {
		return cause
	}
	h.KeepAlive = persist.keep(h.Minor)
	switch {
	case h.Status == 101:
		if !asked.Upgrade || h.Minor == 0 || !persist.upgrade || c.upgrades != 1 ||
			!equalFold(h.valueAt(c.upgrade), "websocket") {
			return UnaskedUpgrade
		}
		h.Upgrade, h.KeepAlive = true, false
	case h.Status < 200:
		h.Interim = true
	case h.Status == 204, h.Status == 304, asked.Head:
		// No body, whatever the fields say.
	case body == BodyNone:
		h.Body, h.KeepAlive = BodyToClose, false
	default:
		h.Body, h.Length = body, length
	}
	h.scan.length = length
	return None
}

// AppendForward appends the answer as it goes to the client: a status line of HTTP/1.1 with the reason as sent, then the
// fields as sent and in order, without those that are hop-by-hop, nominated by Connection, or of a kind in drop. A framing
// field is kept, in canonical form, only where it says the truth: Content-Length with BodyLength and on answers to HEAD and
// 304, Transfer-Encoding with BodyChunked. With BodyToClose the caller frames. An Upgrade head keeps `Connection: Upgrade`
// and `Upgrade: websocket`. The empty line that ends the section is the caller's.
func (h *ResponseHead) AppendForward(dst []byte, drop KindSet) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, byte('0'+h.Status/100), byte('0'+h.Status/10%10), byte('0'+h.Status%10), ' ')
	dst = append(dst, h.Reason...)
	dst = append(dst, '\r', '\n')
	if h.Body != BodyChunked {
		drop |= Kinds(KindTransferEncoding)
	}
	if h.Status < 200 || h.Status == 204 {
		drop |= Kinds(KindContentLength)
	}
	dst = h.appendKept(dst, drop, h.scan.length)
	if h.Upgrade {
		dst = append(dst, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	}
	return dst
}
