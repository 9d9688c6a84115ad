package control

import (
	"context"
	"fmt"
	"io"
	"os"

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
