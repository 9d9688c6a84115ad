package proxy

import (
	"math"
	"time"

	"weir/admit"
	"weir/proxy/wire"
)

// wait is for a request that its tenant's gate or its backend has a queue for, or one after the other. It ends with the verdict,
// the request's own time, the client's leaving, or the end of a drain, whatever is first; false: not with a verdict.
// Nothing of the body is read meanwhile.
func (p *Proxy) wait(x *exchange) bool {
	left := x.conn.watchQueued()
	timer := time.NewTimer(math.MaxInt64)
	defer timer.Stop()
	for goesOn := true; goesOn && x.verdict.Waits(); {
		in, since := queueOf(&x.verdict), x.decided()
		goesOn = p.waitIn(in, x, timer, left)
		p.metrics.queued[in].Observe(float64(x.decided()-since) / 1e9)
	}
	x.conn.finishCall()
	if x.conn.gone {
		return x.clientFailed(wire.PeerGone)
	}
	return x.reason == admit.Passed
}

// waitIn waits in one queue; false: until there is nothing more to wait for.
func (p *Proxy) waitIn(in queue, x *exchange, timer *time.Timer, left <-chan struct{}) bool {
	v := &x.verdict
	for v.Waits() && queueOf(v) == in {
		until := v.Until()
		if x.deadline != 0 {
			until = min(until, x.deadline)
		}
		timer.Reset(time.Duration(until - x.decided()))
		select {
		case <-v.Ready():
		case <-timer.C:
		case <-left:
			x.conn.gone = true
		case <-p.cutOff:
			x.refuse(admit.Draining)
		}
		now := p.clock.Now()
		x.queued = now - x.now
		if x.conn.gone || x.reason != admit.Passed {
			return false
		}
		if x.deadline != 0 && now >= x.deadline {
			x.refuse(admit.RequestTimeout)
			return false
		}
		x.live.table.Resume(now, &x.match, v)
	}
	return true
}

// queue is where a request waits.
type queue uint8

const (
	atGate    queue = iota // the tenant's
	atBackend              // the backend's
	queueCount
)

func (q queue) String() string { return [queueCount]string{"tenant", "backend"}[q] }

func queueOf(v *admit.Verdict) queue {
	if v.AtBackend() {
		return atBackend
	}
	return atGate
}
