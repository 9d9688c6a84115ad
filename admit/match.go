package admit

import (
	"unsafe"

	"weir/admit/token"
)

// Match is where a request belongs.
type Match struct {
	Reason   Reason  // Passed, NoIdentity, UnknownTenant, NoRoute, or BadRequest for an identity or a cost that is none
	Tenant   *Tenant // never nil: a stand-in for a request that was refused before it had one
	Route    *Route  // never nil: a stand-in where none matched
	Backend  int     // index into Snapshot.Backends; -1 when the request was refused
	Identity []byte  // the tenant as identified, of the request's or the table's bytes; empty when there is none
	Source   int     // index of the identity source that said so; -1: none did
	Cost     int64   // tokens to spend on every limit in requests; -1: its header says no cost
	// Token says why the token is not valid by which the request was to be identified; None where there is no such token.
	Token token.Fault

	random uint32  // the request's
	passes *Passes // likewise; nil until it meets a breaker, if it had none
}

// Match finds a request's tenant, route and backend. It allocates nothing for a tenant that has a cell; the first request of
// a tenant that policy covers without naming it makes one, and the first with a token verifies it.
func (t *Table) Match(now int64, req *Request) Match {
	identity, source, fault := t.identifier.tenant(now, req)
	m := t.match(now, req, identity, source)
	m.Token = fault
	return m
}

// MatchAs is Match for a tenant that is given, whatever the request says: for whoever asks what would become of a request.
func (t *Table) MatchAs(now int64, req *Request, tenant string) Match {
	return t.match(now, req, []byte(tenant), -1)
}

func (t *Table) match(now int64, req *Request, identity []byte, source int) Match {
	m := Match{Backend: -1, Route: t.noRoute, Identity: identity, Source: source, random: req.Random, passes: req.Passes}
	if i := t.router.match(req); i >= 0 {
		m.Route = t.routes[i]
	}
	if m.Tenant, m.Reason = t.tenant(now, m.Identity, m.Source); m.Reason != Passed {
		return m
	}
	if m.Route == t.noRoute {
		m.Reason = NoRoute
		return m
	}
	if m.Cost = m.Route.costOf(req.Header); m.Cost == noCost {
		m.Reason = BadRequest
		return m
	}
	m.Backend = m.Route.target(m.Identity, m.Tenant.plan.terms.Backend, req)
	return m
}

// Challenge is the value of WWW-Authenticate for a match refused with NoIdentity: what would identify its client, and what is wrong with
// the token that was to.
func (t *Table) Challenge(m *Match) string { return t.identifier.challenges[m.Token] }

// Nobody is the match of a message that never got as far: it counts under stand-in cells.
func (t *Table) Nobody(r Reason) Match {
	return Match{Reason: r, Tenant: t.nobody, Route: t.noRoute, Backend: -1, Source: -1}
}

// tenant returns the cell of an identity, or why there is none: the stand-in then.
func (t *Table) tenant(now int64, identity []byte, source int) (*Tenant, Reason) {
	if len(identity) == 0 {
		if source >= 0 {
			return t.nobody, t.identifier.refusal(source)
		}
		return t.orUnknown(NoIdentity)
	}
	if tn := t.find(now, unsafe.String(&identity[0], len(identity))); tn != nil { // whoever keeps the name copies it
		return tn, Passed
	}
	return t.orUnknown(UnknownTenant)
}

// orUnknown is the common cell of requests without a tenant of their own, or the refusal where there is none.
func (t *Table) orUnknown(r Reason) (*Tenant, Reason) {
	if t.unknown != nil {
		return t.unknown, Passed
	}
	return t.nobody, r
}

// find returns the cell of a tenant, made if need be; nil when no policy covers it.
func (t *Table) find(now int64, name string) *Tenant {
	if tn := t.named[name]; tn != nil {
		return tn
	}
	if t.demand == nil {
		return nil
	}
	if tn := t.demand.get(t, now, name); tn != nil {
		return tn
	}
	return t.place(now, name)
}

// place returns the cell of a tenant that policy does not name: its own, made if need be, or the one to share where there
// is no room; nil when no policy covers it.
func (t *Table) place(now int64, name string) *Tenant {
	p := t.planOfUnnamed(name)
	if p == nil {
		return nil
	}
	if tn := t.demand.add(t, p, now, name); tn != nil {
		return tn
	}
	return t.demand.overflowOf(t, p, now)
}

// planOfUnnamed returns the plan of a tenant that policy covers without naming it; nil when none does.
func (t *Table) planOfUnnamed(name string) *plan {
	var few [8]int
	policies := t.snapshot.Covering(name, few[:0])
	if len(policies) == 0 {
		return nil
	}
	return t.planOf(policies)
}
