package upstream

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"weir/policy"
	"weir/proxy/wire"
)

// slow are the backends that stall in each phase.
var slowHead, slowBody, slowChunk = stall("HTTP/1.1 200 OK\r\n"), stall("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"),
	stall("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok")

func TestShortTimeoutsHaveTheirOwnCause(t *testing.T) {
	f := func(script func(int, net.Conn, *bufio.Reader), response, body, request time.Duration, want Cause) {
		t.Helper()
		settings := backendOf("a", listen(t, script))
		settings.ResponseTimeout, settings.BodyIdleTimeout = response, body
		b := build(t, nil, settings).Backend(0)
		var deadline int64
		start := b.shared.clock()
		if request != 0 {
			deadline = start + int64(request)
		}
		c, err := b.Acquire(Call{Now: start, Deadline: deadline})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = call(c, get, wire.Asked{})
		wantCause(t, err, want)
		if took := time.Duration(b.shared.clock() - start); took < min(response, body, cmpOr(request, time.Hour)) {
			t.Errorf("%v after %v, which is too early", want, took)
		}
		c.Release()
		if b.stats.live.Load() != 0 {
			t.Error("the connection is kept")
		}
	}
	const short, long = 20 * time.Millisecond, 30 * time.Second
	f(stall(""), short, long, 0, ResponseTimeout)
	f(slowHead, short, long, 0, ResponseTimeout)
	f(slowBody, long, short, 0, BodyIdle)
	f(slowChunk, long, short, 0, BodyIdle)
	f(stall(""), long, long, short, RequestTimeout)
	f(slowBody, long, long, short, RequestTimeout)
	f(stall(""), short, long, long, ResponseTimeout)
	f(slowBody, long, short, long, BodyIdle)
	f(stall(""), time.Millisecond, long, 0, ResponseTimeout)
}

func cmpOr(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// TestLongTimeoutsAreSwept leaves the sweep to the test: just before the time nothing happens, at the time the call ends.
func TestLongTimeoutsAreSwept(t *testing.T) {
	f := func(script func(int, net.Conn, *bufio.Reader), request time.Duration, want Cause, at time.Duration) {
		t.Helper()
		settings := backendOf("a", listen(t, script))
		settings.ResponseTimeout, settings.BodyIdleTimeout = 10*time.Second, 20*time.Second
		s := build(t, nil, settings)
		s.halt()
		b := s.Backend(0)
		start := b.shared.now.Load()
		var deadline int64
		if request != 0 {
			deadline = start + int64(request)
		}
		c, err := b.Acquire(Call{Now: start, Deadline: deadline})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _, err := call(c, get, wire.Asked{})
			wantCause(t, err, want)
		})
		eventually(t, "the call waits in its last phase", func() bool {
			due := c.readDue.Load()
			return due != 0 && Cause(due&(1<<causeBits-1)) == want
		})
		s.sweep(start + int64(at-time.Millisecond))
		if cause := Cause(c.canceled.Load()); cause != NoCause {
			t.Errorf("%v before its time", cause)
		}
		eventually(t, "the sweep finds it waiting", func() bool {
			s.sweep(start + int64(at+tick+time.Millisecond))
			return c.canceled.Load() != uint32(NoCause)
		})
		wg.Wait()
		c.Release()
	}
	f(stall(""), 0, ResponseTimeout, 10*time.Second)
	f(slowHead, 0, ResponseTimeout, 10*time.Second)
	f(slowBody, 0, BodyIdle, 20*time.Second)
	f(slowBody, 15*time.Second, RequestTimeout, 15*time.Second)
	f(stall(""), 5*time.Second, RequestTimeout, 5*time.Second)
}

// A sweep that comes late, since the process was stopped for a while, finds the waits that began meanwhile as young as they are.
func TestWaitsAfterALateSweep(t *testing.T) {
	settings := backendOf("a", listen(t, stall("")))
	settings.ResponseTimeout = 10 * time.Second
	s := build(t, nil, settings)
	s.halt()
	b := s.Backend(0)
	late := b.shared.now.Load() + int64(time.Hour)
	c, err := b.Acquire(Call{Now: late})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _, err := call(c, get, wire.Asked{})
		wantCause(t, err, ResponseTimeout)
	})
	eventually(t, "the call waits", func() bool { return c.readDue.Load() != 0 })
	s.sweep(late + int64(9*time.Second))
	if cause := Cause(c.canceled.Load()); cause != NoCause {
		t.Errorf("%v before its time", cause)
	}
	eventually(t, "the sweep finds it waiting", func() bool {
		s.sweep(late + int64(11*time.Second))
		return c.canceled.Load() != uint32(NoCause)
	})
	wg.Wait()
	c.Release()
}

