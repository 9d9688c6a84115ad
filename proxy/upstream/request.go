package upstream

import (
	"syscall"

	"weir/proxy/wire"
)

// brief is the most bytes moved by a system call that the scheduler is not told of. Sockets here never block, and telling
// costs more than moving a few kilobytes; a large copy would keep the garbage collector waiting.
const brief = 32 << 10

// Write writes a piece of the request and returns how much of it the kernel took. While the backend takes nothing,
// timeouts.response runs, but not after Upgraded. After an error the backend may have answered nevertheless: ReadHead tells.
func (c *Conn) Write(p []byte) (int, error) { return c.Write2(p, nil) }

// Write2 is Write of two pieces in one system call.
func (c *Conn) Write2(head, body []byte) (int, error) {
	if cause := Cause(c.canceled.Load()); cause != NoCause {
		return 0, c.writeFailure(cause, nil)
	}
	patience := c.backend.settings.ResponseTimeout
	if c.upgraded {
		patience = forever
	}
	c.watchWrite(limit{wait: patience, late: ResponseTimeout})
	var n int64
	var err error
	if len(body) == 0 {
		var k int
		k, err = c.nc.Write(head)
		n = int64(k)
	} else if c.under != nil {
		n, err = c.writeRecords(head, body)
	} else {
		c.pair = [2][]byte{head, body}
		c.pieces = c.pair[:]
		n, err = c.pieces.WriteTo(c.nc)
		c.pieces, c.pair = nil, [2][]byte{}
	}
	c.sent.Add(n)
	late := c.unwatchWrite()
	if err != nil {
		return int(n), c.writeFailure(c.causeOf(err, late), err)
	}
	return int(n), nil
}

func (c *Conn) writeFailure(cause Cause, err error) *Error {
	c.writeFailed = cause
	c.endSending() // an answer is due now, if there is one
	return &Error{Cause: cause, Endpoint: c.pool.endpoint.address, Replayable: c.sent.Load() == 0, Err: err}
}

// Sent returns how many bytes of the request were written so far.
func (c *Conn) Sent() int64 { return c.sent.Load() }

// FinishRequest says that the request was written whole, body included: timeouts.response runs from here, also for a
// ReadHead that waits already. Without it the connection is not used again.
func (c *Conn) FinishRequest() {
	c.requestDone = true
	c.endSending()
}

// Exchange is Write2 of a whole request, FinishRequest and ReadHead in one: it goes out from inside the wait for the answer,
// which saves a system call. Where the backend answered before it took the whole, the answer is returned and the connection
// will not be used again.
func (c *Conn) Exchange(head, body []byte, asked wire.Asked) (*wire.ResponseHead, error) {
	if c.raw != nil && len(head) > 0 && len(head)+len(body) <= brief {
		c.io.head, c.io.body = head, body
	} else if _, err := c.Write2(head, body); err != nil && c.sent.Load() == 0 {
		return nil, err
	}
	c.requestDone, c.atOnce = true, true
	c.sending.Store(false)
	return c.ReadHead(asked)
}

// Answered says, without waiting, whether the backend has begun to answer or has closed: an upload need not go on then.
// It always says no where there is no descriptor to look at. It must not be called while another goroutine reads.
func (c *Conn) Answered() bool {
	if a := c.answer; a != nil && a.start < a.end {
		return true
	}
	return c.raw != nil && !c.silent()
}

// socketIO is what the read callback works on. It lies in the Conn so that a read allocates nothing.
type socketIO struct {
	head, body []byte // to send before the first read; head is nil when there is nothing to send
	sent       int
	vector     [2]syscall.Iovec

	p       []byte // to read into
	n       int
	errno   syscall.Errno
	waiting bool
}

// receive reads once, and first sends what Exchange left to send.
func (c *Conn) receive(p []byte) (int, error) {
	io := &c.io
	io.p = p
	io.n, io.errno, io.waiting = 0, 0, false
	err := c.raw.Read(c.onReadable)
	if io.head != nil {
		if err = c.sendRest(); err != nil {
			return 0, err
		}
		err = c.raw.Read(c.onReadable)
	}
	io.p = nil
	if err == nil && io.errno != 0 {
		err = io.errno
	}
	return io.n, err
}

// readable is called by the poller's read: once before it waits and again whenever there may be something to read. It
// returns true to end the wait. Sending from here, after the poller was made ready and before it waits, cannot lose the
// answer's edge, and saves the read that would find nothing.
func (c *Conn) readable(fd uintptr) bool {
	io := &c.io
	if io.head != nil {
		n, errno := send(fd, io.head, io.body, &io.vector)
		c.sent.Add(int64(n))
		if errno != 0 || n < len(io.head)+len(io.body) {
			io.sent = n
			return true // sendRest goes on
		}
		io.head, io.body = nil, nil
	} else if io.n, io.errno = receive(fd, io.p); io.errno != syscall.EAGAIN {
		return true
	}
	if !io.waiting {
		io.waiting = true
		c.watchRead()
	}
	return false
}

// sendRest writes what the kernel did not take at once. An error is returned only when it took nothing at all: else there
// may be an answer to read.
func (c *Conn) sendRest() error {
	io := &c.io
	head, body := io.head, io.body
	io.head, io.body = nil, nil
	skip := min(io.sent, len(head))
	_, err := c.Write2(head[skip:], body[io.sent-skip:])
	if c.sent.Load() > 0 {
		return nil
	}
	return err
}
