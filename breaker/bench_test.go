package breaker

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// BenchmarkRequest measures what a request pays: to count it, to ask, and to record its end.
func BenchmarkRequest(b *testing.B) {
	s := valid(b, nil)
	steps := []struct {
		name string
		do   func(br *Breaker, stripe uint32, p Pass)
	}{
		{"offer", func(br *Breaker, stripe uint32, p Pass) { br.Offer(stripe, true) }},
		{"admit", func(br *Breaker, stripe uint32, p Pass) { br.Admit(second, stripe, true) }},
		{"record", func(br *Breaker, stripe uint32, p Pass) { br.Record(p, stripe, Success, false) }},
		{"all", func(br *Breaker, stripe uint32, p Pass) {
			br.Offer(stripe, true)
			br.Record(br.Admit(second, stripe, true), stripe, Success, false)
		}},
	}
	for _, step := range steps {
		for _, c := range []struct {
			name       string
			goroutines int
		}{{"1-goroutine", 1}, {"2-goroutines", 2}} {
			b.Run(step.name+"/"+c.name, func(b *testing.B) {
				br := New(0, s)
				b.ReportAllocs()
				var all sync.WaitGroup
				for stripe := range uint32(c.goroutines) {
					all.Go(func() {
						p := br.Admit(0, 0, true)
						for range b.N / c.goroutines {
							step.do(br, stripe, p)
						}
					})
				}
				all.Wait()
			})
		}
	}
}

// BenchmarkTick measures what ten thousand breakers cost a sampler, for each: all of them at every tick, with a sample that ends at
// every fifth.
func BenchmarkTick(b *testing.B) {
	const many = 10_000
	s := valid(b, nil)
	random := rand.New(rand.NewPCG(1, 2))
	all := make([]*Breaker, many)
	for i := range all {
		all[i] = New(0, s)
		for now := 5 * second; now < 6*minute; now += 5 * second {
			for range random.IntN(50) {
				all[i].Offer(0, true)
			}
			all[i].Tick(now, 0)
		}
	}
	now := 6 * minute
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%many == 0 {
			now += second
		}
		br := all[i%many]
		br.Offer(0, true)
		br.Tick(now, 0)
	}
}
