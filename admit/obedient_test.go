package admit

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// obedience is what became of the first retries of clients that waited for as long as Retry-After said.
type obedience struct{ retries, passed int }

// want checks that 99 of 100 passed, of so many at least.
func (o *obedience) want(t *testing.T, least int) {
	t.Helper()
	t.Logf("%d of %d first retries passed, %.2f %%", o.passed, o.retries, 100*float64(o.passed)/float64(o.retries))
	if o.retries < least || o.passed*100 < o.retries*99 {
		t.Errorf("%d of %d first retries passed, want 99 of 100 of at least %d", o.passed, o.retries, least)
	}
}

// client is one that sends a request at a time, and waits as it is told.
type client struct {
	at      int64 // of its next request
	refused bool  // that is a retry
}

// send sends the request that is due. A client that got through sends the next after a pause.
func (c *client) send(r *rig, tenant string, pause time.Duration, jitter float64, o *obedience) {
	r.now = c.at
	v := r.try(tenant, "/")
	if c.refused {
		o.retries++
		if v.Reason == Passed {
			o.passed++
		}
	}
	if c.refused = v.Reason != Passed; c.refused {
		pause = time.Duration(RetryAfter(v.RetryAfter, jitter)) * time.Second
	}
	c.at += int64(pause)
}

// limitsOf writes up to three limits of different windows, each of at least fewest requests a second, and at least one a window.
// slowest is the rate of the slowest, as the time between two requests. None holds fewer than deepest at once, unless it
// brings fewer in a window.
func limitsOf(rnd *rand.Rand, fewest float64, deepest int64) (document string, slowest time.Duration) {
	var limits []string
	for i := range 1 + rnd.IntN(3) {
		per := []time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute, time.Hour}[rnd.IntN(5)]
		requests := max(int64(fewest*per.Seconds()*(1+rnd.Float64())), 1) + rnd.Int64N(10)
		burst := min(deepest, requests) + rnd.Int64N(20)
		slowest = max(slowest, per/time.Duration(requests))
		limits = append(limits, fmt.Sprintf("{name: l%d, requests: %d, per: %s, burst: %d}", i, requests, per, burst))
	}
	return "TenantPolicy p {tenants: {any: true}, limits: [" + strings.Join(limits, ", ") + "]}", slowest
}

// A client with a tenant of its own sends until it is refused, waits, and is let in.
func TestObedientClient(t *testing.T) {
	const seed = 20
	rnd := rand.New(rand.NewPCG(seed, seed))
	var o obedience
	for i := range 200 {
		document, _ := limitsOf(rnd, 0, 1)
		r := newRig(t, document)
		tenant, c := fmt.Sprintf("t%d", i), client{at: r.now}
		for before := o.retries; o.retries < before+25; {
			c.send(r, tenant, time.Duration(rnd.Int64N(int64(time.Millisecond))), rnd.Float64(), &o)
		}
	}
	o.want(t, 5000)
	if o.passed != o.retries { // nobody else takes what it waits for
		t.Errorf("%d of %d", o.passed, o.retries)
	}
}

// Five clients of one tenant ask, at random times, for 95 % of what its slowest limit brings. That is 20 tokens a second or
// more, so all five may come back after the same second; where a second brings less than a token for each, they take each
// other's, and no number of seconds would help.
func TestObedientClientsOfOneTenant(t *testing.T) {
	const seed, clients, load = 21, 5, 0.95
	rnd := rand.New(rand.NewPCG(seed, seed))
	var o obedience
	for range 40 {
		document, slowest := limitsOf(rnd, 20, clients)
		r := newRig(t, document)
		pause := func() time.Duration { return time.Duration(rnd.ExpFloat64() * clients / load * float64(slowest)) }
		var all [clients]client
		for i := range all {
			all[i].at = r.now + int64(pause())
		}
		for range 10000 {
			next := &all[0]
			for i := range all {
				if all[i].at < next.at {
					next = &all[i]
				}
			}
			next.send(r, "acme", pause(), rnd.Float64(), &o)
		}
	}
	o.want(t, 1000)
}
