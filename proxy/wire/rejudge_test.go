package wire

import (
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	f := func(before, after func(*Settings), request string, fault Cause, identities int) {
		t.Helper()
		everyNetwork(t, func(t *testing.T, network string) {
			s := DefaultSettings()
			before(&s)
			g := fakeGuard(s)
			client, c := pair(t, g, network)
			defer say(t, client, request)()
			h := message(t, c)
			if h.Fault != None {
				t.Fatalf("refused: %v", h.Fault)
			}
			s = DefaultSettings()
			after(&s)
			g.Set(s)
			c.Judge(g.Settings())
			if c.Settings() != g.Settings() || h != c.Head() {
				t.Error("it is not judged by the new settings")
			}
			if _, n := h.Get(KindIdentity); h.Fault != fault || fault == None && n != identities {
				t.Fatalf("fault %v, %d identities; want %v, %d", h.Fault, n, fault, identities)
			}
			if fault == None {
				if string(h.Host) != "h" || string(h.Path) != "/p" {
					t.Errorf("%q %q", h.Host, h.Path)
				}
				var p [10]byte
				n, err := c.ReadBody(p[:])
				if string(p[:n]) != "hello" {
					t.Errorf("body %q, %v", p[:n], err)
				}
				message(t, c) // and the next one
			} else {
				noMessage(t, c)
			}
		})
	}
	same := func(*Settings) {}
	identity := func(name string) func(*Settings) { return func(s *Settings) { s.Identity = []string{name} } }
	const request = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX-A: 1\r\nX-B: 2\r\nX-B: 3\r\n\r\nhello" + get

	// Other names are identity now, or none.
	f(identity("X-A"), identity("X-B"), request, None, 2)
	f(identity("X-A"), same, request, None, 0)
	f(same, same, request, None, 0)
	// What was fine is none any more: an alias of a new name, too many fields, too long.
	f(same, identity("X-C"), strings.Replace(request, "X-A", "X_C", 1), AliasedName, 0)
	f(same, func(s *Settings) { s.HeaderCount = 3 }, request, TooManyFields, 0)
	f(same, func(s *Settings) { s.BodyBytes = 4 }, request, BodyTooLong, 0)
}

// TestJudgeKeepsTheEnd: a connection that was to end still does.
func TestJudgeKeepsTheEnd(t *testing.T) {
	g := fakeGuard(DefaultSettings())
	g.draining.Store(true)
	client, c := pair(t, g, "tcp")
	say(t, client, get)()
	h := message(t, c)
	g.Set(DefaultSettings())
	if c.Judge(g.Settings()); h.KeepAlive {
		t.Error("it lives on")
	}
	noMessage(t, c)
}

// TestSendBy: a client that takes a little again and again cannot go on for ever.
func TestSendBy(t *testing.T) {
	everyNetwork(t, func(t *testing.T, network string) {
		st := newStepped(DefaultSettings())
		client, c := pair(t, st.Guard, network)
		defer say(t, client, get)()
		message(t, c)
		c.SendBy(int64(10 * time.Second))
		var err error
		wait := background(t, func() { err = c.Send(make([]byte, 64<<20), nil) })
		for range 9 {
			waitPhase(t, &c.writer, phaseSend)
			if _, err := client.Read(make([]byte, 4096)); err != nil {
				t.Fatal(err)
			}
			st.pass(time.Second)
		}
		waitPhase(t, &c.writer, phaseSend)
		st.pass(time.Second)
		wait()
		if err != SendTimeout {
			t.Errorf("Send: %v", err)
		}
	})
}
