package proxy

import (
	"testing"

	"weir/admit"
	"weir/admit/token"
	"weir/proxy/upstream"
	"weir/proxy/wire"
)

func TestEveryReasonIsSomebodysDoing(t *testing.T) {
	want := map[culprit][]admit.Reason{
		byPolicy: {admit.NoIdentity, admit.UnknownTenant, admit.NoRoute, admit.Limited, admit.Blocked, admit.TooCostly, admit.Concurrency},
		byClient: {admit.BadRequest, admit.ClientGone, admit.ClientBody, admit.ClientBodyTooLong, admit.ClientTimeout},
		byBackend: {admit.BackendRefused, admit.BackendReset, admit.BackendProtocol, admit.ConnectTimeout, admit.ResponseTimeout,
			admit.BodyIdleTimeout},
		byProxy: {admit.Shed, admit.BreakerOpen, admit.Overload, admit.Draining, admit.Internal, admit.NoEndpoint, admit.PoolFull, admit.RequestTimeout},
	}
	seen := 1 // Passed
	for by, reasons := range want {
		for _, r := range reasons {
			seen++
			if got := endedBy(r); got != by {
				t.Errorf("%v is the doing of the %v, want the %v", r, got, by)
			}
		}
	}
	if seen != admit.ReasonCount {
		t.Errorf("%d reasons here, %d in all", seen, admit.ReasonCount)
	}
}

func TestSilenceAfterAnUpgradeIsNobodysFault(t *testing.T) {
	f := func(x exchange, want culprit) {
		t.Helper()
		if got := x.endedBy(); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	f(exchange{reason: admit.BodyIdleTimeout, upgraded: true}, byProxy)
	f(exchange{reason: admit.BodyIdleTimeout}, byBackend)
}

func TestPhases(t *testing.T) {
	f := func(x exchange, want string) {
		t.Helper()
		if x.head == nil {
			x.head = &wire.Head{}
		}
		if got := x.phase().String(); got != want {
			t.Errorf("%+v: %s, want %s", x, got, want)
		}
	}
	f(exchange{reason: admit.BadRequest, head: &wire.Head{Fault: wire.BadHost}}, "request_head")
	f(exchange{reason: admit.BadRequest, cause: wire.BadIdentity}, "request_head")
	// Also where the client got an answer that was kept.
	f(exchange{reason: admit.BreakerOpen, telling: true}, "decision")
	f(exchange{reason: admit.Shed}, "decision")
	// A declared length over the bound is seen in the head, what goes over it in the body.
	f(exchange{reason: admit.ClientBodyTooLong, cause: wire.BodyTooLong, head: &wire.Head{Fault: wire.BodyTooLong}}, "request_head")
	f(exchange{reason: admit.ClientBodyTooLong, cause: wire.BodyTooLong, asked: true, sentAt: 1}, "request_body")
	f(exchange{reason: admit.ClientBody, cause: wire.BadChunk}, "request_body")
	f(exchange{reason: admit.ClientGone, cause: wire.PeerGone, uploading: true, asked: true, sentAt: 1}, "request_body")
	f(exchange{reason: admit.Limited}, "decision")
	// A connection can be missing before anything was sent, or for the next try.
	f(exchange{reason: admit.BackendRefused, asked: true}, "connect")
	f(exchange{reason: admit.ConnectTimeout, asked: true, sentAt: 1}, "connect")
	f(exchange{reason: admit.RequestTimeout, asked: true}, "connect")
	f(exchange{reason: admit.ResponseTimeout, asked: true, sentAt: 1}, "response_head")
	f(exchange{reason: admit.ClientGone, cause: wire.PeerGone, asked: true, sentAt: 1}, "response_head")
	f(exchange{reason: admit.BodyIdleTimeout, asked: true, sentAt: 1, telling: true}, "response_body")
	f(exchange{reason: admit.ClientGone, cause: wire.PeerGone, asked: true, sentAt: 1, telling: true, upgraded: true}, "upgraded")
}

func TestCauseNames(t *testing.T) {
	f := func(x exchange, want string) {
		t.Helper()
		if got := x.causeName(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	f(exchange{}, "")
	f(exchange{cause: wire.BadChunk}, "bad_chunk")
	f(exchange{broke: upstream.Truncated}, "truncated")
	f(exchange{match: admit.Match{Token: token.Expired}}, "token_expired")
	// The client was first: the call was canceled for it.
	f(exchange{cause: wire.PeerGone, broke: upstream.Canceled}, "peer_gone")
}
