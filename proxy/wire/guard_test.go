package wire

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func timeoutSettings() Settings {
	s := DefaultSettings()
	s.HeaderTimeout, s.IdleTimeout, s.BodyTimeout, s.SendTimeout = 5*time.Second, 60*time.Second, 30*time.Second, 20*time.Second
	return s
}

// closed reports whether ch is.
func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func stageWord(s *stage) uint64 {
	word, _ := s.load()
	return word
}

// expire waits for phase p, lets almost the whole time pass, sees that nothing ends, and then lets it end.
func (s *stepped) expire(t *testing.T, st *stage, p phase, after time.Duration) {
	t.Helper()
	waitPhase(t, st, p)
	s.Sweep()
	s.pass(after - 1)
	if _, now := st.load(); now != p {
		t.Fatalf("phase %d ended early: %d", p, now)
	}
	s.pass(1)
}

func TestHeadTimeout(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		g := newStepped(timeoutSettings())
		client, c := pair(t, g.Guard, network)
		var h *Head
		reading := background(t, func() { h = message(t, c) })
		say(t, client, "GET / HT")()
		waitPhase(t, &c.reader, phaseHead)
		g.Sweep()
		g.pass(3 * time.Second)
		// bytes that trickle in do not prolong it
		say(t, client, "TP/1.1\r\nHost: h\r\n")()
		waitUntil(t, "they are read", func() bool { return c.peer == nil || !c.peer.pending() })
		g.pass(time.Second)
		g.expire(t, &c.reader, phaseHead, time.Second)
		reading()
		if h.Fault != HeadTimeout || h.Fault.Status() != 408 || string(h.Method) != "GET" {
			t.Fatalf("%+v", h)
		}
		noMessage(t, c)
	})
}

func TestIdleTimeout(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		g := newStepped(timeoutSettings())
		client, c := pair(t, g.Guard, network)
		wait := say(t, client, get)
		message(t, c)
		wait()
		g.pass(time.Hour) // nothing is timed while the handler runs
		reading := background(t, func() { noMessage(t, c) })
		g.expire(t, &c.reader, phaseIdle, 60*time.Second)
		reading()
	})
}

func TestBodyTimeout(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		g := newStepped(timeoutSettings())
		client, c := pair(t, g.Guard, network)
		wait := say(t, client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
		message(t, c)
		wait()
		read := func(want error) func() {
			return background(t, func() {
				if _, err := c.ReadBody(make([]byte, 9)); err != want {
					t.Errorf("ReadBody: %v, want %v", err, want)
				}
			})
		}
		// each byte begins the time anew
		for range 3 {
			reading := read(nil)
			waitPhase(t, &c.reader, phaseBody)
			g.Sweep()
			g.pass(29 * time.Second)
			say(t, client, "x")()
			reading()
			g.pass(time.Minute) // and while nobody waits for it there is none
		}
		reading := read(BodyTimeout)
		g.expire(t, &c.reader, phaseBody, 30*time.Second)
		reading()
		noMessage(t, c)
	})
}

