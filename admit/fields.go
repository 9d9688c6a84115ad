package admit

import (
	"math"
	"math/bits"
	"strconv"
	"time"

	"weir/policy"
)

// What a client is told of its limits, as the values of header fields (draft-ietf-httpapi-ratelimit-headers-11, structured
// fields of RFC 9651). All of it is a pure function of a LimitState, so that answers, refusals and `why` say the same. No
// member has a partition key (`pk`): the partition is the tenant, and what a client is called in here is not to be told to
// whatever stands between it and us.

// The quota units that the draft names. Where nothing is said they are requests.
const (
	UnitRequests   = "requests"
	UnitContent    = "content-bytes"
	UnitConcurrent = "concurrent-requests"
)

// SoonRetry is the Retry-After of refusals that may be over at once, and there is no telling: the shortest.
const SoonRetry = "1"

// maxInteger is the largest integer that a structured field holds (RFC 9651 section 3.3.1).
const maxInteger = 999_999_999_999_999

// QuotaUnit returns what the limit counts, in the draft's words.
func (s *LimitState) QuotaUnit() string {
	switch {
	case s.Concurrent:
		return UnitConcurrent
	case s.Unit == policy.UnitBytes:
		return UnitContent
	}
	return UnitRequests
}

// Quota returns the draft's `q` and `w`: a quota that may be spent at once, and the whole seconds in which it comes back. That
// is `requests` and `per` as the document has them, except that a bucket smaller than `requests` is told as what it
// holds, and a window of less than a second as one of a second. Neither exceeds the rate of the limit. w is 0 for a gate,
// which has no window.
func (s *LimitState) Quota() (q, w int64) {
	if s.Concurrent {
		return integer(s.Requests), 0
	}
	if s.Requests <= 0 {
		return 0, seconds(s.Per)
	}
	q = min(s.Requests, s.Burst)
	window := s.refill(q)
	if window < time.Second {
		perSecond, _ := mulDiv(s.Requests, int64(time.Second), int64(s.Per))
		return integer(perSecond), 1
	}
	return integer(q), integer(seconds(window))
}

// Left returns the draft's `r` and `t`: what may be spent now, and the whole seconds in which it should be all that is spent.
// When nothing is left, t ends with the next token, and so never after Retry-After. Else it is the time in which as much comes
// back, so that whoever spends r in each t keeps to the limit for good. t is 0 for a gate, which has no window.
func (s *LimitState) Left() (r, t int64) {
	r = integer(s.Available)
	if s.Concurrent {
		return r, 0
	}
	return r, integer(seconds(max(s.Next, s.refill(s.Available))))
}

// Legacy returns the values of X-RateLimit-Limit, -Remaining and -Reset: what the full bucket holds, what it holds now, and
// the whole seconds until it is full.
func (s *LimitState) Legacy() (limit, remaining, reset int64) {
	return integer(s.Burst), integer(s.Available), integer(seconds(s.Reset))
}

// Tightest returns the limit that a client with requests to send meets first: of those on rates the one with the fewest left,
// of equal ones the one that is full last; nil when there is none.
func Tightest(states []LimitState) *LimitState {
	var least *LimitState
	for i := range states {
		s := &states[i]
		if s.QuotaUnit() != UnitRequests {
			continue
		}
		if least == nil || s.Available < least.Available || s.Available == least.Available && s.Reset > least.Reset {
			least = s
		}
	}
	return least
}

// Refuses says whether the limit would now refuse a request that costs n tokens. What does not count requests refuses none,
// except for the gate, which lets in one at a time.
func (s *LimitState) Refuses(n int64) bool {
	switch s.QuotaUnit() {
	case UnitRequests:
		return s.Available < n
	case UnitConcurrent:
		return s.Available < 1
	}
	return false
}

// NextRequest returns how long a request of one token would have to wait for all of the limits; 0 when it would pass now. A
// limit that blocks is not one to wait for, and for the gate there is no time to wait.
func NextRequest(states []LimitState) time.Duration {
	longest := time.Duration(0)
	for i := range states {
		if states[i].Refuses(1) {
			longest = max(longest, states[i].Next)
		}
	}
	return longest
}

// AppendPolicies appends the value of RateLimit-Policy: `"steady";q=1000;w=1, "concurrency";q=50;qu="concurrent-requests"`.
// It is empty when there are no limits; the field is not to be sent then.
func AppendPolicies(dst []byte, states []LimitState) []byte {
	for i := range states {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = states[i].AppendPolicy(dst)
	}
	return dst
}

// AppendPolicy appends one member of RateLimit-Policy.
func (s *LimitState) AppendPolicy(dst []byte) []byte {
	q, w := s.Quota()
	dst = appendParameter(appendName(dst, s.Name), 'q', q)
	if unit := s.QuotaUnit(); unit != UnitRequests {
		dst = append(append(append(dst, `;qu="`...), unit...), '"')
	}
	if w > 0 {
		dst = appendParameter(dst, 'w', w)
	}
	return dst
}

