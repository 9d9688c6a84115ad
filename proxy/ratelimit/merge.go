package ratelimit

import (
	"bytes"
	"math/bits"

	"weir/admit"
)

// list is one of the two structured fields, by the parameters that it is about: an amount, and the window for it.
type list struct{ amount, window byte }

var (
	policies = list{'q', 'w'} // RateLimit-Policy: what there is in each window
	limits   = list{'r', 't'} // RateLimit: what is left of it
)

// maxMembers is how many members of a field are read, and against how many limits they are held. With more members, a field is
// as good as one that cannot be parsed.
const maxMembers = 64

// merge appends the members of the backend, as sent and in order, and then ours. Where both have one for the same quota the
// stricter one stands, in the place of the backend's. units is RateLimit-Policy where that is another field: it says what a
// quota counts. False means that the field is to stay as it was sent, since it is not what the draft says, or says all
// that we would.
func (l list) merge(dst []byte, theirs, units lines, ours []admit.LimitState) (merged []byte, ok bool) {
	if !l.valid(theirs) {
		return dst, false
	}
	if !policies.valid(units) {
		units = lines{}
	}
	start := len(dst)
	var met, told uint64 // ours that the backend has a member for, and those that took its place
	for at := range theirs.at {
		for rest := theirs.value(at); len(rest) > 0; {
			var m member
			m, rest, _ = l.next(rest)
			i := l.match(&m, units, ours)
			if i >= 0 {
				met |= 1 << i
			}
			switch {
			case i < 0 || l.asStrict(&m, &ours[i]):
				dst = append(comma(dst, start), m.raw...)
			case told>>i&1 == 0:
				told |= 1 << i
				dst = l.appendMember(comma(dst, start), &ours[i])
			}
		}
	}
	changed := told != 0
	for i := range ours {
		if met>>i&1 == 0 { // also of those beyond 64, which were held against none
			changed = true
			dst = l.appendMember(comma(dst, start), &ours[i])
		}
	}
	return dst, changed
}

// valid says whether the lines are what the draft says: members by name, in a number that we read.
func (l list) valid(field lines) bool {
	members := 0
	for at := range field.at {
		for rest, more := field.value(at), true; more; more = len(rest) > 0 {
			var ok bool
			if _, rest, ok = l.next(rest); !ok {
				return false
			}
			if members++; members > maxMembers {
				return false
			}
		}
	}
	return members > 0
}

// match returns which of ours a member is about, or -1. A quota is the same when it has the same name, counts the same and,
// like ours, is not told to be one of several partitions.
func (l list) match(m *member, units lines, ours []admit.LimitState) int {
	if m.partition {
		return -1
	}
	for i := range ours[:min(len(ours), maxMembers)] {
		if string(m.name) == ours[i].Name && counts(m, units, ours[i].QuotaUnit()) {
			return i
		}
	}
	return -1
}

// counts says whether a member's quota is in that unit: by what it says itself, or by the member of its name in
// RateLimit-Policy.
func counts(m *member, units lines, unit string) bool {
	for at := range units.at {
		for rest := units.value(at); len(rest) > 0; {
			var p member
			if p, rest, _ = policies.next(rest); bytes.Equal(p.name, m.name) {
				return p.isIn(unit)
			}
		}
	}
	return m.isIn(unit)
}

// isIn compares units; what says none counts requests.
func (m *member) isIn(unit string) bool {
	return m.unit == nil && unit == admit.UnitRequests || string(m.unit) == unit
}

// asStrict says whether the backend's member keeps a client back at least as much as ours. A member without a window is for
// good.
func (l list) asStrict(m *member, s *admit.LimitState) bool {
	if l == limits {
		r, t := s.Left()
		switch {
		case m.amount != r:
			return m.amount < r
		case !m.windowed || s.Concurrent:
			return !m.windowed
		}
		return m.window >= t
	}
	q, w := s.Quota()
	switch {
	case m.windowed && w == 0:
		return false
	case !m.windowed && w != 0:
		return true
	case !m.windowed:
		return m.amount <= q
	}
	// The lower rate, and of equal ones the smaller portions.
	hi, lo := bits.Mul64(uint64(m.amount), uint64(w))
	ourHi, ourLo := bits.Mul64(uint64(q), uint64(m.window))
	if hi == ourHi && lo == ourLo {
		return m.amount <= q
	}
	return hi < ourHi || hi == ourHi && lo < ourLo
}

func (l list) appendMember(dst []byte, s *admit.LimitState) []byte {
	if l == policies {
		return s.AppendPolicy(dst)
	}
	return s.AppendLimit(dst)
}

// comma separates what is appended from what was appended since start.
func comma(dst []byte, start int) []byte {
	if len(dst) == start {
		return dst
	}
	return append(dst, ", "...)
}
