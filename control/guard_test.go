package control

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"weir/policy"
)

// tenantsDoc is a TenantPolicy of a selector, as in names: [a, b].
func tenantsDoc(name, selector string) string {
	return doc("TenantPolicy", name, "{tenants: {"+selector+"}}")
}

// numbered are the names t-0 to t-(n-1), as a selector.
func numbered(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("t-%d", i))
	}
	return "names: [" + strings.Join(names, ", ") + "]"
}

func decodeAll(t *testing.T, texts ...string) []*policy.Document {
	t.Helper()
	docs, problems := policy.Decode("test", []byte(joined(texts...)))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return docs
}

func TestRemovedTenants(t *testing.T) {
	f := func(before, after []string, want string, many bool) {
		t.Helper()
		r := RemovedTenants(decodeAll(t, before...), decodeAll(t, after...))
		got := ""
		if len(r.Gone) > 0 {
			got = r.String()
		}
		if diff := cmp.Diff(want, got); diff != "" || r.Many() != many {
			t.Errorf("many: %v, want %v (-want +got):\n%s", r.Many(), many, diff)
		}
	}
	list := func(texts ...string) []string { return texts }
	backend := backendDoc("orders", "127.0.0.1:1")
	// nothing was there, nothing is gone, only others go
	f(list(backend), list(tenantsDoc("a", "names: [x]")), "", false)
	f(list(tenantsDoc("a", "names: [x, y]")), list(tenantsDoc("b", "names: [y]"), tenantsDoc("c", "names: [x]")), "", false)
	f(list(backend, tenantsDoc("a", "any: true")), list(tenantsDoc("a", "any: true")), "", false)
	// all of them, however few
	f(list(tenantsDoc("a", "names: [x]")), list(backend), "1 of 1 tenants (100 %): x", true)
	f(list(tenantsDoc("a", "names: [y, x]")), list(backend), "2 of 2 tenants (100 %): x, y", true)
	// some of few
	f(list(tenantsDoc("a", "names: [x, y]")), list(tenantsDoc("a", "names: [y]")), "1 of 2 tenants (50 %): x", false)
	f(list(tenantsDoc("a", "names: [x, y, z]")), list(tenantsDoc("a", "names: [y]")), "2 of 3 tenants (66 %): x, z", false)
	f(list(tenantsDoc("a", "names: [w, x, y, z]")), list(tenantsDoc("a", "names: [y]")), "3 of 4 tenants (75 %): w, x, z", true)
	// on either side of 30 %
	f(list(tenantsDoc("a", numbered(10))), list(tenantsDoc("a", numbered(7))), "3 of 10 tenants (30 %): t-7, t-8, t-9", false)
	f(list(tenantsDoc("a", numbered(13))), list(tenantsDoc("a", numbered(9))), "4 of 13 tenants (30 %): t-10, t-11, t-12, t-9", true)
	f(list(tenantsDoc("a", numbered(20))), list(tenantsDoc("a", numbered(2))),
		"18 of 20 tenants (90 %): t-10, t-11, t-12, t-13, t-14 and 13 more", true)
	// selectors count one each, and the last `any` counts for all; a tenant may be called like one
	f(list(tenantsDoc("a", "match: 'eu-*'"), tenantsDoc("b", "unknown: true"), tenantsDoc("c", numbered(9))), list(tenantsDoc("c", numbered(8))),
		`3 of 11 tenants (27 %): t-8, match "eu-*", unknown`, false)
	f(list(tenantsDoc("a", "any: true"), tenantsDoc("c", numbered(99))), list(tenantsDoc("c", numbered(99))), "1 of 100 tenants (1 %): any", true)
	f(list(tenantsDoc("a", "any: true"), tenantsDoc("b", "any: true")), list(tenantsDoc("b", "any: true")), "", false)
	f(list(tenantsDoc("a", "names: [any, x]")), list(tenantsDoc("a", "names: [x]")), "1 of 2 tenants (50 %): any", false)
}

