package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// This file is the only one that knows the YAML library: text in, nodes out, and the other way round for `fmt`.

// maxDepth is how deep collections may be nested. The deepest field of any kind is at 7.
const maxDepth = 64

// parse reads the text of one document. It returns nil for an empty one. With problems, the tree is only good for
// reading the document's kind and name, and is nil when there is none at all.
func parse(src *source) (*node, []Problem) {
	if src.empty() {
		return nil, nil
	}
	if bad := src.check(); bad != nil {
		return nil, bad
	}
	root, err := parseYAML(src.text())
	if err != nil {
		return nil, []Problem{src.syntax(err)}
	}
	if root == nil {
		return nil, nil
	}
	c := converter{source: src}
	tree := c.convert(root, 1)
	if tree.kind == scalarNode && tree.scalar == nullScalar && tree.text == "" && len(c.problems) == 0 {
		return nil, nil
	}
	return tree, c.problems
}

// parseYAML returns the root of the only document in text, or nil when there is none.
func parseYAML(text string) (root *yaml.Node, err error) {
	// The library reports some broken input by panicking with an internal error.
	defer func() {
		if r := recover(); r != nil {
			root, err = nil, fmt.Errorf("the parser gave up: %v", r)
		}
	}()
	var doc, rest yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(text))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := dec.Decode(&rest); err == nil {
		return nil, errors.New("there is text after the end of the document")
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	return doc.Content[0], nil
}

// converter turns the library's nodes into ours and reports what Weir does not take of YAML.
type converter struct {
	source   *source
	problems []Problem
}

func (c *converter) refuse(n *yaml.Node, message string) {
	if len(c.problems) > maxProblems {
		return
	}
	c.problems = append(c.problems, c.source.problem(n.Line, n.Column, "", message))
}

func (c *converter) convert(n *yaml.Node, depth int) *node {
	line := min(max(n.Line, 1), len(c.source.lines))
	out := &node{line: line, column: max(n.Column, 1), flow: n.Style&yaml.FlowStyle != 0, text: n.Value}
	switch {
	case n.Kind == yaml.AliasNode:
		c.refuse(n, "aliases are not allowed; write the value out")
		return out
	case n.Anchor != "":
		c.refuse(n, "anchors are not allowed; write the value out where it is needed")
	case n.Style&yaml.TaggedStyle != 0:
		c.refuse(n, "tags such as "+quote(n.Tag)+" are not allowed; quote a value to make it a string")
	case depth > maxDepth:
		c.refuse(n, "nested more than "+strconv.Itoa(maxDepth)+" levels deep")
		return out
	}
	switch n.Kind {
	case yaml.SequenceNode:
		out.kind = sequenceNode
		for _, item := range n.Content {
			out.items = append(out.items, c.convert(item, depth+1))
		}
	case yaml.MappingNode:
		out.kind = mappingNode
		for i := 0; i+1 < len(n.Content); i += 2 {
			out.fields = append(out.fields, c.entry(n.Content[i], n.Content[i+1], depth))
		}
	default:
		out.scalar = scalarKindOf(n)
	}
	return out
}

func (c *converter) entry(key, value *yaml.Node, depth int) entry {
	switch {
	case key.ShortTag() == "!!merge":
		c.refuse(key, "merge keys are not allowed; write the fields out")
	case key.Kind != yaml.ScalarNode && key.Kind != yaml.AliasNode:
		c.refuse(key, "a key must be a string")
	}
	e := entry{key: c.convert(key, depth+1), value: c.convert(value, depth+1)}
	if e.value.scalar == nullScalar && e.value.text == "" {
		// What is not there has the position of whatever comes next.
		e.value.line, e.value.column = e.key.line, e.key.column
	}
	return e
}

