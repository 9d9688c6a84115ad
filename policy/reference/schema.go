package reference

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"

	"weir/policy"
)

// Schema is docs/schema/weir.dev_v1alpha1.json: a JSON Schema (2020-12) of one document.
func Schema() []byte {
	s := schemas{source: newSource()}
	root := &schema{
		Schema:      "https://json-schema.org/draft/2020-12/schema",
		ID:          "https://weir.dev/schema/weir.dev_v1alpha1.json",
		Title:       "Weir " + policy.APIVersion,
		Description: "One document. Generated from the Go types; what needs several fields to judge is judged by `sidecar validate`.",
	}
	metadata := s.ref(reflect.TypeFor[policy.Metadata]())
	for _, k := range policy.Kinds() {
		spec := specOf(k)
		document := &schema{
			Title:       string(k),
			Description: s.ofType(spec),
			Type:        types{"object"},
			Properties: properties{
				{"apiVersion", &schema{Const: policy.APIVersion}},
				{"kind", &schema{Const: string(k)}},
				{"metadata", metadata},
				{"spec", s.ref(spec)},
			},
			Required: []string{"apiVersion", "kind", "metadata", "spec"},
			Closed:   closed(),
		}
		if k == policy.KindSidecar {
			document.Required = document.Required[:3] // everything in it has a default
		}
		root.OneOf = append(root.OneOf, document)
	}
	root.Defs = s.defs
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		panic("BUG: cannot encode the schema: " + err.Error())
	}
	return b.Bytes()
}

// schema is the part of JSON Schema that is needed, in the order of a reader.
type schema struct {
	Schema      string          `json:"$schema,omitempty"`
	ID          string          `json:"$id,omitempty"`
	Ref         string          `json:"$ref,omitempty"`
	Title       string          `json:"title,omitempty"`
	Description string          `json:"description,omitempty"`
	Type        types           `json:"type,omitempty"`
	Const       string          `json:"const,omitempty"`
	Enum        []string        `json:"enum,omitempty"`
	Pattern     string          `json:"pattern,omitempty"`
	MinLength   int             `json:"minLength,omitempty"`
	Minimum     json.RawMessage `json:"minimum,omitempty"`
	Maximum     json.RawMessage `json:"maximum,omitempty"`
	Default     json.RawMessage `json:"default,omitempty"`
	Items       *schema         `json:"items,omitempty"`
	Names       *schema         `json:"propertyNames,omitempty"`
	Properties  properties      `json:"properties,omitempty"`
	Required    []string        `json:"required,omitempty"`
	Closed      json.RawMessage `json:"additionalProperties,omitempty"`
	Not         json.RawMessage `json:"not,omitempty"`
	OneOf       []*schema       `json:"oneOf,omitempty"`
	Defs        properties      `json:"$defs,omitempty"`
}

// closed is the value of additionalProperties that allows none.
func closed() json.RawMessage { return json.RawMessage("false") }

// types is one type as a string, or several as a list.
type types []string

