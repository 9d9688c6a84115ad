package fleet

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
)

// coordinators are those that take themselves for elected.
func coordinators(t testing.TB, sidecars []*sidecar) (ones []int) {
	t.Helper()
	for i, s := range sidecars {
		if s.coordinates(t) {
			ones = append(ones, i)
		}
	}
	return ones
}

// elects waits for the one that coordinates, and checks all the while that there are never two.
func elects(t testing.TB, what string, sidecars []*sidecar, except int) (one int) {
	t.Helper()
	eventually(t, what, func() bool {
		switch ones := coordinators(t, sidecars); {
		case len(ones) > 1:
			t.Fatalf("%s: %v coordinate at a time", what, ones)
		case len(ones) == 1 && ones[0] != except:
			one = ones[0]
			return true
		}
		return false
	})
	return one
}

// Five members, each behind a line of its own. The coordinator vanishes: it stops before another one begins, and does not come back into
// its office.
func TestCoordinatorVanishes(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{})
	observer := open(t, cluster.Endpoint(0))
	revision := put(cluster, "gold=1", "silver=1")
	var sidecars []*sidecar
	var relays []*etcdtest.Relay
	for i := range 5 {
		relays = append(relays, etcdtest.NewRelay(t, cluster.Address(0)))
		s := join(t, open(t, "http://"+relays[i].Address()), fmt.Sprintf("web-%d", i))
		s.Report(applied(revision, "gold=1", "silver=1"))
		sidecars = append(sidecars, s)
	}
	first := elects(t, "one is elected", sidecars, -1)
	eventually(t, "it counts all", func() bool { return sidecars[first].counted(t) == [3]float64{5, 0, 0} })
	eventually(t, "it does what only one does", func() bool { return sidecars[first].extra.Load() })

	relays[first].Stall()
	second := elects(t, "another one is elected", sidecars, first)
	if got := sidecars[first].counted(t); got != [3]float64{} {
		t.Errorf("the deposed one still counts %v", got)
	}
	eventually(t, "it counts those that are left", func() bool { return sidecars[second].counted(t) == [3]float64{4, 0, 0} })
	relays[first].Heal()
	eventually(t, "all are counted again", func() bool { return sidecars[second].counted(t) == [3]float64{5, 0, 0} })
	if now := elects(t, "one coordinates", sidecars, -1); now != second {
		t.Errorf("%d coordinates, %d was elected and has not failed", now, second)
	}
	eventually(t, "everybody knows who", func() bool {
		for _, s := range sidecars {
			if s.Look(context.Background()).Coordinator != sidecars[second].id() {
				return false
			}
		}
		return true
	})

	// a clean end makes place at once
	sidecars[second].stop()
	third := elects(t, "a third one is elected", sidecars, second)
	eventually(t, "it counts the others", func() bool { return sidecars[third].counted(t) == [3]float64{4, 0, 0} })

	// somebody throws it out: it notices with its next check, and what it might write as coordinator till then is refused
	if _, err := observer.Etcd().Delete(context.Background(), coordinatorKey(layout, "orders")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one holds the office, and knows it", func() bool {
		office, err := sidecars[first].incumbent(context.Background())
		ones := coordinators(t, sidecars)
		return err == nil && len(ones) == 1 && strings.Contains(string(office.Value), `"`+sidecars[ones[0]].id()+`"`)
	})
}

// The coordinator sees who is behind and who has drifted, and names them in the log.
func TestCoordinatorCounts(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoint(0))
	var sidecars []*sidecar
	for i := range 3 {
		sidecars = append(sidecars, join(t, c, fmt.Sprintf("web-%d", i)))
	}
	one := sidecars[elects(t, "one is elected", sidecars, -1)]
	counts := func(what string, want ...float64) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s: %v, got %v", what, want, one.counted(t)), func() bool { return one.counted(t) == [3]float64(want) })
	}
	report := func(revision int64, documents ...string) {
		for _, s := range sidecars {
			s.Report(applied(revision, documents...))
		}
	}
	first := put(cluster, "gold=1", "silver=1")
	counts("nobody has said anything", 0, 3, 0)
	report(first, "gold=1", "silver=1")
	counts("all in sync", 3, 0, 0)
	second := put(cluster, "gold=2")
	counts("nobody has seen the change", 0, 3, 0)
	sidecars[0].Report(applied(second, "gold=2", "silver=1"))
	counts("one has", 1, 2, 0)
	report(second, "gold=2", "silver=1")
	counts("all have", 3, 0, 0)
	sidecars[2].Report(applied(second, "gold=1", "silver=1"))
	counts("one runs an old document", 2, 0, 1)
	eventually(t, "the log names it", func() bool {
		return strings.Contains(one.log.String(), "a member runs something else than etcd holds") && strings.Contains(one.log.String(), "TenantPolicy gold differs")
	})
	sidecars[2].Report(applied(second, "gold=2", "silver=1"))
	counts("it has mended", 3, 0, 0)
	eventually(t, "the log says so", func() bool { return strings.Contains(one.log.String(), "run what etcd holds again") })
	if n := strings.Count(one.log.String(), "a member runs something else"); n != 1 {
		t.Errorf("%d lines for one drift:\n%s", n, one.log)
	}
	// The store went on elsewhere, and a member has seen that: it is judged all the same.
	later := cluster.Put("/elsewhere", "x")
	sidecars[1].Report(applied(later, "gold=1", "silver=1"))
	counts("one that is ahead runs an old document", 2, 0, 1)
	eventually(t, "the office says how many there are", func() bool {
		view, err := c.Read(context.Background(), coordinatorKey(layout, "orders"), 0)
		return err == nil && len(view.Items) == 1 && strings.Contains(string(view.Items[0].Value), `"members":3`)
	})
}

