package limit

// FairQueue decides who is next when requests wait for one resource: start-time fair queuing (Goyal, Vin and Cheng, 1996)
// over flows, each with a weight. While several flows wait, each gets a part of the turns in proportion to its weight,
// whatever the others send. Within a flow, who came first is first.
//
// Every request is one unit of work. Each flow has a start tag, the virtual time at which its next request is due; the
// flow with the lowest is next, and its tag moves on by one unit over its weight. Virtual time is the tag of the
// latest turn. So over any stretch in which two flows both wait, their turns divided by their weights differ by no more
// than one turn of each. A flow that comes anew starts at the present: it has saved no credit, and owes at most the rest of its
// latest turn.
//
// It never reads a clock and takes no lock: the caller guards it. The zero value is empty. Each step takes O(log n)
// for n waiting requests, and allocates nothing once the queue has been as long before with as many flows.
type FairQueue struct {
	flows   map[string]*flow
	waiting int
	virtual uint64 // start tag of the latest turn

	next     heapOf[*flow]  // flows that wait, the lowest start tag on top
	heaviest heapOf[*flow]  // flows that wait, the longest for its weight on top
	soonest  heapOf[*Entry] // entries, the first deadline on top

	idle  flowList // flows that do not wait and whose tag lies ahead of virtual time, the longest idle first
	spare *flow    // flows to use again, linked by next
	came  uint64   // counts arrivals, to break ties
}

// Entry is one request in a queue. It belongs to whoever pushes it, who may push it again once it is out; the zero value is
// ready.
type Entry struct {
	// Owner is the caller's, for finding its own state. The queue does not look at it.
	Owner any

	flow       *flow // nil: not in a queue
	prev, next *Entry
	deadline   int64
	at         int // in FairQueue.soonest
}

// flow is the requests of one name.
type flow struct {
	name        string
	weight      int64
	start       uint64 // tag of the next turn
	came        uint64 // when it began to wait, for ties
	first, last *Entry
	length      int64

	inNext, inHeaviest int
	prev, next         *flow // in FairQueue.idle, or FairQueue.spare
}

// unit is the virtual time of one turn at weight 1. Virtual time wraps around; the tags there are at once lie close together.
const unit = 1 << 32

func before(a, b uint64) bool { return int64(a-b) < 0 }

// Len returns how many entries wait.
func (q *FairQueue) Len() int { return q.waiting }

// LenOf returns how many entries of a flow wait.
func (q *FairQueue) LenOf(name string) int64 {
	if f := q.flows[name]; f != nil {
		return f.length
	}
	return 0
}

// Push puts e at the end of a flow. weight is at least 1 and holds for the whole flow from now on; deadline is when the
// entry expires. At most `most` entries may wait: when there are as many, the oldest entry of the heaviest flow, the
// longest for its weight, makes room. When that is e's own flow, or no heavier, e itself is not taken. Either way the
// entry that does not wait is returned; nil: all do. Those that have expired count, so [FairQueue.Expired] is asked first.
func (q *FairQueue) Push(e *Entry, name string, weight, deadline int64, most int) (dropped *Entry) {
	if e.flow != nil {
		panic("BUG: FairQueue.Push of an entry that waits")
	}
	f := q.flows[name]
	if !q.Takes(name, weight, most) {
		return e
	}
	if q.waiting >= most {
		dropped = q.heaviest.items[0].first
		q.Remove(dropped)
		f = q.flows[name] // the queue may have become empty, which ends all flows
	}
	if f == nil {
		f = q.begin(name)
	}
	f.weight = weight
	q.append(f, e)
	e.deadline = deadline
	q.soonest.push(e)
	return dropped
}

// Takes says whether Push would take an entry now, of a flow with that weight.
func (q *FairQueue) Takes(name string, weight int64, most int) bool {
	return q.waiting < most || q.waiting > 0 && heavier(q.heaviest.items[0], q.flows[name], weight)
}

// Pop returns the entry whose turn it is; nil when none waits. The caller has taken out those that have expired.
func (q *FairQueue) Pop() *Entry {
	if q.waiting == 0 {
		return nil
	}
	f := q.next.items[0]
	q.virtual = f.start
	f.start += unit / uint64(f.weight)
	e := f.first
	q.Remove(e)
	q.prune()
	return e
}

