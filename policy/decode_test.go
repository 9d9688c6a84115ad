package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const (
	goodPolicies = "../testdata/policies/good"
	badPolicies  = "../testdata/policies/bad"
)

// corpus returns the files of a folder by name.
func corpus(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = data
	}
	if len(files) == 0 {
		t.Fatalf("%s is empty", dir)
	}
	return files
}

func TestGoodPolicies(t *testing.T) {
	for name, data := range corpus(t, goodPolicies) {
		docs, problems := Decode(name, data)
		for _, p := range problems {
			t.Errorf("unexpected problem: %s", p)
		}
		if len(docs) == 0 {
			t.Errorf("%s: no documents", name)
		}
	}
}

// Every bad file says in its first lines, one for each problem, what is wrong with it.
func TestBadPolicies(t *testing.T) {
	for name, data := range corpus(t, badPolicies) {
		var want, got []string
		for line := range strings.Lines(string(data)) {
			text, ok := strings.CutPrefix(line, "# want: ")
			if !ok {
				break
			}
			want = append(want, strings.TrimSuffix(text, "\n"))
		}
		if len(want) == 0 {
			t.Errorf("%s: wants nothing", name)
		}
		_, problems := Decode("", data)
		for _, p := range problems {
			got = append(got, p.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: wrong problems (-want +got):\n%s", name, diff)
		}
	}
}

// The good files together use every field that this version takes, with a value other than its zero.
func TestGoodPoliciesUseEveryField(t *testing.T) {
	used := make(map[string]bool)
	var note func(v reflect.Value)
	note = func(v reflect.Value) {
		switch {
		case v.Kind() == reflect.Pointer && !v.IsNil():
			note(v.Elem())
		case v.Kind() == reflect.Slice:
			for i := range v.Len() {
				note(v.Index(i))
			}
		case isStruct(v.Type()):
			for _, f := range Fields(v.Type()) {
				if !v.Field(f.Index).IsZero() {
					used[v.Type().Name()+"."+f.Name] = true
				}
				note(v.Field(f.Index))
			}
		}
	}
	for name, data := range corpus(t, goodPolicies) {
		docs, _ := Decode(name, data)
		for _, d := range docs {
			note(reflect.ValueOf(d.Metadata))
			note(reflect.ValueOf(d.Spec))
		}
	}
	var check func(typ reflect.Type)
	check = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if !isStruct(typ) {
			return
		}
		for _, f := range Fields(typ) {
			if f.Later {
				continue
			}
			if !used[typ.Name()+"."+f.Name] {
				t.Errorf("no good file has %s.%s", typ.Name(), f.Name)
			}
			check(f.Type)
		}
	}
	check(reflect.TypeFor[Metadata]())
	for _, k := range Kinds() {
		check(reflect.TypeOf(NewSpec(k)))
	}
}

// Every field that belongs to a later version is refused with the same words, wherever it stands in the design's example.
func TestLaterIsRefused(t *testing.T) {
	refused := make(map[string]bool) // by kind and the path's last step
	for _, name := range []string{"resources.yaml", "later-values.yaml"} {
		_, problems := Decode("", corpus(t, badPolicies)[name])
		for _, p := range problems {
			if p.Message == notSupported {
				refused[string(p.Kind)+p.Path[strings.LastIndexByte(p.Path, '.'):]] = true
			}
		}
	}
	var check func(k Kind, typ reflect.Type)
	check = func(k Kind, typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if !isStruct(typ) {
			return
		}
		for _, f := range Fields(typ) {
			if f.Later && !refused[string(k)+"."+f.Name] {
				t.Errorf("%s: %s.%s is not refused", k, typ.Name(), f.Name)
			}
			if !f.Later {
				check(k, f.Type)
			}
		}
	}
	for _, k := range Kinds() {
		check(k, reflect.TypeOf(NewSpec(k)))
	}
}

const minimal = "apiVersion: weir.dev/v1alpha1\nkind: %s\nmetadata: {name: %s}\nspec: %s\n"

