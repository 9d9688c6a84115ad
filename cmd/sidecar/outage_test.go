package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/control"
)

// outageFor is how long TestOutageUnderLoad goes on.
var outageFor = flag.Duration("outage", 10*time.Second, "how long etcd comes and goes under load")

// The limit that the load exceeds.
const rateOf, burstOf = 100, 100

// An outage of etcd under load: no request fails, each tenant is held to his limit as before, and on return the sidecar is in step
// again soon. `make outage` does this for ten minutes and shows the figures.
func TestOutageUnderLoad(t *testing.T) {
	s, service := newStore(t), newService(t, hello)
	write := func(note int) int64 {
		return s.Put(keyOf("TenantPolicy", "limited"), fmt.Sprintf("apiVersion: weir.dev/v1alpha1\nkind: TenantPolicy\n"+
			"metadata: {name: limited, annotations: {note: \"%d\"}}\n"+
			"spec: {tenants: {names: [limited]}, limits: [{name: steady, requests: %d, per: 1s, burst: %d}]}\n", note, rateOf, burstOf))
	}
	write(0)
	p := launch(t, documentsFor(service.address()), with("--etcd", s.url()))
	load := newLoad(p.listen, "limited", "free")

	// The shorter the whole, the shorter each outage.
	longest := min(*outageFor/8, 20*time.Second)
	sorts := []struct {
		name       string
		length     time.Duration
		fall, rise func()
	}{
		{"cut", longest / 2, s.line.Cut, s.line.Heal},
		{"stall", longest, s.line.Stall, s.line.Heal},
		{"restart", longest / 2, func() { s.Stop(0) }, func() { s.Restart(0) }},
	}
	returns := make(map[string][]time.Duration)
	timer := time.NewTimer(*outageFor)
	defer timer.Stop()
	pause := func(d time.Duration) (over bool) {
		select {
		case <-timer.C:
			return true
		case <-time.After(d): // this is the outage itself
			return false
		}
	}
	for n, over := 0, false; !over; n++ {
		sort := sorts[n%len(sorts)]
		sort.fall()
		over = pause(sort.length)
		if sort.name != "restart" {
			write(n) // behind the sidecar's back
		}
		sort.rise()
		healed := time.Now()
		revision := write(-n)
		until(t, "the sidecar is in step after a "+sort.name, func() bool { return p.revision() >= revision })
		returns[sort.name] = append(returns[sort.name], time.Since(healed))
		over = pause(longest/4) || over
	}
	load.stop()
	if ready, err := p.ask("/readyz"); err != nil || !strings.Contains(ready, "200 OK") {
		t.Errorf("readiness is %q, %v", ready, err)
	}
	p.stops()

	for _, name := range []string{"cut", "stall", "restart"} {
		t.Logf("in step again after a %-8s %s", name, spread(returns[name]))
		if len(returns[name]) >= 3 && percentile(returns[name], 95) > 3*time.Second {
			t.Errorf("in step after a %s within %v at p95, want 3 s", name, percentile(returns[name], 95))
		}
	}
	for _, c := range load.clients {
		t.Logf("%-8s %v over %v; answered within %s", c.tenant, c.answers, load.took.Round(time.Second), spread(c.times))
		if failed := c.requests - c.answers[200] - c.answers[429]; failed > 0 || len(c.errors) > 0 {
			t.Errorf("%s: %d of %d requests failed: %v %v", c.tenant, failed, c.requests, c.answers, c.errors)
		}
	}
	limited, free := load.clients[0], load.clients[1]
	most := float64(rateOf)*load.took.Seconds() + burstOf
	if passed := float64(limited.answers[200]); passed > most+1 || passed < 0.9*min(most, float64(limited.requests)) {
		t.Errorf("%v requests passed the limit, want %v", passed, most)
	}
	if free.answers[429] > 0 {
		t.Errorf("%d requests of a tenant without a limit were refused", free.answers[429])
	}
}

// revision is that of the etcd source in force, or 0.
func (p *running) revision() int64 {
	resp, err := http.Get("http://" + p.admin + "/status?o=json")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var s control.Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return 0
	}
	for _, source := range s.Sources {
		if source.Name == etcdName && source.Healthy {
			return source.Revision
		}
	}
	return 0
}

// load is clients that ask at three times the rate of the limit, each of one tenant.
type load struct {
	clients []*loadClient
	ended   chan struct{}
	running sync.WaitGroup
	begun   time.Time
	took    time.Duration
}

// loadClient is one of them, and what it got.
type loadClient struct {
	tenant   string
	requests int
	answers  map[int]int
	errors   []error
	times    []time.Duration
}

func newLoad(address string, tenants ...string) *load {
	l := &load{ended: make(chan struct{}), begun: time.Now()}
	for _, tenant := range tenants {
		c := &loadClient{tenant: tenant, answers: make(map[int]int)}
		l.clients = append(l.clients, c)
		l.running.Go(func() { c.run("http://"+address+"/", l.ended) })
	}
	return l
}

func (l *load) stop() {
	close(l.ended)
	l.running.Wait()
	l.took = time.Since(l.begun)
}

func (c *loadClient) run(url string, ended <-chan struct{}) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	tick := time.NewTicker(time.Second / (3 * rateOf))
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			panic(err)
		}
		req.Header.Set("X-Tenant-ID", c.tenant)
		begun := time.Now()
		resp, err := transport.RoundTrip(req)
		c.requests++
		if err != nil {
			c.errors = append(c.errors, err)
			continue
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			c.errors = append(c.errors, err)
		}
		_ = resp.Body.Close()
		c.answers[resp.StatusCode]++
		c.times = append(c.times, time.Since(begun))
	}
}

// percentile is the value below which so many percent lie, by nearest rank; 0 of nothing.
func percentile(values []time.Duration, percent int) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

func spread(values []time.Duration) string {
	return fmt.Sprintf("p50 %v, p95 %v, max %v of %d", percentile(values, 50).Round(10*time.Microsecond),
		percentile(values, 95).Round(10*time.Microsecond), percentile(values, 100).Round(10*time.Microsecond), len(values))
}
