package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// secondOf is one tenant's line in the live table.
type secondOf struct {
	tenant string
	counts counts
}

// liveView shows what happens, once a second.
type liveView struct {
	out      io.Writer
	paint    painter
	terminal bool // redraw in place; otherwise a plain line for each tenant
	drawn    int  // lines to go back before drawing again
}

// show draws the second that ended `elapsed` after the start.
func (v *liveView) show(elapsed time.Duration, rows []secondOf) {
	if !v.terminal {
		io.WriteString(v.out, plainLines(elapsed, rows))
		return
	}
	table := liveTable(elapsed, rows, v.paint)
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn)
	}
	for _, line := range table {
		b.WriteString("\x1b[2K" + line + "\n")
	}
	v.drawn = len(table)
	io.WriteString(v.out, b.String())
}

// liveTable lays out one second as lines.
func liveTable(elapsed time.Duration, rows []secondOf, paint painter) []string {
	head := fmt.Sprintf("%-12s %10s %11s %10s %9s %9s", seconds(elapsed), "offered/s", "admitted/s", "limited/s", "p50", "p99")
	lines := []string{paint.bold(head)}
	for _, r := range rows {
		line := fmt.Sprintf("%-12s %10d %11d %10d %9s %9s", r.tenant, r.counts.offered(), r.counts.outcomes[admitted],
			r.counts.outcomes[limited], r.counts.latencyText(50), r.counts.latencyText(99))
		switch {
		case r.counts.outcomes[failed] > 0:
			line = paint.red(fmt.Sprintf("%s  %d failed", line, r.counts.outcomes[failed]))
		case r.counts.outcomes[limited] > 0:
			line = paint.yellow(line)
		}
		lines = append(lines, line)
	}
	return lines
}

// plainLines lays out one second as lines that stand alone, for logs and pipes.
func plainLines(elapsed time.Duration, rows []secondOf) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "t=%s tenant=%s offered=%d admitted=%d limited=%d failed=%d p50=%s p99=%s\n",
			seconds(elapsed), r.tenant, r.counts.offered(), r.counts.outcomes[admitted], r.counts.outcomes[limited],
			r.counts.outcomes[failed], r.counts.latencyText(50), r.counts.latencyText(99))
	}
	return b.String()
}

// summaryTable lays out the whole run.
func summaryTable(took time.Duration, tenants []tenantTotal, paint painter) string {
	var b strings.Builder
	head := fmt.Sprintf("%-12s %10s %10s %10s %8s %9s %9s", "in "+seconds(took), "offered", "admitted", "limited", "failed", "p50", "p99")
	b.WriteString(paint.bold(head) + "\n")
	for _, t := range tenants {
		fmt.Fprintf(&b, "%-12s %10d %10d %10d %8d %7.1fms %7.1fms\n",
			t.Tenant, t.Offered, t.Admitted, t.Limited, t.Failed, t.P50Millis, t.P99Millis)
	}
	return b.String()
}

func seconds(d time.Duration) string { return d.Round(time.Second / 10).String() }

// latencyText is a quantile for people; there is none without admitted requests.
func (c *counts) latencyText(percent float64) string {
	if c.outcomes[admitted] == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fms", float64(c.quantile(percent).Microseconds())/1000)
}
