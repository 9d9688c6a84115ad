package control

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weir/policy"
)

// namedRig is a rig whose Sidecar names sources: each entry `file: {path: /NAME-SETTINGS}` is one.
type namedRig struct {
	*rig
	opened map[string]*fakeSource // by name and settings; the latest
	says   map[string]Batch       // what they say when they are opened; nothing when there is none
	ended  []string
}

func newNamed(t *testing.T, lastGood string, first Batch) *namedRig {
	n := &namedRig{rig: newRig(t, lastGood, first), opened: make(map[string]*fakeSource), says: make(map[string]Batch)}
	n.m.o.Sources = func(s *policy.Snapshot) []NamedSource {
		var list []NamedSource
		for _, path := range s.Sidecar.PolicyFiles {
			name, settings, _ := strings.Cut(filepath.Base(path), "-")
			list = append(list, NamedSource{Name: name, Settings: "at " + settings, Open: func() Source {
				id := name + "-" + settings
				n.opened[id] = &fakeSource{name: name, fail: make(chan error)}
				if b, ok := n.says[id]; ok {
					n.opened[id].first = []Batch{b}
				}
				return endingSource{n.opened[id], func() {
					n.mu.Lock()
					defer n.mu.Unlock()
					n.ended = append(n.ended, id)
				}}
			}})
		}
		return list
	}
	return n
}

// endingSource tells of its end.
type endingSource struct {
	*fakeSource
	end func()
}

func (s endingSource) Run(ctx context.Context, update func(Batch)) error {
	defer s.end()
	return s.fakeSource.Run(ctx, update)
}

// self are the operator's own documents, with the sources that they name.
func self(sources ...string) Batch {
	var list []string
	for _, s := range sources {
		list = append(list, fmt.Sprintf("{file: {path: /%s}}", s))
	}
	return files("self.yaml", joined(
		doc("Sidecar", "weir", "{identity: [{header: X-Tenant-ID, trust: any}], policies: ["+strings.Join(list, ", ")+"]}"),
		routeDoc("a", "orders"),
	))
}

// platform is what another source says: the backend that the operator's route needs, and tenants.
func platform(requests int) Batch {
	return at(7, 0, backendDoc("orders", "127.0.0.1:1"), policyDoc("acme", requests, "a"))
}

// A Sidecar names a source that has what its other documents need. They come into force together.
func TestStartReadsTheSourcesThatASidecarNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamed(t, "", self("platform-1"))
		n.says["platform-1"] = platform(10)
		n.start()
		n.want(1, "applied Backend/orders", "applied Route/a", "applied Sidecar/weir", "applied TenantPolicy/acme")
		s := n.m.Status()
		if len(s.Problems) > 0 {
			t.Errorf("problems %v", s.Problems)
		}
		if got := s.Objects[3]; got.Source != "platform" || got.Origin != "store:TenantPolicy/acme:1:1" {
			t.Errorf("the policy is of %q, at %q", got.Source, got.Origin)
		}
		n.m.Reload()
		if got := n.opened["platform-1"].reload.Load(); got != 1 {
			t.Errorf("the source that is named was told to look again %d times, want once", got)
		}
	})
}

func TestSourcesFollowTheSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamed(t, "", self("platform-1"))
		n.says["platform-1"] = platform(10)
		n.start()
		own := []string{"applied Route/a", "applied Sidecar/weir"}

		// The same again changes nothing.
		n.source.say(self("platform-1"))
		if len(n.ended) > 0 || len(n.opened) != 1 {
			t.Errorf("opened %d and ended %v", len(n.opened), n.ended)
		}

		// Another one comes behind it, and wins.
		n.says["team-1"] = at(3, 0, policyDoc("acme", 5, "a"))
		n.source.say(self("platform-1", "team-1"))
		n.want(3, slices.Concat([]string{"applied Backend/orders"}, own, []string{"applied TenantPolicy/acme"})...)
		if o := n.m.Status().Objects[3]; o.Source != "team" {
			t.Errorf("the policy is of %q", o.Source)
		}
		if p := n.m.Status().Problems; len(p) != 1 || !strings.Contains(p[0].String(), `TenantPolicy "acme" of store:TenantPolicy/acme:1:1 takes the place`) {
			t.Errorf("problems %v", p)
		}
		// In another order, it does not.
		n.source.say(self("team-1", "platform-1"))
		if o := n.m.Status().Objects[3]; o.Source != "platform" {
			t.Errorf("the policy is of %q", o.Source)
		}

		// With other settings it is another source. Until that has answered, what the one before has said stays, and what that says
		// afterwards does not count.
		old := n.opened["platform-1"]
		n.source.say(self("team-1", "platform-2"))
		if !slices.Equal(n.ended, []string{"platform-1"}) {
			t.Errorf("ended %v", n.ended)
		}
		n.want(6, slices.Concat([]string{"last_good Backend/orders"}, own, []string{"last_good TenantPolicy/acme"})...)
		n.metric("weir_policy_source{platform}", 0)
		old.say(platform(99))
		n.opened["platform-2"].say(platform(20))
		n.want(7, slices.Concat([]string{"applied Backend/orders"}, own, []string{"applied TenantPolicy/acme"})...)
		n.metric("weir_policy_source{platform}", 1)

		// It is named no more: its documents go, all of them, and so do its series.
		n.source.say(files("self.yaml", joined(sidecarDoc("weir"), backendDoc("orders", "127.0.0.1:1"))))
		n.want(9, "applied Backend/orders", "applied Sidecar/weir")
		if families, err := n.registry.Gather(); err != nil || strings.Contains(fmt.Sprint(families), "platform") {
			t.Errorf("series of the source are left: %v %v", families, err)
		}
		n.logged("policy source ended")
	})
}

// A source that is called otherwise from now on, or whose documents are elsewhere, is followed until those that come have been read.
func TestSourcesOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamed(t, "", self("platform-1"))
		n.says["platform-1"] = platform(10)
		n.start()
		own := []string{"applied Route/a", "applied Sidecar/weir", "applied TenantPolicy/acme"}
		n.source.say(self("stage-1", "other-1"))
		n.opened["platform-1"].say(platform(20)) // it goes on
		n.opened["other-1"].say(at(1, 0))
		n.opened["stage-1"].say(Batch{Err: errors.New("no leader")})
		n.want(3, slices.Concat([]string{"applied Backend/orders"}, own)...)
		if got := n.applied[2].Policies[0].Limits[0].Requests; got != 20 || len(n.ended) > 0 {
			t.Errorf("the limit is %d, and %v has ended", got, n.ended)
		}
		n.opened["stage-1"].say(platform(30))
		n.want(4, slices.Concat([]string{"applied Backend/orders"}, own)...)
		if s := n.m.Status(); s.Objects[3].Source != "stage" || len(s.Problems) > 0 || len(s.Sources) != 3 || !slices.Equal(n.ended, []string{"platform-1"}) {
			t.Errorf("the policy is of %q, problems %v, %d sources, %v has ended", s.Objects[3].Source, s.Problems, len(s.Sources), n.ended)
		}
		// One that is called back before that has never left.
		n.source.say(self("late-1"))
		n.source.say(self("stage-1", "late-1"))
		n.opened["late-1"].say(at(1, 0))
		n.want(6, slices.Concat([]string{"applied Backend/orders"}, own)...)
		if len(n.ended) != 2 || len(n.m.Status().Sources) != 3 { // other-1 has, which nobody named again
			t.Errorf("%v has ended, of %v", n.ended, n.m.Status().Sources)
		}
	})
}

