package admit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// bucket is the state of a limit with so many tokens left, of which the next one comes in whole.
func bucket(requests int64, per time.Duration, burst, left int64) LimitState {
	s := LimitState{Name: "steady", Requests: requests, Per: per, Burst: burst, Available: left}
	if left < burst {
		s.Next, s.Reset = s.refill(1), s.refill(burst-left)
	}
	return s
}

func TestFieldsOfALimit(t *testing.T) {
	f := func(s LimitState, policy, limit string) {
		t.Helper()
		if got := string(s.AppendPolicy(nil)); got != policy {
			t.Errorf("%+v: RateLimit-Policy %s, want %s", s, got, policy)
		}
		if got := string(s.AppendLimit(nil)); got != limit {
			t.Errorf("%+v: RateLimit %s, want %s", s, got, limit)
		}
	}

	// The policy is what the document says. t is when as much as is left has come back.
	f(bucket(1000, time.Second, 1000, 1000), `"steady";q=1000;w=1`, `"steady";r=1000;t=1`)
	f(bucket(1000, time.Second, 1000, 999), `"steady";q=1000;w=1`, `"steady";r=999;t=1`)
	f(bucket(10, time.Hour, 10, 5), `"steady";q=10;w=3600`, `"steady";r=5;t=1800`)
	// What was saved up is more than a window brings.
	f(bucket(1000, time.Second, 2000, 2000), `"steady";q=1000;w=1`, `"steady";r=2000;t=2`)
	// With nothing left, t is when the next token comes.
	f(bucket(10, time.Hour, 10, 0), `"steady";q=10;w=3600`, `"steady";r=0;t=360`)
	f(bucket(1000, time.Second, 1000, 0), `"steady";q=1000;w=1`, `"steady";r=0;t=1`)
	// A small bucket never gives as much at once as the document's window brings.
	f(bucket(1000, time.Hour, 10, 10), `"steady";q=10;w=36`, `"steady";r=10;t=36`)
	f(bucket(7, 10*time.Second, 5, 0), `"steady";q=5;w=8`, `"steady";r=0;t=2`)
	// Windows shorter than a second cannot be told.
	f(bucket(10, 100*time.Millisecond, 10, 10), `"steady";q=100;w=1`, `"steady";r=10;t=1`)
	f(bucket(1000, time.Second, 1, 1), `"steady";q=1000;w=1`, `"steady";r=1;t=1`)
	f(bucket(3, 1500*time.Millisecond, 3, 1), `"steady";q=3;w=2`, `"steady";r=1;t=1`)
	// What blocks.
	f(LimitState{Name: "none", Per: time.Second}, `"none";q=0;w=1`, `"none";r=0;t=0`)
	// A gate has no window.
	f(LimitState{Name: "concurrency", Requests: 50, Available: 49, Concurrent: true}, `"concurrency";q=50;qu="concurrent-requests"`, `"concurrency";r=49`)
	// Integers have at most 15 digits, and none is below 0.
	f(LimitState{Name: "x", Requests: 1 << 60, Per: time.Second, Burst: 1 << 60, Available: 1 << 60}, `"x";q=999999999999999;w=1`, `"x";r=999999999999999;t=1`)
	f(LimitState{Name: "x", Requests: 1, Per: math.MaxInt64, Burst: 1 << 60, Available: -1, Next: math.MaxInt64}, `"x";q=1;w=9223372037`, `"x";r=0;t=9223372037`)
	f(LimitState{Name: "x", Requests: 1, Per: math.MaxInt64, Burst: 1 << 60, Available: 1 << 60}, `"x";q=1;w=9223372037`, `"x";r=999999999999999;t=9223372037`)
}

func TestFieldsOfSeveralLimits(t *testing.T) {
	f := func(policies, limits string, states ...LimitState) {
		t.Helper()
		if got := string(AppendPolicies([]byte("x"), states)); got != "x"+policies {
			t.Errorf("RateLimit-Policy %s, want x%s", got, policies)
		}
		if got := string(AppendLimits([]byte("x"), states)); got != "x"+limits {
			t.Errorf("RateLimit %s, want x%s", got, limits)
		}
	}
	gate := LimitState{Name: "concurrency", Requests: 5, Available: 0, Concurrent: true}

	f("", "")
	f(`"steady";q=10;w=1`, `"steady";r=10;t=1`, bucket(10, time.Second, 10, 10))
	f(`"steady";q=10;w=1, "concurrency";q=5;qu="concurrent-requests"`, `"steady";r=10;t=1, "concurrency";r=0`, bucket(10, time.Second, 10, 10), gate)
}

