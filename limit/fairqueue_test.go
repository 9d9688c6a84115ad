package limit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// lineup pushes entries, one flow after the other as named, and returns the order in which they are popped.
func lineup(q *FairQueue, weights map[string]int64, names ...string) string {
	for _, name := range names {
		q.Push(&Entry{Owner: name}, name, max(weights[name], 1), math.MaxInt64, len(names))
	}
	order := ""
	for e := q.Pop(); e != nil; e = q.Pop() {
		order += e.Owner.(string)
	}
	return order
}

func TestFairQueueOrder(t *testing.T) {
	f := func(weights map[string]int64, names []string, want string) {
		t.Helper()
		var q FairQueue
		if got := lineup(&q, weights, names...); got != want {
			t.Errorf("unexpected order: got %s, want %s", got, want)
		}
	}

	// One flow: first come, first served.
	f(nil, []string{"a", "a", "a"}, "aaa")
	// Equal flows take turns, however many of one came first.
	f(nil, []string{"a", "a", "a", "a", "b", "b"}, "ababaa")
	f(nil, []string{"a", "a", "a", "b", "c", "b", "c"}, "abcabca")
	// A weight of 2 is two turns for each of the other's.
	f(map[string]int64{"a": 2}, []string{"a", "a", "a", "a", "b", "b"}, "abaaba")
	// Nothing waits.
	f(nil, nil, "")
}

// A flow that sends one request after the other, each when the last one had its turn, gets no more than its weight.
func TestFairQueueRemembersTheLatestTurn(t *testing.T) {
	var q FairQueue
	push := func(name string, weight int64) { q.Push(&Entry{Owner: name}, name, weight, math.MaxInt64, 1000) }
	for range 500 {
		push("many", 4)
	}
	push("one", 1)
	turns := map[string]int{}
	for range 500 {
		name := q.Pop().Owner.(string)
		turns[name]++
		push(name, map[string]int64{"many": 4, "one": 1}[name])
	}
	if turns["one"] != 100 {
		t.Errorf("unexpected turns of the flow with one request at a time: got %d, want 100", turns["one"])
	}
}

// A flow that was away takes turns with those that stayed: it has saved nothing.
func TestFairQueueSavesNoCredit(t *testing.T) {
	var q FairQueue
	for range 50 {
		q.Push(&Entry{Owner: "a"}, "a", 1, math.MaxInt64, 100)
	}
	for range 30 {
		q.Pop()
	}
	for range 10 {
		q.Push(&Entry{Owner: "b"}, "b", 1, math.MaxInt64, 100)
	}
	order := ""
	for range 20 {
		order += q.Pop().Owner.(string)
	}
	if want := "babababababababababa"; order != want {
		t.Errorf("unexpected order: got %s, want %s", order, want)
	}
}

func TestFairQueueFull(t *testing.T) {
	f := func(weights map[string]int64, most int, names []string, newcomer, dropped, left string) {
		t.Helper()
		var q FairQueue
		for i, name := range names {
			q.Push(&Entry{Owner: fmt.Sprint(name, i)}, name, max(weights[name], 1), math.MaxInt64, most)
		}
		got := ""
		if e := q.Push(&Entry{Owner: newcomer}, newcomer[:1], max(weights[newcomer[:1]], 1), math.MaxInt64, most); e != nil {
			got = e.Owner.(string)
		}
		if got != dropped {
			t.Errorf("unexpected entry dropped: got %q, want %q", got, dropped)
		}
		order := ""
		for e := q.Pop(); e != nil; e = q.Pop() {
			order += e.Owner.(string) + " "
		}
		if order != left {
			t.Errorf("unexpected order: got %s, want %s", order, left)
		}
	}

	// There is room.
	f(nil, 3, []string{"a", "a"}, "b!", "", "a0 b! a1 ")
	// The oldest of the longest flow makes room.
	f(nil, 3, []string{"a", "b", "a"}, "b!", "a0", "a2 b1 b! ")
	f(nil, 3, []string{"a", "b", "a"}, "c!", "a0", "a2 b1 c! ")
	// The newcomer is of the longest flow itself.
	f(nil, 3, []string{"a", "b", "a"}, "a!", "a!", "a0 b1 a2 ")
	// It is of one as long as the longest.
	f(nil, 2, []string{"a", "b"}, "b!", "b!", "a0 b1 ")
	// Whoever has nothing there comes in.
	f(nil, 1, []string{"a"}, "b!", "a0", "b! ")
	// Length counts for its weight.
	f(map[string]int64{"a": 4}, 5, []string{"a", "a", "a", "b", "b"}, "a!", "b3", "a0 b4 a1 a2 a! ")
	// There is no room at all.
	f(nil, 0, nil, "a!", "a!", "")
}

