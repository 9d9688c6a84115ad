package etcd

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"weir/control/etcd/etcdtest"
)

// What a follower does when etcd, or what is between, does not do what it should. docs/policies-from-etcd.md has the same rows.

// brisk are the options of a follower that notices soon.
func brisk(c *Client) FollowerOptions {
	return FollowerOptions{Client: c, Spread: 50 * time.Millisecond, Quiet: 300 * time.Millisecond, Stall: 300 * time.Millisecond}
}

// quick are the options of a client that does not wait long.
func quick(endpoints ...string) Options {
	return Options{Endpoints: endpoints, Timeout: time.Second}
}

func TestCut(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	relay, endpoint := lineTo(t, cluster, 0)
	cluster.Put("/w/a", "1")
	w := follow(t, brisk(open(t, quick(endpoint))))
	w.has("a=1")
	w.connected()
	w.forgetLog()
	relay.Cut()
	w.failing(Ended)
	cluster.Put("/w/a", "2")
	w.failing(Unreachable)
	relay.Heal()
	w.has("a=2")
	w.lists(1)
	w.logged("etcd is lost", 2) // once for each cause, however often it tries
	w.logged("etcd is back", 1)
}

func TestLatency(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	relay, endpoint := lineTo(t, cluster, 0)
	relay.Delay(200 * time.Millisecond)
	cluster.Put("/w/a", "1")
	o := brisk(open(t, Options{Endpoints: []string{endpoint}}))
	o.Quiet, o.Stall = time.Second, time.Second
	w := follow(t, o)
	w.has("a=1")
	w.connected()
	for i := range 20 {
		cluster.Put("/w/a", fmt.Sprint(i))
	}
	w.has("a=19")
	// It lives through several rounds of the watchdog.
	since := time.Now()
	eventually(t, "several signs of life", func() bool { return w.f.Stats().InStep.Sub(since) > 3*time.Second })
	if s := w.f.Stats(); s.Lists != 1 || len(s.Restarts) > 0 {
		t.Errorf("a slow line alone had consequences: %+v", s)
	}
}

// Bytes stop in both directions, and nobody is told.
func TestStall(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	relay, endpoint := lineTo(t, cluster, 0)
	cluster.Put("/w/a", "1")
	w := follow(t, brisk(open(t, quick(endpoint))))
	w.has("a=1")
	w.connected()
	relay.Stall()
	w.failing(Stalled)
	cluster.Put("/w/a", "2")
	relay.Heal()
	w.has("a=2")
	w.lists(1)
}

// The connection's own probes notice it, too, where the watchdog is slower.
func TestStallIsNoticedByKeepAlive(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	relay, endpoint := lineTo(t, cluster, 0)
	cluster.Put("/w/a", "1")
	// The first probe comes after 10 s, which is the least; its answer may take half a second.
	w := follow(t, FollowerOptions{Client: open(t, Options{Endpoints: []string{endpoint}, KeepAlive: time.Second}), Quiet: time.Hour})
	w.has("a=1")
	w.connected()
	relay.Stall()
	w.failing(Stalled)
	relay.Heal()
	cluster.Put("/w/a", "2")
	w.has("a=2")
	w.lists(1)
}

// The connection lives, and the watch is dead: no event, no answer.
func TestSilentWatch(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put("/w/a", "1")
	l := newLiar(t, cluster.Client(), nil)
	w := follow(t, brisk(open(t, quick(l.endpoint))))
	w.has("a=1")
	w.connected()
	l.tell(func(*pb.WatchResponse) []*pb.WatchResponse { return nil })
	cluster.Put("/w/a", "2")
	w.failing(Stalled)
	l.tell(nil)
	w.has("a=2")
	w.lists(1)
}

func TestCompactionWhileAway(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	relay, endpoint := lineTo(t, cluster, 0)
	cluster.Put("/w/a", "1")
	cluster.Put("/w/b", "1")
	w := follow(t, brisk(open(t, quick(endpoint))))
	w.has("a=1 b=1")
	w.connected()
	relay.Cut()
	w.failing(Ended)
	cluster.Put("/w/a", "2")
	client := cluster.Client()
	gone, err := client.Delete(t.Context(), "/w/b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), gone.Header.Revision); err != nil {
		t.Fatal(err)
	}
	relay.Heal()
	w.has("a=2")
	w.connected()
	w.lists(2)
	if got := w.f.Stats().Restarts[Compacted]; got != 1 {
		t.Errorf("counted %d compactions, want 1", got)
	}
	cluster.Put("/w/c", "3")
	w.has("a=2 c=3")
}

