package proxy

import (
	"sync"
	"sync/atomic"
)

const (
	// smallCopy is the buffer that a body begins with, largeCopy the one it gets when it keeps coming: with large pieces a
	// copy costs less than splicing.
	smallCopy = 32 << 10
	largeCopy = 512 << 10
	// maxLargeCopies is how many large buffers are lent at once. Clients that read slowly keep theirs for long.
	maxLargeCopies = 64
	// chunkRoom is left before a piece for its chunk size and line end, and chunkTail after it for its line end and the last chunk.
	chunkRoom = len("80000\r\n")
	chunkTail = len("\r\n" + lastChunk)

	lastChunk = "0\r\n\r\n"
)

// copies lends buffers for copying bodies. Safe for concurrent use; the zero value is not usable.
type copies struct {
	small, large sync.Pool
	lent         atomic.Int64 // large ones
}

func (c *copies) init() {
	c.small.New = func() any { b := make([]byte, smallCopy); return &b }
	c.large.New = func() any { b := make([]byte, largeCopy); return &b }
}

// copyBuffer is the memory that one body is copied through: pieces are read into its room, and written from there with
// their chunk framing around them.
type copyBuffer struct {
	from *copies
	buf  *[]byte
	full int // pieces in a row that filled the room
}

func (c *copies) get() copyBuffer { return copyBuffer{from: c, buf: c.small.Get().(*[]byte)} }

func (b *copyBuffer) large() bool { return len(*b.buf) == largeCopy }

// release gives the memory back; that of the zero value is none.
func (b *copyBuffer) release() {
	if b.buf == nil {
		return
	}
	if b.large() {
		b.from.large.Put(b.buf)
		b.from.lent.Add(-1)
	} else {
		b.from.small.Put(b.buf)
	}
}

// room is where to read into.
func (b *copyBuffer) room() []byte { return (*b.buf)[chunkRoom : len(*b.buf)-chunkTail] }

// piece is the n bytes that were read.
func (b *copyBuffer) piece(n int) []byte { return (*b.buf)[chunkRoom : chunkRoom+n] }

// chunk puts the chunk's size before the piece and its line end after it, in place. The last chunk follows at once when the
// end is known.
func (b *copyBuffer) chunk(n int, last bool) []byte {
	out := b.piece(0)
	if n > 0 {
		var size [chunkRoom]byte
		head := append(appendHex(size[:0], n), "\r\n"...)
		start := chunkRoom - len(head)
		copy((*b.buf)[start:], head)
		out = append((*b.buf)[start:chunkRoom+n], "\r\n"...)
	}
	if last {
		out = append(out, lastChunk...)
	}
	return out
}

// filled notes that a piece of n bytes was copied and more follows: a body that fills the room again and again gets more.
func (b *copyBuffer) filled(n int) {
	if n < len(b.room()) {
		b.full = 0
		return
	}
	if b.full++; b.full < 2 || b.large() {
		return
	}
	if b.from.lent.Add(1) > maxLargeCopies {
		b.from.lent.Add(-1)
		return
	}
	b.from.small.Put(b.buf)
	b.buf = b.from.large.Get().(*[]byte)
}

// appendChunkedStart appends the first piece of a chunked body, and its end when that is known already.
func appendChunkedStart(dst, piece []byte, last bool) []byte {
	if len(piece) > 0 {
		dst = append(appendHex(dst, len(piece)), "\r\n"...)
		dst = append(append(dst, piece...), "\r\n"...)
	}
	if last {
		dst = append(dst, lastChunk...)
	}
	return dst
}

func appendHex(dst []byte, n int) []byte {
	const digits = "0123456789abcdef"
	shift := 0
	for n>>shift > 15 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[n>>shift&15])
	}
	return dst
}
