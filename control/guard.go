package control

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"weir/policy"
)

// The guard against removals. Whoever empties a prefix in a store, or points a sidecar at the wrong one, does not mean to lift the
// limits of everybody; but to a sidecar it looks the same as if he did. So a source with revisions cannot take many tenants out of
// policy until the author of the change has said that this is meant. What it adds and changes otherwise comes into force meanwhile.
//
// Files have no such guard: there is nobody to ask, a folder that vanishes is kept for other reasons, and they are the operator's
// own. For the same reason nothing is held when the operator's Sidecar no longer names a source.

// Removals are the tenants that a change takes out of policy.
type Removals struct {
	// Gone are they: names, and selectors as in `match "eu-*"`, `any` and `unknown`, sorted, names first. They are those that no
	// policy says any more, whatever other selectors cover them.
	Gone []string
	// Of is how many there were before.
	Of int
	// Any says that the last policy for any tenant is among them.
	Any bool
}

// Many reports whether the change needs to be confirmed: when it removes all tenants, more than 30 % of them and at least three, or
// the last policy for any tenant.
func (r Removals) Many() bool {
	gone := len(r.Gone)
	return gone > 0 && (gone == r.Of || r.Any || gone >= 3 && 10*gone > 3*r.Of)
}

// String says how many of how many, and names some, as in "3 of 4 tenants (75 %): acme, globex, any".
func (r Removals) String() string {
	const most = 5
	named := strings.Join(r.Gone[:min(len(r.Gone), most)], ", ")
	if more := len(r.Gone) - most; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%d of %d tenants (%d %%): %s", len(r.Gone), r.Of, 100*len(r.Gone)/max(r.Of, 1), named)
}

// guard keeps the documents by which a batch would remove many tenants: those that are gone from the source, and policies that no
// longer name a tenant who is gone.
func (p *plan) guard(r *reading, said map[objectKey][]object, keep func(object)) {
	if !r.known || r.revision == 0 {
		return
	}
	before := maps.Clone(r.stored)
	if before == nil {
		before = make(map[objectKey]object)
	}
	for key, o := range p.good {
		if o.source == r.source {
			before[key] = o
		}
	}
	if !dropsAny(before, said) || r.confirmed > 0 && r.confirmed >= r.whole {
		return
	}
	all, waiting := make(map[selector]bool), make(map[selector]bool)
	for _, o := range before {
		addSelectors(all, o.doc)
	}
	// A policy that stays as it was does not say what it would say now, which may be the last word about a tenant. So look again.
	for keeping := true; keeping; {
		gone, many := goneNow(before, said, all)
		maps.Copy(waiting, gone)
		keeping = false
		for key, o := range before {
			now := said[key]
			stays := now == nil && (o.held || many) || slices.ContainsFunc(selectorsOf(o.doc), func(s selector) bool { return gone[s] })
			if stays && (len(now) != 1 || now[0].digest != o.digest) && len(gone) > 0 {
				o.held, keeping = true, true
				keep(o)
			}
		}
	}
	if len(waiting) == 0 {
		return
	}
	held := removed(waiting, nil)
	held.Of = len(all)
	p.held[r.source] = held
	p.problems = append(p.problems, policy.Problem{Origin: policy.Origin{File: r.source}, Message: held.message(r.undo())})
}

// goneNow are the tenants whose removal is to wait: those for whom it waited before, and those who go now if they are many. The former do
// not count towards the share of the latter.
func goneNow(before map[objectKey]object, said map[objectKey][]object, all map[selector]bool) (gone map[selector]bool, many bool) {
	is := make(map[selector]bool)
	for _, candidates := range said {
		for _, o := range candidates {
			addSelectors(is, o.doc)
		}
	}
	gone = make(map[selector]bool)
	for _, o := range before {
		if o.held {
			addSelectors(gone, o.doc)
		}
	}
	without(gone, is)
	was := maps.Clone(all)
	without(was, gone)
	if many = removed(was, is).Many(); many {
		without(was, is)
		maps.Copy(gone, was)
	}
	return gone, many
}

