package main

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkDrippers measures good traffic alone and beside 2,000 dripping clients: the slowest of a hundred good requests may
// take twice its normal time at most.
func BenchmarkDrippers(b *testing.B) {
	const many, perSecond, during = 2000, 500, 10 * time.Second
	s := newService(b, helloOrLong)
	documents := strings.Replace(documentsFor(s.address(), "accessLog: {successSample: 0}"),
		"spec: {endpoints", "spec: {pool: {maxConnections: 4000}, endpoints", 1)
	p := launch(b, documents, withBinary(buildReleased(b)))
	paced(b, p.listen, perSecond, time.Second) // warm
	var normal, beside []time.Duration
	for b.Loop() {
		normal = append(normal, paced(b, p.listen, perSecond, during)...)
		drips := exec.Command("drippers", p.listen, strconv.Itoa(many)) // a process of its own: it must not disturb our clock
		if err := drips.Start(); err != nil {
			b.Fatal(err)
		}
		until(b, "every dripper is connected", func() bool { return p.metric("weir_client_connections") >= many })
		paced(b, p.listen, perSecond, 4*time.Second) // meanwhile the kernel's buffers fill up for those that read slowly
		beside = append(beside, paced(b, p.listen, perSecond, during)...)
		if err := drips.Process.Kill(); err != nil {
			b.Fatal(err)
		}
		_ = drips.Wait()
		until(b, "the drippers are gone", func() bool { return p.metric("weir_upstream_connections", `state="active"`) == 0 })
	}
	slices.Sort(normal)
	slices.Sort(beside)
	p99 := func(took []time.Duration) float64 { return float64(took[len(took)*99/100].Microseconds()) / 1000 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(p99(normal), "p99-normal-ms")
	b.ReportMetric(p99(beside), "p99-beside-ms")
	b.ReportMetric(p99(beside)/p99(normal), "ratio")
	b.ReportMetric(float64(normal[len(normal)/2].Microseconds())/1000, "p50-normal-ms")
	b.ReportMetric(float64(beside[len(beside)/2].Microseconds())/1000, "p50-beside-ms")
	p.stops()
}
