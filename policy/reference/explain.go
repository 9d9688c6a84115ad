package reference

import (
	"fmt"
	"reflect"
	"strings"

	"weir/policy"
)

// Explain describes a kind, a mapping or a field, for a terminal. The path is as in TenantPolicy.limits.burst, or as problems
// write it: TenantPolicy.spec.limits[0].burst. The empty path lists the kinds. An error names what is not known, the legal
// names, and the one that was probably meant.
func Explain(path string) (string, error) {
	s := newSource()
	if path == "" {
		return s.kinds(), nil
	}
	name, rest, _ := strings.Cut(path, ".")
	kind, err := kindNamed(name)
	if err != nil {
		return "", err
	}
	t, at := specOf(kind), string(kind)
	if rest == "" || rest == "spec" {
		return s.mapping(at, "kind, "+policy.APIVersion, s.ofType(t), t, nil), nil
	}
	steps := strings.Split(rest, ".")
	switch steps[0] {
	case "spec":
		at, steps = at+".spec", steps[1:]
	case "metadata":
		t, at, steps = reflect.TypeFor[policy.Metadata](), at+".metadata", steps[1:]
	}
	if len(steps) == 0 {
		return s.mapping(at, "mapping", s.ofType(t), t, nil), nil
	}
	for i, step := range steps {
		step, _, _ = strings.Cut(step, "[")
		f, err := fieldNamed(t, at, step)
		if err != nil {
			return "", err
		}
		parent := t
		at += "." + f.Name
		t = f.Type
		if t.Kind() == reflect.Slice {
			at += "[]"
		}
		inner, isMapping := structOf(t)
		if i == len(steps)-1 {
			about := s.ofField(parent, f)
			if isMapping {
				return s.mapping(at, typeWords(f.Type), about, inner, &f), nil
			}
			return s.head(at, typeWords(f.Type), about, &f), nil
		}
		if !isMapping {
			return "", fmt.Errorf("cannot explain %s: %s is a %s and has no fields", path, at, typeWords(f.Type))
		}
		t = inner
	}
	panic("BUG: a path without steps")
}

// kindNamed finds a kind, whatever its case.
func kindNamed(name string) (policy.Kind, error) {
	var names []string
	for _, k := range policy.Kinds() {
		if strings.EqualFold(name, string(k)) {
			return k, nil
		}
		names = append(names, string(k))
	}
	return "", unknown("kind", name, "", names)
}

// fieldNamed finds a field of a struct type.
func fieldNamed(t reflect.Type, at, name string) (policy.Field, error) {
	var names []string
	for _, f := range policy.Fields(t) {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return policy.Field{}, unknown("field", name, " of "+at, names)
}

func unknown(what, name, where string, legal []string) error {
	err := fmt.Errorf("cannot explain %q: no such %s%s; there are %s", name, what, where, strings.Join(legal, ", "))
	if meant := policy.Closest(name, legal); meant != "" {
		err = fmt.Errorf("%w; did you mean %q?", err, meant)
	}
	return err
}

// kinds lists the kinds.
func (s source) kinds() string {
	var b strings.Builder
	for _, k := range policy.Kinds() {
		fmt.Fprintf(&b, "%-14s %s\n", k, firstSentence(s.ofType(specOf(k))))
	}
	return b.String()
}

// head is the path, the type, the comment and the rules of something.
func (s source) head(at, words, about string, f *policy.Field) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  <%s>\n\n%s", at, words, wrap(about, "  "))
	if f == nil {
		return b.String()
	}
	var lines []string
	if f.Default != "" {
		lines = append(lines, "default "+f.Default)
	}
	lines = append(lines, rules(*f)...)
	if len(lines) > 0 {
		b.WriteString("\n")
	}
	for _, line := range lines {
		b.WriteString("  " + line + "\n")
	}
	return b.String()
}

// mapping is the head of a mapping and the list of its fields.
func (s source) mapping(at, words, about string, t reflect.Type, f *policy.Field) string {
	var b strings.Builder
	b.WriteString(s.head(at, words, about, f))
	b.WriteString("\nFields\n")
	for _, f := range policy.Fields(t) {
		note := ""
		switch {
		case f.Later:
			note = ", not supported by this version"
		case f.Required:
			note = ", required"
		}
		fmt.Fprintf(&b, "  %s  <%s%s>\n%s", f.Name, typeWords(f.Type), note, wrap(firstSentence(s.ofField(t, f)), "      "))
	}
	return b.String()
}

// firstSentence is the first sentence of a comment.
func firstSentence(text string) string {
	if first, _, ok := strings.Cut(text, ". "); ok {
		return first + "."
	}
	return text
}

// wrap breaks text into indented lines of at most 100 characters.
func wrap(text, indent string) string {
	var b strings.Builder
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 100 && line != indent {
			b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	return b.String() + line + "\n"
}
