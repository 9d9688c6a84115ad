package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	// FirstReading bounds how long Start waits for the sources; those without an answer by then are treated as unreadable
	// until they have one. 0 means 5 s.
	FirstReading time.Duration
}

// InvalidError says that there is nothing to start with: no document is valid and no last good one is kept.
type InvalidError struct {
	Problems []policy.Problem // sorted by origin, at least one
}

// Error names the first problem and counts the others.
func (e *InvalidError) Error() string {
	return "no valid policy to start with: " + firstOf(e.Problems)
}

// firstOf is the first error, and how many problems there are besides.
func firstOf(problems []policy.Problem) string {
	s := firstError(problems)
	if more := len(problems) - 1; more > 0 {
		s += fmt.Sprintf(" (and %d more problems)", more)
	}
	return s
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
	readings []*reading // from here on: owned by Start, then by the loop
	readAt   map[string]time.Time
	keys     *keyFiles
	good     map[objectKey]object // in force, or read from the last-good file before anything is
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
		readAt:   make(map[string]time.Time),
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

// Start reads the sources and returns once a first snapshot is applied; then it goes on following them until ctx is done. A later
// source replaces what an earlier one says about a document of the same kind and name.
//
// A broken document does not keep the others from being applied. Start fails with an [*InvalidError] when nothing is valid and no
// last good document is kept, and when no Sidecar is in force though one may be among what is broken or cannot be read; with another
// error when the first snapshot cannot be applied. After a failure nothing runs any more.
func (m *Manager) Start(ctx context.Context, sources ...Source) error {
	ctx, cancel := context.WithCancel(ctx)
	names := make(map[string]bool)
	var reloads []Reloader
	for _, s := range sources {
		if names[s.Name()] || s.Name() == lastGoodSource {
			cancel()
			return fmt.Errorf("cannot start with two policy sources of the name %q", s.Name())
		}
		names[s.Name()] = true
		m.readings = append(m.readings, &reading{source: s.Name()})
		if r, ok := s.(Reloader); ok {
			reloads = append(reloads, r)
		}
	}
	m.reloads.Store(&reloads)
	for _, s := range sources {
		m.running.Go(func() {
			if err := s.Run(ctx, func(b Batch) { m.mailbox.put(s.Name(), b) }); err != nil && ctx.Err() == nil {
				m.mailbox.put(s.Name(), Batch{Err: fmt.Errorf("the source has ended: %w", err)})
			}
		})
	}
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

// first collects one reading of each source and applies them.
func (m *Manager) first(ctx context.Context) error {
	begun := m.o.Clock()
	timeout := time.NewTimer(m.o.FirstReading)
	defer timeout.Stop()
	for len(m.readAt) < len(m.readings) {
		select {
		case <-m.mailbox.wake:
			m.read()
			continue
		case <-timeout.C:
			for _, r := range m.readings {
				if m.readAt[r.source].IsZero() {
					r.err = fmt.Errorf("no answer within %s", m.o.FirstReading)
				}
			}
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for the policy sources: %w", ctx.Err())
		}
		break
	}
	r := m.resolve()
	if slices.ContainsFunc(r.problems, isError) {
		if m.recall(); len(m.good) > 0 {
			r = m.resolve()
		}
	}
	if r.snapshot == nil || m.selfUnknown(r) {
		return &InvalidError{r.problems}
	}
	if err := m.apply(r, begun); err != nil {
		return fmt.Errorf("cannot apply the first policy: %w", err)
	}
	return nil
}

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
		if err := m.apply(m.resolve(), begun); err != nil {
			m.log.Error().Err(err).Uint64("revision", m.applied.revision).Msg("policy not applied, the one before stays in force")
		}
		m.keep()
	}
}

