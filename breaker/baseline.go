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
	rates   [slots]float64 // the first held are in use; at is the oldest once all parts are
	held    int
	at      int
	median  float64
	sum     float64 // of the samples of the part under way
	samples int
	skipped bool // the last part, while only every other one enters

	begun           int64 // the sample under way
	offered, passed int64 // in it
	run             int   // samples in a row that speak for a change
	degraded        bool
	last            Numbers // of the last sample; its rates only
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
	*d = detector{begun: now, last: Numbers{Offered: d.last.Offered, Rate: d.last.Rate}}
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
	mean := d.sum / float64(d.samples)
	d.sum, d.samples = 0, 0
	if d.skipped = bounded && !d.skipped; d.skipped {
		return
	}
	d.rates[d.at] = mean
	d.at = (d.at + 1) % q.parts()
	d.held = min(d.held+1, q.parts())
	d.settle()
}

// settle finds the median.
func (d *detector) settle() {
	if d.held == 0 {
		d.median = 0
		return
	}
	sorted := d.rates
	slices.Sort(sorted[:d.held])
	d.median = (sorted[(d.held-1)/2] + sorted[d.held/2]) / 2
}

// history returns the rates that the baseline stands on, oldest first.
func (d *detector) history() []float64 {
	all := make([]float64, 0, d.held)
	for i := range d.held {
		all = append(all, d.rates[(d.at+i)%d.held])
	}
	return all
}

// remember replaces the rates by as many of the newest as there are parts. A part under way is begun anew.
func (d *detector) remember(q *QPS, rates []float64) {
	rates = rates[max(len(rates)-q.parts(), 0):]
	d.held = copy(d.rates[:], rates)
	d.at = d.held % q.parts()
	d.sum, d.samples = 0, 0
	d.settle()
}

func perSecond(n int64, in time.Duration) float64 { return float64(n) / in.Seconds() }
