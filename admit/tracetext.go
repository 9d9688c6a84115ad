package admit

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"weir/policy"
)

// Text returns the trace for people, aligned, with the place in the documents of everything that is written there.
func (t *Trace) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) { fmt.Fprintf(w, what+"\t"+format+"\n", args...) }
	line("request", "%s", t.request())
	if t.Recorded {
		line("decided", "%s", strings.TrimSpace(t.At.UTC().Format(time.RFC3339Nano)+"  "+t.RequestID))
	}
	line("identity", "%s", t.identity())
	line("tenant", "%s", t.tenant())
	line("route", "%s", t.route())
	if t.Backend.Name != "" {
		line("backend", "%s", t.Backend.text())
	}
	_ = w.Flush() // a Builder takes everything
	t.breakers(&b)
	t.limits(&b)
	t.terms(&b)
	b.WriteByte('\n')
	fmt.Fprintf(w, "verdict\t%s\n", t.Verdict.text())
	for _, h := range t.Verdict.Headers {
		fmt.Fprintf(w, "\t%s\n", h)
	}
	if t.Shadow != nil {
		fmt.Fprintf(w, "in shadow\t%s\n", t.Shadow.text())
	}
	for _, note := range t.Notes {
		fmt.Fprintf(w, "note\t%s\n", note)
	}
	_ = w.Flush()
	return b.String()
}

func (t *Trace) request() string {
	r := &t.Request
	s := r.Method + " " + cmp.Or(r.Host, "-") + r.Path
	if r.Client != "" {
		s += " from " + r.Client
	}
	if r.Cost > 1 {
		s += fmt.Sprintf(", costs %d", r.Cost)
	}
	return s
}

func (t *Trace) identity() string {
	i := &t.Identity
	by := fmt.Sprintf("%s, spec.identity[%d] of the Sidecar%s", strings.TrimSpace(i.Kind+" "+i.Detail), i.Source, at(i.Origin))
	switch {
	case i.Given:
		return i.Tenant + ": given, so no source was asked"
	case len(i.Asked) == 0:
		return "none: the Sidecar has no identity source"
	case i.Source < 0:
		return "none: nothing was found by " + strings.Join(i.Asked, ", ")
	case i.Fault != "":
		return "none: " + i.Fault + "; " + by
	case i.Tenant == "":
		return "none: what is there is no tenant; " + by
	}
	return i.Tenant + ": " + by
}

func (t *Trace) tenant() string {
	n := &t.Tenant
	s := "unknown"
	if n.Known {
		s = "known"
	}
	if len(n.Policies) > 0 {
		s += ", under " + strings.Join(n.Policies, ", ")
	}
	if n.Known || n.Cell != "" {
		s += fmt.Sprintf("; %d in flight", n.InFlight)
		if n.Concurrency > 0 {
			s += fmt.Sprintf(" of %d", n.Concurrency)
		}
		if n.Waiting > 0 {
			s += fmt.Sprintf(", %d waiting", n.Waiting)
		}
	}
	if n.Cell != "" {
		s += "; buckets: " + n.Cell
	}
	return s
}

func (t *Trace) route() string {
	r := &t.Route
	if r.Name == "" {
		return "none matches"
	}
	s := r.Name + at(r.Origin)
	if r.Match != "" {
		s += ": " + r.Match
	}
	if r.Before != "" {
		s += fmt.Sprintf("; before %s, since %s", r.Before, r.Why)
	}
	return s
}

func (b *TraceBackend) text() string {
	s := strings.TrimSuffix(b.Name+": "+b.Why, ": ")
	if b.Capacity > 0 {
		s += fmt.Sprintf("; %d in flight of %d", b.InFlight, b.Capacity)
	}
	if b.Waiting > 0 {
		s += fmt.Sprintf(", %d waiting", b.Waiting)
	}
	return s
}

