package control

import (
	"fmt"
	"strings"
	"testing"

	"weir/policy"
)

// A file that must be one document cannot pass for another, whole or broken.
func TestFilesThatMustBeADocument(t *testing.T) {
	document := func(name string) string {
		return fmt.Sprintf("apiVersion: weir.dev/v1alpha1\nkind: Backend\nmetadata: {name: %s}\nspec: {endpoints: [{address: \"127.0.0.1:9000\"}]}\n", name)
	}
	broken := func(name string) string { return strings.Replace(document(name), "endpoints", "endpoint", 1) }
	f := func(kind policy.Kind, name, text, want string, problems ...string) {
		t.Helper()
		d := decodeFile("platform", File{Path: "x", Data: []byte(text), Kind: kind, Name: name})
		got := ""
		for _, o := range d.objects {
			got += o.doc.Name
		}
		var said []string
		for _, p := range d.problems {
			said = append(said, fmt.Sprintf("%s %s: %s", p.Kind, p.Name, p.Message))
		}
		if got != want || len(said) != len(problems) {
			t.Errorf("got %q with the problems %q, want %q with %q", got, said, want, problems)
			return
		}
		for i := range said {
			if !strings.HasPrefix(said[i], problems[i]) {
				t.Errorf("got the problem %q, want %q", said[i], problems[i])
			}
		}
		if d.Err != nil && !(&reading{files: []decodedFile{d}}).keeps(object{file: "x"}) {
			t.Error("its last good version is not kept")
		}
	}
	f(policy.KindBackend, "a", document("a"), "a")
	f(policy.KindBackend, "a", "# a comment\n---\n"+document("a"), "a")
	// What is broken, and the document it must be, or none that one could name, is told as ever.
	f(policy.KindBackend, "a", broken("a"), "", "Backend a: unknown field")
	f(policy.KindBackend, "a", "a: [", "", " : ")
	// Another document. Its own key has nothing to do with that.
	f(policy.KindBackend, "a", document("b"), "", `Backend a: Backend "b" is here, want Backend "a"; write it with sidecar apply`)
	f(policy.KindBackend, "a", broken("b"), "", `Backend a: Backend "b" is here, want Backend "a"; write it with sidecar apply`)
	f(policy.KindRoute, "a", document("a"), "", `Route a: Backend "a" is here, want Route "a"; write it with sidecar apply`)
	// Several, and none.
	f(policy.KindBackend, "a", document("a")+"---\n"+document("b"), "", `Backend a: 2 documents are here, want Backend "a" alone`)
	f(policy.KindBackend, "a", document("a")+"---\n"+broken("b"), "", `Backend a: 2 documents are here, want Backend "a" alone`)
	f(policy.KindBackend, "a", document("a")+"---\n"+document("a"), "", `Backend a: 2 documents are here, want Backend "a" alone`)
	f(policy.KindBackend, "a", "# nothing\n", "", `Backend a: no document is here, want Backend "a"`)
	// A file of no certain document has what it has.
	f("", "", document("a")+"---\n"+document("b"), "ab")
}
