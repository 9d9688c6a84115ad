package diff

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"weir/policy"
)

// longest is how many characters of a value a sentence repeats, and most how many items of a list.
const (
	longest = 60
	most    = 8
)

// isStruct reports whether a value of this type is a mapping in a document.
func isStruct(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[policy.CIDR]()
}

// text is a single value as it is.
func text(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case encoding.TextMarshaler:
		b, err := x.MarshalText()
		if err != nil {
			panic("BUG: a decoded value has no text: " + err.Error())
		}
		return string(b)
	case string:
		return x
	}
	return fmt.Sprint(v.Interface())
}

func texts(list reflect.Value) []string {
	var all []string
	for i := range list.Len() {
		all = append(all, text(list.Index(i)))
	}
	return all
}

// written is a value as a sentence shows it: a single one plainly, a list in brackets, and of a mapping in braces what differs from the
// defaults.
func written(v reflect.Value) string {
	switch {
	case v.Kind() == reflect.Pointer:
		return written(v.Elem())
	case v.Kind() == reflect.Slice:
		var all []string
		for i := range v.Len() {
			all = append(all, written(v.Index(i)))
		}
		return "[" + shortened(all) + "]"
	case v.Kind() == reflect.Map:
		return fmt.Sprintf("{%d fields}", v.Len())
	case isStruct(v.Type()):
		return "{" + strings.Join(members(v), ", ") + "}"
	case v.Kind() == reflect.String:
		return quoted(v.String())
	}
	return text(v)
}

// members are the fields of a struct that are not what they are by default.
func members(v reflect.Value) []string {
	var all []string
	for _, f := range policy.Fields(v.Type()) {
		field := v.Field(f.Index)
		if field.IsZero() && (!f.Required || field.Kind() == reflect.String) && f.Default == "" {
			continue
		}
		if isStruct(f.Type) {
			if inner := members(field); len(inner) > 0 {
				all = append(all, f.Name+": {"+strings.Join(inner, ", ")+"}")
			}
			continue
		}
		if words := written(field); words != f.Default || f.Required {
			all = append(all, f.Name+": "+words)
		}
	}
	return all
}

// quoted is a string that people wrote: as it is when it is a plain word, in quotes and cut when it is long otherwise.
func quoted(s string) string {
	if s == "" {
		return "not set"
	}
	if cut := []rune(s); len(cut) > longest {
		return strconv.Quote(string(cut[:longest]) + "…")
	}
	return plain(s)
}

// plain is s, in quotes when it has anything but what one sees.
func plain(s string) string {
	for _, c := range s {
		if c == ' ' || c == '"' || !strconv.IsPrint(c) {
			return strconv.Quote(s)
		}
	}
	return s
}

// listed are strings that people wrote, shortened when they are many.
func listed(all []string) string {
	shown := make([]string, 0, most)
	for _, s := range all[:min(most, len(all))] {
		shown = append(shown, quoted(s))
	}
	return shortenedTo(shown, len(all))
}

func shortened(all []string) string { return shortenedTo(all[:min(most, len(all))], len(all)) }

func shortenedTo(shown []string, of int) string {
	s := strings.Join(shown, ", ")
	if of > len(shown) {
		s += fmt.Sprintf(" and %d more", of-len(shown))
	}
	return s
}
