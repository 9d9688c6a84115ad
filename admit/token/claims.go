package token

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4/json" // refuses a claim that is there twice, and compares names by case

	"weir/policy"
)

const (
	// lastSecond is the end of the year 9999: a later time is none that anybody means.
	lastSecond = 253402300799
	// longest is how long a token is remembered at most. It is far from where the clock of now would overflow.
	longest = time.Duration(1) << 61
)

// claims are the members of a payload.
type claims map[string]json.RawMessage

// judge returns the tenant that a payload names and how long it is valid from the wall time now on, leeway included.
func judge(payload []byte, s *policy.JWTIdentity, now time.Time) (tenant string, left time.Duration, fault Fault) {
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil || c == nil {
		return "", 0, Claims
	}
	if left, fault = c.times(now, time.Duration(s.Leeway)); fault != None {
		return "", 0, fault
	}
	if issuer, ok := c.text("iss"); s.Issuer != "" && (!ok || issuer != s.Issuer) {
		return "", 0, Issuer
	}
	if s.Audience != "" && !c.isFor(s.Audience) {
		return "", 0, Audience
	}
	if tenant, ok := c.text(s.Claim); ok && policy.ValidTenant(tenant) {
		return tenant, left, None
	}
	return "", 0, Tenant
}

// times checks the claims of RFC 7519, sections 4.1.4 to 4.1.6.
func (c claims) times(now time.Time, leeway time.Duration) (left time.Duration, fault Fault) {
	clock, slack := float64(now.UnixNano())/1e9, leeway.Seconds()
	expires, ok := c.second("exp", math.NaN())
	if !ok || math.IsNaN(expires) {
		return 0, Claims
	}
	begins, ok := c.second("nbf", 0)
	issued, alsoOK := c.second("iat", 0)
	switch {
	case !ok || !alsoOK:
		return 0, Claims
	case clock >= expires+slack:
		return 0, Expired
	case clock < begins-slack || clock < issued-slack:
		return 0, NotYet
	}
	return time.Duration(min((expires+slack-clock)*1e9, float64(longest))), None
}

// second returns a NumericDate (RFC 7519, section 2), and what stands for one that is absent. It is not ok when it is no such number.
func (c claims) second(name string, absent float64) (seconds float64, ok bool) {
	text, there := c[name]
	if !there {
		return absent, true
	}
	// JSON knows no number such as NaN or 0x1, and strings are in quotes.
	seconds, err := strconv.ParseFloat(string(text), 64)
	return seconds, err == nil && seconds >= 0 && seconds <= lastSecond
}

// text returns a claim that is a string.
func (c claims) text(name string) (string, bool) {
	text, there := c[name]
	if !there || text[0] != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(text, &s)
	return s, err == nil
}

// isFor says whether the audience, one string or a list of them (RFC 7519, section 4.1.3), has a member.
func (c claims) isFor(member string) bool {
	if one, ok := c.text("aud"); ok {
		return one == member
	}
	var several []string
	return json.Unmarshal(c["aud"], &several) == nil && slices.Contains(several, member)
}
