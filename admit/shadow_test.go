package admit

import (
	"testing"
	"time"
)

func TestDecideShadow(t *testing.T) {
	r := newRig(t, `
		TenantPolicy p {tenants: {names: [acme]}, limits: [{name: dark, requests: 3, per: 1h, mode: Shadow}, {name: light, requests: 10, per: 1h}]}
		TenantPolicy q {tenants: {names: [globex]}, limits: [{name: none, requests: 0, mode: Shadow}]}`)
	r.wantPasses("acme", 20, 10)
	r.wantPasses("globex", 5, 5)
	counts := func(tenant string, limit int) [3]uint64 {
		d := r.table.named[tenant].own.decisions[limit]
		return [3]uint64{d.allow.Load(), d.deny.Load(), d.shadowDeny.Load()}
	}
	// It spends for itself; what light denied is not shown to it.
	if got, want := counts("acme", 0), [3]uint64{3, 0, 7}; got != want {
		t.Errorf("unexpected decisions in shadow: got %v, want %v", got, want)
	}
	if got, want := counts("acme", 1), [3]uint64{10, 10, 0}; got != want {
		t.Errorf("unexpected decisions: got %v, want %v", got, want)
	}
	if got, want := counts("globex", 0), [3]uint64{0, 0, 5}; got != want {
		t.Errorf("unexpected decisions of a block in shadow: got %v, want %v", got, want)
	}
	// Clients are not told of it.
	m, v := r.open("acme", "/")
	if got := r.table.Limits(r.now, m, nil); len(got) != 1 || got[0].Name != "light" {
		t.Errorf("unexpected limits to tell: got %+v, want light alone", got)
	}
	r.settle(m, v)
}

// shadow returns what was compared for a tenant: requests by enforced and shadow verdict, pass before deny.
func (r *rig) shadow(tenant string) [4]uint64 {
	s := &r.table.named[tenant].requests().shadow
	return [4]uint64{s[0][0].Load(), s[0][1].Load(), s[1][0].Load(), s[1][1].Load()}
}

func (r *rig) wantShadow(tenant string, want [4]uint64) {
	r.Helper()
	if got := r.shadow(tenant); got != want {
		r.Errorf("%q: unexpected comparison (pass/pass, pass/deny, deny/pass, deny/deny): got %v, want %v", tenant, got, want)
	}
}

// wantTrial makes one request and compares both verdicts, each by the limit that refuses, or would; "" for none.
func (r *rig) wantTrial(tenant, path, enforced, shadow string) {
	r.Helper()
	name := func(l *Limit) string {
		if l == nil {
			return ""
		}
		return l.Policy() + "/" + l.Name()
	}
	if v := r.try(tenant, path); name(v.Limit) != enforced || name(v.Shadow) != shadow {
		r.Errorf("%q for %s: unexpected limits: refused by %q, in shadow by %q, want %q and %q", tenant, path, name(v.Limit), name(v.Shadow), enforced, shadow)
	}
}

// A trial of a wider limit beside the enforced one of its name: the shadow is asked in its place, also where that refuses.
func TestShadowInPlaceOfItsName(t *testing.T) {
	r := newRig(t, `
		TenantPolicy base {tenants: {any: true}, limits: [{name: steady, requests: 2, per: 1h}]}
		TenantPolicy trial {tenants: {names: [acme]}, limits: [{name: steady, requests: 5, per: 1h, mode: Shadow}]}`)
	for range 2 {
		r.wantTrial("acme", "/", "", "")
	}
	for range 3 {
		r.wantTrial("acme", "/", "base/steady", "")
	}
	for range 4 {
		r.wantTrial("acme", "/", "base/steady", "trial/steady")
	}
	r.wantShadow("acme", [4]uint64{2, 0, 3, 4})
	// Those without a trial have what they had.
	r.wantPasses("globex", 5, 2)
}

// A trial of a narrower one, by a policy whose limit is final or not: it lifts nothing and refuses nothing.
func TestShadowLiftsNothing(t *testing.T) {
	f := func(limit string) {
		t.Helper()
		r := newRig(t, `
			TenantPolicy base {tenants: {any: true}, limits: [`+limit+`]}
			TenantPolicy trial {tenants: {names: [acme]}, limits: [{name: steady, requests: 1, per: 1h, mode: Shadow, final: true}]}`)
		r.wantTrial("acme", "/", "", "")
		r.wantTrial("acme", "/", "", "trial/steady")
		r.wantTrial("acme", "/", "base/steady", "trial/steady")
		r.wantShadow("acme", [4]uint64{1, 1, 0, 1})
	}

	f("{name: steady, requests: 2, per: 1h}")
	f("{name: steady, requests: 2, per: 1h, final: true}")
	f("{name: steady, requests: 2, per: 1h, bucket: Shared}")
}

