package care

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"weir/control/etcd/etcdtest"
)

// The metrics are there while the monitor runs, say what changes, and go with it.
func TestMonitor(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{QuotaBytes: 16 * mib})
	registry, log := prometheus.NewRegistry(), &lines{}
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	m := NewMonitor(MonitorOptions{
		Client: open(t, cluster.Endpoints()...), Source: "etcd", Logger: zerolog.New(log), Metrics: metrics, Interval: 50 * time.Millisecond,
	})
	names := []string{"weir_etcd_alarms", "weir_etcd_db_in_use_bytes", "weir_etcd_db_quota_bytes", "weir_etcd_db_size_bytes"}
	series := func() int {
		n, err := testutil.GatherAndCount(registry, names...)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	value := func(vec *prometheus.GaugeVec, labels ...string) float64 {
		return testutil.ToFloat64(vec.WithLabelValues(append([]string{"etcd"}, labels...)...))
	}
	if n := series(); n != 0 {
		t.Errorf("%d series before it runs", n)
	}

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	until(t, "metrics are there", func() bool { return series() == 5 })
	if got := value(metrics.quota); got != 16*mib {
		t.Errorf("the quota is %v", got)
	}
	client := cluster.Client()
	until(t, "the store is full", func() bool {
		_, err := client.Put(ctx, "/junk/a", string(make([]byte, mib)))
		return err != nil
	})
	until(t, "the alarm is seen", func() bool { return value(metrics.alarms, AlarmNoSpace) == 1 })
	until(t, "the alarm is told", func() bool {
		return log.has(`"level":"error"`, `"check":"alarms"`, `etcd: alarm: NOSPACE by m0`, `etcd-defrag --disarm`)
	})
	told := log.count(`"check":"alarms"`)
	size := value(metrics.size, cluster.Endpoint(0))
	if size < 10*mib {
		t.Errorf("the store takes %v", size)
	}
	cluster.Stop(0)
	until(t, "a member that is gone has no size", func() bool { return series() == 0 })
	cluster.Restart(0)
	until(t, "it is back", func() bool { return series() == 5 })
	if n := log.count(`"check":"alarms"`); n != told {
		t.Errorf("the alarm was told %d times", n)
	}
	compactFull(t, cluster)
	c := open(t, cluster.Endpoints()...)
	if _, err := Defrag(ctx, c, plan(t, c), DefragOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Disarm(ctx, c); err != nil {
		t.Fatal(err)
	}
	until(t, "its end is told", func() bool { return log.has(`"level":"info"`, "etcd is well again: there are no alarms") })
	stop()
	running.Wait()
	if n := series(); n != 0 {
		t.Errorf("%d series after it has ended", n)
	}
}

// Two monitors of one process do not take away each other's series.
func TestMonitorsOfTwoSources(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMetrics(registry); err == nil {
		t.Error("the same metrics were registered twice")
	}
	one, two := NewMonitor(MonitorOptions{Source: "platform", Metrics: metrics}), NewMonitor(MonitorOptions{Source: "team", Metrics: metrics})
	one.show(well())
	two.show(well())
	one.clear()
	if n := testutil.CollectAndCount(metrics.size); n != 3 {
		t.Errorf("%d sizes are left of the other source, want 3", n)
	}
	if n := testutil.CollectAndCount(metrics.quota); n != 1 {
		t.Errorf("%d quotas are left of the other source, want 1", n)
	}
}

// What a monitor tells: a change, once, in either direction.
func TestMonitorTellsChanges(t *testing.T) {
	log := &lines{}
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	m := NewMonitor(MonitorOptions{Metrics: metrics, Logger: zerolog.New(log)})
	f := func(level Level, want int) {
		t.Helper()
		m.tell([]Finding{{Check: "space", Of: "a", Level: level, Message: "m"}, {Check: "space", Of: "b", Message: "well all the time"}})
		if n := log.count("\n"); n != want {
			t.Errorf("%d lines, want %d", n, want)
		}
	}

	f(OK, 0)
	f(Warning, 1)
	f(Warning, 1)
	f(Failure, 2)
	f(OK, 3)
	f(OK, 3)
	f(Failure, 4)
}

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// has reports whether one line has all of these.
func (l *lines) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}
