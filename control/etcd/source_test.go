package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"weir/control"
	"weir/control/etcd/etcdtest"
	"weir/policy"
)

// document is a TenantPolicy of one limit.
func document(name string, requests int) string {
	return fmt.Sprintf("apiVersion: weir.dev/v1alpha1\nkind: TenantPolicy\nmetadata: {name: %s}\nspec:\n  tenants: {names: [%s]}\n"+
		"  limits:\n  - {name: steady, requests: %d, per: 1s} # as agreed\n", name, name, requests)
}

// backendText makes a set of policies complete.
const backendText = "apiVersion: weir.dev/v1alpha1\nkind: Backend\nmetadata: {name: orders}\nspec: {endpoints: [{address: \"127.0.0.1:9000\"}]}\n"

func TestFileOf(t *testing.T) {
	layout := LayoutAt("/weir")
	f := func(key, want string) {
		t.Helper()
		got := fileOf("platform", layout, Item{Key: key, Value: []byte("x")})
		if text := fmt.Sprintf("%s %s %s %v", got.Path, got.Kind, got.Name, got.Err); text != want || string(got.Data) != "x" {
			t.Errorf("got  %s\nwant %s", text, want)
		}
	}
	f(layout.Document(policy.KindTenantPolicy, "gold"), "platform:TenantPolicy/gold TenantPolicy gold <nil>")
	// Keys that somebody made by hand.
	f(layout.Policy()+"gold", "platform:gold   the key /weir/v1/policy/gold is not of a document, want /weir/v1/policy/KIND/NAME")
	f(layout.Policy()+"TenantPolicy/gold/x", "platform:TenantPolicy/gold/x   the key /weir/v1/policy/TenantPolicy/gold/x is not of a document, want /weir/v1/policy/KIND/NAME")
}

// sourced is a source that runs, and what it said.
type sourced struct {
	t       *testing.T
	s       *Source
	mu      sync.Mutex
	batches []control.Batch
	log     bytes.Buffer
	end     func()
}

// Write collects the log.
func (r *sourced) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func source(t *testing.T, o SourceOptions) *sourced {
	t.Helper()
	r := &sourced{t: t}
	o.Name, o.Layout, o.Logger = "platform", LayoutAt("/weir"), zerolog.New(r)
	o.Follow.Spread = 50 * time.Millisecond
	r.s = NewSource(o)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.s.Run(ctx, func(b control.Batch) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.batches = append(r.batches, b)
		}); err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	r.end = func() { cancel(); running.Wait() }
	t.Cleanup(r.end)
	return r
}

// said are the batches so far, and the log.
func (r *sourced) said() ([]control.Batch, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.batches), r.log.String()
}

// latest waits until the latest batch is as wanted.
func (r *sourced) latest(what string, holds func(control.Batch) bool) control.Batch {
	r.t.Helper()
	var b control.Batch
	eventually(r.t, what, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.batches) == 0 {
			return false
		}
		b = r.batches[len(r.batches)-1]
		return holds(b)
	})
	return b
}

func failedBy(cause Cause) func(control.Batch) bool {
	return func(b control.Batch) bool { return b.Err != nil && CauseOf(b.Err) == cause }
}

func hasFiles(n int) func(control.Batch) bool {
	return func(b control.Batch) bool { return b.Err == nil && len(b.Files) == n }
}

func TestSource(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	layout := LayoutAt("/weir")
	cluster.Put(layout.Document(policy.KindTenantPolicy, "gold"), document("gold", 5))
	cluster.Put(layout.Document(policy.KindBackend, "orders"), backendText)
	cluster.Put(layout.Fleets()+"orders/members/1", "{}") // not a document
	r := source(t, SourceOptions{Client: open(t, quick(cluster.Endpoints()...))})
	b := r.latest("two documents", hasFiles(2))
	if b.Files[0].Path != "platform:Backend/orders" || b.Files[1].Path != "platform:TenantPolicy/gold" || b.ConfirmedRemovals != 0 {
		t.Errorf("got %+v", b)
	}
	// A record of a change is no document, and says what was confirmed.
	cluster.Put(layout.Change(), string(Change{By: "ann@desk", ConfirmedRemovals: 3}.Encode()))
	b = r.latest("a confirmation", func(b control.Batch) bool { return b.ConfirmedRemovals == 3 })
	if len(b.Files) != 2 || b.Revision != r.s.Stats().Revision {
		t.Errorf("got %+v, and stats %+v", b, r.s.Stats())
	}
	// One that cannot be read confirms nothing, and says so once.
	revision := cluster.Put(layout.Change(), "{")
	cluster.Put(layout.Document(policy.KindTenantPolicy, "iron"), document("iron", 5))
	b = r.latest("three documents", hasFiles(3))
	before, log := r.said()
	if b.ConfirmedRemovals != 0 || b.Revision != revision+1 || strings.Count(log, "cannot be seen to be confirmed") != 1 {
		t.Errorf("got %+v\n%s", b, log)
	}
	r.s.Reload()
	r.latest("the same again", func(control.Batch) bool { return len(r.batches) > len(before) })
}

