package breaker

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const (
	second = int64(time.Second)
	minute = int64(time.Minute)
)

// usual are the defaults of the policy.
func usual() Settings {
	return Settings{
		QPS:      QPS{Sample: 5 * time.Second, Baseline: 5 * time.Minute, Deviation: 0.35, Periods: 3, Recover: 3, MinRate: 20},
		Failures: Failures{Window: 10 * time.Second, Ratio: 0.1, SlowRatio: 0.5, MinRequests: 20},
		Open:     Opening{For: 5 * time.Second, MaxFor: time.Minute, Probes: 3, Ramp: 10 * time.Second},
	}
}

// valid returns the usual settings, changed.
func valid(t testing.TB, change func(s *Settings)) *Settings {
	t.Helper()
	s := usual()
	if change != nil {
		change(&s)
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return &s
}

// clock writes a time of a test as minutes and seconds.
func clock(now int64) string {
	return fmt.Sprintf("%d:%02d", now/minute, now%minute/second)
}

// said writes a transition in short.
func said(t Transition) string {
	return fmt.Sprintf("%s %v → %v: %v", clock(t.At), t.From, t.To, t.Cause)
}

// heard collects transitions, and sees that each begins where the last one ended.
type heard struct {
	level Level
	said  []string
}

func (h *heard) hear(t testing.TB, tr Transition, changed bool) {
	t.Helper()
	if !changed {
		if tr != (Transition{}) {
			t.Fatalf("no transition, and yet %+v", tr)
		}
		return
	}
	if tr.From != h.level || tr.From == tr.To || tr.Cause == NoCause {
		t.Fatalf("%+v after level %v", tr, h.level)
	}
	h.level = tr.To
	h.said = append(h.said, said(tr))
}

func (h *heard) want(t testing.TB, want ...string) {
	t.Helper()
	if got := strings.Join(h.said, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("transitions:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

// poisson draws how many of events with a mean happen.
func poisson(random *rand.Rand, mean float64) int64 {
	if mean > 50 {
		return max(int64(math.Round(mean+random.NormFloat64()*math.Sqrt(mean))), 0)
	}
	n, product := int64(-1), 1.0
	for limit := math.Exp(-mean); product > limit; n++ {
		product *= random.Float64()
	}
	return max(n, 0)
}

func near(got, want, within float64) bool { return math.Abs(got-want) <= within }