// at is a batch of a store with revisions: one document to a key.
func at(revision, confirmed int64, texts ...string) Batch {
	var pathsAndTexts []string
	for i, text := range texts {
		d, _ := policy.Decode("", []byte(text))
		path := fmt.Sprintf("store:broken/%d", i)
		if len(d) > 0 {
			path = fmt.Sprintf("store:%s/%s", d[0].Kind, d[0].Name)
		}
		pathsAndTexts = append(pathsAndTexts, path, text)
	}
	b := files(pathsAndTexts...)
	b.Revision, b.ConfirmedRemovals = revision, confirmed
	return b
}

// guarded is a sidecar with a source of one tenant policy each for a, b and c, and a backend.
type guarded struct {
	*rig
	a, b, c, backend string
}

func newGuarded(t *testing.T) guarded {
	g := guarded{a: policyDoc("a", 10), b: policyDoc("b", 10), c: policyDoc("c", 10), backend: backendDoc("orders", "127.0.0.1:1")}
	g.rig = newRig(t, filepath.Join(t.TempDir(), "last-good.yaml"), at(100, 0, g.backend, g.a, g.b, g.c))
	g.start()
	g.wantHeld("")
	return g
}

// wantHeld compares what is held, as tenants with commas.
func (g guarded) wantHeld(tenants string) {
	g.t.Helper()
	source := g.m.Status().Sources[0]
	if got := strings.Join(source.HeldRemovals, ","); got != tenants {
		g.t.Errorf("held %q, want %q", got, tenants)
	}
	n := 0.0
	if tenants != "" {
		n = float64(len(strings.Split(tenants, ",")))
	}
	g.metric("weir_policy_held_removals{file}", n)
	problems := 0
	for _, p := range g.m.Status().Problems {
		if strings.HasPrefix(p.Message, "held back: the removal") {
			problems++
		}
	}
	if want := min(1, int(n)); problems != want {
		g.t.Errorf("%d problems say that removals are held, want %d", problems, want)
	}
}

// An emptied prefix lifts nobody's limit. What it adds and changes is applied.
func TestRemovalOfManyTenantsIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t)
		g.source.say(at(101, 0))
		all := []string{"last_good Backend/orders", "last_good TenantPolicy/a", "last_good TenantPolicy/b", "last_good TenantPolicy/c"}
		g.want(1, all...)
		g.wantHeld("a,b,c")
		g.metric("weir_policy_last_apply_successful", 0)
		if line := g.logged("held back: the removal of 3 of 3 tenants (100 %): a, b, c"); !strings.Contains(string(line["message"]), "--to 100`") {
			t.Errorf("the log does not say how to undo it: %s", line["message"])
		}
		if got := g.m.Status().Sources[0].Revision; got != 101 {
			t.Errorf("revision %d, want the one that was looked at, 101", got)
		}
		// Unreadable meanwhile, it stays held; a policy that comes and one that changes are in force at once.
		g.source.say(Batch{Err: errors.New("no leader")})
		g.wantHeld("a,b,c")
		g.source.say(at(102, 0, policyDoc("a", 77), policyDoc("d", 1)))
		g.want(2, "last_good Backend/orders", "applied TenantPolicy/a", "last_good TenantPolicy/b", "last_good TenantPolicy/c", "applied TenantPolicy/d")
		g.wantHeld("b,c") // 2 of 3, as a is back and d was never in the source before
	})
}

// A store that was replaced by an empty one has no revision that a rollback could go to, so nobody is sent there.
func TestHeldRemovalsOfAReplacedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t)
		g.source.say(at(1, 0))
		g.wantHeld("a,b,c")
		line := string(g.logged("held back: the removal of 3 of 3 tenants (100 %): a, b, c")["message"])
		if strings.Contains(line, "--to") || !strings.Contains(line, "`sidecar apply` the documents again") {
			t.Errorf("the log sends people to a revision that is not there: %s", line)
		}
		g.source.say(at(2, 0, g.backend, g.a, g.b, g.c))
		g.wantHeld("")
		g.source.say(at(3, 0))
		line = g.m.Status().Problems[0].Message
		if !strings.Contains(line, "`sidecar rollback --to 2` undoes it") {
			t.Errorf("from then on there is one: %s", line)
		}
	})
}

