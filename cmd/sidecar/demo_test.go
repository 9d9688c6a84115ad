package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestArrivalsComeWhenTheyAreDue(t *testing.T) {
	f := func(perSecond int, lasts time.Duration, want int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), lasts)
			defer cancel()
			start, n := time.Now(), 0
			every(perSecond).arrivals(ctx, start, func(due time.Time) {
				if want := start.Add(every(perSecond).due(n)); !due.Equal(want) || !time.Now().Equal(due) {
					t.Errorf("arrival %d: due %v, called at %v, want both at %v", n, due, time.Now(), want)
				}
				n++
			})
			if n != want {
				t.Errorf("%d/s for %v: %d arrivals, want %d", perSecond, lasts, n, want)
			}
		})
	}

	// the first comes at once
	f(10, 50*time.Millisecond, 1)
	f(10, 950*time.Millisecond, 10)
	f(400, 9999*time.Millisecond, 4000)
}

// An open loop does not wait for what came of the arrivals before: late ones come at once, with the time they were due.
func TestArrivalsCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1950*time.Millisecond)
		defer cancel()
		start, n := time.Now(), 0
		var late []time.Duration
		every(10).arrivals(ctx, start, func(due time.Time) {
			if n == 0 {
				<-time.After(time.Second) // the machine stalls
			}
			late = append(late, time.Since(due))
			n++
		})
		if n != 20 {
			t.Errorf("%d arrivals, want 20", n)
		}
		want := []time.Duration{1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0, 0}
		for i, w := range want {
			if late[i] != w*time.Millisecond {
				t.Errorf("arrival %d is %v late, want %v", i, late[i], w*time.Millisecond)
			}
		}
	})
}

func TestLoaderTellsOutcomesApart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	status := map[string]int{"good": 200, "refused": 429, "broken": 502}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status[r.Header.Get("X-Tenant-ID")])
	})}
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(l) })
	defer wg.Wait()
	defer server.Close()

	tenants := []tenantLoad{{"good", 50, newMeter()}, {"refused", 50, newMeter()}, {"broken", 50, newMeter()}}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	newLoader("http://"+l.Addr().String()+"/").run(ctx, tenants)
	for i, o := range []outcome{admitted, limited, failed} {
		got := tenants[i].meter.total()
		if got.outcomes[o] == 0 || got.outcomes[o] != got.offered() {
			t.Errorf("tenant %s: %v, want all of them to be outcome %d", tenants[i].name, got.outcomes, o)
		}
	}
}

func TestLegacyWorksOnFewAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &legacy{slots: make(chan struct{}, legacySlots)}
		const requests = 3 * legacySlots
		start := time.Now()
		var wg sync.WaitGroup
		var answered atomic.Int32
		for range requests {
			wg.Go(func() {
				s.serve(discard{}, (&http.Request{URL: &url.URL{Path: "/"}}).WithContext(t.Context()))
				answered.Add(1)
			})
		}
		wg.Wait()
		if got, want := time.Since(start), 3*legacyWork; got != want || answered.Load() != requests {
			t.Errorf("%d requests took %v, want %v", answered.Load(), got, want)
		}
	})
}

func TestMeter(t *testing.T) {
	m := newMeter()
	m.record(admitted, 10*time.Millisecond)
	m.record(limited, time.Millisecond)
	first := m.cut()
	m.record(admitted, 30*time.Millisecond)
	m.record(failed, time.Minute)
	second, total := m.cut(), m.total()

	f := func(name string, c counts, want [outcomeCount]int64, p99 time.Duration) {
		t.Helper()
		if c.outcomes != want {
			t.Errorf("%s: outcomes %v, want %v", name, c.outcomes, want)
		}
		if got := c.quantile(99).Round(time.Millisecond); got != p99 {
			t.Errorf("%s: p99 %v, want %v", name, got, p99)
		}
	}
	f("first", first, [outcomeCount]int64{1, 1, 0}, 10*time.Millisecond)
	// refusals and failures have no latency
	f("second", second, [outcomeCount]int64{1, 0, 1}, 30*time.Millisecond)
	f("total", total, [outcomeCount]int64{2, 1, 1}, 30*time.Millisecond)
	// a total can be asked for again
	f("again", m.total(), [outcomeCount]int64{2, 1, 1}, 30*time.Millisecond)
}