func scalarKindOf(n *yaml.Node) scalarKind {
	if n.Style == 0 && isDigits(strings.TrimLeft(n.Value, "+-")) {
		return intScalar // also when it fits no integer
	}
	switch n.ShortTag() {
	case "!!null":
		return nullScalar
	case "!!bool":
		return boolScalar
	case "!!int":
		return intScalar
	case "!!float":
		return floatScalar
	}
	return stringScalar
}

// header is what can be read of a broken document without its spec.
func (s *source) header() *node {
	var kept []string
	inSpec := false
	for _, line := range s.lines {
		if isMarker(line, "...") {
			break
		}
		if line != "" && !strings.ContainsAny(line[:1], " \t#-") {
			inSpec = strings.HasPrefix(line, "spec:")
		}
		if !inSpec {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	tree, _ := parse(&source{file: s.file, first: s.first, lines: kept})
	return tree
}

// syntax says where and why the library could not read the text.
func (s *source) syntax(err error) Problem {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		number, rest, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, message = n, rest
		}
	}
	switch {
	case strings.HasPrefix(message, "did not find expected key"), strings.HasPrefix(message, "did not find expected '-' indicator"):
		line = s.firstBroken(message, line+1)
		message += "; check the indentation"
	case message == "did not find expected <document start>":
		line++
		message = "there is text after the end of the document"
	case strings.HasPrefix(message, "did not find expected"):
		line++ // the library counts from 0 here
	case strings.HasPrefix(message, "unknown anchor '"):
		name, _, _ := strings.Cut(message[len("unknown anchor '"):], "'")
		line = 1 + slices.IndexFunc(s.lines, func(l string) bool { return strings.Contains(l, "*"+name) })
	}
	line = min(max(line, 1), len(s.lines))
	text := s.lines[line-1]
	indent := len(text) - len(strings.TrimLeft(text, " \t"))
	if at := strings.IndexByte(text[:indent], '\t'); at >= 0 {
		return s.problem(line, at+1, "", "cannot read YAML: a tab cannot indent; use spaces")
	}
	return s.problem(line, indent+1, "", "cannot read YAML: "+message)
}

// firstBroken finds the line of an error for which the library only tells where the surrounding block begins: the last line
// of the shortest beginning of the text that gives the same error.
func (s *source) firstBroken(message string, fallback int) int {
	if len(s.text()) > 1<<18 {
		return fallback
	}
	return 1 + sort.Search(len(s.lines)-1, func(i int) bool {
		_, err := parseYAML(strings.Join(s.lines[:i+1], "\n") + "\n")
		return err != nil && strings.HasSuffix(err.Error(), message)
	})
}

// layout writes the document in the canonical layout: two spaces of indentation, the fields of the structs that rank knows
// in its order. Comments stay with the field they belong to.
func layout(src *source, rank func(path []string) []string) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(src.text()), &doc); err != nil {
		return "", err
	}
	if len(doc.Content) == 1 {
		reorder(doc.Content[0], nil, rank)
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return "", err
	}
	return b.String(), nil
}

// reorder sorts the fields of mappings by rank; those it does not name come last, in the order written. Values that are not
// there become null.
func reorder(n *yaml.Node, path []string, rank func(path []string) []string) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && n.Value == "" {
		n.Value = "null" // the library would write '' within braces
	}
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			reorder(item, path, rank)
		}
		return
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	order := rank(path)
	pairs := slices.Collect(slices.Chunk(n.Content, 2))
	place := func(pair []*yaml.Node) int {
		if i := slices.Index(order, pair[0].Value); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(pairs, func(a, b []*yaml.Node) int { return place(a) - place(b) })
	n.Content = slices.Concat(pairs...)
	for _, pair := range pairs {
		reorder(pair[1], append(path[:len(path):len(path)], pair[0].Value), rank)
	}
}

