package wire

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// startServer runs a stock fasthttp server over a guard on loopback.
func startServer(t testing.TB, reduce bool, handler func(ctx *fasthttp.RequestCtx, c *Conn)) (*Guard, string) {
	t.Helper()
	start := time.Now()
	g := NewGuard(func() int64 { return int64(time.Since(start)) }, DefaultSettings())
	_, bench := t.(*testing.B)
	g.poison = !bench
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); g.Run(ctx) }()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fasthttp.Server{
		Handler:               func(ctx *fasthttp.RequestCtx) { handler(ctx, ctx.Conn().(*Conn)) },
		NoDefaultServerHeader: true, NoDefaultDate: true, NoDefaultContentType: true,
		ReduceMemoryUsage: reduce,
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(g.Listener(ln)) }()
	t.Cleanup(func() {
		g.CloseIdle()
		if err := s.Shutdown(); err != nil {
			t.Errorf("cannot shut down: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		cancel()
		<-ran
		waitUntil(t, "all connections are closed", func() bool { return g.Len() == 0 })
	})
	return g, ln.Addr().String()
}

// echo answers /raw and whatever is not /own as raw bytes, /own through the server above.
func echo(ctx *fasthttp.RequestCtx, c *Conn) {
	h := c.Head()
	if h.Fault != None {
		ctx.SetStatusCode(h.Fault.Status())
		ctx.SetConnectionClose()
		ctx.SetBodyString(h.Fault.String())
		return
	}
	var body []byte
	var buf [100]byte
	for {
		n, err := c.ReadBody(buf[:])
		body = append(body, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			ctx.SetStatusCode(err.(Cause).Status())
			ctx.SetConnectionClose()
			ctx.SetBodyString(err.Error())
			return
		}
	}
	text := fmt.Sprintf("%s %s %q", h.Method, h.Path, body)
	if !h.KeepAlive {
		c.CloseAfter()
	}
	if string(h.Path) == "/own" {
		if !h.KeepAlive {
			ctx.SetConnectionClose()
		}
		ctx.SetBodyString(text)
		return
	}
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Raw: 1\r\nContent-Length: %d\r\n\r\n", len(text))
	if err := c.Send([]byte(head), []byte(text)); err != nil {
		ctx.SetConnectionClose()
	}
}

func TestServer(t *testing.T) {
	for _, reduce := range []bool{false, true} {
		t.Run(fmt.Sprintf("reduce=%v", reduce), func(t *testing.T) {
			_, addr := startServer(t, reduce, echo)
			f := func(request string, want ...string) {
				t.Helper()
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				if _, err := io.WriteString(nc, request); err != nil {
					t.Fatal(err)
				}
				br := bufio.NewReader(nc)
				for _, w := range want {
					resp, err := http.ReadResponse(br, nil)
					if err != nil {
						t.Fatalf("no answer %q: %v", w, err)
					}
					b, err := io.ReadAll(resp.Body)
					if err != nil {
						t.Fatal(err)
					}
					got := fmt.Sprintf("%d %s raw=%s close=%v", resp.StatusCode, b, resp.Header.Get("X-Raw"), resp.Close)
					if got != w {
						t.Fatalf("got  %s\nwant %s", got, w)
					}
				}
			}
			// two pipelined keep-alive requests, answered raw
			f("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
				`200 GET /a "" raw=1 close=false`, `200 GET /b "" raw=1 close=false`)
			// raw, own, raw with a body of each framing between
			f("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /own HTTP/1.1\r\nHost: a\r\n\r\n"+
				"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\nGET /d HTTP/1.1\r\nHost: a\r\n\r\n",
				`200 POST /a "abc" raw=1 close=false`, `200 GET /own "" raw= close=false`,
				`200 POST /c "de" raw=1 close=false`, `200 GET /d "" raw=1 close=false`)
			// a fault is answered by the server above, and nothing after it is read
			f("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost : a\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n",
				`200 GET /a "" raw=1 close=false`, `400 space_before_colon raw= close=true`)
			// a bad chunk is found by the handler
			f("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", `400 bad_chunk raw= close=true`)
			// close is heeded, and what follows is ignored
			f("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
				`200 GET /a "" raw=1 close=false`)
		})
	}
}

// An answer given before the body was read reaches a client that goes on sending: no reset destroys it.
func TestServerLingers(t *testing.T) {
	_, addr := startServer(t, true, func(ctx *fasthttp.RequestCtx, c *Conn) {
		ctx.SetStatusCode(429)
		ctx.SetConnectionClose()
	})
	body := strings.Repeat("x", 40<<10)
	for range 50 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n"+body); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(nc)
		if err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 429 ")) {
			t.Fatalf("got %q, %v", got, err)
		}
		nc.Close()
	}
}
