package wire

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Tick is how often a Guard looks at its connections: how late a timeout can be, and half of what a client's leaving may
// take to be noticed.
const Tick = 250 * time.Millisecond

// Guard is what the connections of one server share: settings, buffers, and the one sweep that keeps every timeout, so that
// no request sets a deadline. It must be run.
type Guard struct {
	now      func() int64 // nanoseconds, monotonic
	settings atomic.Pointer[Settings]
	draining atomic.Bool
	blocks   sync.Pool // *block
	records  sync.Pool // *[recordBytes]byte
	poison   bool      // tests: overwrite a message's bytes once they are no longer valid

	mu    sync.Mutex
	conns []*Conn
	swept []*Conn // the sweep's copy of conns, kept for its memory
}

// NewGuard returns a guard with the given settings. now is a monotonic clock in nanoseconds.
func NewGuard(now func() int64, s Settings) *Guard {
	g := &Guard{now: now}
	g.blocks.New = func() any { return &block{buf: make([]byte, blockBytes)} }
	g.records.New = func() any { return new([recordBytes]byte) }
	g.Set(s)
	return g
}

// Set replaces the settings; messages that have begun keep theirs. It is safe for concurrent use.
func (g *Guard) Set(s Settings) { g.settings.Store(s.normal()) }

// Run sweeps every Tick until ctx is done.
func (g *Guard) Run(ctx context.Context) {
	t := time.NewTicker(Tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			g.Sweep()
		}
	}
}

// Sweep looks at every connection once: it wakes readers and writers whose time is over, and tells of clients that have
// left while their request waits. A time is counted from the first sweep that saw a connection in its phase, so a timeout
// is never early. Sweeps must not overlap.
func (g *Guard) Sweep() {
	g.mu.Lock()
	g.swept = append(g.swept[:0], g.conns...)
	g.mu.Unlock()
	now := g.now()
	for _, c := range g.swept {
		c.sweep(now)
	}
	clear(g.swept)
}

// CloseIdle begins the drain: connections without a request close now, those with one after it, unless the next has begun
// to arrive by then; such a request is still served, with Head.KeepAlive false. New connections serve one request.
// It never cuts a request that has begun to arrive. It returns at once and may be called again.
func (g *Guard) CloseIdle() {
	g.draining.Store(true)
	g.mu.Lock()
	conns := append([]*Conn(nil), g.conns...)
	g.mu.Unlock()
	for _, c := range conns {
		c.wake(phaseIdle, None)
	}
}

// CloseAll closes every connection at once, whatever it does: the end of a drain whose time is over.
func (g *Guard) CloseAll() {
	g.mu.Lock()
	conns := append([]*Conn(nil), g.conns...)
	g.mu.Unlock()
	for _, c := range conns {
		_ = c.cut()
	}
}

// Len is the number of open connections.
func (g *Guard) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

func (g *Guard) register(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.index = len(g.conns)
	g.conns = append(g.conns, c)
}

func (g *Guard) unregister(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := len(g.conns) - 1
	if c.index > last || g.conns[c.index] != c {
		return
	}
	g.conns[c.index] = g.conns[last]
	g.conns[c.index].index = c.index
	g.conns[last] = nil
	g.conns = g.conns[:last]
}

// listener wraps what it accepts.
type listener struct {
	net.Listener
	g *Guard
}

// Listener returns ln with every accepted connection wrapped by NewConn.
func (g *Guard) Listener(ln net.Listener) net.Listener { return listener{ln, g} }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.g.NewConn(c), nil
}

// blockBytes is the size a buffer begins with: most heads fit, and idle connections hold none.
const blockBytes = 4 << 10

// block is the memory of one message in progress: its bytes and what was scanned from them.
type block struct {
	buf  []byte
	head Head
}

func (g *Guard) getBlock() *block { return g.blocks.Get().(*block) }

// putBlock gives a block back, unless a large message has made it too large to keep.
func (g *Guard) putBlock(b *block) {
	if g.poison {
		scorch(b.buf)
	}
	if len(b.buf) > 16*blockBytes {
		return
	}
	b.head.reset()
	g.blocks.Put(b)
}

func scorch(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
