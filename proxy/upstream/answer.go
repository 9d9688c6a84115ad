package upstream

import (
	"errors"
	"io"
	"os"
	"time"

	"weir/proxy/wire"
)

const (
	smallHead = 8 << 10  // most heads fit; an idle connection holds no buffer at all
	maxHead   = 64 << 10 // of one answer, its interim heads included
	// maxFields bounds the fields of one head.
	maxFields = 500
	// maxInterim bounds the 1xx heads before one answer.
	maxInterim = 16
)

// answer is the state of reading one answer. It belongs to a Conn from the first read to Release.
type answer struct {
	head       wire.ResponseHead
	body       wire.Decoder
	final      bool  // head is not an interim one
	begun      bool  // a byte came
	interim    int   // interim heads so far
	headBytes  int   // bytes of all heads so far
	headDue    int64 // when this head is overdue; 0: nobody waited for it yet
	extra      bool  // bytes came after the end
	start, end int   // what is unread of buf
	buf        []byte
	large      *[maxHead]byte // behind buf once small did not suffice
	small      [smallHead]byte
}

// answerOf returns a clean answer.
func (s *shared) answer() *answer {
	a := s.answers.Get().(*answer)
	a.head.Reset()
	a.body.Start(wire.BodyNone, 0, 0)
	a.final, a.begun, a.extra = false, false, false
	a.interim, a.headBytes, a.headDue = 0, 0, 0
	a.start, a.end, a.buf = 0, 0, a.small[:]
	return a
}

func (s *shared) release(a *answer) {
	if a.large != nil {
		s.large.Put(a.large)
		a.large, a.buf = nil, nil
	}
	s.answers.Put(a)
}

// room makes room after what is unread. It returns false when a head would grow beyond its bound.
func (s *shared) room(a *answer) bool {
	if a.end < len(a.buf) {
		return true
	}
	to := a.buf
	if a.start == 0 {
		if a.large != nil {
			return false
		}
		a.large = s.large.Get().(*[maxHead]byte)
		to = a.large[:]
	}
	a.end = copy(to, a.buf[a.start:a.end])
	a.start, a.buf = 0, to
	return true
}

// ReadHead returns the next head of the answer: interim ones (1xx) one by one, then the final one, which begins the body.
// It waits for timeouts.response. An interim head is valid until the next ReadHead, the final one until Release. Errors are
// *Error; one that is Replayable says that the backend never got the request. ReadHead must not be called after the final
// head.
func (c *Conn) ReadHead(asked wire.Asked) (*wire.ResponseHead, error) {
	s := c.pool.shared
	a := c.answer
	if a == nil {
		a = s.answer()
		c.answer = a
	}
	if a.final {
		panic("BUG: ReadHead after the final head")
	}
	if a.head.Interim {
		a.head.Reset()
		a.headDue = 0
	}
	for {
		if a.start < a.end {
			n, err := wire.ScanResponseHead(&a.head, a.buf[a.start:a.end], asked, &s.bounds)
			if err != nil {
				return nil, c.readFailure(Protocol, err)
			}
			if n > 0 {
				return c.headRead(n)
			}
		}
		if !s.room(a) {
			return nil, c.readFailure(Protocol, wire.HeaderTooLarge)
		}
		c.limit = limit{c.backend.settings.ResponseTimeout, ResponseTimeout, a.headDue}
		n, err := c.read(a.buf[a.end:])
		a.headDue = c.limit.at // one wait for the whole head, however small its pieces
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, c.closedInHead()
		}
		a.begun = true
		a.end += n
	}
}

// headRead takes the n bytes of a complete head.
func (c *Conn) headRead(n int) (*wire.ResponseHead, error) {
	a := c.answer
	a.start += n
	a.headBytes += n
	if a.head.Interim {
		a.interim++
	}
	if a.interim > maxInterim || a.headBytes > maxHead {
		return nil, c.readFailure(Protocol, errInterim)
	}
	if a.head.Interim {
		return &a.head, nil
	}
	a.final = true
	if a.head.Upgrade {
		a.body.Start(wire.BodyToClose, 0, 0)
	} else {
		a.body.Start(a.head.Body, a.head.Length, 0)
	}
	return &a.head, nil
}

var errInterim = errors.New("too many interim answers")

// closedInHead is the backend's end where a head was due. When it had acknowledged nothing of the request, it had closed
// before the request came, so nobody has read it: the end that it sent would else have confirmed what came before.
func (c *Conn) closedInHead() *Error {
	if c.answer.begun {
		return c.readFailure(Truncated, io.ErrUnexpectedEOF)
	}
	e := c.readFailure(Reset, io.ErrUnexpectedEOF)
	if raw, sent := c.wire(); raw != nil && sent > 0 {
		_ = raw.Control(func(fd uintptr) { e.Replayable = int64(unacknowledged(c.socket(), fd)) >= sent })
	}
	return e
}

