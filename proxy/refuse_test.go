package proxy

import (
	"strings"
	"testing"
)

// A body that is broken already when its request is looked at costs nothing; one that breaks later was paid for.
func TestBrokenBodyIsNotCharged(t *testing.T) {
	b := answering(t, ok, nil)
	s := serve(t, documents(b.addr, document("TenantPolicy", "some", "tenants: {any: true}", "limits: [{name: l, requests: 5, per: 1h}]")))
	f := func(parts ...string) {
		t.Helper()
		c := s.dial()
		c.say(parts[0])
		for i, p := range parts[1:] {
			until(t, "the backend is connected", func() bool { return b.connections() > i })
			c.say(p)
		}
		c.expect(400)
		c.closed()
	}
	const chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	f(chunked + "3\r\nabcde\r\n")
	f(chunked + "zz\r\n")
	if n := s.metric("weir_limit_decisions_total"); n != 0 {
		t.Errorf("%v decisions for bodies that were broken from the start", n)
	}
	f(chunked+"3\r\nabc\r\n", "zz\r\n")
	if n := s.metric("weir_limit_decisions_total", "decision", "allow"); n != 1 {
		t.Errorf("%v decisions for a body that broke later, want 1", n)
	}
}

// A claim of who the tenant is that cannot be read is a bad request like any other: the connection ends, and the cause says so.
func TestBrokenIdentityEndsTheConnection(t *testing.T) {
	s := serve(t, documents(answering(t, ok, nil).addr))
	n := 0
	f := func(fields string) {
		t.Helper()
		n++
		c := s.dial()
		c.say("GET / HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n")
		if a, _ := c.expect(400); !a.Close {
			t.Errorf("%q: no Connection: close", fields)
		}
		c.closed()
		if line := s.endsAfter(n, "bad_request", 400); line.text("cause") != "bad_identity" {
			t.Errorf("%q: %v", fields, line)
		}
		if got := s.metric("weir_wire_rejected_total", "cause", "bad_identity"); got != float64(n) {
			t.Errorf("%q: counted %v times, want %d", fields, got, n)
		}
	}
	// Twice, with or without a difference.
	f("X-Tenant-ID: a\r\nX-Tenant-ID: b\r\n")
	f("X-Tenant-ID: a\r\nx-tenant-id: a\r\n")
	// Empty, too long, not visible ASCII.
	f("X-Tenant-ID:\r\n")
	f("X-Tenant-ID: " + strings.Repeat("t", 129) + "\r\n")
	f("X-Tenant-ID: a b\r\n")
	f("X-Tenant-ID: \xe9\r\n")
}

// Whoever asked for 100 and is refused may leave the body out: the connection ends, even where a body came along.
func TestRefusalOfExpectEndsTheConnection(t *testing.T) {
	s := serve(t, documents(answering(t, ok, nil).addr, document("TenantPolicy", "none", "tenants: {any: true}", "limits: [{name: l, requests: 0, per: 1h}]")))
	f := func(fields string, closes bool) {
		t.Helper()
		c := s.dial()
		c.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n" + fields + "\r\nhello")
		if a, _ := c.expect(403); a.Close != closes {
			t.Errorf("%q: closes %v, want %v", fields, a.Close, closes)
		}
	}
	f("Expect: 100-continue\r\n", true)
	f("", false)
}
