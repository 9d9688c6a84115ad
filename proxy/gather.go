package proxy

import (
	"errors"
	"io"

	"weir/proxy/wire"
)

// gather waits for a body that is on its way: for its end, or for as much as a buffer holds. A request does that before it takes
// one of a backend's last connections, so that clients who drip their bodies cannot take them all; while there are many, bodies
// are streamed from their first byte. False means that the client did not get that far.
func (p *Proxy) gather(x *exchange) bool {
	x.gathered = p.copies.get()
	room := x.gathered.room()
	if len(x.body) >= len(room) {
		return true
	}
	if err := x.conn.SendContinue(); err != nil {
		return x.clientFailed(err)
	}
	n := copy(room, x.body)
	for n < len(room) {
		more, err := x.conn.ReadBody(room[n:])
		n += more
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return x.clientFailed(err)
		}
		if x.deadline != 0 && p.clock.Now() >= x.deadline {
			return x.clientFailed(wire.BodyTimeout)
		}
	}
	x.body = room[:n]
	return true
}
