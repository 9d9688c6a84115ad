package wire

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// synthetic is what the server above is given for every message: it needs a head to call its handler, and this one is the
// same for all of them. The real one is Conn.Head.
const synthetic = "GET / HTTP/1.1\r\nHost: weir\r\n\r\n"

const continueLine = "HTTP/1.1 100 Continue\r\n\r\n"

// Conn is a client connection under an HTTP server that sees one synthetic head for each message, while its handler takes
// the real head, the verified body and the client's end of the wire from here.
//
// One goroutine at a time uses it, as it uses a request, with three exceptions: ReadBody may run beside Send and Write;
// Interrupt and PeerClosed may be called from anywhere; Close as it says.
//
// While no message is in progress it holds no buffer, where the connection below is a socket.
type Conn struct {
	net.Conn // addresses and deadlines; Read, Write and Close are ours
	g        *Guard
	nc       net.Conn
	from     net.Conn   // what is read: nc, or in the end what is under it
	under    net.Conn   // what is below TLS; nc itself where there is none
	shaker   handshaker // nil once shaken, and without TLS
	sock     *socket    // nil when nc is not a plain socket
	peer     *peerProbe
	onGone   func()
	index    int // in Guard.conns, under its mutex

	blk      *block
	settings *Settings // of the current message
	headEnd  int       // the current head is blk.buf[:headEnd] unless the buffer was replaced
	r, w     int       // bytes of blk.buf that are not consumed yet
	yielded  int       // bytes of synthetic handed out
	body     Decoder
	bodyErr  Cause
	bodyRead bool // bytes of the body were taken or asked for
	flags    connFlags
	one      [1]byte // where a connection that is no socket waits without a buffer
	message  uint64

	reader, writer stage
	sendBy         atomic.Int64 // when writing is over however well it goes; 0: never
	wakeMu         sync.Mutex
	wakeWith       Cause // under wakeMu: why the reader's phase was ended
	deadlineSet    bool  // under wakeMu
	woken          bool  // the reader's own copy
	wokenBy        Cause
	closed         atomic.Bool
	answered       atomic.Bool   // something was written, or muted, since the head
	closing        atomic.Bool   // Close has begun
	closeSoon      atomic.Bool   // closed from outside while a message was due or begun
	interrupted    atomic.Bool   // nobody waits for the rest of this body
	parked         atomic.Uint64 // message<<40 | bytes of its body, where the reader last waited for a body

	// The sweep's own.
	seen, seenWrite     uint64
	seenAt, seenWriteAt int64
	rateAt              int64
	rateMessage         uint64
	rateWaited          time.Duration
}

// connFlags are the facts of a connection that only its own goroutine reads.
type connFlags struct {
	active     bool // a message was handed out and the next one not yet asked for
	fault      bool // it was refused
	keepAlive  bool // it lets another one follow
	muted      bool // the answer was sent raw: what the server above writes is swallowed
	closeAfter bool // no further message
	continued  bool // 100 was sent
	broken     bool // a write failed
	lingered   bool
	detached   bool
	expected   bool // a first message is on its way, though the connection is to close
}

// NewConn wraps a client connection. For TCP and Unix sockets the wait between messages holds no buffer and reads cost one
// system call without hand-off; any other net.Conn works through its own Read and Write. A TLS connection, one with a
// Handshake, shakes hands in the first Read, within HeaderTimeout: one that fails to is like one that sends no message.
func (g *Guard) NewConn(nc net.Conn) *Conn {
	c := &Conn{Conn: nc, g: g, nc: nc, from: nc, under: below(nc)}
	c.shaker, _ = nc.(handshaker)
	c.sock = newSocket(c)
	c.peer = newPeerProbe(nc)
	c.rateAt = g.now()
	g.register(c)
	return c
}

// NetConn returns the connection below.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Head returns the facts of the current message; valid until the next Read.
func (c *Conn) Head() *Head { return &c.blk.head }

// Read waits for the next message, scans its head and hands out the synthetic head, in as many pieces as p demands and never
// bytes of two messages. A malformed head is handed out the same way, with Head().Fault set. The error is io.EOF when
// no message follows: the client closed between messages, the wait was too long, the drain began, the last message asked to
// close, or its body was not read to the verified end.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.yielded == 0 || c.yielded == len(synthetic) {
		if !c.next() {
			return 0, io.EOF
		}
	}
	n := copy(p, synthetic[c.yielded:])
	c.yielded += n
	return n, nil
}

