package proxy

import (
	"strings"
	"testing"

	"weir/proxy/wire"
)

func scanRequest(t testing.TB, text string) *wire.Head {
	t.Helper()
	settings := wire.DefaultSettings()
	head := new(wire.Head)
	wire.ScanRequest(head, []byte(text), &settings)
	if head.Fault != wire.None {
		t.Fatalf("%v: %q", head.Fault, text)
	}
	return head
}

func scanAnswer(t testing.TB, text string) *wire.ResponseHead {
	t.Helper()
	settings := wire.DefaultSettings()
	head := new(wire.ResponseHead)
	if n, err := wire.ScanResponseHead(head, []byte(text), wire.Asked{}, &settings); n == 0 || err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	return head
}

func TestWhatMayBeKept(t *testing.T) {
	// f has fields of the request and of the answer, each line of them.
	f := func(request, answer string, anybody, want bool) {
		t.Helper()
		lines := func(text string) string {
			if text == "" {
				return "\r\n"
			}
			return strings.ReplaceAll(text, "\n", "\r\n") + "\r\n\r\n"
		}
		gotAnybody, got := mayBeKept(scanRequest(t, "GET / HTTP/1.1\r\nHost: h\r\n"+lines(request)),
			scanAnswer(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"+lines(answer)))
		if got != want || got && gotAnybody != anybody {
			t.Errorf("request %q, answer %q: got %v, for anybody %v; want %v, %v", request, answer, got, gotAnybody, want, anybody)
		}
	}
	// Nothing forbids it.
	f("", "", false, true)
	f("Accept: */*\nCache-Control: max-age=0", "ETag: \"a\"\nCache-Control: max-age=60, stale-if-error=600", false, true)
	// The request asks for a part, or for what depends on a state.
	f("Range: bytes=0-1", "", false, false)
	f("If-None-Match: \"a\"", "", false, false)
	f("If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT", "", false, false)
	f("If-Match: \"a\"", "", false, false)
	f("If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT", "", false, false)
	f("Content-Length: 2", "", false, false)
	f("Cache-Control: no-store", "Cache-Control: public", false, false)
	f("Cache-Control: max-age=0\nCache-Control: No-Cache", "", false, false)
	// The answer forbids it, in any form.
	f("", "Set-Cookie: a=b", false, false)
	f("", "Cache-Control: max-age=60\nCache-Control: No-Store", false, false)
	f("", "Cache-Control: public,no-cache=\"set-cookie\"", false, false)
	f("", "Cache-Control: PRIVATE", false, false)
	f("", "Cache-Control: public, must-revalidate", false, false)
	f("", "Cache-Control: public, proxy-revalidate", false, false)
	f("", "Cache-Control: s-maxage=60", false, false)
	// It may differ by more than the encoding, which is part of the key.
	f("", "Vary: Accept-Encoding", false, true)
	f("", "Vary: , accept-encoding ,", false, true)
	f("", "Vary: Accept-Encoding, Accept-Language", false, false)
	f("", "Vary: Accept-Encoding\nVary: Cookie", false, false)
	f("", "Vary: *", false, false)
	// With credentials, only what says that it is public, as a directive of its own.
	f("Authorization: Bearer a", "", false, false)
	f("Cookie: a=b", "Cache-Control: max-age=60", false, false)
	f("Authorization: Bearer a", "Cache-Control: max-age=60, Public", true, true)
	f("Cookie: a=b", "Cache-Control: max-age=60\nCache-Control: public", true, true)
	f("Cookie: a=b", "Cache-Control: publication=1", false, false)
	f("Cookie: a=b", "Cache-Control: a=\"b, public, c\"", false, false)
	f("", "Cache-Control: public", true, true)
}

func TestWhatIsKeptOfAHead(t *testing.T) {
	answer := scanAnswer(t, "HTTP/1.0 200 Fine\r\nDate: now\r\nage: 7\r\nContent-Length: 5\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Request-ID: theirs\r\n"+
		"RateLimit: \"a\";r=1\r\nRateLimit-Policy: \"a\";q=1\r\nX-RateLimit-Reset: 5\r\nRetry-After: 9\r\netag: \"e\"\r\n\r\n")
	if age := ageOf(answer); age != 7 {
		t.Errorf("it is %d old, want 7", age)
	}
	if got, want := string(keptHead(answer)), "HTTP/1.1 200 Fine\r\nDate: now\r\netag: \"e\"\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAgeOfAnAnswer(t *testing.T) {
	f := func(fields string, want int64) {
		t.Helper()
		if got := ageOf(scanAnswer(t, "HTTP/1.1 200 OK\r\n"+fields+"Content-Length: 0\r\n\r\n")); got != want {
			t.Errorf("%q: got %d, want %d", fields, got, want)
		}
	}
	f("", 0)
	f("Age: 60\r\n", 60)
	f("Age: -1\r\n", 0)
	f("Age: 1.5\r\n", 0)
	f("Age: 99999999999\r\n", 0)
	f("Age: 1\r\nAge: 2\r\n", 0)
}

// FuzzMayBeKept: whatever the fields are, an answer is not kept that has a word in them which forbids it, and one to a request with
// credentials only with the word that allows it.
func FuzzMayBeKept(f *testing.F) {
	f.Add("max-age=60, public", "Accept-Encoding", "", "")
	f.Add("private=\"x\"", "accept-encoding , ", "no-cache", "a=b")
	f.Add("pub\"lic, public", "*", "", "a")
	f.Fuzz(func(t *testing.T, control, vary, asked, cookie string) {
		for _, value := range []string{control, vary, asked, cookie} {
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return // no field at all
			}
		}
		request := "GET / HTTP/1.1\r\nHost: h\r\nCache-Control: " + asked + "\r\n"
		if cookie != "" {
			request += "Cookie: " + cookie + "\r\n"
		}
		settings := wire.DefaultSettings()
		var head wire.Head
		var answer wire.ResponseHead
		wire.ScanRequest(&head, []byte(request+"\r\n"), &settings)
		n, err := wire.ScanResponseHead(&answer, []byte("HTTP/1.1 200 OK\r\nCache-Control: "+control+"\r\nVary: "+vary+"\r\n\r\n"), wire.Asked{}, &settings)
		if head.Fault != wire.None || n == 0 || err != nil {
			return
		}
		anybody, ok := mayBeKept(&head, &answer)
		lower := strings.ToLower(control)
		for _, word := range []string{"no-store", "no-cache", "private", "revalidate", "s-maxage"} {
			if ok && strings.Contains(lower, word) {
				t.Errorf("kept despite %q", control)
			}
		}
		if ok && strings.Contains(strings.ToLower(asked), "no-store") || ok && strings.Contains(vary, "*") {
			t.Errorf("kept despite %q and %q", asked, vary)
		}
		if allowed := strings.Contains(lower, "public"); anybody && !allowed || ok && cookie != "" && !allowed {
			t.Errorf("kept for anybody, or for somebody with a cookie, by %q", control)
		}
	})
}
