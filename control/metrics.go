package control

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/policy"
)

// metrics are what the control plane shows of itself.
type metrics struct {
	revision    prometheus.Gauge
	successful  prometheus.Gauge
	timestamp   prometheus.Gauge
	objects     *prometheus.GaugeVec
	problems    *prometheus.GaugeVec
	sources     *prometheus.GaugeVec
	held        *prometheus.GaugeVec
	applies     *prometheus.CounterVec
	storeErrors prometheus.Counter
}

// The label values of weir_policy_applies_total.
const (
	resultApplied   = "applied"
	resultUnchanged = "unchanged"
	resultFailed    = "failed"
)

// lastGoodSource is the value of the label source for the last-good file.
const lastGoodSource = "last-good"

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	gauges := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		revision:   gauge("weir_policy_revision", "Number of policy snapshots applied since the process started."),
		successful: gauge("weir_policy_last_apply_successful", "Whether the latest policy change was applied whole, with nothing in it refused or unreadable."),
		timestamp:  gauge("weir_policy_last_apply_timestamp_seconds", "Unix time at which the snapshot in force was applied."),
		objects:    gauges("weir_policy_objects", "Policy documents by state: applied in the latest version, in the last good one, or refused.", "state"),
		problems:   gauges("weir_policy_problems", "Problems found in policy documents and their sources, by severity.", "severity"),
		sources:    gauges("weir_policy_source", "Whether documents in force come from the source as it is now; last-good is the file kept from before.", "source"),
		held:       gauges("weir_policy_held_removals", "Tenants that a source has removed and that stay until the removal is confirmed.", "source"),
		applies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_policy_applies_total",
			Help: "Policy changes seen, by result: applied, unchanged in content, or failed as a whole.",
		}, []string{"result"}),
		storeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_policy_last_good_write_failures_total",
			Help: "Times the last-good file could not be written.",
		}),
	}
	for _, result := range []string{resultApplied, resultUnchanged, resultFailed} {
		m.applies.WithLabelValues(result)
	}
	var errs error
	for _, c := range []prometheus.Collector{m.revision, m.successful, m.timestamp, m.objects, m.problems, m.sources, m.held, m.applies, m.storeErrors} {
		errs = errors.Join(errs, reg.Register(c))
	}
	return m, errs
}

// show sets the gauges to a status.
func (m *metrics) show(s *Status) {
	m.revision.Set(float64(s.Revision))
	m.successful.Set(boolean(s.Whole))
	m.timestamp.Set(float64(s.AppliedAt.UnixNano()) / float64(time.Second))
	m.objects.WithLabelValues(string(Applied)).Set(float64(s.Counts.Applied))
	m.objects.WithLabelValues(string(LastGood)).Set(float64(s.Counts.LastGood))
	m.objects.WithLabelValues(string(Refused)).Set(float64(s.Counts.Refused))
	var bySeverity [policy.Warning + 1]int
	for _, p := range s.Problems {
		bySeverity[p.Severity]++
	}
	for severity, n := range bySeverity {
		m.problems.WithLabelValues(policy.Severity(severity).String()).Set(float64(n))
	}
	for _, source := range s.Sources {
		m.sources.WithLabelValues(source.Name).Set(boolean(source.Healthy))
		m.held.WithLabelValues(source.Name).Set(float64(len(source.HeldRemovals)))
	}
	m.sources.WithLabelValues(lastGoodSource).Set(boolean(s.LastGood.InUse > 0))
}

// forget drops the series of a source that has ended.
func (m *metrics) forget(source string) {
	m.sources.DeleteLabelValues(source)
	m.held.DeleteLabelValues(source)
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
