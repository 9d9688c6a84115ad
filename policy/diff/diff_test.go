package diff

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weir/policy"
)

// decode reads documents that must be good.
func decode(t testing.TB, text string) []*policy.Document {
	t.Helper()
	docs, problems := policy.Decode("test.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatalf("cannot decode %s: %v", text, problems)
	}
	return docs
}

func header(kind policy.Kind, name string) string {
	return "---\napiVersion: weir.dev/v1alpha1\nkind: " + string(kind) + "\nmetadata: {name: " + name + "}\n"
}

func TestWords(t *testing.T) {
	f := func(kind policy.Kind, name, before, after string, want ...string) {
		t.Helper()
		document := func(spec string) *policy.Document {
			if spec == "" {
				return nil
			}
			return decode(t, header(kind, name)+spec)[0]
		}
		c, differs := Document(document(before), document(after))
		var got []string
		for _, d := range c.Differences {
			got = append(got, d.Text)
		}
		if differs != (len(want) > 0) || !slices.Equal(got, want) {
			t.Errorf("%s %s\n%s\n%s\ngot  %q\nwant %q", kind, name, before, after, got, want)
		}
	}
	const steady = "spec: {tenants: {names: [acme]}, limits: [{name: steady, requests: 100, burst: 200}]}"
	policyOf := func(fields string) string { return "spec: {tenants: {names: [acme, globex]}, " + fields + "}" }

	// the same to the letter, and in other words
	f(policy.KindTenantPolicy, "gold", steady, steady)
	f(policy.KindTenantPolicy, "gold", steady, steady+" # as ever", "gold: text only, it means the same")
	// a limit of the only tenant, in a policy of its name and of another
	f(policy.KindTenantPolicy, "acme", steady, strings.Replace(steady, "100,", "50,", 1), "acme steady 100/s → 50/s (-50 %)")
	f(policy.KindTenantPolicy, "gold", steady, strings.Replace(steady, "100,", "50,", 1), "acme steady 100/s → 50/s (-50 %), by gold")
	// of several tenants, and of those that a pattern or nothing names
	f(policy.KindTenantPolicy, "gold", policyOf("limits: [{name: steady, requests: 3}]"), policyOf("limits: [{name: steady, requests: 4, per: 1m}]"),
		"gold: limit steady 3/s → 4/m (-97.8 %), tenants acme, globex")
	f(policy.KindTenantPolicy, "eu", "spec: {tenants: {match: eu-*}, limits: [{name: steady, bytes: 1MiB}]}",
		"spec: {tenants: {match: eu-*}, limits: [{name: steady, bytes: 20MiB}]}", "eu: limit steady 1MiB/s → 20MiB/s (×20), tenants eu-*")
	f(policy.KindTenantPolicy, "all", "spec: {tenants: {any: true}, limits: [{name: steady, requests: 60, per: 1m}]}",
		"spec: {tenants: {any: true}, limits: [{name: steady, requests: 1}]}", "all: limit steady 60/m → 1/s (the same rate), any tenant")
	// blocked, and what is counted changes
	f(policy.KindTenantPolicy, "gold", steady, strings.Replace(steady, "requests: 100, burst: 200", "requests: 0", 1),
		"acme steady 100/s → 0/s (blocked), by gold", "gold: limit steady burst 200 → as the rate")
	f(policy.KindTenantPolicy, "acme", "spec: {tenants: {names: [acme]}, limits: [{name: steady, requests: 0}]}",
		"spec: {tenants: {names: [acme]}, limits: [{name: steady, bytes: 1KiB, per: 250ms}]}", "acme steady 0/s (blocked) → 1KiB per 250ms")
	// a limit comes, another goes
	f(policy.KindTenantPolicy, "gold", policyOf("limits: [{name: old, requests: 7, per: 1h}]"),
		policyOf("limits: [{name: steady, requests: 1000, burst: 2000, routes: [pay], mode: Shadow}]"),
		"gold: limit old removed, it was 7/h", "gold: limit steady added 1000/s, burst 2000, route pay, shadow, tenants acme, globex")
	// fields of a limit, and the order of limits
	f(policy.KindTenantPolicy, "gold", policyOf("limits: [{name: a, requests: 1}, {name: b, requests: 1}]"),
		policyOf("limits: [{name: b, requests: 1, bucket: Shared}, {name: a, requests: 1, routes: [x, y]}]"),
		"gold: limit b bucket Tenant → Shared", "gold: limit a routes added x, y", "gold: limits in another order")
	// tenants
	f(policy.KindTenantPolicy, "gold", policyOf("weight: 2"), "spec: {tenants: {names: [globex, hooli, initech]}, weight: 4}",
		"tenant acme no longer named by gold", "tenants hooli, initech now named by gold", "gold: weight 2 → 4")
	f(policy.KindTenantPolicy, "gold", policyOf("weight: 2"), "spec: {tenants: {any: true}}",
		"gold: tenants acme, globex → any tenant", "gold: weight 2 → not set")
	// a whole policy
	f(policy.KindTenantPolicy, "gold", "", policyOf("limits: [{name: steady, requests: 1000, burst: 2000}], concurrency: {max: 50}"),
		"gold: added, limit steady 1000/s, burst 2000, 50 at once, tenants acme, globex")
	f(policy.KindTenantPolicy, "gold", steady, "", "gold: removed, limit steady 100/s, burst 200, tenant acme")
	// structs that come and go, and their fields
	f(policy.KindTenantPolicy, "gold", policyOf("weight: 1"), policyOf("weight: 1, concurrency: {max: 50, queue: 10}"),
		"gold: concurrency added {max: 50, queue: 10}")
	f(policy.KindTenantPolicy, "gold", policyOf("concurrency: {max: 50}"), policyOf("concurrency: {max: 20}"), "gold: spec.concurrency.max 50 → 20")
	// routes
	f(policy.KindRoute, "checkout", "spec: {backend: orders}", "spec: {backend: orders-next, criticality: NonCore}",
		"route checkout: backend orders → orders-next", "route checkout: criticality Core → NonCore")
	f(policy.KindRoute, "checkout", "spec: {match: [{path: /a}, {path: /b}], backend: orders}", "spec: {match: [{path: /new}, {path: /a}, {path: /b, methods: [GET]}], backend: orders}",
		"route checkout: spec.match[0].path /a → /new", "route checkout: spec.match[1].path /b → /a", "route checkout: spec.match[2] added {path: /b, methods: [GET]}")
	f(policy.KindRoute, "checkout", "spec: {match: [{path: /a, headers: {X-A: '1', X-B: '1'}}], backend: orders}",
		"spec: {match: [{path: /a, headers: {X-A: '2', X-C: 'one two'}}], backend: orders}",
		"route checkout: spec.match[0].headers X-A 1 → 2", "route checkout: spec.match[0].headers X-B removed", `route checkout: spec.match[0].headers X-C added "one two"`)
	long := strings.Repeat("a", 100)
	f(policy.KindRoute, "checkout", "spec: {backend: orders, fallback: {body: "+long+"b}}", "spec: {backend: orders, fallback: {body: "+long+"c}}",
		`route checkout: spec.fallback.body "`+long[:60]+`…" → "`+long[:60]+`…" (they differ further on, in 101 and 101 bytes)`)
	// what would change the terminal is escaped
	f(policy.KindRoute, "checkout", "spec: {backend: orders, fallback: {body: a}}", `spec: {backend: orders, fallback: {body: "\e[2J"}}`,
		`route checkout: spec.fallback.body a → "\x1b[2J"`)
	// backends
	f(policy.KindBackend, "orders", "spec: {endpoints: [{address: 127.0.0.1:9000}]}", "spec: {endpoints: [{address: 127.0.0.1:9000, weight: 5}, {address: 127.0.0.1:9001}], pool: {maxIdle: 10}}",
		"backend orders: endpoint 127.0.0.1:9000 weight 1 → 5", "backend orders: endpoint 127.0.0.1:9001 added {address: 127.0.0.1:9001}",
		"backend orders: spec.pool.maxIdle 1000 → 10")
	f(policy.KindBackend, "orders", "spec: {dns: {name: a.svc, port: 80}}", "spec: {endpoints: [{address: 127.0.0.1:9000}]}",
		"backend orders: endpoint 127.0.0.1:9000 added {address: 127.0.0.1:9000}", "backend orders: dns removed")
	// labels
	f(policy.KindBackend, "orders", "spec: {dns: {name: a.svc, port: 80}}", "", "backend orders: removed, a.svc:80 by DNS")
}

