package admit

import (
	"strings"
	"testing"
	"time"
)

func TestCost(t *testing.T) {
	f := func(cost string, want int64, headers ...string) {
		t.Helper()
		r := newRig(t, `
			Route r {backend: main, cost: `+cost+`}
			TenantPolicy p {tenants: {names: [acme]}}`)
		req := requestOf("acme", "/")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			req.Header = append(req.Header.(fieldList), [2]string{name, value})
		}
		m := r.table.Match(r.now, req)
		reason := Passed
		if want == noCost {
			reason = BadRequest
		}
		if m.Cost != want || m.Reason != reason || (m.Backend >= 0) != (reason == Passed) {
			t.Errorf("%s, %q: got cost %d, %v, backend %d; want %d, %v", cost, headers, m.Cost, m.Reason, m.Backend, want, reason)
		}
	}

	// Fixed.
	f("{request: 5}", 5)
	f("{request: 0}", 0)
	f("{request: 1000000000}", 1e9)
	// A header that nobody asked for.
	f("{request: 5}", 5, "X-Cost: 7", "X-Cost: 8")
	// From a header, beside the fixed one.
	f("{header: X-Cost}", 1)
	f("{header: X-Cost}", 8, "X-Cost: 7")
	f("{header: X-Cost}", 8, "x-cOST: 7")
	f("{request: 3, header: X-Cost}", 10, "X-Cost: 7")
	f("{request: 0, header: X-Cost}", 0, "X-Cost: 0")
	f("{request: 0, header: X-Cost}", 7, "X-Cost: 0007")
	// As much as both can say.
	f("{request: 1000000000, header: X-Cost}", 2e9, "X-Cost: 1000000000")
	// No number, less than nothing, too much, said twice: none of them is taken for a cost.
	for _, value := range []string{"", "x", "1.5", "-1", "+1", "1e3", "0x10", "1_000", "1,000", "1 000", "\xb2", "7;q=1",
		"1000000001", "18446744073709551617", strings.Repeat("9", 100)} {
		f("{header: X-Cost}", noCost, "X-Cost: "+value)
	}
	f("{header: X-Cost}", noCost, "X-Cost: 1", "x-cost: 1")
	// A request of nobody, or of no route, is that in the first place.
	r := newRig(t, `
		Route r {backend: main, match: [{path: /a}], cost: {header: X-Cost}}
		TenantPolicy p {tenants: {names: [acme]}}`)
	if v := r.spend("globex", "x"); v.Reason != UnknownTenant {
		t.Errorf("unexpected verdict for a stranger: %v", v.Reason)
	}
	if v := r.spend("acme", "x"); v.Reason != NoRoute {
		t.Errorf("unexpected verdict without a route: %v", v.Reason)
	}
}

func FuzzParseCost(f *testing.F) {
	for _, seed := range []string{"", "0", "7", "1000000000", "1000000001", "00012", "-1", "1.5", "99999999999999999999"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cost := parseCost(text)
		digits := len(text) > 0 && strings.Trim(string(text), "0123456789") == ""
		if cost < noCost || cost > mostCost || cost != noCost && !digits {
			t.Fatalf("%q costs %d", text, cost)
		}
		if significant := strings.TrimLeft(string(text), "0"); digits && len(significant) <= 9 && cost == noCost {
			t.Fatalf("%q costs nothing that can be read", text)
		}
	})
}

// What a request costs is what it spends, on every limit alike, and what it gets back.
func TestDecideCost(t *testing.T) {
	r := newRig(t, `
		Route r {backend: main, cost: {request: 2, header: X-Cost}}
		TenantPolicy p {tenants: {names: [acme]}, limits: [{name: wide, requests: 100, per: 1h}, {name: narrow, requests: 20, per: 10s}, {name: dark, requests: 15, per: 1h, mode: Shadow}]}
		TenantPolicy q {tenants: {names: [globex]}, limits: [{name: none, requests: 0}]}`)
	left := func(wide, narrow, dark int64) {
		t.Helper()
		r.wantAvailable("acme", "wide", wide)
		r.wantAvailable("acme", "narrow", narrow)
		r.wantAvailable("acme", "dark", dark)
	}
	r.spend("acme", "")
	left(98, 18, 13)
	r.spend("acme", "8")
	left(88, 8, 3)
	// Refused: the wait is for all that it costs, and everything comes back.
	if v := r.spend("acme", "8"); v.Reason != Limited || v.Limit.Name() != "narrow" || v.RetryAfter != time.Second {
		t.Errorf("unexpected verdict: got %+v, want limited by narrow for 1s", v)
	}
	left(88, 8, 3)
	// Shadow spends for itself, and counts what it would have refused.
	r.spend("acme", "6")
	left(80, 0, 3)
	if got := r.table.named["acme"].own.decisions[2].shadowDeny.Load(); got != 1 {
		t.Errorf("unexpected count in shadow: got %d, want 1", got)
	}
	// More than a bucket ever holds: no wait helps.
	if v := r.spend("acme", "19"); v.Reason != TooCostly || v.Limit.Name() != "narrow" || v.RetryAfter != 0 {
		t.Errorf("unexpected verdict: got %+v, want too_costly by narrow", v)
	}
	// What is no cost spends nothing.
	if v := r.spend("acme", "x"); v.Reason != BadRequest {
		t.Errorf("unexpected verdict: got %v, want bad_request", v.Reason)
	}
	left(80, 0, 3)
	if n := r.table.named["acme"].seat.gate.InFlight(); n != 0 {
		t.Errorf("unexpected requests in flight: got %d, want 0", n)
	}
	// Nothing to pay is no way around a block, nor an empty bucket one for it.
	r.swap(`
		Route r {backend: main, cost: {request: 0}}
		TenantPolicy p {tenants: {names: [acme]}, limits: [{name: wide, requests: 100, per: 1h}, {name: narrow, requests: 20, per: 10s}]}
		TenantPolicy q {tenants: {names: [globex]}, limits: [{name: none, requests: 0}]}`)
	r.wantPasses("acme", 100, 100)
	r.want("globex", "/", Blocked, "q/none")
}
