package wire

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestIndexControl(t *testing.T) {
	naive := func(b []byte, i int) int {
		for ; i < len(b); i++ {
			if b[i] < ' ' || b[i] == 0x7f {
				break
			}
		}
		return i
	}
	// every byte at every place among every neighbour
	for c := range 256 {
		for _, around := range []byte{'a', ' ', 0x1f, 0x20, 0x7e, 0x7f, 0x80, 0x81, 0xff} {
			for at := range 40 {
				b := bytes.Repeat([]byte{around}, 40)
				b[at] = byte(c)
				for _, i := range []int{0, 3, at, 39} {
					if got, want := indexControl(b, i), naive(b, i); got != want {
						t.Fatalf("indexControl(%q, %d) = %d, want %d", b, i, got, want)
					}
				}
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		i := rapid.IntRange(0, len(b)).Draw(t, "i")
		if got, want := indexControl(b, i), naive(b, i); got != want {
			t.Fatalf("indexControl(%q, %d) = %d, want %d", b, i, got, want)
		}
	})
}

func TestEqualFold(t *testing.T) {
	f := func(a, b string, want bool) {
		t.Helper()
		if got := equalFold([]byte(a), b); got != want {
			t.Errorf("equalFold(%q, %q) = %v", a, b, got)
		}
		if got := equalFoldBytes([]byte(a), []byte(b)); got != want {
			t.Errorf("equalFoldBytes(%q, %q) = %v", a, b, got)
		}
	}
	f("X-Tenant-Id", "x-tenant-ID", true)
	f("x^", "x~", false) // tokens that differ in the bit of the case only
	f("@", "`", false)
	f("a", "ab", false)
	f("", "", true)
}
