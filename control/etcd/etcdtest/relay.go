package etcdtest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Relay is a line to a server that can fail. It starts whole. Its methods are safe for concurrent use.
type Relay struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	state   state
	latency time.Duration
	conns   map[net.Conn]bool
	dials   int
}

type state int

const (
	whole state = iota
	cut
	stalled
	closed
)

// NewRelay makes a line to host:port that ends with the test.
func NewRelay(t testing.TB, target string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{target: target, listener: l, conns: make(map[net.Conn]bool)}
	r.changed = sync.NewCond(&r.mu)
	r.running.Go(r.accept)
	t.Cleanup(func() {
		r.set(closed)
		_ = l.Close()
		r.drop()
		r.running.Wait()
	})
	return r
}

// Address is where clients connect to, host:port.
func (r *Relay) Address() string { return r.listener.Addr().String() }

// Cut closes every connection, and closes new ones at once.
func (r *Relay) Cut() {
	r.set(cut)
	r.drop()
}

// Stall stops every byte in both directions. Connections stay, new ones are accepted, and nobody is told: as when a machine vanishes.
func (r *Relay) Stall() { r.set(stalled) }

// Heal makes the line whole again. Bytes that were held go on.
func (r *Relay) Heal() { r.set(whole) }

// Delay holds what is sent from now on for so long, each way.
func (r *Relay) Delay(latency time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latency = latency
}

// Dials is how many connections were asked for so far.
func (r *Relay) Dials() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dials
}

func (r *Relay) set(s state) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != closed {
		r.state = s
	}
	r.changed.Broadcast()
}

func (r *Relay) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close()
	}
	clear(r.conns)
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.running.Go(func() { r.serve(client) })
	}
}

// serve carries one connection until one side ends it.
func (r *Relay) serve(client net.Conn) {
	r.mu.Lock()
	r.dials++
	refused := r.state == cut || r.state == closed
	if !refused {
		r.conns[client] = true
	}
	r.mu.Unlock()
	if refused {
		_ = client.Close()
		return
	}
	server, err := net.DialTimeout("tcp", r.target, 5*time.Second)
	if err != nil {
		r.forget(client)
		return
	}
	r.mu.Lock()
	r.conns[server] = true
	gone := r.state == cut || r.state == closed
	r.mu.Unlock()
	if gone {
		r.forget(client, server)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.carry(server, client); r.forget(client, server) })
	both.Go(func() { r.carry(client, server); r.forget(client, server) })
	both.Wait()
}

func (r *Relay) forget(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		delete(r.conns, c)
		_ = c.Close()
	}
}

// piece is some bytes and when they may go on.
type piece struct {
	data []byte
	due  time.Time
}

// carry copies one direction. Pieces wait in order, so a delay adds latency and takes no throughput.
func (r *Relay) carry(to io.Writer, from io.Reader) {
	pieces := make(chan piece, 1024)
	var writer sync.WaitGroup
	writer.Go(func() {
		for p := range pieces {
			time.Sleep(time.Until(p.due)) // this is the latency itself
			if !r.passable() {
				continue
			}
			if _, err := to.Write(p.data); err != nil {
				continue
			}
		}
	})
	for {
		data := make([]byte, 32<<10)
		n, err := from.Read(data)
		if n > 0 {
			r.mu.Lock()
			due := time.Now().Add(r.latency)
			r.mu.Unlock()
			pieces <- piece{data[:n], due}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	writer.Wait()
}

// passable waits while the line is stalled, and reports whether bytes may pass.
func (r *Relay) passable() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.state == stalled {
		r.changed.Wait()
	}
	return r.state == whole
}
