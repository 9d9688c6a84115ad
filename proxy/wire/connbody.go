package wire

import "io"

// maxChunkedRead bounds one read of a chunked body: what belongs to the next message must be kept.
const maxChunkedRead = 64 << 10

// ReadBody reads decoded bytes of the body. io.EOF, alone or with the last bytes, means that the verified end was reached;
// a Cause that it was not: BodyCut and PeerGone (the client left), BadChunk, ExtensionTooLong, BadTrailer, TrailerTooLarge,
// BodyTooLong, BodyTimeout, ReadInterrupted. A cause stays; bytes before it that were not returned yet are lost.
func (c *Conn) ReadBody(p []byte) (int, error) {
	for {
		if c.bodyErr != None {
			return 0, c.bodyErr
		}
		if c.body.Done() {
			return 0, io.EOF
		}
		if len(p) == 0 {
			return 0, nil
		}
		c.bodyRead = true
		var n int
		var err error
		if c.r < c.w {
			n, err = c.takeBuffered(p)
		} else {
			n, err = c.receive(p)
		}
		if err == nil && n == 0 && !c.body.Done() {
			continue // nothing but framing
		}
		return n, err
	}
}

// BodyBuffered returns the part of the body that has arrived with the head, decoded where it lies: valid until the next
// ReadBody. With BodyDone true after it, that was the verified whole. An error is a Cause, as of ReadBody: nothing
// of such a body has to be forwarded. It never waits. ReadBody goes on after it.
func (c *Conn) BodyBuffered() ([]byte, error) {
	if c.bodyErr != None {
		return nil, c.bodyErr
	}
	if c.r == c.w || c.body.Done() {
		return nil, nil
	}
	c.bodyRead = true
	b := c.blk.buf[c.r:c.w]
	n, used, err := c.body.Decode(b)
	c.r += used
	if err != nil {
		return nil, c.failBody(err)
	}
	return b[:n:n], nil
}

// BodyDone reports whether the message was read to its verified end; true at once for one without a body, never for one
// with a fault.
func (c *Conn) BodyDone() bool {
	return c.body.Done() && c.bodyErr == None && !c.flags.fault
}

// BodyBytes is the number of decoded bytes of the body so far.
func (c *Conn) BodyBytes() int64 { return c.body.Total() }

func (c *Conn) failBody(err error) error {
	c.bodyErr = err.(Cause)
	return err
}

// takeBuffered decodes bytes that came with the head or before.
func (c *Conn) takeBuffered(p []byte) (int, error) {
	n, used, err := c.body.Decode(p[:copy(p, c.blk.buf[c.r:c.w])])
	c.r += used
	if err != nil {
		return 0, c.failBody(err)
	}
	return n, c.end()
}

// receive reads from the connection into p and decodes there.
func (c *Conn) receive(p []byte) (int, error) {
	if want := c.body.Want(); c.body.body == BodyLength {
		p = p[:min(int64(len(p)), want)]
	} else {
		p = p[:min(len(p), maxChunkedRead)]
	}
	var n int
	var cause Cause
	if c.sock != nil {
		n, cause = c.sock.read(p, phaseBody)
	} else {
		n, cause = c.readPlain(p, phaseBody)
	}
	if n == 0 {
		if cause == None {
			cause = BodyCut
		}
		return 0, c.failBody(cause)
	}
	decoded, used, err := c.body.Decode(p[:n])
	if err != nil {
		return 0, c.failBody(err)
	}
	c.keep(p[used:n])
	return decoded, c.end()
}

func (c *Conn) end() error {
	if c.body.Done() {
		return io.EOF
	}
	return nil
}

// keep puts back bytes of the next message. The head before them stays where it is: a buffer without room is replaced.
func (c *Conn) keep(b []byte) {
	if len(b) == 0 {
		return
	}
	c.r, c.w = c.headEnd, c.headEnd
	if len(c.blk.buf)-c.w < len(b) {
		c.blk.buf = make([]byte, max(len(b), blockBytes))
		c.r, c.w, c.headEnd = 0, 0, 0
	}
	c.w += copy(c.blk.buf[c.w:], b)
}
