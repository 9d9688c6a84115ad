package control

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/policy"
)

// Options are what a Manager needs from outside.
type Options struct {
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
	// Clock is the wall clock; nil means time.Now.
	Clock func() time.Time
	// Compile is handed to policy.Compile.
	Compile policy.CompileOptions
	// Apply puts a snapshot in force, whole or not at all. It is never called twice at a time, nor for a snapshot with the hash of
	// the one in force. When it fails, the snapshot before stays in force, and the next change or Reload tries again.
	Apply func(*policy.Snapshot) error
	// LastGood is the path of the last-good file. Empty means the one that the Sidecar names, and none if that names none.
	LastGood string
	// WatchFiles, if set, is told which other files the documents depend on, as keys and certificates, whenever that changes.
	// A change of one of them is to be answered with Reload, or with an update of any source.
	WatchFiles func(paths []string)
	// OnStatus, if set, is called with every new Status, one at a time and in order. It must not block: the next change waits for it.
	OnStatus func(Status)
	// Sources, if set, lists the sources that the Sidecar of a snapshot names, in order. It is a pure function, called often.
	Sources func(*policy.Snapshot) []NamedSource
	// FirstReading bounds how long Start waits for the sources; those without an answer by then are treated as unreadable
	// until they have one. 0 means 5 s.
	FirstReading time.Duration
	// AwaitSources has Start wait for sources that cannot be read and of which the last-good file has nothing, for as long as it
	// takes: without them some tenants' limits would be missing, and nobody could tell. Otherwise Start does without them.
	AwaitSources bool
	// OnWait, if set, is called once when Start begins to wait so, with what the other sources come to; nil: nothing.
	OnWait func(*policy.Snapshot)
}

// Manager keeps the policy in force in step with its sources. Its methods are safe for concurrent use; Start is called once.
type Manager struct {
	o        Options
	log      zerolog.Logger
	metrics  *metrics
	mailbox  *mailbox
	status   atomic.Pointer[Status]
	running  sync.WaitGroup
	reloads  atomic.Pointer[[]Reloader]
	ctx      context.Context // of Start: the life of sources that are opened later
	readings []*reading      // from here on: owned by Start, then by the loop
	keys     *keyFiles
	good     map[objectKey]object // in force, or read from the last-good file before anything is
	recalled *lastGood            // the last-good file as it was at the start, nil until it is asked for
	snapshot *policy.Snapshot     // in force
	applied  struct {
		revision uint64
		at       time.Time
	}
	watched  []string
	problems map[problemKey]bool // those logged and not gone yet
	stored   []byte              // content of the last-good file as far as known
	store    LastGoodStatus
}

// NewManager makes a manager and registers its metrics; it does nothing before Start.
func NewManager(o Options) (*Manager, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.FirstReading == 0 {
		o.FirstReading = 5 * time.Second
	}
	metrics, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("cannot register the metrics of the control plane: %w", err)
	}
	m := &Manager{
		o:        o,
		log:      o.Logger,
		metrics:  metrics,
		mailbox:  newMailbox(),
		keys:     newKeyFiles(ReadFile),
		problems: make(map[problemKey]bool),
	}
	m.status.Store(&Status{})
	return m, nil
}

// Status is what is in force now.
func (m *Manager) Status() Status { return *m.status.Load() }

// Reload makes every source look again, and tries again whatever failed before. It returns at once.
func (m *Manager) Reload() {
	if reloads := m.reloads.Load(); reloads != nil {
		for _, r := range *reloads {
			r.Reload()
		}
	}
	m.mailbox.poke()
}

// Start reads the sources, and those that the Sidecar names, and returns once a first snapshot is applied; then it goes on following
// them until ctx is done. A later source replaces what an earlier one says about a document of the same kind and name; those that the
// Sidecar names come behind all others. Only sources given here can have the Sidecar, and the first that has one wins.
//
// A broken document does not keep the others from being applied. Start fails with an [*InvalidError] when nothing is valid and no
// last good document is kept, and when no Sidecar is in force though one may be among what is broken or cannot be read; with another
// error when the first snapshot cannot be applied. After a failure nothing runs any more.
func (m *Manager) Start(ctx context.Context, sources ...Source) error {
	ctx, cancel := context.WithCancel(ctx)
	m.ctx = ctx
	names := map[string]bool{lastGoodSource: true}
	for _, s := range sources {
		if names[s.Name()] {
			cancel()
			return fmt.Errorf("cannot start with two policy sources of the name %q", s.Name())
		}
		names[s.Name()] = true
	}
	var readings []*reading
	for _, s := range sources {
		readings = append(readings, m.open(s, ""))
	}
	m.setReadings(readings)
	err := m.first(ctx)
	if err != nil {
		cancel()
		m.running.Wait()
		return err
	}
	m.running.Go(func() {
		defer cancel()
		m.loop(ctx)
	})
	return nil
}

// Wait returns when everything that Start began has ended, some time after its context is done.
func (m *Manager) Wait() { m.running.Wait() }

// loop follows the sources.
func (m *Manager) loop(ctx context.Context) {
	m.keep() // not earlier: the first request does not wait for a disk
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.mailbox.wake:
		}
		begun := m.o.Clock()
		if !m.read() {
			continue
		}
		if err := m.apply(m.resolve(), begun); err == nil {
			if m.follow(m.snapshot) {
				m.mailbox.poke() // documents come, go, or give way to others
			}
		} else {
			m.log.Error().Err(err).Uint64("revision", m.applied.revision).Msg("policy not applied, the one before stays in force")
		}
		m.keep()
	}
}

// read takes over what the sources said since the last time, and reports whether there is a reason to look at it.
func (m *Manager) read() bool {
	batches, some := m.mailbox.fetch()
	for _, r := range m.readings {
		if b, ok := batches[r]; ok {
			r.read(b)
			r.readAt = m.o.Clock()
		}
	}
	// The last-good file may lie among the policies, but it is not one of them.
	if path := m.lastGoodPath(); path != "" {
		for _, r := range m.readings {
			r.files = slices.DeleteFunc(r.files, func(f decodedFile) bool { return samePath(f.Path, path) })
		}
	}
	return some
}

func isError(p policy.Problem) bool { return p.Severity == policy.Error }
