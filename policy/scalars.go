package policy

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, never negative, written as Go and GEP-2257 do: 250ms, 5m, 1h30m. 0 needs no unit.
type Duration time.Duration

// Percent is a part of a hundred, from 0 to 100, written with its sign: 35%, 0.5%.
type Percent float64

// Size is a number of bytes, never negative, written plainly or with a binary unit: 512, 512B, 64KiB, 10MiB, 1GiB, 1TiB.
type Size int64

// Tokens is how much a bucket holds, never negative: a whole number, or a Size where the tokens are bytes.
type Tokens int64

// CIDR is a network, written as its first address and the length of its prefix: 10.0.0.0/8, 2001:db8::/32.
type CIDR netip.Prefix

// refusal is why a text is not a legal value, with what was probably meant, if that can be told.
type refusal struct {
	message string
	meant   string
}

func (r *refusal) Error() string {
	if r.meant == "" {
		return r.message
	}
	return r.message + "; " + didYouMean(r.meant)
}

// refuse makes a refusal. The message quotes the offending value and says what is legal.
func refuse(meant, format string, args ...any) error {
	return &refusal{message: fmt.Sprintf(format, args...), meant: meant}
}

// ParseDuration reads a Duration.
func ParseDuration(s string) (Duration, error) {
	const legal = "a duration is a number with a unit (ns, us, ms, s, m, h), as in 250ms or 1h30m"
	if isDecimal(s) {
		if strings.Trim(s, "0.") == "" {
			return 0, nil
		}
		meant := s + "s"
		if _, err := time.ParseDuration(meant); err != nil {
			meant = ""
		}
		return 0, refuse(meant, "%s has no unit; %s", quote(s), legal)
	}
	if strings.HasPrefix(s, "-") {
		return 0, refuse("", "%s is negative; a duration is 0 or more", quote(s))
	}
	d, err := time.ParseDuration(s)
	if err == nil && s[0] != '+' {
		return Duration(d), nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return 0, refuse(strconv.FormatUint(24*n, 10)+"h", "%s is not a duration; %s", quote(s), legal)
		}
	}
	meant := strings.ToLower(strings.ReplaceAll(s, " ", ""))
	if _, err := time.ParseDuration(meant); err == nil && hasDurationShape(meant) {
		return 0, refuse(meant, "%s is not a duration; %s", quote(s), legal)
	}
	if hasDurationShape(s) {
		return 0, refuse("", "%s is longer than 290 years; %s", quote(s), legal)
	}
	return 0, refuse("", "%s is not a duration; %s", quote(s), legal)
}

// hasDurationShape reports whether s is numbers with units, whatever its length.
func hasDurationShape(s string) bool {
	for more := true; more; more = s != "" {
		rest := strings.TrimLeft(s, "0123456789.")
		number := s[:len(s)-len(rest)]
		end := strings.IndexAny(rest, "0123456789.")
		if end < 0 {
			end = len(rest)
		}
		if !isDecimal(strings.TrimSuffix(number, ".")) || !slices.Contains([]string{"ns", "us", "µs", "ms", "s", "m", "h"}, rest[:end]) {
			return false
		}
		s = rest[end:]
	}
	return true
}

// String is the shortest way to write d: 5m rather than 5m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// ParsePercent reads a Percent.
func ParsePercent(s string) (Percent, error) {
	const legal = "a percentage is a number from 0 to 100 with its sign, as in 35%"
	number, signed := strings.CutSuffix(s, "%")
	if !isDecimal(number) {
		meant := ""
		if n := strings.TrimSpace(number); isDecimal(n) && percentOK(n) {
			meant = n + "%"
		}
		return 0, refuse(meant, "%s is not a percentage; %s", quote(s), legal)
	}
	p, _ := strconv.ParseFloat(number, 64)
	switch {
	case !percentOK(number):
		return 0, refuse("", "%s is out of range; %s", quote(s), legal)
	case !signed && p > 0 && p < 1:
		return 0, refuse(Percent(math.Round(p*1e8)/1e6).String(), "%s has no percent sign; %s", quote(s), legal)
	case !signed:
		return 0, refuse(s+"%", "%s has no percent sign; %s", quote(s), legal)
	}
	return Percent(p), nil
}

