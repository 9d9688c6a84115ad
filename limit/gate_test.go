package limit

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

// TestGate plays one gate, the maximum of which changes.
// A gate that assumes a number goes on from there, apart from the one it was taken from.
func TestGateAssume(t *testing.T) {
	var real, assumed Gate
	real.Enter(2)
	assumed.Assume(real.InFlight())
	if !assumed.Enter(2) || assumed.Enter(2) {
		t.Error("the gate does not go on from 1 of 2")
	}
	if n := real.InFlight(); n != 1 {
		t.Errorf("unexpected requests in flight: got %d, want 1", n)
	}
}

func TestGate(t *testing.T) {
	var g Gate
	f := func(max int64, want bool, wantInFlight int64) {
		t.Helper()
		if got := g.Enter(max); got != want || g.InFlight() != wantInFlight {
			t.Errorf("Enter(%d) = %v with %d in flight, want %v with %d", max, got, g.InFlight(), want, wantInFlight)
		}
	}
	// Nobody enters a closed gate.
	f(0, false, 0)
	f(math.MinInt64, false, 0)
	// Up to the maximum.
	f(2, true, 1)
	f(2, true, 2)
	f(2, false, 2)
	// A larger maximum lets in more, a smaller one none, and throws nobody out.
	f(3, true, 3)
	f(1, false, 3)
	// There is room again only below the maximum.
	g.Leave()
	f(2, false, 2)
	g.Leave()
	f(2, true, 2)
	// More than it can count are not let in.
	g.inFlight.Store(math.MaxInt32 - 1)
	f(math.MaxInt64, true, math.MaxInt32)
	f(math.MaxInt64, false, math.MaxInt32)
	g.inFlight.Store(0)
	if size := unsafe.Sizeof(g); size != 4 {
		t.Errorf("a gate has %d bytes, want 4", size)
	}
}

func TestGateLeaveWithoutEnter(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Errorf("Leave of an empty gate does not panic")
		}
	}()
	new(Gate).Leave()
}

func TestGateRace(t *testing.T) {
	const most = 1
	var g Gate
	var inside, entered atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100_000 {
				if !g.Enter(most) {
					continue
				}
				if n := inside.Add(1); n > most {
					t.Errorf("%d inside, want at most %d", n, most)
				}
				entered.Add(1)
				inside.Add(-1)
				g.Leave()
			}
		})
	}
	all.Wait()
	if got := g.InFlight(); got != 0 {
		t.Errorf("%d in flight after all have left", got)
	}
	if entered.Load() == 0 {
		t.Errorf("nobody entered")
	}
}

func BenchmarkGate(b *testing.B) {
	var g Gate
	b.ReportAllocs()
	for b.Loop() {
		g.Enter(10)
		g.Leave()
	}
}
