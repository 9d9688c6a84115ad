package upstream

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"weir/policy"
	"weir/proxy/wire"
)

func TestBuildFails(t *testing.T) {
	f := func(e policy.EndpointSettings, want string) {
		t.Helper()
		b := backendOf("a")
		b.Endpoints = []policy.EndpointSettings{e}
		s, err := Build(nil, []policy.Backend{b}, Options{Clock: clock()})
		if s != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an error with %q", e, err, want)
		}
	}
	f(policy.EndpointSettings{Network: "tcp", Address: "a", Weight: 1}, "want host:port")
	f(policy.EndpointSettings{Network: "udp", Address: "a:1", Weight: 1}, "want tcp or unix")
	f(policy.EndpointSettings{Network: "unix", Weight: 1}, "want the path")
	f(policy.EndpointSettings{Network: "tcp", Address: "a:1"}, "of weight 0")
}

func TestAdoptionKeepsConnections(t *testing.T) {
	kept, gone := listen(t, always(ok)), listen(t, always(ok))
	first := build(t, nil, backendOf("a", kept), backendOf("b", gone), backendOf("c", kept))
	for i := range 3 {
		succeed(t, acquire(t, first.Backend(i)))
	}
	// A set that is built and dropped changes nothing.
	if _, err := Build(first, nil, Options{Clock: first.shared.clock}); err != nil {
		t.Fatal(err)
	}
	busyKept, busyGone := acquire(t, first.Backend(0)), acquire(t, first.Backend(1))
	idleGone := acquire(t, first.Backend(1))
	succeed(t, idleGone)

	settings := backendOf("a", kept)
	settings.MaxIdle = 5
	second := build(t, first, backendOf("new", gone), settings)
	if n := first.Backend(1).stats.idle.Load(); n != 0 {
		t.Errorf("%d idle connections of a retired backend", n)
	}
	if n := first.Backend(2).stats.live.Load(); n != 0 {
		t.Errorf("another backend's connections to the same address live on: %d", n)
	}
	succeed(t, busyGone) // finishes undisturbed, and closes
	if n := first.Backend(1).stats.live.Load(); n != 0 {
		t.Errorf("%d connections of a retired backend after their requests", n)
	}
	succeed(t, busyKept)
	for _, s := range []*Set{first, second} { // both reach the same pool
		c := acquire(t, s.Backend(map[*Set]int{first: 0, second: 1}[s]))
		if c != busyKept || !c.Reused() {
			t.Error("the connection was not adopted")
		}
		succeed(t, c)
	}
	if n := second.Backend(1).stats.dials.Load(); n != 1 {
		t.Errorf("%d dials of an adopted backend, want 1", n)
	}
	if n := second.Backend(0).stats.dials.Load(); n != 0 {
		t.Errorf("a new backend inherited %d dials", n)
	}
	// A straggler of the old set is served, without reuse.
	straggler := acquire(t, first.Backend(1))
	if straggler.Reused() {
		t.Error("a retired pool had an idle connection")
	}
	succeed(t, straggler)
	if n := first.Backend(1).stats.live.Load(); n != 0 {
		t.Errorf("a retired pool keeps %d connections", n)
	}
	second.halt()
	second.sweep(second.shared.clock())
	if len(second.leaving) != 0 {
		t.Errorf("%d retired pools are still watched", len(second.leaving))
	}
}

func TestChangesUnderLoad(t *testing.T) {
	addresses := []string{listen(t, always(ok)), listen(t, always(ok)), listen(t, always(ok))}
	var current atomic.Pointer[Set]
	current.Store(build(t, nil, backendOf("a", addresses...)))
	stop := make(chan struct{})
	var served atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c := acquire(t, current.Load().Backend(0))
				if _, _, err := call(c, get, wire.Asked{}); err != nil {
					t.Error(err)
				}
				c.Release()
				served.Add(1)
			}
		})
	}
	stats := current.Load().Backend(0).stats
	for i := range 300 {
		prev := current.Load()
		next, err := Build(prev, []policy.Backend{backendOf("a", addresses[i%3], addresses[(i+1)%3])}, Options{Clock: clock()})
		if err != nil {
			t.Fatal(err)
		}
		current.Store(next)
		next.Adopt(prev)
		before := served.Load()
		eventually(t, "requests between changes", func() bool { return served.Load() > before })
	}
	close(stop)
	wg.Wait()
	last := current.Load()
	last.Close()
	if live, idle := stats.live.Load(), stats.idle.Load(); live != 0 || idle != 0 {
		t.Errorf("%d live, %d idle after Close", live, idle)
	}
	last.sweep(last.shared.clock())
	if n := len(last.leaving); n != 0 {
		t.Errorf("%d retired pools are still watched", n)
	}
}

func TestCloseCancelsCallsInFlight(t *testing.T) {
	s := build(t, nil, backendOf("a", listen(t, stall(""))))
	c := acquire(t, s.Backend(0))
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		eventually(t, "the call waits", func() bool { return c.readDue.Load() != 0 })
		s.Close()
	}()
	_, _, err := call(c, get, wire.Asked{})
	wantCause(t, err, Canceled)
	c.Release()
	<-closed
	if n := s.Backend(0).stats.live.Load(); n != 0 {
		t.Errorf("%d live after Close", n)
	}
}
