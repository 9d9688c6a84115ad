// Package reference tells people what a document may say: `sidecar explain` in a terminal, docs/reference.md for reading, and a
// JSON Schema for editors. All three come from the tags and doc comments of package policy's types, so they cannot
// disagree with the decoder.
//
// The comments are not in a compiled program. A test reads them from the source, compares them with comments.json, and fails
// when that file or the generated documents are stale; `go generate ./policy/...` writes them anew.
//
// Rules that span several fields, such as "exactly one of", are in the comments only: the schema takes more than the
// decoder does. To judge a document, use [policy.Decode] and [policy.Compile].
package reference

import (
	_ "embed"
	"encoding/json"
	"reflect"
	"strings"

	"weir/policy"
)

//go:generate go test . -run TestGenerated -update

// comments are the doc comments of the types and fields of package policy by Type and Type.Field.
//
//go:embed comments.json
var comments []byte

// source answers questions about the types.
type source struct {
	comments map[string]string
}

func newSource() source {
	var s source
	if err := json.Unmarshal(comments, &s.comments); err != nil {
		panic("BUG: cannot read the embedded comments: " + err.Error())
	}
	return s
}

// ofType is the comment of a struct type.
func (s source) ofType(t reflect.Type) string { return s.comments[t.Name()] }

// ofField is the comment of a field of a struct type.
func (s source) ofField(t reflect.Type, f policy.Field) string {
	return s.comments[t.Name()+"."+f.GoName]
}

// specOf is the struct type of a kind's spec.
func specOf(k policy.Kind) reflect.Type { return reflect.TypeOf(policy.NewSpec(k)).Elem() }

// structOf returns the struct type behind pointers and lists, if there is one that is a mapping in a document.
func structOf(t reflect.Type) (reflect.Type, bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t, t.Kind() == reflect.Struct && t != reflect.TypeFor[policy.CIDR]()
}

// typeWords says what a field holds.
func typeWords(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[policy.Duration]():
		return "duration"
	case reflect.TypeFor[policy.Percent]():
		return "percentage"
	case reflect.TypeFor[policy.Size]():
		return "size"
	case reflect.TypeFor[policy.Tokens]():
		return "whole number or size"
	case reflect.TypeFor[policy.CIDR]():
		return "network"
	case reflect.TypeFor[policy.Patch]():
		return "part of a spec"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeWords(t.Elem())
	case reflect.Slice:
		return "list of " + plural(typeWords(t.Elem()))
	case reflect.Map:
		return "mapping of strings"
	case reflect.Struct:
		return "mapping"
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "true or false"
	}
	return "whole number"
}

func plural(words string) string { return words + "s" }

// rules are what a field's value must be, one short phrase each.
func rules(f policy.Field) []string {
	var out []string
	if f.Later {
		out = append(out, "not supported by this version")
	}
	if f.Required {
		out = append(out, "required")
	}
	if f.Enum != nil {
		out = append(out, "one of "+strings.Join(f.Supported(), ", "))
	}
	if f.LaterValues != nil {
		out = append(out, "not supported by this version: "+strings.Join(f.LaterValues, ", "))
	}
	switch {
	case f.Min != "" && f.Max != "":
		out = append(out, f.Min+" to "+f.Max)
	case f.Min != "":
		out = append(out, "at least "+f.Min)
	case f.Max != "":
		out = append(out, "at most "+f.Max)
	}
	if f.Format != "" {
		what := policy.DescribeFormat(f.Format)
		switch f.Type.Kind() {
		case reflect.Slice:
			what = "each " + what
		case reflect.Map:
			what = "each key " + what
		}
		out = append(out, what)
	}
	return out
}
