package wire

import "bytes"

// splitTarget reduces a target to origin form, with the authority of an absolute one. The scan of the request line has
// refused spaces and control bytes already.
func splitTarget(t, method []byte) (origin, authority []byte, cause Cause) {
	if t[0] == '/' {
		return t, nil, None
	}
	options := string(method) == "OPTIONS"
	if len(t) == 1 && t[0] == '*' {
		if !options {
			return nil, nil, BadTarget
		}
		return t, nil, None
	}
	var rest []byte
	switch {
	case len(t) > len("http://") && equalFold(t[:len("http://")], "http://"):
		rest = t[len("http://"):]
	case len(t) > len("https://") && equalFold(t[:len("https://")], "https://"):
		rest = t[len("https://"):]
	default:
		return nil, nil, BadTarget
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority, origin = rest[:end], rest[end:]
	if !validHost(authority) {
		return nil, nil, BadHost
	}
	if len(origin) == 0 && options {
		origin = []byte("*") // RFC 9112 section 3.2.4
	}
	return origin, authority, None
}

// setPath checks an origin-form target byte by byte and sets Path, RawPath and Query. `#`, `\`, bad escapes and %00 are
// refused in path and query alike.
func (h *Head) setPath(t []byte) Cause {
	if len(t) == 1 && t[0] == '*' {
		h.Path, h.RawPath = t, t
		return None
	}
	plain, pathEnd := true, -1
	previous := byte(0)
	for i := 0; i < len(t); i++ {
		c := t[i]
		switch c {
		case '#', '\\':
			return BadTarget
		case '%':
			if i+2 >= len(t) {
				return BadEscape
			}
			hi, lo := unhex(t[i+1]), unhex(t[i+2])
			if hi < 0 || lo < 0 || hi|lo == 0 {
				return BadEscape
			}
			if pathEnd < 0 {
				plain = false
			}
		case ';':
			if pathEnd < 0 {
				plain = false
			}
		case '/', '.':
			if pathEnd < 0 && previous == '/' {
				plain = false
			}
		case '?':
			if pathEnd < 0 {
				pathEnd = i
			}
		}
		previous = c
	}
	path := t
	if pathEnd >= 0 {
		path, h.Query = t[:pathEnd:pathEnd], t[pathEnd+1:]
	}
	if len(path) == 0 {
		path = []byte("/") // http://host or http://host?query
	}
	h.Path, h.RawPath = path, path
	if plain {
		return None
	}
	return h.setCanonicalPath(path)
}

// setCanonicalPath sets Path to the most-decoded reading of a path, and RawPath to what is forwarded.
//
// Path is decoded once; `/` and %2f separate, `;` and %3b end a segment's name (what follows up to the separator is a
// parameter and left out), empty segments go, `.` and `..` in any of these spellings are resolved. Above the root is
// refused, and so are %5c, which some servers take for a separator, and %2f in a parameter: servers that leave parameters out
// before they decode take it for a part of one, others for a separator. Case stays.
//
// RawPath stays as sent unless there were dot segments. Then they are resolved in it as well, with every other segment as
// sent: whatever a backend makes of `..;` or %2e, it cannot arrive at another path than the one that was matched.
func (h *Head) setCanonicalPath(p []byte) Cause {
	// Both are built in one buffer: a path is never longer than what it was built from.
	if cap(h.path) < 2*len(p) {
		h.path = make([]byte, 2*len(p))
	}
	canon := append(h.path[:0:len(p)], '/')
	sent := append(h.path[len(p):len(p):2*len(p)], '/')
	dots := false
	for i := 1; i < len(p); {
		start, name, named, parameter := i, len(canon), true, false
		separator := 0
		for i < len(p) && separator == 0 {
			c, width := p[i], 1
			if c == '%' {
				c, width = byte(unhex(p[i+1])<<4|unhex(p[i+2])), 3
			}
			switch {
			case c == '/':
				if parameter && width > 1 {
					return BadEscape
				}
				separator = width
			case c == '\\':
				return BadEscape
			case c == ';':
				named = false
				parameter = parameter || width == 1
			}
			if named && separator == 0 {
				canon = append(canon, c)
			}
			i += width
		}
		switch string(canon[name:]) {
		case "":
		case ".":
			dots = true
			canon = canon[:name]
		case "..":
			dots = true
			if name == 1 {
				return BadTarget
			}
			canon = canon[:bytes.LastIndexByte(canon[:name-1], '/')+1]
			sent = parent(sent)
		default:
			if separator > 0 {
				canon = append(canon, '/')
			}
			sent = append(sent, p[start:i]...)
		}
	}
	h.Path = canon
	if dots {
		h.RawPath = sent
	}
	return None
}

// parent cuts the last segment of a path that ends with a separator.
func parent(p []byte) []byte {
	n := len(p) - 1
	if p[n] != '/' {
		n -= len("2f")
	}
	for n > 0 && p[n-1] != '/' && (n < 3 || !equalFold(p[n-3:n], "%2f")) {
		n--
	}
	return p[:n]
}

// validHost accepts a name or an IPv4 address of unreserved characters, or an address in brackets, each with an optional
// decimal port. It is stricter than RFC 3986: no escapes, no sub-delimiters, no user information, no empty port.
func validHost(h []byte) bool {
	i := 0
	if len(h) > 0 && h[0] == '[' {
		for i = 1; i < len(h) && (unhex(h[i]) >= 0 || h[i] == ':' || h[i] == '.'); i++ {
		}
		if i < 3 || i == len(h) || h[i] != ']' {
			return false
		}
		i++
	} else {
		for i < len(h) && isHostByte(h[i]) {
			i++
		}
		if i == 0 {
			return false
		}
	}
	if i == len(h) {
		return true
	}
	port := h[i+1:]
	if h[i] != ':' || len(port) == 0 || len(port) > 5 {
		return false
	}
	n := 0
	for _, c := range port {
		if !isDigit(c) {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

func isHostByte(c byte) bool {
	return c|0x20-'a' < 26 || isDigit(c) || c == '.' || c == '-' || c == '_' || c == '~'
}
