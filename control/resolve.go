package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"weir/policy"
)

// State says what became of a document.
type State string

// The states.
const (
	Applied  State = "applied"   // its latest version is in force
	LastGood State = "last_good" // an older version is in force, since the latest is refused, unreadable or a removal that cannot be
	Refused  State = "refused"   // no version is in force
)

// objectKey names a document.
type objectKey struct {
	kind policy.Kind
	name string
}

func compareKeys(a, b objectKey) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name))
}

// compileFunc compiles documents. The snapshot is nil when problems of severity Error refuse documents, by kind and name.
type compileFunc func([]*policy.Document) (*policy.Snapshot, []policy.Problem)

// resolution is what shall be in force.
type resolution struct {
	snapshot *policy.Snapshot // nil when nothing can be
	objects  map[objectKey]object
	states   map[objectKey]State // of the objects, and of the refused
	held     map[string]Removals // by source: removals that wait until they are confirmed
	problems []policy.Problem    // sorted by origin
}

// resolve decides what shall be in force: what the sources say now, with the good versions from before in the place of whatever is
// broken. It is a pure function, apart from what compile reads.
func resolve(good map[objectKey]object, readings []*reading, compile compileFunc) resolution {
	p := &plan{
		good:     good,
		want:     make(map[objectKey][]object),
		kept:     make(map[objectKey]bool),
		round:    make(map[objectKey]bool),
		held:     make(map[string]Removals),
		problems: problemsOf(readings),
	}
	p.merge(readings)
	p.keepSidecar()
	return p.resolution(p.compile(compile))
}

// problemsOf collects what is wrong with the readings themselves.
func problemsOf(readings []*reading) []policy.Problem {
	var problems []policy.Problem
	for _, r := range readings {
		if r.err != nil {
			problems = append(problems, unreadable(r.source, r.err))
		}
		for _, f := range r.files {
			problems = append(problems, f.problems...)
		}
	}
	return problems
}

// plan is a set of documents on its way to one that compiles.
type plan struct {
	good     map[objectKey]object   // the good versions from before
	want     map[objectKey][]object // the candidates: one for each key, or several of one source for the compiler to refuse
	kept     map[objectKey]bool     // good versions that stay although no source says them now
	round    map[objectKey]bool     // those that came back since the last compile
	held     map[string]Removals    // see resolution
	self     *reading               // the source that has the Sidecar
	problems []policy.Problem
}

// merge finds the candidates. A later source replaces what an earlier one says, and a document that its source cannot say just now
// is kept.
func (p *plan) merge(readings []*reading) {
	broken := named(p.problems)
	for _, r := range readings {
		said := make(map[objectKey][]object)
		for _, f := range r.files {
			for _, o := range f.objects {
				said[o.key()] = append(said[o.key()], o)
			}
		}
		kept := make(map[objectKey]bool)
		keep := func(o object) { said[o.key()], kept[o.key()] = []object{o}, true }
		missing := func(key objectKey, o object) bool { return said[key] == nil && o.source == r.source }
		for key, o := range p.good {
			if missing(key, o) && (broken[key] || r.keeps(o)) {
				keep(o)
			}
		}
		p.guard(r, said, keep)
		if r.silent() {
			for key, o := range p.good {
				if missing(key, o) {
					keep(o)
				}
			}
		}
		p.passOverSidecars(r, said)
		for _, key := range sortedKeys(said) {
			if before := p.want[key]; before != nil {
				p.problems = append(p.problems, before[0].doc.Problem(policy.Warning, "",
					"%s %q of %s takes the place of this document; remove one of them", key.kind, key.name, said[key][0].doc.Origin))
			}
			p.want[key] = said[key]
			p.kept[key] = kept[key] || r.silent()
		}
	}
}

// passOverSidecars drops the Sidecars that do not describe this process. Only the operator's command line names a source that can have
// one, and the first of these that has one wins: a store that many sidecars share cannot change what one of them listens on, whom it
// believes and where its policies come from.
func (p *plan) passOverSidecars(r *reading, said map[objectKey][]object) {
	for _, key := range sortedKeys(said) {
		if key.kind != policy.KindSidecar {
			continue
		}
		reason := ""
		switch {
		case r.named != "":
			reason = "a Sidecar counts only in what the command line names: -f, --backend or --etcd"
		case p.self != nil && p.self != r:
			reason = fmt.Sprintf("this process is described by the Sidecar of the source %q, which comes first", p.self.source)
		default:
			p.self = r
			continue
		}
		p.problems = append(p.problems, said[key][0].doc.Problem(policy.Warning, "", "passed over: %s", reason))
		delete(said, key)
	}
}