func TestLegacyFields(t *testing.T) {
	f := func(s LimitState, want ...int64) {
		t.Helper()
		if limit, remaining, reset := s.Legacy(); limit != want[0] || remaining != want[1] || reset != want[2] {
			t.Errorf("%+v: %d, %d, %d, want %d", s, limit, remaining, reset, want)
		}
	}

	f(bucket(10, time.Hour, 10, 4), 10, 4, 2160)
	f(bucket(10, time.Hour, 20, 20), 20, 20, 0)
	f(bucket(10, time.Second, 10, 9), 10, 9, 1)
	f(LimitState{Burst: 1 << 60, Available: -1, Reset: math.MaxInt64}, 999999999999999, 0, 9223372037)
}

func TestTightest(t *testing.T) {
	f := func(want int, states ...LimitState) {
		t.Helper()
		got := Tightest(states)
		if want < 0 && got != nil || want >= 0 && got != &states[want] {
			t.Errorf("%+v of %+v, want number %d", got, states, want)
		}
	}
	gate := LimitState{Name: "concurrency", Requests: 5, Concurrent: true}

	f(-1)
	f(-1, gate)
	f(1, gate, bucket(10, time.Second, 10, 4))
	f(1, bucket(10, time.Second, 10, 4), bucket(10, time.Second, 10, 3), bucket(10, time.Hour, 10, 4))
	f(1, bucket(10, time.Second, 10, 4), bucket(10, time.Hour, 10, 4), bucket(10, time.Second, 10, 4))
}

func TestNextRequest(t *testing.T) {
	f := func(want time.Duration, states ...LimitState) {
		t.Helper()
		if got := NextRequest(states); got != want {
			t.Errorf("%+v: %v, want %v", states, got, want)
		}
	}

	f(0)
	f(0, bucket(1, time.Second, 10, 1), LimitState{Concurrent: true}, LimitState{Per: time.Second})
	f(time.Minute, bucket(1, time.Second, 10, 0), bucket(1, time.Minute, 10, 0), bucket(1, time.Hour, 10, 1))
}

// RetryAfter is never early and at most 3 % late, besides the rounding up.
func TestRetryAfter(t *testing.T) {
	f := func(wait time.Duration, jitter float64, want int64) {
		t.Helper()
		if got := RetryAfter(wait, jitter); got != want {
			t.Errorf("%v with %v: %d, want %d", wait, jitter, got, want)
		}
	}

	f(0, 0, 1)
	f(time.Nanosecond, 0.99, 1)
	f(time.Second, 0, 1)
	f(time.Second+1, 0, 2)
	f(100*time.Second, 0, 100)
	f(100*time.Second, 0.999, 103)

	rapid.Check(t, func(t *rapid.T) {
		wait := time.Duration(rapid.Int64Range(0, int64(4*365*24*time.Hour)).Draw(t, "wait"))
		got := time.Duration(RetryAfter(wait, rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "jitter"))) * time.Second
		if got < wait || got < time.Second || float64(got) > float64(wait)*1.03+float64(time.Second) {
			t.Fatalf("a wait of %v is told as %v", wait, got)
		}
	})
}

// Whatever the limit and however full, another parser reads what the draft says, and a client that keeps to it is let in: of a
// bucket that holds r, it may take r now and r again after each t; of an empty one, the next token after t.
func TestWhatIsToldIsTrue(t *testing.T) {
	const seed = 10
	rnd := rand.New(rand.NewPCG(seed, seed))
	empty := 0
	for range 300 {
		per := time.Duration(float64(time.Millisecond) * math.Pow(10, 8*rnd.Float64()))
		requests, burst := 1+rnd.Int64N(10000), 1+int64(math.Pow(10, 4*rnd.Float64()))
		r := newRig(t, fmt.Sprintf("TenantPolicy p {tenants: {any: true}, limits: [{name: steady, requests: %d, per: %s, burst: %d}]}", requests, per, burst))
		m := r.table.Match(r.now, requestOf("acme", "/"))
		b := &m.Tenant.buckets()[0]
		b.Take(r.now, burst)
		r.wait(time.Duration(rnd.Float64() * float64(per) / float64(requests) * float64(1+rnd.Int64N(burst))))
		states := r.table.Limits(r.now, &m, nil)

		left, window := read(t, AppendLimits(nil, states), "r", "t")
		quota, each := read(t, AppendPolicies(nil, states), "q", "w")
		if each < 1 || left > burst {
			t.Fatalf("%+v is told as %d of %d in %d seconds (seed %d)", states[0], left, quota, each, seed)
		}
		if float64(quota)*per.Seconds() > float64(requests)*float64(each)*(1+1e-9) {
			t.Fatalf("%+v is told as a faster rate: %d in %d seconds (seed %d)", states[0], quota, each, seed)
		}
		if left == 0 {
			empty++
			r.wait(time.Duration(window) * time.Second)
			if !b.Take(r.now, 1).OK {
				t.Fatalf("%+v: nothing after %d seconds (seed %d)", states[0], window, seed)
			}
			continue
		}
		for range 3 {
			if !b.Take(r.now, left).OK {
				t.Fatalf("%+v: %d every %d seconds is too much (seed %d)", states[0], left, window, seed)
			}
			r.wait(time.Duration(window) * time.Second)
		}
	}
	if empty < 15 || empty > 285 {
		t.Errorf("%d of 300 buckets were empty (seed %d)", empty, seed)
	}
}

