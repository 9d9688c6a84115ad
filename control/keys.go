package control

import (
	"bytes"
	"fmt"

	"weir/policy"
)

// keyFiles reads the API key files that Sidecars name, and keeps the last good table of each.
type keyFiles struct {
	read   func(path string) ([]byte, error)
	tables map[string]keyTable // last good, by path
	fresh  map[string]keyCheck // what was found in this round, by path
}

// keyTable is a parsed file.
type keyTable struct {
	data     []byte
	table    policy.APIKeyTable
	warnings []policy.Problem
}

// keyCheck is the outcome of reading a file.
type keyCheck struct {
	problems []policy.Problem
	err      error // there is no good table, now or before
}

func newKeyFiles(read func(path string) ([]byte, error)) *keyFiles {
	return &keyFiles{read: read, tables: make(map[string]keyTable)}
}

// begin forgets what was found before, so that every file is read again, once.
func (k *keyFiles) begin() { k.fresh = make(map[string]keyCheck) }

// attach returns the snapshot with the tables its Sidecar names, and what is wrong with them. The snapshot is nil when a table is
// missing and was never good: without it nobody would be identified, and nobody would know why. The Sidecar is refused then.
func (k *keyFiles) attach(s *policy.Snapshot, docs []*policy.Document) (*policy.Snapshot, []policy.Problem) {
	var (
		tables   []policy.APIKeyTable
		problems []policy.Problem
		missing  bool
	)
	for i, source := range s.Sidecar.Identity {
		if source.APIKey == nil {
			continue
		}
		path := source.APIKey.KeysFile
		check := k.check(path)
		if check.err != nil {
			missing = true
			problems = append(problems, sidecarProblem(s.Sidecar.Name, docs, fmt.Sprintf("spec.identity[%d].apiKey.keysFile", i), check.err))
		}
		problems = append(problems, check.problems...)
		tables = append(tables, k.tables[path].table)
	}
	if missing {
		return nil, append(problems, s.Warnings...)
	}
	if len(tables) == 0 {
		return s, nil
	}
	return s.WithAPIKeys(tables), problems
}

// check reads one file, once in a round.
func (k *keyFiles) check(path string) keyCheck {
	if c, done := k.fresh[path]; done {
		return c
	}
	c := k.load(path)
	k.fresh[path] = c
	return c
}

func (k *keyFiles) load(path string) keyCheck {
	last, was := k.tables[path]
	data, err := k.read(path)
	switch {
	case err != nil && was:
		return keyCheck{problems: []policy.Problem{unreadable(path, fmt.Errorf("%w; the keys read before stay in force", err))}}
	case err != nil:
		return keyCheck{err: fmt.Errorf("cannot read the API keys: %w", err)}
	case was && bytes.Equal(last.data, data):
		return keyCheck{problems: last.warnings}
	}
	table, problems := policy.ParseAPIKeys(path, data)
	switch {
	case table != nil:
		k.tables[path] = keyTable{data, table, problems}
		return keyCheck{problems: problems}
	case was:
		return keyCheck{problems: append(problems, policy.Problem{
			Severity: policy.Warning, Origin: policy.Origin{File: path}, Message: "the keys read before stay in force",
		})}
	}
	return keyCheck{err: fmt.Errorf("no API keys: %s (%d problems in all)", firstError(problems), len(problems))}
}

// retain forgets the files that the Sidecar in force does not name.
func (k *keyFiles) retain(paths []string) {
	named := make(map[string]bool, len(paths))
	for _, path := range paths {
		named[path] = true
	}
	for path := range k.tables {
		if !named[path] {
			delete(k.tables, path)
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