// dropsAny reports whether a tenant may be gone: the quick answer to the usual change, which is of a limit and not of tenants.
func dropsAny(before map[objectKey]object, said map[objectKey][]object) bool {
	dropped := make(map[selector]bool)
	for key, o := range before {
		if now := said[key]; len(now) != 1 || now[0].digest != o.digest {
			addSelectors(dropped, o.doc)
			for _, candidate := range now {
				for _, s := range selectorsOf(candidate.doc) {
					delete(dropped, s)
				}
			}
		}
	}
	return len(dropped) > 0
}

// undo says how what is held is undone. A store that went back in time, or is another one, has no revision to go back to.
func (r *reading) undo() string {
	switch {
	case r.rewound:
		return "`sidecar apply` the documents again, of which a last-good file is a copy: the store was restored or replaced, so a rollback may not find them"
	case r.whole > 0 && r.whole < math.MaxInt64:
		return fmt.Sprintf("`sidecar rollback --to %d` undoes it", r.whole)
	}
	return "write them again, or `sidecar rollback`"
}

// message says that removals wait, and what to do.
func (r Removals) message(undo string) string {
	return fmt.Sprintf("held back: the removal of %s. They keep their limits, everything else is in force. "+
		"If it is meant, `sidecar apply --confirm-removals` lets it pass; if not, %s", r, undo)
}

// RemovedTenants compares the TenantPolicies of two sets of documents. It looks at tenants as they are written, for whichever service:
// so everybody who sees the same change comes to the same answer.
func RemovedTenants(before, after []*policy.Document) Removals {
	was, is := make(map[selector]bool), make(map[selector]bool)
	for _, d := range before {
		addSelectors(was, d)
	}
	for _, d := range after {
		addSelectors(is, d)
	}
	return removed(was, is)
}

// removed compares two sets.
func removed(was, is map[selector]bool) Removals {
	r := Removals{Of: len(was)}
	for _, s := range slices.SortedFunc(maps.Keys(was), compareSelectors) {
		if !is[s] {
			r.Gone = append(r.Gone, s.String())
			r.Any = r.Any || s.by == policy.SpecAny
		}
	}
	return r
}

// without takes those of b out of a.
func without(a, b map[selector]bool) {
	maps.DeleteFunc(a, func(s selector, _ bool) bool { return b[s] })
}

// selector is one tenant as a policy says it: by name, or by what covers it.
type selector struct {
	by   policy.Specificity
	text string // the name or the pattern
}

// String is the name, or the selector in the words of documents.
func (s selector) String() string {
	switch s.by {
	case policy.SpecNames:
		return s.text
	case policy.SpecMatch:
		return fmt.Sprintf("match %q", s.text)
	}
	return s.by.String()
}

// compareSelectors puts names first.
func compareSelectors(a, b selector) int {
	return cmp.Or(cmp.Compare(b.by, a.by), cmp.Compare(a.text, b.text))
}

// addSelectors adds the tenants of a document to a set.
func addSelectors(set map[selector]bool, d *policy.Document) {
	for _, s := range selectorsOf(d) {
		set[s] = true
	}
}

// selectorsOf are the tenants of a document: none unless it is a TenantPolicy.
func selectorsOf(d *policy.Document) []selector {
	spec, ok := d.Spec.(*policy.TenantPolicySpec)
	if !ok {
		return nil
	}
	switch t := spec.Tenants; {
	case t.Any:
		return []selector{{by: policy.SpecAny}}
	case t.Unknown:
		return []selector{{by: policy.SpecUnknown}}
	case t.Match != "":
		return []selector{{policy.SpecMatch, t.Match}}
	default:
		list := make([]selector, 0, len(t.Names))
		for _, name := range t.Names {
			list = append(list, selector{policy.SpecNames, name})
		}
		return list
	}
}
