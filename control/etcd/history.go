package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/policy/diff"
)

// Entry is one change in the history of documents.
type Entry struct {
	Revision int64
	// Change says who it was; nil when somebody wrote past the sidecar's commands, who recorded nothing.
	Change *Change
	// Documents say in words what became different.
	Documents []diff.Change
}

// History is what a store remembers of the changes of its documents.
type History struct {
	Entries []Entry // the latest first
	// Forgotten says that there were changes before these which etcd has compacted away, or may have been.
	Forgotten bool
}

// History reads the latest changes, at most limit of them, of all documents or only of one. Changes that were not recorded are told
// apart by revision as far as the store can tell.
func (c *Client) History(ctx context.Context, layout Layout, only *diff.Key, limit int) (History, error) {
	var h History
	w := historian{client: c, layout: layout, from: layout.Policy(), end: clientv3.GetPrefixRangeEnd(layout.Policy())}
	if only != nil {
		w.from, w.end = layout.Document(only.Kind, only.Name), ""
	}
	now, err := w.get(ctx, layout.Change(), "", 0)
	if err != nil {
		return History{}, fmt.Errorf("cannot read the history: %w", err)
	}
	at := now.Revision
	for at > 0 && len(h.Entries) < limit {
		entries, before, err := w.latest(ctx, at)
		if errors.Is(err, rpctypes.ErrCompacted) {
			h.Forgotten = true
			break
		}
		if err != nil {
			return History{}, fmt.Errorf("cannot read the history: %w", err)
		}
		h.Entries = append(h.Entries, entries...)
		at = before
	}
	if at == 0 { // what was before the first record that is known
		if _, err := w.get(ctx, layout.Change(), "", 1); errors.Is(err, rpctypes.ErrCompacted) {
			h.Forgotten = true
		} else if err != nil {
			return History{}, fmt.Errorf("cannot read the history: %w", err)
		}
	}
	h.Entries = h.Entries[:min(len(h.Entries), limit)]
	return h, nil
}

// historian reads keys, or all below a prefix, at revisions of the past.
type historian struct {
	client    *Client
	layout    Layout
	from, end string // of the documents; end is empty for a single one
}

// read is what was found at one revision.
type read struct {
	View
	Count int64 // of keys, also when they were only counted
}

func (w *historian) get(ctx context.Context, from, end string, at int64, more ...clientv3.OpOption) (read, error) {
	ctx, cancel := w.client.Call(ctx)
	defer cancel()
	options := append(more, clientv3.WithRev(at))
	if end != "" {
		options = append(options, clientv3.WithRange(end))
	}
	answer, err := w.client.Etcd().Get(ctx, from, options...)
	if err != nil {
		return read{}, w.client.Explain(rpctypes.Error(err))
	}
	r := read{View{Revision: answer.Header.Revision}, answer.Count}
	for _, kv := range answer.Kvs {
		r.Items = append(r.Items, itemOf(kv))
	}
	return r, nil
}

// latest is the latest recorded change up to a revision or, where more was changed since and not recorded, that. It returns from where to
// go on.
func (w *historian) latest(ctx context.Context, at int64) (entries []Entry, before int64, err error) {
	found, err := w.get(ctx, w.layout.Change(), "", at)
	if err != nil {
		return nil, 0, err
	}
	var record Item
	if len(found.Items) > 0 {
		before = found.Items[0].Modified
	} else if before, err = w.vanished(ctx, at); err != nil {
		return nil, 0, err
	}
	if before == at {
		before--
		if len(found.Items) > 0 {
			record = found.Items[0]
		}
	}
	entries, err = w.between(ctx, before, at, record)
	return entries, before, err
}

// between tells what changed after one revision and up to another, the latest first. All that changed at the revision of a record is the
// change that it records.
func (w *historian) between(ctx context.Context, before, at int64, record Item) ([]Entry, error) {
	written, err := w.get(ctx, w.from, w.end, at, clientv3.WithMinModRev(before+1))
	if err != nil {
		return nil, err
	}
	changes := make(map[int64][]diff.Change)
	created := int64(0)
	for _, item := range written.Items {
		there := item.Created <= before
		if !there {
			created++
		}
		kind, name, err := w.layout.DocumentOf(item.Key)
		if err != nil {
			continue // the record, or nothing of ours
		}
		key, was := diff.Key{Kind: kind, Name: name}, Stored{}
		if there {
			old, err := w.get(ctx, item.Key, "", before)
			if err != nil {
				return nil, err
			}
			was = NewStored(storeName, key, string(old.Items[0].Value))
			if was.Text == string(item.Value) {
				continue // somebody wrote what was there
			}
		}
		changes[item.Modified] = append(changes[item.Modified], changeOf(key, there, was, NewStored(storeName, key, string(item.Value))))
	}
	gone, err := w.gone(ctx, before, at, created)
	if err != nil {
		return nil, err
	}
	changes[at] = append(changes[at], gone...)
	return w.entries(changes, record)
}

// gone are the documents that were there at one revision and are not at another. Keys are listed only when their numbers tell that some
// are gone.
func (w *historian) gone(ctx context.Context, before, at, created int64) ([]diff.Change, error) {
	if before == 0 {
		return nil, nil
	}
	had, err := w.get(ctx, w.from, w.end, before, clientv3.WithCountOnly())
	if err != nil {
		return nil, err
	}
	has, err := w.get(ctx, w.from, w.end, at, clientv3.WithCountOnly())
	if err != nil || had.Count+created == has.Count {
		return nil, err
	}
	old, err := w.get(ctx, w.from, w.end, before)
	if err != nil {
		return nil, err
	}
	now, err := w.get(ctx, w.from, w.end, at, clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	was := DocumentsOf(w.layout, old.View)
	var gone []diff.Key
	for _, s := range was.Stored {
		if _, still := now.Find(w.layout.Document(s.Kind, s.Name)); !still {
			gone = append(gone, s.Key)
		}
	}
	p := PlanOf(was, nil, gone)
	return p.Changes, nil
}

// entries makes one of each revision at which something changed.
func (w *historian) entries(changes map[int64][]diff.Change, record Item) ([]Entry, error) {
	var entries []Entry
	for revision, docs := range changes {
		recorded := revision == record.Modified
		if len(docs) == 0 && (!recorded || w.end == "") {
			continue
		}
		slices.SortFunc(docs, func(a, b diff.Change) int { return keyOf(a).Compare(keyOf(b)) })
		e := Entry{Revision: revision, Documents: docs}
		if recorded {
			c, err := ParseChange(record.Value)
			if err != nil {
				return nil, err
			}
			e.Change = &c
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(b.Revision, a.Revision) })
	return entries, nil
}

// Changes returns who wrote at each of some revisions, as far as somebody recorded it and etcd remembers.
func (c *Client) Changes(ctx context.Context, layout Layout, revisions []int64) (map[int64]Change, error) {
	changes := make(map[int64]Change)
	w := historian{client: c, layout: layout}
	revisions = slices.Compact(slices.Sorted(slices.Values(revisions)))
	for _, revision := range slices.Backward(revisions) {
		found, err := w.get(ctx, layout.Change(), "", revision)
		if errors.Is(err, rpctypes.ErrCompacted) {
			return changes, nil // and so are all before
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read who wrote at revision %d: %w", revision, err)
		}
		if len(found.Items) == 0 || found.Items[0].Modified != revision {
			continue
		}
		if change, err := ParseChange(found.Items[0].Value); err == nil {
			changes[revision] = change
		}
	}
	return changes, nil
}