func TestFairQueueExpired(t *testing.T) {
	var q FairQueue
	a, b, c := &Entry{Owner: "a"}, &Entry{Owner: "b"}, &Entry{Owner: "c"}
	q.Push(a, "x", 1, 30, 10)
	q.Push(b, "x", 1, 10, 10)
	q.Push(c, "y", 1, 20, 10)
	f := func(now int64, want *Entry) {
		t.Helper()
		if got := q.Expired(now); got != want {
			t.Errorf("unexpected entry expired at %d: got %v, want %v", now, got, want)
		}
	}

	f(9, nil)
	f(20, b) // its time was over at 10
	f(20, c)
	f(20, nil)
	f(29, nil)
	f(30, a)
	f(1<<62, nil)
	if q.Len() != 0 {
		t.Errorf("unexpected length: got %d, want 0", q.Len())
	}
}

// While two flows both wait, their turns divided by their weights differ by one turn of each at most, over any stretch and
// among any other flows that come and go.
func TestFairQueueSharesByWeight(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		var q FairQueue
		weight := []int64{1 + r.Int64N(1000), 1 + r.Int64N(1000)}
		push := func(flow int) {
			q.Push(&Entry{Owner: flow}, fmt.Sprint(flow), weight[min(flow, 1)], math.MaxInt64, 1<<30)
		}
		for range 3 {
			push(0)
			push(1)
		}
		turns := [2]float64{}
		least, most := 0.0, 0.0
		for range 5000 {
			if r.IntN(3) == 0 {
				push(2 + r.IntN(20))
			}
			flow := q.Pop().Owner.(int)
			if flow > 1 {
				continue
			}
			push(flow)
			turns[flow]++
			apart := turns[0]/float64(weight[0]) - turns[1]/float64(weight[1])
			least, most = min(least, apart), max(most, apart)
		}
		if bound := 1/float64(weight[0]) + 1/float64(weight[1]); most-least > bound*1.001 {
			t.Errorf("seed %d: weights %v: turns by weight differ by %g, want at most %g", seed, weight, most-least, bound)
		}
	}
}

// model is the queue without any haste: what it holds is looked through for each answer.
type model struct {
	entries []*Entry
	flow    map[*Entry]string
	due     map[*Entry]int64
	weight  map[string]int64
	start   map[string]uint64
	began   map[string]int // when it began to wait
	virtual uint64
	came    int
}

func newModel() *model {
	return &model{flow: map[*Entry]string{}, due: map[*Entry]int64{}, weight: map[string]int64{}, start: map[string]uint64{}, began: map[string]int{}}
}

func (m *model) length(name string) (n int64) {
	for _, e := range m.entries {
		if m.flow[e] == name {
			n++
		}
	}
	return n
}

func (m *model) push(e *Entry, name string, weight, due int64, most int) *Entry {
	var dropped *Entry
	if len(m.entries) >= most {
		heaviest := ""
		for _, o := range m.entries {
			n := m.flow[o]
			x, y := m.length(n)*m.weight[heaviest], m.length(heaviest)*m.weight[n]
			if heaviest == "" || x > y || x == y && m.began[n] < m.began[heaviest] {
				heaviest = n
			}
		}
		if heaviest == "" || heaviest == name || m.length(heaviest)*weight <= m.length(name)*m.weight[heaviest] {
			return e
		}
		i := slices.IndexFunc(m.entries, func(o *Entry) bool { return m.flow[o] == heaviest })
		dropped = m.entries[i]
		m.remove(dropped)
	}
	if m.length(name) == 0 {
		m.start[name] = max(m.start[name], m.virtual)
		m.came++
		m.began[name] = m.came
	}
	m.weight[name] = weight
	m.flow[e], m.due[e] = name, due
	m.entries = append(m.entries, e)
	return dropped
}

func (m *model) remove(e *Entry) {
	m.entries = slices.DeleteFunc(m.entries, func(o *Entry) bool { return o == e })
	if len(m.entries) == 0 {
		m.virtual = 0
		clear(m.start)
	}
}

