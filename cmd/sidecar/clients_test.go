package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// soon is how fast a client's leaving must reach the backend.
const soon = time.Second

func TestClientThatLeavesFreesItsBackend(t *testing.T) {
	arrived := make(chan struct{}, 1)
	released := make(chan time.Time, 1)
	// The first bytes of the answer are what the path asks for; then the service waits until it is left.
	s := newService(t, func(c net.Conn, r *bufio.Reader) {
		line, err := r.ReadString('\n')
		if err != nil || readHead(r) != nil {
			return
		}
		if strings.HasPrefix(line, "GET /head") {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		}
		if strings.HasPrefix(line, "GET /counted") {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
		}
		arrived <- struct{}{}
		io.Copy(io.Discard, r)
		released <- time.Now()
	})
	p := launch(t, documentsFor(s.address()))
	n := 0
	f := func(request string, sees string, leave func(*client)) {
		t.Helper()
		c := p.dial()
		c.send(request)
		<-arrived
		if sees != "" {
			for line := ""; !strings.Contains(line, sees); {
				var err error
				if line, err = c.r.ReadString('\n'); err != nil && !strings.Contains(line, sees) {
					t.Fatal(err)
				}
			}
		}
		left := time.Now()
		leave(c)
		select {
		case at := <-released:
			took := at.Sub(left)
			t.Logf("%.20q: the backend was free after %v", request, took.Round(time.Millisecond))
			if took > soon {
				t.Errorf("%.20q: the backend was free only after %v, want %v", request, took, soon)
			}
		case <-time.After(patience):
			t.Fatalf("%.20q: the backend still works for a client that left", request)
		}
		n++
		p.logged(n, "reason", "client_gone")
	}
	closes := func(c *client) { c.Close() }
	resets := func(c *client) { c.SetLinger(0); c.Close() }
	halfCloses := func(c *client) { c.CloseWrite() }
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: weir\r\n\r\n" }
	// Before the head: by FIN, by reset, and by ending the sending side, which is taken for leaving.
	f(get("/"), "", closes)
	f(get("/"), "", resets)
	f(get("/"), "", halfCloses)
	// With a pipelined request, or a part of one, waiting behind it.
	f(get("/")+get("/next"), "", closes)
	f(get("/")+"GET /ha", "", closes)
	f(get("/")+strings.Repeat(get("/next"), 2000), "", closes)
	// With a body that was sent whole.
	f("POST / HTTP/1.1\r\nHost: weir\r\nContent-Length: 3\r\n\r\nabc", "", closes)
	// While a body is on its way.
	f("POST / HTTP/1.1\r\nHost: weir\r\nContent-Length: 300000\r\n\r\nabc", "", closes)
	// In the middle of the answer, while the backend is silent.
	f(get("/head"), "5\r\n", closes)
	f(get("/head"), "5\r\n", resets)
	f(get("/head")+get("/next"), "5\r\n", closes)
	f(get("/counted"), "\r\n", closes)

	if sum := p.metric("weir_upstream_connections", `state="active"`); sum != 0 {
		t.Errorf("%v connections to the backend are in use after the end", sum)
	}
	p.stops()
}

func TestSlowHeadIsEnded(t *testing.T) {
	s := newService(t, hello)
	p := launch(t, documentsFor(s.address(), "timeouts: {header: 300ms, idle: 400ms}"))
	f := func(first string, drip bool, want string) {
		t.Helper()
		c := p.dial()
		begun := time.Now()
		c.send(first)
		if drip {
			stop := c.drips("x", 20*time.Millisecond)
			defer stop()
		}
		got := c.isClosed()
		took := time.Since(begun)
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q: got %q, want %q", first, got, want)
		}
		if took < 300*time.Millisecond || took > 3*time.Second {
			t.Errorf("%q: it took %v to end", first, took)
		}
	}
	const refused = "HTTP/1.1 408 Request Timeout\r\n"
	// Stalled in the request line, in a field's name and before the last line end.
	f("GET / HT", false, refused)
	f("GET / HTTP/1.1\r\nHost: weir\r\nX-", false, refused)
	f("GET / HTTP/1.1\r\nHost: weir\r\n\r", false, refused)
	// Dripping.
	f("GET /", true, refused)
	f("GET / HTTP/1.1\r\nHost: weir\r\nX-A: ", true, refused)
	// Nothing of a request at all: closed without a word.
	f("", false, "")
	f("\r\n", false, "")

	for _, line := range p.logged(5) {
		if line["status"] != 408. || line["cause"] != "head_timeout" {
			t.Errorf("logged %v, want 408 and head_timeout", line)
		}
	}
	p.stops()
}

