package etcd

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"weir/control/etcd/etcdtest"
)

// watched is a follower that runs, and what it has said.
type watched struct {
	t *testing.T
	f *Follower

	mu      sync.Mutex
	changed chan struct{} // replaced with each change
	views   []View
	fails   []error
	healthy bool
	told    int // of the failures, those that failing or has has seen
	log     strings.Builder
}

// Write collects the log.
func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// follow starts a follower that ends with the test.
func follow(t *testing.T, o FollowerOptions) *watched {
	t.Helper()
	w := &watched{t: t, changed: make(chan struct{})}
	o.Logger = zerolog.New(w)
	if o.Prefix == "" {
		o.Prefix = "/w/"
	}
	w.f = NewFollower(o)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.f.Run(ctx, w.update, w.failed); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

func (w *watched) update(v View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.views, w.healthy = append(w.views, v), true
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watched) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fails, w.healthy = append(w.fails, err), false
	close(w.changed)
	w.changed = make(chan struct{})
}

// said are the views and failures so far.
func (w *watched) said() ([]View, []error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.views), slices.Clone(w.fails)
}

// patience bounds every wait of these tests.
const patience = 40 * time.Second

// until waits for a condition on what was said, looking again at each word.
func (w *watched) until(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		done, changed := holds(), w.changed
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			w.mu.Lock()
			defer w.mu.Unlock()
			w.t.Fatalf("%s: not within %s; views %d, fails %v, stats %+v\n%s", what, patience, len(w.views), w.fails, w.f.Stats(), w.log.String())
		}
	}
}

// has waits for a view that is healthy and has exactly these values, as in a=1 b=2.
func (w *watched) has(want string) {
	w.t.Helper()
	w.until("a view with "+want, func() bool {
		if !w.healthy || len(w.views) == 0 || values(w.views[len(w.views)-1]) != want {
			return false
		}
		w.told = len(w.fails)
		return true
	})
}

// failing waits for a failure of a cause, after those that were waited for before and after the latest view that was. On a busy machine
// it may be followed by another already.
func (w *watched) failing(cause Cause) {
	w.t.Helper()
	w.until("a failure by "+string(cause), func() bool {
		i := slices.IndexFunc(w.fails[w.told:], func(err error) bool { return CauseOf(err) == cause })
		w.told += i + 1 // nothing, where there is none
		return i >= 0
	})
}

// connected waits until a watch is open.
func (w *watched) connected() {
	w.t.Helper()
	eventually(w.t, "a watch", func() bool { return w.f.Stats().Connected })
}

// eventually waits for a condition that tells nobody when it comes true.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := patience
	if _, large := t.(*testing.B); large {
		limit *= 10
	}
	for deadline := time.Now().Add(limit); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// values are a view's keys without the prefix, and its values.
func values(v View) string {
	var b strings.Builder
	for i, item := range v.Items {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s=%s", strings.TrimPrefix(item.Key, "/w/"), item.Value)
	}
	return b.String()
}

// lists checks how often the copy was made anew.
func (w *watched) lists(want int) {
	w.t.Helper()
	if got := w.f.Stats().Lists; got != want {
		w.t.Errorf("made the copy anew %d times, want %d; %+v", got, want, w.f.Stats())
	}
}

// forgetLog empties the log of what came before: on a busy machine a start can take several tries.
func (w *watched) forgetLog() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log.Reset()
}

// logged checks how many lines of the log have a text.
func (w *watched) logged(text string, want int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := 0
	for line := range strings.Lines(w.log.String()) {
		if strings.Contains(line, text) {
			got++
		}
	}
	if got != want {
		w.t.Errorf("%d lines of the log have %q, want %d:\n%s", got, text, want, w.log.String())
	}
}

// replace writes a file as those do that rotate secrets: beside it, and then over it.
func replace(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// open opens a client of endpoints that ends with the test.
func open(t testing.TB, o Options) *Client {
	t.Helper()
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// lineTo puts a relay before a member.
func lineTo(t testing.TB, cluster *etcdtest.Cluster, member int) (*etcdtest.Relay, string) {
	relay := etcdtest.NewRelay(t, cluster.Address(member))
	return relay, "http://" + relay.Address()
}

func TestListAndWatch(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put("/w/a", "1")
	cluster.Put("/x", "not ours")
	w := follow(t, FollowerOptions{Client: open(t, Options{Endpoints: cluster.Endpoints()})})
	w.has("a=1")
	revision := cluster.Put("/w/b", "2")
	w.has("a=1 b=2")
	if _, err := cluster.Client().Delete(t.Context(), "/w/a"); err != nil {
		t.Fatal(err)
	}
	w.has("b=2")
	if got := w.f.Stats().Revision; got != revision+1 {
		t.Errorf("complete up to %d, want %d", got, revision+1)
	}
	w.lists(1)
}

// A whole fleet loses its watches at one moment, and comes back over half a second unless told otherwise.
func TestSpreadByDefault(t *testing.T) {
	f := NewFollower(FollowerOptions{})
	var b backoff
	if got := b.next(f.o.Spread, time.Minute, 0.5); got != 250*time.Millisecond {
		t.Errorf("half of them are back after %s, want 250ms", got)
	}
}
