package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/proxy/wire"
)

// browserGet is what a browser asks, with its usual fields.
const browserGet = "GET /api/v1/orders/12345?expand=items&limit=20 HTTP/1.1\r\n" +
	"Host: api.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n" +
	"Accept: application/json, text/plain, */*\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Accept-Language: en-GB,en;q=0.9\r\n" +
	"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n" +
	"Cache-Control: no-cache\r\n" +
	"Connection: keep-alive\r\n" +
	"Cookie: session=0123456789abcdef; theme=dark\r\n" +
	"Referer: https://app.example.com/orders\r\n" +
	"X-Request-ID: 7b1c2f34-5d6e-4f70-8a91-b2c3d4e5f607\r\n" +
	"X-Tenant-ID: acme\r\n\r\n"

// BenchmarkGuardShare measures the CPU that the real binary spends on a request, kernel included, and what part of it is the
// guard's scan: the strictness itself, which cannot be switched off.
func BenchmarkGuardShare(b *testing.B) {
	s := newService(b, hello)
	documents := documentsFor(s.address(), `kind: TenantPolicy
metadata: {name: all}
spec: {tenants: {any: true}, limits: [{name: steady, requests: 1000000, per: 1s}]}`)
	p := launch(b, documents, withBinary(buildReleased(b)))
	askMany(b, p.listen, browserGet, 200, 2000) // warm
	var requests int
	var spent time.Duration
	for b.Loop() {
		const each = 50_000
		before := cpuTime(b, p.cmd.Process.Pid)
		askMany(b, p.listen, browserGet, 200, each)
		spent += cpuTime(b, p.cmd.Process.Pid) - before
		requests += each
	}
	perRequest := float64(spent.Nanoseconds()) / float64(requests)
	scan := float64(scanTime(b).Nanoseconds())
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(perRequest/1000, "cpu-µs/request")
	b.ReportMetric(scan, "ns/scan")
	b.ReportMetric(100*scan/perRequest, "%scan")
	p.stops()
}

// BenchmarkDenial compares a request that its tenant's limit refuses with one that it lets through, in turns: the CPU that the
// real binary spends on each, kernel and access log included, and how many are answered in a second, with client and
// backend on the same machine. Both figures are medians, and the ratios are those of the same run.
func BenchmarkDenial(b *testing.B) {
	s := newService(b, hello)
	documents := documentsFor(s.address(), `kind: TenantPolicy
metadata: {name: all}
spec: {tenants: {any: true}, limits: [{name: steady, requests: 1000000, per: 1s}]}`, `kind: TenantPolicy
metadata: {name: few}
spec: {tenants: {names: [globex]}, limits: [{name: steady, requests: 1, per: 24h}]}`)
	p := launch(b, documents, withBinary(buildReleased(b)))
	refused := strings.Replace(browserGet, "X-Tenant-ID: acme", "X-Tenant-ID: globex", 1)
	askMany(b, p.listen, refused, 200, 1)
	askMany(b, p.listen, refused, 429, 2000) // warm
	askMany(b, p.listen, browserGet, 200, 2000)
	var cpu, wall [2][]time.Duration
	for b.Loop() {
		const each = 20_000
		for i, request := range []string{browserGet, refused} {
			before, begun := cpuTime(b, p.cmd.Process.Pid), time.Now()
			askMany(b, p.listen, request, []int{200, 429}[i], each)
			wall[i] = append(wall[i], time.Since(begun)/each)
			cpu[i] = append(cpu[i], (cpuTime(b, p.cmd.Process.Pid)-before)/each)
		}
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2].Nanoseconds()) / 1000
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(cpu[0]), "cpu-µs/allowed")
	b.ReportMetric(median(cpu[1]), "cpu-µs/denied")
	b.ReportMetric(median(cpu[0])/median(cpu[1]), "×cpu")
	b.ReportMetric(median(wall[0])/median(wall[1]), "×throughput")
	p.stops()
}

// askMany sends n requests over 16 connections, each after the answer to the one before, which has to have that status.
func askMany(b *testing.B, address, request string, status, n int) {
	b.Helper()
	const connections = 16
	var left atomic.Int64
	left.Store(int64(n))
	var workers sync.WaitGroup
	for range connections {
		workers.Go(func() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for left.Add(-1) >= 0 {
				if _, err := io.WriteString(c, request); err != nil {
					b.Error(err)
					return
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != status {
					b.Errorf("got %v, %v", resp, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
			}
		})
	}
	workers.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// cpuTime is what a process has spent, in user space and in the kernel.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	const tick = 10 * time.Millisecond // of the kernel's accounting for processes, on every architecture
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick
}

// scanTime is what one scan takes when nothing else disturbs it: the best of several measurements.
func scanTime(b *testing.B) time.Duration {
	b.Helper()
	settings := wire.DefaultSettings()
	settings.Identity = []string{"X-Tenant-ID"}
	text := []byte(browserGet)
	const scans = 20_000
	best := time.Hour
	for range 20 {
		begun := time.Now()
		for range scans {
			var h wire.Head
			if n := wire.ScanRequest(&h, text, &settings); n != len(text) || h.Fault != wire.None {
				b.Fatalf("scanned %d of %d bytes, fault %v", n, len(text), h.Fault)
			}
		}
		best = min(best, time.Since(begun)/scans)
	}
	return best
}
