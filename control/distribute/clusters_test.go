package distribute

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"weir/control"
	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
	"weir/policy"
)

// patience is how long a test waits for something that should come soon.
const patience = 2 * time.Minute

// bcryptLeast is the least cost of a password that there is.
const bcryptLeast = 4

// world is a source, some clusters behind lines that can fail, and a distributor between them.
type world struct {
	t        testing.TB
	source   *etcdtest.Cluster
	targets  []*etcdtest.Cluster
	lines    []*etcdtest.Relay
	writer   *etcd.Client   // of the source
	readers  []*etcd.Client // of the targets, not through the lines
	layout   etcd.Layout
	d        *Distributor
	stop     func()
	statuses chan struct{}
	log      *logBuffer
}

// logBuffer keeps log lines.
type logBuffer struct {
	mu    sync.Mutex
	lines strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.String()
}

// newWorld starts clusters. Nothing is distributed yet.
func newWorld(t testing.TB, targets int, configure func(i int, o *etcdtest.Options)) *world {
	t.Helper()
	w := &world{t: t, source: etcdtest.Start(t, etcdtest.Options{}), layout: etcd.LayoutAt("/weir"), log: new(logBuffer)}
	w.writer = w.open(w.source.Endpoints())
	for i := range targets {
		// A login costs little: under the race detector it would take seconds.
		o := etcdtest.Options{Configure: func(c *embed.Config) { c.BcryptCost = bcryptLeast }}
		if configure != nil {
			configure(i, &o)
		}
		c := etcdtest.Start(t, o)
		w.targets = append(w.targets, c)
		w.lines = append(w.lines, etcdtest.NewRelay(t, c.Address(0)))
		w.readers = append(w.readers, w.open(c.Endpoints()))
	}
	return w
}

func (w *world) open(endpoints []string) *etcd.Client {
	w.t.Helper()
	c, err := etcd.Open(etcd.Options{Endpoints: endpoints})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// distribution is a Distribution from the source to all targets, each with what more says of it.
func (w *world) distribution(more func(i int) string) *policy.Document {
	w.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: %s\nkind: Distribution\nmetadata: {name: platform}\nspec:\n  from: {endpoints: [%q]}\n  to:\n", policy.APIVersion, w.source.Endpoint(0))
	for i := range w.targets {
		fmt.Fprintf(&b, "  - name: c%d\n    etcd: {endpoints: [%q]}\n", i, "http://"+w.lines[i].Address())
		if more != nil {
			b.WriteString(more(i))
		}
	}
	return document(w.t, b.String())
}

func document(t testing.TB, text string) *policy.Document {
	t.Helper()
	docs, problems := policy.Decode("distribution.yaml", []byte(text))
	if len(problems) > 0 || len(docs) != 1 {
		t.Fatalf("%d documents, %v in\n%s", len(docs), problems, text)
	}
	return docs[0]
}

// start distributes until the test ends or stop is called.
func (w *world) start(o Options) {
	w.t.Helper()
	w.statuses = make(chan struct{}, 1)
	o.Logger = zerolog.New(zerolog.SyncWriter(w.log)).With().Timestamp().Logger()
	o.Registerer = prometheus.NewRegistry()
	o.OnStatus = func() {
		select {
		case w.statuses <- struct{}{}:
		default:
		}
	}
	if o.By == "" {
		o.By = "test"
	}
	var err error
	if w.d, err = New(o); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.d.Run(ctx) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				w.t.Errorf("Run: %v", err)
			}
		})
	}
	w.t.Cleanup(w.stop)
}

