package fleet

import (
	"cmp"
	"slices"
	"strings"

	"weir/control"
	"weir/policy"
)

// tell makes the record say what a status does. The source of that name is the one here.
func (m *Member) tell(s control.Status, here string) {
	m.Hash, m.AppliedAt = s.Hash, s.AppliedAt.UTC()
	m.Sources = nil
	unread := false
	for _, source := range s.Sources {
		if source.Name != here && source.Revision == 0 {
			continue // files, or what was never read
		}
		state := SourceState{Name: source.Name, Here: source.Name == here, Revision: source.Revision, Healthy: source.Healthy, Error: source.Error}
		m.Sources = append(m.Sources, state)
		unread = unread || state.Here && source.Error != ""
	}
	m.Differences = nil
	var prints Prints
	for _, o := range s.Objects {
		if !compared(o.Kind) {
			continue
		}
		difference := Difference{Kind: o.Kind, Name: o.Name}
		switch {
		case o.State == control.Refused:
			difference.State = Refused // maybe of another source: whoever compares knows which documents are here
		case o.Source != here:
			if !speaksOf(s, here, o) {
				continue
			}
			difference.State, difference.Source = Replaced, o.Source
		case o.State == control.LastGood && !unread:
			difference.State = LastGood
		default: // as the source has it, or had it when it could be read last
			prints.add(o.Kind, o.Name, o.Text)
			continue
		}
		m.Differences = append(m.Differences, difference)
	}
	// What was replaced on purpose comes last, so that it is the first to be left out.
	slices.SortStableFunc(m.Differences, func(a, b Difference) int { return cmp.Compare(rank(a), rank(b)) })
	m.DifferenceCount = len(m.Differences)
	if state := m.Here(); state != nil {
		state.Prints = prints.String()
	}
	m.Problems = nil
	for _, p := range s.Problems {
		if p.Severity == policy.Error {
			m.Problems = append(m.Problems, p.String())
		}
	}
	m.ProblemCount = len(m.Problems)
}

func rank(d Difference) int {
	if d.State == Replaced {
		return 1
	}
	return 0
}

// speaksOf reports whether a source says something of a document that is in force as another source has it: a problem says so, and
// names the document by where it stands in the source.
func speaksOf(s control.Status, source string, o control.Object) bool {
	return slices.ContainsFunc(s.Problems, func(p policy.Problem) bool {
		return p.Kind == o.Kind && p.Name == o.Name && strings.HasPrefix(p.Origin.File, source+":")
	})
}
