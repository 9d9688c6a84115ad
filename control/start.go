package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"weir/policy"
)

// InvalidError says that there is nothing to start with: no document is valid and no last good one is kept.
type InvalidError struct {
	Problems []policy.Problem // sorted by origin, at least one
	// Unread are the names of the sources that could not be read and of which nothing is kept.
	Unread []string
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

// first applies what the sources say first, and what those say that the Sidecar names.
func (m *Manager) first(ctx context.Context) error {
	begun := m.o.Clock()
	var r resolution
	waiting := false
	for {
		if err := m.hear(ctx); err != nil {
			return err
		}
		if r = m.settle(); m.follow(r.snapshot) {
			continue // the sources that it names are to be heard, too
		}
		unread := m.unread()
		if len(unread) == 0 || !m.o.AwaitSources {
			break
		}
		m.publish(resolution{problems: r.problems, held: r.held}) // nothing is in force yet
		m.logProblems(r.problems)
		if !waiting {
			waiting = true
			m.log.Warn().Strs("sources", unread).Msg("not ready: waiting for policy sources that cannot be read and of which no last-good file has anything")
			if m.o.OnWait != nil {
				m.o.OnWait(r.snapshot)
			}
		}
		select {
		case <-m.mailbox.wake:
			m.read()
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for the policy sources %s: %w", strings.Join(unread, ", "), ctx.Err())
		}
	}
	if r.snapshot == nil || m.selfUnknown(r) {
		return &InvalidError{r.problems, m.unread()}
	}
	if err := m.apply(r, begun); err != nil {
		return fmt.Errorf("cannot apply the first policy: %w", err)
	}
	if waiting {
		m.log.Info().Dur("waited", m.o.Clock().Sub(begun)).Msg("every policy source is read, going on")
	}
	return nil
}

// hear waits until each source has said something, or for as long as it may take.
func (m *Manager) hear(ctx context.Context) error {
	timeout := time.NewTimer(m.o.FirstReading)
	defer timeout.Stop()
	unheard := func(r *reading) bool { return !r.known && r.err == nil }
	for slices.ContainsFunc(m.readings, unheard) {
		select {
		case <-m.mailbox.wake:
			m.read()
		case <-timeout.C:
			for _, r := range m.readings {
				if unheard(r) {
					r.err = fmt.Errorf("no answer within %s", m.o.FirstReading)
				}
			}
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for the policy sources: %w", ctx.Err())
		}
	}
	return nil
}

// settle resolves what the sources say, with the last-good file in the place of what is broken.
func (m *Manager) settle() resolution {
	if slices.ContainsFunc(m.readings, func(r *reading) bool { return r.revision > 0 }) {
		m.remember()
	}
	r := m.resolve()
	if slices.ContainsFunc(r.problems, isError) && m.recall() {
		r = m.resolve()
	}
	return r
}

// unread are the sources that cannot be read and of which nothing is known from before.
func (m *Manager) unread() []string {
	var names []string
	for _, r := range m.readings {
		if m.isUnread(r) {
			names = append(names, r.source)
		}
	}
	return names
}

func (m *Manager) isUnread(r *reading) bool {
	known := r.known
	for _, o := range m.good {
		known = known || o.source == r.source
	}
	return !known
}

// selfUnknown reports whether the Sidecar is missing in the first policy and may be among what is broken, or one takes its place that
// should not have. To serve with defaults then would open other ports and believe other peers than the operator wrote.
func (m *Manager) selfUnknown(r resolution) bool {
	from, refused := "", false // the source that has the Sidecar
	for key := range r.states {
		if key.kind == policy.KindSidecar {
			if o, in := r.objects[key]; in {
				from = o.source
			} else {
				refused = true
			}
		}
	}
	if from == "" && refused {
		return true
	}
	for _, reading := range m.readings {
		switch {
		case reading.source == from || reading.named != "":
			return false
		case m.isUnread(reading) || reading.mayHide(policy.KindSidecar):
			return true
		}
	}
	return false
}
