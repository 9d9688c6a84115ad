package reference

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weir/policy"
)

var update = flag.Bool("update", false, "write the generated files")

// The generated files are those that the types give now.
func TestGenerated(t *testing.T) {
	f := func(path string, want []byte) {
		t.Helper()
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale; run go generate ./policy/...", path)
		}
	}
	fresh := sourceComments(t)
	text, err := json.MarshalIndent(fresh, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	f("comments.json", text)
	if *update {
		comments = text // what is embedded was there before
	}
	f("../../docs/reference.md", Markdown())
	f("../../docs/schema/weir.dev_v1alpha1.json", Schema())
}

// sourceComments reads the doc comments of the documents' types.
func sourceComments(t *testing.T) map[string]string {
	t.Helper()
	wanted := make(map[string]bool)
	for _, typ := range documentTypes() {
		wanted[typ.Name()] = true
	}
	found := make(map[string]string)
	files, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			decl, ok := n.(*ast.GenDecl)
			if !ok || decl.Tok != token.TYPE {
				return true
			}
			for _, s := range decl.Specs {
				spec := s.(*ast.TypeSpec)
				body, ok := spec.Type.(*ast.StructType)
				if !ok || !wanted[spec.Name.Name] {
					continue
				}
				doc := decl.Doc
				if spec.Doc != nil {
					doc = spec.Doc
				}
				found[spec.Name.Name] = oneLine(doc)
				for _, field := range body.Fields.List {
					for _, name := range field.Names {
						found[spec.Name.Name+"."+name.Name] = oneLine(field.Doc)
					}
				}
			}
			return true
		})
	}
	return found
}

func oneLine(doc *ast.CommentGroup) string { return strings.Join(strings.Fields(doc.Text()), " ") }

// documentTypes are all struct types of which documents consist.
func documentTypes() []reflect.Type {
	var all []reflect.Type
	var add func(reflect.Type)
	add = func(t reflect.Type) {
		t, ok := structOf(t)
		if !ok || slices.Contains(all, t) {
			return
		}
		all = append(all, t)
		for _, f := range policy.Fields(t) {
			add(f.Type)
		}
	}
	add(reflect.TypeFor[policy.Metadata]())
	for _, k := range policy.Kinds() {
		add(specOf(k))
	}
	return all
}

// Every type and every field has a comment that begins with its name, as Go's do, and a tag.
func TestEveryFieldIsDocumented(t *testing.T) {
	comments := sourceComments(t)
	f := func(key, name string) {
		t.Helper()
		text := comments[key]
		if text == "" {
			t.Errorf("%s has no doc comment", key)
		} else if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, ".\"") {
			t.Errorf("%s: the comment does not end with a full stop: %s", key, text)
		}
		if name != "" && !strings.HasPrefix(text, name) {
			t.Errorf("%s: the comment does not begin with the name: %s", key, text)
		}
	}
	for _, typ := range documentTypes() {
		f(typ.Name(), typ.Name())
		for _, field := range policy.Fields(typ) { // panics on a missing tag
			f(typ.Name()+"."+field.GoName, "")
			if !regexp.MustCompile(`^[a-z][a-zA-Z]*$`).MatchString(field.Name) {
				t.Errorf("%s.%s: %s is not camelCase", typ.Name(), field.GoName, field.Name)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	f := func(path, want string) {
		t.Helper()
		got, err := Explain(path)
		if err != nil || got != want {
			t.Errorf("%s: got %v\n%s\nwant\n%s", path, err, got, want)
		}
	}
	burst := `TenantPolicy.limits[].burst  <whole number or size>

  Burst is how many tokens the bucket holds: a whole number, or for a limit in bytes a size. Absent
  means as many as requests or bytes.

  at least 1
`
	f("TenantPolicy.limits.burst", burst)
	f("tenantpolicy.limits.burst", burst)
	f("TenantPolicy.spec.limits[0].burst", strings.Replace(burst, ".limits", ".spec.limits", 1))
	f("Route.criticality", `Route.criticality  <string>

  Criticality: NonCore routes give way first when a breaker is Degraded.

  default Core
  one of Core, NonCore
`)
	f("Sidecar.policies.file", `Sidecar.policies[].file  <mapping>

  File is a file or a directory of *.yaml, *.yml and *.json files, watched.

Fields
  path  <string, required>
      Path is a file or directory; a relative one is taken from the folder of the document that
      names it.
`)
	f("Backend.metadata.name", `Backend.metadata.name  <string>

  Name is a DNS label, unique within the kind.

  required
  a DNS label: 1 to 63 of a-z, 0-9 and -, with no - at either end
`)
}

// Everything can be explained.
func TestExplainAll(t *testing.T) {
	f := func(path string, want ...string) {
		t.Helper()
		got, err := Explain(path)
		if err != nil {
			t.Error(err)
		}
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: does not say %s:\n%s", path, w, got)
			}
		}
	}
	f("", "Sidecar", "Backend", "Route", "TenantPolicy", "BreakerPolicy")
	var walk func(reflect.Type, string)
	walk = func(typ reflect.Type, path string) {
		for _, field := range policy.Fields(typ) {
			at := path + "." + field.Name
			f(at, "  <")
			if field.Later {
				f(at, "not supported by this version")
			}
			if inner, ok := structOf(field.Type); ok {
				walk(inner, at)
			}
		}
	}
	for _, k := range policy.Kinds() {
		f(string(k), "Fields\n")
		f(string(k)+".spec", "Fields\n")
		f(string(k)+".metadata", "labels")
		walk(specOf(k), string(k))
	}
}

func TestExplainErrors(t *testing.T) {
	f := func(path, want string) {
		t.Helper()
		if _, err := Explain(path); err == nil || err.Error() != want {
			t.Errorf("%s: got %v\nwant %s", path, err, want)
		}
	}
	f("TenantPolicies", `cannot explain "TenantPolicies": no such kind; there are Sidecar, Backend, Route, TenantPolicy, BreakerPolicy, PolicyTest, Distribution; did you mean "TenantPolicy"?`)
	f("Backend.pool.maxIdel", `cannot explain "maxIdel": no such field of Backend.pool; there are maxConnections, maxIdle, idleTimeout, perTenant; did you mean "maxIdle"?`)
	f("Backend.spec.x", `cannot explain "x": no such field of Backend.spec; there are endpoints, dns, tls, pool, timeouts, balance, health, retries, capacity`)
	f("Backend.balance.x", "cannot explain Backend.balance.x: Backend.balance is a string and has no fields")
}