// read returns two parameters of the only member of a list.
func read(t *testing.T, text []byte, amount, window string) (a, w int64) {
	t.Helper()
	list, err := httpsfv.UnmarshalList([]string{string(text)})
	if err != nil || len(list) != 1 {
		t.Fatalf("%q: %v", text, err)
	}
	item := list[0].(httpsfv.Item)
	if item.Value != "steady" || len(item.Params.Names()) != 2 {
		t.Fatalf("%q", text)
	}
	first, _ := item.Params.Get(amount)
	second, _ := item.Params.Get(window)
	a, isInteger := first.(int64)
	w, isIntegerToo := second.(int64)
	if !isInteger || !isIntegerToo || a < 0 || w < 0 {
		t.Fatalf("%q", text)
	}
	return a, w
}

func TestTellRefused(t *testing.T) {
	r := newRig(t, `
		TenantPolicy p {tenants: {any: true}, concurrency: {max: 2}, limits: [{name: a, requests: 1, per: 1h}, {name: b, requests: 1, per: 10s, burst: 2}]}
		TenantPolicy q {tenants: {names: [other]}, limits: [{name: b, requests: 1, per: 1m}]}`)
	f := func(tenant, form string, violated string, want ...string) {
		t.Helper()
		r.try(tenant, "/")
		m, v := r.open(tenant, "/")
		states := r.table.Limits(r.now, m, nil)
		r.settle(m, v)
		var got []string
		v.TellRefused(nil, form, states, 0, func(name string, value []byte) { got = append(got, name+": "+string(value)) })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s of %v (-want +got):\n%s", form, v.Reason, diff)
		}
		if got := string(v.AppendViolated(nil, states, 1)); got != violated {
			t.Errorf("%v: violated are %s, want %s", v.Reason, got, violated)
		}
	}
	standard := []string{
		`RateLimit-Policy: "a";q=1;w=3600, "b";q=1;w=10, "concurrency";q=2;qu="concurrent-requests"`,
		`RateLimit: "a";r=0;t=3600, "b";r=1;t=10, "concurrency";r=2`,
	}
	legacy := []string{"X-RateLimit-Limit: 1", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 3600"}
	wait := []string{"Retry-After: 3600"}

	f("acme", "Off", `"a"`)
	f("acme", "Standard", `"a"`, slices.Concat(wait, standard)...)
	f("acme", "Legacy", `"a"`, slices.Concat(wait, legacy)...)
	f("acme", "Both", `"a"`, slices.Concat(wait, standard, legacy)...)
	// Of several limits that refuse, the one with the longest wait is the verdict's; all of them are violated.
	f("other", "Legacy", `"b","a"`, slices.Concat(wait, legacy)...)
	// Who waits for a place is told of no time, and the older fields have no word for it.
	r.open("third", "/")
	r.wait(time.Hour)
	r.open("third", "/")
	r.wait(time.Hour)
	f("third", "Both", `"concurrency"`, `RateLimit-Policy: "a";q=1;w=3600, "b";q=1;w=10, "concurrency";q=2;qu="concurrent-requests"`,
		`RateLimit: "a";r=1;t=3600, "b";r=2;t=20, "concurrency";r=0`)
}

func TestFieldsAllocateNothing(t *testing.T) {
	states := []LimitState{bucket(10, time.Hour, 10, 4), bucket(10, time.Second, 20, 0), {Name: "concurrency", Requests: 5, Concurrent: true}}
	dst := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		dst = AppendLimits(AppendPolicies(dst[:0], states), states)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
