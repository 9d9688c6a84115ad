package proxy

import (
	"bytes"

	"weir/proxy/wire"
)

// wantsText says whether plain text is all that the client accepts of the two forms in which a problem can be told. Who
// accepts neither, or says nothing, gets a problem document: an answer in the wrong form says more than none.
func wantsText(head *wire.Head) bool {
	_, n := head.Lookup("Accept")
	if n == 0 {
		return false
	}
	var text, problem preference
	for i := range n {
		for rest := head.Nth("Accept", i); len(rest) > 0; {
			var element []byte
			element, rest = cutList(rest, ',')
			kind, params := cutList(element, ';')
			q := weight(params)
			text.hear(q, kind, "text/plain", "text/*")
			if q > 0 || !bytes.EqualFold(kind, []byte("application/json")) { // who reads JSON reads a problem; who does not may yet
				problem.hear(q, kind, "application/problem+json", "application/json", "application/*")
			}
		}
	}
	return text.accepted() && !problem.accepted()
}

// preference is what a client says of one media type. The most specific range that it names counts (RFC 9110 section 12.5.1),
// and of equally specific ones the kindest.
type preference struct {
	specificity int // of the range that counts; 0: none has been met
	q           int // in thousandths
}

func (p *preference) accepted() bool { return p.q > 0 }

// hear takes note of a range. ranges are those that have the media type, from the most specific on.
func (p *preference) hear(q int, kind []byte, ranges ...string) {
	specificity := 0
	for i, r := range ranges {
		if bytes.EqualFold(kind, []byte(r)) {
			specificity = len(ranges) + 1 - i
		}
	}
	if string(kind) == "*/*" {
		specificity = 1
	}
	switch {
	case specificity == 0 || specificity < p.specificity:
	case specificity > p.specificity:
		p.specificity, p.q = specificity, q
	default:
		p.q = max(p.q, q)
	}
}

// weight is the parameter q among parameters, in thousandths. What is no weight is none, and counts as 1.
func weight(params []byte) int {
	for len(params) > 0 {
		var param []byte
		param, params = cutList(params, ';')
		name, value, _ := bytes.Cut(param, []byte("="))
		if len(name) == 1 && name[0]|0x20 == 'q' {
			return thousandths(value)
		}
	}
	return 1000
}

// thousandths reads `0`, `1` or either with up to three decimals, at most 1.
func thousandths(b []byte) int {
	if len(b) == 0 || len(b) > len("0.000") || b[0] != '0' && b[0] != '1' || len(b) > 1 && b[1] != '.' {
		return 1000
	}
	n, unit := int(b[0]-'0')*1000, 100
	for _, c := range b[min(2, len(b)):] {
		if c < '0' || c > '9' {
			return 1000
		}
		n += int(c-'0') * unit
		unit /= 10
	}
	return min(n, 1000)
}

// cutList takes what stands before the first separator that is not in a quoted string, without the white space around it.
func cutList(list []byte, separator byte) (first, rest []byte) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == separator && !quoted:
			return bytes.Trim(list[:i], " \t"), list[i+1:]
		}
	}
	return bytes.Trim(list, " \t"), nil
}
