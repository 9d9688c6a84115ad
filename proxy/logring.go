package proxy

import "sync/atomic"

// logRing is how many lines may wait for the writer; a power of two.
const logRing = 4096

// keepLine is the longest line whose memory is kept for the next one.
const keepLine = 2 << 10

// lineRing carries lines from many requests to one writer. It blocks nobody and allocates nothing once its lines have grown:
// a line that finds it full is lost. It is D. Vyukov's bounded queue: each slot says by a sequence number whose turn it is.
type lineRing struct {
	tail  atomic.Uint64 // the next line to be put
	_     [56]byte      // the reader's side has a cache line of its own
	head  uint64        // the next line to be taken
	slots [logRing]lineSlot
}

type lineSlot struct {
	turn atomic.Uint64 // n: the n-th line may be put here; n+1: it may be taken
	line []byte
}

func newLineRing() *lineRing {
	r := new(lineRing)
	for i := range r.slots {
		r.slots[i].turn.Store(uint64(i))
	}
	return r
}

// put adds a copy of the line; false when there is no room. Safe for concurrent use.
func (r *lineRing) put(line []byte) bool {
	for {
		n := r.tail.Load()
		slot := &r.slots[n%logRing]
		switch turn := slot.turn.Load(); {
		case turn < n: // of a round ago, and not taken yet
			return false
		case turn == n && r.tail.CompareAndSwap(n, n+1):
			slot.line = append(slot.line[:0], line...)
			slot.turn.Store(n + 1)
			return true
		}
	}
}

// take appends the oldest line to dst; false when there is none. Only the reader calls it.
func (r *lineRing) take(dst []byte) ([]byte, bool) {
	slot := &r.slots[r.head%logRing]
	if slot.turn.Load() != r.head+1 {
		return dst, false
	}
	dst = append(dst, slot.line...)
	if cap(slot.line) > keepLine {
		slot.line = nil
	}
	slot.turn.Store(r.head + logRing)
	r.head++
	return dst, true
}
