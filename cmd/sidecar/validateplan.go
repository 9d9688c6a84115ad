package main

import (
	"fmt"
	"slices"

	"weir/control"
	"weir/control/etcd"
	"weir/policy"
	"weir/policy/diff"
)

// readStored reads the documents that a command line names, for a store. What is wrong with them is printed; tests of policies are passed
// over with a word.
func (c *cli) readStored(names []string) ([]etcd.Stored, error) {
	texts, err := readNamed(c.in, names)
	if err != nil {
		return nil, err
	}
	docs, err := c.decodeAll(texts)
	if err != nil {
		return nil, err
	}
	var stored []etcd.Stored
	first := make(map[diff.Key]policy.Origin)
	f := findings{}
	for _, d := range docs {
		key := diff.KeyOf(d)
		if d.Kind.PassedOver() {
			fmt.Fprintf(c.err, "%s %s is passed over: documents of this kind stay in files\n", d.Kind, d.Name)
			continue
		}
		if at, twice := first[key]; twice {
			f.note([]policy.Problem{d.Problem(policy.Error, "metadata.name", "a second %s is named %q, want one of each name; the first is at %s", d.Kind, d.Name, at)})
			continue
		}
		first[key] = d.Origin
		stored = append(stored, etcd.Stored{Key: key, Text: d.Text(), Document: d})
	}
	return stored, c.refuse(f)
}

// readBeside reads the documents that sidecars have from elsewhere.
func (c *cli) readBeside(names []string) ([]*policy.Document, error) {
	if len(names) == 0 {
		return nil, nil
	}
	texts, err := readTexts(c.in, names)
	if err != nil {
		return nil, err
	}
	return c.decodeAll(texts)
}

// decodeAll decodes texts. What is wrong with them is printed.
func (c *cli) decodeAll(texts []control.File) ([]*policy.Document, error) {
	var docs []*policy.Document
	f := findings{}
	for _, t := range texts {
		decoded, problems := policy.Decode(t.Path, t.Data)
		docs = append(docs, decoded...)
		f.note(problems)
	}
	return docs, c.refuse(f)
}

// validatePlan checks a change together with everything that is there and that sidecars have from elsewhere. What was wrong before is not
// held against it; errors that it makes are printed, and so are warnings about what it puts.
func (c *cli) validatePlan(p etcd.Plan, beside []*policy.Document) error {
	put := make(map[diff.Key]bool)
	for _, change := range p.Changes {
		put[diff.Key{Kind: change.Kind, Name: change.Name}] = true
	}
	f := findings{}
	problems := problemsOf(p.Decoded(), beside, put)
	if len(problems) > 0 {
		problems = withoutKnown(problems, problemsOf(p.Before.Decoded(), beside, put))
	}
	for _, problem := range problems {
		if problem.Severity == policy.Error || put[diff.Key{Kind: problem.Kind, Name: problem.Name}] {
			f.note([]policy.Problem{problem})
		}
	}
	if err := f.render(c.err, c.painterFor(c.err)); err != nil {
		return err
	}
	if f.errors > 0 {
		fmt.Fprintf(c.err, "nothing is written: %s\n", f.summary())
		return errInvalid
	}
	return nil
}

// withoutKnown are the problems that were not there before, wherever in its text each may stand now.
func withoutKnown(problems, before []policy.Problem) []policy.Problem {
	placeless := func(p policy.Problem) policy.Problem {
		p.Origin, p.Excerpt = policy.Origin{}, ""
		return p
	}
	known := make(map[policy.Problem]bool)
	for _, p := range before {
		known[placeless(p)] = true
	}
	return slices.DeleteFunc(problems, func(p policy.Problem) bool { return known[placeless(p)] })
}

// assumedSidecar stands for those that a store does not have, as most have none: each process brings its own, which knows tenants.
const assumedSidecar = `apiVersion: weir.dev/v1alpha1
kind: Sidecar
metadata: {name: assumed}
spec: {identity: [{header: X-Tenant-ID, trust: any}], unknownTenant: Default}
`

// problemsOf compiles documents of a store with those from elsewhere, and returns what is wrong. Where both have one of a kind and name,
// that of the store counts. Of several Sidecars, which may be those of several services, one counts: from elsewhere, or one that is put.
func problemsOf(stored, beside []*policy.Document, put map[diff.Key]bool) []policy.Problem {
	docs := slices.Clone(stored)
	there := make(map[diff.Key]bool)
	for _, d := range docs {
		there[diff.KeyOf(d)] = true
	}
	var sidecar *policy.Document
	for _, d := range stored {
		if d.Kind == policy.KindSidecar && (sidecar == nil || put[diff.KeyOf(d)]) {
			sidecar = d
		}
	}
	for _, d := range beside {
		if d.Kind == policy.KindSidecar {
			sidecar = d
		} else if !there[diff.KeyOf(d)] {
			docs = append(docs, d)
		}
	}
	docs = slices.DeleteFunc(docs, func(d *policy.Document) bool { return d.Kind == policy.KindSidecar })
	if len(docs) == 0 && sidecar == nil {
		return nil
	}
	if sidecar == nil {
		assumed, _ := policy.Decode("", []byte(assumedSidecar))
		sidecar = assumed[0]
	}
	docs = append(docs, sidecar)
	snapshot, problems := policy.Compile(docs, policy.CompileOptions{})
	if snapshot != nil {
		problems = snapshot.Warnings
	}
	return problems
}
