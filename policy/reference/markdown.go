package reference

import (
	"fmt"
	"reflect"
	"strings"

	"weir/policy"
)

// Markdown is docs/reference.md.
func Markdown() []byte {
	m := markdown{source: newSource()}
	m.line("# Reference of the documents")
	m.line("")
	m.line("Generated from the Go types by `go generate ./policy/...`; do not edit. `sidecar explain KIND.FIELD` says the same in a terminal,")
	m.line("and [schema/weir.dev_v1alpha1.json](schema/weir.dev_v1alpha1.json) says it to editors.")
	m.line("")
	m.line("Every document has `apiVersion: %s`, a `kind`, `metadata` and a `spec`. A file may hold several, separated by `---`. JSON is YAML.", policy.APIVersion)
	m.line("Decoding is strict: an unknown field, a duplicate one, a value of the wrong type or out of range is an error, and so are YAML's")
	m.line("anchors, aliases, merge keys and tags. What is marked *later* is known, but not supported by this version, and refused.")
	m.line("")
	m.line("| type | is written |")
	m.line("|---|---|")
	m.line("| duration | `250ms`, `5s`, `1h30m`: numbers with a unit (ns, us, ms, s, m, h); 0 needs none |")
	m.line("| size | `64KiB`, `10MiB`, `512B`, or a whole number of bytes; KB and MB are refused |")
	m.line("| percentage | `35%%`, `0.5%%`: 0 to 100, always with the sign |")
	m.line("| network | `10.0.0.0/8`, `2001:db8::/32`: no bits set after the prefix |")
	m.line("")
	for _, k := range policy.Kinds() {
		m.line("* [%s](#%s)", k, strings.ToLower(string(k)))
	}
	m.line("")
	m.line("## metadata")
	m.line("")
	m.fields(reflect.TypeFor[policy.Metadata](), "metadata")
	for _, k := range policy.Kinds() {
		t := specOf(k)
		m.line("")
		m.line("## %s", k)
		m.line("")
		m.line("%s The table is of its `spec`.", cell(m.ofType(t)))
		m.line("")
		m.fields(t, string(k))
	}
	return []byte(m.String())
}

// markdown writes lines.
type markdown struct {
	source
	strings.Builder
}

func (m *markdown) line(format string, args ...any) { fmt.Fprintf(m, format+"\n", args...) }

// fields writes a table of the fields of a struct type, and then those of the mappings in it.
func (m *markdown) fields(t reflect.Type, path string) {
	m.line("| field | type | default | |")
	m.line("|---|---|---|---|")
	for _, f := range policy.Fields(t) {
		var notes []string
		for _, r := range rules(f) {
			if r != "not supported by this version" {
				notes = append(notes, r)
			}
		}
		text := cell(m.ofField(t, f))
		if len(notes) > 0 {
			text += " (" + cell(strings.Join(notes, "; ")) + ")"
		}
		if f.Later {
			text = "*later* " + text
		}
		def := ""
		if f.Default != "" {
			def = "`" + f.Default + "`"
		}
		m.line("| `%s` | %s | %s | %s |", f.Name, typeWords(f.Type), def, text)
	}
	for _, f := range policy.Fields(t) {
		inner, ok := structOf(f.Type)
		if !ok {
			continue
		}
		at := path + "." + f.Name
		if f.Type.Kind() == reflect.Slice {
			at += "[]"
		}
		m.line("")
		m.line("### %s", at)
		m.line("")
		m.line("%s", cell(m.ofType(inner)))
		m.line("")
		m.fields(inner, at)
	}
}

// cell keeps text from being taken for markup.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "<", "&lt;").Replace(text)
}
