package upstream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/policy"
	"weir/proxy/wire"
)

// judged is a backend of these endpoints whose failures in a row eject for 30 s, half of the endpoints at most.
func judged(failures int, addresses ...string) policy.Backend {
	b := backendOf("a", addresses...)
	b.Health = &policy.HealthSettings{Passive: &policy.PassiveSettings{ConsecutiveFailures: failures, EjectFor: 30 * time.Second, MaxEjected: 0.5}}
	return b
}

// status is an answer of that status without a body.
func status(code int) string { return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", code) }

// What a failed request says of its endpoint: three such ends in a row eject it, or do not.
func TestWhatEjects(t *testing.T) {
	f := func(name, answer string, use func(b *Backend), want bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.serves = func(_ string, c net.Conn, r *bufio.Reader) {
				if _, _, err := readRequest(r); err != nil {
					return
				}
				if answer != "" { // a pipe passes on an empty write, as an end
					_, _ = io.WriteString(c, answer)
				}
				if strings.HasSuffix(answer, "\n") || answer == "" {
					_, _ = io.Copy(io.Discard, r) // stays open
				}
			}
			settings := judged(3, "one:80", "two:80")
			settings.ResponseTimeout, settings.BodyIdleTimeout = time.Second, time.Second
			s := w.adopt(nil, settings)
			defer w.end(s)
			b := s.Backend(0)
			for range 12 { // at least three of the one or of the other
				use(b)
			}
			synctest.Wait()
			if out := b.roster.Load().out(); out > 0 != want {
				t.Errorf("%s: %d out, want any: %v", name, out, want)
			}
			if n := b.stats.ejections.Load(); n > 0 != want {
				t.Errorf("%s: %d ejections counted", name, n)
			}
		})
	}
	through := func(b *Backend) {
		c, err := b.Acquire(Call{Now: b.shared.clock()})
		if err == nil {
			_, _, _ = call(c, get, wire.Asked{})
			c.Release()
		}
	}
	within := func(d time.Duration) func(b *Backend) {
		return func(b *Backend) {
			now := b.shared.clock()
			if c, err := b.Acquire(Call{Now: now, Deadline: now + int64(d)}); err == nil {
				_, _, _ = call(c, get, wire.Asked{})
				c.Release()
			}
		}
	}
	headOnly := func(b *Backend) {
		c := acquire(t, b)
		_, _ = c.Exchange([]byte(get), nil, wire.Asked{})
		c.Release()
	}
	const body = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"

	// The endpoint's doing.
	f("broken", "HTTP/1.1", through, true)
	f("no HTTP", "SSH-2.0-x\r\n", through, true)
	f("cut", body+"x", through, true)
	f("late", "", through, true)
	f("body stalls", body, through, true)
	f("502", status(502), through, true)
	f("503", status(503), through, true)
	f("504", status(504), through, true)
	f("503 that is not passed on", "HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\n", func(b *Backend) {
		c := acquire(t, b)
		_, _ = c.Exchange([]byte(get), nil, wire.Asked{})
		c.Drop()
		c.Release()
	}, true)
	f("all of the request's time waited for the head", "", within(500*time.Millisecond), true)

	// An application that answers.
	f("200", status(200), through, false)
	f("404", status(404), through, false)
	f("500", status(500), through, false)
	f("501", status(501), through, false)

	// The client's doing: it leaves, it takes too long to send or to read.
	f("canceled", "", func(b *Backend) {
		c := acquire(t, b)
		use := c.Use()
		time.AfterFunc(100*time.Millisecond, func() { c.Cancel(use) })
		_, _, _ = call(c, get, wire.Asked{})
		c.Release()
	}, false)
	f("given up", body, headOnly, false)
	f("nothing sent", "", func(b *Backend) { acquire(t, b).Release() }, false)
	f("the time went by before the request was whole", "", func(b *Backend) {
		now := b.shared.clock()
		c, err := b.Acquire(Call{Now: now, Deadline: now + int64(500*time.Millisecond)})
		if err != nil {
			return
		}
		_, _ = c.Write([]byte(get[:5]))
		<-time.After(450 * time.Millisecond)
		_, _ = c.Write([]byte(get[5:]))
		c.FinishRequest()
		_, err = c.ReadHead(wire.Asked{})
		wantCause(t, err, RequestTimeout)
		c.Release()
	}, false)
	f("the time went by while the body was read", body, within(500*time.Millisecond), false)
}

