package proxy

import (
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/admit/token"
	"weir/policy"
	"weir/proxy/wire"
)

// metrics are what the proxy counts besides the cells of admit and upstream, which have collectors of their own.
type metrics struct {
	duration       *prometheus.HistogramVec
	overhead       prometheus.Histogram
	queued         [queueCount]prometheus.Observer
	fallbacks      [fallbackCount]prometheus.Counter
	rejected       [wire.CauseCount]prometheus.Counter
	tokens         [token.FaultCount]prometheus.Counter
	panics         prometheus.Counter
	acceptFailures prometheus.Counter
	ends           [culpritCount][phaseCount]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, log *AccessLog, stale *staleStore, connections func() float64) (*metrics, error) {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "weir_request_duration_seconds",
			Help:                            "Time from a request's first byte to the end of its answer, by route.",
			Buckets:                         []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"route"}),
		overhead: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                            "weir_overhead_seconds",
			Help:                            "Time the sidecar itself adds to a forwarded request, without the wait for the backend.",
			Buckets:                         []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .1},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_panics_recovered_total",
			Help: "Defects of the sidecar that were recovered and answered with 500.",
		}),
		acceptFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_accept_failures_total",
			Help: "Times no connection could be accepted for want of file descriptors or memory.",
		}),
	}
	queued := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:                            "weir_queue_seconds",
		Help:                            "Time that requests waited for their tenant's gate or for a backend, of those that waited.",
		Buckets:                         []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"queue"})
	for q := range m.queued {
		m.queued[q] = queued.WithLabelValues(queue(q).String())
	}
	fallbacks := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "weir_fallbacks_total",
		Help: "Requests that a breaker turned away and that got an answer all the same: the last good one, or the route's own.",
	}, []string{"answer"})
	for f := staleFallback; f < fallbackCount; f++ {
		m.fallbacks[f] = fallbacks.WithLabelValues(f.String())
	}
	rejected := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "weir_wire_rejected_total",
		Help: "Requests refused because they break HTTP/1.1 or the bounds, by the rule they break.",
	}, []string{"cause"})
	for c := range m.rejected {
		if c > 0 {
			m.rejected[c] = rejected.WithLabelValues(wire.Cause(c).String())
		}
	}
	tokens := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "weir_tokens_rejected_total",
		Help: "Requests refused because the token that was to say who they are from is not valid, by what is wrong with it.",
	}, []string{"cause"})
	for f := range m.tokens {
		if f > 0 {
			m.tokens[f] = tokens.WithLabelValues(token.Fault(f).String())
		}
	}
	ends := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "weir_request_ends_total",
		Help: "Requests that ended without the whole answer of a backend, by who ended them and in which phase.",
	}, []string{"by", "phase"})
	for by := range m.ends {
		for in := range m.ends[by] {
			m.ends[by][in] = ends.WithLabelValues(culprit(by).String(), phase(in).String())
		}
	}
	dropped := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "weir_log_dropped_total",
		Help: "Access log lines lost because the output did not take them in time.",
	}, func() float64 { return float64(log.Dropped()) })
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_client_connections",
		Help: "Client connections that are open.",
	}, connections)
	answers := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_stale_answers",
		Help: "Answers of backends that are kept for fallbacks.",
	}, func() float64 { n, _ := stale.held(); return float64(n) })
	memory := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_stale_bytes",
		Help: "Memory of the answers that are kept for fallbacks.",
	}, func() float64 { _, n := stale.held(); return float64(n) })
	var errs error
	for _, c := range []prometheus.Collector{m.duration, m.overhead, queued, m.panics, m.acceptFailures, rejected, tokens, fallbacks, ends, dropped, open, answers, memory} {
		errs = errors.Join(errs, reg.Register(c))
	}
	return m, errs
}

// routes resolves the handles of a snapshot's routes, so that no request looks one up.
func (m *metrics) routes(routes []policy.Route) []prometheus.Observer {
	handles := make([]prometheus.Observer, len(routes))
	for i := range routes {
		handles[i] = m.duration.WithLabelValues(routes[i].Name)
	}
	return handles
}

// retire drops the series of routes that are gone.
func (m *metrics) retire(before, now []policy.Route) {
	for i := range before {
		gone := func(r policy.Route) bool { return r.Name == before[i].Name }
		if !slices.ContainsFunc(now, gone) {
			m.duration.DeleteLabelValues(before[i].Name)
		}
	}
}
