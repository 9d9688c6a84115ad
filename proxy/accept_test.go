package proxy

import (
	"strings"
	"testing"

	"weir/proxy/wire"
)

func TestWantsText(t *testing.T) {
	f := func(want bool, accept ...string) {
		t.Helper()
		text := "GET / HTTP/1.1\r\nHost: h\r\n"
		for _, a := range accept {
			text += "accept: " + a + "\r\n"
		}
		head := new(wire.Head)
		if n := wire.ScanRequest(head, []byte(text+"\r\n"), &wire.Settings{HeaderBytes: 64 << 10, HeaderCount: 100, URIBytes: 1 << 10}); n == 0 || head.Fault != wire.None {
			t.Fatalf("%q: %v", text, head.Fault)
		}
		if got := wantsText(head); got != want {
			t.Errorf("Accept %q: %v, want %v", accept, got, want)
		}
	}

	// Nothing said, or neither accepted.
	f(false)
	f(false, "")
	f(false, "text/html")
	f(false, ",;,")
	// Text alone.
	f(true, "text/plain")
	f(true, "text/*")
	f(true, "TEXT/Plain;charset=utf-8;q=0.1")
	f(true, "text/html, text/plain")
	f(true, "text/html", "image/png , text/plain")
	// Whatever a problem document is.
	f(false, "text/plain, */*")
	f(false, "*/*")
	f(false, "text/plain, application/*")
	f(false, "text/plain;q=0.5, application/json")
	f(false, "text/plain", "Application/Problem+JSON;q=0.001")
	// 0 is no.
	f(false, "text/plain;q=0")
	f(false, "text/plain; Q=0.000, text/html")
	f(true, "text/plain, application/json;q=0")
	f(true, "text/plain, */*;q=0")
	f(true, "text/plain, application/problem+json;q=0, */*")
	f(true, "*/*, application/problem+json;q=0, application/json")
	f(false, "text/*, text/plain;q=0")
	f(false, "text/plain, */*, application/json;q=0") // a problem document is no application/json
	// Of one range said twice the kinder counts, of two the more specific.
	f(true, "text/plain;q=0, text/plain")
	f(true, "application/*;q=0, */*, text/plain")
	// A weight that is none is 1.
	f(true, "text/plain;q=2")
	f(true, "text/plain;q=")
	f(true, "text/plain;q=0.0000")
	f(true, "text/plain;q=0x")
	f(true, "text/plain;q=1.1")
	// What stands in quotes separates nothing.
	f(true, `text/plain;x="a, */*";q=0.3`)
	f(true, `text/plain;x="\", */*"`)
	f(false, `image/png;x="a, text/plain"`)
	f(true, `image/png;q="0", text/plain`)
	f(true, `text/plain;x="`+strings.Repeat(",", 10))
}
