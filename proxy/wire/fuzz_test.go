package wire

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// fuzzSettings are small enough that bounds are met.
func fuzzSettings() Settings {
	s := DefaultSettings()
	s.HeaderBytes, s.HeaderCount, s.URIBytes, s.BodyBytes = 1<<10, 20, 200, 500
	s.Identity = []string{"X-Tenant-ID"}
	return s
}

// FuzzRequest: nothing panics; how the bytes were cut changes nothing; what is forwarded means the same to our own scan and
// holds the invariants.
func FuzzRequest(f *testing.F) {
	for _, c := range loadCorpus(f).Requests {
		if b := c.bytes(); len(b) < 1<<10 {
			f.Add(b, uint8(3))
		}
	}
	f.Add([]byte(typicalRequest+typicalRequest), uint8(100))
	f.Add([]byte("GET /a/..;/%2e%2E%2fb//c?d HTTP/1.1\r\nHost: h\r\nConnection: x-a, close\r\nX-A: 1\r\n\r\n"), uint8(1))
	f.Fuzz(func(t *testing.T, raw []byte, size uint8) {
		s := fuzzSettings()
		whole := receive(t, s, pieces(raw, 0))
		cut := receive(t, s, pieces(raw, int(size)))
		if !slices.EqualFunc(whole, cut, equalSeen) {
			t.Fatalf("in pieces of %d:\n%+v\nwhole:\n%+v", size, cut, whole)
		}
		wide := s
		wide.HeaderBytes, wide.HeaderCount = 1<<20, 1000 // a Host and a space are added
		for _, m := range whole {
			if m.fault != None {
				continue
			}
			again := scan(m.forward+"\r\n", wide)
			if again.Fault != None || string(again.Method) != m.method || string(again.Path) != m.path ||
				string(again.RawPath) != m.rawPath || string(again.Query) != m.query || again.UpgradeWebSocket != m.upgrade {
				if !(again.Fault == BadHost && m.host == "") { // HTTP/1.0 without Host is forwarded with an empty one
					t.Fatalf("%q is read again as %+v", m.forward, again)
				}
			}
			if forwardAgain := string(again.AppendForward(nil, 0)); again.Fault == None && forwardAgain != m.forward {
				t.Fatalf("forwarded as %q, then as %q", m.forward, forwardAgain)
			}
			if m.bodyErr == nil && again.Fault == None {
				parts := receive(t, wide, pieces([]byte(m.wireForm()+m.wireForm()), 0))
				if len(parts) != 2 || parts[0].body != m.body || parts[1].body != m.body || parts[1].forward != m.forward {
					t.Fatalf("twice %q is read as %+v", m.wireForm(), parts)
				}
			}
			checkLines(t, m.forward)
		}
	})
}

func equalSeen(a, b seen) bool {
	if a.bodyErr != nil && b.bodyErr != nil {
		// Where the first bytes of a bad body were good, they may have been handed out.
		a.body, b.body = "", ""
	}
	return a == b
}

// checkLines holds forwarded bytes to what no parser can argue about.
func checkLines(t *testing.T, head string) {
	t.Helper()
	framing, hosts := 0, 0
	for i, line := range strings.Split(strings.TrimSuffix(head, "\r\n"), "\r\n") {
		if strings.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("line %q", line)
		}
		name, _, ok := strings.Cut(line, ":")
		if i == 0 {
			continue
		}
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			t.Fatalf("line %q", line)
		}
		switch strings.ToLower(name) {
		case "host":
			hosts++
		case "content-length", "transfer-encoding":
			framing++
		}
	}
	if hosts != 1 || framing > 1 {
		t.Fatalf("%d Host and %d framing fields in %q", hosts, framing, head)
	}
}

// FuzzResponse: nothing panics; how the bytes were cut changes nothing; what is relayed means the same to our own scan.
func FuzzResponse(f *testing.F) {
	for _, c := range loadCorpus(f).Responses {
		f.Add(latin1(c.Raw), uint8(2), false, false)
	}
	f.Add([]byte(typicalResponse), uint8(7), true, false)
	f.Add([]byte("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"), uint8(7), false, true)
	f.Fuzz(func(t *testing.T, raw []byte, size uint8, head, upgrade bool) {
		asked := Asked{Head: head, Upgrade: upgrade}
		heads, body, done, left, err := answer(t, pieces(raw, 0), asked)
		heads2, body2, done2, left2, err2 := answer(t, pieces(raw, int(size)), asked)
		if !slices.Equal(heads, heads2) || done != done2 || left2 != left || (err == nil) != (err2 == nil) ||
			err == nil && body != body2 {
			t.Fatalf("in pieces of %d: %q %q %v %d %v\nwhole: %q %q %v %d %v", size, heads2, body2, done2, left2, err2, heads, body, done, left, err)
		}
		for _, h := range heads {
			_, forward, _ := strings.Cut(h, "\n")
			again, _, _, _, err := answer(t, [][]byte{[]byte(forward + "\r\n")}, asked)
			if len(again) != 1 {
				t.Fatalf("%q is read again as %q, %v", forward, again, err)
			}
			if _, second, _ := strings.Cut(again[0], "\n"); second != forward {
				t.Fatalf("relayed as %q, then as %q", forward, second)
			}
		}
	})
}

// FuzzChunks: nothing panics; how the bytes were cut changes nothing; the end is found where a simple parser finds it.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\nGET"), uint8(1))
	f.Add([]byte("5;a=\"b\"\r\nhello\r\n0;x\r\nX-A: b\r\n\r\n"), uint8(4))
	f.Add([]byte("7fffffff\r\nx"), uint8(4))
	f.Add([]byte("0\r\n\r\n"), uint8(0))
	f.Fuzz(func(t *testing.T, raw []byte, size uint8) {
		run := func(size int) (string, int, error) {
			var d Decoder
			d.Start(BodyChunked, 0, 0)
			return decode(&d, pieces(raw, size))
		}
		out, left, err := run(0)
		out2, left2, err2 := run(int(size))
		if err != err2 || left != left2 || err == nil && out != out2 {
			t.Fatalf("in pieces of %d: %q %d %v; whole: %q %d %v", size, out2, left2, err2, out, left, err)
		}
		if err != nil {
			return
		}
		if taken := raw[:len(raw)-left]; !bytes.HasSuffix(taken, []byte("\r\n")) {
			t.Fatalf("the end %q is none", taken)
		}
		if rest, ok := skipChunks(string(raw)); ok && len(rest) != left {
			t.Fatalf("%d bytes left, a simple parser leaves %d", left, len(rest))
		}
	})
}
