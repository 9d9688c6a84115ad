package limit

import (
	"cmp"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const (
	second = int64(time.Second)
	never  = time.Duration(0) // the RetryAfter of what waiting does not help
)

// fataler is what tests, benchmarks and property tests have in common.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func mustRate(t fataler, requests int64, per time.Duration, burst int64) *Rate {
	t.Helper()
	r, err := NewRate(requests, per, burst)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

func TestNewRate(t *testing.T) {
	f := func(requests int64, per time.Duration, burst, wantBurst int64) {
		t.Helper()
		r := mustRate(t, requests, per, burst)
		type fields struct {
			Requests, Burst int64
			Per             time.Duration
			Blocks          bool
		}
		got := fields{r.Requests(), r.Burst(), r.Per(), r.Blocks()}
		want := fields{requests, wantBurst, per, requests == 0}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("NewRate(%d, %v, %d) (-want +got):\n%s", requests, per, burst, diff)
		}
	}
	// The ordinary.
	f(1000, time.Second, 2000, 2000)
	// The ends of each range.
	f(MaxRequests, time.Second, 1_000_000_000, 1_000_000_000)
	f(1, MinPer, 1, 1)
	f(1, MaxPer, 53, 53)
	// One a nanosecond is the fastest, over whatever time.
	f(1_000_000, time.Millisecond, 1, 1)
	f(int64(MaxPer), MaxPer, 1<<40, 1<<40)
	// Blocked: the burst does not matter, legal or not.
	f(0, time.Second, 10, 0)
	f(0, MaxPer, -1, 0)
}

func TestNewRateRefuses(t *testing.T) {
	f := func(requests int64, per time.Duration, burst int64, want string) {
		t.Helper()
		r, err := NewRate(requests, per, burst)
		if err == nil {
			t.Fatalf("NewRate(%d, %v, %d) = %+v, want an error", requests, per, burst, r)
		}
		if err.Error() != want {
			t.Errorf("NewRate(%d, %v, %d):\n got %s\nwant %s", requests, per, burst, err, want)
		}
	}
	// requests out of range.
	f(-1, time.Second, 1, "cannot make a rate of -1 requests: legal are 0 or more")
	// per out of range, also when blocked.
	f(1, MinPer-1, 1, "cannot make a rate per 999.999µs: legal are 1ms to 744h0m0s")
	f(0, MaxPer+1, 1, "cannot make a rate per 744h0m0.000000001s: legal are 1ms to 744h0m0s")
	// Faster than one a nanosecond.
	f(MaxRequests+1, time.Second, 1, "cannot make a rate of 1000000001 requests per 1s: legal are at most 1000000000, one per nanosecond")
	f(1_000_001, time.Millisecond, 1, "cannot make a rate of 1000001 requests per 1ms: legal are at most 1000000, one per nanosecond")
	// burst out of range.
	f(1, time.Second, 0, "cannot make a rate of 1 requests per 1s with a burst of 0: legal are 1 to 144115188")
	f(1, time.Second, -5, "cannot make a rate of 1 requests per 1s with a burst of -5: legal are 1 to 144115188")
	// A burst that takes decades to refill does not overflow.
	f(1, MaxPer, 1_000_000_000, "cannot make a rate of 1 requests per 744h0m0s with a burst of 1000000000: legal are 1 to 53")
	f(1, MaxPer, math.MaxInt64, "cannot make a rate of 1 requests per 744h0m0s with a burst of 9223372036854775807: legal are 1 to 53")
}

