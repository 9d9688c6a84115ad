package policy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Fmt writes a stream of documents in the canonical layout: fields in the order of the reference, two spaces of
// indentation, no blank lines, one --- between documents. Comments are kept with the field they belong to, and the
// documents mean the same as before. A document for which that cannot be promised is copied as it is and reported, and so
// is one that cannot be read; unknown kinds and fields are fine.
func Fmt(data []byte) ([]byte, []Problem) {
	if len(data) > MaxSource {
		_, problems := Decode("", data)
		return data, problems
	}
	var out strings.Builder
	var problems []Problem
	for _, src := range split("", data) {
		text, bad := format(src)
		switch {
		case len(bad) > 0:
			text = src.text() // with its marker, which may be a part of what is broken
		case text == "":
			text = src.body()
		}
		problems = append(problems, bad...)
		if text == "" {
			continue
		}
		if first, _, _ := strings.Cut(text, "\n"); out.Len() > 0 && !isMarker(first, "---") {
			out.WriteString("---\n")
		}
		out.WriteString(strings.TrimRight(text, "\n") + "\n")
	}
	return []byte(out.String()), problems
}

// format lays out one document.
func format(src *source) (string, []Problem) {
	tree, bad := parse(src)
	if tree == nil || len(bad) > 0 {
		return "", bad // nothing but comments, or broken
	}
	kind := Kind("")
	if e := tree.get("kind"); e != nil {
		kind = Kind(e.value.text)
	}
	text, err := layout(src, func(path []string) []string { return order(kind, path) })
	if err != nil {
		return "", []Problem{src.problem(1, 1, "", "cannot format: "+err.Error())}
	}
	text = strings.TrimRight(text, "\n") + "\n"
	result := &source{lines: strings.Split(text, "\n")}
	if again, bad := parse(result); len(bad) > 0 || again == nil || canonical(again) != canonical(tree) {
		return "", []Problem{src.problem(1, 1, "", "cannot format without changing what the document says")}
	}
	if lost := lostComment(src.lines, result.lines); lost != "" {
		return "", []Problem{src.problem(1, 1, "", fmt.Sprintf("cannot format without losing the comment %s; put it on a line of its own above a field", quote(lost)))}
	}
	return text, nil
}

// order is the fields of the struct at a path of keys, in the order of its type.
func order(kind Kind, path []string) []string {
	t := typeAt(kind, path)
	if t != nil && t.Kind() == reflect.Slice {
		t = behind(t.Elem())
	}
	if t == nil || !isStruct(t) {
		return nil
	}
	var names []string
	for _, f := range Fields(t) {
		names = append(names, f.Name)
	}
	return names
}

// typeAt is the type of the field at a path of keys, in which lists do not count, or nil.
func typeAt(kind Kind, path []string) reflect.Type {
	t := reflect.TypeFor[envelope]()
	for i, key := range path {
		if t.Kind() == reflect.Slice {
			t = behind(t.Elem())
		}
		if !isStruct(t) {
			return nil
		}
		f := fieldNamed(Fields(t), key)
		if f == nil {
			return nil
		}
		t = behind(f.Type)
		if i == 0 && key == "spec" {
			spec := NewSpec(kind)
			if spec == nil {
				return nil
			}
			t = behind(reflect.TypeOf(spec))
		}
	}
	return t
}

// behind is what a pointer points to; other types are themselves.
func behind(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// canonical writes a tree so that two of them are equal when they mean the same. It keeps repeated keys apart.
func canonical(n *node) string {
	switch n.kind {
	case mappingNode:
		parts := make([]string, len(n.fields))
		for i, e := range n.fields {
			parts[i] = canonical(e.key) + ":" + canonical(e.value)
		}
		slices.Sort(parts)
		return "{" + strings.Join(parts, ",") + "}"
	case sequenceNode:
		parts := make([]string, len(n.items))
		for i, item := range n.items {
			parts[i] = canonical(item)
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	if n.scalar == nullScalar {
		return "null"
	}
	return fmt.Sprintf("%d%q", n.scalar, n.text)
}

// lostComment returns a comment of before that after does not have as often, or "". What looks like a comment within a
// string is counted on both sides, which does no harm.
func lostComment(before, after []string) string {
	count := func(lines []string) map[string]int {
		counts := make(map[string]int)
		for _, line := range lines {
			for i := range len(line) {
				if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
					counts[strings.TrimRight(line[i:], " \t")]++
					break
				}
			}
		}
		return counts
	}
	had, has := count(before), count(after)
	for _, comment := range slices.Sorted(maps.Keys(had)) {
		if has[comment] < had[comment] {
			return comment
		}
	}
	return ""
}
