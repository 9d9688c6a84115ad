package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestBoundsOfRequests(t *testing.T) {
	s := newService(t, hello)
	p := launch(t, documentsFor(s.address(),
		"bounds: {headerBytes: 1KiB, headerCount: 5, uriBytes: 64B, bodyBytes: 10, bodyRate: 0}"))
	f := func(request string, status int, cause string) {
		t.Helper()
		c := p.dial()
		io.WriteString(c, request) // an endless one is not taken to its end
		resp, _ := c.gets(status)
		if refused := cause != ""; resp.Close != refused {
			t.Errorf("%.40q: Connection: close is %v, want %v", request, resp.Close, refused)
		}
		if cause == "" {
			return
		}
		if rest := c.isClosed(); rest != "" {
			t.Errorf("%.40q: got %q after the refusal", request, rest)
		}
		p.logged(1, "cause", cause, "status", fmt.Sprint(status))
	}
	const head = " HTTP/1.1\r\nHost: weir\r\n"
	// At each bound, and one beyond it.
	f("GET /"+strings.Repeat("a", 63)+head+"\r\n", 200, "")
	f("GET /"+strings.Repeat("a", 64)+head+"\r\n", 414, "target_too_long")
	f("GET /"+head+strings.Repeat("A: b\r\n", 4)+"\r\n", 200, "")
	f("GET /"+head+strings.Repeat("A: b\r\n", 5)+"\r\n", 431, "too_many_fields")
	fill := 1024 - len("GET /"+head+"A: \r\n\r\n")
	f("GET /"+head+"A: "+strings.Repeat("b", fill)+"\r\n\r\n", 200, "")
	f("GET /"+head+"A: "+strings.Repeat("b", fill+1)+"\r\n\r\n", 431, "header_too_large")
	f("POST /"+head+"Content-Length: 10\r\n\r\n0123456789", 200, "")
	f("POST /"+head+"Content-Length: 11\r\n\r\n0123456789a", 413, "body_too_long")
	f("POST /"+head+"Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n", 200, "")
	f("POST /"+head+"Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n6\r\n56789a\r\n0\r\n\r\n", 413, "body_too_long")
	// Endless, in each place where one can go on for ever.
	f("GET /"+strings.Repeat("a", 1<<20), 414, "target_too_long")
	f("GET /"+head+"A: "+strings.Repeat("b", 1<<20), 431, "header_too_large")
	f("GET /"+head+strings.Repeat("A: b\r\n", 1<<18), 431, "too_many_fields")
	p.stops()
}

func TestConnectionsBeyondTheBoundWait(t *testing.T) {
	s := newService(t, hello)
	p := launch(t, documentsFor(s.address(), "bounds: {connections: 3}"))
	inside := make([]*client, 3)
	for i := range inside {
		inside[i] = p.dial()
		inside[i].send(plainGet)
		inside[i].gets(200)
	}
	outside := p.dial() // the kernel takes it
	outside.send(plainGet)
	if err := outside.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := outside.answer(); err == nil {
		t.Error("a connection beyond the bound was answered")
	}
	if got := p.metric("weir_client_connections"); got != 3 {
		t.Errorf("%v connections are open, want 3", got)
	}
	// Those inside are served all the same.
	inside[0].send(plainGet)
	inside[0].gets(200)
	// One that ends makes room.
	inside[1].Close()
	if err := outside.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	outside.gets(200)
	p.stops()
}

