package reference

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weir/policy"
)

// The schema takes what the decoder takes, and refuses what the decoder refuses within a single field.
func TestSchema(t *testing.T) {
	root := readSchema(t)
	f := func(ok bool, kind, spec string) {
		t.Helper()
		text := fmt.Sprintf(`{"apiVersion": "weir.dev/v1alpha1", "kind": %q, "metadata": {"name": "x"}, "spec": %s}`, kind, spec)
		_, problems := policy.Decode("", []byte(text))
		if decoded := len(problems) == 0; decoded != ok {
			t.Errorf("the decoder says %v to %s: %v", decoded, spec, problems)
		}
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			t.Fatal(err)
		}
		if err := root.check(root, value, ""); (err == nil) != ok {
			t.Errorf("the schema says %v to %s", err, spec)
		}
	}
	f(true, "Sidecar", `{}`)
	f(true, "Sidecar", `{"timeouts": {"idle": "1m", "request": 0}, "trustedProxies": ["10.0.0.0/8"], "admin": {"pprof": true}}`)
	f(true, "Sidecar", `{"bounds": {"uriBytes": 8192, "bodyBytes": "10MiB"}, "service": "", "accessLog": {"format": "off"}}`)
	f(true, "Backend", `{"endpoints": [{"address": "127.0.0.1:9000", "weight": 2}, {"address": "unix:/x"}]}`)
	f(true, "Backend", `{"endpoints": [{"address": "a:1"}], "tls": {"serverName": "a.example.com"}}`)
	f(true, "Route", `{"backend": "b", "match": [{"path": "/a/*", "headers": {"X-Beta": "1"}}]}`)
	f(true, "TenantPolicy", `{"tenants": {"match": "eu-*"}, "limits": [{"name": "a", "requests": 0}]}`)
	f(true, "TenantPolicy", `{"tenants": {"any": true}, "limits": [{"name": "a", "bytes": "10MiB", "burst": "20MiB"}, {"name": "b", "bytes": 5, "burst": 7}]}`)
	f(true, "Route", `{"backend": "b", "cost": {"request": 0, "header": "X-Cost"}}`)
	// A kind and a field that do not exist.
	f(false, "Nonsense", `{}`)
	f(false, "Sidecar", `{"listener": []}`)
	// Required.
	f(false, "TenantPolicy", `{}`)
	f(false, "Backend", `{"endpoints": [{}]}`)
	// Types.
	f(false, "Sidecar", `{"admin": {"pprof": "yes"}}`)
	f(false, "Sidecar", `{"identity": {}}`)
	f(false, "Route", `{"backend": "b", "match": [{"headers": {"X-Beta": 1}}]}`)
	f(false, "TenantPolicy", `{"tenants": {"any": true}, "limits": [{"name": "a", "requests": 1.5}]}`)
	// Ranges, values, formats.
	f(false, "Backend", `{"endpoints": [{"address": "a:1"}], "balance": "Random"}`)
	f(false, "Backend", `{"endpoints": [{"address": "a:1"}], "retries": {"on": ["404"]}}`)
	f(false, "Backend", `{"endpoints": [{"address": "a:1"}], "health": {"path": "healthz"}}`)
	f(false, "TenantPolicy", `{"tenants": {"any": true}, "limits": [{"name": "a", "requests": -1}]}`)
	f(false, "TenantPolicy", `{"tenants": {"any": true}, "limits": [{"name": "a", "requests": 1, "mode": "shadow"}]}`)
	f(false, "TenantPolicy", `{"tenants": {"names": ["a b"]}}`)
	f(false, "TenantPolicy", `{"tenants": {"names": [""]}}`)
	f(false, "Sidecar", `{"timeouts": {"idle": "60"}}`)
	f(false, "Sidecar", `{"timeouts": {"idle": 60}}`)
	f(false, "Sidecar", `{"bounds": {"uriBytes": "8KB"}}`)
	f(false, "TenantPolicy", `{"tenants": {"any": true}, "limits": [{"name": "a", "bytes": 1, "burst": 0}]}`)
	f(false, "TenantPolicy", `{"tenants": {"any": true}, "limits": [{"name": "a", "bytes": 1, "burst": "20MB"}]}`)
	f(false, "TenantPolicy", `{"tenants": {"any": true}, "limits": [{"name": "a", "bytes": 1, "burst": true}]}`)
	f(false, "Sidecar", `{"trustedProxies": ["10.0.0.1"]}`)
	f(false, "Route", `{"backend": "b", "match": [{"headers": {"X Beta": "1"}}]}`)
	// What belongs to a later version.
	f(false, "BreakerPolicy", `{"target": {"kind": "Backend", "name": "b"}, "failures": {}, "scope": "Fleet"}`)
	f(false, "TenantPolicy", `{"tenants": {"any": true}, "quotas": []}`)
	f(false, "Route", `{"backend": "b", "mirror": {"backend": "c"}}`)
}