// AppendLimits appends the value of RateLimit: `"steady";r=0;t=1, "concurrency";r=49`. It is empty when there are no limits;
// the field is not to be sent then.
func AppendLimits(dst []byte, states []LimitState) []byte {
	for i := range states {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = states[i].AppendLimit(dst)
	}
	return dst
}

// AppendLimit appends one member of RateLimit.
func (s *LimitState) AppendLimit(dst []byte) []byte {
	r, t := s.Left()
	dst = appendParameter(appendName(dst, s.Name), 'r', r)
	if !s.Concurrent {
		dst = appendParameter(dst, 't', t)
	}
	return dst
}

// RetryAfter returns the value of Retry-After for a wait: whole seconds, rounded up, with up to 3 % more so that clients that
// were refused together do not come back together. It is at least 1 and never earlier than the truth. jitter is in [0, 1).
func RetryAfter(wait time.Duration, jitter float64) int64 {
	return max(seconds(wait+time.Duration(float64(wait)*0.03*jitter)), 1)
}

// TellRefused calls set with each field that tells a refused client of its limits, in the order in which they are sent: every
// limit that applies, the older fields of the one that refused, and Retry-After where waiting helps. form is the policy's
// `reject.headers`, states are all enforced limits that apply, and jitter is that of [RetryAfter]. What set is given is valid
// during the call. It returns scratch, the memory that it used, to be passed in again; with enough of that it allocates
// nothing.
func (v *Verdict) TellRefused(scratch []byte, form string, states []LimitState, jitter float64, set func(name string, value []byte)) []byte {
	if form == "Off" {
		return scratch
	}
	number := func(name string, n int64) {
		scratch = strconv.AppendInt(scratch[:0], n, 10)
		set(name, scratch)
	}
	if v.Reason == Limited {
		number("Retry-After", RetryAfter(v.RetryAfter, jitter))
	}
	if form != "Legacy" && len(states) > 0 {
		scratch = AppendPolicies(scratch[:0], states)
		set("RateLimit-Policy", scratch)
		scratch = AppendLimits(scratch[:0], states)
		set("RateLimit", scratch)
	}
	if form == "Standard" || v.Limit == nil {
		return scratch
	}
	for i := range states {
		if v.IsOf(&states[i]) {
			limit, remaining, reset := states[i].Legacy()
			number("X-RateLimit-Limit", limit)
			number("X-RateLimit-Remaining", remaining)
			number("X-RateLimit-Reset", reset)
		}
	}
	return scratch
}

// IsOf says whether this is the state of the limit that refused, or of the gate where that did.
func (v *Verdict) IsOf(s *LimitState) bool {
	if v.Limit == nil || s.Concurrent {
		return v.Limit == nil && v.Reason == Concurrency && s.Concurrent
	}
	return s.Name == v.Limit.rule.Name && s.Policy == v.Limit.rule.Policy
}

// AppendViolated appends the names of the limits that would refuse a request of n tokens, that of the verdict in any case, as
// the members of a JSON array (`violated-policies` of RFC 9457 documents). Names are DNS labels and need no escape.
func (v *Verdict) AppendViolated(dst []byte, states []LimitState, n int64) []byte {
	start := len(dst)
	for i := range states {
		s := &states[i]
		if !s.Refuses(n) && !v.IsOf(s) {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = appendName(dst, s.Name)
	}
	return dst
}

// appendName writes a limit's name as a string; names are DNS labels, so nothing needs an escape.
func appendName(dst []byte, name string) []byte {
	return append(append(append(dst, '"'), name...), '"')
}

func appendParameter(dst []byte, key byte, n int64) []byte {
	return strconv.AppendInt(append(dst, ';', key, '='), n, 10)
}

// refill returns how long n tokens take to come, rounded up.
func (s *LimitState) refill(n int64) time.Duration {
	if s.Requests <= 0 || n <= 0 {
		return 0
	}
	whole, rest := mulDiv(n, int64(s.Per), s.Requests)
	if rest > 0 {
		whole++
	}
	return time.Duration(whole)
}

// mulDiv returns a × b ÷ c and the rest of it; where that is more than an int64 holds, the most it holds. None of them is
// negative, and c is not 0.
func mulDiv(a, b, c int64) (quotient, rest int64) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return math.MaxInt64, 0
	}
	q, r := bits.Div64(hi, lo, uint64(c))
	if q >= math.MaxInt64 {
		return math.MaxInt64, 0
	}
	return int64(q), int64(r)
}

// integer cuts a number to what a structured field holds, and to what counts as some.
func integer(n int64) int64 { return min(max(n, 0), maxInteger) }

// seconds rounds up.
func seconds(d time.Duration) int64 {
	whole := int64(d / time.Second)
	if d%time.Second > 0 {
		whole++
	}
	return whole
}
