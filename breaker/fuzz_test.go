package breaker

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBreakerHolds(t *testing.T) { rapid.Check(t, holds) }

func FuzzBreaker(f *testing.F) { f.Fuzz(rapid.MakeFuzz(holds)) }

// holds does anything to a breaker, in any order, and checks what always holds.
func holds(t *rapid.T) {
	all := []*Settings{
		{},
		{QPS: QPS{Sample: time.Second, Baseline: 5 * time.Second, Deviation: 0.5, Periods: 1, Recover: 1, Direction: Both}},
		{
			Failures: Failures{Window: time.Second, Ratio: 0.5, SlowRatio: 0.5, MinRequests: 2, Consecutive: 3},
			Open:     Opening{For: time.Second, MaxFor: 5 * time.Second, Probes: 2, Ramp: time.Second},
		},
	}
	s := usual()
	all = append(all, &s)
	settings := rapid.SampledFrom(all).Draw(t, "settings")
	now := rapid.SampledFrom([]int64{0, second, math.MinInt64, math.MaxInt64}).Draw(t, "start")
	b := New(now, settings)
	h := heard{}
	hear := func(tr Transition, changed bool) {
		t.Helper()
		if !changed {
			return
		}
		if tr.From != h.level || tr.To == tr.From || tr.Cause == NoCause {
			t.Fatalf("%+v after level %v", tr, h.level)
		}
		if wait := tr.Until - tr.At; tr.To == Open && (wait <= 0 || wait > int64(settings.Open.MaxFor)) {
			t.Fatalf("%+v: open for %v, want at most %v", tr, time.Duration(wait), settings.Open.MaxFor)
		}
		h.level = tr.To
	}
	type round struct {
		generation uint64
		round      int
	}
	probes := make(map[round]int64) // those that are out or have reported
	at := func(v *view) round { return round{v.generation, v.round} }
	var out []Pass
	t.Repeat(map[string]func(*rapid.T){
		"wait": func(t *rapid.T) {
			now += rapid.Int64Range(-second, 10*second).Draw(t, "pause")
		},
		"leap": func(t *rapid.T) { now = rapid.Int64().Draw(t, "now") },
		"offer": func(t *rapid.T) {
			for range rapid.IntRange(0, 100).Draw(t, "requests") {
				b.Offer(rapid.Uint32().Draw(t, "stripe"), true)
			}
		},
		"admit": func(t *rapid.T) {
			p := b.Admit(now, rapid.Uint32().Draw(t, "random"), rapid.Bool().Draw(t, "core"))
			if p.RetryAfter < 0 || p.OK() && p.RetryAfter != 0 {
				t.Fatalf("%+v", p)
			}
			switch {
			case p.OK() && h.level == Open, p.Answer == Probe && h.level != HalfOpen, p.Answer == Admitted && h.level == HalfOpen:
				t.Fatalf("%+v at level %v", p, h.level)
			case !p.OK() && h.level == Normal && b.Status(now).Share == 1:
				t.Fatalf("%+v at level %v with a share of 1: %+v", p, h.level, p.view.terms)
			}
			if p.OK() {
				out = append(out, p)
			}
			if p.Answer == Probe {
				r := at(p.view)
				if probes[r]++; probes[r] > settings.Open.Probes {
					t.Fatalf("%d probes are out, want at most %d", probes[r], settings.Open.Probes)
				}
			}
		},
		"record": func(t *rapid.T) {
			if len(out) == 0 {
				return
			}
			i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
			o := Outcome(rapid.IntRange(0, 3).Draw(t, "outcome"))
			if p := out[i]; o == Ignored && p.Answer == Probe {
				probes[at(p.view)]--
			}
			b.Record(out[i], rapid.Uint32().Draw(t, "stripe"), o, rapid.Bool().Draw(t, "slow"))
			out = append(out[:i], out[i+1:]...)
		},
		"tick": func(t *rapid.T) { hear(b.Tick(now, rapid.Float64().Draw(t, "jitter"))) },
		"collect": func(t *rapid.T) {
			if c := b.Collect(); c.Requests < 0 || c.Failures > c.Requests || c.Slow > c.Requests || c.Passed > c.Offered || c.Streak > c.Failures && c.Streak > 3 {
				t.Fatalf("%+v", c)
			}
		},
		"set": func(t *rapid.T) {
			// Fewer probes than are out already are not what this is about.
			if next := rapid.SampledFrom(all).Draw(t, "settings"); next.Open.Probes >= settings.Open.Probes || h.level < HalfOpen {
				settings = next
				hear(b.Set(now, settings))
			}
		},
		"restore": func(t *rapid.T) { hear(b.Restore(now, b.State(now))) },
		"": func(t *rapid.T) {
			s := b.Status(now)
			if s.Level != h.level || s.Share < 0 || s.Share > 1 {
				t.Fatalf("%+v after level %v", s, h.level)
			}
			for _, n := range []float64{s.Numbers.Rate, s.Numbers.Offered, s.Numbers.Baseline, s.Numbers.Low, s.Numbers.High} {
				if !(n >= 0 && n < math.MaxInt64) {
					t.Fatalf("%+v", s.Numbers)
				}
			}
		},
	})
}
