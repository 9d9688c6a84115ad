package proxy

import (
	"weir/admit"
	"weir/admit/token"
	"weir/proxy/upstream"
	"weir/proxy/wire"
)

// culprit is who ended a request that did not end with the whole answer of a backend.
type culprit uint8

const (
	byPolicy  culprit = iota // what the documents say
	byClient                 // it broke HTTP, stalled or left
	byBackend                // it could not be reached, broke HTTP, stalled or left
	byProxy                  // our own bounds and state
	culpritCount
)

func (c culprit) String() string {
	return [culpritCount]string{"policy", "client", "backend", "proxy"}[c]
}

// endedBy says whose doing it is that a request ended with this reason. Passed is nobody's.
func endedBy(r admit.Reason) culprit {
	switch r {
	case admit.BadRequest, admit.ClientGone, admit.ClientBody, admit.ClientBodyTooLong, admit.ClientTimeout:
		return byClient
	case admit.BackendRefused, admit.BackendReset, admit.BackendProtocol, admit.ConnectTimeout, admit.ResponseTimeout,
		admit.BodyIdleTimeout:
		return byBackend
	case admit.Shed, admit.BreakerOpen, admit.Overload, admit.Draining, admit.Internal, admit.NoEndpoint, admit.PoolFull, admit.RequestTimeout:
		return byProxy
	}
	return byPolicy
}

// phase is how far a request had come when it ended. The words are those of the access log and of weir_request_ends_total.
type phase uint8

const (
	inRequestHead  phase = iota // it was read, or judged by itself
	inDecision                  // policy had the word
	inConnect                   // a connection to the backend was wanted
	inRequestBody               // the rest of the request was read
	inResponseHead              // the request was sent, and the answer's head awaited
	inResponseBody              // the answer was passed on
	inUpgraded                  // bytes went both ways after a 101
	phaseCount
)

func (p phase) String() string {
	return [phaseCount]string{"request_head", "decision", "connect", "request_body", "response_head", "response_body", "upgraded"}[p]
}

// phase says where a request ended that did not end with the whole answer of a backend.
func (x *exchange) phase() phase {
	switch x.reason {
	case admit.BackendRefused, admit.ConnectTimeout, admit.NoEndpoint, admit.PoolFull:
		return inConnect
	case admit.Shed, admit.BreakerOpen:
		return inDecision // whatever the client got in the place of an answer
	}
	switch {
	case x.upgraded:
		return inUpgraded
	case x.head.Fault != wire.None || x.cause == wire.BadIdentity || x.cause == wire.BadCost:
		return inRequestHead
	case x.uploading || x.cause.OfBody():
		return inRequestBody
	case x.telling:
		return inResponseBody
	case x.sentAt != 0:
		return inResponseHead
	case x.asked:
		return inConnect
	}
	return inDecision
}

// causeName is the most precise word for how a request ended: the rule of the wire that the client broke, what is wrong with its token,
// or how the backend failed; empty where the reason says it all.
func (x *exchange) causeName() string {
	switch {
	case x.cause != wire.None:
		return x.cause.String()
	case x.match.Token != token.None:
		return x.match.Token.String()
	case x.broke != upstream.NoCause:
		return x.broke.String()
	}
	return ""
}

// endedBy says who ended the exchange: an upgraded connection on which neither side says anything is ended by us.
func (x *exchange) endedBy() culprit {
	if x.upgraded && x.reason == admit.BodyIdleTimeout {
		return byProxy
	}
	return endedBy(x.reason)
}

// countEnd counts a request that did not end with the whole answer of a backend.
func (p *Proxy) countEnd(x *exchange) {
	if x.reason != admit.Passed {
		p.metrics.ends[x.endedBy()][x.phase()].Inc()
	}
}
