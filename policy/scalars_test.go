package policy

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	f := func(s string, want time.Duration, canonical string) {
		t.Helper()
		d, err := ParseDuration(s)
		if err != nil || time.Duration(d) != want || d.String() != canonical {
			t.Errorf("%q: got %v, %v, want %v written %s", s, d, err, want, canonical)
		}
	}
	f("250ms", 250*time.Millisecond, "250ms")
	f("5m", 5*time.Minute, "5m")
	f("60s", time.Minute, "1m")
	f("1h30m", 90*time.Minute, "1h30m")
	f("1h0m5s", time.Hour+5*time.Second, "1h0m5s")
	f("744h", 744*time.Hour, "744h")
	f("10s", 10*time.Second, "10s")
	f("1.5s", 1500*time.Millisecond, "1.5s")
	f("7us", 7*time.Microsecond, "7µs")
	// Nothing needs no unit.
	f("0", 0, "0s")
	f("0s", 0, "0s")
	f("0.0", 0, "0s")
}

func TestParseDurationErrors(t *testing.T) {
	const legal = "; a duration is a number with a unit (ns, us, ms, s, m, h), as in 250ms or 1h30m"
	f := func(s, want string) {
		t.Helper()
		if d, err := ParseDuration(s); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, %v\nwant %s", s, d, err, want)
		}
	}
	f("5", `"5" has no unit`+legal+`; did you mean "5s"?`)
	f("0.5", `"0.5" has no unit`+legal+`; did you mean "0.5s"?`)
	f("-5s", `"-5s" is negative; a duration is 0 or more`)
	f("2d", `"2d" is not a duration`+legal+`; did you mean "48h"?`)
	f("5 S", `"5 S" is not a duration`+legal+`; did you mean "5s"?`)
	f("", `"" is not a duration`+legal)
	f("soon", `"soon" is not a duration`+legal)
	f("+5s", `"+5s" is not a duration`+legal)
	f("9999999h", `"9999999h" is longer than 290 years`+legal)
	f("NaNs", `"NaNs" is not a duration`+legal)
}

func TestParsePercent(t *testing.T) {
	f := func(s string, want Percent, canonical string) {
		t.Helper()
		p, err := ParsePercent(s)
		if err != nil || p != want || p.String() != canonical {
			t.Errorf("%q: got %v, %v, want %v", s, p, err, want)
		}
	}
	f("35%", 35, "35%")
	f("0%", 0, "0%")
	f("100%", 100, "100%")
	f("0.5%", 0.5, "0.5%")
	f("05.50%", 5.5, "5.5%")
}

func TestParsePercentErrors(t *testing.T) {
	const legal = "; a percentage is a number from 0 to 100 with its sign, as in 35%"
	f := func(s, want string) {
		t.Helper()
		if p, err := ParsePercent(s); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, %v\nwant %s", s, p, err, want)
		}
	}
	f("35", `"35" has no percent sign`+legal+`; did you mean "35%"?`)
	f("0.35", `"0.35" has no percent sign`+legal+`; did you mean "35%"?`)
	f("35 %", `"35 %" is not a percentage`+legal+`; did you mean "35%"?`)
	f("100.1%", `"100.1%" is out of range`+legal)
	f("-1%", `"-1%" is not a percentage`+legal)
	f("1e1%", `"1e1%" is not a percentage`+legal)
	f("NaN%", `"NaN%" is not a percentage`+legal)
	f("%", `"%" is not a percentage`+legal)
	f("", `"" is not a percentage`+legal)
}

func TestParseSize(t *testing.T) {
	f := func(s string, want Size, canonical string) {
		t.Helper()
		n, err := ParseSize(s)
		if err != nil || n != want || n.String() != canonical {
			t.Errorf("%q: got %v, %v, want %d written %s", s, n, err, want, canonical)
		}
	}
	f("0", 0, "0")
	f("512", 512, "512B")
	f("512B", 512, "512B")
	f("64KiB", 64<<10, "64KiB")
	f("1024", 1<<10, "1KiB")
	f("10MiB", 10<<20, "10MiB")
	f("3GiB", 3<<30, "3GiB")
	f("1024GiB", 1<<40, "1TiB")
	f("8388607TiB", 8388607<<40, "8388607TiB")
	f("9223372036854775807", math.MaxInt64, "9223372036854775807B")
}

