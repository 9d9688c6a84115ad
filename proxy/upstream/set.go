package upstream

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"weir/policy"
	"weir/proxy/certs"
	"weir/proxy/wire"
)

// tick is how often a set looks for what is overdue.
const tick = 100 * time.Millisecond

// Options are what a set needs from outside. They are those of the first set as long as sets are built on one another.
type Options struct {
	// Clock returns nanoseconds on the monotonic clock of all deadlines. Required.
	Clock func() int64
	// Logger gets a line for what is let go of, for every change of health and of addresses, and for defects.
	Logger zerolog.Logger
	// Dialer makes connections to "tcp" and "unix" addresses. nil means a net.Dialer with keep-alive probes. Connections
	// other than *net.TCPConn and *net.UnixConn must honour deadlines.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
	// Resolver looks up the names of backends. nil means net.DefaultResolver.
	Resolver Resolver
	// Certificates has the TLS of the backends that have any. Unlike the rest it is that of each Build.
	Certificates *certs.Set
}

// Set is the backends of one snapshot. Safe for concurrent use.
type Set struct {
	shared   *shared
	backends []*Backend
	leaving  []*pool // retired, with requests in flight; only for the sweep once it runs

	mu   sync.Mutex // guards stop and its use
	stop chan struct{}
	done chan struct{}
}

// shared is what all sets built on one another have in common.
type shared struct {
	clock   func() int64
	now     atomic.Int64 // the clock at the last sweep
	began   time.Time    // when the clock showed beganAt
	beganAt int64
	bounds  wire.Settings
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	logger  zerolog.Logger
	answers sync.Pool // of *answer
	large   sync.Pool // of *[maxHead]byte

	resolver Resolver
	jobs     sync.WaitGroup  // look-ups and checks, which go on from set to set
	ctx      context.Context // of the jobs
	cancel   context.CancelFunc
	wake     chan struct{} // holds one: something is to be tended before the next tick
}

// follow brings the sweep's reading up to that of a request, where the sweep is late: after a process was stopped for a while, what
// begins to wait before the next sweep would be overdue at once.
func (s *shared) follow(now int64) {
	if now-s.now.Load() > int64(2*tick) {
		s.now.Store(now)
	}
}

// poke makes the living set look at what happened. It never waits.
func (s *shared) poke() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// recovered ends a panic: a defect in what runs beside the requests must end neither them nor what comes after.
func (s *shared) recovered(what string) {
	if r := recover(); r != nil {
		s.logger.Error().Interface("panic", r).Bytes("stack", debug.Stack()).Msg("upstream " + what + " failed")
	}
}

// Build makes a set of these backends. Endpoints with their connections, and counters, are adopted from prev, which may be nil,
// by the backend's name, the endpoint's address and the TLS settings; prev goes on as before. Nothing is dialled and nothing runs until Adopt, so
// a set that is not wanted after all is simply dropped. Only names that were never found are looked up here, for half a
// second at most.
func Build(prev *Set, backends []policy.Backend, o Options) (*Set, error) {
	if o.Clock == nil {
		panic("BUG: upstream.Build without a clock")
	}
	s := &Set{backends: make([]*Backend, 0, len(backends))}
	if prev != nil {
		s.shared = prev.shared
	} else {
		s.shared = newShared(o)
	}
	var fresh []*Backend // with names that were never looked up
	for i := range backends {
		settings := &backends[i]
		for _, e := range settings.Endpoints {
			if err := checkEndpoint(e); err != nil {
				return nil, fmt.Errorf("cannot build backend %q: %w", settings.Name, err)
			}
		}
		b := s.build(prev.named(settings.Name), settings, o.Certificates.Client(settings.Name))
		if b.names != nil && (prev == nil || !prev.asks(b.names)) {
			fresh = append(fresh, b)
		}
		s.backends = append(s.backends, b)
	}
	s.lookUpFirst(fresh)
	for _, b := range s.backends {
		b.roster.Store(b.draw(prev.named(b.settings.Name).members()))
	}
	return s, nil
}

// named returns the backend of that name, or nil.
func (s *Set) named(name string) *Backend {
	if s != nil {
		for _, b := range s.backends {
			if b.settings.Name == name {
				return b
			}
		}
	}
	return nil
}

// members returns the backend's roster; nil for no backend.
func (b *Backend) members() *roster {
	if b == nil {
		return nil
	}
	return b.roster.Load()
}

// asks says whether a set looks up a name.
func (s *Set) asks(n *names) bool {
	return slices.ContainsFunc(s.backends, func(b *Backend) bool { return b.names == n })
}

