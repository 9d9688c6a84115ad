package admit

import "testing"

// requestsOf reads the counter of a label.
func requestsOf(r *requests, route string, reason Reason, class int) uint64 {
	if c := r.of(route)[reason].Load(); c != nil {
		return c[class].Load()
	}
	return 0
}

func TestSettleEveryMatch(t *testing.T) {
	r := newRig(t, `
		TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 1, per: 1h}]}
		TenantPolicy q {tenants: {match: "eu-*"}}
		Route shop {match: [{path: /shop/*}], backend: main}`)
	f := func(m Match, o Outcome, label, route string, class int) {
		t.Helper()
		counts := r.table.others
		if m.Tenant.own != nil {
			counts = m.Tenant.own.requests
		}
		before := requestsOf(counts, route, o.Reason, class)
		v := Verdict{}
		if m.Reason == Passed {
			v = r.table.Decide(r.now, &m)
		}
		r.table.Settle(&m, &v, o)
		if got := requestsOf(counts, route, o.Reason, class); got != before+1 || m.Tenant.Label() != label || m.Route.Name() != route {
			t.Errorf("unexpected count for %+v: went from %d to %d under %q, route %q; want one more under %q, route %q",
				o, before, got, m.Tenant.Label(), m.Route.Name(), label, route)
		}
		if n := m.Tenant.seat.gate.InFlight(); n != 0 {
			t.Errorf("%+v: unexpected requests in flight: got %d, want 0", o, n)
		}
	}
	match := func(tenant, path string) Match { return r.table.Match(r.now, requestOf(tenant, path)) }

	// Passed, by a named tenant and by one on demand.
	f(match("acme", "/shop/1"), Outcome{Reason: Passed, Status: 201}, "acme", "shop", 2)
	f(match("eu-1", "/shop/1"), Outcome{Reason: Passed, Status: 304}, otherLabel, "shop", 3)
	// Denied, and failed behind us.
	f(match("acme", "/shop/1"), Outcome{Reason: Limited, Status: 429}, "acme", "shop", 4)
	f(match("eu-1", "/shop/1"), Outcome{Reason: BackendRefused, Status: 502}, otherLabel, "shop", 5)
	// Refused before there was a tenant, a route, or anything.
	f(match("", "/shop/1"), Outcome{Reason: NoIdentity, Status: 401}, noneLabel, "shop", 4)
	f(match("nobody", "/shop/1"), Outcome{Reason: UnknownTenant, Status: 403}, noneLabel, "shop", 4)
	f(match("acme", "/elsewhere"), Outcome{Reason: NoRoute, Status: 404}, "acme", "", 4)
	f(r.table.Nobody(BadRequest), Outcome{Reason: BadRequest, Status: 400}, noneLabel, "", 4)
	f(r.table.Nobody(Internal), Outcome{Reason: Internal, Status: 500}, noneLabel, "", 5)
	// Statuses that are none.
	f(r.table.Nobody(ClientGone), Outcome{Reason: ClientGone, Status: 0}, noneLabel, "", 0)
	f(r.table.Nobody(Internal), Outcome{Reason: Internal, Status: 999}, noneLabel, "", 0)
	f(r.table.Nobody(Internal), Outcome{Reason: Internal, Status: -200}, noneLabel, "", 0)
}

func TestSettleTwice(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {names: [acme]}, concurrency: {max: 1}}`)
	f := func(m *Match, v *Verdict) {
		t.Helper()
		r.settle(m, v)
		defer func() {
			if recover() == nil {
				t.Error("the second Settle did not panic")
			}
			if n := m.Tenant.seat.gate.InFlight(); n != 0 {
				t.Errorf("unexpected requests in flight: got %d, want 0", n)
			}
		}()
		r.settle(m, v)
	}

	f(r.open("acme", "/"))
	f(r.open("", "/"))
	nobody := r.table.Nobody(BadRequest)
	f(&nobody, &Verdict{Reason: BadRequest})
}

func TestSettleConcurrently(t *testing.T) {
	const workers, each = 4, 2000
	r := newRig(t, `TenantPolicy p {tenants: {any: true}}`)
	done := make(chan struct{})
	for range workers {
		go func() {
			for i := range each {
				m := r.table.Match(r.now, requestOf("acme", "/"))
				v := r.table.Decide(r.now, &m)
				r.table.Settle(&m, &v, Outcome{Reason: Reason(i % ReasonCount), Status: 200})
			}
			done <- struct{}{}
		}()
	}
	for range workers {
		<-done
	}
	sum := uint64(0)
	for reason := range ReasonCount {
		sum += requestsOf(r.table.others, r.table.routes[0].name, Reason(reason), 2)
	}
	if sum != workers*each {
		t.Errorf("unexpected number of requests counted: got %d, want %d", sum, workers*each)
	}
}