func TestParseSizeErrors(t *testing.T) {
	const legal = "; a size is a whole number of bytes, or one with B, KiB, MiB, GiB or TiB, as in 64KiB"
	f := func(s, want string) {
		t.Helper()
		if n, err := ParseSize(s); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, %v\nwant %s", s, n, err, want)
		}
	}
	// Decimal units are not what they seem.
	f("64KB", `"64KB" is not a size`+legal+`; did you mean "64KiB"?`)
	f("10MB", `"10MB" is not a size`+legal+`; did you mean "10MiB"?`)
	f("64k", `"64k" is not a size`+legal+`; did you mean "64KiB"?`)
	f("1Gi", `"1Gi" is not a size`+legal+`; did you mean "1GiB"?`)
	f("64 KiB", `"64 KiB" is not a size`+legal+`; did you mean "64KiB"?`)
	f("5b", `"5b" is not a size`+legal+`; did you mean "5B"?`)
	f("5XiB", `"5XiB" has an unknown unit`+legal)
	f("1.5MiB", `"1.5MiB" is not a size`+legal)
	f("KiB", `"KiB" is not a size`+legal)
	f("", `"" is not a size`+legal)
	f("-5", `"-5" is negative; a size is 0 or more`)
	f("8388608TiB", `"8388608TiB" is too large; a size is at most 8388607TiB`)
	f("9223372036854775808", `"9223372036854775808" is too large; a size is at most 8388607TiB`)
}

func TestParseTokens(t *testing.T) {
	f := func(s string, want Tokens) {
		t.Helper()
		if n, err := ParseTokens(s); err != nil || n != want {
			t.Errorf("%q: got %d, %v, want %d", s, n, err, want)
		}
	}
	f("0", 0)
	f("2000", 2000)
	f("1B", 1)
	f("20MiB", 20<<20)
	for _, s := range []string{"", "-1", "1.5", "20MB", "MiB", "9223372036854775808"} {
		if n, err := ParseTokens(s); err == nil {
			t.Errorf("%q: got %d, want an error", s, n)
		}
	}
}

func TestParseCIDR(t *testing.T) {
	f := func(s string) {
		t.Helper()
		if c, err := ParseCIDR(s); err != nil || c.String() != s || !c.Prefix().IsValid() {
			t.Errorf("%q: got %v, %v", s, c, err)
		}
	}
	f("10.0.0.0/8")
	f("192.0.2.1/32")
	f("0.0.0.0/0")
	f("2001:db8::/32")
	f("::1/128")
}

func TestParseCIDRErrors(t *testing.T) {
	const legal = "; a network is an address and a prefix length, as in 10.0.0.0/8 or 2001:db8::/32"
	f := func(s, want string) {
		t.Helper()
		if c, err := ParseCIDR(s); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, %v\nwant %s", s, c, err, want)
		}
	}
	f("10.0.0.1", `"10.0.0.1" has no prefix length`+legal+`; did you mean "10.0.0.1/32"?`)
	f("::1", `"::1" has no prefix length`+legal+`; did you mean "::1/128"?`)
	f("10.1.2.3/8", `"10.1.2.3/8" has bits set after its prefix`+legal+`; did you mean "10.0.0.0/8"?`)
	f("::ffff:10.0.0.0/104", `"::ffff:10.0.0.0/104" is an IPv4 network written as IPv6`+legal+`; did you mean "10.0.0.0/8"?`)
	f("::ffff:0.0.0.0/90", `"::ffff:0.0.0.0/90" mixes IPv4 and IPv6`+legal)
	f("10.0.0.0/33", `"10.0.0.0/33" is not a network`+legal)
	f("fe80::%eth0/64", `"fe80::%eth0/64" is not a network`+legal)
	f("example.com", `"example.com" is not a network`+legal)
	f("", `"" is not a network`+legal)
}

// What is written is read again as the same value.
func TestScalarsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "duration"))
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Fatalf("duration %s: got %v, %v", d, again, err)
		}
		s := Size(rapid.Int64Range(0, math.MaxInt64).Draw(t, "size"))
		if again, err := ParseSize(s.String()); err != nil || again != s {
			t.Fatalf("size %s: got %v, %v", s, again, err)
		}
		p := Percent(rapid.Float64Range(0, 100).Draw(t, "percent"))
		if again, err := ParsePercent(p.String()); err != nil || again != p {
			t.Fatalf("percent %s: got %v, %v", p, again, err)
		}
	})
}

// Suggestions are legal themselves.
func FuzzScalars(f *testing.F) {
	for _, s := range []string{"5", "1d", "5 s", "64KB", "35", "0.35", "10.0.0.1", "10.1.2.3/8", "::ffff:1.2.3.4/100", "9999999999999999999h", "34333333333333333333m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		check := func(name string, parse func(string) error) {
			err := parse(s)
			if err == nil {
				return
			}
			if r := err.(*refusal); r.meant != "" && parse(r.meant) != nil {
				t.Fatalf("%s: %q is refused with %q, which is refused", name, s, r.meant)
			}
		}
		check("duration", func(s string) error { _, err := ParseDuration(s); return err })
		check("percent", func(s string) error { _, err := ParsePercent(s); return err })
		check("size", func(s string) error { _, err := ParseSize(s); return err })
		check("cidr", func(s string) error { _, err := ParseCIDR(s); return err })
	})
}
