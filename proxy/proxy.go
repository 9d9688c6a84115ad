// Package proxy moves bytes: it takes requests from clients, asks admit what may pass, sends them to backends and passes the
// answers on.
//
// # Contract
//
// A [Proxy] serves nothing until [Proxy.Apply] was given a snapshot. Apply builds everything that may fail, then swaps one
// atomic pointer: a request sees one snapshot from the door to its end. Every request is settled exactly once, on every path,
// panics included. Messages pass as they were sent but for hop-by-hop fields and what a proxy has to add; what is cut never
// looks whole.
//
// # Trade-off
//
// fasthttp.Server owns the connections' life: accepting, workers, keep-alive, and the writing of our own answers. It never
// sees a client's bytes. Each connection is a [wire.Conn], which hands it one constant head for each message and keeps the
// real one, strictly scanned, for the handler; the handler moves bodies and answers itself. So nothing is parsed twice, and
// no message means one thing to the limiter and another to the backend.
//
// # When not to use it
//
// It speaks HTTP/1.1 and HTTP/1.0, and passes no upgrade but that to WebSocket.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"

	"weir/admit"
	"weir/policy"
	"weir/proxy/certs"
	"weir/proxy/upstream"
	"weir/proxy/wire"
)

// Options are what a proxy needs from outside. All are required.
type Options struct {
	Clock      Clock
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
	AccessLog  *AccessLog
	// Bounds are those of the start: connections and connectionsPerIP need a restart, the rest follows the snapshots.
	Bounds policy.BoundsSettings
}

// Proxy is the data plane of one process. Safe for concurrent use.
type Proxy struct {
	clock     Clock
	logger    zerolog.Logger
	accessLog *AccessLog
	metrics   *metrics
	panicLog  everySecond
	acceptLog everySecond
	tlsLog    everySecond

	dial     func(ctx context.Context, network, address string) (net.Conn, error) // nil: upstream's own; tests connect in memory
	guard    *wire.Guard
	server   *fasthttp.Server
	conns    *connections
	tunnels  atomic.Int64 // upgraded connections
	draining atomic.Bool
	drain    chan struct{} // closed when the drain begins
	cutOff   chan struct{} // closed when it ends, with requests in flight

	applying sync.Mutex
	ended    bool // nothing is applied any more; guarded by applying
	live     atomic.Pointer[live]
	applied  chan struct{} // holds one when live may need another look at its breakers
	recent   admit.Recent
	stale    staleStore

	exchanges sync.Pool // of *exchange
	copies    copies
}

// live is what a request works with: one snapshot, its cells and its connections.
type live struct {
	snapshot  *policy.Snapshot
	table     *admit.Table
	tls       *certs.Set
	backends  *upstream.Set
	wire      *wire.Settings
	identity  string                // the one header that tells the backend the tenant
	durations []prometheus.Observer // by route
	staleFor  []time.Duration       // by route: how long answers are kept for its fallback; 0: none is
}

// spareWorkers are for connections that are just ending: the listener bounds connections before the server sees them.
const spareWorkers = 1024

// New makes a proxy and registers its metrics, those of admit, certs and upstream included.
func New(o Options) (*Proxy, error) {
	p := &Proxy{
		clock: o.Clock, logger: o.Logger, accessLog: o.AccessLog,
		guard: wire.NewGuard(o.Clock.Now, wire.DefaultSettings()),
		conns: newConnections(o.Bounds.Connections, o.Bounds.ConnectionsPerIP),
		drain: make(chan struct{}), cutOff: make(chan struct{}), applied: make(chan struct{}, 1),
	}
	p.exchanges.New = func() any { return &exchange{} }
	p.copies.init()
	p.server = &fasthttp.Server{
		Handler:               p.handle,
		Concurrency:           max(o.Bounds.Connections, 1) + spareWorkers,
		ReduceMemoryUsage:     true, // an idle connection holds no buffer
		NoDefaultServerHeader: true,
		NoDefaultContentType:  true,
		LazyRequestTime:       true,
		Logger:                serverLog{o.Logger},
		// RateLimit-Policy goes out as it is written here.
		DisableHeaderNamesNormalizing: true,
	}
	var err error
	p.metrics, err = newMetrics(o.Registerer, o.AccessLog, &p.stale, func() float64 { return float64(p.conns.count()) })
	if err != nil {
		return nil, fmt.Errorf("cannot register the proxy's metrics: %w", err)
	}
	for _, c := range []prometheus.Collector{
		admit.NewCollector(p.Table), upstream.NewCollector(p.backends), certs.NewCollector(p.certificates),
	} {
		if err := o.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("cannot register the proxy's metrics: %w", err)
		}
	}
	return p, nil
}

