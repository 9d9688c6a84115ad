package policy

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// distributionOf is a Distribution to one cluster with these overlays.
func distributionOf(t testing.TB, overlays string) *Document {
	t.Helper()
	text := fmt.Sprintf(`apiVersion: %s
kind: Distribution
metadata: {name: regions}
spec:
  from: {endpoints: ["http://127.0.0.1:2379"]}
  to:
  - name: eu
    etcd: {endpoints: ["http://127.0.0.1:2381"]}
    overlays:
%s`, APIVersion, overlays)
	docs, problems := Decode("distribution.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatalf("%s\n%s", said(problems), text)
	}
	return docs[0]
}

const goldText = `# Our best customers.
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata:
  name: gold
  labels: {tier: gold}
spec:
    tenants: {names: [acme, globex]}   # two of them
    weight: 4

    limits:
    # what they pay for
    - name: steady
      requests: 100 # a second
      burst: 200
    - {name: writes, requests: 10, routes: [pay]}
    concurrency: {max: 50, queue: 10, queueTimeout: 1s}
`

func TestOverlaid(t *testing.T) {
	docs, problems := Decode("gold", []byte(goldText))
	if len(problems) > 0 {
		t.Fatal(said(problems))
	}
	gold := docs[0]
	f := func(overlays, want string) {
		t.Helper()
		got, problems := distributionOf(t, overlays).Overlaid(0, gold)
		if len(problems) > 0 {
			t.Errorf("%s: %s", overlays, said(problems))
			return
		}
		if diff := cmp.Diff(want, got.Text()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", overlays, diff)
		}
		again, _ := distributionOf(t, overlays).Overlaid(0, gold)
		if again.Text() != got.Text() {
			t.Errorf("%s: another text the second time", overlays)
		}
	}
	laidOut := func(old, replaced string) string {
		return strings.Replace(`# Our best customers.
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata:
  name: gold
  labels: {tier: gold}
spec:
  tenants: {names: [acme, globex]} # two of them
  weight: 4
  limits:
    # what they pay for
    - name: steady
      requests: 100 # a second
      burst: 200
    - {name: writes, requests: 10, routes: [pay]}
  concurrency: {max: 50, queue: 10, queueTimeout: 1s}
`, old, replaced, 1)
	}
	// for another kind, another name, other labels: the text as it was written
	f("    - {kind: Route, patch: {timeout: 1s}}\n", goldText)
	f("    - {kind: TenantPolicy, name: silver, patch: {weight: 1}}\n", goldText)
	f("    - {kind: TenantPolicy, matchLabels: {tier: silver}, patch: {weight: 1}}\n", goldText)
	f("    - {kind: TenantPolicy, matchLabels: {tier: gold, region: eu}, patch: {weight: 1}}\n", goldText)
	// nothing: laid out anew, and the same in meaning
	f("    - {kind: TenantPolicy, patch: {}}\n", laidOut("", ""))
	// a value; its comment stays
	f("    - {kind: TenantPolicy, name: gold, patch: {weight: 2}}\n", laidOut("weight: 4", "weight: 2"))
	f("    - {kind: TenantPolicy, patch: {limits: [{name: steady, requests: 50}]}}\n", laidOut("requests: 100", "requests: 50"))
	// a field of an item that is there, and a new item
	f("    - {kind: TenantPolicy, matchLabels: {tier: gold}, patch: {limits: [{name: steady, per: 1m}]}}\n", laidOut("# a second\n", "# a second\n      per: 1m\n"))
	f("    - {kind: TenantPolicy, patch: {limits: [{name: reads, requests: 5}]}}\n",
		laidOut("    - {name: writes, requests: 10, routes: [pay]}\n", "    - {name: writes, requests: 10, routes: [pay]}\n    - {name: reads, requests: 5}\n"))
	// a list whose items have no names is replaced
	f("    - {kind: TenantPolicy, patch: {tenants: {names: [\"100\"]}}}\n", laidOut("[acme, globex]", `["100"]`))
	f("    - {kind: TenantPolicy, patch: {limits: [{name: writes, routes: [a, b]}]}}\n", laidOut("[pay]", "[a, b]"))
	// null takes away, also where nothing is
	f("    - {kind: TenantPolicy, patch: {concurrency: null, backend: null}}\n", laidOut("  concurrency: {max: 50, queue: 10, queueTimeout: 1s}\n", ""))
	f("    - {kind: TenantPolicy, patch: {concurrency: {queue: null, queueTimeout: null}}}\n", laidOut("{max: 50, queue: 10, queueTimeout: 1s}", "{max: 50}"))
	f("    - {kind: TenantPolicy, patch: {reject: {status: 503, headers: null}}}\n", laidOut("queueTimeout: 1s}\n", "queueTimeout: 1s}\n  reject: {status: 503}\n"))
	// one after the other
	f("    - {kind: TenantPolicy, patch: {weight: 2}}\n    - {kind: TenantPolicy, name: gold, patch: {weight: 3}}\n", laidOut("weight: 4", "weight: 3"))
}

func TestOverlaidWrong(t *testing.T) {
	docs, _ := Decode("gold", []byte(goldText))
	f := func(overlays, want string) {
		t.Helper()
		got, problems := distributionOf(t, overlays).Overlaid(0, docs[0])
		if got != nil || said(problems) != want {
			t.Errorf("%s: got %q, want %q", overlays, said(problems), want)
		}
	}
	f("    - {kind: TenantPolicy, patch: {limits: [{name: reads}]}}\n",
		"distribution.yaml:10:35: spec.to[0].overlays[0].patch: makes TenantPolicy gold wrong: spec.limits[2]: exactly one of requests and bytes must be set; got none")
	f("    - {kind: TenantPolicy, patch: {weight: 2}}\n    - {kind: TenantPolicy, patch: {tenants: null}}\n",
		"distribution.yaml:11:35: spec.to[0].overlays[1].patch: makes TenantPolicy gold wrong: spec.tenants: required, but missing")
	f("    - {kind: TenantPolicy, patch: {tenants: {any: true}}}\n",
		"distribution.yaml:10:35: spec.to[0].overlays[0].patch: makes TenantPolicy gold wrong: spec.tenants: exactly one of names, match, any and unknown must be set; got names and any")
}

// An overlay of part of what a document says already changes nothing of what it means, whatever the document; and laid out once, the
// text stays.
func TestOverlayOfTheSameIsNone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weight := rapid.IntRange(1, 1000).Draw(t, "weight")
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9]{1,8}`), 1, 4, rapid.ID[string]).Draw(t, "limits")
		var limits, patch []string
		for _, name := range names {
			requests := rapid.IntRange(1, 1e6).Draw(t, "requests")
			limits = append(limits, fmt.Sprintf("{name: %q, requests: %d, burst: %d}", name, requests, requests+1))
			if rapid.Bool().Draw(t, "patched") {
				patch = append(patch, fmt.Sprintf("{name: %q, requests: %d}", name, requests))
			}
		}
		text := fmt.Sprintf("apiVersion: %s\nkind: TenantPolicy\nmetadata: {name: x}\nspec: {tenants: {any: true}, weight: %d, limits: [%s]}\n",
			APIVersion, weight, strings.Join(limits, ", "))
		docs, problems := Decode("x", []byte(text))
		if len(problems) > 0 {
			t.Fatal(said(problems))
		}
		d, problems := Decode("d", fmt.Appendf(nil, `apiVersion: %s
kind: Distribution
metadata: {name: d}
spec:
  from: {endpoints: ["http://127.0.0.1:1"]}
  to: [{name: a, etcd: {endpoints: ["http://127.0.0.1:2"]}, overlays: [{kind: TenantPolicy, patch: {weight: %d, limits: [%s]}}]}]
