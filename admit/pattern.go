package admit

import (
	"bytes"
	"fmt"
	"strings"
)

// maxHostBytes is the longest host that can equal a pattern: a domain name has at most 253 bytes (RFC 1035 section 2.3.4).
const maxHostBytes = 253

// hostname returns a Host header's value without its port and without one trailing dot, in the case it was sent. The
// brackets of an IPv6 literal stay.
func hostname(host []byte) []byte {
	if len(host) > 0 && host[0] == '[' {
		return host[:bytes.IndexByte(host, ']')+1]
	}
	if i := bytes.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	return host
}

// lowerHostname is hostname in lower case. It points into host or into buf, and is nil when it is too long to equal any pattern.
func lowerHostname(host []byte, buf *[maxHostBytes]byte) []byte {
	host = hostname(host)
	if len(host) > maxHostBytes {
		return nil
	}
	if !hasUpper(host) {
		return host
	}
	for i, c := range host {
		buf[i] = lower(c)
	}
	return buf[:len(host)]
}

// lower folds ASCII only: host names have no other letters, and Unicode folding would make the Kelvin sign a k.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

func hasUpper(s []byte) bool {
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			return true
		}
	}
	return false
}

// equalsLower reports whether s in lower case is want, which is in lower case.
func equalsLower(s []byte, want string) bool {
	if len(s) != len(want) {
		return false
	}
	for i, c := range s {
		if lower(c) != want[i] {
			return false
		}
	}
	return true
}

// parseHostPattern reads the host of a RouteMatch. The name is in lower case; for a wildcard it is what follows the "*.".
func parseHostPattern(pattern string) (name string, wildcard bool, err error) {
	name, wildcard = strings.CutPrefix(pattern, "*.")
	name = strings.ToLower(string(hostname([]byte(name))))
	if name == "" || len(name) > maxHostBytes || strings.Contains(name, "*") {
		return "", false, fmt.Errorf("cannot use host %q: want a name of 1 to %d bytes, or *. and a name", pattern, maxHostBytes)
	}
	return name, wildcard, nil
}

// parsePathPattern reads the path of a RouteMatch. The path of a prefix is what precedes the "/*".
func parsePathPattern(pattern string) (path string, prefix bool, err error) {
	path, prefix = strings.CutSuffix(pattern, "/*")
	if !strings.HasPrefix(pattern, "/") || strings.Contains(path, "*") {
		return "", false, fmt.Errorf("cannot use path %q: want / first, and * only as the last segment", pattern)
	}
	return path, prefix, nil
}

// placeholder stands for the tenant in a template.
const placeholder = "{tenant}"

// template is a host or a path in which one label or segment is the tenant.
type template struct {
	before, after string
	whole         bool // of a path: nothing may follow
}

// parseHostTemplate reads a template such as "{tenant}.api.example.com".
func parseHostTemplate(text string) (template, error) {
	before, after, ok := strings.Cut(text, placeholder)
	if !ok || strings.ContainsAny(before+after, "{}*") || before != "" && !strings.HasSuffix(before, ".") || after != "" && after[0] != '.' {
		return template{}, fmt.Errorf("cannot use host template %q: want %s once, as a whole label", text, placeholder)
	}
	return template{before: strings.ToLower(before), after: strings.ToLower(after)}, nil
}

// parsePathTemplate reads a template such as "/t/{tenant}/". A trailing "/" or "/*" makes no difference.
func parsePathTemplate(text string) (template, error) {
	before, after, ok := strings.Cut(text, placeholder)
	after = strings.TrimSuffix(strings.TrimSuffix(after, "/*"), "/")
	if !ok || strings.ContainsAny(before+after, "{}*") || text[0] != '/' || !strings.HasSuffix(before, "/") || after != "" && after[0] != '/' {
		return template{}, fmt.Errorf("cannot use path template %q: want / first, and %s once, as a whole segment", text, placeholder)
	}
	return template{before: before, after: after}, nil
}

// parseSPIFFEPattern reads a pattern such as "/ns/{tenant}/sa/gateway". Unlike a path's, it is the whole of an ID unless "/*" ends it: of
// two IDs one of which begins with the other, each is somebody else.
func parseSPIFFEPattern(text string) (template, error) {
	t, err := parsePathTemplate(text)
	t.whole = !strings.HasSuffix(text, "/*")
	return t, err
}

// label returns the label of a host in the template's place, and false when the host has another shape. Letters compare
// without case, and the label is in lower case, so that one tenant cannot have several spellings. Copying a label that
// was sent with capitals is the one allocation in match; every client that matters sends lower case.
func (t template) label(host []byte) ([]byte, bool) {
	host = hostname(host)
	end := len(host) - len(t.after)
	if end < len(t.before) || !equalsLower(host[:len(t.before)], t.before) || !equalsLower(host[end:], t.after) {
		return nil, false
	}
	label := host[len(t.before):end]
	if len(host) == 0 || bytes.ContainsAny(label, ".[") { // a bracket begins an IPv6 literal, which has no labels
		return nil, false
	}
	if hasUpper(label) && validTenant(label) {
		label = bytes.ToLower(label)
	}
	return label, true
}

// segment returns the segment of a path in the template's place, and false when the path has another shape or ends before
// it. What follows the template is not looked at unless it is whole. An empty segment with more behind it is there, and is no tenant.
func (t template) segment(path []byte) ([]byte, bool) {
	rest, ok := cutPrefix(path, t.before)
	if !ok || len(rest) == 0 {
		return nil, false
	}
	segment := rest
	if i := bytes.IndexByte(rest, '/'); i >= 0 {
		segment = rest[:i]
	}
	rest, ok = cutPrefix(rest[len(segment):], t.after)
	if !ok || len(rest) > 0 && (t.whole || rest[0] != '/') {
		return nil, false
	}
	return segment, true
}

func cutPrefix(s []byte, prefix string) ([]byte, bool) {
	if len(s) < len(prefix) || string(s[:len(prefix)]) != prefix {
		return s, false
	}
	return s[len(prefix):], true
}
