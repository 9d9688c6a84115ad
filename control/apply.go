package control

import (
	"fmt"
	"slices"
	"time"

	"weir/policy"
)

// resolve decides what shall be in force, and has the other files watched that this depends on.
func (m *Manager) resolve() resolution {
	m.keys.begin()
	r := resolve(m.good, m.readings, func(docs []*policy.Document) (*policy.Snapshot, []policy.Problem) {
		snapshot, problems := policy.Compile(docs, m.o.Compile)
		if snapshot == nil {
			return nil, problems
		}
		if collisions := m.collisions(snapshot, docs); collisions != nil {
			return nil, append(collisions, snapshot.Warnings...)
		}
		return m.keys.attach(snapshot, docs)
	})
	m.watch(r.snapshot)
	return r
}

// apply puts a resolution in force, if that changes anything, and shows the outcome.
func (m *Manager) apply(r resolution, begun time.Time) error {
	var err error
	result := resultUnchanged
	switch {
	case r.snapshot == nil:
		err = &InvalidError{Problems: r.problems}
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
		for _, reading := range m.readings {
			_, held := r.held[reading.source]
			reading.applied(held)
		}
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
	for _, reading := range m.readings {
		source := reading.status()
		source.HeldRemovals = r.held[reading.source].Gone
		s.Sources = append(s.Sources, source)
	}
	m.metrics.show(s)
	m.tell(s)
	return s
}

// tell replaces the status.
func (m *Manager) tell(s *Status) {
	m.status.Store(s)
	if m.o.OnStatus != nil {
		m.o.OnStatus(*s)
	}
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
