package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"weir/policy"
)

// Documents that tests are made of. The arguments are what the tests change.
func sidecarDoc(name string) string {
	return doc("Sidecar", name, "{identity: [{header: X-Tenant-ID, trust: any}]}")
}
func backendDoc(name, address string) string {
	return doc("Backend", name, fmt.Sprintf("{endpoints: [{address: %q}]}", address))
}
func routeDoc(name, backend string) string {
	return doc("Route", name, fmt.Sprintf("{match: [{path: /%s/*}], backend: %s}", name, backend))
}
func policyDoc(name string, requests int, routes ...string) string {
	return doc("TenantPolicy", name, fmt.Sprintf("{tenants: {names: [%s]}, limits: [{name: steady, requests: %d, routes: [%s]}]}",
		name, requests, strings.Join(routes, ", ")))
}
func doc(kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: weir.dev/v1alpha1\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", kind, name, spec)
}

// nameless is a document that is broken beyond its name, misspelt one in its spec only.
const nameless = "apiVersion: weir.dev/v1alpha1\nkind: Route\nmetadata: {\n"

func misspelt(kind, name string) string {
	switch kind {
	case "Backend":
		return doc(kind, name, `{wrongField: 1, endpoints: [{address: "127.0.0.1:1"}]}`)
	case "Route":
		return doc(kind, name, "{wrongField: 1, backend: a}")
	}
	return doc(kind, name, "{wrongField: 1, tenants: {any: true}}")
}

