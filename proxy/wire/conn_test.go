package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// stepped is a guard whose clock the test moves.
type stepped struct {
	*Guard
	clock atomic.Int64
}

func newStepped(s Settings) *stepped {
	st := &stepped{}
	st.Guard = NewGuard(st.clock.Load, s)
	st.poison = true
	return st
}

// pass moves the clock and lets the guard look.
func (s *stepped) pass(d time.Duration) {
	s.clock.Add(int64(d))
	s.Sweep()
}

// networks are the kinds of connection that behave alike: two sockets, one that is none, and one that has a socket far below.
var networks = []string{"tcp", "unix", "pipe", "tls"}

// pair is a client's end and the guarded server's end.
func pair(t testing.TB, g *Guard, network string) (net.Conn, *Conn) {
	t.Helper()
	client, server := rawPair(t, network)
	c := g.NewConn(server)
	t.Cleanup(func() { _ = c.shut() })
	if (c.sock == nil) != (network == "pipe" || network == "tls" || runtime.GOOS != "linux") {
		t.Fatalf("%s: socket is %v", network, c.sock)
	}
	return client, c
}

func rawPair(t testing.TB, network string) (client, server net.Conn) {
	t.Helper()
	if network == "pipe" {
		client, server = net.Pipe()
		t.Cleanup(func() { _ = client.Close() })
		return client, server
	}
	if network == "tls" {
		return tlsPair(t)
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = t.TempDir() + "/s"
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func everyNetwork(t *testing.T, f func(t *testing.T, network string)) {
	for _, n := range networks {
		t.Run(n, func(t *testing.T) { f(t, n) })
	}
}

// message reads one synthetic head and returns the real one.
func message(t testing.TB, c *Conn) *Head {
	t.Helper()
	var p [len(synthetic)]byte
	if _, err := io.ReadFull(c, p[:]); err != nil {
		t.Fatalf("no message: %v", err)
	}
	return c.Head()
}

// noMessage is what Read says when no message follows.
func noMessage(t testing.TB, c *Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("Read: %d, %v, want the end", n, err)
	}
}

// background runs f, and the returned function waits for its end.
func background(t testing.TB, f func()) (wait func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	return func() {
		t.Helper()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("still running")
		}
	}
}

func say(t testing.TB, nc net.Conn, s string) func() {
	return background(t, func() { _, _ = io.WriteString(nc, s) })
}

func waitPhase(t testing.TB, s *stage, p phase) {
	t.Helper()
	waitUntil(t, "the phase is reached", func() bool { _, now := s.load(); return now == p })
}

const get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

func TestConnMessages(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		client, c := pair(t, fakeGuard(DefaultSettings()), network)
		defer say(t, client, "\r\n"+get+
			"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\r\n"+
			"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: 1\r\n\r\n"+get)()
		message(t, c)
		if !c.BodyDone() {
			t.Fatal("a message without body is not done")
		}
		if n, err := c.ReadBody(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("body of GET: %d %v", n, err)
		}
		for _, want := range []string{"/b hello", "/c abcde"} {
			h := message(t, c)
			if c.BodyDone() {
				t.Fatal("done before the body was read")
			}
			// in small pieces, which must not reach into the next message
			var p [2]byte
			got := string(h.Path) + " "
			for {
				n, err := c.ReadBody(p[:])
				got += string(p[:n])
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got != want || !c.BodyDone() || c.BodyBytes() != 5 {
				t.Fatalf("got %q, %d bytes, want %q", got, c.BodyBytes(), want)
			}
		}
		message(t, c)
	})
}

// Bytes of the next message that a read of a chunked body took along are kept, and the head stays readable meanwhile.
func TestConnKeepsNextMessage(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		client, c := pair(t, fakeGuard(DefaultSettings()), network)
		wait := say(t, client, "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
		h := message(t, c)
		wait()
		long := "GET /" + strings.Repeat("b", 6000) + " HTTP/1.1\r\nHost: h\r\n\r\n"
		wait = say(t, client, "3\r\nabc\r\n0\r\n\r\n"+long+get)
		defer wait()
		// in one read where the connection gives it, so more of the next message than fits behind the head
		p, n := make([]byte, 16<<10), 0
		var err error
		for got := 0; err == nil; n += got {
			got, err = c.ReadBody(p[n:])
		}
		if string(p[:n]) != "abc" || err != io.EOF {
			t.Fatalf("%q %v", p[:n], err)
		}
		if got := string(h.AppendForward(nil, 0)); !strings.HasPrefix(got, "POST /a HTTP/1.1\r\nHost: h\r\n") {
			t.Fatalf("the head became %q", got)
		}
		if h = message(t, c); len(h.Path) != 6001 {
			t.Fatalf("second message %.20q…", h.Path)
		}
		message(t, c)
	})
}