// A request that is not waiting for the backend, but for its client, still ends at its deadline; the other timeouts rest.
func TestOnlyTheDeadlineRunsBetweenReads(t *testing.T) {
	s := build(t, nil, backendOf("a", listen(t, slowBody)))
	s.halt()
	b := s.Backend(0)
	start := b.shared.now.Load()
	c, err := b.Acquire(Call{Now: start, Deadline: start + int64(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if _, err := c.Exchange([]byte(get), nil, wire.Asked{}); err != nil {
		t.Fatal(err)
	}
	s.sweep(start + int64(time.Hour-time.Microsecond))
	if p, err := c.Buffered(); string(p) != "ok" || err != nil {
		t.Fatalf("got %q %v", p, err)
	}
	if cause := Cause(c.canceled.Load()); cause != NoCause {
		t.Fatalf("%v while nobody waited", cause)
	}
	s.sweep(start + int64(time.Hour+time.Microsecond))
	_, err = c.ReadBody(make([]byte, 10))
	wantCause(t, err, RequestTimeout)
}

func TestUploadThatIsNotTaken(t *testing.T) {
	settings := backendOf("a", listen(t, func(int, net.Conn, *bufio.Reader) { <-t.Context().Done() }))
	settings.ResponseTimeout = 50 * time.Millisecond
	b := build(t, nil, settings).Backend(0)
	c := acquire(t, b)
	defer c.Release()
	piece := bytes.Repeat([]byte("x"), 1<<20)
	var err error
	total := 0
	for n := 0; err == nil; {
		n, err = c.Write2([]byte("head"), piece)
		total += n
	}
	wantCause(t, err, ResponseTimeout)
	if got := c.Sent(); got != int64(total) {
		t.Errorf("Sent is %d after %d bytes", got, total)
	}
}

// The answer is not due while the request is under way, however early it is waited for; then it has its whole time.
func TestResponseTimeoutBeginsWithTheRequestsEnd(t *testing.T) {
	f := func(response time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			settings := backendOf("a", "a:1")
			settings.ResponseTimeout = response
			s := piped(t, settings, func(c net.Conn, r *bufio.Reader) { _, _ = io.ReadFull(r, make([]byte, 3)) })
			defer s.Close()
			c := acquire(t, s.Backend(0))
			start := s.shared.clock()
			failed := make(chan error)
			go func() {
				_, err := c.ReadHead(wire.Asked{})
				failed <- err
			}()
			for range 2 {
				<-time.After(time.Minute)
				if _, err := c.Write([]byte("x")); err != nil {
					t.Error(err)
				}
			}
			c.FinishRequest()
			wantCause(t, <-failed, ResponseTimeout)
			took, want := time.Duration(s.shared.clock()-start), 2*time.Minute+response
			if took < want || took > want+2*tick {
				t.Errorf("ended after %v, want %v and up to two ticks", took, want)
			}
			c.Release()
		})
	}
	f(30 * time.Second)
	f(500 * time.Millisecond)
}

// An answer that comes before the upload is finished is read, though the upload failed.
func TestEarlyAnswer(t *testing.T) {
	early := "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
	b := build(t, nil, backendOf("a", listen(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(c, early)
	}))).Backend(0)
	c := acquire(t, b)
	piece := bytes.Repeat([]byte("x"), 256<<10)
	var err error
	for err == nil {
		_, err = c.Write2([]byte("POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n"), piece)
	}
	if e := wantCause(t, err, Reset); e.Replayable {
		t.Error("replayable after bytes were written")
	}
	if !c.Answered() {
		t.Error("Answered is false")
	}
	h, err := c.ReadHead(wire.Asked{})
	if err != nil || h.Status != 413 {
		t.Fatalf("got %v %v, want 413", h, err)
	}
	if p, err := c.Buffered(); string(p) != "no" || err != nil || !c.BodyDone() {
		t.Errorf("body is %q %v", p, err)
	}
	c.Release()
	if b.stats.ended[3].Load() != 1 || b.stats.live.Load() != 0 {
		t.Error("not counted as 4xx, or kept")
	}
}

// A request larger than the kernel takes at once goes out in pieces, before the answer is awaited.
func TestExchangeOfLargeRequests(t *testing.T) {
	f := func(size int) {
		t.Helper()
		got := make(chan int64, 1)
		address := listen(t, func(_ int, c net.Conn, r *bufio.Reader) {
			n, _ := io.CopyN(io.Discard, r, int64(size+4))
			got <- n
			_, _ = io.WriteString(c, ok)
			_, _ = io.Copy(io.Discard, r)
		})
		c := acquire(t, build(t, nil, backendOf("a", address)).Backend(0))
		_ = c.nc.(*net.TCPConn).SetWriteBuffer(4 << 10)
		h, err := c.Exchange([]byte("head"), bytes.Repeat([]byte("x"), size), wire.Asked{})
		if err != nil || h.Status != 200 || <-got != int64(size+4) || c.Sent() != int64(size+4) {
			t.Errorf("%d bytes: got %v %v, sent %d", size, h, err, c.Sent())
		}
		c.Release()
	}
	f(brief - 4)
	f(brief)
	f(1 << 20)
}