// A replaced source cannot remove many tenants either, as one that points at the wrong prefix would. What was confirmed elsewhere does
// not count.
// So it is when a restart comes before it has said anything: what was confirmed elsewhere does not count.
func TestReplacedSourceIsGuardedOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "last-good.yaml")
		n := newNamed(t, path, self("platform-1"))
		n.says["platform-1"] = platform(10)
		n.start()
		n.says["platform-2"] = Batch{Err: errors.New("no leader")}
		n.source.say(self("platform-2"))
		n.metric("weir_policy_held_removals{platform}", 0)

		again := newNamed(t, path, self("platform-2"))
		again.says["platform-2"] = at(5000, 4000)
		again.start()
		again.want(1, "last_good Backend/orders", "applied Route/a", "applied Sidecar/weir", "last_good TenantPolicy/acme")
		again.metric("weir_policy_held_removals{platform}", 1)
	})
}

func TestReplacedSourceIsGuarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamed(t, "", self("platform-1"))
		n.says["platform-1"] = platform(10)
		n.start()
		n.says["platform-2"] = at(5000, 4000)
		n.source.say(self("platform-2"))
		n.want(2, "last_good Backend/orders", "applied Route/a", "applied Sidecar/weir", "last_good TenantPolicy/acme")
		n.metric("weir_policy_held_removals{platform}", 1)
	})
}

func TestSourceNamesCollide(t *testing.T) {
	f := func(sources []string, want string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			b := self(sources...)
			n := newNamed(t, "", b)
			err := n.m.Start(context.Background(), n.source)
			n.m.Wait()
			if invalid, is := errors.AsType[*InvalidError](err); !is || !strings.Contains(fmt.Sprint(invalid.Problems), want) {
				t.Errorf("got %v, want a problem with %s", err, want)
			}
			// A running sidecar keeps what it has.
			n = newNamed(t, "", self("platform-1"))
			n.says["platform-1"] = platform(10)
			n.start()
			n.source.say(b)
			n.want(1, "applied Backend/orders", "applied Route/a", "last_good Sidecar/weir", "applied TenantPolicy/acme")
		})
	}
	f([]string{"file-1"}, `self.yaml:4:65: spec.policies: cannot have a source of the name "file": the command line has one already`)
	f([]string{"a-1", "a-2"}, `"a": another one in the list has it`)
}

// Where the Sidecar may come from.
func TestWhoseSidecarCounts(t *testing.T) {
	f := func(what string, first, second, third []string, want string, wantProblems ...string) {
		t.Helper()
		readings := []*reading{readBatch("file", at(0, 0, first...)), readBatch("etcd", at(0, 0, second...)), readBatch("platform", at(0, 0, third...))}
		readings[2].named = "by the Sidecar"
		r := resolve(nil, readings, compileDocs)
		got := ""
		if r.snapshot != nil {
			got = r.snapshot.Sidecar.Name
		}
		var problems []string
		for _, p := range r.problems {
			if p.Kind == policy.KindSidecar {
				problems = append(problems, fmt.Sprintf("%s %s: %s", p.Severity, p.Name, p.Message))
			}
		}
		if diff := cmp.Diff(wantProblems, problems); got != want || diff != "" {
			t.Errorf("%s: the Sidecar is %q, want %q (-want +got):\n%s", what, got, want, diff)
		}
	}
	one := func(name string) []string { return []string{sidecarDoc(name)} }
	const first, behind = `this process is described by the Sidecar of the source "file", which comes first`,
		"a Sidecar counts only in what the command line names: -f, --backend or --etcd"
	f("the first has it", one("a"), nil, nil, "a")
	f("the second has it", nil, one("b"), nil, "b")
	f("both have one", one("a"), one("b"), nil, "a", "warning b: passed over: "+first)
	f("both have the same", one("a"), one("a"), nil, "a", "warning a: passed over: "+first)
	f("one that is named by a Sidecar", one("a"), nil, one("c"), "a", "warning c: passed over: "+behind)
	f("nobody else has one", nil, []string{backendDoc("orders", "127.0.0.1:1")}, one("c"), "weir", "warning c: passed over: "+behind)
	f("two in one source", []string{sidecarDoc("a"), sidecarDoc("b")}, nil, nil, "a",
		"error b: a second Sidecar is named \"b\", want one for a process; the first is \"a\" at store:Sidecar/a:1:1")
}

