package distribute

import (
	"context"
	"os"
	"strings"
	"testing"

	"weir/control"
	"weir/control/etcd"
)

// While the source cannot be read, clusters keep what they have, and drift is repaired all the same.
func TestSourceIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, nil)
	texts := firstTexts(3)
	w.apply(etcd.Change{}, texts)
	w.start(Options{Distribution: w.distribution(nil)})
	w.awaitTexts(0, texts)
	w.source.Stop(0)
	w.await("the source is missed", func(s *control.SyncStatus) bool { return s.Error != "" })
	w.drift(0, 1)
	w.repaired(0, 3, texts)
	w.source.Restart(0)
	texts["TenantPolicy/t0"] = policyText("t0", 5)
	w.inStepAt(w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t0": texts["TenantPolicy/t0"]}))
	w.awaitTexts(0, texts)
	if s := w.d.Status(); s.Error != "" {
		t.Errorf("the source is back, and the status says: %s", s.Error)
	}
}

// A cluster that was restored from before what we wrote is brought into step again, and nobody is blamed for it.
func TestClusterIsRestored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, nil)
	texts := firstTexts(3)
	w.apply(etcd.Change{}, texts)
	w.start(Options{Distribution: w.distribution(nil)})
	for i := range 10 {
		texts["TenantPolicy/t0"] = policyText("t0", i)
		w.inStepAt(w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t0": texts["TenantPolicy/t0"]}))
	}
	dir := w.targets[0].Server(0).Config().Dir
	w.targets[0].Stop(0)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.targets[0].Restart(0)
	w.awaitTexts(0, texts)
	w.inStepAt(1)
	if s := w.d.Status(); s.Clusters[0].DriftFound != 0 {
		t.Errorf("status: %+v", s.Clusters[0])
	}
}

// A source that was replaced by a store that has less, and has not come as far, empties no cluster until that is
// confirmed there.
func TestSourceIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, nil)
	texts := firstTexts(10)
	w.apply(etcd.Change{}, texts)
	for range 10 {
		w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t0": texts["TenantPolicy/t0"]})
	}
	w.start(Options{Distribution: w.distribution(nil)})
	w.awaitTexts(0, texts)
	dir := w.source.Server(0).Config().Dir
	w.source.Stop(0)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.source.Restart(0)
	isHeld := func(s *control.SyncStatus) bool { return s.Clusters[0].State == held }
	w.await("an empty source is held", isHeld)
	fewer := firstTexts(2)
	w.apply(etcd.Change{}, fewer)
	w.await("and one that has less", func(s *control.SyncStatus) bool { return isHeld(s) && s.Documents == len(fewer) })
	w.awaitTexts(0, texts)
	w.apply(etcd.Change{ConfirmedRemovals: 2}, nil)
	w.awaitTexts(0, fewer)
}

// Another process that brings the same has written last, and left nothing to do: the next change is brought all the same.
func TestRecordIsWrittenByAnother(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(2)
	w.apply(etcd.Change{}, texts)
	w.start(Options{Distribution: w.distribution(nil)})
	w.inStepAt(1)
	records, err := w.readers[0].Read(context.Background(), w.layout.Sync(), 0)
	if err != nil || len(records.Items) != 1 {
		t.Fatalf("the record: %+v, %v", records, err)
	}
	w.targets[0].Put(w.layout.Sync(), strings.Replace(string(records.Items[0].Value), `"by":"test"`, `"by":"another"`, 1))
	texts["TenantPolicy/t0"] = policyText("t0", 5)
	w.inStepAt(w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t0": texts["TenantPolicy/t0"]}))
	w.awaitTexts(0, texts)
}

// A write of which we did not hear is ours all the same.
func TestWriteWithoutAnswer(t *testing.T) {
	w := newWorld(t, 1, nil)
	texts := firstTexts(3)
	w.apply(etcd.Change{}, texts)
	w.start(Options{Distribution: w.distribution(nil)})
	w.inStepAt(1)
	c := w.d.clusters[0]
	// As after a transaction that was done and whose answer was lost: the cluster has it, and the distributor remembers what was before.
	ctx := context.Background()
	view, err := w.readers[0].Read(ctx, w.layout.Policy(), 0)
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	lost := c.ours["TenantPolicy/t0"]
	for key := range c.ours {
		c.ours[key] = lost - 1
	}
	c.record.Modified = lost - 1
	if c.client, err = etcd.Open(etcd.Options{Endpoints: w.targets[0].Endpoints()}); err != nil {
		t.Fatal(err)
	}
	defer c.client.Close()
	c.take(view)
	c.want = nil
	c.judged = nil
	texts["TenantPolicy/t0"] = policyText("t0", 5)
	w.apply(etcd.Change{}, map[string]string{"TenantPolicy/t0": texts["TenantPolicy/t0"]})
	source, err := w.writer.Read(ctx, w.layout.Policy(), 0)
	if err != nil {
		t.Fatal(err)
	}
	c.source = read(source, w.layout, "source", nil, c.o.Clock())
	c.stale = true
	if err := c.step(ctx); err != nil {
		t.Fatal(err)
	}
	w.awaitTexts(0, texts)
	if s := w.d.Status(); s.Clusters[0].DriftFound != 0 || strings.Contains(w.log.String(), "somebody else") {
		t.Errorf("our own write is called drift: %+v\n%s", s.Clusters[0], w.log)
	}
}
