package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// CompileOptions are what Compile takes from outside of the documents.
type CompileOptions struct {
	// Service is the fleet to compile for, in place of the one the Sidecar names. Empty means the Sidecar's.
	Service string
}

// Compile turns a set of documents into a snapshot. It is pure: the same documents in any order give the same snapshot, with the
// same hash and the same warnings. It does not change the documents, and nothing in the snapshot refers to them.
//
// It resolves references, fills in what may be left out (the Sidecar; the Route, when there is exactly one Backend and no Route:
// a catch-all of the Backend's name), leaves out the policies of other services once they are checked, and looks for documents
// that contradict each other. Relative paths of the Sidecar are taken from its own folder ([ResolvePath]).
//
// Either the snapshot is nil, and the problems hold at least one of severity Error besides all warnings; or there is a snapshot, the
// problems are nil, and the warnings are in Snapshot.Warnings. Problems are sorted by origin.
//
// Time grows with the size of the documents, and with the square of the number of policies that have a limit of one and the same
// name, at a few nanoseconds for each pair.
func Compile(docs []*Document, o CompileOptions) (*Snapshot, []Problem) {
	c := &compiler{service: o.Service}
	if len(docs) == 0 {
		return nil, []Problem{{Severity: Error, Message: "no documents"}}
	}
	c.sort(docs)
	c.resolveSidecar()
	c.resolveBackends()
	c.resolveRoutes()
	c.resolvePolicies()
	c.resolveBreakers()
	c.lookForConflicts()
	sortProblems(c.problems)
	if slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Severity == Error }) {
		return nil, c.problems
	}
	c.snapshot.Warnings = c.problems
	c.snapshot.Hash = hashOf(c.snapshot.Documents, c.snapshot.Sidecar.Service, nil, nil)
	return &c.snapshot, nil
}

// compiler is one run of Compile: the documents in order, and the snapshot as it grows.
type compiler struct {
	service  string
	sidecar  *Document // an empty one when none was written; nothing is ever wrong with that
	backends namedDocuments
	routes   namedDocuments
	policies namedDocuments
	breakers namedDocuments
	applied  []*Document // the document of each of snapshot.Policies
	snapshot Snapshot
	problems []Problem
}

// namedDocuments are the documents of one kind. Their order is that of the snapshot.
type namedDocuments struct {
	kind  Kind
	docs  []*Document // sorted by name, each name once
	names []string    // what references may name: those of docs, or of what is implied
	index map[string]int
}

func (n *namedDocuments) add(d *Document) {
	n.docs = append(n.docs, d)
	n.name(d.Name)
}

func (n *namedDocuments) name(name string) {
	n.index[name] = len(n.names)
	n.names = append(n.names, name)
}

// sort puts the documents in order and reports those that are there twice. Of these, the first by origin goes on.
func (c *compiler) sort(docs []*Document) {
	c.backends = namedDocuments{kind: KindBackend, index: make(map[string]int)}
	c.routes = namedDocuments{kind: KindRoute, index: make(map[string]int)}
	c.policies = namedDocuments{kind: KindTenantPolicy, index: make(map[string]int)}
	c.breakers = namedDocuments{kind: KindBreakerPolicy, index: make(map[string]int)}

	docs = slices.Clone(docs)
	slices.SortStableFunc(docs, func(a, b *Document) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), compareOrigins(a.Origin, b.Origin))
	})
	var sidecars []*Document
	for i, d := range docs {
		if i > 0 && docs[i-1].Kind == d.Kind && docs[i-1].Name == d.Name {
			first := slices.IndexFunc(docs, func(e *Document) bool { return e.Kind == d.Kind && e.Name == d.Name })
			c.report(d, Error, "metadata.name", "a second %s is named %q, want one of each name; the first is at %s",
				d.Kind, d.Name, docs[first].Origin)
			continue
		}
		if d.Kind.PassedOver() {
			continue
		}
		switch d.Kind {
		case KindSidecar:
			sidecars = append(sidecars, d)
		case KindBackend:
			c.backends.add(d)
		case KindRoute:
			c.routes.add(d)
		case KindTenantPolicy:
			c.policies.add(d)
		case KindBreakerPolicy:
			c.breakers.add(d)
		default:
			c.report(d, Error, "kind", "%s is not supported by this version", d.Kind)
		}
		c.snapshot.Documents = append(c.snapshot.Documents,
			DocumentInfo{Kind: d.Kind, Name: d.Name, Origin: d.Origin, Digest: d.Digest()})
	}
	c.chooseSidecar(sidecars)
}

// chooseSidecar takes the first Sidecar by origin and reports the others. Without any it takes an empty one.
func (c *compiler) chooseSidecar(sidecars []*Document) {
	if len(sidecars) == 0 {
		c.sidecar = &Document{Kind: KindSidecar, Name: "weir", Spec: NewSpec(KindSidecar)}
		return
	}
	slices.SortStableFunc(sidecars, func(a, b *Document) int { return compareOrigins(a.Origin, b.Origin) })
	c.sidecar = sidecars[0]
	for _, d := range sidecars[1:] {
		c.report(d, Error, "metadata.name", "a second Sidecar is named %q, want one for a process; the first is %q at %s",
			d.Name, c.sidecar.Name, c.sidecar.Origin)
	}
}

// report notes a problem at a field of a document.
func (c *compiler) report(d *Document, severity Severity, path, format string, args ...any) {
	c.problems = append(c.problems, d.Problem(severity, path, format, args...))
}

// reportSet notes a problem that no single document has.
func (c *compiler) reportSet(severity Severity, format string, args ...any) {
	c.problems = append(c.problems, Problem{Severity: severity, Message: fmt.Sprintf(format, args...)})
}

// lookUp returns the index of the document that a field names, or -1 once it has reported that there is none.
func (c *compiler) lookUp(d *Document, path string, among *namedDocuments, name string) int {
	if i, ok := among.index[name]; ok {
		return i
	}
	p := d.Problem(Error, path, "no %s is named %q, want %s", among.kind, name, oneOf(among.names))
	if meant := closest(name, among.names); meant != "" {
		p.Suggestion = didYouMean(meant)
	}
	c.problems = append(c.problems, p)
	return -1
}

// oneOf lists what may be named, shortened when that is long.
func oneOf(names []string) string {
	const most = 8
	switch n := len(names); {
	case n == 0:
		return "one that exists (there is none)"
	case n > most:
		return fmt.Sprintf("%s or one of %d more", strings.Join(names[:most], ", "), n-most)
	}
	return list(names, "or")
}

func compareOrigins(a, b Origin) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}