// keepSidecar keeps the document that describes this process when its sources have none any more. Without it the sidecar would go
// on by defaults: other identity, nobody trusted, everyone denied. Another one in its place is a change like any other.
func (p *plan) keepSidecar() {
	isSidecar := func(k objectKey) bool { return k.kind == policy.KindSidecar }
	if !slices.ContainsFunc(sortedKeys(p.want), isSidecar) {
		gone := slices.DeleteFunc(sortedKeys(p.good), func(k objectKey) bool { return !isSidecar(k) })
		p.restore(gone, "removed, but a running sidecar keeps its own settings; put another Sidecar in its place, or restart")
	}
}

// compile compiles the candidates, and lets those that errors name give way step by step until the rest is clean. Every document
// can give way three times at most (come back, fall back, leave), so the number of rounds is bounded.
func (p *plan) compile(compile compileFunc) *policy.Snapshot {
	for range 3*(len(p.want)+len(p.good)) + 1 {
		snapshot, problems := compile(p.documents())
		if snapshot != nil {
			p.problems = append(p.problems, problems...)
			p.problems = append(p.problems, snapshot.Warnings...)
			return snapshot
		}
		clear(p.round)
		progress := false
		for _, key := range sortedKeys(named(problems)) {
			if p.want[key] == nil {
				continue
			}
			progress = true
			if !p.giveWay(key, problems) {
				break // the other problems may be gone by now
			}
		}
		if progress {
			continue
		}
		// Nobody is to blame by name: what was removed comes back, and then all that is new waits.
		if !p.restore(sortedKeys(p.good), "removed, but nothing works without it, so its last version stays") &&
			!p.holdBack(func(objectKey) bool { return true }, firstError(problems)) {
			if !slices.ContainsFunc(p.problems, isError) {
				p.problems = append(p.problems, problems...) // else they are but the consequence
			}
			return nil
		}
	}
	return nil
}

// documents are the candidates, sorted by kind and name.
func (p *plan) documents() []*policy.Document {
	var docs []*policy.Document
	for _, key := range sortedKeys(p.want) {
		for _, o := range p.want[key] {
			docs = append(docs, o.doc)
		}
	}
	return docs
}

// giveWay moves a document that does not compile one step back. If it needs one that was removed, that one comes back: otherwise
// the removal of a route would take every limit that names it out of force. Else it returns to its last good version, or leaves
// when it has none. One that is in force as it stands never leaves for the sake of newcomers: those of its kind wait, then all,
// and giveWay reports false, since that may mend what else is wrong.
func (p *plan) giveWay(key objectKey, problems []policy.Problem) bool {
	var refs []objectKey
	for _, o := range p.want[key] {
		refs = append(refs, references(o.doc)...)
	}
	if p.restore(refs, fmt.Sprintf("removed, but %s %q still refers to it, so its last version stays; remove the reference first", key.kind, key.name)) {
		return true
	}
	own := slices.DeleteFunc(slices.Clone(problems), func(e policy.Problem) bool { return objectKey{e.Kind, e.Name} != key })
	good, was := p.good[key]
	if was && p.isGood(key) {
		reason := firstError(own)
		if p.holdBack(func(k objectKey) bool { return k.kind == key.kind }, reason) || p.holdBack(func(objectKey) bool { return true }, reason) {
			return false
		}
		was = false // the good set itself no longer compiles: it was stored by another build
	}
	p.problems = append(p.problems, own...)
	if was {
		p.want[key] = []object{good}
	} else {
		delete(p.want, key)
	}
	return true
}

// restore brings back those of the documents that were removed, and reports whether there was one. Each comes back at most once.
func (p *plan) restore(keys []objectKey, message string) bool {
	changed := false
	for _, key := range keys {
		if p.round[key] {
			changed = true
		} else if good, was := p.good[key]; was && p.want[key] == nil && !p.kept[key] {
			p.want[key] = []object{good}
			p.kept[key], p.round[key] = true, true
			p.problems = append(p.problems, good.doc.Problem(policy.Error, "", "%s", message))
			changed = true
		}
	}
	return changed
}

