package wire

import (
	"net"
	"runtime"
	"syscall"
	"testing"
)

// meddler is a raw connection on which something happens after the first wait has begun.
type meddler struct {
	syscall.RawConn
	meddle func()
}

func (m *meddler) Read(f func(fd uintptr) bool) error {
	if m.meddle == nil {
		return m.RawConn.Read(f)
	}
	var read bool
	if err := m.Control(func(fd uintptr) { read = f(fd) }); err != nil || read {
		return err
	}
	meddle := m.meddle
	m.meddle = nil
	meddle()
	return m.RawConn.Read(func(uintptr) bool { return false }) // until woken
}

// A request that arrives while an idle connection is being woken to close is served.
func TestCloseIdleLooksOnceMore(t *testing.T) {
	g := fakeGuard(DefaultSettings())
	client, c := pair(t, g, "tcp")
	c.sock.raw = &meddler{RawConn: c.sock.raw, meddle: func() {
		g.CloseIdle()
		say(t, client, get)()
		waitUntil(t, "it arrives", c.peer.pending)
	}}
	if h := message(t, c); h.Fault != None || h.KeepAlive {
		t.Fatalf("%v, keep %v", h.Fault, h.KeepAlive)
	}
	noMessage(t, c)
}

// An idle connection costs no buffer.
func TestConnIdleMemory(t *testing.T) {
	const count, each = 200, 2 << 10
	g := fakeGuard(DefaultSettings())
	conns, waits := make([]*Conn, count), make([]func(), count)
	clients := make([]net.Conn, count)
	for i := range conns {
		clients[i], conns[i] = pair(t, g, "tcp")
	}
	before := heap()
	for i, c := range conns {
		say(t, clients[i], get)()
		message(t, c)
		waits[i] = background(t, func() { _, _ = c.Read(make([]byte, 1)) })
	}
	for _, c := range conns {
		waitPhase(t, &c.reader, phaseIdle)
	}
	grown := heap() - before
	for i := range conns {
		_ = clients[i].Close()
		waits[i]()
	}
	if grown > count*each {
		t.Errorf("an idle connection holds %d bytes more than a new one", grown/count)
	}
}

func heap() int64 {
	for range 3 { // buffers in the pool go with the second collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
