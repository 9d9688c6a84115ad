package distribute

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control"
	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
)

// How many clusters there are, and how long four of them are in trouble: make clusters has 17 and a minute.
var (
	manyClusters = flag.Int("clusters", 6, "clusters of TestManyClusters, at least 5")
	manyChanges  = flag.Int("changes", 100, "changes while all is well")
	manyDrifts   = flag.Int("drifts", 200, "documents that others change, delete or add")
	manyOutage   = flag.Duration("outage", 3*time.Second, "for how long clusters are in trouble")
)

// What happens to the first clusters in the time of trouble. The others are well.
const (
	down    = iota // its member is stopped
	stalled        // the line to it stalls, and others write there meanwhile
	refused        // its user may write no more, and others write there meanwhile
	full           // it has the alarm NOSPACE
	troubled
)

var troubles = []string{"down", "line stalled", "user revoked", "full"}

// manyPolicies is how many policies the source has.
const manyPolicies = 100

// sent are the changes made at the source: when each was in etcd.
type sent struct {
	mu sync.Mutex
	at map[int]time.Time
}

// arrivals are the changes that a cluster has got: when each, or a later one of the same document, was in its etcd.
type arrivals struct {
	mu  sync.Mutex
	lag map[int]time.Duration
}

// TestManyClusters keeps many clusters equal to one: it measures how long changes take to each, has others write to the clusters, and has
// four of them in trouble at once. Every document that others wrote must be found and taken back, every change must arrive everywhere in
// the end, and at clusters that are well at once.
func TestManyClusters(t *testing.T) {
	t.Parallel() // it mostly waits
	n := max(*manyClusters, troubled+1)
	w := newWorld(t, n, func(i int, o *etcdtest.Options) {
		if i == full {
			o.QuotaBytes = 16 << 20
		}
	})
	w.secure(refused, "secret")
	texts := firstTexts(manyPolicies)
	w.apply(etcd.Change{}, texts)
	distribution := w.distribution(nil)
	w.login(distribution, refused, "secret")
	w.start(Options{Distribution: distribution})
	w.inStepAt(1)
	for i := range n {
		w.awaitTexts(i, texts)
	}
	s := &sent{at: make(map[int]time.Time)}
	got := w.watchArrivals(s)
	well := seq(troubled, n)

	// All is well.
	for number := range *manyChanges {
		w.change(s, texts, number)
		pace(t, 30*time.Millisecond)
	}
	w.arrived(got, s, *manyChanges, seq(0, n)...)
	calm := figuresOf(got, 0, *manyChanges)

	// Others write to all clusters.
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	injected := make([]int, n)
	for k := range *manyDrifts {
		w.inject(random, k%n, k/n, texts)
		injected[k%n]++
	}
	w.driftIsGone(injected, seq(0, n), texts)

	// Four clusters are in trouble at once, and others write to two of them.
	began := time.Now()
	w.targets[down].Stop(0)
	w.lines[stalled].Stall()
	w.root(refused, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.UserRevokeRole(ctx, "sync", "sync")
		return err
	})
	w.fill(full)
	number := *manyChanges
	for ; number < *manyChanges+20 || time.Since(began) < *manyOutage; number++ {
		w.change(s, texts, number)
		if k := number - *manyChanges; k < 30 {
			for _, i := range []int{stalled, refused} {
				w.inject(random, i, 1000+k, texts)
				injected[i]++
			}
		}
		pace(t, 100*time.Millisecond)
	}
	w.arrived(got, s, number, well...)
	during := figuresOf(got, *manyChanges, number)
	status := w.d.Status()
	for i := range troubled {
		if c := status.Clusters[i]; c.State == inStep && c.BehindSeconds == 0 {
			t.Errorf("the cluster that is %s is in step: %+v", troubles[i], c)
		}
	}
	t.Log("in trouble:\n" + status.Text())

	// And well again, one after the other, so that each return can be measured.
	back := make([]time.Duration, n)
	for i, heal := range []func(){
		func() { w.targets[down].Restart(0) },
		w.lines[stalled].Heal,
		func() {
			w.root(refused, func(ctx context.Context, c *clientv3.Client) error {
				_, err := c.UserGrantRole(ctx, "sync", "sync")
				return err
			})
		},
		func() { w.empty(full) },
	} {
		heal()
		healed := time.Now()
		w.arrived(got, s, number, i)
		w.inStepAt(1, i)
		back[i] = time.Since(healed)
	}
	w.driftIsGone(injected, seq(0, n), texts)
	w.table(calm, during, injected, back)
}

