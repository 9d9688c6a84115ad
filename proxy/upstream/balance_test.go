package upstream

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// loaded makes endpoints of these weights with these requests in flight.
func loaded(weights []int, inFlight []int) []endpoint {
	var es []endpoint
	var total uint64
	for i, w := range weights {
		total += uint64(w)
		p := new(pool)
		if inFlight != nil {
			p.inFlight.Store(int64(inFlight[i]))
		}
		es = append(es, endpoint{pool: p, weight: uint64(w), upTo: total})
	}
	return es
}

func TestLeastRequests(t *testing.T) {
	f := func(weights, inFlight []int, want int) {
		t.Helper()
		for range 100 {
			if got := leastRequests(loaded(weights, inFlight), rand.Uint64()); got != want {
				t.Fatalf("weights %v, in flight %v: got %d, want %d", weights, inFlight, got, want)
			}
		}
	}
	f([]int{1}, []int{7}, 0)
	f([]int{1, 1, 1}, []int{2, 1, 3}, 1)
	// Four requests at weight 4 are as many as one at weight 1.
	f([]int{4, 1}, []int{3, 1}, 0)
	f([]int{4, 1}, []int{5, 1}, 1)
	f([]int{1, 1000}, []int{1, 999}, 1)
}

func TestLeastRequestsSpreadsByWeight(t *testing.T) {
	f := func(weights []int, concurrency, requests int) {
		t.Helper()
		random := rand.New(rand.NewPCG(1, 2))
		es := loaded(weights, nil)
		got := make([]int, len(es))
		var running []int
		for range requests {
			i := leastRequests(es, random.Uint64())
			got[i]++
			es[i].pool.inFlight.Add(1)
			if running = append(running, i); len(running) >= concurrency {
				k := random.IntN(len(running)) // any request may end first
				es[running[k]].pool.inFlight.Add(-1)
				running[k] = running[len(running)-1]
				running = running[:len(running)-1]
			}
		}
		total := int(es[len(es)-1].upTo)
		for i, w := range weights {
			want := float64(requests) * float64(w) / float64(total)
			if f := float64(got[i]); f < want*0.85 || f > want*1.15 {
				t.Errorf("weights %v, %d at once: got %v; endpoint %d wants %.0f within 15 %%", weights, concurrency, got, i, want)
			}
		}
	}
	// One after the other, and many at once.
	f([]int{1, 1}, 1, 20_000)
	f([]int{3, 1}, 1, 20_000)
	f([]int{3, 1}, 40, 20_000)
	f([]int{5, 3, 2}, 100, 20_000)
	// Beyond the limit for scanning.
	f([]int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, 1, 100_000)
	f([]int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, 200, 100_000)
}

func TestLeastRequestsIsBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, scanLimit).Draw(t, "n")
		weights := rapid.SliceOfN(rapid.IntRange(1, 1000), n, n).Draw(t, "weights")
		inFlight := rapid.SliceOfN(rapid.IntRange(0, 100_000), n, n).Draw(t, "inFlight")
		got := leastRequests(loaded(weights, inFlight), rapid.Uint64().Draw(t, "draw"))
		for i := range weights {
			if inFlight[i]*weights[got] < inFlight[got]*weights[i] {
				t.Fatalf("chose %d, but %d has fewer for its weight", got, i)
			}
		}
	})
}
