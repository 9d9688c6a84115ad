package proxy

import (
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// trouble is what is wrong with a backend.
type trouble uint8

const (
	well     trouble = iota
	killed           // nobody listens, and connections are cut
	stalled          // what comes is read, and answered once the trouble is over
	resets           // half of the calls break
	failures         // every second answer is a failure
	slowed           // each answer takes a second and a half
	troubles
)

func (w trouble) String() string {
	return [...]string{"well", "killed", "stalled", "resets", "failures", "slowed"}[w]
}

// ailing is a backend in a bubble that troubles come over.
type ailing struct {
	mu     sync.Mutex
	has    trouble
	better chan struct{} // closed when the trouble ends
	random *rand.Rand
	conns  map[net.Conn]bool
	asked  int
}

// get changes what is wrong.
func (p *ailing) get(w trouble) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.better)
	p.has, p.better = w, make(chan struct{})
	if w == killed {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

// feels says what is wrong with the next call, and until when.
func (p *ailing) feels() (w trouble, better <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	w = p.has
	if (w == resets || w == failures) && p.random.IntN(2) == 0 {
		w = well
	}
	return w, p.better
}

func (p *ailing) dial() (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.has == killed {
		p.asked++
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := net.Pipe()
	p.conns[theirs] = true
	go func() {
		p.serve(newPeer(nil, theirs))
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, theirs)
		_ = theirs.Close()
	}()
	return ours, nil
}

func (p *ailing) serve(c *peer) {
	for {
		if _, _, err := c.request(); err != nil {
			return
		}
		takes := 10 * time.Millisecond
		switch w, better := p.feels(); w {
		case killed, resets:
			return
		case stalled:
			<-better
		case slowed:
			takes = 1500 * time.Millisecond
		case failures:
			c.say(broken)
			continue
		}
		<-time.After(takes)
		c.say(ok)
	}
}

// customer sends requests of every sort until the end, at about one in two seconds, and notes what came of each.
func customer(t *testing.T, connect func() net.Conn, r *rand.Rand, end time.Time, note func(at time.Time, ok bool)) {
	c := newPeer(t, connect())
	defer func() { _ = c.Close() }()
	for {
		<-time.After(time.Duration(r.ExpFloat64() * float64(2*time.Second)))
		at := time.Now()
		if at.After(end) {
			return
		}
		body := strings.Repeat("x", r.IntN(100))
		switch r.IntN(3) {
		case 0:
			c.say(get)
		case 1:
			c.say(post(len(body), body))
		default: // as it comes
			c.say("POST /p HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\nTransfer-Encoding: chunked\r\n\r\n")
			<-time.After(5 * time.Millisecond)
			c.say("5\r\nhello\r\n0\r\n\r\n")
		}
		a, _, err := c.tryAnswer("GET")
		note(at, err == nil && a.StatusCode == 200)
		if err != nil || a.Close {
			_ = c.Close()
			c = newPeer(t, connect())
		}
	}
}

// Ten hours in which the backend is killed, stalls, breaks calls, fails and slows down, in an order that is drawn. Each time the breaker
// opens, spares the backend and closes again; and two minutes after the trouble all is as before: no request fails,
// and no goroutine is left.
func TestTenHoursOfTrouble(t *testing.T) {
	const clients, length, settled = 4, 10 * time.Hour, 2 * time.Minute
	seed := uint64(20261127)
	p := &ailing{better: make(chan struct{}), random: rand.New(rand.NewPCG(seed, 1)), conns: make(map[net.Conn]bool)}
	policy := document("BreakerPolicy", "orders", "target: {kind: Backend, name: b}",
		"failures: {window: 10s, ratio: 20%, minRequests: 10, slowerThan: 1s, slowRatio: 50%, consecutive: 5}", "open: {for: 5s, maxFor: 40s, probes: 3, ramp: 10s}")
	backend := document("Backend", "b", `endpoints: [{address: "127.0.0.1:1"}]`, "timeouts: {connect: 1s, response: 2s}", "pool: {idleTimeout: 30s}")
	inBubble(t, documents("", silent, backend, policy), nil, func(v *virtual) {
		_ = v.access.Close() // nothing is written, and looking for it takes most of the time
		v.backend = p.dial
		type result struct {
			at time.Time
			ok bool
		}
		var mu sync.Mutex
		var results []result
		take := func() []result {
			mu.Lock()
			defer mu.Unlock()
			defer func() { results = nil }()
			return results
		}
		end := time.Now().Add(length)
		var done sync.WaitGroup
		for i := range clients {
			connect := func() net.Conn { ours, theirs := net.Pipe(); v.accepted <- theirs; return ours }
			done.Go(func() {
				customer(t, connect, rand.New(rand.NewPCG(seed, uint64(100+i))), end, func(at time.Time, ok bool) {
					mu.Lock()
					defer mu.Unlock()
					results = append(results, result{at, ok})
				})
			})
		}
		<-time.After(settled)
		// Besides, there may be a connection more or less to the backend, and a timer's goroutine.
		base := runtime.NumGoroutine() + clients
		before := take()
		if failed := slices.IndexFunc(before, func(r result) bool { return !r.ok }); failed >= 0 || len(before) < 100 {
			t.Fatalf("of %d requests before all trouble one failed", len(before))
		}

		order := rand.New(rand.NewPCG(seed, 2))
		episodes := 0
		var had [troubles]int
		for time.Until(end) > 15*time.Minute {
			w := trouble(1 + order.IntN(int(troubles)-1))
			lasts := 40*time.Second + time.Duration(order.Int64N(int64(3*time.Minute)))
			episodes++
			had[w]++
			name := strconv.Itoa(episodes) + ", " + w.String() + " for " + lasts.Round(time.Second).String()
			changes := len(v.changes())
			p.get(w)
			<-time.After(lasts)
			if opened := v.changes()[changes:]; len(opened) == 0 || !strings.HasPrefix(opened[0], "orders normal>open") {
				t.Errorf("%s: the breaker did not open: %v", name, opened)
			}
			p.get(well)
			<-time.After(settled)
			take()
			if n := runtime.NumGoroutine(); n > base {
				t.Errorf("%s: %d goroutines after two minutes, want at most %d", name, n, base)
			}
			<-time.After(2*time.Minute + time.Duration(order.Int64N(int64(8*time.Minute))))
			after, failed := take(), 0
			for _, r := range after {
				if !r.ok {
					failed++
				}
			}
			if len(after) < 150 || failed*200 > len(after) {
				t.Errorf("%s: %d of %d requests failed from two minutes after it on, want at most 0.5 %%: %v", name, failed, len(after), v.changes()[changes:])
			}
		}
		done.Wait()
		t.Logf("%d episodes: %v by kind; %d changes of level; %d requests reached the backend", episodes, had[1:], len(v.changes()), p.asked)
		if episodes < 40 || slices.Contains(had[1:], 0) {
			t.Errorf("%d episodes, %v by kind", episodes, had[1:])
		}
	})
}