// A Sidecar that may be hidden in what cannot be read is not replaced by one that comes behind it.
func TestStartDoesNotTakeAnothersSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", files("self.yaml", "kind: Sidecar\nmetadata: {\n"))
		etcd := Static("etcd", at(0, 0, sidecarDoc("other"), backendDoc("orders", "127.0.0.1:1")).Files...)
		err := r.m.Start(context.Background(), r.source, etcd)
		r.m.Wait()
		if _, is := errors.AsType[*InvalidError](err); !is {
			t.Errorf("got %v", err)
		}
		// Nor is one in a source that cannot be read, while the defaults would do.
		r = newRig(t, "", Batch{Err: errors.New("no leader")})
		err = r.m.Start(context.Background(), Static("first", at(0, 0, backendDoc("orders", "127.0.0.1:1")).Files...), r.source)
		r.m.Wait()
		if invalid, is := errors.AsType[*InvalidError](err); !is || !slices.Equal(invalid.Unread, []string{"file"}) {
			t.Errorf("got %v", err)
		}
	})
}

// With AwaitSources, a start without etcd and without a last-good file waits, says so, and goes on by itself.
func TestStartWaitsForSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamed(t, filepath.Join(t.TempDir(), "last-good.yaml"), self("platform-1"))
		n.m.o.AwaitSources = true
		waits := 0
		n.m.o.OnWait = func(s *policy.Snapshot) {
			if waits++; s == nil || s.Sidecar.Name != "weir" {
				t.Errorf("waiting with the snapshot %v", s)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer func() { cancel(); n.m.Wait() }()
		started := make(chan error)
		go func() { started <- n.m.Start(ctx, n.source) }()
		time.Sleep(time.Minute) // of the bubble's time
		synctest.Wait()
		s := n.m.Status()
		if s.Revision != 0 || len(n.applied) != 0 || len(s.Objects) != 0 || s.Sources[1].Error != "no answer within 5s" || waits != 1 {
			t.Errorf("while it waits, for the %d. time: %d applied, %+v", waits, len(n.applied), s)
		}
		n.logged("not ready: waiting for policy sources")
		// It is told what is wrong by now, and then all of it.
		n.opened["platform-1"].say(Batch{Err: errors.New("connection refused")})
		if got := n.m.Status().Sources[1].Error; got != "connection refused" || waits != 1 {
			t.Errorf("source error %q", got)
		}
		n.opened["platform-1"].update(platform(10))
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n.want(1, "applied Backend/orders", "applied Route/a", "applied Sidecar/weir", "applied TenantPolicy/acme")
		n.logged("every policy source is read")

		// With a last-good file it does not wait.
		again := newNamed(t, n.m.o.LastGood, self("platform-1"))
		again.m.o.AwaitSources = true
		again.says["platform-1"] = Batch{Err: errors.New("connection refused")}
		again.start()
		again.want(1, "last_good Backend/orders", "applied Route/a", "applied Sidecar/weir", "last_good TenantPolicy/acme")
		again.metric("weir_policy_source{last-good}", 1)
		if got := again.m.Status().LastGood.InUse; got != 2 {
			t.Errorf("%d documents come from the last-good file, want 2", got)
		}
		// etcd is back.
		again.opened["platform-1"].say(platform(10))
		again.want(1, "applied Backend/orders", "applied Route/a", "applied Sidecar/weir", "applied TenantPolicy/acme")
		again.metric("weir_policy_source{last-good}", 0)
	})
}

// Whoever waits can be told to end.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", Batch{Err: errors.New("no leader")})
		r.m.o.AwaitSources = true
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := r.m.Start(ctx, r.source); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "sources file") {
			t.Errorf("got %v", err)
		}
	})
}
