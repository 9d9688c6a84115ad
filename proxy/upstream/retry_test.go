package upstream

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"weir/policy"
)

// budgeted is a backend of that budget, out of any set.
func budgeted(budget float64) *Backend {
	return &Backend{settings: policy.Backend{Retries: policy.RetrySettings{Budget: budget}}, stats: new(stats)}
}

// spend takes as many retries as it gets, n at most, each of which ends at once.
func spend(b *Backend, n int) (got int) {
	for got < n && b.SpendRetry() {
		got++
		b.stats.ended[4].Add(1)
	}
	return got
}

func TestRetryBudget(t *testing.T) {
	f := func(budget float64, requests, want int) {
		t.Helper()
		b := budgeted(budget)
		b.stats.mark(int64(time.Hour))
		b.stats.ended[1].Add(uint64(requests))
		if got := spend(b, 10_000); got != want {
			t.Errorf("%v of %d requests: %d retries, want %d", budget, requests, got, want)
		}
	}
	// A quiet service has ten in ten seconds.
	f(0.1, 0, 10)
	f(0.1, 50, 10)
	f(0.1, 100, 10)
	f(0.1, 110, 11)
	f(0.1, 5000, 500)
	f(0.255, 1000, 255)
	f(1, 1000, 1000)
	// None is none.
	f(0, 1000, 0)
}

// The budget looks back ten seconds, and does not take retries for requests.
func TestRetryBudgetSlides(t *testing.T) {
	b := budgeted(0.1)
	now := int64(time.Hour)
	second := func() {
		now += int64(time.Second)
		b.stats.mark(now)
	}
	b.stats.mark(now)
	b.stats.ended[1].Add(1000)
	if got := spend(b, 1000); got != 100 {
		t.Fatalf("%d retries, want 100", got)
	}
	b.stats.retries.replayed.Add(50)
	b.stats.ended[4].Add(50)
	for range 8 {
		second()
		if got := spend(b, 1000); got != 0 {
			t.Fatalf("%d more in the same ten seconds", got)
		}
	}
	second()
	second()
	if got := spend(b, 1000); got != retryFloor {
		t.Errorf("%d retries when all is past, want the floor", got)
	}
	// A pause of the sweep, and a second that comes twice, do no harm.
	now += int64(time.Hour)
	b.stats.mark(now)
	b.stats.mark(now)
	if got := spend(b, 1000); got != retryFloor {
		t.Errorf("%d retries after a pause, want the floor", got)
	}
}

// Whatever happens, with each retry those of the last ten seconds are within the budget of the requests of those, or the floor.
func TestRetryBudgetHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := budgeted(float64(rapid.IntRange(1, 100).Draw(t, "budget")) / 100)
		var requests, retries []int // by second
		now := int64(time.Hour)
		for range rapid.IntRange(1, 40).Draw(t, "seconds") {
			b.stats.mark(now)
			n := rapid.IntRange(0, 1000).Draw(t, "requests")
			b.stats.ended[1].Add(uint64(n))
			got := spend(b, rapid.IntRange(0, 1000).Draw(t, "wanted"))
			requests, retries = append(requests, n), append(retries, got)
			now += int64(time.Second)
			sum := func(all []int) (total int) {
				for _, n := range all[max(0, len(all)-retryWindow):] {
					total += n
				}
				return total
			}
			if most := max(retryFloor, b.settings.Retries.Budget*float64(sum(requests))); got > 0 && float64(sum(retries)) > most {
				t.Fatalf("%d retries of %d requests in ten seconds, budget %v", sum(retries), sum(requests), b.settings.Retries.Budget)
			}
		}
	})
}

func TestRetryBudgetAmongMany(t *testing.T) {
	b := budgeted(0.2)
	b.stats.ended[1].Add(1000)
	var got atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { got.Add(int64(spend(b, 1000))) })
	}
	wg.Wait()
	if n := got.Load(); n < 195 || n > 200 {
		t.Errorf("%d retries among many, want 200 and not one more", n)
	}
}
