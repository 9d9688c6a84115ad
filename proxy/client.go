package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"weir/proxy/upstream"
	"weir/proxy/wire"
)

// clientConn is a client's connection and what runs on it besides the handler: the watch for its leaving and the upload.
type clientConn struct {
	*wire.Conn
	proxy  *Proxy
	peer   netip.Addr
	tls    *tls.Conn // nil: plain HTTP
	closed atomic.Bool

	spiffe     string // see spiffeID
	spiffeRead bool

	// Of the request in progress. Whoever reads from the client owns them: the handler, or the upload until it is done.
	waitsFor *upstream.Conn // the call to cancel when the client leaves; nil: none
	use      uint64
	queued   bool          // the request waits for its verdict, and left is told when the client leaves
	left     chan struct{} // nil until it is needed
	gone     bool
	upload   *upload
}

// newClientConn makes the connection that the server above sees.
func (p *Proxy) newClientConn(c *wire.Conn, peer netip.Addr) *clientConn {
	cc := &clientConn{Conn: c, proxy: p, peer: peer}
	if s, ok := c.NetConn().(*secureConn); ok {
		cc.tls = s.Conn
	}
	c.OnGone(cc.clientLeft)
	return cc
}

// Close closes the connection and gives its place back, once.
func (c *clientConn) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		c.proxy.conns.leave(c.peer)
	}
	return err
}

// watch cancels the call when the client leaves, until unwatch.
func (c *clientConn) watch(uc *upstream.Conn) {
	c.waitsFor, c.use = uc, uc.Use()
	c.BeginWait()
}

// watchQueued returns what tells when the client leaves, until finishCall.
func (c *clientConn) watchQueued() <-chan struct{} {
	if c.left == nil {
		c.left = make(chan struct{}, 1)
	}
	c.queued = true
	c.BeginWait()
	return c.left
}

// clientLeft is called by the guard's sweep, between watch or watchQueued and finishCall only.
func (c *clientConn) clientLeft() {
	if !c.queued {
		c.waitsFor.Cancel(c.use)
		return
	}
	select {
	case c.left <- struct{}{}:
	default:
	}
}

// finishCall ends what runs beside the handler, before the call's connection is released. It may be called again.
func (c *clientConn) finishCall() {
	if c.upload != nil {
		c.upload.stop()
	}
	if c.waitsFor == nil && !c.queued {
		return
	}
	c.gone = c.EndWait() || c.gone
	c.waitsFor = nil // not before: until EndWait has returned, the sweep reads it
	if c.queued {
		c.queued = false
		select {
		case <-c.left:
		default:
		}
	}
}

// endRequest forgets a request, and says whether the connection can carry another: a body that nobody read must be there
// already, since waiting for it would let a refused client hold us.
func (c *clientConn) endRequest() (reusable bool) {
	c.upload, c.gone = nil, false
	if c.BodyDone() {
		return true
	}
	_, err := c.BodyBuffered()
	return err == nil && c.BodyDone()
}

// fault is what the client did to end a call that failed with err; None when it did nothing. The call is over.
func (c *clientConn) fault(err error) wire.Cause {
	if c.upload != nil && c.upload.cause != wire.None && c.upload.cause != wire.ReadInterrupted {
		return c.upload.cause
	}
	if cause, ok := err.(wire.Cause); ok { // not wrapped: a write to the client failed
		return cause
	}
	if c.gone {
		return wire.PeerGone
	}
	return wire.None
}

// upload sends the rest of a request's body to the backend while the handler waits for the answer, so that an early answer
// is seen early.
type upload struct {
	conn    *clientConn
	call    *upstream.Conn
	use     uint64
	chunked bool
	pacer   *pacer
	stopped chan struct{} // closed when nobody waits for the upload any more; nil: it never pauses
	whole   atomic.Bool   // the verified end was read: only writing is left
	done    chan struct{} // closed at the end; what follows is valid then
	cause   wire.Cause    // what the client did wrong
	wholeAt int64         // when all of it was written; 0: it was not
}

// startUpload sends the rest of the body, as fast as the pacer lets it. finishCall waits for its end.
func (c *clientConn) startUpload(call *upstream.Conn, body wire.Body, pacer *pacer) {
	u := &upload{conn: c, call: call, use: call.Use(), chunked: body == wire.BodyChunked, pacer: pacer, done: make(chan struct{})}
	if pacer.On() {
		u.stopped = make(chan struct{})
	}
	c.upload = u
	go u.run()
}

// run copies until the verified end. The end of a chunked body is written only after the guard has seen it, so that half an
// upload never looks whole; a client that fails cancels the call.
func (u *upload) run() {
	defer close(u.done)
	defer func() {
		if defect := recover(); defect != nil {
			u.conn.proxy.report(defect, nil)
			u.call.Cancel(u.use)
		}
	}()
	buf := u.conn.proxy.copies.get()
	defer buf.release()
	for {
		n, err := u.conn.ReadBody(u.pacer.fit(buf.room()))
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			u.fail(err)
			return
		}
		if end {
			u.whole.Store(true)
		}
		if !u.pace(n) {
			return
		}
		piece := buf.piece(n)
		if u.chunked {
			piece = buf.chunk(n, end)
		}
		if len(piece) > 0 {
			if _, err := u.call.Write(piece); err != nil {
				return // the answer, or the lack of one, says why
			}
		}
		if end {
			u.call.FinishRequest()
			u.wholeAt = u.conn.proxy.clock.Now()
			u.conn.watch(u.call)
			return
		}
		buf.filled(n)
	}
}

// fail gives the call up for what the client did.
func (u *upload) fail(err error) {
	errors.As(err, &u.cause)
	u.call.Cancel(u.use)
}

// pace waits until a piece of n bytes may pass; false: the upload is over. Nobody else sees a client leave while nothing is
// read from it.
func (u *upload) pace(n int) bool {
	for u.pacer.begin(n); u.pacer.pause(u.conn.proxy.clock.Now(), u.stopped); {
		if isClosed(u.stopped) {
			return false
		}
		if u.conn.PeerClosed() {
			u.fail(wire.PeerGone)
			return false
		}
	}
	return true
}

// unfinished says whether the client still has to send when the answer is there. Safe while the upload runs.
func (u *upload) unfinished() bool { return u != nil && !u.whole.Load() }

// lastWrite is how long the end of a body may take to be written when the answer has already been passed on.
const lastWrite = 50 * time.Millisecond

// stop ends the upload and waits for it. One that has only its last bytes to write may finish.
func (u *upload) stop() {
	select {
	case <-u.done:
		return
	default:
	}
	if u.whole.Load() {
		timer := time.NewTimer(lastWrite)
		defer timer.Stop()
		select {
		case <-u.done:
			return
		case <-timer.C:
		}
	}
	if u.stopped != nil {
		close(u.stopped)
	}
	u.call.Cancel(u.use)
	u.conn.Interrupt()
	<-u.done
}
