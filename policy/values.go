package policy

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// scalar decodes a single value and checks its rules.
func (d *decoder) scalar(n *node, v reflect.Value, f *Field, path string) {
	words := wanted(v)
	if n.kind != scalarNode {
		d.report(n, path, "want %s, got %s", words, describe(n))
		return
	}
	switch v.Interface().(type) {
	case Tokens:
		if n.scalar == stringScalar && hasUnit(n.text) {
			if d.refused(n, path, setText(v, n.text)) {
				return
			}
		} else if !d.plain(n, v, f, words, path) {
			return
		}
	case Duration, Percent, Size, CIDR:
		if n.scalar == boolScalar || n.scalar == nullScalar {
			d.report(n, path, "want %s, got %s", words, describe(n))
			return
		}
		if d.refused(n, path, setText(v, n.text)) {
			return
		}
	default:
		if !d.plain(n, v, f, words, path) {
			return
		}
	}
	d.rules(n, v, f, path)
}

// plain decodes a string, a boolean or an integer.
func (d *decoder) plain(n *node, v reflect.Value, f *Field, words, path string) bool {
	switch v.Kind() {
	case reflect.String:
		if n.scalar == stringScalar {
			v.SetString(n.text)
			return true
		}
		d.report(n, path, "want %s, got %s", words, describe(n)).Suggestion = didYouMean(n.text)
	case reflect.Bool:
		if n.scalar == boolScalar {
			v.SetBool(strings.EqualFold(n.text, "true"))
			return true
		}
		p := d.report(n, path, "want %s, got %s", words, describe(n))
		switch strings.ToLower(n.text) {
		case "yes", "y", "on", "1", "true":
			p.Suggestion = "did you mean true?"
		case "no", "n", "off", "0", "false":
			p.Suggestion = "did you mean false?"
		}
	default:
		if n.scalar == intScalar && isCanonicalInt(n.text) {
			if err := setText(v, n.text); err == nil {
				return true
			}
			d.report(n, path, "%s is out of range; want %s", shorten(n.text), legalRange(f))
			return false
		}
		p := d.report(n, path, "want %s, got %s", words, describe(n))
		if meant := meantInt(n.text); meant != "" {
			p.Suggestion = "did you mean " + meant + "?"
		}
	}
	return false
}

// isCanonicalInt reports whether every YAML reader takes s for the same integer: 010, 0x10 and 1_000 differ among them.
func isCanonicalInt(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	return isDigits(digits) && (digits[0] != '0' || len(digits) == 1)
}

// meantInt is the integer that s probably stands for: 1000 for 1e3, 1_000, "1000" and 1000.0.
func meantInt(s string) string {
	if isCanonicalInt(s) {
		return s
	}
	plain := strings.NewReplacer("_", "", ",", "", "'", "").Replace(s)
	if digits := strings.TrimLeft(plain, "0"); isCanonicalInt(digits) {
		return digits
	}
	if n, err := strconv.ParseInt(plain, 0, 64); err == nil {
		return strconv.FormatInt(n, 10)
	}
	if x, err := strconv.ParseFloat(plain, 64); err == nil && x == math.Trunc(x) && math.Abs(x) < 1e15 {
		return strconv.FormatInt(int64(x), 10)
	}
	return ""
}

// refused reports err, if there is one.
func (d *decoder) refused(n *node, path string, err error) bool {
	if err == nil {
		return false
	}
	var r *refusal
	if !errors.As(err, &r) {
		d.report(n, path, "%s", err)
		return true
	}
	if p := d.report(n, path, "%s", r.message); r.meant != "" {
		p.Suggestion = didYouMean(r.meant)
	}
	return true
}

// rules checks a decoded scalar against enum, range, format and required.
func (d *decoder) rules(n *node, v reflect.Value, f *Field, path string) {
	switch {
	case f.Enum != nil && slices.Contains(f.LaterValues, v.String()):
		d.report(n, path, "%s is %s; legal values: %s", quote(v.String()), notSupported, list(f.Supported(), "and"))
	case f.Enum != nil && !slices.Contains(f.Enum, v.String()):
		p := d.report(n, path, "%s is unknown; legal values: %s", quote(v.String()), list(f.Supported(), "and"))
		if meant := closest(v.String(), f.Enum); meant != "" {
			p.Suggestion = didYouMean(meant)
		}
	case f.Min != "" && compareText(v, f.Min) < 0, f.Max != "" && compareText(v, f.Max) > 0:
		d.report(n, path, "%s is out of range; want %s", shorten(n.text), legalRange(f))
	case v.Kind() == reflect.String && v.String() == "":
		if f.Required || f.Default != "" {
			d.report(n, path, "must not be empty")
		}
	case f.Format != "":
		d.refused(n, path, checkFormat(f.Format, v.String()))
	}
}

// legalRange words the range of a field.
func legalRange(f *Field) string {
	switch {
	case f.Max == "" && f.Min == "":
		return "at most 18 digits"
	case f.Max == "":
		return "at least " + f.Min
	case f.Min == "":
		return "at most " + f.Max
	}
	return f.Min + " to " + f.Max
}

// setText sets a scalar from its text, which for strings, booleans and integers is the plain one.
func setText(v reflect.Value, text string) (err error) {
	switch p := v.Addr().Interface().(type) {
	case *Duration:
		*p, err = ParseDuration(text)
	case *Percent:
		*p, err = ParsePercent(text)
	case *Size:
		*p, err = ParseSize(text)
	case *Tokens:
		*p, err = ParseTokens(text)
	case *CIDR:
		*p, err = ParseCIDR(text)
	case *string:
		*p = text
	case *bool:
		*p, err = strconv.ParseBool(text)
	case *int:
		*p, err = strconv.Atoi(text)
	case *int64:
		*p, err = strconv.ParseInt(text, 10, 64)
	default:
		panic(fmt.Sprintf("BUG: no document has values of the type %s", v.Type()))
	}
	return err
}

// compareText compares a number with one in text: negative when v is less.
func compareText(v reflect.Value, text string) int {
	bound := reflect.New(v.Type()).Elem()
	if err := setText(bound, text); err != nil {
		panic("BUG: bad bound: " + err.Error())
	}
	if v.Kind() == reflect.Float64 {
		return cmp.Compare(v.Float(), bound.Float())
	}
	return cmp.Compare(v.Int(), bound.Int())
}

// wanted words the type of a scalar.
func wanted(v reflect.Value) string {
	switch v.Interface().(type) {
	case Duration:
		return "a duration, as in 250ms"
	case Percent:
		return "a percentage, as in 35%"
	case Size:
		return "a size, as in 64KiB"
	case Tokens:
		return "a whole number, or for bytes a size, as in 64KiB"
	case CIDR:
		return "a network, as in 10.0.0.0/8"
	case bool:
		return "true or false"
	case string:
		return "a string"
	}
	return "a whole number"
}

// describe words what a node is.
func describe(n *node) string {
	switch {
	case n.kind == mappingNode:
		return "a mapping"
	case n.kind == sequenceNode:
		return "a list"
	case n.scalar == nullScalar:
		return "nothing"
	case n.scalar == stringScalar:
		return "the string " + quote(n.text)
	case n.scalar == boolScalar:
		return "the boolean " + n.text
	}
	return "the number " + shorten(n.text)
}
