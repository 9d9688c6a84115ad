package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
)

func TestRegisterAndLeave(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoint(0))
	s := join(t, c, "web-1")
	s.Report(applied(7, "gold=1"))
	eventually(t, "the member acknowledges revision 7", func() bool { return revisionOf(members(t, c)) == 7 })
	m := members(t, c)[0]
	if m.Service != "orders" || m.Host != "web-1" || m.Address != "127.0.0.1:9901" || m.Version != "v1" || m.ID != memberID("orders", "web-1", "127.0.0.1:9901") || m.Started.IsZero() {
		t.Errorf("got %+v", m)
	}
	if !s.registered(t) || leaseOf(t, c) == 0 {
		t.Errorf("registered %v, under lease %d", s.registered(t), leaseOf(t, c))
	}
	s.Report(applied(8, "gold=1"))
	eventually(t, "the member acknowledges revision 8", func() bool { return revisionOf(members(t, c)) == 8 })
	s.stop()
	if left, _, err := ReadMembers(context.Background(), c, layout, ""); err != nil || len(left) != 0 {
		t.Errorf("after a clean end: %+v, %v", left, err)
	}
	if keys, err := c.Read(context.Background(), layout.Fleets(), 0); err != nil || len(keys.Items) != 0 {
		t.Errorf("after a clean end there is %+v, %v", keys.Items, err)
	}
	if s.registered(t) {
		t.Error("the metric says that it is registered after it has left")
	}
	if log := s.log.String(); strings.Count(log, "registered with the fleet") != 1 {
		t.Errorf("the log:\n%s", log)
	}
}

// A member that nobody hears of is gone after its time to live. It comes back by itself, says so once, and knows what has changed meanwhile.
func TestStall(t *testing.T) {
	t.Parallel() // it mostly waits
	f := func(name string, fail, mend func(*etcdtest.Relay)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t, etcdtest.Options{})
			relay := etcdtest.NewRelay(t, cluster.Address(0))
			observer := open(t, cluster.Endpoint(0))
			s := join(t, open(t, "http://"+relay.Address()), "web-1")
			s.Report(applied(7))
			eventually(t, "it is registered", func() bool { return s.registered(t) && revisionOf(members(t, observer)) == 7 })
			fail(relay)
			eventually(t, "it is gone", func() bool { return len(members(t, observer)) == 0 })
			eventually(t, "it knows that it is gone", func() bool { return !s.registered(t) })
			s.Report(applied(9)) // must not wait
			mend(relay)
			eventually(t, "it is back", func() bool { return s.registered(t) && revisionOf(members(t, observer)) == 9 })
			if log := s.log.String(); strings.Count(log, `"registered with the fleet"`) != 2 || !strings.Contains(log, `"to_do":`) || strings.Count(log, `"level":"warn"`) > 4 {
				t.Errorf("the log:\n%s", log)
			}
		})
	}
	f("stalled", (*etcdtest.Relay).Stall, (*etcdtest.Relay).Heal)
	f("cut", (*etcdtest.Relay).Cut, (*etcdtest.Relay).Heal)
}

// A short outage costs nothing: the lease outlives it.
func TestShortStall(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{})
	relay := etcdtest.NewRelay(t, cluster.Address(0))
	observer := open(t, cluster.Endpoint(0))
	s := joinFor(t, open(t, "http://"+relay.Address()), "web-1", 15*time.Second)
	eventually(t, "it is registered", func() bool { return s.registered(t) })
	lease := leaseOf(t, observer)
	relay.Stall()
	<-time.After(ttl / 4)
	relay.Heal()
	s.Report(applied(9))
	eventually(t, "it goes on", func() bool { return revisionOf(members(t, observer)) == 9 })
	if now := leaseOf(t, observer); now != lease {
		t.Errorf("it has lease %d, had %d", now, lease)
	}
}

// A process that stood still finds its lease gone, and takes a new one.
func TestLeaseIsTakenAnew(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoint(0))
	s := join(t, c, "web-1")
	s.Report(applied(7))
	eventually(t, "it is registered", func() bool { return s.registered(t) })
	lease := leaseOf(t, c)
	if _, err := cluster.Client().Revoke(context.Background(), lease); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has another lease", func() bool {
		now := leaseOf(t, c)
		return now != 0 && now != lease && revisionOf(members(t, c)) == 7
	})
}

