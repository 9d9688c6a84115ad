package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"weir/policy"
)

// Backend is one backend of a set: its settings of this snapshot over pools that may be older. Safe for concurrent use.
type Backend struct {
	settings  policy.Backend
	endpoints []endpoint
	stats     *stats
	shared    *shared
}

// Name returns the backend's name.
func (b *Backend) Name() string { return b.settings.Name }

// Acquire returns a connection to the endpoint with the fewest requests in flight for its weight: the one used last among
// its idle ones, or a new one. Where dialling an endpoint fails the others are tried, once around; nothing was written, so
// that is always safe. When pool.maxConnections are in use an idle connection to any endpoint will do.
//
// Now is the present and deadline the end of the whole request; 0 means none. The deadline holds for everything that is
// done with the connection until its Release. Every error is an *Error and replayable. It is counted here, so there is
// nothing to release.
func (b *Backend) Acquire(now, deadline int64) (*Conn, error) {
	if len(b.endpoints) == 0 {
		return nil, b.refuse(&Error{Cause: NoEndpoint})
	}
	first := leastRequests(b.endpoints, rand.Uint64())
	p := b.endpoints[first].pool
	p.inFlight.Add(1)
	if c := p.takeIdle(); c != nil {
		c.reused = true
		c.begin(b, deadline)
		return c, nil
	}
	p.inFlight.Add(-1)
	return b.connect(first, now, deadline)
}

// connect goes once around the endpoints, beginning with first.
func (b *Backend) connect(first int, now, deadline int64) (*Conn, error) {
	var failed *Error
	for i := range b.endpoints {
		if failed != nil {
			if now = b.shared.clock(); deadline != 0 && now >= deadline {
				failed = &Error{Cause: RequestTimeout, Endpoint: failed.Endpoint, Err: failed.Err}
				break
			}
		}
		c, err := b.connectTo(b.endpoints[(first+i)%len(b.endpoints)].pool, now, deadline, i > 0)
		if c != nil {
			c.begin(b, deadline)
			return c, nil
		}
		if err.Cause != PoolFull || failed == nil {
			failed = err
		}
	}
	return nil, b.refuse(failed)
}

// connectTo dials one endpoint unless the pool is full; then, or when it is not the first choice, an idle connection will do.
func (b *Backend) connectTo(p *pool, now, deadline int64, idleFirst bool) (*Conn, *Error) {
	p.inFlight.Add(1)
	full := false
	if !idleFirst {
		full = !b.reserve()
	}
	if idleFirst || full {
		if c := p.takeIdle(); c != nil {
			c.reused = true
			return c, nil
		}
		full = !b.reserve()
	}
	if full {
		p.inFlight.Add(-1)
		return nil, &Error{Cause: PoolFull}
	}
	c, err := b.dial(p, now, deadline)
	if err != nil {
		b.stats.live.Add(-1)
		p.inFlight.Add(-1)
	}
	return c, err
}

// reserve takes one of pool.maxConnections.
func (b *Backend) reserve() bool {
	if b.stats.live.Add(1) > int64(b.settings.MaxConnections) {
		b.stats.live.Add(-1)
		return false
	}
	return true
}

// dial connects within timeouts.connect and the deadline, whichever ends first.
func (b *Backend) dial(p *pool, now, deadline int64) (*Conn, *Error) {
	limit, late := b.settings.ConnectTimeout, ConnectTimeout
	if left := time.Duration(deadline - now); deadline != 0 && left < limit {
		limit, late = left, RequestTimeout
	}
	b.stats.dials.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	nc, err := b.shared.dial(ctx, p.network, p.address)
	if err == nil {
		return p.attach(nc), nil
	}
	e := &Error{Cause: ConnectRefused, Endpoint: p.address, Err: err}
	var timeout net.Error
	if ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout() {
		e.Cause = late
	}
	return nil, e
}

// refuse counts a request that got no connection.
func (b *Backend) refuse(e *Error) *Error {
	e.Replayable = true
	b.stats.ended[classCount+int(e.Cause)].Add(1)
	return e
}
