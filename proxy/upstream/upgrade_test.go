package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"weir/policy"
	"weir/proxy/wire"
)

const agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

// upgradedTo asks for an upgrade with a deadline and leaves the sweep to the test.
func upgradedTo(t *testing.T, deadline time.Duration, script func(c net.Conn, r *bufio.Reader)) (*Set, *Conn) {
	t.Helper()
	s := build(t, nil, backendOf("a", listen(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, _, err := readRequest(r); err == nil {
			_, _ = io.WriteString(c, agreed)
			script(c, r)
		}
	})))
	s.halt()
	now := s.shared.now.Load()
	c, err := s.Backend(0).Acquire(Call{Now: now, Deadline: now + int64(deadline)})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := c.Exchange([]byte(get), nil, wire.Asked{Upgrade: true}); err != nil || !h.Upgrade {
		t.Fatalf("got %+v %v, want 101", h, err)
	}
	return s, c
}

func echo(c net.Conn, r *bufio.Reader) {
	_, _ = io.Copy(c, r)
	_ = c.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, r)
}

func TestUpgradedHasADeadlineOfItsOwn(t *testing.T) {
	f := func(within, wait time.Duration, want Cause) {
		t.Helper()
		s, c := upgradedTo(t, 10*time.Second, echo)
		defer c.Release()
		now := s.shared.now.Load()
		if within != 0 {
			c.Upgraded(now + int64(within))
		} else {
			c.Upgraded(0)
		}
		s.sweep(now + int64(wait))
		_, err := c.Write([]byte("hello"))
		if want != NoCause {
			wantCause(t, err, want)
			return
		}
		p := make([]byte, 10)
		if n, err := c.ReadBody(p); string(p[:n]) != "hello" || err != nil {
			t.Errorf("got %q %v", p[:n], err)
		}
	}

	// The request's ends with the upgrade.
	f(0, time.Hour, NoCause)
	f(30*time.Second, 20*time.Second, NoCause)
	f(30*time.Second, 31*time.Second, RequestTimeout)
}

func TestCloseWriteEndsOneDirection(t *testing.T) {
	_, c := upgradedTo(t, time.Hour, echo)
	c.Upgraded(0)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	n, err := io.ReadFull(bodyReader{c}, got)
	if string(got[:n]) != "hello" || err != io.ErrUnexpectedEOF {
		t.Errorf("got %q %v, want what was sent before and the end", got[:n], err)
	}
	c.Release()
	if c.state.Load() != vacant {
		t.Error("an upgraded connection is kept")
	}
}

type bodyReader struct{ c *Conn }

func (r bodyReader) Read(p []byte) (int, error) { return r.c.ReadBody(p) }

// TestCloseWriteOfWhatHasOneEnd: where there is no half, the whole ends.
func TestCloseWriteOfWhatHasOneEnd(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		r := bufio.NewReader(theirs)
		if _, _, err := readRequest(r); err == nil {
			_, _ = io.WriteString(theirs, agreed)
			_, _ = io.Copy(io.Discard, r)
		}
	}()
	s, err := Build(nil, []policy.Backend{backendOf("a", "127.0.0.1:1")}, Options{
		Clock: clock(), Logger: zerolog.Nop(),
		Dialer: func(context.Context, string, string) (net.Conn, error) { return ours, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Adopt(nil)
	defer s.Close()
	c := acquire(t, s.Backend(0))
	if _, err := c.Exchange([]byte(get), nil, wire.Asked{Upgrade: true}); err != nil {
		t.Fatal(err)
	}
	c.Upgraded(0)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_, err = c.ReadBody(make([]byte, 1))
	wantCause(t, err, Canceled)
	c.Release()
}

func TestAbortIsAReset(t *testing.T) {
	seen := make(chan error, 1)
	_, c := upgradedTo(t, time.Hour, func(_ net.Conn, r *bufio.Reader) {
		_, err := r.ReadByte()
		seen <- err
	})
	c.Upgraded(0)
	c.Abort()
	_, err := c.Write([]byte(strings.Repeat("x", 10)))
	wantCause(t, err, Canceled)
	c.Release()
	if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the backend saw %v, want a reset", err)
	}
}