// limits writes the table of rules.
func (t *Trace) limits(b *strings.Builder) {
	if len(t.Limits) == 0 {
		b.WriteString("\nno limits\n")
		return
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LIMIT\tRATE\tLEFT\tWRITTEN AT")
	for i := range t.Limits {
		l := &t.Limits[i]
		left := "-"
		if l.Level != nil {
			left = l.amount(l.Level.Available) + " of " + l.amount(l.Burst)
		}
		fmt.Fprintf(w, "%s/%s\t%s/%s\t%s\t%s\t%s\n", l.Policy, l.Name, l.amount(l.Requests), l.Per.short(), left, cmp.Or(l.Origin.String(), "-"), l.fate())
	}
	_ = w.Flush()
}

// amount is a number of the limit's tokens.
func (l *TraceLimit) amount(n int64) string {
	if l.Unit == policy.UnitBytes.String() {
		return policy.Size(n).String()
	}
	return strconv.FormatInt(n, 10)
}

// fate says what became of a limit.
func (l *TraceLimit) fate() string {
	var parts []string
	if l.Shadow {
		parts = append(parts, "in shadow")
	}
	if l.Bucket != "" && l.Bucket != "Tenant" {
		parts = append(parts, "bucket "+l.Bucket)
	}
	switch {
	case l.State == RuleReplaced:
		parts = append(parts, "replaced by "+l.ReplacedBy.text())
	case l.State == RuleOtherRoute:
		parts = append(parts, "not on this route, on "+strings.Join(l.Routes, ", "))
	case l.State == RuleNotAsked:
		parts = append(parts, "not asked")
	case l.Unit == policy.UnitBytes.String() && l.Shadow:
		parts = append(parts, "would slow bodies down")
	case l.Unit == policy.UnitBytes.String():
		parts = append(parts, "slows bodies down")
	case l.Level != nil && l.Level.Refuses && l.Shadow:
		parts = append(parts, "would refuse")
	case l.Level != nil && l.Level.Refuses:
		parts = append(parts, "refuses")
	default:
		parts = append(parts, "lets pass")
	}
	return strings.Join(parts, "; ")
}

func (r *TraceReplacement) text() string { return r.Policy + at(r.Origin) + ": " + r.Why }

// terms writes what policies say besides limits.
func (t *Trace) terms(b *strings.Builder) {
	if len(t.Terms) == 0 {
		return
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TERM\tPOLICY\tWRITTEN AT")
	for i := range t.Terms {
		term := &t.Terms[i]
		fate := "stands"
		if term.ReplacedBy != nil {
			fate = "replaced by " + term.ReplacedBy.text()
		}
		fmt.Fprintf(w, "%s %s\t%s\t%s\t%s\n", term.Term, term.Value, term.Policy, cmp.Or(term.Origin.String(), "-"), fate)
	}
	_ = w.Flush()
}

func (v *TraceVerdict) text() string {
	if v.Passes {
		return "passes"
	}
	switch v.WaitsFor {
	case waitsForGate:
		return "waits in the queue of its tenant, until one of the tenant's requests has ended"
	case waitsForBackend:
		return "waits in the queue of its backend, for its turn"
	}
	s := "refused: " + v.Reason
	if v.Limit != "" {
		s += " by " + v.Policy + "/" + v.Limit
	}
	if v.Breaker != "" {
		s += " by " + v.Breaker
	}
	if v.Fallback != "" {
		s += ", fallback: " + v.Fallback
	} else if v.Status != 0 {
		s += fmt.Sprintf(", status %d", v.Status)
	}
	switch {
	case v.RetryAfter == 0:
	case v.Breaker != "":
		s += ", worth another try in " + v.RetryAfter.short()
	default:
		s += ", passes in " + v.RetryAfter.short()
	}
	return s
}

// short rounds up to what matters, and leaves out what is zero at the end: 1h, not 59m59.98s or 1h0m0s.
func (s Span) short() string {
	unit := Span(time.Microsecond)
	switch {
	case s >= Span(time.Minute):
		unit = Span(time.Second)
	case s >= Span(time.Second):
		unit = Span(10 * time.Millisecond)
	}
	text := ((s + unit - 1) / unit * unit).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// at is a place in parentheses; empty for none.
func at(p Place) string {
	if p == (Place{}) {
		return ""
	}
	return " (" + p.String() + ")"
}