// What a limit of another name refuses would be refused all the same: the shadow does not see it.
func TestShadowSeesWhatItWouldSee(t *testing.T) {
	r := newRig(t, `
		TenantPolicy base {tenants: {any: true}, concurrency: {max: 1}, limits: [{name: steady, requests: 1, per: 1h}, {name: ceiling, requests: 3, per: 1h}]}
		TenantPolicy trial {tenants: {names: [acme]}, limits: [{name: steady, requests: 10, per: 1h, mode: Shadow}]}`)
	r.wantTrial("acme", "/", "", "")
	r.wantTrial("acme", "/", "base/steady", "")
	r.wantAvailable("acme", "ceiling", 2)
	r.table.named["acme"].buckets()[2].Take(r.now, 2)
	// Both refuse, the one that it stands for first.
	r.wantTrial("acme", "/", "base/steady", "")
	if n := r.table.named["acme"].buckets()[0].Available(r.now); n != 8 {
		t.Errorf("unexpected tokens in shadow: got %d, want 8", n)
	}
	r.wantShadow("acme", [4]uint64{1, 0, 1, 1})
	// Nor does it see what the gate refuses.
	r.wait(time.Hour)
	m, v := r.open("acme", "/")
	r.want("acme", "/", Concurrency, "")
	r.settle(m, v)
	r.wantShadow("acme", [4]uint64{2, 0, 1, 2})
}

// Those in shadow are all or nothing among themselves, and the strictest one is named.
func TestShadowAllOrNothing(t *testing.T) {
	r := newRig(t, "TenantPolicy trial {tenants: {names: [acme]}, limits: [{name: wide, requests: 100, per: 1h, mode: Shadow}, {name: narrow, requests: 2, per: 1h, mode: Shadow}, {name: slow, requests: 2, per: 24h, mode: Shadow}]}")
	for range 2 {
		r.wantTrial("acme", "/", "", "")
	}
	for range 50 {
		r.wantTrial("acme", "/", "", "trial/slow")
	}
	r.wantAvailable("acme", "wide", 98)
	r.wantAvailable("acme", "narrow", 0)
	r.wantShadow("acme", [4]uint64{2, 50, 0, 0})
}

// Where a limit in shadow does not apply, neither would the one that it stands for.
func TestShadowOfOneRoute(t *testing.T) {
	r := newRig(t, `
		TenantPolicy base {tenants: {any: true}, limits: [{name: steady, requests: 1, per: 1h}]}
		TenantPolicy trial {tenants: {names: [acme]}, limits: [{name: steady, requests: 1, per: 1h, routes: [pay], mode: Shadow}]}
		Route pay {match: [{path: /pay}], backend: main}
		Route rest {backend: main}`)
	r.wantTrial("acme", "/pay", "", "")
	r.wantTrial("acme", "/pay", "base/steady", "trial/steady")
	r.wantTrial("acme", "/", "base/steady", "")
	r.wantShadow("acme", [4]uint64{1, 0, 1, 1})
}

// Both buckets of a name are taken over, each by its mode. A limit that changes its mode keeps what was spent, unless there is
// a bucket in its new mode: then that one goes on.
func TestShadowAdopted(t *testing.T) {
	const base = "TenantPolicy base {tenants: {any: true}, limits: [{name: steady, requests: 10, per: 1h}]}"
	trial := func(mode string) string {
		return "TenantPolicy trial {tenants: {names: [acme]}, limits: [{name: steady, requests: 20, per: 1h, mode: " + mode + "}]}"
	}
	f := func(before, after string, want ...int64) {
		t.Helper()
		r := newRig(t, before)
		for range 4 {
			r.try("acme", "/")
		}
		if tn := r.table.named["acme"]; len(tn.buckets()) == 2 {
			tn.buckets()[0].Take(r.now, 3) // so that the two differ
		}
		r.swap(after)
		var got []int64
		buckets := r.table.named["acme"].buckets()
		for i := range buckets {
			got = append(got, buckets[i].Available(r.now))
		}
		if len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("unexpected tokens after the change: got %d, want %d", got, want)
		}
	}

	both := base + "\n" + trial("Shadow")
	// Nothing changes: trial in shadow has spent 7 of 20, base 4 of 10.
	f(both, both, 13, 6)
	// The trial is over: what base has spent is what counts.
	f(both, base+"\n"+trial("Enforce"), 16)
	// Nobody enforced anything: what the shadow saw is what was spent.
	f(trial("Shadow"), trial("Enforce"), 16)
	f(trial("Enforce"), trial("Shadow"), 16)
	// A trial begins with a full bucket; it does not share the enforced one.
	f(base+"\nTenantPolicy gold {tenants: {names: [acme]}}", both, 20, 6)
}
