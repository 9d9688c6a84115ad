package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"weir/policy"
)

// Source is one place documents come from.
type Source interface {
	// Name is what status, logs and metrics call the source. It is unique among the sources of a Manager.
	Name() string
	// Run reads the source, reports what it says with update, and goes on doing so for every change until ctx is done. The first
	// call of update comes as soon as the source was read or could not be. Run returns nil when ctx is done, and an error when it
	// cannot go on; the documents are kept then.
	//
	// update never blocks, may be called from any goroutine, and takes the batch over: the bytes in it are not changed afterwards.
	// Only the latest batch counts, so a source may report as often as it likes.
	Run(ctx context.Context, update func(Batch)) error
}

// Reloader is a Source that can be told to look again at once, changed or not.
type Reloader interface {
	Reload()
}

// Batch is all that a source says at one time.
type Batch struct {
	// Files hold the documents, sorted by path, each path once.
	Files []File
	// Revision is that of the store at which Files were as they are. 0: the source has no revisions, as files have none.
	Revision int64
	// ConfirmedRemovals is the revision before the latest change whose author has confirmed that it may remove many tenants. 0: none.
	ConfirmedRemovals int64
	// Err says why the source could not be read at all: all of its documents are kept, and everything else here is ignored.
	Err error
}

// File is one text with documents: a file, or the value of a key.
type File struct {
	// Path names the text in origins and problems.
	Path string
	Data []byte
	// Err says why the text could not be read: its documents, and those of files below it, are kept, and Data is ignored.
	Err error
}

// Static is a source that says the same from start to end, as the command line does.
func Static(name string, files ...File) Source { return staticSource{name, files} }

type staticSource struct {
	name  string
	files []File
}

func (s staticSource) Name() string { return s.name }

func (s staticSource) Run(ctx context.Context, update func(Batch)) error {
	update(Batch{Files: s.files})
	<-ctx.Done()
	return nil
}

// mailbox holds the latest batch of each source until the manager fetches it. Batches that were not fetched are replaced, so a
// source that reports faster than documents compile costs nothing but its latest word.
type mailbox struct {
	wake chan struct{} // holds one token when there is something to fetch

	mu      sync.Mutex
	batches map[string]Batch
	poked   bool
}

func newMailbox() *mailbox {
	return &mailbox{wake: make(chan struct{}, 1), batches: make(map[string]Batch)}
}

// put replaces a source's batch.
func (b *mailbox) put(source string, batch Batch) {
	b.mu.Lock()
	b.batches[source] = batch
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
func (b *mailbox) fetch() (map[string]Batch, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	batches, some := b.batches, b.poked || len(b.batches) > 0
	b.batches, b.poked = make(map[string]Batch), false
	return batches, some
}

// reading is what a source said last, decoded.
type reading struct {
	source string
	files  []decodedFile // sorted by path
	// revision and confirmed are those of the batch; inForce is the revision of the one that was resolved and applied last.
	revision, confirmed, inForce int64
	err                          error // the latest batch could not be read; files are those of the one before
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
	stored bool   // read back from the last-good file, and not confirmed by its source since
}

func (o object) key() objectKey { return objectKey{o.doc.Kind, o.doc.Name} }

// read replaces what the source said by a batch. Files whose bytes did not change are not decoded again.
func (r *reading) read(b Batch) {
	r.err = b.Err
	if b.Err != nil {
		return
	}
	r.revision, r.confirmed = b.Revision, b.ConfirmedRemovals
	before := make(map[string]decodedFile, len(r.files))
	for _, f := range r.files {
		before[f.Path] = f
	}
	r.files = make([]decodedFile, 0, len(b.Files))
	for _, f := range b.Files {
		old, ok := before[f.Path]
		if !ok || old.Err != nil || f.Err != nil || !bytes.Equal(old.Data, f.Data) {
			old = decodeFile(r.source, f)
		}
		r.files = append(r.files, old)
	}
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
		d.problems = append(d.problems, policy.Problem{Origin: policy.Origin{File: f.Path}, Message: d.Err.Error()})
		return d
	}
	docs, problems := policy.Decode(f.Path, f.Data)
	// Tests and distributions of policies may stand beside them. They are nothing that could be in force, good or bad.
	docs = slices.DeleteFunc(docs, func(doc *policy.Document) bool { return doc.Kind.PassedOver() })
	d.problems = slices.DeleteFunc(problems, func(p policy.Problem) bool { return p.Kind.PassedOver() })
	for _, doc := range docs {
		d.objects = append(d.objects, object{doc: doc, digest: doc.Digest(), source: source, file: f.Path})
	}
	return d
}

// unreadable is the problem of a file or source that could not be read.
func unreadable(name string, err error) policy.Problem {
	return policy.Problem{Origin: policy.Origin{File: name}, Message: fmt.Sprintf("cannot read: %v", err)}
}

// ReadFile reads a regular file of at most [policy.MaxSource] bytes. Anything else, such as a pipe that would block, is an error.
func ReadFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file but %s", path, info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The file may grow while it is read.
	data, err := io.ReadAll(io.LimitReader(f, policy.MaxSource+1))
	if err != nil {
		return nil, err
	}
	if len(data) > policy.MaxSource {
		return nil, fmt.Errorf("%s has %d bytes, want at most %d (8MiB)", path, max(info.Size(), int64(len(data))), policy.MaxSource)
	}
	return data, nil
}
