package control

import (
	"slices"
	"time"

	"weir/policy"
)

// Status is what is in force, and why. It is a value that nobody changes.
type Status struct {
	// Revision counts the snapshots applied since the process started. 0 means none was yet.
	Revision uint64 `json:"revision"`
	// Hash identifies the content in force, API keys included.
	Hash string `json:"hash"`
	// AppliedAt is when it was applied.
	AppliedAt time.Time `json:"appliedAt"`
	// Whole says that the latest change was applied, and nothing in it was refused or could not be read.
	Whole bool `json:"whole"`
	// Objects are the documents in force and those refused, sorted by kind and name.
	Objects []Object `json:"-"`
	// Counts are the numbers of Objects in each state.
	Counts Counts `json:"objects"`
	// Problems are sorted by origin.
	Problems []policy.Problem `json:"problems"`
	// Sources are in the order of precedence, the last one wins: those of Start, then those that the Sidecar names.
	Sources []SourceStatus `json:"sources"`
	// LastGood is the file that keeps what is in force.
	LastGood LastGoodStatus `json:"lastGood"`
}

// Counts are numbers of documents.
type Counts struct {
	Applied  int `json:"applied"`
	LastGood int `json:"lastGood"`
	Refused  int `json:"refused"`
}

// Object is one document.
type Object struct {
	Kind  policy.Kind `json:"kind"`
	Name  string      `json:"name"`
	State State       `json:"state"`
	// Source and Origin say where the version in force was read.
	Source string `json:"source,omitempty"`
	Origin string `json:"origin,omitempty"`
	// Stored means that it was read from the last-good file, and its source has not said the same since.
	Stored bool   `json:"stored,omitempty"`
	Digest string `json:"digest,omitempty"`
	// Text is the version in force as it was written. It holds no secret: keys and certificates are named by path.
	Text string `json:"text,omitempty"`
}

// SourceStatus is how a source is.
type SourceStatus struct {
	Name string `json:"name"`
	// Healthy means that all of it was read the last time.
	Healthy bool `json:"healthy"`
	// Error says why it could not be read at all.
	Error     string    `json:"error,omitempty"`
	ReadAt    time.Time `json:"readAt"`
	Files     int       `json:"files"`
	Documents int       `json:"documents"`
	// Revision is that of the store up to which what it says is in force, whole or with what is listed under Problems. 0: it has no
	// revisions, or was not read yet.
	Revision int64 `json:"revision,omitempty"`
	// HeldRemovals are the tenants that the source has removed and that stay until somebody confirms it.
	HeldRemovals []string `json:"heldRemovals,omitempty"`
}

// Remote reports whether a source has revisions, and so is read over a network that may be gone at the next start.
func (s Status) Remote() bool {
	return slices.ContainsFunc(s.Sources, func(source SourceStatus) bool { return source.Revision > 0 })
}

// LastGoodStatus is how the last-good file is.
type LastGoodStatus struct {
	// Path is empty when none is kept.
	Path string `json:"path,omitempty"`
	// InUse is the number of documents in force that were read from it.
	InUse     int       `json:"inUse"`
	WrittenAt time.Time `json:"writtenAt,omitzero"`
	// Error says why the latest one could not be written.
	Error string `json:"error,omitempty"`
}

// objectsOf lists the documents in force and those refused.
func objectsOf(objects map[objectKey]object, states map[objectKey]State) ([]Object, Counts) {
	var list []Object
	var counts Counts
	for _, key := range sortedKeys(states) {
		o := Object{Kind: key.kind, Name: key.name, State: states[key]}
		if in, ok := objects[key]; ok {
			o.Source, o.Origin, o.Stored, o.Digest, o.Text = in.source, in.doc.Origin.String(), in.stored, in.digest, in.doc.Text()
		}
		switch o.State {
		case Applied:
			counts.Applied++
		case LastGood:
			counts.LastGood++
		case Refused:
			counts.Refused++
		}
		list = append(list, o)
	}
	return list, counts
}