func TestDocuments(t *testing.T) {
	const backends = "spec: {endpoints: [{address: 127.0.0.1:9000}]}\n"
	before := decode(t, header("Backend", "b")+backends+header("Backend", "a")+backends+header("TenantPolicy", "gold")+"spec: {tenants: {any: true}}\n")
	after := decode(t, header("TenantPolicy", "gold")+"spec: {tenants: {any: true}, weight: 2}\n"+header("Backend", "b")+backends+header("Sidecar", "s"))
	var got []string
	for _, c := range Documents(before, after) {
		got = append(got, fmt.Sprintf("%s %s %s", c.Kind, c.Name, c.Action))
	}
	if want := []string{"Sidecar s added", "Backend a removed", "TenantPolicy gold changed"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	data, err := json.Marshal(Documents(before, after)[2])
	if want := `{"kind":"TenantPolicy","name":"gold","action":"changed","differences":[{"path":"spec.weight","text":"gold: weight not set → 2","after":"2"}]}`; err != nil || string(data) != want {
		t.Errorf("as JSON: %s, %v\nwant %s", data, err, want)
	}
}

// Whatever field changes, of whatever kind and in whatever way, there is a sentence about it, at its place and nowhere else.
func TestNoFieldIsSilent(t *testing.T) {
	changes := 0
	for _, kind := range policy.Kinds() {
		make := func() *policy.Document {
			d := &policy.Document{Kind: kind, Name: "x", Spec: policy.NewSpec(kind)}
			fill(reflect.ValueOf(d.Spec).Elem(), 1)
			fill(reflect.ValueOf(&d.Metadata).Elem(), 1)
			return d
		}
		before, after := make(), make()
		if got := meanings(before, after); len(got) > 0 {
			t.Fatalf("%s: equal documents differ: %v", kind, got)
		}
		check := func(path string) {
			changes++
			for _, pair := range [][2]*policy.Document{{before, after}, {after, before}} {
				got := meanings(pair[0], pair[1])
				if len(got) == 0 {
					t.Errorf("%s: a change of %s is silent", kind, path)
				}
				for _, d := range got {
					if !related(d.Path, path) || d.Text == "" || strings.ContainsAny(d.Text, "\n\x1b") {
						t.Errorf("%s: a change of %s is said as %q at %s", kind, path, d.Text, d.Path)
					}
				}
			}
		}
		mutate(reflect.ValueOf(&after.Metadata).Elem(), "metadata", check)
		mutate(reflect.ValueOf(after.Spec).Elem(), "spec", check)
	}
	t.Logf("%d changes", changes)
}

// related says whether one place is the other, holds it or is in it, or, for the parts of a rate, is beside it. Items are told by name or
// position, and may have lost their name to the change.
func related(said, changed string) bool {
	item := regexp.MustCompile(`\[[^]]*\]`)
	bare := func(path string) []string { return strings.Split(item.ReplaceAllString(path, ""), ".") }
	a, b := bare(said), bare(changed)
	n := min(len(a), len(b))
	rate := []string{"requests", "bytes", "per", "burst"}
	return slices.Equal(a[:n], b[:n]) ||
		n > 0 && slices.Equal(a[:n-1], b[:n-1]) && slices.Contains(rate, a[n-1]) && slices.Contains(rate, b[n-1])
}

// fill sets every field below v to something, and every list to two items that differ.
func fill(v reflect.Value, seed int) {
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), seed)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), seed)
		fill(v.Index(1), seed+1)
	case v.Kind() == reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k": "v", "l": "w"}))
	case isStruct(v.Type()):
		for i := range v.NumField() {
			fill(v.Field(i), seed)
		}
		if l, ok := v.Addr().Interface().(*policy.Limit); ok { // it counts requests or bytes
			l.Requests, l.Bytes = map[bool]*int64{true: l.Requests}[seed%2 == 0], map[bool]*policy.Size{true: l.Bytes}[seed%2 == 1]
		}
	default:
		set(v, seed)
	}
}

