//go:build !race

package main

import "testing"

// A goroutine's stack doubles when it is too small and is kept while its connection is idle, so that a deeper call or a large
// local variable somewhere on the way of a request doubles what 9,000 idle connections hold. Under the race detector frames
// are larger.
func TestRequestsFitIntoSmallStacks(t *testing.T) {
	s := newService(t, hello)
	f := func(request string, status int, further ...string) {
		t.Helper()
		p := launch(t, documentsFor(s.address(), further...))
		ask := func(n int) (clients []*client) {
			for range n {
				c := p.dial()
				for range 2 {
					c.send(request)
					c.gets(status)
				}
				clients = append(clients, c)
			}
			return clients
		}
		ask(20)
		const many = 300
		before := p.metric("go_memstats_stack_inuse_bytes")
		ask(many)
		each := (p.metric("go_memstats_stack_inuse_bytes") - before) / many
		if each > 5<<10 {
			t.Errorf("%.20q: %.0f bytes of stack for each idle connection, want 4096 at most", request, each)
		}
	}
	// Forwarded and logged, with a body, and refused.
	f(plainGet, 200)
	f("POST / HTTP/1.1\r\nHost: weir\r\nContent-Length: 5\r\n\r\nhello", 200)
	f(plainGet, 404, "kind: Route\nmetadata: {name: none}\nspec: {match: [{path: /nothing}], backend: orders}")
}