func newShared(o Options) *shared {
	s := &shared{clock: o.Clock, dial: o.Dialer, logger: o.Logger, resolver: o.Resolver, wake: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.began, s.beganAt = time.Now(), o.Clock()
	s.bounds = wire.Settings{HeaderBytes: maxHead, HeaderCount: maxFields}
	if s.dial == nil {
		s.dial = new(net.Dialer).DialContext // probes idle connections and sets TCP_NODELAY by default
	}
	if s.resolver == nil {
		s.resolver = net.DefaultResolver
	}
	s.now.Store(s.beganAt)
	s.answers.New = func() any { return new(answer) }
	s.large.New = func() any { return new([maxHead]byte) }
	return s
}

// wall is the time at which the clock will show at. It differs from every reading of the wall clock since by the monotonic
// time between, so steps of the wall clock do not matter.
func (s *shared) wall(at int64) time.Time { return s.began.Add(time.Duration(at - s.beganAt)) }

// build makes a backend that goes on with what prev, which may be nil, has under the same name.
func (s *Set) build(prev *Backend, settings *policy.Backend, client *certs.Client) *Backend {
	if (client != nil) != (settings.TLS != nil) {
		panic("BUG: the certificates are not those of the backends")
	}
	b := &Backend{settings: *settings, client: client, shared: s.shared}
	if prev != nil {
		b.stats, b.names, b.lanes = prev.stats, prev.names, prev.lanes
	} else {
		b.stats = new(stats)
	}
	switch dns := settings.DNS; {
	case dns == nil:
		b.names = nil
	case b.names == nil || b.names.host != dns.Name:
		b.names = &names{host: dns.Name}
	}
	switch {
	case !settings.PoolPerTenant:
		b.lanes = nil
	case b.lanes == nil:
		b.lanes = newLanes(s.shared)
	}
	return b
}

func checkEndpoint(e policy.EndpointSettings) error {
	switch e.Network {
	case "tcp":
		if _, _, err := net.SplitHostPort(e.Address); err != nil {
			return fmt.Errorf("cannot use endpoint %q (want host:port): %w", e.Address, err)
		}
	case "unix":
		if e.Address == "" || strings.ContainsRune(e.Address, 0) {
			return fmt.Errorf("cannot use endpoint %q (want the path of a Unix socket)", e.Address)
		}
	default:
		return fmt.Errorf("cannot use endpoint %q on network %q (want tcp or unix)", e.Address, e.Network)
	}
	if e.Weight < 1 {
		return fmt.Errorf("cannot use endpoint %q of weight %d (want 1 or more)", e.Address, e.Weight)
	}
	return nil
}

// Backend returns the backend of that index in Snapshot.Backends.
func (s *Set) Backend(i int) *Backend { return s.backends[i] }

// Adopt makes the set the living one, right after requests began to use it. It starts the sweep and retires prev, which may
// be nil and must be the set that this one was built on: connections to endpoints that are gone close at once when idle and
// at their Release when not. Requests still under way in prev lose nothing. It is called once.
func (s *Set) Adopt(prev *Set) {
	if prev != nil {
		prev.halt()
		for _, p := range prev.leaving {
			if !p.drained() {
				s.leaving = append(s.leaving, p)
			}
		}
	}
	for _, b := range s.backends { // once more: prev may have found other addresses since Build
		s.redraw(b, prev.named(b.settings.Name).members())
	}
	if prev != nil {
		for _, b := range prev.backends {
			s.bury(b)
		}
	}
	s.shared.now.Store(s.shared.clock())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop, s.done = make(chan struct{}), make(chan struct{})
	go s.run(s.stop, s.done)
}

// bury retires what an earlier set's backend has and this set's does not: the whole of it, or its lanes.
func (s *Set) bury(b *Backend) {
	heir := s.named(b.settings.Name)
	if heir == nil {
		r := b.roster.Load()
		for i := range r.all {
			s.retire(b, r.all[i].endpoint)
		}
		return
	}
	if heir.lanes != b.lanes {
		pools := b.lanes.take(nil)
		for _, p := range pools {
			p.retire()
		}
		s.leaving = append(s.leaving, pools...)
	}
}

// Close ends everything: idle connections close, calls in flight return [Canceled], the sweep, look-ups and checks stop. A
// request that comes later still works, without reuse.
func (s *Set) Close() {
	s.halt()
	s.shared.cancel()
	s.shared.jobs.Wait()
	for _, b := range s.backends {
		r := b.roster.Load()
		for i := range r.all {
			e := r.all[i].endpoint
			e.retired.Store(true)
			for _, p := range append(b.lanes.take(e), e.pool) {
				p.retire()
				p.cancelAll()
			}
		}
	}
	for _, p := range s.leaving {
		p.cancelAll()
	}
}

// halt stops the sweep and waits for it.
func (s *Set) halt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		close(s.stop)
		<-s.done
		s.stop = nil
	}
}

func (s *Set) run(stop, done chan struct{}) {
	defer close(done)
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
			s.sweep(s.shared.clock())
		case <-s.shared.wake:
			s.tend(s.shared.clock())
		}
	}
}

// tend takes what look-ups, checks and requests have found out into the rosters, and begins what look-ups and checks are due.
func (s *Set) tend(now int64) {
	defer s.shared.recovered("tending")
	for _, b := range s.backends {
		found, judged := b.tendNames(now), b.tendHealth(now)
		if found || judged {
			s.redraw(b, b.roster.Load())
		}
		b.lookUp(now)
		b.check(now)
	}
}

// sweep enforces all timeouts as of now. A defect in it must not end timeouts for good.
func (s *Set) sweep(now int64) {
	defer s.shared.recovered("sweep")
	s.shared.now.Store(now)
	for _, b := range s.backends {
		b.stats.mark(now)
		r := b.roster.Load()
		for i := range r.all {
			r.all[i].pool.sweep(now, b.settings.IdleTimeout)
		}
		s.leaving = append(s.leaving, b.lanes.sweep(now, b.settings.IdleTimeout)...)
	}
	kept := s.leaving[:0]
	for _, p := range s.leaving {
		if p.sweep(now, 0); !p.drained() {
			kept = append(kept, p)
		}
	}
	clear(s.leaving[len(kept):])
	s.leaving = kept
	s.tend(now)
}
