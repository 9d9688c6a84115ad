package wire

import "testing"

func TestNth(t *testing.T) {
	h := scan("GET / HTTP/1.1\r\nHost: h\r\nX-A: \t 1 \r\nX-B: b\r\nx-a:2\r\nX-Ab: ab\r\nX-A:\r\n\r\n", DefaultSettings())
	f := func(name string, i int, want string, found bool) {
		t.Helper()
		if v := h.Nth(name, i); string(v) != want || (v != nil) != found {
			t.Errorf("Nth(%q, %d) = %q, %v; want %q, %v", name, i, v, v != nil, want, found)
		}
	}

	f("X-A", 0, "1", true)
	f("x-a", 1, "2", true)
	f("X-A", 2, "", true)
	f("X-A", 3, "", false)
	f("X-A", -1, "", false)
	f("x-b", 0, "b", true)
	f("x-b", 1, "", false)
	f("x-c", 0, "", false)
	if n := testing.AllocsPerRun(100, func() { h.Nth("x-a", 2) }); n != 0 {
		t.Errorf("unexpected allocations: got %v, want 0", n)
	}
}
