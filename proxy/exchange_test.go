package proxy

import (
	"testing"
	"time"

	"weir/admit"
)

func TestLatencyIsTheBackends(t *testing.T) {
	f := func(x exchange, want time.Duration) {
		t.Helper()
		x.ended = 100
		if got := x.latency(); got != want {
			t.Errorf("reason %v, status %d, sent at %d, answered at %d: unexpected latency: got %d, want %d",
				x.reason, x.status, x.sentAt, x.headAt, got, want)
		}
	}

	// An answer, also one that says that something is wrong; however long the client took to read it, or left.
	f(exchange{status: 200, sentAt: 10, headAt: 30}, 20)
	f(exchange{status: 404, sentAt: 10, headAt: 30}, 20)
	f(exchange{status: 500, sentAt: 10, headAt: 30}, 20)
	f(exchange{status: statusGone, reason: admit.ClientGone, sentAt: 10, headAt: 30}, 20)
	f(exchange{status: 504, reason: admit.RequestTimeout, sentAt: 10, headAt: 30}, 0)
	// No answer in time.
	f(exchange{status: 504, reason: admit.ResponseTimeout, sentAt: 10}, 90)
	f(exchange{status: 504, reason: admit.RequestTimeout, sentAt: 10}, 90)
	// Failures that come at once, by their status or without one.
	f(exchange{status: 502, sentAt: 10, headAt: 30}, 0)
	f(exchange{status: 503, sentAt: 10, headAt: 30}, 0)
	f(exchange{status: 502, reason: admit.BackendReset, sentAt: 10}, 0)
	f(exchange{status: 502, reason: admit.BackendRefused}, 0)
	// The client left before there was an answer, or the request never went.
	f(exchange{status: statusGone, reason: admit.ClientGone, sentAt: 10}, 0)
	f(exchange{status: 429, reason: admit.Limited}, 0)
	f(exchange{status: 504, reason: admit.RequestTimeout}, 0)
}

// Only what the backend had whole, and did not begin to answer, was waited for.
func TestAwaitedIsTheBackends(t *testing.T) {
	f := func(x exchange, want time.Duration) {
		t.Helper()
		x.ended = 100
		if got := x.awaited(); got != want {
			t.Errorf("whole at %d, answered at %d: got %d, want %d", x.wholeAt, x.headAt, got, want)
		}
	}
	f(exchange{}, 0)
	f(exchange{sentAt: 10}, 0)
	f(exchange{sentAt: 10, wholeAt: 30}, 70)
	f(exchange{sentAt: 10, wholeAt: 30, headAt: 50}, 0)
}
