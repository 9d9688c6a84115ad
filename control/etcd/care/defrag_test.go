package care

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"

	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
)

// anyAir is met by what a test can write in a second.
func anyAir() Need { return Need{Fragmentation: 0.45, Free: 5 * mib} }

func plan(t *testing.T, c *etcd.Client) []Step {
	t.Helper()
	var steps []Step
	until(t, "there is a plan", func() (ready bool) { // a leader that has just been elected is not known to all of them
		var err error
		steps, err = PlanDefrag(Ask(context.Background(), c), anyAir())
		return err == nil
	})
	return steps
}

func TestDefragThreeMembers(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{Members: 3})
	c := open(t, cluster.Endpoints()...)
	fill(t, cluster, 20*mib)
	compact(t, cluster, c)
	steps := plan(t, c)
	var order []string
	done, err := Defrag(context.Background(), c, steps, DefragOptions{Progress: func(s Step) {
		order = append(order, s.Member.Name)
		for i := range 3 { // nobody but those before it has been defragmented
			worked := slices.Contains(order[:len(order)-1], fmt.Sprintf("m%d", i))
			if size := cluster.Server(i).Server.Backend().Size(); worked != (size < 10*mib) {
				t.Errorf("before %s, m%d takes %s", s.Member.Name, i, Bytes(size))
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	leader := fmt.Sprintf("m%d", cluster.Leader())
	if len(order) != 3 || order[2] != leader || !slices.IsSorted(order[:2]) {
		t.Errorf("in the order %v, want the leader %s last", order, leader)
	}
	for _, d := range done {
		if !d.Done || d.Took == 0 || d.After.Size >= d.Member.Size/2 {
			t.Errorf("%s: %s before, %s after, in %v", d.Member.Name, Bytes(d.Member.Size), Bytes(d.After.Size), d.Took)
		}
	}

	// what was done is not worth doing again
	for _, step := range plan(t, c) {
		if !strings.Contains(step.Skip, "not worth it") {
			t.Errorf("%s would be defragmented again", step.Member.Name)
		}
	}

	// with a member gone nobody is touched
	gone := (cluster.Leader() + 1) % 3
	cluster.Stop(gone)
	var refused *RefusedError
	if _, err := PlanDefrag(Ask(context.Background(), c), anyAir()); !errors.As(err, &refused) || !strings.Contains(err.Error(), fmt.Sprintf("m%d", gone)) {
		t.Errorf("with m%d gone: %v", gone, err)
	}
}

// A member that vanishes while the work goes on ends it, and the rest stay as they are.
func TestDefragStopsAtTheFirstFailure(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{Members: 3})
	c := open(t, cluster.Endpoints()...)
	fill(t, cluster, 20*mib)
	compact(t, cluster, c)
	steps := plan(t, c)
	vanishes := steps[0].Member.Name // the one that is done already
	done, err := Defrag(context.Background(), c, steps, DefragOptions{Progress: func(s Step) {
		if s.Member.ID == steps[1].Member.ID {
			for i := range 3 {
				if fmt.Sprintf("m%d", i) == vanishes {
					cluster.Stop(i)
				}
			}
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "stopped at "+steps[1].Member.Called()) || !strings.Contains(err.Error(), vanishes+" (") {
		t.Errorf("got %v, want where it stopped, and that %s is gone", err, vanishes)
	}
	if !done[0].Done || done[0].Err != nil || done[1].Done || done[1].Err == nil || done[2].Done {
		t.Errorf("got %+v", done)
	}
	for i := range 3 {
		if name := fmt.Sprintf("m%d", i); name != vanishes && cluster.Server(i).Server.Backend().Size() < 10*mib {
			t.Errorf("%s was defragmented", name)
		}
	}
}

// A member that is elected after the plan was made is not touched before the others: it comes last in the next plan.
func TestDefragStopsWhenTheLeaderIsAnother(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{Members: 3})
	c := open(t, cluster.Endpoints()...)
	var steps []Step
	until(t, "there is a plan", func() bool {
		var err error
		steps, err = PlanDefrag(Ask(context.Background(), c), Need{})
		return err == nil
	})
	elected := steps[0].Member.ID
	done, err := Defrag(context.Background(), c, steps, DefragOptions{Progress: func(Step) {
		leader := cluster.Leader()
		if err := cluster.Server(leader).Server.MoveLeader(context.Background(), uint64(cluster.Server(leader).Server.MemberID()), elected); err != nil {
			t.Fatal(err)
		}
		until(t, "all know the new leader", func() bool {
			s := Ask(context.Background(), c)
			return ready(s) == nil && s.member(elected).Leads()
		})
	}})
	if err == nil || !strings.Contains(err.Error(), "it has become the leader meanwhile") || done[0].Done || done[1].Done || done[2].Done {
		t.Errorf("got %+v, %v, want nobody touched", done, err)
	}
}

// The next member is not touched before the one just done has caught up.
func TestDefragWaitsForAMember(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoints()...)
	id := Ask(context.Background(), c).Members[0].ID
	f := func(index uint64, want string) {
		t.Helper()
		_, err := recovered(context.Background(), c, id, index, 3*time.Second)
		if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("entry %d: got %v, want %q", index, err, want)
		}
	}

	f(1, "")
	f(1_000_000, "the cluster is not well again within 3s: it has applied entry")
	cluster.Stop(0)
	f(1, "connection refused")
}

func TestDefragOneMember(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoints()...)
	fill(t, cluster, 20*mib)
	compact(t, cluster, c)
	done, err := Defrag(context.Background(), c, plan(t, c), DefragOptions{})
	if err != nil || len(done) != 1 || !done[0].Done || done[0].After.Size > 10*mib {
		t.Errorf("got %+v, %v", done, err)
	}
	if _, err := cluster.Client().Put(context.Background(), "k", "v"); err != nil {
		t.Errorf("a write afterwards: %v", err)
	}
}

// A learner is left alone, and the others are not kept from it by that.
func TestDefragPassesOverALearner(t *testing.T) {
	var first *embed.Config
	cluster := etcdtest.Start(t, etcdtest.Options{Configure: func(c *embed.Config) { first = c }})
	learner := join(t, cluster, first)
	c := open(t, cluster.Endpoints()...)
	fill(t, cluster, 20*mib)
	compact(t, cluster, c)
	steps := plan(t, c)
	if len(steps) != 2 || !strings.Contains(steps[0].Skip, "a learner") || steps[1].Skip != "" {
		t.Fatalf("the plan with a learner: %+v", steps)
	}
	if done, err := Defrag(context.Background(), c, steps, DefragOptions{}); err != nil || done[0].Done || !done[1].Done {
		t.Errorf("got %+v, %v", done, err)
	}
	if learner.Server.Backend().Size() < 10*mib {
		t.Error("the learner was defragmented")
	}
}

// A store runs full, the check says so, and what the page on care says brings it back.
func TestSpaceRunsOutAndComesBack(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{QuotaBytes: 16 * mib})
	c, client, ctx := open(t, cluster.Endpoints()...), cluster.Client(), context.Background()
	fill(t, cluster, 6*mib)
	value := string(make([]byte, mib/12)) // what does not fit any more is small against the quota
	until(t, "the store is full", func() bool {
		_, err := client.Put(ctx, "/junk/a", value)
		return errors.Is(err, rpctypes.ErrNoSpace)
	})
	full := examine(etcd.Options{Endpoints: cluster.Endpoints()}).Findings()
	expect(t, find(t, full, "alarms", ""), Failure, "NOSPACE by m0")
	expect(t, find(t, full, "space", ""), Failure, "of its quota of 16.0 MiB")
	expect(t, find(t, full, "register a sidecar", ""), Failure, "no space left")
	expect(t, find(t, full, "read policies", ""), OK, "may")

	// too early: nothing is free yet
	if _, err := Disarm(ctx, c); err == nil || !strings.Contains(err.Error(), "raised again at once") {
		t.Errorf("disarmed a full store: %v", err)
	}
	compactFull(t, cluster)
	if _, err := Defrag(ctx, c, plan(t, c), DefragOptions{}); err != nil {
		t.Fatal(err)
	}
	gone, err := Disarm(ctx, c)
	if err != nil || len(gone) != 1 || gone[0].Kind != AlarmNoSpace {
		t.Errorf("disarmed %v, %v", gone, err)
	}
	if _, err := client.Put(ctx, "/weir/v1/policy/Route/a", "v"); err != nil {
		t.Errorf("a write afterwards: %v", err)
	}
	well := examine(etcd.Options{Endpoints: cluster.Endpoints()}).Findings()
	expect(t, find(t, well, "alarms", ""), OK, "no alarms")
	expect(t, find(t, well, "space", ""), OK, "takes")
	expect(t, find(t, well, "register a sidecar", ""), OK, "may")
}

// join adds a learner to a cluster and starts it.
func join(t *testing.T, cluster *etcdtest.Cluster, first *embed.Config) *embed.Etcd {
	t.Helper()
	config := embed.NewConfig()
	config.Name, config.Dir, config.UnsafeNoFsync = "learner", t.TempDir(), true
	config.TickMs, config.ElectionMs = first.TickMs, first.ElectionMs
	config.ZapLoggerBuilder, config.LogLevel = first.ZapLoggerBuilder, first.LogLevel
	peer, client := free(t), free(t)
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ClusterState = embed.ClusterStateFlagExisting
	config.InitialCluster = first.InitialCluster + ",learner=" + peer.String()
	if _, err := cluster.Client().MemberAddAsLearner(context.Background(), []string{peer.String()}); err != nil {
		t.Fatal(err)
	}
	server, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

// free is an address that nobody listens on.
func free(t *testing.T) url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return url.URL{Scheme: "http", Host: l.Addr().String()}
}
