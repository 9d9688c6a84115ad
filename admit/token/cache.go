package token

import (
	"crypto/sha256"
	"hash/maphash"
	"sync/atomic"
)

const (
	// maxRemembered is how many tokens a source remembers at once, in at most 15 MiB.
	maxRemembered = 64 << 10
	// ways is how many tokens with like hashes are remembered at once.
	ways = 8
)

// remembered is a token that was verified.
type remembered struct {
	sum    [sha256.Size]byte
	tenant []byte
	until  int64       // on the clock of now; then it has expired
	again  atomic.Bool // it came again since it was last passed over
}

// cache holds verified tokens by their SHA-256: what is found was seen before, bit by bit. Its size is fixed: 8-way sets, found by a
// seeded hash, so that nobody can aim at one. A newcomer takes the place of a token that has expired or has not come again; those
// that come again and again stay, whatever else is signed meanwhile.
//
// No operation takes a lock. When two tokens are added at a time, one may be lost, and is verified again.
type cache struct {
	seed maphash.Seed
	sets []cacheSet
}

// cacheSet keeps parts of the sums beside the tokens, so that a look-up touches only the token that it finds.
type cacheSet struct {
	tags   [ways]atomic.Uint32
	tokens [ways]atomic.Pointer[remembered] // never nil again
	last   atomic.Uint32                    // the way that was taken last
}

func newCache(capacity int) *cache {
	return &cache{seed: maphash.MakeSeed(), sets: make([]cacheSet, (capacity+ways-1)/ways)}
}

// at returns the set and the tag of a sum.
func (c *cache) at(sum *[sha256.Size]byte) (set *cacheSet, tag uint32) {
	h := maphash.Bytes(c.seed, sum[:])
	return &c.sets[h%uint64(len(c.sets))], uint32(h >> 32)
}

// find returns the token with this sum, nil when it is not remembered.
func (c *cache) find(sum *[sha256.Size]byte) *remembered {
	set, tag := c.at(sum)
	for i := range set.tags {
		if set.tags[i].Load() != tag {
			continue
		}
		if r := set.tokens[i].Load(); r != nil && r.sum == *sum {
			if !r.again.Load() { // a token that all requests bring is not written to by all of them
				r.again.Store(true)
			}
			return r
		}
	}
	return nil
}

// add remembers a token.
func (c *cache) add(now int64, r *remembered) {
	set, tag := c.at(&r.sum)
	way := set.room(now, r)
	set.tokens[way].Store(r)
	set.tags[way].Store(tag)
}

// room returns the way that a token takes: its own when another request was first, else one that is free or has expired, else the one
// that has waited longest among those whose token has not come again. When all have, they have to come again from here on.
func (s *cacheSet) room(now int64, r *remembered) int {
	free := -1
	for i := range s.tokens {
		switch old := s.tokens[i].Load(); {
		case old != nil && old.sum == r.sum:
			return i
		case old == nil || now >= old.until:
			free = i
		}
	}
	if free >= 0 {
		return free
	}
	last := s.last.Load()
	for range 2 {
		for i := range uint32(ways) {
			way := (last + 1 + i) % ways
			if old := s.tokens[way].Load(); !old.again.Load() {
				s.last.Store(way)
				return int(way)
			}
		}
		for i := range s.tokens {
			s.tokens[i].Load().again.Store(false)
		}
	}
	return int(last) // all of them came again just now
}