// TestTake plays one bucket of burst 10 at 4/s.
func TestTake(t *testing.T) {
	r := mustRate(t, 4, time.Second, 10)
	var tat int64
	f := func(now time.Duration, n int64, want Decision) {
		t.Helper()
		var got Decision
		tat, got = r.Take(tat, int64(now), n)
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("Take(%v, %d) (-want +got):\n%s", now, n, diff)
		}
	}
	// A full bucket gives its burst at one instant, in any portions.
	f(0, 1, Decision{OK: true, Remaining: 9})
	f(0, 4, Decision{OK: true, Remaining: 5})
	f(0, 5, Decision{OK: true, Remaining: 0})
	// Empty: the wait is for as many tokens as are missing.
	f(0, 1, Decision{RetryAfter: 250 * time.Millisecond})
	f(0, 10, Decision{RetryAfter: 2500 * time.Millisecond})
	f(200*time.Millisecond, 1, Decision{RetryAfter: 50 * time.Millisecond})
	// A refusal costs nothing, and a part of a token is not a token.
	f(499*time.Millisecond, 0, Decision{OK: true, Remaining: 1})
	f(500*time.Millisecond, 2, Decision{OK: true, Remaining: 0})
	// More than the burst never passes, however full the bucket.
	f(time.Hour, 11, Decision{Never: true, Remaining: 10, RetryAfter: never})
	f(time.Hour, math.MaxInt64, Decision{Never: true, Remaining: 10, RetryAfter: never})
	// Idle time fills it up to the burst and no further.
	f(time.Hour, 10, Decision{OK: true, Remaining: 0})
	// Going back in time gives nothing, nor does coming back.
	f(0, 1, Decision{RetryAfter: time.Hour + 250*time.Millisecond})
	f(-5, 1, Decision{RetryAfter: time.Hour + 250*time.Millisecond})
	f(time.Hour, 1, Decision{RetryAfter: 250 * time.Millisecond})
	// Nothing always passes, a negative count is nothing.
	f(time.Hour, 0, Decision{OK: true})
	f(time.Hour, -3, Decision{OK: true})
	f(time.Hour, math.MinInt64, Decision{OK: true})
}

func TestTakeBlocked(t *testing.T) {
	r := mustRate(t, 0, time.Second, 10)
	f := func(n int64) {
		t.Helper()
		tat, d := r.Take(0, second, n)
		if diff := gocmp.Diff(Decision{Never: true}, d); diff != "" || tat != 0 {
			t.Errorf("Take(%d) left a TAT of %d and said (-want +got):\n%s", n, tat, diff)
		}
	}
	f(0)
	f(1)
	f(math.MaxInt64)
	if got := r.Available(0, second); got != 0 {
		t.Errorf("Available = %d, want 0", got)
	}
	if !r.Full(0, second) {
		t.Errorf("a blocked bucket that owes nothing is not full")
	}
}

func TestRefund(t *testing.T) {
	r := mustRate(t, 3, time.Second, 10)
	now := int64(12345)
	f := func(take, refund, wantAvailable int64) {
		t.Helper()
		tat, d := r.Take(0, now, take)
		if !d.OK {
			t.Fatalf("Take(%d) of a full bucket = %+v", take, d)
		}
		if got := r.Available(r.Refund(tat, refund), now); got != wantAvailable {
			t.Errorf("%d of 10 taken, %d refunded: %d available, want %d", take, refund, got, wantAvailable)
		}
	}
	// What is given back is there again.
	f(10, 10, 10)
	f(10, 4, 4)
	// Nothing, or less.
	f(10, 0, 0)
	f(10, -7, 0)
	// Never more than the burst.
	f(3, 9, 10)
	f(3, math.MaxInt64, 10)
	// Also when the cost of so many exceeds a word: 3/s is 16/3 × 10^9 subticks a token, and this many cost just above 2^64.
	f(3, int64(math.MaxUint64/uint64(r.cost))+1, 10)
	// What was taken in portions comes back at once, to the last fraction of a token.
	var tat int64
	for range 10 {
		tat, _ = r.Take(tat, now, 1)
	}
	if tat = r.Refund(tat, 10); !r.Full(tat, now) {
		t.Errorf("10 times 1 taken, 10 refunded: the bucket fills only in %v", r.FullIn(tat, now))
	}
}

