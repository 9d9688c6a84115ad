package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"weir/admit"
	"weir/breaker"
)

// A change as it is logged: the line's level, its words, and its other fields.
func TestChangesAreToldWithTheirNumbers(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := start(t, compile(t, documents("127.0.0.1:1", document("BreakerPolicy", "orders", "target: {kind: Backend, name: b}",
		"qpsBaseline: {}", "failures: {slowerThan: 2s}"))), Clock{Start: time.Unix(1e9, 0), Now: func() int64 { return 0 }}, nil)
	s.logger = zerolog.New(&out)
	f := func(change breaker.Transition, level, message string, fields ...any) {
		t.Helper()
		out.Reset()
		s.announce(admit.BreakerChange{Breaker: "orders", Target: "Backend b", Transition: change})
		want := map[string]any{
			"level": level, "message": "breaker orders: " + message, "breaker": "orders", "target": "Backend b",
			"from": change.From.String(), "to": change.To.String(), "cause": change.Cause.String(),
		}
		for i := 0; i < len(fields); i += 2 {
			want[fmt.Sprint(fields[i])] = fields[i+1]
		}
		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	rate := breaker.Numbers{Offered: 400.5, Rate: 310, Baseline: 200, High: 270}
	rates := []any{"qps", 400.5, "qps_passed", 310.0, "qps_baseline", 200.0, "low", 0.0, "high", 270.0}
	calls := breaker.Numbers{Requests: 80, Failures: 12, Slow: 41, Streak: 7}
	called := []any{"requests", 80.0, "failures", 12.0, "slow", 41.0, "streak", 7.0}
	until := append([]any{"until", time.Unix(1e9+8, 0).Format(time.RFC3339)}, called...)

	f(breaker.Transition{From: breaker.Normal, To: breaker.Degraded, Cause: breaker.Rise, Numbers: rate}, "warn",
		"Normal → Degraded: 310/s against a baseline of 200/s (at most 270/s) for 3 samples; NonCore routes are shed", rates...)
	f(breaker.Transition{From: breaker.Normal, To: breaker.Degraded, Cause: breaker.Fall, Numbers: breaker.Numbers{Rate: 0.25, Baseline: 8.04, Low: 5}}, "warn",
		"Normal → Degraded: 0.2/s against a baseline of 8.0/s (at least 5/s) for 3 samples; NonCore routes are shed",
		"qps", 0.0, "qps_passed", 0.25, "qps_baseline", 8.04, "low", 5.0, "high", 0.0)
	f(breaker.Transition{From: breaker.Degraded, To: breaker.Normal, Cause: breaker.Back, Numbers: rate}, "info",
		"Degraded → Normal: 310/s against a baseline of 200/s for 3 samples; NonCore routes pass again", rates...)
	f(breaker.Transition{From: breaker.Degraded, To: breaker.Normal, Cause: breaker.Gap}, "info",
		"Degraded → Normal: no sample for longer than the baseline reaches, so that it begins anew; NonCore routes pass again")
	f(breaker.Transition{From: breaker.Degraded, To: breaker.Open, Cause: breaker.TooManyFail, At: 3e9, Until: 8e9, Numbers: calls}, "warn",
		"Degraded → Open: 12 of 80 calls failed within 10s, and 10% are too many; nothing is let through for 5s", until...)
	f(breaker.Transition{From: breaker.Normal, To: breaker.Open, Cause: breaker.TooManySlow, At: 3e9, Until: 8e9, Numbers: calls}, "warn",
		"Normal → Open: 41 of 80 calls within 10s took longer than 2s, and 50% are too many; nothing is let through for 5s", until...)
	f(breaker.Transition{From: breaker.Normal, To: breaker.Open, Cause: breaker.Consecutive, At: 3e9, Until: 8e9, Numbers: calls}, "warn",
		"Normal → Open: 7 calls in a row got no answer; nothing is let through for 5s", until...)
	f(breaker.Transition{From: breaker.Open, To: breaker.HalfOpen, Cause: breaker.Waited, Until: 8e9}, "info",
		"Open → HalfOpen: it was open for as long as it had to be; 3 requests may try", "until", time.Unix(1e9+8, 0).Format(time.RFC3339))
	f(breaker.Transition{From: breaker.HalfOpen, To: breaker.Open, Cause: breaker.ProbesFailed, At: 3e9, Until: 8e9, Numbers: breaker.Numbers{Requests: 1, Failures: 1}}, "warn",
		"HalfOpen → Open: of 1 probe 1 failed and 0 were slow; nothing is let through for 5s",
		"requests", 1.0, "failures", 1.0, "slow", 0.0, "streak", 0.0, "until", time.Unix(1e9+8, 0).Format(time.RFC3339))
	f(breaker.Transition{From: breaker.HalfOpen, To: breaker.Normal, Cause: breaker.ProbesPassed, Numbers: breaker.Numbers{Requests: 3}}, "info",
		"HalfOpen → Normal: 3 probes came back, 0 of them failed and 0 were slow; the share that is let through rises to all within 10s",
		"requests", 3.0, "failures", 0.0, "slow", 0.0, "streak", 0.0)
	f(breaker.Transition{From: breaker.Open, To: breaker.Normal, Cause: breaker.Changed}, "info",
		"Open → Normal: its settings have changed; everything is let through again")

	// A tenant's own; the documents may not have it any more.
	out.Reset()
	s.announce(admit.BreakerChange{Breaker: "gone", Target: "Route r", Tenant: "acme", Transition: breaker.Transition{To: breaker.HalfOpen, Cause: breaker.Waited}})
	const want = `{"level":"info","breaker":"gone","target":"Route r","tenant":"acme","from":"normal","to":"half_open","cause":"waited",` +
		`"message":"breaker gone, tenant acme: Normal → HalfOpen: it was open for as long as it had to be"}` + "\n"
	if out.String() != want {
		t.Errorf("got %s, want %s", out.String(), want)
	}
}