func TestCancel(t *testing.T) {
	f := func(name string, script func(int, net.Conn, *bufio.Reader), use func(c *Conn) error) {
		t.Helper()
		b := build(t, nil, backendOf("a", listen(t, script))).Backend(0)
		c := acquire(t, b)
		id := c.Use()
		var wg sync.WaitGroup
		wg.Go(func() {
			eventually(t, name, func() bool { return c.readDue.Load() != 0 || c.writeDue.Load() != 0 })
			c.Cancel(id)
		})
		wantCause(t, use(c), Canceled)
		wg.Wait()
		_, err := c.Write([]byte("x"))
		wantCause(t, err, Canceled)
		c.Release()
		if b.stats.live.Load() != 0 {
			t.Errorf("%s: the connection is kept", name)
		}
	}
	read := func(c *Conn) error {
		_, _, err := call(c, get, wire.Asked{})
		return err
	}
	f("waits for the head", stall(""), read)
	f("waits for the body", slowBody, read)
	f("writes", func(_ int, _ net.Conn, _ *bufio.Reader) { <-t.Context().Done() }, func(c *Conn) error {
		piece := make([]byte, 1<<20)
		for {
			if _, err := c.Write(piece); err != nil {
				return err
			}
		}
	})
}

func TestConnectTimeout(t *testing.T) {
	f := func(connect, request time.Duration, want Cause, after time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			settings := backendOf("a", "a:1", "a:2")
			settings.ConnectTimeout = connect
			s, err := Build(nil, []policy.Backend{settings}, Options{
				Clock: clock(), Logger: zerolog.Nop(),
				Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			b := s.Backend(0)
			start := b.shared.clock()
			var deadline int64
			if request != 0 {
				deadline = start + int64(request)
			}
			_, err = b.Acquire(Call{Now: start, Deadline: deadline})
			wantCause(t, err, want)
			if took := time.Duration(b.shared.clock() - start); took != after {
				t.Errorf("%v after %v, want %v", want, took, after)
			}
			if live := b.stats.live.Load(); live != 0 {
				t.Errorf("%d live", live)
			}
		})
	}
	f(time.Second, 0, ConnectTimeout, 2*time.Second) // one try at each endpoint
	f(time.Second, 500*time.Millisecond, RequestTimeout, 500*time.Millisecond)
	f(time.Second, 1500*time.Millisecond, RequestTimeout, 1500*time.Millisecond)
}

// piped is a set in a bubble whose connections are net.Pipes served by script.
func piped(t *testing.T, settings policy.Backend, script func(c net.Conn, r *bufio.Reader)) *Set {
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	s, err := Build(nil, []policy.Backend{settings}, Options{
		Clock: clock(), Logger: zerolog.Nop(),
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			wg.Go(func() {
				defer theirs.Close()
				script(theirs, bufio.NewReader(theirs))
			})
			return ours, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Adopt(nil)
	return s
}

// A head that comes byte by byte has one timeout as a whole; a body has one for each pause.
func TestTricklingAnswers(t *testing.T) {
	trickle := func(c net.Conn, p string, pause time.Duration) {
		for i := range p {
			if _, err := c.Write([]byte{p[i]}); err != nil {
				return
			}
			<-time.After(pause)
		}
	}
	f := func(response time.Duration, script func(c net.Conn, r *bufio.Reader), want Cause, after time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			settings := backendOf("a", "a:1")
			settings.ResponseTimeout = response
			s := piped(t, settings, script)
			defer s.Close()
			c := acquire(t, s.Backend(0))
			start := s.shared.clock()
			_, _, err := call(c, get, wire.Asked{})
			if want != NoCause {
				wantCause(t, err, want)
			} else if err != nil {
				t.Error(err)
			}
			if took := time.Duration(s.shared.clock() - start); took < after || took > after+2*tick {
				t.Errorf("%v after %v, want %v and up to two ticks", want, took, after)
			}
			c.Release()
		})
	}
	slow := func(c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		trickle(c, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1000), time.Second)
	}
	f(30*time.Second, slow, ResponseTimeout, 30*time.Second)
	f(900*time.Millisecond, slow, ResponseTimeout, 900*time.Millisecond)
	f(30*time.Second, func(c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
		trickle(c, "0123456789", 29*time.Second)
	}, NoCause, 9*29*time.Second)
}

// Connections that are no kernel sockets work alike: reuse, liveness, idle timeout.
func TestOtherConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := piped(t, backendOf("a", "a:1"), func(c net.Conn, r *bufio.Reader) {
			for range 2 {
				if _, _, err := readRequest(r); err != nil {
					return
				}
				_, _ = io.WriteString(c, ok)
			}
		})
		defer s.Close()
		b := s.Backend(0)
		for i := range 4 {
			c := acquire(t, b)
			if c.Reused() != (i%2 == 1) {
				t.Errorf("request %d: reused is %v", i, c.Reused())
			}
			succeed(t, c)
			synctest.Wait() // the backend closed, if it did
		}
		succeed(t, acquire(t, b))
		<-time.After(29 * time.Second)
		if n := b.stats.idle.Load(); n != 1 {
			t.Errorf("%d idle before the timeout, want 1", n)
		}
		<-time.After(2 * time.Second)
		if n := b.stats.live.Load(); n != 0 {
			t.Errorf("%d live after the idle timeout", n)
		}
	})
}