// TestRestate empties a bucket at 100 s, restates it and looks at the wait for one token.
func TestRestate(t *testing.T) {
	now := 100 * second
	f := func(from, to *Rate, want time.Duration) {
		t.Helper()
		tat, _ := from.Take(0, now, from.Burst())
		_, d := to.Take(to.Restate(tat, now, from), now, 1)
		if d.OK || d.RetryAfter != want {
			t.Errorf("empty at %d per %v, burst %d, then %d per %v, burst %d: %+v, want to wait %v",
				from.Requests(), from.Per(), from.Burst(), to.Requests(), to.Per(), to.Burst(), d, want)
		}
	}
	base := mustRate(t, 1, time.Second, 10)
	// Raised: the wait is that of the new rate, 0.5 s and not 5.5 s.
	f(base, mustRate(t, 2, time.Second, 10), 500*time.Millisecond)
	// Lowered: nothing is given away.
	f(base, mustRate(t, 1, 10*time.Second, 10), 10*time.Second)
	// Equal, or written differently.
	f(base, base, time.Second)
	f(base, mustRate(t, 60, time.Minute, 10), time.Second)
	// A smaller burst owes the same tokens, a larger one has the difference in store.
	f(base, mustRate(t, 1, time.Second, 4), 7*time.Second)
	f(mustRate(t, 1, time.Second, 12), mustRate(t, 2, time.Second, 10), 1500*time.Millisecond)
	// A debt of 1e9 tokens at one token a month saturates: the wait is 4.5 years less what the burst covers.
	slow := mustRate(t, 1, MaxPer, 53)
	f(mustRate(t, MaxRequests, time.Second, MaxRequests), slow, wait(maxDebt-52*slow.cost))
}

func TestRestateGivesNothing(t *testing.T) {
	now := 100 * second
	f := func(requests int64, per time.Duration, burst, taken, want int64) {
		t.Helper()
		from, to := mustRate(t, 1, time.Second, 10), mustRate(t, requests, per, burst)
		tat, _ := from.Take(0, now, taken)
		if got := to.Available(to.Restate(tat, now, from), now); got != want {
			t.Errorf("%d of 10 taken at 1/s, then %d per %v, burst %d: %d available, want %d", taken, requests, per, burst, got, want)
		}
	}
	// The rate changes, what is there does not.
	f(1000, time.Second, 10, 4, 6)
	f(1, time.Hour, 10, 4, 6)
	f(7, time.Second, 10, 10, 0)
	// The burst changes, the debt does not.
	f(1, time.Second, 20, 4, 16)
	f(1, time.Second, 4, 4, 0)
	f(1, time.Second, 4, 9, 0)
	// A full bucket stays full.
	f(3, time.Second, 20, 0, 20)
	// Blocked has nothing.
	f(0, time.Second, 0, 4, 0)
}

// TestRestateRoundsUp compares with arithmetic of any length.
func TestRestateRoundsUp(t *testing.T) {
	f := func(t fataler, from, to *Rate, now, debt int64) {
		t.Helper()
		want := new(big.Int).Mul(big.NewInt(debt), big.NewInt(to.cost))
		want.Add(want, big.NewInt(from.cost-1)).Div(want, big.NewInt(from.cost))
		if most := big.NewInt(maxDebt); want.Cmp(most) > 0 {
			want = most
		}
		got := to.Restate(subticks(now)+debt, now, from) - subticks(now)
		if big.NewInt(got).Cmp(want) != 0 {
			t.Fatalf("a debt of %d at %d a token is %d at %d a token, want %v", debt, from.cost, got, to.cost, want)
		}
	}
	month, seventh := mustRate(t, 1, MaxPer, 1), mustRate(t, 7, time.Second, 1)
	// The product is just below 2^64, and rounding up carries.
	f(t, month, seventh, 0, 8070450531)
	// The quotient fits a word, and is too much for a bucket.
	f(t, seventh, mustRate(t, 1, time.Second, 1), 0, maxDebt/4)
	rapid.Check(t, func(t *rapid.T) {
		from, to := anyRate(t, "from"), anyRate(t, "to")
		f(t, from, to, magnitude(0, horizon).Draw(t, "now"), magnitude(1, from.depth).Draw(t, "debt"))
	})
}

// TestRestateThroughBlocked blocks an empty bucket for 30 s.
func TestRestateThroughBlocked(t *testing.T) {
	open, blocked := mustRate(t, 100, time.Minute, 100), mustRate(t, 0, time.Minute, 0)
	tat, _ := open.Take(0, 0, 100)
	tat = blocked.Restate(tat, 0, open)
	tat = open.Restate(tat, 30*second, blocked)
	// Half a token is paid off, at one a minute.
	if got, want := open.FullIn(tat, 30*second), time.Minute*995/1000; got != want {
		t.Errorf("full in %v, want %v", got, want)
	}
}

