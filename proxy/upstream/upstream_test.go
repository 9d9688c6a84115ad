package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"weir/policy"
	"weir/proxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock returns a monotonic clock that begins well above 0.
func clock() func() int64 {
	start := time.Now().Add(-time.Hour)
	return func() int64 { return int64(time.Since(start)) }
}

// backendOf is a backend with the defaults of the reference at these addresses, each of weight 1.
func backendOf(name string, addresses ...string) policy.Backend {
	b := policy.Backend{
		Name: name, MaxConnections: 1000, MaxIdle: 1000, IdleTimeout: 30 * time.Second,
		ConnectTimeout: 10 * time.Second, ResponseTimeout: 30 * time.Second, BodyIdleTimeout: 30 * time.Second,
	}
	for _, a := range addresses {
		network := "tcp"
		if strings.HasPrefix(a, "/") {
			network = "unix"
		}
		b.Endpoints = append(b.Endpoints, policy.EndpointSettings{Network: network, Address: a, Weight: 1})
	}
	return b
}

// build makes a set on prev, adopts it and closes it with the test.
func build(t testing.TB, prev *Set, backends ...policy.Backend) *Set {
	t.Helper()
	s, err := Build(prev, backends, Options{Clock: clock(), Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	s.Adopt(prev)
	t.Cleanup(s.Close)
	return s
}

// listener accepts connections on loopback, one goroutine each, and ends with the test.
type listener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

// listen serves every connection with script; n counts them from 0. The connection closes when script returns.
func listen(t testing.TB, script func(n int, c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	return listenOn(t, "tcp", "127.0.0.1:0", script)
}

func listenOn(t testing.TB, network, address string, script func(n int, c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	nl, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{Listener: nl}
	l.wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			l.mu.Lock()
			l.conns = append(l.conns, c)
			l.mu.Unlock()
			l.wg.Go(func() {
				defer c.Close()
				script(n, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		l.mu.Lock()
		for _, c := range l.conns {
			c.Close()
		}
		l.mu.Unlock()
		l.wg.Wait()
	})
	return l.Addr().String()
}

// readRequest reads one request with an optional Content-Length body and returns its head and body.
func readRequest(r *bufio.Reader) (head, body string, err error) {
	var b strings.Builder
	length := 0
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		b.WriteString(line)
		_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
		if line == "\r\n" {
			break
		}
	}
	p := make([]byte, length)
	_, err = io.ReadFull(r, p)
	return b.String(), string(p), err
}

// always answers every request on a connection with the same bytes.
func always(answer string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

// once answers one request and closes.
func once(answer string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		if _, _, err := readRequest(r); err == nil {
			_, _ = io.WriteString(c, answer)
		}
	}
}

// stall reads a request, sends part of an answer and then only listens.
func stall(part string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		if _, _, err := readRequest(r); err == nil {
			_, _ = io.WriteString(c, part)
			_, _ = io.Copy(io.Discard, r)
		}
	}
}

// reset makes the close of a connection an RST.
func reset(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }

const (
	get  = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
	ok   = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
)

func acquire(t testing.TB, b *Backend) *Conn {
	t.Helper()
	c, err := b.Acquire(Call{Now: b.shared.clock()})
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	return c
}

// call sends a request without body and reads the answer to its end, interim heads included.
func call(c *Conn, request string, asked wire.Asked) (status int, body string, err error) {
	h, err := c.Exchange([]byte(request), nil, asked)
	for err == nil && h.Interim {
		h, err = c.ReadHead(asked)
	}
	if err != nil {
		return 0, "", err
	}
	status = h.Status
	p, err := c.Buffered()
	if err != nil {
		return status, "", err
	}
	b := append([]byte(nil), p...)
	p = make([]byte, 1000)
	for {
		n, err := c.ReadBody(p)
		b = append(b, p[:n]...)
		if err == io.EOF {
			return status, string(b), nil
		}
		if err != nil {
			return status, string(b), err
		}
	}
}

// wantCause checks the cause of a failure.
func wantCause(t testing.TB, err error, want Cause) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want an *Error of cause %v", err, want)
	}
	if e.Cause != want {
		t.Fatalf("cause is %v (%v), want %v", e.Cause, err, want)
	}
	return e
}

// eventually waits for a condition that another goroutine or the kernel brings about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

func unixPath(t testing.TB) string { return filepath.Join(t.TempDir(), "s") }
