package fleet

import (
	"fmt"
	"strings"
	"testing"

	"weir/control/etcd"
	"weir/policy"
)

// text is a document.
func text(name, content string) string {
	return "kind: TenantPolicy\nmetadata: {name: " + name + "}\n# " + content + "\n"
}

// stored is a store with documents of one kind, the i-th written at revision 10+i.
func stored(documents ...string) Want {
	layout := etcd.LayoutAt("/weir")
	view := etcd.View{Revision: 100}
	for i, d := range documents {
		name, content, _ := strings.Cut(d, "=")
		view.Items = append(view.Items, etcd.Item{Key: layout.Document(policy.KindTenantPolicy, name), Value: []byte(text(name, content)), Modified: int64(10 + i)})
	}
	return WantOf(layout, view)
}

// runs is the member that runs documents, with differences as in refused:gold.
func runs(revision int64, documents []string, differences ...string) Member {
	m := Member{ID: "m1", Host: "web-1", Sources: []SourceState{{Name: "other", Revision: 1}, {Name: "etcd", Here: true, Revision: revision, Healthy: true}}}
	var prints Prints
	for _, d := range documents {
		name, content, _ := strings.Cut(d, "=")
		prints.add(policy.KindTenantPolicy, name, text(name, content))
	}
	m.Sources[1].Prints = prints.String()
	for _, d := range differences {
		state, name, _ := strings.Cut(d, ":")
		difference := Difference{policy.KindTenantPolicy, name, Deviation(state), ""}
		if difference.State == Replaced {
			difference.Source = "team"
		}
		m.Differences = append(m.Differences, difference)
	}
	m.DifferenceCount = len(m.Differences)
	return m
}

func TestJudge(t *testing.T) {
	f := func(m Member, want Want, state State, reasons ...string) {
		t.Helper()
		got := Judge([]Member{m}, want)[0]
		if got.State != state || fmt.Sprint(got.Reasons) != fmt.Sprint(reasons) {
			t.Errorf("got %s %q, want %s %q", got.State, got.Reasons, state, reasons)
		}
	}
	two := stored("gold=1", "silver=1") // at revision 11

	// as the store has it, in whatever order, at that revision or a later one
	f(runs(11, []string{"silver=1", "gold=1"}), two, StateInSync)
	f(runs(50, []string{"gold=1", "silver=1"}), two, StateInSync)
	// nothing is there, and nothing runs
	f(runs(3, nil), stored(), StateInSync)

	// it has not seen the latest change: what it runs says nothing then
	f(runs(10, []string{"gold=1"}), two, StateBehind, "it has applied revision 10, the latest change is 11")
	f(runs(0, nil), two, StateBehind, "it has applied nothing from here yet")
	// and why
	cut := runs(10, []string{"gold=1"})
	cut.Sources[1].Error = "connection refused"
	f(cut, two, StateBehind, "it has applied revision 10, the latest change is 11", "it cannot read its source: connection refused")
	// it goes on without etcd, and nothing has changed there
	still := runs(11, []string{"silver=1", "gold=1"})
	still.Sources[1].Error = "connection refused"
	f(still, two, StateInSync)
	// it has another source now
	f(Member{ID: "m1", Sources: []SourceState{{Name: "other", Revision: 99}}}, two, StateBehind, "it reads no policy from here any more")
	f(decodeMember("m1", "orders", []byte("?")), two, StateBehind, "its record cannot be read: invalid character '?' looking for beginning of value")

	// it runs something else, and knows
	f(runs(11, []string{"gold=1"}, "refused:silver"), two, StateDrifted, "it refuses TenantPolicy silver")
	f(runs(11, []string{"gold=1"}, "last_good:silver"), two, StateDrifted, "it runs the last good version of TenantPolicy silver")
	f(runs(11, []string{"gold=1", "silver=1"}, "last_good:bronze"), two, StateDrifted, "it still runs TenantPolicy bronze, which is gone")
	many := runs(11, nil, "last_good:gold")
	many.DifferenceCount, many.Problems, many.ProblemCount = 4, []string{"a:1: b"}, 9
	f(many, two, StateDrifted, "it runs the last good version of TenantPolicy gold", "3 more of its documents differ", "the first of its 9 problems: a:1: b")
	// a later source may say something else
	f(runs(11, []string{"gold=1"}, "replaced:silver"), two, StateInSync, "TenantPolicy silver is that of its source team")
	replaced := runs(11, nil, "replaced:gold")
	replaced.DifferenceCount = 2
	f(replaced, two, StateInSync, "TenantPolicy gold is that of its source team", "1 more of its documents differ")
	// what it refuses is from elsewhere
	f(runs(11, []string{"gold=1", "silver=1"}, "refused:elsewhere"), two, StateInSync)

	// it runs something else, and does not know: the document is named
	f(runs(11, []string{"gold=1", "silver=0"}), two, StateDrifted, "TenantPolicy silver differs from what it runs, and it does not say why")
	f(runs(11, []string{"silver=1"}), two, StateDrifted, "TenantPolicy gold differs from what it runs, and it does not say why")
	f(runs(11, []string{"gold=1", "silver=1", "ghost=1"}), two, StateDrifted, "it runs a document that is not in the store, and does not say why")
	// one known and one unknown
	f(runs(11, []string{"gold=0"}, "refused:silver"), two, StateDrifted, "it refuses TenantPolicy silver", "TenantPolicy gold differs from what it runs, and it does not say why")
	// it has applied what is not known here yet
	f(runs(101, []string{"gold=2"}), two, StateInSync)
	// a version that says nothing of prints, or in other groups
	mute := runs(11, nil)
	mute.Sources[1].Prints = ""
	f(mute, two, StateInSync)
	mute.Sources[1].Prints = "00"
	f(mute, two, StateInSync)
}