func TestBodyRate(t *testing.T) {
	s := timeoutSettings()
	s.BodyRate = 10
	// A client that brings one piece in each second of waiting.
	f := func(piece string, seconds int, want error) {
		t.Helper()
		g := newStepped(s)
		client, c := pair(t, g.Guard, "tcp")
		say(t, client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")()
		message(t, c)
		var got error
		ended := make(chan struct{})
		reading := background(t, func() {
			defer close(ended)
			for got == nil {
				_, got = c.ReadBody(make([]byte, 100))
			}
		})
		over := func() bool { return closed(ended) }
		for i := 0; i < seconds && !over(); i++ {
			var word uint64
			waitUntil(t, "the body is waited for", func() bool {
				var p phase
				word, p = c.reader.load()
				return p == phaseBody || over()
			})
			g.pass(time.Second)
			say(t, client, piece)()
			waitUntil(t, "the piece is read", func() bool { now, _ := c.reader.load(); return now != word || over() })
		}
		if want == nil {
			_ = client.Close()
			want = BodyCut
		}
		reading()
		if got != want {
			t.Errorf("%q a second: %v, want %v", piece, got, want)
		}
	}
	f("0123456789", 100, nil)
	f("012345678", 100, BodyTimeout)
	f("0", 20, nil) // not judged before the body timeout
}

// The time that one body was waited for is not held against the next.
func TestBodyRateOfNextMessage(t *testing.T) {
	s := timeoutSettings()
	s.BodyRate = 10
	g := newStepped(s)
	client, c := pair(t, g.Guard, "tcp")
	f := func(seconds int, piece string, rest int) {
		t.Helper()
		size := seconds*len(piece) + rest
		say(t, client, fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size))()
		message(t, c)
		reading := background(t, func() {
			if _, err := io.ReadFull(reader(c.ReadBody), make([]byte, size)); err != nil {
				t.Errorf("%q a second: %v", piece, err)
			}
		})
		for range seconds {
			waitPhase(t, &c.reader, phaseBody)
			word, _ := c.reader.load()
			g.pass(time.Second)
			say(t, client, piece)()
			waitUntil(t, "the piece is read", func() bool { now, _ := c.reader.load(); return now != word })
		}
		say(t, client, strings.Repeat("x", rest))()
		reading()
	}
	f(60, "01234567890123456789", 1)
	f(20, "x", 1000) // too slow, were it not so short
}

func TestSendTimeout(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		g := newStepped(timeoutSettings())
		client, c := pair(t, g.Guard, network)
		wait := say(t, client, get)
		message(t, c)
		wait()
		ended := make(chan struct{})
		sending := background(t, func() {
			defer close(ended)
			if err := c.Send([]byte("head"), make([]byte, 32<<20)); err != SendTimeout {
				t.Errorf("Send: %v", err)
			}
		})
		over := func() bool { return closed(ended) }
		// The kernel takes a part of it, piece by piece, and each begins the time anew. at is the piece that waits, and age for how long
		// the guard has seen it.
		const whole = 20 * time.Second
		at, age := ^uint64(0), time.Duration(0)
		for !over() {
			word, p := c.writer.load()
			switch {
			case p&phaseWoken != 0:
				if word == at|uint64(phaseWoken) && age < whole {
					t.Fatalf("it ended after %v", age)
				}
				sending()
				continue
			case word != at:
				at, age = word, 0
				if g.Sweep(); stageWord(&c.writer) != word {
					continue
				}
				g.pass(whole - 1)
				age = whole - 1
			case age >= whole && p == phaseSend:
				t.Fatalf("it goes on after %v", age)
			default:
				g.pass(1)
				age++
			}
		}
		sending()
		noMessage(t, c)
	})
}

// A client that takes a little now and then is not cut. Over TCP, a kernel that drops what a full receive buffer has no room for
// can take minutes to send it again.
func TestSendProgress(t *testing.T) {
	g := newStepped(timeoutSettings())
	client, c := pair(t, g.Guard, "unix")
	say(t, client, get)()
	message(t, c)
	const size = 32 << 20
	sending := background(t, func() {
		if err := c.Send(nil, make([]byte, size)); err != nil {
			t.Errorf("Send: %v", err)
		}
	})
	buf := make([]byte, 4<<20)
	got := 0
	for range size / len(buf) / 2 {
		waitPhase(t, &c.writer, phaseSend)
		stalled, _ := c.writer.load()
		g.Sweep()
		g.pass(19 * time.Second)
		n, err := io.ReadFull(client, buf)
		if err != nil {
			t.Fatal(err)
		}
		got += n
		waitUntil(t, "the kernel takes more", func() bool { now, _ := c.writer.load(); return now != stalled })
	}
	if _, err := io.CopyN(io.Discard, client, int64(size-got)); err != nil {
		t.Fatal(err)
	}
	sending()
}

