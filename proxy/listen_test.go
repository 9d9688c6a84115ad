package proxy

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"weir/policy"
)

func TestListen(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy, err := net.Listen("unix", dir+"/busy")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return ln.Addr().String()
	}()

	f := func(network, address, want string) {
		t.Helper()
		listeners, err := Listen([]policy.ListenerSettings{{Name: "first", Network: "tcp", Address: free}, {Name: "second", Network: network, Address: address}})
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", address, err)
				return
			}
			for _, ln := range listeners {
				_ = ln.Close()
			}
			return
		}
		if listeners != nil || err == nil || !strings.HasPrefix(err.Error(), "cannot listen on "+address+` (listener "second"): `) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", address, err, want)
		}
	}
	// All or none, and what to do about it: each case binds the first address again.
	f("tcp", taken.Addr().String(), "; another process has the port: stop it, or choose another with --listen or spec.listeners[].address")
	f("tcp", "192.0.2.1:1", "; no interface of this machine has that address")
	f("unix", dir+"/busy", "another process has the port")
	f("unix", dir+"/file", "address already in use")
	f("unix", dir+"/missing/s", "no such file")
	f("tcp", "127.0.0.1:0", "")
	f("unix", dir+"/new", "")
	// The socket that a killed process left behind is taken over.
	left, err := net.Listen("unix", dir+"/left")
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = left.Close()
	f("unix", dir+"/left", "")
}

func TestConnectionsAreBounded(t *testing.T) {
	s := serve(t, documents(answering(t, ok, nil).addr, "bounds: {connections: 2}"))
	first, second, third, fourth := s.dial(), s.dial(), s.dial(), s.dial()
	first.open()
	second.open()
	third.say(get)
	fourth.say(get)
	if n := s.metric("weir_client_connections"); n != 2 {
		t.Errorf("%v connections, want 2", n)
	}
	// The others come when there is room.
	_ = first.Close()
	_ = second.Close()
	third.expect(200)
	fourth.expect(200)
	if n := s.requests(); n > 4 {
		t.Errorf("%d requests", n)
	}
}

// TestListenersThatWaitTakeNoPlace: with room for one connection, it may come to any of them.
func TestListenersThatWaitTakeNoPlace(t *testing.T) {
	places := newConnections(1, 0)
	listen := func() *limitListener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return &limitListener{Listener: ln, conns: places, wrap: func(c net.Conn, _ netip.Addr) net.Conn { return c }}
	}
	waits, other := listen(), listen()
	defer other.Close()
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = waits.Accept() }()
	dial(t, other.Addr().String())
	accepted := make(chan net.Conn, 1)
	go func() { c, _ := other.Accept(); accepted <- c }()
	_ = within(t, "the connection is accepted", accepted).Close()
	_ = waits.Close()
	within(t, "the other has ended", ended)
}

func TestConnectionsOfOneAddressAreBounded(t *testing.T) {
	s := serve(t, documents(answering(t, ok, nil).addr, "bounds: {connectionsPerIP: 2}"))
	first, second := s.dial(), s.dial()
	first.open()
	second.open()
	third := s.dial()
	if b, _ := third.rest(); b != "" {
		t.Errorf("the third gets %q", b)
	}
	// There is room again when one has gone, and the others do not mind.
	_ = first.Close()
	until(t, "it is gone", func() bool { return s.metric("weir_client_connections") == 1 })
	s.dial().open()
	second.open()
}

// lateListener gets its only connection after it was told to end, as an accept that was under way does.
type lateListener struct {
	net.Listener
	closed, release chan struct{}
	told, given     atomic.Bool
}

func (l *lateListener) Close() error {
	if !l.told.Swap(true) {
		close(l.closed)
	}
	return nil
}

func (l *lateListener) Accept() (net.Conn, error) {
	<-l.closed
	if l.given.Swap(true) {
		return nil, net.ErrClosed
	}
	<-l.release
	return l.Listener.Accept()
}

func TestLateConnectionIsServed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	late := &lateListener{Listener: ln, closed: make(chan struct{}), release: make(chan struct{})}
	var s *sidecar
	b := newBackend(t, func(c *peer) {
		_, _, _ = c.request()
		select {
		case <-s.ended:
			t.Error("the proxy has ended before its last request")
		default:
		}
		c.say(ok)
	})
	s = start(t, compile(t, documents(b.addr)), SystemClock(), late)
	c := s.dial()
	c.say(get)
	s.end()
	until(t, "no connections are awaited", func() bool {
		s.conns.mu.Lock()
		defer s.conns.mu.Unlock()
		return s.conns.stopped
	})
	close(late.release)
	if a, _ := c.expect(200); !a.Close {
		t.Error("no Connection: close")
	}
}
