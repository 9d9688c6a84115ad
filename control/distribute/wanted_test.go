package distribute

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"weir/control"
	"weir/control/etcd"
	"weir/policy"
)

// sourceOf makes a catalog of documents by KIND/NAME, each written last at 10 or at another revision that its key says after @.
func sourceOf(change etcd.Change, before *catalog, texts map[string]string) *catalog {
	layout := etcd.LayoutAt("/weir")
	v := etcd.View{Revision: 100, Items: []etcd.Item{{Key: layout.Change(), Value: change.Encode(), Modified: 60}}}
	for key, text := range texts {
		key, at, found := strings.Cut(key, "@")
		modified := int64(10)
		if found {
			fmt.Sscan(at, &modified)
		}
		v.Items = append(v.Items, etcd.Item{Key: layout.Policy() + key, Value: []byte(text), Created: 5, Modified: modified})
	}
	return read(v, layout, "source", before, time.Time{})
}

func TestReadIsolatesDocuments(t *testing.T) {
	f := func(key, text, want string) {
		t.Helper()
		c := sourceOf(etcd.Change{}, nil, map[string]string{key: text, "Backend/orders": backendText})
		var got []string
		for _, p := range c.problems {
			got = append(got, p.String())
		}
		if !c.broken[key] || len(c.texts) != 1 || len(got) == 0 || got[len(got)-1] != want && got[0] != want {
			t.Errorf("%s: broken %v, problems %q, want %q", key, c.broken, got, want)
		}
	}
	f("TenantPolicy/a", policyText("b", 1), "source:TenantPolicy/a: the key is of TenantPolicy a, but the text says TenantPolicy b")
	f("Route/a", policyText("a", 1), "source:Route/a: the key is of Route a, but the text says TenantPolicy a")
	f("TenantPolicy/a", policyText("a", -1), "source:TenantPolicy/a:6:37: spec.limits[0].requests: -1 is out of range; want 0 to 1000000000")
	f("TenantPolicy/a", policyText("a", 1)+"---\n"+policyText("b", 1), "source:TenantPolicy/a: the key holds 2 documents, want one")
	f("TenantPolicy/a", "", "source:TenantPolicy/a: the key holds 0 documents, want one")
	f("notes", "x", "source:notes: the key /weir/v1/policy/notes is not of a document, want /weir/v1/policy/KIND/NAME")
}

func TestReadDecodesWhatChanged(t *testing.T) {
	before := sourceOf(etcd.Change{}, nil, map[string]string{"Backend/orders": backendText, "TenantPolicy/a": policyText("a", 1)})
	after := sourceOf(etcd.Change{}, before, map[string]string{"Backend/orders": backendText, "TenantPolicy/a@11": policyText("a", 2)})
	if before.texts["Backend/orders"].doc != after.texts["Backend/orders"].doc {
		t.Error("a document that has not changed was decoded again")
	}
	if before.texts["TenantPolicy/a"].doc == after.texts["TenantPolicy/a"].doc {
		t.Error("a document that has changed was not decoded")
	}
	if after.written != 60 || after.revision != 100 {
		t.Errorf("written %d, revision %d, want 60 and 100", after.written, after.revision)
	}
}

// rules is the rule of the only cluster of a Distribution with these fields of it.
func rules(t testing.TB, more string) rule {
	t.Helper()
	return rule{document(t, `apiVersion: weir.dev/v1alpha1
kind: Distribution
metadata: {name: platform}
spec:
  from: {endpoints: ["http://127.0.0.1:1"]}
  to:
  - name: eu
    etcd: {endpoints: ["http://127.0.0.1:2"]}
`+more), 0}
}

func TestWant(t *testing.T) {
	texts := map[string]string{
		"Backend/orders": backendText, "TenantPolicy/a": policyText("a", 1), "TenantPolicy/b": policyText("b", 1), "Route/broken": "nonsense",
	}
	f := func(more string, before *wanted, want ...string) *wanted {
		t.Helper()
		w := rules(t, more).want(sourceOf(etcd.Change{}, nil, texts), before)
		var got []string
		for key := range w.left {
			got = append(got, key+" left")
		}
		for key, text := range w.texts {
			how := "as it is"
			if string(text.data) != texts[key] {
				how = "changed"
			}
			got = append(got, key+" "+how)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", more, got, want)
		}
		return w
	}
	// all, but for what cannot be used
	f("", nil, "Backend/orders as it is", "Route/broken left", "TenantPolicy/a as it is", "TenantPolicy/b as it is")
	// some
	f("    selector: {kinds: [Backend]}\n", nil, "Backend/orders as it is", "Route/broken left")
	// changed
	f("    overlays: [{kind: TenantPolicy, name: a, patch: {weight: 2}}]\n", nil,
		"Backend/orders as it is", "Route/broken left", "TenantPolicy/a changed", "TenantPolicy/b as it is")
	// an overlay that makes one document wrong: that one stays as it is at the cluster, or as it was wanted before
	bad := "    overlays: [{kind: TenantPolicy, name: a, patch: {tenants: null}}]\n"
	w := f(bad, nil, "Backend/orders as it is", "Route/broken left", "TenantPolicy/a left", "TenantPolicy/b as it is")
	if len(w.problems) != 1 || !strings.HasPrefix(w.problems[0].String(), "distribution.yaml:9:53: spec.to[0].overlays[0].patch: makes TenantPolicy a wrong") {
		t.Errorf("problems: %v", w.problems)
	}
	before := &wanted{texts: map[string]text{"TenantPolicy/a": {data: []byte("before")}, "Route/broken": {data: []byte("before")}}}
	f(bad, before, "Backend/orders as it is", "Route/broken changed", "TenantPolicy/a changed", "TenantPolicy/b as it is")
}

