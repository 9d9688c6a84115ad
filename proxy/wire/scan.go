package wire

import "bytes"

// scanner is where the scan of a head stands, and what it noted on the way. Offsets are into the buffer, which may move
// between calls.
type scanner struct {
	pos                       uint32 // start of the first line not scanned yet; 0: the first line of the message
	method, target, targetEnd uint32 // of a status line: target is the reason

	hosts, lengths, encodings, connections, expects, upgrades uint32 // fields of that kind
	host, lengthAt, encoding, expect, upgrade                 uint32 // index of the first one

	authority []byte // of an absolute target
	length    int64  // Content-Length, also where there is no body
}

// lineEnd returns the index of the first LF, or -1.
func lineEnd(b []byte) int { return bytes.IndexByte(b, '\n') }

// scanFields scans lines from c.pos to the empty line and returns the length of the head, or 0 when more bytes are needed.
// A line is judged only once its LF is there, so that the outcome does not depend on how the bytes were split.
func (f *Fields) scanFields(c *scanner, b []byte, s *Settings, request bool) (int, Cause) {
	pos := int(c.pos)
	for {
		i, seen := pos, byte(0)
		for i < len(b) {
			v := tokenTable[b[i]]
			if v == 0 {
				break
			}
			seen |= v
			i++
		}
		if i >= len(b) {
			break
		}
		if b[i] != ':' || i == pos {
			if b[i] == '\r' && i == pos {
				if i+1 == len(b) {
					break
				}
				if b[i+1] == '\n' {
					c.pos = uint32(pos)
					return i + 2, None
				}
			}
			return f.refuse(c, b, pos, nameFault(b, pos, i))
		}
		colon := i
		for i++; i < len(b) && (b[i] == ' ' || b[i] == '\t'); i++ {
		}
		value := i
		for {
			if i = indexControl(b, i); i < len(b) && b[i] == '\t' {
				i++
				continue
			}
			break
		}
		if i+1 >= len(b) {
			if i < len(b) && b[i] != '\r' {
				return f.refuse(c, b, pos, valueFault(b[i]))
			}
			break
		}
		if b[i] != '\r' || b[i+1] != '\n' {
			return f.refuse(c, b, pos, valueFault(b[i]))
		}
		valueEnd := i
		for valueEnd > value && (b[valueEnd-1] == ' ' || b[valueEnd-1] == '\t') {
			valueEnd--
		}
		if len(f.List) >= s.HeaderCount {
			return 0, TooManyFields
		}
		name := b[pos:colon]
		kind := classify(name)
		if request {
			if kind == KindOther || kind >= KindForwarded {
				if len(s.Identity) > 0 && s.identity(name, false) {
					kind = KindIdentity
				}
			}
			if seen&underscoreByte != 0 && aliases(name, s) {
				return 0, AliasedName
			}
		}
		if kind != KindOther {
			c.note(kind, uint32(len(f.List)))
		}
		// Filled where it lies: building it first and copying it costs as much as the rest of the line.
		f.List = append(f.List, Field{})
		l := &f.List[len(f.List)-1]
		l.start, l.colon, l.value, l.valueEnd, l.end = uint32(pos), uint32(colon), uint32(value), uint32(valueEnd), uint32(i+2)
		l.Kind, l.hop = kind, hopByHop.Has(kind)
		pos = i + 2
	}
	c.pos = uint32(pos)
	return 0, None
}

// refuse returns the fault of the line at pos once the line is complete.
func (f *Fields) refuse(c *scanner, b []byte, pos int, cause Cause) (int, Cause) {
	if lineEnd(b[pos:]) < 0 {
		c.pos = uint32(pos)
		return 0, None
	}
	return 0, cause
}

// nameFault says what is wrong with the line at pos, whose name ends at i.
func nameFault(b []byte, pos, i int) Cause {
	switch b[i] {
	case ' ', '\t':
		if i == pos {
			return FoldedField
		}
		for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
			i++
		}
		if i < len(b) && b[i] == ':' {
			return SpaceBeforeColon
		}
	case '\n', '\r':
		if i == pos {
			return BareLineEnd
		}
	}
	return BadFieldName
}

func valueFault(c byte) Cause {
	if c == '\r' || c == '\n' {
		return BareLineEnd
	}
	return BadFieldValue
}

// note counts the kinds that the whole section is judged by.
func (c *scanner) note(k Kind, index uint32) {
	switch k {
	case KindHost:
		if c.hosts++; c.hosts == 1 {
			c.host = index
		}
	case KindContentLength:
		if c.lengths++; c.lengths == 1 {
			c.lengthAt = index
		}
	case KindTransferEncoding:
		if c.encodings++; c.encodings == 1 {
			c.encoding = index
		}
	case KindConnection:
		c.connections++
	case KindExpect:
		if c.expects++; c.expects == 1 {
			c.expect = index
		}
	case KindUpgrade:
		if c.upgrades++; c.upgrades == 1 {
			c.upgrade = index
		}
	}
}

