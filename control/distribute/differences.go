package distribute

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"

	"weir/control/etcd"
	"weir/policy"
)

// Cause is whose doing a difference is.
type Cause string

// The causes. All but the first are drift.
const (
	Behind  Cause = "behind"  // the source, or the distribution, has changed
	Changed Cause = "changed" // somebody else wrote the document at the cluster
	Missing Cause = "missing" // somebody else deleted it there
	Extra   Cause = "extra"   // somebody else put it there
)

// Difference is one key that is not as it should be.
type Difference struct {
	Key   string // KIND/NAME
	Cause Cause
	// Put is what it should be; nil: it should not be there.
	Put []byte
	// Is is what it is, written last at the cluster's revision At; nil and 0: it is not there.
	Is []byte
	At int64
}

// Drift reports whether somebody else made the difference.
func (d Difference) Drift() bool { return d.Cause != Behind }

// compare lists what a cluster has that is not as it should be, in the order in which to write it: what others refer to before what
// refers to it, and deletions last, the other way round. ours are the revisions at which we wrote the keys; one that is there with
// another was written by somebody else.
func compare(w *wanted, have map[string]etcd.Item, ours map[string]int64) []Difference {
	var all []Difference
	for key, t := range w.texts {
		item, there := have[key]
		wrote, known := ours[key]
		d := Difference{Key: key, Cause: Behind, Put: t.data, Is: item.Value, At: item.Modified}
		switch {
		case there && bytes.Equal(item.Value, t.data):
			continue
		case there && wrote != item.Modified:
			d.Cause = Changed
		case !there && known:
			d.Cause = Missing
		}
		all = append(all, d)
	}
	for key, item := range have {
		if _, ok := w.texts[key]; ok || w.left[key] {
			continue
		}
		wrote, known := ours[key]
		d := Difference{Key: key, Cause: Behind, Is: item.Value, At: item.Modified}
		switch {
		case !known:
			d.Cause = Extra
		case wrote != item.Modified:
			d.Cause = Changed
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Key, b.Key))
	})
	return all
}

// rank is when a difference is written.
func (d Difference) rank() int {
	kind, _, _ := strings.Cut(d.Key, "/")
	return etcd.Rank(policy.Kind(kind), d.Put == nil)
}

// chunks cuts differences into transactions, each with room for the change and the record.
func chunks(all []Difference) [][]Difference {
	return etcd.InParts(all, 2, func(d Difference) int { return len(d.Key) + len(d.Put) })
}

// adopt says which keys of a cluster we wrote, when nothing is remembered: those that were there already when the record was written,
// since it is written with everything that we write.
func adopt(have map[string]etcd.Item, recorded int64) map[string]int64 {
	ours := make(map[string]int64)
	for key, item := range have {
		if item.Modified <= recorded {
			ours[key] = item.Modified
		}
	}
	return ours
}

// own takes over what is as it should be, whoever made it so: who was faster than we, or undid what he did, is not to blame for what the
// source changes later.
func own(ours map[string]int64, w *wanted, have map[string]etcd.Item) {
	for key, t := range w.texts {
		if item, there := have[key]; there && bytes.Equal(item.Value, t.data) {
			ours[key] = item.Modified
		}
	}
	maps.DeleteFunc(ours, func(key string, _ int64) bool {
		_, wanted := w.texts[key]
		_, there := have[key]
		return !wanted && !there && !w.left[key]
	})
}

// recall adds what we must have written, and what is not there any more: documents that have been at the source unchanged since
// before its revision in the record.
func recall(ours map[string]int64, w *wanted, have map[string]etcd.Item, revision int64) {
	for key, t := range w.texts {
		if _, there := have[key]; !there && t.modified <= revision {
			ours[key] = 0 // at no revision that is left
		}
	}
}
