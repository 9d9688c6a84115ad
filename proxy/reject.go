package proxy

import (
	"math/rand/v2"
	"strconv"

	"github.com/valyala/fasthttp"

	"weir/admit"
)

// problem is what a client is told of a reason: a title for people and, where RFC 9209 has a word for it, the error in
// Proxy-Status. Details name the way out. None of it comes from the request or the backend.
type problem struct{ kind, title, detail, proxyStatus string }

// The kinds of problem that have a name (draft-ietf-httpapi-ratelimit-headers), and that of all others.
const (
	quotaExceeded    = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	reducedCapacity  = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
	noParticularKind = "about:blank"
)

func problemOf(r admit.Reason) problem {
	switch r {
	case admit.NoIdentity:
		return problem{noParticularKind, "No tenant identity", "The request carries nothing that says which tenant it is from.", "http_request_denied"}
	case admit.UnknownTenant:
		return problem{noParticularKind, "Unknown tenant", "No policy covers this tenant.", "http_request_denied"}
	case admit.NoRoute:
		return problem{noParticularKind, "No route", "No route matches this host, path and method.", "http_request_denied"}
	case admit.Limited:
		return problem{quotaExceeded, "Rate limit exceeded", "Wait for the time in Retry-After, then send again.", "http_request_denied"}
	case admit.Blocked:
		return problem{noParticularKind, "Blocked by policy", "A limit of 0 requests applies to this tenant.", "http_request_denied"}
	case admit.TooCostly:
		return problem{quotaExceeded, "Request exceeds the limit", "The request costs more than the limit ever holds; waiting does not help.", "http_request_denied"}
	case admit.Concurrency:
		return problem{quotaExceeded, "Too many requests in flight", "Wait until an earlier request has been answered.", "http_request_denied"}
	case admit.Overload:
		return problem{reducedCapacity, "Backend overloaded", "The service behind this proxy has as many requests as it can take; send again in a moment.", "connection_limit_reached"}
	case admit.Shed:
		return problem{reducedCapacity, "Reduced service", "The service behind this proxy has more to do than usual; this part of it gives way. Wait for the time in Retry-After.", "http_request_denied"}
	case admit.BreakerOpen:
		return problem{reducedCapacity, "Backend is recovering", "The service behind this proxy has failed and is given time to recover. Wait for the time in Retry-After.", "destination_unavailable"}
	case admit.BadRequest:
		return problem{noParticularKind, "Bad request", "The request breaks HTTP/1.1 or the bounds of this service.", "http_request_error"}
	case admit.Draining:
		return problem{reducedCapacity, "Shutting down", "This instance is going away; send again to reach another.", "connection_terminated"}
	case admit.BackendRefused:
		return problem{noParticularKind, "Backend unreachable", "The service behind this proxy cannot be connected to.", "connection_refused"}
	case admit.BackendReset:
		return problem{noParticularKind, "Backend broke off", "The service behind this proxy ended the connection before it had answered.", "connection_terminated"}
	case admit.BackendProtocol:
		return problem{noParticularKind, "Backend broke HTTP", "The answer of the service behind this proxy is not valid HTTP/1.1.", "http_protocol_error"}
	case admit.NoEndpoint:
		return problem{reducedCapacity, "No backend available", "No endpoint of the service behind this proxy can be used.", "destination_unavailable"}
	case admit.PoolFull:
		return problem{reducedCapacity, "Backend busy", "Every connection to the service behind this proxy is in use.", "connection_limit_reached"}
	case admit.ConnectTimeout:
		return problem{noParticularKind, "Backend did not accept in time", "The service behind this proxy could not be connected to in time.", "connection_timeout"}
	case admit.ResponseTimeout:
		return problem{noParticularKind, "Backend did not answer in time", "The service behind this proxy sent no answer in time.", "http_response_timeout"}
	case admit.BodyIdleTimeout:
		return problem{noParticularKind, "Backend stalled", "The service behind this proxy stopped in the middle of its answer.", "connection_read_timeout"}
	case admit.RequestTimeout:
		return problem{noParticularKind, "Request took too long", "The request did not end within the time allowed for it.", "http_response_timeout"}
	case admit.ClientBody:
		return problem{noParticularKind, "Bad request body", "The request's body breaks HTTP/1.1 or ended early.", "http_request_error"}
	case admit.ClientBodyTooLong:
		return problem{noParticularKind, "Request body too large", "The request's body is larger than this service takes.", "http_request_error"}
	case admit.ClientTimeout:
		return problem{noParticularKind, "Request timed out", "The request did not arrive in time.", "http_request_error"}
	}
	return problem{noParticularKind, "Internal error", "The proxy failed; the request id finds it in the log.", "proxy_internal_error"}
}

