package upstream

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"weir/proxy/wire"
)

// succeed makes one round trip on a connection and gives it back.
func succeed(t testing.TB, c *Conn) {
	t.Helper()
	if status, body, err := call(c, get, wire.Asked{}); status != 200 || body != "ok" || err != nil {
		t.Fatalf("got %d %q %v, want 200 ok", status, body, err)
	}
	c.Release()
}

func TestIdleConnectionsAreReusedLastFirst(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = unixPath(t)
		}
		b := build(t, nil, backendOf("a", listenOn(t, network, address, always(ok)))).Backend(0)
		first, second := acquire(t, b), acquire(t, b)
		if first.Reused() || second.Reused() || first == second {
			t.Fatalf("%s: two requests at once share a connection", network)
		}
		succeed(t, second)
		succeed(t, first)
		for range 10 {
			c := acquire(t, b)
			if c != first || !c.Reused() {
				t.Fatalf("%s: not the connection that was used last", network)
			}
			succeed(t, c)
		}
		if n := b.stats.dials.Load(); n != 2 {
			t.Errorf("%s: %d dials, want 2", network, n)
		}
	}
}

func TestConnectionsWithoutDelay(t *testing.T) {
	c := acquire(t, build(t, nil, backendOf("a", listen(t, always(ok)))).Backend(0))
	defer c.Release()
	option := func(level, name int) (v int) {
		_ = c.raw.Control(func(fd uintptr) { v, _ = syscall.GetsockoptInt(int(fd), level, name) })
		return v
	}
	if option(syscall.IPPROTO_TCP, syscall.TCP_NODELAY) == 0 {
		t.Error("TCP_NODELAY is off")
	}
	if option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) == 0 {
		t.Error("SO_KEEPALIVE is off")
	}
}

func TestUnfinishedRequestsAreNotReused(t *testing.T) {
	f := func(name string, use func(c *Conn)) {
		t.Helper()
		b := build(t, nil, backendOf("a", listen(t, always(ok)))).Backend(0)
		c := acquire(t, b)
		use(c)
		c.Release()
		if b.stats.live.Load() != 0 || b.stats.idle.Load() != 0 {
			t.Errorf("%s: the connection is kept", name)
		}
	}
	f("nothing done", func(*Conn) {})
	f("answer not awaited", func(c *Conn) {
		_, _ = c.Write([]byte(get))
		c.FinishRequest()
	})
	f("body not read", func(c *Conn) {
		if _, err := c.Exchange([]byte(get), nil, wire.Asked{}); err != nil {
			t.Error(err)
		}
	})
	f("request not finished", func(c *Conn) {
		if _, err := c.Write([]byte(get)); err != nil {
			t.Error(err)
		}
		if _, err := c.ReadHead(wire.Asked{}); err != nil {
			t.Error(err)
		}
		if p, err := c.Buffered(); string(p) != "ok" || err != nil {
			t.Errorf("body is %q %v", p, err)
		}
	})
	f("canceled after the end", func(c *Conn) {
		if _, _, err := call(c, get, wire.Asked{}); err != nil {
			t.Error(err)
		}
		c.Cancel(c.Use())
	})
}

func TestLateCancelHitsNobody(t *testing.T) {
	b := build(t, nil, backendOf("a", listen(t, always(ok)))).Backend(0)
	c := acquire(t, b)
	use := c.Use()
	succeed(t, c)
	c.Cancel(use)
	again := acquire(t, b)
	if again != c {
		t.Fatal("not the same connection")
	}
	c.Cancel(use)
	succeed(t, again)
}

func TestPoolBound(t *testing.T) {
	const bound, callers = 10, 200
	settings := backendOf("a", listen(t, always(ok)), listen(t, always(ok)))
	settings.MaxConnections = bound
	b := build(t, nil, settings).Backend(0)
	var full, served atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range 50 {
				c, err := b.Acquire(Call{Now: b.shared.clock()})
				if n := b.stats.live.Load(); n > bound+callers { // reserving counts one too many for a moment
					t.Errorf("%d connections", n)
				}
				if err != nil {
					if e := wantCause(t, err, PoolFull); !e.Replayable {
						t.Error("PoolFull is not replayable")
					}
					full.Add(1)
					continue
				}
				if _, _, err := call(c, get, wire.Asked{}); err != nil {
					t.Error(err)
				}
				served.Add(1)
				c.Release()
			}
		})
	}
	wg.Wait()
	if live, idle := b.stats.live.Load(), b.stats.idle.Load(); live > bound || live != idle {
		t.Errorf("%d connections of which %d idle, want at most %d, all idle", live, idle, bound)
	}
	if served.Load() == 0 || full.Load()+served.Load() != callers*50 {
		t.Errorf("%d served and %d refused, want %d together", served.Load(), full.Load(), callers*50)
	}
	// Every slot is free again, and not one more.
	var held []*Conn
	for range bound {
		held = append(held, acquire(t, b))
	}
	if _, err := b.Acquire(Call{Now: b.shared.clock()}); err == nil {
		t.Error("one more than the bound")
	} else {
		wantCause(t, err, PoolFull)
	}
	for _, c := range held {
		c.Release()
	}
	if n := b.stats.ended[classCount+int(PoolFull)].Load(); n != uint64(full.Load())+1 {
		t.Errorf("%d counted as pool_full, want %d", n, full.Load()+1)
	}
}

