package proxy

import (
	"errors"

	"weir/admit"
	"weir/proxy/upstream"
	"weir/proxy/wire"
)

// forward sends the request to its backend and passes the answer on. False means that nothing was passed on and x says why.
func (p *Proxy) forward(x *exchange) bool {
	backend := x.live.backends.Backend(x.match.Backend)
	call := upstream.Call{Now: x.decided(), Deadline: x.deadline, Tenant: x.match.Tenant.Name()}
	if !x.conn.BodyDone() && backend.Crowded(call) && !p.gather(x) {
		return false
	}
	if !p.meter(x) {
		return false
	}
	body := x.body
	x.asked = true
	x.out = appendRequestHead(x.out[:0], x)
	if x.head.Body == wire.BodyChunked {
		x.out = appendChunkedStart(x.out, body, x.conn.BodyDone())
		body = nil
	}
	var t try
	for {
		answer, reused := (*wire.ResponseHead)(nil), false
		uc, err := backend.Acquire(call)
		if err == nil {
			x.call, x.endpoint = uc, uc.Endpoint()
			if authenticatesConnection(x.head) {
				uc.DoNotReuse()
			}
			if answer, err = p.ask(x, body); err != nil {
				reused = uc.Reused()
				x.endCall()
			}
		}
		t.ended(x, answer, reused, err)
		if !p.mayGoOn(x, backend, &t) {
			if err != nil {
				return x.backendFailed(err)
			}
			return p.relay(x, answer)
		}
		if err == nil {
			_, _ = uc.Buffered() // often all there is of it: the connection can serve again then
			uc.Drop()
			x.endCall()
			if x.conn.gone {
				return x.clientFailed(wire.PeerGone)
			}
		}
		call.Now, call.Avoid = p.clock.Now(), x.endpoint
	}
}

// ask sends the request and waits for the final head of the answer. What is left of the body goes out beside the wait.
func (p *Proxy) ask(x *exchange, body []byte) (*wire.ResponseHead, error) {
	if x.sentAt == 0 { // what a try took that is made again is no time of ours
		x.sentAt = p.clock.Now()
	}
	asked := wire.Asked{Head: string(x.head.Method) == "HEAD", Upgrade: x.head.UpgradeWebSocket}
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
		x.wholeAt = x.sentAt
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
		x.conn.startUpload(x.call, x.head.Body, &x.up)
	}
	return x.call.ReadHead(asked) // also after a failed write: the backend may have answered early
}

// backendFailed ends the exchange by what the backend did, unless the client was first: a call is cancelled when its client
// leaves or sends garbage, and that is not the backend's fault.
func (x *exchange) backendFailed(err error) bool {
	x.endCall()
	if fault := x.conn.fault(err); fault != wire.None {
		return x.clientFailed(fault)
	}
	x.refuse(x.blameBackend(err))
	var failed *upstream.Error
	if errors.As(err, &failed) && failed.Endpoint != "" {
		x.endpoint = failed.Endpoint
	}
	if x.broke.OfTLS() {
		x.conn.proxy.logTLSFault(x, failed)
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
	x.uploading = x.conn.upload.unfinished()
	switch x.reason = reasonOfFault(x.cause); x.reason {
	case admit.BadRequest:
		x.reason = admit.ClientBody
	case admit.ClientGone:
		x.status = statusGone
	}
}

// blameBackend notes how the backend failed, and returns the reason that this is.
func (x *exchange) blameBackend(err error) admit.Reason {
	var failed *upstream.Error
	if !errors.As(err, &failed) {
		return admit.BackendReset
	}
	x.broke = failed.Cause
	switch failed.Cause {
	case upstream.ConnectRefused, upstream.TLSCertificate, upstream.TLSProtocol, upstream.TLSAlert:
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
