package control

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"weir/policy"
)

// mailbox holds the latest batch of each source until the manager fetches it. Batches that were not fetched are replaced, so a
// source that reports faster than documents compile costs nothing but its latest word.
type mailbox struct {
	wake chan struct{} // holds one token when there is something to fetch

	mu      sync.Mutex
	batches map[*reading]Batch // by who said it: a source that was replaced by another of its name is not heard any more
	poked   bool
}

func newMailbox() *mailbox {
	return &mailbox{wake: make(chan struct{}, 1), batches: make(map[*reading]Batch)}
}

// put replaces a source's batch.
func (b *mailbox) put(from *reading, batch Batch) {
	b.mu.Lock()
	b.batches[from] = batch
	b.mu.Unlock()
	b.ring()
}

// poke wakes the manager without a batch.
func (b *mailbox) poke() {
	b.mu.Lock()
	b.poked = true
	b.mu.Unlock()
	b.ring()
}

func (b *mailbox) ring() {
	select {
	case b.wake <- struct{}{}:
	default: // it will fetch ours with the others
	}
}

// fetch takes everything out. It reports false when there was nothing.
func (b *mailbox) fetch() (map[*reading]Batch, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	batches, some := b.batches, b.poked || len(b.batches) > 0
	b.batches, b.poked = make(map[*reading]Batch), false
	return batches, some
}

// reading is a source and what it said last, decoded.
type reading struct {
	source  string
	named   string        // by which settings a Sidecar names it; empty: the command line does
	leaving bool          // the Sidecar names it no more
	run     *runningWith  // nil in tests of what it says
	readAt  time.Time     // zero: it has not said anything yet
	known   bool          // it has been read once, so what is missing in files is missing in the source
	files   []decodedFile // sorted by path
	err     error         // the latest batch could not be read; files are those of the one before

	revision  int64 // of the batch; 0: the source has none
	inForce   int64 // of the batch that was resolved and applied last
	confirmed int64 // Batch.ConfirmedRemovals
	// whole is the revision of the latest change of which everything was applied, removals too. What is confirmed since then may go.
	whole   int64
	changed bool // the files are newer than that
	rewound bool // the store has gone back in time since, so that it need not have what there was
	// stored are the source's documents in the last-good file until a batch of it is applied, so that a restart forgets no removal
	// that was held.
	stored map[objectKey]object
}

// decodedFile is a File with its documents.
type decodedFile struct {
	File
	objects  []object
	problems []policy.Problem
}

// object is one document with the place it is kept by.
type object struct {
	doc    *policy.Document
	digest string
	source string // name of the source
	file   string // the file's path in the source, which outlives the process in the last-good file
	held   bool   // its source has removed it, or tenants from it, which waits until it is confirmed
	stored bool   // read back from the last-good file, and not confirmed by its source since
}

func (o object) key() objectKey { return objectKey{o.doc.Kind, o.doc.Name} }

// read replaces what the source said by a batch. Files whose bytes did not change are not decoded again.
func (r *reading) read(b Batch) {
	r.err = b.Err
	if b.Err != nil {
		return
	}
	r.changed = r.changed || !r.known || len(r.files) != len(b.Files)
	r.known = true
	r.revision, r.confirmed = b.Revision, b.ConfirmedRemovals
	r.countFrom(r.revision)
	before := make(map[string]decodedFile, len(r.files))
	for _, f := range r.files {
		before[f.Path] = f
	}
	r.files = make([]decodedFile, 0, len(b.Files))
	for _, f := range b.Files {
		old, ok := before[f.Path]
		if !ok || old.Err != nil || f.Err != nil || !bytes.Equal(old.Data, f.Data) {
			old = decodeFile(r.source, f)
			r.changed = true
		}
		r.files = append(r.files, old)
	}
}

// countFrom has a store that was restored, or replaced, count from where it was then.
func (r *reading) countFrom(revision int64) {
	if r.whole > revision {
		r.rewound = r.rewound || r.whole < math.MaxInt64
		r.whole = revision
	}
}

// silent reports whether the source cannot say anything just now, so that all of its documents are kept.
func (r *reading) silent() bool { return !r.known || r.err != nil }

