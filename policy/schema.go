package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Field is what the tags of one struct field say about the field of a document.
type Field struct {
	Name        string // in a document
	GoName      string
	Type        reflect.Type
	Index       int // within its struct
	Required    bool
	Default     string // empty: none
	Enum        []string
	Min, Max    string // in the field's own unit; empty: none
	Format      string // as in formats.go; of each item of a list, of each key of a map; empty: none
	Later       bool   // the whole field belongs to a later version
	LaterValues []string
}

// Supported returns the values of Enum that this version takes.
func (f *Field) Supported() []string {
	var out []string
	for _, v := range f.Enum {
		if !slices.Contains(f.LaterValues, v) {
			out = append(out, v)
		}
	}
	return out
}

// Kinds returns all kinds in the order of the reference.
func Kinds() []Kind {
	return []Kind{KindSidecar, KindBackend, KindRoute, KindTenantPolicy, KindBreakerPolicy, KindPolicyTest, KindDistribution}
}

// NewSpec returns a pointer to a new spec of the kind with its defaults applied, or nil for a kind that does not exist.
// It shares nothing with other specs.
func NewSpec(k Kind) any { return newShapes().newSpec(k) }

func (s shapes) newSpec(k Kind) any {
	var spec any
	switch k {
	case KindSidecar:
		spec = new(SidecarSpec)
	case KindBackend:
		spec = new(BackendSpec)
	case KindRoute:
		spec = new(RouteSpec)
	case KindTenantPolicy:
		spec = new(TenantPolicySpec)
	case KindBreakerPolicy:
		spec = new(BreakerPolicySpec)
	case KindPolicyTest:
		spec = new(PolicyTestSpec)
	case KindDistribution:
		spec = new(DistributionSpec)
	default:
		return nil
	}
	s.setDefaults(reflect.ValueOf(spec).Elem())
	return spec
}

// Fields reads the tags of a struct type of this package. It panics on a tag that says nothing sensible.
func Fields(t reflect.Type) []Field {
	fields := make([]Field, t.NumField())
	for i := range fields {
		sf := t.Field(i)
		f := Field{Name: sf.Tag.Get("yaml"), GoName: sf.Name, Type: sf.Type, Index: i}
		if f.Name == "" {
			panic(fmt.Sprintf("BUG: %s.%s has no yaml tag", t.Name(), sf.Name))
		}
		for option := range strings.SplitSeq(sf.Tag.Get("weir"), ",") {
			key, value, hasValue := strings.Cut(option, "=")
			switch key {
			case "":
			case "required":
				f.Required = true
			case "default":
				f.Default = value
			case "enum":
				f.Enum = strings.Split(value, "|")
			case "min":
				f.Min = value
			case "max":
				f.Max = value
			case "format":
				f.Format = value
			case "later":
				f.Later = !hasValue
				if hasValue {
					f.LaterValues = strings.Split(value, "|")
				}
			default:
				panic(fmt.Sprintf("BUG: %s.%s has an unknown option %q", t.Name(), sf.Name, option))
			}
		}
		fields[i] = f
	}
	return fields
}

// shapes remembers the fields of the types met, since many documents share a few types.
type shapes map[reflect.Type][]Field

func newShapes() shapes { return make(shapes) }

func (s shapes) of(t reflect.Type) []Field {
	fields, ok := s[t]
	if !ok {
		fields = Fields(t)
		s[t] = fields
	}
	return fields
}

// setDefaults fills a struct and the structs within it. Pointers, lists and maps stay nil: what is absent has no fields.
func (s shapes) setDefaults(v reflect.Value) {
	for _, f := range s.of(v.Type()) {
		field := v.Field(f.Index)
		switch {
		case f.Default != "":
			if err := setText(field, f.Default); err != nil {
				panic(fmt.Sprintf("BUG: %s.%s has a bad default: %s", v.Type().Name(), f.GoName, err))
			}
		case isStruct(f.Type):
			s.setDefaults(field)
		}
	}
}

// isStruct reports whether a field of this type is a mapping in a document.
func isStruct(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[CIDR]()
}
