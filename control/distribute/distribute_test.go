package distribute

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control"
	"weir/control/etcd"
	"weir/policy"
)

func TestChangesReachEveryCluster(t *testing.T) {
	w := newWorld(t, 2, nil)
	texts := firstTexts(300) // more than a transaction takes
	for part := range split(texts) {
		w.apply(etcd.Change{By: "ann@desk"}, part)
	}
	w.start(Options{Distribution: w.distribution(nil)})
	w.awaitTexts(0, texts)
	w.awaitTexts(1, texts)

	texts["TenantPolicy/t3"] = policyText("t3", 50)
	revision := w.apply(etcd.Change{By: "ann@desk", Message: "less for t3"}, map[string]string{"TenantPolicy/t3": texts["TenantPolicy/t3"], "TenantPolicy/t4": ""})
	delete(texts, "TenantPolicy/t4")
	w.inStepAt(revision)
	for i := range w.targets {
		w.awaitTexts(i, texts)
		view, err := w.readers[i].Read(context.Background(), w.layout.Policy(), 0)
		if err != nil {
			t.Fatal(err)
		}
		item, _ := view.Find(w.layout.Change())
		change, err := etcd.ParseChange(item.Value)
		if want := fmt.Sprintf("sync from %s/weir at %d", w.source.Endpoint(0), revision); err != nil || change.By != want || change.Command != "sync" || change.Message != "less for t3" {
			t.Errorf("who changed cluster %d: %+v, %v; want %s", i, change, err, want)
		}
	}
	if s := w.d.Status(); s.Clusters[0].LagSeconds <= 0 || s.Clusters[0].BehindSeconds != 0 || s.Clusters[0].DriftFound != 0 {
		t.Errorf("status: %+v", s.Clusters[0])
	}
}

// split cuts documents into what a transaction takes.
func split(texts map[string]string) func(yield func(map[string]string) bool) {
	return func(yield func(map[string]string) bool) {
		part := make(map[string]string)
		for key, text := range texts {
			if part[key] = text; len(part) == 100 {
				if !yield(part) {
					return
				}
				part = make(map[string]string)
			}
		}
		if len(part) > 0 {
			yield(part)
		}
	}
}

func TestSelectorsAndOverlays(t *testing.T) {
	w := newWorld(t, 2, nil)
	texts := firstTexts(3)
	texts["TenantPolicy/t1"] = strings.Replace(texts["TenantPolicy/t1"], "name: t1}", "name: t1, labels: {region: us}}", 1)
	texts["PolicyTest/x"] = "apiVersion: weir.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: x}\nspec: {cases: [{name: c, requests: [{}], expect: [{allowed: 1}]}]}\n"
	texts["Distribution/x"] = "apiVersion: weir.dev/v1alpha1\nkind: Distribution\nmetadata: {name: x}\nspec: {from: {endpoints: [\"http://a:1\"]}, to: [{name: b, etcd: {endpoints: [\"http://b:1\"]}}]}\n"
	revision := w.apply(etcd.Change{}, texts)
	w.start(Options{Distribution: w.distribution(func(i int) string {
		if i == 0 {
			return "    overlays: [{kind: TenantPolicy, name: t2, patch: {weight: 7, limits: [{name: steady, burst: 500}]}}]\n"
		}
		return "    selector: {matchLabels: {region: us}}\n"
	})})
	w.inStepAt(revision)
	w.awaitTexts(1, map[string]string{"TenantPolicy/t1": texts["TenantPolicy/t1"]})
	want := maps.Clone(texts)
	delete(want, "Distribution/x")
	want["TenantPolicy/t2"] = `apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata: {name: t2}
spec: # of t2
  tenants: {names: [t2]}
  weight: 7
  limits: [{name: steady, requests: 100, burst: 500}]
`
	w.awaitTexts(0, want)
}

