package proxy

import (
	"errors"

	"weir/admit"
	"weir/proxy/upstream"
	"weir/proxy/wire"
)

// maxReplays is how often a request that no backend can have read is sent again.
const maxReplays = 3

// forward sends the request to its backend and passes the answer on. False means that nothing was passed on and x says why.
func (p *Proxy) forward(x *exchange) bool {
	body, err := x.conn.BodyBuffered()
	if err != nil {
		return x.clientFailed(err)
	}
	backend := x.live.backends.Backend(x.match.Backend)
	x.asked = true
	x.out = appendRequestHead(x.out[:0], x)
	if x.head.Body == wire.BodyChunked {
		x.out = appendChunkedStart(x.out, body, x.conn.BodyDone())
		body = nil
	}
	for replays := 0; ; replays++ {
		call, err := backend.Acquire(x.now, x.deadline)
		if err != nil {
			return x.backendFailed(err)
		}
		x.call, x.endpoint = call, call.Endpoint()
		answer, err := p.ask(x, body)
		if err == nil {
			return p.relay(x, answer)
		}
		reused := call.Reused()
		x.endCall()
		if replays == maxReplays || !mayReplay(x, reused, err) {
			return x.backendFailed(err)
		}
	}
}

// ask sends the request and waits for the final head of the answer. What is left of the body goes out beside the wait.
func (p *Proxy) ask(x *exchange, body []byte) (*wire.ResponseHead, error) {
	x.sentAt = p.clock.Now()
	asked := wire.Asked{Head: string(x.head.Method) == "HEAD"}
	answer, err := x.send(body, asked)
	for err == nil && answer.Interim {
		if err = x.relayInterim(answer); err == nil {
			answer, err = x.call.ReadHead(asked)
		}
	}
	if err == nil {
		x.headAt = p.clock.Now()
	}
	return answer, err
}

// send sends the request, all of it or as much as is there, and waits for the first head of the answer.
func (x *exchange) send(body []byte, asked wire.Asked) (*wire.ResponseHead, error) {
	if x.conn.BodyDone() {
		x.conn.watch(x.call)
		return x.call.Exchange(x.out, body, asked)
	}
	if err := x.conn.SendContinue(); err != nil {
		return nil, err
	}
	_, err := x.call.Write2(x.out, body)
	if failed := (*upstream.Error)(nil); errors.As(err, &failed) && failed.Replayable {
		return nil, err
	}
	if err == nil {
		x.conn.startUpload(x.call, x.head.Body)
	}
	return x.call.ReadHead(asked) // also after a failed write: the backend may have answered early
}

// mayReplay says whether the request can be sent once more without any chance of its being done twice: the backend has
// read no byte of it, or it is of a kind that may be repeated and met a connection that the backend had left idle.
func mayReplay(x *exchange, reused bool, err error) bool {
	var failed *upstream.Error
	if x.conn.upload != nil || x.conn.gone || !errors.As(err, &failed) {
		return false
	}
	if failed.Replayable {
		return true
	}
	return failed.Cause == upstream.Reset && reused && x.head.Body == wire.BodyNone && idempotent(x.head.Method)
}

// idempotent is RFC 9110 section 9.2.2.
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE":
		return true
	}
	return false
}

// backendFailed ends the exchange by what the backend did, unless the client was first: a call is cancelled when its client
// leaves or sends garbage, and that is not the backend's fault.
func (x *exchange) backendFailed(err error) bool {
	x.endCall()
	if fault := x.conn.fault(err); fault != wire.None {
		return x.clientFailed(fault)
	}
	x.refuse(reasonOfBackend(err))
	var failed *upstream.Error
	if errors.As(err, &failed) && failed.Endpoint != "" {
		x.endpoint = failed.Endpoint
	}
	return false
}

// clientFailed ends the exchange by what the client did.
func (x *exchange) clientFailed(err error) bool {
	x.blame(err)
	x.refuse(x.reason)
	x.head.KeepAlive = false
	return false
}

// blame says that the client ended the exchange.
func (x *exchange) blame(err error) {
	x.cause = wire.BodyCut
	errors.As(err, &x.cause)
	switch x.reason = reasonOfFault(x.cause); x.reason {
	case admit.BadRequest:
		x.reason = admit.ClientBody
	case admit.ClientGone:
		x.status = statusGone
	}
}

func reasonOfBackend(err error) admit.Reason {
	var failed *upstream.Error
	if !errors.As(err, &failed) {
		return admit.BackendReset
	}
	switch failed.Cause {
	case upstream.ConnectRefused:
		return admit.BackendRefused
	case upstream.ConnectTimeout:
		return admit.ConnectTimeout
	case upstream.PoolFull:
		return admit.PoolFull
	case upstream.NoEndpoint:
		return admit.NoEndpoint
	case upstream.Protocol:
		return admit.BackendProtocol
	case upstream.ResponseTimeout:
		return admit.ResponseTimeout
	case upstream.BodyIdle:
		return admit.BodyIdleTimeout
	case upstream.RequestTimeout:
		return admit.RequestTimeout
	case upstream.Canceled:
		return admit.Draining // only the end of the process cancels without a client that left
	}
	return admit.BackendReset
}
