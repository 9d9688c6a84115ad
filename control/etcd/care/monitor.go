package care

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/control/etcd"
)

// Metrics are the health of the clusters that a process watches over, each by the name of its policy source.
type Metrics struct{ size, inUse, quota, alarms *prometheus.GaugeVec }

// NewMetrics registers the metrics. There are no series before a [Monitor] runs.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{"source"}, labels...))
	}
	m := &Metrics{
		size:   gauge("weir_etcd_db_size_bytes", "What the store of a member takes on disk; only from the fleet's coordinator.", "endpoint"),
		inUse:  gauge("weir_etcd_db_in_use_bytes", "How much of a member's store on disk is in use; only from the fleet's coordinator.", "endpoint"),
		quota:  gauge("weir_etcd_db_quota_bytes", "How large a store may grow, the least of all members; only from the fleet's coordinator, and with etcd 3.6 or newer."),
		alarms: gauge("weir_etcd_alarms", "How many members have raised an alarm; only from the fleet's coordinator.", "alarm"),
	}
	var errs error
	for _, c := range []prometheus.Collector{m.size, m.inUse, m.quota, m.alarms} {
		errs = errors.Join(errs, reg.Register(c))
	}
	if errs != nil {
		return nil, fmt.Errorf("cannot register the metrics of etcd's health: %w", errs)
	}
	return m, nil
}

// MonitorOptions are what a Monitor needs from outside.
type MonitorOptions struct {
	Client  *etcd.Client
	Source  string // the policy source that reads there
	Logger  zerolog.Logger
	Metrics *Metrics
	// Interval is the time between two surveys, give or take a fifth. 0 means 30 s.
	Interval time.Duration
}

// Monitor shows the health of a cluster as metrics, and logs what becomes bad and what is well again. The series are there while it
// runs, so that of a fleet only the one sidecar shows them whose turn it is.
type Monitor struct {
	o                          MonitorOptions
	log                        zerolog.Logger
	size, inUse, quota, alarms gauges
	known                      map[concern]Level // what was bad at the last survey
}

// concern identifies a finding over time.
type concern struct{ check, of string }

// NewMonitor prepares a monitor. It asks nobody before Run.
func NewMonitor(o MonitorOptions) *Monitor {
	if o.Interval == 0 {
		o.Interval = 30 * time.Second
	}
	of := func(vec *prometheus.GaugeVec) gauges { return gauges{vec, o.Source, make(map[string]bool)} }
	return &Monitor{
		o: o, log: o.Logger.With().Str("source", o.Source).Logger(), known: make(map[concern]Level),
		size: of(o.Metrics.size), inUse: of(o.Metrics.inUse), quota: of(o.Metrics.quota), alarms: of(o.Metrics.alarms),
	}
}

// Run surveys the cluster now and then until ctx is done, and takes the metrics away. It may be called again afterwards, and never
// twice at a time.
func (m *Monitor) Run(ctx context.Context) {
	defer m.clear()
	for {
		s := Ask(ctx, m.o.Client)
		if ctx.Err() != nil {
			return // an interrupted survey says nothing of the cluster
		}
		m.show(s)
		m.tell(s.Findings())
		timer := time.NewTimer(time.Duration(float64(m.o.Interval) * (0.8 + 0.4*rand.Float64())))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (m *Monitor) clear() {
	for _, g := range []gauges{m.size, m.inUse, m.quota, m.alarms} {
		g.set(nil)
	}
	clear(m.known)
}

// show sets the metrics. Of a member that does not answer there are none: old numbers would look like news.
func (m *Monitor) show(s Survey) {
	size, inUse, quota, alarms := map[string]int64{}, map[string]int64{}, map[string]int64{}, map[string]int64{}
	for _, member := range s.answering() {
		size[member.Endpoint], inUse[member.Endpoint] = member.Size, member.InUse
		if least, some := quota[""]; member.Quota > 0 && (!some || member.Quota < least) {
			quota[""] = member.Quota
		}
	}
	if s.AlarmErr == nil {
		alarms[AlarmNoSpace], alarms[AlarmCorrupt] = 0, 0
	}
	for _, a := range s.Alarms {
		alarms[a.Kind]++
	}
	m.size.set(size)
	m.inUse.set(inUse)
	m.quota.set(quota)
	m.alarms.set(alarms)
}

// gauges are the series of one metric and one source, by the value of the other label; "" where there is none.
type gauges struct {
	vec    *prometheus.GaugeVec
	source string
	shown  map[string]bool
}

// set shows these values and no others. Series that stay are never away, not even for the time of a scrape.
func (g gauges) set(values map[string]int64) {
	for label := range g.shown {
		if _, stays := values[label]; !stays {
			g.vec.DeleteLabelValues(g.labels(label)...)
			delete(g.shown, label)
		}
	}
	for label, v := range values {
		g.vec.WithLabelValues(g.labels(label)...).Set(float64(v))
		g.shown[label] = true
	}
}

func (g gauges) labels(label string) []string {
	if label == "" {
		return []string{g.source}
	}
	return []string{g.source, label}
}

// tell logs what has changed since the last survey.
func (m *Monitor) tell(findings []Finding) {
	for _, f := range findings {
		key := concern{f.Check, f.Of}
		if before, was := m.known[key]; f.Level == before && (was || f.Level == OK) {
			continue
		}
		switch m.known[key] = f.Level; f.Level {
		case OK:
			delete(m.known, key)
			m.log.Info().Str("check", f.Check).Msg("etcd is well again: " + f.Message)
		case Warning:
			m.log.Warn().Str("check", f.Check).Str("next", f.Next).Msg("etcd: " + f.Message)
		case Failure:
			m.log.Error().Str("check", f.Check).Str("next", f.Next).Msg("etcd: " + f.Message)
		}
	}
}