// classify returns the kind of a name by its length and then its letters.
func classify(name []byte) Kind {
	switch len(name) {
	case 2:
		return kindIf(name, "te", KindTE)
	case 3:
		return kindIf(name, "via", KindVia)
	case 4:
		return kindIf(name, "host", KindHost)
	case 5:
		return kindIf(name, "proxy", KindProxy)
	case 6:
		return kindIf(name, "expect", KindExpect)
	case 7:
		if name[0]|0x20 == 'u' {
			return kindIf(name, "upgrade", KindUpgrade)
		}
		return kindIf(name, "trailer", KindTrailer)
	case 9:
		if name[0]|0x20 == 'x' {
			return kindIf(name, "x-real-ip", KindXRealIP)
		}
		return kindIf(name, "forwarded", KindForwarded)
	case 10:
		if name[0]|0x20 == 'k' {
			return kindIf(name, "keep-alive", KindKeepAlive)
		}
		return kindIf(name, "connection", KindConnection)
	case 11:
		return kindIf(name, "traceparent", KindTraceparent)
	case 12:
		return kindIf(name, "x-request-id", KindXRequestID)
	}
	if len(name) < 14 {
		return KindOther
	}
	switch name[0] | 0x20 {
	case 'x':
		return classifyForwarded(name)
	case 'c':
		return kindIf(name, "content-length", KindContentLength)
	case 't':
		return kindIf(name, "transfer-encoding", KindTransferEncoding)
	case 'h':
		return kindIf(name, "http2-settings", KindHTTP2Settings)
	case 'p':
		switch len(name) {
		case 16:
			return kindIf(name, "proxy-connection", KindProxyConnection)
		case 18:
			return kindIf(name, "proxy-authenticate", KindProxyAuthenticate)
		case 19:
			return kindIf(name, "proxy-authorization", KindProxyAuthorization)
		}
	}
	return KindOther
}

func classifyForwarded(name []byte) Kind {
	const prefix = "x-forwarded-"
	if !equalFold(name[:len(prefix)], prefix) {
		return KindOther
	}
	rest := name[len(prefix):]
	switch {
	case equalFold(rest, "for"):
		return KindXForwardedFor
	case equalFold(rest, "proto"):
		return KindXForwardedProto
	case equalFold(rest, "host"):
		return KindXForwardedHost
	}
	return KindXForwarded
}

func kindIf(name []byte, want string, k Kind) Kind {
	if equalFold(name, want) {
		return k
	}
	return KindOther
}

// aliases reports whether a name with underscores reads like a name that matters: servers that hand fields to programs as
// environment variables (CGI, WSGI and their kin) cannot tell the two apart.
func aliases(name []byte, s *Settings) bool {
	if s.identity(name, true) {
		return true
	}
	const longest = 64 // longer than any name that matters but X-Forwarded-…, where its prefix decides
	var dashed [longest]byte
	n := copy(dashed[:], name)
	for i := range dashed[:n] {
		if dashed[i] == '_' {
			dashed[i] = '-'
		}
	}
	return classify(dashed[:n]) != KindOther
}

// framing reads Content-Length and Transfer-Encoding: at most one field of one of them, with its one legal spelling.
func (f *Fields) framing(c *scanner, minor uint8) (Body, int64, Cause) {
	switch {
	case c.lengths == 0 && c.encodings == 0:
		return BodyNone, 0, None
	case c.lengths > 0 && c.encodings > 0:
		return BodyNone, 0, LengthAndEncoding
	case c.lengths > 1:
		return BodyNone, 0, ManyLengths
	case c.lengths == 1:
		n, ok := parseLength(f.valueAt(c.lengthAt))
		if !ok {
			return BodyNone, 0, BadLength
		}
		return BodyLength, n, None
	}
	if minor == 0 || c.encodings > 1 || !equalFold(f.valueAt(c.encoding), "chunked") {
		return BodyNone, 0, BadEncoding
	}
	return BodyChunked, 0, None
}

// parseLength reads 1 to 19 digits that fit an int64.
func parseLength(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 19 {
		return 0, false
	}
	n := uint64(0)
	for _, c := range v {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return int64(n), n < 1<<63
}

// persistence is what the Connection fields say.
type persistence struct{ close, keepAlive, upgrade bool }

// keep reports whether the connection lives on (RFC 9112 section 9.3): close wins.
func (p persistence) keep(minor uint8) bool { return !p.close && (minor == 1 || p.keepAlive) }

// connection reads the Connection fields and marks the fields they nominate.
func (f *Fields) connection(c *scanner) (p persistence, cause Cause) {
	if c.connections == 0 {
		return p, None
	}
	nominations := 0
	for i := range f.List {
		if f.List[i].Kind != KindConnection {
			continue
		}
		for rest := f.Value(i); len(rest) > 0; {
			var option []byte
			option, rest = nextOption(rest)
			switch {
			case len(option) == 0:
			case equalFold(option, "close"):
				p.close = true
			case equalFold(option, "keep-alive"):
				p.keepAlive = true
			case equalFold(option, "upgrade"):
				p.upgrade = true
			default:
				if nominations++; nominations > maxNominations {
					return p, BadConnection
				}
				f.nominate(option)
			}
		}
	}
	return p, None
}

// nextOption takes the first element of a list, white space trimmed.
func nextOption(list []byte) (option, rest []byte) {
	option = list
	if i := bytes.IndexByte(list, ','); i >= 0 {
		option, rest = list[:i], list[i+1:]
	}
	for len(option) > 0 && (option[0] == ' ' || option[0] == '\t') {
		option = option[1:]
	}
	for n := len(option); n > 0 && (option[n-1] == ' ' || option[n-1] == '\t'); n = len(option) {
		option = option[:n-1]
	}
	return option, rest
}

func (f *Fields) nominate(name []byte) {
	for i := range f.List {
		l := &f.List[i]
		if nominable.Has(l.Kind) && int(l.colon-l.start) == len(name) && equalFoldBytes(f.raw[l.start:l.colon], name) {
			l.hop = true
		}
	}
}