// Of many documents, the few are named that it can be.
func TestJudgeNamesFew(t *testing.T) {
	var documents []string
	for i := range 40 {
		documents = append(documents, fmt.Sprintf("p%d=1", i))
	}
	for i := range documents {
		theirs := append([]string(nil), documents...)
		theirs[i] += "x"
		got := Judge([]Member{runs(99, theirs)}, stored(documents...))[0]
		name, _, _ := strings.Cut(documents[i], "=")
		if got.State != StateDrifted || !strings.Contains(strings.Join(got.Reasons, " ")+",", " "+name+",") && !strings.Contains(got.Reasons[0], " "+name+" ") && !strings.Contains(got.Reasons[0], " more") {
			t.Errorf("%s differs: got %s %q", name, got.State, got.Reasons)
		}
	}
}

func TestBehind(t *testing.T) {
	refusing, late, fine := runs(12, nil, "refused:gold"), runs(8, nil), runs(12, nil)
	fine.ID, late.ID = "m2", "m3"
	late.Address = "127.0.0.1:9901"
	got := fmt.Sprint(Behind([]Member{refusing, fine, late}, 12))
	const want = "[m1 (web-1) is drifted: it refuses TenantPolicy gold " +
		"m3 (web-1, admin port 127.0.0.1:9901) is behind: it has applied revision 8, the latest change is 12]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What is compared is what a sidecar reads, however it was laid out in the key; and only what is for all sidecars.
func TestWantOf(t *testing.T) {
	layout := etcd.LayoutAt("/weir/")
	item := func(key, value string, modified int64) etcd.Item {
		return etcd.Item{Key: key, Value: []byte(value), Modified: modified}
	}
	want := WantOf(layout, etcd.View{Revision: 90, Items: []etcd.Item{
		item(layout.Document(policy.KindSidecar, "web"), "kind: Sidecar", 20),
		item(layout.Document(policy.KindTenantPolicy, "gold"), "---\r\nkind: TenantPolicy\r\n...\r\n", 21),
		item(layout.Policy()+"by/hand/x", "?", 22),
		item(layout.Change(), "{}", 23),
	}})
	if want.Revision != 23 || len(want.Documents) != 1 || want.find(policy.KindTenantPolicy, "gold") == nil ||
		want.Documents[0].print != printOf(policy.KindTenantPolicy, "gold", "kind: TenantPolicy\n") || want.At != 90 {
		t.Errorf("got %+v", want)
	}
	documents, problems := policy.Decode("k", []byte("---\r\n\r\n# why\r\napiVersion: weir.dev/v1alpha1\r\nkind: Backend\r\nmetadata: {name: b}\r\nspec: {endpoints: [{address: \"127.0.0.1:1\"}]}\r\n...\r\n\r\n"))
	if len(documents) != 1 {
		t.Fatal(problems)
	}
	raw := "---\r\n\r\n# why\r\napiVersion: weir.dev/v1alpha1\r\nkind: Backend\r\nmetadata: {name: b}\r\nspec: {endpoints: [{address: \"127.0.0.1:1\"}]}\r\n...\r\n\r\n"
	if printOf(policy.KindBackend, "b", raw) != printOf(policy.KindBackend, "b", documents[0].Text()) {
		t.Errorf("the text of a decoded document has another print than its key: %q", documents[0].Text())
	}
}

func TestPrintsAsText(t *testing.T) {
	p := Prints{0: 1, 15: 0xfedcba98}
	if back, ok := parsePrints(p.String()); !ok || back != p || len(p.String()) != 8*groups {
		t.Errorf("got %v from %s", back, &p)
	}
	for _, bad := range []string{"", "00", strings.Repeat("0g", 4*groups), p.String() + "00"} {
		if _, ok := parsePrints(bad); ok {
			t.Errorf("%q is taken for prints", bad)
		}
	}
}
