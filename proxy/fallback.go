package proxy

import (
	"strconv"
	"time"

	"weir/admit"
	"weir/policy"
)

// fallback is what a client gets in the place of an answer that a breaker lets nobody ask for.
type fallback uint8

const (
	noFallback     fallback = iota
	staleFallback           // the last good answer to the same request
	staticFallback          // what the route's document says
	fallbackCount
)

func (f fallback) String() string { return [fallbackCount]string{"none", "stale", "static"}[f] }

// turnedAway says whether a breaker has answered, so that the route's fallback is what the client gets.
func turnedAway(r admit.Reason) bool { return r == admit.Shed || r == admit.BreakerOpen }

// giveStale answers with the last good answer to the same request, where one is kept.
func (p *Proxy) giveStale(x *exchange) bool {
	if !turnedAway(x.reason) {
		return false
	}
	a := p.staleAnswer(x)
	if a == nil {
		return false
	}
	x.fallback, x.status = staleFallback, 200
	p.metrics.fallbacks[staleFallback].Inc()
	x.out = appendStaleHead(x.out[:0], x, a)
	body := a.body
	if string(x.head.Method) == "HEAD" {
		body = nil
	}
	x.telling = true
	if err := x.conn.Send(x.out, body); err != nil {
		p.leftBehind(x, err)
		return true
	}
	x.bytesOut += int64(len(body))
	return true
}

// appendStaleHead writes the head of an answer that was kept: as it came, then how old it is (RFC 9111), that it is ours to answer
// for (RFC 9211), and what concerns this request and its connection.
func appendStaleHead(dst []byte, x *exchange, a *staleAnswer) []byte {
	dst = append(dst, a.head...)
	dst = strconv.AppendInt(append(dst, "Content-Length: "...), int64(len(a.body)), 10)
	dst = strconv.AppendInt(append(dst, "\r\nAge: "...), a.age+(x.decided()-a.at)/1e9, 10)
	dst = append(append(dst, "\r\nCache-Status: weir; hit; detail="...), x.reason.String()...)
	dst = append(append(append(dst, "\r\nX-Request-Id: "...), x.requestID()...), "\r\n"...)
	switch {
	case !x.head.KeepAlive:
		dst = append(dst, "Connection: close\r\n"...)
	case x.head.Minor == 0:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// staticAnswer returns the answer that the route's document has for a request that a breaker turned away; nil when there is none.
func (p *Proxy) staticAnswer(x *exchange) *policy.FallbackAnswer {
	if !turnedAway(x.reason) {
		return nil
	}
	a := x.live.snapshot.Routes[x.match.Route.Index()].Fallback
	if a != nil {
		x.fallback, x.status = staticFallback, a.Status
		p.metrics.fallbacks[staticFallback].Inc()
	}
	return a
}

// staleFor lists how long the routes keep answers for their fallback, by their index and by their name. A snapshot without
// breakers has no use for them.
func staleFor(s *policy.Snapshot) (byIndex []time.Duration, byName map[string]time.Duration) {
	byIndex, byName = make([]time.Duration, len(s.Routes)), make(map[string]time.Duration)
	for i := range s.Routes {
		if f := s.Routes[i].Fallback; f != nil && len(s.Breakers) > 0 {
			byIndex[i], byName[s.Routes[i].Name] = f.StaleFor, f.StaleFor
		}
	}
	return byIndex, byName
}
