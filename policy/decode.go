package policy

import (
	"fmt"
	"reflect"
	"slices"
)

// notSupported is what is said of everything that belongs to a later version.
const notSupported = "not supported by this version"

// maxProblems is how many problems of one document are listed.
const maxProblems = 100

// Decode reads a stream of documents in YAML or JSON. It returns those without errors, and every problem of the others,
// in the order of the text. Documents do not influence each other, and empty ones are passed over. file is used for
// positions only.
//
// Decoding is strict: there is no field that is silently ignored and no value that is silently converted. YAML's anchors,
// aliases, merge keys and tags are refused, so a document means what it says where it says it.
//
// The problems of a document whose kind or name cannot be read have no Kind or no Name. Where both can be read, though
// the rest is broken, they have both, so that a caller can keep that object's last good version.
func Decode(file string, data []byte) (docs []*Document, problems []Problem) {
	if len(data) > MaxSource {
		return nil, []Problem{{
			Origin:  Origin{File: file, Line: 1, Column: 1},
			Message: fmt.Sprintf("%d bytes are too many; a source has at most %s", len(data), Size(MaxSource)),
		}}
	}
	sources := split(file, data)
	if len(sources) > MaxDocuments {
		return nil, []Problem{{
			Origin:  Origin{File: file, Line: 1, Column: 1},
			Message: fmt.Sprintf("%d documents are too many; a source has at most %d", len(sources), MaxDocuments),
		}}
	}
	shapes := newShapes()
	for _, src := range sources {
		tree, bad := parse(src)
		if tree == nil && len(bad) == 0 {
			continue
		}
		d := decoder{shapes: shapes, source: src, doc: &Document{source: src, tree: tree}}
		if len(bad) > 0 {
			d.salvage(bad)
		} else {
			d.document()
		}
		sortProblems(d.problems)
		problems = append(problems, d.problems...)
		if d.unlisted {
			problems = append(problems, d.doc.Problem(Error, "", "has more than %d problems; the others are not listed", maxProblems))
		}
		if !d.failed {
			docs = append(docs, d.doc)
		}
	}
	return docs, problems
}

// decoder decodes one document.
type decoder struct {
	shapes   shapes
	source   *source
	doc      *Document
	problems []Problem
	partial  bool // a part of a spec is decoded: nothing is missing, and null takes away
	failed   bool // there is a problem that is an error
	unlisted bool // there are more problems than maxProblems
}

// full reports whether further problems would not be listed, so that finding out what to say about them can be spared.
func (d *decoder) full() bool {
	if len(d.problems) < maxProblems {
		return false
	}
	d.unlisted = true
	return true
}

// report adds an error at a node.
func (d *decoder) report(n *node, path, format string, args ...any) *Problem {
	if d.full() {
		return new(Problem)
	}
	d.add(d.source.problem(n.line, n.column, path, fmt.Sprintf(format, args...)))
	return &d.problems[len(d.problems)-1]
}

func (d *decoder) add(p Problem) {
	d.failed = d.failed || p.Severity == Error
	if d.full() {
		return
	}
	p.Kind, p.Name = d.doc.Kind, d.doc.Name
	d.problems = append(d.problems, p)
}

// salvage reads what can be read of a document whose YAML is unusable: its kind and name.
func (d *decoder) salvage(bad []Problem) {
	tree := d.doc.tree
	if tree == nil {
		tree = d.source.header()
	}
	d.identify(tree)
	for _, p := range bad {
		d.add(p)
	}
}

// identify reads kind and name without judging them.
func (d *decoder) identify(tree *node) {
	text := func(n *node, key string) string {
		if n == nil || n.kind != mappingNode {
			return ""
		}
		if e := n.get(key); e != nil && e.value.kind == scalarNode && e.value.scalar == stringScalar {
			return e.value.text
		}
		return ""
	}
	if kind := Kind(text(tree, "kind")); slices.Contains(Kinds(), kind) {
		d.doc.Kind = kind
	}
	if tree != nil && tree.kind == mappingNode {
		if e := tree.get("metadata"); e != nil {
			d.doc.Name = text(e.value, "name")
		}
	}
}

