package fleet

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weir/control"
	"weir/control/etcd/etcdtest"
	"weir/policy"
)

func TestTell(t *testing.T) {
	object := func(name string, state control.State, source, content string) control.Object {
		o := control.Object{Kind: policy.KindTenantPolicy, Name: name, State: state, Source: source}
		if source != "" {
			o.Text = text(name, content)
		}
		return o
	}
	problem := func(severity policy.Severity, file, name, message string) policy.Problem {
		return policy.Problem{Severity: severity, Origin: policy.Origin{File: file, Line: 4, Column: 7}, Kind: policy.KindTenantPolicy, Name: name, Message: message}
	}
	s := control.Status{
		Hash: "abc", AppliedAt: time.Unix(100, 0),
		Sources: []control.SourceStatus{
			{Name: "file", Healthy: true}, {Name: "platform", Healthy: true, Revision: 42}, {Name: "team", Revision: 7, Error: "gone"},
		},
		Objects: []control.Object{
			{Kind: policy.KindSidecar, Name: "web", State: control.Applied, Source: "platform", Text: "kind: Sidecar"},
			object("bronze", control.Applied, "file", "1"),
			object("gold", control.Applied, "platform", "1"),
			object("iron", control.LastGood, "platform", "0"),
			object("lead", control.Applied, "team", "1"),
			object("silver", control.Refused, "", ""),
			object("zinc", control.LastGood, "team", "1"),
		},
		Problems: []policy.Problem{
			problem(policy.Error, "platform:TenantPolicy/silver", "silver", "wrong"),
			problem(policy.Warning, "platform:TenantPolicy/lead", "lead", "replaced"),
			problem(policy.Error, "team:TenantPolicy/zinc", "zinc", "wrong too"),
		},
	}
	var m Member
	m.tell(s, "platform")
	differences := []Difference{
		{policy.KindTenantPolicy, "iron", LastGood, ""}, {policy.KindTenantPolicy, "silver", Refused, ""}, {policy.KindTenantPolicy, "lead", Replaced, "team"},
	}
	if diff := cmp.Diff(differences, m.Differences); diff != "" || m.DifferenceCount != 3 {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
	var prints Prints
	prints.add(policy.KindTenantPolicy, "gold", text("gold", "1"))
	sources := []SourceState{{Name: "platform", Here: true, Revision: 42, Healthy: true, Prints: prints.String()}, {Name: "team", Revision: 7, Error: "gone"}}
	if diff := cmp.Diff(sources, m.Sources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	if m.Hash != "abc" || !m.AppliedAt.Equal(time.Unix(100, 0)) || m.ProblemCount != 2 || len(m.Problems) != 2 || !strings.Contains(m.Problems[0], "silver") && !strings.Contains(m.Problems[0], "wrong") {
		t.Errorf("got %+v", m)
	}
	// told again, it says only what is now; documents of a source that cannot be read are compared as they are
	s.Sources[1].Error, s.Sources[1].Healthy = "connection refused", false
	s.Objects = []control.Object{object("gold", control.LastGood, "platform", "1")}
	s.Problems = nil
	m.tell(s, "platform")
	if len(m.Differences) != 0 || m.DifferenceCount != 0 || m.ProblemCount != 0 || m.Here().Prints != prints.String() || m.Here().Error == "" {
		t.Errorf("got %+v", m)
	}
}

// What members tell and what etcd holds agree, from the text in a key to the verdict.
func TestTellAndJudgeAgree(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoint(0))
	revision := put(cluster, "gold=1", "silver=1")
	s := join(t, c, "web-1")
	s.Report(applied(revision, "gold=1", "silver=1"))
	ctx := context.Background()
	shows := func(want string) {
		t.Helper()
		var got string
		defer func() {
			if t.Failed() {
				t.Logf("the last was %s", got)
			}
		}()
		eventually(t, want, func() bool {
			f := s.Look(ctx)
			got = fmt.Sprint(f.InSync, f.Behind, f.Drifted, f.Revision-revision)
			for _, m := range f.Members {
				got += fmt.Sprint(" ", m.State, m.Reasons)
			}
			return got == want
		})
	}
	shows("1 0 0 0 in_sync[]")
	refused := applied(revision, "gold=1")
	refused.Objects = append(refused.Objects, control.Object{Kind: policy.KindTenantPolicy, Name: "silver", State: control.Refused})
	s.Report(refused)
	shows("0 0 1 0 drifted[it refuses TenantPolicy silver]")
	put(cluster, "gold=2")
	shows(fmt.Sprintf("0 1 0 %d behind[it has applied revision %d, the latest change is %d]", revisionAfter(t, s)-revision, revision, revisionAfter(t, s)))
}

// revisionAfter is the revision of the latest change.
func revisionAfter(t *testing.T, s *sidecar) int64 {
	t.Helper()
	want, err := ReadWant(context.Background(), s.o.Client, layout)
	if err != nil {
		t.Fatal(err)
	}
	return want.Revision
}

// Who looks without etcd sees what was known, and how old it is; and does not wait long.
func TestLookWithoutEtcd(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{})
	relay := etcdtest.NewRelay(t, cluster.Address(0))
	s := join(t, open(t, "http://"+relay.Address()), "web-1")
	s.Report(applied(put(cluster, "gold=1"), "gold=1"))
	eventually(t, "it is in sync", func() bool { return s.Look(context.Background()).InSync == 1 })
	relay.Stall()
	eventually(t, "it shows what it knows, and says why", func() bool {
		seen := s.Look(context.Background())
		return seen.Error != "" && seen.InSync == 1 && len(seen.Members) == 1 && seen.Age > 0 && !seen.ReadAt.IsZero()
	})
	relay.Heal()
	eventually(t, "it is up to date again", func() bool { return s.Look(context.Background()).Error == "" })
}

// A crowd that looks at once asks etcd once.
func TestLookIsShared(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	s := join(t, open(t, cluster.Endpoint(0)), "web-1")
	eventually(t, "it is registered", func() bool { return s.registered(t) })
	first := s.Look(context.Background())
	for range 100 {
		if seen := s.Look(context.Background()); !seen.ReadAt.Equal(first.ReadAt) && seen.ReadAt.Sub(first.ReadAt) < lookAgain {
			t.Fatalf("read at %v and at %v", first.ReadAt, seen.ReadAt)
		}
	}
}