func TestFailedDialsEject(t *testing.T) {
	f := func(failure error, want bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			s, err := Build(nil, []policy.Backend{judged(3, "bad:80", "good:80", "fine:80")}, Options{
				Clock: clock(), Resolver: w,
				Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
					if address == "bad:80" {
						return nil, failure
					}
					return w.dial(ctx, network, address)
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			s.Adopt(nil)
			defer w.end(s)
			b := s.Backend(0)
			var held []*Conn
			for range 30 {
				held = append(held, acquire(t, b)) // passed over, though it fails
			}
			synctest.Wait()
			if out := addresses(b.roster.Load().usable) == "good:80 fine:80"; out != want {
				t.Errorf("%v: out is %v, want %v", failure, out, want)
			}
			for _, c := range held {
				succeed(t, c)
			}
		})
	}
	f(errRefused, true)
	f(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true)
	f(context.DeadlineExceeded, true)
	// Our own system has no room: no endpoint can help that.
	f(&net.OpError{Op: "dial", Err: syscall.EMFILE}, false)
	f(&net.OpError{Op: "dial", Err: syscall.EADDRNOTAVAIL}, false)
}

// Failures must come in a row: an answer in between begins anew.
func TestFailuresInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		answer := status(503)
		w.serves = func(_ string, c net.Conn, r *bufio.Reader) {
			for {
				if _, _, err := readRequest(r); err != nil {
					return
				}
				_, _ = io.WriteString(c, answer)
			}
		}
		s := w.adopt(nil, judged(3, "one:80"), judged(3))
		defer w.end(s)
		b := s.Backend(0)
		v := &b.roster.Load().all[0].vitals
		round := func(a string) {
			answer = a
			c := acquire(t, b)
			_, _, _ = call(c, get, wire.Asked{})
			c.Release()
		}
		round(status(503))
		round(status(503))
		round(status(200))
		if n := v.failures.Load(); n != 0 {
			t.Errorf("%d failures in a row after an answer", n)
		}
		for range 5 {
			round(status(503))
		}
		// The only endpoint is never ejected: half of one is none.
		<-time.After(time.Second)
		wantUsable(t, b, "one:80")
		if n := b.stats.ejections.Load(); n != 0 {
			t.Errorf("%d ejections of the only endpoint", n)
		}
	})
}

// A used connection that breaks before it answers is how an idle one ends; a new one that does is a failure.
func TestIdleConnectionsThatEndAreNoFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serves = func(_ string, c net.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			_, _ = io.WriteString(c, ok)
			_, _ = r.Peek(1) // closes as the second request comes
		}
		s := w.adopt(nil, judged(1, "one:80", "two:80"))
		defer w.end(s)
		b := s.Backend(0)
		for range 20 {
			c := acquire(t, b)
			reused := c.Reused()
			_, _, err := call(c, get, wire.Asked{})
			if (err != nil) != reused {
				t.Fatalf("reused is %v, the end %v", reused, err)
			}
			c.Release()
		}
		<-time.After(time.Second)
		wantUsable(t, b, "one:80 two:80")
	})
}

// An ejection ends by itself. It lasts twice as long when the endpoint fails again soon after, up to a bound, and the first
// time again when it had stayed in for long.
func TestEjectionsDouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.refuse("bad:80", true)
		s := w.adopt(nil, judged(1, "bad:80", "good:80"))
		defer w.end(s)
		b := s.Backend(0)
		v := &b.roster.Load().all[0].vitals
		eject := func() time.Duration {
			for v.out.Load() == 0 {
				acquire(t, b).Release()
				synctest.Wait()
			}
			wantUsable(t, b, "good:80")
			start := time.Now()
			for v.out.Load() != 0 {
				<-time.After(tick)
			}
			return time.Since(start)
		}
		for _, want := range []time.Duration{30, 60, 120, 240, 480, 480} {
			want *= time.Second
			if took := eject(); took < want || took > want+want/10+3*tick {
				t.Errorf("out for %v, want %v and up to a tenth more", took, want)
			}
		}
		<-time.After(10 * time.Minute)
		if took := eject(); took < 30*time.Second || took > 34*time.Second {
			t.Errorf("out for %v after a long time in, want 30 s", took)
		}
		if n := b.stats.ejections.Load(); n != 7 {
			t.Errorf("%d ejections counted, want 7", n)
		}
		synctest.Wait() // the last line is said after the endpoint is back
		lines, back := w.said("endpoint ejected"), w.said("no longer ejected")
		if len(lines) != 7 || len(back) != 7 || lines[0]["endpoint"] != "bad:80" || lines[0]["failures"] != 1.0 || lines[1]["ejections"] != 2.0 {
			t.Errorf("%d and %d lines, the first %v", len(lines), len(back), lines[0])
		}
	})
}