// table prints the figures.
func (w *world) table(calm, during []figures, injected []int, back []time.Duration) {
	status := w.d.Status()
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CLUSTER\tTROUBLE\tLAG p50\tp95\tMAX\tIN TROUBLE p50\tp95\tMAX\tBACK AFTER\tDRIFT\tFOUND\tREPAIRED")
	for i, c := range status.Clusters {
		trouble, later, returned := "-", during[i].String(), "-"
		if i < troubled {
			trouble, later, returned = troubles[i], "-\t-\t-", back[i].Round(time.Millisecond).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\n", c.Name, trouble, calm[i], later, returned, injected[i], c.DriftFound, c.DriftRepaired)
	}
	_ = t.Flush()
	all, apart := merged(calm), merged(during[troubled:])
	w.t.Logf("%d changes while all is well: %s; %d while four clusters are in trouble, to those that are not: %s\n%s",
		len(calm[0]), strings.ReplaceAll(all.String(), "\t", ", "), len(during[troubled]), strings.ReplaceAll(apart.String(), "\t", ", "), b.String())
}

// figures are lags, sorted.
type figures []time.Duration

// String is the median, the 95th percentile and the greatest, with tabs between them.
func (f figures) String() string {
	if len(f) == 0 {
		return "-\t-\t-"
	}
	at := func(p float64) time.Duration { return f[int(p*float64(len(f)-1))].Round(100 * time.Microsecond) }
	return fmt.Sprintf("%v\t%v\t%v", at(0.5), at(0.95), at(1))
}

func figuresOf(got []*arrivals, from, to int) []figures {
	all := make([]figures, len(got))
	for i, a := range got {
		a.mu.Lock()
		for number := from; number < to; number++ {
			if lag, ok := a.lag[number]; ok {
				all[i] = append(all[i], lag)
			}
		}
		a.mu.Unlock()
		slices.Sort(all[i])
	}
	return all
}

func merged(all []figures) figures {
	one := slices.Concat(all...)
	slices.Sort(one)
	return one
}

func seq(from, to int) []int {
	var all []int
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

// pace waits for the next change to be due: this is the load itself.
func pace(t *testing.T, d time.Duration) {
	t.Helper()
	due := time.NewTimer(d)
	defer due.Stop()
	<-due.C
}

// change makes a change at the source. Each has a number, which is in the text.
func (w *world) change(s *sent, texts map[string]string, number int) {
	w.t.Helper()
	name := fmt.Sprintf("t%d", number%manyPolicies)
	key, text := "TenantPolicy/"+name, policyText(name, 1000+number)
	texts[key] = text
	w.apply(etcd.Change{}, map[string]string{key: text})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[number] = time.Now()
}

// watchArrivals notes what arrives at the clusters. It goes through other connections than the distributor's.
func (w *world) watchArrivals(s *sent) []*arrivals {
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	all := make([]*arrivals, len(w.targets))
	for i, reader := range w.readers {
		a := &arrivals{lag: make(map[int]time.Duration)}
		all[i] = a
		watching.Go(func() {
			next := int64(1)
			for ctx.Err() == nil {
				for answer := range reader.Etcd().Watch(ctx, w.layout.Policy()+"TenantPolicy/", clientv3.WithPrefix(), clientv3.WithRev(next)) {
					now := time.Now()
					next = max(next, answer.Header.Revision+1, answer.CompactRevision)
					for _, e := range answer.Events {
						a.note(s, string(e.Kv.Value), now)
					}
				}
			}
		})
	}
	w.t.Cleanup(func() { cancel(); watching.Wait() })
	return all
}

// note notes the change that a text is of, and those before it of the same document.
func (a *arrivals) note(s *sent, text string, now time.Time) {
	_, said, _ := strings.Cut(text, "requests: ")
	var requests int
	if _, err := fmt.Sscan(strings.TrimSuffix(strings.TrimSpace(said), "}]"), &requests); err != nil || requests < 1000 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for number := requests - 1000; number >= 0; number -= manyPolicies {
		if _, ok := a.lag[number]; ok {
			return
		}
		s.mu.Lock()
		at, ok := s.at[number]
		s.mu.Unlock()
		if !ok {
			at = now // it was there before its author heard that it was written
		}
		a.lag[number] = now.Sub(at)
	}
}

// arrived waits until changes up to a number are at clusters.
func (w *world) arrived(got []*arrivals, s *sent, upTo int, clusters ...int) {
	w.t.Helper()
	w.await(fmt.Sprintf("changes up to %d at %v", upTo, clusters), func(*control.SyncStatus) bool {
		for _, i := range clusters {
			got[i].mu.Lock()
			missing := 0
			for number := max(0, upTo-manyPolicies); number < upTo; number++ {
				if _, ok := got[i].lag[number]; !ok {
					missing++
				}
			}
			got[i].mu.Unlock()
			if missing > 0 && !w.has(i, upTo) {
				return false
			}
		}
		return true
	})
}

// has reports whether a cluster has the change before a number. Its watch may have been away when it came.
func (w *world) has(i, upTo int) bool {
	name := fmt.Sprintf("t%d", (upTo-1)%manyPolicies)
	view, err := w.readers[i].Read(context.Background(), w.layout.Document("TenantPolicy", name), 0)
	return err == nil && len(view.Items) > 0 && string(view.Items[0].Value) == policyText(name, 1000+upTo-1)
}

// inject has somebody else change, delete or add one document at a cluster, another one each time.
func (w *world) inject(random *rand.Rand, i, k int, texts map[string]string) {
	w.t.Helper()
	key := w.layout.Policy() + "TenantPolicy/"
	name := fmt.Sprintf("t%d", k%manyPolicies)
	do := func(op clientv3.Op) {
		w.t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := w.readers[i].Etcd().Do(ctx, op); err != nil {
			w.t.Fatal(err)
		}
	}
	switch random.IntN(3) {
	case 0:
		do(clientv3.OpPut(key+name, policyText(name, 1+random.IntN(900))))
	case 1:
		do(clientv3.OpDelete(key + name))
	default:
		name = fmt.Sprintf("extra-%d", k)
		do(clientv3.OpPut(key+name, policyText(name, 1)))
	}
}

// driftIsGone waits until all that others wrote was found and taken back, no more and no less.
func (w *world) driftIsGone(injected, clusters []int, texts map[string]string) {
	w.t.Helper()
	w.await("all drift is found and repaired", func(s *control.SyncStatus) bool {
		for _, i := range clusters {
			if c := s.Clusters[i]; c.DriftRepaired < injected[i] || c.State != inStep {
				return false
			}
		}
		return true
	})
	s := w.d.Status()
	for _, i := range clusters {
		if c := s.Clusters[i]; c.DriftFound != injected[i] || c.DriftRepaired != injected[i] {
			w.t.Errorf("cluster %d: %d of %d drifts found, %d repaired", i, c.DriftFound, injected[i], c.DriftRepaired)
		}
		w.awaitTexts(i, texts)
	}
}

// fill puts data into a cluster until it takes no more.
func (w *world) fill(i int) {
	w.t.Helper()
	client := w.targets[i].Client()
	for range 100 {
		if _, err := client.Put(context.Background(), "/else", strings.Repeat("x", 1<<20)); err != nil {
			return
		}
	}
	w.t.Fatal("the cluster does not get full")
}

// empty gives a full cluster room again, as its operator would.
func (w *world) empty(i int) {
	w.t.Helper()
	client, ctx := w.targets[i].Client(), context.Background()
	answer, err := client.Get(ctx, "/else", clientv3.WithKeysOnly())
	if err == nil {
		_, err = client.Compact(ctx, answer.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err == nil {
		_, err = client.Defragment(ctx, w.targets[i].Endpoint(0))
	}
	if err == nil {
		_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}
