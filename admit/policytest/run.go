package policytest

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weir/admit"
	"weir/breaker"
	"weir/policy"
)

// begin is the time on a table's clock at which a case begins.
const begin = int64(time.Hour)

// wall is the wall time by which tokens would expire: a case begins in 1970, as it would at any other time.
func wall(now int64) time.Time { return time.Unix(0, now-begin) }

// Result is what became of the requests of a case.
type Result struct {
	Requests []Request // in the order in which they arrived
	// Failures are the expectations that were not met, in the order written.
	Failures []Failure
}

// Request is one request of a case.
type Request struct {
	At     time.Duration // when it arrived, from the start of the case
	Tenant string        // as identified or given; empty when there is none
	Route  string        // empty when none matched
	Reason admit.Reason
	Limit  string // as policy/limit, when one answered
	// Breaker is the BreakerPolicy, when one answered.
	Breaker string
	Retry   time.Duration // what the client was told to wait; 0: nothing

	said []said
}

// said is what one limit said of one request.
type said struct {
	limit                   string
	allow, deny, shadowDeny int
}

// Run runs one case against a snapshot, with full buckets and nothing in flight. The error says that the snapshot cannot be used.
func Run(s *policy.Snapshot, c *policy.TestCase) (*Result, error) {
	table, err := admit.Build(nil, s, begin, admit.Options{Wall: wall})
	if err != nil {
		return nil, fmt.Errorf("cannot use the documents: %w", err)
	}
	table.Adopt(begin)
	r := &run{table: table, looks: make([]look, len(c.Expect)), every: int64(table.TickEvery())}
	r.tick = begin + r.every
	for i := range c.Requests {
		r.schedule(&c.Requests[i])
	}
	for i := range c.Expect {
		if at := c.Expect[i].At; at != nil {
			r.events = append(r.events, event{at: begin + int64(*at), kind: observe, index: i})
		}
	}
	slices.SortStableFunc(r.events, func(a, b event) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.kind, b.kind)) })
	r.play(c)
	return &Result{Requests: r.requests, Failures: r.check(c)}, nil
}

// kind orders what happens at one time: places are given back before they are asked for, and levels are looked at last.
type kind uint8

const (
	arrive kind = iota
	observe
)

// event is what happens at a time that is known from the start.
type event struct {
	at    int64
	kind  kind
	index int // of the request, or of the expectation
	group *policy.TestRequests
}

// run is a case under way.
type run struct {
	table    *admit.Table
	events   []event
	flights  flights
	waiting  []*flight // in a queue, the first to come first
	requests []Request
	looks    []look // by expectation, at the time that it names
	before   []admit.Decisions
	after    []admit.Decisions
	every    int64 // between two ticks; 0: there are no breakers
	tick     int64 // when the next one is
}

// look is what was seen at the time that an expectation names.
type look struct {
	applies   bool  // the limit, to the tenant
	available int64 // tokens of it
	level     breaker.Level
}

func (r *run) schedule(g *policy.TestRequests) {
	for i := range g.Arrivals() {
		r.events = append(r.events, event{at: begin + int64(g.At) + int64(i)*int64(g.Every), kind: arrive, group: g})
	}
}

// play lets everything happen in its order.
func (r *run) play(c *policy.TestCase) {
	for i := range r.events {
		e := &r.events[i]
		r.advance(e.at)
		switch e.kind {
		case arrive:
			r.arrive(e.at, e.group)
		case observe:
			r.looks[e.index] = r.look(e.at, &c.Expect[e.index])
		}
	}
	for at, more := r.next(); more; at, more = r.next() {
		r.advance(at)
	}
}

// advance lets all happen that happens by itself up to now. Breakers are judged after what ends at that moment, and before
// requests arrive.
func (r *run) advance(now int64) {
	for ; r.every > 0 && r.tick <= now; r.tick += r.every {
		r.land(r.tick)
		r.table.Tick(r.tick, noChance, func(admit.BreakerChange) {})
	}
	r.land(now)
}

// noChance leaves the waits of breakers as they are written.
func noChance() float64 { return 0 }

// golden spreads the random numbers of requests evenly: so a breaker that closes again lets through just the share that it says, and
// the same requests each time.
const golden = 0x9e3779b9

// arrive decides on one request.
func (r *run) arrive(now int64, g *policy.TestRequests) {
	index := len(r.requests)
	req := requestOf(g)
	req.Random = uint32(index) * golden
	m := r.match(now, g, req)
	r.requests = append(r.requests, Request{At: time.Duration(now - begin), Tenant: string(m.Identity), Route: m.Route.Name()})
	f := &flight{request: index, match: m, takes: int64(g.Takes), status: g.Status}
	r.noting(f, func() { f.verdict = r.table.Decide(now, &f.match) })
	r.decided(now, f)
	r.resume(now) // one that waits may have been pushed out
}

func (r *run) match(now int64, g *policy.TestRequests, req *admit.Request) admit.Match {
	if g.Tenant != "" {
		return r.table.MatchAs(now, req, g.Tenant)
	}
	return r.table.Match(now, req)
}