func TestOnGone(t *testing.T) {
	g := newStepped(timeoutSettings())
	client, c := pair(t, g.Guard, "tcp")
	var calls atomic.Int32
	c.OnGone(func() { calls.Add(1) })
	say(t, client, get+get+get)()
	message(t, c)
	c.BeginWait()
	g.Sweep()
	g.pass(time.Hour) // waiting for the backend is not timed here
	if c.EndWait() || calls.Load() != 0 {
		t.Fatal("gone while it is there")
	}
	message(t, c)
	_ = client.Close()
	waitUntil(t, "the end arrives", c.PeerClosed)
	g.Sweep()
	if calls.Load() != 0 {
		t.Fatal("told outside of BeginWait")
	}
	c.BeginWait()
	g.Sweep()
	g.Sweep()
	if calls.Load() != 1 || !c.EndWait() {
		t.Fatalf("told %d times", calls.Load())
	}
	// EndWait ends it
	message(t, c)
	c.BeginWait()
	if c.EndWait() {
		t.Fatal("an old leaving is told again")
	}
	g.Sweep()
	if calls.Load() != 1 {
		t.Fatalf("told after EndWait")
	}
}

func TestInterrupt(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		for _, first := range []bool{false, true} {
			client, c := pair(t, fakeGuard(DefaultSettings()), network)
			wait := say(t, client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
			message(t, c)
			wait()
			if first {
				c.Interrupt() // also before anybody waits
			}
			reading := background(t, func() {
				if _, err := c.ReadBody(make([]byte, 9)); err != ReadInterrupted {
					t.Errorf("ReadBody: %v", err)
				}
			})
			if !first {
				waitPhase(t, &c.reader, phaseBody)
				c.Interrupt()
			}
			reading()
			noMessage(t, c)
		}
	})
}

// Settings change for the messages that follow, not for the one in progress.
func TestSettingsLive(t *testing.T) {
	g := fakeGuard(DefaultSettings())
	request := "GET / HTTP/1.1\r\nHost: h\r\nX-Id: a\r\n\r\n"
	c := g.NewConn(&scripted{pieces: [][]byte{[]byte(request), []byte(request), []byte(request)}})
	kinds := func() (kinds []Kind) {
		t.Helper()
		for _, f := range message(t, c).List {
			kinds = append(kinds, f.Kind)
		}
		return kinds
	}
	if got := kinds(); !slices.Equal(got, []Kind{KindHost, KindOther}) {
		t.Fatalf("kinds %v", got)
	}
	s := DefaultSettings()
	s.Identity = []string{"x-ID"}
	g.Set(s)
	s.Identity[0] = "changed" // the guard keeps its own
	if got := kinds(); !slices.Equal(got, []Kind{KindHost, KindIdentity}) {
		t.Fatalf("kinds %v", got)
	}
	s.HeaderCount = 1
	g.Set(s)
	if h := message(t, c); h.Fault != TooManyFields {
		t.Fatalf("fault %v", h.Fault)
	}
}

// Connections come and go; the guard knows those that are open.
func TestGuardRegister(t *testing.T) {
	g := fakeGuard(DefaultSettings())
	var conns []*Conn
	for range 5 {
		conns = append(conns, g.NewConn(&scripted{}))
	}
	for i, k := range []int{2, 0, 4, 1, 3} {
		if err := conns[k].Close(); err != nil {
			t.Fatal(err)
		}
		if err := conns[k].Close(); err != nil { // twice is once
			t.Fatal(err)
		}
		if g.Len() != 4-i {
			t.Fatalf("%d open after %d were closed", g.Len(), i+1)
		}
		if got := fmt.Sprint(conns[k].nc.(*scripted).closed); got != "true" {
			t.Fatal("not closed below")
		}
	}
}
