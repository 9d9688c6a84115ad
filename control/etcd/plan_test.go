package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd/etcdtest"
	"weir/policy"
	"weir/policy/diff"
)

// connected starts a cluster of one, and returns it with a client.
func connected(t *testing.T) (*etcdtest.Cluster, *Client) {
	t.Helper()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c, err := Open(Options{Endpoints: cluster.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return cluster, c
}

// storedAs is one to be put.
func storedAs(kind policy.Kind, name, spec string) Stored {
	return NewStored(storeName, diff.Key{Kind: kind, Name: name}, fmt.Sprintf("apiVersion: weir.dev/v1alpha1\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", kind, name, spec))
}

func backend(name string) Stored {
	return storedAs(policy.KindBackend, name, "{endpoints: [{address: 127.0.0.1:9000}]}")
}

func route(name, backend string) Stored {
	return storedAs(policy.KindRoute, name, "{match: [{path: /"+name+"}], backend: "+backend+"}")
}

func tenants(name string, rate int, routes ...string) Stored {
	return storedAs(policy.KindTenantPolicy, name,
		fmt.Sprintf("{tenants: {names: [%s]}, limits: [{name: steady, requests: %d, routes: [%s]}]}", name, rate, strings.Join(routes, ", ")))
}

// readAll reads what is there.
func readAll(t *testing.T, c *Client, layout Layout, at int64) Documents {
	t.Helper()
	d, err := c.ReadDocuments(context.Background(), layout, at)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// change plans and writes a change to what is there.
func change(t *testing.T, c *Client, layout Layout, record Change, put []Stored, remove ...diff.Key) int64 {
	t.Helper()
	revision, err := c.Write(context.Background(), PlanOf(readAll(t, c, layout, 0), put, remove), record)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestPlan(t *testing.T) {
	layout := LayoutAt("/weir")
	before := Documents{Layout: layout, Revision: 9, Stored: []Stored{backend("orders"), route("all", "orders"), tenants("acme", 100), {Key: diff.Key{Kind: "Route", Name: "odd"}, Text: "?"}}}
	for i := range before.Stored {
		before.Stored[i].Modified = int64(i + 1)
	}
	slices.SortFunc(before.Stored, func(a, b Stored) int { return a.Compare(b.Key) })
	f := func(put []Stored, remove []diff.Key, wantWrites, wantWords string) {
		t.Helper()
		p := PlanOf(before, put, remove)
		var writes, words []string
		for _, part := range p.parts() {
			for _, w := range part {
				action := "put"
				if w.Value == nil {
					action = "delete"
				}
				writes = append(writes, fmt.Sprintf("%s %s@%d", action, strings.TrimPrefix(w.Key, layout.Policy()), w.Expect))
			}
		}
		for _, c := range p.Changes {
			for _, d := range c.Differences {
				words = append(words, d.Text)
			}
		}
		if got := strings.Join(writes, ", "); got != wantWrites {
			t.Errorf("writes: got  %s\nwant %s", got, wantWrites)
		}
		if got := strings.Join(words, "; "); got != wantWords {
			t.Errorf("words: got  %s\nwant %s", got, wantWords)
		}
		if p.Empty() != (wantWrites == "") {
			t.Errorf("empty is %v, but it writes %q", p.Empty(), wantWrites)
		}
	}
	key := func(kind policy.Kind, name string) diff.Key { return diff.Key{Kind: kind, Name: name} }

	// nothing, and what is there already
	f(nil, nil, "", "")
	f([]Stored{backend("orders"), tenants("acme", 100)}, nil, "", "")
	// what is not there cannot go
	f(nil, []diff.Key{key(policy.KindRoute, "none")}, "", "")
	// what others refer to is put first, whatever the order of the command line, and over what was read
	f([]Stored{tenants("acme", 50), route("pay", "pay"), backend("pay")}, nil,
		"put Backend/pay@0, put Route/pay@0, put TenantPolicy/acme@3",
		"backend pay: added, 127.0.0.1:9000; route pay: added, /pay → pay; acme steady 100/s → 50/s (-50 %)")
	// and deleted last
	f(nil, []diff.Key{key(policy.KindBackend, "orders"), key(policy.KindTenantPolicy, "acme"), key(policy.KindRoute, "all")},
		"delete TenantPolicy/acme@3, delete Route/all@2, delete Backend/orders@1",
		"backend orders: removed, 127.0.0.1:9000; route all: removed, /all → orders; acme: removed, limit steady 100/s, tenant acme")
	// puts come before deletions, and putting wins
	f([]Stored{route("all", "next"), backend("next")}, []diff.Key{key(policy.KindBackend, "orders"), key(policy.KindRoute, "all")},
		"put Backend/next@0, put Route/all@2, delete Backend/orders@1",
		"backend next: added, 127.0.0.1:9000; backend orders: removed, 127.0.0.1:9000; route all: backend orders → next")
	// what cannot be read can be replaced and deleted
	f([]Stored{route("odd", "orders")}, nil, "put Route/odd@4", "route odd: replaces a text that could not be read: /odd → orders")
	f(nil, []diff.Key{key("Route", "odd")}, "delete Route/odd@4", "route odd: removed; it could not be read")
}

func TestStoredSaysWhatIsWrong(t *testing.T) {
	f := func(key diff.Key, text, want string) {
		t.Helper()
		s := NewStored(storeName, key, text)
		if s.Document != nil || len(s.Problems) == 0 || !strings.Contains(s.Problems[0].String(), want) {
			t.Errorf("%v with %q: %v, %v; want %s", key, text, s.Document, s.Problems, want)
		}
	}
	gold := tenants("gold", 1)
	// the key of another document
	f(diff.Key{Kind: policy.KindTenantPolicy, Name: "silver"}, gold.Text, "etcd:TenantPolicy/silver: the key is of TenantPolicy silver, but the text says TenantPolicy gold")
	// more than one, none, and no document
	f(gold.Key, gold.Text+"---\n"+gold.Text, "the key holds 2 documents, want one")
	f(gold.Key, "# nothing\n", "the key holds 0 documents, want one")
	f(gold.Key, "{", "etcd:TenantPolicy/gold:1")
	if s := NewStored(storeName, gold.Key, gold.Text); s.Document == nil || len(s.Problems) > 0 {
		t.Errorf("a good one: %+v", s)
	}
}

// A change that does not fit into one transaction is written in several. After each of them all references can be resolved.
func TestSeveralParts(t *testing.T) {
	t.Parallel()
	_, c := connected(t)
	layout := LayoutAt("/weir")
	var put []Stored
	for i := range 200 {
		name := fmt.Sprintf("n%03d", i)
		put = append(put, tenants(name, 1, name), route(name, name), backend(name))
	}
	revision := change(t, c, layout, Change{By: "ann", Command: "apply"}, put)
	var keys []diff.Key
	for _, s := range put {
		keys = append(keys, s.Key)
	}
	last := change(t, c, layout, Change{By: "ann", Command: "delete", Confirmed: true}, []Stored{backend("rest")}, keys...)
	compiled := 0
	for at := revision - 4; at < last; at++ {
		d := readAll(t, c, layout, at)
		if docs := d.Decoded(); len(docs) > 0 {
			compiled++
			if _, problems := policy.Compile(docs, policy.CompileOptions{}); len(problems) > 0 {
				t.Errorf("at revision %d: %v", at, problems[0])
			}
		}
	}
	if compiled != 9 { // after each of 5 transactions and, but for the last, of the next 5
		t.Errorf("looked at %d revisions, want 9", compiled)
	}
	d := readAll(t, c, layout, 0)
	if d.Change.Part != 5 || d.Change.Parts != 5 || len(d.Stored) != 1 || d.LastChange != last {
		t.Errorf("in the end: %+v, %d documents", d.Change, len(d.Stored))
	}
	// Whoever was anywhere before the last transaction learns that the removals are meant.
	if d.Change.ConfirmedRemovals != last-1 {
		t.Errorf("removals are confirmed until %d, want %d", d.Change.ConfirmedRemovals, last-1)
	}
	next := change(t, c, layout, Change{By: "bob", Command: "apply"}, []Stored{backend("more")})
	if now := readAll(t, c, layout, next); now.Change.ConfirmedRemovals != last-1 || now.Change.By != "bob" || now.Change.Parts != 0 {
		t.Errorf("a later change does not carry the confirmation on: %+v", now.Change)
	}
}

// Large documents take more transactions, since etcd bounds the bytes of a request.
func TestPartsAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	_, c := connected(t)
	var put []Stored
	for i := range 40 {
		s := backend(fmt.Sprintf("n%02d", i))
		s.Text += "# " + strings.Repeat("x", 100<<10) + "\n"
		put = append(put, s)
	}
	p := PlanOf(Documents{Layout: LayoutAt("/weir")}, put, nil)
	if p.Parts() != 4 {
		t.Errorf("4 MiB take %d parts, want 4", p.Parts())
	}
	if _, err := c.Write(context.Background(), p, Change{}); err != nil {
		t.Error(err)
	}
}

// When a later part fails, what is written is said; the same change completes it.
func TestSecondPartFails(t *testing.T) {
	t.Parallel()
	cluster, c := connected(t)
	layout := LayoutAt("/weir")
	var put []Stored
	for i := range 130 {
		put = append(put, backend(fmt.Sprintf("n%03d", i)))
	}
	p := PlanOf(readAll(t, c, layout, 0), put, nil)
	cluster.Put(layout.Document(policy.KindBackend, "n129"), "somebody else's") // it is in the second part
	revision, err := c.Write(context.Background(), p, Change{Command: "apply"})
	var part *PartError
	if !errors.As(err, &part) || !errors.Is(err, ErrConflict) || part.Done != 1 || part.Of != 2 || part.Revision != revision {
		t.Fatalf("got %d, %v; want one part of two, and a conflict", revision, err)
	}
	d := readAll(t, c, layout, 0)
	if len(d.Stored) != 128 || d.LastChange != revision {
		t.Errorf("%d documents are there, want the 127 of the first part and the other's", len(d.Stored))
	}
	again := PlanOf(d, put, nil)
	if puts, _ := again.Counts(); puts != 3 {
		t.Errorf("once more it writes %d documents, want those that are not there", puts)
	}
	change(t, c, layout, Change{Command: "apply"}, put)
}

// Two people change the same documents again and again, each from what they read. Whatever the order, nobody overwrites what they have
// not seen: the rates in the store only ever grow by what one of them added to what they saw.
func TestNobodyOverwritesUnseen(t *testing.T) {
	t.Parallel()
	_, c := connected(t)
	layout := LayoutAt("/weir")
	const seed = 6
	random := rand.New(rand.NewPCG(seed, seed))
	names := []string{"acme", "globex"}
	rates := map[string]int{"acme": 1, "globex": 1}
	change(t, c, layout, Change{}, []Stored{tenants("acme", 1), tenants("globex", 1)})
	type writer struct {
		saw   Documents
		known map[string]int // rates as they were seen
	}
	var writers [2]writer
	won, lost := 0, 0
	for range 1000 {
		w := &writers[random.IntN(2)]
		if w.known == nil {
			w.saw, w.known = readAll(t, c, layout, 0), map[string]int{"acme": rates["acme"], "globex": rates["globex"]}
			continue
		}
		var put []Stored
		next := map[string]int{"acme": rates["acme"], "globex": rates["globex"]}
		fresh := w.known["acme"] == rates["acme"] && w.known["globex"] == rates["globex"]
		for _, name := range names[random.IntN(2):] {
			put = append(put, tenants(name, w.known[name]+1))
			next[name] = w.known[name] + 1
		}
		_, err := c.Write(context.Background(), PlanOf(w.saw, put, nil), Change{By: "w", Command: "apply"})
		switch {
		case err == nil && !fresh:
			t.Fatalf("seed %d: somebody wrote %v over %v, having seen %v", seed, next, rates, w.known)
		case err == nil:
			rates = next
			won++
		case !errors.Is(err, ErrConflict) || fresh:
			t.Fatalf("seed %d: seen %v, there is %v: %v", seed, w.known, rates, err)
		default:
			lost++
		}
		w.known = nil
	}
	d := readAll(t, c, layout, 0)
	for _, s := range d.Stored {
		if got := int(*s.Document.Spec.(*policy.TenantPolicySpec).Limits[0].Requests); got != rates[s.Name] {
			t.Errorf("seed %d: %s has %d, want %d", seed, s.Name, got, rates[s.Name])
		}
	}
	if won < 100 || lost < 100 {
		t.Errorf("seed %d: %d writes and %d conflicts say little", seed, won, lost)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	cluster, c := connected(t)
	layout := LayoutAt("/weir")
	gold := diff.Key{Kind: policy.KindTenantPolicy, Name: "gold"}
	first := change(t, c, layout, Change{By: "ann", Command: "apply", Message: "one"}, []Stored{tenants("gold", 100), tenants("silver", 10)})
	cluster.Put("/elsewhere", "x")
	second := change(t, c, layout, Change{By: "bob", Command: "apply"}, []Stored{tenants("gold", 50)})
	byHand := cluster.Put(layout.Document(gold.Kind, gold.Name), tenants("gold", 7).Text)
	if _, err := cluster.Client().Delete(context.Background(), layout.Document(policy.KindTenantPolicy, "silver")); err != nil {
		t.Fatal(err)
	}
	deleted := byHand + 1
	confirmed := change(t, c, layout, Change{By: "cid", Command: "apply", Confirmed: true}, nil)
	third := change(t, c, layout, Change{By: "ann", Command: "delete"}, nil, gold)
	f := func(only *diff.Key, limit int, forgotten bool, want ...string) {
		t.Helper()
		h, err := c.History(context.Background(), layout, only, limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range h.Entries {
			who := "-"
			if e.Change != nil {
				who = e.Change.By
			}
			s := fmt.Sprintf("%d %s", e.Revision, who)
			for _, c := range e.Documents {
				s += "; " + c.Differences[0].Text
			}
			got = append(got, s)
		}
		if !slices.Equal(got, want) || h.Forgotten != forgotten {
			t.Errorf("got  %q, forgotten %v\nwant %q, %v", got, h.Forgotten, want, forgotten)
		}
	}
	all := []string{
		fmt.Sprintf("%d ann; gold: removed, limit steady 7/s, tenant gold", third),
		fmt.Sprintf("%d cid", confirmed),
		fmt.Sprintf("%d -; silver: removed, limit steady 10/s, tenant silver", deleted),
		fmt.Sprintf("%d -; gold steady 50/s → 7/s (-86 %%)", byHand),
		fmt.Sprintf("%d bob; gold steady 100/s → 50/s (-50 %%)", second),
		fmt.Sprintf("%d ann; gold: added, limit steady 100/s, tenant gold; silver: added, limit steady 10/s, tenant silver", first),
	}
	// all of it, some of it, and one document
	f(nil, 20, false, all...)
	f(nil, 2, false, all[:2]...)
	f(&gold, 20, false, all[0], all[3], all[4], strings.Replace(all[5], "; silver: added, limit steady 10/s, tenant silver", "", 1))
	f(&diff.Key{Kind: policy.KindTenantPolicy, Name: "gol"}, 20, false)
	changes, err := c.Changes(context.Background(), layout, []int64{second, byHand, first, first})
	if err != nil || len(changes) != 2 || changes[first].Message != "one" || changes[second].By != "bob" {
		t.Errorf("who wrote: %v, %v", changes, err)
	}

	// what etcd forgets is not there any more
	if _, err := cluster.Client().Compact(context.Background(), second); err != nil {
		t.Fatal(err)
	}
	f(nil, 20, true, all[:4]...)
	f(&gold, 20, true, all[0], all[3])
	if changes, err := c.Changes(context.Background(), layout, []int64{second, first}); err != nil || len(changes) != 1 {
		t.Errorf("who wrote, after compaction: %v, %v", changes, err)
	}
	if _, err := c.ReadDocuments(context.Background(), layout, first); err == nil || !strings.Contains(err.Error(), "is forgotten, since etcd compacts its past") {
		t.Errorf("what is forgotten: %v", err)
	}
	if _, err := c.ReadDocuments(context.Background(), layout, third+100); err == nil || !strings.Contains(err.Error(), "is not written yet") {
		t.Errorf("what is to come: %v", err)
	}
}

// Somebody empties the prefix with another tool, and takes the record of changes with it. The history is what tells people to which
// revision they can roll back, so it must not end there.
func TestHistoryOfAnEmptiedPrefix(t *testing.T) {
	t.Parallel()
	cluster, c := connected(t)
	layout := LayoutAt("/weir")
	history := func(limit int) (lines []string, forgotten bool) {
		t.Helper()
		h, err := c.History(context.Background(), layout, nil, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range h.Entries {
			lines = append(lines, fmt.Sprintf("%d %v %d", e.Revision, e.Change != nil, len(e.Documents)))
		}
		return lines, h.Forgotten
	}
	empty := func() int64 {
		t.Helper()
		answer, err := cluster.Client().Delete(context.Background(), layout.Policy(), clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		return answer.Header.Revision
	}
	elsewhere := func(writes int) {
		t.Helper()
		for range writes {
			cluster.Put("/weir/v1/fleet/orders/members/web-1", "x")
		}
	}
	f := func(limit int, forgotten bool, want ...string) {
		t.Helper()
		if got, was := history(limit); !slices.Equal(got, want) || was != forgotten {
			t.Errorf("got %q, forgotten %v; want %q, %v", got, was, want, forgotten)
		}
	}
	// nothing was ever written
	f(20, false)
	elsewhere(3)
	first := change(t, c, layout, Change{By: "ann", Command: "apply"}, []Stored{tenants("gold", 100), tenants("silver", 10)})
	elsewhere(9)
	emptied := empty()
	want := []string{fmt.Sprintf("%d false 2", emptied), fmt.Sprintf("%d true 2", first)}
	// at once, and after others have written elsewhere
	f(20, false, want...)
	elsewhere(50)
	f(20, false, want...)
	f(1, false, want[0])
	// written anew, and emptied again
	second := change(t, c, layout, Change{By: "ann", Command: "apply"}, []Stored{tenants("gold", 50)})
	elsewhere(5)
	again := empty()
	elsewhere(20)
	want = append([]string{fmt.Sprintf("%d false 1", again), fmt.Sprintf("%d true 1", second)}, want...)
	f(20, false, want...)

	// what etcd has compacted away is said to be forgotten
	if _, err := cluster.Client().Compact(context.Background(), second); err != nil {
		t.Fatal(err)
	}
	f(20, true, want[0])
	if _, err := cluster.Client().Compact(context.Background(), again+1); err != nil {
		t.Fatal(err)
	}
	f(20, true)
}

// Changes at one revision after the other are told apart, and writing what is there already is none.
func TestHistoryOfNeighbours(t *testing.T) {
	t.Parallel()
	cluster, c := connected(t)
	layout := LayoutAt("/weir")
	first := change(t, c, layout, Change{By: "ann", Command: "apply"}, []Stored{tenants("gold", 100)})
	second := change(t, c, layout, Change{By: "bob", Command: "apply"}, []Stored{tenants("gold", 50)})
	same := cluster.Put(layout.Document(policy.KindTenantPolicy, "gold"), tenants("gold", 50).Text)
	if second != first+1 || same != second+1 {
		t.Fatalf("written at %d, %d and %d, want neighbours", first, second, same)
	}
	h, err := c.History(context.Background(), layout, nil, 20)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range h.Entries {
		got = append(got, fmt.Sprintf("%d %s", e.Revision-first, e.Documents[0].Differences[0].Text))
	}
	if want := []string{"1 gold steady 100/s → 50/s (-50 %)", "0 gold: added, limit steady 100/s, tenant gold"}; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestChangeRoundTrip(t *testing.T) {
	if _, err := ParseChange([]byte("[]")); err == nil {
		t.Error("a list is a change")
	}
	c, err := ParseChange([]byte(`{"by":"ann","at":"2026-01-02T03:04:05Z","command":"apply","confirmedRemovals":7,"later":1}`))
	if err != nil || c.By != "ann" || c.At.Year() != 2026 || c.ConfirmedRemovals != 7 {
		t.Errorf("got %+v, %v", c, err)
	}
	if again, err := ParseChange(c.Encode()); err != nil || again != c {
		t.Errorf("%+v became %+v, %v", c, again, err)
	}
}

// FuzzParseChange: whatever lies at the key of the record, what can be read of it can be written and read again.
func FuzzParseChange(f *testing.F) {
	f.Add([]byte(`{"by":"ann","at":"2026-01-02T03:04:05Z","command":"apply","confirmed":true}`))
	f.Add([]byte(`{"at":5}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseChange(data)
		if err != nil {
			return
		}
		again, err := ParseChange(c.Encode())
		if err != nil || !again.At.Equal(c.At) || again.By != c.By || again.ConfirmedRemovals != c.ConfirmedRemovals {
			t.Errorf("%s: %+v became %+v, %v", data, c, again, err)
		}
	})
}
