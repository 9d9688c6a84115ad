package ratelimit

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weir/admit"
	"weir/proxy/wire"
)

// steady is a limit of 10 a minute with so many left.
func steady(left int64) admit.LimitState {
	return admit.LimitState{
		Name: "steady", Policy: "gold", Requests: 10, Per: time.Minute, Burst: 10, Available: left,
		Next: 6 * time.Second, Reset: time.Duration(10-left) * 6 * time.Second,
	}
}

// gate is a tenant's gate of 5 with so many places left.
func gate(left int64) admit.LimitState {
	return admit.LimitState{Name: "concurrency", Requests: 5, Available: left, Concurrent: true}
}

// noon is the wall time of the tests: 12:00:00 on 1 January 2030.
const noon = 1893499200

// scan makes the head of an answer.
func scan(t testing.TB, status string, lines ...string) *wire.ResponseHead {
	t.Helper()
	text := "HTTP/1.1 " + status + "\r\n" + strings.Join(append(lines, "", ""), "\r\n")
	h := new(wire.ResponseHead)
	if _, err := wire.ScanResponseHead(h, []byte(text), wire.Asked{}, &wire.Settings{HeaderBytes: 64 << 10, HeaderCount: 500}); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return h
}

// told is what a client gets to read of the fields that matter, in order.
func told(terms *Terms, h *wire.ResponseHead) (lines []string) {
	after := Append(nil, terms, h)
	head := append(h.AppendForward(nil, 0), after...)
	for _, line := range strings.Split(strings.TrimSuffix(string(head), "\r\n"), "\r\n")[1:] {
		name, _, _ := strings.Cut(line, ":")
		if _, known := nameOf([]byte(name)); known {
			lines = append(lines, line)
		}
	}
	return lines
}

// answered compares what a client is told with what is to be told.
func answered(t *testing.T, form, status string, ours []admit.LimitState, said []string, want ...string) {
	t.Helper()
	got := told(&Terms{Form: form, Limits: ours, Unix: noon}, scan(t, status, said...))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s beside %q (-want +got):\n%s", form, said, diff)
	}
}

func TestForms(t *testing.T) {
	both := []admit.LimitState{steady(7), gate(4)}
	f := func(form string, ours []admit.LimitState, want ...string) {
		t.Helper()
		answered(t, form, "200 OK", ours, []string{"Server: x"}, want...)
	}
	standard := []string{
		`RateLimit-Policy: "steady";q=10;w=60, "concurrency";q=5;qu="concurrent-requests"`,
		`RateLimit: "steady";r=7;t=42, "concurrency";r=4`,
	}
	legacy := []string{"X-RateLimit-Limit: 10", "X-RateLimit-Remaining: 7", "X-RateLimit-Reset: 18"}

	f("Off", both)
	f("Standard", both, standard...)
	f("Legacy", both, legacy...)
	f("Both", both, append(standard, legacy...)...)
	// Who has no limits is told of none, and the older fields have no word for a gate.
	f("Both", nil)
	f("Legacy", both[1:])
}

// With Off, and on what is none of ours, an answer is what the backend sent.
func TestUntouched(t *testing.T) {
	said := []string{`RateLimit-Policy: "steady";q=99;w=1`, `RateLimit: "steady";r=99;t=1`, "X-RateLimit-Remaining: 99", "Retry-After: 1"}
	answered(t, "Off", "429 x", []admit.LimitState{steady(0)}, said, said...)
	answered(t, "Both", "429 x", nil, said, said...)
}

