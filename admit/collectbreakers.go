package admit

import (
	"github.com/prometheus/client_golang/prometheus"

	"weir/breaker"
)

// breakerMetrics are the part of a collector that tells of breakers.
type breakerMetrics struct{ level, changes, offered, passed, baseline, corridor *prometheus.Desc }

func newBreakerMetrics() breakerMetrics {
	return breakerMetrics{
		level: prometheus.NewDesc("weir_breaker_level",
			"Level of a breaker: 0 normal, 1 degraded, 2 open, probes or not; with perTenant the worst of all tenants.", []string{"breaker"}, nil),
		changes: prometheus.NewDesc("weir_breaker_transitions_total",
			"Changes of a breaker's level; with perTenant of all tenants together.", []string{"breaker", "from", "to"}, nil),
		offered: prometheus.NewDesc("weir_breaker_qps",
			"Requests a second that came for a breaker's target in its last sample, whatever became of them.", []string{"breaker"}, nil),
		passed: prometheus.NewDesc("weir_breaker_qps_passed",
			"Of these, the requests a second that their tenants' limits let pass, or would have: what is compared with the baseline.", []string{"breaker"}, nil),
		baseline: prometheus.NewDesc("weir_breaker_qps_baseline",
			"Requests a second that a breaker takes for usual, as soon as it knows.", []string{"breaker"}, nil),
		corridor: prometheus.NewDesc("weir_breaker_qps_corridor",
			"Requests a second between which a breaker is at level normal, of the sides that are judged.", []string{"breaker", "bound"}, nil),
	}
}

func (m *breakerMetrics) describe(ch chan<- *prometheus.Desc) {
	ch <- m.level
	ch <- m.changes
	ch <- m.offered
	ch <- m.passed
	ch <- m.baseline
	ch <- m.corridor
}

// collect sums up the breakers of each policy: tenants are no label here.
func (m *breakerMetrics) collect(ch chan<- prometheus.Metric, t *Table) {
	for _, c := range t.breakers {
		worst, sum := 0, breaker.Numbers{}
		c.each(func(w *watch) {
			s := w.Status(0) // the time is for the share, which is not told here
			worst = max(worst, s.Level.Gauge())
			n := &s.Numbers
			sum.Offered, sum.Rate = sum.Offered+n.Offered, sum.Rate+n.Rate
			sum.Baseline, sum.Low, sum.High = sum.Baseline+n.Baseline, sum.Low+n.Low, sum.High+n.High
		})
		gauge(ch, m.level, int64(worst), c.name)
		settings := &c.terms.Load().settings
		m.collectChanges(ch, c, settings)
		if settings.QPS == (breaker.QPS{}) {
			continue
		}
		rate(ch, m.offered, sum.Offered, c.name)
		rate(ch, m.passed, sum.Rate, c.name)
		if sum.Baseline+sum.Low+sum.High == 0 {
			continue // not known yet
		}
		rate(ch, m.baseline, sum.Baseline, c.name)
		if settings.QPS.Direction != breaker.Up {
			rate(ch, m.corridor, sum.Low, c.name, "low")
		}
		if settings.QPS.Direction != breaker.Down {
			rate(ch, m.corridor, sum.High, c.name, "high")
		}
	}
}

// collectChanges leaves out what never happened and cannot happen by itself.
func (m *breakerMetrics) collectChanges(ch chan<- prometheus.Metric, c *breakerCell, s *breaker.Settings) {
	for from := range breaker.Level(levels) {
		for to := range breaker.Level(levels) {
			if n := c.changes[from][to].Load(); n > 0 || usual(from, to, s) {
				counter(ch, m.changes, n, c.name, from.String(), to.String())
			}
		}
	}
}

// usual says whether a breaker with these settings comes from one level to the other.
func usual(from, to breaker.Level, s *breaker.Settings) bool {
	rates, calls := s.QPS != breaker.QPS{}, s.Failures != breaker.Failures{}
	switch from {
	case breaker.Normal:
		return to == breaker.Degraded && rates || to == breaker.Open && calls
	case breaker.Degraded:
		return to == breaker.Normal && rates || to == breaker.Open && rates && calls
	case breaker.Open:
		return to == breaker.HalfOpen && calls
	}
	return calls && (to == breaker.Normal || to == breaker.Open || to == breaker.Degraded && rates)
}

func rate(ch chan<- prometheus.Metric, d *prometheus.Desc, n float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
}
