package upstream

import "sync/atomic"

// stack is a lock-free last-in, first-out list of a pool's connections. A connection is in at most one stack at a time and
// is named by its index, so that the head can carry a version beside it: a head that was popped and pushed again in between
// is not mistaken for the same one. The zero value is empty. Safe for concurrent use.
type stack struct {
	head atomic.Uint64 // version << 32 | index+1 of the top; 0 in the low half: empty
}

func (s *stack) push(c *Conn) {
	for {
		head := s.head.Load()
		c.below.Store(uint32(head))
		if s.head.CompareAndSwap(head, (head>>32+1)<<32|uint64(c.index+1)) {
			return
		}
	}
}

// pop returns nil when the stack is empty. The table is loaded after the head, so it holds every index the head can name.
func (s *stack) pop(table *atomic.Pointer[[]*Conn]) *Conn {
	for {
		head := s.head.Load()
		if uint32(head) == 0 {
			return nil
		}
		c := (*table.Load())[uint32(head)-1]
		if s.head.CompareAndSwap(head, (head>>32+1)<<32|uint64(c.below.Load())) {
			return c
		}
	}
}