// Where nothing happens below the prefix, the store goes on and forgets. A comparison moves the copy along, so that it can be resumed.
func TestCompactionOfWhatOthersWrote(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	relay, endpoint := lineTo(t, cluster, 0)
	cluster.Put("/w/a", "1")
	o := brisk(open(t, quick(endpoint)))
	o.DigestEvery = 100 * time.Millisecond
	w := follow(t, o)
	w.has("a=1")
	revision := cluster.Put("/x", "1")
	eventually(t, "the copy to move along", func() bool { return w.f.Stats().Revision >= revision })
	relay.Cut()
	w.failing(Ended)
	if _, err := cluster.Client().Compact(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	relay.Heal()
	cluster.Put("/w/a", "2")
	w.has("a=2")
	w.lists(1)
}

// Transactions of 1.2 MiB that were missed come together, in fragments that cut them. Each view has all of a transaction or nothing.
func TestFragmentedTransactions(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	relay, endpoint := lineTo(t, cluster, 0)
	client := open(t, Options{Endpoints: cluster.Endpoints()})
	write := func(tag string) {
		t.Helper()
		var ops []clientv3.Op
		for _, key := range []string{"a", "b", "c", "d"} {
			ops = append(ops, clientv3.OpPut("/w/"+key, tag+strings.Repeat("x", 300<<10)))
		}
		if _, err := client.Etcd().Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	write("0")
	w := follow(t, brisk(open(t, Options{Endpoints: []string{endpoint}})))
	w.connected()
	relay.Cut()
	w.failing(Ended)
	for i := range 6 {
		write(fmt.Sprint(i + 1))
	}
	relay.Heal()
	whole := func(v View) string {
		tags := ""
		for _, item := range v.Items {
			tags += string(item.Value[:1])
		}
		return tags
	}
	w.until("the last transaction", func() bool { return whole(w.views[len(w.views)-1]) == "6666" })
	views, _ := w.said()
	for _, v := range views {
		if got := whole(v); got != strings.Repeat(got[:1], 4) {
			t.Errorf("a view at %d has the transactions %s", v.Revision, got)
		}
	}
	w.lists(1)
}

// Everything is told twice, and what is old is told again.
func TestRepetitions(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put("/w/a", "1")
	var told []*pb.WatchResponse
	l := newLiar(t, cluster.Client(), func(a *pb.WatchResponse) []*pb.WatchResponse {
		if len(a.Events) == 0 {
			return []*pb.WatchResponse{a}
		}
		told = append(told, a)
		return append(append([]*pb.WatchResponse{}, told...), told...)
	})
	w := follow(t, FollowerOptions{Client: open(t, quick(l.endpoint))})
	w.connected()
	for i := range 5 {
		cluster.Put("/w/a", fmt.Sprint(i))
		cluster.Put("/w/b", fmt.Sprint(i))
	}
	w.has("a=4 b=4")
	w.lists(1)
	views, _ := w.said()
	for i := 1; i < len(views); i++ {
		if views[i].Revision <= views[i-1].Revision {
			t.Errorf("a view at %d came after one at %d", views[i].Revision, views[i-1].Revision)
		}
	}
}

// An event never comes. A comparison finds that, says where, and repairs it.
func TestDriftIsRepaired(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put("/w/a", "1")
	l := newLiar(t, cluster.Client(), func(a *pb.WatchResponse) []*pb.WatchResponse {
		if len(a.Events) > 0 && string(a.Events[0].Kv.Value) == "missed" {
			return nil
		}
		return []*pb.WatchResponse{a}
	})
	o := FollowerOptions{Client: open(t, quick(l.endpoint)), Spread: time.Millisecond, DigestEvery: 300 * time.Millisecond}
	w := follow(t, o)
	w.connected()
	cluster.Put("/w/b", "missed")
	cluster.Put("/w/c", "3")
	w.has("a=1 b=missed c=3")
	if s := w.f.Stats(); s.Drifts != 1 || s.Lists != 2 || s.Restarts[Drift] != 1 {
		t.Errorf("stats %+v, want one drift that was repaired by a list", s)
	}
	w.logged("/w/b", 1)
}

// An event comes after later ones. It is not applied out of turn, but a comparison is made at once.
func TestReordering(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	var held *pb.WatchResponse
	l := newLiar(t, cluster.Client(), func(a *pb.WatchResponse) []*pb.WatchResponse {
		switch {
		case len(a.Events) == 0:
			return []*pb.WatchResponse{a}
		case held == nil:
			held = a
			return nil
		}
		return []*pb.WatchResponse{a, held}
	})
	w := follow(t, FollowerOptions{Client: open(t, quick(l.endpoint)), Spread: time.Millisecond, DigestEvery: time.Hour})
	w.connected()
	cluster.Put("/w/a", "1")
	cluster.Put("/w/b", "2")
	w.has("a=1 b=2")
	if got := w.f.Stats().Lists; got > 2 {
		t.Errorf("made the copy anew %d times, want at most 2", got)
	}
}

// The store was replaced by another, with a lower revision and other content.
func TestAnotherCluster(t *testing.T) {
	t.Parallel()
	before, after := etcdtest.Start(t, etcdtest.Options{}), etcdtest.Start(t, etcdtest.Options{})
	for i := range 5 {
		before.Put("/w/a", fmt.Sprint(i))
	}
	after.Put("/w/b", "other")
	l := newLiar(t, before.Client(), nil)
	w := follow(t, brisk(open(t, quick(l.endpoint))))
	w.has("a=4")
	w.connected()
	l.use(after.Client())
	w.has("b=other")
	w.logged("etcd went back in time", 1)
	after.Put("/w/b", "2")
	w.has("b=2")
	if got := w.f.Stats().Restarts[Restored]; got != 1 {
		t.Errorf("counted %d stores that were replaced, want 1", got)
	}
}

// The store was replaced by another that has come further: only its name tells.
func TestAnotherClusterThatIsAhead(t *testing.T) {
	t.Parallel()
	before, after := etcdtest.Start(t, etcdtest.Options{}), etcdtest.Start(t, etcdtest.Options{})
	before.Put("/w/a", "1")
	for i := range 5 {
		after.Put("/w/b", fmt.Sprint(i))
	}
	l := newLiar(t, before.Client(), nil)
	w := follow(t, brisk(open(t, quick(l.endpoint))))
	w.has("a=1")
	w.connected()
	l.use(after.Client())
	w.has("b=4")
	if got := w.f.Stats().Restarts[Restored]; got != 1 {
		t.Errorf("counted %d stores that were replaced, want 1", got)
	}
}

// A store was restored from a backup under the same name. etcd would let a watch wait for revisions to come, for ever.
func TestRestoredFromBackup(t *testing.T) {
	t.Parallel()
	before, after := etcdtest.Start(t, etcdtest.Options{}), etcdtest.Start(t, etcdtest.Options{})
	for i := range 5 {
		before.Put("/w/a", fmt.Sprint(i))
	}
	after.Put("/w/a", "backup")
	l := newLiar(t, before.Client(), func(a *pb.WatchResponse) []*pb.WatchResponse {
		a = copyOf(a)
		a.Header.ClusterId = 7
		return []*pb.WatchResponse{a}
	})
	w := follow(t, brisk(open(t, quick(l.endpoint))))
	w.has("a=4")
	w.connected()
	l.use(after.Client())
	w.has("a=backup")
	after.Put("/w/a", "2")
	w.has("a=2")
}

// A member that lags behind the others looks like a store that went back in time, and is not.
func TestMemberLags(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put("/w/a", "1")
	l := newLiar(t, cluster.Client(), func(a *pb.WatchResponse) []*pb.WatchResponse {
		if a.Created {
			a = copyOf(a)
			a.Header.Revision = 1
		}
		return []*pb.WatchResponse{a}
	})
	w := follow(t, brisk(open(t, quick(l.endpoint))))
	w.connected()
	cluster.Put("/w/a", "2")
	w.has("a=2")
	w.lists(1)
}

func TestRestartOfTheOnlyMember(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put("/w/a", "1")
	w := follow(t, brisk(open(t, quick(cluster.Endpoints()...))))
	w.has("a=1")
	w.connected()
	cluster.Stop(0)
	w.until("a failure", func() bool { return len(w.fails) > 0 })
	cluster.Restart(0)
	cluster.Put("/w/a", "2")
	w.has("a=2")
	w.lists(1)
	if s := w.f.Stats(); s.Resumes < 1 {
		t.Errorf("stats %+v, want a watch that was resumed", s)
	}
}

// Three members lose their leader, then their quorum, then all bytes, and come back each time.
func TestThreeMembers(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{Members: 3})
	var relays []*etcdtest.Relay
	var endpoints []string
	for i := range 3 {
		relay, endpoint := lineTo(t, cluster, i)
		relays, endpoints = append(relays, relay), append(endpoints, endpoint)
	}
	cluster.Put("/w/a", "0")
	o := brisk(open(t, quick(endpoints...)))
	o.Quiet, o.Stall = time.Second, time.Second
	w := follow(t, o)
	w.has("a=0")
	w.connected()

	leader := cluster.Leader()
	cluster.Stop(leader)
	cluster.Put("/w/a", "without its leader")
	w.has("a=without its leader")

	second := (leader + 1) % 3
	cluster.Stop(second)
	w.failing(NoLeader)
	cluster.Resume(leader)
	cluster.Resume(second)
	cluster.Put("/w/a", "with a quorum again")
	w.has("a=with a quorum again")

	for _, relay := range relays {
		relay.Stall()
	}
	w.failing(Stalled)
	for _, relay := range relays {
		relay.Heal()
	}
	cluster.Put("/w/a", "after a pause of all")
	w.has("a=after a pause of all")
	w.lists(1)
}

// A store that is full takes no writes, and is read and watched as before.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{QuotaBytes: 64 << 10, Configure: func(c *embed.Config) { c.BackendBatchLimit = 1 }})
	revision := cluster.Put("/w/a", "1")
	client := open(t, quick(cluster.Endpoints()...))
	w := follow(t, brisk(client))
	w.connected()
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		_, err = client.Commit(t.Context(), []Write{{Key: fmt.Sprintf("/x/%d", i), Value: make([]byte, 16<<10)}})
	}
	if CauseOf(err) != NoSpace {
		t.Fatalf("the store never got full: %v", err)
	}
	if _, err := client.Read(t.Context(), "/w/", 0); err != nil {
		t.Errorf("a full store cannot be read: %v", err)
	}
	// The way back: delete what is too much, compact, defragment, disarm.
	etcd := client.Etcd()
	gone, err := etcd.Delete(t.Context(), "/x/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.Compact(t.Context(), gone.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.Defragment(t.Context(), cluster.Endpoint(0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the alarm to go", func() bool {
		if _, err := etcd.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
			t.Fatal(err)
		}
		_, err := client.Commit(t.Context(), []Write{{Key: "/w/a", Value: []byte("2"), Expect: revision}})
		return err == nil
	})
	w.has("a=2")
	w.lists(1)
}

func TestReloadListsAgain(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put("/w/a", "1")
	w := follow(t, FollowerOptions{Client: open(t, quick(cluster.Endpoints()...))})
	w.connected()
	w.f.Reload()
	w.until("the same again", func() bool { return len(w.views) == 2 })
	w.lists(2)
	w.connected()
	if _, fails := w.said(); len(fails) > 0 {
		t.Errorf("a reload counts as a failure: %v", fails)
	}
}

// Nobody waits for a cluster that is not there: not who makes a client, with a password or without, nor who ends a follower.
func TestNobodyWaitsForAClusterThatIsDown(t *testing.T) {
	t.Parallel()
	password := t.TempDir() + "/password"
	replace(t, password, "secret")
	begun := time.Now()
	c := open(t, Options{Endpoints: []string{"http://127.0.0.1:1"}, Username: "u", PasswordFile: password, Timeout: time.Hour})
	f := NewFollower(FollowerOptions{Client: c, Prefix: "/w/"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Run(ctx, func(View) { t.Error("an update out of nothing") }, func(error) {}); err != nil {
		t.Errorf("the end of a follower is an error: %v", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}
