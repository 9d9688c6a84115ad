package upstream

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/policy"
	"weir/proxy/wire"
)

// named is a backend of one name, looked up again every five seconds.
func named(name, host string) policy.Backend {
	b := backendOf(name)
	b.DNS = &policy.DNSSettings{Name: host, Port: 80, Refresh: 5 * time.Second}
	return b
}

func TestNamesAreLookedUpAtTheStart(t *testing.T) {
	f := func(want string, found ...string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.name("a", found...)
			s := w.adopt(nil, named("a", "a"))
			defer w.end(s)
			wantUsable(t, s.Backend(0), want)
			succeed(t, acquire(t, s.Backend(0)))
		})
	}
	// Both families, in an order of our own, each once.
	f("10.0.0.1:80", "10.0.0.1")
	f("10.0.0.1:80 10.0.0.2:80 [2001:db8::1]:80", "2001:db8::1", "10.0.0.2", "10.0.0.1", "10.0.0.2")
	f("10.0.0.1:80", "::ffff:10.0.0.1", "10.0.0.1")
}

// A name that is not found makes no error and no long wait; requests are refused until it is.
func TestNamesNotFoundAtTheStart(t *testing.T) {
	slow := func(ctx context.Context) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	missing := func(context.Context) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	f := func(answer func(context.Context) ([]netip.Addr, error), most time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.lookup("a", answer)
			w.lookup("b", answer)
			start := time.Now()
			s := w.adopt(nil, named("a", "a"), named("b", "b"))
			defer w.end(s)
			if took := time.Since(start); took > most {
				t.Errorf("the start took %v, want at most %v", took, most)
			}
			b := s.Backend(0)
			_, err := b.Acquire(Call{Now: b.shared.clock()})
			wantCause(t, err, NoEndpoint)
			if n := len(w.said("has no endpoint yet")); n != 2 {
				t.Errorf("said %d times, want once for each", n)
			}
			w.name("a", "10.0.0.1")
			<-time.After(lookupTimeout + 2*eagerly)
			succeed(t, acquire(t, b))
			if n := len(w.said("is found again")); n != 1 {
				t.Errorf("the end of the failures was said %d times", n)
			}
		})
	}
	f(slow, firstLookup)
	f(missing, 0)
	f(func(context.Context) ([]netip.Addr, error) { return nil, nil }, 0)
}

// The last good answer stays through failures of all kinds, which are said once and counted.
func TestLastGoodAnswerStays(t *testing.T) {
	f := func(answer func(context.Context) ([]netip.Addr, error)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.name("a", "10.0.0.1", "10.0.0.2")
			s := w.adopt(nil, named("a", "a"), backendOf("written", "10.0.0.3:80"))
			defer w.end(s)
			b := s.Backend(0)
			w.lookup("a", answer)
			<-time.After(time.Minute)
			wantUsable(t, b, "10.0.0.1:80 10.0.0.2:80")
			succeed(t, acquire(t, b))
			failures := b.stats.dnsFailures.Load()
			if failures < 3 || failures > 14 {
				t.Errorf("%d failures counted in a minute, want one every 5 s or every 15 s when each takes 10 s", failures)
			}
			lines := w.said("last good answer stays")
			if len(lines) != 1 || lines[0]["backend"] != "a" || lines[0]["endpoints"] != 2.0 || lines[0]["error"] == nil {
				t.Errorf("said %v, want one line with the backend, its endpoints and the error", lines)
			}
			w.name("a", "10.0.0.2")
			<-time.After(20 * time.Second)
			wantUsable(t, b, "10.0.0.2:80")
			if lines := w.said("is found again"); len(lines) != 1 || lines[0]["failures"].(float64) < float64(failures) {
				t.Errorf("said %v, want one line with the number of failures", lines)
			}
			w.name("a", "10.0.0.2", "10.0.0.9")
			w.lookup("a", answer)
			<-time.After(20 * time.Second)
			if n := len(w.said("last good answer stays")); n != 2 {
				t.Errorf("failures after a good answer were said %d times, want once more", n-1)
			}
			collector := NewCollector(func() *Set { return s })
			if n := testutil.CollectAndCount(collector, "weir_upstream_dns_failures_total"); n != 1 {
				t.Errorf("%d series of look-ups that failed, want that of the one backend with a name", n)
			}
		})
	}
	f(func(context.Context) ([]netip.Addr, error) { return nil, errors.New("no such host") })
	f(func(context.Context) ([]netip.Addr, error) { return nil, nil })
	f(func(ctx context.Context) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
}

// A look-up comes every refresh, give or take a tenth, one at a time.
func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var times []time.Time
		w.lookup("a", func(context.Context) ([]netip.Addr, error) {
			times = append(times, time.Now())
			return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
		})
		s := w.adopt(nil, named("a", "a"))
		<-time.After(10 * time.Minute)
		w.end(s)
		different := map[time.Duration]bool{}
		for i := 1; i < len(times); i++ {
			pause := times[i].Sub(times[i-1])
			if pause < 4500*time.Millisecond || pause > 5500*time.Millisecond+tick {
				t.Errorf("look-up %d came after %v, want 5 s give or take a tenth", i, pause)
			}
			different[pause] = true
		}
		if len(times) < 100 || len(different) < 3 {
			t.Errorf("%d look-ups with %d different pauses", len(times), len(different))
		}
	})
}

