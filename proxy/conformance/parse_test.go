package conformance

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// message is a request or an answer as a strict parser of RFC 9112 reads it.
type message struct {
	line    string // the start line
	method  string // of a request
	target  string
	status  int // of an answer
	fields  [][2]string
	body    string
	head    string // with the empty line
	whole   string
	framing string // the fields that frame it, in lower case
}

// get returns the values of a field.
func (m *message) get(name string) (values []string) {
	for _, f := range m.fields {
		if strings.EqualFold(f[0], name) {
			values = append(values, f[1])
		}
	}
	return values
}

var token = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// control bytes that no line may have.
var control = regexp.MustCompile(`[\x00-\x08\x0a-\x1f\x7f]`)

// parseHead reads a head strictly. used is 0 while it is incomplete.
func parseHead(s string) (m *message, used int, err error) {
	head, _, complete := strings.Cut(s, "\r\n\r\n")
	if !complete {
		return nil, 0, nil
	}
	lines := strings.Split(head, "\r\n")
	m = &message{line: lines[0], head: head + "\r\n\r\n"}
	if control.MatchString(lines[0]) {
		return nil, 0, fmt.Errorf("%w: control bytes in %q", errRefused, lines[0])
	}
	for _, l := range lines[1:] {
		name, value, found := strings.Cut(l, ":")
		if !found || !token.MatchString(name) || control.MatchString(value) {
			return nil, 0, fmt.Errorf("%w: line %q", errRefused, l)
		}
		m.fields = append(m.fields, [2]string{name, strings.Trim(value, " \t")})
	}
	return m, len(m.head), nil
}

var requestLine = regexp.MustCompile(`^(\S+) (\S+) HTTP/1\.1$`)

// nextMessage reads the first request of a stream strictly. used is 0 while it is incomplete.
func nextMessage(s string) (m *message, used int, err error) {
	m, used, err = parseHead(s)
	if used == 0 {
		return m, 0, err
	}
	parts := requestLine.FindStringSubmatch(m.line)
	if parts == nil || !token.MatchString(parts[1]) {
		return m, 0, fmt.Errorf("%w: request line %q", errRefused, m.line)
	}
	m.method, m.target = parts[1], parts[2]
	if len(m.get("Host")) != 1 {
		return m, 0, fmt.Errorf("%w: Host %q", errRefused, m.get("Host"))
	}
	return m.readBody(s, used, false)
}

// nextAnswer reads the first answer of a stream strictly. Without framing it lasts until the end, if there is one.
func nextAnswer(s, method string, ended bool) (m *message, used int, err error) {
	m, used, err = parseHead(s)
	if used == 0 {
		return m, 0, err
	}
	if len(m.line) < 13 || !strings.HasPrefix(m.line, "HTTP/1.1 ") || m.line[12] != ' ' {
		return m, 0, fmt.Errorf("%w: status line %q", errRefused, m.line)
	}
	if m.status, err = strconv.Atoi(m.line[9:12]); err != nil {
		return m, 0, fmt.Errorf("%w: status line %q", errRefused, m.line)
	}
	if method == "HEAD" || m.status < 200 || m.status == 204 || m.status == 304 {
		m.whole = s[:used]
		return m, used, nil
	}
	if m.get("Content-Length") == nil && m.get("Transfer-Encoding") == nil {
		if !ended {
			return m, 0, nil
		}
		m.body, m.whole = s[used:], s
		return m, len(s), nil
	}
	return m.readBody(s, used, true)
}

func (m *message) readBody(s string, used int, answer bool) (*message, int, error) {
	lengths, encodings := m.get("Content-Length"), m.get("Transfer-Encoding")
	switch {
	case len(lengths)+len(encodings) > 1:
		return m, 0, fmt.Errorf("%w: framing fields %q %q", errRefused, lengths, encodings)
	case len(encodings) == 1:
		if encodings[0] != "chunked" {
			return m, 0, fmt.Errorf("%w: Transfer-Encoding %q", errRefused, encodings[0])
		}
		m.framing = "chunked"
		body, n, err := readChunks(s[used:])
		if n == 0 {
			return m, 0, err
		}
		m.body, used = body, used+n
	case len(lengths) == 1:
		n, err := strconv.ParseUint(lengths[0], 10, 62)
		if err != nil {
			return m, 0, fmt.Errorf("%w: Content-Length %q", errRefused, lengths[0])
		}
		m.framing = "length"
		if uint64(len(s)-used) < n {
			return m, 0, nil
		}
		m.body, used = s[used:used+int(n)], used+int(n)
	}
	m.whole = s[:used]
	return m, used, nil
}