// While the removal of many waits, that of a few more passes: those who wait do not count towards the share of others.
func TestFewMoreBesideThoseHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		texts := func(from int) []string {
			list := []string{backendDoc("orders", "127.0.0.1:1")}
			for i := from; i < 20; i++ {
				list = append(list, policyDoc(fmt.Sprintf("t-%02d", i), 1))
			}
			return list
		}
		g := guarded{rig: newRig(t, filepath.Join(t.TempDir(), "last-good.yaml"), at(100, 0, texts(0)...))}
		g.start()
		g.source.say(at(101, 0, texts(7)...))
		const waiting = "t-00,t-01,t-02,t-03,t-04,t-05,t-06"
		g.wantHeld(waiting)
		g.source.say(at(102, 0, texts(8)...))
		g.wantHeld(waiting)
		if s := g.m.Status(); slices.ContainsFunc(s.Objects, func(o Object) bool { return o.Name == "t-07" }) {
			t.Error("the one that went alone is held")
		}
		// A restart does not change that.
		again := g
		again.rig = newRig(t, g.m.o.LastGood, at(103, 0, texts(8)...))
		again.start()
		again.wantHeld(waiting)
	})
}

// What takes the place of a source that was never heard since the start removes nothing unseen either.
func TestReplacedBeforeItWasHeard(t *testing.T) {
	old := &reading{source: "etcd", whole: 100, stored: make(map[objectKey]object)}
	for _, name := range []string{"a", "b", "c"} {
		docs, _ := policy.Decode("etcd:TenantPolicy/"+name, []byte(policyDoc(name, 1)))
		o := object{doc: docs[0], digest: docs[0].Digest(), source: "etcd", file: docs[0].Origin.File, stored: true}
		old.stored[o.key()] = o
	}
	r := &reading{source: "etcd"}
	r.takeOver(old)
	r.read(at(60, 40, backendDoc("orders", "127.0.0.1:1"))) // confirmed for what another store had
	if held := resolve(nil, []*reading{r}, compileDocs).held["etcd"]; len(held.Gone) != 3 {
		t.Errorf("held %v, want the removal of 3", held)
	}
}

func TestHeldRemovalsEnd(t *testing.T) {
	f := func(what string, next func(g guarded) Batch, wantHeld string, want ...string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			g := newGuarded(t)
			g.source.say(at(102, 0, g.backend, policyDoc("x", 1))) // 3 of 3
			g.wantHeld("a,b,c")
			g.source.say(next(g))
			g.wantHeld(wantHeld)
			var got []string
			for _, o := range g.m.Status().Objects {
				if o.Kind == policy.KindTenantPolicy {
					got = append(got, o.Name)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		})
	}
	f("nobody says anything", func(g guarded) Batch { return at(103, 0, g.backend, policyDoc("x", 1)) }, "a,b,c", "a", "b", "c", "x")
	f("confirmed", func(g guarded) Batch { return at(103, 102, g.backend, policyDoc("x", 1)) }, "", "x")
	f("confirmed with the last revision that was whole", func(g guarded) Batch { return at(103, 100, g.backend, policyDoc("x", 1)) }, "", "x")
	f("an earlier removal was confirmed, and is carried on", func(g guarded) Batch { return at(103, 99, g.backend, policyDoc("x", 1)) }, "a,b,c", "a", "b", "c", "x")
	f("undone", func(g guarded) Batch { return at(103, 0, g.backend, g.a, g.b, g.c) }, "", "a", "b", "c")
	f("undone in part", func(g guarded) Batch { return at(103, 0, g.backend, g.a, g.b) }, "c", "a", "b", "c")
	f("restored from a backup", func(g guarded) Batch { return at(60, 40, g.backend) }, "a,b,c,x", "a", "b", "c", "x")
	f("restored from a backup, and confirmed", func(g guarded) Batch { return at(60, 60, g.backend) }, "")
}

