package upstream

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"weir/policy"
	"weir/proxy/wire"
)

// canned answers whatever arrives in one read with the same bytes, and allocates nothing.
func canned(t testing.TB, network, address string, answer []byte) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		p := make([]byte, 64<<10)
		for {
			if _, err := c.Read(p); err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// roundTrip is what the proxy does with a plain request.
func roundTrip(tb testing.TB, b *Backend, request []byte) {
	now := b.shared.now.Load()
	c, err := b.Acquire(Call{Now: now, Deadline: now + int64(time.Minute)})
	if err != nil {
		tb.Fatal(err)
	}
	h, err := c.Exchange(request, nil, wire.Asked{})
	if err != nil {
		tb.Fatal(err)
	}
	body, err := c.Buffered()
	if err != nil || h.Status != 200 || int64(len(body)) != h.Length || !c.BodyDone() {
		tb.Fatalf("got %d, %d bytes, %v", h.Status, len(body), err)
	}
	c.Release()
}

func TestRoundTripAllocatesNothing(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would empty the buffer pools
	f := func(network, address, answer string, trip func(testing.TB, *Backend, []byte)) {
		t.Helper()
		b := build(t, nil, backendOf("a", canned(t, network, address, []byte(answer)))).Backend(0)
		request := []byte(get)
		trip(t, b, request)
		if n := testing.AllocsPerRun(1000, func() { trip(t, b, request) }); n != 0 {
			t.Errorf("%s: %v allocations per round trip", network, n)
		}
	}
	f("tcp", "127.0.0.1:0", ok, roundTrip)
	f("unix", unixPath(t), ok, roundTrip)
	// In pieces: written apart, the body read apart.
	p := make([]byte, 100)
	f("tcp", "127.0.0.1:0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", func(tb testing.TB, b *Backend, request []byte) {
		c, err := b.Acquire(Call{Now: b.shared.now.Load()})
		if err != nil {
			tb.Fatal(err)
		}
		if _, err = c.Write2(request[:1], request[1:]); err != nil {
			tb.Fatal(err)
		}
		c.FinishRequest()
		if _, err = c.ReadHead(wire.Asked{}); err != nil {
			tb.Fatal(err)
		}
		if n, err := c.ReadBody(p); string(p[:n]) != "ok" || err != nil || !c.BodyDone() {
			tb.Fatalf("got %q %v", p[:n], err)
		}
		c.Release()
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	request := []byte(get)
	answer := append([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 1024\r\n\r\n"), make([]byte, 1024)...)
	run := func(name, network, address string) {
		b.Run(name, func(b *testing.B) {
			backend := build(b, nil, backendOf("a", canned(b, network, address, answer))).Backend(0)
			roundTrip(b, backend, request)
			b.ReportAllocs()
			for b.Loop() {
				roundTrip(b, backend, request)
			}
		})
	}
	run("tcp", "tcp", "127.0.0.1:0")
	run("unix", "unix", unixPath(b))
	// What the kernel and the poller cost without this package.
	b.Run("bare", func(b *testing.B) {
		c, err := net.Dial("tcp", canned(b, "tcp", "127.0.0.1:0", answer))
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		p := make([]byte, 8<<10)
		for b.Loop() {
			if _, err := c.Write(request); err != nil {
				b.Fatal(err)
			}
			if _, err := c.Read(p); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkLeastRequests chooses among idle endpoints, which all tie: the slowest case.
func BenchmarkLeastRequests(b *testing.B) {
	for _, n := range []int{1, 2, 16, 100} {
		weights := make([]int, n)
		for i := range weights {
			weights[i] = 1 + i%3
		}
		es := loaded(weights, nil)
		b.Run(string(rune('0'+n/100))+string(rune('0'+n/10%10))+string(rune('0'+n%10)), func(b *testing.B) {
			draw := uint64(1)
			for b.Loop() {
				draw = nextDraw(draw)
				leastRequests(es, draw)
			}
		})
	}
}

// BenchmarkBalance chooses among idle endpoints of several weights.
func BenchmarkBalance(b *testing.B) {
	for _, balance := range []policy.Balance{policy.LeastRequest, policy.RoundRobin, policy.ConsistentHash} {
		for _, n := range []int{3, 100} {
			weights := make([]int, n)
			for i := range weights {
				weights[i] = 1 + i%3
			}
			backend := &Backend{settings: policy.Backend{Balance: balance}, stats: new(stats)}
			es, call := loaded(weights, nil), Call{Tenant: "acme"}
			b.Run(fmt.Sprintf("%v-%d", balance, n), func(b *testing.B) {
				for b.Loop() {
					backend.choose(es, &call)
				}
			})
		}
	}
}

// BenchmarkSweep looks at 1000 connections in use.
func BenchmarkSweep(b *testing.B) {
	s, err := Build(nil, []policy.Backend{backendOf("a", "a:1")}, Options{
		Clock: clock(), Logger: zerolog.Nop(),
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			ours, _ := net.Pipe()
			return ours, nil
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	now := s.shared.clock()
	for range 1000 {
		c, err := s.Backend(0).Acquire(Call{Now: now, Deadline: now + int64(time.Hour)})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Release()
	}
	for b.Loop() {
		s.sweep(now)
	}
}
