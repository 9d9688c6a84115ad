// Package breaker decides when traffic to a target must give way: a part of it when the rate leaves its baseline, nearly all
// of it when calls fail or are slow. It knows numbers and time, but no target, tenant or request, and it never reads a clock.
//
// # Contract
//
// A [Breaker] belongs to one target. Requests only count and look: [Breaker.Offer] says that one came, [Breaker.Admit]
// whether it may go on, and [Breaker.Record], once for each that was admitted, how it ended. None of them allocates, locks
// or judges. Judgement happens in [Breaker.Tick], which a sampler calls at least every [Settings.Every]. It returns a
// [Transition] with the numbers it stood on, for the caller to announce.
//
// A [Judge] is the judgement alone, without counters: a pure function of its state, of [Counts] and of now. The
// counts may be one sidecar's or the sum of a fleet's ([Counts.Add]). Judged on the sum, traffic that is only shared out
// anew, by a scale-out or a restart, changes nothing.
//
// # Levels
//
// Normal → Degraded when the rate leaves the corridor around its baseline, and back. Normal or Degraded → Open when too many
// calls fail or are slow → HalfOpen after a wait, for a few probes → Normal, at first for a share of the requests that
// rises from nothing to all, or Open again for twice the wait.
//
// # Trade-off
//
// The baseline is the median of the last minutes. It follows a day's curve and forgets a spike, but it knows
// neither hours nor weekdays: a rush that comes every day at nine, within seconds, is a deviation each time. And a breaker
// reacts at the next tick, not at the call that fails, so that calls need no lock.
//
// # When not to use it
//
// To eject one bad endpoint of a good backend, which is a matter of the pool, and for limits, which are exact.
package breaker
