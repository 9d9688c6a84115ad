package upstream

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"weir/policy"
)

// loaded makes endpoints of these weights with these requests in flight.
func loaded(weights []int, inFlight []int) []member {
	var es []member
	var total uint64
	for i, w := range weights {
		total += uint64(w)
		e := &endpoint{address: "10.0.0." + strconv.Itoa(i) + ":80"}
		if inFlight != nil {
			e.inFlight.Store(int64(inFlight[i]))
		}
		es = append(es, member{endpoint: e, weight: uint64(w), upTo: total, seed: hashOf(e.address)})
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
			es[i].inFlight.Add(1)
			if running = append(running, i); len(running) >= concurrency {
				k := random.IntN(len(running)) // any request may end first
				es[running[k]].inFlight.Add(-1)
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

// One round gives each endpoint its part of it to within one request, whatever the weights are.
func TestInTurnKeepsToWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 20), 1, 12).Draw(t, "weights")
		rounds := rapid.IntRange(1, 100).Draw(t, "rounds")
		es := loaded(weights, nil)
		heaviest := slices.Max(weights)
		var turn atomic.Uint64
		got := make([]int, len(es))
		for turn.Load() < uint64(rounds*len(es)) {
			i := inTurn(es, &turn)
			if turn.Load() <= uint64(rounds*len(es)) { // else it belongs to the next round
				got[i]++
			}
		}
		for i, w := range weights {
			if want := float64(rounds*w) / float64(heaviest); math.Abs(float64(got[i])-want) >= 1 {
				t.Fatalf("weights %v: %d in %d rounds, want %.2f to within one", weights, got, rounds, want)
			}
		}
	})
}

func TestInTurn(t *testing.T) {
	f := func(weights []int, want string) {
		t.Helper()
		var turn atomic.Uint64
		got := ""
		for range len(want) {
			got += string(rune('a' + inTurn(loaded(weights, nil), &turn)))
		}
		if got != want {
			t.Errorf("weights %v: got %s, want %s", weights, got, want)
		}
	}
	f([]int{7}, "aaaa")
	f([]int{1, 1, 1}, "abcabcabc")
	f([]int{2, 1}, "abaabaaba")
	// The light ones do not come together.
	f([]int{5, 1, 1}, "aacaabaaacaaba")
}

func TestInTurnAmongMany(t *testing.T) {
	const callers, calls = 8, 6000
	es := loaded([]int{3, 2, 1}, nil)
	var turn atomic.Uint64
	got := make([]atomic.Int64, len(es))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range calls {
				got[inTurn(es, &turn)].Add(1)
			}
		})
	}
	wg.Wait()
	for i, want := range []int64{callers * calls / 2, callers * calls / 3, callers * calls / 6} {
		if n := got[i].Load(); n < want-1 || n > want+1 {
			t.Errorf("endpoint %d got %d, want %d", i, n, want)
		}
	}
}

// When an endpoint goes, only its tenants move; when it comes back, they are back.
func TestByHashMovesNobodyElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 1000), 2, 40).Draw(t, "weights")
		gone := rapid.IntRange(0, len(weights)-1).Draw(t, "gone")
		all := loaded(weights, nil)
		rest := weighed(append(slices.Clone(all[:gone]), all[gone+1:]...))
		for i := range 200 {
			key := hashOf("tenant-" + strconv.Itoa(i))
			before := all[byHash(all, key)].address
			if after := rest[byHash(rest, key)].address; after != before && before != all[gone].address {
				t.Fatalf("tenant %d moved from %s to %s though %s went", i, before, after, all[gone].address)
			}
		}
	})
}

func TestByHashSpreadsByWeight(t *testing.T) {
	f := func(weights ...int) {
		t.Helper()
		const tenants = 20_000
		es := loaded(weights, nil)
		got := make([]int, len(es))
		for i := range tenants {
			got[byHash(es, hashOf("tenant-"+strconv.Itoa(i)))]++
		}
		for i, w := range weights {
			want := float64(tenants) * float64(w) / float64(es[len(es)-1].upTo)
			if n := float64(got[i]); n < want*0.9 || n > want*1.1 {
				t.Errorf("weights %v: %v; endpoint %d wants %.0f within 10 %%", weights, got, i, want)
			}
		}
	}
	f(1, 1)
	f(1, 1, 1, 1, 1)
	f(5, 3, 2)
	f(10, 1)
}

// One tenant stays together while it is small. However loud it gets, no endpoint has much more than its part.
func TestByHashIsBounded(t *testing.T) {
	f := func(weights ...int) {
		t.Helper()
		es := loaded(weights, nil)
		key := hashOf("loud")
		home := byHash(es, key)
		for n := range int64(1000) {
			i := byHash(es, key)
			if n < crowd && i != home {
				t.Fatalf("weights %v: request %d left home", weights, n)
			}
			es[i].inFlight.Add(1)
			for j := range es {
				part := float64(n+1) * float64(es[j].weight) / float64(es[len(es)-1].upTo)
				if load := es[j].inFlight.Load(); float64(load) > max(crowd, loadFactor*part/2+1) {
					t.Fatalf("weights %v: endpoint %d has %d of %d in flight, its part is %.1f", weights, j, load, n+1, part)
				}
			}
		}
	}
	f(1, 1)
	f(1, 1, 1, 1)
	f(3, 1, 1)
}

// Other processes choose the same endpoint: the hash is part of the contract.
func TestHashIsTheSameEverywhere(t *testing.T) {
	if h := hashOf("acme"); h != 0x130a76222d4427ef {
		t.Errorf("hash of acme is %#x", h)
	}
	es := loaded([]int{1, 1, 1, 1}, nil)
	got := ""
	for _, tenant := range []string{"acme", "globex", "initech", "umbrella", "hooli", "stark"} {
		got += strconv.Itoa(byHash(es, hashOf(tenant)))
	}
	if want := "022230"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBalanceOfCalls(t *testing.T) {
	f := func(balance policy.Balance, call Call, want func(first, i int) bool) {
		t.Helper()
		b := &Backend{settings: policy.Backend{Balance: balance}, stats: new(stats)}
		es := loaded([]int{1, 1, 1}, nil)
		first := b.choose(es, &call)
		for range 50 {
			if i := b.choose(es, &call); !want(first, i) {
				t.Fatalf("%v, %+v: first %d, then %d", balance, call, first, i)
			}
		}
	}
	always := func(int, int) bool { return true }
	same := func(first, i int) bool { return i == first }
	avoided := func(_, i int) bool { return i != 1 }
	f(policy.ConsistentHash, Call{Tenant: "acme"}, same)
	// Nobody in particular is spread.
	f(policy.ConsistentHash, Call{}, always)
	// Another try goes elsewhere, whatever the balance is.
	for _, balance := range []policy.Balance{policy.LeastRequest, policy.RoundRobin, policy.ConsistentHash} {
		for _, tenant := range []string{"", "acme", "globex", "initech", "stark"} {
			f(balance, Call{Tenant: tenant, Avoid: "10.0.0.1:80"}, avoided)
		}
	}
	// Where there is no other, it is used again.
	b := &Backend{stats: new(stats)}
	if i := b.choose(loaded([]int{1}, nil), &Call{Avoid: "10.0.0.0:80"}); i != 0 {
		t.Errorf("got %d of one", i)
	}
}
