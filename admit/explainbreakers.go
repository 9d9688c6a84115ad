package admit

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"

	"weir/breaker"
	"weir/policy"
)

// metBreaker is how one breaker stood that a request met, and what it said. It keeps nothing else alive.
type metBreaker struct {
	name, target string
	own          bool // the tenant's
	at           int64
	status       breaker.Status
	answer       breaker.Answer
}

func (w *watch) met(now int64, p breaker.Pass) metBreaker {
	return metBreaker{name: w.cell.name, target: w.cell.target, own: w.tenant != "", at: now, status: w.Status(now), answer: p.Answer}
}

// breakersOf returns the breakers that a request would meet, without making any.
func (t *Table) breakersOf(now int64, m *Match) (all []metBreaker) {
	if len(t.breakers) == 0 {
		return nil
	}
	for _, cells := range [...][]*breakerCell{m.Route.breakers, t.guards[m.Backend]} {
		for _, c := range cells {
			w := t.glanceBreaker(c, m.Tenant.name)
			if w == nil {
				w = c.newWatch(now, m.Tenant.name)
			}
			all = append(all, w.met(now, w.Ask(now, m.random, m.Route.core)))
		}
	}
	return all
}

// told appends how the breakers stand that a request has met, until dst has as many as it may.
func (p *Passes) told(now int64, dst []metBreaker, most int) []metBreaker {
	for i := range min(p.met(), most) {
		one := p.at(i)
		dst = append(dst, one.watch.met(now, one.Pass))
	}
	return dst
}

// told is the breaker as a trace tells of it, without the place where it is written.
func (b *metBreaker) told() TraceBreaker {
	s := &b.status
	n := &s.Numbers
	told := TraceBreaker{
		Name: b.name, Target: b.target, Own: b.own, Level: s.Level.String(), For: Span(max(b.at-s.Since, 0)),
		Offered: n.Offered, Passed: n.Rate, Baseline: n.Baseline, Low: n.Low, High: n.High,
		Calls: n.Requests, Failures: n.Failures, Slow: n.Slow, Share: s.Share,
		Says: [...]string{breaker.Admitted: "pass", breaker.Probe: "probe", breaker.Shed: "shed", breaker.Refused: "refuse"}[b.answer],
	}
	if s.Until != 0 {
		told.Until = Span(max(s.Until-b.at, 0))
	}
	return told
}

// fallbackOf returns what a request of a route gets in the place of a refusal for that reason; nil: the refusal.
func (t *Table) fallbackOf(route int, r Reason) *policy.FallbackAnswer {
	if route < 0 || r != Shed && r != BreakerOpen {
		return nil
	}
	return t.snapshot.Routes[route].Fallback
}

func fallbackText(f *policy.FallbackAnswer) string {
	text := fmt.Sprintf("status %d", f.Status)
	if f.StaleFor > 0 {
		text = "the last good answer, or " + text
	}
	return text
}

// breakers writes the table of breakers.
func (t *Trace) breakers(b *strings.Builder) {
	if len(t.Breakers) == 0 {
		return
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BREAKER\tLEVEL\tNUMBERS\tWRITTEN AT")
	for i := range t.Breakers {
		b := &t.Breakers[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", b.Name, b.level(), b.numbers(), cmp.Or(b.Origin.String(), "-"), b.fate())
	}
	_ = w.Flush()
}

func (b *TraceBreaker) level() string {
	s := b.Level + " for " + b.For.short()
	switch {
	case b.Level == breaker.Open.String():
		s += ", probes in " + b.Until.short()
	case b.Share > 0 && b.Share < 1:
		s += fmt.Sprintf(", %.0f%% pass", 100*b.Share)
	}
	return s
}

// numbers are what the level stands on, as far as they are known.
func (b *TraceBreaker) numbers() string {
	var parts []string
	say := func(known bool, format string, args ...any) {
		if known {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	say(b.Offered > 0, "%.4g/s", b.Offered)
	say(b.Offered != b.Passed, "%.4g/s within limits", b.Passed)
	say(b.Baseline > 0, "usually %.4g/s", b.Baseline)
	say(b.Low > 0, "at least %.4g/s", b.Low)
	say(b.High > 0, "at most %.4g/s", b.High)
	say(b.Calls > 0, "%d of %d calls failed", b.Failures, b.Calls)
	say(b.Slow > 0, "%d slow", b.Slow)
	return cmp.Or(strings.Join(parts, ", "), "-")
}

// fate says what the breaker does with the request.
func (b *TraceBreaker) fate() string {
	s := b.Target
	if b.Own {
		s += ", this tenant's own"
	}
	return s + "; " + map[string]string{"pass": "lets pass", "probe": "lets pass as a probe", "shed": "sheds", "refuse": "refuses"}[b.Says]
}
