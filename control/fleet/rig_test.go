package fleet

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control"
	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
	"weir/policy"
)

var layout = etcd.LayoutAt("/weir")

// ttl is as short as the clusters of tests take it.
const ttl = 2 * time.Second

// open connects to host:port addresses.
func open(t testing.TB, endpoints ...string) *etcd.Client {
	t.Helper()
	return openAs(t, "", "", endpoints...)
}

func openAs(t testing.TB, user, passwordFile string, endpoints ...string) *etcd.Client {
	t.Helper()
	c, err := etcd.Open(etcd.Options{Endpoints: endpoints, Timeout: time.Second, Username: user, PasswordFile: passwordFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// sidecar is one member of a fleet in a test.
type sidecar struct {
	*Fleet
	registry *prometheus.Registry
	log      *logBuffer
	stop     func() // ends it cleanly, and waits
}

// join joins the fleet of orders, as the sidecar of that host.
func join(t testing.TB, c *etcd.Client, host string) *sidecar {
	t.Helper()
	s := &sidecar{registry: prometheus.NewRegistry(), log: &logBuffer{}}
	metrics, err := NewMetrics(s.registry)
	if err != nil {
		t.Fatal(err)
	}
	s.Fleet = New(Options{
		Client: c, Layout: layout, Source: "platform", Service: "orders", Host: host, Address: "127.0.0.1:9901", Version: "v1",
		Started: time.Now(), TTL: ttl, Logger: zerolog.New(s.log), Metrics: metrics,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	s.stop = func() { cancel(); running.Wait() }
	t.Cleanup(s.stop)
	return s
}

// gauge is the value of a metric, 0 if it is not there.
func (s *sidecar) gauge(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var values []string
			for _, pair := range m.GetLabel() {
				values = append(values, pair.GetValue())
			}
			if family.GetName() == name && fmt.Sprint(values) == fmt.Sprint(append([]string{"platform"}, labels...)) {
				return m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func (s *sidecar) registered(t testing.TB) bool { return s.gauge(t, "weir_fleet_registered") == 1 }

func (s *sidecar) coordinates(t testing.TB) bool { return s.gauge(t, "weir_fleet_coordinator") == 1 }

// counted are the members in sync, behind and drifted that it shows.
func (s *sidecar) counted(t testing.TB) [3]float64 {
	t.Helper()
	return [3]float64{s.gauge(t, "weir_fleet_members", "in_sync"), s.gauge(t, "weir_fleet_members", "behind"), s.gauge(t, "weir_fleet_members", "drifted")}
}

// applied is a status with documents of a store applied up to a revision.
func applied(revision int64, documents ...string) control.Status {
	s := control.Status{
		Revision: 1, Hash: fmt.Sprintf("%064d", revision), AppliedAt: time.Unix(1_700_000_000+revision, 0),
		Sources: []control.SourceStatus{{Name: "platform", Healthy: true, Revision: revision}},
	}
	for _, d := range documents {
		name, content, _ := strings.Cut(d, "=")
		s.Objects = append(s.Objects, control.Object{
			Kind: policy.KindTenantPolicy, Name: name, State: control.Applied, Source: "platform", Text: text(name, content),
		})
	}
	return s
}

// put writes documents and returns the revision of the last one.
func put(c *etcdtest.Cluster, documents ...string) (revision int64) {
	for _, d := range documents {
		name, content, _ := strings.Cut(d, "=")
		revision = c.Put(layout.Document(policy.KindTenantPolicy, name), text(name, content))
	}
	return revision
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 40 s: %s", what)
		}
		tick()
	}
}

// tick is a moment between two looks at what goes on elsewhere.
func tick() { <-time.After(10 * time.Millisecond) }

// members reads who is there, with a client that no relay disturbs.
func members(t testing.TB, c *etcd.Client) []Member {
	t.Helper()
	list, _, err := ReadMembers(context.Background(), c, layout, "orders")
	if err != nil {
		t.Logf("reading members: %v", err)
	}
	return list
}

// revisionOf is the revision that the only member has acknowledged; 0 without one.
func revisionOf(list []Member) int64 {
	if len(list) != 1 || list[0].Here() == nil {
		return 0
	}
	return list[0].Here().Revision
}

// leaseOf is the lease of the only member's record.
func leaseOf(t testing.TB, c *etcd.Client) clientv3.LeaseID {
	t.Helper()
	view, err := c.Read(context.Background(), membersPrefix(layout, "orders"), 0)
	if err != nil || len(view.Items) != 1 {
		return 0
	}
	return clientv3.LeaseID(view.Items[0].Lease)
}

// logBuffer collects a log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lint checks the names and texts of the metrics.
func TestMetricsAreInOrder(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	g := m.of("platform")
	g.count(nil)
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	g.forget()
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 0 {
		t.Errorf("%d series are left of a fleet that was left, %v", n, err)
	}
}

// sidecarWithout is a place in a fleet without etcd.
func sidecarWithout(t testing.TB, log *logBuffer) *Fleet {
	t.Helper()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Layout: layout, Source: "platform", Service: "orders", Host: "web-1", Logger: zerolog.New(log), Metrics: metrics})
}
