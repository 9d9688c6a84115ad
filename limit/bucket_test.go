package limit

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestBucket plays one bucket through all of its methods.
func TestBucket(t *testing.T) {
	slow, fast := mustRate(t, 1, time.Second, 10), mustRate(t, 2, time.Second, 10)
	b := NewBucket(slow)
	f := func(now int64, wantAvailable int64, wantFullIn time.Duration) {
		t.Helper()
		if got := b.Available(now); got != wantAvailable {
			t.Errorf("Available = %d, want %d", got, wantAvailable)
		}
		if got := b.FullIn(now); got != wantFullIn {
			t.Errorf("FullIn = %v, want %v", got, wantFullIn)
		}
		if got := b.Full(now); got != (wantFullIn == 0) {
			t.Errorf("Full = %v, but it is full in %v", got, wantFullIn)
		}
		if got := b.Level(now); got.Available != wantAvailable || got.Full != wantFullIn {
			t.Errorf("Level = %+v, want %d, and full in %v", got, wantAvailable, wantFullIn)
		}
	}
	// A new bucket is full.
	f(0, 10, 0)
	if d := b.Take(second, 10); !d.OK {
		t.Fatalf("Take of a full bucket = %+v", d)
	}
	f(second, 0, 10*time.Second)
	// A refund comes back.
	b.Refund(4)
	f(second, 4, 6*time.Second)
	// A new rate keeps the debt.
	b.Set(second, fast)
	f(second, 4, 3*time.Second)
	if b.Rate() != fast {
		t.Errorf("Rate = %+v, want the one set", b.Rate())
	}
	// A refund of what an earlier rate took comes back in full.
	b.Refund(5)
	f(second, 9, 500*time.Millisecond)
	if diff := cmp.Diff(Decision{RetryAfter: 500 * time.Millisecond, Remaining: 9}, b.Take(second, 10)); diff != "" {
		t.Errorf("Take (-want +got):\n%s", diff)
	}
	f(second+second/2, 10, 0)
}

// TestCopy takes, refunds and sets on a copy: the bucket it was made of does not notice, and the other way round.
func TestCopy(t *testing.T) {
	slow, fast := mustRate(t, 1, time.Second, 10), mustRate(t, 2, time.Second, 20)
	b := NewBucket(slow)
	b.Take(second, 3)
	b.Set(second, fast) // the copy is of what holds now
	c := b.Copy()
	f := func(wantBucket, wantCopy int64) {
		t.Helper()
		if got := [2]int64{b.Available(second), c.Available(second)}; got != [2]int64{wantBucket, wantCopy} {
			t.Errorf("bucket and copy have %d, want %d and %d", got, wantBucket, wantCopy)
		}
	}
	f(17, 17)
	c.Take(second, 5)
	f(17, 12)
	// Asking is neither.
	if diff := cmp.Diff(Decision{RetryAfter: 500 * time.Millisecond, Remaining: 12}, c.Ask(second, 13)); diff != "" {
		t.Errorf("Ask (-want +got):\n%s", diff)
	}
	if d := c.Ask(second, 12); !d.OK || d.Remaining != 0 {
		t.Errorf("Ask = %+v, want the answer of Take", d)
	}
	f(17, 12)
	b.Refund(1)
	f(18, 12)
	c.Set(second, slow)
	b.Take(second, 18)
	f(0, 2)
}

// TestSetConservesDebt empties a bucket and changes its rate 300 times at one instant, as shares do, burst and all.
func TestSetConservesDebt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := magnitude(0, int64(24*time.Hour)).Draw(t, "now")
		r := mustRate(t, 1000, time.Second, 500)
		b := NewBucket(r)
		b.Take(now, 500)
		for range 300 {
			requests := rapid.Int64Range(1, 2000).Draw(t, "requests")
			burst := rapid.Int64Range(1, 2000).Draw(t, "burst")
			b.Set(now, mustRate(t, requests, time.Second, burst))
		}
		b.Set(now, r)
		// Each Set rounds up by less than 1/16 ns at its own rate, which is 2/16 ns at 1000/s when that was 2000/s.
		got, slack := b.FullIn(now), 301*2*time.Nanosecond/16+1
		if got < 500*time.Millisecond || got > 500*time.Millisecond+slack {
			t.Fatalf("the debt of 500 ms is %v after 300 changes", got)
		}
	})
}

// TestSetEqual sees that an equal rate changes nothing, not even the pointer.
func TestSetEqual(t *testing.T) {
	r := mustRate(t, 7, time.Second, 10)
	b := NewBucket(r)
	b.Take(0, 10)
	epoch := b.current.Load()
	b.Set(second, mustRate(t, 7, time.Second, 10))
	if b.current.Load() != epoch || b.Rate() != r {
		t.Errorf("an equal rate began a new epoch")
	}
}