// merge merges a part of a spec into the spec of a document, field by field, and lays the result out as layout does. Null takes a
// field away; a list whose items are known by name is merged by it, and any other is replaced. Comments of what stays are kept.
func merge(src *source, part *node, l documentLayout) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(src.text()), &doc); err != nil {
		return "", err
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return "", errors.New("it is not a mapping")
	}
	root := doc.Content[0]
	mergeFields(root, &node{kind: mappingNode, fields: []entry{{key: &node{text: "spec"}, value: part}}}, nil, l.named)
	reorder(root, nil, l.rank)
	c := converter{source: src}
	want := canonical(c.convert(root, 1))
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return "", err
	}
	written := &source{lines: strings.Split(strings.TrimRight(b.String(), "\n"), "\n")}
	if got, bad := parse(written); len(bad) > 0 || got == nil || canonical(got) != want {
		return "", errors.New("its comments cannot be kept; put each on a line of its own above a field")
	}
	return written.text(), nil
}

// mergeFields merges the fields of a part into a mapping.
func mergeFields(into *yaml.Node, part *node, path []string, named func(path []string) bool) {
	for _, e := range part.fields {
		at := append(path[:len(path):len(path)], e.key.text)
		i := indexOfKey(into, e.key.text)
		switch {
		case e.value.kind == scalarNode && e.value.scalar == nullScalar:
			if i >= 0 {
				into.Content = slices.Delete(into.Content, i, i+2)
			}
		case i < 0:
			into.Content = append(into.Content, encodable(e.key), encodable(e.value))
		default:
			mergeValue(into.Content[i+1], e.value, at, named)
		}
	}
}

// mergeValue merges a part into a value that is there.
func mergeValue(into *yaml.Node, part *node, path []string, named func(path []string) bool) {
	switch {
	case part.kind == mappingNode && into.Kind == yaml.MappingNode:
		mergeFields(into, part, path, named)
	case part.kind == sequenceNode && into.Kind == yaml.SequenceNode && named(path):
		for _, item := range part.items {
			i := indexOfItem(into, item)
			if i < 0 {
				into.Content = append(into.Content, encodable(item))
			} else {
				mergeFields(into.Content[i], item, path, named)
			}
		}
	default:
		made := encodable(part)
		into.Kind, into.Tag, into.Value, into.Style, into.Content = made.Kind, made.Tag, made.Value, made.Style, made.Content
	}
}

// indexOfKey is where a mapping has a key, or -1.
func indexOfKey(mapping *yaml.Node, key string) int {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return i
		}
	}
	return -1
}

// indexOfItem is where a list has the item that a part names, or -1.
func indexOfItem(list *yaml.Node, part *node) int {
	e := part.get("name")
	if e == nil {
		return -1
	}
	return slices.IndexFunc(list.Content, func(item *yaml.Node) bool {
		i := indexOfKey(item, "name")
		return item.Kind == yaml.MappingNode && i >= 0 && item.Content[i+1].Value == e.value.text
	})
}

// encodable turns a part into a node of the library's.
func encodable(n *node) *yaml.Node {
	out := &yaml.Node{Kind: yaml.ScalarNode, Value: n.text}
	if n.flow {
		out.Style = yaml.FlowStyle
	}
	switch n.kind {
	case scalarNode:
		if n.scalar == stringScalar && scalarKindOf(out) != stringScalar {
			out.Style = yaml.DoubleQuotedStyle
		}
		out.Tag = tagOf(n.scalar)
	case mappingNode:
		out.Kind, out.Tag = yaml.MappingNode, "!!map"
		for _, e := range n.fields {
			if e.value.kind != scalarNode || e.value.scalar != nullScalar { // there is nothing to take away
				out.Content = append(out.Content, encodable(e.key), encodable(e.value))
			}
		}
	case sequenceNode:
		out.Kind, out.Tag = yaml.SequenceNode, "!!seq"
		for _, item := range n.items {
			out.Content = append(out.Content, encodable(item))
		}
	}
	return out
}

func tagOf(s scalarKind) string {
	switch s {
	case nullScalar:
		return "!!null"
	case boolScalar:
		return "!!bool"
	case intScalar:
		return "!!int"
	case floatScalar:
		return "!!float"
	}
	return "!!str"
}
