package proxy

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// virtual is a sidecar in a bubble of virtual time, whose clients and backend are at the other ends of pipes.
type virtual struct {
	*sidecar
	accepted chan net.Conn
	backend  func() (net.Conn, error) // connects to the backend in the place of a script; may be set before there is a client
}

// inBubble runs a test with a sidecar that has these documents, before a backend that serves each connection by the script.
func inBubble(t *testing.T, text string, script script, test func(*virtual)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		began := time.Now().Add(-time.Hour) // of the clock: 0 is no time that something happens at
		var backends sync.WaitGroup
		t.Cleanup(func() {
			backends.Wait()
			<-time.After(20 * time.Second) // no time at all here: fasthttp's cleaner notices the end
		})
		v := &virtual{accepted: make(chan net.Conn)}
		dial := func(context.Context, string, string) (net.Conn, error) {
			if v.backend != nil {
				return v.backend()
			}
			ours, theirs := net.Pipe()
			backends.Go(func() {
				defer theirs.Close()
				script(newPeer(t, theirs))
			})
			return ours, nil
		}
		ln := &pipes{conns: v.accepted, closed: make(chan struct{})}
		v.sidecar = start(t, compile(t, text), Clock{Start: began, Now: func() int64 { return int64(time.Since(began)) }}, ln,
			func(p *Proxy) { p.dial = dial })
		test(v)
	})
}

// connect connects as a client. It has no deadline: in a bubble whoever waits in vain is found out.
func (v *virtual) connect() *peer {
	ours, theirs := net.Pipe()
	v.accepted <- theirs
	v.t.Cleanup(func() { _ = ours.Close() })
	return newPeer(v.t, ours)
}

// pipes is a listener for connections in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }
