package ratelimit

// member is one item of a list: a quota by its name, with what its parameters say.
type member struct {
	raw       []byte // all of it, as sent
	name      []byte // between the quotes, as sent: a limit's name has nothing to escape
	amount    int64
	window    int64
	counted   bool   // there is an amount
	windowed  bool   // there is a window
	unit      []byte // between the quotes; nil: not told
	partition bool   // there is a partition key
}

// next reads the first member of a list of RFC 9651 and the comma after it. False means that it is none that the draft knows:
// an inner list, a name that is no string, an amount or a window that is no number from 0 on, a window of 0 for a quota, a
// unit that is no string, a partition key that is no byte sequence, or no list at all. Dates and display strings, which
// only comments could hold, are not read either.
func (l list) next(b []byte) (m member, rest []byte, ok bool) {
	end, ok := quoted(b, 0)
	if !ok {
		return m, nil, false
	}
	m.name = b[1 : end-1]
	for end < len(b) && b[end] == ';' {
		if end, ok = l.parameter(&m, b, end+1); !ok {
			return m, nil, false
		}
	}
	m.raw = b[:end]
	if !m.counted || l == policies && m.windowed && m.window == 0 {
		return m, nil, false
	}
	if end = skip(b, end, ' ', '\t'); end == len(b) {
		return m, nil, true
	}
	if b[end] != ',' {
		return m, nil, false
	}
	end = skip(b, end+1, ' ', '\t')
	return m, b[end:], end < len(b) // no comma at the end
}

// parameter reads one parameter from i on, after its semicolon, and returns where it ends. Of several with one key the last
// counts.
func (l list) parameter(m *member, b []byte, i int) (end int, ok bool) {
	start := skip(b, i, ' ', ' ')
	end = start
	for end < len(b) && isKey(b[end], end == start) {
		end++
	}
	key := b[start:end]
	if len(key) == 0 {
		return end, false
	}
	var value []byte // none: true
	if end < len(b) && b[end] == '=' {
		start = end + 1
		if end, ok = bareItem(b, start); !ok {
			return end, false
		}
		value = b[start:end]
	}
	switch {
	case len(key) == 1 && key[0] == l.amount:
		m.amount, m.counted = digits(value)
		return end, m.counted
	case len(key) == 1 && key[0] == l.window:
		m.window, m.windowed = digits(value)
		return end, m.windowed
	case string(key) == "qu" && l == policies:
		if len(value) == 0 || value[0] != '"' {
			return end, false
		}
		m.unit = value[1 : len(value)-1]
	case string(key) == "pk":
		m.partition = true
		return end, len(value) > 0 && value[0] == ':'
	}
	return end, true
}

// bareItem reads a bare item from i on and returns where it ends.
func bareItem(b []byte, i int) (end int, ok bool) {
	if i == len(b) {
		return i, false
	}
	switch c := b[i]; {
	case c == '"':
		return quoted(b, i)
	case c == '?':
		return i + 2, i+1 < len(b) && (b[i+1] == '0' || b[i+1] == '1')
	case c == ':':
		for end = i + 1; end < len(b) && isBase64(b[end]); end++ {
		}
		return end + 1, end < len(b) && b[end] == ':' && (end-i-1)%4 == 0 && padded(b[i+1:end])
	case c == '-' || isDigit(c):
		return number(b, i)
	case c == '*' || isAlpha(c):
		for end = i + 1; end < len(b) && isToken(b[end]); end++ {
		}
		return end, true
	}
	return i, false
}

// quoted reads a string from i on.
func quoted(b []byte, i int) (end int, ok bool) {
	if i == len(b) || b[i] != '"' {
		return i, false
	}
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, true
		case c == '\\':
			if i++; i == len(b) || b[i] != '"' && b[i] != '\\' {
				return i, false
			}
		case c < ' ' || c > '~':
			return i, false
		}
	}
	return i, false
}

// number reads an integer of up to 15 digits, or a decimal of up to 12 and 3.
func number(b []byte, i int) (end int, ok bool) {
	if b[i] == '-' {
		i++
	}
	for end = i; end < len(b) && isDigit(b[end]); end++ {
	}
	whole := end - i
	if end == len(b) || b[end] != '.' {
		return end, whole >= 1 && whole <= maxDigits
	}
	for i, end = end+1, end+1; end < len(b) && isDigit(b[end]); end++ {
	}
	return end, whole >= 1 && whole <= 12 && end-i >= 1 && end-i <= 3
}

// padded says whether the padding of base64 is at the end.
func padded(b []byte) bool {
	for i, c := range b {
		if c == '=' && (i < len(b)-2 || b[len(b)-1] != '=') {
			return false
		}
	}
	return true
}

// skip passes over two kinds of byte.
func skip(b []byte, i int, one, other byte) int {
	for i < len(b) && (b[i] == one || b[i] == other) {
		i++
	}
	return i
}

func isDigit(c byte) bool { return c-'0' < 10 }

func isAlpha(c byte) bool { return c|0x20-'a' < 26 }

func isBase64(c byte) bool {
	return isAlpha(c) || isDigit(c) || c == '+' || c == '/' || c == '='
}

// isKey says whether a key may have the byte, or begin with it.
func isKey(c byte, first bool) bool {
	switch {
	case c-'a' < 26 || c == '*':
		return true
	case first:
		return false
	}
	return isDigit(c) || c == '_' || c == '-' || c == '.'
}

// isToken says whether a token may go on with the byte.
func isToken(c byte) bool {
	if isAlpha(c) || isDigit(c) {
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~', ':', '/':
		return true
	}
	return false
}
