package proxy

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"weir/admit"
	"weir/breaker"
	"weir/policy"
)

// changeText says in a line what changed, the numbers that it stands on, and what follows from it. s are the settings in force; nil
// where the breaker is no longer in them.
func changeText(c *admit.BreakerChange, s *policy.Breaker) string {
	who := c.Breaker
	if c.Tenant != "" {
		who += ", tenant " + c.Tenant
	}
	text := fmt.Sprintf("breaker %s: %s → %s", who, levelName(c.From), levelName(c.To))
	if why := becauseOf(c, s); why != "" {
		text += ": " + why
	}
	if so := consequence(c, s); so != "" {
		text += "; " + so
	}
	return text
}

// levelName is a level as people write it, and as policy tests do.
func levelName(l breaker.Level) string {
	return [...]string{breaker.Normal: "Normal", breaker.Degraded: "Degraded", breaker.HalfOpen: "HalfOpen", breaker.Open: "Open"}[l]
}

// becauseOf is what a change stands on.
func becauseOf(c *admit.BreakerChange, s *policy.Breaker) string {
	n := &c.Numbers
	var rate policy.BaselineSettings
	var calls policy.FailureSettings
	if s != nil && s.Baseline != nil {
		rate = *s.Baseline
	}
	if s != nil && s.Failures != nil {
		calls = *s.Failures
	}
	switch c.Cause {
	case breaker.Rise:
		return fmt.Sprintf("%s/s against a baseline of %s/s (at most %s/s) for %s", rateText(n.Rate), rateText(n.Baseline), rateText(n.High), count(rate.Periods, "sample"))
	case breaker.Fall:
		return fmt.Sprintf("%s/s against a baseline of %s/s (at least %s/s) for %s", rateText(n.Rate), rateText(n.Baseline), rateText(n.Low), count(rate.Periods, "sample"))
	case breaker.Back:
		return fmt.Sprintf("%s/s against a baseline of %s/s for %s", rateText(n.Rate), rateText(n.Baseline), count(rate.Recover, "sample"))
	case breaker.Gap:
		return "no sample for longer than the baseline reaches, so that it begins anew"
	case breaker.TooManyFail:
		return fmt.Sprintf("%d of %d calls failed within %v, and %s are too many", n.Failures, n.Requests, calls.Window, percent(calls.Ratio))
	case breaker.TooManySlow:
		return fmt.Sprintf("%d of %d calls within %v took longer than %v, and %s are too many", n.Slow, n.Requests, calls.Window, calls.SlowerThan, percent(calls.SlowRatio))
	case breaker.Consecutive:
		return fmt.Sprintf("%s in a row got no answer", count(int(n.Streak), "call"))
	case breaker.Waited:
		return "it was open for as long as it had to be"
	case breaker.ProbesPassed:
		return fmt.Sprintf("%s came back, %d of them failed and %d were slow", count(int(n.Requests), "probe"), n.Failures, n.Slow)
	case breaker.ProbesFailed:
		return fmt.Sprintf("of %s %d failed and %d were slow", count(int(n.Requests), "probe"), n.Failures, n.Slow)
	case breaker.Changed:
		return "its settings have changed"
	}
	return ""
}

// consequence is what a new level means for requests.
func consequence(c *admit.BreakerChange, s *policy.Breaker) string {
	switch c.To {
	case breaker.Degraded:
		return "NonCore routes are shed"
	case breaker.Open:
		return "nothing is let through for " + time.Duration(c.Until-c.At).Round(time.Millisecond).String()
	case breaker.HalfOpen:
		if s != nil && s.Failures != nil {
			return count(s.Failures.Probes, "request") + " may try"
		}
	case breaker.Normal:
		switch {
		case c.From == breaker.Degraded:
			return "NonCore routes pass again"
		case c.Cause == breaker.ProbesPassed && s != nil && s.Failures != nil && s.Failures.Ramp > 0:
			return fmt.Sprintf("the share that is let through rises to all within %v", s.Failures.Ramp)
		}
		return "everything is let through again"
	}
	return ""
}

// rateText writes a rate without digits that nobody needs.
func rateText(rate float64) string {
	digits := 0
	if rate < 10 {
		digits = 1
	}
	if rate = math.Abs(rate); rate == math.Trunc(rate) {
		digits = 0
	}
	return strconv.FormatFloat(rate, 'f', digits, 64)
}

func percent(part float64) string { return strconv.FormatFloat(part*100, 'f', -1, 64) + "%" }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