// TestLateTakeFollowsSet holds an epoch as a Take does that was interrupted, while two Sets pass.
func TestLateTakeFollowsSet(t *testing.T) {
	r := mustRate(t, 1, time.Second, 10)
	b := NewBucket(r)
	old := b.current.Load()
	b.Take(0, 3)
	b.Set(0, mustRate(t, 2, time.Second, 10))
	b.Set(0, r)
	current := b.current.Load()
	b.current.Store(old)
	if got := b.Available(0); got != 7 {
		t.Errorf("Available through an old epoch = %d, want 7", got)
	}
	if d := b.Take(0, 2); !d.OK || d.Remaining != 5 {
		t.Errorf("Take through an old epoch = %+v, want OK and 5 left", d)
	}
	b.Refund(1)
	b.current.Store(current)
	if got := b.Available(0); got != 6 {
		t.Errorf("Available = %d after a Take of 2 and a Refund of 1 through an old epoch, want 6", got)
	}
}

// TestShare plays one bucket through several words of it, each of which finds what the others did.
func TestShare(t *testing.T) {
	slow, fast := mustRate(t, 1, time.Second, 10), mustRate(t, 2, time.Second, 10)
	words := make([]Bucket, 3)
	words[0].Init(slow)
	f := func(wantAvailable int64, wantRate *Rate) {
		t.Helper()
		for i := range words {
			if got := words[i].Available(second); got != wantAvailable || words[i].Rate() != wantRate {
				t.Errorf("word %d has %d available of %+v, want %d of %+v", i, got, words[i].Rate(), wantAvailable, wantRate)
			}
		}
	}
	words[0].Take(second, 1)
	words[1].Share(&words[0])
	words[0].Take(second, 2)
	words[2].Share(&words[1])
	f(7, slow)
	words[2].Take(second, 3)
	f(4, slow)
	// Each sets the rate of the one bucket, and what they refund comes back to it.
	words[1].Set(second, fast)
	words[2].Set(second, slow)
	words[0].Set(second, fast)
	words[1].Refund(1)
	f(5, fast)
	// A word that was used is not behind, so that it keeps no epoch alive that is over.
	for i := range words {
		if words[i].current.Load().next.Load() != nil {
			t.Errorf("word %d is behind", i)
		}
	}
	if size := unsafe.Sizeof(words[0]); size != 8 {
		t.Errorf("a word of a bucket has %d bytes, want 8", size)
	}
	if size := unsafe.Sizeof(epoch{}); size != 24 {
		t.Errorf("what is behind it has %d bytes, want 24", size)
	}
}

// TestRaceExact runs Take, Refund and Set through several words of one bucket against each other at one instant, where every
// token can be counted.
func TestRaceExact(t *testing.T) {
	const burst, now = 1000, 12345
	rates := []*Rate{
		mustRate(t, 1, time.Second, burst), mustRate(t, 7, time.Second, burst),
		mustRate(t, 1000, time.Second, burst), mustRate(t, 1, time.Minute, burst),
	}
	words := make([]Bucket, 4) // of one bucket
	words[0].Init(rates[0])
	for i := range words[1:] {
		words[i+1].Share(&words[i])
	}
	b := &words[0]
	var held atomic.Int64 // tokens taken and not given back: counted after a Take and before a Refund, so never too high
	var sets atomic.Int64
	var takers, setters sync.WaitGroup
	done := make(chan struct{})
	for seed := range uint64(2) {
		setters.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1))
			for {
				select {
				case <-done:
					return
				default:
					words[random.IntN(len(words))].Set(now, rates[random.IntN(len(rates))])
					sets.Add(1)
				}
			}
		})
	}
	for seed := range uint64(4) {
		takers.Go(func() {
			random := rand.New(rand.NewPCG(seed, 2))
			for i := 0; i < 50_000 || sets.Load() < 300; i++ {
				b, n := &words[random.IntN(len(words))], random.Int64N(400)
				if !b.Take(now, n).OK {
					continue
				}
				if sum := held.Add(n); sum > burst {
					t.Errorf("%d tokens are out, of %d", sum, burst)
				}
				if random.IntN(100) > 0 {
					held.Add(-n)
					b.Refund(n)
				} else if n > 2 {
					held.Add(-n + 2)
					b.Refund(n - 2)
				}
			}
		})
	}
	takers.Wait()
	close(done)
	setters.Wait()
	if got := b.Available(now) + held.Load(); got != burst {
		t.Errorf("%d available and %d out, want %d together", b.Available(now), held.Load(), burst)
	}
	b.Refund(held.Load())
	if !b.Full(now) {
		t.Errorf("all refunded, but full only in %v", b.FullIn(now))
	}
}

