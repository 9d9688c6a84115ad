package policy

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// checkFormat judges s by a named format. The names are those of the tag `format=`.
func checkFormat(format, s string) error {
	switch format {
	case "dnslabel":
		return checkDNSLabel(s)
	case "tenant":
		return checkTenant(s)
	case "tenantpattern":
		return checkTenantPattern(s)
	case "headername":
		return checkHeaderName(s)
	case "method":
		return checkMethod(s)
	case "listen":
		return checkListen(s)
	case "endpoint":
		return checkEndpoint(s)
	case "dnsname":
		return checkDNSName(s)
	case "target":
		return checkTarget(s)
	case "retrycause":
		return checkRetryCause(s)
	case "statuses":
		return checkStatuses(s)
	case "fieldvalue":
		return checkFieldValue(s)
	case "host":
		return checkHost(s)
	case "hostpattern":
		return checkHostPattern(s)
	case "hosttemplate":
		return checkHostTemplate(s)
	case "pathpattern":
		return checkPathPattern(s)
	case "pathtemplate":
		return checkPathTemplate(s)
	case "spiffepattern":
		return checkSPIFFEPattern(s)
	case "trustdomain":
		return checkTrustDomain(s)
	case "clienturl":
		return checkClientURL(s)
	case "keyprefix":
		return checkKeyPrefix(s)
	}
	panic("BUG: unknown format " + format)
}

// DescribeFormat says in a few words what a named format takes, or "" when there is no such format.
func DescribeFormat(format string) string {
	switch format {
	case "dnslabel":
		return "a DNS label: 1 to 63 of a-z, 0-9 and -, with no - at either end"
	case "tenant":
		return "1 to 128 visible ASCII characters"
	case "tenantpattern":
		return "1 to 128 visible ASCII characters with at least one *"
	case "headername":
		return "a field name (an RFC 9110 token)"
	case "method":
		return "a method (an RFC 9110 token), as in GET"
	case "listen":
		return "host:port, :port or unix:/path"
	case "endpoint":
		return "host:port or unix:/path"
	case "dnsname":
		return "a host name that can be looked up, as in orders.internal"
	case "target":
		return "a path that begins with /, possibly with a query"
	case "retrycause":
		return "connect, reset or a status from 500 to 599"
	case "statuses":
		return "a status from 100 to 599, or a class of them from 1xx to 5xx"
	case "fieldvalue":
		return "1 to 256 visible ASCII characters, with spaces between them"
	case "host":
		return "a host name or an IP address"
	case "hostpattern":
		return "a host name in lower case, or *. and a host name"
	case "hosttemplate":
		return "a host name in lower case with exactly one label {tenant}"
	case "pathpattern":
		return "a path that begins with /, possibly with /* at its end"
	case "pathtemplate":
		return "a path that begins with /, with exactly one segment {tenant}, possibly with /* at its end"
	case "spiffepattern":
		return "a path of a SPIFFE ID that begins with /, with exactly one segment {tenant}, possibly with /* at its end"
	case "trustdomain":
		return "a trust domain: 1 to 255 of a-z, 0-9, ., - and _"
	case "clienturl":
		return "http://host:port or https://host:port"
	case "keyprefix":
		return "a path of 2 to 200 visible ASCII characters that begins with /, without / at its end"
	}
	return ""
}

// no refuses s, says what the format takes and suggests meant, when that would be legal.
func no(format, s, meant string) error {
	if meant == s || len(s) > 512 || meant != "" && checkFormat(format, meant) != nil {
		meant = ""
	}
	return refuse(meant, "%s is not %s", quote(s), DescribeFormat(format))
}

// checkDNSLabel is RFC 1123, section 2.1, in lower case.
func checkDNSLabel(s string) error {
	if isDNSLabel(s) {
		return nil
	}
	return no("dnslabel", s, strings.Trim(strings.NewReplacer("_", "-", ".", "-", " ", "-").Replace(strings.ToLower(s)), "-"))
}

func isDNSLabel(s string) bool {
	return isHostLabel(s) && s == strings.ToLower(s) && !strings.Contains(s, "_")
}

// ValidTenant reports whether s is 1 to 128 bytes of visible ASCII.
func ValidTenant(s string) bool { return isVisible(s) && len(s) <= maxTenantBytes }

func checkTenant(s string) error {
	if ValidTenant(s) {
		return nil
	}
	return no("tenant", s, strings.TrimSpace(s))
}

func checkTenantPattern(s string) error {
	switch {
	case !isVisible(s) || len(s) > 128:
		return no("tenantpattern", s, "")
	case !strings.Contains(s, "*"):
		return refuse("", "%s has no *; name a single tenant with names: [%s]", quote(s), s)
	}
	return nil
}