// A record that somebody has deleted comes back with the next change.
func TestRecordIsDeletedByHand(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoint(0))
	s := join(t, c, "web-1")
	eventually(t, "it is registered", func() bool { return len(members(t, c)) == 1 })
	if _, err := cluster.Client().Delete(context.Background(), membersPrefix(layout, "orders"), clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	s.Report(applied(8))
	eventually(t, "it is back", func() bool { return revisionOf(members(t, c)) == 8 })
}

// Etcd restarts with what it had: members stay the same and in one piece.
func TestEtcdRestarts(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoint(0))
	s := join(t, c, "web-1")
	s.Report(applied(7))
	eventually(t, "it is registered", func() bool { return revisionOf(members(t, c)) == 7 })
	id := members(t, c)[0].ID
	cluster.Stop(0)
	eventually(t, "it knows", func() bool { return !s.registered(t) })
	cluster.Restart(0)
	s.Report(applied(9))
	eventually(t, "it is back", func() bool { return s.registered(t) && revisionOf(members(t, c)) == 9 })
	if now := members(t, c)[0].ID; now != id {
		t.Errorf("it is called %s, was %s: its own record was taken for that of another", now, id)
	}
}

// Without etcd at the start, nothing waits for it; it joins when etcd comes.
func TestStartWithoutEtcd(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Stop(0)
	s := join(t, open(t, cluster.Endpoint(0)), "web-1")
	s.Report(applied(3))
	eventually(t, "the log says so", func() bool { return strings.Contains(s.log.String(), "not registered with the fleet") })
	if seen := s.Look(context.Background()); seen.Error == "" || seen.Registered || seen.Unregistered == "" || !seen.ReadAt.IsZero() {
		t.Errorf("got %+v", seen)
	}
	cluster.Restart(0)
	eventually(t, "it has joined", func() bool { return s.registered(t) })
}

// Two live processes that look the same do not take each other's place. The ID is the same again after a clean end.
func TestIDsDoNotCollide(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoint(0))
	first := join(t, c, "web-1")
	eventually(t, "the first is there", func() bool { return len(members(t, c)) == 1 })
	second := join(t, c, "web-1")
	second.Report(applied(5))
	eventually(t, "both are there", func() bool { return len(members(t, c)) == 2 })
	natural := memberID("orders", "web-1", "127.0.0.1:9901")
	ids := []string{members(t, c)[0].ID, members(t, c)[1].ID}
	if ids[0] != natural || !strings.HasPrefix(ids[1], natural+"-") {
		t.Errorf("got %v, want %s and one with a suffix", ids, natural)
	}
	first.stop()
	eventually(t, "the office has the ID of the second", func() bool {
		_, err := first.incumbent(context.Background())
		return err == nil && first.coordinator == ids[1]
	})
	second.stop()
	join(t, c, "web-1")
	eventually(t, "the next is there", func() bool { return len(members(t, c)) == 1 })
	if got := members(t, c)[0].ID; got != natural {
		t.Errorf("after a restart: got %s, want %s", got, natural)
	}
}