// validator is as much of JSON Schema as the schema uses.
type validator struct {
	Ref                  string
	Type                 any
	Const                any
	Enum                 []any
	Pattern              string
	MinLength            int
	Minimum, Maximum     *float64
	Items, PropertyNames *validator
	Properties           map[string]*validator
	Required             []string
	AdditionalProperties json.RawMessage
	Not                  *struct{}
	OneOf                []*validator
	Defs                 map[string]*validator
}

func readSchema(t *testing.T) *validator {
	t.Helper()
	text := strings.NewReplacer(`"$ref"`, `"Ref"`, `"$defs"`, `"Defs"`).Replace(string(Schema()))
	v := new(validator)
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *validator) check(root *validator, value any, at string) error {
	no := func(why string) error { return fmt.Errorf("%s: %s", at, why) }
	if v.Ref != "" {
		return root.Defs[strings.TrimPrefix(v.Ref, "#/$defs/")].check(root, value, at)
	}
	matched := 0
	for _, one := range v.OneOf {
		if one.check(root, value, at) == nil {
			matched++
		}
	}
	types, _ := v.Type.([]any)
	if v.Type != nil && types == nil {
		types = []any{v.Type}
	}
	switch {
	case v.Not != nil:
		return no("not")
	case v.OneOf != nil && matched != 1:
		return no("oneOf")
	case v.Const != nil && value != v.Const:
		return no("const")
	case v.Enum != nil && !slices.Contains(v.Enum, value):
		return no("enum")
	case types != nil && !slices.Contains(types, any(typeOf(value))):
		return no("type")
	}
	switch value := value.(type) {
	case string:
		// Go has no lookahead; the decoder's own tests cover that pattern.
		if v.Pattern != "" && !strings.Contains(v.Pattern, "(?=") && !regexp.MustCompile(v.Pattern).MatchString(value) {
			return no("pattern")
		}
		if len(value) < v.MinLength {
			return no("minLength")
		}
	case float64:
		if v.Minimum != nil && value < *v.Minimum || v.Maximum != nil && value > *v.Maximum {
			return no("range")
		}
	case []any:
		for _, item := range value {
			if err := v.Items.check(root, item, at+"[]"); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, name := range v.Required {
			if _, ok := value[name]; !ok {
				return no("required " + name)
			}
		}
		for name, item := range value {
			if v.PropertyNames != nil && v.PropertyNames.check(root, name, at+"."+name) != nil {
				return no("propertyNames")
			}
			property := v.Properties[name]
			if property == nil && string(v.AdditionalProperties) == "false" {
				return no("additionalProperties " + name)
			}
			if property == nil && v.AdditionalProperties == nil {
				continue
			}
			if property == nil {
				property = new(validator)
				if err := json.Unmarshal(v.AdditionalProperties, property); err != nil {
					return err
				}
			}
			if err := property.check(root, item, at+"."+name); err != nil {
				return err
			}
		}
	}
	return nil
}

// typeOf is the JSON Schema type of a value.
func typeOf(value any) string {
	switch value := value.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case float64:
		if value == float64(int64(value)) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	}
	return "object"
}
