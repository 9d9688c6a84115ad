package distribute

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/control"
	"weir/control/etcd"
	"weir/policy"
)

// Options say what to distribute, and how.
type Options struct {
	// Distribution is a document of the kind Distribution. Relative paths in it are taken from its folder.
	Distribution *policy.Document
	Logger       zerolog.Logger
	Registerer   prometheus.Registerer
	// By is what the records of clusters call this process, as in host:pid.
	By string
	// NoRepair reports drift and leaves it.
	NoRepair bool
	// DryRun writes nothing at all.
	DryRun bool
	// TakeOver replaces documents of clusters that no distribution of this name has brought there.
	TakeOver bool
	// Timeout bounds one call to a cluster. 0 means 5 s.
	Timeout time.Duration
	// OnStatus, if set, is called after each change of the status, from any goroutine. It must not block.
	OnStatus func()
	// Clock is the wall and monotonic clock; nil means time.Now.
	Clock func() time.Time
	// Random yields the jitter of retries, from 0 to below 1; nil means a random source of the process.
	Random func() float64
}

func (o *Options) spec() *policy.DistributionSpec {
	return o.Distribution.Spec.(*policy.DistributionSpec)
}

// source says where documents come from, for people.
func (o *Options) source() string { return placeOf(&o.spec().From) }

func placeOf(s *policy.EtcdSource) string {
	return strings.Join(s.Endpoints, ",") + "/" + strings.Trim(s.Prefix, "/")
}

// etcd are the options of a client.
func (o *Options) etcd(s *policy.EtcdSource) etcd.Options {
	e := etcd.OptionsOf(s.Resolved(o.Distribution.Origin))
	e.Timeout, e.Logger = o.Timeout, o.Logger
	return e
}

// Distributor keeps clusters equal to a source.
type Distributor struct {
	o        Options
	layout   etcd.Layout
	clusters []*cluster
	metrics  *metrics

	mu     sync.Mutex
	latest *catalog
	lost   error // why the source cannot be read now
}

// New checks options and registers metrics.
func New(o Options) (*Distributor, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.OnStatus == nil {
		o.OnStatus = func() {}
	}
	d := &Distributor{o: o, layout: etcd.LayoutAt(o.spec().From.Prefix)}
	var err error
	if d.metrics, err = newMetrics(o.Registerer, d.figures); err != nil {
		return nil, fmt.Errorf("cannot register metrics: %w", err)
	}
	for i := range o.spec().To {
		r := rule{o.Distribution, i}
		t := r.target()
		d.clusters = append(d.clusters, &cluster{
			o: &d.o, rule: r, layout: etcd.LayoutAt(t.Etcd.Prefix), metrics: d.metrics.cluster(t.Name),
			logger: o.Logger.With().Str("cluster", t.Name).Logger(),
			in:     inbox{wake: make(chan struct{}, 1)},
			told:   make(map[string]int64),
			board: board{changed: d.o.OnStatus, shown: control.SyncCluster{
				Name: t.Name, Place: placeOf(&t.Etcd), State: starting, Since: o.Clock(),
			}},
		})
	}
	return d, nil
}

// Run follows the source and brings what it says to every cluster, until ctx is done. A cluster, or the source, that cannot be reached
// is tried again for as long; Run fails when files that the Distribution names for the source cannot be read at all.
func (d *Distributor) Run(ctx context.Context) error {
	client, err := etcd.Open(d.o.etcd(&d.o.spec().From))
	if err != nil {
		return fmt.Errorf("cannot read the source: %w", err)
	}
	defer func() { _ = client.Close() }()
	var running sync.WaitGroup
	defer running.Wait()
	for _, c := range d.clusters {
		running.Go(func() { d.runCluster(ctx, c) })
	}
	views := make(chan sighting, 1)
	running.Go(func() { d.decode(ctx, views) })
	follower := etcd.NewFollower(etcd.FollowerOptions{
		Client: client, Prefix: d.layout.Policy(), Logger: d.o.Logger.With().Str("cluster", "source").Logger(), Clock: d.o.Clock, Random: d.o.Random,
	})
	return follower.Run(ctx, func(v etcd.View) {
		select {
		case <-views: // the latest counts
		default:
		}
		views <- sighting{v, d.o.Clock()}
	}, func(err error) {
		d.mu.Lock()
		d.lost = err
		d.mu.Unlock()
		d.o.OnStatus()
	})
}