func TestStricterLimitWins(t *testing.T) {
	f := func(said, want string, ours ...admit.LimitState) {
		t.Helper()
		got := told(&Terms{Form: "Standard", Limits: ours}, scan(t, "200 OK", "RateLimit: "+said))
		if len(got) != 2 || got[1] != "RateLimit: "+want && got[0] != "RateLimit: "+want {
			t.Errorf("%s: got %q, want %s", said, got, want)
		}
	}

	// Another name: both, theirs first and as sent.
	f(`"theirs";r=5;t=1`, `"theirs";r=5;t=1, "steady";r=7;t=42`, steady(7))
	f(`"b"; x=?1;r=05;t=1,	 "a";r=1;y=-1.5;z=:YQ==:;*=a/b`, `"b"; x=?1;r=05;t=1, "a";r=1;y=-1.5;z=:YQ==:;*=a/b, "steady";r=7;t=42`, steady(7))
	// The same name: the one with less left, with its own time.
	f(`"steady";r=6;t=1`, `"steady";r=6;t=1`, steady(7))
	f(`"steady";r=8;t=100`, `"steady";r=7;t=42`, steady(7))
	f(`"steady";r=8;t=100;note="x"`, `"steady";r=7;t=42`, steady(7))
	// As much left: the longer window; one without an end is the longest.
	f(`"steady";r=7;t=41`, `"steady";r=7;t=42`, steady(7))
	f(`"steady";r=7;t=43`, `"steady";r=7;t=43`, steady(7))
	f(`"steady";r=7;t=42;note`, `"steady";r=7;t=42;note`, steady(7))
	f(`"steady";r=7`, `"steady";r=7`, steady(7))
	// In their place, and once.
	f(`"a";r=1, "steady";r=9, "b";r=2, "steady";r=8`, `"a";r=1, "steady";r=7;t=42, "b";r=2`, steady(7))
	f(`"steady";r=9, "steady";r=1`, `"steady";r=7;t=42, "steady";r=1`, steady(7))
	// Of several parameters of one name the last counts.
	f(`"steady";r=1;r=9`, `"steady";r=7;t=42`, steady(7))
	// One partition of several is not all of it.
	f(`"steady";r=9;pk=:YQ==:`, `"steady";r=9;pk=:YQ==:, "steady";r=7;t=42`, steady(7))
	// A gate has no window.
	f(`"concurrency";r=9;t=1`, `"concurrency";r=9;t=1, "concurrency";r=4`, gate(4)) // which counts requests, as far as is known
}

func TestStricterPolicyWins(t *testing.T) {
	f := func(said, want string, ours ...admit.LimitState) {
		t.Helper()
		got := told(&Terms{Form: "Standard", Limits: ours}, scan(t, "200 OK", "RateLimit-Policy: "+said, `RateLimit: "o";r=1`))
		if !slicesContain(got, "RateLimit-Policy: "+want) {
			t.Errorf("%s: got %q, want %s", said, got, want)
		}
	}

	f(`"day";q=100;w=86400`, `"day";q=100;w=86400, "steady";q=10;w=60`, steady(7))
	// The lower rate.
	f(`"steady";q=9;w=60`, `"steady";q=9;w=60`, steady(7))
	f(`"steady";q=11;w=60`, `"steady";q=10;w=60`, steady(7))
	f(`"steady";q=1;w=1`, `"steady";q=10;w=60`, steady(7))
	f(`"steady";q=100;w=3600`, `"steady";q=100;w=3600`, steady(7))
	// Of equal rates the smaller portions.
	f(`"steady";q=20;w=120`, `"steady";q=10;w=60`, steady(7))
	f(`"steady";q=5;w=30`, `"steady";q=5;w=30`, steady(7))
	// A quota that never comes back is stricter than one that does.
	f(`"steady";q=1000`, `"steady";q=1000`, steady(7))
	// Rates that overflow when they are compared.
	f(`"steady";q=999999999999999;w=999999999999999`, `"steady";q=10;w=60`, steady(7))
	// Another unit is another quota.
	f(`"steady";q=1;w=1;qu="content-bytes"`, `"steady";q=1;w=1;qu="content-bytes", "steady";q=10;w=60`, steady(7))
	f(`"steady";q=11;w=60;qu="requests"`, `"steady";q=10;w=60`, steady(7))
	f(`"concurrency";q=9;qu="concurrent-requests"`, `"concurrency";q=5;qu="concurrent-requests"`, gate(1))
	f(`"concurrency";q=4;qu="concurrent-requests"`, `"concurrency";q=4;qu="concurrent-requests"`, gate(1))
	f(`"concurrency";q=4;w=1;qu="concurrent-requests"`, `"concurrency";q=5;qu="concurrent-requests"`, gate(1))
}

// What a quota counts is told in one field and holds for the other.
func TestUnitsOfLimits(t *testing.T) {
	answered(t, "Standard", "200 OK", []admit.LimitState{steady(7)},
		[]string{`RateLimit-Policy: "steady";q=1;w=1;qu="content-bytes"`, `RateLimit: "steady";r=900;t=1`},
		`RateLimit-Policy: "steady";q=1;w=1;qu="content-bytes", "steady";q=10;w=60`, `RateLimit: "steady";r=900;t=1, "steady";r=7;t=42`)
	answered(t, "Standard", "200 OK", []admit.LimitState{gate(1)},
		[]string{`RateLimit-Policy: "concurrency";q=9;qu="concurrent-requests"`, `RateLimit: "concurrency";r=8`},
		`RateLimit-Policy: "concurrency";q=5;qu="concurrent-requests"`, `RateLimit: "concurrency";r=1`)
}

// Where that field is broken, it tells nothing.
func TestUnitsOfABrokenField(t *testing.T) {
	answered(t, "Standard", "200 OK", []admit.LimitState{steady(7)},
		[]string{`RateLimit-Policy: "steady";q=1;w=1;qu="content-bytes", x`, `RateLimit: "steady";r=900;t=1`},
		`RateLimit-Policy: "steady";q=1;w=1;qu="content-bytes", x`, `RateLimit: "steady";r=7;t=42`)
}

