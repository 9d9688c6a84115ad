package proxy

import (
	"fmt"
	"net/netip"
	"strings"

	"weir/admit"
	"weir/policy"
	"weir/proxy/wire"
)

// Why says how a request would be decided now, or how a recent one was denied. The error is about the question: it says what
// of it cannot be, or is an [admit.NotRecentError]. Nothing is spent or counted. Safe for concurrent use.
func (p *Proxy) Why(q admit.Inquiry) (admit.Trace, error) {
	live := p.live.Load()
	if live == nil {
		return admit.Trace{}, fmt.Errorf("cannot explain anything: no policy is applied yet")
	}
	if q.RequestID != "" {
		trace, then, ok := p.recent.Find(live.table, q.RequestID)
		if !ok {
			return admit.Trace{}, &admit.NotRecentError{RequestID: q.RequestID}
		}
		trace.At = p.clock.Wall(then)
		return trace, nil
	}
	now := p.clock.Now()
	trace, err := why(live.table, live.wire, now, q)
	trace.At = p.clock.Wall(now)
	return trace, err
}

// WhyOf is Why for documents that nobody runs: every bucket is full, and nothing is in flight.
func WhyOf(s *policy.Snapshot, clock Clock, q admit.Inquiry) (admit.Trace, error) {
	now := clock.Now()
	table, err := admit.Build(nil, s, now, admit.Options{Wall: clock.Wall})
	if err != nil {
		return admit.Trace{}, fmt.Errorf("cannot build the table of the documents: %w", err)
	}
	table.Adopt(now)
	settings := wire.NewGuard(clock.Now, wireSettings(&s.Sidecar)).Settings()
	trace, err := why(table, settings, now, q)
	trace.At = clock.Wall(now)
	trace.Notes = append(trace.Notes, "from documents alone: every bucket is full, and nothing is in flight")
	return trace, err
}

// why makes a request of the question, through the guard like any other, and asks the table.
func why(table *admit.Table, settings *wire.Settings, now int64, q admit.Inquiry) (admit.Trace, error) {
	head, err := headOf(q, settings)
	if err != nil {
		return admit.Trace{}, err
	}
	peer := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if q.Client != "" {
		if peer, err = netip.ParseAddr(q.Client); err != nil {
			return admit.Trace{}, fmt.Errorf("cannot use client %q: want an IP address", q.Client)
		}
		peer = peer.Unmap().WithZone("")
	}
	req := admit.Request{ // as the door does
		Method: head.Method, Host: head.Host, Path: head.Path, Header: head,
		Peer: peer, Client: admit.ClientAddr(table.Snapshot().Sidecar.TrustedProxies, peer, head), SPIFFE: q.SPIFFE,
	}
	if q.Tenant != "" && !admit.ValidTenant(q.Tenant) {
		return admit.Trace{}, fmt.Errorf("cannot use tenant %q: want 1 to 128 bytes of visible ASCII", q.Tenant)
	}
	return table.Explain(now, admit.Question{Request: &req, Tenant: q.Tenant}), nil
}

// headOf is the head of the request that is asked about, as the guard sees it.
func headOf(q admit.Inquiry, settings *wire.Settings) (*wire.Head, error) {
	if !strings.HasPrefix(q.Path, "/") {
		return nil, fmt.Errorf("cannot use path %q: want one that begins with /", q.Path)
	}
	method, host := q.Method, q.Host
	if method == "" {
		method = "GET"
	}
	if host == "" {
		host = "localhost"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, q.Path, host)
	for _, h := range q.Headers {
		if name, _, ok := strings.Cut(h, ":"); !ok || name == "" {
			return nil, fmt.Errorf("cannot use header %q: want Name: value", h)
		}
		text.WriteString(h + "\r\n")
	}
	text.WriteString("\r\n")
	if strings.Count(text.String(), "\r\n") != 3+len(q.Headers) || strings.Count(text.String(), "\n") != 3+len(q.Headers) {
		return nil, fmt.Errorf("cannot use a method, host, path or header with a line break in it")
	}
	head := new(wire.Head)
	wire.ScanRequest(head, []byte(text.String()), settings)
	if head.Fault != wire.None {
		return nil, fmt.Errorf("cannot ask about %s %s: such a request breaks HTTP or the bounds, and is refused with %d as %s",
			method, q.Path, head.Fault.Status(), head.Fault)
	}
	return head, nil
}

// remember keeps a denial, so that its request id can be asked about. What broke HTTP was not decided on.
func (p *Proxy) remember(x *exchange) {
	denied := x.match.Reason != admit.Passed || x.verdict.Reason != admit.Passed
	if denied && x.head.Fault == wire.None && x.reason != admit.Internal {
		p.recent.Remember(x.live.table, x.decided(), x.requestID(), &x.req, &x.match, &x.verdict, x.status)
	}
}
