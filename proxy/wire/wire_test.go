package wire

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp's clock for the Date field runs for the life of the process, and what sweeps its workers for ten more
		// seconds.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// waitUntil waits for a condition that another goroutine brings about.
func waitUntil(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// scripted is a connection whose client sends the given pieces, one for each Read, and then closes its sending side.
type scripted struct {
	pieces [][]byte
	out    bytes.Buffer
	closed bool
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *scripted) Close() error                     { s.closed = true; return nil }
func (s *scripted) LocalAddr() net.Addr              { return nil }
func (s *scripted) RemoteAddr() net.Addr             { return nil }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// pieces cuts b into pieces of size bytes; 0 is one piece.
func pieces(b []byte, size int) [][]byte {
	if size == 0 {
		size = len(b)
	}
	var out [][]byte
	for len(b) > 0 {
		n := min(size, len(b))
		out = append(out, bytes.Clone(b[:n]))
		b = b[n:]
	}
	return out
}

// fakeGuard is a guard whose clock stands at 0 and whose bytes are overwritten once they are no longer valid.
func fakeGuard(s Settings) *Guard {
	g := NewGuard(func() int64 { return 0 }, s)
	g.poison = true
	return g
}

// seen is what became of one message.
type seen struct {
	method, target, path, rawPath, query, host string
	minor                                      uint8
	keepAlive, expect, upgrade                 bool
	fault                                      Cause
	bodyErr                                    error
	forward                                    string // the head as forwarded
	body                                       string
}

// receive plays a connection to its end: what the guard made of every message.
func receive(t testing.TB, s Settings, parts [][]byte) []seen {
	t.Helper()
	c := fakeGuard(s).NewConn(&scripted{pieces: parts})
	defer c.Close()
	var all []seen
	p := make([]byte, 7) // the synthetic head comes in pieces
	for {
		got := ""
		for len(got) < len(synthetic) {
			n, err := c.Read(p)
			if err == io.EOF && got == "" {
				return all
			}
			if err != nil {
				t.Fatalf("Read: %v after %q", err, got)
			}
			got += string(p[:n])
		}
		if got != synthetic {
			t.Fatalf("synthetic head %q", got)
		}
		all = append(all, observe(t, c))
		if len(all) > 20000 {
			t.Fatal("messages without end")
		}
	}
}

func observe(t testing.TB, c *Conn) seen {
	t.Helper()
	h := c.Head()
	m := seen{method: string(h.Method), target: string(h.Target), fault: h.Fault}
	if h.Fault != None {
		if c.BodyDone() || h.KeepAlive {
			t.Fatalf("%v: a message with a fault is done or keeps the connection", h.Fault)
		}
		return m
	}
	m.path, m.rawPath, m.query, m.host = string(h.Path), string(h.RawPath), string(h.Query), string(h.Host)
	m.minor, m.keepAlive, m.expect, m.upgrade = h.Minor, h.KeepAlive, h.Expect100, h.UpgradeWebSocket
	m.forward = string(h.AppendForward(nil, 0))
	b, err := c.BodyBuffered()
	if err == nil {
		m.body = string(b)
		var rest []byte
		rest, err = io.ReadAll(reader(c.ReadBody))
		m.body += string(rest)
	}
	m.bodyErr = err
	if c.BodyDone() != (err == nil) {
		t.Fatalf("BodyDone is %v after %v", c.BodyDone(), err)
	}
	if again := string(h.AppendForward(nil, 0)); again != m.forward {
		t.Fatalf("the head changed while the body was read:\n%q\n%q", m.forward, again)
	}
	return m
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

// wireForm is a forwarded message as a backend would get it: the body in one chunk where it is chunked.
func (m seen) wireForm() string {
	head := m.forward + "\r\n"
	if !strings.Contains(strings.ToLower(m.forward), "\r\ntransfer-encoding:") {
		return head + m.body
	}
	if m.body == "" {
		return head + "0\r\n\r\n"
	}
	return head + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(m.body), m.body)
}
