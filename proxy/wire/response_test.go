package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// answer plays a backend's bytes through the scanners: every head, and the body of the last one.
func answer(t testing.TB, parts [][]byte, asked Asked) (heads []string, body string, done bool, left int, err error) {
	t.Helper()
	s := DefaultSettings()
	var h ResponseHead
	var d Decoder
	var buf []byte
	final := false
	for _, p := range parts {
		buf = append(buf, p...)
		for !final {
			n, err := ScanResponseHead(&h, buf, asked, &s)
			if err != nil {
				return heads, "", false, 0, err
			}
			if n == 0 {
				break
			}
			heads = append(heads, fmt.Sprintf("%d 1.%d body=%d/%d keep=%v interim=%v upgrade=%v\n%s", h.Status, h.Minor, h.Body, h.Length,
				h.KeepAlive, h.Interim, h.Upgrade, h.AppendForward(nil, 0)))
			buf = buf[n:]
			if final = !h.Interim; final {
				d.Start(h.Body, h.Length, 0)
			}
			h.Reset()
		}
		if final {
			n, used, err := d.Decode(buf)
			body += string(buf[:n])
			if err != nil {
				return heads, body, false, 0, err
			}
			buf = buf[used:]
		}
	}
	if !final {
		return heads, "", false, len(buf), errors.New("no head")
	}
	return heads, body, d.Done(), len(buf), d.End()
}

func TestCorpusResponses(t *testing.T) {
	// What the scanners make of each case: `refused`, `cut`, or the body, with what else decides about the connection.
	want := map[string]string{
		"resp-01": "200 ok reusable",
		"resp-02": "200 ok",
		"resp-04": "cut",
		"resp-05": "refused bad_chunk",
		"resp-07": "refused many_lengths",
		"resp-08": "refused bad_length",
		"resp-10": "refused bad_encoding",
		"resp-11": "200 ok extra",
		"resp-13": "304  reusable",
		"resp-14": "200 ok reusable",
		"resp-16": "many",
		"resp-17": "refused unasked_upgrade",
		"resp-19": "refused bare_line_end",
		"resp-20": "refused bad_field_value",
		"resp-22": "refused bad_status_line",
		"resp-23": "200 ok reusable",
		"resp-25": "refused bad_status_line",
		"resp-26": "refused bad_status_line",
		"resp-28": "refused bad_encoding",
		"resp-29": "200 ok",
		"resp-31": "200 ok reusable",
	}
	cases := loadCorpus(t).Responses
	if len(cases) != len(want) {
		t.Fatalf("%d cases, %d expectations", len(cases), len(want))
	}
	for _, c := range cases {
		for _, size := range []int{0, 1, 5} {
			heads, body, _, left, err := answer(t, pieces(latin1(c.Raw), size), Asked{})
			got := ""
			var cause Cause
			switch {
			case len(heads) > 20:
				got = "many" // interim answers without end are for whoever counts them
			case errors.As(err, &cause) && cause == BodyCut:
				got = "cut"
			case err != nil:
				got = "refused " + err.Error()
			default:
				last := heads[len(heads)-1]
				got = last[:3] + " " + body
				if left > 0 {
					got += " extra"
				} else if strings.Contains(last, "keep=true") {
					got += " reusable"
				}
			}
			if got != want[c.ID] {
				t.Errorf("%s (%s) in pieces of %d: %s, want %s", c.ID, c.Name, size, got, want[c.ID])
			}
		}
	}
}

func TestResponseHeads(t *testing.T) {
	f := func(raw string, asked Asked, want string) {
		t.Helper()
		var h ResponseHead
		s := DefaultSettings()
		n, err := ScanResponseHead(&h, []byte(raw+"left over"), asked, &s)
		if err != nil || n != len(raw) {
			t.Fatalf("%q: %d %v", raw, n, err)
		}
		got := fmt.Sprintf("%d %q 1.%d body=%d/%d keep=%v interim=%v upgrade=%v\n%s", h.Status, h.Reason, h.Minor, h.Body, h.Length,
			h.KeepAlive, h.Interim, h.Upgrade, h.AppendForward(nil, 0))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", raw, diff)
		}
	}
	plain, head := Asked{}, Asked{Head: true}
	// framing by length, chunks, close
	f("HTTP/1.1 200 OK\r\ncontent-LENGTH: 05\r\nA: 1\r\n\r\n", plain,
		"200 \"OK\" 1.1 body=1/5 keep=true interim=false upgrade=false\nHTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\nA: 1\r\n")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", plain,
		"200 \"OK\" 1.1 body=2/0 keep=true interim=false upgrade=false\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n")
	f("HTTP/1.1 200\r\nA: 1\r\n\r\n", plain, "200 \"\" 1.1 body=3/0 keep=false interim=false upgrade=false\nHTTP/1.1 200 \r\nA: 1\r\n")
	// HTTP/1.0 closes unless it says otherwise; the client is spoken to in 1.1
	f("HTTP/1.0 599 x \xe9\r\nContent-Length: 1\r\n\r\n", plain,
		"599 \"x \\xe9\" 1.0 body=1/1 keep=false interim=false upgrade=false\nHTTP/1.1 599 x \xe9\r\nContent-Length: 1\r\n")
	f("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n", plain,
		"200 \"OK\" 1.0 body=1/1 keep=true interim=false upgrade=false\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n")
	// no body: HEAD keeps its length, 304 too, 204 and 1xx have none to tell; no chunks without a body
	f("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", head,
		"200 \"OK\" 1.1 body=0/0 keep=true interim=false upgrade=false\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", head,
		"200 \"OK\" 1.1 body=0/0 keep=true interim=false upgrade=false\nHTTP/1.1 200 OK\r\n")
	f("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", plain,
		"304 \"Not Modified\" 1.1 body=0/0 keep=true interim=false upgrade=false\nHTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n")
	f("HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", plain,
		"204 \"No Content\" 1.1 body=0/0 keep=true interim=false upgrade=false\nHTTP/1.1 204 No Content\r\n")
	f("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", plain,
		"103 \"Early Hints\" 1.1 body=0/0 keep=true interim=true upgrade=false\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n")
	// hop-by-hop and nominated fields go
	f("HTTP/1.1 200 OK\r\nConnection: X-a, close\r\nx-A: 1\r\nKeep-Alive: 1\r\nProxy-Authenticate: x\r\nUpgrade: h2\r\nTrailer: x\r\nB: 2\r\nContent-Length: 0\r\n\r\n",
		plain, "200 \"OK\" 1.1 body=1/0 keep=false interim=false upgrade=false\nHTTP/1.1 200 OK\r\nB: 2\r\nContent-Length: 0\r\n")
	// an upgrade that was asked for
	f("HTTP/1.1 101 Go\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\nA: 1\r\n\r\n", Asked{Upgrade: true},
		"101 \"Go\" 1.1 body=0/0 keep=false interim=false upgrade=true\nHTTP/1.1 101 Go\r\nA: 1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
}

