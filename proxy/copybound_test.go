package proxy

import "testing"

// A thousand clients that read slowly must not hold half a gigabyte.
func TestLargeCopiesAreBounded(t *testing.T) {
	var c copies
	c.init()
	grown := func() *copyBuffer {
		b := c.get()
		for range 2 {
			b.filled(len(b.room()))
		}
		return &b
	}
	var lent []*copyBuffer
	for range maxLargeCopies {
		lent = append(lent, grown())
	}
	for i, b := range lent {
		if !b.large() {
			t.Fatalf("buffer %d has not grown", i)
		}
	}
	late := grown()
	if late.large() {
		t.Fatalf("more than %d large buffers are lent", maxLargeCopies)
	}
	// Once one is given back, the next full piece gets it.
	lent[0].release()
	late.filled(len(late.room()))
	if !late.large() {
		t.Error("a large buffer that was given back is not lent again")
	}
	late.release()
	for _, b := range lent[1:] {
		b.release()
	}
	if n := c.lent.Load(); n != 0 {
		t.Errorf("%d large buffers are lent after the end", n)
	}
}
