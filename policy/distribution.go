package policy

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// DistributionSpec keeps the documents of many etcd clusters equal to those of one. `sidecar sync` carries it out; a running sidecar
// passes over documents of this kind, and they are not distributed themselves.
type DistributionSpec struct {
	// From is the cluster whose documents are distributed. Nothing is written to it.
	From EtcdSource `yaml:"from" weir:"required"`
	// To are the clusters that get them. Documents that others write there are taken back.
	To []DistributionTarget `yaml:"to" weir:"required"`
}

// DistributionTarget is one cluster that gets documents.
type DistributionTarget struct {
	// Name is what status, logs and metrics call the cluster.
	Name string `yaml:"name" weir:"required,format=dnslabel"`
	// Etcd is the cluster, and the prefix in it that is kept equal.
	Etcd EtcdSource `yaml:"etcd" weir:"required"`
	// Selector chooses the documents that the cluster gets. Empty means all of them.
	Selector DocumentSelector `yaml:"selector"`
	// Overlays change documents for this cluster, one after the other.
	Overlays []Overlay `yaml:"overlays"`
}

// DocumentSelector chooses documents. All of its conditions must hold.
type DocumentSelector struct {
	// Kinds are the kinds chosen. Empty means all but Distribution, which is never distributed.
	Kinds []string `yaml:"kinds" weir:"enum=Sidecar|Backend|Route|TenantPolicy|BreakerPolicy|PolicyTest"`
	// MatchLabels are labels that a document must have, with these values.
	MatchLabels map[string]string `yaml:"matchLabels"`
}

// Overlay changes the spec of some documents.
type Overlay struct {
	// Kind of the documents.
	Kind string `yaml:"kind" weir:"required,enum=Sidecar|Backend|Route|TenantPolicy|BreakerPolicy|PolicyTest"`
	// Name of the one document that is changed. Without name and matchLabels all of the kind are.
	Name string `yaml:"name" weir:"format=dnslabel"`
	// MatchLabels are labels that the documents have, in the place of a name.
	MatchLabels map[string]string `yaml:"matchLabels"`
	// Patch is what to change.
	Patch Patch `yaml:"patch" weir:"required"`
}

// Patch is a part of a spec, of the kind that its overlay names. It is merged with a document's spec field by field: what it does not
// name stays, null takes a field away, lists whose items have a required name are merged by it, other lists are replaced.
//
// The value is what was written, in JSON with sorted keys. What is merged is the document's own text.
type Patch string

// patchOf is the value of a patch.
func patchOf(n *node) Patch {
	switch n.kind {
	case mappingNode:
		var fields []string
		for _, e := range n.fields {
			fields = append(fields, strconv.Quote(e.key.text)+": "+string(patchOf(e.value)))
		}
		slices.Sort(fields)
		return Patch("{" + strings.Join(fields, ", ") + "}")
	case sequenceNode:
		var items []string
		for _, item := range n.items {
			items = append(items, string(patchOf(item)))
		}
		return Patch("[" + strings.Join(items, ", ") + "]")
	}
	switch n.scalar {
	case stringScalar:
		return Patch(strconv.Quote(n.text))
	case nullScalar:
		return "null"
	}
	return Patch(n.text)
}

// Selects reports whether a document goes to the cluster.
func (t *DistributionTarget) Selects(d *Document) bool {
	kinds := t.Selector.Kinds
	return d.Kind != KindDistribution && (len(kinds) == 0 || slices.Contains(kinds, string(d.Kind))) && hasLabels(d, t.Selector.MatchLabels)
}

// Changes reports whether the overlay is for a document.
func (o *Overlay) Changes(d *Document) bool {
	return o.Kind == string(d.Kind) && (o.Name == "" || o.Name == d.Name) && hasLabels(d, o.MatchLabels)
}

func hasLabels(d *Document, want map[string]string) bool {
	for name, value := range want {
		if got, ok := d.Metadata.Labels[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// PassedOver reports whether a sidecar passes over documents of a kind: they are for other commands, and may stand beside those that
// can be in force.
func (k Kind) PassedOver() bool { return k == KindPolicyTest || k == KindDistribution }

func (d *decoder) distribution(s *DistributionSpec) {
	d.etcd(&s.From, "spec.from")
	places := firsts{place(&s.From): "spec.from"}
	names := firsts{}
	for i := range s.To {
		t, at := &s.To[i], joinIndex("spec.to", i)
		d.unique(names, t.Name, at+".name")
		d.etcd(&t.Etcd, at+".etcd")
		if len(t.Etcd.Endpoints) > 0 {
			d.unique(places, place(&t.Etcd), at+".etcd")
		}
		kinds := firsts{}
		for j, kind := range t.Selector.Kinds {
			d.unique(kinds, kind, joinIndex(at+".selector.kinds", j))
		}
		for j := range t.Overlays {
			d.overlay(&t.Overlays[j], joinIndex(at+".overlays", j))
		}
	}
}

// place is where an etcd source reads and writes, as far as that can be told without asking.
func place(s *EtcdSource) string {
	return strings.Join(slices.Sorted(slices.Values(s.Endpoints)), ",") + " below " + strings.TrimRight(s.Prefix, "/")
}

// overlay checks a patch as what it is, a part of a spec: what is wrong with it is said where it is written.
func (d *decoder) overlay(o *Overlay, at string) {
	if o.Name != "" && len(o.MatchLabels) > 0 {
		d.fail(at+".matchLabels", "does not go with name, which means one document")
	}
	spec := d.shapes.newSpec(Kind(o.Kind))
	patch := d.doc.tree.value(at + ".patch")
	if spec == nil || patch == nil || patch.kind != mappingNode {
		return // reported already
	}
	d.partial = true
	d.value(patch, reflect.ValueOf(spec).Elem(), &Field{}, at+".patch")
	d.partial = false
}