// Nothing is lost nor counted twice, however often the seconds are cut.
func TestMeterLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMeter()
		var want, cut [outcomeCount]int64
		for range rapid.IntRange(0, 50).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "cut") {
				for i, n := range m.cut().outcomes {
					cut[i] += n
				}
				continue
			}
			o := outcome(rapid.IntRange(0, int(outcomeCount)-1).Draw(t, "outcome"))
			m.record(o, time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "latency")))
			want[o]++
		}
		for i, n := range m.cut().outcomes {
			cut[i] += n
		}
		if got := m.total().outcomes; got != want || cut != want {
			t.Fatalf("total %v, sum of the cuts %v, want %v", got, cut, want)
		}
	})
}

func TestAllowance(t *testing.T) {
	f := func(a allowance, d time.Duration, want int64) {
		t.Helper()
		if got := a.within(d); got != want {
			t.Errorf("%+v within %v: %d, want %d", a, d, got, want)
		}
	}

	f(allowance{perSecond: 100, burst: 50}, 0, 50)
	f(allowance{perSecond: 100, burst: 50}, 10*time.Second, 1050)
	// a part of a token may be a whole one by the time it is asked for
	f(allowance{perSecond: 100, burst: 50}, 15*time.Millisecond, 52)
	f(allowance{perSecond: 0.5, burst: 1}, 3*time.Second, 3)
}