// TestDroppedFields: a field that is dropped is not passed on, and can be read all the same.
func TestDroppedFields(t *testing.T) {
	s := DefaultSettings()
	var h ResponseHead
	text := "HTTP/1.1 200 OK\r\nA: 1\r\nConnection: B\r\nB: 2\r\nC: 3\r\nC: 4\r\nContent-Length: 0\r\n\r\n"
	if _, err := ScanResponseHead(&h, []byte(text), Asked{}, &s); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for i := range h.List {
		if h.Kept(i) {
			kept = append(kept, string(h.Name(i)))
		}
	}
	if diff := cmp.Diff([]string{"A", "C", "C", "Content-Length"}, kept); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	h.Drop(0)
	h.Drop(4)
	if got, want := string(h.AppendForward(nil, 0)), "HTTP/1.1 200 OK\r\nC: 3\r\nContent-Length: 0\r\n"; got != want {
		t.Errorf("passed on %q, want %q", got, want)
	}
	if h.Kept(0) || !h.Kept(3) || string(h.Value(4)) != "4" {
		t.Errorf("kept %v and %v, the value of the dropped field is %q", h.Kept(0), h.Kept(3), h.Value(4))
	}
}

func TestResponseFaults(t *testing.T) {
	f := func(raw string, asked Asked, want Cause) {
		t.Helper()
		s := DefaultSettings()
		s.HeaderBytes, s.HeaderCount = 200, 3
		var h ResponseHead
		if n, err := ScanResponseHead(&h, []byte(raw), asked, &s); n != 0 || err != want {
			t.Errorf("%q: %d %v, want %v", raw, n, err, want)
		}
	}
	for _, bad := range []string{"HTTP/1.1", "HTTP/1.2 200 OK", "http/1.1 200 OK", "HTTP/1.1  200 OK", "HTTP/1.1 099 x", "HTTP/1.1 600 x",
		"HTTP/1.1 20 OK", "HTTP/1.1 2000 x", "HTTP/1.1 20x x", "HTTP/1.1 200OK", "HTTP/1.1 200 O\x00K", "HTTP/1.1 200 O\x7fK", "ICY 200 OK"} {
		f(bad+"\r\n\r\n", Asked{}, BadStatusLine)
	}
	f("HTTP/1.1 200 OK\n\n", Asked{}, BareLineEnd)
	f("HTTP/1.1 200 OK\r\nA: 1\n\r\n", Asked{}, BareLineEnd)
	f("HTTP/1.1 200 OK\r\nA: 1\r\n b\r\n\r\n", Asked{}, FoldedField)
	f("HTTP/1.1 200 OK\r\nA : 1\r\n\r\n", Asked{}, SpaceBeforeColon)
	f("HTTP/1.1 200 OK\r\nA\r\n\r\n", Asked{}, BadFieldName)
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", Asked{}, LengthAndEncoding)
	f("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Asked{}, ManyLengths)
	f("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Asked{Head: true}, ManyLengths)
	f("HTTP/1.1 101 x\r\nConnection: upgrade\r\n\r\n", Asked{Upgrade: true}, UnaskedUpgrade)
	f("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", Asked{Upgrade: true}, UnaskedUpgrade)
	f("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n", Asked{Upgrade: true}, UnaskedUpgrade)
	f("HTTP/1.1 200 OK\r\nA: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\n\r\n", Asked{}, TooManyFields)
	f("HTTP/1.1 200 OK\r\nA: "+strings.Repeat("x", 200), Asked{}, HeaderTooLarge)
	if BadStatusLine.Status() != 502 || UnaskedUpgrade.Status() != 502 {
		t.Error("what only a backend can do is not 502")
	}
}
