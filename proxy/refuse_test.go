package proxy

import "testing"

// A body that is broken already when its request is looked at costs nothing; one that breaks later was paid for.
func TestBrokenBodyIsNotCharged(t *testing.T) {
	b := answering(t, ok, nil)
	s := serve(t, documents(b.addr, spec("TenantPolicy", "some", "tenants: {any: true}", "limits: [{name: l, requests: 5, per: 1h}]")))
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
