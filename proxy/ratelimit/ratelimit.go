// Package ratelimit writes what answers tell a client of its limits, together with what the backend has told it already:
// the fields of draft-ietf-httpapi-ratelimit-headers-11, their older kin X-RateLimit-*, and Retry-After.
//
// Where both sides have something to say, the stricter one is heard. What a backend has said is never loosened and never lost:
// a member or a field of its own goes only where ours, which takes its place, is stricter; and a field that is not what it
// should be stays as it is, without ours.
package ratelimit

import (
	"strconv"
	"strings"
	"time"

	"weir/admit"
	"weir/proxy/wire"
)

// Terms are what is to be told.
type Terms struct {
	Form   string             // Standard, Legacy, Both or Off, as in documents
	Limits []admit.LimitState // as they are after the request
	Unix   int64              // the wall time in seconds since 1970, for backends that name points in time
	Jitter float64            // in [0, 1), see [admit.RetryAfter]
}

// Append appends to dst the lines that tell a client of its limits beside an answer of the backend, and takes the lines that
// these replace out of the answer's head: it is to be called before the head is written. It allocates nothing when dst
// has room, and its work is bounded whatever the backend sent.
func Append(dst []byte, t *Terms, answer *wire.ResponseHead) []byte {
	if t.Form == "Off" || len(t.Limits) == 0 {
		return dst
	}
	var said fields
	said.collect(&answer.Fields)
	if t.Form != "Legacy" {
		dst = appendLimits(appendPolicies(dst, t.Limits, &said), t.Limits, &said)
	}
	if t.Form != "Standard" {
		dst = appendLegacy(dst, t, &said)
	}
	if answer.Status == 429 || answer.Status == 503 {
		dst = appendRetryAfter(dst, t, &said)
	}
	return dst
}

// name is one of the fields that this package is about.
type name uint8

const (
	rateLimitPolicy name = iota
	rateLimit
	legacyLimit
	legacyRemaining
	legacyReset
	retryAfter
	nameCount
)

// maxLines is how many lines of one field are read. With more it is as good as one that cannot be parsed.
const maxLines = 8

// field is what an answer has of one field, as indexes into its head.
type field struct {
	n  int // lines; only the first maxLines are here
	at [maxLines]uint16
}

// fields are those of one answer that this package is about, and that are passed on.
type fields struct {
	head *wire.Fields
	of   [nameCount]field
}

// collect finds them.
func (f *fields) collect(head *wire.Fields) {
	f.head = head
	for i := range head.List {
		n, known := nameOf(head.Name(i))
		if !known || !head.Kept(i) {
			continue
		}
		found := &f.of[n]
		if found.n < maxLines {
			found.at[found.n] = uint16(i)
		}
		found.n++
	}
}

// lines are those of one field that can be read; none when there are too many.
func (f *fields) lines(n name) lines {
	found := &f.of[n]
	if found.n > maxLines {
		return lines{}
	}
	return lines{f.head, found.at[:found.n]}
}

// drop takes a field out of the head.
func (f *fields) drop(n name) {
	for _, i := range f.lines(n).at {
		f.head.Drop(int(i))
	}
}

// lines are the values of one field.
type lines struct {
	head *wire.Fields
	at   []uint16
}

func (l lines) value(i int) []byte { return l.head.Value(int(l.at[i])) }

// nameOf knows a field by its length before it looks at its letters: few fields are looked at twice.
func nameOf(b []byte) (name, bool) {
	switch len(b) {
	case len("RateLimit"):
		return rateLimit, equalFold(b, "ratelimit")
	case len("Retry-After"):
		return retryAfter, equalFold(b, "retry-after")
	case len("RateLimit-Policy"):
		return rateLimitPolicy, equalFold(b, "ratelimit-policy")
	case len("X-RateLimit-Limit"):
		if equalFold(b, "x-ratelimit-limit") {
			return legacyLimit, true
		}
		return legacyReset, equalFold(b, "x-ratelimit-reset")
	case len("X-RateLimit-Remaining"):
		return legacyRemaining, equalFold(b, "x-ratelimit-remaining")
	}
	return 0, false
}

