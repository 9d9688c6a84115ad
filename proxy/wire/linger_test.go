package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// lingering is a client whose upload was answered before it was read, and which has read the answer up to the end of our
// side. The returned function waits for the end of our Close.
func lingering(t *testing.T, g *stepped, network string) (client net.Conn, c *Conn, closing func()) {
	t.Helper()
	client, c = pair(t, g.Guard, network)
	say(t, client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")()
	message(t, c)
	if err := c.Send([]byte("answer"), nil); err != nil {
		t.Fatal(err)
	}
	closing = background(t, func() { _ = c.Close() })
	if b, err := io.ReadAll(client); string(b) != "answer" || err != nil {
		t.Fatalf("the client read %q, %v", b, err)
	}
	return client, c, closing
}

// sockets are the networks whose connections can end their sending side alone.
func sockets(t *testing.T, f func(t *testing.T, network string)) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) { f(t, network) })
	}
}

func TestLingerIsNotProlongedByDripping(t *testing.T) {
	sockets(t, func(t *testing.T, network string) {
		g := newStepped(timeoutSettings())
		client, c, closing := lingering(t, g, network)
		defer client.Close()
		waitPhase(t, &c.reader, phaseLinger)
		g.Sweep()
		for range 4 {
			say(t, client, "x")()
			waitUntil(t, "the byte is discarded", func() bool { return !c.peer.pending() })
			g.pass(lingerTime / 4)
		}
		closing()
	})
}

// A client that sends on and on is not closed upon after 64 KiB: that would reset it before it has read the answer.
func TestLingerLeavesLargeUploadsUnread(t *testing.T) {
	sockets(t, func(t *testing.T, network string) {
		f := func(end func(*stepped, net.Conn, *Conn)) {
			t.Helper()
			g := newStepped(timeoutSettings())
			client, c, closing := lingering(t, g, network)
			defer client.Close()
			sent := 0
			for { // until nothing is taken any more
				if err := client.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
					t.Fatal(err)
				}
				n, err := client.Write(make([]byte, 256<<10))
				sent += n
				if errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				if err != nil {
					t.Fatalf("after %d bytes: %v", sent, err)
				}
			}
			if sent < mostLingering || !c.peer.pending() {
				t.Fatalf("sent %d bytes, waiting: %v", sent, c.peer.pending())
			}
			end(g, client, c)
			closing()
		}
		// The client leaves.
		f(func(_ *stepped, client net.Conn, _ *Conn) {
			if tcp, ok := client.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // its own bytes stand before the end otherwise
			}
			_ = client.Close()
		})
		// The client stays.
		f(func(g *stepped, _ net.Conn, c *Conn) { g.expire(t, &c.reader, phaseLinger, lingerTime) })
	})
}
