package diff

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"weir/policy"
)

// tenants compares whom a policy is for.
func (w *walker) tenants(at place, a, b policy.TenantSelector) {
	onlyNames := a.Match == b.Match && a.Any == b.Any && a.Unknown == b.Unknown
	switch {
	case onlyNames && slices.Equal(a.Names, b.Names):
		return
	case !onlyNames || len(a.Names) == 0 || len(b.Names) == 0:
		w.replaced(at, tenantWords(a), tenantWords(b), tenantWords(a), tenantWords(b))
		return
	}
	at = at.field("names")
	gone, came := subtract(a.Names, b.Names), subtract(b.Names, a.Names)
	sentence := func(names []string, action, before, after string) {
		if len(names) > 0 {
			w.found = append(w.found, Difference{
				Path: at.path, Text: fmt.Sprintf("%s %s %s by %s", noun(len(names), "tenant"), listed(names), action, w.subject), Before: before, After: after,
			})
		}
	}
	sentence(gone, "no longer named", listed(gone), "")
	sentence(came, "now named", "", listed(came))
	if len(gone)+len(came) == 0 {
		w.note(at, "", "", "tenants in another order")
	}
}

// tenantWords says whom a policy is for.
func tenantWords(s policy.TenantSelector) string {
	switch {
	case len(s.Names) > 0:
		return noun(len(s.Names), "tenant") + " " + listed(s.Names)
	case s.Match != "":
		return "tenants " + quoted(s.Match)
	case s.Any:
		return "any tenant"
	case s.Unknown:
		return "unknown tenants"
	}
	return "no tenant"
}

func noun(n int, one string) string {
	if n == 1 {
		return one
	}
	return one + "s"
}

// rate compares what a limit allows.
func (w *walker) rate(at place, a, b *policy.Limit) {
	before, after := rateWords(a), rateWords(b)
	if before != after {
		change := compareRates(a, b)
		d := Difference{Path: at.field(unit(b)).path, Before: before, After: after}
		if names := w.who.Names; len(names) == 1 {
			// The policy of a single tenant is about that tenant.
			d.Text = fmt.Sprintf("%s %s %s → %s%s", plain(names[0]), plain(b.Name), before, after, change)
			if names[0] != w.subject {
				d.Text += ", by " + w.subject
			}
		} else {
			d.Text = fmt.Sprintf("%s: limit %s %s → %s%s, %s", w.subject, plain(b.Name), before, after, change, tenantWords(w.who))
		}
		w.found = append(w.found, d)
	}
	if before, after := burstWords(a), burstWords(b); before != after {
		w.note(at.field("burst"), before, after, "%s %s → %s", at.field("burst").words(), before, after)
	}
}

// unit is the field that says what a limit counts.
func unit(l *policy.Limit) string {
	if l.Bytes != nil {
		return "bytes"
	}
	return "requests"
}

// limitWords is what a limit allows, as in 1000/s, burst 2000.
func limitWords(l *policy.Limit) string {
	s := rateWords(l)
	if l.Burst != nil {
		s += ", burst " + burstWords(l)
	}
	if len(l.Routes) > 0 {
		s += ", " + noun(len(l.Routes), "route") + " " + listed(l.Routes)
	}
	if l.Bucket == "Shared" {
		s += ", shared by all"
	}
	if l.Mode == "Shadow" {
		s += ", shadow"
	}
	return s
}

// rateWords is a rate, as in 100/s, 10MiB/m or 5 per 250ms. 0 blocks, whatever it is per.
func rateWords(l *policy.Limit) string {
	amount := "nothing"
	switch {
	case l.Bytes != nil:
		if amount = l.Bytes.String(); *l.Bytes == 0 {
			amount = "0B"
		}
	case l.Requests != nil:
		amount = strconv.FormatInt(*l.Requests, 10)
	}
	switch time.Duration(l.Per) {
	case time.Second:
		amount += "/s"
	case time.Minute:
		amount += "/m"
	case time.Hour:
		amount += "/h"
	default:
		amount += " per " + l.Per.String()
	}
	if perNano(l) == 0 {
		amount += " (blocked)"
	}
	return amount
}

func burstWords(l *policy.Limit) string {
	switch {
	case l.Burst == nil:
		return "as the rate"
	case l.Bytes != nil:
		return policy.Size(*l.Burst).String()
	}
	return strconv.FormatInt(int64(*l.Burst), 10)
}

// perNano is a rate as a number.
func perNano(l *policy.Limit) float64 {
	var amount int64
	switch {
	case l.Bytes != nil:
		amount = int64(*l.Bytes)
	case l.Requests != nil:
		amount = *l.Requests
	}
	return float64(amount) / float64(max(l.Per, 1))
}

// compareRates says how much more or less one limit allows than another, as in (-50 %); nothing where that has no meaning.
func compareRates(a, b *policy.Limit) string {
	before, after := perNano(a), perNano(b)
	if unit(a) != unit(b) || before == 0 || after == 0 {
		return ""
	}
	switch percent := (after/before - 1) * 100; {
	case math.Abs(percent) < 0.05:
		return " (the same rate)"
	case after/before >= 10:
		return fmt.Sprintf(" (×%.4g)", after/before)
	case math.Abs(percent-math.Round(percent)) < 0.05:
		return fmt.Sprintf(" (%+.0f %%)", percent)
	default:
		return fmt.Sprintf(" (%+.1f %%)", percent)
	}
}
