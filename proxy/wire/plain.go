package wire

import (
	"errors"
	"net"
	"os"
)

// readPlain is socket.read for a connection that is no socket, as TLS.
func (c *Conn) readPlain(p []byte, in phase) (int, Cause) {
	for looked := false; ; looked = true {
		var n int
		var err error
		if c.park(in) {
			for n == 0 && err == nil {
				n, err = c.from.Read(p)
			}
		}
		if n > 0 {
			c.unpark(in)
			return n, None
		}
		cause := c.unparkFailed(in, err)
		if looked || in != phaseIdle || cause != None || !errors.Is(err, os.ErrDeadlineExceeded) || c.peer == nil || !c.peer.pending() {
			return 0, cause
		}
		c.enter(phaseHead) // an idle connection was woken to close: a request that has begun to arrive by now is served
	}
}

// writePlain is socket.write for a connection that is no socket. It goes in pieces of one TLS record, so that whoever takes any of
// it is seen to, and begins with as much of both as fits one.
func (c *Conn) writePlain(a, b []byte) Cause {
	if len(a) > 0 && len(b) > 0 && len(a) < recordBytes {
		both := c.g.records.Get().(*[recordBytes]byte)
		defer c.g.records.Put(both)
		n := copy(both[:], a)
		m := copy(both[n:], b)
		a, b = both[:n+m], b[m:]
	}
	err := c.writePieces(a)
	if err == nil {
		err = c.writePieces(b)
	}
	if !c.writer.enter(phaseBusy) {
		return SendTimeout
	}
	if err != nil {
		return PeerGone
	}
	return None
}

func (c *Conn) writePieces(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), recordBytes)
		c.writer.enter(phaseSend)
		if _, err := c.nc.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// recordBytes is the most that TLS sends in one piece (RFC 8446, section 5.1).
const recordBytes = 16 << 10

// handshaker is the server's side of TLS.
type handshaker interface{ Handshake() error }

// below is the connection under all others.
func below(nc net.Conn) net.Conn {
	for {
		over, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nc
		}
		nc = over.NetConn()
	}
}

// shake brings a TLS connection up, in the time that a head may take. A client that fails gets to read why.
func (c *Conn) shake() bool {
	c.enter(phaseShake)
	if c.closing.Load() {
		return false
	}
	err := c.shaker.Handshake()
	c.shaker = nil
	c.enter(phaseBusy)
	if _, woken := c.wakeCause(); woken {
		return false
	}
	if err != nil {
		c.discard()
		c.release()
		return false
	}
	c.flags.expected = c.g.draining.Load() || c.closeSoon.Load()
	return true
}
