package admit

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"weir/admit/token"
	"weir/policy"
)

const (
	// RecentDenials is how many denials are remembered.
	RecentDenials = 1024
	// recentLevels and recentBreakers are how many limits and breakers of one denial are remembered; the one that refused is known
	// besides.
	recentLevels   = 8
	recentBreakers = 3
)

// Recent remembers the last [RecentDenials] denials, so that the request id that a client was told leads to the decision as it was
// made. It takes no memory before the first denial, and a megabyte and a half when all places are taken. The zero value is empty. Safe for
// concurrent use: to remember allocates nothing, and waits for nobody but a question or a denial that wants the same place.
type Recent struct {
	made sync.Once
	ring *[RecentDenials]denial
	next atomic.Uint64 // counts the denials
}

// denial is one decision, with copies of what belongs to its request. Of the table it refers to limits alone, which keep nothing
// else alive.
type denial struct {
	mu     sync.Mutex
	number uint64 // as counted by Recent.next; 0: none yet
	now    int64
	hash   string // of the snapshot

	id     [128]byte
	tenant [maxTenantBytes]byte
	method [16]byte
	host   [128]byte
	path   [256]byte
	// sizes of these five; longer ones were cut
	idSize, tenantSize, methodSize, hostSize, pathSize int
	client                                             netip.Addr

	source         int
	fault          token.Fault
	known, nobody  bool
	route, backend string
	cost, inFlight int64
	concurrency    int
	form           string // the policy's reject.headers
	verdict, would Verdict
	status         int
	levels         [recentLevels]level
	asked          int // how many of levels are set
	breakers       [recentBreakers]metBreaker
	met            int // how many of breakers are set
}

// Remember notes how a request of t was denied at now, whether by Match or by Decide, and what the client was told with. It is
// called before Settle.
func (r *Recent) Remember(t *Table, now int64, id []byte, req *Request, m *Match, v *Verdict, status int) {
	r.made.Do(func() { r.ring = new([RecentDenials]denial) })
	number := r.next.Add(1)
	d := &r.ring[number%RecentDenials]
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.number > number {
		return // a later one was faster
	}
	d.number, d.now, d.hash = number, now, t.snapshot.Hash
	d.idSize, d.tenantSize = copy(d.id[:], id), copy(d.tenant[:], m.Identity)
	d.methodSize, d.hostSize, d.pathSize = copy(d.method[:], req.Method), copy(d.host[:], req.Host), copy(d.path[:], req.Path)
	d.client, d.source, d.fault, d.nobody = req.Client, m.Source, m.Token, m.Tenant == t.nobody
	d.known = !d.nobody && m.Tenant != t.unknown
	d.route, d.backend = m.Route.name, ""
	if m.Backend >= 0 {
		d.backend = t.snapshot.Backends[m.Backend].Name
	}
	terms := &m.Tenant.plan.terms
	d.cost, d.inFlight, d.concurrency, d.form = max(m.Cost, 0), m.Tenant.seat.gate.InFlight(), terms.Concurrency, terms.Reject.Headers
	d.verdict, d.would, d.status, d.asked, d.met = *v, Verdict{}, status, 0, 0
	if m.Reason != Passed {
		d.verdict.Reason = m.Reason
		return
	}
	d.would = m.Tenant.would(v, m.Route.index, now, m.Cost)
	d.met = len(m.passes.told(now, d.breakers[:0], recentBreakers))
	d.asked = len(m.Tenant.levels(m.Tenant.plan.on(m.Route.index), now, d.levels[:0], recentLevels))
}

// Find returns how the latest denial with that request id was decided, and when, on the clock of Remember; false when it is not
// among those remembered. t is the table in force: as long as its documents are those of then, the trace shows the rules
// that did not stand as well.
func (r *Recent) Find(t *Table, id string) (trace Trace, now int64, ok bool) {
	last := r.next.Load() // the ring was made before the first was counted
	for number := last; number > 0 && number+RecentDenials > last; number-- {
		d := &r.ring[number%RecentDenials]
		d.mu.Lock()
		if d.number != 0 && string(d.id[:d.idSize]) == id {
			trace, now = d.trace(t), d.now
			ok = true
		}
		d.mu.Unlock()
		if ok {
			return trace, now, true
		}
	}
	return Trace{}, 0, false
}

// trace is Table.trace of what was remembered. The denial is locked.
func (d *denial) trace(t *Table) Trace {
	f := facts{
		identity: string(d.tenant[:d.tenantSize]), source: d.source, fault: d.fault, known: d.known, nobody: d.nobody, route: -1, backend: -1,
		cost: d.cost, inFlight: d.inFlight, breakers: d.breakers[:d.met], levels: d.levels[:d.asked], verdict: d.verdict, would: d.would, status: d.status,
	}
	var told Trace
	if d.hash == t.snapshot.Hash {
		f.route = indexOf(t.snapshot.Routes, d.route, func(r *policy.Route) string { return r.Name })
		f.backend = indexOf(t.snapshot.Backends, d.backend, func(b *policy.Backend) string { return b.Name })
		terms := t.snapshot.Plan(t.policiesOf(&f))
		told = t.trace(&f, &terms)
	} else {
		told = d.bareTrace(&f)
	}
	if d.met == recentBreakers {
		told.Notes = append(told.Notes, fmt.Sprintf("the levels of %d breakers are remembered, and no more", recentBreakers))
	}
	if d.asked == recentLevels {
		told.Notes = append(told.Notes, fmt.Sprintf("the levels of %d limits are remembered, and no more", recentLevels))
	}
	if d.pathSize == len(d.path) {
		told.Notes = append(told.Notes, fmt.Sprintf("%d bytes of the path are remembered, and no more", len(d.path)))
	}
	told.Recorded, told.RequestID = true, string(d.id[:d.idSize])
	told.Request = TraceRequest{Method: string(d.method[:d.methodSize]), Host: string(d.host[:d.hostSize]), Path: string(d.path[:d.pathSize]), Cost: d.cost}
	if d.client.IsValid() {
		told.Request.Client = d.client.String()
	}
	return told
}

// bareTrace is what is known of a decision under documents that have changed since: what was asked, and no more.
func (d *denial) bareTrace(f *facts) Trace {
	told := Trace{
		Notes:    []string{"the documents have changed since: of the rules of then, those that were asked are shown"},
		Identity: TraceIdentity{Tenant: f.identity, Source: f.source, Fault: faultText(f.fault)},
		Tenant:   TraceTenant{Known: f.known, Policies: []string{}, InFlight: f.inFlight, Concurrency: d.concurrency},
		Route:    TraceRoute{Name: d.route}, Backend: TraceBackend{Name: d.backend},
		Limits: []TraceLimit{}, Terms: []TraceTerm{},
	}
	for i := range f.breakers {
		told.Breakers = append(told.Breakers, f.breakers[i].told())
	}
	terms := policy.Plan{Concurrency: d.concurrency, Reject: policy.Reject{Headers: d.form}}
	for i := range f.levels {
		l := &f.levels[i]
		rule := ruleOf(&l.limit.rule)
		rule.State, rule.Level = RuleAsked, l.told(f.cost)
		if !f.verdict.decided() {
			rule.State = RuleNotAsked
		}
		told.Limits = append(told.Limits, rule)
		terms.Limits = append(terms.Limits, l.limit.rule)
	}
	f.tell(&told, &terms)
	return told
}

// indexOf returns the index of what has that name; -1: none.
func indexOf[T any](all []T, name string, nameOf func(*T) string) int {
	for i := range all {
		if nameOf(&all[i]) == name {
			return i
		}
	}
	return -1
}
