package main

import (
	"cmp"
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/control"
	"weir/control/etcd"
	"weir/control/fleet"
)

// fleets are the places of this process in the fleet of its service: one in the etcd of each policy source, so that everybody who
// changes documents there learns who runs them.
type fleets struct {
	log     zerolog.Logger
	metrics *fleet.Metrics
	started time.Time
	host    string
	version string

	mu      sync.Mutex
	who     oneself
	changed chan struct{} // closed when who changes
	places  []place       // sorted by source
	status  control.Status
}

// oneself is what others know this process by. A place is taken once both are known: a first policy is in force, and the admin port bound.
type oneself struct{ service, admin string }

// place is one that is taken.
type place struct {
	source string
	fleet  *fleet.Fleet
}

func newFleets(log zerolog.Logger, reg prometheus.Registerer, started time.Time) (*fleets, error) {
	metrics, err := fleet.NewMetrics(reg)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		log.Warn().Err(err).Msg("the name of this host is not known; the fleet knows this sidecar by its admin address alone")
	}
	return &fleets{log: log, metrics: metrics, started: started, host: host, version: readBuild().Version, changed: make(chan struct{})}, nil
}

// serve says which service the process is for, now or from now on.
func (f *fleets) serve(service string) {
	f.become(func(who *oneself) { who.service = service })
}

// listen says where the admin port is.
func (f *fleets) listen(admin string) {
	f.become(func(who *oneself) { who.admin = admin })
}

func (f *fleets) become(change func(*oneself)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	who := f.who
	change(&who)
	if who != f.who {
		f.who = who
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// report tells every fleet what is in force. It never blocks.
func (f *fleets) report(s control.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status = s
	for _, p := range f.places {
		p.fleet.Report(s)
	}
}

// look describes every fleet, all at once.
func (f *fleets) look(ctx context.Context) []control.Fleet {
	f.mu.Lock()
	places := slices.Clone(f.places)
	f.mu.Unlock()
	seen := make([]control.Fleet, len(places))
	var looking sync.WaitGroup
	for i, p := range places {
		looking.Go(func() { seen[i] = p.fleet.Look(ctx) })
	}
	looking.Wait()
	return seen
}

// run runs a policy source in etcd, and takes part in the fleet there for as long. The place is left before it returns.
func (f *fleets) run(ctx context.Context, source control.Source, client *etcd.Client, layout etcd.Layout, update func(control.Batch)) error {
	ctx, cancel := context.WithCancel(ctx)
	var taking sync.WaitGroup
	taking.Go(func() { f.take(ctx, source.Name(), client, layout) })
	defer taking.Wait()
	defer cancel()
	return source.Run(ctx, update)
}

// take holds a place until ctx is done, and takes another one whenever this process becomes somebody else.
func (f *fleets) take(ctx context.Context, source string, client *etcd.Client, layout etcd.Layout) {
	for ctx.Err() == nil {
		f.mu.Lock()
		who, changed := f.who, f.changed
		f.mu.Unlock()
		if who.service == "" || who.admin == "" {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		stay, leave := context.WithCancel(ctx)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			select {
			case <-changed:
				leave()
			case <-stay.Done():
			}
		})
		f.stay(stay, fleet.New(fleet.Options{
			Client: client, Layout: layout, Source: source, Service: who.service, Host: f.host, Address: who.admin, Version: f.version,
			Started: f.started, Logger: f.log, Metrics: f.metrics,
		}), source)
		leave()
		waiting.Wait()
	}
}

// stay is in one place until ctx is done.
func (f *fleets) stay(ctx context.Context, taken *fleet.Fleet, source string) {
	f.mu.Lock()
	f.places = append(f.places, place{source, taken})
	slices.SortFunc(f.places, func(a, b place) int { return cmp.Compare(a.source, b.source) })
	taken.Report(f.status)
	f.mu.Unlock()
	taken.Run(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.places = slices.DeleteFunc(f.places, func(p place) bool { return p.fleet == taken })
}
