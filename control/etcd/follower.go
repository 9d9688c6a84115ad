package etcd

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// FollowerOptions say what to follow and how patiently. Times that are 0 are as described.
type FollowerOptions struct {
	Client *Client
	// Prefix is what all keys begin with.
	Prefix string
	// Logger gets a line when the cluster is lost, is lost for another reason, is back, and when the copy is made anew.
	Logger zerolog.Logger
	// Clock is the monotonic and wall clock; nil means time.Now.
	Clock func() time.Time
	// Random yields the jitter, from 0 to below 1; nil means a random source of the process.
	Random func() float64
	// Spread is the time over which those that have lost one watch come back. 0 means 500 ms.
	Spread time.Duration
	// DigestEvery is the time between two comparisons of the copy with a full list, give or take a fifth. 0 means 5 min.
	DigestEvery time.Duration
	// Quiet is the time without a word from the watch after which it is asked for a sign of life, and Stall the time that the answer
	// may take before all connections are made anew. 0 means 30 s and 10 s. A connection whose other end has vanished ends before
	// that, by the probes of [Options.KeepAlive].
	Quiet, Stall time.Duration
}

// Follower keeps a copy of everything below a prefix in step with etcd: one list, then one watch from the revision of the list on,
// resumed by revision whatever happens, and made anew by a list only when that revision is forgotten, when the store went back in
// time, or when a comparison finds a difference.
type Follower struct {
	o    FollowerOptions
	kick chan struct{}

	mu    sync.Mutex
	stats Stats
}

// Stats are figures about a Follower.
type Stats struct {
	// Connected says that a watch is open.
	Connected bool
	// Revision is the one up to which the copy is complete; 0: there is none yet.
	Revision int64
	// InStep is when the copy was last known to be complete: a message of the watch, or a list. Zero: never.
	InStep time.Time
	// Lists, Resumes and Drifts count the lists that made the copy anew, the watches opened from a revision that was known before, and
	// the comparisons that found a difference.
	Lists, Resumes, Drifts int
	// Restarts counts the watches that ended, and the tries to open one that failed or take long, by cause.
	Restarts map[Cause]int
}

// NewFollower returns a follower that does nothing before Run.
func NewFollower(o FollowerOptions) *Follower {
	orElse := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	orElse(&o.Spread, 500*time.Millisecond)
	orElse(&o.DigestEvery, 5*time.Minute)
	orElse(&o.Quiet, 30*time.Second)
	orElse(&o.Stall, 10*time.Second)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	return &Follower{o: o, kick: make(chan struct{}, 1), stats: Stats{Restarts: make(map[Cause]int)}}
}

// Stats returns figures. It is safe for concurrent use.
func (f *Follower) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Restarts = maps.Clone(s.Restarts)
	return s
}

// Reload makes the copy anew, and has it reported even if nothing differs. It returns at once.
func (f *Follower) Reload() {
	select {
	case f.kick <- struct{}{}:
	default: // it does so anyway
	}
}

func (f *Follower) note(change func(*Stats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.stats)
}

