package etcd

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"weir/admit"
	"weir/control"
	"weir/control/etcd/etcdtest"
	"weir/policy"
)

// sidecars is how many apply what is written, each with a connection, a source, a manager and a table of its own.
const sidecars = 50

// documents is how many policies there are.
const documents = 200

// BenchmarkApplyToAll measures from the end of Commit, which is what `sidecar apply` does last, until the last of 50 sidecars has put
// the change in force. All of them, etcd and the writer share the machine.
func BenchmarkApplyToAll(b *testing.B) {
	cluster := etcdtest.Start(b, etcdtest.Options{})
	layout := LayoutAt("/weir")
	writer := open(b, Options{Endpoints: cluster.Endpoints(), Timeout: time.Minute})
	if _, err := writer.Commit(b.Context(), []Write{{Key: layout.Document(policy.KindBackend, "orders"), Value: []byte(backendText)}}); err != nil {
		b.Fatal(err)
	}
	revisions := make([]int64, documents)
	round := 0
	commit := func(n int) int64 {
		round++
		var last int64
		for from := 0; from < n; from += MaxWrites {
			to := min(n, from+MaxWrites)
			writes := make([]Write, 0, MaxWrites)
			for i := from; i < to; i++ {
				name := fmt.Sprintf("tenant-%d", i)
				writes = append(writes, Write{Key: layout.Document(policy.KindTenantPolicy, name), Value: []byte(document(name, round)), Expect: revisions[i]})
			}
			var err error
			if last, err = writer.Commit(b.Context(), writes); err != nil {
				b.Fatal(err)
			}
			for i := from; i < to; i++ {
				revisions[i] = last
			}
		}
		return last
	}
	last := commit(documents)
	managers := make([]*control.Manager, sidecars)
	for i := range managers {
		managers[i] = newSidecar(b, cluster.Endpoints(), layout)
	}
	waitFor := func(revision int64) {
		for _, m := range managers {
			for m.Status().Sources[0].Revision < revision {
				time.Sleep(time.Millisecond) // a benchmark may
			}
		}
	}
	waitFor(last)
	f := func(name string, n int) {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			before := cpu(b)
			for b.Loop() {
				revision := commit(n)
				begun := time.Now()
				waitFor(revision)
				took = append(took, time.Since(begun))
			}
			report(b, took)
			b.ReportMetric((cpu(b)-before).Seconds()*1000/float64(len(took)*sidecars), "cpu-ms/sidecar")
		})
	}
	f("one limit", 1)
	f("all documents", documents)
}

// newSidecar runs what of a sidecar applies policies.
func newSidecar(b *testing.B, endpoints []string, layout Layout) *control.Manager {
	b.Helper()
	var table *admit.Table
	begun := time.Now()
	m, err := control.NewManager(control.Options{
		Logger: zerolog.Nop(), Registerer: prometheus.NewRegistry(),
		Apply: func(s *policy.Snapshot) error {
			next, err := admit.Build(table, s, int64(time.Since(begun)), admit.Options{})
			if err == nil {
				table = next
			}
			return err
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	s := NewSource(SourceOptions{Name: "etcd", Client: open(b, Options{Endpoints: endpoints}), Layout: layout, Logger: zerolog.Nop()})
	ctx, cancel := context.WithCancel(context.Background())
	if err := m.Start(ctx, s); err != nil {
		cancel()
		b.Fatal(err)
	}
	b.Cleanup(func() { cancel(); m.Wait() })
	return m
}

// cpu is the time that the process has had on the processors, etcd included.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// report reports quantiles in milliseconds.
func report(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[min(len(took)-1, int(q*float64(len(took))))]) / float64(time.Millisecond)
	}
	b.ReportMetric(0, "ns/op") // says nothing here
	b.ReportMetric(at(0.50), "p50-ms")
	b.ReportMetric(at(0.95), "p95-ms")
	b.ReportMetric(at(1), "max-ms")
}

// comeback is what a restart of etcd was like for its followers.
type comeback struct {
	back    []time.Duration // when each was back, since etcd was
	lists   int             // how many lists were made because of it
	busiest int             // how many came within one tenth of a second, at most
}

// restart has n followers, up to perClient of them to a connection, go through a restart of etcd. They come back over that spread; 0 is
// the usual one.
func restart(t testing.TB, n, perClient int, spread time.Duration) comeback {
	t.Helper()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put("/w/a", "1")
	var (
		mu      sync.Mutex
		back    []time.Time
		gone    atomic.Int64 // how many are away now
		seen    atomic.Int64 // how many have what was written after the restart
		running sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(context.Background())
	followers := make([]*Follower, n)
	var client *Client
	for i := range n {
		if i%perClient == 0 {
			client = open(t, Options{Endpoints: cluster.Endpoints()})
		}
		f := NewFollower(FollowerOptions{Client: client, Prefix: "/w/", Logger: zerolog.Nop(), Spread: spread})
		followers[i] = f
		running.Go(func() {
			away, current := false, false
			_ = f.Run(ctx, func(v View) {
				if !current && string(v.Items[0].Value) == "2" {
					current = true
					seen.Add(1)
				}
				if away {
					away = false
					gone.Add(-1)
					mu.Lock()
					back = append(back, time.Now())
					mu.Unlock()
				}
			}, func(error) {
				if !away {
					away = true
					gone.Add(1)
				}
			})
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	connected := func() bool {
		return !slices.ContainsFunc(followers, func(f *Follower) bool { return !f.Stats().Connected })
	}
	eventually(t, "all watches", connected)
	mu.Lock()
	back = nil // of those who were not served at once when they began
	mu.Unlock()
	cluster.Stop(0)
	eventually(t, "all to notice", func() bool { return gone.Load() == int64(n) })
	cluster.Restart(0)
	ready := time.Now()
	cluster.Put("/w/a", "2")
	eventually(t, "all to be back with what was written", func() bool { return seen.Load() == int64(n) && connected() })

	var result comeback
	mu.Lock()
	defer mu.Unlock()
	slices.SortFunc(back, time.Time.Compare)
	for i, at := range back {
		result.back = append(result.back, at.Sub(ready))
		j := i
		for j < len(back) && back[j].Sub(at) < 100*time.Millisecond {
			j++
		}
		result.busiest = max(result.busiest, j-i)
	}
	for _, f := range followers {
		result.lists += f.Stats().Lists - 1
	}
	return result
}

// All watches come back by revision, none by a list, and not at one moment.
func TestRestartIsNoStampede(t *testing.T) {
	t.Parallel()
	const n = 200
	// A tenth of a second is a thirtieth of the spread, so that not every moment in which a busy machine stands still looks like a stampede.
	got := restart(t, n, 1, 3*time.Second)
	if got.lists > 0 {
		t.Errorf("%d of %d listed again, want none", got.lists, n)
	}
	if got.busiest > n/2 {
		t.Errorf("%d of %d came back within a tenth of a second", got.busiest, n)
	}
	t.Logf("back within %s, at most %d in a tenth of a second", got.back[n-1], got.busiest)
}

// BenchmarkRestart measures how 10,000 watches, 100 to a connection, come back to a member that was restarted.
func BenchmarkRestart(b *testing.B) {
	const n = 10_000
	var took []time.Duration
	busiest, lists := 0, 0
	for b.Loop() {
		got := restart(b, n, 100, 0)
		took, busiest, lists = append(took, got.back...), max(busiest, got.busiest), lists+got.lists
	}
	report(b, took)
	b.ReportMetric(float64(busiest), "most-in-100ms")
	b.ReportMetric(float64(lists), "lists")
}
