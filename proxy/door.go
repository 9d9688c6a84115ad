package proxy

import (
	"bytes"
	"runtime/debug"

	"github.com/valyala/fasthttp"

	"weir/admit"
	"weir/admit/token"
	"weir/proxy/wire"
)

// handle is the door: it loads the live table once and reads the clock once, then sends the request through the rooms.
// Whatever happens in them, the exchange is settled exactly once.
func (p *Proxy) handle(ctx *fasthttp.RequestCtx) {
	x := p.exchanges.Get().(*exchange)
	x.begin(p.live.Load(), ctx.Conn().(*clientConn))
	defer p.settle(x)
	defer p.finish(ctx, x)
	x.arrive(p.clock.Now())
	if !p.pass(x) {
		p.reject(ctx, x)
	}
}

// pass is a request's way: match, decide, forward. False means that it ended with a reason before any of the backend's
// answer was passed on, so that the client still waits for ours.
func (p *Proxy) pass(x *exchange) bool {
	if p.match(x) && x.takeBody() && p.decide(x) {
		return p.forward(x)
	}
	if x.head.Expect100 { // refused without 100: what comes next may be the body, or another request instead of it
		x.head.KeepAlive = false
	}
	return false
}

// takeBody takes what has come of the body. One that is broken already is refused like a broken head, before anything is
// spent on it.
func (x *exchange) takeBody() bool {
	body, err := x.conn.BodyBuffered()
	if err != nil {
		return x.clientFailed(err)
	}
	x.body = body
	return true
}

// match finds the tenant and the route. A message that breaks HTTP has neither.
func (p *Proxy) match(x *exchange) bool {
	if fault := x.head.Fault; fault != wire.None {
		x.match = x.live.table.Nobody(admit.BadRequest)
		x.cause = fault
		x.refuse(reasonOfFault(fault))
		return false
	}
	x.match = x.live.table.Match(x.now, &x.req)
	if x.match.Reason != admit.Passed {
		if x.match.Reason == admit.BadRequest { // of a head that HTTP has no objection to
			x.cause = wire.BadIdentity
			if x.match.Cost < 0 {
				x.cause = wire.BadCost
			}
			x.head.KeepAlive = false
		}
		x.refuse(x.match.Reason)
		return false
	}
	timeout := x.live.snapshot.Sidecar.RequestTimeout
	if own := x.match.Route.Timeout(); own > 0 {
		timeout = own
	}
	if timeout > 0 {
		x.deadline = x.now + int64(timeout)
		x.conn.SendBy(x.deadline)
	}
	return true
}

// decide asks every limit that applies, and waits where there is a queue.
func (p *Proxy) decide(x *exchange) bool {
	x.verdict = x.live.table.Decide(x.now, &x.match)
	if x.verdict.Waits() && !p.wait(x) {
		return false
	}
	if x.verdict.Reason != admit.Passed {
		x.refuse(x.verdict.Reason)
		return false
	}
	return true
}

// finish ends what concerns the connection: it recovers a defect of ours, ends the call, and says whether the connection
// lives on.
func (p *Proxy) finish(ctx *fasthttp.RequestCtx, x *exchange) {
	if defect := recover(); defect != nil {
		p.recovered(ctx, x, defect)
	}
	x.endCall()
	x.bytesIn += x.conn.BodyBytes()
	switch {
	case !x.conn.endRequest() || !x.head.KeepAlive:
		ctx.SetConnectionClose()
		x.conn.CloseAfter()
	case x.head.Minor == 0:
		ctx.Response.Header.Set("Connection", "keep-alive")
	}
}

// recovered answers a request that hit a defect: with 500 when nothing was sent yet, else by cutting the answer, so that it
// does not look whole.
func (p *Proxy) recovered(ctx *fasthttp.RequestCtx, x *exchange, defect any) {
	p.report(defect, x.requestID())
	x.refuse(admit.Internal)
	x.endCall()
	if x.telling {
		x.conn.Abort()
		return
	}
	x.head.KeepAlive = false
	ctx.Response.Reset()
	p.reject(ctx, x)
}

// report counts a defect, and logs one a second.
func (p *Proxy) report(defect any, requestID []byte) {
	p.metrics.panics.Inc()
	if p.panicLog.allow(p.clock.Now()) {
		p.logger.Error().Interface("panic", defect).Bytes("stack", debug.Stack()).Bytes("request_id", requestID).
			Msg("recovered from a defect while serving a request; please report it with this stack")
	}
}

