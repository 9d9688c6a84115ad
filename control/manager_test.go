package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"weir/policy"
)

// fakeSource says what the test makes it say.
type fakeSource struct {
	name   string
	first  []Batch // at once
	update func(Batch)
	fail   chan error
	reload atomic.Int64
}

func (s *fakeSource) Name() string { return s.name }
func (s *fakeSource) Reload()      { s.reload.Add(1) }
func (s *fakeSource) Run(ctx context.Context, update func(Batch)) error {
	s.update = update
	for _, b := range s.first {
		update(b)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.fail:
		return err
	}
}

// say reports a batch and waits until the manager has dealt with it.
func (s *fakeSource) say(b Batch) {
	s.update(b)
	synctest.Wait()
}

// rig is a manager with its surroundings.
type rig struct {
	t        *testing.T
	m        *Manager
	source   *fakeSource
	registry *prometheus.Registry
	mu       sync.Mutex // of what follows
	log      bytes.Buffer
	applied  []*policy.Snapshot
	fail     error         // what Apply answers
	gate     chan struct{} // if set, Apply waits for it
	watched  []string
}

func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func newRig(t *testing.T, lastGood string, first ...Batch) *rig {
	t.Helper()
	r := &rig{t: t, registry: prometheus.NewRegistry(), source: &fakeSource{name: "file", first: first, fail: make(chan error)}}
	m, err := NewManager(Options{
		Logger:     zerolog.New(r),
		Registerer: r.registry,
		LastGood:   lastGood,
		Apply: func(s *policy.Snapshot) error {
			r.mu.Lock()
			fail, gate := r.fail, r.gate
			if fail == nil {
				r.applied = append(r.applied, s)
			}
			r.mu.Unlock()
			if gate != nil {
				<-gate
			}
			return fail
		},
		WatchFiles: func(paths []string) { r.watched = paths },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.m = m
	return r
}

// start starts the manager and has it ended with the test.
func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if err := r.m.Start(ctx, r.source); err != nil {
		cancel()
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cancel(); r.m.Wait() })
	synctest.Wait()
}

// want compares what is in force.
func (r *rig) want(revision uint64, lines ...string) {
	r.t.Helper()
	s := r.m.Status()
	var got []string
	for _, o := range s.Objects {
		got = append(got, fmt.Sprintf("%s %s/%s", o.State, o.Kind, o.Name))
	}
	if diff := cmp.Diff(lines, got); diff != "" {
		r.t.Errorf("objects (-want +got):\n%s%v", diff, s.Problems)
	}
	if s.Revision != revision || len(r.applied) != int(revision) {
		r.t.Errorf("revision %d after %d applies, want %d", s.Revision, len(r.applied), revision)
	}
	if last := r.applied[len(r.applied)-1]; s.Hash != last.Hash {
		r.t.Errorf("hash %s, want that of the last one applied, %s", s.Hash, last.Hash)
	}
}

// metric is a sample of the registry, by name and label values as in name{value}.
func (r *rig) metric(name string, want float64) {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			id := f.GetName()
			for _, l := range m.Label {
				id += "{" + l.GetValue() + "}"
			}
			if id == name {
				if got := m.GetGauge().GetValue() + m.GetCounter().GetValue(); got != want {
					r.t.Errorf("%s is %v, want %v", name, got, want)
				}
				return
			}
		}
	}
	r.t.Errorf("there is no metric %s", name)
}

// logged returns the fields of the last log line with this message.
func (r *rig) logged(message string) map[string]json.RawMessage {
	r.t.Helper()
	var found map[string]json.RawMessage
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(r.log.String()) {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			r.t.Fatalf("log line %q: %v", line, err)
		}
		if strings.Contains(string(fields["message"]), message) {
			found = fields
		}
	}
	if found == nil {
		r.t.Errorf("no log line has %q in:\n%s", message, r.log.String())
	}
	return found
}

