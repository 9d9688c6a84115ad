package proxy

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"weir/policy"
	"weir/proxy/upstream"
	"weir/proxy/wire"
)

// maxReplays is how often a request that no backend can have read is sent again.
const maxReplays = 3

// try is what is known of a request's latest try, which ended with a failure or with an answer that may be worth another.
type try struct {
	cause      upstream.Cause // NoCause: there is an answer
	status     int            // of the answer
	replayable bool           // the backend has read no byte of the request
	reused     bool           // the connection had served before
	idempotent bool           // the method may be repeated
	body       bool           // the request has a body
	whole      bool           // the body, if any, is still at hand
	replays    int            // tries that were replays so far
	retries    int            // tries that were retries so far
}

// ended notes how a try ended: with the head of an answer, or with an error.
func (t *try) ended(x *exchange, answer *wire.ResponseHead, reused bool, err error) {
	t.cause, t.status, t.replayable, t.reused = upstream.NoCause, 0, false, reused
	if err == nil {
		t.status = answer.Status
	} else {
		t.failed(err)
	}
	t.idempotent, t.body = idempotent(x.head.Method), x.head.Body != wire.BodyNone
	t.whole = x.conn.upload == nil && (t.replayable || x.conn.BodyDone())
}

// failed notes an error. It is apart from ended because what it declares is allocated.
func (t *try) failed(err error) {
	var failed *upstream.Error
	if errors.As(err, &failed) {
		t.cause, t.replayable = failed.Cause, failed.Replayable
	} else {
		t.cause = upstream.Canceled // the client's doing
	}
}

// mayGoOn says whether the request is sent again after a try, by what next says, the deadline and the budget, and waits for as
// long as that needs.
func (p *Proxy) mayGoOn(x *exchange, b *upstream.Backend, t *try) bool {
	decision := t.next(b.Retries())
	if decision == never || x.conn.gone {
		return false
	}
	pause := t.pause(rand.Float64())
	if x.deadline != 0 && p.clock.Now()+int64(pause) >= x.deadline {
		return false
	}
	if decision == replay {
		t.replays++
		b.CountReplay()
		return true
	}
	if !b.SpendRetry() {
		return false
	}
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.drain: // others wait for this one to end
		}
	}
	t.retries++
	return true
}

// again says what to do about a try.
type again uint8

const (
	never  again = iota
	replay       // send it again: that it is done twice is impossible
	retry        // send it again if the budget allows
)

// next decides. It only looks at the try: the deadline, the budget, and whether the client is still there are the caller's.
//
// Whatever no backend can have read is sent again, even a POST. A request of a method that may be repeated, without a body, is
// also sent again when it met a connection that the backend had left idle, since the race is ours. Everything else is policy:
// what `retries.on` lists, as often as `retries.attempts` says.
func (t *try) next(p *policy.RetrySettings) again {
	if !t.whole {
		return never
	}
	switch t.cause {
	case upstream.ConnectRefused, upstream.ConnectTimeout, upstream.TLSProtocol: // of every endpoint, so it is no use without being asked for
		if p.Connect && t.retries < p.Attempts {
			return retry
		}
		return never
	case upstream.NoEndpoint, upstream.PoolFull, upstream.RequestTimeout, upstream.Canceled:
		return never // there is nobody else, or nobody who waits
	case upstream.TLSCertificate, upstream.TLSAlert:
		return never // it will be the same certificate
	}
	if t.replayable && t.replays < maxReplays {
		return replay
	}
	switch t.cause {
	case upstream.NoCause:
		if t.idempotent && t.retries < p.Attempts && slices.Contains(p.Statuses, t.status) {
			return retry
		}
	case upstream.Reset:
		switch {
		case !t.idempotent && !t.replayable:
		case p.Reset && t.retries < p.Attempts:
			return retry
		case t.reused && !t.body && t.retries < maxReplays:
			return retry
		}
	}
	return never
}

// pause is how long to wait before trying endpoints again that could not be reached, all of them, just now: 25 ms, twice that
// each further time, and less than that by chance. Everything else is sent again at once, to another endpoint.
func (t *try) pause(chance float64) time.Duration {
	if t.cause != upstream.ConnectRefused && t.cause != upstream.TLSProtocol {
		return 0
	}
	const first, longest = 25 * time.Millisecond, 250 * time.Millisecond
	return time.Duration(chance * float64(min(first<<t.retries, longest)))
}

// idempotent is RFC 9110 section 9.2.2.
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE":
		return true
	}
	return false
}
