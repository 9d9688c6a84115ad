package upstream

import (
	"net"
	"strconv"
	"sync/atomic"

	"weir/policy"
	"weir/proxy/certs"
)

// endpoint is one address of one backend: what is known of it, and everybody's connections to it. It outlives snapshots: sets
// adopt it by the backend's name, its address and the TLS settings. Safe for concurrent use.
type endpoint struct {
	network, address string
	client           *certs.Client   // adopted itself as long as its settings are the same; nil: plain HTTP
	tls              *certs.Endpoint // nil: plain HTTP

	inFlight atomic.Int64 // requests that chose it
	retired  atomic.Bool  // no roster of the present has it
	pool     *pool        // with pool.perTenant the tenants' lanes have their own
	vitals   vitals
}

func newEndpoint(s *shared, st *stats, network, address string, client *certs.Client) *endpoint {
	e := &endpoint{network: network, address: address, client: client}
	if client != nil {
		e.tls = client.Endpoint(address)
	}
	e.pool = newPool(s, &st.quota, e)
	return e
}

// member is an endpoint in a roster, with its part of the traffic.
type member struct {
	*endpoint
	weight uint64
	upTo   uint64 // weights of all members up to and including this one
	seed   uint64 // of the address, for byHash
}

// roster is the endpoints of a backend at one moment. It is immutable: a change makes another one, so a request chooses
// without a lock.
type roster struct {
	all    []member
	usable []member // the healthy ones, or all of them in a panic
	panic  bool     // so many are out that the rest could not bear the load
}

// newRoster takes the endpoints that are out away from the choice, unless they are more than half of all. With half of them gone
// the others have twice their load, which most services are sized for; beyond that ejecting makes a failure worse, and it is
// likelier that the judgement is wrong: a check that is misconfigured, or a network that is ours.
func newRoster(all []member) *roster {
	r := &roster{all: weighed(all)}
	var usable []member
	for _, m := range all {
		if !m.vitals.isOut() {
			usable = append(usable, m)
		}
	}
	switch out := len(all) - len(usable); {
	case out == 0:
		r.usable = r.all
	case 2*out > len(all):
		r.usable, r.panic = r.all, true
	default:
		r.usable = weighed(usable)
	}
	return r
}

// weighed sums up the weights.
func weighed(members []member) []member {
	var total uint64
	for i := range members {
		total += members[i].weight
		members[i].upTo = total
	}
	return members
}

// find returns the endpoint at an address and with that TLS, or nil. A retired one is not used again: its connections close.
func (r *roster) find(network, address string, client *certs.Client) *endpoint {
	if r == nil {
		return nil
	}
	for i := range r.all {
		if e := r.all[i].endpoint; e.address == address && e.network == network && e.client == client && !e.retired.Load() {
			return e
		}
	}
	return nil
}

func (r *roster) has(e *endpoint) bool {
	for i := range r.all {
		if r.all[i].endpoint == e {
			return true
		}
	}
	return false
}

// addresses are where the backend is: as written, or as its name was last found.
func (b *Backend) addresses() []policy.EndpointSettings {
	if b.names == nil {
		return b.settings.Endpoints
	}
	var all []policy.EndpointSettings
	port := strconv.Itoa(b.settings.DNS.Port)
	for _, a := range b.names.known() {
		all = append(all, policy.EndpointSettings{Network: "tcp", Address: net.JoinHostPort(a.String(), port), Weight: 1})
	}
	return all
}

// draw makes the backend's roster of the present. Endpoints are taken over from the rosters given, which may be nil, the first
// that has one; others are new.
func (b *Backend) draw(from ...*roster) *roster {
	addresses := b.addresses()
	all := make([]member, 0, len(addresses))
	for _, a := range addresses {
		var e *endpoint
		for _, r := range from {
			if e = r.find(a.Network, a.Address, b.client); e != nil {
				break
			}
		}
		if e == nil {
			e = newEndpoint(b.shared, b.stats, a.Network, a.Address, b.client)
		}
		all = append(all, member{endpoint: e, weight: uint64(a.Weight), seed: hashOf(a.Address)})
	}
	return newRoster(all)
}

// redraw puts a new roster in force in place of old, and retires the endpoints that it no longer has.
func (s *Set) redraw(b *Backend, old *roster) {
	next := b.draw(b.roster.Load(), old)
	b.roster.Store(next)
	if old == nil {
		return
	}
	for i := range old.all {
		if e := old.all[i].endpoint; !next.has(e) {
			s.retire(b, e)
		}
	}
	if next.panic != old.panic {
		line := s.shared.logger.Info()
		what := "enough endpoints are healthy again: the others are not used"
		if next.panic {
			line, what = s.shared.logger.Warn(), "more than half of the endpoints are out: all are used"
		}
		line.Str("backend", b.settings.Name).Int("out", next.out()).Int("endpoints", len(next.all)).Msg(what)
	}
}

// out counts the endpoints that health has taken out, whether they are used all the same or not.
func (r *roster) out() (n int) {
	for i := range r.all {
		if r.all[i].vitals.isOut() {
			n++
		}
	}
	return n
}

// retire lets go of an endpoint: idle connections close at once, others at their Release.
func (s *Set) retire(b *Backend, e *endpoint) {
	e.retired.Store(true)
	pools := append(b.lanes.take(e), e.pool)
	for _, p := range pools {
		p.retire()
	}
	s.leaving = append(s.leaving, pools...)
	s.shared.logger.Info().Str("backend", b.settings.Name).Str("endpoint", e.address).
		Int64("in_flight", e.inFlight.Load()).Msg("endpoint retired")
}
