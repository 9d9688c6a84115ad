package proxy

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"weir/admit"
	"weir/proxy/upstream"
	"weir/proxy/wire"
)

// upgrade passes a 101 on and then bytes, both ways, until both have ended. It is reached only when the client asked for
// websocket, the one protocol that passes, and the backend agreed to it. The request lasts as long: its gates stay
// taken. What bounds it is timeouts.idle without a byte either way, and the route's own timeout where it has one; the
// sidecar's timeouts.request ends with the 101. False means that the 101 was not passed on.
func (p *Proxy) upgrade(x *exchange, answer *wire.ResponseHead) bool {
	early, err := x.call.Buffered()
	if err != nil {
		return x.backendFailed(err)
	}
	if x.conn.finishCall(); x.conn.gone {
		return x.clientFailed(wire.PeerGone)
	}
	x.status, x.head.KeepAlive = answer.Status, false
	x.out = append(answer.AppendForward(x.out[:0], 0), "\r\n"...)
	x.telling, x.upgraded = true, true
	first, early := p.withHead(x, early)
	err = x.conn.Send(x.out, first)
	x.toldAt = p.clock.Now()
	if err != nil {
		p.leftBehind(x, err)
		return true
	}
	lifetime := int64(0)
	if x.match.Route.Timeout() > 0 {
		lifetime = x.deadline
	}
	x.call.Upgraded(lifetime)
	waiting, client := x.conn.Detach()
	t := &tunnel{proxy: p, client: client, call: x.call, use: x.call.Use(), upward: &x.up, downward: &x.down, ended: make(chan struct{})}
	p.tunnels.Add(1)
	t.run(waiting, early, x.live.snapshot.Sidecar.IdleTimeout)
	p.tunnels.Add(-1)
	x.bytesIn, x.bytesOut = t.fromClient, t.fromBackend+int64(len(first))
	x.endTunnel(t)
	return true
}

// endTunnel says why a tunnel ended, and ends the connection of whoever is left as the other ended his: with a reset after
// a reset, else in good order.
func (x *exchange) endTunnel(t *tunnel) {
	switch t.cutBy {
	case nobody:
		return
	case theClient:
		x.call.Abort()
		x.blame(t.err)
		x.conn.Abort()
	case theBackend:
		if x.reason = x.blameBackend(t.err); x.reason == admit.BackendReset {
			x.conn.Abort()
			return
		}
		t.farewell()
	case theSilence:
		x.reason = admit.BodyIdleTimeout
		t.farewell()
	case theProxy:
		x.call.Abort()
		x.reason = admit.Internal
		x.conn.Abort()
	}
}

// party is who ended a tunnel before its time.
type party uint8

const (
	nobody party = iota
	theClient
	theBackend
	theSilence // of both
	theProxy   // by a defect
)

// tunnel is an upgraded connection: two streams of bytes, of which the one may end before the other. It holds little
// memory while nothing comes.
type tunnel struct {
	proxy  *Proxy
	client net.Conn
	call   *upstream.Conn
	use    uint64

	upward, downward *pacer
	pausing          atomic.Int64 // directions that limits in bytes hold up

	cut   sync.Once
	ended chan struct{} // closed then
	cutBy party
	err   error

	fromClient, fromBackend int64 // each belongs to its direction until run returns

	moved    atomic.Uint64 // pieces, in either direction
	toClient atomic.Bool   // a piece waits for the client to take it
	over     atomic.Bool
	watch    *time.Timer
	interval time.Duration
	seen     uint64 // what moved when the watch looked last
	quiet    int    // how often it has seen nothing move since
}

// looks is how often the watch looks within the idle time: how late it is at most, as a part of it.
const looks = 4

// run moves bytes until both directions have ended. waiting is what the client has sent already, early what the backend has.
func (t *tunnel) run(waiting, early []byte, idle time.Duration) {
	if idle > 0 {
		t.interval = max(idle/looks, time.Millisecond)
		t.watch = time.AfterFunc(1<<62, t.look)
		t.watch.Reset(t.interval) // not before there is a watch to look at
	}
	var up sync.WaitGroup
	up.Go(func() {
		defer t.recover()
		t.up(waiting)
	})
	func() {
		defer t.recover() // the other direction must not outlive this one
		t.down(early)
	}()
	up.Wait()
	t.over.Store(true)
	if t.watch != nil {
		t.watch.Stop()
	}
}

// recover ends the tunnel when one direction hits a defect of ours.
func (t *tunnel) recover() {
	if defect := recover(); defect != nil {
		t.proxy.report(defect, nil)
		t.end(theProxy, nil)
	}
}

