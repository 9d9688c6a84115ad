package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd"
)

// session holds one lease after the other. All that a sidecar writes into etcd lives by its lease, and all that it does by virtue of
// what it wrote happens in a life: a context that ends when the lease may have run out.
//
// The life is counted from before the answer that prolonged it was asked for, and etcd counts from after it got the question; so the
// life always ends first, whatever the clocks of both machines show.
type session struct {
	client *etcd.Client
	ttl    time.Duration
	// spread is over how long a fleet of this size has to spread what all of it does at once.
	spread func() time.Duration
	failed func(error)
}

// errLost says that the lease is gone, or may be.
var errLost = errors.New("the lease has run out")

// run lives again and again until ctx is done; then it gives its lease back, so that all that lives by it is gone at once. Each time,
// live is called with a new lease and must return when its context is done. An error of live ends the life early.
func (s *session) run(ctx context.Context, live func(ctx context.Context, lease clientv3.LeaseID) error) {
	backoff := retry{least: s.ttl / 30, most: s.ttl}
	for ctx.Err() == nil {
		begun := time.Now()
		err := s.once(ctx, live)
		if ctx.Err() != nil {
			return
		}
		s.failed(err)
		if time.Since(begun) > 2*s.ttl {
			backoff.reset()
		}
		// All of a fleet lose their leases together when etcd is gone for long.
		pause(ctx, backoff.next()+fraction(s.spread()))
	}
}

// once lives once.
func (s *session) once(ctx context.Context, live func(context.Context, clientv3.LeaseID) error) error {
	asked := time.Now()
	call, cancel := s.client.Call(ctx)
	client := s.client.Etcd()
	granted, err := client.Grant(call, int64(s.ttl/time.Second))
	cancel()
	if err != nil {
		err = fmt.Errorf("cannot get a lease: %w", s.client.Explain(err))
		if cause := etcd.CauseOf(err); cause == etcd.Login || cause == etcd.Files {
			err = errors.Join(err, s.client.RenewFrom(client)) // the password may have been rotated
		}
		return err
	}
	life, end := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	running.Go(func() { end(s.keep(life, granted.ID, asked.Add(time.Duration(granted.TTL)*time.Second))) })
	if err = live(life, granted.ID); err == nil {
		err = context.Cause(life)
	}
	end(err)
	running.Wait()
	s.revoke(ctx, granted.ID)
	return err
}

// keep prolongs a lease until ctx is done, or says why it is gone or may be.
func (s *session) keep(ctx context.Context, lease clientv3.LeaseID, until time.Time) error {
	for interval := s.ttl / 3; ; {
		if !pause(ctx, interval-fraction(interval/5)) {
			return ctx.Err()
		}
		asked := time.Now()
		if !asked.Before(until) {
			return fmt.Errorf("%w while the process stood still", errLost)
		}
		call, cancel := context.WithDeadline(ctx, until)
		answer, err := s.client.Etcd().KeepAliveOnce(call, lease)
		cancel()
		switch {
		case err == nil:
			until, interval = asked.Add(time.Duration(answer.TTL)*time.Second), s.ttl/3
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, rpctypes.ErrLeaseNotFound), !time.Now().Before(until):
			return fmt.Errorf("%w: %w", errLost, s.client.Explain(err))
		default:
			interval = s.ttl / 15
		}
	}
}

// revoke gives a lease back. A lease that cannot be given back runs out by itself.
func (s *session) revoke(ctx context.Context, lease clientv3.LeaseID) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = s.client.Etcd().Revoke(call, lease)
}

// retry is how long to wait before the next attempt: twice as long each time, and never the same for two that started together.
type retry struct{ least, most, now time.Duration }

func (r *retry) next() time.Duration {
	r.now = min(max(2*r.now, r.least), r.most)
	return r.now/2 + fraction(r.now/2)
}

func (r *retry) reset() { r.now = 0 }

// fraction is a random part of a duration.
func fraction(d time.Duration) time.Duration { return time.Duration(rand.Float64() * float64(d)) }

// pause waits, and reports whether ctx is not done yet.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
