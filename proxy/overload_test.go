package proxy

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// caller is a tenant with some connections, each of which sends a request after the other.
type caller struct {
	mu      sync.Mutex
	took    []time.Duration // by the requests that were served
	refused int
}

// call makes requests until the end, with pauses that know nothing of each other.
func (c *caller) call(t *testing.T, nc net.Conn, tenant string, pause time.Duration, r *rand.Rand, end time.Time) {
	p := newPeer(t, nc)
	for {
		<-time.After(time.Duration(r.ExpFloat64() * float64(pause)))
		if time.Now().After(end) {
			_ = nc.Close()
			return
		}
		sent := time.Now()
		p.say("GET / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: ", tenant, "\r\n\r\n")
		a, body, err := p.tryAnswer("GET")
		if err != nil {
			t.Errorf("%s: no answer: %v", tenant, err)
			return
		}
		c.mu.Lock()
		switch {
		case a.StatusCode == 200:
			c.took = append(c.took, time.Since(sent))
		case a.StatusCode == 503 && a.Header.Get("Retry-After") == "1" && strings.Contains(body, "temporary-reduced-capacity"):
			c.refused++
		default:
			t.Errorf("%s: unexpected answer: %v %s", tenant, a, body)
		}
		c.mu.Unlock()
	}
}

// Through the whole proxy, in virtual time: one tenant offers 20 times what the backend can do, the other a tenth of it. Of the
// loud one's connections 110 are in the queue or at the backend, and each of the others sends once in a service time.
func TestOverloadOfOneTenant(t *testing.T) {
	const places, service, warm, length = 10, 10 * time.Millisecond, time.Second, 3 * time.Second
	run := func(t *testing.T, loud int) (b, a *caller, utilisation float64) {
		snapshot := compile(t, withCapacity("127.0.0.1:1", "{concurrency: 10, queue: 100, queueTimeout: 100ms}", silent))
		access := NewAccessLog(io.Discard)
		p, err := New(Options{Clock: SystemClock(), Logger: zerolog.Nop(), Registerer: prometheus.NewRegistry(), AccessLog: access, Bounds: snapshot.Sidecar.Bounds})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var backends, clients sync.WaitGroup
		var served, inside, most atomic.Int64
		p.dial = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			backends.Go(func() {
				defer theirs.Close()
				c := newPeer(t, theirs)
				for {
					if _, err := c.head(); err != nil {
						return
					}
					n := inside.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					<-time.After(service)
					inside.Add(-1)
					if at := time.Since(began); at > warm && at <= warm+length {
						served.Add(1)
					}
					c.say(ok)
				}
			})
			return ours, nil
		}
		if err := p.Apply(snapshot); err != nil {
			t.Fatal(err)
		}
		ln := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		ctx, end := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- p.Serve(ctx, []net.Listener{ln}) }()
		connect := func(c *caller, tenant string, pause time.Duration, seed uint64) {
			ours, theirs := net.Pipe()
			ln.conns <- theirs
			clients.Go(func() {
				c.call(t, ours, tenant, pause, rand.New(rand.NewPCG(seed, 5)), began.Add(warm+length))
			})
		}
		a, b = &caller{}, &caller{}
		for i := range loud {
			connect(a, "a", service, uint64(i))
		}
		for i := range 10 {
			connect(b, "b", 10*service, uint64(1000+i))
		}
		<-time.After(warm)
		b.mu.Lock()
		b.took = nil // what was before all had begun
		b.mu.Unlock()
		clients.Wait()
		end()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		backends.Wait()
		if err := access.Close(); err != nil {
			t.Error(err)
		}
		if n := most.Load(); n > places {
			t.Errorf("unexpected requests at the backend at once: got %d, want at most %d", n, places)
		}
		<-time.After(20 * time.Second) // no time at all here: fasthttp's cleaner notices the end
		return b, a, float64(served.Load()) * float64(service) / float64(places*length)
	}
	p99 := func(c *caller) time.Duration {
		slices.Sort(c.took)
		return c.took[len(c.took)*99/100]
	}

	var alone, beside time.Duration
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := run(t, 0)
		alone = p99(b)
	})
	synctest.Test(t, func(t *testing.T) {
		b, a, utilisation := run(t, 310)
		beside = p99(b)
		if b.refused > 0 || a.refused == 0 {
			t.Errorf("unexpected refusals: got %d of a, %d of b; want some of a, none of b", a.refused, b.refused)
		}
		if utilisation < 0.95 {
			t.Errorf("unexpected utilisation: got %.3f, want at least 0.95", utilisation)
		}
		t.Logf("p99 of b %v, alone %v; utilisation %.3f; refused %d of a; served %d of a, %d of b", beside, alone, utilisation, a.refused, len(a.took), len(b.took))
	})
	if beside > alone*3/2 {
		t.Errorf("unexpected p99 of b: got %v, want at most 1.5 times the %v that it is alone", beside, alone)
	}
}
