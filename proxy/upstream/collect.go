package upstream

import "github.com/prometheus/client_golang/prometheus"

// collector reads the counters of the living set.
type collector struct {
	current                      func() *Set
	connections, dials, requests *prometheus.Desc
	healthy, ejections           *prometheus.Desc
	retries, dnsFailures         *prometheus.Desc
}

// NewCollector returns the metrics of backends:
//
//	weir_upstream_connections{backend,state}     state is idle or active; one being dialled is active
//	weir_upstream_dials_total{backend}
//	weir_upstream_requests_total{backend,code}   code is 1xx to 5xx, or the Cause of a failure
//	weir_upstream_endpoint_healthy{backend,endpoint}   1, or 0 while checks or failed requests have it out
//	weir_upstream_ejections_total{backend}
//	weir_upstream_retries_total{backend}
//	weir_upstream_dns_failures_total{backend}    only of backends with a name
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
		healthy: prometheus.NewDesc("weir_upstream_endpoint_healthy",
			"Whether an endpoint is in the choice: 0 while health checks fail or failed requests have it ejected.",
			[]string{"backend", "endpoint"}, nil),
		ejections: prometheus.NewDesc("weir_upstream_ejections_total",
			"Times an endpoint of a backend was ejected since requests to it failed in a row.",
			[]string{"backend"}, nil),
		retries: prometheus.NewDesc("weir_upstream_retries_total",
			"Requests that were sent to a backend again after a try that failed.",
			[]string{"backend"}, nil),
		dnsFailures: prometheus.NewDesc("weir_upstream_dns_failures_total",
			"Look-ups of a backend's name that failed or found no address.",
			[]string{"backend"}, nil),
	}
}

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.dials, c.requests, c.healthy, c.ejections, c.retries, c.dnsFailures} {
		descs <- d
	}
}

func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	set := c.current()
	if set == nil {
		return
	}
	for _, b := range set.backends {
		name, s := b.settings.Name, b.stats
		live, idle := b.lanes.counts()
		idle += s.idle.Load()
		active := max(live+s.live.Load()-idle, 0) // the two are read one after the other
		metrics <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(idle), name, "idle")
		metrics <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(active), name, "active")
		metrics <- prometheus.MustNewConstMetric(c.dials, prometheus.CounterValue, float64(s.dials.Load()), name)
		for i := range s.ended {
			if code := endedCode(i); code != "" {
				metrics <- prometheus.MustNewConstMetric(c.requests, prometheus.CounterValue, float64(s.ended[i].Load()), name, code)
			}
		}
		metrics <- prometheus.MustNewConstMetric(c.ejections, prometheus.CounterValue, float64(s.ejections.Load()), name)
		again := s.retries.spent.Load() + s.retries.replayed.Load()
		metrics <- prometheus.MustNewConstMetric(c.retries, prometheus.CounterValue, float64(again), name)
		if b.names != nil {
			metrics <- prometheus.MustNewConstMetric(c.dnsFailures, prometheus.CounterValue, float64(s.dnsFailures.Load()), name)
		}
		r := b.roster.Load()
		for i := range r.all {
			healthy := 1.0
			if r.all[i].vitals.isOut() {
				healthy = 0
			}
			metrics <- prometheus.MustNewConstMetric(c.healthy, prometheus.GaugeValue, healthy, name, r.all[i].address)
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
