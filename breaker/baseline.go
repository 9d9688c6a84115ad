package breaker

import (
	"slices"
	"time"
)

// slots is the most parts that a baseline is kept in.
const slots = 60

// perSlot returns how many samples make one part of the baseline, and parts how many there are.
func (q *QPS) perSlot() int { return (int(q.Baseline/q.Sample) + slots - 1) / slots }
func (q *QPS) parts() int   { return int(q.Baseline/q.Sample) / q.perSlot() }

// corridor returns the bounds around a baseline; 0 for the side that is not judged.
func (q *QPS) corridor(baseline float64) (low, high float64) {
	if q.Direction != Down {
		high = max(baseline, q.MinRate) * (1 + q.Deviation)
	}
	if q.Direction != Up && baseline >= q.MinRate {
		low = baseline * max(1-q.Deviation, 0)
	}
	return low, high
}

// detector says whether the rate of requests has left its baseline: the median of a ring of rates. While it is out, and while
// calls are refused, only every other rate enters the ring. So a new level needs a whole baseline to be more than half
// of it, and with that the median; what ends sooner does not move the median out of what was usual.
type detector struct {
	begun           int64 // the sample under way
	offered, passed int64 // in it
	run             int   // samples in a row that speak for a change
	degraded        bool
	skipped         bool    // the last part, while only every other one enters
	last            Numbers // of the last sample; its rates only

	median  float64
	sum     float64 // of the samples of the part under way
	samples int
	held    int            // parts in use
	at      int            // the next to be written: the oldest, once all are in use
	rates   [slots]float32 // a ring
	sorted  [slots]float32 // the same by size, so that a median costs no sort
}

// step adds what was counted since the last step. bounded says that calls are being refused.
func (d *detector) step(q *QPS, now int64, c Counts, bounded bool) Cause {
	d.offered += c.Offered
	d.passed += c.Passed
	took := time.Duration(now - d.begun)
	if took < q.Sample {
		return NoCause
	}
	d.last = Numbers{Offered: perSecond(d.offered, took), Rate: perSecond(d.passed, took)}
	d.begun, d.offered, d.passed = now, 0, 0
	switch {
	case took > max(q.Baseline, 2*q.Sample):
		return d.restart(now)
	case took > 2*q.Sample:
		// A tick came late. The mean over an unknown time is no sample, and samples around it are not in a row.
		d.run = 0
		return NoCause
	}
	cause := d.judge(q, d.last.Rate)
	d.learn(q, d.last.Rate, bounded || d.degraded)
	return cause
}

// restart forgets the past, which says nothing about the present any more.
func (d *detector) restart(now int64) Cause {
	was := d.degraded
	*d = detector{begun: now, last: d.last}
	if was {
		return Gap
	}
	return NoCause
}

// judge compares a rate with the baseline, once a fifth of that has been seen.
func (d *detector) judge(q *QPS, rate float64) Cause {
	if d.held*5 < q.parts() || d.held == 0 {
		return NoCause
	}
	d.last.Baseline = d.median
	d.last.Low, d.last.High = q.corridor(d.median)
	cause := Back
	switch {
	case rate < d.last.Low:
		cause = Fall
	case rate > d.last.High && d.last.High > 0:
		cause = Rise
	}
	if (cause == Back) != d.degraded {
		d.run = 0
		return NoCause
	}
	d.run++
	if d.degraded && d.run < q.Recover || !d.degraded && d.run < q.Periods {
		return NoCause
	}
	d.degraded, d.run = !d.degraded, 0
	return cause
}

// learn lets a sample into the baseline.
func (d *detector) learn(q *QPS, rate float64, bounded bool) {
	d.sum += rate
	d.samples++
	if d.samples < q.perSlot() {
		return
	}
	mean := float32(d.sum / float64(d.samples))
	d.sum, d.samples = 0, 0
	if d.skipped = bounded && !d.skipped; d.skipped {
		return
	}
	sorted := d.sorted[:d.held]
	if d.held == q.parts() {
		i, _ := slices.BinarySearch(sorted, d.rates[d.at])
		sorted = slices.Delete(sorted, i, i+1)
	}
	i, _ := slices.BinarySearch(sorted, mean)
	sorted = slices.Insert(sorted, i, mean)
	d.rates[d.at] = mean
	d.at = (d.at + 1) % q.parts()
	d.held = len(sorted)
	d.median = middle(sorted)
}

// middle returns the median of what is sorted; 0 of nothing.
func middle(sorted []float32) float64 {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (float64(sorted[(n-1)/2]) + float64(sorted[n/2])) / 2
}

// silent says whether there was no request for as long as the detector remembers.
func (d *detector) silent() bool {
	return d.offered == 0 && d.sum == 0 && (d.held == 0 || d.sorted[d.held-1] == 0)
}

// history returns the rates that the baseline stands on, oldest first.
func (d *detector) history() []float64 {
	all := make([]float64, 0, d.held)
	for i := range d.held {
		all = append(all, float64(d.rates[(d.at+i)%d.held]))
	}
	return all
}

// remember replaces the rates by as many of the newest as there are parts. A part under way is begun anew.
func (d *detector) remember(q *QPS, rates []float64) {
	rates = rates[max(len(rates)-q.parts(), 0):]
	for i, r := range rates {
		d.rates[i] = float32(r)
	}
	d.held = len(rates)
	d.at = d.held % q.parts()
	d.sum, d.samples = 0, 0
	d.sorted = d.rates
	slices.Sort(d.sorted[:d.held])
	d.median = middle(d.sorted[:d.held])
}

func perSecond(n int64, in time.Duration) float64 { return float64(n) / in.Seconds() }