// holdBack returns every new document of a selection to its last good version, and reports whether there was one.
func (p *plan) holdBack(selected func(objectKey) bool, reason string) bool {
	changed := false
	for _, key := range sortedKeys(p.want) {
		if !selected(key) || p.isGood(key) {
			continue
		}
		changed = true
		for _, o := range p.want[key] {
			p.problems = append(p.problems, o.doc.Problem(policy.Error, "", "held back, since it does not go with what is in force: %s", reason))
		}
		if good, was := p.good[key]; was {
			p.want[key] = []object{good}
		} else {
			delete(p.want, key)
		}
	}
	return changed
}

// isGood reports whether the candidate is the last good version.
func (p *plan) isGood(key objectKey) bool {
	good, was := p.good[key]
	return was && len(p.want[key]) == 1 && p.want[key][0].digest == good.digest
}

// resolution says what came out.
func (p *plan) resolution(snapshot *policy.Snapshot) resolution {
	r := resolution{
		snapshot: snapshot,
		objects:  make(map[objectKey]object, len(p.want)),
		states:   make(map[objectKey]State, len(p.want)),
		held:     p.held,
		problems: distinct(p.problems),
	}
	refused := named(r.problems)
	for key, candidates := range p.want {
		r.objects[key] = candidates[0]
		r.states[key] = Applied
		if refused[key] || p.kept[key] {
			r.states[key] = LastGood
		}
	}
	for key := range refused {
		if p.want[key] == nil {
			r.states[key] = Refused
		}
	}
	return r
}

// named returns the documents that errors name.
func named(problems []policy.Problem) map[objectKey]bool {
	keys := make(map[objectKey]bool)
	for _, p := range problems {
		if p.Severity == policy.Error && p.Name != "" {
			keys[objectKey{p.Kind, p.Name}] = true
		}
	}
	return keys
}

// firstError is the message of the first error.
func firstError(problems []policy.Problem) string {
	for _, p := range problems {
		if p.Severity == policy.Error {
			return p.String()
		}
	}
	return "unknown"
}

func sortedKeys[V any](m map[objectKey]V) []objectKey {
	return slices.SortedFunc(maps.Keys(m), compareKeys)
}

// references are the documents that one refers to by name.
func references(d *policy.Document) []objectKey {
	var refs []objectKey
	add := func(kind policy.Kind, name string) {
		if name != "" {
			refs = append(refs, objectKey{kind, name})
		}
	}
	switch spec := d.Spec.(type) {
	case *policy.RouteSpec:
		add(policy.KindBackend, spec.Backend)
		for _, s := range spec.Split {
			add(policy.KindBackend, s.Backend)
		}
	case *policy.BreakerPolicySpec:
		add(policy.Kind(spec.Target.Kind), spec.Target.Name)
	case *policy.TenantPolicySpec:
		add(policy.KindBackend, spec.Backend)
		for _, l := range spec.Limits {
			for _, route := range l.Routes {
				add(policy.KindRoute, route)
			}
		}
	}
	return refs
}

// distinct sorts problems by where they are and drops repetitions.
func distinct(problems []policy.Problem) []policy.Problem {
	problems = slices.Clone(problems)
	slices.SortFunc(problems, func(a, b policy.Problem) int {
		return cmp.Or(
			cmp.Compare(a.Origin.File, b.Origin.File),
			cmp.Compare(a.Origin.Line, b.Origin.Line),
			cmp.Compare(a.Origin.Column, b.Origin.Column),
			cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Message, b.Message),
			compareKeys(objectKey{a.Kind, a.Name}, objectKey{b.Kind, b.Name}),
			cmp.Compare(a.Severity, b.Severity),
		)
	})
	return slices.Compact(problems)
}

// problemKey identifies a problem over time, wherever in its file it moves to.
type problemKey struct{ file, kind, name, path, message string }

func keyOf(p policy.Problem) problemKey {
	return problemKey{p.Origin.File, string(p.Kind), p.Name, p.Path, p.Message}
}