func TestFullIn(t *testing.T) {
	r := mustRate(t, 3, time.Second, 10)
	tat, _ := r.Take(0, second, 2)
	f := func(now time.Duration, want time.Duration) {
		t.Helper()
		if got := r.FullIn(tat, int64(now)); got != want {
			t.Errorf("FullIn(%v) = %v, want %v", now, got, want)
		}
		if got := r.Full(tat, int64(now)); got != (want == 0) {
			t.Errorf("Full(%v) = %v, but it is full in %v", now, got, want)
		}
	}
	// Two thirds of a second, rounded up.
	f(time.Second, 666666667)
	f(time.Second+666666666, 1)
	f(time.Second+666666667, 0)
	f(time.Hour, 0)
}

func TestLevel(t *testing.T) {
	r := mustRate(t, 3, time.Second, 10)
	tat, _ := r.Take(0, second, 2)
	f := func(r *Rate, tat int64, now time.Duration, want Level) {
		t.Helper()
		if got := r.Level(tat, int64(now)); got != want {
			t.Errorf("Level at %v = %+v, want %+v", now, got, want)
		}
	}
	// The next token is a third of a second away, rounded up, and less as time goes by.
	f(r, tat, time.Second, Level{8, 333333334, 666666667})
	f(r, tat, time.Second+333333333, Level{8, 1, 333333334})
	f(r, tat, time.Second+333333334, Level{9, 333333333, 333333333})
	// A full bucket waits for none.
	f(r, tat, time.Hour, Level{10, 0, 0})
	// A bucket that owes more than it holds, since its burst was cut, has to pay for that first.
	small := mustRate(t, 3, time.Second, 1)
	f(small, tat, time.Second, Level{0, 666666667, 666666667})
	// One that blocks has nothing and never will.
	f(mustRate(t, 0, time.Second, 0), tat, time.Second, Level{0, 0, 666666667})
}

// TestNextIsTheLeastWait: what is not available is so after that wait, and not a nanosecond earlier.
func TestNextIsTheLeastWait(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRate(t, "rate")
		now := rapid.Int64Range(0, second).Draw(t, "now")
		tat, _ := r.Take(0, now, rapid.Int64Range(1, r.Burst()).Draw(t, "taken"))
		l := r.Level(tat, now)
		if l.Available == r.Burst() {
			t.Fatalf("%+v is full", l)
		}
		if _, d := r.Take(tat, now+int64(l.Next), l.Available+1); !d.OK {
			t.Fatalf("%+v, but then there is no more", l)
		}
		if _, d := r.Take(tat, now+int64(l.Next)-1, l.Available+1); d.OK {
			t.Fatalf("%+v, but there is more before", l)
		}
	})
}

// TestShortfall measures what an emptied bucket gains in a second against what was asked for.
func TestShortfall(t *testing.T) {
	f := func(requests int64, most float64) {
		t.Helper()
		r := mustRate(t, requests, time.Second, requests)
		tat, _ := r.Take(0, 0, requests)
		got := r.Available(tat, second)
		if got > requests {
			t.Errorf("%d per second gave %d in one", requests, got)
		}
		// One token may be under way.
		if loss := float64(requests-1-got) / float64(requests); loss > most {
			t.Errorf("%d per second gave %d in one: %.4f %% too few, want at most %.4f %%", requests, got, 100*loss, 100*most)
		}
	}
	// Rates that divide a second into sixteenths of a nanosecond lose nothing.
	f(1, 0)
	f(1000, 0)
	f(1_000_000, 0)
	f(MaxRequests, 0)
	// Others lose what the documentation says.
	f(999_999, 0.000063)
	f(700_001, 0.000063)
	f(15_999_999, 0.001)
	f(99_999_999, 0.0063)
	f(999_999_999, 0.059)
}

