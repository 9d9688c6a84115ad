package wire

import (
	"errors"
	"net"
)

// Detach hands over the connection after an upgrade: what the client has sent already, and the connection below. The
// server above is muted and gets io.EOF from the next Read; Close still closes. buffered is valid until Close.
func (c *Conn) Detach() (buffered []byte, nc net.Conn) {
	c.flags.detached = true
	c.Mute()
	buffered = c.blk.buf[c.r:c.w]
	c.r = c.w
	return buffered, c.nc
}

// Abort closes at once, with a reset where the connection can: for an answer that was cut, so that no client takes it for
// whole.
func (c *Conn) Abort() {
	c.flags.broken = true
	c.Mute()
	if t, ok := c.under.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.cut()
}

// mostLingering is how many bytes a lingering connection discards. After these it stops reading: closing would reset a client
// that is still writing, so that it gives up before it has read our answer, while one that cannot write any more reads.
const mostLingering = 64 << 10

// Linger ends the sending side and waits up to a second for the client to leave, so that it reads our answer instead of a
// reset; what it still sends is discarded, up to 64 KiB. Close does this by itself where it is needed. The head is no longer
// valid after it.
func (c *Conn) Linger() {
	f := &c.flags
	if f.lingered || f.broken || f.detached {
		return
	}
	f.lingered, f.closeAfter = true, true
	c.answer()
	if c.under == c.nc || closeWrite(c.nc) == nil {
		c.discard()
	}
}

func closeWrite(nc net.Conn) error {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// discard ends the sending side of what is under TLS, and reads from there.
func (c *Conn) discard() {
	if closeWrite(c.under) != nil {
		return
	}
	c.from = c.under
	c.enter(phaseLinger)
	for n := 0; n < mostLingering || c.sock == nil; { // without a socket only reading tells that the client has left
		c.r, c.w = 0, 0
		if c.blk == nil {
			c.blk = c.g.getBlock()
		}
		got, _ := c.fill(phaseLinger)
		if got == 0 {
			return
		}
		n += got
	}
	c.release()
	c.sock.awaitGone()
	c.enter(phaseBusy)
}

// Close closes the connection. It lingers first when the message in progress was answered without being read to its end, or
// the client has sent more.
//
// A server that is being shut down also calls it from outside, on connections it takes for idle. Then a wait for a message
// ends with io.EOF from Read, while a message that has begun to arrive, or has arrived and is not answered yet, is still
// served, with Head.KeepAlive false where it was not handed out yet; the server closes after it.
func (c *Conn) Close() error {
	for {
		word, p := c.reader.load()
		switch p &^= phaseWoken; {
		case p == phaseIdle, p == phaseHead, p == phaseShake, p == phaseBusy && !c.answered.Load():
			c.closeSoon.Store(true)
			if p == phaseIdle {
				c.wakeAt(word, None)
			}
			if now, _ := c.reader.load(); now|uint64(phaseWoken) == word|uint64(phaseWoken) {
				return nil
			}
		default:
			if c.closing.Swap(true) {
				return nil
			}
			if now, _ := c.reader.load(); now == word {
				return c.finish()
			}
			c.closing.Store(false)
		}
	}
}

// finish ends the connection for whoever has it to himself.
func (c *Conn) finish() error {
	f := &c.flags
	if f.active && !f.broken && !f.detached && !c.closed.Load() && (!c.BodyDone() || c.peer != nil && c.peer.pending()) {
		c.Linger()
	}
	c.release()
	return c.shut()
}

// shut closes the connection below, once. Where that is TLS, the client learns that nothing is missing.
func (c *Conn) shut() error { return c.shutBy(c.nc) }

// cut closes without a word, once: what was under way is no whole, and nobody waits for a client that takes nothing.
func (c *Conn) cut() error { return c.shutBy(c.under) }

func (c *Conn) shutBy(nc net.Conn) error {
	if c.closed.Swap(true) {
		return nil
	}
	c.g.unregister(c)
	return nc.Close()
}
