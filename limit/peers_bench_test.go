package limit

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// tickerBucket is a bucket as it is often written: a counter behind a mutex, refilled by a ticker.
type tickerBucket struct {
	mu            sync.Mutex
	tokens, burst int64
	stop, stopped chan struct{}
}

func newTickerBucket(requests, burst int64) *tickerBucket {
	b := &tickerBucket{tokens: burst, burst: burst, stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(b.stopped)
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-b.stop:
				return
			case <-ticker.C:
				b.mu.Lock()
				b.tokens = min(b.burst, b.tokens+requests/1000)
				b.mu.Unlock()
			}
		}
	}()
	return b
}

func (b *tickerBucket) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}

func (b *tickerBucket) close() {
	close(b.stop)
	<-b.stopped
}

// BenchmarkTake compares buckets: ours, that of golang.org/x/time/rate, and one with a mutex and a ticker. One goroutine or two
// ask one bucket, or two ask one each; all of them are let through, or all refused. Each goroutine has a clock of its own that
// moves 1 µs per call, so that nobody's time is in the figures.
func BenchmarkTake(b *testing.B) {
	const plenty = 1e15
	epoch := time.Now()
	peers := []struct {
		name string
		make func(b *testing.B, allowed bool) (take func(now int64) bool)
	}{
		{"bucket", func(b *testing.B, allowed bool) func(int64) bool {
			bucket := NewBucket(mustRate(b, MaxRequests, time.Second, plenty))
			if !allowed {
				bucket = NewBucket(mustRate(b, 1, time.Hour, 1))
				bucket.Take(horizon, 1)
			}
			return func(now int64) bool { return bucket.Take(now, 1).OK }
		}},
		{"xtime", func(_ *testing.B, allowed bool) func(int64) bool {
			limiter := rate.NewLimiter(MaxRequests, plenty)
			if !allowed {
				limiter = rate.NewLimiter(rate.Every(time.Hour), 1)
				limiter.AllowN(epoch, 1)
			}
			return func(now int64) bool { return limiter.AllowN(epoch.Add(time.Duration(now)), 1) }
		}},
		{"mutex", func(b *testing.B, allowed bool) func(int64) bool {
			bucket := newTickerBucket(MaxRequests, plenty)
			if !allowed {
				bucket.close()
				bucket = newTickerBucket(0, 0)
			}
			b.Cleanup(bucket.close)
			return func(int64) bool { return bucket.take(1) }
		}},
	}
	for _, verdict := range []string{"allowed", "denied"} {
		for _, load := range []struct {
			name            string
			goroutines, own int
		}{{"1-goroutine", 1, 1}, {"2-goroutines-own", 2, 2}, {"2-goroutines-shared", 2, 1}} {
			for _, peer := range peers {
				b.Run(fmt.Sprintf("%s/%s/%s", verdict, load.name, peer.name), func(b *testing.B) {
					takes := make([]func(int64) bool, load.goroutines)
					for i := range takes {
						if takes[i] = takes[0]; i < load.own {
							takes[i] = peer.make(b, verdict == "allowed")
						}
					}
					compete(b, takes, verdict == "allowed")
				})
			}
		}
	}
}

// compete spreads b.N calls over a goroutine for each take, and fails unless all of them answer want.
func compete(b *testing.B, takes []func(now int64) bool, want bool) {
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for _, take := range takes {
		all.Go(func() {
			for i := range int64(b.N / len(takes)) {
				if take(i*1000) != want {
					b.Errorf("call %d: %v, want %v", i, !want, want)
					return
				}
			}
		})
	}
	all.Wait()
}
