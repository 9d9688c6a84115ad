package proxy

import (
	"time"

	"weir/admit"
	"weir/proxy/upstream"
	"weir/proxy/wire"
)

// longestPause is how long a body pauses at most before it is looked at again: at its limits, which may have changed, and
// for whoever may have ended the exchange.
const longestPause = 250 * time.Millisecond

// pacer holds one direction of an exchange to its limits in bytes: the pieces of a body wait, each before it passes, and whoever
// sends feels it since nothing is read meanwhile. Neither side's timeouts run then: they run while somebody waits for
// that side. The zero value paces nothing. One goroutine at a time.
type pacer struct {
	admit.Meter
	timer *time.Timer // kept from exchange to exchange
	begun bool        // the next piece was begun by tries
}

// fit returns as much of b as one piece may be.
func (p *pacer) fit(b []byte) []byte {
	if !p.On() {
		return b
	}
	return b[:min(len(b), p.Piece())]
}

// tries begins a piece of n bytes, and says whether it may pass at once. If not, it is the one that is begun next.
func (p *pacer) tries(now int64, n int) bool {
	if n > p.Piece() {
		return false
	}
	p.Begin(n)
	p.begun = p.Wait(now) > 0
	return !p.begun
}

// begin begins a piece of n bytes, which pause waits for. No bytes wait for nothing.
func (p *pacer) begin(n int) {
	if p.On() && n > 0 && !p.begun {
		p.Begin(n)
	}
	p.begun = false
}

// pause waits for a part of the time that the piece has to, less when stop is closed. It returns false without waiting when
// the piece may pass.
func (p *pacer) pause(now int64, stop <-chan struct{}) bool {
	if !p.On() {
		return false
	}
	wait := min(p.Wait(now), longestPause)
	if wait <= 0 {
		return false
	}
	if p.timer == nil {
		p.timer = time.NewTimer(wait)
	} else {
		p.timer.Reset(wait)
	}
	select {
	case <-p.timer.C:
	case <-stop:
		p.timer.Stop()
	}
	return true
}

// meter gives the exchange its pacers, and waits until what has come of the request's body may pass: before a backend's
// connection is taken, and once, however often the request is sent then. False means that the exchange ended meanwhile.
func (p *Proxy) meter(x *exchange) bool {
	m := x.live.table.Meter(&x.match)
	if !m.On() {
		return true
	}
	x.up.Meter, x.down.Meter = m, m
	began := p.clock.Now()
	for rest := x.body; len(rest) > 0; {
		piece := x.up.fit(rest)
		rest = rest[len(piece):]
		for x.up.begin(len(piece)); x.up.pause(p.clock.Now(), p.cutOff); {
			switch {
			case isClosed(p.cutOff):
				x.refuse(admit.Draining)
				return false
			case x.conn.PeerClosed():
				return x.clientFailed(wire.PeerGone)
			case x.deadline != 0 && p.clock.Now() >= x.deadline:
				x.refuse(admit.RequestTimeout)
				return false
			}
		}
	}
	x.held = p.clock.Now() - began
	return true
}

// pace waits until a piece of n bytes of the answer may pass. The error says why it never will: the client has left, the
// request's time is over, or the process ends.
func (p *Proxy) pace(x *exchange, n int) error {
	for x.down.begin(n); x.down.pause(p.clock.Now(), p.cutOff); {
		if err := x.call.Canceled(); err != nil {
			return err
		}
		if isClosed(p.cutOff) {
			return &upstream.Error{Cause: upstream.Canceled, Endpoint: x.endpoint}
		}
	}
	return nil
}

// isClosed says whether a channel that nothing is sent on was closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
