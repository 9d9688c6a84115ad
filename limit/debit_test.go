package limit

import (
	"math"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestDebit plays one bucket of burst 10 at 4/s.
func TestDebit(t *testing.T) {
	b := NewBucket(mustRate(t, 4, time.Second, 10))
	f := func(now time.Duration, n int64, want time.Duration) {
		t.Helper()
		if got := b.Debit(int64(now), n); got != want {
			t.Errorf("Debit(%v, %d) = %v, want %v", now, n, got, want)
		}
	}
	// What is there costs no wait.
	f(0, 4, 0)
	f(0, 6, 0)
	// What is not there is taken all the same, and whoever comes next waits for it too.
	f(0, 1, 250*time.Millisecond)
	f(0, 10, 2750*time.Millisecond)
	f(time.Second, 1, 2*time.Second)
	// Nothing, or less, only asks.
	f(time.Second, 0, 2*time.Second)
	f(time.Second, -5, 2*time.Second)
	f(3*time.Second, 0, 0)
	f(3*time.Second, 1, 250*time.Millisecond)
	// More than the burst passes once all that was before is paid, and then some.
	f(time.Hour, 30, 5*time.Second)
	// Takes are refused meanwhile.
	if d := b.Take(int64(time.Hour), 1); d.OK || d.RetryAfter != 5250*time.Millisecond {
		t.Errorf("Take of an indebted bucket = %+v", d)
	}
	// Going back in time gives nothing.
	f(0, 0, time.Hour+5*time.Second)
}

// TestDebitOfABlockedRate waits for what a rate of 1 per Per would.
func TestDebitOfABlockedRate(t *testing.T) {
	b := NewBucket(mustRate(t, 0, time.Minute, 0))
	if got := b.Debit(0, 2); got != 2*time.Minute {
		t.Errorf("Debit = %v, want 2m", got)
	}
	if got := b.Rate().Refills(time.Hour); got != 0 {
		t.Errorf("Refills = %d, want 0", got)
	}
}

// TestDebitExtremes debits until nothing more is counted: no sum overflows.
func TestDebitExtremes(t *testing.T) {
	f := func(requests int64, per time.Duration, now int64) {
		t.Helper()
		r := mustRate(t, requests, per, 1)
		tat, last := int64(0), time.Duration(0)
		for range 5 {
			next, wait := r.Debit(tat, now, math.MaxInt64)
			if next < tat || wait < last {
				t.Fatalf("%d per %v at %d: TAT %d after %d, wait %v after %v", requests, per, now, next, tat, wait, last)
			}
			tat, last = next, wait
		}
		if last < time.Duration(maxDebt>>subtickBits)/2 {
			t.Errorf("%d per %v at %d: the wait is only %v", requests, per, now, last)
		}
		if r.Rewait(math.MaxInt64, r) <= 0 {
			t.Errorf("%d per %v: the longest wait is none after Rewait", requests, per)
		}
	}
	for _, now := range []int64{math.MinInt64, 0, horizon, math.MaxInt64} {
		f(1, MaxPer, now)
		f(MaxRequests, time.Second, now)
		f(int64(MaxPer), MaxPer, now)
		f(0, MaxPer, now)
	}
}

// TestDebitedStreams lets several streams share a bucket: each debits a piece of at most the burst, waits as told, and debits
// the next one. Every window keeps the bound, and no stream waits while there are tokens.
func TestDebitedStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRate(t, "rate")
		b := NewBucket(r)
		ready := make([]int64, rapid.IntRange(1, 4).Draw(t, "streams")) // when each can debit its next piece
		for i := range ready {
			ready[i] = rapid.Int64Range(0, second).Draw(t, "start")
		}
		var passed []admission
		for range rapid.IntRange(1, 40).Draw(t, "pieces") {
			first := 0
			for i := range ready {
				if ready[i] < ready[first] {
					first = i
				}
			}
			now, n := ready[first], rapid.Int64Range(1, r.Burst()).Draw(t, "n")
			available := b.Available(now)
			wait := b.Debit(now, n)
			if (wait == 0) != (n <= available) {
				t.Fatalf("%d of %d available have to wait %v", n, available, wait)
			}
			passed = append(passed, admission{now + int64(wait), n})
			ready[first] = now + int64(wait)
			if rapid.IntRange(0, 3).Draw(t, "idle") == 0 {
				ready[first] += rapid.Int64Range(0, max(1, 3*r.cost>>subtickBits)).Draw(t, "pause")
			}
		}
		// Waits are rounded up to a nanosecond, in which one token refills at most: what passes first may have lost it.
		checkWindows(t, passed, r.Burst()+1, perNanosecond(r))
	})
}