// Run lists, watches and reports every change with update, until ctx is done; then it returns nil. Only the latest view counts, and
// views are not changed afterwards. While the copy may be behind, failed is called with what is wrong, again for each try; the last
// view stays valid, and the next update, of the same view if nothing has changed, says that all is well again. Neither may block, and
// both are called from the goroutine of Run. Run is called once.
func (f *Follower) Run(ctx context.Context, update func(View), failed func(error)) error {
	c := &course{Follower: f, update: update, failed: failed}
	for {
		client := f.o.Client.Etcd()
		err := c.follow(ctx, client)
		if ctx.Err() != nil {
			f.note(func(s *Stats) { s.Connected = false })
			return nil
		}
		wait := c.broken(client, f.o.Client.Explain(err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// course is one Run.
type course struct {
	*Follower
	update func(View)
	failed func(error)

	view    View
	known   bool   // view is one to go on from
	cluster uint64 // who answered; 0: nobody yet
	opened  time.Time
	backoff backoff
	// causes are those of the outage that goes on, each of which is logged once; nil: none does.
	causes map[Cause]bool
	since  time.Time
}

// follow lists, if need be, and watches. It returns why it cannot go on.
func (c *course) follow(ctx context.Context, client *clientv3.Client) error {
	if !c.known {
		view, err := c.o.Client.Read(ctx, c.o.Prefix, 0)
		if err != nil {
			return err
		}
		c.relisted(view)
	}
	return c.watch(ctx, client)
}

// relisted takes over a list.
func (c *course) relisted(view View) {
	if view.Revision < c.view.Revision {
		c.o.Logger.Warn().Str("prefix", c.o.Prefix).Int64("revision", view.Revision).Int64("before", c.view.Revision).
			Msg("etcd went back in time: it was restored or replaced, and what it has now counts")
	}
	c.view, c.known, c.cluster = view, true, 0
	now := c.o.Clock()
	c.note(func(s *Stats) { s.Lists, s.Revision, s.InStep = s.Lists+1, view.Revision, now })
	c.update(view)
}

// open notes that a watch is open.
func (c *course) open(resumed bool) {
	now := c.o.Clock()
	c.opened = now
	c.note(func(s *Stats) {
		s.Connected, s.InStep = true, now
		if resumed {
			s.Resumes++
		}
	})
	if c.causes == nil {
		return
	}
	c.o.Logger.Info().Str("prefix", c.o.Prefix).Dur("after", now.Sub(c.since)).Int64("revision", c.view.Revision).Msg("etcd is back")
	c.causes = nil
	c.update(c.view)
}

// settled is how long a watch must have lived for its end not to count as one more failed try.
const settled = 10 * time.Second

// broken deals with the end of a watch or of a try, and returns how long to wait before the next.
func (c *course) broken(client *clientv3.Client, err error) time.Duration {
	now := c.o.Clock()
	cause := CauseOf(err)
	if !c.opened.IsZero() && now.Sub(c.opened) >= settled {
		c.backoff = backoff{}
	}
	c.opened = time.Time{}
	c.note(func(s *Stats) { s.Connected = false })
	pacing := pacingOf(cause)
	switch {
	case pacing.anew:
		c.known = false
		c.note(func(s *Stats) { s.Restarts[cause]++ })
		c.o.Logger.Info().Str("prefix", c.o.Prefix).Str("cause", string(cause)).Int64("revision", c.view.Revision).
			Msgf("the copy of etcd is made anew: %v", err)
		if cause == Asked {
			return 0
		}
	case pacing.renew:
		if renewal := c.o.Client.RenewFrom(client); renewal != nil {
			err = fmt.Errorf("it cannot connect anew: %w; before: %w", renewal, err)
		}
		c.trouble(err)
	default:
		c.trouble(err)
	}
	return c.backoff.next(c.o.Spread, pacing.most, c.o.Random())
}

// trouble tells that the copy may be behind, and why.
func (c *course) trouble(err error) {
	now := c.o.Clock()
	cause := CauseOf(err)
	c.note(func(s *Stats) { s.Restarts[cause]++ })
	if c.causes == nil {
		c.causes, c.since = make(map[Cause]bool), now
	}
	if !c.causes[cause] {
		c.causes[cause] = true
		c.o.Logger.Warn().Err(err).Str("prefix", c.o.Prefix).Str("cause", string(cause)).Int64("revision", c.view.Revision).
			Str("to_do", cause.Advice()).Msg("etcd is lost; what is known stays in force, and it tries again")
	}
	c.failed(fmt.Errorf("cannot follow %s: %w; to do: %s", c.o.Prefix, err, cause.Advice()))
}

// backoff says how long to wait between tries: at first anything up to a spread, so that those who lose one member at one moment do
// not come back at one moment, then by decorrelated jitter. Source: M. Brooker, Exponential Backoff and Jitter, 2015.
type backoff struct{ last time.Duration }

// next is the wait before the next try, at most most; random is from 0 to below 1.
func (b *backoff) next(spread, most time.Duration, random float64) time.Duration {
	if b.last == 0 {
		b.last = spread
		return time.Duration(random * float64(min(spread, most)))
	}
	least := min(spread/2, most)
	b.last = least + time.Duration(random*float64(min(3*b.last, most)-least))
	return b.last
}