// TestRaceInTime runs Takes against Sets while time goes on: no more than the largest burst and the fastest rate pass.
func TestRaceInTime(t *testing.T) {
	const burst, step, steps = 50, 100_000, 40_000 // 4 s
	rates := []*Rate{mustRate(t, 700, time.Second, burst), mustRate(t, 1000, time.Second, burst/2)}
	b := NewBucket(rates[0])
	var clock, passed atomic.Int64
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for {
				now := clock.Add(step)
				if now > step*steps {
					return
				}
				if b.Take(now, 3).OK {
					passed.Add(3)
				}
			}
		})
	}
	all.Go(func() {
		for i := 0; ; i++ {
			now := clock.Load()
			if now >= step*steps {
				return
			}
			b.Set(now, rates[i%len(rates)])
		}
	})
	all.Wait()
	if most := int64(burst + 1000*4); passed.Load() > most {
		t.Errorf("%d tokens in 4 s, legal are %d", passed.Load(), most)
	}
	if least := int64(700 * 3); passed.Load() < least {
		t.Errorf("%d tokens in 4 s, want at least %d", passed.Load(), least)
	}
}

// FuzzBucket plays a script of bytes on a Bucket and on the bare arithmetic, which must agree, and counts tokens.
func FuzzBucket(f *testing.F) {
	f.Add(int64(1), int64(time.Second), int64(10), int64(2), int64(time.Second), int64(10), []byte{0, 10, 3, 0, 0, 1, 1, 200})
	f.Add(int64(7), int64(time.Second), int64(3), int64(0), int64(time.Minute), int64(0), []byte{0, 3, 3, 0, 3, 0, 2, 255, 0, 1})
	f.Add(int64(MaxRequests), int64(MaxPer), int64(1)<<40, int64(1), int64(MaxPer), int64(53), []byte{0, 255, 3, 1, 1, 9, 2, 3})
	f.Fuzz(func(t *testing.T, requests1, per1, burst1, requests2, per2, burst2 int64, script []byte) {
		first, err1 := NewRate(requests1, time.Duration(per1), burst1)
		second, err2 := NewRate(requests2, time.Duration(per2), burst2)
		if err1 != nil || err2 != nil {
			return
		}
		b := NewBucket(&first)
		r, other := &first, &second
		var now, tat int64
		for ; len(script) >= 2; script = script[2:] {
			size := int64(script[1])
			switch script[0] % 4 {
			case 0:
				n := r.Burst() * size / 200 // also more than the burst
				available, before := b.Available(now), b.FullIn(now)
				d := b.Take(now, n)
				next, want := r.Take(tat, now, n)
				if d != want {
					t.Fatalf("Take(%d, %d) = %+v, want %+v", now, n, d, want)
				}
				tat = next
				if want := !r.Blocks() && n <= available; d.OK != want {
					t.Fatalf("Take(%d, %d) of %d available = %+v", now, n, available, d)
				}
				if d.OK && d.Remaining != available-n || !d.OK && b.FullIn(now) != before {
					t.Fatalf("Take(%d, %d) of %d available = %+v, full in %v, before %v", now, n, available, d, b.FullIn(now), before)
				}
				if !d.OK && !d.Never && !r.Blocks() {
					if _, due := r.Take(tat, now+int64(d.RetryAfter), n); !due.OK && now+int64(d.RetryAfter) <= horizon {
						t.Fatalf("waited %v as told and got %+v", d.RetryAfter, due)
					}
				}
			case 1:
				before := b.FullIn(now)
				b.Refund(size)
				tat = r.Refund(tat, size)
				if b.FullIn(now) > before {
					t.Fatalf("Refund(%d) took something", size)
				}
			case 2:
				now += size * size * size * int64(r.Per()) / 1_000_000
				now = min(now, horizon)
			case 3:
				before := b.FullIn(now)
				b.Set(now, other)
				tat = other.Restate(tat, now, r)
				r, other = other, r
				if (b.FullIn(now) == 0) != (before == 0) {
					t.Fatalf("Set: full in %v, before %v", b.FullIn(now), before)
				}
			}
			if got, want := b.Available(now), r.Available(tat, now); got != want || got < 0 || got > r.Burst() {
				t.Fatalf("bucket has %d of %d, want %d", got, r.Burst(), want)
			}
			if got, want := b.FullIn(now), r.FullIn(tat, now); got != want || got < 0 || tat < 0 {
				t.Fatalf("bucket is full in %v, want %v", got, want)
			}
		}
	})
}

func TestNoAllocations(t *testing.T) {
	r := mustRate(t, 7, time.Second, 1_000_000)
	b, g := NewBucket(r), new(Gate)
	f := func(name string, call func()) {
		t.Helper()
		if got := testing.AllocsPerRun(100, call); got != 0 {
			t.Errorf("%s allocates %v times", name, got)
		}
	}
	f("Bucket.Take, allowed", func() { b.Take(1, 2) })
	f("Bucket.Take, never", func() { b.Take(1, 1_000_001) })
	f("Bucket.Take, refused", func() { b.Take(1, 1_000_000) })
	f("Bucket.Refund", func() { b.Refund(1) })
	f("Bucket.Set, equal", func() { b.Set(1, r) })
	f("Gate", func() { g.Enter(10); g.Leave() })
}