func TestDecodeDefaults(t *testing.T) {
	docs, problems := Decode("f.yaml", fmt.Appendf(nil, minimal, "TenantPolicy", "x", "{tenants: {any: true}, limits: [{name: a, requests: 5}], reject: {}}"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	requests := int64(5)
	want := &TenantPolicySpec{
		Tenants: TenantSelector{Any: true},
		Limits: []Limit{{
			Name: "a", Requests: &requests, Per: 1e9, Scope: "Sidecar", Bucket: "Tenant", Mode: "Enforce", WhenAlone: "Share",
		}},
		Reject: &Reject{Status: 429, Headers: "Standard"},
	}
	if diff := cmp.Diff(want, docs[0].Spec); diff != "" {
		t.Errorf("wrong spec (-want +got):\n%s", diff)
	}
	if want := (Origin{File: "f.yaml", Line: 1, Column: 1}); docs[0].Origin != want {
		t.Errorf("got origin %v, want %v", docs[0].Origin, want)
	}
}

// A default is made anew for each document: what is done to one spec is not seen in another.
func TestDefaultsAreNotShared(t *testing.T) {
	text := fmt.Appendf(nil, minimal+"---\n"+minimal, "Sidecar", "a", "{identity: [{apiKey: {keysFile: k}}]}", "Sidecar", "b", "{identity: [{apiKey: {keysFile: k}}]}")
	docs, _ := Decode("", text)
	scribble(reflect.ValueOf(docs[0].Spec))
	again, _ := Decode("", text)
	if diff := cmp.Diff(again[1].Spec, docs[1].Spec); diff != "" {
		t.Errorf("the neighbour changed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(again[0].Spec, again[1].Spec); diff != "" {
		t.Errorf("the defaults changed (-want +got):\n%s", diff)
	}
}

// scribble overwrites every scalar that can be reached from v.
func scribble(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			scribble(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			scribble(v.Index(i))
		}
	case reflect.Struct:
		if isStruct(v.Type()) {
			for i := range v.NumField() {
				scribble(v.Field(i))
			}
		}
	case reflect.String:
		v.SetString("scribbled")
	case reflect.Int, reflect.Int64:
		v.SetInt(-1)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(-1)
	}
}

// A broken document keeps its kind and name wherever they can be read, and does no harm to the others.
func TestDecodeSalvagesNames(t *testing.T) {
	good := fmt.Sprintf(minimal, "Backend", "good", "{endpoints: [{address: a:1}]}")
	f := func(kind Kind, name, broken string) {
		t.Helper()
		docs, problems := Decode("", []byte(good+"---\n"+broken+"\n---\n"+strings.Replace(good, "good", "other", 1)))
		if len(docs) != 2 || docs[0].Name != "good" || docs[1].Name != "other" {
			t.Errorf("got %d documents, want good and other", len(docs))
		}
		if len(problems) == 0 {
			t.Error("no problems")
		}
		for _, p := range problems {
			if p.Kind != kind || p.Name != name {
				t.Errorf("got kind %q and name %q, want %q and %q: %s", p.Kind, p.Name, kind, name, p)
			}
			if p.Origin.Line < 6 {
				t.Errorf("line %d is in another document: %s", p.Origin.Line, p)
			}
		}
	}
	// The spec is of the wrong type.
	f("Route", "x", "apiVersion: weir.dev/v1alpha1\nkind: Route\nmetadata: {name: x}\nspec: 5")
	// The spec is no YAML.
	f("Route", "x", "apiVersion: weir.dev/v1alpha1\nkind: Route\nmetadata: {name: x}\nspec: {a: [}")
	// The spec is no YAML and comes first.
	f("Route", "x", "spec:\n\tbackend: x\nkind: Route\nmetadata:\n  name: x")
	// The spec is no text.
	f("Route", "x", "kind: Route\nmetadata: {name: x}\nspec:\n  backend: \xff")
	// An alias, which is refused while the tree is built.
	f("Route", "x", "kind: Route\nmetadata: {name: x}\nspec: &x {backend: *x}")
	// The version is another.
	f("Route", "x", "apiVersion: v2\nkind: Route\nmetadata: {name: x}")
	// No such kind.
	f("", "x", "apiVersion: weir.dev/v1alpha1\nkind: Rout\nmetadata: {name: x}")
	// No name.
	f("Route", "", "apiVersion: weir.dev/v1alpha1\nkind: Route\nspec: {backend: x}")
	// Nothing can be read.
	f("", "", "{")
	// Not a mapping.
	f("", "", "- 1")
}

func TestDecodeTooLarge(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		docs, problems := Decode("big.yaml", []byte(text))
		if len(docs) != 0 || len(problems) != 1 {
			t.Fatalf("got %d documents and %d problems", len(docs), len(problems))
		}
		if problems[0].String() != want {
			t.Errorf("got  %s\nwant %s", problems[0], want)
		}
	}
	f(strings.Repeat("#", MaxSource+1), "big.yaml:1:1: 8388609 bytes are too many; a source has at most 8MiB")
	f(strings.Repeat("---\na\n", MaxDocuments+1), "big.yaml:1:1: 100001 documents are too many; a source has at most 100000")
}

// A document full of mistakes does not fill memory with what is wrong with it.
func TestDecodeBoundsProblems(t *testing.T) {
	f := func(spec string) {
		t.Helper()
		docs, problems := Decode("", fmt.Appendf(nil, minimal, "Sidecar", "x", spec))
		if len(docs) != 0 || len(problems) != maxProblems+1 {
			t.Fatalf("got %d documents and %d problems, want %d", len(docs), len(problems), maxProblems+1)
		}
		if last := problems[maxProblems]; last.Message != "has more than 100 problems; the others are not listed" || last.Name != "x" {
			t.Errorf("got %s", last)
		}
	}
	// Unknown fields.
	f("{" + strings.Repeat("nonsense: 1, ", 1000) + "}")
	// Duplicates of values.
	f("{trustedProxies: [" + strings.Repeat("10, ", 1000) + "]}")
	// What YAML has and Weir has not.
	f("[" + strings.Repeat("!x y, ", 1000) + "]")
}

func TestDecodeNothing(t *testing.T) {
	f := func(text string) {
		t.Helper()
		if docs, problems := Decode("", []byte(text)); len(docs)+len(problems) != 0 {
			t.Errorf("%q: got %d documents and problems %v", text, len(docs), problems)
		}
	}
	f("")
	f("\n \n")
	f("# a comment\n")
	f("---\n---\n...\n--- # a comment\n")
	f("%YAML 1.2\n---\n")
	f("\ufeff")
}

// The digest is that of the meaning.
func TestDigest(t *testing.T) {
	digest := func(spec string) string {
		t.Helper()
		docs, problems := Decode("", fmt.Appendf(nil, minimal, "Sidecar", "x", spec))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return docs[0].Digest()
	}
	base := digest("{service: a, bounds: {uriBytes: 8KiB}}")
	same := func(spec string) {
		t.Helper()
		if digest(spec) != base {
			t.Errorf("%s: another digest", spec)
		}
	}
	differs := func(spec string) {
		t.Helper()
		if digest(spec) == base {
			t.Errorf("%s: the same digest", spec)
		}
	}
	// Layout, order, comments.
	same("\n  bounds:\n    uriBytes: 8KiB # a comment\n  'service': \"a\"")
	// A value spelled otherwise, and defaults spelled out.
	same("{service: a, bounds: {uriBytes: 8192}, unknownTenant: Deny, listeners: [], timeouts: {idle: 1m}}")
	// Another value.
	differs("{service: b, bounds: {uriBytes: 8KiB}}")
	differs("{service: a, bounds: {uriBytes: 8193}}")
	differs("{service: a, trustedProxies: [10.0.0.0/8]}")
	if docs, _ := Decode("", fmt.Appendf(nil, minimal, "Sidecar", "y", "{service: a}")); docs[0].Digest() == digest("{service: a}") {
		t.Error("another name, the same digest")
	}
}

// The text of a document, decoded alone, is the document again.
func TestDocumentText(t *testing.T) {
	for name, data := range corpus(t, goodPolicies) {
		docs, _ := Decode(name, data)
		for _, d := range docs {
			again, problems := Decode("", []byte(d.Text()))
			if len(problems) > 0 || len(again) != 1 || again[0].Digest() != d.Digest() {
				t.Errorf("%s: %s/%s is another document: %v\n%s", name, d.Kind, d.Name, problems, d.Text())
			}
		}
	}
}

func TestDocumentProblem(t *testing.T) {
	text := "# a comment\n---\n" + `apiVersion: weir.dev/v1alpha1
kind: Route
metadata:
  name: x
  labels: {a/b: c}
spec:
  match:
  - path: /a
    headers: {X-Beta: "1"}
  backend: orders
`
	docs, problems := Decode("f.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	f := func(path, origin, excerpt string) {
		t.Helper()
		p := docs[0].Problem(Warning, path, "%d", 5)
		if p.Origin.String() != origin || p.Excerpt != excerpt {
			t.Errorf("%s: got %s and\n%s\nwant %s and\n%s", path, p.Origin, p.Excerpt, origin, excerpt)
		}
		if p.Severity != Warning || p.Kind != KindRoute || p.Name != "x" || p.Path != path || p.Message != "5" {
			t.Errorf("got %+v", p)
		}
	}
	// The whole document.
	f("", "f.yaml:3:1", "apiVersion: weir.dev/v1alpha1\n^")
	// A value on the line of its key.
	f("spec.backend", "f.yaml:12:12", "  backend: orders\n           ^")
	// A block is shown at its key.
	f("spec.match", "f.yaml:9:3", "  match:\n  ^")
	// An element of a list, and what is within it.
	f("spec.match[0]", "f.yaml:10:5", "  - path: /a\n    ^")
	f("spec.match[0].headers.X-Beta", "f.yaml:11:23", "    headers: {X-Beta: \"1\"}\n                      ^")
	// What is not there is shown at what would hold it.
	f("spec.match[0].methods[2]", "f.yaml:10:5", "  - path: /a\n    ^")
	f("spec.match[7].path", "f.yaml:9:3", "  match:\n  ^")
	f("spec.timeout", "f.yaml:8:1", "spec:\n^")
	// A key that is no name.
	f(`metadata.labels["a/b"]`, "f.yaml:7:17", "  labels: {a/b: c}\n                ^")
}

func TestNewSpec(t *testing.T) {
	for _, k := range Kinds() {
		if NewSpec(k) == nil {
			t.Errorf("no spec for %s", k)
		}
		if a, b := NewSpec(k), NewSpec(k); a == b {
			t.Errorf("%s: one spec for all", k)
		}
	}
	if NewSpec("Nonsense") != nil {
		t.Error("there is a spec for a kind that does not exist")
	}
}

// Every tag can be read, every default is legal, and every bound and format exists.
func TestTags(t *testing.T) {
	seen := make(map[reflect.Type]bool)
	var check func(typ reflect.Type)
	check = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if !isStruct(typ) || seen[typ] {
			return
		}
		seen[typ] = true
		names := make(map[string]bool)
		for _, f := range Fields(typ) {
			if names[f.Name] {
				t.Errorf("%s has %s twice", typ.Name(), f.Name)
			}
			names[f.Name] = true
			if f.Format != "" && DescribeFormat(f.Format) == "" {
				t.Errorf("%s.%s has the unknown format %s", typ.Name(), f.GoName, f.Format)
			}
			value := f.Type
			if value.Kind() == reflect.Pointer {
				value = value.Elem()
			}
			for _, text := range []string{f.Default, f.Min, f.Max} {
				if text == "" {
					continue
				}
				v := reflect.New(value).Elem()
				if err := setText(v, text); err != nil {
					t.Errorf("%s.%s: %s", typ.Name(), f.GoName, err)
				}
				d := decoder{source: &source{lines: []string{text}}, doc: &Document{}}
				if text == f.Default {
					d.rules(&node{text: text}, v, &f, "")
				}
				for _, p := range d.problems {
					t.Errorf("the default of %s.%s is refused: %s", typ.Name(), f.GoName, p.Message)
				}
			}
			for _, later := range f.LaterValues {
				if !strings.Contains("|"+strings.Join(f.Enum, "|")+"|", "|"+later+"|") {
					t.Errorf("%s.%s: %s is later, but in no enum", typ.Name(), f.GoName, later)
				}
			}
			check(f.Type)
		}
	}
	check(reflect.TypeFor[envelope]())
	for _, k := range Kinds() {
		check(reflect.TypeOf(NewSpec(k)))
	}
}