func TestFullPoolUsesIdleConnectionsOfAnyEndpoint(t *testing.T) {
	settings := backendOf("a", listen(t, always(ok)), listen(t, always(ok)))
	settings.MaxConnections = 1
	b := build(t, nil, settings).Backend(0)
	for range 20 { // whichever endpoint is chosen
		succeed(t, acquire(t, b))
	}
	if n := b.stats.dials.Load(); n != 1 {
		t.Errorf("%d dials, want 1", n)
	}
}

func TestMaxIdle(t *testing.T) {
	settings := backendOf("a", listen(t, always(ok)))
	settings.MaxIdle = 1
	b := build(t, nil, settings).Backend(0)
	first, second := acquire(t, b), acquire(t, b)
	succeed(t, first)
	succeed(t, second)
	if live, idle := b.stats.live.Load(), b.stats.idle.Load(); live != 1 || idle != 1 {
		t.Errorf("%d live, %d idle, want 1 and 1", live, idle)
	}
}

func TestIdleTimeout(t *testing.T) {
	s := build(t, nil, backendOf("a", listen(t, always(ok))))
	b := s.Backend(0)
	old, used := acquire(t, b), acquire(t, b)
	succeed(t, old)
	succeed(t, used)
	start := old.idleSince.Load()
	used.idleSince.Store(start + int64(time.Second))
	s.halt() // only our own sweeps from here on
	s.sweep(start + int64(30*time.Second) - 1)
	if n := b.stats.idle.Load(); n != 2 {
		t.Fatalf("%d idle before the timeout, want 2", n)
	}
	s.sweep(start + int64(30*time.Second))
	if live, idle := b.stats.live.Load(), b.stats.idle.Load(); live != 1 || idle != 1 {
		t.Fatalf("%d live, %d idle after the timeout, want 1 and 1", live, idle)
	}
	s.sweep(start + int64(time.Minute))
	if n := b.stats.live.Load(); n != 0 {
		t.Fatalf("%d live when all timed out", n)
	}
	// What expired leaves no trace: its places serve again.
	first, second := acquire(t, b), acquire(t, b)
	succeed(t, first)
	succeed(t, second)
	if n := len(*first.pool.table.Load()); n != 2 {
		t.Errorf("%d places, want 2", n)
	}
}

func TestRefusedEndpointIsPassedOver(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	b := build(t, nil, backendOf("a", dead.Addr().String(), listen(t, always(ok)))).Backend(0)
	for range 50 {
		succeed(t, acquire(t, b))
	}
	b = build(t, nil, backendOf("a", dead.Addr().String(), dead.Addr().String())).Backend(0)
	_, err = b.Acquire(Call{Now: b.shared.clock()})
	e := wantCause(t, err, ConnectRefused)
	if !e.Replayable || e.Endpoint != dead.Addr().String() || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error is %+v", e)
	}
	if live, inFlight := b.stats.live.Load(), b.roster.Load().all[0].inFlight.Load(); live != 0 || inFlight != 0 {
		t.Errorf("%d live, %d in flight after a failure", live, inFlight)
	}
	b = build(t, nil, backendOf("a", unixPath(t))).Backend(0)
	_, err = b.Acquire(Call{Now: b.shared.clock()})
	wantCause(t, err, ConnectRefused)
	b = build(t, nil, backendOf("a")).Backend(0)
	_, err = b.Acquire(Call{Now: b.shared.clock()})
	wantCause(t, err, NoEndpoint)
}

// TestStack lets goroutines pass connections between two stacks: none is ever held twice, none is lost.
func TestStack(t *testing.T) {
	const conns, workers, rounds = 5, 8, 20_000
	p := newPool(newShared(Options{Clock: clock(), Logger: zerolog.Nop()}), new(quota), new(endpoint))
	var a, b stack
	for range conns {
		a.push(p.add())
	}
	held := make([]atomic.Int32, conns)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range rounds {
				from, to := &a, &b
				if i&1 == 1 {
					from, to = to, from
				}
				c := from.pop(&p.table)
				if c == nil {
					continue
				}
				if held[c.index].Add(1) != 1 {
					t.Error("held twice")
				}
				held[c.index].Add(-1)
				to.push(c)
			}
		})
	}
	wg.Wait()
	seen := map[*Conn]bool{}
	for _, s := range []*stack{&a, &b} {
		for c := s.pop(&p.table); c != nil; c = s.pop(&p.table) {
			seen[c] = true
		}
	}
	if len(seen) != conns {
		t.Errorf("%d left of %d", len(seen), conns)
	}
}