`, APIVersion, weight, strings.Join(patch, ", ")))
		if len(problems) > 0 {
			t.Fatal(said(problems))
		}
		if len(patch) == 0 {
			return // an empty list takes the limits away
		}
		once, problems := d[0].Overlaid(0, docs[0])
		if len(problems) > 0 {
			t.Fatal(said(problems))
		}
		if once.Digest() != docs[0].Digest() {
			t.Fatalf("means something else:\n%s%s", docs[0].Text(), once.Text())
		}
		if twice, _ := d[0].Overlaid(0, once); twice.Text() != once.Text() {
			t.Fatalf("another text:\n%s%s", once.Text(), twice.Text())
		}
	})
}

func TestSelects(t *testing.T) {
	docs, _ := Decode("gold", []byte(goldText))
	f := func(s DocumentSelector, want bool) {
		t.Helper()
		if got := (&DistributionTarget{Selector: s}).Selects(docs[0]); got != want {
			t.Errorf("%+v: got %v", s, got)
		}
	}
	f(DocumentSelector{}, true)
	f(DocumentSelector{Kinds: []string{"Route", "TenantPolicy"}}, true)
	f(DocumentSelector{Kinds: []string{"Route"}}, false)
	f(DocumentSelector{MatchLabels: map[string]string{"tier": "gold"}}, true)
	f(DocumentSelector{MatchLabels: map[string]string{"tier": "silver"}}, false)
	f(DocumentSelector{MatchLabels: map[string]string{"region": ""}}, false)
	f(DocumentSelector{Kinds: []string{"Route"}, MatchLabels: map[string]string{"tier": "gold"}}, false)
	if (&DistributionTarget{}).Selects(distributionOf(t, "    - {kind: Route, patch: {}}\n")) {
		t.Error("a Distribution is distributed")
	}
}

func TestDistributionKindsAreAllKinds(t *testing.T) {
	var all []string
	for _, kind := range Kinds() {
		if kind != KindDistribution {
			all = append(all, string(kind))
		}
	}
	f := func(spec any, name string) {
		t.Helper()
		fields := Fields(reflect.TypeOf(spec))
		if got := fieldNamed(fields, name).Enum; !cmp.Equal(got, all) {
			t.Errorf("%T.%s takes %v, want %v", spec, name, got, all)
		}
	}
	f(DocumentSelector{}, "kinds")
	f(Overlay{}, "kind")
}

// Whatever the patch and whatever the document, the result is a document or a problem, and never another kind or name.
func FuzzOverlaid(f *testing.F) {
	for _, patch := range []string{
		"{weight: 2}", "{limits: [{name: steady, requests: 0}]}", "{concurrency: null}", "{tenants: {names: [a, b], any: false}}",
		"{limits: []}", "{limits: [{name: steady, routes: [a]}, {name: steady, per: 1h}]}", "{reject: {status: 400}}", "{backend: \"null\"}",
	} {
		f.Add(patch, goldText)
		f.Add(patch, "{apiVersion: weir.dev/v1alpha1, kind: TenantPolicy, metadata: {name: x}, spec: {tenants: {any: true}}} # y\n")
	}
	f.Fuzz(func(t *testing.T, patch, text string) {
		d, _ := Decode("d", fmt.Appendf(nil, `{apiVersion: %s, kind: Distribution, metadata: {name: d}, spec: {from: {endpoints: ["http://127.0.0.1:1"]},
 to: [{name: a, etcd: {endpoints: ["http://127.0.0.1:2"]}, overlays: [{kind: TenantPolicy, patch:
 %s
 }]}]}}
`, APIVersion, patch))
		docs, _ := Decode("x", []byte(text))
		if len(d) != 1 || len(docs) != 1 || d[0].Kind != KindDistribution {
			return
		}
		got, problems := d[0].Overlaid(0, docs[0])
		switch {
		case got == nil && len(problems) == 0:
			t.Error("neither a document nor a problem")
		case got != nil && (got.Kind != docs[0].Kind || got.Name != docs[0].Name):
			t.Errorf("became %s %s", got.Kind, got.Name)
		}
	})
}