// percentOK reports whether a decimal is at most 100.
func percentOK(decimal string) bool {
	p, err := strconv.ParseFloat(decimal, 64)
	return err == nil && p <= 100
}

// String writes p with its sign.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// MarshalText is String.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// sizeUnits are the legal units, the greatest first.
const sizeUnits = "TiB GiB MiB KiB B"

// ParseSize reads a Size.
func ParseSize(s string) (Size, error) {
	const legal = "a size is a whole number of bytes, or one with B, KiB, MiB, GiB or TiB, as in 64KiB"
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.TrimSpace(s[len(digits):])
	if strings.HasPrefix(s, "-") {
		return 0, refuse("", "%s is negative; a size is 0 or more", quote(s))
	}
	if !isDigits(digits) {
		return 0, refuse("", "%s is not a size; %s", quote(s), legal)
	}
	binary := binaryUnit(unit)
	if binary == "" {
		return 0, refuse("", "%s has an unknown unit; %s", quote(s), legal)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	shift := unitShift(binary)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, refuse("", "%s is too large; a size is at most 8388607TiB", quote(s))
	}
	if unit != "" && (unit != binary || digits+unit != s) {
		return 0, refuse(digits+binary, "%s is not a size; %s", quote(s), legal)
	}
	return Size(n << shift), nil
}

// binaryUnit is the legal unit that was written or meant: KiB for KiB, but also for k, K, Ki, kb and KB. It is "" for none.
func binaryUnit(unit string) string {
	lower := strings.ToLower(unit)
	if lower == "" {
		return "B"
	}
	for legal := range strings.FieldsSeq(sizeUnits) {
		l := strings.ToLower(legal)
		if lower == l || lower == l[:1] || len(l) == 3 && (lower == l[:2] || lower == l[:1]+"b") {
			return legal
		}
	}
	return ""
}

// unitShift is the power of two of a legal unit.
func unitShift(unit string) int {
	return 10 * strings.Index("BKMGT", unit[:1])
}

// String writes s with the greatest unit of which it is a multiple.
func (s Size) String() string {
	for unit := range strings.FieldsSeq(sizeUnits) {
		if shift := unitShift(unit); s != 0 && s&(1<<shift-1) == 0 {
			return strconv.FormatInt(int64(s>>shift), 10) + unit
		}
	}
	return "0"
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseTokens reads Tokens.
func ParseTokens(s string) (Tokens, error) {
	if isDigits(s) {
		n, err := strconv.ParseInt(s, 10, 64)
		return Tokens(n), err
	}
	n, err := ParseSize(s)
	return Tokens(n), err
}

// hasUnit reports whether s is meant as a Size with its unit.
func hasUnit(s string) bool {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	return isDecimal(digits) && digits != s && binaryUnit(strings.TrimSpace(s[len(digits):])) != ""
}

// ParseCIDR reads a CIDR.
func ParseCIDR(s string) (CIDR, error) {
	const legal = "a network is an address and a prefix length, as in 10.0.0.0/8 or 2001:db8::/32"
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return CIDR{}, refuse(netip.PrefixFrom(a, a.BitLen()).String(), "%s has no prefix length; %s", quote(s), legal)
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return CIDR{}, refuse("", "%s is not a network; %s", quote(s), legal)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return CIDR{}, refuse("", "%s mixes IPv4 and IPv6; %s", quote(s), legal)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked()
		return CIDR{}, refuse(p.String(), "%s is an IPv4 network written as IPv6; %s", quote(s), legal)
	}
	if p != p.Masked() {
		return CIDR{}, refuse(p.Masked().String(), "%s has bits set after its prefix; %s", quote(s), legal)
	}
	return CIDR(p), nil
}

// Prefix is c as the standard library has it.
func (c CIDR) Prefix() netip.Prefix { return netip.Prefix(c) }

// String writes c as it is read.
func (c CIDR) String() string { return c.Prefix().String() }

// MarshalText is String.
func (c CIDR) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// isDecimal reports whether s is digits with at most one point among them.
func isDecimal(s string) bool {
	whole, fraction, pointed := strings.Cut(s, ".")
	return isDigits(whole) && (!pointed || isDigits(fraction))
}

// isDigits reports whether s is one or more decimal digits.
func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
