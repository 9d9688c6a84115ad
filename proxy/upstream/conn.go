package upstream

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is a connection to an endpoint, owned by one request from Acquire to Release. One goroutine may write while another
// reads; both must be done before Release. Only Cancel may be called from anywhere.
type Conn struct {
	pool  *pool
	index uint32        // in the pool's table
	below atomic.Uint32 // index+1 of the next in the stack that holds it

	state     atomic.Uint32 // vacant, idle or busy
	idleSince atomic.Int64

	mu       sync.Mutex // guards nc, use and deadlines between the owner, Cancel and the sweep
	nc       net.Conn
	raw      syscall.RawConn // nil: not a kernel socket
	under    *underTLS       // nil: not TLS
	use      uint64          // counts Releases, so that a late Cancel hits nobody else
	canceled atomic.Uint32   // the Cause for which nc's deadlines lie in the past; written under mu

	// What the sweep compares with the clock: a time whose low bits are the Cause it stands for; 0: nothing is due.
	requestDue, readDue, writeDue atomic.Int64

	// Of the request that owns it.
	backend     *Backend
	deadline    int64
	reused      bool
	requestDone bool
	atOnce      bool // the request was written whole before anything else could delay it
	dropped     bool // the answer is not passed on
	upgraded    bool
	private     bool        // by DoNotReuse
	sending     atomic.Bool // the request is neither finished nor given up; ended under mu when headWaits may be set
	headWaits   bool        // a ReadHead waits since before that; guarded by mu
	headWaited  bool        // the reader's own note of having set it
	writeFailed Cause
	readFailed  Cause
	sent        atomic.Int64 // bytes of the request written
	answer      *answer      // nil until something is read

	io     socketIO
	limit  limit // of the read under way
	pieces net.Buffers
	pair   [2][]byte // behind pieces

	onReadable            func(fd uintptr) bool // c.readable, kept so that a read allocates nothing
	onControl             func(fd uintptr)      // c.peek
	quiet                 bool                  // what peek found
	readArmed, writeArmed bool                  // the connection's own deadlines are set
}

// causeBits is how many low bits of a due time name its cause: 16 ns of precision.
const causeBits = 4

var _ [1<<causeBits - int(causeCount)]struct{} // every cause fits

func due(at int64, c Cause) int64 { return at&^(1<<causeBits-1) | int64(c) }

// precise is below what a deadline is too near for the sweep.
const precise = time.Second

// begin makes the connection the request's.
func (c *Conn) begin(b *Backend, deadline int64) {
	c.backend, c.deadline = b, deadline
	c.requestDone, c.upgraded, c.writeFailed, c.readFailed = false, false, NoCause, NoCause
	c.atOnce, c.dropped, c.private = false, false, false
	c.sent.Store(0)
	c.sending.Store(true)
	if c.under != nil {
		c.under.mark()
	}
	if deadline != 0 {
		c.requestDue.Store(due(deadline, RequestTimeout))
	}
}

// Endpoint returns the address the connection leads to.
func (c *Conn) Endpoint() string { return c.pool.endpoint.address }

// Reused says whether the connection served another request before, so that the backend may have closed it just now.
func (c *Conn) Reused() bool { return c.reused }

// Use names this ownership of the connection, for Cancel.
func (c *Conn) Use() uint64 { return c.use }

// Cancel makes blocked and further calls of the owner return [Canceled] at once, and the connection close at Release. It
// does nothing when the connection was released since Use returned that number. It may be called from any goroutine.
func (c *Conn) Cancel(use uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.use == use {
		c.cancelLocked(Canceled)
	}
}

// Canceled returns the error of every further read once Cancel was called or the request's time is over, and nil before. It is
// for a reader that pauses, and as little to be called beside a read as another read.
func (c *Conn) Canceled() error {
	if cause := Cause(c.canceled.Load()); cause != NoCause {
		return c.readFailure(cause, nil)
	}
	return nil
}