// isVisible reports whether s is not empty and all visible ASCII.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

func checkHeaderName(s string) error {
	if isToken(s) {
		return nil
	}
	return no("headername", s, strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), ":")))
}

// isToken is RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

func checkMethod(s string) error {
	switch upper := strings.ToUpper(s); {
	case !isToken(s):
		return no("method", s, "")
	case s != upper && strings.Contains(" GET HEAD POST PUT PATCH DELETE OPTIONS ", " "+upper+" "):
		return refuse(upper, "%s would never match, since methods are compared by case", quote(s))
	}
	return nil
}

func checkListen(s string) error {
	return checkAddress("listen", s, func(host string) bool { return host == "" || isHost(host) }, 0)
}

func checkEndpoint(s string) error {
	return checkAddress("endpoint", s, isHost, 1)
}

// checkAddress judges host:port and unix:/path.
func checkAddress(format, s string, hostOK func(string) bool, minPort int) error {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		// A socket's path has a fixed place of 108 bytes in the kernel, the last of them 0.
		if len(path) > 107 {
			return refuse("", "the path of %s is longer than the 107 bytes that a Unix socket can have", quote(s))
		}
		if clean := "/" + strings.TrimLeft(path, "/"); path != clean || len(path) < 2 || !isVisible(path) {
			if strings.HasPrefix(path, "//") && len(clean) > 1 && isVisible(clean) {
				return no(format, s, "unix:"+clean)
			}
			return no(format, s, "")
		}
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err == nil && hostOK(host) && portOK(port, minPort) {
		return nil
	}
	return no(format, s, meantAddress(s, hostOK, minPort))
}

// meantAddress guesses the address behind a URL, a bare port, or an IPv6 address without brackets.
func meantAddress(s string, hostOK func(string) bool, minPort int) string {
	for _, scheme := range []string{"http://", "https://", "tcp://"} {
		if rest, ok := strings.CutPrefix(s, scheme); ok {
			rest, _, _ = strings.Cut(rest, "/")
			s = rest
		}
	}
	candidates := []string{s, ":" + s, "127.0.0.1:" + strings.TrimPrefix(s, ":")}
	if at := strings.LastIndexByte(s, ':'); at > 0 {
		candidates = append(candidates, net.JoinHostPort(s[:at], s[at+1:]))
	}
	if strings.HasPrefix(s, "/") {
		return "unix:" + s
	}
	for _, c := range candidates {
		if host, port, err := net.SplitHostPort(c); err == nil && hostOK(host) && portOK(port, minPort) {
			return c
		}
	}
	return ""
}

// portOK reports whether s is a port as everybody would write it.
func portOK(s string, least int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && strconv.Itoa(n) == s && n >= least && n <= 65535
}

// isHost reports whether s is an IP address or a name that can be looked up.
func isHost(s string) bool {
	if strings.Trim(s, "0123456789.") == "" || strings.Contains(s, ":") {
		_, err := netip.ParseAddr(s)
		return err == nil && isVisible(s) // a zone may hold any bytes
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isHostLabel(label) {
			return false
		}
	}
	return len(s) <= 253
}

