package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"weir/policy"
	"weir/policy/diff"
)

// Documents is what lay below [Layout.Policy] at one revision of the store.
type Documents struct {
	Layout   Layout
	Revision int64
	// Stored are sorted by [diff.Key.Compare].
	Stored []Stored
	// Change is who wrote there last; the zero value when nobody has, or when the record cannot be read.
	Change Change
	// LastChange is the revision at which its record was written; 0: there is none.
	LastChange int64
	// Strange are keys that are not of a document. Nobody reads them.
	Strange []string
}

// storeName is the source in which commands position problems.
const storeName = "etcd"

// Stored is the document of one key, as its author wrote it.
type Stored struct {
	diff.Key
	Text string
	// Document is nil when the text is no document of that kind and name; Problems say why.
	Document *policy.Document
	Problems []policy.Problem
	// Created and Modified are the revisions at which it came to be and was written last. Both are 0 for one that is yet to be written.
	Created, Modified int64
}

// ReadDocuments reads all documents as they were at one revision; 0 means now. It fails as [Client.Read] does.
func (c *Client) ReadDocuments(ctx context.Context, layout Layout, revision int64) (Documents, error) {
	view, err := c.Read(ctx, layout.Policy(), revision)
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return Documents{}, fmt.Errorf("revision %d is forgotten, since etcd compacts its past; `sidecar history` shows how far back it goes: %w", revision, err)
	case errors.Is(err, rpctypes.ErrFutureRev):
		return Documents{}, fmt.Errorf("revision %d is not written yet; `sidecar history` shows which there are: %w", revision, err)
	case err != nil:
		return Documents{}, err
	}
	return DocumentsOf(layout, view), nil
}

// DocumentsOf are the documents in a view of [Layout.Policy].
func DocumentsOf(layout Layout, view View) Documents {
	d := Documents{Layout: layout, Revision: view.Revision}
	for _, item := range view.Items {
		if item.Key == layout.Change() {
			d.LastChange = item.Modified
			d.Change, _ = ParseChange(item.Value) // a record that cannot be read is nobody's
			continue
		}
		kind, name, err := layout.DocumentOf(item.Key)
		if err != nil {
			d.Strange = append(d.Strange, item.Key)
			continue
		}
		s := NewStored(storeName, diff.Key{Kind: kind, Name: name}, string(item.Value))
		s.Created, s.Modified = item.Created, item.Modified
		d.Stored = append(d.Stored, s)
	}
	slices.SortFunc(d.Stored, func(a, b Stored) int { return a.Compare(b.Key) })
	return d
}

// NewStored reads the text of a key. Problems are positioned in SOURCE:KIND/NAME.
func NewStored(source string, key diff.Key, text string) Stored {
	s := Stored{Key: key, Text: text}
	file := fmt.Sprintf("%s:%s/%s", source, key.Kind, key.Name)
	docs, problems := policy.Decode(file, []byte(text))
	s.Problems = problems
	refuse := func(format string, args ...any) {
		s.Problems = append(s.Problems, policy.Problem{
			Origin: policy.Origin{File: file}, Kind: key.Kind, Name: key.Name, Message: fmt.Sprintf(format, args...),
		})
	}
	switch {
	case len(problems) > 0:
	case len(docs) != 1:
		refuse("the key holds %d documents, want one", len(docs))
	case diff.KeyOf(docs[0]) != key:
		refuse("the key is of %s %s, but the text says %s %s", key.Kind, key.Name, docs[0].Kind, docs[0].Name)
	default:
		s.Document = docs[0]
	}
	return s
}

// Find returns the document of a key.
func (d Documents) Find(key diff.Key) (Stored, bool) {
	i, found := slices.BinarySearchFunc(d.Stored, key, func(s Stored, k diff.Key) int { return s.Compare(k) })
	if !found {
		return Stored{}, false
	}
	return d.Stored[i], true
}

// Decoded are those that can be read.
func (d Documents) Decoded() []*policy.Document { return decoded(d.Stored) }

func decoded(all []Stored) []*policy.Document {
	docs := make([]*policy.Document, 0, len(all))
	for _, s := range all {
		if s.Document != nil {
			docs = append(docs, s.Document)
		}
	}
	return docs
}
