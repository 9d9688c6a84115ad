package upstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Resolver looks up names. *net.Resolver is one.
type Resolver interface {
	// LookupNetIP returns the addresses of a host, of both families when network is "ip". It must end soon after ctx does.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	// firstLookup is how long Build waits for names that were never found. What is not there by then is found later.
	firstLookup = 500 * time.Millisecond
	// lookupTimeout bounds every other look-up: resolvers ask a second server after 5 s at most.
	lookupTimeout = 10 * time.Second
	// eagerly is how soon a name that was never found is looked up again.
	eagerly = time.Second
)

// names is what is known of the name of a backend. It is adopted with the name: an answer outlives snapshots as it outlives
// failures. Only answer, busy and done are shared; the rest belongs to whoever runs the set.
type names struct {
	host   string
	answer atomic.Pointer[[]netip.Addr] // the last good one, sorted; nil: none yet
	busy   atomic.Bool                  // a look-up is under way
	done   atomic.Pointer[lookup]       // has ended; not looked at yet

	due     int64 // when the name is to be looked up again
	failing int   // look-ups that failed in a row
}

// lookup is the end of a look-up.
type lookup struct {
	addresses []netip.Addr
	err       error
}

// known are the addresses of the last good answer.
func (n *names) known() []netip.Addr {
	if a := n.answer.Load(); a != nil {
		return *a
	}
	return nil
}

var errNoAddress = errors.New("the answer has no address")

// ask looks the name up.
func (n *names) ask(ctx context.Context, r Resolver, timeout time.Duration) *lookup {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	found, err := r.LookupNetIP(ctx, "ip", n.host)
	if err != nil {
		return &lookup{err: fmt.Errorf("cannot look up %s: %w", n.host, err)}
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	slices.SortFunc(found, netip.Addr.Compare)
	found = slices.Compact(found)
	if len(found) == 0 {
		return &lookup{err: fmt.Errorf("cannot look up %s: %w", n.host, errNoAddress)}
	}
	return &lookup{addresses: found}
}

// lookUpFirst looks up the names that were never found, all at once, so that a new set has somewhere to go. It returns after
// firstLookup at the latest, give or take how soon the resolver lets go.
func (s *Set) lookUpFirst(fresh []*Backend) {
	var wg sync.WaitGroup
	for _, b := range fresh {
		wg.Go(func() { b.take(b.names.ask(context.Background(), b.shared.resolver, firstLookup), b.shared.clock()) })
	}
	wg.Wait()
}

// lookUp begins a look-up when it is time for one.
func (b *Backend) lookUp(now int64) {
	n, s := b.names, b.shared
	if n == nil || now < n.due || n.busy.Swap(true) {
		return
	}
	n.due = now + int64(lookupTimeout) // take says when in earnest
	s.jobs.Go(func() {
		defer s.recovered("look-up")
		defer n.busy.Store(false)
		found := n.ask(s.ctx, s.resolver, lookupTimeout)
		if s.ctx.Err() == nil {
			n.done.Store(found)
			s.poke()
		}
	})
}

// tendNames takes the end of a look-up, if there is one, and returns whether the addresses are other ones.
func (b *Backend) tendNames(now int64) (changed bool) {
	if b.names == nil {
		return false
	}
	if found := b.names.done.Swap(nil); found != nil {
		return b.take(found, now)
	}
	return false
}

// take keeps a good answer; a bad one changes nothing.
func (b *Backend) take(found *lookup, now int64) (changed bool) {
	n, log := b.names, &b.shared.logger
	before := n.known()
	wait := b.settings.DNS.Refresh
	if len(before) == 0 && found.err != nil {
		wait = min(wait, eagerly)
	}
	n.due = now + int64(jittered(wait))
	if found.err != nil {
		b.stats.dnsFailures.Add(1)
		if n.failing++; n.failing == 1 {
			what := "the backend's name cannot be looked up: its last good answer stays in use"
			if len(before) == 0 {
				what = "the backend's name cannot be looked up: it has no endpoint yet"
			}
			log.Warn().Str("backend", b.settings.Name).Str("name", n.host).Int("endpoints", len(before)).Err(found.err).Msg(what)
		}
		return false
	}
	if n.failing > 0 {
		log.Info().Str("backend", b.settings.Name).Str("name", n.host).Int("failures", n.failing).
			Int("endpoints", len(found.addresses)).Msg("the backend's name is found again")
		n.failing = 0
	}
	if slices.Equal(before, found.addresses) {
		return false
	}
	n.answer.Store(&found.addresses)
	log.Info().Str("backend", b.settings.Name).Str("name", n.host).Int("before", len(before)).
		Int("endpoints", len(found.addresses)).Msg("the backend's name leads to other addresses")
	return true
}

// jittered is a duration give or take a tenth, so that what began together does not stay together.
func jittered(d time.Duration) time.Duration {
	tenth := int64(d / 10)
	return d + time.Duration(rand.Int64N(2*tenth+1)-tenth)
}