// methods is what Allow says to those who try CONNECT or TRACE; which of them a resource takes is the backend's to say.
const methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

// reject fills the answer of a request that is not relayed. It is the only writer of our own answers.
func (p *Proxy) reject(ctx *fasthttp.RequestCtx, x *exchange) {
	if x.reason == admit.ClientGone {
		x.conn.Mute() // nobody is there to read it
		return
	}
	if p.draining.Load() {
		x.head.KeepAlive = false
	}
	if p.giveStale(x) {
		return
	}
	static := p.staticAnswer(x)
	why := problemOf(x.reason)
	if x.reason == admit.BackendRefused && x.broke.OfTLS() {
		why.proxyStatus = x.broke.String()
	}
	h := &ctx.Response.Header
	ctx.Response.SetStatusCode(x.status)
	h.SetBytesV("X-Request-Id", x.requestID())
	x.text = append(append(x.text[:0], "weir; error="...), why.proxyStatus...)
	h.SetBytesV("Proxy-Status", x.text)
	limited := false
	switch x.reason {
	case admit.Limited, admit.TooCostly, admit.Concurrency:
		limited = true
		x.limits = x.live.table.Limits(x.decided(), &x.match, x.limits[:0])
		x.text = x.verdict.TellRefused(x.text, x.match.Tenant.Plan().Reject.Headers, x.limits, rand.Float64(), h.SetBytesV)
	case admit.NoIdentity:
		h.Set("WWW-Authenticate", x.live.table.Challenge(&x.match)) // RFC 9110 asks for one with every 401
	case admit.Shed, admit.BreakerOpen:
		if x.status >= fasthttp.StatusMultipleChoices { // it says nothing in an answer that went well
			x.text = strconv.AppendInt(x.text[:0], admit.RetryAfter(x.verdict.RetryAfter, rand.Float64()), 10)
			h.SetBytesV("Retry-After", x.text)
		}
	case admit.Draining, admit.NoEndpoint, admit.PoolFull, admit.Overload:
		h.Set("Retry-After", admit.SoonRetry) // there is no telling; it may be over at once
	case admit.BadRequest:
		if x.status == fasthttp.StatusMethodNotAllowed {
			h.Set("Allow", methods) // and for this with every 405
		}
	}
	switch {
	case static != nil:
		h.SetContentType(static.ContentType)
		h.Set("Cache-Control", "no-store") // it must not be taken for what it stands for
		ctx.Response.SetBodyString(static.Body)
	case wantsText(x.head):
		h.SetContentType("text/plain; charset=utf-8")
		x.text = appendText(x.text[:0], why, x)
		ctx.Response.SetBody(x.text)
	default:
		h.SetContentType("application/problem+json")
		x.text = appendProblem(x.text[:0], why, limited, x)
		ctx.Response.SetBody(x.text)
	}
	ctx.Response.SkipBody = string(x.head.Method) == "HEAD"
}

// appendText writes what a problem document says as plain text.
func appendText(dst []byte, why problem, x *exchange) []byte {
	dst = append(append(append(dst, why.title...), ". "...), why.detail...)
	return append(append(append(dst, "\nrequest-id: "...), x.requestID()...), '\n')
}

// appendProblem writes an RFC 9457 document. Everything in it is ours or was checked to need no escape.
func appendProblem(dst []byte, why problem, limited bool, x *exchange) []byte {
	dst = append(append(append(dst, `{"type":"`...), why.kind...), `","title":"`...)
	dst = strconv.AppendInt(append(append(dst, why.title...), `","status":`...), int64(x.status), 10)
	dst = append(append(append(dst, `,"detail":"`...), why.detail...), '"')
	if limited {
		dst = x.verdict.AppendViolated(append(dst, `,"violated-policies":[`...), x.limits, x.match.Cost)
		dst = append(dst, ']')
	}
	return append(append(append(dst, `,"request-id":"`...), x.requestID()...), "\"}\n"...)
}
