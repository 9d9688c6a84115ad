package proxy

import (
	"math/rand/v2"
	"net/netip"

	"weir/proxy/ratelimit"
	"weir/proxy/wire"
)

const (
	// claims are what only a trusted proxy may say of others.
	claims = 1<<wire.KindForwarded | 1<<wire.KindXForwardedFor | 1<<wire.KindXForwardedProto | 1<<wire.KindXForwardedHost |
		1<<wire.KindXForwarded | 1<<wire.KindXRealIP
	// ours are written anew for every request, whoever sent them.
	ours = 1<<wire.KindIdentity | 1<<wire.KindXRequestID | 1<<wire.KindXForwardedFor
)

// appendRequestHead writes the head that goes to the backend: the client's own, edited in place, then what a proxy has to say.
// The inbound head is not modified.
func appendRequestHead(dst []byte, x *exchange) []byte {
	drop := wire.KindSet(ours)
	if !x.trusted {
		drop |= claims
	}
	dst = x.head.AppendForward(dst, drop)
	if len(x.match.Identity) > 0 {
		dst = append(append(append(append(append(dst, x.live.identity...), ": "...), x.match.Identity...), '\r'), '\n')
	}
	dst = appendForwardedFor(dst, x)
	if _, n := x.head.Get(wire.KindXForwardedProto); n == 0 || !x.trusted {
		dst = append(dst, "X-Forwarded-Proto: http"...)
		if x.conn.tls != nil {
			dst = append(dst, 's')
		}
		dst = append(dst, "\r\n"...)
	}
	if _, n := x.head.Get(wire.KindXForwardedHost); (n == 0 || !x.trusted) && len(x.head.Host) > 0 {
		dst = append(append(append(dst, "X-Forwarded-Host: "...), x.head.Host...), "\r\n"...)
	}
	dst = append(append(append(dst, "X-Request-Id: "...), x.requestID()...), "\r\nVia: 1."...)
	return append(dst, '0'+x.head.Minor, ' ', 'w', 'e', 'i', 'r', '\r', '\n', '\r', '\n')
}

// appendForwardedFor writes one X-Forwarded-For: what a trusted peer said, as one list, and the peer. A peer on a Unix socket
// has no address to add.
func appendForwardedFor(dst []byte, x *exchange) []byte {
	start := len(dst)
	dst = append(dst, "X-Forwarded-For: "...)
	empty := len(dst)
	if x.trusted {
		for i := range x.head.List {
			if x.head.List[i].Kind == wire.KindXForwardedFor {
				dst = appendMember(dst, x.head.Value(i), len(dst) > empty)
			}
		}
	}
	if x.req.Peer.IsValid() {
		dst = appendPeer(dst, x.req.Peer, len(dst) > empty)
	}
	if len(dst) == empty {
		return dst[:start]
	}
	return append(dst, "\r\n"...)
}

func appendMember(dst, member []byte, comma bool) []byte {
	if len(member) == 0 {
		return dst
	}
	if comma {
		dst = append(dst, ", "...)
	}
	return append(dst, member...)
}

func appendPeer(dst []byte, peer netip.Addr, comma bool) []byte {
	if comma {
		dst = append(dst, ", "...)
	}
	return peer.AppendTo(dst)
}

// appendAnswerHead writes the head that goes to the client: the backend's own, edited in place, then what the client is told of
// its limits, and what concerns this connection.
func appendAnswerHead(dst []byte, x *exchange, answer *wire.ResponseHead, how framing) []byte {
	drop := wire.KindSet(0)
	if how == toClose {
		drop = 1 << wire.KindTransferEncoding
	}
	x.text = appendTold(x.text[:0], x, answer)
	dst = append(answer.AppendForward(dst, drop), x.text...)
	if how == chunked && answer.Body == wire.BodyToClose {
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case !x.head.KeepAlive:
		dst = append(dst, "Connection: close\r\n"...)
	case x.head.Minor == 0:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// appendTold writes the lines about limits that the tenant's policy asks for in answers, as the limits are now that the answer
// is there, and takes the backend's lines that they replace out of the answer.
func appendTold(dst []byte, x *exchange, answer *wire.ResponseHead) []byte {
	form := x.match.Tenant.Plan().Headers
	if form == "Off" {
		return dst
	}
	x.limits = x.live.table.Limits(x.headAt, &x.match, x.limits[:0])
	terms := ratelimit.Terms{Form: form, Limits: x.limits, Unix: x.conn.proxy.clock.Wall(x.headAt).Unix(), Jitter: rand.Float64()}
	return ratelimit.Append(dst, &terms, answer)
}