func TestConnectionsOfOneAddressAreBounded(t *testing.T) {
	s := newService(t, hello)
	p := launch(t, documentsFor(s.address(), "bounds: {connectionsPerIP: 3}"))
	inside := make([]*client, 3)
	for i := range inside {
		inside[i] = p.dial()
		inside[i].send(plainGet)
		inside[i].gets(200)
	}
	if got := p.dial().isClosed(); got != "" {
		t.Errorf("a connection beyond the bound was told %q", got)
	}
	// Another address has its own.
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	other, err := from.Dial("tcp", p.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(other, strings.Replace(plainGet, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
	if got, err := io.ReadAll(other); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 ") {
		t.Errorf("the other address got %q, %v", got, err)
	}
	// One that ends makes room.
	inside[0].Close()
	until(t, "there is room again", func() bool {
		c, err := net.Dial("tcp", p.listen)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, strings.Replace(plainGet, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
		got, _ := io.ReadAll(c)
		return strings.HasPrefix(string(got), "HTTP/1.1 200 ")
	})
	p.stops()
}

// A refusal must reach a client that is still sending: closing with unread bytes makes the kernel send a reset, which can
// overtake the answer.
func TestRefusalIsReadWhateverTheClientStillSends(t *testing.T) {
	s := newService(t, hello)
	p := launch(t, documentsFor(s.address(), `kind: TenantPolicy
metadata: {name: all}
spec: {tenants: {any: true}, limits: [{name: few, requests: 1, per: 1h}]}`))
	p.dial().send(plainGet)
	p.logged(1, "status", "200")

	const large = 4 << 20
	body := strings.Repeat("x", large)
	lengthHead := fmt.Sprintf("POST / HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: acme\r\nContent-Length: %d\r\n\r\n", large)
	chunkedHead := "POST / HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: acme\r\nTransfer-Encoding: chunked\r\n\r\n"
	refused := func(c *client) error {
		resp, body, err := c.answer()
		if err != nil {
			return err
		}
		if resp.StatusCode != 429 || !strings.Contains(body, "violated-policies") {
			return fmt.Errorf("got %d %q", resp.StatusCode, body)
		}
		if _, err = io.ReadAll(c.r); err != nil {
			return fmt.Errorf("after the answer: %w", err)
		}
		return nil
	}
	// A client that reads while it sends.
	reads := func(text string) func(*client) error {
		return func(c *client) error {
			var sending sync.WaitGroup
			sending.Go(func() { io.WriteString(c, text) })
			resp, body, err := c.answer()
			c.Close()
			sending.Wait()
			if err == nil && (resp.StatusCode != 429 || !strings.Contains(body, "violated-policies")) {
				err = fmt.Errorf("got %d %q", resp.StatusCode, body)
			}
			return err
		}
	}
	// A client that reads only once it has sent all, or cannot any more.
	sendsFirst := func(text string) func(*client) error {
		return func(c *client) error {
			io.WriteString(c, text)
			resp, body, err := c.answer()
			if err == nil && (resp.StatusCode != 429 || !strings.Contains(body, "violated-policies")) {
				err = fmt.Errorf("got %d %q", resp.StatusCode, body)
			}
			return err
		}
	}
	// A client that sends only a part, and waits: it sees the end of the connection after its answer, not a reset.
	sendsPart := func(text string) func(*client) error {
		return func(c *client) error { io.WriteString(c, text); return refused(c) }
	}
	kinds := []struct {
		what string
		do   func(*client) error
	}{
		{"a length, reading while sending", reads(lengthHead + body)},
		{"a length, reading after sending", sendsFirst(lengthHead + body)},
		{"a length, in part", sendsPart(lengthHead + body[:40<<10])},
		{"chunks, reading while sending", reads(chunkedHead + "400000\r\n" + body + "\r\n0\r\n\r\n")},
		{"chunks, in part", sendsPart(chunkedHead + "400000\r\n" + body[:40<<10])},
	}
	const tries, clients = 1000, 20
	var next, failed atomic.Int64
	var workers sync.WaitGroup
	for range clients {
		workers.Go(func() {
			for n := next.Add(1); n <= tries; n = next.Add(1) {
				kind := kinds[int(n)%len(kinds)]
				nc, err := net.Dial("tcp", p.listen)
				if err != nil {
					t.Error(err)
					return
				}
				nc.SetDeadline(time.Now().Add(patience))
				c := newClient(t, nc)
				if err := kind.do(c); err != nil && failed.Add(1) < 10 {
					t.Errorf("try %d, %s: %v", n, kind.what, err)
				}
				c.Close()
			}
		})
	}
	workers.Wait()
	t.Logf("%d of %d refusals were not read", failed.Load(), tries)

	// The standard library's client reads it, too.
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for range 50 {
		req, err := http.NewRequest(http.MethodPost, "http://"+p.listen+"/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Tenant-ID", "acme")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Errorf("net/http: %v", err)
			continue
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 429 {
			t.Errorf("net/http: got %d", resp.StatusCode)
		}
	}
	p.stops()
}
