package proxy

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// kept is an answer of a route that keeps them for a minute.
func kept(key string, at int64, size int) *staleAnswer {
	return &staleAnswer{key: key, route: "r", staleFor: time.Minute, at: at, body: make([]byte, size)}
}

// keep puts an answer into the store as an exchange does.
func (s *staleStore) keep(t *testing.T, a *staleAnswer) {
	t.Helper()
	if !s.begin([]byte(a.key), a.at) {
		t.Fatalf("%s at %d may not be kept", a.key, a.at)
	}
	s.put(a)
}

func (s *staleStore) wantHeld(t *testing.T, answers int) {
	t.Helper()
	sum, listed := 0, 0
	for a := s.ends.newer; a != nil && a != &s.ends; a = a.newer {
		sum, listed = sum+a.size(), listed+1
	}
	if n, bytes := s.held(); n != answers || listed != answers || bytes != sum {
		t.Errorf("%d answers with %d bytes are kept, %d with %d listed; want %d", n, bytes, listed, sum, answers)
	}
}

func TestStaleStoreTakesNothingBeforeTheFirst(t *testing.T) {
	var s staleStore
	if s.get([]byte("k"), 0) != nil || s.answers != nil {
		t.Error("something is there")
	}
	s.expire(1 << 60)
	s.retire(nil)
	s.wantHeld(t, 0)
	s.keep(t, kept("k", 0, 1))
	s.expire(int64(time.Minute))
	if s.wantHeld(t, 0); s.answers != nil {
		t.Error("nothing is kept, and there is a map for it")
	}
}

func TestStaleStoreGivesWhatIsYoungEnough(t *testing.T) {
	var s staleStore
	a := kept("k", 5, 1)
	s.keep(t, a)
	f := func(key string, now int64, want *staleAnswer) {
		t.Helper()
		if got := s.get([]byte(key), now); got != want {
			t.Errorf("%s at %d: got %v, want %v", key, now, got, want)
		}
	}
	f("k", 5, a)
	f("k", 4+int64(time.Minute), a)
	f("k", 5+int64(time.Minute), nil)
	f("j", 5, nil)
}

// A newer answer takes the place of an older one, not more often than once in a second.
func TestStaleStoreRenews(t *testing.T) {
	var s staleStore
	s.keep(t, kept("k", 0, 10))
	if s.begin([]byte("k"), staleRenewal-1) {
		t.Error("a young answer is replaced")
	}
	b := kept("k", staleRenewal, 1000)
	s.keep(t, b)
	if got := s.get([]byte("k"), staleRenewal); got != b {
		t.Errorf("got %v, want the newer one", got)
	}
	s.wantHeld(t, 1)
}

// What is full forgets the oldest: by number, and by memory.
func TestStaleStoreIsBounded(t *testing.T) {
	f := func(size, most int) {
		t.Helper()
		var s staleStore
		for i := range most + 10 {
			s.keep(t, kept(fmt.Sprintf("%09d", i), int64(i), size))
		}
		s.wantHeld(t, most)
		if _, bytes := s.held(); bytes > mostStaleBytes {
			t.Errorf("%d bytes are kept, want at most %d", bytes, mostStaleBytes)
		}
		for i := range 20 {
			if got := s.get(fmt.Appendf(nil, "%09d", i), 0); (got == nil) != (i < 10) {
				t.Errorf("answer %d of %d: %v", i, most+10, got)
			}
		}
	}
	f(100, mostStale)
	f(mostStaleOne, mostStaleBytes/(mostStaleOne+9+staleOverhead))
}

// Answers under way take memory, too, before they are among the others.
func TestStaleStoreBoundsWhatIsUnderWay(t *testing.T) {
	var s staleStore
	for i := range mostKeeping {
		if !s.begin(fmt.Appendf(nil, "%d", i), 0) {
			t.Fatalf("only %d are under way", i)
		}
	}
	if s.begin([]byte("one more"), 0) {
		t.Errorf("more than %d are under way", mostKeeping)
	}
	s.giveUp()
	s.keep(t, kept("one more", 0, 1))
	if !s.begin([]byte("another"), 0) {
		t.Error("whoever is done makes no room")
	}
}

func TestStaleStoreRetires(t *testing.T) {
	var s staleStore
	for i, route := range []string{"same", "shorter", "gone"} {
		a := kept(route, int64(i), 1)
		a.route = route
		s.keep(t, a)
	}
	s.retire(map[string]time.Duration{"same": time.Minute, "shorter": time.Second})
	s.wantHeld(t, 1)
	if s.get([]byte("same"), 0) == nil {
		t.Error("an answer of a route that is the same was forgotten")
	}
}

// Everything at once, for the race detector.
func TestStaleStoreConcurrently(t *testing.T) {
	var s staleStore
	var done sync.WaitGroup
	for g := range 4 {
		done.Go(func() {
			for i := range 2000 {
				now := int64(i) * staleRenewal / 10
				key := fmt.Appendf(nil, "%d", (g+i)%7)
				if a := s.get(key, now); a != nil && a.key != string(key) {
					t.Errorf("%s under %s", a.key, key)
				}
				if s.begin(key, now) {
					s.put(kept(string(key), now, i%100))
				}
				s.expire(now - int64(time.Second))
			}
		})
	}
	done.Wait()
	if s.keeping.Load() != 0 {
		t.Errorf("%d are under way", s.keeping.Load())
	}
	s.expire(1 << 62)
	s.wantHeld(t, 0)
}
