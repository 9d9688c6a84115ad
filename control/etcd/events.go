package etcd

import (
	"bytes"
	"cmp"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// event is one change of one key: what it is since a revision, or that it is gone since then.
type event struct {
	Item // of a deletion only Key and Modified, the revision of the deletion
	gone bool
}

func eventOf(e *mvccpb.Event) event {
	if e.Type == mvccpb.Event_DELETE {
		return event{Item{Key: string(e.Kv.Key), Modified: e.Kv.ModRevision}, true}
	}
	return event{itemOf(e.Kv), false}
}

func itemOf(kv *mvccpb.KeyValue) Item {
	return Item{string(kv.Key), kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}
}

// inbox collects events until they can be applied. A large answer comes in fragments, which may cut a transaction in two; what is
// not whole yet waits, so that nobody ever sees half of a transaction.
type inbox struct {
	whole   []event
	partial []event
}

// add takes an answer in.
func (b *inbox) add(answer *pb.WatchResponse) {
	for _, e := range answer.Events {
		b.partial = append(b.partial, eventOf(e))
	}
	if !answer.Fragment {
		b.whole = append(b.whole, b.partial...)
		b.partial = nil
	}
}

// take empties the inbox of what is whole.
func (b *inbox) take() []event {
	events := b.whole
	b.whole = nil
	return events
}

// with is the view after events, in the order of their revisions whatever the order they come in. Events at or before the view's own
// revision are dropped: watches have been late, duplicated and back in time. Dropped reports that one of these says something that
// the view does not know, so that it may have been missed, and only a list can tell. The view itself is not changed.
func (v View) with(events []event) (next View, dropped bool) {
	fresh := make([]event, 0, len(events))
	for _, e := range events {
		if e.Modified > v.Revision {
			fresh = append(fresh, e)
		} else if v.lacks(e) {
			dropped = true
		}
	}
	if len(fresh) == 0 {
		return v, dropped
	}
	next.Revision = v.Revision
	latest := make(map[string]event, len(fresh))
	for _, e := range fresh {
		if e.Modified >= latest[e.Key].Modified {
			latest[e.Key] = e
		}
		next.Revision = max(next.Revision, e.Modified)
	}
	next.Items = make([]Item, 0, len(v.Items)+len(latest))
	for _, item := range v.Items {
		if _, changed := latest[item.Key]; !changed {
			next.Items = append(next.Items, item)
		}
	}
	for _, e := range latest {
		if !e.gone {
			next.Items = append(next.Items, e.Item)
		}
	}
	slices.SortFunc(next.Items, func(a, b Item) int { return cmp.Compare(a.Key, b.Key) })
	return next, dropped
}

// lacks reports whether an event that the view should have seen says more than the view does. A late repetition of a key's creation
// after its deletion looks the same as one that was missed.
func (v View) lacks(e event) bool {
	item, ok := v.Find(e.Key)
	return ok && item.Modified < e.Modified || !ok && !e.gone
}

// differences are the keys at which two views differ, sorted.
func (v View) differences(other View) []string {
	var keys []string
	i, j := 0, 0
	for i < len(v.Items) || j < len(other.Items) {
		switch {
		case j == len(other.Items) || i < len(v.Items) && v.Items[i].Key < other.Items[j].Key:
			keys = append(keys, v.Items[i].Key)
			i++
		case i == len(v.Items) || other.Items[j].Key < v.Items[i].Key:
			keys = append(keys, other.Items[j].Key)
			j++
		default:
			if a, b := v.Items[i], other.Items[j]; a.Modified != b.Modified || !bytes.Equal(a.Value, b.Value) {
				keys = append(keys, a.Key)
			}
			i++
			j++
		}
	}
	return keys
}
