package diff

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"weir/policy"
)

// Action is what became of a document.
type Action string

// Actions.
const (
	Added   Action = "added"
	Removed Action = "removed"
	Changed Action = "changed"
)

// Change is one document that is there, or is not, or says something else than before.
type Change struct {
	Kind   policy.Kind `json:"kind"`
	Name   string      `json:"name"`
	Action Action      `json:"action"`
	// Differences are in the order of the reference; there is at least one.
	Differences []Difference `json:"differences"`
}

// Difference is one thing that is different.
type Difference struct {
	// Path is the field, as in spec.limits[steady].burst, where items of a list are told by name if they have one. Empty: the whole
	// document.
	Path string `json:"path,omitempty"`
	// Text is the difference in words: a sentence that stands alone, without a full stop and on one line. What people wrote is in it
	// with its control characters escaped.
	Text string `json:"text"`
	// Before and After are the values, empty where there is none.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Key tells a document from all others of a set.
type Key struct {
	Kind policy.Kind
	Name string
}

// KeyOf is the key of a document.
func KeyOf(d *policy.Document) Key { return Key{d.Kind, d.Name} }

// Compare orders keys by kind, in the order of the reference, and then by name.
func (k Key) Compare(other Key) int {
	kinds := policy.Kinds()
	return cmp.Or(cmp.Compare(slices.Index(kinds, k.Kind), slices.Index(kinds, other.Kind)), cmp.Compare(k.Name, other.Name))
}

// Documents compares two sets of documents, each of which has every kind and name once. The changes are sorted by [Key.Compare].
func Documents(before, after []*policy.Document) []Change {
	was, is := make(map[Key]*policy.Document), make(map[Key]*policy.Document)
	all := make(map[Key]bool)
	for _, d := range before {
		was[KeyOf(d)], all[KeyOf(d)] = d, true
	}
	for _, d := range after {
		is[KeyOf(d)], all[KeyOf(d)] = d, true
	}
	var changes []Change
	for _, key := range slices.SortedFunc(maps.Keys(all), Key.Compare) {
		if c, differs := Document(was[key], is[key]); differs {
			changes = append(changes, c)
		}
	}
	return changes
}

// Document compares a document with what it was. Either may be nil: it is not there. It reports false when they are the same to the
// letter; two that mean the same and are written in other ways have one difference, which says so.
func Document(before, after *policy.Document) (Change, bool) {
	if before == nil && after == nil {
		return Change{}, false
	}
	if before == nil {
		return whole(after, Added), true
	}
	if after == nil {
		return whole(before, Removed), true
	}
	c := Change{Kind: after.Kind, Name: after.Name, Action: Changed, Differences: meanings(before, after)}
	if len(c.Differences) == 0 && before.Text() != after.Text() {
		c.Differences = []Difference{{Text: Subject(after.Kind, after.Name) + ": text only, it means the same"}}
	}
	return c, len(c.Differences) > 0
}

// meanings are the differences in what two documents of one kind and name mean.
func meanings(before, after *policy.Document) []Difference {
	w := walker{subject: Subject(after.Kind, after.Name)}
	if spec, ok := after.Spec.(*policy.TenantPolicySpec); ok {
		w.who = spec.Tenants
	}
	w.fields(place{path: "metadata"}, reflect.ValueOf(before.Metadata), reflect.ValueOf(after.Metadata))
	w.fields(place{path: "spec"}, reflect.ValueOf(before.Spec).Elem(), reflect.ValueOf(after.Spec).Elem())
	return w.found
}

// whole is the change of a document that came or went.
func whole(d *policy.Document, action Action) Change {
	text := Subject(d.Kind, d.Name) + ": " + string(action)
	if s := Summary(d); s != "" {
		text += ", " + s
	}
	return Change{Kind: d.Kind, Name: d.Name, Action: action, Differences: []Difference{{Text: text}}}
}

// Subject is how sentences call a document: a policy for tenants by its name alone, as in gold, all others with what they are, as in
// backend orders.
func Subject(kind policy.Kind, name string) string {
	switch kind {
	case policy.KindTenantPolicy:
		return plain(name)
	case policy.KindBackend:
		return "backend " + plain(name)
	case policy.KindRoute:
		return "route " + plain(name)
	case policy.KindBreakerPolicy:
		return "breaker " + plain(name)
	case policy.KindSidecar:
		return "sidecar " + plain(name)
	case policy.KindPolicyTest:
		return "test " + plain(name)
	}
	return plain(string(kind)) + " " + plain(name)
}
