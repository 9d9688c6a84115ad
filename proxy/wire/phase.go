package wire

import (
	"sync/atomic"
	"time"
)

// phase is what a connection's reader does; only where it can block has it a phase of its own.
type phase uint32

const (
	phaseNone    phase = iota // before the first Read, and after the last
	phaseBusy                 // the handler has a message; nothing is timed
	phaseIdle                 // waits for the first byte of a message
	phaseHead                 // waits for the rest of a head
	phaseBody                 // waits for bytes of a body
	phaseWaiting              // the handler waits for its backend and watches the client
	phaseLinger               // discards what the client still sends
	phaseShake                // TLS has not begun yet
	phaseSend                 // waits for the client to take bytes; of the writer
	// phaseWoken is added by whoever ends a phase from outside.
	phaseWoken phase = 0x80
)

const lingerTime = time.Second

// stage is an atomic phase with an epoch that changes at every entry, so that the sweep can tell one wait from the next
// without anybody reading a clock.
type stage struct{ v atomic.Uint64 }

func (s *stage) load() (word uint64, p phase) {
	word = s.v.Load()
	return word, phase(word & 0xff)
}

// enter changes the phase, unless the last one was ended from outside: then it reports false and changes nothing.
func (s *stage) enter(p phase) bool {
	old := s.v.Load()
	return phase(old&0xff)&phaseWoken == 0 && s.v.CompareAndSwap(old, following(old, p))
}

// force changes the phase in any case.
func (s *stage) force(p phase) { s.v.Store(following(s.v.Load(), p)) }

func following(word uint64, p phase) uint64 { return (word>>8+1)<<8 | uint64(p) }

// mark ends the phase that word stands for, unless the reader has left it.
func (s *stage) mark(word uint64) bool { return s.v.CompareAndSwap(word, word|uint64(phaseWoken)) }

// enter changes the reader's phase. When the last one was ended from outside, the read deadline is lifted, c.woken is set
// and c.wokenBy says why. Both sides hold wakeMu for that, so that no late deadline hits a later phase.
func (c *Conn) enter(p phase) {
	if c.reader.enter(p) {
		return
	}
	c.wakeMu.Lock()
	defer c.wakeMu.Unlock()
	c.reader.force(p)
	c.woken, c.wokenBy = true, c.wakeWith
	if c.deadlineSet {
		c.deadlineSet = false
		_ = c.nc.SetReadDeadline(time.Time{})
	}
}

// wake ends phase p from outside by a read deadline in the past. It does nothing when the reader is elsewhere.
func (c *Conn) wake(p phase, why Cause) {
	word, now := c.reader.load()
	if now == p {
		c.wakeAt(word, why)
	}
}

// wakeAt reports whether the reader was still where word says.
func (c *Conn) wakeAt(word uint64, why Cause) bool {
	c.wakeMu.Lock()
	defer c.wakeMu.Unlock()
	if !c.reader.mark(word) {
		return false
	}
	c.wakeWith = why
	c.deadlineSet = true
	_ = c.nc.SetReadDeadline(longAgo())
	return true
}

// longAgo is a deadline that has passed on every clock.
func longAgo() time.Time { return time.Unix(1, 0) }

// sweep is the Guard's look at one connection. What it remembers between looks is its own.
func (c *Conn) sweep(now int64) {
	c.sweepReader(now)
	c.sweepWriter(now)
}

func (c *Conn) sweepReader(now int64) {
	word, p := c.reader.load()
	if word != c.seen {
		c.seen, c.seenAt = word, now
		if p != phaseWaiting {
			c.sweepRate(p, now)
			return
		}
	}
	s := c.g.settings.Load()
	age := time.Duration(now - c.seenAt)
	over := func(limit time.Duration) bool { return limit > 0 && age >= limit }
	switch p {
	case phaseIdle:
		if over(s.IdleTimeout) {
			c.wakeAt(word, None)
		}
	case phaseHead:
		if over(s.HeaderTimeout) {
			c.wakeAt(word, HeadTimeout)
		}
	case phaseShake:
		if over(s.HeaderTimeout) && c.wakeAt(word, HeadTimeout) {
			_ = c.nc.SetWriteDeadline(longAgo()) // it may be our own part that is not taken
		}
	case phaseBody:
		if over(s.BodyTimeout) {
			c.wakeAt(word, BodyTimeout)
		}
	case phaseLinger:
		if age >= lingerTime {
			c.wakeAt(word, None)
		}
	case phaseWaiting:
		if c.onGone != nil && c.PeerClosed() {
			c.announceGone(word)
		}
	}
	c.sweepRate(p, now)
}

// sweepRate adds up the time a body was waited for, as seen at the ticks, and ends one that brings too little.
func (c *Conn) sweepRate(p phase, now int64) {
	since := now - c.rateAt
	c.rateAt = now
	if p != phaseBody {
		return
	}
	message, bytes := c.parked.Load()>>40, int64(c.parked.Load()&(1<<40-1))
	if message != c.rateMessage {
		c.rateMessage, c.rateWaited = message, 0
		return
	}
	c.rateWaited += time.Duration(since)
	s := c.g.settings.Load()
	if s.BodyRate > 0 && c.rateWaited > s.BodyTimeout && float64(bytes) < c.rateWaited.Seconds()*float64(s.BodyRate) {
		c.wakeAt(c.seen, BodyTimeout)
	}
}

func (c *Conn) sweepWriter(now int64) {
	word, p := c.writer.load()
	if word != c.seenWrite {
		c.seenWrite, c.seenWriteAt = word, now
	}
	limit, by := c.g.settings.Load().SendTimeout, c.sendBy.Load()
	over := limit > 0 && time.Duration(now-c.seenWriteAt) >= limit || by != 0 && now >= by
	if p == phaseSend && over && c.writer.mark(word) {
		_ = c.nc.SetWriteDeadline(longAgo())
	}
}

// announceGone calls the hook while EndWait is held off, so that it never reaches a later request.
func (c *Conn) announceGone(word uint64) {
	c.wakeMu.Lock()
	defer c.wakeMu.Unlock()
	if c.reader.mark(word) {
		c.wakeWith = PeerGone
		c.onGone()
	}
}
