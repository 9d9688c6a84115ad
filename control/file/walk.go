package file

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"weir/control"
	"weir/policy"
)

// Load reads the documents of files and folders once. A file is read whatever its name is; of a folder and the folders below it,
// every *.yaml, *.yml and *.json file that is not hidden. Symbolic links to files are followed, those to folders only when they are
// among the paths. A Sidecar among the documents adds the paths of its spec.policies, also of those that are sources of their own.
//
// What cannot be read is in the batch as a file with an Err. Paths in the batch are the given ones, joined and cleaned.
func Load(paths []string) control.Batch {
	batch, _ := load(paths, nil, func(*policy.PolicySource) bool { return true })
	return batch
}

// unnamed reports whether the files of a source are of one set with those that name it.
func unnamed(s *policy.PolicySource) bool { return s.Name == "" || s.Name == Name }

// load reads paths, and of what the Sidecars in them name those that are wanted. While there is no good Sidecar, those named last stay: a process whose own
// document is broken keeps its settings, and these are some of them.
func load(paths, named []string, wanted func(*policy.PolicySource) bool) (control.Batch, []string) {
	if len(paths) == 0 {
		return control.Batch{Err: errors.New("no path is given")}, nil
	}
	files := read(walk(paths))
	if found, ok := policyPaths(files, wanted); ok {
		named = found
	}
	if len(named) > 0 {
		files = append(files, read(walk(named))...)
		slices.SortStableFunc(files, func(a, b control.File) int { return cmp.Compare(a.Path, b.Path) })
		files = slices.CompactFunc(files, func(a, b control.File) bool { return a.Path == b.Path })
	}
	return control.Batch{Files: files}, named
}

// policyPaths returns the paths that the Sidecars in the files name and that are wanted, and whether there is a good one.
func policyPaths(files []control.File, wanted func(*policy.PolicySource) bool) (paths []string, ok bool) {
	for _, f := range files {
		if !bytes.Contains(f.Data, []byte(policy.KindSidecar)) {
			continue // the common case is not decoded twice
		}
		docs, _ := policy.Decode(f.Path, f.Data)
		for _, d := range docs {
			spec, is := d.Spec.(*policy.SidecarSpec)
			if !is {
				continue
			}
			ok = true
			for i := range spec.Policies {
				if source := &spec.Policies[i]; source.File != nil && wanted(source) {
					paths = append(paths, policy.ResolvePath(d.Origin, source.File.Path))
				}
			}
		}
	}
	return paths, ok
}

// found is one file, or a path at which none could be read.
type found struct {
	path string
	info fs.FileInfo // nil with an error
	err  error
}

// walk lists the files at paths, sorted by path, each once.
func walk(paths []string) []found {
	var list []found
	for _, root := range paths {
		root = filepath.Clean(root)
		info, err := os.Stat(root)
		switch {
		case err != nil:
			list = append(list, found{path: root, err: reason(err)})
		case !info.IsDir():
			list = append(list, found{path: root, info: info})
		default:
			below := walkDir(root)
			if len(below) == 0 {
				below = []found{{path: root, err: errors.New("the folder has no *.yaml, *.yml or *.json file; put documents there, or name another path")}}
			}
			list = append(list, below...)
		}
	}
	slices.SortStableFunc(list, func(a, b found) int { return cmp.Compare(a.path, b.path) })
	return slices.CompactFunc(list, func(a, b found) bool { return a.path == b.path })
}

// walkDir lists the files of a folder and of those below it.
func walkDir(dir string) []found {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []found{{path: dir, err: reason(err)}}
	}
	var list []found
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		switch {
		case hidden(path): // also the ..data of a ConfigMap and the folders it points to: its files are linked beside it
		case entry.IsDir():
			list = append(list, walkDir(path)...)
		case isDocument(path):
			info, err := os.Stat(path)
			switch {
			case err != nil:
				list = append(list, found{path: path, err: reason(err)})
			case !info.IsDir(): // a link to a folder can lead in a circle
				list = append(list, found{path: path, info: info})
			}
		}
	}
	return list
}

func hidden(path string) bool { return strings.HasPrefix(filepath.Base(path), ".") }

func isDocument(path string) bool {
	switch filepath.Ext(path) {
	case ".yaml", ".yml", ".json":
		return !hidden(path)
	}
	return false
}

// reason drops the path, which the problem names anyway, from an error.
func reason(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err
	}
	return err
}

// read reads what walk found.
func read(list []found) []control.File {
	files := make([]control.File, 0, len(list))
	for _, f := range list {
		file := control.File{Path: f.path, Err: f.err}
		if f.err == nil {
			file.Data, file.Err = control.ReadFile(f.path)
			file.Err = reason(file.Err)
		}
		files = append(files, file)
	}
	return files
}

// stamp describes what is at paths without reading it: a later stamp differs when a file may have changed.
func stamp(paths []string) string {
	var b strings.Builder
	for _, f := range walk(paths) {
		fmt.Fprintf(&b, "%q", f.path)
		if f.err != nil {
			fmt.Fprintf(&b, " %v\n", f.err)
			continue
		}
		fmt.Fprintf(&b, " %d %d\n", f.info.Size(), f.info.ModTime().UnixNano())
	}
	return b.String()
}

// same reports whether two batches say the same.
func same(a, b control.Batch) bool {
	return fmt.Sprint(a.Err) == fmt.Sprint(b.Err) && slices.EqualFunc(a.Files, b.Files, func(a, b control.File) bool {
		return a.Path == b.Path && bytes.Equal(a.Data, b.Data) && fmt.Sprint(a.Err) == fmt.Sprint(b.Err)
	})
}
