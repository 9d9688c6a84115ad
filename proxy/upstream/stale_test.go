package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"weir/proxy/wire"
)

// poster posts numbered bodies and sends again what is replayable. It returns the error of the first that failed for good.
func poster(b *Backend, from, to int, between func()) (failed, replayed int, last error) {
	for i := from; i < to; i++ {
		body := fmt.Sprintf("%05d", i)
		head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", len(body))
		for {
			c, err := b.Acquire(Call{Now: b.shared.clock()})
			if err != nil {
				return failed + 1, replayed, err
			}
			_, _, err = call(c, head+body, wire.Asked{})
			c.Release()
			if err == nil {
				between()
				break
			}
			var e *Error
			if !errors.As(err, &e) || !e.Replayable {
				failed, last = failed+1, err
				break
			}
			replayed++
		}
	}
	return failed, replayed, last
}

// counted answers n requests on each connection, then closes it and says so. It counts how often it saw each body.
func counted(seen *sync.Map, n int, closed func()) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		for range n {
			_, body, err := readRequest(r)
			if err != nil {
				return
			}
			count, _ := seen.LoadOrStore(body, new(atomic.Int64))
			count.(*atomic.Int64).Add(1)
			_, _ = io.WriteString(c, ok)
		}
		c.Close()
		closed()
	}
}

// TestStaleConnectionsNeverFailPOSTs posts to a backend that closes its connection without a word after every answer.
func TestStaleConnectionsNeverFailPOSTs(t *testing.T) {
	const posts, workers = 10_000, 2
	seen := new(sync.Map)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			closed := make(chan struct{})
			address := listen(t, counted(seen, 1, func() { closed <- struct{}{} }))
			b := build(t, nil, backendOf("a", address)).Backend(0)
			failed, _, err := poster(b, w*posts/workers, (w+1)*posts/workers, func() { <-closed })
			if failed != 0 {
				t.Errorf("%d POSTs failed: %v", failed, err)
			}
		})
	}
	wg.Wait()
	count := 0
	seen.Range(func(body, n any) bool {
		count++
		if got := n.(*atomic.Int64).Load(); got != 1 {
			t.Errorf("POST %s arrived %d times", body, got)
		}
		return true
	})
	if count != posts {
		t.Errorf("%d different POSTs arrived, want %d", count, posts)
	}
}

// TestCrossingCloses posts so fast that the backend's close and the request cross on the way. Nobody can know then whether
// a request that was cut off in the backend's kernel was read; but none may arrive twice, and those that met a closed
// socket are told apart and sent again.
func TestCrossingCloses(t *testing.T) {
	const posts, workers = 10_000, 4
	seen := new(sync.Map)
	b := build(t, nil, backendOf("a", listen(t, counted(seen, 2, func() {})))).Backend(0)
	var failed, replayed atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			f, r, err := poster(b, w*posts/workers, (w+1)*posts/workers, func() {})
			if f > 0 {
				wantCause(t, err, Reset)
			}
			failed.Add(int64(f))
			replayed.Add(int64(r))
		})
	}
	wg.Wait()
	count := 0
	seen.Range(func(body, n any) bool {
		count++
		if got := n.(*atomic.Int64).Load(); got != 1 {
			t.Errorf("POST %s arrived %d times", body, got)
		}
		return true
	})
	if count+int(failed.Load()) < posts || failed.Load() > posts/20 {
		t.Errorf("%d POSTs arrived and %d failed of %d", count, failed.Load(), posts)
	}
	t.Logf("%d sent again, %d failed", replayed.Load(), failed.Load())
}

func TestStaleConnectionsAreFoundAtCheckOut(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		f := func(name string, end func(c net.Conn)) {
			t.Helper()
			address := "127.0.0.1:0"
			if network == "unix" {
				address = unixPath(t)
			}
			released, closed := make(chan struct{}), make(chan struct{})
			b := build(t, nil, backendOf("a", listenOn(t, network, address, func(n int, c net.Conn, r *bufio.Reader) {
				_, _, _ = readRequest(r)
				_, _ = io.WriteString(c, ok)
				if n == 0 {
					<-released
					end(c)
					close(closed)
				}
				_, _ = io.Copy(io.Discard, r)
			}))).Backend(0)
			first := acquire(t, b)
			succeed(t, first)
			close(released)
			<-closed
			eventually(t, "the end arrives", func() bool { return !first.silent() })
			c := acquire(t, b)
			if c.Reused() {
				t.Errorf("%s, %s: a dead connection was handed out", network, name)
			}
			succeed(t, c)
			if n := b.stats.live.Load(); n != 1 {
				t.Errorf("%s, %s: %d live, want 1", network, name, n)
			}
		}
		f("closed", func(c net.Conn) { c.Close() })
		f("bytes that nobody asked for", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 408 Timeout\r\n\r\n") })
		if network == "tcp" {
			f("reset", func(c net.Conn) { reset(c); c.Close() })
		}
	}
}

// TestReplayable tells the ends of a connection apart by what the backend can have read.
func TestReplayable(t *testing.T) {
	f := func(name string, want bool, before, after func(c net.Conn, r *bufio.Reader)) {
		t.Helper()
		ready, sent, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
		address := listen(t, func(_ int, c net.Conn, r *bufio.Reader) {
			defer close(done)
			before(c, r)
			close(ready)
			<-sent
			after(c, r)
		})
		c := acquire(t, build(t, nil, backendOf("a", address)).Backend(0))
		<-ready
		_, err := c.Write([]byte(get))
		close(sent)
		if err == nil {
			_, err = c.ReadHead(wire.Asked{})
		}
		if e := wantCause(t, err, Reset); e.Replayable != want {
			t.Errorf("%s: replayable is %v, want %v (%v)", name, e.Replayable, want, err)
		}
		c.Release()
		<-done
	}
	nothing := func(net.Conn, *bufio.Reader) {}
	end := func(c net.Conn, _ *bufio.Reader) { c.Close() }
	f("closed before the request", true, end, nothing)
	f("closed after the request was read", false, nothing, func(c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		c.Close()
	})
	f("reset after the request was read", false, nothing, func(c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		reset(c)
		c.Close()
	})
	f("closed after the request came but was not read", false, nothing, func(c net.Conn, r *bufio.Reader) {
		_, _ = r.Peek(1)
		c.Close()
	})
}
