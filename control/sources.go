package control

import (
	"context"
	"fmt"
	"math"
	"slices"

	"weir/policy"
)

// NamedSource is a source that a Sidecar names in spec.policies.
type NamedSource struct {
	// Name is the source's.
	Name string
	// Settings tell it apart: when they change, the source ends and another takes its place. Not empty.
	Settings string
	// Open makes the source, which must be of that name. It does not fail: what is wrong is for the source to say.
	Open func() Source
}

// runningWith is what the manager needs of a source that runs.
type runningWith struct {
	stop     context.CancelFunc
	reloader Reloader // nil for a source that cannot be told to look again
}

// open starts a source.
func (m *Manager) open(s Source, named string) *reading {
	ctx, stop := context.WithCancel(m.ctx)
	r := &reading{source: s.Name(), named: named, run: &runningWith{stop: stop}}
	r.run.reloader, _ = s.(Reloader)
	m.running.Go(func() {
		defer stop()
		if err := s.Run(ctx, func(b Batch) { m.mailbox.put(r, b) }); err != nil && ctx.Err() == nil {
			m.mailbox.put(r, Batch{Err: fmt.Errorf("the source has ended: %w", err)})
		}
	})
	return r
}

// follow has the sources run that a Sidecar names, behind those of the command line and in its own order, and reports whether that
// changed anything. A source that stays goes on. One with other settings is opened anew, and the documents of the one before are kept
// until it has answered. One that is not named any more ends, and its documents go: the operator's own file says so.
func (m *Manager) follow(s *policy.Snapshot) bool {
	if s == nil || m.o.Sources == nil {
		return false
	}
	before := make(map[string]*reading)
	var readings []*reading
	for _, r := range m.readings {
		if r.named == "" {
			readings = append(readings, r)
		} else {
			before[r.source] = r
		}
	}
	changed := false
	for _, want := range m.o.Sources(s) {
		old := before[want.Name]
		delete(before, want.Name)
		if old != nil && old.named == want.Settings {
			readings = append(readings, old)
			continue
		}
		changed = true
		r := m.open(want.Open(), want.Settings)
		if old != nil {
			old.run.stop()
			r.takeOver(old)
		}
		m.log.Info().Str("source", want.Name).Bool("replaced", old != nil).Msg("policy source opened, as the Sidecar names it")
		readings = append(readings, r)
	}
	for name, old := range before {
		changed = true
		old.run.stop()
		m.metrics.forget(name)
		m.log.Info().Str("source", name).Msg("policy source ended, since the Sidecar names it no more; its documents go")
	}
	changed = changed || !slices.Equal(readings, m.readings) // another order is another precedence
	m.setReadings(readings)
	return changed
}

// takeOver makes r stand for a source that was replaced. What was confirmed to the one before says nothing about this one.
func (r *reading) takeOver(old *reading) {
	r.inForce, r.whole, r.stored = old.inForce, math.MaxInt64, old.stored
}

// setReadings replaces the list of sources.
func (m *Manager) setReadings(readings []*reading) {
	m.readings = readings
	var reloads []Reloader
	for _, r := range readings {
		if r.run.reloader != nil {
			reloads = append(reloads, r.run.reloader)
		}
	}
	m.reloads.Store(&reloads)
}

// collisions are names that several sources would have, once this Sidecar is in force.
func (m *Manager) collisions(s *policy.Snapshot, docs []*policy.Document) []policy.Problem {
	if m.o.Sources == nil {
		return nil
	}
	taken := map[string]string{lastGoodSource: "the file that keeps what is in force is called so"}
	for _, r := range m.readings {
		if r.named == "" {
			taken[r.source] = "the command line has one already"
		}
	}
	var problems []policy.Problem
	for _, want := range m.o.Sources(s) {
		if by := taken[want.Name]; by != "" {
			problems = append(problems, sidecarProblem(s.Sidecar.Name, docs, "spec.policies",
				fmt.Errorf("cannot have a source of the name %q: %s; give it another with `name`", want.Name, by)))
		}
		taken[want.Name] = "another one in the list has it"
	}
	return problems
}