func TestSeveralLines(t *testing.T) {
	// They become one, in order.
	answered(t, "Standard", "200 OK", []admit.LimitState{steady(7)},
		[]string{`ratelimit: "a";r=1`, `RATELIMIT: "steady";r=9, "b";r=2`, `RateLimit-Policy: "steady";q=1;w=60`},
		`RateLimit-Policy: "steady";q=1;w=60`, `RateLimit: "a";r=1, "steady";r=7;t=42, "b";r=2`)
	// What is not passed on is not there.
	answered(t, "Standard", "200 OK", []admit.LimitState{steady(7)}, []string{"Connection: RateLimit", `RateLimit: "a";r=1`},
		`RateLimit-Policy: "steady";q=10;w=60`, `RateLimit: "steady";r=7;t=42`)
}

// What is not as the draft says stays, and nothing of ours is mixed into it.
func TestBrokenFieldsStay(t *testing.T) {
	f := func(said ...string) {
		t.Helper()
		for i := range said {
			said[i] = "RateLimit: " + said[i]
		}
		answered(t, "Standard", "200 OK", []admit.LimitState{steady(0)}, said, append(said, `RateLimit-Policy: "steady";q=10;w=60`)...)
	}

	f("")
	f("10")
	f("limit=10, remaining=5, reset=1")
	f("steady;r=1")                  // a token is no name
	f(`("steady");r=1`)              // nor is a list
	f(`"steady"`)                    // no r
	f(`"steady";t=1`)                //
	f(`"steady";r`)                  // true is no number
	f(`"steady";r=-1`)               // below 0
	f(`"steady";r=1.5`)              // no integer
	f(`"steady";r="1"`)              //
	f(`"steady";r=1;t=x`)            //
	f(`"steady";r=1;r=x`)            // the last counts
	f(`"steady";r=1000000000000000`) // 16 digits
	f(`"steady";r=1;x=1000000000000000`)
	f(`"steady";r=1;x=-`)
	f(`"steady";r=1;pk="x"`)  // a partition key is a byte sequence
	f(`"steady";r=1,`)        // a comma too many
	f(`"steady";r=1 "x";r=2`) // one too few
	f(`"steady;r=1`)          //
	f(`"st\eady";r=1`)        //
	f(`"steady";R=1`)         //
	f(`"steady"; r=1;x=`)     //
	f(`"steady";r=1;x=:a:`)   //
	f(`"steady";r=1;x=1.`)    //
	f(`"a";r=1`, "")          // one line of two
	f(`"a`, `b";r=1`)         // a string over two lines
	f(strings.Repeat(`"a";r=1,`, maxMembers) + `"a";r=1`)
	f(strings.Split(strings.TrimSuffix(strings.Repeat(`"a";r=1|`, maxLines+1), "|"), "|")...)
}

func TestStricterLegacyWins(t *testing.T) {
	f := func(left int64, said []string, want ...string) {
		t.Helper()
		answered(t, "Legacy", "200 OK", []admit.LimitState{gate(0), steady(left)}, said, want...)
	}
	ours := []string{"X-RateLimit-Limit: 10", "X-RateLimit-Remaining: 7", "X-RateLimit-Reset: 18"}
	said := func(values ...string) (lines []string) {
		for i, name := range []string{"x-ratelimit-limit", "X-Ratelimit-Remaining", "X-RATELIMIT-RESET"} {
			if values[i] != "-" {
				lines = append(lines, name+": "+values[i])
			}
		}
		return lines
	}

	f(7, said("100", "8", "60"), ours...)
	f(7, said("100", "7", "60"), said("100", "7", "60")...)
	f(7, said("100", "0", "60"), said("100", "0", "60")...)
	f(7, said("-", "8", "-"), ours...)
	// A backend that names a point in time is read by clients who expect one.
	f(7, said("100", "8", "1893499999"), ours[0], ours[1], "X-RateLimit-Reset: 1893499218")
	f(7, said("100", "8", "1893499999000"), said("100", "8", "1893499999000")...)
	// What cannot be compared stays.
	f(7, said("100", "-", "60"), said("100", "-", "60")...)
	f(7, said("100", "8.5", "60"), said("100", "8.5", "60")...)
	f(7, said("100", "", "60"), "x-ratelimit-limit: 100", "X-Ratelimit-Remaining: ", "X-RATELIMIT-RESET: 60")
	f(7, said("100", "8", "soon"), said("100", "8", "soon")...)
	f(7, said("100, 100;w=60", "8", "60"), said("100, 100;w=60", "8", "60")...)
	f(7, append(said("100", "8", "60"), "X-RateLimit-Remaining: 9"), append(said("100", "8", "60"), "X-RateLimit-Remaining: 9")...)
}

