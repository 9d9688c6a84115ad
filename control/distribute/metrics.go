package distribute

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a distribution shows of itself.
type metrics struct {
	lag    *prometheus.HistogramVec
	drift  *prometheus.CounterVec
	writes *prometheus.CounterVec
	behind *prometheus.Desc
	inStep *prometheus.Desc
	status func() []clusterFigures // of the clusters, for the gauges
}

// clusterFigures are what the gauges of a cluster show.
type clusterFigures struct {
	name   string
	behind float64
	inStep bool
}

// The label values of weir_sync_writes_total.
const (
	writeCommitted = "committed"
	writeConflict  = "conflict"
	writeFailed    = "failed"
)

func newMetrics(reg prometheus.Registerer, status func() []clusterFigures) (*metrics, error) {
	m := &metrics{
		lag: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weir_sync_lag_seconds", Help: "From when a change was seen at the source until it was written at the cluster.",
			Buckets:                     []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2.5, 5, 10, 30, 60, 300},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 64,
		}, []string{"cluster"}),
		drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_sync_drift_total", Help: "Documents that others changed, deleted or added at the cluster.",
		}, []string{"cluster", "drift"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_sync_writes_total", Help: "Transactions at the cluster, by result: committed, conflict or failed.",
		}, []string{"cluster", "result"}),
		behind: prometheus.NewDesc("weir_sync_behind_seconds", "For how long a change at the source has been waiting to be written at the cluster.", []string{"cluster"}, nil),
		inStep: prometheus.NewDesc("weir_sync_in_step", "Whether the cluster has what it should have.", []string{"cluster"}, nil),
		status: status,
	}
	var errs error
	for _, c := range []prometheus.Collector{m.lag, m.drift, m.writes, m} {
		errs = errors.Join(errs, reg.Register(c))
	}
	return m, errs
}

// clusterMetrics are the handles of one cluster.
type clusterMetrics struct {
	lag    prometheus.Observer
	drift  map[Cause]prometheus.Counter
	writes map[string]prometheus.Counter
}

func (m *metrics) cluster(name string) clusterMetrics {
	c := clusterMetrics{lag: m.lag.WithLabelValues(name), drift: make(map[Cause]prometheus.Counter), writes: make(map[string]prometheus.Counter)}
	for _, cause := range []Cause{Changed, Missing, Extra} {
		c.drift[cause] = m.drift.WithLabelValues(name, string(cause))
	}
	for _, result := range []string{writeCommitted, writeConflict, writeFailed} {
		c.writes[result] = m.writes.WithLabelValues(name, result)
	}
	return c
}

// Describe is of [prometheus.Collector].
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.behind
	ch <- m.inStep
}

// Collect is of [prometheus.Collector].
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, f := range m.status() {
		in := 0.0
		if f.inStep {
			in = 1
		}
		ch <- prometheus.MustNewConstMetric(m.behind, prometheus.GaugeValue, f.behind, f.name)
		ch <- prometheus.MustNewConstMetric(m.inStep, prometheus.GaugeValue, in, f.name)
	}
}