func TestConnBodyBuffered(t *testing.T) {
	f := func(raw, want string, done bool, wantErr error) {
		t.Helper()
		c := fakeGuard(DefaultSettings()).NewConn(&scripted{pieces: [][]byte{[]byte("P"), []byte(raw[1:])}})
		message(t, c)
		b, err := c.BodyBuffered()
		if string(b) != want || err != wantErr || c.BodyDone() != done {
			t.Errorf("%q: %q %v, done %v", raw, b, err, c.BodyDone())
		}
		if b, err = c.BodyBuffered(); len(b) != 0 || err != wantErr {
			t.Errorf("%q: again %q %v", raw, b, err)
		}
	}
	length, chunked := "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	f(length, "", false, nil)
	f(length+"hel", "hel", false, nil)
	f(length+"hello"+get, "hello", true, nil)
	f(chunked+"3\r\nab", "ab", false, nil)
	f(chunked+"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"+get, "abcde", true, nil)
	// nothing of a bad body is handed out
	f(chunked+"2\r\nab\r\nzz", "", false, BadChunk)
}

func TestConnBodyFails(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		f := func(body string, want Cause) {
			t.Helper()
			s := DefaultSettings()
			s.BodyBytes = 10
			client, c := pair(t, fakeGuard(s), network)
			wait := background(t, func() {
				_, _ = io.WriteString(client, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
				_, _ = io.WriteString(client, body)
				_ = client.Close()
			})
			defer wait()
			message(t, c)
			_, err := io.ReadAll(reader(c.ReadBody))
			if err != want || c.BodyDone() {
				t.Errorf("%q: %v, want %v", body, err, want)
			}
			if _, err = c.ReadBody(make([]byte, 1)); err != want {
				t.Errorf("%q: then %v", body, err)
			}
			noMessage(t, c)
		}
		f("5\r\nhel", BodyCut)
		f("", BodyCut)
		f("5\r\nhello\r\n0\r\n", BodyCut)
		f("5\nhello", BadChunk)
		f("5\r\nhello\r\n6\r\nworld!\r\n", BodyTooLong)
		f("0\r\n a: b\r\n", BadTrailer)
	})
}

// restless is a connection whose Read brings nothing now and then.
type restless struct {
	*scripted
	calls int
}

func (r *restless) Read(p []byte) (int, error) {
	if r.calls++; r.calls%2 == 1 {
		return 0, nil
	}
	return r.scripted.Read(p)
}

// A Read of nothing is not the end.
func TestConnReadsNothing(t *testing.T) {
	c := fakeGuard(DefaultSettings()).NewConn(&restless{scripted: &scripted{pieces: pieces([]byte(get+get), 5)}})
	message(t, c)
	message(t, c)
	noMessage(t, c)
}

func TestConnEnds(t *testing.T) {
	f := func(sent string) {
		t.Helper()
		c := fakeGuard(DefaultSettings()).NewConn(&scripted{pieces: pieces([]byte(sent), 0)})
		noMessage(t, c)
		noMessage(t, c)
	}
	// a clean end, also after the stray CRLF of old clients
	f("")
	f("\r")
	f("\r\n")
	// an end within a head is a fault
	for _, sent := range []string{"G", "\r\nG", get[:len(get)-1], "\r\n\r\n"} {
		c := fakeGuard(DefaultSettings()).NewConn(&scripted{pieces: pieces([]byte(sent), 1)})
		if h := message(t, c); h.Fault != TruncatedHead && sent != "\r\n\r\n" {
			t.Errorf("%q: %v", sent, h.Fault)
		}
		noMessage(t, c)
	}
	// and is the same whatever stands in the line that is cut, in one piece or many
	for _, line := range []string{"A : b", "A b", "A\x00", "A: b\x00c", " a", "A: b\rc"} {
		for size := range 3 {
			c := fakeGuard(DefaultSettings()).NewConn(&scripted{pieces: pieces([]byte("GET / HTTP/1.1\r\nHost: h\r\n"+line), size)})
			if h := message(t, c); h.Fault != TruncatedHead {
				t.Errorf("%q in pieces of %d: %v", line, size, h.Fault)
			}
		}
	}
	// no message follows one whose body was not read, that asked to close, or after which we wanted to close
	g := func(first string, before func(c *Conn)) {
		t.Helper()
		c := fakeGuard(DefaultSettings()).NewConn(&scripted{pieces: pieces([]byte(first+get), 0)})
		message(t, c)
		before(c)
		noMessage(t, c)
	}
	g("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", func(*Conn) {})
	g("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", func(*Conn) {})
	g(get, func(c *Conn) { c.CloseAfter() })
}