// TestDebitUsesTheRate streams back to back: the time it takes is that of the bytes beyond the burst, exactly.
func TestDebitUsesTheRate(t *testing.T) {
	f := func(streams int, piece, burst int64) {
		t.Helper()
		const rate, pieces = 1_000_000, 600
		b := NewBucket(mustRate(t, rate, time.Second, burst))
		ready := make([]int64, streams)
		counts := make([]int, streams)
		var end int64
		for range pieces {
			first := 0
			for i := range ready {
				if ready[i] < ready[first] {
					first = i
				}
			}
			counts[first]++
			ready[first] += int64(b.Debit(ready[first], piece))
			end = max(end, ready[first])
		}
		if want := (pieces*piece - burst) * second / rate; end != want {
			t.Errorf("%d streams: %d bytes took %v, want %v", streams, pieces*piece, time.Duration(end), time.Duration(want))
		}
		// Streams that all want more get the same, but for what the burst gave to whoever came first.
		for i, n := range counts {
			if fair, first := pieces/streams, int(burst/piece); n < fair-first-1 || n > fair+first+1 {
				t.Errorf("stream %d of %d passed %d pieces, want about %d", i, streams, n, fair)
			}
		}
	}

	f(1, 1000, 1000)
	f(1, 1000, 20_000)
	f(2, 1000, 1000)
	f(10, 1000, 10_000)
}

// TestRewait changes the rate of somebody who waits: what he waits for keeps its size in tokens.
func TestRewait(t *testing.T) {
	f := func(from, to *Rate, left, want time.Duration) {
		t.Helper()
		if got := to.Rewait(left, from); got != want {
			t.Errorf("Rewait(%v) = %v, want %v", left, got, want)
		}
	}
	slow, fast := mustRate(t, 1, time.Second, 10), mustRate(t, 4, time.Second, 10)
	f(slow, fast, 8*time.Second, 2*time.Second)
	f(fast, slow, 2*time.Second, 8*time.Second)
	f(slow, slow, 8*time.Second, 8*time.Second)
	// A larger burst is there at once, a smaller one is missing.
	f(slow, mustRate(t, 1, time.Second, 15), 8*time.Second, 3*time.Second)
	f(slow, mustRate(t, 1, time.Second, 20), 8*time.Second, 0)
	f(slow, mustRate(t, 1, time.Second, 5), 8*time.Second, 13*time.Second)
	// Whoever waits for nothing owes a bucket at most.
	f(slow, fast, 0, 0)
	f(slow, fast, -time.Second, 0)
}

// TestRewaitFollowsSet: the wait of the last one in the queue is what the bucket itself says after a Set.
func TestRewaitFollowsSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := anyRate(t, "from"), anyRate(t, "to")
		b := NewBucket(from)
		b.Debit(0, from.Burst())
		left := b.Debit(0, from.Burst()) // a whole bucket's refill
		passed := rapid.Int64Range(0, int64(left)).Draw(t, "passed")
		b.Set(passed, to)
		got, want := to.Rewait(left-time.Duration(passed), from), b.Debit(passed, 0)
		// What is left was rounded up to a nanosecond of from, which is so much of to.
		slack := time.Duration(to.cost/from.cost) + 2
		if want < time.Duration(maxDebt>>subtickBits)/2 && (got < want-slack || got > want+slack) {
			t.Fatalf("Rewait = %v, the bucket says %v", got, want)
		}
	})
}

func TestRefills(t *testing.T) {
	f := func(requests int64, per, within time.Duration, want int64) {
		t.Helper()
		if got := mustRate(t, requests, per, 1).Refills(within); got != want {
			t.Errorf("%d per %v: Refills(%v) = %d, want %d", requests, per, within, got, want)
		}
	}
	f(1000, time.Second, 50*time.Millisecond, 50)
	f(1, time.Second, 999*time.Millisecond, 0)
	f(MaxRequests, time.Second, time.Hour, MaxRequests*3600)
	f(1000, time.Second, -1, 0)
	f(MaxRequests, time.Second, math.MaxInt64, maxDebt>>subtickBits)
}

// TestRaceDebit debits from several goroutines while the rate changes, at one instant: every token is counted.
func TestRaceDebit(t *testing.T) {
	const debits, now = 20_000, 12345
	slow, fast := mustRate(t, 1000, time.Second, 50), mustRate(t, 2000, time.Second, 50)
	b := NewBucket(slow)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range debits {
				b.Debit(now, 3)
			}
		})
	}
	all.Go(func() {
		for i := range 1000 {
			b.Set(now, []*Rate{fast, slow}[i%2])
		}
	})
	all.Wait()
	b.Set(now, slow)
	if got, want := b.FullIn(now), time.Duration(4*debits*3)*time.Millisecond; got != want {
		t.Errorf("the debt is %v, want %v", got, want)
	}
}

func TestDebitAllocatesNothing(t *testing.T) {
	b := NewBucket(mustRate(t, 1000, time.Second, 50))
	if n := testing.AllocsPerRun(100, func() { b.Debit(0, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
