package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkIdleConnections measures what a keep-alive connection holds in the real binary between its requests: 9,000 clients
// ask once, twice and then nothing. The target is 8 KiB of resident memory each.
func BenchmarkIdleConnections(b *testing.B) {
	const many = 9000
	raiseDescriptors(b, many)
	s := newService(b, hello)
	p := launch(b, documentsFor(s.address(), "timeouts: {idle: 10m}"), withBinary(buildReleased(b)))
	var perConnection, before, after float64
	for b.Loop() {
		openAndAsk(b, p.listen, 100)() // what everybody shares is there
		before = settledMB(b, p.cmd.Process.Pid)
		closeAll := openAndAsk(b, p.listen, many)
		if open := p.metric("weir_client_connections"); open != many {
			b.Fatalf("%v connections are open, want %d", open, many)
		}
		after = settledMB(b, p.cmd.Process.Pid)
		perConnection = (after - before) * 1e6 / 1024 / many
		closeAll()
		until(b, "the connections are closed", func() bool { return p.metric("weir_client_connections") == 0 })
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(perConnection, "KiB/conn")
	b.ReportMetric(before, "rss-before-MB")
	b.ReportMetric(after, "rss-after-MB")
	p.stops()
}

// raiseDescriptors lets this process, and those it starts, hold n connections.
func raiseDescriptors(b *testing.B, n uint64) {
	b.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	if limit.Max < n+1000 {
		b.Fatalf("at most %d files may be open, want %d", limit.Max, n+1000)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
}

// openAndAsk opens n connections, each of which asks twice, and returns what closes them.
func openAndAsk(b *testing.B, address string, n int) (closeAll func()) {
	b.Helper()
	conns := make([]net.Conn, n)
	var workers sync.WaitGroup
	for w := range 16 {
		workers.Go(func() {
			for i := w; i < n; i += 16 {
				c, err := net.Dial("tcp", address)
				if err != nil {
					b.Error(err)
					return
				}
				conns[i] = c
				c.SetDeadline(time.Now().Add(patience))
				r := bufio.NewReaderSize(c, 512)
				for range 2 {
					io.WriteString(c, plainGet)
					resp, err := http.ReadResponse(r, nil)
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, resp.Body)
				}
			}
		})
	}
	workers.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return func() {
		for _, c := range conns {
			c.Close()
		}
	}
}
