package proxy

import (
	"io"
	"strings"
	"testing"
)

// exchangeOf returns a function that sends the request and reads an answer of n bytes, and allocates nothing itself.
func exchangeOf(t testing.TB, c *peer, request string, n int) func() {
	t.Helper()
	out, in := []byte(request), make([]byte, n)
	return func() {
		if _, err := c.Conn.Write(out); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.Conn, in); err != nil {
			t.Fatal(err)
		}
	}
}

// canned is a backend that answers each read of its socket and allocates nothing for it.
func canned(t testing.TB, answer string) *backend {
	return newBackend(t, func(c *peer) {
		out, in := []byte(answer), make([]byte, 64<<10)
		for {
			if _, err := c.Conn.Read(in); err != nil {
				return
			}
			if _, err := c.Conn.Write(out); err != nil {
				return
			}
		}
	})
}

// sizeOf is how many bytes an answer to that request has.
func sizeOf(t testing.TB, c *peer, request string) int {
	t.Helper()
	c.say(request)
	head, err := c.head()
	if err != nil {
		t.Fatal(err)
	}
	length := 0
	for _, digit := range field(head, "Content-Length") {
		length = length*10 + int(digit-'0')
	}
	if _, err := c.take(length); err != nil {
		t.Fatal(err)
	}
	return len(head) + length
}

// theirs is fasthttp's: the byte on the heap with which a server of ReduceMemoryUsage waits for the next request. Everything
// else, from one read of the client's socket to the next, allocates nothing.
const theirs = 1

const silent = "accessLog: {format: off}"

func TestAllocations(t *testing.T) {
	f := func(name, request, limits, log string) {
		t.Helper()
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024)
		s := serve(t, documents(canned(t, answer).addr, log, limited(limits)))
		s.access.SetOutput(io.Discard)
		c := s.dial()
		c.say(request)
		c.answer("GET") // the only one that oneAnHour allows
		exchange := exchangeOf(t, c, request, sizeOf(t, c, request))
		for range 2 * logRing { // the ring's lines have their memory then
			exchange()
		}
		if n := testing.AllocsPerRun(2000, exchange); n > theirs {
			t.Errorf("%s: %v allocations, %d of them fasthttp's", name, n, theirs)
		}
	}

	const most, none, one = "limits: [{name: l, requests: 1000000, per: 1s}]", "limits: [{name: l, requests: 0, per: 1s}]", oneAnHour
	const logged = "accessLog: {format: json}"
	f("allowed", get, most, silent)
	f("allowed with a body", post(5, "hello"), most, silent)
	f("allowed and logged", get, most, logged)
	f("blocked", get, none, silent)
	f("limited", get, one, silent)
	f("limited and logged", get, one, logged)
}