// equalFold compares a field's name with one in lower case.
func equalFold(b []byte, lower string) bool {
	for i := range b {
		c := b[i]
		if c-'A' < 26 {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// appendPolicies tells of all limits in RateLimit-Policy.
func appendPolicies(dst []byte, ours []admit.LimitState, said *fields) []byte {
	start := len(dst)
	dst = append(dst, "RateLimit-Policy: "...)
	if said.of[rateLimitPolicy].n == 0 {
		return append(admit.AppendPolicies(dst, ours), "\r\n"...)
	}
	dst, ok := policies.merge(dst, said.lines(rateLimitPolicy), lines{}, ours)
	if !ok {
		return dst[:start]
	}
	said.drop(rateLimitPolicy)
	return append(dst, "\r\n"...)
}

// appendLimits tells of all limits in RateLimit.
func appendLimits(dst []byte, ours []admit.LimitState, said *fields) []byte {
	start := len(dst)
	dst = append(dst, "RateLimit: "...)
	if said.of[rateLimit].n == 0 {
		return append(admit.AppendLimits(dst, ours), "\r\n"...)
	}
	dst, ok := limits.merge(dst, said.lines(rateLimit), said.lines(rateLimitPolicy), ours)
	if !ok {
		return dst[:start]
	}
	said.drop(rateLimit)
	return append(dst, "\r\n"...)
}

// appendLegacy tells of the tightest limit in the three older fields, unless the backend has told of one that is as tight.
// They belong together, so the backend's three stay or go together, and stay when they cannot be compared.
func appendLegacy(dst []byte, t *Terms, said *fields) []byte {
	tightest := admit.Tightest(t.Limits)
	if tightest == nil {
		return dst
	}
	limit, remaining, reset := tightest.Legacy()
	if said.of[legacyLimit].n+said.of[legacyRemaining].n+said.of[legacyReset].n > 0 {
		_, isNumber := said.number(legacyLimit)
		theirs, comparable := said.number(legacyRemaining)
		at, isTime := said.number(legacyReset)
		if !isNumber || !comparable || !isTime || said.of[legacyRemaining].n == 0 || theirs <= remaining {
			return dst
		}
		switch {
		case at >= sinceMillis: // who reads it would take our seconds for something else
			return dst
		case at >= sinceSeconds:
			reset += t.Unix
		}
		for n := legacyLimit; n <= legacyReset; n++ {
			said.drop(n)
		}
	}
	dst = appendNumber(dst, "X-RateLimit-Limit: ", limit)
	dst = appendNumber(dst, "X-RateLimit-Remaining: ", remaining)
	return appendNumber(dst, "X-RateLimit-Reset: ", reset)
}

// X-RateLimit-Reset is a number of seconds to wait or, with some backends, a point in time, in seconds or milliseconds since
// 1970. Numbers from these on are points in time.
const (
	sinceSeconds = 1_000_000_000
	sinceMillis  = 100 * sinceSeconds
)

// number reads a field that is one number, if it is there. False means that it is there and something else.
func (f *fields) number(n name) (value int64, ok bool) {
	switch f.of[n].n {
	case 0:
		return 0, true
	case 1:
		return digits(f.lines(n).value(0))
	}
	return 0, false
}

// digits reads 1 to 15 digits.
func digits(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > maxDigits {
		return 0, false
	}
	for _, c := range b {
		if c-'0' > 9 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// maxDigits is how many an integer of a structured field has at most (RFC 9651 section 3.3.1).
const maxDigits = 15

// appendRetryAfter keeps a client away for as long as we would refuse it, when the backend sends it away for less.
func appendRetryAfter(dst []byte, t *Terms, said *fields) []byte {
	wait := admit.NextRequest(t.Limits)
	if wait == 0 {
		return dst
	}
	ours := admit.RetryAfter(wait, t.Jitter)
	if said.of[retryAfter].n > 0 {
		theirs, ok := said.delay(t.Unix)
		if !ok || theirs >= ours {
			return dst
		}
		said.drop(retryAfter)
	}
	return appendNumber(dst, "Retry-After: ", ours)
}

// delay reads Retry-After, which is a number of seconds or a date (RFC 9110 section 10.2.3).
func (f *fields) delay(unix int64) (seconds int64, ok bool) {
	if f.of[retryAfter].n != 1 {
		return 0, false
	}
	value := f.lines(retryAfter).value(0)
	if seconds, ok = digits(value); ok {
		return seconds, true
	}
	at, ok := date(value)
	return max(at-unix, 0), ok
}

// date reads a date in the form that is to be sent, `Mon, 02 Jan 2006 15:04:05 GMT` (RFC 9110 section 5.6.7), and does not
// ask whether it is the right day of the week. Those who send one of the two obsolete forms keep it.
func date(b []byte) (unix int64, ok bool) {
	const form = "Mon, 00 Jan 0000 00:00:00 GMT"
	if len(b) != len(form) {
		return 0, false
	}
	for i := range form {
		switch c := form[i]; {
		case c == '0' && !isDigit(b[i]):
			return 0, false
		case !isAlpha(c) && c != '0' && b[i] != c:
			return 0, false
		}
	}
	weekday := strings.Index("SunMonTueWedThuFriSat", string(b[:3]))
	month := strings.Index("JanFebMarAprMayJunJulAugSepOctNovDec", string(b[8:11]))
	if weekday%3 != 0 || month%3 != 0 || string(b[26:]) != "GMT" {
		return 0, false
	}
	n := func(from, to int) int { value, _ := digits(b[from:to]); return int(value) }
	day, hour, minute, second := n(5, 7), n(17, 19), n(20, 22), n(23, 25)
	at := time.Date(n(12, 16), time.Month(month/3+1), day, hour, minute, second, 0, time.UTC)
	return at.Unix(), at.Day() == day && hour < 24 && minute < 60 && second < 61
}

func appendNumber(dst []byte, name string, n int64) []byte {
	return append(strconv.AppendInt(append(dst, name...), n, 10), "\r\n"...)
}