// A head that comes byte by byte is scanned once a line, not once a byte.
func TestWorthScanning(t *testing.T) {
	c := fakeGuard(Settings{HeaderBytes: 2 << 10}).NewConn(&scripted{})
	c.settings = c.g.settings.Load()
	f := func(sent string, tried int, want bool) {
		t.Helper()
		c.blk = &block{buf: []byte(sent)}
		c.r, c.w = 0, len(sent)
		if got := c.worthScanning(tried); got != want {
			t.Errorf("%.10q after %d bytes: %v", sent, tried, got)
		}
	}
	f("GET / HTTP/1.1\r\nHo", 0, true)
	f("GET / HTTP/1.1\r\nHos", 18, false)
	f("GET / HTTP/1.1\r\nHost: h\r\n", 18, true)
	f(strings.Repeat("x", 2<<10-1), 0, false)
	f(strings.Repeat("x", 2<<10), 0, true)
}

func TestConnSend(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		client, c := pair(t, fakeGuard(DefaultSettings()), network)
		var got strings.Builder
		read := background(t, func() { _, _ = io.Copy(&got, client) })
		wait := say(t, client, get+get+get)
		message(t, c)
		wait()
		// a large body, more than the kernel takes at once
		large := strings.Repeat("x", 8<<20)
		if err := c.Send([]byte("head"), []byte(large)); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(nil, []byte("body")); err != nil {
			t.Fatal(err)
		}
		if err := c.Send([]byte("only"), nil); err != nil {
			t.Fatal(err)
		}
		// muted until the next Read
		if n, err := c.Write([]byte("swallowed")); n != 9 || err != nil {
			t.Fatal(n, err)
		}
		message(t, c)
		if n, err := c.Write([]byte("own")); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		message(t, c)
		c.Mute()
		if n, err := c.Write([]byte("swallowed")); n != 9 || err != nil {
			t.Fatal(n, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		read()
		if want := "head" + large + "bodyonlyown"; got.String() != want {
			t.Fatalf("the client read %d bytes that end with %q", got.Len(), got.String()[max(0, got.Len()-20):])
		}
		if c.g.Len() != 0 {
			t.Error("a closed connection is still registered")
		}
	})
}

func TestConnSendFails(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		client, c := pair(t, fakeGuard(DefaultSettings()), network)
		wait := say(t, client, get)
		message(t, c)
		wait()
		_ = client.Close()
		var err error
		for range 100 { // the first bytes may still be taken by the kernel
			if err = c.Send(make([]byte, 100<<10), nil); err != nil {
				break
			}
		}
		if !errors.Is(err, PeerGone) || c.Send([]byte("x"), nil) != PeerGone {
			t.Fatalf("Send: %v", err)
		}
		noMessage(t, c)
	})
}

func TestSendContinue(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		s := &scripted{pieces: [][]byte{[]byte("P"), []byte(raw[1:])}}
		c := fakeGuard(DefaultSettings()).NewConn(s)
		message(t, c)
		for range 2 {
			if err := c.SendContinue(); err != nil {
				t.Fatal(err)
			}
		}
		if s.out.String() != want {
			t.Errorf("%q: answered %q", raw, s.out.String())
		}
	}
	head := "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"
	f(head+"Expect: 100-continue\r\n\r\n", continueLine) // once
	f(head+"Expect: 100-continue\r\n\r\nhe", "")         // it does not wait
	f(head+"\r\n", "")
}