// A directory of ten thousand tenants is read at start and at every change.
func BenchmarkDecode(b *testing.B) {
	var text []byte
	for i := range 10000 {
		text = fmt.Appendf(text, "---\n"+minimal, "TenantPolicy", fmt.Sprint("t", i), "{tenants: {names: [acme]}, limits: [{name: steady, requests: 100, per: 1s, burst: 200}]}")
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if docs, _ := Decode("", text); len(docs) != 10000 {
			b.Fatal("not all were read")
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("{"))
	f.Add([]byte("a:\n\t- b\n---\n? [c]\n: d\n"))
	for _, dir := range []string{goodPolicies, badPolicies} {
		for _, data := range corpus(f, dir) {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, problems := Decode("f", data)
		lines := strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n")
		for _, p := range problems {
			if p.Origin.Line < 1 || p.Origin.Line > len(lines) {
				t.Fatalf("line outside of %d: %s", len(lines), p)
			}
			if c := p.Origin.Column; c < 1 || c > utf8.RuneCountInString(lines[p.Origin.Line-1])+1 {
				t.Fatalf("column outside of %q: %s", lines[p.Origin.Line-1], p)
			}
			if p.Message == "" || strings.Count(p.Excerpt, "\n") != 1 || strings.Contains(p.String(), "\n") {
				t.Fatalf("malformed: %+v", p)
			}
		}
		for _, d := range docs {
			if d.Spec == nil || d.Kind == "" || checkDNSLabel(d.Name) != nil {
				t.Fatalf("incomplete: %+v", d)
			}
			again, problems := Decode("f", []byte(d.Text()))
			if len(problems) > 0 || len(again) != 1 || again[0].Digest() != d.Digest() {
				t.Fatalf("its text is another document: %v\n%s", problems, d.Text())
			}
		}
	})
}