// decided notes a verdict, and lets the request fly when it passed, or wait.
func (r *run) decided(now int64, f *flight) {
	if f.verdict.Waits() {
		r.waiting = append(r.waiting, f)
		return
	}
	q := &r.requests[f.request]
	q.Reason, q.Breaker, q.Retry = f.verdict.Reason, f.verdict.Breaker, f.verdict.RetryAfter
	if l := f.verdict.Limit; l != nil {
		q.Limit = l.Policy() + "/" + l.Name()
	}
	if f.verdict.Reason != admit.Passed {
		r.table.Settle(&f.match, &f.verdict, admit.Outcome{Reason: f.verdict.Reason, Status: f.verdict.Reason.Status(), Now: now})
		return
	}
	f.lands = now + f.takes
	r.flights.add(f)
}

// next is when something happens next by itself: a request lands, or has waited for as long as it may.
func (r *run) next() (at int64, more bool) {
	at = math.MaxInt64
	if r.flights.Len() > 0 {
		at, more = r.flights.next(), true
	}
	for _, f := range r.waiting {
		at, more = min(at, f.verdict.Until()), true
	}
	return at, more
}

// land lets all of that happen up to now, in its order.
func (r *run) land(now int64) {
	for at, more := r.next(); more && at <= now; at, more = r.next() {
		for r.flights.Len() > 0 && r.flights.next() <= at {
			f := r.flights.take()
			r.table.Settle(&f.match, &f.verdict, admit.Outcome{Status: f.status, Now: at, Latency: time.Duration(f.takes)})
		}
		r.resume(at)
	}
}

// resume goes on with the requests that wait and for which there is news, or whose time is over.
func (r *run) resume(now int64) {
	for i := 0; i < len(r.waiting); {
		f := r.waiting[i]
		if len(f.verdict.Ready()) == 0 && now < f.verdict.Until() {
			i++
			continue
		}
		r.noting(f, func() {
			select {
			case <-f.verdict.Ready():
			default:
			}
			r.table.Resume(now, &f.match, &f.verdict)
		})
		r.waiting = slices.Delete(r.waiting, i, i+1)
		r.decided(now, f)
		i = 0 // it may have called others
	}
}

// noting takes down what the limits say of a request while do decides on it.
func (r *run) noting(f *flight, do func()) {
	r.before = r.table.Decisions(&f.match, r.before[:0])
	do()
	r.after = r.table.Decisions(&f.match, r.after[:0])
	for i := range r.after {
		a, b := &r.after[i], &r.before[i]
		s := said{a.Policy + "/" + a.Limit, int(a.Allow - b.Allow), int(a.Deny - b.Deny), int(a.ShadowDeny - b.ShadowDeny)}
		if s.allow+s.deny+s.shadowDeny > 0 {
			q := &r.requests[f.request]
			q.said = append(q.said, s)
		}
	}
}

// look sees what an expectation is about.
func (r *run) look(now int64, e *policy.TestExpectation) look {
	var seen look
	for _, b := range r.table.Breakers(now) {
		if b.Breaker == e.Breaker && b.Tenant == r.ownerOf(e) {
			seen.level = b.Level // of one that nobody has met: Normal
		}
	}
	m := r.table.MatchAs(now, requestOf(&policy.TestRequests{Method: "GET", Path: "/"}), e.Tenant)
	state, ok := r.table.Tenant(now, m.Tenant.Name())
	if !ok {
		return seen
	}
	for _, l := range state.Limits {
		if l.Policy+"/"+l.Name == e.Limit {
			seen.available, seen.applies = l.Available, true
		}
	}
	return seen
}

// ownerOf is whose breaker an expectation is about; empty where all tenants have one.
func (r *run) ownerOf(e *policy.TestExpectation) string {
	if b := r.breakerOf(e); b != nil && b.PerTenant {
		return e.Tenant
	}
	return ""
}

// breakerOf is the policy of the breaker that an expectation is about; nil when there is none of that name.
func (r *run) breakerOf(e *policy.TestExpectation) *policy.Breaker {
	all := r.table.Snapshot().Breakers
	for i := range all {
		if all[i].Name == e.Breaker {
			return &all[i]
		}
	}
	return nil
}

func requestOf(g *policy.TestRequests) *admit.Request {
	client, _ := netip.ParseAddr(g.Client) // checked when it was decoded; none is no address
	return &admit.Request{
		Method: []byte(g.Method), Host: []byte(g.Host), Path: []byte(strings.SplitN(g.Path, "?", 2)[0]),
		Header: headers(g.Headers), Peer: client.Unmap(), Client: client.Unmap(),
	}
}

// headers are the fields of a request by name, each once.
type headers map[string]string

// Lookup implements admit.Headers.
func (h headers) Lookup(name string) (value []byte, count int) {
	for n, v := range h {
		if strings.EqualFold(n, name) {
			return bytes.TrimSpace([]byte(v)), 1
		}
	}
	return nil, 0
}

// Nth implements admit.Headers.
func (h headers) Nth(name string, i int) []byte {
	if value, n := h.Lookup(name); i < n {
		return value
	}
	return nil
}