// set gives a single value that depends on the seed.
func set(v reflect.Value, seed int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("%s-%d", strings.Repeat("x", 80), seed))
	case reflect.Bool:
		v.SetBool(seed%2 == 1)
	case reflect.Float64:
		v.SetFloat(float64(seed))
	case reflect.Struct:
		cidr, err := policy.ParseCIDR(fmt.Sprintf("10.%d.0.0/16", seed))
		if err != nil {
			panic(err)
		}
		v.Set(reflect.ValueOf(cidr))
	default:
		v.SetInt(int64(seed))
	}
}

// mutate changes v in every way that is one step, calls check with each, and leaves v as it was.
func mutate(v reflect.Value, path string, check func(path string)) {
	was := reflect.New(v.Type()).Elem()
	was.Set(v)
	try := func(change func()) {
		change()
		check(path)
		v.Set(was)
	}
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil():
	case v.Kind() == reflect.Pointer:
		try(func() { v.SetZero() })
		mutate(v.Elem(), path, check)
	case v.Kind() == reflect.Slice:
		more := reflect.New(v.Type().Elem()).Elem()
		fill(more, 9)
		try(func() { v.Set(reflect.Append(v.Slice3(0, 2, 2), more)) })
		try(func() { v.Set(v.Slice3(0, 1, 1)) })
		try(func() { v.SetZero() })
		try(func() { v.Set(reflect.Append(reflect.Append(v.Slice3(0, 0, 0), v.Index(1)), v.Index(0))) })
		for i := range v.Len() {
			mutate(v.Index(i), fmt.Sprintf("%s[%d]", path, i), check)
		}
	case v.Kind() == reflect.Map:
		for _, m := range []map[string]string{nil, {"k": "v"}, {"k": "other", "l": "w"}, {"k": "v", "l": "w", "m": ""}} {
			try(func() { v.Set(reflect.ValueOf(m)) })
		}
	case isStruct(v.Type()):
		for _, f := range policy.Fields(v.Type()) {
			mutate(v.Field(f.Index), path+"."+f.Name, check)
		}
	case v.Kind() == reflect.Bool:
		try(func() { v.SetBool(!v.Bool()) })
	default:
		try(func() { set(v, 7) })
		try(func() { v.SetZero() })
	}
}

// FuzzDocument: nothing that can be decoded makes it panic; a document does not differ from itself; and two documents differ in words when, and only when,
// their digests do.
func FuzzDocument(f *testing.F) {
	files, err := filepath.Glob("../../testdata/policies/good/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data), strings.Replace(string(data), "1", "2", 1))
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		a, _ := policy.Decode("a", []byte(before))
		b, _ := policy.Decode("b", []byte(after))
		for _, x := range a {
			if c, differs := Document(x, x); differs {
				t.Errorf("%s %s differs from itself: %+v", x.Kind, x.Name, c)
			}
			for _, y := range b {
				Summary(y)
				if x.Kind != y.Kind || x.Name != y.Name {
					continue
				}
				c, _ := Document(x, y)
				same := len(c.Differences) == 0 || c.Differences[0].Path == ""
				if same != (x.Digest() == y.Digest()) {
					t.Errorf("%s and %s: the digests are equal: %v, but the differences are %+v", before, after, !same, c.Differences)
				}
				for _, d := range c.Differences {
					if strings.ContainsAny(d.Text, "\n\r\x1b") {
						t.Errorf("not on one line: %q", d.Text)
					}
				}
			}
		}
	})
}
