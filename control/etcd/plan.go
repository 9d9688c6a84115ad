package etcd

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"weir/policy"
	"weir/policy/diff"
)

// Plan is what a change of documents would do: a value, made before anything is written.
type Plan struct {
	// Before is what it starts from, and After what is there then; of the documents after, those that are written have no revisions yet.
	Before Documents
	After  []Stored // sorted by [diff.Key.Compare]
	// Changes say in words what differs.
	Changes []diff.Change

	writes []step
}

// step is one document to be written.
type step struct {
	Write
	key diff.Key
}

func (s step) rank() int { return Rank(s.key.Kind, s.Value == nil) }

// PlanOf plans to put some documents and to delete others. What is there already, to the letter, is not written. A document that is both
// put and deleted is put; one that is deleted and not there changes nothing.
func PlanOf(before Documents, put []Stored, remove []diff.Key) Plan {
	p := Plan{Before: before, After: slices.Clone(before.Stored)}
	for _, s := range put {
		remove = slices.DeleteFunc(slices.Clone(remove), func(k diff.Key) bool { return k == s.Key })
		p.put(s)
	}
	for _, key := range remove {
		p.remove(key)
	}
	slices.SortStableFunc(p.writes, func(a, b step) int { return cmp.Or(cmp.Compare(a.rank(), b.rank()), a.key.Compare(b.key)) })
	slices.SortFunc(p.Changes, func(a, b diff.Change) int { return keyOf(a).Compare(keyOf(b)) })
	return p
}

func keyOf(c diff.Change) diff.Key { return diff.Key{Kind: c.Kind, Name: c.Name} }

func (p *Plan) put(s Stored) {
	i, there := slices.BinarySearchFunc(p.After, s.Key, func(e Stored, k diff.Key) int { return e.Compare(k) })
	w := Write{Key: p.Before.Layout.Document(s.Kind, s.Name), Value: []byte(s.Text)}
	var was Stored
	if there {
		was = p.After[i]
		if was.Text == s.Text {
			return
		}
		w.Expect, p.After[i] = was.Modified, s
	} else {
		p.After = slices.Insert(p.After, i, s)
	}
	p.writes = append(p.writes, step{w, s.Key})
	p.Changes = append(p.Changes, changeOf(s.Key, there, was, s))
}

func (p *Plan) remove(key diff.Key) {
	i, there := slices.BinarySearchFunc(p.After, key, func(e Stored, k diff.Key) int { return e.Compare(k) })
	if !there {
		return
	}
	was := p.After[i]
	p.After = slices.Delete(p.After, i, i+1)
	p.writes = append(p.writes, step{Write{Key: p.Before.Layout.Document(key.Kind, key.Name), Expect: was.Modified}, key})
	c, differs := diff.Document(was.Document, nil)
	if !differs {
		c = unreadable(key, diff.Removed, "removed; it could not be read")
	}
	p.Changes = append(p.Changes, c)
}

// changeOf says what differs, also where one of the two texts is no document.
func changeOf(key diff.Key, there bool, was, is Stored) diff.Change {
	switch {
	case is.Document == nil:
		if !there {
			return unreadable(key, diff.Added, "added; it cannot be read")
		}
		return unreadable(key, diff.Changed, "replaced by a text that cannot be read")
	case there && was.Document == nil:
		return unreadable(key, diff.Changed, "replaces a text that could not be read: "+diff.Summary(is.Document))
	}
	c, _ := diff.Document(was.Document, is.Document)
	return c
}

func unreadable(key diff.Key, action diff.Action, text string) diff.Change {
	return diff.Change{Kind: key.Kind, Name: key.Name, Action: action, Differences: []diff.Difference{
		{Text: diff.Subject(key.Kind, key.Name) + ": " + text},
	}}
}

// Differences says in words what differs between two readings of a store.
func Differences(before, after Documents) []diff.Change {
	var gone []diff.Key
	for _, s := range before.Stored {
		if _, still := after.Find(s.Key); !still {
			gone = append(gone, s.Key)
		}
	}
	p := PlanOf(before, after.Stored, gone)
	return p.Changes
}

// Empty reports whether there is nothing to write.
func (p *Plan) Empty() bool { return len(p.writes) == 0 }

// Decoded are the documents after the change that can be read.
func (p *Plan) Decoded() []*policy.Document { return decoded(p.After) }

// Parts is how many transactions it takes. Each of them leaves no reference without its document.
func (p *Plan) Parts() int { return len(p.parts()) }

// parts are the writes of each transaction; there is one at least, which holds the record alone when there is nothing else.
func (p *Plan) parts() [][]step {
	if p.Empty() {
		return [][]step{nil}
	}
	return InParts(p.writes, 1, func(s step) int { return len(s.Key) + len(s.Value) })
}

// Overtaken finds, among the documents that a plan would write, those that are not as they were in an earlier reading: whoever made the
// plan from that reading does not know of what was done to them since.
func (p *Plan) Overtaken(saw Documents) []diff.Key {
	var keys []diff.Key
	for _, s := range p.writes {
		if was, _ := saw.Find(s.key); was.Modified != s.Expect {
			keys = append(keys, s.key)
		}
	}
	return keys
}

// Counts are how many documents are put and deleted.
func (p *Plan) Counts() (put, deleted int) {
	for _, s := range p.writes {
		if s.Value == nil {
			deleted++
		} else {
			put++
		}
	}
	return put, deleted
}

// Same reports whether two plans write the same over the same.
func (p *Plan) Same(other Plan) bool {
	return slices.EqualFunc(p.writes, other.writes, func(a, b step) bool {
		return a.key == b.key && a.Expect == b.Expect && (a.Value == nil) == (b.Value == nil) && string(a.Value) == string(b.Value)
	})
}

// PartError says that some transactions of a change were written and another was not.
type PartError struct {
	// Done of Of transactions were written. Revision is that of the last one.
	Done, Of int
	Revision int64
	Err      error
}

func (e *PartError) Error() string {
	return fmt.Sprintf("%d of %d parts are written, up to revision %d; part %d is not: %v", e.Done, e.Of, e.Revision, e.Done+1, e.Err)
}

func (e *PartError) Unwrap() error { return e.Err }

// Write does what a plan says, and records who did it. Nothing is written when anything at all was changed since the documents were read,
// since what was validated with the plan would be something else then: the error is an [ErrConflict]. A plan of several parts may end with
// a [PartError]. Of change, Part, Parts and ConfirmedRemovals are set here. It returns the revision that has everything.
func (c *Client) Write(ctx context.Context, p Plan, change Change) (revision int64, err error) {
	parts := p.parts()
	change.ConfirmedRemovals = p.Before.Change.ConfirmedRemovals
	before := p.Before.Revision
	record := Write{Key: p.Before.Layout.Change(), Expect: p.Before.LastChange}
	for i, part := range parts {
		if len(parts) > 1 {
			change.Part, change.Parts = i+1, len(parts)
		}
		if change.Confirmed {
			change.ConfirmedRemovals = before
		}
		record.Value = change.Encode()
		writes := []Write{record}
		for _, s := range part {
			writes = append(writes, s.Write)
		}
		written, err := c.Commit(ctx, writes)
		if err != nil {
			if i > 0 {
				return revision, &PartError{Done: i, Of: len(parts), Revision: revision, Err: err}
			}
			return 0, err
		}
		revision, record.Expect, before = written, written, written
	}
	return revision, nil
}
