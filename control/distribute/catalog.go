package distribute

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"weir/control/etcd"
	"weir/policy"
	"weir/policy/diff"
)

// catalog is what the source says at one revision, decoded. It is never changed.
type catalog struct {
	// revision is the store's, up to which it is complete; written is when anything in it was written last.
	revision, written int64
	// seen is when this process learned of it.
	seen time.Time
	// texts are the documents that can be used, by KIND/NAME.
	texts map[string]text
	// broken are the keys of the others.
	broken map[string]bool
	// flaws are what is wrong with the documents together. They are looked for when first asked for.
	flaws func() map[flaw]bool
	// problems are those of single documents.
	problems []policy.Problem
	change   etcd.Change
}

// text is one document as it should be written.
type text struct {
	doc  *policy.Document
	data []byte
	// from is the document at the source that doc was made of by overlays, if there are any for it.
	from *policy.Document
	// modified is the source's revision at which the document was written last.
	modified int64
}

// flaw is a field of a document that does not go with other documents, as when it refers to one that is not there.
type flaw struct {
	kind       policy.Kind
	name, path string
}

// read makes a catalog of a view. What has not changed since before, which may be nil, is not decoded again.
func read(view etcd.View, layout etcd.Layout, source string, before *catalog, seen time.Time) *catalog {
	c := &catalog{revision: view.Revision, seen: seen, texts: make(map[string]text), broken: make(map[string]bool)}
	for _, item := range view.Items {
		c.written = max(c.written, item.Modified)
		key := strings.TrimPrefix(item.Key, layout.Policy())
		if item.Key == layout.Change() {
			change, err := etcd.ParseChange(item.Value)
			if err != nil {
				c.problems = append(c.problems, policy.Problem{Severity: policy.Warning, Origin: policy.Origin{File: source + ":" + key}, Message: err.Error()})
			}
			c.change = change
			continue
		}
		if before != nil {
			if old, ok := before.texts[key]; ok && old.modified == item.Modified && bytes.Equal(old.data, item.Value) {
				c.texts[key] = old
				continue
			}
		}
		doc, problems := decode(item, layout, source)
		c.problems = append(c.problems, problems...)
		if doc == nil {
			c.broken[key] = true
			continue
		}
		c.texts[key] = text{doc: doc, data: item.Value, from: doc, modified: item.Modified}
	}
	c.flaws = sync.OnceValue(func() map[flaw]bool { return flawsOf(documents(c.texts)) })
	return c
}

// decode reads the document of a key. It must be the one that the key says.
func decode(item etcd.Item, layout etcd.Layout, source string) (*policy.Document, []policy.Problem) {
	kind, name, err := layout.DocumentOf(item.Key)
	if err != nil {
		file := source + ":" + strings.TrimPrefix(item.Key, layout.Policy())
		return nil, []policy.Problem{{Origin: policy.Origin{File: file}, Message: err.Error()}}
	}
	stored := etcd.NewStored(source, diff.Key{Kind: kind, Name: name}, string(item.Value))
	return stored.Document, stored.Problems
}

func documents(texts map[string]text) []*policy.Document {
	docs := make([]*policy.Document, 0, len(texts))
	for _, t := range texts {
		docs = append(docs, t.doc)
	}
	return docs
}

// flawsOf is what is wrong with documents together. Sets of documents need not be whole: a sidecar may have more of them from
// elsewhere. So what counts is whether a set has flaws that the one it was made of has not.
func flawsOf(docs []*policy.Document) map[flaw]bool {
	flaws := make(map[flaw]bool)
	for _, p := range problemsOf(docs) {
		flaws[flaw{p.Kind, p.Name, p.Path}] = true
	}
	return flaws
}

// problemsOf are the errors of documents together.
func problemsOf(docs []*policy.Document) []policy.Problem {
	if len(docs) == 0 {
		return nil
	}
	_, problems := policy.Compile(docs, policy.CompileOptions{})
	var errors []policy.Problem
	for _, p := range problems {
		if p.Severity == policy.Error {
			errors = append(errors, p)
		}
	}
	return errors
}