// up moves what the client sends. Its end is passed on, and nothing else ends with it.
func (t *tunnel) up(waiting []byte) {
	b := quietBuffer{from: &t.proxy.copies}
	defer b.release()
	piece := waiting
	for {
		for len(piece) > 0 {
			part := t.upward.fit(piece)
			piece = piece[len(part):]
			if !t.pace(t.upward, len(part)) {
				return
			}
			if _, err := t.call.Write(part); err != nil {
				t.end(theBackend, err)
				return
			}
			t.fromClient += int64(len(part))
			t.moved.Add(1)
		}
		n, err := t.client.Read(t.upward.fit(b.room()))
		piece = b.took(n)
		switch {
		case n > 0: // an error comes again
		case err == io.EOF:
			if err := t.call.CloseWrite(); err != nil {
				t.end(theBackend, err)
			}
			return
		case err != nil:
			t.end(theClient, wire.PeerGone)
			return
		}
	}
}

// down moves what the backend sends, and passes its end on.
func (t *tunnel) down(early []byte) {
	b := quietBuffer{from: &t.proxy.copies}
	defer b.release()
	piece := early
	for {
		for len(piece) > 0 {
			part := t.downward.fit(piece)
			piece = piece[len(part):]
			if !t.pace(t.downward, len(part)) {
				return
			}
			t.toClient.Store(true)
			_, err := t.client.Write(part)
			t.toClient.Store(false)
			if err != nil {
				t.end(theClient, wire.PeerGone)
				return
			}
			t.fromBackend += int64(len(part))
			t.moved.Add(1)
		}
		n, err := t.call.ReadBody(t.downward.fit(b.room()))
		if err == io.EOF {
			if closeWrite(t.client) != nil {
				t.end(theClient, wire.PeerGone)
			}
			return
		}
		if err != nil {
			t.end(theBackend, err)
			return
		}
		piece = b.took(n)
	}
}

// pace waits until a piece of n bytes may pass; false: the tunnel has ended. Whoever reads from the backend looks for the end of
// the call, since he does not read.
func (t *tunnel) pace(p *pacer, n int) bool {
	if !p.On() {
		return true
	}
	t.pausing.Add(1)
	defer t.pausing.Add(-1)
	for p.begin(n); p.pause(t.proxy.clock.Now(), t.ended); {
		if isClosed(t.ended) {
			return false
		}
		if p != t.downward {
			continue
		}
		if err := t.call.Canceled(); err != nil {
			t.end(theBackend, err)
			return false
		}
	}
	return true
}

// end stops both directions. The first who calls it is the one who ended the tunnel.
func (t *tunnel) end(by party, err error) {
	t.cut.Do(func() {
		t.cutBy, t.err = by, err
		close(t.ended)
		t.call.Cancel(t.use)
		_ = t.client.SetDeadline(time.Unix(1, 0)) // has passed on every clock
	})
}

// look is the watch's: it ends a tunnel in which nothing has moved for the idle time.
func (t *tunnel) look() {
	if t.over.Load() {
		return
	}
	if moved := t.moved.Load(); moved != t.seen || t.pausing.Load() > 0 {
		t.seen, t.quiet = moved, 0
	} else if t.quiet++; t.quiet >= looks {
		if t.toClient.Load() {
			t.end(theClient, wire.SendTimeout)
		} else {
			t.end(theSilence, nil)
		}
		return
	}
	t.watch.Reset(t.interval)
}

// farewell ends the client's connection so that it sees the end after all that was sent to it: what it still sends is
// read for a moment, since unread bytes would turn the end into a reset that may overtake it.
func (t *tunnel) farewell() {
	if closeWrite(t.client) != nil {
		return
	}
	_ = t.client.SetDeadline(time.Now().Add(lastWords / 2))
	_, _ = io.Copy(io.Discard, io.LimitReader(t.client, smallCopy))
}

// closeWrite ends what is sent on a connection; where the transport cannot end one direction alone, both.
func closeWrite(nc net.Conn) error {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nc.Close()
}

// quietBuffer is what one direction reads into: memory of its own while little comes at a time, and a lent buffer after a
// piece that has filled that. Most upgraded connections wait most of the time, and there may be many.
type quietBuffer struct {
	from *copies
	own  [2 << 10]byte
	lent copyBuffer
	last int // how much was read last
}

// room is where to read into. What was read before is no longer valid.
func (b *quietBuffer) room() []byte {
	switch {
	case b.lent.buf == nil && b.last < len(b.own):
		return b.own[:]
	case b.lent.buf == nil:
		b.lent = b.from.get()
	case b.last < len(b.own):
		b.release()
		return b.own[:]
	default:
		b.lent.filled(b.last)
	}
	return b.lent.room()
}

// took returns the n bytes that were read.
func (b *quietBuffer) took(n int) []byte {
	b.last = n
	if b.lent.buf == nil {
		return b.own[:n]
	}
	return b.lent.piece(n)
}

func (b *quietBuffer) release() {
	if b.lent.buf != nil {
		b.lent.release()
		b.lent = copyBuffer{}
	}
}
