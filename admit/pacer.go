package admit

// pacer keeps the turns of a full backend apart. Requests that began together end together where each takes as long as the
// others: then all places come free at once, once in a service time, and whoever comes just after that waits for a
// whole one, however light its load. So turns that come close together are spread, until they are as far apart as they are on
// average. Places wait for that, for no more than a small part of the time: the line is work-conserving but for that part.
type pacer struct {
	latest int64 // when the latest turn begins
	seen   int64 // when the latest turn could have begun; 0: somebody waited only since
	gap    int64 // between turns on average, while somebody waits
	credit int64 // how long places may be left waiting
}

const (
	// paceCost is how much time of a place must be used for one that waits.
	paceCost = 64
	// paceMost bounds the credit, in times of as many places as there are, which is what it takes to spread turns that all
	// come at once.
	paceMost = 1 << 10
)

// turn returns when a turn that could begin now begins. more says whether others go on waiting.
func (p *pacer) turn(now, most int64, more bool) int64 {
	if p.seen != 0 {
		p.gap += (now - p.seen - p.gap) / (2*most + 8)
	}
	p.seen = now
	if !more {
		p.seen = 0
	}
	service := p.gap * most // Little's law: all places are taken
	p.credit = min(p.credit+service/paceCost, service*min(most, paceMost)/2)
	delay := min(max(p.latest+p.gap-p.gap/8-now, 0), p.credit)
	p.credit -= delay
	p.latest = now + delay
	return p.latest
}