func (m *model) pop() *Entry {
	var next *Entry
	for _, e := range m.entries {
		a, b := m.flow[e], m.flow[next]
		if next == nil || m.start[a] < m.start[b] || m.start[a] == m.start[b] && m.began[a] < m.began[b] {
			next = e
		}
	}
	if next == nil {
		return nil
	}
	name := m.flow[next]
	m.virtual = m.start[name]
	m.start[name] += unit / uint64(m.weight[name])
	m.remove(next)
	return next
}

func (m *model) soonest() int64 {
	soonest := int64(math.MaxInt64)
	for _, e := range m.entries {
		soonest = min(soonest, m.due[e])
	}
	return soonest
}

// FuzzFairQueue compares every answer with the model's. So no entry is lost or granted twice, nobody stays past the deadline, there
// is a next as long as anybody waits, and it is the one that the discipline says.
func FuzzFairQueue(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 2, 1, 3, 4, 5, 6, 7})
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		ops := make([]byte, 400)
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		var q FairQueue
		m := newModel()
		now := int64(0)
		for i := 0; i+1 < len(ops); i += 2 {
			op, arg := ops[i], int(ops[i+1])
			switch op % 8 {
			case 0, 1, 2, 3:
				e := &Entry{Owner: i}
				name, weight := string(rune('a'+arg%5)), int64(1+arg%7)
				due := now + int64(arg)%20 + 1
				most := 1 + int(op>>3)
				if got, want := q.Push(e, name, weight, due, most), m.push(e, name, weight, due, most); got != want {
					t.Fatalf("step %d: unexpected entry dropped: got %v, want %v", i, got, want)
				}
			case 4, 5:
				got, want := q.Pop(), m.pop()
				if got != want {
					t.Fatalf("step %d: unexpected next: got %v, want %v", i, got, want)
				}
			case 6:
				now += int64(arg % 8)
				for e := q.Expired(now); e != nil; e = q.Expired(now) {
					if due, ok := m.due[e]; !ok || due > now || due != m.soonest() {
						t.Fatalf("step %d: an entry due at %d expired at %d, while one is due at %d", i, due, now, m.soonest())
					}
					m.remove(e)
				}
				if m.soonest() <= now {
					t.Fatalf("step %d: an entry waits past its deadline", i)
				}
			case 7:
				if len(m.entries) > 0 {
					e := m.entries[arg%len(m.entries)]
					q.Remove(e)
					m.remove(e)
				}
			}
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				if got, want := q.LenOf(name), m.length(name); got != want {
					t.Fatalf("step %d: unexpected length of %s: got %d, want %d", i, name, got, want)
				}
			}
			if q.Len() != len(m.entries) {
				t.Fatalf("step %d: unexpected length: got %d, want %d", i, q.Len(), len(m.entries))
			}
		}
	})
}

func TestFairQueueAllocatesNothingOnceWarm(t *testing.T) {
	var q FairQueue
	entries := make([]Entry, 64)
	names := make([]string, 16)
	for i := range names {
		names[i] = fmt.Sprint("flow", i)
	}
	round := func() {
		for i := range entries {
			q.Push(&entries[i], names[i%len(names)], int64(1+i%3), int64(i), 48)
		}
		for q.Expired(20) != nil {
		}
		for q.Pop() != nil {
		}
	}
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("unexpected allocations: got %v, want 0", n)
	}
}

// A flood of names takes no more flows than wait, or are remembered at all.
func TestFairQueueIsBounded(t *testing.T) {
	var q FairQueue
	var standing Entry
	for i := range 100_000 {
		if standing.flow == nil {
			q.Push(&standing, "standing", 1, math.MaxInt64, 100)
		}
		q.Push(&Entry{}, fmt.Sprint(i), 1, math.MaxInt64, 100)
		if q.Len() > 50 {
			q.Pop()
		}
	}
	if got, most := len(q.flows), 100+mostIdle+1; got > most {
		t.Errorf("unexpected number of flows: got %d, want at most %d", got, most)
	}
}

func BenchmarkFairQueue(b *testing.B) {
	for _, flows := range []int{2, 1000} {
		b.Run(fmt.Sprintf("flows=%d", flows), func(b *testing.B) {
			var q FairQueue
			entries := make([]Entry, 1000)
			names := make([]string, flows)
			for i := range names {
				names[i] = fmt.Sprint("flow", i)
			}
			for i := range entries {
				q.Push(&entries[i], names[i%flows], 1, int64(i), len(entries))
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				e := q.Pop()
				q.Push(e, names[i%flows], 1, int64(i), len(entries))
				i++
			}
		})
	}
}
