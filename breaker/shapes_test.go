package breaker

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// shape is traffic over time, in requests a second at a time since the start.
type shape struct {
	lasts, row time.Duration // row is how much time one row of the plot shows
	direction  Direction
	offered    func(at time.Duration) float64 // nil: all pass the limits of their tenants
	passed     func(at time.Duration) float64
	sidecars   func(at time.Duration) int // that the traffic is shared out to; nil: one
	restart    time.Duration              // when the judge is replaced by a new one; 0: never
}

// TestShapes plays recorded shapes of traffic, with the noise that independent requests make. What comes of each is written
// here, and drawn in testdata/breaker.
func TestShapes(t *testing.T) {
	f := func(name string, s shape, want ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			plot, transitions := play(t, s)
			transitions.want(t, want...)
			golden(t, name, plot)
		})
	}

	// A surge of two minutes degrades for as long as it lasts, and leaves the baseline where it was.
	f("step", shape{
		lasts: 16 * time.Minute, row: 15 * time.Second,
		passed: steps(100, 10*time.Minute, 300, 12*time.Minute, 100),
	},
		"10:15 normal → degraded: rise",
		"12:15 degraded → normal: back")
	// A spike that is shorter than three samples is none of the breaker's business.
	f("spike", shape{
		lasts: 12 * time.Minute, row: 15 * time.Second, direction: Both,
		passed: steps(100, 6*time.Minute, 1000, 6*time.Minute+10*time.Second, 100),
	})
	// Traffic that doubles every ten minutes is followed, up and down.
	f("ramp", shape{
		lasts: 70 * time.Minute, row: time.Minute, direction: Both,
		passed: func(at time.Duration) float64 {
			up := min(max(at-5*time.Minute, 0), 30*time.Minute) - min(max(at-35*time.Minute, 0), 30*time.Minute)
			return 100 * math.Exp2(up.Minutes()/10)
		},
	})
	// Traffic that doubles every two minutes is not.
	f("rush", shape{
		lasts: 20 * time.Minute, row: 20 * time.Second,
		passed: func(at time.Duration) float64 {
			return 100 * math.Exp2(min(max(at-5*time.Minute, 0), 6*time.Minute).Minutes()/2)
		},
	},
		"6:20 normal → degraded: rise",
		"15:30 degraded → normal: back")
	// A day, from the morning's 1000/s to a tenth of that at night and back.
	f("day", shape{
		lasts: 24 * time.Hour, row: 30 * time.Minute, direction: Both,
		passed: func(at time.Duration) float64 { return 550 + 450*math.Cos(2*math.Pi*at.Hours()/24) },
	})
	// Night falls within two hours.
	f("night", shape{
		lasts: 3 * time.Hour, row: 5 * time.Minute, direction: Both,
		passed: func(at time.Duration) float64 {
			return 1000 * math.Pow(0.1, min(max(at.Hours()-0.5, 0)/2, 1))
		},
	})
	// Growth to four times the traffic within eight hours.
	f("growth", shape{
		lasts: 9 * time.Hour, row: 15 * time.Minute, direction: Both,
		passed: func(at time.Duration) float64 { return 100 + 300*min(at.Hours()/8, 1) },
	})
	// Nothing at all, then less than what is judged, then more.
	f("zero", shape{
		lasts: 20 * time.Minute, row: 20 * time.Second, direction: Both,
		passed: steps(0, 7*time.Minute, 15, 10*time.Minute, 0, 14*time.Minute, 100),
	},
		"14:15 normal → degraded: rise",
		"19:15 degraded → normal: back")
	// Traffic stops: a fall, which is the baseline after as long.
	f("outage", shape{
		lasts: 18 * time.Minute, row: 20 * time.Second, direction: Both,
		passed: steps(200, 8*time.Minute, 0),
	},
		"8:15 normal → degraded: fall",
		"13:15 degraded → normal: back")
	// One tenant sends twenty times all the others, and its limit lets 20/s of that through.
	f("flood", shape{
		lasts: 12 * time.Minute, row: 15 * time.Second, direction: Both,
		offered: steps(100, 6*time.Minute, 2100, 9*time.Minute, 100),
		passed:  steps(100, 6*time.Minute, 120, 9*time.Minute, 100),
	})
	// The process starts anew under load, and its first connections come one by one.
	f("restart", shape{
		lasts: 20 * time.Minute, row: 20 * time.Second, direction: Both, restart: 10 * time.Minute,
		passed: func(at time.Duration) float64 {
			if since := at - 10*time.Minute; since >= 0 && since < 10*time.Second {
				return 400 * since.Seconds() / 10
			}
			return 400
		},
	})
	// A new level for good is accepted after one baseline.
	f("lasting", shape{
		lasts: 25 * time.Minute, row: 20 * time.Second,
		passed: steps(100, 10*time.Minute, 300),
	},
		"10:15 normal → degraded: rise",
		"15:15 degraded → normal: back")
	// Surges of four minutes, with a minute between, do not become usual one by one.
	f("surges", shape{
		lasts: 22 * time.Minute, row: 20 * time.Second,
		passed: steps(100, 8*time.Minute, 300, 12*time.Minute, 100, 18*time.Minute, 300, 21*time.Minute, 100),
	},
		"8:15 normal → degraded: rise",
		"12:15 degraded → normal: back",
		"18:15 normal → degraded: rise",
		"21:15 degraded → normal: back")
	// Two sidecars become four, then one, at constant load.
	f("scale", shape{
		lasts: 16 * time.Minute, row: 20 * time.Second, direction: Both,
		passed: steps(400),
		sidecars: func(at time.Duration) int {
			return int(steps(2, 6*time.Minute, 4, 11*time.Minute, 1)(at))
		},
	})
}