// read takes over what the sources said since the last time, and reports whether there is a reason to look at it.
func (m *Manager) read() bool {
	batches, some := m.mailbox.fetch()
	for _, r := range m.readings {
		if b, ok := batches[r.source]; ok {
			r.read(b)
			m.readAt[r.source] = m.o.Clock()
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

// resolve decides what shall be in force, and has the other files watched that this depends on.
func (m *Manager) resolve() resolution {
	m.keys.begin()
	r := resolve(m.good, m.readings, func(docs []*policy.Document) (*policy.Snapshot, []policy.Problem) {
		snapshot, problems := policy.Compile(docs, m.o.Compile)
		if snapshot == nil {
			return nil, problems
		}
		return m.keys.attach(snapshot, docs)
	})
	m.watch(r.snapshot)
	return r
}

// selfUnknown reports whether the Sidecar is missing in the first policy and may be among what is broken. To serve with defaults
// then would open other ports and believe other peers than the operator wrote.
func (m *Manager) selfUnknown(r resolution) bool {
	for key := range r.states {
		if key.kind == policy.KindSidecar {
			return r.states[key] == Refused
		}
	}
	for _, reading := range m.readings {
		for _, f := range reading.files {
			if f.Err != nil || slices.ContainsFunc(f.problems, isError) && bytes.Contains(f.Data, []byte(policy.KindSidecar)) {
				return true
			}
		}
	}
	return false
}

// apply puts a resolution in force, if that changes anything, and shows the outcome.
func (m *Manager) apply(r resolution, begun time.Time) error {
	var err error
	result := resultUnchanged
	switch {
	case r.snapshot == nil:
		err = &InvalidError{r.problems}
	case m.snapshot == nil || r.snapshot.Hash != m.snapshot.Hash:
		err = m.o.Apply(r.snapshot)
		result = resultApplied
	}
	before := m.good
	if err != nil {
		result = resultFailed
		if r.snapshot != nil {
			r.problems = distinct(append(r.problems, policy.Problem{Message: fmt.Sprintf("cannot apply: %v", err)}))
		}
		r.states = fallenBack(r, before)
	} else {
		m.good = r.objects
		m.snapshot = r.snapshot
		m.keys.retain(r.snapshot.Sidecar.KeyFiles())
	}
	if result == resultApplied {
		m.applied.revision++
		m.applied.at = m.o.Clock()
	}
	m.metrics.applies.WithLabelValues(result).Inc()
	status := m.publish(r)
	if result == resultApplied {
		if status.Revision == 1 {
			before = nil
		}
		added, changed, removed := difference(before, m.good)
		m.log.Info().Uint64("revision", status.Revision).Str("hash", status.Hash).
			Int("added", added).Int("changed", changed).Int("removed", removed).
			Int("applied", status.Counts.Applied).Int("last_good", status.Counts.LastGood).Int("refused", status.Counts.Refused).
			Dur("took", m.o.Clock().Sub(begun)).Msg("policy applied")
	}
	m.logProblems(status.Problems)
	return err
}

// fallenBack are the states when nothing of a resolution came into force.
func fallenBack(r resolution, inForce map[objectKey]object) map[objectKey]State {
	states := make(map[objectKey]State)
	for key := range r.states {
		states[key] = Refused
	}
	for key, o := range inForce {
		states[key] = LastGood
		if r.states[key] == Applied && r.objects[key].digest == o.digest {
			states[key] = Applied
		}
	}
	return states
}

// publish shows what is in force to everybody.
func (m *Manager) publish(r resolution) *Status {
	s := &Status{
		Revision:  m.applied.revision,
		AppliedAt: m.applied.at,
		Whole:     !slices.ContainsFunc(r.problems, isError),
		Problems:  r.problems,
		LastGood:  m.store,
	}
	if m.snapshot != nil {
		s.Hash = m.snapshot.Hash
	}
	s.Objects, s.Counts = objectsOf(m.good, r.states)
	for _, o := range m.good {
		if o.stored {
			s.LastGood.InUse++
		}
	}
	for _, r := range m.readings {
		source := SourceStatus{Name: r.source, Healthy: r.err == nil, ReadAt: m.readAt[r.source], Files: len(r.files)}
		if r.err != nil {
			source.Error = r.err.Error()
		}
		for _, f := range r.files {
			source.Documents += len(f.objects)
			source.Healthy = source.Healthy && f.Err == nil
		}
		s.Sources = append(s.Sources, source)
	}
	m.status.Store(s)
	m.metrics.show(s)
	return s
}

// maxProblemLines bounds how many problems one change can write into the log; /policy/problems has them all.
const maxProblemLines = 20

// logProblems logs the problems that appeared and those that went.
func (m *Manager) logProblems(problems []policy.Problem) {
	now := make(map[problemKey]bool, len(problems))
	lines := 0
	for _, p := range problems {
		key := keyOf(p)
		if !now[key] && !m.problems[key] {
			if lines++; lines <= maxProblemLines {
				m.log.Warn().Stringer("severity", p.Severity).Str("kind", string(p.Kind)).Str("name", p.Name).Msgf("policy problem: %s", p)
			}
		}
		now[key] = true
	}
	if more := lines - maxProblemLines; more > 0 {
		m.log.Warn().Int("more", more).Msg("further policy problems are listed by the admin port at /policy/problems")
	}
	gone := 0
	for key := range m.problems {
		if !now[key] {
			gone++
		}
	}
	if gone > 0 {
		m.log.Info().Int("gone", gone).Int("left", len(now)).Msg("policy problems gone")
	}
	m.problems = now
}

// difference counts what changed between two sets of documents.
func difference(before, after map[objectKey]object) (added, changed, removed int) {
	for key, o := range after {
		old, was := before[key]
		switch {
		case !was:
			added++
		case old.digest != o.digest:
			changed++
		}
	}
	for key := range before {
		if _, is := after[key]; !is {
			removed++
		}
	}
	return added, changed, removed
}

// recall reads the last-good file, so that what is broken at the start has a version to fall back to.
func (m *Manager) recall() {
	path := m.lastGoodPath()
	if path == "" {
		return
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return // a first start
	}
	var problems []policy.Problem
	if err == nil {
		m.good, problems = decodeLastGood(path, data)
	} else {
		problems = []policy.Problem{unreadable(path, err)}
	}
	for _, p := range problems {
		m.log.Warn().Str("path", path).Msgf("last-good file: %s", p)
	}
	if len(m.good) > 0 {
		m.log.Warn().Str("path", path).Int("documents", len(m.good)).Msg("policy is broken at the start, the last-good file stands in for what is")
	}
}

// keep writes what is in force to the last-good file, if it is not there yet.
func (m *Manager) keep() {
	path := m.lastGoodPath()
	if path == "" {
		return
	}
	data := encodeLastGood(m.good)
	if path == m.store.Path && m.store.Error == "" && bytes.Equal(data, m.stored) {
		return
	}
	m.store.Path, m.store.Error = path, ""
	if err := writeLastGood(path, m.good); err != nil {
		m.store.Error = err.Error()
		m.metrics.storeErrors.Inc()
		m.log.Error().Err(err).Str("path", path).Msg("last-good file not written; a start with a broken source would fail")
	} else {
		m.stored = data
		m.store.WrittenAt = m.o.Clock()
	}
	s := m.Status()
	inUse := s.LastGood.InUse
	s.LastGood = m.store
	s.LastGood.InUse = inUse
	m.status.Store(&s)
}

// lastGoodPath is the file in use: the option, else what the Sidecar in force names, else what one that was read names.
func (m *Manager) lastGoodPath() string {
	switch {
	case m.o.LastGood != "":
		return m.o.LastGood
	case m.snapshot != nil:
		return m.snapshot.Sidecar.LastGood
	}
	for _, r := range m.readings {
		for _, f := range r.files {
			for _, o := range f.objects {
				if spec, ok := o.doc.Spec.(*policy.SidecarSpec); ok && spec.LastGood != "" {
					return policy.ResolvePath(o.doc.Origin, spec.LastGood)
				}
			}
		}
	}
	return ""
}

// samePath reports whether two paths are one, as far as their names tell.
func samePath(a, b string) bool {
	absoluteA, errA := filepath.Abs(a)
	absoluteB, errB := filepath.Abs(b)
	return errA == nil && errB == nil && absoluteA == absoluteB
}

func isError(p policy.Problem) bool { return p.Severity == policy.Error }
