package policy

import (
	"cmp"
	"slices"
	"strings"
)

// NamedTenants returns every tenant of a `names` selector, sorted, each once.
func (s *Snapshot) NamedTenants() []string {
	var all []string
	for i := range s.Policies {
		all = append(all, s.Policies[i].Names...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Covering appends to dst the indexes of the names, match and any policies that cover the tenant, ascending.
// Nothing appended means that nobody covers it: the tenant is unknown.
//
// It allocates only when dst must grow. It is cheap enough for a request of a tenant never seen before: one look-up and one
// comparison for each pattern, however many tenants are named.
func (s *Snapshot) Covering(tenant string, dst []int) []int {
	start := len(dst)
	if c := s.coverage; c != nil {
		dst = append(dst, c.named[tenant]...)
		for _, i := range c.patterns {
			if matches(s.Policies[i].Pattern, tenant) {
				dst = append(dst, i)
			}
		}
		dst = append(dst, c.any...)
		slices.Sort(dst[start:])
		return dst
	}
	for i := range s.Policies {
		if s.Policies[i].covers(tenant) {
			dst = append(dst, i)
		}
	}
	return dst
}

// AnyPolicies returns the indexes of the `any: true` policies, ascending.
func (s *Snapshot) AnyPolicies() []int { return s.withSpecificity(SpecAny) }

// UnknownPolicies returns the indexes of the `unknown: true` policies, ascending.
func (s *Snapshot) UnknownPolicies() []int { return s.withSpecificity(SpecUnknown) }

// Plan merges policies, given by index in any order, into what applies to the tenants that exactly these cover.
// It is a pure function of the snapshot and the set: equal sets give equal plans.
//
// Limits of different names all apply. Of the limits of one name a single one stands ([prevails]): the most specific, unless one
// of them is final. Those in mode Shadow are worked out apart: they stand beside the enforced limit of their name, so that
// trying a limit lifts none. Weight, Concurrency with its queue, Backend, Reject and Headers each come from the most specific policy
// that says something. Ties go to the policy whose name sorts first; the length of a pattern does not count, so "eu-*" and
// "eu-west-*" are equally specific.
func (s *Snapshot) Plan(policies []int) Plan {
	order := s.MostSpecificFirst(policies)
	standing := s.standing(order)
	plan := Plan{Backend: -1, Reject: Reject{Status: 429, Headers: "Standard"}}
	rejectSaid := false
	for _, i := range order {
		p := &s.Policies[i]
		for j := range p.Limits {
			if r := s.ranked(i, j); standing[r.namesake()] == r {
				plan.Limits = append(plan.Limits, p.Limits[j])
			}
		}
		if plan.Weight == 0 {
			plan.Weight = p.Weight
		}
		if plan.Concurrency == 0 {
			plan.Concurrency, plan.Queue = p.Concurrency, p.Queue
		}
		if plan.Backend < 0 {
			plan.Backend = p.Backend
		}
		if p.Reject != nil && !rejectSaid {
			plan.Reject, rejectSaid = *p.Reject, true
		}
		plan.Headers = cmp.Or(plan.Headers, p.Headers)
	}
	plan.Weight = max(plan.Weight, 1)
	plan.Headers = cmp.Or(plan.Headers, "Off")
	return plan
}

// standing returns, of the limits of each name that are enforced, and of those in shadow, the one that stands.
func (s *Snapshot) standing(policies []int) map[namesake]rankedLimit {
	standing := make(map[namesake]rankedLimit)
	for _, i := range policies {
		for j := range s.Policies[i].Limits {
			r := s.ranked(i, j)
			if best, met := standing[r.namesake()]; !met || prevails(r, best) {
				standing[r.namesake()] = r
			}
		}
	}
	return standing
}

// namesake is what limits have in common of which a single one stands.
type namesake struct {
	name   string
	shadow bool
}

func (l *LimitRule) namesake() namesake { return namesake{l.Name, l.Shadow} }

// rankedLimit is a limit with all that decides whether it stands beside another of its name.
type rankedLimit struct {
	*LimitRule
	specificity Specificity
	policy      int // index in Snapshot.Policies, which is the order of names
}

func (s *Snapshot) ranked(policy, limit int) rankedLimit {
	p := &s.Policies[policy]
	return rankedLimit{LimitRule: &p.Limits[limit], specificity: p.Specificity, policy: policy}
}

// prevails reports whether, of two limits of one name and mode, a stands and b falls. It is a strict total order over the limits of
// different policies, so the one that stands does not depend on the order in which they are compared.
//
// A final limit stands before any other, and of two final ones the least specific stands: it is the platform's ceiling, and
// neither a name, nor a tie, nor another `final` gets around it. Among the rest the most specific stands.
func prevails(a, b rankedLimit) bool {
	switch {
	case a.Final != b.Final:
		return a.Final
	case a.specificity == b.specificity:
		return a.policy < b.policy
	case a.Final:
		return a.specificity < b.specificity
	}
	return a.specificity > b.specificity
}

// MostSpecificFirst returns the policies, each once, the most specific first and then by name.
func (s *Snapshot) MostSpecificFirst(policies []int) []int {
	order := slices.Clone(policies)
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(s.Policies[b].Specificity, s.Policies[a].Specificity), cmp.Compare(a, b))
	})
	return slices.Compact(order)
}