// aLongTimeAgo is a deadline that has passed.
func aLongTimeAgo() time.Time { return time.Unix(1, 0) }

func (c *Conn) cancelLocked(cause Cause) {
	if c.canceled.Load() != uint32(NoCause) || c.nc == nil {
		return
	}
	c.canceled.Store(uint32(cause))
	_ = c.nc.SetDeadline(aLongTimeAgo()) // fails only on a closed connection, which wakes everybody too
}

// cancelOverdue is the sweep's look at a connection in use.
func (c *Conn) cancelOverdue(now int64) {
	if c.overdue(now) == NoCause {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Load() != busy {
		return
	}
	if cause := c.overdue(now); cause != NoCause { // again, now that Release cannot come between
		c.cancelLocked(cause)
	}
}

func (c *Conn) overdue(now int64) Cause {
	for _, word := range [...]*atomic.Int64{&c.readDue, &c.writeDue, &c.requestDue} {
		if w := word.Load(); w != 0 && w <= now {
			return Cause(w & (1<<causeBits - 1))
		}
	}
	return NoCause
}

// watch bounds a wait that begins now, by its limit and by what is left of the request. It reads no clock unless the bound
// is so near that the connection's own deadline must keep it: then arm is true.
func (c *Conn) watch(word *atomic.Int64, l *limit) (at int64, arm bool) {
	s := c.pool.shared
	now := s.now.Load()
	arm = l.wait < precise || c.deadline != 0 && c.deadline-now < int64(precise) || c.pool.retired.Load()
	if l.at == 0 {
		if arm {
			l.at = s.clock() + int64(l.wait)
		} else {
			l.at = now + int64(tick) + int64(l.wait) // the sweep's clock is up to a tick behind
		}
	}
	at, late := l.at, l.late
	if c.deadline != 0 && c.deadline < at {
		at, late = c.deadline, RequestTimeout
	}
	word.Store(due(at, late))
	return at, arm
}

// watchRead bounds a read. While the request is still being sent the answer's head is not due: endSending starts its time.
func (c *Conn) watchRead() {
	if c.limit.late == ResponseTimeout && c.sending.Load() {
		c.mu.Lock()
		defer c.mu.Unlock()
		l := &c.limit
		if c.sending.Load() {
			c.headWaits, c.headWaited = true, true
			l = &limit{wait: forever}
		}
		c.watchReadLocked(l)
		return
	}
	if at, arm := c.watch(&c.readDue, &c.limit); arm {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.armReadLocked(at)
	}
}

func (c *Conn) watchReadLocked(l *limit) {
	if at, arm := c.watch(&c.readDue, l); arm {
		c.armReadLocked(at)
	}
}

func (c *Conn) armReadLocked(at int64) {
	if c.canceled.Load() == uint32(NoCause) {
		_ = c.nc.SetReadDeadline(c.pool.shared.wall(at))
		c.readArmed = true
	}
}

// endSending starts the time of an answer that is waited for already.
func (c *Conn) endSending() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending.Store(false)
	if c.headWaits {
		c.headWaits = false
		c.watchReadLocked(&c.limit)
	}
}

