package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weir/proxy/wire"
)

// stormBackend answers everything after a moment, and counts its connections: all of them, and the most at once.
type stormBackend struct {
	net.Listener
	dials, open, peak atomic.Int64
	wg                sync.WaitGroup
}

func newStormBackend(b *testing.B, pause time.Duration) *stormBackend {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &stormBackend{Listener: l}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, syscall.EMFILE) {
				continue
			}
			if err != nil {
				return
			}
			s.dials.Add(1)
			s.wg.Go(func() { s.serve(c, pause) })
		}
	})
	return s
}

func (s *stormBackend) serve(c net.Conn, pause time.Duration) {
	defer c.Close()
	defer s.open.Add(-1)
	n := s.open.Add(1)
	for peak := s.peak.Load(); n > peak && !s.peak.CompareAndSwap(peak, n); peak = s.peak.Load() {
	}
	r := bufio.NewReaderSize(c, 512)
	for {
		for blank := false; !blank; {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return
			}
			blank = len(line) == 2
		}
		<-time.After(pause)
		if _, err := io.WriteString(c, ok); err != nil {
			return
		}
	}
}

func (s *stormBackend) stop() {
	s.Close()
	s.wg.Wait()
}

const (
	stormClients = 8000
	stormBursts  = 5
	stormPause   = 20 * time.Millisecond
)

// storm sends bursts of one request of each client at once, and reports what that cost in connections.
func storm(b *testing.B, once func() error, backend *stormBackend, clients int) {
	b.Helper()
	for b.Loop() {
		for range stormBursts {
			var wg sync.WaitGroup
			begin := make(chan struct{})
			for range clients {
				wg.Go(func() {
					<-begin
					if err := once(); err != nil {
						b.Error(err)
					}
				})
			}
			close(begin)
			wg.Wait()
		}
	}
	requests, dials := float64(b.N*stormBursts*clients), float64(backend.dials.Load())
	b.ReportMetric(dials, "dials")
	b.ReportMetric(float64(backend.peak.Load()), "peak-connections")
	b.ReportMetric(100*(1-dials/requests), "%reused")
	b.ReportMetric(requests, "requests")
	b.ReportMetric(float64(clients), "clients")
}

// BenchmarkStorm lets clients come in bursts, so many that one connection for each request in flight would be thousands: ours with
// the default pool, whose refusals try again as a client would, against net/http with its default transport. Both ends of every
// connection are open files of this process, and net/http dials more than it uses: where both run, the clients are a quarter of
// the files that may be open, 5,000 of 20,000. Ours runs with 8,000 as well.
func BenchmarkStorm(b *testing.B) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		b.Fatal(err)
	}
	scaled := int(min(stormClients, files.Cur/4))
	b.Run(fmt.Sprintf("weir-%d", stormClients), func(b *testing.B) { stormOurs(b, stormClients) })
	b.Run(fmt.Sprintf("weir-%d", scaled), func(b *testing.B) { stormOurs(b, scaled) })
	b.Run(fmt.Sprintf("net-http-%d", scaled), func(b *testing.B) { stormNetHTTP(b, scaled) })
}

func stormOurs(b *testing.B, clients int) {
	backend := newStormBackend(b, stormPause)
	s := build(b, nil, backendOf("a", backend.Addr().String()))
	ours, request := s.Backend(0), []byte(get)
	var refused atomic.Int64
	storm(b, func() error {
		for {
			c, err := ours.Acquire(Call{Now: ours.shared.now.Load()})
			if err != nil {
				if err.(*Error).Cause != PoolFull {
					return err
				}
				refused.Add(1)
				<-time.After(stormPause)
				continue
			}
			_, err = c.Exchange(request, nil, wire.Asked{})
			if err == nil {
				_, err = c.Buffered()
			}
			c.Release()
			return err
		}
	}, backend, clients)
	b.ReportMetric(float64(refused.Load()), "refusals")
	s.Close()
	backend.stop()
}

func stormNetHTTP(b *testing.B, clients int) {
	backend := newStormBackend(b, stormPause)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	client, url := &http.Client{Transport: transport}, "http://"+backend.Addr().String()+"/"
	storm(b, func() error {
		answer, err := client.Get(url)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		return err
	}, backend, clients)
	transport.CloseIdleConnections()
	backend.stop()
}