// What others do at a cluster is found, named and taken back, whether the distributor runs meanwhile or not.
func TestDrift(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(5)
	w.apply(etcd.Change{}, texts)
	distribution := w.distribution(nil)
	w.start(Options{Distribution: distribution})
	w.awaitTexts(0, texts)
	w.drift(0, 1)
	w.repaired(0, 3, texts)

	// nobody is there to see
	w.stop()
	w.drift(0, 2)
	w.start(Options{Distribution: distribution})
	w.repaired(0, 3, texts)

	// nobody is there, and the source goes on as well: that is no drift
	w.stop()
	w.drift(0, 3)
	texts["TenantPolicy/t0"], texts["TenantPolicy/new"] = policyText("t0", 77), policyText("new", 1)
	delete(texts, "TenantPolicy/t4")
	w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t0": texts["TenantPolicy/t0"], "TenantPolicy/new": texts["TenantPolicy/new"], "TenantPolicy/t4": ""})
	w.start(Options{Distribution: distribution})
	w.repaired(0, 3, texts)

	// reported, and left
	w.stop()
	w.start(Options{Distribution: distribution, NoRepair: true})
	w.inStepAt(1)
	w.drift(0, 4)
	s := w.await("drift is found and left", func(s *control.SyncStatus) bool {
		return s.Clusters[0].State == drifted && s.Clusters[0].DriftFound == 3
	})
	if len(s.Clusters[0].Differences) != 3 || s.Clusters[0].DriftRepaired != 0 {
		t.Errorf("status: %+v", s.Clusters[0])
	}
	// the source goes on all the same
	texts["TenantPolicy/new"] = policyText("new", 2)
	w.apply(etcd.Change{}, map[string]string{"TenantPolicy/new": texts["TenantPolicy/new"]})
	w.await("the source's change", func(s *control.SyncStatus) bool {
		return w.texts(w.readers[0])["TenantPolicy/new"] == texts["TenantPolicy/new"] && s.Clusters[0].DriftFound == 3
	})
}

