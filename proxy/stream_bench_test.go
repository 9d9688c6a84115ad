package proxy

import (
	"flag"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

var big = flag.Int("big", 1, "the GiB of one body in BenchmarkBigBody")

// BenchmarkBigBody moves one body, and fails when that needs memory by its size: make big does it with 10 GiB.
func BenchmarkBigBody(b *testing.B) {
	for _, up := range []bool{true, false} {
		for _, chunked := range []bool{false, true} {
			name := "download/" + framingName(chunked)
			if up {
				name = "upload/" + framingName(chunked)
			}
			b.Run(name, func(b *testing.B) { bigBody(b, up, chunked) })
		}
	}
}

func bigBody(b *testing.B, up, chunked bool) {
	size := *big << 30
	framing := "Content-Length: " + strconv.Itoa(size) + "\r\n\r\n"
	if chunked {
		framing = "Transfer-Encoding: chunked\r\n\r\n"
	}
	request, answer := get, "HTTP/1.1 200 OK\r\n"+framing
	if up {
		request, answer = "POST / HTTP/1.1\r\nHost: h\r\n"+framing, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	}
	backend := newBackend(b, func(c *peer) {
		for {
			if _, err := c.head(); err != nil {
				return
			}
			if up && drink(c, size, chunked) != int64(size) {
				return
			}
			c.say(answer)
			if !up {
				pour(c, size, chunked)
			}
		}
	})
	c := serve(b, documents(backend.addr)).dial()
	_ = c.SetDeadline(time.Time{})
	b.SetBytes(int64(size))
	grown := heapGrowth(func() {
		for b.Loop() {
			c.say(request)
			if up {
				pour(c, size, chunked)
			}
			if _, err := c.head(); err != nil {
				b.Fatal(err)
			}
			if !up && drink(c, size, chunked) != int64(size) {
				b.Fatal("the body is not whole")
			}
		}
	})
	b.ReportMetric(float64(grown)/(1<<20), "MiB-heap")
	if grown > maxGrowth {
		b.Errorf("the heap grew by %d KiB", grown>>10)
	}
}

// BenchmarkEvent is how long an event of a stream takes from the backend to the client.
func BenchmarkEvent(b *testing.B) {
	const event = "9\r\ndata: x\n\n\r\n"
	next := make(chan struct{})
	var said atomic.Int64
	began := time.Now()
	backend := newBackend(b, func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range next {
			said.Store(int64(time.Since(began)))
			c.say(event)
		}
	})
	c := serve(b, documents(backend.addr)).dial()
	c.say(get)
	if _, err := c.head(); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		next <- struct{}{}
		if got, err := c.take(len(event)); got != event || err != nil {
			b.Fatalf("%q %v", got, err)
		}
		took = append(took, time.Since(began)-time.Duration(said.Load()))
	}
	close(next)
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