func TestLongerRetryAfterWins(t *testing.T) {
	f := func(status string, left int64, said, want string) {
		t.Helper()
		var lines, wanted []string
		if said != "" {
			lines = append(lines, "Retry-After: "+said)
		}
		if want != "" {
			wanted = append(wanted, "Retry-After: "+want)
		}
		var got []string
		for _, line := range told(&Terms{Form: "Standard", Limits: []admit.LimitState{steady(left), gate(0)}, Unix: noon}, scan(t, status, lines...)) {
			if strings.HasPrefix(line, "Retry-After") {
				got = append(got, line)
			}
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("%s with %q (-want +got):\n%s", status, said, diff)
		}
	}

	// We would refuse for 6 seconds.
	f("429 x", 0, "1", "6")
	f("503 x", 0, "1", "6")
	f("429 x", 0, "", "6")
	f("429 x", 0, "6", "6")
	f("429 x", 0, "7", "7")
	f("429 x", 0, "Tue, 01 Jan 2030 12:00:05 GMT", "6")
	f("429 x", 0, "Tue, 01 Jan 2030 12:00:07 GMT", "Tue, 01 Jan 2030 12:00:07 GMT")
	f("429 x", 0, "Tue, 01 Jan 2019 12:00:07 GMT", "6")
	// What cannot be read stays.
	f("429 x", 0, "soon", "soon")
	f("429 x", 0, "-1", "-1")
	f("429 x", 0, "Tue, 01 Foo 2030 12:00:05 GMT", "Tue, 01 Foo 2030 12:00:05 GMT")
	f("429 x", 0, "Tue, 32 Jan 2030 12:00:05 GMT", "Tue, 32 Jan 2030 12:00:05 GMT")
	f("429 x", 0, "Tue, 01 anF 2030 12:00:05 GMT", "Tue, 01 anF 2030 12:00:05 GMT")
	f("429 x", 0, "Tue, 01 Jan 2030 12:00:05 CET", "Tue, 01 Jan 2030 12:00:05 CET")
	f("429 x", 0, "Tue, 01 Jan 2030 12.00:05 GMT", "Tue, 01 Jan 2030 12.00:05 GMT")
	f("429 x", 0, "Tuesday, 01-Jan-30 12:00:05 GMT", "Tuesday, 01-Jan-30 12:00:05 GMT")
	// We would not refuse, or the answer does not send the client away.
	f("429 x", 1, "1", "1")
	f("429 x", 1, "", "")
	f("200 x", 0, "1", "1")
	f("302 x", 0, "1", "1")
}

func slicesContain(lines []string, want string) bool {
	for _, line := range lines {
		if line == want {
			return true
		}
	}
	return false
}

func TestNoAllocations(t *testing.T) {
	f := func(status string, said ...string) {
		t.Helper()
		head := scan(t, status, said...)
		fields := append([]wire.Field(nil), head.List...)
		terms := &Terms{Form: "Both", Limits: []admit.LimitState{steady(0), gate(3)}, Unix: noon}
		dst := make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(100, func() {
			copy(head.List, fields)
			dst = Append(dst[:0], terms, head)
		}); n != 0 {
			t.Errorf("%q: %v allocations", said, n)
		}
	}

	f("200 OK")
	f("429 x", `RateLimit-Policy: "a";q=10;w=1, "steady";q=99;w=1`, `RateLimit: "a";r=1;t=1, "steady";r=9;t=9`, "X-RateLimit-Limit: 100",
		"X-RateLimit-Remaining: 9", "X-RateLimit-Reset: 1893499999", "Retry-After: Tue, 01 Jan 2030 12:00:05 GMT")
	f("429 x", "RateLimit: garbage", "Retry-After: Tue, 01 Foo 2030 12:00:05 GMT")
}

func BenchmarkAppend(b *testing.B) {
	f := func(name string, said ...string) {
		b.Run(name, func(b *testing.B) {
			head := scan(b, "200 OK", append([]string{"Content-Type: text/plain", "Content-Length: 1024", "Server: x"}, said...)...)
			fields := append([]wire.Field(nil), head.List...)
			terms := &Terms{Form: "Standard", Limits: []admit.LimitState{steady(7), gate(3)}, Unix: noon}
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				copy(head.List, fields)
				dst = Append(dst[:0], terms, head)
			}
		})
	}
	f("alone")
	f("merged", `RateLimit-Policy: "a";q=10;w=1, "steady";q=99;w=1`, `RateLimit: "a";r=1;t=1, "steady";r=9;t=9`)
}