func TestJudge(t *testing.T) {
	total := func(name string, offered, admitted, limited, failed int64) tenantTotal {
		return tenantTotal{Tenant: name, LimitPerSecond: 100, Burst: 50, Offered: offered, Admitted: admitted, Limited: limited, Failed: failed}
	}
	modest := total("modest", 300, 300, 0, 0)
	f := func(want claim, tenants ...tenantTotal) {
		t.Helper()
		if diff := cmp.Diff(want, judge(10*time.Second, tenants)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}

	// held to its limit, and the others untouched
	f(claim{Shown: true, Holds: true, Reason: "greedy asked for 400/s and was held to 105/s (its limit is 100/s and a burst of 50); " +
		"modest and quiet stayed within theirs and every request of theirs was answered."},
		total("greedy", 4000, 1050, 2950, 0), modest, total("quiet", 100, 100, 0, 0))
	// one request more than the limit allows
	f(claim{Shown: true, Reason: "greedy was not held: 1051 of its requests were admitted where its limit allows 1050."},
		total("greedy", 4000, 1051, 2949, 0), modest)
	// held too hard
	f(claim{Shown: true, Reason: "greedy got less than its limit gives it: 500 of its requests were admitted where 1050 may pass."},
		total("greedy", 4000, 500, 3500, 0), modest)
	// another tenant was refused once, or failed once
	f(claim{Shown: true, Reason: "modest stayed within its limit, but 1 of its 300 requests were refused and 0 failed."},
		total("greedy", 4000, 1050, 2950, 0), total("modest", 300, 299, 1, 0))
	f(claim{Shown: true, Reason: "modest stayed within its limit, but 0 of its 300 requests were refused and 1 failed."},
		total("greedy", 4000, 1050, 2950, 0), total("modest", 300, 299, 0, 1))
	// nobody asked for too much
	f(claim{Reason: "The run was too short to show anything: nobody asked for more than their limit."}, modest)
	f(claim{Reason: "The run was too short to show anything: nobody asked for more than their limit."})
}

// someSecond is a second in which one tenant was limited, one was not and one failed.
func someSecond() []secondOf {
	row := func(name string, a, l, f int, latency time.Duration) secondOf {
		m := newMeter()
		for range a {
			m.record(admitted, latency)
		}
		for range l {
			m.record(limited, 0)
		}
		for range f {
			m.record(failed, 0)
		}
		return secondOf{tenant: name, counts: m.cut()}
	}
	return []secondOf{row("greedy", 100, 300, 0, 4500*time.Microsecond), row("modest-1", 30, 0, 0, 4*time.Millisecond), row("modest-2", 0, 0, 2, 0)}
}

func TestLiveTable(t *testing.T) {
	f := func(paint painter, want string) {
		t.Helper()
		got := strings.Join(liveTable(3001*time.Millisecond, someSecond(), paint), "\n") + "\n"
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}

	f(false, `3s            offered/s  admitted/s  limited/s       p50       p99
greedy              400         100        300     4.5ms     4.5ms
modest-1             30          30          0     4.0ms     4.0ms
modest-2              2           0          0         -         -  2 failed
`)
	f(true, "\x1b[1m3s            offered/s  admitted/s  limited/s       p50       p99\x1b[0m\n"+
		"\x1b[33mgreedy              400         100        300     4.5ms     4.5ms\x1b[0m\n"+
		"modest-1             30          30          0     4.0ms     4.0ms\n"+
		"\x1b[31mmodest-2              2           0          0         -         -  2 failed\x1b[0m\n")
}

func TestLiveView(t *testing.T) {
	f := func(terminal bool, want string) {
		t.Helper()
		var got bytes.Buffer
		v := &liveView{out: &got, terminal: terminal}
		rows := someSecond()[1:2]
		v.show(time.Second, rows)
		v.show(2*time.Second, rows)
		if diff := cmp.Diff(want, got.String()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}

	// a pipe gets lines that stand alone
	f(false, `t=1s tenant=modest-1 offered=30 admitted=30 limited=0 failed=0 p50=4.0ms p99=4.0ms
t=2s tenant=modest-1 offered=30 admitted=30 limited=0 failed=0 p50=4.0ms p99=4.0ms
`)
	// a terminal gets one table, drawn again in its place
	f(true, "\x1b[2K1s            offered/s  admitted/s  limited/s       p50       p99\n"+
		"\x1b[2Kmodest-1             30          30          0     4.0ms     4.0ms\n"+
		"\x1b[2A"+
		"\x1b[2K2s            offered/s  admitted/s  limited/s       p50       p99\n"+
		"\x1b[2Kmodest-1             30          30          0     4.0ms     4.0ms\n")
}

func TestSummaryTable(t *testing.T) {
	rows := []tenantTotal{
		{Tenant: "greedy", Offered: 4000, Admitted: 1050, Limited: 2950, P50Millis: 4.41, P99Millis: 6.25},
		{Tenant: "modest-1", Offered: 300, Admitted: 299, Failed: 1, P50Millis: 4, P99Millis: 5},
	}
	want := `in 10s          offered   admitted    limited   failed       p50       p99
greedy             4000       1050       2950        0     4.4ms     6.2ms
modest-1            300        299          0        1     4.0ms     5.0ms
`
	if diff := cmp.Diff(want, summaryTable(10*time.Second, rows, false)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestAllowancesOfTheDemo(t *testing.T) {
	got, err := allowances(demoYAML, []tenantLoad{{name: "greedy"}, {name: "modest-1"}, {name: "modest-2"}})
	if err != nil {
		t.Fatal(err)
	}
	each := allowance{perSecond: 100, burst: 50}
	want := map[string]allowance{"greedy": each, "modest-1": each, "modest-2": each}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(allowance{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// The addresses that are replaced where they are taken are those that the documents have.
func TestAddressesOfTheDemo(t *testing.T) {
	for _, address := range []string{demoListen, demoAdmin, demoBackend} {
		if n := strings.Count(string(demoYAML), `"`+address+`"`); n != 1 {
			t.Errorf("demo.yaml has %s %d times, want once", address, n)
		}
	}
}

func TestListenNear(t *testing.T) {
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	first, err := listenNear(address)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.Addr().String() != address {
		t.Errorf("listens on %s, want %s, which is free", first.Addr(), address)
	}
	second, err := listenNear(address)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if second.Addr().(*net.TCPAddr).Port <= first.Addr().(*net.TCPAddr).Port {
		t.Errorf("listens on %s, want a port after %s, which is taken", second.Addr(), address)
	}
	if _, err := listenNear("nowhere"); err == nil || !strings.Contains(err.Error(), `cannot listen on "nowhere"`) {
		t.Errorf("an address without a port: %v", err)
	}
}

// Ctrl-C ends the demo with its summary, as --for does.
func TestDemoEndsWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs bytes.Buffer
	out := &watched{text: "s tenant=modest-2", found: cancel}
	c := newCLI(streams{out: out, err: &errs}, lookupIn(nil))
	if err := c.runDemo(ctx, demoOptions{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "greedy asked for") {
		t.Errorf("no summary in %q", out.String())
	}
}

// watched keeps what is written and calls found when a text comes by.
type watched struct {
	lockedBuffer
	text  string
	found func()
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.lockedBuffer.Write(p)
	if strings.Contains(w.String(), w.text) {
		w.found()
	}
	return n, err
}

// discard is a response that nobody reads.
type discard struct{}

func (discard) Header() http.Header         { return make(http.Header) }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