// Table is the live table; nil before the first Apply.
func (p *Proxy) Table() *admit.Table {
	if l := p.live.Load(); l != nil {
		return l.table
	}
	return nil
}

// Snapshot is the one in force; nil before the first Apply.
func (p *Proxy) Snapshot() *policy.Snapshot {
	if l := p.live.Load(); l != nil {
		return l.snapshot
	}
	return nil
}

func (p *Proxy) backends() *upstream.Set {
	if l := p.live.Load(); l != nil {
		return l.backends
	}
	return nil
}

func (p *Proxy) certificates() *certs.Set {
	if l := p.live.Load(); l != nil {
		return l.tls
	}
	return nil
}

// Apply puts a snapshot in force. An error changes nothing. Requests under way end on what they began with; buckets, gates
// and connections are adopted by key.
func (p *Proxy) Apply(s *policy.Snapshot) error {
	p.applying.Lock()
	defer p.applying.Unlock()
	if p.ended {
		return errors.New("cannot apply a snapshot: the proxy has ended")
	}
	prev := p.live.Load()
	var prevTable *admit.Table
	var prevCertificates *certs.Set
	var prevBackends *upstream.Set
	if prev != nil {
		prevTable, prevCertificates, prevBackends = prev.table, prev.tls, prev.backends
	}
	table, err := admit.Build(prevTable, s, p.clock.Now(), admit.Options{Clock: p.clock.Now, Wall: p.clock.agreed})
	if err != nil {
		return fmt.Errorf("cannot build the table of snapshot %.12s: %w", s.Hash, err)
	}
	certificates, err := certs.Build(prevCertificates, s.Sidecar.Listeners, s.Backends, certs.Options{
		Clock:  time.Now, // certificates follow the wall clock wherever it is set, and also while the machine sleeps
		Logger: p.logger,
	})
	if err != nil {
		return err
	}
	backends, err := upstream.Build(prevBackends, s.Backends, upstream.Options{
		Clock: p.clock.Now, Logger: p.logger, Dialer: p.dial, Certificates: certificates,
	})
	if err != nil {
		return fmt.Errorf("cannot build the backends of snapshot %.12s: %w", s.Hash, err)
	}
	next := &live{
		snapshot: s, table: table, tls: certificates, backends: backends,
		identity:  admit.CanonicalIdentityHeader(&s.Sidecar),
		durations: p.metrics.routes(s.Routes),
	}
	byIndex, byName := staleFor(s)
	next.staleFor = byIndex
	p.guard.Set(wireSettings(&s.Sidecar))
	next.wire = p.guard.Settings()
	p.live.Store(next)
	table.Adopt(p.clock.Now())
	backends.Adopt(prevBackends)
	p.stale.retire(byName)
	select {
	case p.applied <- struct{}{}:
	default: // it will be looked at
	}
	if prev != nil {
		p.metrics.retire(prev.snapshot.Routes, s.Routes)
	}
	return nil
}

func wireSettings(s *policy.SidecarSettings) wire.Settings {
	w := wire.DefaultSettings()
	w.HeaderBytes, w.HeaderCount, w.URIBytes = s.Bounds.HeaderBytes, s.Bounds.HeaderCount, s.Bounds.URIBytes
	w.BodyBytes, w.BodyRate = s.Bounds.BodyBytes, s.Bounds.BodyRate
	w.HeaderTimeout, w.IdleTimeout = s.HeaderTimeout, s.IdleTimeout
	w.BodyTimeout, w.SendTimeout = s.BodyTimeout, s.SendTimeout
	w.Identity = admit.IdentityHeaders(s)
	return w
}

// end closes the backends for good.
func (p *Proxy) end() {
	p.applying.Lock()
	defer p.applying.Unlock()
	p.ended = true
	p.live.Load().backends.Close()
}

// serverLog passes on what fasthttp has to say, which is of interest only when one looks for a fault.
type serverLog struct{ logger zerolog.Logger }

func (l serverLog) Printf(format string, args ...any) {
	l.logger.Debug().Str("from", "fasthttp").Msgf(format, args...)
}

// everySecond lets one event through for each second.
type everySecond struct{ next atomic.Int64 }

func (e *everySecond) allow(now int64) bool {
	next := e.next.Load()
	return now >= next && e.next.CompareAndSwap(next, now+1e9)
}
