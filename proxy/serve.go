package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"weir/proxy/certs"
)

// lastAccept is how long the listeners go on accepting at least once the drain has begun: connections that are in the kernel's
// queue by then would be reset by closing them.
const lastAccept = 50 * time.Millisecond

// lastRequests is how long idle connections stay open once the drain has begun. A client that was not told in its last
// answer may be sending its next request: it is served, and told then. Closed at once, that request would be lost.
const lastRequests = time.Second

// lastWords is how long connections that are cut may take to end.
const lastWords = time.Second

// Serve serves clients on these listeners until ctx is done or Drain is called, then drains: no further connections, every
// answer is its connection's last, those that stay idle for a second are closed, requests in flight may finish within
// timeouts.drain, and upgraded connections are closed then. The error says what was cut then, or why a listener
// failed. It closes the listeners, and is called once.
func (p *Proxy) Serve(ctx context.Context, listeners []net.Listener) error {
	if p.live.Load() == nil {
		panic("BUG: Serve before Apply")
	}
	limited, err := p.limited(listeners)
	if err != nil {
		return err
	}
	sweeping, stopSweep := context.WithCancel(context.Background())
	var swept, serving sync.WaitGroup
	swept.Go(func() { p.guard.Run(sweeping) })
	swept.Go(func() { certs.Follow(sweeping, p.certificates) })
	swept.Go(func() { p.watchBreakers(sweeping) })
	failed := make(chan error, len(listeners))
	for _, ln := range limited {
		serving.Go(func() {
			if err := p.server.Serve(ln); err != nil && !errors.Is(err, net.ErrClosed) {
				failed <- fmt.Errorf("cannot accept on %s: %w", addressOf(ln), err)
			}
		})
	}
	select {
	case <-ctx.Done():
	case <-p.drain:
	case err = <-failed:
	}
	p.Drain()
	p.acceptLast(listeners, max(p.live.Load().snapshot.Sidecar.LameDuck, lastAccept))
	p.conns.stop()
	serving.Wait() // from here on every connection is counted
	err = errors.Join(err, p.drainAll())
	stopSweep()
	swept.Wait()
	p.end()
	return err
}

// limited wraps the listeners: connections are bounded, counted, guarded, and secured where they are to be. After an error the
// listeners are closed.
func (p *Proxy) limited(listeners []net.Listener) ([]net.Listener, error) {
	limited := make([]net.Listener, 0, len(listeners))
	for _, ln := range listeners {
		secure, err := p.secure(ln)
		if err != nil {
			for _, ln := range listeners {
				_ = ln.Close()
			}
			return nil, err
		}
		wrap := func(c net.Conn, peer netip.Addr) net.Conn {
			if secure != nil {
				c = secure(c)
			}
			return p.newClientConn(p.guard.NewConn(c), peer)
		}
		limited = append(limited, &limitListener{Listener: ln, conns: p.conns, failed: p.acceptFailed, wrap: wrap})
	}
	return limited, nil
}

// acceptFailed counts an accept that failed for want of something that comes back, and tells of one a second.
func (p *Proxy) acceptFailed(err error) {
	p.metrics.acceptFailures.Inc()
	if p.acceptLog.allow(p.clock.Now()) {
		p.logger.Warn().Err(err).Int("connections", p.conns.count()).
			Msg("cannot accept connections at the moment: they wait in the kernel's queue")
	}
}

// Drain ends serving as the end of Serve's context does. It returns at once and may be called again.
func (p *Proxy) Drain() {
	if !p.draining.Swap(true) {
		close(p.drain)
	}
}

// Draining says whether the drain has begun.
func (p *Proxy) Draining() bool { return p.draining.Load() }

// drainAll waits for the requests in flight.
func (p *Proxy) drainAll() error {
	timeout := p.live.Load().snapshot.Sidecar.DrainTimeout
	p.logger.Info().Int("connections", p.conns.count()).Dur("timeout", timeout).
		Msg("draining: no new connections, requests in flight may finish")
	grace := min(lastRequests, timeout/2)
	if p.allClosed(grace) {
		return nil
	}
	p.guard.CloseIdle()
	if p.allClosed(timeout - grace) {
		return nil
	}
	// Upgraded connections have no end to wait for: closing them is how they drain.
	var err error
	if requests := p.conns.count() - int(p.tunnels.Load()); requests > 0 {
		err = fmt.Errorf("cannot finish %d connections within timeouts.drain (%v): cut", requests, timeout)
	}
	close(p.cutOff)
	p.live.Load().backends.Close() // whoever still waits, in a queue or for an answer, gets ours
	if !p.allClosed(lastWords) {
		p.guard.CloseAll()
		p.allClosed(lastWords)
	}
	return err
}

// allClosed waits until no connection is open; false when that takes longer than it may.
func (p *Proxy) allClosed(within time.Duration) bool {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.conns.count() > 0 {
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		}
	}
	return true
}

// acceptLast takes what comes for a while, then closes the listeners.
func (p *Proxy) acceptLast(listeners []net.Listener, wait time.Duration) {
	until := p.clock.Wall(p.clock.Now() + int64(wait))
	for _, ln := range listeners {
		if d, ok := ln.(interface{ SetDeadline(time.Time) error }); ok {
			_ = d.SetDeadline(until)
			continue
		}
		_ = ln.Close()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	<-timer.C
	for _, ln := range listeners {
		_ = ln.Close()
	}
}
