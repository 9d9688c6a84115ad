package policy

import (
	"bytes"
	"strings"
	"testing"
)

func TestFmt(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		got, problems := Fmt([]byte(text))
		for _, p := range problems {
			t.Errorf("unexpected problem: %s", p)
		}
		if string(got) != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	// Fields come in the order of the reference, with their comments.
	f(`# the whole
kind: TenantPolicy    # what
apiVersion: weir.dev/v1alpha1

metadata: {name: gold}
spec:
    limits:
    # the steady one
    - per: 1s
      # per second
      requests:   5
      name: steady
    tenants: {any: true}
`, `apiVersion: weir.dev/v1alpha1
# the whole
kind: TenantPolicy # what
metadata: {name: gold}
spec:
  tenants: {any: true}
  limits:
    # the steady one
    - name: steady
      # per second
      requests: 5
      per: 1s
`)
	// What is not known stays where it was, behind what is.
	f("zz: 1\naa: 2\nkind: Nonsense\nspec: {b: 1, a: 2}\n", "kind: Nonsense\nspec: {b: 1, a: 2}\nzz: 1\naa: 2\n")
	// Documents of nothing but comments stay, empty ones go.
	f("# header\n---\n---\nkind: X\n...\n---\n# footer\n", "# header\n---\nkind: X\n---\n# footer\n")
	// Strings keep their quotes and their lines.
	f("a: 'x'\nb: \"y\"\nc: |\n    1\n     2\nd: {e: }\n", "a: 'x'\nb: \"y\"\nc: |\n  1\n   2\nd: {e: null}\n")
	// Line ends become line feeds.
	f("a: 1\r\nb: 2\r\n", "a: 1\nb: 2\n")
	f("", "")
}

func TestFmtErrors(t *testing.T) {
	f := func(text, wantText, wantProblem string) {
		t.Helper()
		got, problems := Fmt([]byte(text))
		if string(got) != wantText {
			t.Errorf("got\n%s\nwant\n%s", got, wantText)
		}
		if len(problems) != 1 || problems[0].String() != wantProblem {
			t.Errorf("got %v, want %s", problems, wantProblem)
		}
	}
	// A broken document is copied, its neighbours are formatted.
	f("b:   1\n---\na: [\n---\nc:   1\n", "b: 1\n---\na: [\n---\nc: 1\n", "3:1: cannot read YAML: did not find expected node content")
	// Rather no format than a comment less.
	f("a: [ # one\n  1]\n", "a: [ # one\n  1]\n", `1:1: cannot format without losing the comment "# one"; put it on a line of its own above a field`)
	f(strings.Repeat("a", MaxSource+1), strings.Repeat("a", MaxSource+1), "1:1: 8388609 bytes are too many; a source has at most 8MiB")
}

// Formatting twice is formatting once, and changes no meaning.
func TestFmtCorpus(t *testing.T) {
	for _, dir := range []string{goodPolicies, badPolicies} {
		for name, data := range corpus(t, dir) {
			once, problems := Fmt(data)
			if dir == goodPolicies && len(problems) > 0 {
				t.Errorf("%s: %v", name, problems)
			}
			twice, _ := Fmt(once)
			if !bytes.Equal(once, twice) {
				t.Errorf("%s: formatted twice it is\n%s\nrather than\n%s", name, twice, once)
			}
			before, _ := Decode("", data)
			after, _ := Decode("", once)
			if len(before) != len(after) {
				t.Fatalf("%s: %d documents became %d", name, len(before), len(after))
			}
			for i := range before {
				if before[i].Digest() != after[i].Digest() {
					t.Errorf("%s: %s changed", name, before[i].Name)
				}
			}
		}
	}
}

func FuzzFmt(f *testing.F) {
	f.Add([]byte("# a\nkind: Route # b\n# c\n\n# d\nspec: # e\n - 1 # f\n"))
	for _, data := range corpus(f, goodPolicies) {
		f.Add(data)
	}
	// A marker that is a part of what is broken.
	f.Add([]byte("apiVersion: weir.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: a}\n--- apiVersion: weir.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: a}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, problems := Fmt(data)
		before, _ := Decode("", data)
		after, _ := Decode("", out)
		if len(before) != len(after) {
			t.Fatalf("%d documents became %d:\n%s", len(before), len(after), out)
		}
		for i := range before {
			if before[i].Digest() != after[i].Digest() {
				t.Fatalf("%s changed:\n%s", before[i].Name, out)
			}
		}
		if len(problems) > 0 {
			return
		}
		if lost := lostComment(strings.Split(string(data), "\n"), strings.Split(string(out), "\n")); lost != "" && !bytes.ContainsAny(data, "\r%\ufeff") {
			t.Fatalf("lost %q:\n%s", lost, out)
		}
	})
}
