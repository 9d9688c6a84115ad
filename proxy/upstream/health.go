package upstream

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"

	"weir/policy"
)

// Why an endpoint is out.
const (
	ejected   uint32 = 1 << iota // requests failed
	unhealthy                    // checks failed
)

// maxDoublings bounds how long an ejection can get: 16 times ejectFor.
const maxDoublings = 4

// vitals are what is known of an endpoint's health. Requests write failures, checks leave checked; the rest belongs to whoever
// runs the set, and out may be read by all.
type vitals struct {
	failures atomic.Int64  // of requests, in a row
	out      atomic.Uint32 // why it is out; 0: it is not

	// By requests.
	until     int64 // end of the ejection
	back      int64 // end of the one before
	length    time.Duration
	ejections int // in a row, each soon after the one before

	// By checks.
	checkDue  int64
	checking  atomic.Bool
	checked   atomic.Pointer[checkEnd]
	good, bad int // in a row
}

func (v *vitals) isOut() bool { return v.out.Load() != 0 }

// judge takes a request's end as a sign of its endpoint's health. Called by Release.
//
// It fails when the answer is late, cut or no HTTP, when the connection breaks, and with 502, 503 and 504, by which an endpoint
// says of itself that it cannot work. Other statuses are answers, of an application that works: if a 500 counted, one tenant's
// bad request could eject endpoints from all. What the client causes is no sign: leaving, being slow, sending garbage. Nor is a
// used connection that breaks before it answers: that is how an idle one ends.
func (c *Conn) judge() {
	b := c.backend
	if h := b.settings.Health; h == nil || h.Passive == nil {
		return
	}
	v, a := &c.pool.endpoint.vitals, c.answer
	cause := c.readFailed
	if cause == NoCause && (a == nil || !a.final) {
		cause = c.writeFailed
	}
	switch cause {
	case Reset:
		if c.reused && (a == nil || !a.begun) {
			return
		}
		b.failed(v)
	case Protocol, Truncated, ResponseTimeout, BodyIdle, TLSProtocol, TLSAlert:
		b.failed(v)
	case RequestTimeout:
		if c.atOnce && (a == nil || !a.final) { // all of the time was the backend's
			b.failed(v)
		}
	case NoCause:
		switch {
		case a == nil || !a.final: // given up
		case a.head.Status == 502 || a.head.Status == 503 || a.head.Status == 504:
			b.failed(v)
		case (a.body.Done() || a.head.Upgrade) && v.failures.Load() != 0:
			v.failures.Store(0)
		}
	}
}

// judgeDial takes a failed dial as a sign, unless it is our own system that has no room.
func (b *Backend) judgeDial(e *endpoint, err *Error) {
	if h := b.settings.Health; h == nil || h.Passive == nil || err.Cause == RequestTimeout {
		return
	}
	for _, ours := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err.Err, ours) {
			return
		}
	}
	b.failed(&e.vitals)
}

// failed counts a failure. The one that is enough wakes up whoever ejects.
func (b *Backend) failed(v *vitals) {
	if v.failures.Add(1) == int64(b.settings.Health.Passive.ConsecutiveFailures) {
		b.shared.poke()
	}
}

// tendHealth lets endpoints out and in by what is known now, and returns whether any changed.
func (b *Backend) tendHealth(now int64) (changed bool) {
	h := b.settings.Health
	r := b.roster.Load()
	for i := range r.all {
		e := r.all[i].endpoint
		changed = b.endEjection(e, h, now) || changed
		changed = b.takeCheck(e, h) || changed
	}
	if h == nil || h.Passive == nil {
		return changed
	}
	most := int(h.Passive.MaxEjected*float64(len(r.all)) + 1e-9)
	for i := range r.all {
		v := &r.all[i].vitals
		if v.failures.Load() < int64(h.Passive.ConsecutiveFailures) || v.out.Load()&ejected != 0 {
			continue
		}
		if out := r.out(); v.isOut() || out < most {
			b.eject(r.all[i].endpoint, h.Passive, now)
			changed = true
		}
	}
	return changed
}

// eject takes an endpoint out for a time that doubles whenever the endpoint did not stay in for as long as it was out before.
func (b *Backend) eject(e *endpoint, p *policy.PassiveSettings, now int64) {
	v := &e.vitals
	if v.ejections > 0 && now-v.back > int64(v.length) {
		v.ejections = 0
	}
	v.length = p.EjectFor << min(v.ejections, maxDoublings)
	v.length += time.Duration(rand.Int64N(int64(v.length/10) + 1)) // those that went together come back one by one
	v.ejections++
	v.until = now + int64(v.length)
	v.out.Or(ejected)
	b.stats.ejections.Add(1)
	b.shared.logger.Warn().Str("backend", b.settings.Name).Str("endpoint", e.address).Int64("failures", v.failures.Load()).
		Dur("for", v.length).Int("ejections", v.ejections).Msg("endpoint ejected: requests to it failed in a row")
}

// endEjection lets an endpoint in again when its time is over, or when nobody ejects any more.
func (b *Backend) endEjection(e *endpoint, h *policy.HealthSettings, now int64) (changed bool) {
	v := &e.vitals
	if v.out.Load()&ejected == 0 || now < v.until && h != nil && h.Passive != nil {
		return false
	}
	v.back = now
	v.failures.Store(0)
	v.out.And(^ejected)
	b.shared.logger.Info().Str("backend", b.settings.Name).Str("endpoint", e.address).Dur("after", v.length).
		Msg("endpoint is no longer ejected")
	return true
}