// isHostLabel reports whether s is what resolvers take for a part of a name: letters, digits, - and _, with no - at either end.
func isHostLabel(s string) bool {
	for i := range len(s) {
		if !isNameByte(s[i]) {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
}

// checkDNSName takes a name with or without the dot at its end that keeps resolvers from trying it in their search domains.
func checkDNSName(s string) error {
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return refuse("", "%s is an address, which needs no looking up; use endpoints", quote(s))
	}
	if host := strings.TrimSuffix(s, "."); isHost(host) {
		return nil
	}
	meant := s
	if _, rest, ok := strings.Cut(meant, "://"); ok {
		meant, _, _ = strings.Cut(rest, "/")
	}
	if host, _, err := net.SplitHostPort(meant); err == nil {
		meant = host
	}
	return no("dnsname", s, meant)
}

// checkTarget is RFC 9112, section 3.2.1, in visible ASCII.
func checkTarget(s string) error {
	switch {
	case !strings.HasPrefix(s, "/"):
		return no("target", s, "/"+s)
	case !isVisible(s) || strings.ContainsAny(s, `\#`):
		return no("target", s, "")
	case !escapesOK(s):
		return refuse("", "%s has a %% that does not begin an escape such as %%2F", quote(s))
	}
	return nil
}

func checkRetryCause(s string) error {
	if s == "connect" || s == "reset" || len(s) == 3 && s[0] == '5' && isDigits(s) {
		return nil
	}
	return no("retrycause", s, closest(s, []string{"connect", "reset"}))
}

func checkStatuses(s string) error {
	if len(s) == 3 && s[0] >= '1' && s[0] <= '5' && (s[1:] == "xx" || isDigits(s)) {
		return nil
	}
	return no("statuses", s, strings.ToLower(strings.TrimSpace(s)))
}

// checkFieldValue is RFC 9110, section 5.5, without what is obsolete in it.
func checkFieldValue(s string) error {
	if s != "" && len(s) <= 256 && s == strings.TrimSpace(s) && isVisible(strings.ReplaceAll(s, " ", "")) {
		return nil
	}
	return no("fieldvalue", s, strings.TrimSpace(s))
}

func checkHost(s string) error {
	if isHost(s) {
		return nil
	}
	meant := strings.TrimSpace(s)
	if _, rest, ok := strings.Cut(meant, "://"); ok {
		meant, _, _ = strings.Cut(rest, "/")
	}
	if host, _, err := net.SplitHostPort(meant); err == nil {
		meant = host
	}
	return no("host", s, strings.TrimSuffix(strings.Trim(meant, "[]"), "."))
}

func checkHostPattern(s string) error {
	name := strings.TrimPrefix(s, "*.")
	bare := strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if name == bare && isHost(name) && strings.ToLower(s) == s && !strings.Contains(name, ":") {
		return nil
	}
	if s == "["+bare+"]" && strings.Contains(bare, ":") && isHost(bare) && strings.ToLower(s) == s {
		return nil // an IPv6 address, as in a Host header
	}
	if s == "*" {
		return refuse("", `"*" is not needed; leave host out to match any`)
	}
	meant := strings.ToLower(s)
	if _, rest, ok := strings.Cut(meant, "://"); ok {
		meant = rest
	}
	if host, _, err := net.SplitHostPort(meant); err == nil && !strings.Contains(host, ":") {
		meant = host
	}
	meant, _, _ = strings.Cut(meant, "/")
	return no("hostpattern", s, strings.TrimSuffix(meant, "."))
}

// tenantVariable is what a template has in the tenant's place.
const tenantVariable = "{tenant}"

func checkHostTemplate(s string) error {
	found := 0
	for label := range strings.SplitSeq(s, ".") {
		if label == tenantVariable {
			found++
		}
	}
	plain := strings.ReplaceAll(s, tenantVariable, "t")
	if found == 1 && strings.Count(s, tenantVariable) == 1 && isHost(plain) && strings.ToLower(s) == s {
		return nil
	}
	return no("hosttemplate", s, strings.ToLower(s))
}

func checkPathPattern(s string) error {
	base := strings.TrimSuffix(s, "/*")
	if base == "" && s == "/*" {
		return nil
	}
	return checkPath("pathpattern", s, base)
}

func checkPathTemplate(s string) error {
	base := strings.TrimSuffix(s, "/*")
	found := 0
	for segment := range strings.SplitSeq(base, "/") {
		if segment == tenantVariable {
			found++
		}
	}
	if found != 1 || strings.Count(s, tenantVariable) != 1 {
		return no("pathtemplate", s, "")
	}
	return checkPath("pathtemplate", s, strings.Replace(base, tenantVariable, "t", 1))
}

// checkPath judges the literal part of a path. What can never be a canonical path is refused, since it would never match.
func checkPath(format, s, literal string) error {
	switch {
	case !strings.HasPrefix(s, "/"):
		if s == "" || s == "*" || strings.Contains(s, "://") {
			return no(format, s, "")
		}
		return no(format, s, "/"+s)
	case strings.Contains(literal, "*"):
		return refuse("", "%s has a * that is not the last segment, as in /a/*", quote(s))
	case strings.ContainsAny(literal, "?#"):
		return refuse("", "%s has more than a path; a query cannot be matched", quote(s))
	case !isVisible(s) || strings.ContainsAny(literal, `\{}`):
		return no(format, s, "")
	case hasDotSegment(literal) || strings.Contains(s, "//"):
		return refuse("", "%s would never match, since paths are compared without empty, . and .. segments", quote(s))
	case !escapesOK(literal):
		return refuse("", "%s has a %% that does not begin an escape such as %%2F", quote(s))
	}
	return nil
}

func hasDotSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// escapesOK reports whether every % begins an escape with two hexadecimal digits.
func escapesOK(path string) bool {
	for {
		_, rest, ok := strings.Cut(path, "%")
		if !ok {
			return true
		}
		if len(rest) < 2 || strings.Trim(rest[:2], "0123456789abcdefABCDEF") != "" {
			return false
		}
		path = rest[2:]
	}
}