func TestMaxEjected(t *testing.T) {
	f := func(most float64, endpoints, want int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			var all []string
			for i := range endpoints {
				all = append(all, fmt.Sprintf("e%d:80", i))
				w.refuse(all[i], true)
			}
			settings := judged(1, all...)
			settings.Health.Passive.MaxEjected = most
			s := w.adopt(nil, settings)
			defer w.end(s)
			b := s.Backend(0)
			_, err := b.Acquire(Call{Now: b.shared.clock()}) // fails at all of them
			wantCause(t, err, ConnectRefused)
			<-time.After(time.Second)
			if r := b.roster.Load(); r.out() != want {
				t.Errorf("%v of %d: %d out, want %d", most, endpoints, r.out(), want)
			}
		})
	}
	f(0.5, 1, 0)
	f(0.5, 2, 1)
	f(0.5, 3, 1)
	f(0.5, 4, 2)
	f(0.1, 9, 0)
	f(0.29, 100, 29)
	f(0, 4, 0)
	f(1, 4, 4)
}

// Up to half of the endpoints are left out; when more are out, all are used.
func TestPanic(t *testing.T) {
	f := func(endpoints, out int, panics bool) {
		t.Helper()
		var all []member
		for i := range endpoints {
			e := &endpoint{address: fmt.Sprintf("e%d:80", i)}
			if i < out {
				e.vitals.out.Store(unhealthy)
			}
			all = append(all, member{endpoint: e, weight: 2})
		}
		r := newRoster(all)
		want := endpoints - out
		if panics {
			want = endpoints
		}
		if len(r.usable) != want || r.panic != panics || r.usable[want-1].upTo != uint64(2*want) {
			t.Errorf("%d of %d out: %d in the choice, panic %v", out, endpoints, len(r.usable), r.panic)
		}
	}
	f(1, 0, false)
	f(1, 1, true)
	f(2, 1, false)
	f(2, 2, true)
	f(3, 1, false)
	f(3, 2, true)
	f(4, 2, false)
	f(4, 3, true)
}

// checked is a backend with active checks each second.
func checked(addresses ...string) policy.Backend {
	b := backendOf("a", addresses...)
	b.Health = &policy.HealthSettings{Path: "/healthz?deep=1", Interval: time.Second, Healthy: 2, Unhealthy: 3}
	return b
}

func TestChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var heads, ill atomic.Value
		heads.Store("")
		ill.Store("")
		w.serves = func(address string, c net.Conn, r *bufio.Reader) {
			head, _, err := readRequest(r)
			if err != nil {
				return
			}
			heads.Store(head)
			if ill.Load() == address {
				_, _ = io.WriteString(c, status(500))
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 103 Early\r\n\r\n"+status(204))
		}
		s := w.adopt(nil, checked("one:80", "two:80"))
		defer w.end(s)
		b := s.Backend(0)
		<-time.After(10 * time.Second)
		wantUsable(t, b, "one:80 two:80")
		if want := "GET /healthz?deep=1 HTTP/1.1\r\nHost: "; !strings.HasPrefix(heads.Load().(string), want) || !strings.Contains(heads.Load().(string), "\r\nConnection: close\r\n") {
			t.Errorf("a check is %q", heads.Load())
		}
		if n := w.dialled("one:80"); n < 9 || n > 12 {
			t.Errorf("%d checks in 10 s, want one each second", n)
		}
		// Three bad ones in a row take it out, two good ones bring it back.
		ill.Store("one:80")
		start := time.Now()
		for len(b.roster.Load().usable) == 2 {
			<-time.After(tick)
		}
		if took := time.Since(start); took < 1700*time.Millisecond || took > 4*time.Second {
			t.Errorf("out after %v, want three checks", took)
		}
		wantUsable(t, b, "two:80")
		expect := `
# HELP weir_upstream_endpoint_healthy Whether an endpoint is in the choice: 0 while health checks fail or failed requests have it ejected.
# TYPE weir_upstream_endpoint_healthy gauge
weir_upstream_endpoint_healthy{backend="a",endpoint="one:80"} 0
weir_upstream_endpoint_healthy{backend="a",endpoint="two:80"} 1
`
		if err := testutil.CollectAndCompare(NewCollector(func() *Set { return s }), strings.NewReader(expect), "weir_upstream_endpoint_healthy"); err != nil {
			t.Error(err)
		}
		<-time.After(10 * time.Second)
		ill.Store("")
		start = time.Now()
		for len(b.roster.Load().usable) == 1 {
			<-time.After(tick)
		}
		if took := time.Since(start); took < 800*time.Millisecond || took > 3*time.Second {
			t.Errorf("back after %v, want two checks", took)
		}
		// Checks are no requests, and no connections of the pool.
		if live, dials := b.stats.live.Load(), b.stats.dials.Load(); live != 0 || dials != 0 || b.stats.first() != 0 {
			t.Errorf("%d live, %d dials, %d requests by checks alone", live, dials, b.stats.first())
		}
		out, back := w.said("is unhealthy"), w.said("is healthy")
		if len(out) != 1 || len(back) != 1 || out[0]["checks"] != 3.0 || back[0]["checks"] != 2.0 || out[0]["endpoint"] != "one:80" ||
			!strings.Contains(fmt.Sprint(out[0]["error"]), "status 500") {
			t.Errorf("said %v and %v", out, back)
		}
	})
}

