package admit

import (
	"testing"
	"time"

	"weir/limit"
	"weir/policy"
)

func TestDecideBucket(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {names: [acme, globex]}, limits: [{name: steady, requests: 10, burst: 20}]}`)
	// The burst, then the rate.
	r.wantPasses("acme", 30, 20)
	v := r.try("acme", "/")
	if v.Reason != Limited || v.RetryAfter != 100*time.Millisecond {
		t.Errorf("unexpected verdict: got %v, retry after %v, want limited, 100ms", v.Reason, v.RetryAfter)
	}
	r.wait(v.RetryAfter - 1)
	r.wantPasses("acme", 5, 0)
	r.wait(1)
	r.wantPasses("acme", 5, 1)
	r.wait(time.Second)
	r.wantPasses("acme", 50, 10)
	// The other one has a bucket of its own.
	r.wantPasses("globex", 30, 20)
}

func TestDecideAllOrNothing(t *testing.T) {
	r := newRig(t, `
		TenantPolicy p {tenants: {names: [acme]}, limits: [{name: wide, requests: 100, per: 1h}, {name: narrow, requests: 2, per: 1h}, {name: last, requests: 50, per: 1h}]}`)
	r.wantPasses("acme", 2, 2)
	r.wantAvailable("acme", "wide", 98)
	// What narrow denies costs nothing anywhere.
	for range 1000 {
		r.want("acme", "/", Limited, "p/narrow")
	}
	r.wantAvailable("acme", "wide", 98)
	r.wantAvailable("acme", "narrow", 0)
	r.wantAvailable("acme", "last", 48)
	// Nor does it hold a place.
	if n := r.table.named["acme"].seat.gate.InFlight(); n != 0 {
		t.Errorf("unexpected requests in flight: got %d, want 0", n)
	}
}

// One tenant over its own limit must leave all of a ceiling to the others, wherever the ceiling stands in the documents.
func TestDecideAbuserLeavesSharedLimit(t *testing.T) {
	f := func(limits string) {
		t.Helper()
		r := newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [`+limits+`]}`)
		r.wantPasses("abuser", 1000, 5)
		r.wantAvailable("abuser", "ceiling", 15)
		// Every token is there whenever somebody asks, not only at the end.
		for i, victim := range []string{"a", "b", "c"} {
			r.wantPasses("abuser", 100, 0)
			r.wantPasses(victim, 5, 5)
			r.wantAvailable("abuser", "ceiling", int64(10-5*i))
		}
		r.want("d", "/", Limited, "p/ceiling")
		// Who is stopped by the ceiling keeps its own.
		r.wantAvailable("d", "own", 5)
	}

	f(`{name: ceiling, requests: 20, per: 1h, bucket: Shared}, {name: own, requests: 5, per: 1h}`)
	f(`{name: own, requests: 5, per: 1h}, {name: ceiling, requests: 20, per: 1h, bucket: Shared}`)
}

// The same with requests that cost more than one token each, by the route or by the header: a refusal gives back all of it.
func TestDecideAbuserLeavesSharedLimitWhateverTheCost(t *testing.T) {
	f := func(cost, header, limits string) {
		t.Helper()
		r := newRig(t, `
			Route r {backend: main, cost: `+cost+`}
			TenantPolicy p {tenants: {any: true}, limits: [`+limits+`]}`)
		passes := func(tenant string, n, want int) {
			t.Helper()
			passed := 0
			for range n {
				if v := r.spend(tenant, header); v.Reason == Passed {
					passed++
				}
			}
			if passed != want {
				t.Errorf("cost %s, header %q: %d of %d requests of %s passed, want %d", cost, header, passed, n, tenant, want)
			}
		}
		passes("abuser", 1000, 3) // of 7 tokens each, where there are 25
		r.wantAvailable("abuser", "own", 4)
		r.wantAvailable("abuser", "ceiling", 60-21)
		for i, victim := range []string{"a", "b"} {
			passes("abuser", 100, 0)
			passes(victim, 2, 2)
			r.wantAvailable("abuser", "ceiling", int64(60-21-14*(i+1)))
		}
		passes("c", 2, 1)
		// Whom the ceiling stops, it costs nothing of his own.
		r.wantAvailable("c", "own", 25-7)
		r.wantAvailable("c", "ceiling", 4)
	}

	own, ceiling := `{name: own, requests: 25, per: 1h}`, `{name: ceiling, requests: 60, per: 1h, bucket: Shared}`
	f("{request: 7}", "", own+", "+ceiling)
	f("{request: 7}", "", ceiling+", "+own)
	f("{request: 2, header: X-Cost}", "5", ceiling+", "+own)
	f("{request: 0, header: X-Cost}", "7", own+", "+ceiling)
}

