package fleet

import (
	"fmt"
	"slices"
	"strings"
)

// State is how a member stands to what it should have in force.
type State string

// The states.
const (
	StateInSync State = "in_sync" // it has applied the latest change, and runs what the store has
	// StateBehind: it has not applied the latest change yet, or cannot read it.
	StateBehind State = "behind"
	// StateDrifted: it has seen the latest change, and runs something else than the store has. To wait does not help.
	StateDrifted State = "drifted"
)

// Verdict is the state of one member.
type Verdict struct {
	Member Member
	State  State
	// Reasons say in words why it is behind or drifted. Of a member in sync they say what a later source replaces.
	Reasons []string
}

// String names the member, and says why.
func (v Verdict) String() string {
	s := v.Member.ID
	if where := v.Member.Location(); where != "" {
		s += " (" + where + ")"
	}
	s += " is " + strings.ReplaceAll(string(v.State), "_", " ")
	if len(v.Reasons) > 0 {
		s += ": " + strings.Join(v.Reasons, "; ")
	}
	return s
}

// Judge compares what members run with what they should, in their order. It is a pure function.
//
// A member without differences costs a comparison of its prints, however many documents there are.
func Judge(members []Member, want Want) []Verdict {
	verdicts := make([]Verdict, 0, len(members))
	for i := range members {
		verdicts = append(verdicts, judge(&members[i], &want))
	}
	return verdicts
}

// Count is how many verdicts are of one state.
func Count(verdicts []Verdict, state State) int {
	n := 0
	for _, v := range verdicts {
		if v.State == state {
			n++
		}
	}
	return n
}

// Behind are the verdicts on those that have not applied a revision of the store, or not as it was written.
func Behind(members []Member, revision int64) []Verdict {
	return slices.DeleteFunc(Judge(members, Want{Revision: revision}), func(v Verdict) bool { return v.State == StateInSync })
}

func judge(m *Member, want *Want) Verdict {
	v := Verdict{Member: *m, State: StateBehind}
	here := m.Here()
	switch {
	case m.unreadable != "":
		v.Reasons = append(v.Reasons, "its record cannot be read: "+m.unreadable)
	case here == nil:
		v.Reasons = append(v.Reasons, "it reads no policy from here any more")
	case here.Revision < want.Revision:
		if here.Revision == 0 {
			v.Reasons = append(v.Reasons, "it has applied nothing from here yet")
		} else {
			v.Reasons = append(v.Reasons, fmt.Sprintf("it has applied revision %d, the latest change is %d", here.Revision, want.Revision))
		}
		if here.Error != "" {
			v.Reasons = append(v.Reasons, "it cannot read its source: "+here.Error)
		}
	default:
		v.State, v.Reasons = differences(m, here, want)
	}
	return v
}

// differences are how a member that has seen the latest change differs.
func differences(m *Member, here *SourceState, want *Want) (State, []string) {
	state := StateInSync
	var reasons []string
	drift := func(format string, args ...any) {
		state = StateDrifted
		reasons = append(reasons, fmt.Sprintf(format, args...))
	}
	has := func(e Difference) bool { return want.Documents == nil || want.find(e.Kind, e.Name) != nil }
	for _, e := range m.Differences {
		switch {
		case e.State == Replaced:
			reasons = append(reasons, fmt.Sprintf("%s %s is that of its source %s", e.Kind, e.Name, e.Source))
		case e.State == Refused && has(e):
			drift("it refuses %s %s", e.Kind, e.Name)
		case e.State == Refused: // of another source
		case has(e):
			drift("it runs the last good version of %s %s", e.Kind, e.Name)
		default:
			drift("it still runs %s %s, which is gone", e.Kind, e.Name)
		}
	}
	if more := m.DifferenceCount - len(m.Differences); more > 0 {
		if len(m.Differences) == 0 || m.Differences[len(m.Differences)-1].State != Replaced { // they are the last ones
			state = StateDrifted
		}
		reasons = append(reasons, fmt.Sprintf("%d more of its documents differ", more))
	} else if theirs, ok := parsePrints(here.Prints); ok && want.Documents != nil && here.Revision <= want.At {
		ours := want.prints
		for _, e := range m.Differences {
			if d := want.find(e.Kind, e.Name); d != nil {
				ours[d.group] ^= d.print
			}
		}
		if ours != theirs {
			drift("%s", candidates(m, want, ours, theirs))
		}
	}
	if state == StateDrifted && m.ProblemCount > 0 && len(m.Problems) > 0 {
		reasons = append(reasons, fmt.Sprintf("the first of its %d problems: %s", m.ProblemCount, m.Problems[0]))
	}
	return state, reasons
}

// maxCandidates bounds how many documents a sentence names.
const maxCandidates = 5

// candidates says which documents may be the ones that differ: those of the groups whose prints do.
func candidates(m *Member, want *Want, ours, theirs Prints) string {
	var names []string
	for _, d := range want.Documents {
		known := slices.ContainsFunc(m.Differences, func(e Difference) bool { return e.Kind == d.Kind && e.Name == d.Name })
		if !known && ours[d.group] != theirs[d.group] {
			names = append(names, string(d.Kind)+" "+d.Name)
		}
	}
	switch {
	case len(names) == 0:
		return "it runs a document that is not in the store, and does not say why"
	case len(names) == 1:
		return names[0] + " differs from what it runs, and it does not say why"
	case len(names) > maxCandidates:
		names = append(names[:maxCandidates], fmt.Sprintf("%d more", len(names)-maxCandidates))
	}
	return "one of these differs from what it runs, and it does not say why: " + strings.Join(names, ", ")
}
