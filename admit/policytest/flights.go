package policytest

import (
	"container/heap"

	"weir/admit"
)

// flight is a request that is not over: it has passed, or waits.
type flight struct {
	request int // index
	match   admit.Match
	verdict admit.Verdict
	takes   int64
	status  int   // what the backend answers
	lands   int64 // when it is over
}

// flights are those that are not over, the next to land first, and of two at once the one that arrived first.
type flights struct{ queue flightQueue }

func (f *flights) Len() int { return len(f.queue) }

// next is when the next one lands.
func (f *flights) next() int64 { return f.queue[0].lands }

func (f *flights) add(one *flight) { heap.Push(&f.queue, one) }

func (f *flights) take() *flight { return heap.Pop(&f.queue).(*flight) }

// flightQueue implements heap.Interface.
type flightQueue []*flight

func (q flightQueue) Len() int { return len(q) }

func (q flightQueue) Less(i, j int) bool {
	if q[i].lands != q[j].lands {
		return q[i].lands < q[j].lands
	}
	return q[i].request < q[j].request
}

func (q flightQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

func (q *flightQueue) Push(x any) { *q = append(*q, x.(*flight)) }

func (q *flightQueue) Pop() any {
	last := len(*q) - 1
	f := (*q)[last]
	(*q)[last] = nil // let go of the table's cells
	*q = (*q)[:last]
	return f
}