// drips sends a piece again and again until it is stopped or the connection ends.
func (c *client) drips(piece string, every time.Duration) (stop func()) {
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-tick.C:
			}
			if _, err := io.WriteString(c, piece); err != nil {
				return
			}
		}
	}()
	return func() { close(stopped); <-done }
}

func TestSlowBodyIsEnded(t *testing.T) {
	s := newService(t, hello)
	p := launch(t, documentsFor(s.address(), "timeouts: {body: 300ms}"))
	n := 0
	f := func(head, drip string) {
		t.Helper()
		c := p.dial()
		begun := time.Now()
		c.send("POST / HTTP/1.1\r\nHost: weir\r\n" + head)
		if drip != "" {
			stop := c.drips(drip, 50*time.Millisecond)
			defer stop()
		}
		resp, _ := c.gets(408)
		took := time.Since(begun)
		if took < 300*time.Millisecond || took > 5*time.Second {
			t.Errorf("%q: it took %v to end", head, took)
		}
		if !resp.Close {
			t.Errorf("%q: the answer does not say that the connection ends", head)
		}
		n++
		p.logged(n, "reason", "client_timeout", "cause", "body_timeout", "status", "408")
	}
	// Stalled before the first byte, in the middle, and within the size of a chunk.
	f("Content-Length: 10\r\n\r\n", "")
	f("Content-Length: 10\r\n\r\nabc", "")
	f("Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n1", "")
	// Dripping below bounds.bodyRate.
	f("Content-Length: 100000\r\n\r\n", "x")
	f("Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n")

	// The backend has done nothing wrong.
	if sum := p.metric("weir_requests_total", `reason="client_timeout"`, `code="4xx"`); sum != float64(n) {
		t.Errorf("counted %v requests that the client was too slow for, want %d", sum, n)
	}
	p.stops()
}

func TestSlowBodyIsTakenWithoutAMinimum(t *testing.T) {
	s := newService(t, hello)
	p := launch(t, documentsFor(s.address(), "timeouts: {body: 300ms}", `bounds: {bodyRate: "0"}`))
	c := p.dial()
	const pieces = 30
	c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: weir\r\nContent-Length: %d\r\n\r\n", pieces))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range pieces {
		<-tick.C
		c.send("x")
	}
	c.gets(200)
	p.stops()
}

// endless answers with a body that never ends, as fast as it is taken.
func endless(c net.Conn, r *bufio.Reader) {
	if readMessage(r) != nil {
		return
	}
	piece := make([]byte, 64<<10)
	_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
	for err == nil {
		_, err = c.Write(piece)
	}
}

func TestClientThatDoesNotReadIsCut(t *testing.T) {
	s := newService(t, endless)
	p := launch(t, documentsFor(s.address(), "timeouts: {send: 300ms}"))
	c := p.dial()
	c.send(plainGet)
	line := p.logged(1)[0]
	if line["reason"] != "client_gone" || line["cause"] != "send_timeout" || line["status"] != 499. {
		t.Errorf("logged %v, want client_gone by send_timeout and 499", line)
	}
	until(t, "the backend's connection is closed", func() bool { return p.metric("weir_upstream_connections") == 0 })
	p.stops()
}
