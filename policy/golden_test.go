package policy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// Each testdata/snapshots/NAME.yaml compiles to what NAME.golden shows: the snapshot, and the plans that come of it.
func TestGoldenSnapshots(t *testing.T) {
	const folder = "../testdata/snapshots/"
	inputs, err := filepath.Glob(folder + "*.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("%d inputs in %s: %v", len(inputs), folder, err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			docs, problems := Decode("etc/"+name+".yaml", data)
			if len(problems) > 0 {
				t.Fatalf("cannot decode:\n%s", said(problems))
			}
			before := digests(docs)
			got := shown(mustCompile(t, docs))
			if diff := cmp.Diff(before, digests(docs)); diff != "" {
				t.Errorf("Compile changed the documents:\n%s", diff)
			}
			golden := folder + name + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("snapshot (-want +got; -update writes it):\n%s", diff)
			}
		})
	}
}

func digests(docs []*Document) []string {
	var all []string
	for _, d := range docs {
		all = append(all, d.Digest())
	}
	return all
}

// shown writes a snapshot for a reader.
func shown(s *Snapshot) string {
	var b strings.Builder
	show(&b, "", "Snapshot", reflect.ValueOf(*s))
	for _, tenant := range s.NamedTenants() {
		covering := s.Covering(tenant, nil)
		show(&b, "", fmt.Sprintf("Plan of %s by %v", tenant, covering), reflect.ValueOf(s.Plan(covering)))
	}
	show(&b, "", fmt.Sprintf("Plan of any by %v", s.AnyPolicies()), reflect.ValueOf(s.Plan(s.AnyPolicies())))
	show(&b, "", fmt.Sprintf("Plan of unknown by %v", s.UnknownPolicies()), reflect.ValueOf(s.Plan(s.UnknownPolicies())))
	return b.String()
}

// show writes one value a line, and what a value is made of indented below it. Zero values are left out, except for indexes.
func show(b *strings.Builder, indent, name string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			show(b, indent, name, v.Elem())
		}
		return
	case reflect.Slice:
		for i := range v.Len() {
			show(b, indent, fmt.Sprintf("%s[%d]", name, i), v.Index(i))
		}
		return
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		for _, key := range keys {
			show(b, indent, fmt.Sprintf("%s[%v]", name, key), v.MapIndex(key))
		}
		return
	case reflect.Struct:
		if _, ok := v.Interface().(fmt.Stringer); !ok {
			if v.IsZero() {
				return
			}
			fmt.Fprintf(b, "%s%s\n", indent, name)
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.IsExported() {
					show(b, indent+"  ", f.Name, v.Field(i))
				}
			}
			return
		}
	}
	if !v.IsZero() || name == "Backend" && v.CanInt() || strings.HasPrefix(name, "Routes[") {
		fmt.Fprintf(b, "%s%s: %v\n", indent, name, v)
	}
}
