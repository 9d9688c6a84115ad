package fleet

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"weir/policy"
)

// Member is what a sidecar tells of itself: its record in etcd, as JSON. Sidecars of several versions read each other's records, so fields
// may be added and are never given another meaning; a reader passes over those that it does not know.
type Member struct {
	// ID is the last part of the record's key. It is the same after a restart, unless the process before has vanished so lately that its
	// record is still there.
	ID string `json:"id"`
	// Instance is made at random by each process, and tells a process from another one that claims the same ID.
	Instance string `json:"instance"`
	Service  string `json:"service"`
	Version  string `json:"version"`
	Host     string `json:"host"`
	// Address is that of the admin port; seen from Host, where it is one of loopback.
	Address string    `json:"address"`
	Started time.Time `json:"started"`
	// At is when the record was written, by the member's clock.
	At time.Time `json:"at"`
	// Hash identifies the snapshot in force, and AppliedAt is when it came into force.
	Hash      string    `json:"hash"`
	AppliedAt time.Time `json:"appliedAt,omitzero"`
	// Sources are those with revisions, in the order in which later ones win.
	Sources []SourceState `json:"sources"`
	// Differences are the first documents that are not in force as the source here has them, and DifferenceCount is how many there are.
	Differences     []Difference `json:"differences,omitempty"`
	DifferenceCount int          `json:"differenceCount,omitempty"`
	// Problems are the first of /policy/problems, and ProblemCount is how many there are.
	Problems     []string `json:"problems,omitempty"`
	ProblemCount int      `json:"problemCount,omitempty"`

	// unreadable says why the record is none.
	unreadable string
}

// SourceState is how far a member follows one source.
type SourceState struct {
	Name string `json:"name"`
	// Here says that the source reads below the prefix that the record lies in. One does at most.
	Here bool `json:"here,omitempty"`
	// Revision is the store's up to which the source is applied: all that it says is in force, or is among the problems.
	Revision int64 `json:"revision"`
	// Healthy means that all of it was read the last time.
	Healthy bool `json:"healthy"`
	// Error says why it could not be read at all.
	Error string `json:"error,omitempty"`
	// Prints are [Prints] of the documents in force from the source here, apart from those among the differences.
	Prints string `json:"prints,omitempty"`
}

// Difference is a document that is not in force as the source has it.
type Difference struct {
	Kind  policy.Kind `json:"kind"`
	Name  string      `json:"name"`
	State Deviation   `json:"state"`
	// Source is where the version in force comes from, if another source replaces it.
	Source string `json:"source,omitempty"`
}

// Deviation is how a document differs.
type Deviation string

// The deviations.
const (
	Refused  Deviation = "refused"   // no version of it is in force
	LastGood Deviation = "last_good" // an older version is in force, or one that the source has no more
	Replaced Deviation = "replaced"  // a later source says something else, as is its right
)

// What a record may hold.
const (
	maxRecord      = 2 << 10 // bytes
	maxListed      = 8       // differences
	maxProblems    = 5
	maxProblemText = 160 // bytes
	maxNameText    = 253 // bytes of a host, a version, an address
	maxSources     = 8
)

// Here is the state of the source that the record lies in, or nil.
func (m *Member) Here() *SourceState {
	for i := range m.Sources {
		if m.Sources[i].Here {
			return &m.Sources[i]
		}
	}
	return nil
}

// Location is where to look for the member, for people.
func (m *Member) Location() string {
	switch {
	case m.Address == "":
		return m.Host
	case m.Host == "":
		return m.Address
	}
	return m.Host + ", admin port " + m.Address
}

// encode writes the record, in at most maxRecord bytes: what does not fit is counted and not listed.
func (m Member) encode() []byte {
	m.Host, m.Version, m.Address = shorten(m.Host, maxNameText), shorten(m.Version, maxNameText), shorten(m.Address, maxNameText)
	m.Sources = append([]SourceState{}, m.Sources[:min(len(m.Sources), maxSources)]...)
	for i := range m.Sources {
		m.Sources[i].Error = shorten(m.Sources[i].Error, maxProblemText)
	}
	m.Differences = m.Differences[:min(len(m.Differences), maxListed)]
	listed := m.Problems[:min(len(m.Problems), maxProblems)]
	m.Problems = nil
	for _, p := range listed {
		m.Problems = append(m.Problems, shorten(p, maxProblemText))
	}
	for {
		data, err := json.Marshal(m)
		if err != nil {
			panic("BUG: cannot encode the record of a member: " + err.Error())
		}
		switch {
		case len(data) <= maxRecord:
			return data
		case len(m.Problems) > 0:
			m.Problems = m.Problems[:len(m.Problems)-1]
		case len(m.Differences) > 0:
			m.Differences = m.Differences[:len(m.Differences)-1]
		case len(m.Sources) > 1:
			m.Sources = withoutLastElsewhere(m.Sources)
		default:
			return data
		}
	}
}

// withoutLastElsewhere drops the last source that is not the one here.
func withoutLastElsewhere(sources []SourceState) []SourceState {
	i := len(sources) - 1
	if sources[i].Here {
		i--
	}
	return append(sources[:i:i], sources[i+1:]...)
}

// decodeMember reads a record. One that cannot be read is a member all the same: its key says that somebody is there.
func decodeMember(id, service string, data []byte) Member {
	var m Member
	if err := json.Unmarshal(data, &m); err != nil {
		m = Member{unreadable: err.Error()}
	}
	m.ID, m.Service = id, service
	return m
}

// shorten cuts a text to so many bytes, at the boundary of a character.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	end := most - len("…")
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// memberID is a name that a sidecar keeps over its restarts: two processes on a host differ in the address of their admin port.
func memberID(service, host, address string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", service, host, address))
	safe := strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-':
			return c
		case 'A' <= c && c <= 'Z':
			return c + 'a' - 'A'
		}
		return '-'
	}, host)
	return safe[:min(len(safe), 63)] + "-" + hex.EncodeToString(sum[:3])
}

// randomName is what tells one process from all others.
func randomName(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}
