package file

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weir/control"
	"weir/policy"
)

// tree makes a folder of paths and texts. A text "-> target" makes a link, one of "dir" a folder.
func tree(t *testing.T, pathsAndTexts ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(pathsAndTexts); i += 2 {
		put(t, filepath.Join(dir, pathsAndTexts[i]), pathsAndTexts[i+1])
	}
	return dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	target, isLink := strings.CutPrefix(text, "-> ")
	switch {
	case isLink:
		must(t, os.Symlink(target, path))
	case text == "dir":
		must(t, os.Mkdir(path, 0o700))
	default:
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lines shows a batch: one line for each file, as "path: text" or "path! error", with paths relative to dir.
func lines(dir string, b control.Batch) []string {
	var list []string
	if b.Err != nil {
		list = append(list, "! "+b.Err.Error())
	}
	for _, f := range b.Files {
		path, ok := strings.CutPrefix(f.Path, dir+"/")
		if !ok {
			path = strings.TrimPrefix(f.Path, dir)
		}
		if f.Err != nil {
			list = append(list, fmt.Sprintf("%s! %v", path, f.Err))
		} else {
			list = append(list, fmt.Sprintf("%s: %s", path, strings.TrimSpace(string(f.Data))))
		}
	}
	return list
}

func TestLoad(t *testing.T) {
	dir := tree(t,
		"p/b.yaml", "b", "p/a.yml", "a", "p/c.json", "c",
		"p/README.md", "not a document", "p/.hidden.yaml", "no", "p/a.yaml~", "no", "p/.git/config.yaml", "no",
		"p/sub/deep/d.yaml", "d",
		"p/link.yaml", "-> ../elsewhere/e.yaml", "elsewhere/e.yaml", "e",
		"p/circle", "-> ../p", "p/dangling.yaml", "-> nowhere", "p/folder.yaml/f.yaml", "f",
		"other", "o", "here", "-> p/sub",
		"configmap/..2026/x.yaml", "x", "configmap/..data", "-> ..2026", "configmap/x.yaml", "-> ..data/x.yaml",
		"empty", "dir", "only/README.md", "no document")
	put(t, filepath.Join(dir, "big.yaml"), strings.Repeat("#", policy.MaxSource+1))
	put(t, filepath.Join(dir, "largest.yaml"), strings.Repeat(" ", policy.MaxSource-1)+"#")
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	f := func(want []string, paths ...string) {
		t.Helper()
		for i := range paths {
			paths[i] = filepath.Join(dir, paths[i])
		}
		if diff := cmp.Diff(want, lines(dir, Load(paths))); diff != "" {
			t.Errorf("batch (-want +got):\n%s", diff)
		}
	}
	// a file, whatever its name is
	f([]string{"other: o"}, "other")
	// a folder and those below it
	f([]string{"p/a.yml: a", "p/b.yaml: b", "p/c.json: c", "p/dangling.yaml! no such file or directory", "p/folder.yaml/f.yaml: f", "p/link.yaml: e", "p/sub/deep/d.yaml: d"}, "p")
	// several paths are one set, each file once
	f([]string{"other: o", "p/sub/deep/d.yaml: d"}, "p/sub", "other", "p/sub/deep/d.yaml", "./other")
	// a link to a folder, when it is said so
	f([]string{"here/deep/d.yaml: d"}, "here")
	// a ConfigMap
	f([]string{"configmap/x.yaml: x"}, "configmap")
	// what is not there, and what is empty
	f([]string{"missing.yaml! no such file or directory", "other: o"}, "missing.yaml", "other")
	f([]string{"empty! the folder has no *.yaml, *.yml or *.json file; put documents there, or name another path"}, "empty")
	f([]string{"only! the folder has no *.yaml, *.yml or *.json file; put documents there, or name another path"}, "only")
	// too much, and what would block
	f([]string{fmt.Sprintf("big.yaml! %s/big.yaml has 8388609 bytes, want at most 8388608 (8MiB)", dir)}, "big.yaml")
	f([]string{"largest.yaml: #"}, "largest.yaml")
	f([]string{fmt.Sprintf("pipe! %s/pipe is not a regular file but p---------", dir)}, "pipe")
	// nothing at all
	if b := Load(nil); b.Err == nil {
		t.Error("no path is no error")
	}
}

func sidecar(policies ...string) string {
	s := "apiVersion: weir.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: weir}\nspec:\n  policies:\n"
	for _, p := range policies {
		s += fmt.Sprintf("  - file: {path: %q}\n", p)
	}
	return s
}

func TestLoadFollowsTheSidecar(t *testing.T) {
	dir := tree(t, "etc/self.yaml", sidecar("policies", "../more.yaml"), "etc/policies/a.yaml", "a", "more.yaml", "m")
	paths := []string{filepath.Join(dir, "etc/self.yaml")}
	f := func(named []string, want ...string) []string {
		t.Helper()
		b, next := load(paths, named, unnamed)
		for i := range b.Files {
			if strings.Contains(string(b.Files[i].Data), "kind: Sidecar") {
				b.Files[i].Data = []byte("sidecar")
			}
		}
		if diff := cmp.Diff(want, lines(dir, b)); diff != "" {
			t.Errorf("batch (-want +got):\n%s", diff)
		}
		return next
	}
	named := f(nil, "etc/policies/a.yaml: a", "etc/self.yaml: sidecar", "more.yaml: m")
	// while the Sidecar is broken or gone, what it named stays
	put(t, paths[0], "kind: Sidecar\nmetadata: {")
	named = f(named, "etc/policies/a.yaml: a", "etc/self.yaml: sidecar", "more.yaml: m")
	must(t, os.Remove(paths[0]))
	named = f(named, "etc/policies/a.yaml: a", "etc/self.yaml! no such file or directory", "more.yaml: m")
	// one that names less
	put(t, paths[0], sidecar("policies"))
	named = f(named, "etc/policies/a.yaml: a", "etc/self.yaml: sidecar")
	put(t, paths[0], "# nothing")
	named = f(named, "etc/policies/a.yaml: a", "etc/self.yaml: # nothing")
	// and none
	put(t, paths[0], strings.Replace(sidecar(), "policies:", "policies: []", 1))
	named = f(named, "etc/self.yaml: sidecar")
	// files with a name are a source of their own; whoever reads once reads them, too
	put(t, paths[0], sidecar("../more.yaml")+"    name: file\n  - {name: team, file: {path: policies}}\n")
	f(named, "etc/self.yaml: sidecar", "more.yaml: m")
	if b := Load(paths); len(b.Files) != 3 {
		t.Errorf("read once, there are %d files, want 3", len(b.Files))
	}
}
