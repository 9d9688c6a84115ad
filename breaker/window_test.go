package breaker

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWindow compares a window with a list of all that was ever added to it.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		length := time.Duration(rapid.Int64Range(int64(minSample), int64(time.Minute)).Draw(t, "length"))
		bucket := int64(length / buckets)
		type added struct {
			at int64
			calls
		}
		start := rapid.Int64Range(0, 1<<40).Draw(t, "start")
		w, now, all := window{last: start}, start, []added(nil)
		for range rapid.IntRange(1, 60).Draw(t, "adds") {
			pause := rapid.Int64Range(0, 3*bucket).Draw(t, "pause")
			if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
				pause = rapid.Int64Range(0, 3*int64(length)).Draw(t, "long pause")
			}
			now += pause
			c := calls{rapid.Int64Range(0, 9).Draw(t, "requests"), rapid.Int64Range(0, 9).Draw(t, "failures"), rapid.Int64Range(0, 9).Draw(t, "slow")}
			w.add(now, length, c)
			if pause <= int64(length) {
				all = append(all, added{now, c})
			}
			var want calls
			for _, a := range all {
				if now/bucket-a.at/bucket < buckets {
					want.add(a.calls)
				}
			}
			if w.sum != want {
				t.Fatalf("the window holds %+v, want %+v", w.sum, want)
			}
		}
	})
}