// Several windows of one tenant on one route hold each on its own, and bytes beside them: whatever mix of requests comes, none
// of them lets through more than burst + rate × time, and while no other refuses each lets through all that.
func TestDecideSeveralWindows(t *testing.T) {
	r := newRig(t, `
		Route r {match: [{path: /pay}], backend: main}
		TenantPolicy p {tenants: {names: [acme]}, limits: [{name: short, requests: 10, per: 1s}, {name: long, requests: 250, per: 1m}, {name: traffic, bytes: 1000, per: 1s, burst: 5000, routes: [r]}]}`)
	passedIn := make(map[int]int) // by second
	passed, minute := 0, 0
	for tick := range 10 * 180 { // a request every 100 ms for three minutes, and a burst of 30 every ten seconds
		n := 1
		if tick%100 == 0 {
			n = 30
		}
		for range n {
			switch v := r.try("acme", "/pay"); v.Reason {
			case Passed:
				passedIn[tick/10]++
				passed++
			case Limited:
				if r.available("acme", v.Limit.Name()) != 0 {
					t.Fatalf("%s refused with tokens left", v.Limit.Name())
				}
			default:
				t.Fatalf("unexpected verdict: %v", v.Reason)
			}
		}
		if tick == 600 {
			minute = passed
		}
		r.wait(100 * time.Millisecond)
	}
	for second, n := range passedIn {
		if n > 20 { // the burst, and what refills in a second
			t.Errorf("%d passed in second %d", n, second)
		}
	}
	if minute > 500 || minute < 490 {
		t.Errorf("%d passed in the first minute, want the burst of 250 and as many again", minute)
	}
	if want := 250 + 3*250; passed > want || passed < want-15 {
		t.Errorf("%d passed in three minutes, want %d", passed, want)
	}
	// Bytes go on by themselves all the while: nothing of them was spent.
	r.wantAvailable("acme", "traffic", 5000)
	r.wait(time.Minute)
	if waited := r.transfer("acme", "/pay", 5000); waited != 0 {
		t.Errorf("the burst in bytes waited %v", waited)
	}
	if waited := r.transfer("acme", "/pay", 3000); waited != 3*time.Second {
		t.Errorf("3000 bytes at 1000 a second waited %v", waited)
	}
}

// While an abuser hammers from many goroutines, the victim gets every token of the ceiling: a denied request holds none of
// them, not even for a moment.
func TestDecideAbuserHoldsNothing(t *testing.T) {
	const ceiling = 20000
	r := newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [{name: ceiling, requests: 20000, per: 1h, bucket: Shared}, {name: own, requests: 19999, per: 1h}]}`)
	r.wantPasses("abuser", 1, 1)
	r.table.find(r.now, "abuser").buckets()[0].Take(r.now, 19998)
	stop, stopped := make(chan struct{}), make(chan int)
	for range 3 {
		go func() {
			passed := 0
			for {
				select {
				case <-stop:
					stopped <- passed
					return
				default:
				}
				m := r.table.Match(r.now, requestOf("abuser", "/"))
				v := r.table.Decide(r.now, &m)
				if v.Reason == Passed {
					passed++
				}
				r.table.Settle(&m, &v, Outcome{Reason: v.Reason})
			}
		}()
	}
	r.wantPasses("victim", ceiling-1, ceiling-1)
	close(stop)
	for range 3 {
		if passed := <-stopped; passed != 0 {
			t.Errorf("the abuser passed %d times", passed)
		}
	}
}

func TestDecideStrictestAnswer(t *testing.T) {
	r := newRig(t, `
		TenantPolicy p {tenants: {names: [acme]}, limits: [{name: short, requests: 1, per: 1s}, {name: long, requests: 1, per: 1h}, {name: middle, requests: 1, per: 1m}]}
		TenantPolicy q {tenants: {names: [globex]}, limits: [{name: short, requests: 1, per: 1s}, {name: never, requests: 0}, {name: long, requests: 1, per: 1h}]}`)
	// The longest wait is the answer, whatever the order; a blocked tenant is told so.
	r.wantPasses("acme", 1, 1)
	r.want("acme", "/", Limited, "p/long")
	if v := r.try("acme", "/"); v.RetryAfter != time.Hour {
		t.Errorf("unexpected wait: got %v, want 1h", v.RetryAfter)
	}
	r.want("globex", "/", Blocked, "q/never")
	r.wantAvailable("globex", "short", 1)
	r.wantAvailable("globex", "long", 1)
}

func TestStricter(t *testing.T) {
	verdict := func(r Reason, wait time.Duration) Verdict { return Verdict{Reason: r, RetryAfter: wait} }
	f := func(a, b, want Verdict) {
		t.Helper()
		if got := stricter(a, b); got != want {
			t.Errorf("stricter(%v %v, %v %v): got %v %v, want %v %v", a.Reason, a.RetryAfter, b.Reason, b.RetryAfter, got.Reason, got.RetryAfter, want.Reason, want.RetryAfter)
		}
	}

	passed, crowded := verdict(Passed, 0), verdict(Concurrency, 0)
	soon, late := verdict(Limited, time.Second), verdict(Limited, time.Minute)
	costly, blocked := verdict(TooCostly, 0), verdict(Blocked, 0)
	order := []Verdict{passed, crowded, soon, late, costly, blocked}
	for i, a := range order {
		for _, b := range order[:i] {
			f(a, b, a)
			f(b, a, a)
		}
	}
	// Of two equal ones the first.
	first, second := soon, soon
	first.Limit, second.Limit = new(Limit), new(Limit)
	f(first, second, first)
	f(second, first, second)
}

func TestDecideBlocked(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: none, requests: 0}]}`)
	r.wait(24 * time.Hour)
	r.want("acme", "/", Blocked, "p/none")
	if v := r.try("acme", "/"); v.RetryAfter != 0 {
		t.Errorf("unexpected wait: got %v, want 0", v.RetryAfter)
	}
}