func (s *Snapshot) withSpecificity(want Specificity) []int {
	var indexes []int
	for i := range s.Policies {
		if s.Policies[i].Specificity == want {
			indexes = append(indexes, i)
		}
	}
	return indexes
}

// covers reports whether the policy applies to a tenant that has an identity.
func (p *TenantPolicy) covers(tenant string) bool {
	switch p.Specificity {
	case SpecNames:
		_, found := slices.BinarySearch(p.Names, tenant)
		return found
	case SpecMatch:
		return matches(p.Pattern, tenant)
	case SpecAny:
		return true
	}
	return false
}

// coverage answers Covering without a walk over every policy. Compile makes it; a snapshot made by hand works without.
type coverage struct {
	named    map[string][]int // tenant to the names policies that list it, ascending
	patterns []int            // match policies, ascending
	any      []int            // any policies, ascending
}

func newCoverage(s *Snapshot) *coverage {
	c := &coverage{
		named:    make(map[string][]int),
		patterns: s.withSpecificity(SpecMatch),
		any:      s.withSpecificity(SpecAny),
	}
	for i := range s.Policies {
		for _, tenant := range s.Policies[i].Names {
			c.named[tenant] = append(c.named[tenant], i)
		}
	}
	return c
}

// matches reports whether the pattern, in which each * stands for any bytes, none included, fits the whole tenant.
// The first piece is at the start and the last one at the end; each piece between is taken at its first place, which leaves the
// most room to those after it.
func matches(pattern, tenant string) bool {
	before, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == tenant
	}
	tenant, ok := strings.CutPrefix(tenant, before)
	if !ok {
		return false
	}
	for {
		piece, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(tenant, piece)
		}
		at := strings.Index(tenant, piece)
		if at < 0 {
			return false
		}
		tenant, rest = tenant[at+len(piece):], after
	}
}

// overlap returns a tenant that both patterns fit, or "" when there is none.
//
// Two patterns with stars overlap exactly when their heads agree and their tails agree: everything that either asks for in between
// can stand one after the other, since a star of the other one passes over it.
func overlap(a, b string) string {
	switch {
	case !strings.Contains(a, "*"):
		return onlyIf(matches(b, a), a)
	case !strings.Contains(b, "*"):
		return onlyIf(matches(a, b), b)
	}
	headA, headB := a[:strings.IndexByte(a, '*')], b[:strings.IndexByte(b, '*')]
	if len(headA) < len(headB) {
		headA, headB = headB, headA
	}
	tailA, tailB := a[strings.LastIndexByte(a, '*')+1:], b[strings.LastIndexByte(b, '*')+1:]
	if len(tailA) < len(tailB) {
		tailA, tailB = tailB, tailA
	}
	if !strings.HasPrefix(headA, headB) || !strings.HasSuffix(tailA, tailB) {
		return ""
	}
	example := cmp.Or(headA+middle(a)+middle(b)+tailA, "a") // a tenant has at least one byte
	return onlyIf(len(example) <= maxTenantBytes, example)
}

// maxTenantBytes is the length of the longest tenant.
const maxTenantBytes = 128

// middle returns what stands between the first star of a pattern and the last, without stars.
func middle(pattern string) string {
	between := pattern[strings.IndexByte(pattern, '*'):strings.LastIndexByte(pattern, '*')]
	return strings.ReplaceAll(between, "*", "")
}

func onlyIf(holds bool, s string) string {
	if holds {
		return s
	}
	return ""
}
