package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"weir/admit"
	"weir/admit/policytest"
	"weir/policy"
)

func (t *testRun) print(w io.Writer, paint painter, verbose bool) error {
	for i := range t.cases {
		rc := &t.cases[i]
		word := paint.green("PASS")
		if len(rc.result.Failures) > 0 {
			word = paint.red("FAIL")
		}
		if _, err := fmt.Fprintf(w, "%s  %s: %s\n", word, rc.document.Name, rc.name); err != nil {
			return fmt.Errorf("cannot write results: %w", err)
		}
		for _, p := range rc.problems() {
			if err := p.Render(w, bool(paint)); err != nil {
				return fmt.Errorf("cannot write results: %w", err)
			}
		}
		if verbose {
			if err := printOutcomes(w, rc.result.Requests); err != nil {
				return err
			}
		}
	}
	if t.verdict() == nil {
		_, err := fmt.Fprintf(w, "%s passed\n", count(len(t.cases), "case", "cases"))
		return err
	}
	return nil
}

// tenantOutcome is what became of the requests of one tenant on one route.
type tenantOutcome struct {
	Tenant  string         `json:"tenant"`
	Route   string         `json:"route"`
	Allowed int            `json:"allowed"`
	Denied  int            `json:"denied"`
	Reasons map[string]int `json:"reasons,omitempty"`
}

// outcomes sums requests up, in the order in which their tenants first came.
func outcomes(requests []policytest.Request) []tenantOutcome {
	type key struct{ tenant, route string }
	at := make(map[key]int)
	var all []tenantOutcome
	for i := range requests {
		q := &requests[i]
		k := key{q.Tenant, q.Route}
		if _, met := at[k]; !met {
			at[k] = len(all)
			all = append(all, tenantOutcome{Tenant: q.Tenant, Route: q.Route, Reasons: map[string]int{}})
		}
		o := &all[at[k]]
		if q.Reason == admit.Passed {
			o.Allowed++
			continue
		}
		o.Denied++
		why := q.Reason.String()
		if by := cmp.Or(q.Limit, q.Breaker); by != "" {
			why += " by " + by
		}
		o.Reasons[why]++
	}
	return all
}

func printOutcomes(w io.Writer, requests []policytest.Request) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "      TENANT\tROUTE\tALLOWED\tDENIED\tWHY")
	for _, o := range outcomes(requests) {
		var why []string
		for _, reason := range slices.Sorted(maps.Keys(o.Reasons)) {
			why = append(why, fmt.Sprintf("%d %s", o.Reasons[reason], reason))
		}
		fmt.Fprintf(table, "      %s\t%s\t%d\t%d\t%s\n", cmp.Or(o.Tenant, "-"), cmp.Or(o.Route, "-"), o.Allowed, o.Denied, strings.Join(why, ", "))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("cannot write results: %w", err)
	}
	return nil
}

// testReport is the JSON form.
type testReport struct {
	Passed int          `json:"passed"`
	Failed int          `json:"failed"`
	Cases  []testedCase `json:"cases"`
}

type testedCase struct {
	Document string           `json:"document"`
	Name     string           `json:"name"`
	OK       bool             `json:"ok"`
	Failures []policy.Problem `json:"failures,omitempty"`
	Outcomes []tenantOutcome  `json:"outcomes"`
}

func (t *testRun) report() testReport {
	r := testReport{Cases: []testedCase{}}
	for i := range t.cases {
		rc := &t.cases[i]
		c := testedCase{
			Document: rc.document.Name, Name: rc.name, OK: len(rc.result.Failures) == 0,
			Failures: rc.problems(), Outcomes: outcomes(rc.result.Requests),
		}
		if c.OK {
			r.Passed++
		} else {
			r.Failed++
		}
		r.Cases = append(r.Cases, c)
	}
	return r
}
