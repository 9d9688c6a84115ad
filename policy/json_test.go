package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// As JSON a document means the same, whatever it holds.
func TestJSON(t *testing.T) {
	files, err := filepath.Glob("../testdata/policies/good/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs, problems := Decode(file, data)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		for _, d := range docs {
			text := d.JSON()
			again, problems := Decode("json", text)
			if !json.Valid(text) || len(problems) > 0 || len(again) != 1 || again[0].Digest() != d.Digest() {
				t.Errorf("%s: %s %s as JSON means something else: %v\n%s", file, d.Kind, d.Name, problems, text)
			}
		}
	}
}

func TestJSONKeepsTheOrder(t *testing.T) {
	docs, problems := Decode("x", []byte("kind: TenantPolicy # a comment\napiVersion: weir.dev/v1alpha1\nmetadata: {name: gold}\nspec: {tenants: {any: True}, limits: [{name: a, requests: 5, per: 1s}]}\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := `{"kind":"TenantPolicy","apiVersion":"weir.dev/v1alpha1","metadata":{"name":"gold"},"spec":{"tenants":{"any":true},"limits":[{"name":"a","requests":5,"per":"1s"}]}}`
	if got := string(docs[0].JSON()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzJSON: whatever can be decoded is equal to what its JSON says.
func FuzzJSON(f *testing.F) {
	f.Add("apiVersion: weir.dev/v1alpha1\nkind: Route\nmetadata: {name: a}\nspec: {backend: b, fallback: {body: \"\\x7f\\u2028 0x10 <\"}, timeout: 1m}\n")
	f.Add("apiVersion: weir.dev/v1alpha1\nkind: TenantPolicy\nmetadata: {name: a}\nspec: {tenants: {any: TRUE}, limits: [{name: a, bytes: 10MiB, burst: 64KiB}]}\n")
	f.Fuzz(func(t *testing.T, text string) {
		docs, _ := Decode("yaml", []byte(text))
		for _, d := range docs {
			again, problems := Decode("json", d.JSON())
			if len(problems) > 0 || len(again) != 1 || again[0].Digest() != d.Digest() {
				t.Errorf("%s\nas JSON: %s\n%v", text, d.JSON(), problems)
			}
		}
	})
}