// Without etcd the source says so soon, so that last-good documents come into force; and it goes on trying.
func TestStartWithoutEtcd(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put(LayoutAt("/weir").Document(policy.KindBackend, "orders"), backendText)
	relay, endpoint := lineTo(t, cluster, 0)
	relay.Cut()
	r := source(t, SourceOptions{Client: open(t, Options{Endpoints: []string{endpoint}}), Patience: 200 * time.Millisecond})
	b := r.latest("an error", failedBy(Unreachable))
	if text := b.Err.Error(); !strings.Contains(text, endpoint) || !strings.Contains(text, "no answer from etcd") {
		t.Errorf("the error is %q", text)
	}
	relay.Heal()
	r.latest("the documents", hasFiles(1))
}

// What is over before its patience ends is nobody's trouble.
func TestShortOutageIsNotTold(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put(LayoutAt("/weir").Document(policy.KindBackend, "orders"), backendText)
	relay, endpoint := lineTo(t, cluster, 0)
	r := source(t, SourceOptions{Client: open(t, quick(endpoint)), Patience: time.Hour})
	r.latest("the documents", hasFiles(1))
	connected := func(want bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("connected to be %v", want), func() bool { return r.s.Stats().Connected == want })
	}
	connected(true)
	relay.Cut()
	connected(false)
	relay.Heal()
	connected(true)
	batches, _ := r.said()
	for _, b := range batches {
		if b.Err != nil {
			t.Errorf("a moment without etcd is told: %v", b.Err)
		}
	}
}

// What lasts is told once, and once more for each other cause, not for each try.
func TestOutagesAreToldOnce(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put(LayoutAt("/weir").Document(policy.KindBackend, "orders"), backendText)
	relay, endpoint := lineTo(t, cluster, 0)
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	r := source(t, SourceOptions{Client: open(t, quick(endpoint)), Patience: time.Second, Metrics: metrics})
	connected := func(want float64) {
		t.Helper()
		eventually(t, fmt.Sprintf("weir_etcd_connected to be %v", want), func() bool { return gauge(t, registry, "weir_etcd_connected") == want })
	}
	r.latest("the documents", hasFiles(1))
	connected(1)

	relay.Cut()
	connected(0)
	r.latest("an error", failedBy(Unreachable))
	eventually(t, "several tries", func() bool { return r.s.Stats().Restarts[Unreachable] > 3 })
	if stale := gauge(t, registry, "weir_policy_stale_seconds"); stale < 1 {
		t.Errorf("stale for %v s after a second without etcd", stale)
	}
	relay.Heal()
	r.latest("the documents", hasFiles(1))
	told := make(map[Cause]int)
	batches, log := r.said()
	for _, b := range batches {
		if b.Err != nil {
			told[CauseOf(b.Err)]++
		}
	}
	for cause, times := range told {
		if times != 1 {
			t.Errorf("an outage is told %d times as %s\n%s", times, cause, log)
		}
	}
	got, err := testutil.GatherAndCount(registry, "weir_etcd_watch_restarts_total", "weir_policy_store_revision", "weir_policy_drift_total")
	if err != nil || got < 4 {
		t.Errorf("%d series, %v", got, err)
	}
	r.end()
	if got, err := testutil.GatherAndCount(registry); err != nil || got != 0 {
		t.Errorf("a source that has ended leaves %d series, %v", got, err)
	}
}

