package etcd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"weir/control"
	"weir/policy"
)

// SourceOptions say where documents are.
type SourceOptions struct {
	// Name is what origins, logs and metrics call the source.
	Name string
	// Client is the connection, which stays the caller's to close.
	Client *Client
	Layout Layout
	Logger zerolog.Logger
	// Metrics shows how the source is; nil shows it nowhere.
	Metrics *Metrics
	// Patience is how long etcd may be out of reach before the source says so: the election of a leader or the restart of a member is
	// nobody's trouble. It also bounds how long the first reading is waited for. 0 means 2 s.
	Patience time.Duration
	// Follow has the times of the follower; its Client, Prefix and Logger are set from the above.
	Follow FollowerOptions
}

// Source is a control.Source of the documents below a prefix. It is safe for concurrent use; Run is called once.
type Source struct {
	o        SourceOptions
	follower *Follower
	files    map[string]file // by key, those of the latest view
	garbled  []byte          // the latest record of a change that cannot be read
}

// file is what became of an item.
type file struct {
	item Item
	file control.File
}

var (
	_ control.Source   = (*Source)(nil)
	_ control.Reloader = (*Source)(nil)
)

// NewSource returns a source that does nothing before Run.
func NewSource(o SourceOptions) *Source {
	o.Patience = cmp.Or(o.Patience, 2*time.Second)
	o.Logger = o.Logger.With().Str("source", o.Name).Logger()
	o.Follow.Client, o.Follow.Prefix, o.Follow.Logger = o.Client, o.Layout.Policy(), o.Logger
	return &Source{o: o, follower: NewFollower(o.Follow)}
}

// Name is the name of the options.
func (s *Source) Name() string { return s.o.Name }

// Reload lists all documents again and reports them, changed or not.
func (s *Source) Reload() { s.follower.Reload() }

// Stats are figures about the watch.
func (s *Source) Stats() Stats { return s.follower.Stats() }

// news is what the follower says: a view, or that it has failed.
type news struct {
	view View
	err  error
}

// Run reports the documents at once and after every change, until ctx is done. While etcd is out of reach for longer than the options'
// patience, and once more for each other cause, it reports an error: what is known stays in force.
func (s *Source) Run(ctx context.Context, update func(control.Batch)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.o.Metrics.show(s)()
	heard := make(chan news)
	tell := func(n news) {
		select {
		case heard <- n:
		case <-ctx.Done():
		}
	}
	ended := make(chan error, 1)
	go func() {
		ended <- s.follower.Run(ctx, func(v View) { tell(news{view: v}) }, func(err error) { tell(news{err: err}) })
	}()

	silence := fmt.Errorf("no answer from etcd at %s within %s: %w", strings.Join(s.o.Client.Endpoints(), ","), s.o.Patience, context.DeadlineExceeded)
	trouble := silence
	said := make(map[Cause]bool) // what was reported since all was well
	late := false                // patience has ended
	patience := time.NewTimer(s.o.Patience)
	defer patience.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case n := <-heard:
			if n.err == nil {
				late, trouble = false, nil
				clear(said)
				patience.Stop()
				update(s.batch(n.view))
				continue
			}
			if trouble == nil {
				patience.Reset(s.o.Patience)
			}
			trouble = n.err
		case <-patience.C:
			if late = true; trouble == silence {
				trouble = s.o.Client.Explain(trouble)
			}
		}
		if cause := CauseOf(trouble); late && !said[cause] {
			said[cause] = true
			update(control.Batch{Err: trouble})
		}
	}
}

// batch makes files of a view. Those whose items did not change are taken over.
func (s *Source) batch(v View) control.Batch {
	b := control.Batch{Revision: v.Revision, Files: make([]control.File, 0, len(v.Items))}
	files := make(map[string]file, len(v.Items))
	for _, item := range v.Items {
		if item.Key == s.o.Layout.Change() {
			b.ConfirmedRemovals = s.confirmed(item.Value)
			continue
		}
		f, ok := s.files[item.Key]
		if !ok || f.item.Modified != item.Modified || !bytes.Equal(f.item.Value, item.Value) {
			f = file{item, fileOf(s.o.Name, s.o.Layout, item)}
		}
		files[item.Key] = f
		b.Files = append(b.Files, f.file)
	}
	s.files = files
	return b
}

// confirmed reads the record of the latest change. One that cannot be read confirms nothing.
func (s *Source) confirmed(record []byte) int64 {
	change, err := ParseChange(record)
	if err == nil {
		s.garbled = nil
		return change.ConfirmedRemovals
	}
	if !bytes.Equal(s.garbled, record) {
		s.garbled = record
		s.o.Logger.Warn().Err(err).Str("key", s.o.Layout.Change()).Msg("removals of many tenants cannot be seen to be confirmed; the next sidecar apply writes the record anew")
	}
	return 0
}

// fileOf is an item as a file. One that holds something else than its key says is an error of its own, so that it cannot pass for the
// document it names.
func fileOf(source string, layout Layout, item Item) control.File {
	f := control.File{Path: source + ":" + strings.TrimPrefix(item.Key, layout.Policy()), Data: item.Value}
	kind, name, err := layout.DocumentOf(item.Key)
	if err == nil {
		err = holds(f, kind, name, layout)
	}
	if err != nil {
		return control.File{Path: f.Path, Err: err}
	}
	return f
}

// holds checks that a file holds one document, of a kind and a name.
func holds(f control.File, kind policy.Kind, name string, layout Layout) error {
	if len(bytes.TrimSpace(f.Data)) == 0 {
		return errors.New("the value is empty; remove the document with sidecar delete, or write it again")
	}
	docs, problems := policy.Decode(f.Path, f.Data)
	type id struct {
		kind policy.Kind
		name string
	}
	var ids []id
	for _, d := range docs {
		ids = append(ids, id{d.Kind, d.Name})
	}
	for _, p := range problems {
		if p.Name != "" && !slices.Contains(ids, id{p.Kind, p.Name}) {
			ids = append(ids, id{p.Kind, p.Name})
		}
	}
	switch {
	case len(ids) == 0 && len(problems) > 0:
		return nil // whoever decodes it says what is wrong
	case len(ids) == 0:
		return errors.New("the value has no document; remove it with sidecar delete, or write it again")
	case len(ids) > 1:
		return fmt.Errorf("the value has %d documents, want one to a key; write them with sidecar apply", len(ids))
	case ids[0] != id{kind, name}:
		return fmt.Errorf("the value is %s %q, want %s %q as the key says; write it with sidecar apply, which puts it at %s",
			ids[0].kind, ids[0].name, kind, name, layout.Document(ids[0].kind, ids[0].name))
	}
	return nil
}