func TestWhatAChecksTakesForHealthy(t *testing.T) {
	f := func(answer string, want string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.serves = func(_ string, c net.Conn, r *bufio.Reader) {
				_, _, _ = readRequest(r)
				for i := range answer {
					_, _ = io.WriteString(c, answer[i:i+1])
				}
				if strings.HasSuffix(answer, "...") {
					_, _ = io.Copy(io.Discard, r)
				}
			}
			s := w.adopt(nil, backendOf("a", "one:80"))
			defer w.end(s)
			ctx, cancel := context.WithTimeout(t.Context(), checkTimeout)
			defer cancel()
			b := s.Backend(0)
			err := b.ask(ctx, b.roster.Load().all[0].endpoint, "/")
			if got := fmt.Sprint(err); !strings.Contains(got, want) {
				t.Errorf("%.40q: got %q, want %q", answer, got, want)
			}
		})
	}
	f(status(200), "<nil>")
	f(status(204), "<nil>")
	f(status(399), "<nil>")
	f("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "<nil>")
	f("HTTP/1.1 102 X\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "<nil>")
	f(status(400), "status 400")
	f(status(503), "status 503")
	f("HTTP/1.1 200 OK\r\n", "unexpected EOF")
	f("", "EOF")
	f("...", "in time")
	f("HTTP/1.1 200 OK\r\n...", "in time")
	f("garbage\r\n\r\n", "cannot get an answer")
	f("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", smallHead)+"\r\n\r\n", "unexpected EOF")
	f(strings.Repeat("HTTP/1.1 102 X\r\n\r\n", maxInterim+1), "too many interim")
}

// When all checks fail the endpoints are used all the same, which is said.
func TestChecksThatAllFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, e := range []string{"one:80", "two:80", "three:80"} {
			w.refuse(e, true)
		}
		first := w.adopt(nil, checked("one:80", "two:80", "three:80"))
		<-time.After(10 * time.Second)
		b := first.Backend(0)
		wantUsable(t, b, "one:80 two:80 three:80")
		if out := b.roster.Load().out(); out != 3 {
			t.Errorf("%d out, want 3", out)
		}
		if n := len(w.said("all are used")); n != 1 {
			t.Errorf("the panic was said %d times", n)
		}
		// Health is adopted with the endpoint, and ends with the settings that judged it.
		second := w.adopt(first, checked("one:80", "two:80", "three:80", "four:80", "five:80", "six:80"))
		wantUsable(t, second.Backend(0), "four:80 five:80 six:80")
		if n := len(w.said("enough endpoints are healthy again")); n != 1 {
			t.Errorf("the end of the panic was said %d times", n)
		}
		third := w.adopt(second, backendOf("a", "one:80", "four:80", "five:80", "six:80"))
		<-time.After(tick)
		synctest.Wait()
		wantUsable(t, third.Backend(0), "one:80 four:80 five:80 six:80")
		w.end(third)
	})
}

// A check that hangs ends with the set, and after its time.
func TestChecksThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serves = answering(map[string]string{"good:80": ok})
		settings := checked("bad:80", "good:80")
		settings.Health.Interval = 10 * time.Second
		s := w.adopt(nil, settings)
		<-time.After(34 * time.Second) // three of them and their time
		wantUsable(t, s.Backend(0), "good:80")
		<-time.After(5 * time.Second)
		start := time.Now()
		w.end(s)
		if took := time.Since(start); took != 0 {
			t.Errorf("the end took %v", took)
		}
	})
}

func TestHostOfChecks(t *testing.T) {
	f := func(settings policy.Backend, e *endpoint, want string) {
		t.Helper()
		if got := (&Backend{settings: settings}).host(e); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(backendOf("a"), &endpoint{network: "tcp", address: "orders:80"}, "orders:80")
	f(backendOf("a"), &endpoint{network: "unix", address: "/run/x"}, "localhost")
	f(named("a", "orders.svc."), &endpoint{network: "tcp", address: "10.0.0.1:80"}, "orders.svc:80")
}