// Endpoints come and go under requests: those in flight end as they would have, and connections to what stays are kept.
func TestAddressesChangeUnderRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.name("a", "10.0.0.1", "10.0.0.2")
		s := w.adopt(nil, named("a", "a"))
		b := s.Backend(0)
		calls := map[string]*Conn{}
		for len(calls) < 2 {
			c := acquire(t, b)
			calls[c.Endpoint()] = c
		}
		w.name("a", "10.0.0.2", "10.0.0.3")
		<-time.After(6 * time.Second)
		wantUsable(t, b, "10.0.0.2:80 10.0.0.3:80")
		gone, stays := calls["10.0.0.1:80"], calls["10.0.0.2:80"]
		succeed(t, gone)
		succeed(t, stays)
		if live, idle := b.stats.live.Load(), b.stats.idle.Load(); live != 1 || idle != 1 {
			t.Errorf("%d live, %d idle, want only the one that stays", live, idle)
		}
		reused := false
		for range 20 {
			c := acquire(t, b)
			if c.Endpoint() == "10.0.0.1:80" {
				t.Error("an endpoint that is gone was chosen")
			}
			reused = reused || c == stays && c.Reused()
			succeed(t, c)
		}
		if !reused {
			t.Error("the connection to the address that stays was not kept")
		}
		// It comes back: as a new one, with connections that are kept.
		w.name("a", "10.0.0.1")
		<-time.After(6 * time.Second)
		succeed(t, acquire(t, b))
		if c := acquire(t, b); !c.Reused() {
			t.Error("an address that came back keeps no connections")
		} else {
			succeed(t, c)
		}
		w.end(s)
		if n := b.stats.live.Load(); n != 0 {
			t.Errorf("%d live after Close", n)
		}
		if n := len(w.said("leads to other addresses")); n != 3 {
			t.Errorf("changes were said %d times, want 3", n)
		}
	})
}

// A new snapshot goes on with what is known of a name, asks for a new name at once, and does not wait for one that was missing.
func TestNamesAreAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.name("a", "10.0.0.1")
		w.name("b", "10.0.0.2")
		first := w.adopt(nil, named("x", "a"), named("lost", "missing"))
		c := acquire(t, first.Backend(0))
		succeed(t, c)
		w.lookup("a", func(ctx context.Context) ([]netip.Addr, error) { return nil, errors.New("server failure") })
		asked, lost := w.lookups("a"), w.lookups("missing")

		settings := named("x", "a")
		settings.DNS.Refresh = time.Hour
		second := w.adopt(first, settings, named("lost", "missing"))
		if w.lookups("a") != asked || w.lookups("missing") != lost {
			t.Error("Build asked again for names that the set before looks up")
		}
		if again := acquire(t, second.Backend(0)); again != c {
			t.Error("the connection was not adopted")
		} else {
			succeed(t, again)
		}

		third := w.adopt(second, named("x", "b"))
		wantUsable(t, third.Backend(0), "10.0.0.2:80")
		if n := first.Backend(0).stats.live.Load(); n != 0 {
			t.Errorf("%d connections to where the old name led", n)
		}
		fourth := w.adopt(third, backendOf("x", "10.0.0.2:80"))
		wantUsable(t, fourth.Backend(0), "10.0.0.2:80")
		fifth := w.adopt(fourth)
		w.end(fifth)
		before := w.lookups("b")
		<-time.After(time.Minute)
		if n := w.lookups("b"); n != before {
			t.Errorf("%d look-ups after nobody wants the name", n-before)
		}
	})
}

// A look-up that hangs delays neither a new snapshot nor the end nor other names.
func TestLookUpsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.name("a", "10.0.0.1")
		w.name("b", "10.0.0.2")
		first := w.adopt(nil, named("a", "a"), named("b", "b"))
		w.lookup("a", func(ctx context.Context) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		w.name("b", "10.0.0.3")
		<-time.After(7 * time.Second)
		wantUsable(t, first.Backend(1), "10.0.0.3:80")
		start := time.Now()
		second := w.adopt(first, named("a", "a"), named("b", "b"))
		wantUsable(t, second.Backend(0), "10.0.0.1:80")
		w.end(second)
		if took := time.Since(start); took != 0 {
			t.Errorf("a new set and its end took %v", took)
		}
		if n := second.Backend(0).stats.dnsFailures.Load(); n != 0 {
			t.Errorf("the look-up that was ended here counts as failed %d times", n)
		}
	})
}

// Addresses change all the time while requests run: none fails but those that never had an endpoint.
func TestAddressesChangeUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		turn := 0
		w.lookup("a", func(context.Context) ([]netip.Addr, error) {
			turn++
			return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(turn % 5)}), netip.AddrFrom4([4]byte{10, 0, 0, byte((turn + 1) % 5)})}, nil
		})
		settings := named("a", "a")
		settings.DNS.Refresh = 100 * time.Millisecond
		s := w.adopt(nil, settings)
		b := s.Backend(0)
		for range 500 {
			c := acquire(t, b)
			<-time.After(7 * time.Millisecond)
			if _, _, err := call(c, get, wire.Asked{}); err != nil {
				t.Fatal(err)
			}
			c.Release()
		}
		if n := len(w.said("leads to other addresses")); n < 10 {
			t.Errorf("%d changes, too few to show anything", n)
		}
		w.end(s)
		if live, idle := b.stats.live.Load(), b.stats.idle.Load(); live != 0 || idle != 0 {
			t.Errorf("%d live, %d idle after Close", live, idle)
		}
	})
}

func TestResolverIsNetsOwn(t *testing.T) {
	s, err := Build(nil, []policy.Backend{named("a", "localhost")}, Options{Clock: clock()})
	if err != nil {
		t.Fatal(err)
	}
	if got := addresses(s.Backend(0).roster.Load().all); !strings.Contains(got, "127.0.0.1:80") && !strings.Contains(got, "[::1]:80") {
		t.Errorf("localhost is %q", got)
	}
}