// files makes a batch of path, text, path, text… with several documents in a text joined by joined.
func files(pathsAndTexts ...string) Batch {
	var b Batch
	for i := 0; i < len(pathsAndTexts); i += 2 {
		b.Files = append(b.Files, File{Path: pathsAndTexts[i], Data: []byte(pathsAndTexts[i+1])})
	}
	slices.SortFunc(b.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return b
}

func joined(docs ...string) string { return strings.Join(docs, "---\n") }

func readBatch(source string, batches ...Batch) *reading {
	r := &reading{source: source}
	for _, b := range batches {
		r.read(b)
	}
	return r
}

func compileDocs(docs []*policy.Document) (*policy.Snapshot, []policy.Problem) {
	return policy.Compile(docs, policy.CompileOptions{})
}

// inForce shows a resolution: one line for each document, as "state Kind/name version", where the version is what tells it apart.
func inForce(r resolution) []string {
	var lines []string
	for _, key := range sortedKeys(r.states) {
		line := fmt.Sprintf("%s %s/%s", r.states[key], key.kind, key.name)
		if o, ok := r.objects[key]; ok {
			switch spec := o.doc.Spec.(type) {
			case *policy.BackendSpec:
				line += " " + spec.Endpoints[0].Address
			case *policy.RouteSpec:
				line += " " + spec.Backend
			case *policy.TenantPolicySpec:
				line += fmt.Sprint(" ", *spec.Limits[0].Requests)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func errorLines(problems []policy.Problem) []string {
	var lines []string
	for _, p := range problems {
		if p.Severity == policy.Error {
			lines = append(lines, p.String())
		}
	}
	return lines
}

func TestResolve(t *testing.T) {
	base := files(
		"backend.yaml", backendDoc("orders", "127.0.0.1:1"),
		"route.yaml", routeDoc("a", "orders"),
		"tenants.yaml", joined(policyDoc("acme", 10, "a"), policyDoc("globex", 10)),
	)
	with := func(pathsAndTexts ...string) Batch {
		changed := files(pathsAndTexts...)
		for _, f := range base.Files {
			if !slices.ContainsFunc(changed.Files, func(c File) bool { return c.Path == f.Path }) {
				changed.Files = append(changed.Files, f)
			}
		}
		changed.Files = slices.DeleteFunc(changed.Files, func(f File) bool { return string(f.Data) == "removed" })
		slices.SortFunc(changed.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
		return changed
	}
	unreadable := func(path string) Batch {
		b := with(path, "removed")
		b.Files = append(b.Files, File{Path: path, Err: fmt.Errorf("permission denied")})
		return b
	}
	f := func(next Batch, want []string, wantErrors ...string) {
		t.Helper()
		first := resolve(nil, []*reading{readBatch("file", base)}, compileDocs)
		if first.snapshot == nil || len(errorLines(first.problems)) > 0 {
			t.Fatalf("the base itself does not resolve: %v", first.problems)
		}
		readings := []*reading{readBatch("file", base, next)}
		got := resolve(first.objects, readings, compileDocs)
		if got.snapshot == nil {
			t.Errorf("nothing in force: %v", got.problems)
		}
		if diff := cmp.Diff(want, inForce(got)); diff != "" {
			t.Errorf("in force (-want +got):\n%s", diff)
		}
		lines := errorLines(got.problems)
		if len(lines) != len(wantErrors) {
			t.Errorf("got %d errors, want %d:\n%s", len(lines), len(wantErrors), strings.Join(lines, "\n"))
			return
		}
		for i, want := range wantErrors {
			if !strings.Contains(lines[i], want) {
				t.Errorf("error %q does not contain %q", lines[i], want)
			}
		}
		again := resolve(first.objects, readings, compileDocs)
		if diff := cmp.Diff(got.problems, again.problems); diff != "" || again.snapshot.Hash != got.snapshot.Hash {
			t.Errorf("resolving again gives something else:\n%s", diff)
		}
	}
	same := []string{"applied Backend/orders 127.0.0.1:1", "applied Route/a orders", "applied TenantPolicy/acme 10", "applied TenantPolicy/globex 10"}
	// edited returns same with one line replaced.
	edited := func(replacements ...string) []string {
		lines := slices.Clone(same)
		for _, r := range replacements {
			id := strings.Fields(r)[1]
			if i := slices.IndexFunc(lines, func(l string) bool { return strings.Fields(l)[1] == id }); i >= 0 {
				lines[i] = r
			} else {
				lines = append(lines, r)
			}
		}
		slices.SortFunc(lines, func(a, b string) int { return strings.Compare(strings.Fields(a)[1], strings.Fields(b)[1]) })
		return lines
	}

	// nothing changed
	f(base, same)
	// a change, an addition
	f(with("tenants.yaml", joined(policyDoc("acme", 20, "a"), policyDoc("globex", 10), policyDoc("initech", 5))),
		edited("applied TenantPolicy/acme 20", "applied TenantPolicy/initech 5"))
	// a removal, of a document and of a whole file
	f(with("tenants.yaml", policyDoc("acme", 10, "a")), same[:3])
	f(with("tenants.yaml", "removed"), same[:2])
	// a bad document keeps its own last good version, the rest of its file moves on
	f(with("tenants.yaml", joined(misspelt("TenantPolicy", "acme"), policyDoc("globex", 20))),
		edited("last_good TenantPolicy/acme 10", "applied TenantPolicy/globex 20"), "tenants.yaml:4:8: spec.wrongField: ")
	// a bad document moved to another file keeps its version too
	f(with("tenants.yaml", policyDoc("globex", 10), "new.yaml", misspelt("TenantPolicy", "acme")),
		edited("last_good TenantPolicy/acme 10"), "new.yaml:4:8: spec.wrongField: ")
	// a bad document that was never good is left out
	f(with("new.yaml", joined(misspelt("TenantPolicy", "initech"), policyDoc("hooli", 7))),
		edited("refused TenantPolicy/initech", "applied TenantPolicy/hooli 7"), "new.yaml:4:8: spec.wrongField: ")
	// a document without a readable name keeps what is missing in its file, and nothing else
	f(with("tenants.yaml", joined(nameless, policyDoc("globex", 20))),
		edited("last_good TenantPolicy/acme 10", "applied TenantPolicy/globex 20"), "tenants.yaml:")
	f(with("tenants.yaml", policyDoc("acme", 10, "a"), "new.yaml", nameless), same[:3], "new.yaml:")
	// a file, or a folder, that cannot be read keeps its documents
	f(unreadable("tenants.yaml"), edited("last_good TenantPolicy/acme 10", "last_good TenantPolicy/globex 10"),
		"tenants.yaml: cannot read: permission denied")
	// an emptied file keeps its documents: editors do that for a moment
	f(with("tenants.yaml", " \n"), edited("last_good TenantPolicy/acme 10", "last_good TenantPolicy/globex 10"), "tenants.yaml: the file is empty")
	// but one of comments alone is a removal
	f(with("tenants.yaml", "# nobody\n"), same[:2])
	// the source cannot be read at all
	f(Batch{Err: fmt.Errorf("gone")}, edited("last_good Backend/orders 127.0.0.1:1", "last_good Route/a orders",
		"last_good TenantPolicy/acme 10", "last_good TenantPolicy/globex 10"), "file: cannot read: gone")
	// a reference to what never was: back to the version before
	f(with("route.yaml", routeDoc("a", "nowhere")), edited("last_good Route/a orders"), `route.yaml:4:40: spec.backend: no Backend is named "nowhere"`)
	// a new document with such a reference is left out
	f(with("new.yaml", routeDoc("b", "nowhere")), edited("refused Route/b"), `spec.backend: no Backend is named "nowhere"`)
	// what is referred to stays though it was removed, and the one that refers moves on
	f(with("route.yaml", "removed", "tenants.yaml", joined(policyDoc("acme", 20, "a"), policyDoc("globex", 10))),
		edited("last_good Route/a orders", "applied TenantPolicy/acme 20"), `removed, but TenantPolicy "acme" still refers to it`)
	// the same through a chain, and for two that refer to one
	f(with("backend.yaml", "removed", "route.yaml", "removed"),
		edited("last_good Backend/orders 127.0.0.1:1", "last_good Route/a orders"), "removed, but", "removed, but")
	f(with("backend.yaml", "removed", "new.yaml", routeDoc("b", "orders")),
		edited("last_good Backend/orders 127.0.0.1:1", "applied Route/b orders"), `removed, but Route "a" still refers to it`)
	// a rename with a reference forgotten: the new one comes, the old one stays
	f(with("backend.yaml", backendDoc("orders-next", "127.0.0.1:2")),
		edited("last_good Backend/orders 127.0.0.1:1", "applied Backend/orders-next 127.0.0.1:2"), "removed, but")
	// with the last reference it goes
	f(with("route.yaml", "removed", "tenants.yaml", joined(policyDoc("acme", 10), policyDoc("globex", 10))),
		[]string{same[0], same[2], same[3]})
	// two of one name: neither, but the version before
	f(with("copy.yaml", policyDoc("acme", 99)), edited("last_good TenantPolicy/acme 10"), `a second TenantPolicy is named "acme"`)
	// two new ones of one name: neither
	f(with("x.yaml", policyDoc("new", 1), "y.yaml", policyDoc("new", 2)), edited("refused TenantPolicy/new"), "a second TenantPolicy")
	// the only Backend is removed, and the reference with it: nothing works without it
	f(with("backend.yaml", misspelt("Backend", "orders"), "route.yaml", "removed", "tenants.yaml", policyDoc("acme", 10)),
		[]string{"last_good Backend/orders 127.0.0.1:1", "applied TenantPolicy/acme 10"}, "spec.wrongField")
}

func TestResolveKeepsFilesBelowAFolderThatIsGone(t *testing.T) {
	before := files("p/a/one.yaml", backendDoc("one", "127.0.0.1:1"), "p/ab.yaml", backendDoc("two", "127.0.0.1:2"))
	good := resolve(nil, []*reading{readBatch("file", before)}, compileDocs).objects
	after := Batch{Files: []File{{Path: "p/a", Err: fmt.Errorf("no such file or directory")}, {Path: "q.yaml", Data: []byte(backendDoc("three", "127.0.0.1:3"))}}}
	got := inForce(resolve(good, []*reading{readBatch("file", after)}, compileDocs))
	want := []string{"last_good Backend/one 127.0.0.1:1", "applied Backend/three 127.0.0.1:3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
}

func TestResolveSidecars(t *testing.T) {
	base := files("b.yaml", joined(sidecarDoc("mine"), backendDoc("orders", "127.0.0.1:1")))
	f := func(next Batch, want []string, wantErrors int) {
		t.Helper()
		good := resolve(nil, []*reading{readBatch("file", base)}, compileDocs).objects
		got := resolve(good, []*reading{readBatch("file", next)}, compileDocs)
		if diff := cmp.Diff(want, inForce(got)); diff != "" {
			t.Errorf("in force (-want +got):\n%s", diff)
		}
		if lines := errorLines(got.problems); len(lines) != wantErrors {
			t.Errorf("got errors %q, want %d", lines, wantErrors)
		}
	}
	// a second one waits, even when the compiler takes the first by origin
	f(files("a.yaml", sidecarDoc("other"), "b.yaml", string(base.Files[0].Data)),
		[]string{"applied Backend/orders 127.0.0.1:1", "applied Sidecar/mine", "refused Sidecar/other"}, 1)
	f(files("b.yaml", string(base.Files[0].Data), "c.yaml", sidecarDoc("other")),
		[]string{"applied Backend/orders 127.0.0.1:1", "applied Sidecar/mine", "refused Sidecar/other"}, 1)
	// removed, it stays: the process would go on by defaults
	f(files("b.yaml", backendDoc("orders", "127.0.0.1:1")), []string{"applied Backend/orders 127.0.0.1:1", "last_good Sidecar/mine"}, 1)
	// another in its place is a change
	f(files("b.yaml", joined(sidecarDoc("other"), backendDoc("orders", "127.0.0.1:1"))),
		[]string{"applied Backend/orders 127.0.0.1:1", "applied Sidecar/other"}, 0)
}

func TestResolveSeveralSources(t *testing.T) {
	f := func(first, second Batch, want []string, wantProblem string) {
		t.Helper()
		got := resolve(nil, []*reading{readBatch("one", first), readBatch("two", second)}, compileDocs)
		if diff := cmp.Diff(want, inForce(got)); diff != "" {
			t.Errorf("in force (-want +got):\n%s", diff)
		}
		if text := fmt.Sprint(got.problems); !strings.Contains(text, wantProblem) {
			t.Errorf("problems %s do not contain %q", text, wantProblem)
		}
	}
	backend := backendDoc("orders", "127.0.0.1:1")
	// they are merged
	f(files("a", backend), files("b", policyDoc("acme", 1)), []string{"applied Backend/orders 127.0.0.1:1", "applied TenantPolicy/acme 1"}, "")
	// the later one replaces, and says so
	f(files("a", joined(backend, policyDoc("acme", 1))), files("b", policyDoc("acme", 2)),
		[]string{"applied Backend/orders 127.0.0.1:1", "applied TenantPolicy/acme 2"}, `a:6:1: warning: TenantPolicy "acme" of b:1:1 takes the place`)
	// a later one that is bad and never was good leaves the earlier one in force
	f(files("a", joined(backend, policyDoc("acme", 1))), files("b", misspelt("TenantPolicy", "acme")),
		[]string{"applied Backend/orders 127.0.0.1:1", "last_good TenantPolicy/acme 1"}, "wrongField")
}

func TestResolveNothing(t *testing.T) {
	f := func(good map[objectKey]object, b Batch, want string) {
		t.Helper()
		got := resolve(good, []*reading{readBatch("file", b)}, compileDocs)
		if got.snapshot != nil {
			t.Errorf("in force: %v", inForce(got))
		}
		if text := fmt.Sprint(errorLines(got.problems)); !strings.Contains(text, want) {
			t.Errorf("problems %s do not contain %q", text, want)
		}
	}
	// no documents at all
	f(nil, files(), "no documents")
	// none that is good
	f(nil, files("a", misspelt("Backend", "x")), "wrongField")
}

func TestResolveKeepsEverythingWhenAllIsRemoved(t *testing.T) {
	good := resolve(nil, []*reading{readBatch("file", files("a", backendDoc("x", "127.0.0.1:1")))}, compileDocs).objects
	got := resolve(good, []*reading{readBatch("file", files())}, compileDocs)
	if diff := cmp.Diff([]string{"last_good Backend/x 127.0.0.1:1"}, inForce(got)); diff != "" || got.snapshot == nil {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
}

// A newer build may refuse what an older one stored: that leaves, once and for all, and the rest goes on.
func TestResolveWhatNoLongerCompiles(t *testing.T) {
	base := files("a", joined(backendDoc("one", "127.0.0.1:1"), backendDoc("two", "127.0.0.1:2"), routeDoc("r", "one")))
	good := resolve(nil, []*reading{readBatch("file", base)}, compileDocs).objects
	rounds := 0
	refuseOne := func(docs []*policy.Document) (*policy.Snapshot, []policy.Problem) {
		rounds++
		for _, d := range docs {
			if d.Kind == policy.KindBackend && d.Name == "one" {
				return nil, []policy.Problem{d.Problem(policy.Error, "", "not supported any more")}
			}
		}
		return compileDocs(docs)
	}
	f := func(b Batch, want ...string) {
		t.Helper()
		rounds = 0
		got := resolve(good, []*reading{readBatch("file", b)}, refuseOne)
		if diff := cmp.Diff(want, inForce(got)); diff != "" || got.snapshot == nil {
			t.Errorf("in force (-want +got):\n%s", diff)
		}
		if rounds > 6 {
			t.Errorf("compiled %d times", rounds)
		}
	}
	// as it stands
	f(base, "refused Backend/one", "applied Backend/two 127.0.0.1:2", "refused Route/r")
	// removed, though something refers to it
	f(files("a", joined(backendDoc("two", "127.0.0.1:2"), routeDoc("r", "one"))),
		"refused Backend/one", "applied Backend/two 127.0.0.1:2", "refused Route/r")
}

func TestUnchangedFilesAreNotDecodedAgain(t *testing.T) {
	r := readBatch("file", files("a", backendDoc("one", "127.0.0.1:1"), "b", backendDoc("two", "127.0.0.1:2")))
	a, b := r.files[0].objects[0].doc, r.files[1].objects[0].doc
	r.read(files("a", backendDoc("one", "127.0.0.1:1"), "b", backendDoc("two", "127.0.0.1:3")))
	if r.files[0].objects[0].doc != a {
		t.Error("an unchanged file was decoded again")
	}
	if r.files[1].objects[0].doc == b {
		t.Error("a changed file was not decoded again")
	}
}

// Whatever is written into the files, resolve ends, in a set that compiles; a restart from the last-good file ends in the same one.
func TestResolveProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"a", "b", "c"})
		document := rapid.Custom(func(t *rapid.T) string {
			name, other := names.Draw(t, "name"), names.Draw(t, "other")
			switch rapid.IntRange(0, 7).Draw(t, "document") {
			case 0:
				return nameless
			case 1:
				return misspelt(rapid.SampledFrom([]string{"Backend", "Route", "TenantPolicy"}).Draw(t, "kind"), name)
			case 2, 3:
				return backendDoc(name, fmt.Sprintf("127.0.0.1:%d", rapid.IntRange(1, 3).Draw(t, "port")))
			case 4, 5:
				return routeDoc(name, other)
			}
			return policyDoc(name, rapid.IntRange(1, 3).Draw(t, "requests"), other)
		})
		text := rapid.Custom(func(t *rapid.T) string {
			return joined(rapid.SliceOfN(document, 0, 3).Draw(t, "documents")...)
		})
		content := rapid.MapOfN(rapid.SampledFrom([]string{"1.yaml", "2.yaml", "3.yaml"}), text, 0, 3)

		r := readBatch("file")
		var good map[objectKey]object
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			var b Batch
			now := content.Draw(t, "content")
			for _, path := range slices.Sorted(maps.Keys(now)) {
				b.Files = append(b.Files, File{Path: path, Data: []byte(now[path])})
			}
			r.read(b)
			got := resolve(good, []*reading{r}, compileDocs)
			if got.snapshot == nil {
				if good != nil {
					t.Fatalf("nothing is in force any more: %v", got.problems)
				}
				continue
			}
			for key, state := range got.states {
				if _, in := got.objects[key]; in == (state == Refused) {
					t.Fatalf("%v is %s", key, state)
				}
			}
			if good != nil {
				stored, problems := decodeLastGood("last-good.yaml", (&lastGood{objects: good}).encode())
				if len(problems) > 0 {
					t.Fatalf("the last-good file is broken: %v", problems)
				}
				restarted := resolve(stored.objects, []*reading{readBatch("file", b)}, compileDocs)
				if diff := cmp.Diff(inForce(got), inForce(restarted)); diff != "" {
					t.Fatalf("a restart ends elsewhere (-running +restarted):\n%s", diff)
				}
			}
			good = got.objects
		}
	})
}
