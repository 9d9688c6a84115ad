package certs

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Interval is how often [Follow] reads the files, and so about how long a rotation takes to be in force.
const Interval = 2 * time.Second

// The values of the label `use`.
const (
	useListener = "listener"
	useBackend  = "backend"
)

// follower keeps what was read last from a few files, and takes over what they become.
type follower struct {
	use, name string // as in `backend "orders"`
	paths     paths
	clock     func() time.Time
	logger    zerolog.Logger
	put       func(*material) // puts good material in force

	mu        sync.Mutex // one look at the files at a time
	inForce   *contents
	complaint string // what was wrong at the last look; empty: nothing

	expiry   atomic.Int64 // Unix seconds; 0: no certificate of our own
	failures atomic.Uint64
}

// first reads the files for the first time.
func (f *follower) first() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, m, err := f.look()
	if err != nil {
		return fmt.Errorf("cannot load the TLS of %s %q: %w", f.use, f.name, err)
	}
	f.take(c, m)
	return nil
}

// reload looks again.
func (f *follower) reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, m, err := f.look()
	switch {
	case err != nil:
		f.failures.Add(1)
		if text := err.Error(); text != f.complaint {
			f.complaint = text
			line := f.logger.Warn().Err(err).Str("use", f.use).Str("name", f.name)
			if expiry := f.expiry.Load(); expiry != 0 {
				line = line.Time("expiry", time.Unix(expiry, 0).UTC())
			}
			line.Msg("TLS files not taken, those read before stay in force")
		}
		return
	case m != nil:
		f.take(c, m)
		line := f.logger.Info().Str("use", f.use).Str("name", f.name)
		if m.pair != nil {
			line = line.Str("certificate", subject(m.pair.Leaf)).Time("expiry", m.expiry.UTC())
		}
		line.Msg("TLS files rotated, the next handshake has them")
	case f.complaint != "":
		f.logger.Info().Str("use", f.use).Str("name", f.name).Msg("TLS files are again what is in force")
	}
	f.complaint = ""
}

// look returns what the files hold, and no material when that is in force already.
func (f *follower) look() (*contents, *material, error) {
	c, err := f.paths.read()
	if err != nil || f.inForce != nil && c.equal(f.inForce) {
		return nil, nil, err
	}
	m, err := f.paths.parse(c, f.clock())
	return c, m, err
}

func (f *follower) take(c *contents, m *material) {
	f.put(m)
	f.inForce = c
	if m.pair != nil {
		f.expiry.Store(m.expiry.Unix())
	}
}

// Follow reloads the living set every [Interval] until ctx is done. The set is never nil.
func Follow(ctx context.Context, current func() *Set) {
	t := time.NewTicker(Interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			current().Reload()
		}
	}
}
