package policytest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"weir/admit"
	"weir/breaker"
	"weir/policy"
)

// Failure is an expectation that was not met.
type Failure struct {
	Expect int    // index of the expectation in its case
	Field  string // allowed, denied, shadowDenied, available, level, or the filter that nothing fits
	// Message says what was there and what was wanted.
	Message string
	// Detail is an example that helps to see why; empty when there is none.
	Detail string
}

// counts are what became of some requests, or what a limit said of them.
type counts struct {
	allowed, denied, shadowDenied int
	denial                        *Request // the first one denied
}

// check compares every expectation with what became of the requests.
func (r *run) check(c *policy.TestCase) []Failure {
	var failures []Failure
	for i := range c.Expect {
		e := &c.Expect[i]
		fail := func(field, detail, format string, args ...any) {
			failures = append(failures, Failure{Expect: i, Field: field, Message: fmt.Sprintf(format, args...), Detail: detail})
		}
		if field, message := r.unknown(e); field != "" {
			fail(field, "", "%s", message)
			continue
		}
		got := tally(r.requests, e)
		compare := func(field string, got int, want *int, detail string) {
			if want != nil && got != *want {
				fail(field, detail, "got %d, want %d", got, *want)
			}
		}
		example := ""
		if d := got.denial; d != nil {
			example = describe(d)
		}
		compare("allowed", got.allowed, e.Allowed, example)
		compare("denied", got.denied, e.Denied, example)
		compare("shadowDenied", got.shadowDenied, e.ShadowDenied, "")
		r.compareLook(e, &r.looks[i], fail)
	}
	return failures
}

// compareLook compares what was seen at the time that an expectation names.
func (r *run) compareLook(e *policy.TestExpectation, seen *look, fail func(field, detail, format string, args ...any)) {
	switch {
	case e.Available == nil:
	case !seen.applies:
		fail("available", "", "%s does not apply to tenant %q", e.Limit, e.Tenant)
	case seen.available != *e.Available:
		fail("available", "", "got %d at %s, want %d", seen.available, *e.At, *e.Available)
	}
	if got := levelName(seen.level); e.Level != "" && got != e.Level {
		fail("level", "", "got %s at %s, want %s", got, *e.At, e.Level)
	}
}

// levelName is the word for a level in documents.
func levelName(l breaker.Level) string {
	return [...]string{breaker.Normal: "Normal", breaker.Degraded: "Degraded", breaker.HalfOpen: "HalfOpen", breaker.Open: "Open"}[l]
}

// tally counts the requests that an expectation chooses, or what its limit said of them.
func tally(requests []Request, e *policy.TestExpectation) counts {
	var c counts
	for i := range requests {
		q := &requests[i]
		if !chosen(q, e) {
			continue
		}
		if e.Limit != "" {
			c.addLimit(q, e.Limit)
		} else if q.Reason == admit.Passed {
			c.allowed++
		} else if (e.Reason == "" || e.Reason == q.Reason.String()) && (e.Breaker == "" || e.Breaker == q.Breaker) {
			c.deny(q, 1)
		}
	}
	return c
}

func (c *counts) addLimit(q *Request, limit string) {
	for _, s := range q.said {
		if s.limit == limit {
			c.allowed += s.allow
			c.shadowDenied += s.shadowDeny
			c.deny(q, s.deny)
		}
	}
}

func (c *counts) deny(q *Request, n int) {
	c.denied += n
	if n > 0 && c.denial == nil {
		c.denial = q
	}
}

// chosen says whether a request passes the filters of an expectation.
func chosen(q *Request, e *policy.TestExpectation) bool {
	return (e.Tenant == "" || e.Tenant == q.Tenant) && (e.Route == "" || e.Route == q.Route) &&
		q.At >= time.Duration(e.From) && (e.Until == nil || q.At < time.Duration(*e.Until))
}

// unknown finds a filter that names nothing that exists: an expectation of 0 would be met by any misspelling.
func (r *run) unknown(e *policy.TestExpectation) (field, message string) {
	s := r.table.Snapshot()
	if e.Reason != "" && !slices.ContainsFunc(reasons(), func(reason string) bool { return reason == e.Reason }) {
		return "reason", fmt.Sprintf("%q is not a reason; the reasons are %s", e.Reason, strings.Join(reasons(), ", "))
	}
	if e.Route != "" && !slices.ContainsFunc(s.Routes, func(route policy.Route) bool { return route.Name == e.Route }) {
		var names []string
		for i := range s.Routes {
			names = append(names, s.Routes[i].Name)
		}
		return "route", fmt.Sprintf("no Route is named %q; there are %s", e.Route, strings.Join(names, ", "))
	}
	if e.Limit != "" {
		var names []string
		for i := range s.Policies {
			for j := range s.Policies[i].Limits {
				names = append(names, s.Policies[i].Name+"/"+s.Policies[i].Limits[j].Name)
			}
		}
		if !slices.Contains(names, e.Limit) {
			return "limit", fmt.Sprintf("there is no limit %q; there are %s", e.Limit, strings.Join(names, ", "))
		}
	}
	if e.Breaker != "" {
		b := r.breakerOf(e)
		switch {
		case b == nil:
			var names []string
			for i := range s.Breakers {
				names = append(names, s.Breakers[i].Name)
			}
			return "breaker", fmt.Sprintf("no BreakerPolicy is named %q; there are %s", e.Breaker, cmp.Or(strings.Join(names, ", "), "none"))
		case b.PerTenant && e.Level != "" && e.Tenant == "":
			return "level", fmt.Sprintf("each tenant has a breaker of its own by BreakerPolicy %q; say which tenant's", b.Name)
		}
	}
	if e.Tenant != "" && !slices.ContainsFunc(r.requests, func(q Request) bool { return q.Tenant == e.Tenant }) {
		return "tenant", fmt.Sprintf("no request of the case is from tenant %q", e.Tenant)
	}
	return "", ""
}

// reasons are the words for why a request can be denied.
func reasons() []string {
	var words []string
	for r := admit.Reason(0); int(r) < admit.ReasonCount; r++ {
		if r != admit.Passed {
			words = append(words, r.String())
		}
	}
	return words
}

// describe says in one line why a request was denied.
func describe(q *Request) string {
	text := fmt.Sprintf("the first one denied came at %s: %s", policy.Duration(q.At), q.Reason)
	if by := cmp.Or(q.Limit, q.Breaker); by != "" {
		text += " by " + by
	}
	if q.Retry > 0 {
		text += fmt.Sprintf(", retry after %s", policy.Duration(q.Retry))
	}
	return text
}