// envelope is what all documents have in common.
type envelope struct {
	APIVersion string   `yaml:"apiVersion" weir:"required"`
	Kind       string   `yaml:"kind" weir:"required"`
	Metadata   Metadata `yaml:"metadata" weir:"required"`
	Spec       struct{} `yaml:"spec"`
}

// document decodes the whole document.
func (d *decoder) document() {
	tree := d.doc.tree
	d.doc.Origin = d.source.problem(tree.line, tree.column, "", "").Origin
	if tree.kind != mappingNode {
		d.report(tree, "", "want a mapping with apiVersion, kind, metadata and spec, got %s", describe(tree))
		return
	}
	d.identify(tree)
	var env envelope
	v := reflect.ValueOf(&env).Elem()
	var spec *entry
	d.fields(tree, v.Type(), "", func(f *Field, e *entry) {
		if f.Name == "spec" {
			spec = e
			return
		}
		d.value(e.value, v.Field(f.Index), f, joinKey("", f.Name))
	})
	d.doc.Metadata = env.Metadata
	if e := tree.get("apiVersion"); e != nil && env.APIVersion != "" && env.APIVersion != APIVersion {
		d.report(e.value, "apiVersion", "%s is not supported; want %s", quote(env.APIVersion), APIVersion)
		return
	}
	value := d.shapes.newSpec(Kind(env.Kind))
	if value == nil {
		if e := tree.get("kind"); e != nil && env.Kind != "" {
			d.unknownKind(e.value)
		}
		return
	}
	d.doc.Spec = value
	body := &node{kind: mappingNode, line: tree.line, column: tree.column}
	if spec != nil {
		body = spec.value
	}
	d.value(body, reflect.ValueOf(value).Elem(), &Field{}, "spec")
	if body.kind == mappingNode {
		d.validate()
	}
}

func (d *decoder) unknownKind(n *node) {
	var legal []string
	for _, k := range Kinds() {
		legal = append(legal, string(k))
	}
	p := d.report(n, "kind", "%s is unknown; legal kinds: %s", quote(n.text), list(legal, "and"))
	if meant := closest(n.text, legal); meant != "" {
		p.Suggestion = didYouMean(meant)
	}
}

// fields walks the entries of a mapping that is a struct, and calls visit for each that the struct has. It reports unknown
// and duplicate ones, missing ones, and those of a later version.
func (d *decoder) fields(n *node, t reflect.Type, path string, visit func(*Field, *entry)) {
	fields := d.shapes.of(t)
	seen := make([]*node, len(fields))
	meant := make([]bool, len(fields))
	for i := range n.fields {
		e := &n.fields[i]
		f := fieldNamed(fields, e.key.text)
		if f == nil {
			if f = d.unknownField(e, fields, path); f != nil {
				meant[f.Index] = true
			}
			continue
		}
		at := joinKey(path, f.Name)
		if first := seen[f.Index]; first != nil {
			d.report(e.key, at, "duplicate field; it was set before on line %d", d.source.first+first.line-1)
			continue
		}
		seen[f.Index] = e.key
		if f.Later {
			d.report(e.key, at, notSupported)
		}
		visit(f, e)
	}
	for i := range fields {
		f := &fields[i]
		if f.Required && seen[f.Index] == nil && !meant[f.Index] && !d.partial {
			p := d.report(n, joinKey(path, f.Name), "required, but missing")
			if legal := f.Supported(); legal != nil {
				p.Message += "; legal values: " + list(legal, "and")
			}
		}
	}
}

func fieldNamed(fields []Field, name string) *Field {
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i]
		}
	}
	return nil
}

