package wire

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestCloseIdle(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		g := newStepped(timeoutSettings())
		idleClient, idle := pair(t, g.Guard, network)
		_ = idleClient
		headClient, head := pair(t, g.Guard, network)
		busyClient, busy := pair(t, g.Guard, network)
		wait := say(t, busyClient, get)
		message(t, busy)
		wait()
		idleEnds := background(t, func() { noMessage(t, idle) })
		headEnds := background(t, func() {
			if h := message(t, head); h.Fault != None || h.KeepAlive {
				t.Errorf("a request that had begun: %v, keep %v", h.Fault, h.KeepAlive)
			}
			noMessage(t, head)
		})
		say(t, headClient, get[:5])()
		waitPhase(t, &head.reader, phaseHead)
		waitPhase(t, &idle.reader, phaseIdle)
		g.CloseIdle()
		idleEnds()
		say(t, headClient, get[5:])()
		headEnds()
		// one with a request ends after it
		noMessage(t, busy)
	})
}

// Read keeps its hands off a connection that Close has got hold of between two messages.
func TestReadAfterCloseBegan(t *testing.T) {
	c := fakeGuard(DefaultSettings()).NewConn(&scripted{pieces: pieces([]byte(get+get), 0)})
	message(t, c)
	c.closing.Store(true)
	noMessage(t, c)
	if c.blk == nil {
		t.Error("the buffer was given back twice over")
	}
}

// A buffer that one large message needed is not kept for small ones.
func TestLargeBlocksGo(t *testing.T) {
	g := fakeGuard(DefaultSettings())
	g.putBlock(&block{buf: make([]byte, 1<<20)})
	if b := g.getBlock(); len(b.buf) != blockBytes {
		t.Errorf("a block of %d bytes", len(b.buf))
	}
}

// A request that is in the kernel when the drain begins is served.
func TestCloseIdleServesWhatArrived(t *testing.T) {
	for i := range 400 {
		g := fakeGuard(DefaultSettings())
		client, c := pair(t, g, []string{"tcp", "tls"}[i%2])
		served := background(t, func() { message(t, c) })
		if _, err := io.WriteString(client, get); err != nil {
			t.Fatal(err)
		}
		g.CloseIdle()
		served()
		_ = client.Close()
	}
}

// The server above closes what it takes for idle: the wait ends, but a head that has begun is served.
func TestCloseFromOutside(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		g := fakeGuard(DefaultSettings())
		_, idle := pair(t, g, network)
		ends := background(t, func() { noMessage(t, idle) })
		waitPhase(t, &idle.reader, phaseIdle)
		if err := idle.Close(); err != nil {
			t.Fatal(err)
		}
		ends()

		client, head := pair(t, g, network)
		served := background(t, func() {
			if h := message(t, head); h.Fault != None || h.KeepAlive {
				t.Errorf("%v, keep %v", h.Fault, h.KeepAlive)
			}
		})
		say(t, client, get[:5])()
		waitPhase(t, &head.reader, phaseHead)
		if err := head.Close(); err != nil {
			t.Fatal(err)
		}
		say(t, client, get[5:])()
		served()
	})
}

// It may also come after the message was handed out, before the server above has noted it: the answer still goes out.
func TestCloseBeforeAnswer(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		g := fakeGuard(DefaultSettings())
		client, c := pair(t, g, network)
		wait := say(t, client, get+get)
		message(t, c)
		wait()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		var got []byte
		read := background(t, func() { got, _ = io.ReadAll(client) })
		if err := c.Send([]byte("answer"), nil); err != nil {
			t.Fatal(err)
		}
		noMessage(t, c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		read()
		if string(got) != "answer" || g.Len() != 0 {
			t.Fatalf("the client read %q, %d connections left", got, g.Len())
		}
	})
}

// A connection that is closed while its server begins to read again ends one way or the other, without a race.
func TestCloseRace(t *testing.T) {
	for range 300 {
		g := fakeGuard(DefaultSettings())
		client, c := pair(t, g, "unix")
		say(t, client, get)()
		message(t, c)
		if err := c.Send([]byte("answer"), nil); err != nil {
			t.Fatal(err)
		}
		served := background(t, func() {
			noMessage(t, c)
			_ = c.Close()
		})
		g.CloseIdle()
		_ = c.Close()
		served()
		waitUntil(t, "it is closed", func() bool { return g.Len() == 0 })
	}
}

func TestCloseAll(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		g := fakeGuard(DefaultSettings())
		client, c := pair(t, g, network)
		wait := say(t, client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
		message(t, c)
		wait()
		reading := background(t, func() {
			if _, err := c.ReadBody(make([]byte, 9)); err == nil || err == io.EOF {
				t.Errorf("ReadBody: %v", err)
			}
		})
		waitPhase(t, &c.reader, phaseBody)
		g.CloseAll()
		reading()
		if g.Len() != 0 {
			t.Errorf("%d left", g.Len())
		}
	})
}

// The linger ends when the client closes, or after a second.
func TestLinger(t *testing.T) {
	g := newStepped(timeoutSettings())
	begin := func() (net.Conn, *Conn) {
		client, c := pair(t, g.Guard, "tcp")
		say(t, client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n")()
		message(t, c)
		if err := c.Send([]byte("answer"), nil); err != nil {
			t.Fatal(err)
		}
		return client, c
	}
	answered := func(client net.Conn) {
		t.Helper()
		if b, err := io.ReadAll(client); string(b) != "answer" || err != nil {
			t.Fatalf("the client read %q, %v", b, err)
		}
	}
	// the client closes
	client, c := begin()
	closing := background(t, func() { _ = c.Close() })
	answered(client) // our side has ended while theirs is open
	_ = client.Close()
	closing()
	// a second
	client, c = begin()
	closing = background(t, func() { _ = c.Close() })
	answered(client)
	g.expire(t, &c.reader, phaseLinger, time.Second)
	closing()
	// none where nothing is unread
	client, c = pair(t, g.Guard, "tcp")
	say(t, client, get)()
	message(t, c)
	if err := c.Send([]byte("answer"), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	answered(client)
	// but where the client has sent more than it was answered
	client, c = pair(t, g.Guard, "tcp")
	say(t, client, get[:len(get)-2]+"Connection: close\r\n\r\n")()
	message(t, c)
	say(t, client, strings.Repeat("x", 10000))()
	if err := c.Send([]byte("answer"), nil); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the bytes have arrived", c.peer.pending)
	closing = background(t, func() { _ = c.Close() })
	answered(client)
	_ = client.Close()
	closing()
}
