package upstream

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"weir/policy"
	"weir/proxy/certs"
)

// Backend is one backend of a set: its settings of this snapshot over endpoints that may be older. Safe for concurrent use.
type Backend struct {
	settings policy.Backend
	stats    *stats
	shared   *shared
	client   *certs.Client // nil: plain HTTP
	names    *names        // nil: the endpoints are written
	lanes    *lanes        // nil: everybody shares a pool for each endpoint
	roster   atomic.Pointer[roster]
}

// Name returns the backend's name.
func (b *Backend) Name() string { return b.settings.Name }

// Call is what a request says of itself to be given a connection.
type Call struct {
	// Now is the present and Deadline the end of the whole request; 0 means none. The deadline holds for everything that is done
	// with the connection until its Release.
	Now, Deadline int64
	// Tenant is whom the request is for: ConsistentHash chooses by it, and with pool.perTenant it has its own connections. Empty
	// means nobody in particular: such requests go to the endpoint with the fewest, and share one pool.
	Tenant string
	// Avoid is the endpoint of a try that failed: another one is preferred. Empty for a first try.
	Avoid string
}

// Acquire returns a connection to the endpoint that the balance chooses among the healthy ones: the one used last among its idle
// ones, or a new one. Where dialling an endpoint fails the others are tried, once around; nothing was written, so that is
// always safe. When pool.maxConnections are in use an idle connection to any endpoint will do.
//
// Every error is an *Error and replayable. It is counted here, so there is nothing to release.
func (b *Backend) Acquire(call Call) (*Conn, error) {
	b.shared.follow(call.Now)
	members := b.roster.Load().usable
	if len(members) == 0 {
		return nil, b.refuse(&Error{Cause: NoEndpoint})
	}
	first := b.choose(members, &call)
	e := members[first].endpoint
	for {
		l := b.lanes.of(call.Tenant, call.Now)
		p := l.pool(e)
		e.inFlight.Add(1)
		if c := p.takeIdle(); c != nil {
			c.reused = true
			c.begin(b, call.Deadline)
			return c, nil
		}
		e.inFlight.Add(-1)
		c, err := b.connect(members, first, l, call)
		if c != nil {
			return c, nil
		}
		if err.Cause != PoolFull || !l.closed() {
			return nil, b.refuse(err)
		}
	}
}

// Crowded says whether more than half of the connections that the request may have are in use.
func (b *Backend) Crowded(call Call) bool {
	q := &b.stats.quota
	if l := b.lanes.of(call.Tenant, call.Now); l != nil {
		q = &l.quota
	}
	return 2*(q.live.Load()-q.idle.Load()) > int64(b.settings.MaxConnections)
}

// connect goes once around the endpoints, beginning with first.
func (b *Backend) connect(members []member, first int, l *lane, call Call) (*Conn, *Error) {
	var failed *Error
	for i := range members {
		if failed != nil {
			if call.Now = b.shared.clock(); call.Deadline != 0 && call.Now >= call.Deadline {
				return nil, &Error{Cause: RequestTimeout, Endpoint: failed.Endpoint, Err: failed.Err}
			}
		}
		c, err := b.connectTo(l.pool(members[(first+i)%len(members)].endpoint), call, i > 0)
		if c != nil {
			c.begin(b, call.Deadline)
			return c, nil
		}
		if err.Cause != PoolFull || failed == nil {
			failed = err
		}
	}
	return nil, failed
}

// connectTo dials one endpoint unless the pool is full; then, or when it is not the first choice, an idle connection will do.
func (b *Backend) connectTo(p *pool, call Call, idleFirst bool) (*Conn, *Error) {
	p.endpoint.inFlight.Add(1)
	full := false
	if !idleFirst {
		full = !b.reserve(p.quota)
	}
	if idleFirst || full {
		if c := p.takeIdle(); c != nil {
			c.reused = true
			return c, nil
		}
		full = !b.reserve(p.quota)
	}
	if full {
		p.endpoint.inFlight.Add(-1)
		return nil, &Error{Cause: PoolFull}
	}
	c, err := b.dial(p, call)
	if err != nil {
		p.quota.live.Add(-1)
		p.endpoint.inFlight.Add(-1)
		b.judgeDial(p.endpoint, err)
	}
	return c, err
}

// reserve takes one of pool.maxConnections.
func (b *Backend) reserve(q *quota) bool {
	if q.live.Add(1) > int64(b.settings.MaxConnections) {
		q.live.Add(-1)
		return false
	}
	return true
}

// dial connects, with TLS where the backend has it, within timeouts.connect and the deadline, whichever ends first.
func (b *Backend) dial(p *pool, call Call) (*Conn, *Error) {
	limit, late := b.settings.ConnectTimeout, ConnectTimeout
	if left := time.Duration(call.Deadline - call.Now); call.Deadline != 0 && left < limit {
		limit, late = left, RequestTimeout
	}
	b.stats.dials.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	nc, err := b.open(ctx, p.endpoint)
	if err == nil {
		return p.attach(nc), nil
	}
	e := &Error{Cause: tlsCause(err, ConnectRefused), Endpoint: p.endpoint.address, Err: err}
	var timeout net.Error
	if ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout() {
		e.Cause = late
	}
	return nil, e
}

// open makes a connection to an endpoint, for requests and for checks alike.
func (b *Backend) open(ctx context.Context, e *endpoint) (net.Conn, error) {
	nc, err := b.shared.dial(ctx, e.network, e.address)
	if err == nil && e.tls != nil {
		return secure(ctx, nc, e.tls.Config())
	}
	return nc, err
}

// refuse counts a request that got no connection.
func (b *Backend) refuse(e *Error) *Error {
	e.Replayable = true
	b.stats.ended[classCount+int(e.Cause)].Add(1)
	return e
}