// Three members of etcd lose their leader, then all of them restart: the fleet has one coordinator before and after.
func TestEtcdLosesItsLeader(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := etcdtest.Start(t, etcdtest.Options{Members: 3})
	c := open(t, cluster.Endpoints()...)
	revision := put(cluster, "gold=1")
	var sidecars []*sidecar
	for i := range 5 {
		s := join(t, open(t, cluster.Endpoints()...), fmt.Sprintf("web-%d", i))
		s.Report(applied(revision, "gold=1"))
		sidecars = append(sidecars, s)
	}
	counts := func(what string) {
		t.Helper()
		one := elects(t, what, sidecars, -1)
		eventually(t, what+": all are counted", func() bool {
			if ones := coordinators(t, sidecars); len(ones) == 1 {
				one = ones[0]
			}
			return sidecars[one].counted(t) == [3]float64{5, 0, 0}
		})
	}
	counts("at first")
	gone := cluster.Leader()
	cluster.Stop(gone)
	counts("without the leader")
	for _, s := range sidecars {
		s.Report(applied(revision+1, "gold=1"))
	}
	eventually(t, "acknowledgements go on", func() bool {
		n := 0
		for _, m := range members(t, c) {
			if m.Here() != nil && m.Here().Revision == revision+1 {
				n++
			}
		}
		return n == 5
	})
	cluster.Restart(gone)
	for i := range 3 {
		cluster.Stop(i)
	}
	eventually(t, "nobody coordinates without etcd", func() bool { return len(coordinators(t, sidecars)) == 0 })
	for i := range 3 {
		cluster.Resume(i)
	}
	counts("after a restart of all")
}

// The roster decodes what has changed, and keeps what is later of what it knows.
func TestRoster(t *testing.T) {
	r := roster{layout: layout, decoded: make(map[string]decoded)}
	item := func(id, record string, modified int64) etcd.Item {
		return etcd.Item{Key: membersPrefix(layout, "orders") + id, Value: []byte(record), Modified: modified}
	}
	r.meet(etcd.View{Items: []etcd.Item{item("a", `{"host":"one"}`, 1), item("b", `{"host":"two"}`, 2)}})
	r.meet(etcd.View{Items: []etcd.Item{item("a", `{"host":"not looked at"}`, 1), item("c", `{"host":"three"}`, 3)}})
	if got := fmt.Sprintln(r.members[0].Host, r.members[1].Host, len(r.members), len(r.decoded)); got != "one three 2 2\n" {
		t.Errorf("got %s", got)
	}
	if r.known() || r.ahead() {
		t.Error("it is known before the documents are")
	}
	r.want(Want{At: 10, Revision: 9})
	r.want(Want{At: 8, Revision: 8})
	if !r.known() || r.wanted.Revision != 9 {
		t.Errorf("got %+v", r.wanted)
	}
	r.meet(etcd.View{Items: []etcd.Item{item("a", `{"sources":[{"here":true,"revision":11}]}`, 4)}})
	if !r.ahead() {
		t.Error("a member has seen what is not known here")
	}
}

// The log has a line for each drift that lasts, not more of them at once than somebody reads, and one when they have mended.
func TestTellOfDrift(t *testing.T) {
	log := &logBuffer{}
	s := sidecarWithout(t, log)
	r := roster{}
	var drifted []Verdict
	for i := range maxDriftLines + 3 {
		drifted = append(drifted, Verdict{Member: Member{ID: fmt.Sprintf("m%d", i)}, State: StateDrifted, Reasons: []string{"it refuses Route a"}})
	}
	s.tellOfDrift(&r, drifted)
	if log.String() != "" {
		t.Errorf("what may mend in a moment is in the log:\n%s", log)
	}
	for id, d := range r.drifted {
		d.since = d.since.Add(-time.Minute)
		r.drifted[id] = d
	}
	s.tellOfDrift(&r, drifted)
	s.tellOfDrift(&r, drifted)
	if lines := strings.Count(log.String(), "\n"); lines != maxDriftLines+1 || !strings.Contains(log.String(), `"more":3`) {
		t.Errorf("%d lines:\n%s", lines, log)
	}
	s.tellOfDrift(&r, drifted[:1])
	if !strings.Contains(log.String(), `"members":12,"left":1`) {
		t.Errorf("the log:\n%s", log)
	}
}

func TestOfficeIsRead(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoint(0))
	s := sidecarWithout(t, &logBuffer{})
	s.o.Client = c
	if item, err := s.incumbent(context.Background()); err != nil || item.Key != "" || s.coordinator != "" {
		t.Errorf("without a coordinator: %+v, %v", item, err)
	}
	cluster.Put(coordinatorKey(layout, "orders"), `{"id":"web-9","members":321,"term":"new"}`)
	if item, err := s.incumbent(context.Background()); err != nil || item.Key == "" || s.coordinator != "web-9" || s.size.Load() != 321 {
		t.Errorf("got %+v, %v, %q, %d", item, err, s.coordinator, s.size.Load())
	}
	cluster.Put(coordinatorKey(layout, "orders"), `?`)
	if item, err := s.incumbent(context.Background()); err != nil || item.Key == "" {
		t.Errorf("a value that is none: the office must be taken, got %+v, %v", item, err)
	}
}
