package admit

import (
	"sync"
	"unsafe"
)

// gateLines are the lines before the gates of tenants. There may be very many tenants, and few of them have a line at a time: so a
// tenant's cell holds no more than how many wait, and the lines are here. They outlive the tables.
type gateLines struct {
	stripes [stripes]stripe
	lines   sync.Pool // of *line
}

// stripe is some of these lines. Its lock is theirs.
type stripe struct {
	mu    sync.Mutex
	lines map[*seat]*line
	all   *gateLines
}

func newGateLines() *gateLines {
	g := &gateLines{}
	g.lines.New = func() any { return new(line) }
	for i := range g.stripes {
		g.stripes[i].lines, g.stripes[i].all = make(map[*seat]*line), g
	}
	return g
}

func (g *gateLines) of(s *seat) *stripe {
	return &g.stripes[mix(uint64(uintptr(unsafe.Pointer(s))))%stripes]
}

// join puts w at the end of the line before a gate.
func (g *gateLines) join(now int64, w *waiter, s *seat, room int, b bound) waitState {
	h := g.of(s)
	h.mu.Lock()
	l := h.lines[s]
	if l == nil {
		l = g.lines.Get().(*line)
		l.waiting, l.mu, l.home, l.seat = &s.waiting, &h.mu, h, s
		h.lines[s] = l
	}
	defer l.unlock()
	return l.join(now, w, "", 1, room, b)
}

// next calls those before a gate who can have a place now.
func (g *gateLines) next(now int64, s *seat, b bound) {
	g.visit(s, func(l *line) { l.next(now, b) })
}

// expire sends away those before a gate whose time is over.
func (g *gateLines) expire(now int64, s *seat) {
	g.visit(s, func(l *line) { l.expire(now) })
}

// visit calls f with the line before a gate, locked, when somebody waits there.
func (g *gateLines) visit(s *seat, f func(*line)) {
	if s.waiting.Load() == 0 {
		return
	}
	h := g.of(s)
	h.mu.Lock()
	l := h.lines[s]
	if l == nil {
		h.mu.Unlock()
		return
	}
	defer l.unlock()
	f(l)
}

// forget takes away a line in which nobody waits. An empty queue remembers nothing.
func (h *stripe) forget(l *line) {
	delete(h.lines, l.seat)
	l.waiting, l.mu, l.bound, l.home, l.seat = nil, nil, bound{}, nil, nil
	h.all.lines.Put(l)
}