// settle counts and logs an exchange that has ended, and lets go of it. A defect in finish ends here: all that is left is to
// cut the connection.
func (p *Proxy) settle(x *exchange) {
	defer p.letGo(x)
	if defect := recover(); defect != nil {
		p.report(defect, x.requestID())
		x.refuse(admit.Internal)
		x.conn.Abort()
	}
	if x.match.Tenant == nil {
		x.match = x.live.table.Nobody(admit.Internal)
	}
	p.remember(x)
	p.leave(x)
	end := x.ended
	if x.cause != wire.None && x.cause.Status() != statusGone && x.reason != admit.ClientGone { // who leaves is not refused
		p.metrics.rejected[x.cause].Inc()
	}
	if x.match.Token != token.None {
		p.metrics.tokens[x.match.Token].Inc()
	}
	answered := end
	if x.upgraded {
		answered = x.toldAt // what follows is no answer any more
	}
	if i := x.match.Route.Index(); i >= 0 {
		x.live.durations[i].Observe(float64(answered-x.now) / 1e9)
	}
	overhead := end - x.decided()
	if x.headAt != 0 && x.toldAt != 0 {
		overhead = (x.sentAt - x.decided()) - x.held + (x.toldAt - x.headAt)
		p.metrics.overhead.Observe(float64(overhead) / 1e9)
	}
	p.countEnd(x)
	if failed := x.reason != admit.Passed || x.status >= 400; wanted(&x.live.snapshot.Sidecar.AccessLog, failed) {
		p.log(x, end, overhead)
	}
}

// leave reads the clock for the last time, and gives up what the request held. It does, however the reading goes.
func (p *Proxy) leave(x *exchange) {
	x.ended = x.decided()
	defer x.leave()
	x.ended = p.clock.Now()
}

// letGo gives the exchange back. A defect while counting costs a line of the log, not the process.
func (p *Proxy) letGo(x *exchange) {
	if defect := recover(); defect != nil {
		p.report(defect, x.requestID())
	}
	p.dropCopy(x)
	x.forget()
	p.exchanges.Put(x)
}

// log writes the access log's line.
func (p *Proxy) log(x *exchange, end, overhead int64) {
	r := &x.log // field by field: a literal would stand on the stack, which an idle connection keeps
	r.time = p.clock.Wall(x.now)
	r.tenant, r.route, r.reason = x.match.Identity, x.match.Route.Name(), x.reason.String()
	r.method, r.host, r.path = x.head.Method, x.head.Host, loggedPath(x.head)
	r.status, r.duration, r.queued, r.overhead = x.status, end-x.now, x.queued, overhead
	r.bytesIn, r.bytesOut = x.bytesIn, x.bytesOut
	r.client, r.requestID, r.endpoint = x.req.Client, x.requestID(), x.endpoint
	if x.reason != admit.Passed {
		r.by, r.phase, r.cause = x.endedBy().String(), x.phase().String(), x.causeName()
	}
	if l := x.verdict.Limit; l != nil {
		r.policy, r.limit = l.Policy(), l.Name()
	}
	if l := x.verdict.Shadow; l != nil {
		r.shadowPolicy, r.shadowLimit = l.Policy(), l.Name()
	}
	r.breaker = x.verdict.Breaker
	if x.fallback != noFallback {
		r.fallback = x.fallback.String()
	}
	if x.asked {
		r.backend = x.live.snapshot.Backends[x.match.Backend].Name
	}
	p.accessLog.write(r)
}

// loggedPath is the path that policy matched, or of a refused head what is there of it. The query is left out: it often holds
// what must not be in a log.
func loggedPath(h *wire.Head) []byte {
	if h.Path != nil {
		return h.Path
	}
	path, _, _ := bytes.Cut(h.Target, []byte("?"))
	return path
}

// statusGone is what is logged for a client that has left: nobody reads it.
const statusGone = 499

// reasonOfFault tells what a client did wrong from what it did not finish.
func reasonOfFault(c wire.Cause) admit.Reason {
	switch c {
	case wire.HeadTimeout, wire.BodyTimeout:
		return admit.ClientTimeout
	case wire.BodyTooLong:
		return admit.ClientBodyTooLong
	case wire.PeerGone, wire.SendTimeout, wire.TruncatedHead, wire.BodyCut:
		return admit.ClientGone
	}
	return admit.BadRequest
}