// A restart forgets neither what is held nor what was there, whether the source can be read then or not.
func TestRestartForgetsNoRemoval(t *testing.T) {
	f := func(what string, before, first, then Batch, wantHeld string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			g := newGuarded(t)
			g.source.say(before)
			again := g
			again.rig = newRig(t, g.m.o.LastGood, first)
			again.start()
			again.source.say(then)
			again.wantHeld(wantHeld)
			if t.Failed() {
				t.Errorf("failed when %s", what)
			}
		})
	}
	backend := backendDoc("orders", "127.0.0.1:1")
	a, b := policyDoc("a", 10), policyDoc("b", 10)
	whole := at(100, 0, backend, a, b, policyDoc("c", 10))
	empty := at(101, 0)
	down := Batch{Err: errors.New("connection refused")}
	f("the prefix is emptied while the process is down", whole, empty, empty, "a,b,c")
	f("it is emptied, and etcd is down when the process starts", whole, down, empty, "a,b,c")
	f("it was emptied before", empty, empty, empty, "a,b,c")
	f("it was emptied before, and etcd is down when the process starts", empty, down, empty, "a,b,c")
	f("one comes back", empty, empty, at(102, 0, backend, a), "b,c")
	f("one had come back, and that is few of them", at(101, 0, backend, policyDoc("x", 1)), at(102, 0, backend, a, b), at(102, 0, backend, a, b), "c")
	f("the removal was confirmed while the process was down", whole, at(101, 100, backend), at(101, 100, backend), "")
	f("the store was restored while the process was down, and what it lacks is confirmed", whole, at(60, 0), at(61, 60), "")
	f("it is confirmed later", whole, empty, at(102, 101, backend), "")
	f("nothing is removed", whole, whole, whole, "")
	f("a single one is removed", whole, at(101, 0, backend, a, b), at(101, 0, backend, a, b), "")
}

// A source without revisions, as files are, has no guard.
func TestFilesHaveNoGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", twoTenants(policyDoc("acme", 10)))
		r.start()
		r.source.say(files("backend.yaml", backendDoc("orders", "127.0.0.1:1")))
		r.want(2, "applied Backend/orders")
	})
}

// Whatever a source says, one step after the other, over restarts and outages: unless it is confirmed, no step takes many tenants out of
// policy.
func TestNoStepRemovesMany(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		docs := func(o map[objectKey]object) (list []*policy.Document) {
			for _, o := range o {
				list = append(list, o.doc)
			}
			return list
		}
		show := func(o map[objectKey]object) (list []string) {
			for _, key := range sortedKeys(o) {
				list = append(list, fmt.Sprint(key.name, " ", selectorsOf(o[key].doc), o[key].held))
			}
			return list
		}
		backend := backendDoc("orders", "127.0.0.1:1")
		tenant := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h"})
		r := &reading{source: "etcd"}
		var good, before map[objectKey]object
		for revision := range rapid.Int64Range(2, 12).Draw(t, "steps") {
			texts := []string{backend}
			for i := range rapid.IntRange(0, 4).Draw(t, "policies") {
				selector := "names: [" + strings.Join(rapid.SliceOfNDistinct(tenant, 1, 4, rapid.ID[string]).Draw(t, "names"), ", ") + "]"
				switch rapid.IntRange(0, 9).Draw(t, "selector") {
				case 0:
					selector = "any: true"
				case 1:
					selector = "match: 'eu-*'"
				}
				texts = append(texts, tenantsDoc(fmt.Sprintf("p-%d", i), selector))
			}
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0: // a restart
				kept, problems := decodeLastGood("last-good", (&lastGood{objects: good, revisions: map[string]int64{"etcd": r.whole}}).encode())
				if len(problems) > 0 && len(good) > 0 {
					t.Fatal(problems)
				}
				r, good = &reading{source: "etcd", stored: kept.objects, whole: kept.revisions["etcd"]}, nil
				r.read(at(revision+1, 0, texts...))
			case 1:
				r.read(Batch{Err: errors.New("no leader")})
			default:
				r.read(at(revision+1, 0, texts...))
			}
			got := resolve(good, []*reading{r}, compileDocs)
			if good == nil && len(r.stored) > 0 && slices.ContainsFunc(got.problems, isError) {
				got = resolve(r.stored, []*reading{r}, compileDocs) // as a start does
			}
			if got.snapshot == nil {
				continue
			}
			if removed := RemovedTenants(docs(before), docs(got.objects)); removed.Many() {
				t.Fatalf("revision %d took away %s: %v held %v\nnow %v", revision+1, removed, show(before), got.held, show(got.objects))
			}
			_, held := got.held["etcd"]
			r.applied(held)
			good, before = got.objects, got.objects
		}
	})
}