func (t types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

// properties are schemas by name, in an order.
type properties []property

type property struct {
	name   string
	schema *schema
}

func (p properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, e := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(e.name) + ":")
		var value bytes.Buffer
		enc := json.NewEncoder(&value)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(e.schema); err != nil {
			return nil, err
		}
		b.Write(bytes.TrimSpace(value.Bytes()))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// schemas collects a definition for each struct type.
type schemas struct {
	source
	defs properties
}

// ref refers to the definition of a struct type, and makes it when it is met first.
func (s *schemas) ref(t reflect.Type) *schema {
	ref := &schema{Ref: "#/$defs/" + t.Name()}
	for _, d := range s.defs {
		if d.name == t.Name() {
			return ref
		}
	}
	def := &schema{Description: s.ofType(t), Type: types{"object"}, Closed: closed()}
	s.defs = append(s.defs, property{t.Name(), def})
	for _, f := range policy.Fields(t) {
		value := s.value(f.Type, f)
		value.Description = s.ofField(t, f)
		if f.Later {
			value = &schema{Description: value.Description + " Not supported by this version.", Not: json.RawMessage("{}")}
		}
		def.Properties = append(def.Properties, property{f.Name, value})
		if f.Required {
			def.Required = append(def.Required, f.Name)
		}
	}
	return ref
}

// value is the schema of a field, or of an item of a list.
func (s *schemas) value(t reflect.Type, f policy.Field) *schema {
	if inner, ok := structOf(t); ok && t.Kind() != reflect.Slice {
		return s.ref(inner)
	}
	switch t {
	case reflect.TypeFor[policy.Duration]():
		// The only number is 0.
		return &schema{
			Type: types{"string", "integer"}, Pattern: `^(0|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+)$`,
			Minimum: json.RawMessage("0"), Maximum: json.RawMessage("0"), Default: text(f.Default),
		}
	case reflect.TypeFor[policy.Size]():
		return &schema{
			Type: types{"string", "integer"}, Pattern: sizePattern, Minimum: json.RawMessage("0"), Default: text(f.Default),
		}
	case reflect.TypeFor[policy.Tokens]():
		return &schema{Type: types{"integer", "string"}, Pattern: sizePattern, Minimum: json.RawMessage(f.Min)}
	case reflect.TypeFor[policy.Percent]():
		return &schema{Type: types{"string"}, Pattern: `^[0-9]+(\.[0-9]+)?%$`, Default: text(f.Default)}
	case reflect.TypeFor[policy.CIDR]():
		return &schema{Type: types{"string"}, Pattern: `^[0-9a-f.:]+/[0-9]+$`}
	case reflect.TypeFor[policy.Patch]():
		return &schema{Type: types{"object"}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.value(t.Elem(), f)
	case reflect.Slice:
		item := f
		item.Required = true
		return &schema{Type: types{"array"}, Items: s.value(t.Elem(), item)}
	case reflect.Map:
		return &schema{Type: types{"object"}, Names: &schema{Pattern: pattern(f.Format)}, Closed: json.RawMessage(`{"type":"string"}`)}
	case reflect.String:
		v := &schema{Type: types{"string"}, Enum: f.Supported(), Pattern: pattern(f.Format), Default: text(f.Default)}
		if f.Required || f.Default != "" {
			v.MinLength = 1
		} else if v.Pattern != "" {
			v.Pattern = "^$|" + v.Pattern
		}
		return v
	case reflect.Bool:
		return &schema{Type: types{"boolean"}}
	}
	return &schema{
		Type: types{"integer"}, Minimum: json.RawMessage(f.Min), Maximum: json.RawMessage(f.Max), Default: json.RawMessage(f.Default),
	}
}

// sizePattern is what a size with or without a unit looks like.
const sizePattern = `^[0-9]+(B|KiB|MiB|GiB|TiB)?$`

// text is a string in JSON, or nothing when it is empty.
func text(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(strconv.Quote(s))
}

// pattern is the regular expression of a named format, where a short one says it all.
func pattern(format string) string {
	switch format {
	case "dnslabel":
		return `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`
	case "tenant":
		return `^[!-~]{1,128}$`
	case "tenantpattern":
		return `^(?=[!-~]{1,128}$).*\*`
	case "headername", "method":
		return "^[0-9A-Za-z!#$%&'*+.^_`|~-]+$"
	case "listen", "endpoint":
		return `^(unix:/.+|.*:[0-9]+)$`
	case "pathpattern", "target":
		return `^/`
	case "retrycause":
		return `^(connect|reset|5[0-9][0-9])$`
	case "hosttemplate":
		return `\{tenant\}`
	case "pathtemplate", "spiffepattern":
		return `^/.*\{tenant\}`
	case "trustdomain":
		return `^[a-z0-9._-]{1,255}$`
	}
	return ""
}
