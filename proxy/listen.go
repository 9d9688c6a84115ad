package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"weir/policy"
)

// Listen binds every listener, or none: the first failure closes what was bound and says what to do. Connections of a listener with
// TLS are secured by Serve, by what the snapshots say of the listener's name.
func Listen(settings []policy.ListenerSettings) ([]net.Listener, error) {
	bound := make([]net.Listener, 0, len(settings))
	for _, s := range settings {
		ln, err := listen(s)
		if err != nil {
			for _, b := range bound {
				_ = b.Close()
			}
			return nil, fmt.Errorf("cannot listen on %s (listener %q): %w%s", s.Address, s.Name, err, listenAdvice(err))
		}
		bound = append(bound, ln)
	}
	return bound, nil
}

func listen(s policy.ListenerSettings) (net.Listener, error) {
	if s.Network == "unix" {
		removeStaleSocket(s.Address)
	}
	ln, err := net.Listen(s.Network, s.Address)
	if err == nil && s.TLS != nil {
		ln = &secureListener{ln.(deadlineListener), s.Name}
	}
	return ln, err
}

// removeStaleSocket removes the socket that a killed process left behind. One that answers is in use and stays, so that
// listening fails and says so.
func removeStaleSocket(path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path)
	}
}

func listenAdvice(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "; another process has the port: stop it, or choose another with --listen or spec.listeners[].address"
	case errors.Is(err, syscall.EACCES):
		return "; ports below 1024 need the capability NET_BIND_SERVICE: grant it, or choose another port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; no interface of this machine has that address"
	}
	return ""
}

// limitListener bounds the connections: one that is too many waits here, and those after it in the kernel's queue, until
// another closes. With a bound for each address, a connection above it is closed at once.
type limitListener struct {
	net.Listener
	conns *connections
	wrap  func(net.Conn, netip.Addr) net.Conn
	// failed tells of an accept that will be tried again.
	failed func(error)
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		switch {
		case err == nil:
			peer := peerOf(c)
			if l.conns.enter(peer) {
				return l.wrap(c, peer), nil
			}
			_ = c.Close()
		case passing(err):
			l.failed(err)
			l.conns.pause()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, net.ErrClosed // the drain's last look at the kernel's queue
		default:
			return nil, err
		}
	}
}

// passing says whether an accept failed for want of something that comes back.
func passing(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// peerOf is the address of a connection's other end; the zero Addr for a Unix socket.
func peerOf(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// connections bounds and counts client connections. Its lock is taken when one opens or closes, never for a request.
type connections struct {
	mu      sync.Mutex
	free    *sync.Cond
	open    int
	max     int
	perIP   int // 0: no bound
	byAddr  map[netip.Addr]int
	stopped bool
}

func newConnections(maxOpen, perIP int) *connections {
	c := &connections{max: maxOpen, perIP: perIP, byAddr: make(map[netip.Addr]int)}
	c.free = sync.NewCond(&c.mu)
	return c
}

// enter counts a connection, and waits for a place while there is none; once stopped, nobody comes any more and everybody
// has a place. It returns false when the address has too many.
func (c *connections) enter(peer netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.perIP > 0 && peer.IsValid() {
		if c.byAddr[peer] >= c.perIP {
			return false
		}
		c.byAddr[peer]++
	}
	for c.open >= c.max && !c.stopped {
		c.free.Wait()
	}
	c.open++
	return true
}

// leave gives back the place of a connection that entered.
func (c *connections) leave(peer netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if c.perIP > 0 && peer.IsValid() {
		if c.byAddr[peer]--; c.byAddr[peer] <= 0 {
			delete(c.byAddr, peer)
		}
	}
	c.free.Signal()
}

// pause waits for a moment when the process has no descriptor left, so that accepting does not spin.
func (c *connections) pause() {
	timer := time.NewTimer(10 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
}

// stop wakes whoever waits for a place.
func (c *connections) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	c.free.Broadcast()
}

// count is how many are open.
func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// addressOf is where a listener listens, as documents write it.
func addressOf(ln net.Listener) string {
	a := ln.Addr()
	if strings.HasPrefix(a.Network(), "unix") {
		return "unix:" + a.String()
	}
	return a.String()
}