// gauge is the value of a metric with one series.
func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// One bad document keeps its last good version, whatever is bad about it, and all others move on.
func TestBadDocumentIsIsolated(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	layout := LayoutAt("/weir")
	key := func(name string) string { return layout.Document(policy.KindTenantPolicy, name) }
	cluster.Put(layout.Document(policy.KindBackend, "orders"), backendText)
	cluster.Put(key("gold"), document("gold", 5))
	cluster.Put(key("silver"), document("silver", 5))
	m, err := control.NewManager(control.Options{
		Logger: zerolog.Nop(), Registerer: prometheus.NewRegistry(), Apply: func(*policy.Snapshot) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); m.Wait() })
	s := NewSource(SourceOptions{Name: "platform", Client: open(t, quick(cluster.Endpoints()...)), Layout: layout, Logger: zerolog.Nop()})
	if err := m.Start(ctx, s); err != nil {
		t.Fatal(err)
	}
	good := 5
	f := func(bad, problem string) {
		t.Helper()
		cluster.Put(key("gold"), bad)
		good++
		cluster.Put(key("silver"), document("silver", good))
		eventually(t, "silver to move on while gold stays: "+problem, func() bool {
			text := ""
			for _, o := range m.Status().Objects {
				if o.Kind == policy.KindTenantPolicy {
					text += o.Text
				}
			}
			var messages []string
			for _, p := range m.Status().Problems {
				messages = append(messages, p.String())
			}
			return strings.Contains(text, "gold") && strings.Contains(text, fmt.Sprintf("requests: %d", good)) &&
				slices.ContainsFunc(messages, func(m string) bool { return strings.Contains(m, problem) })
		})
	}
	f(strings.Replace(document("gold", 5), "requests", "request", 1), `spec.limits[0].request: unknown field`)
	f("{", "platform:TenantPolicy/gold:1:")
	f("", "platform:TenantPolicy/gold: nothing is here, want TenantPolicy \"gold\", which is kept as it was")
	f(document("silver", 1), `platform:TenantPolicy/gold: TenantPolicy "silver" is here, want TenantPolicy "gold"`)
	f(strings.Replace(document("gold", 5), "limits:\n", "backend: nowhere\n  limits:\n", 1), `no Backend is named "nowhere"`)
	// A good one again.
	cluster.Put(key("gold"), document("gold", 9))
	eventually(t, "the whole to be in force", func() bool { return m.Status().Whole })
}

func TestCauseOf(t *testing.T) {
	f := func(err error, want Cause) {
		t.Helper()
		if got := CauseOf(err); got != want {
			t.Errorf("%v: got %s, want %s", err, got, want)
		}
		if got := CauseOf(fmt.Errorf("cannot follow: %w; more", err)); got != want {
			t.Errorf("%v, within another error: got %s, want %s", err, got, want)
		}
	}
	f(context.DeadlineExceeded, Unreachable)
	f(context.Canceled, Ended)
	f(fmt.Errorf("%w: empty", ErrNoPassword), Files)
	f(errors.New("rpc error: transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate has expired"), Certificate)
	f(errors.New("something else"), Other)
	f(status.Error(codes.ResourceExhausted, "trying to send message larger than max (2097504 vs. 2097152)"), TooLarge)
	f(status.Error(codes.ResourceExhausted, "quota of something in between"), Overloaded)
	f(status.Error(codes.Unimplemented, "unexpected HTTP status code received from server: 404 (Not Found)"), Unreachable)
	for reason, want := range map[string]Cause{
		"rpc error: code = PermissionDenied desc = etcdserver: permission denied":  Forbidden,
		"rpc error: code = Unauthenticated desc = etcdserver: invalid auth token":  Login,
		"etcdserver: user name is empty":                                           Login,
		"etcdserver: authentication failed, invalid user ID or password":           Login,
		"etcdserver: mvcc: required revision has been compacted":                   Compacted,
		"rpc error: code = Unavailable desc = etcdserver: no leader":               NoLeader,
		"etcdserver: request timed out, possibly due to previous leader failure":   NoLeader,
		"rpc error: code = ResourceExhausted desc = etcdserver: too many requests": Overloaded,
		"etcdserver: request is too large":                                         TooLarge,
		"etcdserver: mvcc: database space exceeded":                                NoSpace,
		"etcdserver: corrupt cluster":                                              Corrupt,
		"":                                                                         Ended,
	} {
		f(canceled(reason), want)
	}
	// Every cause says what to do.
	for _, cause := range []Cause{Unreachable, Ended, Stalled, NoLeader, Login, Forbidden, Certificate, Files, NoSpace, Corrupt, Overloaded, TooLarge, Other} {
		if len(cause.Advice()) < len("nothing, ") || pacingOf(cause).most <= 0 || pacingOf(cause).anew {
			t.Errorf("%s: %+v", cause, pacingOf(cause))
		}
	}
}

// A source that was replaced by another of its name before it ended does not take the other's metrics along.
func TestReplacedSourceIsShown(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	f := func(when string, want int) {
		t.Helper()
		if got, err := testutil.GatherAndCount(registry, "weir_etcd_connected"); err != nil || got != want {
			t.Errorf("%s: %d series, %v, want %d", when, got, err, want)
		}
	}
	c := open(t, quick("http://127.0.0.1:1"))
	hideFirst := metrics.show(NewSource(SourceOptions{Name: "platform", Client: c}))
	hideSecond := metrics.show(NewSource(SourceOptions{Name: "platform", Client: c}))
	f("both run", 1)
	hideFirst()
	f("the second runs", 1)
	hideSecond()
	f("none runs", 0)
}