// next brings the next message, with or without a fault. Close may come from outside between two messages: whoever is first,
// by phase or by closing, has the connection's state.
func (c *Conn) next() bool {
	c.yielded = 0
	if c.shaker != nil && !c.shake() {
		c.enter(phaseNone)
		return false
	}
	if c.flags.expected {
		c.flags.expected = false
		c.enter(phaseHead)
	} else {
		c.enter(phaseIdle)
	}
	if c.closing.Load() || !c.reusable() {
		c.enter(phaseNone)
		return false
	}
	c.begin()
	if !c.readHead() {
		c.release()
		c.flags.closeAfter = true
		c.enter(phaseNone)
		return false
	}
	c.woken = false
	h := &c.blk.head
	if c.g.draining.Load() || c.closeSoon.Load() {
		h.KeepAlive = false
	}
	c.flags.active, c.flags.fault, c.flags.keepAlive = true, h.Fault != None, h.KeepAlive
	c.headEnd = c.r
	c.body.Start(h.Body, h.Length, c.settings.BodyBytes)
	return true
}

// reusable reports whether a further message can follow.
func (c *Conn) reusable() bool {
	f := &c.flags
	if f.closeAfter || f.broken || f.detached {
		return false
	}
	return !f.active || f.keepAlive && c.BodyDone() && !c.closeSoon.Load()
}

// begin forgets the last message.
func (c *Conn) begin() {
	f := &c.flags
	f.active, f.muted, f.continued = false, false, false
	if c.answered.Load() {
		c.answered.Store(false)
	}
	if c.interrupted.Load() {
		c.interrupted.Store(false)
	}
	c.bodyErr, c.bodyRead = None, false
	c.message++
	c.sendBy.Store(0)
	c.compact()
	c.settings = c.g.settings.Load()
}

// compact drops the last message. Its bytes are no longer valid; those of a pipelined one move to the front.
func (c *Conn) compact() {
	if c.blk == nil {
		return
	}
	if c.r == c.w {
		c.release()
		return
	}
	n := copy(c.blk.buf, c.blk.buf[c.r:c.w])
	if c.g.poison {
		scorch(c.blk.buf[n:])
	}
	c.r, c.w = 0, n
	c.blk.head.reset()
}

// release gives the buffer back.
func (c *Conn) release() {
	if c.blk != nil {
		c.g.putBlock(c.blk)
		c.blk = nil
	}
	c.r, c.w = 0, 0
}

// readHead reads until a head is complete or refused; false: there is no further message.
func (c *Conn) readHead() bool {
	in := phaseIdle
	stripped := false // the one empty line that may precede a request line
	tried := 0        // bytes that were there at the last scan
	for {
		if !stripped && c.w-c.r >= 2 {
			stripped = true
			if c.blk.buf[c.r] == '\r' && c.blk.buf[c.r+1] == '\n' {
				c.r += 2
			}
		}
		if stripped && c.w > c.r && c.worthScanning(tried) {
			tried = c.w - c.r
			if n := ScanRequest(&c.blk.head, c.blk.buf[c.r:c.w], c.settings); n > 0 {
				c.r = min(c.r+n, c.w)
				c.enter(phaseBusy)
				return true
			}
		}
		want := phaseHead
		if c.w == c.r {
			want = phaseIdle
			c.release()
		} else if c.w == len(c.blk.buf) {
			c.grow()
		}
		if want != in {
			in = want
			c.enter(in)
		}
		n, cause := c.fill(in)
		if n > 0 {
			continue
		}
		if c.w-c.r == 0 || c.w-c.r == 1 && !stripped && c.blk.buf[c.r] == '\r' {
			return false // nothing of a message had arrived
		}
		if cause == None {
			cause = TruncatedHead
		}
		c.blk.head.fail(c.blk.buf[c.r:c.w], cause)
		c.r = c.w
		c.enter(phaseBusy)
		return true
	}
}

// worthScanning reports whether the bytes that came since the last scan can have completed a line, or filled the bound. So a
// head that comes byte by byte costs no more than one that comes at once.
func (c *Conn) worthScanning(tried int) bool {
	b := c.blk.buf[c.r:c.w]
	return len(b) >= c.settings.HeaderBytes || lineEnd(b[tried:]) >= 0
}

// grow makes room: bytes before c.r are no longer needed while a head is read, and the block doubles up to the bound.
func (c *Conn) grow() {
	buf := c.blk.buf
	if c.r == 0 {
		buf = make([]byte, min(2*len(buf), max(c.settings.HeaderBytes, len(buf)+1)))
	}
	c.w = copy(buf, c.blk.buf[c.r:c.w])
	c.r = 0
	c.blk.buf = buf
}

// fill appends what the client sends to the buffer. It returns 0 and None at the end of the stream, and on an idle
// connection that is to close; 0 and the cause of a timeout.
func (c *Conn) fill(p phase) (int, Cause) {
	var n int
	var cause Cause
	switch {
	case c.sock != nil:
		n, cause = c.sock.read(nil, p)
	case c.blk == nil:
		if c.g.draining.Load() {
			c.wake(phaseIdle, None) // look, but do not wait
		}
		// Wait without a buffer, in a byte of our own.
		if n, cause = c.readPlain(c.one[:], p); n > 0 {
			c.blk = c.g.getBlock()
			c.blk.buf[0] = c.one[0]
		}
	default:
		n, cause = c.readPlain(c.blk.buf[c.w:], p)
	}
	c.w += n
	return n, cause
}