// drift changes, deletes and adds a document at a cluster.
func (w *world) drift(i, seed int) {
	w.t.Helper()
	key := w.layout.Policy() + "TenantPolicy/"
	client := w.targets[i].Client()
	if _, err := client.Txn(context.Background()).Then(
		clientv3.OpPut(key+"t1", policyText("t1", seed)),
		clientv3.OpDelete(key+"t2"),
		clientv3.OpPut(key+fmt.Sprintf("x%d", seed), policyText("x", seed)),
	).Commit(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) repaired(i, want int, texts map[string]string) {
	w.t.Helper()
	s := w.await("drift is found and repaired", func(s *control.SyncStatus) bool {
		c := s.Clusters[i]
		return c.DriftFound == want && c.DriftRepaired == want && c.State == inStep
	})
	w.awaitTexts(i, texts)
	if got := s.Clusters[i]; got.DriftFound != want {
		w.t.Errorf("%d found, want %d", got.DriftFound, want)
	}
	if log := w.log.String(); !strings.Contains(log, "TenantPolicy/t1") || !strings.Contains(log, "somebody else has written to the cluster") {
		w.t.Errorf("the log does not say where:\n%s", log)
	}
}

// A cluster with documents of its own is not touched, unless that is meant.
func TestTakeOver(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(2)
	w.apply(etcd.Change{}, texts)
	theirs := policyText("theirs", 1)
	w.targets[0].Put(w.layout.Policy()+"TenantPolicy/theirs", theirs)
	distribution := w.distribution(nil)
	w.start(Options{Distribution: distribution})
	s := w.await("held", func(s *control.SyncStatus) bool { return s.Clusters[0].State == held })
	if !strings.Contains(s.Clusters[0].Reason, "TenantPolicy/theirs") || !strings.Contains(s.Clusters[0].Reason, "--take-over") {
		t.Errorf("reason: %s", s.Clusters[0].Reason)
	}
	w.awaitTexts(0, map[string]string{"TenantPolicy/theirs": theirs})
	w.stop()
	w.start(Options{Distribution: distribution, TakeOver: true})
	w.awaitTexts(0, texts)
	w.inStepAt(1)
	if s := w.d.Status(); s.Clusters[0].DriftFound != 0 {
		t.Errorf("what was taken over is called drift: %+v", s.Clusters[0])
	}
	// once taken over it is ours
	w.stop()
	w.targets[0].Put(w.layout.Policy()+"TenantPolicy/theirs", theirs)
	w.start(Options{Distribution: distribution})
	w.awaitTexts(0, texts)
}

// A cluster that has the same already is not written to, but for the record.
func TestEqualFromTheStart(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(2)
	revision := w.apply(etcd.Change{}, texts)
	for key, text := range texts {
		w.targets[0].Put(w.layout.Policy()+key, text)
	}
	w.start(Options{Distribution: w.distribution(nil)})
	w.inStepAt(revision)
	view, err := w.readers[0].Read(context.Background(), w.layout.Policy(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range view.Items {
		if item.Version != 1 {
			t.Errorf("%s was written %d times", item.Key, item.Version)
		}
	}
	record, err := w.readers[0].Read(context.Background(), w.layout.Sync(), 0)
	if err != nil || len(record.Items) != 1 {
		t.Errorf("the record: %+v, %v", record, err)
	}
	// what the source changes from then on is nobody's drift, so that it is brought there in any case
	w.stop()
	if _, err := w.targets[0].Client().Delete(context.Background(), w.layout.Sync()); err != nil {
		t.Fatal(err)
	}
	w.start(Options{Distribution: w.distribution(nil), NoRepair: true})
	w.inStepAt(revision)
	texts["TenantPolicy/t0"] = policyText("t0", 5)
	delete(texts, "TenantPolicy/t1")
	w.inStepAt(w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t0": texts["TenantPolicy/t0"], "TenantPolicy/t1": ""}))
	w.awaitTexts(0, texts)
	if s := w.d.Status(); s.Clusters[0].DriftFound != 0 {
		t.Errorf("the source's change is called drift: %+v", s.Clusters[0])
	}
}

// Who undoes what he did at a cluster does not keep the source's next change from it.
func TestDriftThatIsUndone(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(2)
	w.apply(etcd.Change{}, texts)
	w.start(Options{Distribution: w.distribution(nil), NoRepair: true})
	w.inStepAt(1)
	key := w.layout.Policy() + "TenantPolicy/t0"
	w.targets[0].Put(key, policyText("t0", 9))
	w.await("drift is found", func(s *control.SyncStatus) bool { return s.Clusters[0].State == drifted })
	w.targets[0].Put(key, texts["TenantPolicy/t0"])
	w.inStepAt(1)
	texts["TenantPolicy/t0"] = policyText("t0", 5)
	w.inStepAt(w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t0": texts["TenantPolicy/t0"]}))
	w.awaitTexts(0, texts)
	if s := w.d.Status(); s.Clusters[0].DriftFound != 1 {
		t.Errorf("one drift was found %d times", s.Clusters[0].DriftFound)
	}
}

// A source that has lost many tenants empties no cluster, now or after a restart, until somebody says that this is meant. The clusters'
// sidecars are told so, too.
func TestRemovalsWaitForConfirmation(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(10)
	w.apply(etcd.Change{}, texts)
	distribution := w.distribution(nil)
	w.start(Options{Distribution: distribution})
	w.awaitTexts(0, texts)
	removal := make(map[string]string)
	for i := range 5 {
		removal[fmt.Sprintf("TenantPolicy/t%d", i)] = ""
	}
	before := w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t9": policyText("t9", 5)})
	texts["TenantPolicy/t9"] = policyText("t9", 5)
	w.inStepAt(before)
	w.apply(etcd.Change{}, removal)
	isHeld := func(s *control.SyncStatus) bool {
		return s.Clusters[0].State == held && strings.Contains(s.Clusters[0].Reason, "5 of 10 tenants")
	}
	w.await("held", isHeld)
	// drift is repaired to what was there before
	w.targets[0].Put(w.layout.Policy()+"TenantPolicy/t1", policyText("t1", 9))
	w.await("repaired", func(s *control.SyncStatus) bool { return s.Clusters[0].DriftRepaired == 1 })
	w.awaitTexts(0, texts)
	w.stop()
	w.start(Options{Distribution: distribution})
	w.await("held after a restart", isHeld)
	w.awaitTexts(0, texts)

	w.apply(etcd.Change{ConfirmedRemovals: before}, nil)
	for key := range removal {
		delete(texts, key)
	}
	w.awaitTexts(0, texts)
	view, err := w.readers[0].Read(context.Background(), w.layout.Policy(), 0)
	if err != nil {
		t.Fatal(err)
	}
	item, _ := view.Find(w.layout.Change())
	if change, err := etcd.ParseChange(item.Value); err != nil || change.ConfirmedRemovals == 0 || change.ConfirmedRemovals >= item.Modified {
		t.Errorf("the cluster's change: %+v, %v, written at %d", change, err, item.Modified)
	}

	// a confirmation is for what came before it
	w.inStepAt(1)
	w.apply(etcd.Change{ConfirmedRemovals: before}, map[string]string{"TenantPolicy/t5": "", "TenantPolicy/t6": "", "TenantPolicy/t7": ""})
	w.await("held again", func(s *control.SyncStatus) bool { return s.Clusters[0].State == held })
	w.stop()
	w.start(Options{Distribution: distribution})
	w.await("held again after a restart", func(s *control.SyncStatus) bool { return s.Clusters[0].State == held })
}

// A confirmation with which nothing is to be removed here is for what came before it, too, also after a restart.
func TestConfirmationOfNothing(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(10)
	first := w.apply(etcd.Change{}, texts)
	distribution := w.distribution(nil)
	w.start(Options{Distribution: distribution})
	w.inStepAt(first)
	confirmation := w.apply(etcd.Change{ConfirmedRemovals: first}, nil)
	w.inStepAt(confirmation)
	w.stop()
	removal := make(map[string]string)
	for i := range 5 {
		removal[fmt.Sprintf("TenantPolicy/t%d", i)] = ""
	}
	w.apply(etcd.Change{ConfirmedRemovals: first}, removal)
	w.start(Options{Distribution: distribution})
	w.await("held", func(s *control.SyncStatus) bool { return s.Clusters[0].State == held })
	w.awaitTexts(0, texts)
}

// A document that cannot be used stays as it was, and holds up no other; documents that do not go together hold up their cluster only.
func TestBadDocuments(t *testing.T) {
	w := newWorld(t, 2, nil)
	texts := firstTexts(2)
	w.apply(etcd.Change{}, texts)
	w.start(Options{Distribution: w.distribution(func(i int) string {
		return map[int]string{1: "    selector: {kinds: [Route, Backend, TenantPolicy]}\n    overlays: [{kind: Route, name: late, patch: {backend: nosuch}}]\n"}[i]
	})})
	w.awaitTexts(0, texts)
	w.awaitTexts(1, texts)
	good := maps.Clone(texts)
	revision := w.apply(etcd.Change{}, map[string]string{
		"TenantPolicy/t0": "nonsense", "TenantPolicy/bad": policyText("other", 1), "TenantPolicy/t1": policyText("t1", 5),
	})
	good["TenantPolicy/t1"] = policyText("t1", 5)
	w.inStepAt(revision)
	w.awaitTexts(0, good)
	w.awaitTexts(1, good)
	if s := w.d.Status(); len(s.Problems) != 2 {
		t.Errorf("problems: %q", s.Problems)
	}
	late := strings.Replace(routeText, "name: orders", "name: late", 1)
	w.apply(etcd.Change{}, map[string]string{"Route/late": late})
	s := w.await("held", func(s *control.SyncStatus) bool { return s.Clusters[1].State == held })
	if !strings.Contains(s.Clusters[1].Reason, `no Backend is named "nosuch"`) {
		t.Errorf("reason: %s", s.Clusters[1].Reason)
	}
	w.awaitTexts(1, good)
	good["Route/late"] = late
	w.awaitTexts(0, good)
}

// Of two processes that bring different documents the younger wins, and the older says so; two that bring the same do not disturb each
// other.
func TestTwoDistributors(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(3)
	w.apply(etcd.Change{}, texts)
	w.start(Options{Distribution: w.distribution(nil), By: "older"})
	w.awaitTexts(0, texts)
	older := *w
	w.stop = nil
	same := *w
	same.start(Options{Distribution: w.distribution(nil), By: "same"})
	for i := range 20 {
		texts["TenantPolicy/t1"] = policyText("t1", 200+i)
		same.inStepAt(w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t1": texts["TenantPolicy/t1"]}))
	}
	older.awaitTexts(0, texts)
	for _, d := range []*Distributor{older.d, same.d} {
		if s := d.Status(); s.Clusters[0].DriftFound > 0 {
			t.Errorf("they call each other's work drift: %+v\n%s", s.Clusters[0], w.log)
		}
	}
	same.stop()
	younger := *w
	younger.start(Options{By: "younger", Distribution: w.distribution(func(int) string {
		return "    overlays: [{kind: TenantPolicy, name: t1, patch: {weight: 9}}]\n"
	})})
	s := older.await("yielded", func(s *control.SyncStatus) bool { return s.Clusters[0].State == yielded })
	if !strings.Contains(s.Clusters[0].Reason, "younger") {
		t.Errorf("reason: %s", s.Clusters[0].Reason)
	}
	younger.inStepAt(w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t2": policyText("t2", 5)}))
	if got := w.texts(w.readers[0])["TenantPolicy/t1"]; !strings.Contains(got, "weight: 9") {
		t.Errorf("the younger's document is\n%s", got)
	}
	if s := older.d.Status(); s.Clusters[0].State != yielded || s.Clusters[0].DriftFound > 0 {
		t.Errorf("the older: %+v", s.Clusters[0])
	}
}

// A dry run writes nothing and says in words what would be written.
func TestDryRun(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(1)
	w.apply(etcd.Change{}, texts)
	distribution := w.distribution(nil)
	w.start(Options{Distribution: distribution})
	w.awaitTexts(0, texts)
	w.stop()
	w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t0": policyText("t0", 50), "TenantPolicy/new": policyText("new", 1)})
	w.targets[0].Put(w.layout.Policy()+"Backend/x", strings.Replace(backendText, "name: orders", "name: x", 1))
	w.start(Options{Distribution: distribution, DryRun: true})
	s := w.await("differences", func(s *control.SyncStatus) bool { return Settled(s) && len(s.Clusters[0].Differences) == 3 })
	text := s.Text()
	for _, want := range []string{"t0 steady 100/s → 50/s", "new: added", "backend x: removed", "(somebody else put it there)"} {
		if !strings.Contains(text, want) {
			t.Errorf("the status does not say %q:\n%s", want, text)
		}
	}
	if got := w.texts(w.readers[0])["TenantPolicy/t0"]; got != texts["TenantPolicy/t0"] {
		t.Errorf("it was written: %s", got)
	}
}

// A password that comes, or changes, later than the process is picked up.
func TestPasswordFile(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(1)
	w.apply(etcd.Change{}, texts)
	dir := t.TempDir()
	w.secure(0, "first")
	distribution := w.distribution(func(int) string { return "" })
	target := &distribution.Spec.(*policy.DistributionSpec).To[0]
	target.Etcd.Username, target.Etcd.PasswordFile = "sync", filepath.Join(dir, "password")
	w.start(Options{Distribution: distribution})
	s := w.await("no password", func(s *control.SyncStatus) bool { return s.Clusters[0].State == unreachable })
	if !strings.Contains(s.Clusters[0].Reason, "password") {
		t.Errorf("reason: %s", s.Clusters[0].Reason)
	}
	write := func(password string) {
		if err := os.WriteFile(target.Etcd.PasswordFile, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	w.inStepAt(1)
	w.userPassword(0, "second")
	write("second")
	revision := w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t0": policyText("t0", 5)})
	w.inStepAt(revision)
}
