package upstream

import "github.com/prometheus/client_golang/prometheus"

// collector reads the counters of the living set.
type collector struct {
	current                      func() *Set
	connections, dials, requests *prometheus.Desc
}

// NewCollector returns the metrics of backends:
//
//	weir_upstream_connections{backend,state}     state is idle or active; one being dialled is active
//	weir_upstream_dials_total{backend}
//	weir_upstream_requests_total{backend,code}   code is 1xx to 5xx, or the Cause of a failure
//
// current returns the living set; nil means that there is none yet. Series of a backend end with it.
func NewCollector(current func() *Set) prometheus.Collector {
	return &collector{
		current: current,
		connections: prometheus.NewDesc("weir_upstream_connections",
			"Connections to the endpoints of a backend: idle ones wait in the pool, active ones are being dialled or serve a request.",
			[]string{"backend", "state"}, nil),
		dials: prometheus.NewDesc("weir_upstream_dials_total",
			"Attempts to connect to an endpoint of a backend, failed ones included.",
			[]string{"backend"}, nil),
		requests: prometheus.NewDesc("weir_upstream_requests_total",
			"Requests to a backend by how they ended: the class of the status of an answer that was read whole, or the cause of the failure.",
			[]string{"backend", "code"}, nil),
	}
}

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.connections
	descs <- c.dials
	descs <- c.requests
}

func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	set := c.current()
	if set == nil {
		return
	}
	for _, b := range set.backends {
		name, s := b.settings.Name, b.stats
		idle := s.idle.Load()
		active := max(s.live.Load()-idle, 0) // the two are read one after the other
		metrics <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(idle), name, "idle")
		metrics <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(active), name, "active")
		metrics <- prometheus.MustNewConstMetric(c.dials, prometheus.CounterValue, float64(s.dials.Load()), name)
		for i := range s.ended {
			if code := endedCode(i); code != "" {
				metrics <- prometheus.MustNewConstMetric(c.requests, prometheus.CounterValue, float64(s.ended[i].Load()), name, code)
			}
		}
	}
}

// endedCode is the label of an index of stats.ended; empty for the one that is never counted.
func endedCode(i int) string {
	switch {
	case i < classCount:
		return string(rune('1'+i)) + "xx"
	case Cause(i-classCount) == NoCause:
		return ""
	}
	return Cause(i - classCount).String()
}
