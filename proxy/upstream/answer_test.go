package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"weir/proxy/wire"
)

func TestAnswerIsRead(t *testing.T) {
	f := func(answer string, asked wire.Asked, status int, body string, reused bool) {
		t.Helper()
		// Whole, and byte by byte.
		for _, serve := range []func(int, net.Conn, *bufio.Reader){once(answer), func(_ int, c net.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			for i := range answer {
				_, _ = c.Write([]byte{answer[i]})
			}
			_, _ = io.Copy(io.Discard, r)
		}} {
			if !reused && strings.Contains(answer, "until close") {
				serve = once(answer)
			}
			b := build(t, nil, backendOf("a", listen(t, serve))).Backend(0)
			c := acquire(t, b)
			gotStatus, gotBody, err := call(c, get, asked)
			if err != nil || gotStatus != status || gotBody != body {
				t.Errorf("%q: got %d %q %v, want %d %q", answer, gotStatus, gotBody, err, status, body)
			}
			if !c.BodyDone() {
				t.Errorf("%q: the body is not done", answer)
			}
			c.Release()
			if idle := b.stats.idle.Load() == 1; idle != reused {
				t.Errorf("%q: kept for reuse is %v, want %v", answer, idle, reused)
			}
		}
	}
	plain := wire.Asked{}
	f(ok, plain, 200, "ok", true)
	// No body, by length, by status, by method.
	f("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", plain, 200, "", true)
	f("HTTP/1.1 204 No Content\r\n\r\n", plain, 204, "", true)
	f("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", plain, 304, "", true)
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", wire.Asked{Head: true}, 200, "", true)
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", wire.Asked{Head: true}, 200, "", true)
	// Chunks, with extensions and trailers, which are dropped.
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\n\r\n", plain, 200, "hello", true)
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n", plain, 200, "ok", true)
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", plain, 200, "", true)
	// The end of the connection is the end of the body.
	f("HTTP/1.1 200 OK\r\n\r\nuntil close", plain, 200, "until close", false)
	f("HTTP/1.0 200 OK\r\n\r\nuntil close", plain, 200, "until close", false)
	// Connections that must not be used again.
	f("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", plain, 200, "ok", false)
	f("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", plain, 200, "ok", false)
	f("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", plain, 200, "ok", true)
	// Interim answers come before the final one.
	f("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+ok, plain, 200, "ok", true)
	f(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", maxInterim)+ok, plain, 200, "ok", true)
	// A head that outgrows the first buffer, with a body behind it.
	f("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 20<<10)+"\r\nContent-Length: 2\r\n\r\nok", plain, 200, "ok", true)
}

func TestExtraBytesEndTheConnection(t *testing.T) {
	f := func(answer string, status int, body string) {
		t.Helper()
		b := build(t, nil, backendOf("a", listen(t, always(answer)))).Backend(0)
		for range 2 {
			c := acquire(t, b)
			if c.Reused() {
				t.Errorf("%q: the connection was used again", answer)
			}
			if gotStatus, got, err := call(c, get, wire.Asked{}); gotStatus != status || got != body || err != nil {
				t.Errorf("%q: got %d %q %v, want %d %q", answer, gotStatus, got, err, status, body)
			}
			if n, err := c.ReadBody(make([]byte, 10)); n != 0 || err != io.EOF {
				t.Errorf("%q: read %d bytes after the end: %v", answer, n, err)
			}
			c.Release()
			if n := b.stats.idle.Load(); n != 0 {
				t.Errorf("%q: the connection is kept", answer)
			}
		}
	}
	evil := "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	f(ok+evil, 200, "ok")
	f("HTTP/1.1 204 No Content\r\n\r\n"+evil, 204, "")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"+evil, 200, "ok")
}

func TestBrokenAnswers(t *testing.T) {
	f := func(script func(int, net.Conn, *bufio.Reader), want Cause) {
		t.Helper()
		b := build(t, nil, backendOf("a", listen(t, script))).Backend(0)
		c := acquire(t, b)
		_, _, err := call(c, get, wire.Asked{})
		if e := wantCause(t, err, want); e.Replayable {
			t.Errorf("%v: replayable", err)
		}
		c.Release()
		if b.stats.live.Load() != 0 {
			t.Errorf("%v: the connection is kept", err)
		}
		if n := b.stats.ended[classCount+int(want)].Load(); n != 1 {
			t.Errorf("%v: counted %d times", err, n)
		}
	}
	// Cut in the head and in the body.
	f(once("HTTP/1.1 200 OK\r\nContent-Le"), Truncated)
	f(once("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Truncated)
	f(once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), Truncated)
	f(once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), Truncated)
	f(once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"), Truncated)
	// No answer at all to a request that was read.
	f(once(""), Reset)
	// Reset while the body is under way, and in place of an answer.
	f(func(_ int, c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		reset(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
	}, Reset)
	f(func(_ int, c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		reset(c)
	}, Reset)
	// Against the rules of HTTP.
	f(once("hello\r\n\r\n"), Protocol)
	f(once("HTTP/2 200 OK\r\n\r\n"), Protocol)
	f(once("HTTP/1.1 099 X\r\n\r\n"), Protocol)
	f(once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"), Protocol)
	f(once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"), Protocol)
	f(once("HTTP/1.1 200 OK\r\nX-A: b\rSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok"), Protocol)
	f(once("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), Protocol)
	// Beyond our bounds: interim answers by count and by size, a head without end.
	f(once(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", maxInterim+1)+ok), Protocol)
	f(once(strings.Repeat("HTTP/1.1 103 Hints\r\nX: "+strings.Repeat("x", 7<<10)+"\r\n\r\n", 10)+ok), Protocol)
	f(func(_ int, c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for err := error(nil); err == nil; {
			_, err = io.WriteString(c, "X: "+strings.Repeat("x", 1000)+"\r\n")
		}
	}, Protocol)
}

func TestLargeBodies(t *testing.T) {
	const size = 8 << 20
	piece := strings.Repeat("0123456789abcdef", 4<<10)
	f := func(head, before, after, end string) {
		t.Helper()
		address := listen(t, func(_ int, c net.Conn, r *bufio.Reader) {
			for {
				if _, _, err := readRequest(r); err != nil {
					return
				}
				_, _ = io.WriteString(c, head)
				for range size / len(piece) {
					_, _ = io.WriteString(c, before+piece+after)
				}
				_, _ = io.WriteString(c, end)
			}
		})
		b := build(t, nil, backendOf("a", address)).Backend(0)
		for round := range 2 {
			c := acquire(t, b)
			if c.Reused() != (round == 1) {
				t.Errorf("round %d: reused is %v", round, c.Reused())
			}
			_, body, err := call(c, get, wire.Asked{})
			if err != nil || len(body) != size || body != strings.Repeat(piece, size/len(piece)) {
				t.Errorf("%d bytes, %v; want %d as sent", len(body), err, size)
			}
			c.Release()
		}
	}
	f(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size), "", "", "")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "10000\r\n", "\r\n", "0\r\n\r\n")
}

func TestEveryInterimHeadIsReturned(t *testing.T) {
	answer := "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok
	c := acquire(t, build(t, nil, backendOf("a", listen(t, once(answer)))).Backend(0))
	defer c.Release()
	h, err := c.Exchange([]byte(get), nil, wire.Asked{})
	if err != nil || h.Status != 103 || !h.Interim {
		t.Fatalf("got %v %v, want 103", h, err)
	}
	if link, n := h.Lookup("link"); string(link) != "</a>" || n != 1 {
		t.Errorf("Link is %q (%d)", link, n)
	}
	if c.BodyDone() {
		t.Error("the body is done before the final head")
	}
	for _, want := range []int{102, 200} {
		if h, err = c.ReadHead(wire.Asked{}); err != nil || h.Status != want {
			t.Fatalf("got %v %v, want %d", h, err, want)
		}
	}
	if _, n := h.Lookup("link"); n != 0 {
		t.Error("a field of an interim head is in the final one")
	}
}

func TestUpgrade(t *testing.T) {
	address := listen(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello ")
		line, _ := r.ReadString('\n')
		_, _ = io.WriteString(c, line)
	})
	b := build(t, nil, backendOf("a", address)).Backend(0)
	c := acquire(t, b)
	h, err := c.Exchange([]byte(get), nil, wire.Asked{Upgrade: true})
	c.FinishRequest()
	if err != nil || !h.Upgrade {
		t.Fatalf("got %+v %v, want 101", h, err)
	}
	if _, err := c.Write([]byte("weir\n")); err != nil {
		t.Fatal(err)
	}
	p, err := c.Buffered()
	got := string(p)
	for err == nil {
		p := make([]byte, 100)
		var n int
		n, err = c.ReadBody(p)
		got += string(p[:n])
	}
	if got != "hello weir\n" || err != io.EOF {
		t.Errorf("got %q %v", got, err)
	}
	c.Release()
	if b.stats.live.Load() != 0 {
		t.Error("an upgraded connection is kept")
	}
	if n := b.stats.ended[0].Load(); n != 1 {
		t.Errorf("counted as 1xx %d times", n)
	}
}

// A backend that echoes while it reads needs both directions at once.
func TestBothDirectionsAtOnce(t *testing.T) {
	const pieces = 64
	piece := strings.Repeat("x", 64<<10)
	address := listen(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			head, err := r.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = r.ReadString('\n')
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n", strings.TrimSpace(head))
			_, _ = io.CopyN(c, r, pieces*int64(len(piece)))
		}
	})
	b := build(t, nil, backendOf("a", address)).Backend(0)
	for round := range 2 {
		c := acquire(t, b)
		if c.Reused() != (round == 1) {
			t.Errorf("round %d: reused is %v", round, c.Reused())
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, err := fmt.Fprintf(c, "%d\r\n\r\n", pieces*len(piece))
			for i := 0; i < pieces && err == nil; i++ {
				_, err = c.Write([]byte(piece))
			}
			if err != nil {
				t.Error(err)
			}
		}()
		if _, err := c.ReadHead(wire.Asked{}); err != nil {
			t.Fatal(err)
		}
		total := 0
		p, err := c.Buffered()
		for total = len(p); err == nil; {
			n := 0
			p := make([]byte, 10_000)
			n, err = c.ReadBody(p)
			total += n
		}
		if err != io.EOF || total != pieces*len(piece) {
			t.Errorf("%d bytes, %v; want %d", total, err, pieces*len(piece))
		}
		<-sent
		c.FinishRequest()
		c.Release()
	}
}