var chunkSize = regexp.MustCompile(`^[0-9a-f]{1,8}$`)

// readChunks reads a chunked body without extensions and trailers, which no proxy has to pass on. used is 0 while it is incomplete.
func readChunks(s string) (body string, used int, err error) {
	for at := 0; ; {
		line, _, found := strings.Cut(s[at:], "\r\n")
		if !found {
			return body, 0, nil
		}
		if !chunkSize.MatchString(line) {
			return body, 0, fmt.Errorf("%w: chunk size %q", errRefused, line)
		}
		n, _ := strconv.ParseUint(line, 16, 32)
		at += len(line) + 2
		if len(s)-at < int(n)+2 {
			return body, 0, nil
		}
		body += s[at : at+int(n)]
		at += int(n)
		if s[at:at+2] != "\r\n" {
			return body, 0, fmt.Errorf("%w: %q after a chunk", errRefused, s[at:at+2])
		}
		if at += 2; n == 0 {
			return body, at, nil
		}
	}
}

// strictly returns the whole requests that a strict parser sees in a stream, and what is left of it.
func strictly(s string) (all []*message, rest string, err error) {
	for s != "" {
		m, used, err := nextMessage(s)
		if err != nil || used == 0 {
			return all, s, err
		}
		all = append(all, m)
		s = s[used:]
	}
	return all, "", nil
}

var (
	digits    = regexp.MustCompile(`\d+`)
	hexDigits = regexp.MustCompile(`^[0-9a-fA-F]*`)
	randomID  = regexp.MustCompile(`[0-9a-f]{32}`)
)

// leniently returns the request lines of the whole requests that the most permissive parser sees: any line end, folded lines, white
// space around names, `_` for `-`, whatever digits a length has, the last of several lengths, `chunked` anywhere.
func leniently(s string) (lines []string) {
	for s = strings.TrimLeft(s, "\r\n"); s != ""; s = strings.TrimLeft(s, "\r\n") {
		line, rest, _ := cutLine(s)
		first, more := line, false
		length, chunked := 0, false
		for line, rest, more = cutLine(rest); line != "" && more; line, rest, more = cutLine(rest) {
			name, value, _ := strings.Cut(strings.ToLower(line), ":")
			switch strings.ReplaceAll(strings.TrimSpace(name), "_", "-") {
			case "content-length":
				length, _ = strconv.Atoi(digits.FindString(value))
			case "transfer-encoding":
				chunked = chunked || strings.Contains(value, "chunked")
			}
		}
		if !more {
			return lines // the head has no end
		}
		for s = rest; chunked; {
			if line, s, more = cutLine(s); !more {
				return lines
			}
			n, _ := strconv.ParseUint(hexDigits.FindString(line), 16, 31)
			if n == 0 {
				for line, s, more = cutLine(s); line != "" && more; line, s, more = cutLine(s) {
				} // trailers
				if !more {
					return lines
				}
				break
			}
			if int(n) > len(s) {
				return lines
			}
			_, s, _ = cutLine(s[n:])
		}
		if !chunked {
			if length > len(s) {
				return lines
			}
			s = s[length:]
		}
		lines = append(lines, first)
	}
	return lines
}

// cutLine takes a line that ends with LF, with or without CR.
func cutLine(s string) (line, rest string, found bool) {
	line, rest, found = strings.Cut(s, "\n")
	return strings.TrimRight(line, "\r"), rest, found
}

// byNetHTTP reads a request with the standard library's parser.
func byNetHTTP(raw string) (line, host, body string, err error) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		return "", "", "", err
	}
	b, err := io.ReadAll(r.Body)
	return r.Method + " " + r.RequestURI + " " + r.Proto, r.Host, string(b), err
}
