package proxy

import (
	"testing"
	"time"

	"weir/policy"
	"weir/proxy/upstream"
)

func TestNextTry(t *testing.T) {
	var (
		none    = policy.RetrySettings{}
		connect = policy.RetrySettings{Connect: true, Attempts: 2}
		reset   = policy.RetrySettings{Reset: true, Attempts: 2}
		busy    = policy.RetrySettings{Statuses: []int{502, 503}, Attempts: 2}
		all     = policy.RetrySettings{Connect: true, Reset: true, Statuses: []int{500, 503}, Attempts: 10}
		nought  = policy.RetrySettings{Connect: true, Reset: true, Statuses: []int{503}}
	)
	f := func(p policy.RetrySettings, t_ try, want again) {
		t.Helper()
		if got := t_.next(&p); got != want {
			t.Errorf("%+v after %+v: got %d, want %d", p, t_, got, want)
		}
	}

	// No connection could be made: nothing was sent, so any request may be sent again, if that is asked for.
	f(none, try{cause: upstream.ConnectRefused, replayable: true, whole: true}, never)
	f(connect, try{cause: upstream.ConnectRefused, replayable: true, whole: true}, retry)
	f(connect, try{cause: upstream.ConnectTimeout, replayable: true, whole: true, body: true}, retry)
	f(connect, try{cause: upstream.ConnectRefused, replayable: true, whole: true, retries: 1}, retry)
	f(connect, try{cause: upstream.ConnectRefused, replayable: true, whole: true, retries: 2}, never)
	f(nought, try{cause: upstream.ConnectRefused, replayable: true, whole: true}, never)
	f(reset, try{cause: upstream.ConnectRefused, replayable: true, whole: true}, never)

	f(none, try{cause: upstream.TLSProtocol, replayable: true, whole: true}, never)
	f(connect, try{cause: upstream.TLSProtocol, replayable: true, whole: true}, retry)

	// There is nobody else, or the time is over, or the client has left, or it will be the same certificate.
	for _, cause := range []upstream.Cause{upstream.TLSCertificate, upstream.TLSAlert, upstream.PoolFull, upstream.NoEndpoint, upstream.RequestTimeout, upstream.Canceled} {
		f(all, try{cause: cause, replayable: true, idempotent: true, whole: true}, never)
	}
	// It may have been done, and may go on.
	for _, cause := range []upstream.Cause{upstream.ResponseTimeout, upstream.Protocol, upstream.BodyIdle, upstream.Truncated} {
		f(all, try{cause: cause, idempotent: true, whole: true}, never)
	}

	// Nobody has read it: again whatever it is, without policy, but not for ever.
	f(none, try{cause: upstream.Reset, replayable: true, whole: true, body: true, reused: true}, replay)
	f(none, try{cause: upstream.Reset, replayable: true, whole: true, replays: 2}, replay)
	f(none, try{cause: upstream.Reset, replayable: true, whole: true, replays: 3}, never)
	f(reset, try{cause: upstream.Reset, replayable: true, whole: true, replays: 3}, retry)
	f(none, try{cause: upstream.Reset, replayable: true}, never) // its body is gone

	// A connection that was idle broke: a request that may be repeated and has no body goes again, within the budget.
	f(none, try{cause: upstream.Reset, reused: true, idempotent: true, whole: true}, retry)
	f(none, try{cause: upstream.Reset, reused: true, idempotent: true, whole: true, retries: 3}, never)
	f(none, try{cause: upstream.Reset, reused: true, idempotent: true, whole: true, body: true}, never)
	f(none, try{cause: upstream.Reset, reused: true, whole: true}, never)
	f(none, try{cause: upstream.Reset, idempotent: true, whole: true}, never)

	// By policy, a request that may be repeated goes again when the connection broke, with its body if that is at hand.
	f(reset, try{cause: upstream.Reset, idempotent: true, whole: true}, retry)
	f(reset, try{cause: upstream.Reset, idempotent: true, whole: true, body: true}, retry)
	f(reset, try{cause: upstream.Reset, idempotent: true, body: true}, never)
	f(reset, try{cause: upstream.Reset, whole: true}, never)
	f(reset, try{cause: upstream.Reset, idempotent: true, whole: true, retries: 2}, never)
	f(connect, try{cause: upstream.Reset, idempotent: true, whole: true}, never)

	// And after an answer whose status is listed.
	f(busy, try{status: 503, idempotent: true, whole: true}, retry)
	f(busy, try{status: 502, idempotent: true, whole: true, body: true}, retry)
	f(busy, try{status: 503, idempotent: true, whole: true, retries: 2}, never)
	f(busy, try{status: 503, idempotent: true, body: true}, never)
	f(busy, try{status: 503, whole: true}, never)
	f(busy, try{status: 500, idempotent: true, whole: true}, never)
	f(busy, try{status: 200, idempotent: true, whole: true}, never)
	f(none, try{status: 503, idempotent: true, whole: true}, never)
	f(nought, try{status: 503, idempotent: true, whole: true}, never)
}

func TestPauseBeforeATry(t *testing.T) {
	f := func(t_ try, chance float64, want time.Duration) {
		t.Helper()
		if got := t_.pause(chance); got != want {
			t.Errorf("%+v: got %v, want %v", t_, got, want)
		}
	}

	// Only where every endpoint has refused just now.
	f(try{cause: upstream.ConnectRefused}, 1, 25*time.Millisecond)
	f(try{cause: upstream.ConnectRefused}, 0.5, 12500*time.Microsecond)
	f(try{cause: upstream.ConnectRefused, retries: 3}, 1, 200*time.Millisecond)
	f(try{cause: upstream.ConnectRefused, retries: 9}, 1, 250*time.Millisecond)
	f(try{cause: upstream.ConnectTimeout}, 1, 0)
	f(try{cause: upstream.Reset}, 1, 0)
	f(try{status: 503}, 1, 0)
}

func TestIdempotent(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "PUT", "DELETE"} {
		if !idempotent([]byte(method)) {
			t.Errorf("%s may be repeated", method)
		}
	}
	for _, method := range []string{"POST", "PATCH", "get", "PURGE", ""} {
		if idempotent([]byte(method)) {
			t.Errorf("%s must not be repeated", method)
		}
	}
}
