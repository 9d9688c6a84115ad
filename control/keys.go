package control

import (
	"bytes"
	"fmt"

	"weir/policy"
)

// keyFiles reads the files of keys that Sidecars name, and keeps the last good keys of each.
type keyFiles struct {
	read  func(path string) ([]byte, error)
	good  map[keyFile]goodKeys // last good
	fresh map[keyFile]keyCheck // what was found in this round
}

// keyFile is a file as one sort of keys.
type keyFile struct {
	path string
	jwks bool
}

// goodKeys is a parsed file.
type goodKeys struct {
	data     []byte
	keys     policy.Keys
	warnings []policy.Problem
}

// keyCheck is the outcome of reading a file.
type keyCheck struct {
	problems []policy.Problem
	err      error // there are no good keys, now or before
}

func newKeyFiles(read func(path string) ([]byte, error)) *keyFiles {
	return &keyFiles{read: read, good: make(map[keyFile]goodKeys)}
}

// begin forgets what was found before, so that every file is read again, once.
func (k *keyFiles) begin() { k.fresh = make(map[keyFile]keyCheck) }

// paths are the files that were read in this round.
func (k *keyFiles) paths() []string {
	paths := make([]string, 0, len(k.fresh))
	for f := range k.fresh {
		paths = append(paths, f.path)
	}
	return paths
}

// attach returns the snapshot with the keys its Sidecar names, and what is wrong with them. The snapshot is nil when keys are
// missing and were never good: without them nobody would be identified, and nobody would know why. The Sidecar is refused then.
func (k *keyFiles) attach(s *policy.Snapshot, docs []*policy.Document) (*policy.Snapshot, []policy.Problem) {
	var (
		all      []policy.Keys
		problems []policy.Problem
		missing  bool
	)
	for _, f := range s.Sidecar.KeyFiles() {
		check := k.check(f)
		if check.err != nil {
			missing = true
			problems = append(problems, sidecarProblem(s.Sidecar.Name, docs, f.Field(), check.err))
		}
		problems = append(problems, check.problems...)
		all = append(all, k.good[keyFile{f.Path, f.JWKS}].keys)
	}
	if missing {
		return nil, append(problems, s.Warnings...)
	}
	if len(all) == 0 {
		return s, nil
	}
	return s.WithKeys(all), problems
}

// check reads one file, once in a round.
func (k *keyFiles) check(f policy.KeyFile) keyCheck {
	id := keyFile{f.Path, f.JWKS}
	if c, done := k.fresh[id]; done {
		return c
	}
	c := k.load(id, f)
	k.fresh[id] = c
	return c
}

func (k *keyFiles) load(id keyFile, f policy.KeyFile) keyCheck {
	last, was := k.good[id]
	data, err := k.read(f.Path)
	switch {
	case err != nil && was:
		return keyCheck{problems: []policy.Problem{unreadable(f.Path, fmt.Errorf("%w; the keys read before stay in force", err))}}
	case err != nil:
		return keyCheck{err: fmt.Errorf("cannot read the %s: %w", f.Holds(), err)}
	case was && bytes.Equal(last.data, data):
		return keyCheck{problems: last.warnings}
	}
	keys, ok, problems := f.Parse(data)
	switch {
	case ok:
		k.good[id] = goodKeys{data, keys, problems}
		return keyCheck{problems: problems}
	case was:
		return keyCheck{problems: append(problems, policy.Problem{
			Severity: policy.Warning, Origin: policy.Origin{File: f.Path}, Message: "the keys read before stay in force",
		})}
	}
	return keyCheck{err: fmt.Errorf("no %s: %s", f.Holds(), firstOf(problems))}
}

// retain forgets the files that the Sidecar in force does not name.
func (k *keyFiles) retain(files []policy.KeyFile) {
	named := make(map[keyFile]bool, len(files))
	for _, f := range files {
		named[keyFile{f.Path, f.JWKS}] = true
	}
	for id := range k.good {
		if !named[id] {
			delete(k.good, id)
		}
	}
}

// sidecarProblem is an error at a field of the Sidecar.
func sidecarProblem(name string, docs []*policy.Document, path string, err error) policy.Problem {
	for _, d := range docs {
		if d.Kind == policy.KindSidecar && d.Name == name {
			return d.Problem(policy.Error, path, "%v", err)
		}
	}
	return policy.Problem{Kind: policy.KindSidecar, Name: name, Path: path, Message: err.Error()}
}