func TestConnPeerClosed(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			client, c := pair(t, fakeGuard(DefaultSettings()), network)
			say(t, client, get+get)() // pipelined bytes wait
			message(t, c)
			if c.PeerClosed() {
				t.Fatal("gone too early")
			}
			_ = client.Close()
			waitUntil(t, "the client's end is seen", c.PeerClosed)
			if n := testing.AllocsPerRun(10, func() { c.PeerClosed() }); n != 0 {
				t.Errorf("%v allocations", n)
			}
			_ = c.shut()
			if !c.PeerClosed() {
				t.Error("a closed connection has a peer")
			}
		})
	}
	_, c := pair(t, fakeGuard(DefaultSettings()), "pipe")
	if c.PeerClosed() {
		t.Error("a pipe cannot know")
	}
}

func TestConnAbort(t *testing.T) {
	client, c := pair(t, fakeGuard(DefaultSettings()), "tcp")
	say(t, client, get)()
	message(t, c)
	if err := c.Send([]byte("half"), nil); err != nil {
		t.Fatal(err)
	}
	c.Abort()
	_, err := io.ReadAll(client)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the client reads %v, want a reset", err)
	}
	if n, err := c.Write([]byte("x")); n != 1 || err != nil {
		t.Fatalf("not muted: %d %v", n, err)
	}
	noMessage(t, c)
}

func TestConnDetach(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		client, c := pair(t, fakeGuard(DefaultSettings()), network)
		wait := say(t, client, get+"frames")
		message(t, c)
		wait()
		b, nc := c.Detach()
		if string(b) != "frames" {
			t.Fatalf("buffered %q", b)
		}
		wait = background(t, func() { _, _ = nc.Write([]byte("pong")) })
		got := make([]byte, 4)
		if _, err := io.ReadFull(client, got); string(got) != "pong" || err != nil {
			t.Fatalf("%q %v", got, err)
		}
		wait()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		noMessage(t, c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := client.Read(got); n != 0 || err != io.EOF {
			t.Fatalf("then %d %v", n, err)
		}
	})
}

func TestConnTLS(t *testing.T) {
	source := httptest.NewUnstartedServer(nil)
	source.StartTLS()
	config := source.TLS.Clone()
	source.Close()
	client, server := rawPair(t, "tcp")
	c := fakeGuard(DefaultSettings()).NewConn(tls.Server(server, config))
	defer c.shut()
	tc := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	wait := say(t, tc, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"+get)
	if h := message(t, c); string(h.Path) != "/a" {
		t.Fatalf("%q", h.Path)
	}
	b, err := c.BodyBuffered()
	if string(b) != "hi" || err != nil || c.PeerClosed() {
		t.Fatalf("%q %v", b, err)
	}
	message(t, c)
	wait()
	_ = client.Close()
	waitUntil(t, "the client's end is seen below TLS", c.PeerClosed)
}

// What a head gave out is overwritten once the next message is read, so no test passes that keeps it.
func TestConnPoison(t *testing.T) {
	client, c := pair(t, fakeGuard(DefaultSettings()), "tcp")
	wait := say(t, client, "GET /secret HTTP/1.1\r\nHost: h\r\n\r\n")
	h := message(t, c)
	wait()
	path := h.Path
	reading := background(t, func() { _, _ = c.Read(make([]byte, 1)) })
	waitPhase(t, &c.reader, phaseIdle)
	_ = client.Close()
	reading()
	if string(path) == "/secret" {
		t.Error("the last message's bytes are still there")
	}
}

func TestConnAllocations(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		g := NewGuard(func() int64 { return 0 }, DefaultSettings())
		client, c := pair(t, g, network)
		request := []byte("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
		body := []byte("5\r\nhello\r\n0\r\n\r\n")
		head, payload := []byte("HTTP/1.1 200 OK\r\n\r\n"), []byte("payload")
		p, out := make([]byte, 4<<10), make([]byte, 0, 4<<10)
		one := func() {
			_, _ = client.Write(request)
			for got := 0; got < len(synthetic); {
				n, err := c.Read(p)
				if err != nil {
					t.Fatal(err)
				}
				got += n
			}
			out = c.Head().AppendForward(out[:0], 0)
			_, _ = client.Write(body)
			for {
				if _, err := c.ReadBody(p); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			c.BeginWait()
			c.EndWait()
			if err := c.Send(head, payload); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(head); err != nil {
				t.Fatal(err)
			}
			_, _ = client.Read(p)
		}
		if n := testing.AllocsPerRun(200, one); n != 0 && !raceEnabled { // sync.Pool forgets on purpose under the race detector
			t.Errorf("%s: %v allocations a message", network, n)
		}
	}
}
