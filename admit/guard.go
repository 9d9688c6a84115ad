package admit

import "weir/breaker"

// pass is what one breaker said to a request.
type pass struct {
	watch *watch
	breaker.Pass
}

// Passes are what breakers said to one request. The zero value is ready for use, again after each Settle. More than four breakers for
// one request are rare, and cost an allocation.
type Passes struct {
	n    int
	few  [4]pass
	more []pass
}

func (p *Passes) add(w *watch, said breaker.Pass) {
	if p.n < len(p.few) {
		one := &p.few[p.n]
		one.watch, one.Pass = w, said
	} else {
		p.more = append(p.more, pass{w, said})
	}
	p.n++
}

// met is how many breakers the request has met.
func (p *Passes) met() int {
	if p == nil {
		return 0
	}
	return p.n
}

func (p *Passes) forget() {
	if n := p.met(); n > 0 {
		clear(p.few[:min(n, len(p.few))])
		p.more, p.n = nil, 0
	}
}

func (p *Passes) at(i int) *pass {
	if i < len(p.few) {
		return &p.few[i]
	}
	return &p.more[i-len(p.few)]
}

// offer counts the request, by whether its limits let it pass, for every breaker that it has met.
func (p *Passes) offer(stripe uint32, within bool) {
	for i := range p.met() {
		p.at(i).watch.Offer(stripe, within)
	}
}

// record tells the breakers how the request ended, and lets go of them.
func (p *Passes) record(stripe uint32, o *Outcome) {
	for i := range p.met() {
		one := p.at(i)
		w := one.watch
		outcome, slow := blame(o, w.cell.terms.Load())
		w.Record(one.Pass, stripe, outcome, slow)
		if w.tenant != "" {
			w.flying.Add(-1)
		}
	}
	p.forget()
}

// blame says how a request ended as far as the target of a breaker is to blame: for what breaks the call, for the statuses that
// the policy lists, and for answers that are slow. Neither a client that leaves or sends garbage nor anything that we refuse
// ourselves is its fault; but who leaves because there is no answer tells of a target that is slow.
func blame(o *Outcome, terms *breakerTerms) (outcome breaker.Outcome, slow bool) {
	slow = terms.slowerThan > 0 && (o.Latency > terms.slowerThan || o.Awaited > terms.slowerThan)
	if o.Status == 101 {
		return breaker.Success, slow // whatever became of the connection after that
	}
	switch o.Reason {
	case Passed:
		if o.Status >= 0 && o.Status < len(terms.failed) && terms.failed[o.Status] {
			return breaker.Failure, slow
		}
		return breaker.Success, slow
	case BackendRefused, BackendReset, BackendProtocol, ConnectTimeout, ResponseTimeout, BodyIdleTimeout:
		return breaker.HardFailure, slow
	case RequestTimeout:
		if o.Awaited > 0 {
			return breaker.HardFailure, slow
		}
	case ClientGone:
		if o.Awaited > 0 && slow {
			return breaker.Success, true
		}
	}
	return breaker.Ignored, false
}

// meet asks the breakers of a request's route and of its backend. Where one of them turns it away, it is refused.
func (t *Table) meet(now int64, m *Match, v *Verdict) bool {
	for _, c := range m.Route.breakers {
		t.askBreaker(c, now, m, v)
	}
	for _, c := range t.guards[m.Backend] {
		t.askBreaker(c, now, m, v)
	}
	if v.Reason == Passed {
		return true
	}
	t.turnAway(now, m, v)
	return false
}

// askBreaker asks one breaker. A rehearsal makes none, and takes no probe.
func (t *Table) askBreaker(c *breakerCell, now int64, m *Match, v *Verdict) {
	if t.rehearsed != nil {
		if w := t.rehearsed.glanceBreaker(c, m.Tenant.name); w != nil {
			v.heed(c, w.Ask(now, m.random, m.Route.core))
		}
		return
	}
	w := c.all
	if c.tenants != nil {
		if w = t.breakerOf(c, m.Tenant.name, now); w != c.all {
			w.flying.Add(1)
		}
	}
	p := w.Admit(now, m.random, m.Route.core)
	if m.passes == nil {
		m.passes = new(Passes)
	}
	m.passes.add(w, p)
	if !p.OK() {
		v.heed(c, p)
	}
}

// heed takes over what one breaker says, if it is the strictest so far.
func (v *Verdict) heed(c *breakerCell, p breaker.Pass) {
	said := Verdict{Breaker: c.name, RetryAfter: p.RetryAfter}
	switch p.Answer {
	case breaker.Shed:
		said.Reason = Shed
	case breaker.Refused:
		said.Reason = BreakerOpen
	}
	*v = stricter(*v, said)
}

// turnAway refuses a request that a breaker does not let through. Its limits are only looked at: a breaker must know whether they would
// have let it pass, and one that nothing would ever let pass is told so.
func (t *Table) turnAway(now int64, m *Match, v *Verdict) {
	tn := m.Tenant
	said, by := tn.look(tn.plan.on(m.Route.index).enforced, now, m.Cost)
	m.passes.offer(m.random, by == nil && tn.seat.gate.InFlight() < tn.plan.most)
	if *v = stricter(*v, said); v.Limit != nil {
		tn.decisions(by).deny.Add(1)
	}
	v.firm = true
	t.compare(now, m, v)
}
