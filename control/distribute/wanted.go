package distribute

import (
	"weir/control"
	"weir/policy"
)

// rule is what a Distribution says of one cluster.
type rule struct {
	distribution *policy.Document
	to           int
}

func (r rule) target() *policy.DistributionTarget {
	return &r.distribution.Spec.(*policy.DistributionSpec).To[r.to]
}

// whole reports whether the cluster gets all documents as they are.
func (r rule) whole() bool {
	t := r.target()
	return len(t.Selector.Kinds) == 0 && len(t.Selector.MatchLabels) == 0 && len(t.Overlays) == 0
}

// wanted is what a cluster should have. It is never changed.
type wanted struct {
	catalog *catalog
	texts   map[string]text
	// left are keys that stay as they are at the cluster: their documents cannot be used, and it is not known how they last could.
	left map[string]bool
	// problems are those of the overlays.
	problems []policy.Problem
}

// want says what the cluster should have of a catalog. Documents that cannot be used stay as they were wanted before, which may be nil.
func (r rule) want(c *catalog, before *wanted) *wanted {
	w := &wanted{catalog: c, texts: make(map[string]text, len(c.texts)), left: make(map[string]bool)}
	keep := func(key string) {
		if before != nil {
			if old, ok := before.texts[key]; ok {
				w.texts[key] = old
				return
			}
		}
		w.left[key] = true
	}
	target := r.target()
	for key, t := range c.texts {
		if !target.Selects(t.doc) {
			continue
		}
		if before != nil {
			if old, ok := before.texts[key]; ok && old.from == t.doc {
				w.texts[key] = old
				continue
			}
		}
		doc, problems := r.distribution.Overlaid(r.to, t.doc)
		w.problems = append(w.problems, problems...)
		switch {
		case doc == nil:
			keep(key)
			continue
		case doc != t.doc:
			t.doc, t.data = doc, []byte(doc.Text())
		}
		w.texts[key] = t
	}
	for key := range c.broken {
		keep(key)
	}
	return w
}

// verdict is whether something may be brought to a cluster.
type verdict struct {
	// held says why not; empty: it may.
	held string
	// confirmed says that it takes many tenants away, and that this is meant.
	confirmed bool
}

// judge says whether what is wanted may be brought to the cluster: it must go together, and not take many tenants away unless the
// author of the change at the source has confirmed that. left are the documents at the cluster that stay as they are, before those
// that were brought there when the source had been written last at the revision since; what it had confirmed until then does not count.
func (r rule) judge(w *wanted, left, before []*policy.Document, since int64) verdict {
	docs := append(documents(w.texts), left...)
	if !r.whole() || len(left) > 0 {
		for _, p := range problemsOf(docs) {
			if !w.catalog.flaws()[flaw{p.Kind, p.Name, p.Path}] {
				return verdict{held: "its documents do not go together: " + p.String()}
			}
		}
	}
	if len(control.RemovedTenants(apart(before, docs), apart(docs, before)).Gone) == 0 {
		return verdict{} // most changes take nobody away, which a look at what has changed can tell
	}
	removals := control.RemovedTenants(before, docs)
	switch {
	case !removals.Many():
		return verdict{}
	case w.catalog.change.ConfirmedRemovals >= since:
		return verdict{confirmed: true}
	}
	return verdict{held: "would take away " + removals.String() + "; if that is meant, confirm it at the source with sidecar apply --confirm-removals"}
}

// apart are the documents that others do not have.
func apart(docs, others []*policy.Document) []*policy.Document {
	known := make(map[*policy.Document]bool, len(others))
	for _, d := range others {
		known[d] = true
	}
	var all []*policy.Document
	for _, d := range docs {
		if !known[d] {
			all = append(all, d)
		}
	}
	return all
}
