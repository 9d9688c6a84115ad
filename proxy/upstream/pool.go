package upstream

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// pool is connections to one endpoint, everybody's or one tenant's. It outlives snapshots with its endpoint.
// A Conn stays in its table for good and is dialled again when needed, so the table is as long as the most connections
// there ever were at once. Safe for concurrent use.
type pool struct {
	shared   *shared
	endpoint *endpoint
	quota    *quota

	idle    stack // connected and unused, the latest on top; the sweep may have closed some
	vacant  stack // not connected
	table   atomic.Pointer[[]*Conn]
	grow    sync.Mutex  // guards replacing the table
	retired atomic.Bool // no set of the present uses it: connections close when their request ends
}

// quota counts connections that are bounded together: all of a backend's, or one tenant's.
type quota struct {
	live atomic.Int64 // connections, counting those being dialled
	idle atomic.Int64
}

// stats is what is counted for one backend. It is adopted by the backend's name.
type stats struct {
	quota                     // of the pools that everybody shares
	turn        atomic.Uint64 // of round robin
	dials       atomic.Uint64
	ended       [classCount + int(causeCount)]atomic.Uint64 // requests by class of status, then by cause
	retries     retryCounts
	ejections   atomic.Uint64
	dnsFailures atomic.Uint64
}

// classCount is the number of classes of status: 1xx to 5xx.
const classCount = 5

// The states of a Conn.
const (
	vacant uint32 = iota // not connected
	idle                 // connected and in the idle stack
	busy                 // owned by a request
)

func newPool(s *shared, q *quota, e *endpoint) *pool {
	p := &pool{shared: s, endpoint: e, quota: q}
	p.table.Store(&[]*Conn{})
	return p
}

// takeIdle returns the connection that was used last and is still silent, or nil. Those found closed, or with bytes that
// nobody asked for, are closed and forgotten.
func (p *pool) takeIdle() *Conn {
	for {
		c := p.idle.pop(&p.table)
		if c == nil {
			return nil
		}
		if !c.state.CompareAndSwap(idle, busy) {
			p.vacant.push(c) // the sweep closed it where it lay
			continue
		}
		p.quota.idle.Add(-1)
		if c.silent() {
			return c
		}
		c.close()
		p.vacant.push(c)
	}
}

// putIdle keeps a connection for later, or closes it when there are enough.
func (p *pool) putIdle(c *Conn, maxIdle int) {
	if p.quota.idle.Add(1) > int64(maxIdle) || p.retired.Load() {
		p.quota.idle.Add(-1)
		c.close()
		p.vacant.push(c)
		return
	}
	c.idleSince.Store(p.shared.now.Load())
	c.state.Store(idle)
	p.idle.push(c)
	if p.retired.Load() { // since we looked: whoever retired it may have drained the stack before our push
		p.closeIdle()
	}
}

// attach makes a dialled connection one of the pool's, owned by the caller.
func (p *pool) attach(nc net.Conn) *Conn {
	c := p.vacant.pop(&p.table)
	if c == nil {
		c = p.add()
	}
	c.mu.Lock()
	c.nc, c.raw, c.under = nc, rawOf(nc), underOf(nc)
	c.canceled.Store(uint32(NoCause))
	c.mu.Unlock()
	c.reused = false
	c.state.Store(busy)
	return c
}

// add puts a new Conn at the end of the table. The old table may still be read: it is left as it is.
func (p *pool) add() *Conn {
	p.grow.Lock()
	defer p.grow.Unlock()
	old := *p.table.Load()
	c := &Conn{pool: p, index: uint32(len(old))}
	c.onReadable, c.onControl = c.readable, c.peek
	var table []*Conn
	if len(old) < cap(old) {
		table = append(old, c) // beyond what readers of the old table can see
	} else {
		table = append(make([]*Conn, 0, max(8, 2*len(old))), old...)
		table = append(table, c)
	}
	p.table.Store(&table)
	return c
}

// closeIdle closes every connection that no request owns.
func (p *pool) closeIdle() {
	for {
		c := p.idle.pop(&p.table)
		if c == nil {
			return
		}
		if c.state.CompareAndSwap(idle, busy) {
			p.quota.idle.Add(-1)
			c.close()
		}
		p.vacant.push(c)
	}
}

// retire lets requests in flight finish and closes everything else.
func (p *pool) retire() {
	p.retired.Store(true)
	p.closeIdle()
}

// drained says whether a retired pool has nothing left to watch.
func (p *pool) drained() bool {
	if p.endpoint.inFlight.Load() != 0 {
		return false
	}
	for _, c := range *p.table.Load() {
		if c.state.Load() != vacant {
			return false
		}
	}
	return true
}

// cancelAll makes every call in flight return at once.
func (p *pool) cancelAll() {
	for _, c := range *p.table.Load() {
		c.mu.Lock()
		if c.state.Load() == busy {
			c.cancelLocked(Canceled)
		}
		c.mu.Unlock()
	}
}

// sweep cancels what is overdue and closes what was idle for too long.
func (p *pool) sweep(now int64, idleTimeout time.Duration) {
	for _, c := range *p.table.Load() {
		switch c.state.Load() {
		case busy:
			c.cancelOverdue(now)
		case idle:
			if now-c.idleSince.Load() >= int64(idleTimeout) {
				c.expire()
			}
		}
	}
}