// TestExtremes takes a whole burst at the ends of time, at the largest debts there are.
func TestExtremes(t *testing.T) {
	f := func(requests int64, per time.Duration, now int64) {
		t.Helper()
		_, err := NewRate(requests, per, math.MaxInt64)
		if err == nil {
			t.Fatalf("%d per %v: the largest burst is legal", requests, per)
		}
		_, digits, _ := strings.Cut(err.Error(), "legal are 1 to ")
		burst, ok := new(big.Int).SetString(digits, 10)
		if !ok {
			t.Fatalf("no largest burst in %q", err)
		}
		r := mustRate(t, requests, per, burst.Int64())
		tat, d := r.Take(0, now, r.Burst())
		if !d.OK || d.Remaining != 0 || tat < 0 {
			t.Errorf("%d per %v, burst %d, at %d: %+v, TAT %d", requests, per, r.Burst(), now, d, tat)
		}
		if next, d := r.Take(tat, 0, r.Burst()); d.OK || d.RetryAfter <= 0 || next != tat {
			t.Errorf("%d per %v, burst %d, taken again at 0: %+v", requests, per, r.Burst(), d)
		}
		if tat = r.Refund(tat, r.Burst()); !r.Full(tat, now) {
			t.Errorf("%d per %v, burst %d, refunded at %d: full only in %v", requests, per, r.Burst(), now, r.FullIn(tat, now))
		}
	}
	for _, now := range []int64{math.MinInt64, 0, horizon, math.MaxInt64} {
		f(1, MaxPer, now)
		f(1, MinPer, now)
		f(MaxRequests, time.Second, now)
		f(MaxRequests, MaxPer, now)
		f(7, time.Second, now)
	}
}

// anyRate draws rates of all magnitudes, most of which divide nothing.
func anyRate(t *rapid.T, label string) *Rate {
	requests := magnitude(1, MaxRequests).Draw(t, label+" requests")
	per := magnitude(max(int64(MinPer), requests), int64(MaxPer)).Draw(t, label+" per")
	most := min(maxDebt/2/(per<<subtickBits/requests+1), 1_000_000_000)
	burst := magnitude(1, min(most, rapid.SampledFrom([]int64{20, most}).Draw(t, label+" burst scale"))).Draw(t, label+" burst")
	return mustRate(t, requests, time.Duration(per), burst)
}

// magnitude draws numbers of every length alike.
func magnitude(low, high int64) *rapid.Generator[int64] {
	return rapid.Custom(func(t *rapid.T) int64 {
		shift := rapid.IntRange(0, 62).Draw(t, "shift")
		return rapid.Int64Range(low, max(low, high>>shift)).Draw(t, "value")
	})
}

// admission is what passed at one reading of the clock.
type admission struct{ now, n int64 }

// checkWindows fails when any window holds more than burst + rate × window.
func checkWindows(t *rapid.T, passed []admission, burst int64, rate *big.Rat) {
	t.Helper()
	slices.SortStableFunc(passed, func(a, b admission) int { return cmp.Compare(a.now, b.now) })
	for i := range passed {
		var sum int64
		for _, a := range passed[i:] {
			sum += a.n
			most := new(big.Rat).SetInt64(a.now - passed[i].now)
			most.Add(most.Mul(most, rate), new(big.Rat).SetInt64(burst))
			if new(big.Rat).SetInt64(sum).Cmp(most) > 0 {
				t.Fatalf("%d tokens between %d and %d, legal are %s", sum, passed[i].now, a.now, most.FloatString(9))
			}
		}
	}
}

func perNanosecond(r *Rate) *big.Rat { return big.NewRat(max(r.requests, 1), int64(r.per)) }

// impatient draws the time of the next Take: at once, exactly when the last refusal said, just before, or whenever.
func impatient(t *rapid.T, now int64, last Decision, r *Rate) int64 {
	switch rapid.IntRange(0, 3).Draw(t, "when") {
	case 0:
		return now
	case 1:
		return now + int64(last.RetryAfter)
	case 2:
		return now + max(int64(last.RetryAfter)-1, 0)
	}
	return now + rapid.Int64Range(0, max(1, 3*r.cost>>subtickBits)).Draw(t, "pause")
}

func TestNeverMoreThanTheRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRate(t, "rate")
		now := rapid.Int64Range(0, second).Draw(t, "start")
		var tat int64
		var d Decision
		var passed []admission
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = impatient(t, now, d, r)
			at := now
			if rapid.IntRange(0, 9).Draw(t, "late") == 0 {
				at = rapid.Int64Range(0, now).Draw(t, "earlier") // a caller that read the clock long ago
			}
			n := rapid.Int64Range(1, r.Burst()).Draw(t, "n")
			if tat, d = r.Take(tat, at, n); d.OK {
				passed = append(passed, admission{at, n})
			}
		}
		checkWindows(t, passed, r.Burst(), perNanosecond(r))
	})
}

// TestNeverMoreAcrossSets is the same with changing rates: the bound is that of the largest burst and the fastest rate.
func TestNeverMoreAcrossSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rates := []*Rate{anyRate(t, "first"), anyRate(t, "second"), anyRate(t, "third")}
		if rapid.Bool().Draw(t, "with a block") {
			rates = append(rates, mustRate(t, 0, rates[0].Per(), 0))
		}
		var burst int64
		fastest := new(big.Rat)
		for _, r := range rates {
			burst = max(burst, r.Burst())
			if p := perNanosecond(r); p.Cmp(fastest) > 0 {
				fastest = p
			}
		}
		// A debt beyond 4.5 years is cut and the bound broken: leave out the rates that would make one.
		rates = slices.DeleteFunc(rates, func(r *Rate) bool { return burst > maxDebt/r.cost-1 })
		r, tat := rates[0], int64(0)
		now := rapid.Int64Range(0, second).Draw(t, "start")
		var d Decision
		var passed []admission
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = impatient(t, now, d, r)
			if rapid.IntRange(0, 2).Draw(t, "set") == 0 {
				to := rapid.SampledFrom(rates).Draw(t, "rate")
				r, tat = to, to.Restate(tat, now, r)
			}
			n := rapid.Int64Range(1, max(1, r.Burst())).Draw(t, "n")
			if tat, d = r.Take(tat, now, n); d.OK {
				passed = append(passed, admission{now, n})
			}
		}
		checkWindows(t, passed, burst, fastest)
	})
}

func TestRetryAfterIsTheLeastWait(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRate(t, "rate")
		now := magnitude(0, horizon/4).Draw(t, "now")
		taken := rapid.Int64Range(1, r.Burst()).Draw(t, "taken")
		tat, _ := r.Take(0, now, taken)
		now += rapid.Int64Range(0, taken*r.cost>>subtickBits).Draw(t, "pause")
		n := rapid.Int64Range(1, r.Burst()).Draw(t, "n")
		_, d := r.Take(tat, now, n)
		if d.OK {
			if d.RetryAfter != 0 {
				t.Fatalf("passed, and yet %+v", d)
			}
			return
		}
		if d.Never || d.RetryAfter <= 0 {
			t.Fatalf("Take(%d) of at most %d = %+v", n, r.Burst(), d)
		}
		if _, early := r.Take(tat, now+int64(d.RetryAfter)-1, n); early.OK {
			t.Fatalf("passes 1 ns before the %v it was told to wait", d.RetryAfter)
		}
		if _, due := r.Take(tat, now+int64(d.RetryAfter), n); !due.OK {
			t.Fatalf("waited %v as told and got %+v", d.RetryAfter, due)
		}
	})
}

// TestAvailableIsWhatPasses ties the figures together: as many as Available says pass, and not one more.
func TestAvailableIsWhatPasses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRate(t, "rate")
		now := magnitude(0, horizon/4).Draw(t, "now")
		tat, d := r.Take(0, now, rapid.Int64Range(1, r.Burst()).Draw(t, "taken"))
		if got := r.Available(tat, now); got != d.Remaining {
			t.Fatalf("Available = %d after Remaining = %d", got, d.Remaining)
		}
		now += rapid.Int64Range(0, r.depth>>subtickBits).Draw(t, "pause")
		available := r.Available(tat, now)
		if _, d := r.Take(tat, now, available+1); d.OK {
			t.Fatalf("%d available, and %d passed", available, available+1)
		}
		next, d := r.Take(tat, now, available)
		if !d.OK || d.Remaining != 0 {
			t.Fatalf("%d available, and they got %+v", available, d)
		}
		if again := r.Refund(next, available); r.Available(again, now) != available {
			t.Fatalf("%d taken and refunded: %d available", available, r.Available(again, now))
		}
	})
}