// It asks below Decide, for any cost.
func TestSpendTooCostly(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: wide, requests: 100}, {name: narrow, requests: 1, burst: 10}, {name: middle, requests: 30}]}`)
	tn := r.table.named["acme"]
	enforced := tn.plan.on(0).enforced
	f := func(n int64, reason Reason, limit string) {
		t.Helper()
		v := tn.spend(enforced, r.now, n)
		if v.Reason != reason || v.Reason != Passed && v.Limit.Name() != limit || v.RetryAfter != 0 {
			t.Errorf("spending %d: unexpected verdict: got %+v, want %v of %q", n, v, reason, limit)
		}
	}

	f(10, Passed, "")
	f(11, TooCostly, "narrow")
	// Impossible is stricter than a wait.
	f(25, TooCostly, "narrow")
	r.wantAvailable("acme", "wide", 90)
	r.wantAvailable("acme", "middle", 20)
}

func TestDecideConcurrency(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {any: true}, concurrency: {max: 2}, limits: [{name: steady, requests: 10, per: 1h}]}`)
	m1, v1 := r.open("acme", "/")
	m2, v2 := r.open("acme", "/")
	// The gate comes before the buckets: what it refuses costs no token.
	r.want("acme", "/", Concurrency, "")
	r.wantAvailable("acme", "steady", 8)
	r.want("globex", "/", Passed, "")
	r.settle(m1, v1)
	r.wantPasses("acme", 1, 1)
	// A request that a bucket refuses gives its place back.
	r.wantPasses("acme", 50, 7)
	r.want("acme", "/", Limited, "p/steady")
	r.settle(m2, v2)
	// Those in flight count after a change too, and leave the gate that they entered.
	r.wait(time.Hour)
	m1, v1 = r.open("acme", "/")
	m2, v2 = r.open("acme", "/")
	before := r.table
	r.swap(`TenantPolicy p {tenants: {any: true}, concurrency: {max: 1}, limits: [{name: steady, requests: 10, per: 1h}]}`)
	r.want("acme", "/", Concurrency, "")
	before.Settle(m1, v1, Outcome{Status: 200})
	r.want("acme", "/", Concurrency, "")
	before.Settle(m2, v2, Outcome{Status: 200})
	r.want("acme", "/", Passed, "")
}

// A match that was refused never passes, whoever asks for it.
func TestDecideRefused(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {names: [acme]}}`)
	f := func(tenant string, want Reason) {
		t.Helper()
		m := r.table.Match(r.now, requestOf(tenant, "/"))
		v := r.table.Decide(r.now, &m)
		if m.Reason != want || v.Reason != want || v.entered {
			t.Errorf("%q: unexpected verdict: got %+v after %v, want %v", tenant, v, m.Reason, want)
		}
		r.table.Settle(&m, &v, Outcome{Reason: v.Reason, Status: v.Reason.Status()})
	}

	f("", NoIdentity)
	f("globex", UnknownTenant)
}

func TestBuildFailure(t *testing.T) {
	f := func(change func(*policy.Snapshot)) {
		t.Helper()
		prev := newRig(t, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 1h}]}`)
		prev.wantPasses("acme", 4, 4)
		snap := snapshotOf(t, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 1000}]}`)
		change(snap)
		if _, err := Build(prev.table, snap, prev.now, Options{}); err == nil {
			t.Fatalf("unexpected success")
		}
		// Nothing has changed.
		prev.wantPasses("acme", 20, 6)
	}

	f(func(s *policy.Snapshot) { s.Policies[0].Limits[0].Requests = limit.MaxRequests + 1 })
	f(func(s *policy.Snapshot) { s.Sidecar.Identity[0].Header = "" })
	f(func(s *policy.Snapshot) { s.Routes[0].Match = []policy.RouteMatch{{Host: "*"}} })
}
