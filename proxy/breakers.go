package proxy

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"weir/admit"
	"weir/breaker"
	"weir/policy"
)

// watchBreakers is the sampler: it looks at the breakers of the live table as often as they need it, and forgets answers that
// are too old to be given. Without breakers it waits for a snapshot that has some, and does nothing.
func (p *Proxy) watchBreakers(ctx context.Context) {
	ticker := time.NewTicker(time.Hour)
	ticker.Stop() // until there is something to look at
	defer ticker.Stop()
	every := time.Duration(0)
	for {
		if wanted := p.Table().TickEvery(); wanted != every {
			if every = wanted; every > 0 {
				ticker.Reset(every)
			} else {
				ticker.Stop()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-p.applied:
		case <-ticker.C:
			p.lookAtBreakers(p.clock.Now())
		}
	}
}

// lookAtBreakers is one look. A defect in it must not end judgement for good.
func (p *Proxy) lookAtBreakers(now int64) {
	defer func() {
		if defect := recover(); defect != nil {
			p.report(defect, nil)
		}
	}()
	p.Table().Tick(now, rand.Float64, p.announce)
	p.stale.expire(now)
}

// announce logs a change of a breaker's level with the numbers it stands on.
func (p *Proxy) announce(c admit.BreakerChange) {
	level := zerolog.InfoLevel
	if c.To > c.From && c.Cause != breaker.Waited {
		level = zerolog.WarnLevel
	}
	n := &c.Numbers
	line := p.logger.WithLevel(level).
		Str("breaker", c.Breaker).Str("target", c.Target)
	if c.Tenant != "" {
		line = line.Str("tenant", c.Tenant)
	}
	line = line.Stringer("from", c.From).Stringer("to", c.To).Stringer("cause", c.Cause)
	switch c.Cause {
	case breaker.Rise, breaker.Fall, breaker.Back:
		line = line.Float64("qps", n.Offered).Float64("qps_passed", n.Rate).Float64("qps_baseline", n.Baseline).Float64("low", n.Low).Float64("high", n.High)
	case breaker.TooManyFail, breaker.TooManySlow, breaker.Consecutive, breaker.ProbesPassed, breaker.ProbesFailed:
		line = line.Int64("requests", n.Requests).Int64("failures", n.Failures).Int64("slow", n.Slow).Int64("streak", n.Streak)
	}
	if c.Until > 0 {
		line = line.Time("until", p.clock.Wall(c.Until))
	}
	line.Msg(changeText(&c, p.breakerSettings(c.Breaker)))
}

// breakerSettings are those of a breaker in the snapshot in force; nil when it is gone.
func (p *Proxy) breakerSettings(name string) *policy.Breaker {
	all := p.Snapshot().Breakers
	i := slices.IndexFunc(all, func(b policy.Breaker) bool { return b.Name == name })
	if i < 0 {
		return nil
	}
	return &all[i]
}