func (c *Conn) watchWrite(l limit) {
	at, arm := c.watch(&c.writeDue, &l)
	if !arm {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.canceled.Load() == uint32(NoCause) {
		_ = c.nc.SetWriteDeadline(c.pool.shared.wall(at))
		c.writeArmed = true
	}
}

// unwatchRead ends what watchRead began and returns the cause that was due.
func (c *Conn) unwatchRead() Cause {
	if c.headWaited {
		c.headWaited = false
		c.mu.Lock()
		c.headWaits = false
		c.mu.Unlock()
	}
	late := Cause(c.readDue.Swap(0) & (1<<causeBits - 1))
	if c.readArmed {
		c.readArmed = false
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.canceled.Load() == uint32(NoCause) {
			_ = c.nc.SetReadDeadline(time.Time{})
		}
	}
	return late
}

func (c *Conn) unwatchWrite() Cause {
	late := Cause(c.writeDue.Swap(0) & (1<<causeBits - 1))
	if c.writeArmed {
		c.writeArmed = false
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.canceled.Load() == uint32(NoCause) {
			_ = c.nc.SetWriteDeadline(time.Time{})
		}
	}
	return late
}

// Drop says that the answer whose final head was read is not passed on, since the request is sent again: it counts by its
// status, however much of its body is unread.
func (c *Conn) Drop() { c.dropped = true }

// Release ends the request's ownership. The connection goes back to the pool when the answer was read to its verified end,
// it may persist, nothing is unread, and FinishRequest was called after the last byte of the request; else it closes.
// Everything that ReadHead and Buffered returned is invalid from here on.
func (c *Conn) Release() {
	p, b := c.pool, c.backend
	if b == nil {
		panic("BUG: Release without Acquire")
	}
	b.stats.ended[c.outcome()].Add(1)
	c.judge()
	keep := c.reusable()
	if c.answer != nil {
		p.shared.release(c.answer)
		c.answer = nil
	}
	c.backend = nil
	c.mu.Lock()
	c.use++
	c.requestDue.Store(0)
	keep = keep && c.canceled.Load() == uint32(NoCause)
	if !keep {
		c.closeLocked(c.socket())
	}
	c.mu.Unlock()
	if keep {
		p.putIdle(c, b.settings.MaxIdle)
	} else {
		p.vacant.push(c)
	}
	p.endpoint.inFlight.Add(-1)
}

// DoNotReuse makes Release close the connection, whatever the answer: for a request after which it is no longer like
// every other.
func (c *Conn) DoNotReuse() { c.private = true }

func (c *Conn) reusable() bool {
	a := c.answer
	return a != nil && !c.private && c.requestDone && c.writeFailed == NoCause && c.readFailed == NoCause &&
		a.final && a.head.KeepAlive && a.body.Done() && !a.extra && a.start == a.end
}

// outcome is where the request is counted in stats.ended.
func (c *Conn) outcome() int {
	switch a := c.answer; {
	case c.readFailed != NoCause:
		return classCount + int(c.readFailed)
	case a != nil && a.final && (a.body.Done() || a.head.Upgrade || c.dropped):
		return a.head.Status/100 - 1
	case c.writeFailed != NoCause:
		return classCount + int(c.writeFailed)
	}
	return classCount + int(Canceled) // the caller gave up
}

func (c *Conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(c.nc)
}

// socket is the connection below TLS. To close it says nothing to a peer that may not listen, and cuts what is under way.
func (c *Conn) socket() net.Conn {
	if c.under != nil {
		return c.under.Conn
	}
	return c.nc
}

// closeLocked closes nc, which is ours or below it, and leaves a Conn that can be dialled again. The caller owns it, and puts it on the vacant stack.
func (c *Conn) closeLocked(nc net.Conn) {
	_ = nc.Close() // there is nobody left to tell
	c.nc, c.raw, c.under = nil, nil, nil
	c.state.Store(vacant)
	c.pool.quota.live.Add(-1)
}

// expire closes an idle connection where it lies in the stack. Whoever pops it finds it vacant.
func (c *Conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.CompareAndSwap(idle, vacant) {
		c.pool.quota.idle.Add(-1)
		c.closeLocked(c.nc)
	}
}

// silent says whether an idle connection can be used: the peer has neither closed it nor said anything.
func (c *Conn) silent() bool {
	if c.raw != nil {
		c.quiet = false
		return c.raw.Control(c.onControl) == nil && c.quiet
	}
	if c.under != nil && c.under.raw != nil {
		return c.under.silent(c.nc)
	}
	// No descriptor: a read whose time is over finds what is there and waits for nothing.
	var b [1]byte
	_ = c.nc.SetReadDeadline(aLongTimeAgo())
	_, err := c.nc.Read(b[:])
	_ = c.nc.SetReadDeadline(time.Time{})
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func (c *Conn) peek(fd uintptr) { c.quiet = silent(fd) }
