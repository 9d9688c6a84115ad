package policy

import (
	"fmt"
	"strconv"
)

// Provenance says of everything that a tenant's policies say where it was written, and whether it stands: it is to a [Plan]
// what the working is to a result. It is for `why` and for pages; no request reads it.
type Provenance struct {
	// Limits are those of every policy, the most specific policy first, then by policy name and in document order. Those that
	// stand are the limits of the plan, in its order.
	Limits []LimitOrigin
	// Terms are what each policy says besides limits, in the same order for each term.
	Terms []TermOrigin
}

// LimitOrigin is one limit of one policy.
type LimitOrigin struct {
	LimitRule
	Selector string       // of its policy; see [TenantPolicy.Selector]
	Replaced *Replacement // nil: it stands
}

// TermOrigin is what one policy says of one term of which the most specific policy decides.
type TermOrigin struct {
	Term     string // the field's name: weight, concurrency, backend, reject or headers
	Value    string // for people
	Policy   string
	Selector string // of its policy; see [TenantPolicy.Selector]
	Origin   Origin
	Replaced *Replacement // nil: it stands
}

// Replacement is what stands in the place of something.
type Replacement struct {
	Policy string
	Origin Origin
	Why    string // for people, as in "it is more specific"
}

// Why one thing stands and another falls.
const (
	becauseFinal      = "it is final"
	becauseCeiling    = "both are final, and it is less specific"
	becauseSpecific   = "it is more specific"
	becauseFirst      = "it is equally specific, and its policy is the first by name"
	becauseFinalFirst = "both are final and equally specific, and its policy is the first by name"
)

// Selector says whom the policy applies to, as its document does: names, match eu-*, any or unknown.
func (p *TenantPolicy) Selector() string {
	if p.Specificity == SpecMatch {
		return "match " + p.Pattern
	}
	return p.Specificity.String()
}

// Provenance tells how [Snapshot.Plan] comes to its plan for the same policies.
func (s *Snapshot) Provenance(policies []int) Provenance {
	order := s.MostSpecificFirst(policies)
	standing := s.standing(order)
	var told Provenance
	for _, i := range order {
		p := &s.Policies[i]
		for j := range p.Limits {
			r := s.ranked(i, j)
			l := LimitOrigin{LimitRule: *r.LimitRule, Selector: p.Selector()}
			if best := standing[r.namesake()]; best != r {
				l.Replaced = &Replacement{Policy: best.Policy, Origin: best.Origin, Why: whyPrevails(best, r)}
			}
			told.Limits = append(told.Limits, l)
		}
	}
	told.Terms = append(told.Terms, s.termOrigins("weight", order, (*Snapshot).weightOf)...)
	told.Terms = append(told.Terms, s.termOrigins("concurrency", order, (*Snapshot).concurrencyOf)...)
	told.Terms = append(told.Terms, s.termOrigins("backend", order, (*Snapshot).backendOf)...)
	told.Terms = append(told.Terms, s.termOrigins("reject", order, (*Snapshot).rejectOf)...)
	told.Terms = append(told.Terms, s.termOrigins("headers", order, (*Snapshot).headersOf)...)
	return told
}

// whyPrevails says which of the rules of prevails let a stand and b fall.
func whyPrevails(a, b rankedLimit) string {
	switch {
	case a.Final != b.Final:
		return becauseFinal
	case a.specificity == b.specificity && a.Final:
		return becauseFinalFirst
	case a.specificity == b.specificity:
		return becauseFirst
	case a.Final:
		return becauseCeiling
	}
	return becauseSpecific
}

// termOrigins tells what each policy says of a term; the first that says anything stands.
func (s *Snapshot) termOrigins(term string, order []int, said func(*Snapshot, *TenantPolicy) (string, Origin)) []TermOrigin {
	var told []TermOrigin
	var first *TenantPolicy
	for _, i := range order {
		p := &s.Policies[i]
		value, at := said(s, p)
		if value == "" {
			continue
		}
		o := TermOrigin{Term: term, Value: value, Policy: p.Name, Selector: p.Selector(), Origin: at}
		if first == nil {
			first = p
		} else {
			o.Replaced = &Replacement{Policy: first.Name, Origin: told[0].Origin, Why: becauseSpecific}
			if first.Specificity == p.Specificity {
				o.Replaced.Why = becauseFirst
			}
		}
		told = append(told, o)
	}
	return told
}

// What a policy says of a term, and where; empty when it says nothing.

func (s *Snapshot) weightOf(p *TenantPolicy) (string, Origin) {
	if p.Weight == 0 {
		return "", Origin{}
	}
	return strconv.Itoa(p.Weight), p.Origins.Weight
}

func (s *Snapshot) concurrencyOf(p *TenantPolicy) (string, Origin) {
	if p.Concurrency == 0 {
		return "", Origin{}
	}
	value := fmt.Sprintf("max %d", p.Concurrency)
	if p.Queue.Length > 0 {
		value += fmt.Sprintf(", queue %d for %s", p.Queue.Length, Duration(p.Queue.Timeout))
	}
	return value, p.Origins.Concurrency
}

func (s *Snapshot) backendOf(p *TenantPolicy) (string, Origin) {
	if p.Backend < 0 {
		return "", Origin{}
	}
	return s.Backends[p.Backend].Name, p.Origins.Backend
}

func (s *Snapshot) rejectOf(p *TenantPolicy) (string, Origin) {
	if p.Reject == nil {
		return "", Origin{}
	}
	return fmt.Sprintf("status %d, headers %s", p.Reject.Status, p.Reject.Headers), p.Origins.Reject
}

func (s *Snapshot) headersOf(p *TenantPolicy) (string, Origin) { return p.Headers, p.Origins.Headers }
