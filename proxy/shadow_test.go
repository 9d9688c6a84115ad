package proxy

import "testing"

// A limit in shadow refuses nobody: the log says which one would have, and the metrics compare it with what is enforced.
func TestShadowIsLoggedAndCompared(t *testing.T) {
	t.Parallel()
	s := serve(t, documents(answering(t, ok, nil).addr, document("TenantPolicy", "base", "tenants: {any: true}", twoPerHour),
		document("TenantPolicy", "trial", "tenants: {names: [acme]}", "limits: [{name: steady, requests: 1, per: 1h, mode: Shadow}]")))
	c := s.dial()
	for _, status := range []int{200, 200, 429} {
		c.say("GET / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\n\r\n")
		c.expect(status)
	}
	lines := s.logged(3)
	if _, said := lines[0]["shadow"]; said {
		t.Errorf("the first request: %v", lines[0])
	}
	for _, line := range lines[1:] {
		if line.text("shadow") != "trial/steady" {
			t.Errorf("logged %v, want shadow trial/steady", line)
		}
	}
	if line := lines[2]; line.text("policy") != "base" || line.text("limit") != "steady" {
		t.Errorf("refused by %v", line)
	}
	compared := func(enforced, shadow string, want float64) {
		t.Helper()
		if n := s.metric("weir_shadow_verdicts_total", "tenant", "acme", "enforced", enforced, "shadow", shadow); n != want {
			t.Errorf("%v requests with %s and in shadow %s, want %v", n, enforced, shadow, want)
		}
	}
	compared("pass", "pass", 1)
	compared("pass", "deny", 1)
	compared("deny", "deny", 1)
	compared("deny", "pass", 0)
}