// unknownField reports a key that the struct does not have, and returns the field that was probably meant.
func (d *decoder) unknownField(e *entry, fields []Field, path string) *Field {
	if d.full() {
		return nil
	}
	var all, legal []string
	for _, f := range fields {
		all = append(all, f.Name)
		if !f.Later {
			legal = append(legal, f.Name)
		}
	}
	p := d.report(e.key, joinKey(path, e.key.text), "unknown field; legal fields: %s", list(legal, "and"))
	e.meant = closest(e.key.text, all)
	if e.meant == "" {
		return nil
	}
	p.Suggestion = didYouMean(e.meant)
	return fieldNamed(fields, e.meant)
}

// value decodes a node into v by the rules of the field it belongs to.
func (d *decoder) value(n *node, v reflect.Value, f *Field, path string) {
	if n.kind == scalarNode && n.scalar == nullScalar {
		if d.partial {
			return // it takes the field away
		}
		d.report(n, path, "has no value; write one, or leave the field out")
		return
	}
	t := v.Type()
	switch {
	case t == reflect.TypeFor[Patch]():
		if d.want(n, mappingNode, "a mapping", path) {
			v.SetString(string(patchOf(n)))
		}
	case t.Kind() == reflect.Pointer:
		target := reflect.New(t.Elem())
		if isStruct(t.Elem()) {
			d.shapes.setDefaults(target.Elem())
		}
		d.value(n, target.Elem(), f, path)
		v.Set(target)
	case isStruct(t):
		if d.want(n, mappingNode, "a mapping", path) {
			d.fields(n, t, path, func(f *Field, e *entry) { d.value(e.value, v.Field(f.Index), f, joinKey(path, f.Name)) })
		}
	case t.Kind() == reflect.Slice:
		d.list(n, v, f, path)
	case t.Kind() == reflect.Map:
		d.stringMap(n, v, f, path)
	default:
		d.scalar(n, v, f, path)
	}
}

// want reports a node that is not of the kind wanted.
func (d *decoder) want(n *node, kind nodeKind, words, path string) bool {
	if n.kind == kind {
		return true
	}
	p := d.report(n, path, "want %s, got %s", words, describe(n))
	if kind == sequenceNode && n.kind == scalarNode {
		p.Suggestion = "did you mean [" + shorten(n.text) + "]?"
	}
	return false
}

func (d *decoder) list(n *node, v reflect.Value, f *Field, path string) {
	if !d.want(n, sequenceNode, "a list", path) {
		return
	}
	if len(n.items) == 0 {
		if f.Required {
			d.report(n, path, "required, but empty")
		}
		return
	}
	if d.partial {
		d.partial = namedItems(v.Type().Elem())
		defer func() { d.partial = true }()
	}
	items := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	item := *f
	item.Required = true // an empty string stands for nothing in any list
	for i, child := range n.items {
		target := items.Index(i)
		if isStruct(target.Type()) {
			d.shapes.setDefaults(target)
		}
		d.value(child, target, &item, joinIndex(path, i))
		if d.partial && (child.kind != mappingNode || child.get("name") == nil) {
			d.report(child, joinKey(joinIndex(path, i), "name"), "required, but missing: it says which item of the list is meant")
		}
	}
	v.Set(items)
}

func (d *decoder) stringMap(n *node, v reflect.Value, f *Field, path string) {
	if !d.want(n, mappingNode, "a mapping", path) || len(n.fields) == 0 {
		return
	}
	m := make(map[string]string, len(n.fields))
	for _, e := range n.fields {
		at := joinKey(path, e.key.text)
		if e.key.scalar != stringScalar {
			d.report(e.key, at, "want a string, got %s", describe(e.key)).Suggestion = didYouMean(e.key.text)
			continue
		}
		if _, ok := m[e.key.text]; ok {
			if d.full() {
				return
			}
			d.report(e.key, at, "duplicate key; it was set before on line %d", d.source.first+n.get(e.key.text).key.line-1)
			continue
		}
		if f.Format != "" {
			d.refused(e.key, at, checkFormat(f.Format, e.key.text))
		}
		var value string
		d.value(e.value, reflect.ValueOf(&value).Elem(), &Field{}, at)
		m[e.key.text] = value
	}
	v.Set(reflect.ValueOf(m))
}
