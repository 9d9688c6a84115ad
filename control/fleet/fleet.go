package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control"
	"weir/control/etcd"
)

// Options say which fleet to join, and as whom.
type Options struct {
	// Client and Layout are where the fleet is: where the policy source of that name reads.
	Client *etcd.Client
	Layout etcd.Layout
	Source string
	// Service is the fleet. Host and Address, of the admin port, say where this sidecar is.
	Service, Host, Address, Version string
	Started                         time.Time
	// TTL is how long the record of a sidecar that vanishes stays, in whole seconds; 0 means 15 s. Etcd may ask for more than a few.
	TTL     time.Duration
	Logger  zerolog.Logger
	Metrics *Metrics
	// Coordinating, if set, is called with each office that this sidecar is elected into: to do what one is enough for. It must return
	// when its context is done.
	Coordinating func(context.Context)
}

// refresh is how long a record may stand without being written again, so that one that somebody has deleted comes back.
const refresh = 5 * time.Minute

// Writes are bounded: each member writes once in members/writesPerSecond at most, so all together write so often.
const (
	writesPerSecond = 500
	leastPace       = 250 * time.Millisecond
)

// spread is over how long a fleet spreads what all of its members do at once.
func spread(members int) time.Duration { return time.Duration(members) * time.Second / writesPerSecond }

// pace is the least time between two writes of one member.
func pace(members int) time.Duration { return max(leastPace, spread(members)) }

// Fleet is a sidecar's place in the fleet of its service. Its methods are safe for concurrent use; Run is called once.
type Fleet struct {
	o            Options
	instance     string
	log          zerolog.Logger
	registration *registration
	gauges       gauges

	size    atomic.Int64 // of the fleet, as far as known
	changed chan struct{}
	looking look

	mu          sync.Mutex
	own         Member // what the record is to say
	coordinator string // the id of the elected, as far as known
}

// New prepares a place. Nothing is asked of etcd before Run.
func New(o Options) *Fleet {
	if o.TTL == 0 {
		o.TTL = 15 * time.Second
	}
	log := o.Logger.With().Str("source", o.Source).Str("service", o.Service).Logger()
	f := &Fleet{o: o, instance: randomName(7), log: log, gauges: o.Metrics.of(o.Source), changed: make(chan struct{}, 1)}
	f.registration = &registration{log: log, gauge: f.gauges.registered, write: o.Layout.Fleet(o.Service)}
	f.own = Member{
		ID: memberID(o.Service, o.Host, o.Address), Instance: f.instance, Service: o.Service,
		Version: o.Version, Host: o.Host, Address: o.Address, Started: o.Started,
	}
	return f
}

// Report says what is in force now. It never blocks, and only the latest report counts.
func (f *Fleet) Report(s control.Status) {
	f.mu.Lock()
	f.own.tell(s, f.o.Source)
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default: // a write is due already
	}
}

// Run takes part until ctx is done, and then leaves: the record is gone when it returns, if etcd answers. While etcd is gone it keeps
// trying, and so it does when etcd refuses it.
func (f *Fleet) Run(ctx context.Context) {
	defer f.gauges.forget()
	defer f.registration.left()
	s := &session{client: f.o.Client, ttl: f.o.TTL, spread: func() time.Duration { return spread(int(f.size.Load())) }, failed: f.registration.failed}
	s.run(ctx, f.live)
}

// live is what a member does while it has a lease. It gives up when the record cannot be written at first.
func (f *Fleet) live(ctx context.Context, lease clientv3.LeaseID) error {
	if _, err := f.incumbent(ctx); err != nil { // so that the size of the fleet is known before the first write
		return err
	}
	if !pause(ctx, f.shortly()) {
		return nil
	}
	c := claim{f: f, lease: lease, id: f.naturalID()}
	f.take()
	if err := c.write(ctx); err != nil {
		return err
	}
	f.registration.ok(c.id)
	var campaign sync.WaitGroup
	campaign.Go(func() { f.campaign(ctx, lease) }) // not earlier: only now its ID is its own
	defer campaign.Wait()
	f.publish(ctx, &c)
	return nil
}