// apply writes documents to the source in one transaction, and returns its revision. An empty text deletes.
func (w *world) apply(change etcd.Change, texts map[string]string) int64 {
	w.t.Helper()
	ctx := context.Background()
	view, err := w.writer.Read(ctx, w.layout.Policy(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	var writes []etcd.Write
	put := func(key string, value []byte) {
		item, _ := view.Find(key)
		writes = append(writes, etcd.Write{Key: key, Value: value, Expect: item.Modified})
	}
	put(w.layout.Change(), change.Encode())
	for key, text := range texts {
		var value []byte
		if text != "" {
			value = []byte(text)
		}
		put(w.layout.Policy()+key, value)
	}
	revision, err := w.writer.Commit(ctx, writes)
	if err != nil {
		w.t.Fatal(err)
	}
	return revision
}

// await waits until the status of the distribution is as wanted.
func (w *world) await(what string, want func(*control.SyncStatus) bool) control.SyncStatus {
	w.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s := w.d.Status()
		if want(&s) {
			return s
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			w.t.Fatalf("%s: not so after %v:\n%s\n%s", what, patience, s.Text(), w.log)
		}
	}
}

// inStepAt waits until the chosen clusters are in step with a revision of the source or a later one.
func (w *world) inStepAt(revision int64, chosen ...int) {
	w.t.Helper()
	if len(chosen) == 0 {
		for i := range w.targets {
			chosen = append(chosen, i)
		}
	}
	w.await(fmt.Sprintf("clusters %v in step at %d", chosen, revision), func(s *control.SyncStatus) bool {
		for _, i := range chosen {
			if c := s.Clusters[i]; c.State != inStep || c.Applied < revision {
				return false
			}
		}
		return true
	})
}

// texts are the documents of a cluster by KIND/NAME, or nil while it does not answer.
func (w *world) texts(c *etcd.Client) map[string]string {
	view, err := c.Read(context.Background(), w.layout.Policy(), 0)
	if err != nil {
		return nil
	}
	all := make(map[string]string)
	for _, item := range view.Items {
		if item.Key != w.layout.Change() {
			all[strings.TrimPrefix(item.Key, w.layout.Policy())] = string(item.Value)
		}
	}
	return all
}

// awaitTexts waits until a cluster has these documents and no others.
func (w *world) awaitTexts(i int, want map[string]string) {
	w.t.Helper()
	w.await(fmt.Sprintf("documents of cluster %d", i), func(*control.SyncStatus) bool { return fmt.Sprint(w.texts(w.readers[i])) == fmt.Sprint(want) })
}

// policyText is a TenantPolicy for one tenant.
func policyText(name string, requests int) string {
	return fmt.Sprintf("apiVersion: %s\nkind: TenantPolicy\nmetadata: {name: %s}\nspec: # of %s\n  tenants: {names: [%s]}\n  limits: [{name: steady, requests: %d}]\n",
		policy.APIVersion, name, name, name, requests)
}

const backendText = "apiVersion: weir.dev/v1alpha1\nkind: Backend\nmetadata: {name: orders}\nspec: {endpoints: [{address: \"127.0.0.1:9000\"}]}\n"
const routeText = "apiVersion: weir.dev/v1alpha1\nkind: Route\nmetadata: {name: orders}\nspec: {backend: orders, match: [{path: /*}]}\n"

// some documents.
func firstTexts(policies int) map[string]string {
	all := map[string]string{"Backend/orders": backendText, "Route/orders": routeText}
	for i := range policies {
		name := fmt.Sprintf("t%d", i)
		all["TenantPolicy/"+name] = policyText(name, 100)
	}
	return all
}

// rootPassword is root's wherever secure was called.
const rootPassword = "root"

// secure demands a login at a cluster, where sync may write what it has to.
func (w *world) secure(i int, password string) {
	w.t.Helper()
	client, ctx := w.targets[i].Client(), context.Background()
	must := func(_ any, err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	must(client.UserAdd(ctx, "root", rootPassword))
	must(client.UserGrantRole(ctx, "root", "root"))
	must(client.RoleAdd(ctx, "sync"))
	must(client.RoleGrantPermission(ctx, "sync", w.layout.Policy(), clientv3.GetPrefixRangeEnd(w.layout.Policy()), clientv3.PermissionType(clientv3.PermReadWrite)))
	must(client.RoleGrantPermission(ctx, "sync", w.layout.Sync(), clientv3.GetPrefixRangeEnd(w.layout.Sync()), clientv3.PermissionType(clientv3.PermReadWrite)))
	must(client.UserAdd(ctx, "sync", password))
	must(client.UserGrantRole(ctx, "sync", "sync"))
	must(client.AuthEnable(ctx))
	file := filepath.Join(w.t.TempDir(), "root")
	if err := os.WriteFile(file, []byte(rootPassword), 0o600); err != nil {
		w.t.Fatal(err)
	}
	reader, err := etcd.Open(etcd.Options{Endpoints: w.targets[i].Endpoints(), Username: "root", PasswordFile: file})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = reader.Close() })
	w.readers[i] = reader
}

// root does something at a secured cluster.
func (w *world) root(i int, do func(ctx context.Context, c *clientv3.Client) error) {
	w.t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: w.targets[i].Endpoints(), Username: "root", Password: rootPassword, Logger: zap.NewNop(), DialTimeout: 5 * time.Second,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	if err := do(context.Background(), client); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) userPassword(i int, password string) {
	w.t.Helper()
	w.root(i, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.UserChangePassword(ctx, "sync", password)
		return err
	})
}

// login has a distribution log in to a secured cluster.
func (w *world) login(distribution *policy.Document, i int, password string) (file string) {
	w.t.Helper()
	file = filepath.Join(w.t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		w.t.Fatal(err)
	}
	target := &distribution.Spec.(*policy.DistributionSpec).To[i]
	target.Etcd.Username, target.Etcd.PasswordFile = "sync", file
	return file
}
