package control

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Breaker is what /breakers shows of one breaker; of a policy with perTenant, of one tenant's.
type Breaker struct {
	Name string `json:"name"`
	// Target is the kind and the name of what it protects.
	Target string `json:"target"`
	// PerTenant says that tenants have breakers of their own. Tenant is whose this one is; empty is the breaker of everybody
	// else, or of all.
	PerTenant bool   `json:"perTenant"`
	Tenant    string `json:"tenant,omitempty"`
	// Level is normal, degraded, half_open or open.
	Level string    `json:"level"`
	Since time.Time `json:"since"`
	// Until is when an open breaker lets probes through, or a half-open one replaces probes that are silent.
	Until time.Time `json:"until,omitzero"`
	// Share is the part of requests that the breaker lets through, those to NonCore routes apart: less than 1 while it is
	// open, and for a while after.
	Share float64 `json:"share"`
	// Rate is absent where the rate is not judged, and Calls where calls are not.
	Rate  *BreakerRate  `json:"rate,omitempty"`
	Calls *BreakerCalls `json:"calls,omitempty"`
}

// BreakerRate is the last sample, in requests a second.
type BreakerRate struct {
	// Offered are all requests, Passed those that passed the limits of their tenants. Passed is what is judged.
	Offered float64 `json:"offered"`
	Passed  float64 `json:"passed"`
	// Baseline is what Passed was compared with. 0 means that it is not known yet.
	Baseline float64 `json:"baseline"`
	// Low and High are the corridor. 0 means that there is no bound on that side.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// BreakerCalls are the calls in the window; half-open, the probes.
type BreakerCalls struct {
	Requests int64 `json:"requests"`
	Failures int64 `json:"failures"`
	Slow     int64 `json:"slow"`
}

func (a *admin) breakers(w http.ResponseWriter, r *http.Request) {
	all := a.o.Breakers(r.URL.Query().Get("breaker"))
	if wantsJSON(r) {
		writeJSON(w, http.StatusOK, struct {
			Breakers []Breaker `json:"breakers"`
		}{orEmpty(all)})
		return
	}
	if len(all) == 0 {
		writeText(w, http.StatusOK, "no breakers\n")
		return
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BREAKER\tTARGET\tTENANT\tLEVEL\tSINCE\tOFFERED\tPASSED\tBASELINE\tCORRIDOR\tCALLS\tFAILED\tSLOW")
	for i := range all {
		shown := &all[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t", shown.Name, shown.Target, shown.tenantText(), shown.levelText(), stamp(shown.Since))
		rate, calls := "-\t-\t-\t-\t", "-\t-\t-"
		if n := shown.Rate; n != nil {
			rate = fmt.Sprintf("%s\t%s\t%s\t%s\t", perSecond(n.Offered), perSecond(n.Passed), n.baselineText(), n.corridorText())
		}
		if n := shown.Calls; n != nil {
			calls = fmt.Sprintf("%d\t%d\t%d", n.Requests, n.Failures, n.Slow)
		}
		fmt.Fprintln(t, rate+calls)
	}
	_ = t.Flush()
	writeText(w, http.StatusOK, b.String())
}

func (b *Breaker) tenantText() string {
	switch {
	case b.Tenant != "":
		return b.Tenant
	case b.PerTenant:
		return "(others)"
	}
	return "(all)"
}

// levelText is the level, and what comes next.
func (b *Breaker) levelText() string {
	switch {
	case b.Level == "open" && !b.Until.IsZero():
		return "open until " + b.Until.UTC().Format("15:04:05")
	case (b.Level == "normal" || b.Level == "degraded") && b.Share < 1:
		return fmt.Sprintf("%s, %.0f%% pass", b.Level, b.Share*100)
	}
	return b.Level
}

func (n *BreakerRate) baselineText() string {
	if n.Baseline == 0 {
		return "-"
	}
	return perSecond(n.Baseline)
}

func (n *BreakerRate) corridorText() string {
	switch {
	case n.Low > 0 && n.High > 0:
		return perSecond(n.Low) + " to " + perSecond(n.High)
	case n.High > 0:
		return "at most " + perSecond(n.High)
	case n.Low > 0:
		return "at least " + perSecond(n.Low)
	}
	return "-"
}

// perSecond is a rate for people.
func perSecond(rate float64) string { return strconv.FormatFloat(rate, 'f', 1, 64) + "/s" }