// Least privilege: whoever may not write says which permission is missing, and goes on when it is granted.
func TestPermissionIsDenied(t *testing.T) {
	// Passwords are hashed at the least cost, so that a slow machine answers in time.
	cluster := etcdtest.Start(t, etcdtest.Options{Configure: func(c *embed.Config) { c.BcryptCost = 4 }})
	admin := cluster.Client()
	ctx := context.Background()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	fleet := layout.Fleet("orders")
	grant := func(prefix string, kind clientv3.PermissionType) {
		t.Helper()
		_, err := admin.RoleGrantPermission(ctx, "sidecar", prefix, clientv3.GetPrefixRangeEnd(prefix), kind)
		must(nil, err)
	}
	for user, password := range map[string]string{"root": "r", "sidecar": "s"} {
		must(admin.UserAdd(ctx, user, password))
		must(admin.RoleAdd(ctx, user))
		must(admin.UserGrantRole(ctx, user, user))
	}
	grant(layout.Policy(), clientv3.PermissionType(clientv3.PermRead))
	must(admin.AuthEnable(ctx))
	files := t.TempDir()
	for user, password := range map[string]string{"root": "r", "sidecar": "s"} {
		must(nil, os.WriteFile(filepath.Join(files, user), []byte(password), 0o600))
	}
	root := openAs(t, "root", filepath.Join(files, "root"), cluster.Endpoint(0))
	admin = root.Etcd()

	s := join(t, openAs(t, "sidecar", filepath.Join(files, "sidecar"), cluster.Endpoint(0)), "web-1")
	eventually(t, "the log says what is missing", func() bool {
		return strings.Contains(s.log.String(), "etcdctl role grant-permission ROLE --prefix=true readwrite "+fleet)
	})
	if seen := s.Look(ctx); !strings.Contains(seen.Unregistered, "readwrite "+fleet) {
		t.Errorf("/fleet says %q", seen.Unregistered)
	}
	grant(fleet, clientv3.PermissionType(clientv3.PermReadWrite))
	eventually(t, "it is registered", func() bool { return s.registered(t) && len(members(t, root)) == 1 })
	s.stop()
	if left := members(t, root); len(left) != 0 {
		t.Errorf("it may not take its record along: %+v", left)
	}
}

// However often something changes, the members write what holds now, and all together no more than etcd should bear.
func TestWritesAreBounded(t *testing.T) {
	const fleet, reports, last = 200, 20, 1000
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := openWith(t, etcd.Options{Endpoints: cluster.Endpoints(), Timeout: 20 * time.Second})
	sidecars := make([]*sidecar, fleet)
	for i := range sidecars {
		sidecars[i] = joinFor(t, c, fmt.Sprintf("web-%d", i), 9*time.Second)
	}
	eventually(t, "all are registered and know how many they are", func() bool {
		return !slices.ContainsFunc(sidecars, func(s *sidecar) bool { return !s.registered(t) || s.size.Load() < fleet*9/10 })
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	watch := cluster.Client().Watch(clientv3.WithRequireLeader(ctx), membersPrefix(layout, "orders"), clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	begun := time.Now()
	for revision := last - reports + 1; revision <= last; revision++ {
		for _, s := range sidecars {
			s.Report(applied(int64(revision)))
		}
		tick()
	}
	writes := 0
	acknowledged := make(map[string]bool)
	for len(acknowledged) < fleet {
		answer, ok := <-watch
		if !ok {
			t.Fatalf("%d of %d members have acknowledged the last revision", len(acknowledged), fleet)
		}
		for _, e := range answer.Events {
			if e.Type == clientv3.EventTypeDelete {
				t.Errorf("%s is lost", e.Kv.Key)
			}
			writes++
			if m := decodeMember("", "", e.Kv.Value); m.Here() != nil && m.Here().Revision == last {
				acknowledged[string(e.Kv.Key)] = true
			}
		}
	}
	took := time.Since(begun)
	// Each may have written at once, then once a pace, then what came last.
	if most := fleet * (2 + int(took/pace(fleet*9/10))); writes > most {
		t.Errorf("%d reports of %d members made %d writes in %v, want at most %d", reports, fleet, writes, took, most)
	}
	t.Logf("%d members, %d reports each: %d writes in %v", fleet, reports, writes, took)
}

func TestPace(t *testing.T) {
	f := func(members int, wantSpread, wantPace time.Duration) {
		t.Helper()
		if s, p := spread(members), pace(members); s != wantSpread || p != wantPace {
			t.Errorf("%d members: got %v and %v, want %v and %v", members, s, p, wantSpread, wantPace)
		}
	}
	f(0, 0, 250*time.Millisecond)
	f(50, 100*time.Millisecond, 250*time.Millisecond)
	f(10_000, 20*time.Second, 20*time.Second)
}

func TestRetry(t *testing.T) {
	r := retry{least: time.Second, most: 5 * time.Second}
	for _, want := range []time.Duration{1, 2, 4, 5, 5} {
		if got := r.next(); got < want*time.Second/2 || got > want*time.Second {
			t.Errorf("got %v, want %ds or up to half of it", got, want)
		}
	}
	r.reset()
	if got := r.next(); got > time.Second {
		t.Errorf("after a reset: got %v", got)
	}
}
