package upstream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"weir/policy"
)

// world is what a set in a bubble sees of the outside: a resolver, and endpoints that answer or not.
type world struct {
	t *testing.T

	mu      sync.Mutex
	names   map[string]func(ctx context.Context) ([]netip.Addr, error)
	asked   map[string]int // look-ups by name
	refuses map[string]bool
	serves  func(address string, c net.Conn, r *bufio.Reader)
	dials   map[string]int
	log     bytes.Buffer
	wg      sync.WaitGroup
}

// newWorld is one in which every endpoint answers every request with ok, and no name is known.
func newWorld(t *testing.T) *world {
	return &world{
		t: t, names: map[string]func(context.Context) ([]netip.Addr, error){}, asked: map[string]int{},
		refuses: map[string]bool{}, dials: map[string]int{},
		serves: func(_ string, c net.Conn, r *bufio.Reader) { always(ok)(0, c, r) },
	}
}

var errRefused = errors.New("connection refused")

func (w *world) dial(_ context.Context, _, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dials[address]++
	if w.refuses[address] {
		return nil, errRefused
	}
	ours, theirs := net.Pipe()
	serve := w.serves
	w.wg.Go(func() {
		defer theirs.Close()
		serve(address, theirs, bufio.NewReader(theirs))
	})
	return ours, nil
}

// LookupNetIP makes the world a Resolver.
func (w *world) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	answer := w.names[host]
	w.asked[host]++
	w.mu.Unlock()
	if network != "ip" {
		w.t.Errorf("asked for %q, want both families", network)
	}
	if answer == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return answer(ctx)
}

// name makes a name lead to these addresses; to none it is an empty answer.
func (w *world) name(host string, addresses ...string) {
	w.lookup(host, func(context.Context) ([]netip.Addr, error) {
		var all []netip.Addr
		for _, a := range addresses {
			all = append(all, netip.MustParseAddr(a))
		}
		return all, nil
	})
}

func (w *world) lookup(host string, answer func(context.Context) ([]netip.Addr, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[host] = answer
}

func (w *world) refuse(address string, yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuses[address] = yes
}

func (w *world) lookups(host string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[host]
}

func (w *world) dialled(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials[address]
}

// Write makes the world the log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// said returns the lines with this in their message since the last call, as fields.
func (w *world) said(what string) (lines []map[string]any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range strings.Lines(w.log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			w.t.Errorf("log line %q: %v", line, err)
		}
		if strings.Contains(fields["message"].(string), what) {
			lines = append(lines, fields)
		}
	}
	return lines
}

// adopt builds a set on prev and makes it the living one. The caller closes the last one.
func (w *world) adopt(prev *Set, backends ...policy.Backend) *Set {
	w.t.Helper()
	s, err := Build(prev, backends, Options{Clock: clock(), Logger: zerolog.New(w), Dialer: w.dial, Resolver: w})
	if err != nil {
		w.t.Fatal(err)
	}
	s.Adopt(prev)
	return s
}

// end closes the last set and waits for what served it.
func (w *world) end(s *Set) {
	s.Close()
	w.wg.Wait()
}

// addresses lists a backend's endpoints, those in the choice or all.
func addresses(members []member) string {
	var all []string
	for i := range members {
		all = append(all, members[i].address)
	}
	return strings.Join(all, " ")
}

// wantUsable checks which endpoints are in the choice.
func wantUsable(t *testing.T, b *Backend, want string) {
	t.Helper()
	if got := addresses(b.roster.Load().usable); got != want {
		t.Errorf("the choice is among %q, want %q", got, want)
	}
}

// answering serves each address with its own answer; "" reads requests and says nothing.
func answering(answers map[string]string) func(string, net.Conn, *bufio.Reader) {
	return func(address string, c net.Conn, r *bufio.Reader) {
		if answers[address] == "" {
			_, _ = io.Copy(io.Discard, r)
			return
		}
		always(answers[address])(0, c, r)
	}
}