// Expired takes out an entry whose deadline is not after now, and returns it; nil when there is none.
func (q *FairQueue) Expired(now int64) *Entry {
	if q.waiting == 0 || q.soonest.items[0].deadline > now {
		return nil
	}
	e := q.soonest.items[0]
	q.Remove(e)
	return e
}

// Remove takes out an entry that waits.
func (q *FairQueue) Remove(e *Entry) {
	f := e.flow
	if f == nil {
		panic("BUG: FairQueue.Remove of an entry that does not wait")
	}
	q.soonest.remove(e)
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		f.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		f.last = e.prev
	}
	e.flow, e.prev, e.next = nil, nil, nil
	f.length--
	q.waiting--
	switch {
	case q.waiting == 0:
		q.next.remove(f)
		q.heaviest.remove(f)
		q.end(f)
		q.rest()
	case f.length == 0:
		q.next.remove(f)
		q.heaviest.remove(f)
		q.idle.push(f)
		q.prune()
	default:
		q.next.fix(f)
		q.heaviest.fix(f)
	}
}

// append puts e at the end of its flow, which begins to wait if it did not.
func (q *FairQueue) append(f *flow, e *Entry) {
	e.flow, e.prev = f, f.last
	if f.last != nil {
		f.last.next = e
	} else {
		f.first = e
	}
	f.last = e
	f.length++
	q.waiting++
	if f.length > 1 {
		q.heaviest.fix(f)
		return
	}
	q.idle.remove(f)
	if before(f.start, q.virtual) {
		f.start = q.virtual
	}
	q.came++
	f.came = q.came
	q.next.push(f)
	q.heaviest.push(f)
}

// begin makes the flow of a name that has none.
func (q *FairQueue) begin(name string) *flow {
	if q.flows == nil {
		q.flows = make(map[string]*flow)
		q.next = heapOf[*flow]{less: dueBefore, index: func(f *flow) *int { return &f.inNext }}
		q.heaviest = heapOf[*flow]{less: heavierThan, index: func(f *flow) *int { return &f.inHeaviest }}
		q.soonest = heapOf[*Entry]{less: expiresBefore, index: func(e *Entry) *int { return &e.at }}
	}
	f := q.spare
	if f == nil {
		f = new(flow)
	} else {
		q.spare = f.next
	}
	*f = flow{name: name, start: q.virtual}
	q.flows[name] = f
	q.idle.push(f)
	return f
}

// mostIdle is how many flows that do not wait are remembered, so that a flood of names takes little more memory than
// those who wait. A flow that goes early is forgiven part of one turn.
const mostIdle = 1024

// prune ends flows that are idle and owe nothing, one at a time, so that none is left behind by a half of all virtual time,
// and the longest idle where there are too many.
func (q *FairQueue) prune() {
	f := q.idle.first
	if f == nil {
		return
	}
	q.idle.remove(f)
	if !before(q.virtual, f.start) || q.idle.length > mostIdle {
		q.end(f)
	} else {
		q.idle.push(f)
	}
}

// end forgets a flow that does not wait and is in no list.
func (q *FairQueue) end(f *flow) {
	delete(q.flows, f.name)
	f.name = ""
	f.next = q.spare
	q.spare = f
}

// rest is when nobody waits: all flows are even, and virtual time begins anew.
func (q *FairQueue) rest() {
	q.virtual = 0
	for f := q.idle.first; f != nil; f = q.idle.first {
		q.idle.remove(f)
		q.end(f)
	}
}

func dueBefore(a, b *flow) bool {
	return before(a.start, b.start) || a.start == b.start && a.came < b.came
}

func heavierThan(a, b *flow) bool {
	x, y := a.length*b.weight, b.length*a.weight
	return x > y || x == y && a.came < b.came
}

// heavier says whether a is heavier than a newcomer's flow, which is b, or new when that is nil.
func heavier(a, b *flow, weight int64) bool {
	if b == nil {
		return true
	}
	return a != b && a.length*weight > b.length*a.weight
}

func expiresBefore(a, b *Entry) bool { return a.deadline < b.deadline }

// flowList is a list of flows.
type flowList struct {
	first, last *flow
	length      int
}

func (l *flowList) push(f *flow) {
	f.prev, f.next = l.last, nil
	if l.last != nil {
		l.last.next = f
	} else {
		l.first = f
	}
	l.last = f
	l.length++
}

func (l *flowList) remove(f *flow) {
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		l.first = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		l.last = f.prev
	}
	f.prev, f.next = nil, nil
	l.length--
}