// sighting is a view of the source, and when it came.
type sighting struct {
	view etcd.View
	at   time.Time
}

// decode makes catalogs of the source's views and hands them to every cluster.
func (d *Distributor) decode(ctx context.Context, views <-chan sighting) {
	var before *catalog
	for {
		select {
		case <-ctx.Done():
			return
		case v := <-views:
			next := read(v.view, d.layout, d.o.Distribution.Name, before, v.at)
			if before != nil && len(next.problems) > 0 && len(before.problems) == 0 {
				d.o.Logger.Warn().Int("documents", len(next.broken)).Str("first", next.problems[0].String()).
					Msg("documents of the source cannot be distributed; clusters keep what they have of them")
			}
			before = next
			d.mu.Lock()
			d.latest, d.lost = next, nil
			d.mu.Unlock()
			d.o.OnStatus()
			for _, c := range d.clusters {
				c.in.offer(next)
			}
		}
	}
}

// openRetry is how long to wait for files that cannot be read.
const openRetry = time.Second

// runCluster opens a cluster, follows it and brings documents to it. What its files lack may come.
func (d *Distributor) runCluster(ctx context.Context, c *cluster) {
	for {
		client, err := etcd.Open(d.o.etcd(&c.rule.target().Etcd))
		if err == nil {
			c.client = client
			break
		}
		c.lost = err
		c.show()
		select {
		case <-ctx.Done():
			return
		case <-time.After(openRetry):
		}
	}
	defer func() { _ = c.client.Close() }()
	var following sync.WaitGroup
	following.Go(func() {
		follower := etcd.NewFollower(etcd.FollowerOptions{Client: c.client, Prefix: c.layout.Policy(), Logger: c.logger, Clock: d.o.Clock, Random: d.o.Random})
		if err := follower.Run(ctx, c.in.see, c.in.lose); err != nil {
			c.in.lose(err)
		}
	})
	c.run(ctx)
	following.Wait()
}

// Status is how far each cluster is. It is safe for concurrent use.
func (d *Distributor) Status() control.SyncStatus {
	s := control.SyncStatus{Distribution: d.o.Distribution.Name, Source: d.o.source()}
	d.mu.Lock()
	if d.latest != nil {
		s.Revision, s.Documents = d.latest.revision, len(d.latest.texts)
		for _, p := range d.latest.problems {
			s.Problems = append(s.Problems, p.String())
		}
	}
	if d.lost != nil {
		s.Error = d.lost.Error()
	}
	d.mu.Unlock()
	now := d.o.Clock()
	for _, c := range d.clusters {
		s.Clusters = append(s.Clusters, c.board.at(now))
	}
	return s
}

// Settled reports whether every cluster has come as far as it can come with what the source says now: it is in step, or in a state that
// lasts until somebody does something.
func Settled(s *control.SyncStatus) bool {
	if s.Revision == 0 {
		return false
	}
	for i := range s.Clusters {
		c := &s.Clusters[i]
		switch c.State {
		case inStep:
			if c.Applied < s.Revision {
				return false
			}
		case starting, unreachable, failing:
			return false
		}
	}
	return true
}

// Equal reports whether a cluster has what it should have.
func Equal(c *control.SyncCluster) bool { return c.State == inStep }

// Compared reports whether it is known what a cluster has and what it should have.
func Compared(c *control.SyncCluster) bool {
	return c.State == inStep || c.State == behind || c.State == drifted || c.State == held
}

func (d *Distributor) figures() []clusterFigures {
	now := d.o.Clock()
	var all []clusterFigures
	for _, c := range d.clusters {
		s := c.board.at(now)
		all = append(all, clusterFigures{s.Name, s.BehindSeconds, s.State == inStep && s.BehindSeconds == 0})
	}
	return all
}
