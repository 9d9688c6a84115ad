package conformance

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// backend records the exact bytes of every connection, and answers as its script says.
type backend struct {
	addr   string
	ln     net.Listener
	script func(c *backendConn, r *message)
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns []*backendConn
}

// backendConn is one connection of the sidecar.
type backendConn struct {
	net.Conn
	index int

	mu    sync.Mutex
	in    []byte
	ended bool // the sidecar has closed it, or we have
}

// ok is the answer that every request gets, unless a script says otherwise.
const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// answerOK is the usual script.
func answerOK(c *backendConn, r *message) {
	if r.method == "HEAD" {
		c.say(strings.TrimSuffix(ok, "ok"))
		return
	}
	c.say(ok)
}

// startBackend starts a backend that calls script for each request once it is there whole, in order.
func startBackend(t testing.TB, script func(c *backendConn, r *message)) *backend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: ln.Addr().String(), ln: ln, script: script}
	b.wg.Go(b.accept)
	t.Cleanup(b.stop)
	return b
}

func (b *backend) stop() {
	_ = b.ln.Close()
	for _, c := range b.all() {
		_ = c.Close()
	}
	b.wg.Wait()
}

func (b *backend) accept() {
	for {
		nc, err := b.ln.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		c := &backendConn{Conn: nc, index: len(b.conns)}
		b.conns = append(b.conns, c)
		b.mu.Unlock()
		b.wg.Go(func() { b.serve(c) })
	}
}

// serve reads until the end, and answers what is whole. What a strict parser refuses is recorded and not answered.
func (b *backend) serve(c *backendConn) {
	defer c.end()
	buf := make([]byte, 256<<10)
	for served := 0; ; {
		n, err := c.Read(buf)
		c.mu.Lock()
		c.in = append(c.in, buf[:n]...)
		rest := string(c.in[served:])
		c.mu.Unlock()
		for rest != "" {
			r, used, broken := nextMessage(rest)
			if broken != nil || used == 0 {
				break
			}
			served, rest = served+used, rest[used:]
			b.script(c, r)
		}
		if err != nil {
			return
		}
	}
}

func (c *backendConn) say(raw string) { _, _ = io.WriteString(c.Conn, raw) }

// finish closes the sending side: what was said is all there is.
func (c *backendConn) finish() { _ = c.Conn.(*net.TCPConn).CloseWrite() }

// reset closes with an RST.
func (c *backendConn) reset() {
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.end()
}

func (c *backendConn) end() {
	_ = c.Close()
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
}

func (c *backendConn) received() (in string, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.in), c.ended
}

func (b *backend) all() []*backendConn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*backendConn(nil), b.conns...)
}

// state counts the connections that came, and those that are still open.
func (b *backend) state() (accepted, open int) {
	conns := b.all()
	for _, c := range conns {
		if _, ended := c.received(); !ended {
			open++
		}
	}
	return len(conns), open
}

// mark is how much every connection has received.
type mark []int

func (b *backend) mark() (m mark) {
	for _, c := range b.all() {
		in, _ := c.received()
		m = append(m, len(in))
	}
	return m
}

// since returns what each connection has received since the mark, without those that got nothing.
func (b *backend) since(m mark) (streams []string) {
	for i, c := range b.all() {
		in, _ := c.received()
		if i < len(m) {
			in = in[m[i]:]
		}
		if in != "" {
			streams = append(streams, in)
		}
	}
	return streams
}

var errRefused = errors.New("refused")
