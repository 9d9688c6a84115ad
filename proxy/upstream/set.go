package upstream

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"weir/policy"
	"weir/proxy/wire"
)

// tick is how often a set looks for what is overdue.
const tick = 100 * time.Millisecond

// Options are what a set needs from outside. They are those of the first set as long as sets are built on one another.
type Options struct {
	// Clock returns nanoseconds on the monotonic clock of all deadlines. Required.
	Clock func() int64
	// Logger gets a line for what is let go of, and for defects.
	Logger zerolog.Logger
	// Dialer makes connections to "tcp" and "unix" addresses. nil means a net.Dialer with keep-alive probes. Connections
	// other than *net.TCPConn and *net.UnixConn must honour deadlines.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
}

// Set is the backends of one snapshot. Safe for concurrent use.
type Set struct {
	shared   *shared
	backends []*Backend
	pools    map[poolKey]*pool
	leaving  []*pool // of earlier sets, with requests in flight; only for the sweep once it runs

	mu   sync.Mutex // guards stop and its use
	stop chan struct{}
	done chan struct{}
}

// poolKey is what a pool is adopted by.
type poolKey struct{ backend, network, address string }

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
}

// Build makes a set of these backends. Connections and counters are adopted from prev, which may be nil, by the backend's
// name and the endpoint's address; prev goes on as before. Nothing is dialled and nothing runs until Adopt, so a set that
// is not wanted after all is simply dropped.
func Build(prev *Set, backends []policy.Backend, o Options) (*Set, error) {
	if o.Clock == nil {
		panic("BUG: upstream.Build without a clock")
	}
	s := &Set{pools: make(map[poolKey]*pool), backends: make([]*Backend, 0, len(backends))}
	old := make(map[string]*stats)
	if prev != nil {
		s.shared = prev.shared
		for _, b := range prev.backends {
			old[b.settings.Name] = b.stats
		}
	} else {
		s.shared = newShared(o)
	}
	for i := range backends {
		b, err := s.build(prev, &backends[i], old[backends[i].Name])
		if err != nil {
			return nil, err
		}
		s.backends = append(s.backends, b)
	}
	return s, nil
}

func newShared(o Options) *shared {
	s := &shared{clock: o.Clock, dial: o.Dialer, logger: o.Logger}
	s.began, s.beganAt = time.Now(), o.Clock()
	s.bounds = wire.Settings{HeaderBytes: maxHead, HeaderCount: maxFields}
	if s.dial == nil {
		s.dial = new(net.Dialer).DialContext // probes idle connections and sets TCP_NODELAY by default
	}
	s.now.Store(s.beganAt)
	s.answers.New = func() any { return new(answer) }
	s.large.New = func() any { return new([maxHead]byte) }
	return s
}

// wall is the time at which the clock will show at. It differs from every reading of the wall clock since by the monotonic
// time between, so steps of the wall clock do not matter.
func (s *shared) wall(at int64) time.Time { return s.began.Add(time.Duration(at - s.beganAt)) }

func (s *Set) build(prev *Set, settings *policy.Backend, st *stats) (*Backend, error) {
	if st == nil {
		st = new(stats)
	}
	b := &Backend{settings: *settings, stats: st, shared: s.shared}
	var total uint64
	for _, e := range settings.Endpoints {
		if err := checkEndpoint(e); err != nil {
			return nil, fmt.Errorf("cannot build backend %q: %w", settings.Name, err)
		}
		key := poolKey{settings.Name, e.Network, e.Address}
		p := s.pools[key]
		if p == nil && prev != nil {
			p = prev.pools[key]
		}
		if p == nil {
			p = newPool(s.shared, st, e.Network, e.Address)
		}
		s.pools[key] = p
		total += uint64(e.Weight)
		b.endpoints = append(b.endpoints, endpoint{pool: p, weight: uint64(e.Weight), upTo: total})
	}
	return b, nil
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
		for key, p := range prev.pools {
			if s.pools[key] == p {
				continue
			}
			p.retire()
			s.leaving = append(s.leaving, p)
			s.shared.logger.Info().Str("backend", key.backend).Str("endpoint", key.address).
				Int64("in_flight", p.inFlight.Load()).Msg("endpoint retired")
		}
	}
	s.shared.now.Store(s.shared.clock())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop, s.done = make(chan struct{}), make(chan struct{})
	go s.run(s.stop, s.done)
}

// Close ends everything: idle connections close, calls in flight return [Canceled], the sweep stops. A request that comes
// later still works, without reuse.
func (s *Set) Close() {
	s.halt()
	for _, p := range s.pools {
		p.retire()
		p.cancelAll()
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
		}
	}
}

// sweep enforces all timeouts as of now. A defect in it must not end timeouts for good.
func (s *Set) sweep(now int64) {
	defer func() {
		if r := recover(); r != nil {
			s.shared.logger.Error().Interface("panic", r).Bytes("stack", debug.Stack()).Msg("upstream sweep failed")
		}
	}()
	s.shared.now.Store(now)
	for _, b := range s.backends {
		for i := range b.endpoints {
			b.endpoints[i].pool.sweep(now, b.settings.IdleTimeout)
		}
	}
	kept := s.leaving[:0]
	for _, p := range s.leaving {
		if p.sweep(now, 0); !p.drained() {
			kept = append(kept, p)
		}
	}
	clear(s.leaving[len(kept):])
	s.leaving = kept
}
