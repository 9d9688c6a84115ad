// Package file is the policy source for files and folders.
//
// It reads all of them at every change and hands them over whole, so nothing is lost when events are. Changes are noticed by the
// kernel (inotify), by [Source.Reload] on SIGHUP, and by a slow look at sizes and times where the kernel is silent, as on network
// file systems. Folders are watched rather than files, since editors and Kubernetes replace files by renaming: a ConfigMap swaps
// its ..data link and no file of it ever changes.
//
// The trade-off is to read everything again for one changed byte. That is right for the megabytes that policies are; do not use
// it for a folder that changes many times a second all day.
package file

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"weir/control"
)

// Name is what a source of files is called that has no other name.
const Name = "file"

// Options say what to read and how eagerly.
type Options struct {
	// Name is what the source is called; empty means [Name].
	Name string
	// Paths are files and folders, as for [Load]. Documents in them are one set.
	Paths  []string
	Logger zerolog.Logger
	// Debounce is how long nothing must change before the files are read, so that a file is not read half written. Under steady
	// change they are read every ten times that. 0 means 50 ms.
	Debounce time.Duration
	// Rescan is the time between two looks at sizes and times. 0 means 30 s.
	Rescan time.Duration
}

// Source is a control.Source. It is safe for concurrent use; Run is called once.
type Source struct {
	o    Options
	log  zerolog.Logger
	kick chan struct{}

	mu     sync.Mutex
	extra  []string // files that documents depend on
	forced bool     // the next reading is reported even if it is the same
}

var (
	_ control.Source   = (*Source)(nil)
	_ control.Reloader = (*Source)(nil)
)

// New returns a source that does nothing before Run.
func New(o Options) *Source {
	if o.Name == "" {
		o.Name = Name
	}
	if o.Debounce == 0 {
		o.Debounce = 50 * time.Millisecond
	}
	if o.Rescan == 0 {
		o.Rescan = 30 * time.Second
	}
	return &Source{o: o, log: o.Logger, kick: make(chan struct{}, 1)}
}

// Name is that of the options.
func (s *Source) Name() string { return s.o.Name }

// Reload reads and reports everything again, changed or not.
func (s *Source) Reload() {
	s.mu.Lock()
	s.forced = true
	s.mu.Unlock()
	s.wake()
}

// Watch replaces the further files whose change is to be reported like a Reload, although they hold no documents: API keys.
func (s *Source) Watch(paths []string) {
	s.mu.Lock()
	s.extra = slices.Clone(paths)
	s.mu.Unlock()
	s.wake()
}

func (s *Source) wake() {
	select {
	case s.kick <- struct{}{}:
	default: // it looks anyway
	}
}

// further returns the files of Watch.
func (s *Source) further() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.extra
}

// takeForced reports whether the next reading is to be reported in any case.
func (s *Source) takeForced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	forced := s.forced
	s.forced = false
	return forced
}

// Run reads the files at once and after every change, until ctx is done.
func (s *Source) Run(ctx context.Context, update func(control.Batch)) error {
	w := newWatch(s.log)
	defer w.close()
	return s.follow(ctx, w, update)
}

// follow is Run with what the kernel tells.
func (s *Source) follow(ctx context.Context, w *watch, update func(control.Batch)) error {
	batch, named := load(s.o.Paths, nil, unnamed)
	update(batch)
	w.follow(slices.Concat(s.o.Paths, named), s.further())
	// What changed between the first reading and the watch is found by a second one.
	pending := time.NewTimer(s.o.Debounce)
	defer pending.Stop()
	rescan := time.NewTicker(s.o.Rescan)
	defer rescan.Stop()

	quiet := debounce{length: s.o.Debounce}
	var seen, keys string // stamps of the documents and of the further files at the last reading
	for {
		select {
		case <-ctx.Done():
			return nil
		case name := <-w.events:
			if !w.concerns(name) {
				continue
			}
			pending.Reset(quiet.changed(time.Now()))
			continue
		case <-s.kick:
		case <-pending.C:
		case <-rescan.C:
			if stamp(slices.Concat(s.o.Paths, named)) == seen && stamp(s.further()) == keys {
				continue
			}
		}
		quiet.over()
		report := s.takeForced()
		// The stamps are taken before the reading: what changes in between differs from them at the next look.
		further := s.further()
		before := keys
		keys = stamp(further)
		report = report || keys != before
		seen = stamp(slices.Concat(s.o.Paths, named))
		var next control.Batch
		next, named = load(s.o.Paths, named, unnamed)
		if w.follow(slices.Concat(s.o.Paths, named), further) {
			pending.Reset(s.o.Debounce) // what is watched only now may have changed since it was read
		}
		if report || !same(batch, next) {
			batch = next
			update(batch)
		}
	}
}

// debounce waits until nothing has changed for some time, though not for ever.
type debounce struct {
	length time.Duration
	since  time.Time // of the first change that waits; zero: none does
}

// changed returns how long to wait from now on: every change starts the wait anew, but the first one waits ten times as long at
// most.
func (d *debounce) changed(now time.Time) time.Duration {
	if d.since.IsZero() {
		d.since = now
	}
	return max(0, min(d.length, d.since.Add(10*d.length).Sub(now)))
}

// over notes that no change waits any more.
func (d *debounce) over() { d.since = time.Time{} }
