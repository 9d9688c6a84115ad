package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Document is one resource as a person wrote it, decoded. It is never changed after [Decode] returned it.
type Document struct {
	Kind     Kind
	Name     string
	Metadata Metadata
	// Origin is where the document's first node stands.
	Origin Origin
	// Spec is a *SidecarSpec, *BackendSpec, *RouteSpec, *TenantPolicySpec, *BreakerPolicySpec, *PolicyTestSpec or *DistributionSpec
	// with its defaults applied.
	Spec any

	source *source
	tree   *node
}

// Digest is the hex SHA-256 of the document's canonical form: defaults applied, fields in the order of their types, map keys
// sorted. Two documents that mean the same have the same digest, however they are laid out and commented.
func (d *Document) Digest() string {
	canonical, err := json.Marshal(struct {
		Kind     Kind
		Metadata Metadata
		Spec     any
	}{d.Kind, d.Metadata, d.Spec})
	if err != nil {
		panic("BUG: cannot encode a decoded document: " + err.Error())
	}
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}

// Text is the document as it was written, comments included, without the line that separates it from the one before.
func (d *Document) Text() string { return d.source.body() }

// Problem says what is wrong with the field at path, as in spec.limits[0].burst. It is positioned at that field, or at its
// nearest ancestor that is written in the document, and carries an excerpt. An empty path means the whole document.
// A document that was not decoded has no text, so its problems have no more than its Origin.
func (d *Document) Problem(sev Severity, path, format string, args ...any) Problem {
	p := Problem{Origin: d.Origin, Path: path, Message: fmt.Sprintf(format, args...)}
	if d.tree != nil {
		line, column := d.tree.find(path)
		p = d.source.problem(line, column, path, p.Message)
	}
	p.Severity, p.Kind, p.Name = sev, d.Kind, d.Name
	return p
}

// written reports whether the document itself has a value at path, rather than a default.
func (d *Document) written(path string) bool {
	return d.tree.value(path) != nil
}

// origin is the position of the field at path, or of its nearest ancestor that is written in the document.
func (d *Document) origin(path string) Origin {
	if d.tree == nil {
		return d.Origin
	}
	line, column := d.tree.find(path)
	return Origin{File: d.source.file, Line: d.source.first + line - 1, Column: column}
}

// nodeKind is the shape of a node.
type nodeKind uint8

const (
	scalarNode nodeKind = iota
	mappingNode
	sequenceNode
)

// scalarKind is what a plain scalar stands for. Quoted ones are always strings.
type scalarKind uint8

const (
	stringScalar scalarKind = iota
	nullScalar
	boolScalar
	intScalar
	floatScalar
)

// node is one value in a document's text. Lines count from 1 within the document, columns in characters from 1.
type node struct {
	kind   nodeKind
	scalar scalarKind
	text   string // of a scalar
	flow   bool   // written as {…} or […]
	line   int
	column int
	fields []entry // of a mapping, in the order written
	items  []*node // of a sequence
}

// entry is one key of a mapping with its value.
type entry struct {
	key   *node
	value *node
	meant string // for an unknown key: the known one it resembles
}

// get returns the first entry with this key.
func (n *node) get(key string) *entry {
	for i := range n.fields {
		if n.fields[i].key.text == key {
			return &n.fields[i]
		}
	}
	return nil
}

// value returns the value at path, or nil.
func (n *node) value(path string) *node {
	for n != nil && path != "" {
		var s step
		s, path = nextStep(path)
		n, _ = n.child(s)
	}
	return n
}

// find returns the position at which the value at path is best shown, or its nearest ancestor.
func (n *node) find(path string) (line, column int) {
	at := n
	for path != "" {
		var s step
		s, path = nextStep(path)
		value, shown := n.child(s)
		if value == nil {
			break
		}
		n, at = value, shown
	}
	return at.line, at.column
}

// child returns the value one step below n, and the node to point at for it: a block collection is pointed at by its key.
func (n *node) child(s step) (value, shown *node) {
	switch {
	case s.index >= 0 && n.kind == sequenceNode && s.index < len(n.items):
		return n.items[s.index], n.items[s.index]
	case s.index < 0 && n.kind == mappingNode:
		e := n.get(s.key)
		if e == nil {
			return nil, nil
		}
		if e.value.kind == scalarNode || e.value.flow {
			return e.value, e.value
		}
		return e.value, e.key
	}
	return nil, nil
}

// step is one part of a path: a key, or an index when that is not negative.
type step struct {
	key   string
	index int
}

// nextStep cuts the first step off a path made by joinKey and joinIndex.
func nextStep(path string) (first step, rest string) {
	if quoted, err := strconv.QuotedPrefix(strings.TrimPrefix(path, "[")); err == nil && path[0] == '[' {
		key, _ := strconv.Unquote(quoted)
		return step{key: key, index: -1}, strings.TrimPrefix(path[1+len(quoted):], "]")
	}
	if path[0] == '[' {
		inside, rest, _ := strings.Cut(path[1:], "]")
		if i, err := strconv.Atoi(inside); err == nil {
			return step{index: i}, rest
		}
		return step{key: inside, index: -1}, rest
	}
	path = strings.TrimPrefix(path, ".")
	end := strings.IndexAny(path, ".[")
	if end < 0 {
		end = len(path)
	}
	return step{key: path[:end], index: -1}, path[end:]
}

// joinKey appends a key to a path: .key, or ["key"] when it has other characters than a name's.
func joinKey(path, key string) string {
	for i := range len(key) {
		if !isNameByte(key[i]) {
			return path + "[" + strconv.Quote(shorten(key)) + "]"
		}
	}
	if path == "" || key == "" {
		return path + key
	}
	return path + "." + key
}

// joinIndex appends an index to a path.
func joinIndex(path string, i int) string {
	return path + "[" + strconv.Itoa(i) + "]"
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
