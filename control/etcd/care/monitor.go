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

// MonitorOptions are what a Monitor needs from outside.
type MonitorOptions struct {
	Client     *etcd.Client
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
	// Interval is the time between two surveys, give or take a fifth. 0 means 30 s.
	Interval time.Duration
}

// Monitor shows the health of a cluster as metrics, and logs what becomes bad and what is well again. The metrics are there while it
// runs, so that of a fleet only the one sidecar shows them whose turn it is.
type Monitor struct {
	o                        MonitorOptions
	size, inUse, quota, over *gauges
	known                    map[concern]Level // what was bad at the last survey
}

// concern identifies a finding over time.
type concern struct{ check, of string }

// NewMonitor registers the metrics; it asks nobody before Run.
func NewMonitor(o MonitorOptions) (*Monitor, error) {
	if o.Interval == 0 {
		o.Interval = 30 * time.Second
	}
	gauge := func(name, help string, labels ...string) *gauges {
		return &gauges{prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels), len(labels) > 0, make(map[string]bool)}
	}
	m := &Monitor{
		o:     o,
		size:  gauge("weir_etcd_db_size_bytes", "What the store of a member takes on disk; only from the fleet's coordinator.", "endpoint"),
		inUse: gauge("weir_etcd_db_in_use_bytes", "How much of a member's store on disk is in use; only from the fleet's coordinator.", "endpoint"),
		quota: gauge("weir_etcd_db_quota_bytes", "How large a store may grow, the least of all members; only from the fleet's coordinator, and with etcd 3.6 or newer."),
		over:  gauge("weir_etcd_alarms", "How many members have raised an alarm; only from the fleet's coordinator.", "alarm"),
		known: make(map[concern]Level),
	}
	var errs error
	for _, g := range []*gauges{m.size, m.inUse, m.quota, m.over} {
		errs = errors.Join(errs, o.Registerer.Register(g))
	}
	if errs != nil {
		return nil, fmt.Errorf("cannot register the metrics of etcd's health: %w", errs)
	}
	return m, nil
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
	for _, g := range []*gauges{m.size, m.inUse, m.quota, m.over} {
		g.set(nil)
	}
	clear(m.known)
}

// show sets the metrics. Of a member that does not answer there are none: old numbers would look like news.
func (m *Monitor) show(s Survey) {
	size, inUse, quota, over := map[string]int64{}, map[string]int64{}, map[string]int64{}, map[string]int64{}
	for _, member := range s.answering() {
		size[member.Endpoint], inUse[member.Endpoint] = member.Size, member.InUse
		if least, some := quota[""]; member.Quota > 0 && (!some || member.Quota < least) {
			quota[""] = member.Quota
		}
	}
	if s.AlarmErr == nil {
		over[AlarmNoSpace], over[AlarmCorrupt] = 0, 0
	}
	for _, a := range s.Alarms {
		over[a.Kind]++
	}
	m.size.set(size)
	m.inUse.set(inUse)
	m.quota.set(quota)
	m.over.set(over)
}

// gauges are the series of one metric by the value of its label. A metric without a label has the one value "".
type gauges struct {
	*prometheus.GaugeVec
	labelled bool
	shown    map[string]bool
}

// set shows these values and no others. Series that stay are never away, not even for the time of a scrape.
func (g *gauges) set(values map[string]int64) {
	for label := range g.shown {
		if _, stays := values[label]; !stays {
			g.DeleteLabelValues(g.labels(label)...)
			delete(g.shown, label)
		}
	}
	for label, v := range values {
		g.WithLabelValues(g.labels(label)...).Set(float64(v))
		g.shown[label] = true
	}
}

func (g *gauges) labels(label string) []string {
	if g.labelled {
		return []string{label}
	}
	return nil
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
			m.o.Logger.Info().Str("check", f.Check).Msg("etcd is well again: " + f.Message)
		case Warning:
			m.o.Logger.Warn().Str("check", f.Check).Str("next", f.Next).Msg("etcd: " + f.Message)
		case Failure:
			m.o.Logger.Error().Str("check", f.Check).Str("next", f.Next).Msg("etcd: " + f.Message)
		}
	}
}