// keeps reports whether a document of this source that is missing in its files has to be kept: the document's file or a folder above
// it could not be read, or the file has a document so broken that nobody can say which one it is.
func (r *reading) keeps(o object) bool {
	for _, f := range r.files {
		switch {
		case f.Err != nil && (f.Path == o.file || strings.HasPrefix(o.file, strings.TrimSuffix(f.Path, "/")+"/")):
			return true
		case f.Path == o.file:
			return slices.ContainsFunc(f.problems, func(p policy.Problem) bool { return p.Severity == policy.Error && p.Name == "" })
		}
	}
	return false
}

// mayHide reports whether a document of this kind may be among what cannot be read of the source.
func (r *reading) mayHide(kind policy.Kind) bool {
	return slices.ContainsFunc(r.files, func(f decodedFile) bool {
		return f.Err != nil || slices.ContainsFunc(f.problems, isError) && bytes.Contains(f.Data, []byte(kind))
	})
}

// applied notes that what it says is in force, but for removals that are held.
func (r *reading) applied(held bool) {
	r.inForce = r.revision
	if r.known && r.changed && !held {
		r.whole, r.stored, r.changed, r.rewound = r.revision, nil, false, false
	}
}

// status is how the source is.
func (r *reading) status() SourceStatus {
	s := SourceStatus{Name: r.source, Healthy: !r.silent(), ReadAt: r.readAt, Files: len(r.files), Revision: r.inForce}
	if r.err != nil {
		s.Error = r.err.Error()
	}
	for _, f := range r.files {
		s.Documents += len(f.objects)
		s.Healthy = s.Healthy && f.Err == nil
	}
	return s
}

// decodeFile decodes one file.
func decodeFile(source string, f File) decodedFile {
	d := decodedFile{File: f}
	switch {
	case f.Err != nil:
		d.problems = append(d.problems, unreadable(f.Path, f.Err))
		return d
	case len(bytes.TrimSpace(f.Data)) == 0:
		// An editor that truncates before it writes looks like this; nobody removes a policy by emptying its file.
		d.Err = errors.New("the file is empty; its documents are kept until it has some again or is removed")
		if f.Kind != "" {
			d.Err = fmt.Errorf("nothing is here, want %s %q, which is kept as it was; write it with sidecar apply, or remove it with sidecar delete", f.Kind, f.Name)
		}
		d.problems = append(d.problems, policy.Problem{Origin: policy.Origin{File: f.Path}, Kind: f.Kind, Name: f.Name, Message: d.Err.Error()})
		return d
	}
	docs, problems := policy.Decode(f.Path, f.Data)
	if f.Kind != "" {
		if d.Err = f.holds(docs, problems); d.Err != nil {
			d.problems = []policy.Problem{{Origin: policy.Origin{File: f.Path}, Kind: f.Kind, Name: f.Name, Message: d.Err.Error()}}
			return d
		}
	}
	// Tests and distributions of policies may stand beside them. They are nothing that could be in force, good or bad.
	docs = slices.DeleteFunc(docs, func(doc *policy.Document) bool { return doc.Kind.PassedOver() })
	d.problems = slices.DeleteFunc(problems, func(p policy.Problem) bool { return p.Kind.PassedOver() })
	for _, doc := range docs {
		d.objects = append(d.objects, object{doc: doc, digest: doc.Digest(), source: source, file: f.Path})
	}
	return d
}

// holds checks that what was decoded is the one document that the file must be, good or bad. A problem of a document counts as that
// document.
func (f *File) holds(docs []*policy.Document, problems []policy.Problem) error {
	want := objectKey{f.Kind, f.Name}
	found := make(map[objectKey]bool)
	for _, doc := range docs {
		found[objectKey{doc.Kind, doc.Name}] = true
	}
	for _, p := range problems {
		if p.Name != "" {
			found[objectKey{p.Kind, p.Name}] = true
		}
	}
	switch {
	case len(found) == 0 && len(problems) > 0:
		return nil // the problems say what is wrong
	case len(found) == 0:
		return fmt.Errorf("no document is here, want %s %q; remove it with sidecar delete, or write it again", want.kind, want.name)
	case len(found) > 1 || len(docs) > 1:
		return fmt.Errorf("%d documents are here, want %s %q alone; write them with sidecar apply", max(len(found), len(docs)), want.kind, want.name)
	case !found[want]:
		got := sortedKeys(found)[0]
		return fmt.Errorf("%s %q is here, want %s %q; write it with sidecar apply, which puts it where it belongs", got.kind, got.name, want.kind, want.name)
	}
	return nil
}
