package policy

import (
	"fmt"
	"maps"
	"slices"
)

// KeyFile is a file of keys that an identity source names.
type KeyFile struct {
	Source int    // index into SidecarSettings.Identity
	Path   string // as a path of this process
	JWKS   bool   // a JSON Web Key Set; else API keys
}

// Keys are what one KeyFile holds: the one or the other.
type Keys struct {
	API APIKeyTable
	Set KeySet
}

// KeyFiles returns the files of keys that the identity sources name, in order.
func (s *SidecarSettings) KeyFiles() []KeyFile {
	var files []KeyFile
	for i := range s.Identity {
		switch source := &s.Identity[i]; {
		case source.APIKey != nil:
			files = append(files, KeyFile{Source: i, Path: source.APIKey.KeysFile})
		case source.JWT != nil:
			files = append(files, KeyFile{Source: i, Path: source.JWT.JWKSFile, JWKS: true})
		}
	}
	return files
}

// Field is the field of the Sidecar that names the file.
func (f KeyFile) Field() string {
	at := joinIndex("spec.identity", f.Source)
	if f.JWKS {
		return at + ".jwt.jwksFile"
	}
	return at + ".apiKey.keysFile"
}

// Holds says in words what the file holds.
func (f KeyFile) Holds() string {
	if f.JWKS {
		return "key set"
	}
	return "API keys"
}

// Parse reads the content of the file: see [ParseAPIKeys] and [ParseKeySet]. With a problem of severity Error, ok is false.
func (f KeyFile) Parse(data []byte) (keys Keys, ok bool, problems []Problem) {
	if f.JWKS {
		keys.Set, problems = ParseKeySet(f.Path, data)
		return keys, keys.Set != nil, problems
	}
	keys.API, problems = ParseAPIKeys(f.Path, data)
	return keys, keys.API != nil, problems
}

// WithKeys returns a copy of the snapshot that has these keys, one for each of Sidecar.KeyFiles, in order. Its Hash covers them, so
// that a changed file makes a changed snapshot; without any it is the hash of the documents. The snapshot itself is not changed, and
// the copy does not refer to the tables and sets given.
func (s *Snapshot) WithKeys(keys []Keys) *Snapshot {
	files := s.Sidecar.KeyFiles()
	if len(files) != len(keys) {
		panic(fmt.Sprintf("BUG: keys of %d files for %d", len(keys), len(files)))
	}
	with := *s
	with.Sidecar.APIKeys, with.Sidecar.KeySets = nil, nil
	for i, f := range files {
		if f.JWKS {
			with.Sidecar.KeySets = append(with.Sidecar.KeySets, slices.Clone(keys[i].Set))
		} else {
			with.Sidecar.APIKeys = append(with.Sidecar.APIKeys, maps.Clone(keys[i].API))
		}
	}
	with.Hash = hashOf(with.Documents, with.Sidecar.Service, with.Sidecar.APIKeys, with.Sidecar.KeySets)
	return &with
}