func twoTenants(acme string) Batch {
	return files("backend.yaml", backendDoc("orders", "127.0.0.1:1"), "tenants.yaml", joined(acme, policyDoc("globex", 10)))
}

func TestOneBadDocumentKeepsItsLastGoodVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", twoTenants(policyDoc("acme", 10)))
		r.start()
		r.want(1, "applied Backend/orders", "applied TenantPolicy/acme", "applied TenantPolicy/globex")
		r.metric("weir_policy_revision", 1)
		r.metric("weir_policy_last_apply_successful", 1)
		r.metric("weir_policy_objects{applied}", 3)
		r.metric("weir_policy_applies_total{applied}", 1)
		r.metric("weir_policy_source{file}", 1)
		r.metric("weir_policy_source{last-good}", 0)
		r.metric("weir_policy_last_apply_timestamp_seconds", float64(time.Now().Unix()))
		line := r.logged("policy applied")
		if got := fmt.Sprintf("%s %s %s %s", line["revision"], line["added"], line["changed"], line["removed"]); got != "1 3 0 0" {
			t.Errorf("logged revision, added, changed, removed %s", got)
		}

		// One breaks, another changes.
		r.source.say(files("backend.yaml", backendDoc("orders", "127.0.0.1:2"), "tenants.yaml", joined(misspelt("TenantPolicy", "acme"), policyDoc("globex", 10))))
		r.want(2, "applied Backend/orders", "last_good TenantPolicy/acme", "applied TenantPolicy/globex")
		if got := r.applied[1].Backends[0].Endpoints[0].Address; got != "127.0.0.1:2" {
			t.Errorf("the other document did not move on: %s", got)
		}
		if n := len(r.applied[1].Policies); n != 2 {
			t.Errorf("%d policies in force, want 2", n)
		}
		r.metric("weir_policy_last_apply_successful", 0)
		r.metric("weir_policy_objects{last_good}", 1)
		r.metric("weir_policy_problems{error}", 1)
		line = r.logged("policy applied")
		if got := fmt.Sprintf("%s %s %s %s", line["revision"], line["added"], line["changed"], line["removed"]); got != "2 0 1 0" {
			t.Errorf("logged revision, added, changed, removed %s", got)
		}
		if line := r.logged("policy problem: tenants.yaml:4:8: spec.wrongField: "); string(line["name"]) != `"acme"` {
			t.Errorf("the problem is logged with the name %s", line["name"])
		}

		// It is mended.
		r.source.say(files("backend.yaml", backendDoc("orders", "127.0.0.1:2"), "tenants.yaml", joined(policyDoc("acme", 20), policyDoc("globex", 10))))
		r.want(3, "applied Backend/orders", "applied TenantPolicy/acme", "applied TenantPolicy/globex")
		r.metric("weir_policy_last_apply_successful", 1)
		r.metric("weir_policy_problems{error}", 0)
		if line := r.logged("policy problems gone"); string(line["gone"]) != "1" || string(line["left"]) != "1" { // left: the warning that nobody is identified
			t.Errorf("logged %s gone and %s left", line["gone"], line["left"])
		}

		// One is removed.
		r.source.say(files("backend.yaml", backendDoc("orders", "127.0.0.1:2"), "tenants.yaml", policyDoc("globex", 10)))
		r.want(4, "applied Backend/orders", "applied TenantPolicy/globex")
		if line := r.logged("policy applied"); string(line["removed"]) != "1" {
			t.Errorf("logged %s removed", line["removed"])
		}
	})
}

func TestProblemsAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", twoTenants(misspelt("TenantPolicy", "acme")))
		r.start()
		r.source.say(twoTenants(misspelt("TenantPolicy", "acme")))
		// moved within its file, it is the same problem
		r.source.say(twoTenants("# a comment\n" + misspelt("TenantPolicy", "acme")))
		if n := strings.Count(r.log.String(), "wrongField"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, r.log.String())
		}
		// many at once do not flood the log
		var broken []string
		for i := range 100 {
			broken = append(broken, misspelt("TenantPolicy", fmt.Sprintf("t-%d", i)))
		}
		r.source.say(twoTenants(joined(broken...)))
		if n := strings.Count(r.log.String(), "wrongField"); n != 1+maxProblemLines {
			t.Errorf("logged %d problems, want %d", n, 1+maxProblemLines)
		}
		if line := r.logged("further policy problems"); string(line["more"]) != "80" {
			t.Errorf("logged %s more", line["more"])
		}
	})
}

func TestSameContentChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", twoTenants(policyDoc("acme", 10)))
		r.start()
		r.source.say(twoTenants("# a comment\n" + policyDoc("acme", 10)))
		r.source.say(twoTenants("# another comment\n\n" + strings.ReplaceAll(policyDoc("acme", 10), ", ", ",   ")))
		r.want(1, "applied Backend/orders", "applied TenantPolicy/acme", "applied TenantPolicy/globex")
		r.metric("weir_policy_applies_total{unchanged}", 2)
		if got, want := r.m.Status().Objects[1].Origin, "tenants.yaml:3:1"; got != want {
			t.Errorf("origin %s, want the present one, %s", got, want)
		}
	})
}

func TestFailedApplyKeepsWhatIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", twoTenants(policyDoc("acme", 10)))
		r.start()
		r.fail = errors.New("no such certificate")
		r.source.say(twoTenants(policyDoc("acme", 20)))
		r.want(1, "applied Backend/orders", "last_good TenantPolicy/acme", "applied TenantPolicy/globex")
		r.metric("weir_policy_last_apply_successful", 0)
		r.metric("weir_policy_applies_total{failed}", 1)
		if lines := errorLines(r.m.Status().Problems); len(lines) != 1 || lines[0] != "cannot apply: no such certificate" {
			t.Errorf("problems %q", lines)
		}
		r.logged("policy not applied")
		// What is broken while nothing can be applied falls back to what is in force, not to what was refused.
		r.source.say(twoTenants(misspelt("TenantPolicy", "acme")))
		// A reload tries again.
		r.fail = nil
		r.source.say(twoTenants(policyDoc("acme", 20)))
		r.want(2, "applied Backend/orders", "applied TenantPolicy/acme", "applied TenantPolicy/globex")
		r.metric("weir_policy_last_apply_successful", 1)
	})
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", twoTenants(policyDoc("acme", 10)))
		r.start()
		r.fail = errors.New("not now")
		r.source.say(twoTenants(policyDoc("acme", 20)))
		r.fail = nil
		r.m.Reload()
		synctest.Wait()
		r.want(2, "applied Backend/orders", "applied TenantPolicy/acme", "applied TenantPolicy/globex")
		if n := r.source.reload.Load(); n != 1 {
			t.Errorf("the source was told to look again %d times, want once", n)
		}
	})
}

// A source is never blocked, and a flood of changes ends in the last one without each being compiled.
func TestRapidChangesCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", twoTenants(policyDoc("acme", 1000)))
		r.start()
		gate := make(chan struct{})
		r.mu.Lock()
		r.gate = gate
		r.mu.Unlock()
		r.source.say(twoTenants(policyDoc("acme", 1))) // the manager is stuck in Apply
		for i := range 300 {
			r.source.update(twoTenants(policyDoc("acme", 2+i)))
		}
		r.mu.Lock()
		r.gate = nil
		r.mu.Unlock()
		close(gate)
		synctest.Wait()
		if len(r.applied) != 3 {
			t.Errorf("applied %d times, want 3: the first, the stuck one, the last", len(r.applied))
		}
		last := r.applied[len(r.applied)-1]
		if got := last.Policies[0].Limits[0].Requests; got != 301 {
			t.Errorf("ended in %d, want 301", got)
		}
	})
}

func TestThreeHundredChangesEndInTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", twoTenants(policyDoc("acme", 1000)))
		r.start()
		for i := range 300 {
			text := policyDoc("acme", i)
			if i%3 == 0 {
				text = misspelt("TenantPolicy", "acme")
			}
			r.source.say(twoTenants(text))
		}
		r.want(201, "applied Backend/orders", "applied TenantPolicy/acme", "applied TenantPolicy/globex")
		if got := r.applied[len(r.applied)-1].Policies[0].Limits[0].Requests; got != 299 {
			t.Errorf("ended in %d, want 299", got)
		}
	})
}

func TestStartFails(t *testing.T) {
	f := func(lastGood string, b Batch, apply error, want string, wantInvalid bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, lastGood, b)
			r.fail = apply
			err := r.m.Start(context.Background(), r.source)
			r.m.Wait() // it left nothing running
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got error %v, want one with %q", err, want)
			}
			invalid, is := errors.AsType[*InvalidError](err)
			if is != wantInvalid {
				t.Errorf("error %v is an InvalidError: %t, want %t", err, is, wantInvalid)
			}
			if is && len(invalid.Problems) == 0 {
				t.Error("it has no problems")
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "no-such-file.yaml")
	garbage := filepath.Join(t.TempDir(), "garbage.yaml")
	if err := os.WriteFile(garbage, []byte("kind: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := twoTenants(policyDoc("acme", 1))
	// nothing is there
	f("", files(), nil, "no valid policy to start with: no documents", true)
	f("", Batch{Err: errors.New("no path")}, nil, "file: cannot read: no path", true)
	f("", Batch{Files: []File{{Path: "p", Err: errors.New("no such file")}}}, nil, "p: cannot read: no such file", true)
	// nothing is valid
	f("", files("a", misspelt("Backend", "x")), nil, "a:4:8: spec.wrongField", true)
	// nor is there a last-good file, or a useful one
	f(missing, files("a", misspelt("Backend", "x")), nil, "a:4:8: spec.wrongField", true)
	f(garbage, files("a", misspelt("Backend", "x")), nil, "a:4:8: spec.wrongField", true)
	// the process does not know itself
	f("", files("a", joined(misspelt("Sidecar", "x"), backendDoc("orders", "127.0.0.1:1"))), nil, "a:", true)
	f("", files("a", joined("kind: Sidecar\nmetadata: {\n", backendDoc("orders", "127.0.0.1:1"))), nil, "a:", true)
	f("", Batch{Files: append(good.Files, File{Path: "z", Err: errors.New("no such file")})}, nil, "z: cannot read", true)
	// the snapshot does not come up
	f("", good, errors.New("port taken"), "cannot apply the first policy: port taken", false)
}

func TestStartWithSomethingBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", files("good.yaml", joined(backendDoc("orders", "127.0.0.1:1"), policyDoc("acme", 1)), "bad.yaml", nameless))
		r.start()
		r.want(1, "applied Backend/orders", "applied TenantPolicy/acme")
		if len(r.m.Status().Problems) == 0 {
			t.Error("the bad file is not listed")
		}
	})
}

func TestStartRefusesTwoSourcesOfOneName(t *testing.T) {
	r := newRig(t, "")
	err := r.m.Start(context.Background(), Static("a"), Static("a"))
	if err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("got error %v", err)
	}
}

func TestSourcesThatDoNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "") // says nothing at first
		begun := time.Now()
		ctx, cancel := context.WithCancel(context.Background())
		defer r.m.Wait()
		defer cancel()
		static := Static("command line", File{Path: "command line", Data: []byte(joined(sidecarDoc("weir"), backendDoc("orders", "127.0.0.1:1")))})
		if err := r.m.Start(ctx, static, r.source); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if waited := time.Since(begun); waited != 5*time.Second {
			t.Errorf("waited %s, want 5s", waited)
		}
		r.want(1, "applied Backend/orders", "applied Sidecar/weir")
		r.metric("weir_policy_source{file}", 0)
		if lines := errorLines(r.m.Status().Problems); len(lines) != 1 || lines[0] != "file: cannot read: no answer within 5s" {
			t.Errorf("problems %q", lines)
		}
		// It answers late.
		r.source.say(files("tenants.yaml", policyDoc("acme", 1)))
		r.want(2, "applied Backend/orders", "applied Sidecar/weir", "applied TenantPolicy/acme")
		r.metric("weir_policy_source{file}", 1)
		// It ends: what it said stays.
		r.source.fail <- errors.New("out of files")
		synctest.Wait()
		r.want(2, "applied Backend/orders", "applied Sidecar/weir", "last_good TenantPolicy/acme")
		if got := r.m.Status().Sources[1].Error; got != "the source has ended: out of files" {
			t.Errorf("source error %q", got)
		}
	})
}

func TestStartEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := r.m.Start(ctx, r.source); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v", err)
		}
	})
}

func TestStatusIsSafeForConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, filepath.Join(t.TempDir(), "last-good.yaml"), twoTenants(policyDoc("acme", 1)))
		r.start()
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for range 200 {
					s := r.m.Status()
					if s.Revision == 0 || len(s.Objects) != 3 {
						t.Errorf("status of revision %d has %d objects", s.Revision, len(s.Objects))
					}
					r.m.Reload()
				}
			})
		}
		for i := range 50 {
			r.source.update(twoTenants(policyDoc("acme", i)))
		}
		readers.Wait()
		synctest.Wait()
	})
}

func TestMetricsFollowTheConventions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", twoTenants(policyDoc("acme", 1)))
		r.start()
		problems, err := testutil.GatherAndLint(r.registry)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
		if _, err := NewManager(Options{Registerer: r.registry}); err == nil {
			t.Error("metrics registered twice are no error")
		}
	})
}

// BenchmarkStart is from documents in memory to the first Apply.
func BenchmarkStart(b *testing.B) {
	batch := files("self.yaml", joined(sidecarDoc("weir"), backendDoc("orders", "127.0.0.1:1")), "tenants.yaml", policyDoc("acme", 1))
	for b.Loop() {
		m, err := NewManager(Options{Registerer: prometheus.NewRegistry(), Logger: zerolog.Nop(), Apply: func(*policy.Snapshot) error { return nil }})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		if err := m.Start(ctx, Static("file", batch.Files...)); err != nil {
			b.Fatal(err)
		}
		cancel()
		m.Wait()
	}
}

// BenchmarkOneOfTenThousand is one changed document among ten thousand, without the reading of files; with revisions there is a guard.
func BenchmarkOneOfTenThousand(b *testing.B) {
	batch := func(requests int) Batch {
		pathsAndTexts := []string{"self.yaml", joined(sidecarDoc("weir"), backendDoc("orders", "127.0.0.1:1")), "tenant.yaml", policyDoc("acme", requests)}
		for i := range 100 {
			var docs []string
			for j := range 100 {
				docs = append(docs, policyDoc(fmt.Sprintf("t-%d-%d", i, j), 1))
			}
			pathsAndTexts = append(pathsAndTexts, fmt.Sprintf("tenants-%d.yaml", i), joined(docs...))
		}
		return files(pathsAndTexts...)
	}
	for name, revision := range map[string]int64{"files": 0, "revisions": 7} {
		b.Run(name, func(b *testing.B) {
			batches := []Batch{batch(1), batch(2)}
			batches[0].Revision, batches[1].Revision = revision, revision
			r := readBatch("file", batches[0])
			good := resolve(nil, []*reading{r}, compileDocs).objects
			n := 0
			for b.Loop() {
				n++
				r.read(batches[n%2])
				if got := resolve(good, []*reading{r}, compileDocs); got.snapshot == nil {
					b.Fatal(got.problems)
				}
			}
		})
	}
}