// park enters the phase of a wait that is about to begin; those of a head and of a linger were entered before. It reports
// false when the wait was given up already.
func (c *Conn) park(in phase) bool {
	if in != phaseBody {
		return true
	}
	c.parked.Store(c.message<<40 | uint64(c.body.Total())&(1<<40-1))
	c.enter(in)
	return !c.interrupted.Load()
}

// unpark ends what park began, with bytes: a wake that came too late is forgotten.
func (c *Conn) unpark(in phase) {
	if in == phaseBody {
		c.enter(phaseBusy)
		c.woken = false
	}
}

// unparkFailed ends a wait that brought no bytes and says why: None for the end of the stream, and for an idle connection
// that was woken to close.
func (c *Conn) unparkFailed(in phase, err error) Cause {
	if in == phaseIdle || in == phaseHead {
		c.enter(in) // to learn whether it was woken
	} else {
		c.enter(phaseBusy)
	}
	if cause, woken := c.wakeCause(); woken {
		return cause
	}
	if in == phaseBody && c.interrupted.Load() {
		return ReadInterrupted
	}
	if err == nil || err == io.EOF {
		return None
	}
	return PeerGone
}

// wakeCause is why the last wait was ended from outside, if it was.
func (c *Conn) wakeCause() (cause Cause, woken bool) {
	woken, c.woken = c.woken, false
	if !woken {
		return None, false
	}
	return c.wokenBy, true
}

// Write is the server's own path for an answer. After Send it swallows.
func (c *Conn) Write(p []byte) (int, error) {
	if c.flags.muted {
		return len(p), nil
	}
	if err := c.write(p, nil); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Send writes bytes of the answer as they are, head and body in one system call where the client takes them, and mutes the
// server above until the next Read. The error is a Cause, PeerGone or SendTimeout; the connection is then of no further use.
func (c *Conn) Send(head, body []byte) error {
	c.Mute()
	return c.write(head, body)
}

// Mute swallows what the server above writes until the next Read: for an answer that was cut, or needs none.
func (c *Conn) Mute() {
	c.flags.muted = true
	c.answer()
}

// answer notes that the message in progress is being answered: from here Close means it.
func (c *Conn) answer() {
	if !c.answered.Load() {
		c.answered.Store(true)
	}
}

// SendContinue writes `100 Continue`, at most once a message and only while the client waits for it: when it has asked and
// no byte of the body has come.
func (c *Conn) SendContinue() error {
	if c.flags.continued || !c.blk.head.Expect100 || c.bodyRead || c.w > c.r {
		return nil
	}
	c.flags.continued = true
	return c.write([]byte(continueLine), nil)
}

func (c *Conn) write(a, b []byte) error {
	if c.flags.broken {
		return PeerGone
	}
	c.answer()
	var cause Cause
	if c.sock != nil {
		cause = c.sock.write(a, b)
	} else {
		cause = c.writePlain(a, b)
	}
	c.flags.broken = cause != None
	if cause == None {
		return nil
	}
	return cause
}

// BeginWait says that the handler now waits for its backend: from here to EndWait the hook of OnGone is called once when the
// client leaves.
func (c *Conn) BeginWait() { c.enter(phaseWaiting) }

// EndWait ends BeginWait and reports whether the client has gone. After it returns the hook is not called, nor running.
func (c *Conn) EndWait() (gone bool) {
	c.enter(phaseBusy)
	cause, _ := c.wakeCause()
	return cause == PeerGone
}

// OnGone sets the hook that tells of a client that left during BeginWait, once for the connection. It is called by the sweep,
// must return quickly and must not call the Conn.
func (c *Conn) OnGone(hook func()) { c.onGone = hook }

// PeerClosed reports without waiting whether the client has closed its sending side or the connection is broken; also
// while pipelined bytes wait. Like every server that watches, it takes a half-close for leaving. Where the connection is
// no socket it cannot know and returns false.
func (c *Conn) PeerClosed() bool { return c.peer != nil && c.peer.gone() }

// CloseAfter ends the connection with the current message: the next Read returns io.EOF.
func (c *Conn) CloseAfter() { c.flags.closeAfter = true }

// Interrupt gives up reading the current message's body: a ReadBody that waits in another goroutine ends with
// ReadInterrupted, and so does the next one that would wait.
func (c *Conn) Interrupt() {
	c.interrupted.Store(true)
	c.wake(phaseBody, ReadInterrupted)
}

var _ net.Conn = (*Conn)(nil)