// publish writes the record whenever it changes, until ctx is done.
func (f *Fleet) publish(ctx context.Context, c *claim) {
	backoff := retry{least: leastPace, most: f.o.TTL}
	last, wait := time.Now(), refreshed()
	for {
		due := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			due.Stop()
			return
		case <-due.C:
		case <-f.changed:
			due.Stop()
			if !pause(ctx, max(f.shortly(), pace(int(f.size.Load()))-time.Since(last))) {
				return
			}
		}
		f.take()
		err := c.write(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			f.registration.failed(err)
			wait = backoff.next()
		default:
			f.registration.ok(c.id)
			backoff.reset()
			last, wait = time.Now(), refreshed()
		}
	}
}

// refreshed is when to write a record again that does not change.
func refreshed() time.Duration { return refresh - fraction(refresh/10) }

// take takes note of a change: what is written next has it.
func (f *Fleet) take() {
	select {
	case <-f.changed:
	default:
	}
}

// shortly is when to write what all members are about to write.
func (f *Fleet) shortly() time.Duration { return fraction(spread(int(f.size.Load()))) }

func (f *Fleet) naturalID() string { return memberID(f.o.Service, f.o.Host, f.o.Address) }

// record is what to write now.
func (f *Fleet) record(id string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.own.ID, f.own.At = id, time.Now().UTC()
	return f.own.encode()
}

// claim is a record under one lease. It is never written over that of another process.
type claim struct {
	f        *Fleet
	lease    clientv3.LeaseID
	id       string
	revision int64 // at which it was written last; 0: not yet
}

// write writes the record as it is to be now. When its ID belongs to another process that is, or was lately, the record gets another one.
func (c *claim) write(ctx context.Context) error {
	for range 4 { // the first may be known wrong, the next taken
		key := membersPrefix(c.f.o.Layout, c.f.o.Service) + c.id
		call, cancel := c.f.o.Client.Call(ctx)
		answer, err := c.f.o.Client.Etcd().Txn(call).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", c.revision)).
			Then(clientv3.OpPut(key, string(c.f.record(c.id)), clientv3.WithLease(c.lease))).
			Else(clientv3.OpGet(key)).Commit()
		cancel()
		if err != nil {
			return fmt.Errorf("cannot write %s: %w", key, c.f.o.Client.Explain(err))
		}
		if answer.Succeeded {
			c.revision = answer.Header.Revision
			return nil
		}
		c.revision = 0
		if kvs := answer.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			if decodeMember(c.id, c.f.o.Service, kvs[0].Value).Instance == c.f.instance {
				c.revision = kvs[0].ModRevision // ours, of a lease before or of a call without an answer
			} else {
				c.id = c.f.naturalID() + "-" + randomName(3)
			}
		}
	}
	return errors.New("cannot find a free ID: each of four was taken by another process")
}

// Metrics are what the process shows of its fleets, one for each policy source in etcd.
type Metrics struct {
	registered, coordinator, members *prometheus.GaugeVec
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registered:  gauges("weir_fleet_registered", "Whether the fleet knows what this sidecar runs: its record in the source's etcd is up to date.", "source"),
		coordinator: gauges("weir_fleet_coordinator", "Whether this sidecar is the elected coordinator of its fleet in the source's etcd.", "source"),
		members:     gauges("weir_fleet_members", "Members of the fleet by state: in_sync, behind or drifted. Only the coordinator shows it.", "source", "state"),
	}
	return m, errors.Join(reg.Register(m.registered), reg.Register(m.coordinator), reg.Register(m.members))
}

// gauges are those of one fleet.
type gauges struct {
	source                  string
	registered, coordinator prometheus.Gauge
	all                     *Metrics
}

func (m *Metrics) of(source string) gauges {
	return gauges{source, m.registered.WithLabelValues(source), m.coordinator.WithLabelValues(source), m}
}

// count shows how many members there are in each state.
func (g gauges) count(verdicts []Verdict) {
	g.coordinator.Set(1)
	for _, state := range []State{StateInSync, StateBehind, StateDrifted} {
		g.all.members.WithLabelValues(g.source, string(state)).Set(float64(Count(verdicts, state)))
	}
}

// depose takes back what only the coordinator shows.
func (g gauges) depose() {
	g.coordinator.Set(0)
	g.all.members.DeletePartialMatch(prometheus.Labels{"source": g.source})
}

// forget takes back all of it.
func (g gauges) forget() {
	for _, vec := range []*prometheus.GaugeVec{g.all.registered, g.all.coordinator, g.all.members} {
		vec.DeletePartialMatch(prometheus.Labels{"source": g.source})
	}
}
