package admit

import (
	"github.com/prometheus/client_golang/prometheus"

	"weir/policy"
)

// collector reads the counters of the live table when it is scraped. The requests themselves never touch a metric.
type collector struct {
	table                                                          func() *Table
	requests, decisions, shadow, bytes, available, flight, waiting *prometheus.Desc
	capacity, backendFlight, queue, dropped                        *prometheus.Desc
	breakers                                                       breakerMetrics
}

// NewCollector returns a collector of the cells of the live table, which may be nil. Series of tenants, limits and routes that the
// table does not have any more are gone with it.
//
//	weir_requests_total{tenant,route,code,reason}                every request; code is the class, as in 2xx
//	weir_limit_decisions_total{tenant,policy,limit,decision}     allow, deny and shadow_deny; of limits in bytes delay and shadow_delay
//	weir_shadow_verdicts_total{tenant,enforced,shadow}           pass or deny, of tenants with limits in shadow
//	weir_limit_bytes_total{tenant,policy,limit}                  of bodies that passed limits in bytes
//	weir_limit_available{tenant,limit}                           of named tenants and enforced limits only
//	weir_inflight{tenant}
//	weir_waiting{tenant}                                         for their gate or for a backend; the latter are in flight as well
//	weir_backend_capacity{backend}                               of backends that have one, as it is now
//	weir_backend_inflight{backend}
//	weir_queue_length{backend}                                   requests that wait for a backend
//	weir_queue_dropped_total{backend,cause}                      full, timeout and gone
//	weir_breaker_level{breaker}                                  0 normal, 1 degraded, 2 open; with perTenant the worst
//	weir_breaker_transitions_total{breaker,from,to}
//	weir_breaker_qps{breaker}                                    and of the same kind _qps_passed and _qps_baseline
//	weir_breaker_qps_corridor{breaker,bound}                     low and high
//
// Named tenants have a label of their own, up to Options.MetricTenants of them; all others are summed under `__other__`.
// `__none__` stands for what a request did not get: a tenant, a route, a status.
func NewCollector(table func() *Table) prometheus.Collector {
	return &collector{
		table:    table,
		breakers: newBreakerMetrics(),
		requests: prometheus.NewDesc("weir_requests_total",
			"Requests that have ended, by tenant, route, class of the status and reason.", []string{"tenant", "route", "code", "reason"}, nil),
		decisions: prometheus.NewDesc("weir_limit_decisions_total",
			"What each limit said of requests; shadow_deny and shadow_delay are what it would have denied and delayed in mode Shadow.", []string{"tenant", "policy", "limit", "decision"}, nil),
		shadow: prometheus.NewDesc("weir_shadow_verdicts_total",
			"Requests of tenants with limits in shadow, by what was enforced and what would be with those in the place of the enforced ones of their names.",
			[]string{"tenant", "enforced", "shadow"}, nil),
		bytes: prometheus.NewDesc("weir_limit_bytes_total",
			"Bytes of bodies, in both directions, that passed a limit in bytes.", []string{"tenant", "policy", "limit"}, nil),
		available: prometheus.NewDesc("weir_limit_available",
			"Whole tokens, requests or bytes, left in a tenant's bucket of an enforced limit, of several for routes in the emptiest.", []string{"tenant", "limit"}, nil),
		flight: prometheus.NewDesc("weir_inflight",
			"Requests of a tenant that were let through and have not ended.", []string{"tenant"}, nil),
		waiting: prometheus.NewDesc("weir_waiting",
			"Requests of a tenant that wait, for the tenant's own gate or for a backend.", []string{"tenant"}, nil),
		capacity: prometheus.NewDesc("weir_backend_capacity",
			"The most requests that a backend is given at once, as it is now.", []string{"backend"}, nil),
		backendFlight: prometheus.NewDesc("weir_backend_inflight",
			"Requests that a backend has been given and that have not ended.", []string{"backend"}, nil),
		queue: prometheus.NewDesc("weir_queue_length",
			"Requests that wait for a backend.", []string{"backend"}, nil),
		dropped: prometheus.NewDesc("weir_queue_dropped_total",
			"Requests that a full backend did not get: no room to wait, waited for too long, or gone while they waited.", []string{"backend", "cause"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.requests
	ch <- c.decisions
	ch <- c.shadow
	ch <- c.bytes
	ch <- c.available
	ch <- c.flight
	ch <- c.waiting
	ch <- c.capacity
	ch <- c.backendFlight
	ch <- c.queue
	ch <- c.dropped
	c.breakers.describe(ch)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	t := c.table()
	if t == nil {
		return
	}
	for _, own := range t.labelled() {
		c.collectRequests(ch, t, own.label, own.requests)
	}
	c.collectRequests(ch, t, otherLabel, t.others)
	for _, tn := range t.named {
		if tn.own == nil {
			continue
		}
		for i, l := range tn.plan.limits {
			c.collectDecisions(ch, tn.own.label, l.Limit, tn.own.decisions[i])
		}
		if tn.plan.tries {
			c.collectShadow(ch, tn.own.label, tn.own.requests)
		}
	}
	tries := false
	for _, l := range t.limits {
		c.collectDecisions(ch, otherLabel, l, l.others)
		tries = tries || l.rule.Shadow
	}
	if tries {
		c.collectShadow(ch, otherLabel, t.others)
	}
	c.collectAvailable(ch, t)
	c.collectInFlight(ch, t)
	c.collectBackends(ch, t)
	c.breakers.collect(ch, t)
}

func (c *collector) collectRequests(ch chan<- prometheus.Metric, t *Table, tenant string, r *requests) {
	routes := r.routes.Load()
	if routes == nil {
		return
	}
	for route, byReason := range *routes {
		if !t.routeNames[route] {
			continue
		}
		if route == "" {
			route = noneLabel
		}
		for reason := range byReason {
			byClass := byReason[reason].Load()
			if byClass == nil {
				continue
			}
			for class := range byClass {
				if n := byClass[class].Load(); n > 0 {
					counter(ch, c.requests, n, tenant, route, className(class), Reason(reason).String())
				}
			}
		}
	}
}

func className(class int) string {
	return [classes]string{noneLabel, "1xx", "2xx", "3xx", "4xx", "5xx"}[class]
}

// collectDecisions leaves out what was never said under `__other__`, where most limits say nothing.
func (c *collector) collectDecisions(ch chan<- prometheus.Metric, tenant string, l *Limit, d *decisions) {
	emit := func(decision string, n uint64, usual bool) {
		if n > 0 || usual && tenant != otherLabel {
			counter(ch, c.decisions, n, tenant, l.rule.Policy, l.rule.Name, decision)
		}
	}
	emit("allow", d.allow.Load(), true)
	if l.rule.Unit == policy.UnitRequests {
		emit("deny", d.deny.Load(), !l.rule.Shadow)
		emit("shadow_deny", d.shadowDeny.Load(), l.rule.Shadow)
		return
	}
	emit("delay", d.delay.Load(), !l.rule.Shadow)
	emit("shadow_delay", d.shadowDelay.Load(), l.rule.Shadow)
	if n := d.bytes.Load(); n > 0 || tenant != otherLabel {
		counter(ch, c.bytes, n, tenant, l.rule.Policy, l.rule.Name)
	}
}

// collectShadow leaves out what never happened under `__other__`.
func (c *collector) collectShadow(ch chan<- prometheus.Metric, tenant string, r *requests) {
	words := [2]string{"pass", "deny"}
	for refused := range r.shadow {
		for wouldBe := range r.shadow[refused] {
			if n := r.shadow[refused][wouldBe].Load(); n > 0 || tenant != otherLabel {
				counter(ch, c.shadow, n, tenant, words[refused], words[wouldBe])
			}
		}
	}
}

func (c *collector) collectAvailable(ch chan<- prometheus.Metric, t *Table) {
	if t.options.Clock == nil {
		return
	}
	now := t.options.Clock()
	for _, tn := range t.named {
		if tn.own == nil {
			continue
		}
		for _, s := range t.states(tn, now).Limits {
			if s.Shadow {
				continue // an enforced one may have the same name
			}
			gauge(ch, c.available, s.Available, tn.own.label, s.Name)
		}
	}
}

func (c *collector) collectInFlight(ch chan<- prometheus.Metric, t *Table) {
	others, waiting := int64(0), int64(0)
	other := func(tn *Tenant) {
		others += tn.seat.gate.InFlight()
		waiting += int64(tn.seat.waiting.Load())
	}
	for _, b := range t.backends {
		waiting += int64(b.waiting.Load()) // less those of labels of their own
	}
	for _, tn := range t.named {
		if tn.own == nil {
			other(tn)
			continue
		}
		gauge(ch, c.flight, tn.seat.gate.InFlight(), tn.own.label)
		own := t.waitingOf(tn)
		gauge(ch, c.waiting, own, tn.own.label)
		waiting -= own - int64(tn.seat.waiting.Load())
	}
	if t.unknown != nil {
		other(t.unknown)
	}
	if t.demand != nil {
		t.demand.each(t, other)
	}
	gauge(ch, c.flight, others, otherLabel)
	gauge(ch, c.waiting, max(waiting, 0), otherLabel)
}

// collectBackends leaves out what a backend without a capacity never has.
func (c *collector) collectBackends(ch chan<- prometheus.Metric, t *Table) {
	for _, b := range t.backends {
		gauge(ch, c.backendFlight, b.gate.InFlight(), b.name)
		terms := b.terms.Load()
		if !terms.bounded() {
			continue
		}
		gauge(ch, c.capacity, terms.limit(), b.name)
		gauge(ch, c.queue, int64(b.waiting.Load()), b.name)
		for cause := range dropCount {
			counter(ch, c.dropped, b.dropped[cause].Load(), b.name, cause.String())
		}
	}
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, n uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, n int64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
}
