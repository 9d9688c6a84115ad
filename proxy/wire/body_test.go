package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// decode plays parts through a decoder and reports what came out, how it ended and how many bytes were not the body's.
func decode(d *Decoder, parts [][]byte) (out string, left int, err error) {
	for i, p := range parts {
		want := d.Want()
		n, used, err := d.Decode(p)
		out += string(p[:n])
		if err != nil {
			return out, 0, err
		}
		if d.Done() {
			left = len(p) - used
			for _, rest := range parts[i+1:] {
				left += len(rest)
			}
			if want > int64(used) {
				return out, left, fmt.Errorf("Want was %d when %d bytes were left", want, used)
			}
			return out, left, nil
		}
		if used != len(p) {
			return out, 0, fmt.Errorf("%d of %d bytes used without an end", used, len(p))
		}
	}
	return out, 0, d.End()
}

func TestChunks(t *testing.T) {
	f := func(raw, want string, left int) {
		t.Helper()
		for size := range 8 {
			var d Decoder
			d.Start(BodyChunked, 0, 0)
			got, n, err := decode(&d, pieces([]byte(raw), size))
			if got != want || n != left || err != nil || !d.Done() || d.Total() != int64(len(want)) || d.Want() != 0 {
				t.Errorf("%q in pieces of %d: %q, %d left, %v", raw, size, got, n, err)
			}
		}
	}
	f("0\r\n\r\n", "", 0)
	f("5\r\nhello\r\n0\r\n\r\n", "hello", 0)
	f("5\r\nhello\r\n6\r\n world\r\n000\r\n\r\nGET /", "hello world", 5)
	f("00000000000000A\r\n0123456789\r\n0\r\n\r\n", "0123456789", 0)
	f("1;a\r\nx\r\n1;a=b;c=\"d e\"\r\ny\r\n0;x\r\n\r\n", "xy", 0)
	f("1;"+strings.Repeat("a", maxExtension-1)+"\r\nx\r\n0\r\n\r\n", "x", 0)
	// trailers are checked and dropped
	f("1\r\nx\r\n0\r\nX-Sum: 1\r\nY:\r\nZ: \t \xe9\r\n\r\nmore", "x", 4)
	f("0\r\nA: "+strings.Repeat("b", maxTrailer-len("A: \r\n\r\n"))+"\r\n\r\n", "", 0)
}

func TestChunkFaults(t *testing.T) {
	f := func(raw string, want Cause) {
		t.Helper()
		for size := range 8 {
			var d Decoder
			d.Start(BodyChunked, 0, 0)
			_, _, err := decode(&d, pieces([]byte(raw), size))
			if err != want || d.Done() {
				t.Errorf("%q in pieces of %d: %v, want %v", raw, size, err, want)
			}
			// the cause stays
			if n, used, err := d.Decode([]byte("0\r\n\r\n")); n != 0 || used != 0 || err != want || d.End() != want || d.Want() != 0 {
				t.Errorf("%q: went on with %d %d %v", raw, n, used, err)
			}
		}
	}
	for _, bad := range []string{"\r\n", "g\r\n", " 1\r\n", "1 \r\n", "+1\r\n", "0x1\r\n", "1,\r\n", "1\n", "1\rx", "80000000\r\n",
		"fffffffffffffffff\r\n", "00000000000000001\r\n", "1;a\n", "1;a\rb", "1;\"a\r\n", "1;\x00\r\n", "1;\x7f\r\n",
		"1\r\nxy\r\n", "1\r\nx\n", "1\r\nx\rx", "0\n"} {
		f(bad, BadChunk)
	}
	f("1;"+strings.Repeat("a", maxExtension+1), ExtensionTooLong)
	// short extensions, but far more of them than data
	f(strings.Repeat("1;"+strings.Repeat("a", 100)+"\r\nx\r\n", 50), ExtensionTooLong)
	for _, bad := range []string{"0\r\n A: b\r\n\r\n", "0\r\nA b\r\n", "0\r\nA\r\n", "0\r\n:b\r\n", "0\r\nA: b\n", "0\r\nA: b\rc", "0\r\nA: \x00", "0\r\n\rx", "0\r\nA: b\r\n c"} {
		f(bad, BadTrailer)
	}
	f("0\r\nA: "+strings.Repeat("b", maxTrailer), TrailerTooLarge)
	// every way to end early
	whole := "5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n"
	for i := range len(whole) {
		f(whole[:i], BodyCut)
	}
}

func TestDecoder(t *testing.T) {
	f := func(body Body, length, most int64, raw, want string, left int, wantErr error) {
		t.Helper()
		for size := range 6 {
			var d Decoder
			d.Start(body, length, most)
			got, n, err := decode(&d, pieces([]byte(raw), size))
			if err != wantErr || err == nil && (got != want || n != left || !d.Done()) {
				t.Errorf("%d/%d %q in pieces of %d: %q, %d left, %v", body, length, raw, size, got, n, err)
			}
		}
	}
	f(BodyNone, 0, 0, "GET /", "", 5, nil)
	f(BodyLength, 0, 0, "GET /", "", 5, nil)
	f(BodyLength, 3, 0, "abcGET /", "abc", 5, nil)
	f(BodyLength, 3, 0, "ab", "", 0, BodyCut)
	f(BodyLength, 3, 0, "", "", 0, BodyCut)
	f(BodyToClose, 0, 0, "abc", "abc", 0, nil)
	f(BodyToClose, 0, 0, "", "", 0, nil)
	// the bound is on decoded bytes
	f(BodyChunked, 0, 3, "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "abc", 0, nil)
	f(BodyChunked, 0, 3, "2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n", "", 0, BodyTooLong)
	// the zero value is a message without body
	var d Decoder
	if d.Start(BodyNone, 0, 0); !d.Done() || d.End() != nil {
		t.Error("a message without body is not done")
	}
}

// Whatever the chunks, however they are cut: the body is the same, nothing of the next message is taken, and Want is a
// promise.
func TestChunksAnySplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chunks := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 1, 40)).Draw(t, "chunks")
		var raw, body []byte
		for _, c := range chunks {
			raw = fmt.Appendf(raw, "%0*x\r\n%s\r\n", rapid.IntRange(1, 5).Draw(t, "digits"), len(c), c)
			body = append(body, c...)
		}
		raw = append(raw, "0\r\n\r\nnext"...)
		var parts [][]byte
		for rest := bytes.Clone(raw); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "part")
			parts, rest = append(parts, rest[:n:n]), rest[n:]
		}
		var d Decoder
		d.Start(BodyChunked, 0, 0)
		got, left, err := decode(&d, parts)
		if got != string(body) || left != len("next") || err != nil {
			t.Fatalf("%q: %q, %d left, %v", raw, got, left, err)
		}
	})
}

func TestDecodeAllocations(t *testing.T) {
	raw := []byte("5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n")
	buf := make([]byte, len(raw))
	var d Decoder
	if n := testing.AllocsPerRun(100, func() {
		copy(buf, raw)
		d.Start(BodyChunked, 0, 0)
		if _, _, err := d.Decode(buf); err != nil || !d.Done() {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
