package main

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// outcome is what became of one request, seen by its client.
type outcome uint8

const (
	admitted outcome = iota
	limited
	failed
	outcomeCount
)

// counts is what became of the requests of one tenant in some stretch of time.
type counts struct {
	outcomes [outcomeCount]int64
	latency  *hdrhistogram.Histogram // microseconds, of admitted requests, from when they were due
}

func newCounts() counts {
	return counts{latency: hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)}
}

func (c *counts) offered() int64 {
	return c.outcomes[admitted] + c.outcomes[limited] + c.outcomes[failed]
}

// quantile returns the latency that so many percent of the admitted requests stayed within.
func (c *counts) quantile(percent float64) time.Duration {
	return time.Duration(c.latency.ValueAtQuantile(percent)) * time.Microsecond
}

// meter counts one tenant's requests, for the second that is under way and for the whole run. Safe for concurrent use.
type meter struct {
	mu          sync.Mutex
	now, before counts
}

func newMeter() *meter { return &meter{now: newCounts(), before: newCounts()} }

func (m *meter) record(o outcome, latency time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.outcomes[o]++
	if o == admitted {
		// Longer than a minute cannot be recorded and cannot happen: requests time out long before.
		_ = m.now.latency.RecordValue(max(1, latency.Microseconds()))
	}
}

// cut returns what was counted since the last cut.
func (m *meter) cut() counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.now
	m.now = newCounts()
	m.before.add(c)
	return c
}

// total returns what was counted since the start.
func (m *meter) total() counts {
	m.cut()
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := newCounts()
	sum.add(m.before)
	return sum
}

func (c *counts) add(other counts) {
	for i, n := range other.outcomes {
		c.outcomes[i] += n
	}
	c.latency.Merge(other.latency)
}

// allowance is what a tenant's limit lets through: a burst at once, and a rate for as long as it lasts.
type allowance struct {
	perSecond float64
	burst     int64
}

// within is the most that can be let through in so much time.
func (a allowance) within(d time.Duration) int64 {
	return a.burst + int64(math.Ceil(a.perSecond*d.Seconds()))
}

// tenantTotal is one tenant's line in the summary.
type tenantTotal struct {
	Tenant         string  `json:"tenant"`
	LimitPerSecond float64 `json:"limitPerSecond"`
	Burst          int64   `json:"burst"`
	Offered        int64   `json:"offered"`
	Admitted       int64   `json:"admitted"`
	Limited        int64   `json:"limited"`
	Failed         int64   `json:"failed"`
	P50Millis      float64 `json:"p50Millis"`
	P99Millis      float64 `json:"p99Millis"`
}

func newTenantTotal(tenant string, a allowance, c counts) tenantTotal {
	return tenantTotal{
		Tenant:         tenant,
		LimitPerSecond: a.perSecond,
		Burst:          a.burst,
		Offered:        c.offered(),
		Admitted:       c.outcomes[admitted],
		Limited:        c.outcomes[limited],
		Failed:         c.outcomes[failed],
		P50Millis:      float64(c.quantile(50).Microseconds()) / 1000,
		P99Millis:      float64(c.quantile(99).Microseconds()) / 1000,
	}
}

// claim is what the demo says it has shown.
type claim struct {
	Shown  bool   // the run was long enough to show anything
	Holds  bool   // and it showed what it should
	Reason string // in words
}

// judge says whether tenants that asked for more than their limit were held to it, and whether all others got everything
// they asked for, over a run that took so long.
func judge(took time.Duration, tenants []tenantTotal) claim {
	var said, broken []string
	var modest []string
	for _, t := range tenants {
		allowed := allowance{perSecond: t.LimitPerSecond, burst: t.Burst}.within(took)
		switch {
		case t.Offered <= allowed && t.Limited == 0 && t.Failed == 0:
			modest = append(modest, t.Tenant)
		case t.Offered <= allowed:
			broken = append(broken, fmt.Sprintf("%s stayed within its limit, but %d of its %d requests were refused and %d failed",
				t.Tenant, t.Limited, t.Offered, t.Failed))
		case t.Admitted > allowed:
			broken = append(broken, fmt.Sprintf("%s was not held: %d of its requests were admitted where its limit allows %d",
				t.Tenant, t.Admitted, allowed))
		case t.Admitted < allowed/2:
			broken = append(broken, fmt.Sprintf("%s got less than its limit gives it: %d of its requests were admitted where %d may pass",
				t.Tenant, t.Admitted, allowed))
		default:
			said = append(said, fmt.Sprintf("%s asked for %s and was held to %s (its limit is %s and a burst of %d)",
				t.Tenant, rate(t.Offered, took), rate(t.Admitted, took), perSecond(t.LimitPerSecond), t.Burst))
		}
	}
	if len(broken) > 0 {
		return claim{Shown: true, Reason: strings.Join(broken, "; ") + "."}
	}
	if len(said) == 0 {
		return claim{Reason: "The run was too short to show anything: nobody asked for more than their limit."}
	}
	if len(modest) > 0 {
		said = append(said, strings.Join(modest, " and ")+" stayed within theirs and every request of theirs was answered")
	}
	return claim{Shown: true, Holds: true, Reason: strings.Join(said, "; ") + "."}
}

func rate(n int64, d time.Duration) string { return perSecond(float64(n) / d.Seconds()) }

func perSecond(f float64) string { return fmt.Sprintf("%.0f/s", f) }