// Buffered returns the part of the body that came with the head, decoded, without a copy and without waiting. It is read
// then: ReadBody goes on after it. It is valid until Release. An error, an *Error, means that the body breaks HTTP.
func (c *Conn) Buffered() ([]byte, error) {
	a := c.answer
	p := a.buf[a.start:a.end]
	n, used, err := a.body.Decode(p)
	a.start += used
	if a.body.Done() && a.start < a.end {
		a.extra = true
	}
	if err != nil {
		return nil, c.readFailure(Protocol, err)
	}
	return p[:n], nil
}

// BodyDone says whether the verified end of the body was reached: Content-Length complete, the last chunk and its trailers
// read, the connection closed where that is the end, or no body at all. It is false before the final head.
func (c *Conn) BodyDone() bool { return c.answer != nil && c.answer.final && c.answer.body.Done() }

// ReadBody reads decoded bytes of the body, at least one unless there is an error, and waits at most timeouts.idleBody.
// io.EOF comes alone, and only at the verified end; everything less is an *Error. After 101 it hands out what comes until
// the backend closes, without that timeout. p must not be empty: at least 32 KiB serve large bodies well.
func (c *Conn) ReadBody(p []byte) (int, error) {
	a := c.answer
	for {
		if a.body.Done() {
			return 0, io.EOF
		}
		raw, err := c.rawBody(p)
		if err != nil {
			return 0, err
		}
		if raw == 0 {
			if cut := a.body.End(); cut != nil {
				return 0, c.readFailure(Truncated, cut)
			}
			return 0, io.EOF
		}
		n, used, err := a.body.Decode(p[:raw])
		if err != nil {
			return 0, c.readFailure(Protocol, err)
		}
		a.extra = a.extra || used < raw || a.body.Done() && a.start < a.end
		if n > 0 {
			return n, nil
		}
	}
}

// rawBody reads bytes of the body as they come: first those that came with the head, then from the socket, and never
// more than a Content-Length leaves.
func (c *Conn) rawBody(p []byte) (int, error) {
	a := c.answer
	if a.head.Body == wire.BodyLength {
		p = p[:min(int64(len(p)), a.body.Want())]
	}
	if a.start < a.end {
		n := copy(p, a.buf[a.start:a.end])
		a.start += n
		return n, nil
	}
	c.limit = limit{c.backend.settings.BodyIdleTimeout, BodyIdle, 0}
	if a.head.Upgrade {
		c.limit.wait = forever
	}
	return c.read(p)
}

// limit is how long a read may wait, and what it is called when it waits longer.
type limit struct {
	wait time.Duration
	late Cause
	at   int64 // when that is; 0 until the wait begins
}

// forever is a wait that only the request's own deadline ends.
const forever = time.Duration(1 << 62)

// read reads once into p. 0 bytes and no error is the backend's end.
func (c *Conn) read(p []byte) (int, error) {
	if cause := Cause(c.canceled.Load()); cause != NoCause {
		return 0, c.readFailure(cause, nil)
	}
	var n int
	var err error
	if c.raw != nil {
		n, err = c.receive(p)
	} else {
		c.watchRead()
		n, err = c.nc.Read(p)
		if n > 0 || errors.Is(err, io.EOF) {
			err = nil
		}
	}
	late := c.unwatchRead()
	if n == 0 && c.under != nil && c.under.cut && !c.upgraded { // no clean end, unless there was nothing to end
		if c.answer.final {
			return 0, c.readFailure(Truncated, io.ErrUnexpectedEOF)
		}
		return 0, nil
	}
	if err == nil {
		return n, nil
	}
	var e *Error
	if errors.As(err, &e) { // the request could not be sent
		c.readFailed = e.Cause
		return 0, e
	}
	return 0, c.readFailure(c.causeOf(err, late), err)
}

// answered says whether anything of an answer came.
func (c *Conn) answered() bool { return c.answer != nil && c.answer.begun }

// causeOf names a failed read or write. A deadline that passed is the one that was due, unless somebody canceled. A peer
// that vanished, ETIMEDOUT, has broken the connection.
func (c *Conn) causeOf(err error, late Cause) Cause {
	if cause := Cause(c.canceled.Load()); cause != NoCause {
		return cause
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return late
	}
	if c.under != nil && !c.reused && !c.answered() {
		return tlsCause(err, Reset) // it is the end of the handshake that went wrong
	}
	return Reset
}

func (c *Conn) readFailure(cause Cause, err error) *Error {
	c.readFailed = cause
	return &Error{Cause: cause, Endpoint: c.pool.endpoint.address, Replayable: c.sent.Load() == 0, Err: err}
}
