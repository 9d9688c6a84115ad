package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of what is kept.
const (
	mostStale      = 4096      // answers
	mostStaleBytes = 64 << 20  // of memory, for all of them
	mostStaleOne   = 256 << 10 // of memory, for the head and the body of one
	// mostKeeping is how many answers are being copied at once. Until they are whole they are not among the others.
	mostKeeping = 64
	// staleOverhead is about what an answer takes besides its bytes: itself and its place in the map.
	staleOverhead = 256
	// staleRenewal is how old an answer is at least before it is replaced. A busy route copies an answer now and then, and not each.
	staleRenewal = int64(time.Second)
)

// staleStore keeps the last good answers of routes with `staleFor`, for when a breaker lets nobody ask for new ones. What is full
// forgets the oldest: an answer that is asked for often is renewed often, as long as its backend answers. The zero
// value is empty and takes no memory. Safe for concurrent use.
type staleStore struct {
	mu      sync.Mutex
	answers map[string]*staleAnswer // by key; nil before the first
	ends    staleAnswer             // of the list of all, as old as they are: ends.newer is the oldest, ends.older the newest
	bytes   int

	keeping atomic.Int64
}

// staleAnswer is an answer that was kept. Nothing of it changes once it is in the store, but for its place in the list.
type staleAnswer struct {
	key, route string
	staleFor   time.Duration
	at         int64  // when its head came
	age        int64  // how many seconds old it was then
	anybody    bool   // it says that it is for whoever asks, with credentials or without
	head       []byte // as it came, without what is ours or changes; the empty line is missing
	body       []byte

	older, newer *staleAnswer
}

func (a *staleAnswer) size() int { return len(a.key) + cap(a.head) + cap(a.body) + staleOverhead }

func (a *staleAnswer) expired(now int64) bool { return now-a.at >= int64(a.staleFor) }

// get returns the answer that is kept under a key; nil when there is none that is young enough.
func (s *staleStore) get(key []byte, now int64) *staleAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.answers[string(key)]; a != nil && !a.expired(now) {
		return a
	}
	return nil
}

// begin says whether an answer may be kept under a key: whoever is told so ends it with put or giveUp.
func (s *staleStore) begin(key []byte, now int64) bool {
	s.mu.Lock()
	old := s.answers[string(key)]
	s.mu.Unlock()
	if old != nil && now-old.at < staleRenewal {
		return false
	}
	if s.keeping.Add(1) > mostKeeping {
		s.keeping.Add(-1)
		return false
	}
	return true
}

// giveUp ends what begin began, without an answer.
func (s *staleStore) giveUp() { s.keeping.Add(-1) }

// put keeps a whole answer, in the place of an older one of the same key.
func (s *staleStore) put(a *staleAnswer) {
	s.giveUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.answers[a.key]; old != nil {
		s.remove(old)
	}
	if s.answers == nil {
		s.answers = make(map[string]*staleAnswer)
		s.ends.older, s.ends.newer = &s.ends, &s.ends
	}
	a.older, a.newer = s.ends.older, &s.ends
	a.older.newer, a.newer.older = a, a
	s.answers[a.key] = a
	s.bytes += a.size()
	for len(s.answers) > mostStale || s.bytes > mostStaleBytes {
		s.remove(s.ends.newer)
	}
}

// expire forgets answers that are too old to be given, the oldest first.
func (s *staleStore) expire(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.answers) > 0 && s.ends.newer.expired(now) {
		s.remove(s.ends.newer)
	}
}

// retire forgets the answers of routes that do not keep theirs for as long any more.
func (s *staleStore) retire(staleFor map[string]time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.answers {
		if staleFor[a.route] != a.staleFor {
			s.remove(a)
		}
	}
}

func (s *staleStore) remove(a *staleAnswer) {
	a.older.newer, a.newer.older = a.newer, a.older
	s.bytes -= a.size()
	if delete(s.answers, a.key); len(s.answers) == 0 {
		s.answers = nil
	}
}

// held returns how many answers are kept, and the memory that they take.
func (s *staleStore) held() (answers, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.answers), s.bytes
}
