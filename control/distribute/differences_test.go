package distribute

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"weir/control/etcd"
	"weir/policy"
)

// have makes items of KEY=TEXT@REVISION.
func items(said ...string) map[string]etcd.Item {
	all := make(map[string]etcd.Item)
	for _, s := range said {
		var revision int64
		key, rest, _ := strings.Cut(s, "=")
		value, at, _ := strings.Cut(rest, "@")
		fmt.Sscan(at, &revision)
		all[key] = etcd.Item{Key: key, Value: []byte(value), Modified: revision}
	}
	return all
}

// wants makes what is wanted of KEY=TEXT; a key alone is left as it is.
func wants(said ...string) *wanted {
	w := &wanted{texts: make(map[string]text), left: make(map[string]bool)}
	for _, s := range said {
		if key, value, ok := strings.Cut(s, "="); ok {
			w.texts[key] = text{data: []byte(value)}
		} else {
			w.left[key] = true
		}
	}
	return w
}

func TestCompare(t *testing.T) {
	f := func(w *wanted, have map[string]etcd.Item, ours map[string]int64, want ...string) {
		t.Helper()
		var got []string
		for _, d := range compare(w, have, ours) {
			got = append(got, fmt.Sprintf("%s %s %q at %d", d.Key, d.Cause, d.Put, d.At))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
	// equal, whoever wrote it
	f(wants("Route/a=1"), items("Route/a=1@5"), nil)
	// the source has changed, added, deleted
	f(wants("Route/a=2"), items("Route/a=1@5"), map[string]int64{"Route/a": 5}, `Route/a behind "2" at 5`)
	f(wants("Route/a=2"), nil, nil, `Route/a behind "2" at 0`)
	f(wants(), items("Route/a=1@5"), map[string]int64{"Route/a": 5}, `Route/a behind "" at 5`)
	// somebody else has changed, deleted, added
	f(wants("Route/a=1"), items("Route/a=x@6"), map[string]int64{"Route/a": 5}, `Route/a changed "1" at 6`)
	f(wants("Route/a=1"), nil, map[string]int64{"Route/a": 5}, `Route/a missing "1" at 0`)
	f(wants(), items("Route/a=x@6"), nil, `Route/a extra "" at 6`)
	// somebody else has changed what the source has deleted
	f(wants(), items("Route/a=x@6"), map[string]int64{"Route/a": 5}, `Route/a changed "" at 6`)
	// both did the same
	f(wants("Route/a=x"), items("Route/a=x@6"), map[string]int64{"Route/a": 5})
	f(wants(), nil, map[string]int64{"Route/a": 5})
	// what is left as it is
	f(wants("Route/a"), items("Route/a=x@6"), map[string]int64{"Route/a": 5})
	// what others refer to comes first, and goes last
	f(wants("TenantPolicy/a=1", "Route/b=1", "Backend/c=1", "BreakerPolicy/d=1"), items("TenantPolicy/e=1@1", "Backend/f=1@1", "Route/g=1@1"),
		map[string]int64{"TenantPolicy/e": 1, "Backend/f": 1, "Route/g": 1},
		`Backend/c behind "1" at 0`, `Route/b behind "1" at 0`, `BreakerPolicy/d behind "1" at 0`, `TenantPolicy/a behind "1" at 0`,
		`TenantPolicy/e behind "" at 1`, `Route/g behind "" at 1`, `Backend/f behind "" at 1`)
}

// Whatever there is and whatever should be there: doing what compare says makes it so, in transactions that etcd takes, and then there is
// nothing to do; and nothing is called drift that we wrote.
func TestDoingWhatCompareSaysMakesItSo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.Map(rapid.IntRange(0, 400), func(n int) string { return fmt.Sprintf("%s/d%d", policy.Kinds()[1+n%4], n) })
		value := rapid.SampledFrom([]string{"1", "2", "3"})
		w, have, ours := wants(), make(map[string]etcd.Item), make(map[string]int64)
		for k, v := range rapid.MapOfN(key, value, 0, 300).Draw(t, "wanted") {
			w.texts[k] = text{data: []byte(v)}
		}
		foreign := false
		for k, v := range rapid.MapOfN(key, value, 0, 300).Draw(t, "have") {
			have[k] = etcd.Item{Value: []byte(v), Modified: 7}
			if rapid.Bool().Draw(t, "ours") {
				ours[k] = 7
			} else {
				foreign = true
			}
		}
		todo := compare(w, have, ours)
		var done []Difference
		for _, part := range chunks(todo) {
			if len(part) > etcd.MaxWrites-2 || len(part) == 0 {
				t.Fatalf("a transaction of %d", len(part))
			}
			done = append(done, part...)
		}
		if len(done) != len(todo) {
			t.Fatalf("%d of %d are in transactions", len(done), len(todo))
		}
		for _, d := range done {
			if have[d.Key].Modified != d.At {
				t.Fatalf("%s is expected at %d and is at %d", d.Key, d.At, have[d.Key].Modified)
			}
			if d.Drift() && !foreign {
				t.Fatalf("%s is called %s, though nobody else wrote", d.Key, d.Cause)
			}
			if delete(have, d.Key); d.Put != nil {
				have[d.Key], ours[d.Key] = etcd.Item{Value: d.Put, Modified: 8}, 8
			}
		}
		if again := compare(w, have, ours); len(again) > 0 {
			t.Fatalf("still to do: %v", again)
		}
		if got, want := slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(w.texts)); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestChunksAreBoundedInBytes(t *testing.T) {
	var all []Difference
	for range 5 {
		all = append(all, Difference{Key: "Route/a", Put: make([]byte, (1<<20)/2)})
	}
	all = append(all, Difference{Key: "Route/b", Put: make([]byte, 2*(1<<20))})
	got := chunks(all)
	if len(got) != 6 {
		t.Errorf("%d transactions, want 6: two halves and their keys are more than fits", len(got))
	}
	if chunks(nil) != nil {
		t.Error("transactions of nothing")
	}
}

// Without memory, what was there when the record was written is ours, and so is what must have been there.
func TestOwn(t *testing.T) {
	ours := map[string]int64{"Route/same": 5, "Route/other": 5, "Route/gone": 5, "Route/missing": 5, "Route/left": 5, "Route/extra": 5}
	own(ours, wants("Route/same=1", "Route/new=1", "Route/other=1", "Route/missing=1", "Route/left"),
		items("Route/same=1@7", "Route/new=1@8", "Route/other=x@9", "Route/extra=x@9"))
	// what is neither wanted nor there is forgotten; what is not as it should be stays somebody else's
	if want := map[string]int64{"Route/same": 7, "Route/new": 8, "Route/other": 5, "Route/missing": 5, "Route/left": 5, "Route/extra": 5}; !maps.Equal(ours, want) {
		t.Errorf("got %v, want %v", ours, want)
	}
}

func TestAdoptAndRecall(t *testing.T) {
	have := items("Route/before=1@5", "Route/with=1@9", "Route/after=1@10")
	ours := adopt(have, 9)
	w := wants("Route/before=1", "Route/gone=1", "Route/new=1")
	for key, modified := range map[string]int64{"Route/before": 3, "Route/gone": 3, "Route/new": 50} {
		t := w.texts[key]
		t.modified = modified
		w.texts[key] = t
	}
	recall(ours, w, have, 40)
	if want := map[string]int64{"Route/before": 5, "Route/with": 9, "Route/gone": 0}; !maps.Equal(ours, want) {
		t.Errorf("got %v, want %v", ours, want)
	}
}
