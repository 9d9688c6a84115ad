package proxy

import (
	"io"
	"net"
	"net/http/httputil"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// heapGrowth runs f and returns by how much more memory the heap used at any time of it.
func heapGrowth(f func()) uint64 {
	runtime.GC()
	before := heapInuse()
	stop, done := make(chan struct{}), make(chan uint64)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		most := before
		for {
			select {
			case <-tick.C:
				most = max(most, heapInuse())
			case <-stop:
				done <- most
				return
			}
		}
	}()
	f()
	close(stop)
	return <-done - before
}

func heapInuse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// pour writes n bytes in large pieces, in chunks of them if so.
func pour(w io.Writer, n int, chunked bool) {
	const piece = 1 << 20
	buf := make([]byte, 0, piece+20)
	if chunked {
		buf = append(buf, "100000\r\n"...)
	}
	buf = buf[:len(buf)+piece]
	if chunked {
		buf = append(buf, "\r\n"...)
	}
	for range n / piece {
		if _, err := w.Write(buf); err != nil {
			return
		}
	}
	if chunked {
		_, _ = io.WriteString(w, lastChunk)
	}
}

// drink reads the n bytes of a body, in chunks if so, and says how many came.
func drink(p *peer, n int, chunked bool) int64 {
	var r io.Reader = io.LimitReader(p.r, int64(n))
	if chunked {
		r = httputil.NewChunkedReader(p.r)
	}
	got, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, 1<<20))
	if chunked {
		_, _ = p.take(len("\r\n")) // of the trailer section, which the reader leaves
	}
	return got
}

const maxGrowth = 8 << 20

func TestHugeUploadInConstantMemory(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		t.Run(framingName(chunked), func(t *testing.T) {
			b := newBackend(t, func(c *peer) {
				for {
					head, err := c.head()
					if err != nil {
						return
					}
					if n := number(t, field(head, "X-Size")); drink(c, n, chunked) == int64(n) {
						c.say(ok)
					}
				}
			})
			c := serve(t, documents(b.addr)).dial()
			upload := func(n int) {
				framing := "Content-Length: " + strconv.Itoa(n)
				if chunked {
					framing = "Transfer-Encoding: chunked"
				}
				c.say("POST / HTTP/1.1\r\nHost: h\r\nX-Size: " + strconv.Itoa(n) + "\r\n" + framing + "\r\n\r\n")
				pour(c, n, chunked)
				c.expect(200)
			}
			upload(16 << 20)
			if grown := heapGrowth(func() { upload(hugeBody) }); grown > maxGrowth {
				t.Errorf("the heap grew by %d KiB", grown>>10)
			}
		})
	}
}

func TestHugeDownloadInConstantMemory(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		t.Run(framingName(chunked), func(t *testing.T) {
			b := newBackend(t, func(c *peer) {
				for {
					head, err := c.head()
					if err != nil {
						return
					}
					size := field(head, "X-Size")
					framing := "Content-Length: " + size
					if chunked {
						framing = "Transfer-Encoding: chunked"
					}
					c.say("HTTP/1.1 200 OK\r\n" + framing + "\r\n\r\n")
					pour(c, number(t, size), chunked)
				}
			})
			c := serve(t, documents(b.addr)).dial()
			download := func(n int) {
				c.say("GET / HTTP/1.1\r\nHost: h\r\nX-Size: " + strconv.Itoa(n) + "\r\n\r\n")
				if _, err := c.head(); err != nil {
					t.Fatal(err)
				}
				if got := drink(c, n, chunked); got != int64(n) {
					t.Errorf("%d bytes, want %d", got, n)
				}
			}
			download(16 << 20)
			if grown := heapGrowth(func() { download(hugeBody) }); grown > maxGrowth {
				t.Errorf("the heap grew by %d KiB", grown>>10)
			}
		})
	}
}

func framingName(chunked bool) string {
	if chunked {
		return "chunked"
	}
	return "length"
}

// TestEachPieceIsPassedOnAtOnce: the backend says the next thing only when the client has heard the last one.
func TestEachPieceIsPassedOnAtOnce(t *testing.T) {
	f := func(head, first, second, end string, closes bool, want1, want2 string) {
		t.Helper()
		heard := make(chan struct{})
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			for _, text := range []string{head, first, second, end} {
				c.say(text)
				<-heard
			}
			if !closes {
				hold(c)
			}
		})
		s := serve(t, documents(b.addr))
		c := s.dial()
		c.say(get)
		if _, err := c.head(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{want1, want2} {
			heard <- struct{}{}
			if got, err := c.take(len(want)); got != want || err != nil {
				t.Fatalf("%q, %v; want %q", got, err, want)
			}
		}
		heard <- struct{}{}
		heard <- struct{}{}
		s.ends("passed", 200)
	}

	const event, chunk = "data: x\n\n", "9\r\ndata: x\n\n\r\n"
	f("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, chunk, lastChunk, false, chunk, chunk)
	f("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", event, event, "", true, chunk, chunk)
	f("HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n", event, event, ".", false, event, event)
}

// TestBothWaysAtOnce: the backend answers while it still reads, piece by piece.
func TestBothWaysAtOnce(t *testing.T) {
	b := newBackend(t, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			piece, err := c.take(len("1\r\nx\r\n"))
			if err != nil {
				return
			}
			c.say(piece)
		}
	})
	s := serve(t, documents(b.addr))
	c := s.dial()
	c.say("POST / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\nTransfer-Encoding: chunked\r\n\r\n")
	if head, err := c.head(); err != nil || !strings.Contains(head, "200 OK") {
		t.Fatalf("%q %v", head, err)
	}
	for i := range 100 {
		chunk := "1\r\n" + strconv.Itoa(i%10) + "\r\n"
		c.say(chunk)
		if got, err := c.take(len(chunk)); got != chunk || err != nil {
			t.Fatalf("%q, %v, want %q", got, err, chunk)
		}
	}
	_ = c.Close()
	s.logged(1)
}

// TestWhoeverDoesNotReadStopsTheOther: what is on its way is bounded by the buffers of the sockets and one of ours.
func TestWhoeverDoesNotReadStopsTheOther(t *testing.T) {
	const all, most = 1 << 30, 64 << 20
	stopped := func(w net.Conn) int { // how much could be written before nothing more was taken
		total, piece := 0, make([]byte, 64<<10)
		for total < all {
			_ = w.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := w.Write(piece)
			total += n
			if err != nil {
				break
			}
		}
		return total
	}
	t.Run("client", func(t *testing.T) {
		written := make(chan int, 1)
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			c.say("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(all) + "\r\n\r\n")
			written <- stopped(c.Conn)
		})
		c := serve(t, documents(b.addr)).dial()
		c.say(get)
		if n := within(t, "the backend is stopped", written); n > most {
			t.Errorf("the backend could write %d MiB", n>>20)
		}
		_ = c.Close()
	})
	t.Run("backend", func(t *testing.T) {
		release := make(chan struct{})
		b := newBackend(t, func(c *peer) {
			_, _ = c.head()
			<-release
		})
		c := serve(t, documents(b.addr)).dial()
		c.say(post(all, ""))
		if n := stopped(c.Conn); n > most {
			t.Errorf("the client could write %d MiB", n>>20)
		}
		_ = c.Close()
		close(release)
	})
}