func TestJudge(t *testing.T) {
	tenants := func(n int) map[string]string {
		all := map[string]string{"Backend/orders": backendText, "Route/orders": routeText}
		for i := range n {
			all[fmt.Sprintf("TenantPolicy/t%d", i)] = policyText(fmt.Sprintf("t%d", i), 1)
		}
		return all
	}
	f := func(more string, change etcd.Change, before, after map[string]string, since int64, held string, confirmed bool) {
		t.Helper()
		r := rules(t, more)
		was := documents(r.want(sourceOf(etcd.Change{}, nil, before), nil).texts)
		v := r.judge(r.want(sourceOf(change, nil, after), nil), nil, was, since)
		if held == "" && v.held != "" || !strings.Contains(v.held, held) || v.confirmed != confirmed {
			t.Errorf("got %+v, want %q, %v", v, held, confirmed)
		}
	}
	// few, many, and many that somebody has confirmed: for this time, not for one before
	f("", etcd.Change{}, tenants(10), tenants(7), 50, "", false)
	f("", etcd.Change{}, tenants(10), tenants(6), 50, "would take away 4 of 10 tenants", false)
	f("", etcd.Change{ConfirmedRemovals: 49}, tenants(10), tenants(6), 50, "confirm it at the source", false)
	f("", etcd.Change{ConfirmedRemovals: 50}, tenants(10), tenants(6), 50, "", true)
	// what the selector leaves
	f("    selector: {kinds: [Route, Backend]}\n", etcd.Change{}, tenants(10), tenants(0), 50, "", false)
	// a reference that the selector has cut; one that the source itself lacks is no matter, the sidecars may have it from elsewhere
	f("    selector: {kinds: [Route]}\n", etcd.Change{}, nil, tenants(1), 0, `no Backend is named "orders"`, false)
	alone := map[string]string{"Route/orders": routeText}
	f("    selector: {kinds: [Route]}\n", etcd.Change{}, nil, alone, 0, "", false)
	f("", etcd.Change{}, nil, alone, 0, "", false)
	// a reference that an overlay has made
	f("    overlays: [{kind: Route, patch: {backend: other}}]\n", etcd.Change{}, nil, tenants(1), 0, `no Backend is named "other"`, false)
	// documents that stay at the cluster as they are count
	r := rules(t, "    selector: {kinds: [Route]}\n")
	backend, _ := policy.Decode("x", []byte(backendText))
	if v := r.judge(r.want(sourceOf(etcd.Change{}, nil, tenants(1)), nil), backend, nil, 0); v.held != "" {
		t.Errorf("held: %s", v.held)
	}
}

func TestSettled(t *testing.T) {
	f := func(want bool, revision int64, clusters ...control.SyncCluster) {
		t.Helper()
		if got := Settled(&control.SyncStatus{Revision: revision, Clusters: clusters}); got != want {
			t.Errorf("the source at %d, %+v: settled %v, want %v", revision, clusters, got, want)
		}
	}
	at := func(applied int64) control.SyncCluster { return control.SyncCluster{State: inStep, Applied: applied} }
	f(false, 0, at(0)) // the source was not read yet
	f(true, 5, at(5), at(6))
	f(false, 5, at(5), at(4)) // with what was before
	// What lasts until somebody does something is as far as it comes.
	f(true, 5, control.SyncCluster{State: held}, control.SyncCluster{State: drifted}, control.SyncCluster{State: yielded}, control.SyncCluster{State: behind})
	for _, state := range []string{starting, unreachable, failing} {
		f(false, 5, at(5), control.SyncCluster{State: state})
	}
}

// A cluster that refuses us is not asked again for a while, whatever is new there; one that failed otherwise is.
func TestPatience(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	f := func(err error, tries int, wait time.Duration, wantRefused bool) {
		t.Helper()
		c := &cluster{o: &Options{Clock: func() time.Time { return now }, Random: func() float64 { return 0.5 }}, failure: err, tries: tries}
		got := c.patience()
		if refused := c.until.Equal(now.Add(got)); got != wait || refused != wantRefused || !refused && !c.until.IsZero() {
			t.Errorf("%v, try %d: waits %s until %v, want %s, refused %v", err, c.tries, got, c.until, wait, wantRefused)
		}
	}
	f(context.DeadlineExceeded, 0, 100*time.Millisecond, false)
	f(context.DeadlineExceeded, 1, 200*time.Millisecond, false)
	f(context.DeadlineExceeded, 100, lastRetry, false)
	f(rpctypes.ErrPermissionDenied, 0, 100*time.Millisecond, true)
	f(rpctypes.ErrPermissionDenied, 100, lastRefused, true)
	f(rpctypes.ErrNoSpace, 100, lastRetry, true)
}

func TestRulesAreTheSameWhateverElseTheDistributionSays(t *testing.T) {
	const more = "    selector: {kinds: [Route]}\n"
	one := rules(t, more)
	two := rules(t, more+"  - {name: us, etcd: {endpoints: [\"http://127.0.0.1:3\"]}}\n")
	if one.digest() != two.digest() {
		t.Error("another cluster is no other rule")
	}
	other := rules(t, more+"    overlays: [{kind: Route, patch: {backend: x}}]\n")
	if one.digest() == other.digest() {
		t.Error("an overlay is another rule")
	}
	if !maps.Equal(map[string]bool{}, one.want(sourceOf(etcd.Change{}, nil, nil), nil).left) {
		t.Error("nothing is left of nothing")
	}
}
