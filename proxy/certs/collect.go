package certs

import (
	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the counters of the living set.
type collector struct {
	current                        func() *Set
	expiry, failures, badHandshake *prometheus.Desc
}

// NewCollector returns the metrics of TLS:
//
//	weir_tls_certificate_expiry_timestamp_seconds{use,name}   use is listener or backend
//	weir_tls_reload_failures_total{use,name}
//	weir_tls_handshake_failures_total{listener}
//
// current returns the living set; nil means that there is none yet.
func NewCollector(current func() *Set) prometheus.Collector {
	return &collector{
		current: current,
		expiry: prometheus.NewDesc("weir_tls_certificate_expiry_timestamp_seconds",
			"When the certificate in force expires, in seconds since 1970: the first to expire of its chain.",
			[]string{"use", "name"}, nil),
		failures: prometheus.NewDesc("weir_tls_reload_failures_total",
			"Looks at the TLS files that found something other than what is in force, and nothing that could be used.",
			[]string{"use", "name"}, nil),
		badHandshake: prometheus.NewDesc("weir_tls_handshake_failures_total",
			"Client connections that ended in their TLS handshake.",
			[]string{"listener"}, nil),
	}
}

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.expiry
	descs <- c.failures
	descs <- c.badHandshake
}

func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	set := c.current()
	if set == nil {
		return
	}
	for name, s := range set.servers {
		c.collect(metrics, &s.files)
		metrics <- prometheus.MustNewConstMetric(c.badHandshake, prometheus.CounterValue, float64(s.failed.Load()), name)
	}
	for _, client := range set.clients {
		c.collect(metrics, &client.files)
	}
}

func (c *collector) collect(metrics chan<- prometheus.Metric, f *follower) {
	metrics <- prometheus.MustNewConstMetric(c.failures, prometheus.CounterValue, float64(f.failures.Load()), f.use, f.name)
	if expiry := f.expiry.Load(); expiry != 0 {
		metrics <- prometheus.MustNewConstMetric(c.expiry, prometheus.GaugeValue, float64(expiry), f.use, f.name)
	}
}
