package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/valyala/fasthttp"

	"weir/admit"
	"weir/proxy/upstream"
	"weir/proxy/wire"
)

// exchange is one request on its way through the rooms: what each room found out, for the next ones to read. It is pooled;
// nothing in it outlives the handler.
type exchange struct {
	live *live
	conn *clientConn
	head *wire.Head

	now      int64 // the door's reading of the clock
	queued   int64 // how long it has waited for its verdict; 0: not at all
	deadline int64 // end of the whole request; 0: none
	req      admit.Request
	trusted  bool // the peer is a trusted proxy: what it says of others is believed
	match    admit.Match
	body     []byte // what came of it with the head, decoded; in the connection's buffer
	verdict  admit.Verdict
	passes   admit.Passes
	call     *upstream.Conn // the backend's connection while it is ours
	up, down pacer          // of the request's body and of the answer's

	// How it ends.
	reason    admit.Reason
	cause     wire.Cause     // which rule of the wire, for BadRequest and the client's body
	broke     upstream.Cause // how the backend failed, or NoCause
	uploading bool           // the client had not sent its body when it ended the request
	status    int

	// For the log and the histograms.
	id       [maxID]byte
	idSize   int
	asked    bool   // a backend was asked for a connection
	endpoint string // the one that got the request, or would have; empty: none
	telling  bool   // the head of an answer goes, or went, to the client
	upgraded bool   // that was a 101: the connection carries no HTTP any more
	sentAt   int64  // the request left for the backend; 0: it did not
	wholeAt  int64  // the backend had all of it; 0: it did not
	headAt   int64  // the answer's head was there
	toldAt   int64  // the answer's head was passed on
	ended    int64  // all was over
	held     int64  // how long limits in bytes kept the request from leaving
	bytesIn  int64
	bytesOut int64

	gathered copyBuffer // where a body was gathered; empty: nowhere

	copy     *staleAnswer // of the answer that is passed on; nil: none is made
	fallback fallback     // what the client got in its place

	// Scratch, kept for its memory.
	out    []byte // a head on its way out
	text   []byte // short texts: interim heads, header values, problem bodies
	limits []admit.LimitState
	log    record
}

const (
	// maxID is the longest request id that is kept: longer ones from a trusted proxy are replaced.
	maxID = 128
	// maxScratch is the most memory of a kind that an exchange keeps from request to request.
	maxScratch = 64 << 10
)

// begin makes the exchange that of a new message, judged by the same snapshot as everything after.
func (x *exchange) begin(l *live, c *clientConn) {
	c.Judge(l.wire)
	out, text, limits := x.out[:0], x.text[:0], x.limits[:0]
	up, down := x.up.timer, x.down.timer
	*x = exchange{} // a literal with fields would stand on the stack first, and an idle connection keeps its stack
	x.live, x.conn, x.head = l, c, c.Head()
	x.out, x.text, x.limits = out, text, limits
	x.up.timer, x.down.timer = up, down
}

// forget lets go of everything but memory that can serve again.
func (x *exchange) forget() {
	x.live, x.conn, x.head = nil, nil, nil
	x.req = admit.Request{}
	x.match = admit.Match{}
	x.verdict = admit.Verdict{}
	x.log = record{}
	if cap(x.out) > maxScratch {
		x.out = nil
	}
	if cap(x.text) > maxScratch {
		x.text = nil
	}
	x.body = nil
	x.gathered.release()
	x.gathered = copyBuffer{}
	x.up.Meter, x.down.Meter = admit.Meter{}, admit.Meter{}
}

// arrive notes when the message came, from whom, and gives it an id.
func (x *exchange) arrive(now int64) {
	x.now = now
	head, peer := x.head, x.conn.peer
	x.req = admit.Request{Method: head.Method, Host: head.Host, Path: head.Path, Header: head, Peer: peer, Client: peer, SPIFFE: x.conn.spiffeID()}
	if trusted := x.live.snapshot.Sidecar.TrustedProxies; peer.IsValid() && contains(trusted, peer) {
		x.trusted = true
		x.req.Client = admit.ClientAddr(trusted, peer, head)
	}
	x.req.Passes = &x.passes
	x.identify()
}

// identify keeps the request id of a trusted proxy, and makes one for everybody else's requests. It has the request's number
// by chance from the same source.
func (x *exchange) identify() {
	if x.trusted {
		if id, n := x.head.Get(wire.KindXRequestID); n == 1 && plainID(id) {
			x.idSize = copy(x.id[:], id)
			x.req.Random = rand.Uint32()
			return
		}
	}
	var random [16]byte
	first := rand.Uint64()
	x.req.Random = uint32(first)
	binary.NativeEndian.PutUint64(random[:8], first)
	binary.NativeEndian.PutUint64(random[8:], rand.Uint64())
	x.idSize = hex.Encode(x.id[:], random[:])
}

// plainID says whether an id can be repeated anywhere, JSON included, without an escape.
func plainID(id []byte) bool {
	if len(id) == 0 || len(id) > maxID {
		return false
	}
	for _, c := range id {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// requestID is the id as bytes; valid as long as the exchange.
func (x *exchange) requestID() []byte { return x.id[:x.idSize] }

// refuse ends the exchange with a reason of ours. The status is the reason's unless the policy or the wire says otherwise.
func (x *exchange) refuse(r admit.Reason) {
	x.reason, x.status = r, r.Status()
	switch r {
	case admit.Limited, admit.TooCostly, admit.Concurrency:
		x.status = x.match.Tenant.Plan().Reject.Status
	case admit.BadRequest, admit.ClientBody:
		if s := x.cause.Status(); s >= 400 && s != statusGone {
			x.status = s
		}
	}
}

// decided is when it was known whether the request may pass.
func (x *exchange) decided() int64 { return x.now + x.queued }

// leave gives up what the request holds of its tenant's and its backend's, or its turn where it waits for that.
func (x *exchange) leave() {
	x.live.table.Settle(&x.match, &x.verdict, admit.Outcome{
		Reason: x.reason, Status: x.status, Delays: x.up.Delays() | x.down.Delays(), Now: x.ended, Latency: x.latency(), Awaited: x.awaited(),
	})
}

// latency is how long the backend took for the head of its answer, as far as that says how fast it is; 0: it does not. One that
// was late took as long as it was waited for. A failure that may have come at once says nothing.
func (x *exchange) latency() time.Duration {
	switch {
	case x.sentAt == 0:
		return 0
	case x.headAt != 0 && (x.status < fasthttp.StatusBadGateway || x.status > fasthttp.StatusGatewayTimeout):
		return time.Duration(x.headAt - x.sentAt)
	case x.reason == admit.ResponseTimeout || x.headAt == 0 && x.reason == admit.RequestTimeout:
		return time.Duration(x.ended - x.sentAt)
	}
	return 0
}

// awaited is how long the backend had the whole request when it ended without the head of an answer; 0: it ended otherwise.
func (x *exchange) awaited() time.Duration {
	if x.wholeAt == 0 || x.headAt != 0 {
		return 0
	}
	return time.Duration(x.ended - x.wholeAt)
}

// endCall ends what runs beside the handler and gives the backend's connection back. It may be called again.
func (x *exchange) endCall() {
	x.conn.finishCall()
	if u := x.conn.upload; u != nil {
		x.wholeAt = u.wholeAt
	}
	if x.call != nil {
		x.call.Release()
		x.call = nil
	}
}

// contains says whether an address is in one of a few networks.
func contains(networks []netip.Prefix, a netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}
