package proxy

import (
	"io"

	"weir/admit"
	"weir/proxy/wire"
)

// framing is how an answer's end is told to the client.
type framing uint8

const (
	asSent  framing = iota // Content-Length, or no body
	chunked                // our own chunks
	toClose                // HTTP/1.0: the end of the connection
)

// relay passes the answer on, each piece as it comes. False means that not even the head was.
func (p *Proxy) relay(x *exchange, answer *wire.ResponseHead) bool {
	if answer.Upgrade {
		return p.upgrade(x, answer)
	}
	body, err := x.call.Buffered()
	if err != nil {
		return x.backendFailed(err) // seen before the client was told anything: it gets a clean 502
	}
	how := framingFor(x.head, answer)
	if how == toClose || x.conn.upload.unfinished() || p.draining.Load() {
		x.head.KeepAlive = false
	}
	x.status = answer.Status
	x.out = appendAnswerHead(x.out[:0], x, answer, how)
	first, rest := p.withHead(x, body)
	body = first
	if how == chunked {
		x.out = appendChunkedStart(x.out, first, len(rest) == 0 && x.call.BodyDone())
		body = nil
	}
	x.telling = true
	err = x.conn.Send(x.out, body)
	x.toldAt = p.clock.Now()
	if err != nil {
		p.leftBehind(x, err)
		return true
	}
	x.bytesOut += int64(len(first))
	p.copyAnswer(x, answer)
	p.copied(x, first)
	if len(rest) > 0 || !x.call.BodyDone() {
		p.relayBody(x, how, rest)
		return true
	}
	p.keepCopy(x)
	return true
}

// withHead divides what has come of an answer's body into what goes out with the head and what does not. The head never
// waits for what its body spends.
func (p *Proxy) withHead(x *exchange, body []byte) (first, rest []byte) {
	if !x.down.On() || len(body) == 0 || len(body) <= smallCopy/2 && x.down.tries(p.clock.Now(), len(body)) {
		return body, nil
	}
	return nil, body
}

// relayBody copies the rest of an answer, of which some may be here already. Truncation is never a clean end: whatever breaks
// aborts the client's connection.
func (p *Proxy) relayBody(x *exchange, how framing, here []byte) {
	buf := p.copies.get()
	defer buf.release()
	for {
		n, err := x.nextPiece(x.down.fit(buf.room()), &here)
		end := err == io.EOF
		if err != nil && !end {
			x.cut(err)
			return
		}
		end = end || len(here) == 0 && x.call.BodyDone()
		if err := p.pace(x, n); err != nil {
			x.cut(err)
			return
		}
		piece := buf.piece(n)
		if how == chunked {
			piece = buf.chunk(n, end)
		}
		if len(piece) > 0 {
			if err := x.conn.Send(piece, nil); err != nil {
				p.leftBehind(x, err)
				return
			}
		}
		x.bytesOut += int64(n)
		p.copied(x, buf.piece(n))
		if end {
			p.keepCopy(x)
			return
		}
		buf.filled(n)
	}
}

// nextPiece reads a piece of the answer's body: of what is here, or else of what comes.
func (x *exchange) nextPiece(room []byte, here *[]byte) (int, error) {
	if len(*here) == 0 {
		return x.call.ReadBody(room)
	}
	n := copy(room, *here)
	*here = (*here)[n:]
	return n, nil
}

// cut ends an answer that did not come to its end. The status is the one that the client has read already, unless it has
// left.
func (x *exchange) cut(err error) {
	x.endCall()
	if fault := x.conn.fault(err); fault == wire.None {
		x.reason = x.blameBackend(err)
	} else {
		x.blame(fault)
	}
	x.conn.Abort()
}

// leftBehind ends an exchange whose client took no more of the answer, or not in time.
func (p *Proxy) leftBehind(x *exchange, err error) {
	x.blame(err)
	if x.cause == wire.SendTimeout && x.deadline != 0 && p.clock.Now() >= x.deadline {
		x.reason, x.status = admit.RequestTimeout, admit.RequestTimeout.Status()
	}
	x.conn.Abort()
}

// relayInterim passes 1xx answers to clients that can read them. 100 is not passed: the guard has said it where it was asked
// for. It goes the way of our own answers, which may still have to follow.
func (x *exchange) relayInterim(answer *wire.ResponseHead) error {
	if x.head.Minor == 0 || answer.Status == 100 {
		return nil
	}
	x.text = append(answer.AppendForward(x.text[:0], 0), "\r\n"...)
	_, err := x.conn.Write(x.text)
	return err
}

// framingFor chooses how the client learns the end of an answer's body.
func framingFor(request *wire.Head, answer *wire.ResponseHead) framing {
	if answer.Body == wire.BodyNone || answer.Body == wire.BodyLength {
		return asSent
	}
	if request.Minor == 0 {
		return toClose
	}
	return chunked
}
