package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"weir/policy"
	"weir/proxy/wire"
)

// heard is what one answer looks like from outside.
type heard struct {
	heads string // the statuses, interim ones included
	body  string // when it was read to its end
	cause Cause
}

// hear reads an answer that comes in pieces of this size.
func hear(t *testing.T, answer []byte, size int, asked wire.Asked) heard {
	var got heard
	sent := make(chan struct{})
	s, err := Build(nil, []policy.Backend{backendOf("a", "a:1")}, Options{
		Clock: clock(), Logger: zerolog.Nop(),
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer close(sent)
				defer theirs.Close()
				for p := answer; len(p) > 0; {
					n, err := theirs.Write(p[:min(size, len(p))])
					if err != nil {
						return
					}
					p = p[n:]
				}
			}()
			return ours, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := acquire(t, s.Backend(0))
	defer func() {
		c.Release()
		<-sent
	}()
	end := func(err error) heard {
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("error is %v, want an *Error", err)
		}
		if c.BodyDone() {
			t.Fatalf("the body is done in spite of %v", err)
		}
		got.cause, got.body = e.Cause, ""
		return got
	}
	for final := false; !final; {
		h, err := c.ReadHead(asked)
		if err != nil {
			return end(err)
		}
		final = !h.Interim
		got.heads += string(rune(h.Status))
	}
	p, err := c.Buffered()
	if err != nil {
		return end(err)
	}
	got.body = string(p)
	piece := make([]byte, 7)
	for {
		n, err := c.ReadBody(piece)
		got.body += string(piece[:n])
		if err == io.EOF {
			if n != 0 || !c.BodyDone() {
				t.Fatalf("io.EOF with %d bytes, body done is %v", n, c.BodyDone())
			}
			return got
		}
		if err != nil {
			return end(err)
		}
	}
}

// FuzzAnswer reads whatever a backend may send: without a panic, and alike however the bytes arrive.
func FuzzAnswer(f *testing.F) {
	for _, answer := range []string{
		ok,
		"HTTP/1.1 204 No Content\r\n\r\nextra",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;a=\"b\"\r\nyes\r\n0\r\nX: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"HTTP/1.0 200 OK\r\n\r\nuntil the end",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nframes",
		strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 20),
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 9000) + "\r\n\r\n",
	} {
		f.Add([]byte(answer), uint16(1), false, false)
		f.Add([]byte(answer), uint16(10), true, true)
	}
	f.Fuzz(func(t *testing.T, answer []byte, size uint16, head, upgrade bool) {
		asked := wire.Asked{Head: head, Upgrade: upgrade}
		whole := hear(t, answer, 1<<20, asked)
		pieces := hear(t, answer, int(size)+1, asked)
		if whole != pieces {
			t.Errorf("whole: %+v\nin pieces of %d: %+v", whole, int(size)+1, pieces)
		}
	})
}