// A sidecar that judged its own part would see a fall at every scale-out: the shape above can fail.
func TestScaleOutOfOne(t *testing.T) {
	_, transitions := play(t, shape{
		lasts: 10 * time.Minute, row: time.Minute, direction: Both, passed: steps(200, 6*time.Minute, 100),
	})
	transitions.want(t, "6:15 normal → degraded: fall")
}

// steps returns a rate that changes at times: a rate, then a time and a rate for each change.
func steps(rate float64, changes ...any) func(time.Duration) float64 {
	return func(at time.Duration) float64 {
		r := rate
		for i := 0; i < len(changes); i += 2 {
			if at >= changes[i].(time.Duration) {
				r = float64(changes[i+1].(int))
			}
		}
		return r
	}
}

// row is one row of a plot: the last sample of its time, or transitions.
type row struct {
	at   int64
	said []string
	Status
}

// play steps a judge once a second through a shape.
func play(t testing.TB, s shape) (plot string, transitions heard) {
	t.Helper()
	settings := valid(t, func(v *Settings) { v.QPS.Direction = s.direction })
	random := rand.New(rand.NewPCG(1, 2))
	judge := NewJudge(0, settings)
	var rows []row
	for now := second; now <= int64(s.lasts); now += second {
		at := time.Duration(now - second)
		if s.restart > 0 && at == s.restart {
			judge = NewJudge(now-second, settings)
		}
		members := 1
		if s.sidecars != nil {
			members = s.sidecars(at)
		}
		var sum Counts
		for range members {
			passed := poisson(random, s.passed(at)/float64(members))
			c := Counts{Offered: passed, Passed: passed}
			if s.offered != nil {
				c.Offered += poisson(random, (s.offered(at)-s.passed(at))/float64(members))
			}
			sum = sum.Add(c)
		}
		before := len(transitions.said)
		tr, changed := judge.Step(now, sum, 0)
		transitions.hear(t, tr, changed)
		if news := transitions.said[before:]; len(news) > 0 || now%int64(s.row) == 0 {
			rows = append(rows, row{at: now, said: news, Status: judge.Status(now)})
		}
	}
	return draw(rows), transitions
}

// draw plots rows of time: o the rate that is judged, x the one offered where that is another, | the baseline, and the
// corridor around it in dots.
func draw(rows []row) string {
	const width = 60
	top := 1.0
	for _, r := range rows {
		top = max(top, r.Numbers.Rate, r.Numbers.Offered)
	}
	column := func(v float64) int { return int(math.Round(v / top * (width - 1))) }
	var b strings.Builder
	fmt.Fprintf(&b, "%8s %-8s %7s %8s  0%*.0f/s\n", "time", "level", "rate", "baseline", width-1, top)
	for _, r := range rows {
		line := []rune(strings.Repeat(" ", width))
		n := r.Numbers
		if high := n.High; n.Low > 0 || high > 0 {
			if high == 0 {
				high = top
			}
			for c := column(n.Low); c <= min(column(high), width-1); c++ {
				line[c] = '·'
			}
			line[min(column(n.Baseline), width-1)] = '|'
		}
		if column(n.Offered) != column(n.Rate) {
			line[column(n.Offered)] = 'x'
		}
		line[column(n.Rate)] = 'o'
		fmt.Fprintf(&b, "%8s %-8s %7.1f %8.1f  %s\n", clock(r.at), r.Level, n.Rate, n.Baseline, strings.TrimRight(string(line), " "))
		for _, s := range r.said {
			fmt.Fprintf(&b, "%8s %s\n", "", s)
		}
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := "../testdata/breaker/" + name + ".golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("plot of %s (-want +got; -update writes it):\n%s", name, diff)
	}
}
