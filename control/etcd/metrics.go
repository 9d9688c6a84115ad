package etcd

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics shows how the sources are that run. Its figures are read when they are collected.
type Metrics struct {
	connected, stale, restarts, revision, drift *prometheus.Desc

	mu      sync.Mutex
	sources map[string]shown // by name
}

// shown is a source that runs.
type shown struct {
	*Source
	since time.Time
}

// NewMetrics registers the metrics of all sources of a process.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"source"}, labels...), nil)
	}
	m := &Metrics{
		connected: desc("weir_etcd_connected", "Whether a watch of the source's prefix is open."),
		stale: desc("weir_policy_stale_seconds",
			"Time since the copy of the source was last known to be complete. A quiet watch is asked every 30 s."),
		restarts: desc("weir_etcd_watch_restarts_total", "Watches that ended, and tries to open one that failed or take long, by cause.", "cause"),
		revision: desc("weir_policy_store_revision", "Revision of the store up to which the copy of the source is complete."),
		drift:    desc("weir_policy_drift_total", "Comparisons with the store that found the copy of the source to differ."),
		sources:  make(map[string]shown),
	}
	if err := reg.Register(m); err != nil {
		return nil, fmt.Errorf("cannot register the metrics of etcd: %w", err)
	}
	return m, nil
}

// show shows a source until the returned function is called.
func (m *Metrics) show(s *Source) (hide func()) {
	if m == nil {
		return func() {}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources[s.o.Name] = shown{s, s.follower.o.Clock()}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.sources[s.o.Name].Source == s { // it may have been replaced already
			delete(m.sources, s.o.Name)
		}
	}
}

// Describe names the metrics.
func (m *Metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.connected, m.stale, m.restarts, m.revision, m.drift} {
		descs <- d
	}
}

// Collect reads the figures.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sources {
		gauge := func(d *prometheus.Desc, v float64) {
			metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.o.Name)
		}
		count := func(d *prometheus.Desc, n int, labels ...string) {
			metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), append([]string{s.o.Name}, labels...)...)
		}
		stats := s.Stats()
		gauge(m.connected, oneIf(stats.Connected))
		if stats.InStep.IsZero() {
			stats.InStep = s.since
		}
		gauge(m.stale, s.follower.o.Clock().Sub(stats.InStep).Seconds())
		gauge(m.revision, float64(stats.Revision))
		count(m.drift, stats.Drifts)
		for cause, n := range stats.Restarts {
			count(m.restarts, n, string(cause))
		}
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
