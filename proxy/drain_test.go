package proxy

import (
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestDrain(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}), make(chan struct{})
	b := newBackend(t, func(c *peer) {
		for {
			head, err := c.head()
			if err != nil {
				return
			}
			if strings.HasPrefix(head, "GET /slow ") {
				asked <- struct{}{}
				<-release
			}
			c.say(ok)
		}
	})
	s := serve(t, documents(b.addr))
	idle, fresh, half, busy, late := s.dial(), s.dial(), s.dial(), s.dial(), s.dial()
	idle.open()
	late.open()
	half.open()
	half.say("GET / HTTP/1.1\r\n") // the next request has begun to arrive
	busy.say(strings.Replace(get, " / ", " /slow ", 1))
	within(t, "it is in flight", asked)
	until(t, "all are accepted", func() bool { return s.metric("weir_client_connections") == 5 })

	s.Drain()
	s.Drain() // again does nothing
	if !s.Draining() {
		t.Error("it does not say so")
	}
	until(t, "the listener is closed", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	// A client that did not know yet is served, and told.
	late.say(get)
	if a, _ := late.expect(200); !a.Close {
		t.Error("no Connection: close")
	}
	late.closed()
	// Connections without a request end, also those that never had one.
	idle.closed()
	fresh.closed()
	// A request that has begun is served, and so is the one in flight; both hear that the connection ends.
	half.say("Host: h\r\nX-Tenant-ID: acme\r\n\r\n")
	if a, _ := half.expect(200); !a.Close {
		t.Error("no Connection: close")
	}
	half.closed()
	close(release)
	if a, _ := busy.expect(200); !a.Close {
		t.Error("no Connection: close")
	}
	busy.closed()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if n := s.metric("weir_client_connections"); n != 0 {
		t.Errorf("%v connections", n)
	}
}

// TestDrainTimeout: who waits for an answer gets ours, who reads one gets a cut.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 2)
	b := newBackend(t, func(c *peer) {
		head, _ := c.head()
		if strings.HasPrefix(head, "GET /begun ") {
			c.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
		}
		asked <- struct{}{}
		hold(c)
	})
	s := serve(t, documents(b.addr, "timeouts: {drain: 60ms}"))
	waiting, reading := s.dial(), s.dial()
	waiting.say(get)
	reading.say(strings.Replace(get, " / ", " /begun ", 1))
	within(t, "the first is asked", asked)
	within(t, "the second is asked", asked)
	if _, err := reading.head(); err != nil {
		t.Fatal(err)
	}
	s.end()
	err := within(t, "the proxy ends", s.ended)
	if err == nil || err.Error() != "cannot finish 2 connections within timeouts.drain (60ms): cut" {
		t.Errorf("Serve: %v", err)
	}
	if a, _ := waiting.expect(503); !a.Close || a.Header.Get("Retry-After") != "1" {
		t.Errorf("%v", a.Header)
	}
	if body, err := reading.rest(); body != "ab" || err == nil {
		t.Errorf("%q %v, want a cut", body, err)
	}
	lines := s.logged(2)
	if len(lines) != 2 || lines[0].text("reason") != "draining" || lines[1].text("reason") != "draining" {
		t.Errorf("%v", lines)
	}
}

// TestDrainCutsClientsThatDoNotMove: a client that neither sends nor reads cannot hold the end up.
func TestDrainCutsClientsThatDoNotMove(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		piece := make([]byte, 1<<20)
		for {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	})
	s := serve(t, documents(b.addr, "timeouts: {drain: 60ms}"))
	c := s.dial()
	c.say(get)
	if _, err := c.head(); err != nil {
		t.Fatal(err)
	}
	s.end()
	if err := within(t, "the proxy ends", s.ended); err == nil {
		t.Error("no error")
	}
}

// TestRollingRestarts: 20 times a new proxy comes up on the socket, and the old one goes, under load. No request fails.
func TestRollingRestarts(t *testing.T) {
	t.Parallel()
	text := documents(answering(t, ok, nil).addr)
	snapshot := compile(t, text)
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// handOver is the listener as another process would get it: a descriptor of the same socket, so that one queue serves all.
	handOver := func() net.Listener {
		f, err := first.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ln, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	var stop atomic.Bool
	var sent, reconnects atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			var c *peer
			for !stop.Load() {
				if c == nil {
					c = dial(t, first.Addr().String())
				}
				request := get
				if sent.Load()%2 == 0 {
					request = post(5, "hello")
				}
				c.say(request)
				a, body, err := c.tryAnswer("GET")
				if err != nil || a.StatusCode != 200 || body != "ok" {
					t.Errorf("%v %s %v", a, body, err)
					return
				}
				sent.Add(1)
				if a.Close {
					_ = c.Close()
					c = nil
					reconnects.Add(1)
				}
			}
		})
	}
	old := start(t, snapshot, SystemClock(), handOver())
	for range 20 {
		next := start(t, snapshot, SystemClock(), handOver())
		before := sent.Load()
		until(t, "requests go on", func() bool { return sent.Load() > before+20 || t.Failed() })
		if err := old.stop(); err != nil {
			t.Fatal(err)
		}
		old = next
	}
	stop.Store(true)
	clients.Wait()
	_ = first.Close()
	if reconnects.Load() == 0 {
		t.Error("no client was ever told to connect again")
	}
}

// brokenListener fails when it is told to.
type brokenListener struct {
	net.Listener
	broken chan struct{}
}

func (l brokenListener) Accept() (net.Conn, error) {
	<-l.broken
	return nil, errors.New("the cable is cut")
}

func TestServeEndsWhenAListenerFails(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken := brokenListener{ln, make(chan struct{})}
	s := start(t, compile(t, documents("127.0.0.1:1")), SystemClock(), broken)
	close(broken.broken)
	err = within(t, "the proxy ends", s.ended)
	if want := "cannot accept on " + s.addr + ": the cable is cut"; err == nil || err.Error() != want {
		t.Errorf("Serve: %v, want %s", err, want)
	}
}
