package admit

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTenants(t *testing.T) {
	r := newRig(t, `
		TenantPolicy gold {tenants: {names: [acme]}, concurrency: {max: 5}, limits: [{name: steady, requests: 10, burst: 20}, {name: dark, requests: 1, per: 1m, mode: Shadow}]}
		TenantPolicy silver {tenants: {names: [globex]}}
		TenantPolicy all {tenants: {any: true}}`)
	r.passes("acme", 4)
	r.open("acme", "/")
	r.open("initech", "/")
	got := r.table.Tenants(r.now)
	want := []TenantState{
		{Name: "acme", InFlight: 1, Concurrency: 5, Weight: 1, Limits: []LimitState{
			{Name: "steady", Policy: "gold", Requests: 10, Per: time.Second, Burst: 20, Available: 15, Next: 100 * time.Millisecond, Reset: 500 * time.Millisecond},
			{Name: "dark", Policy: "gold", Requests: 1, Per: time.Minute, Burst: 1, Next: time.Minute, Reset: time.Minute, Shadow: true},
		}},
		{Name: "globex", Weight: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("unexpected tenants (-want +got):\n%s", diff)
	}
	if got, ok := r.table.Tenant(r.now, "initech"); !ok || got.InFlight != 1 || got.Name != "initech" {
		t.Errorf("unexpected tenant on demand: got %+v, %v", got, ok)
	}
	if got, ok := r.table.Tenant(r.now, "stranger"); ok {
		t.Errorf("unexpected tenant: got %+v, want none", got)
	}
	if got, want := r.table.OnDemand(r.now), (DemandState{Cells: 1, Capacity: 65536}); got != want {
		t.Errorf("unexpected state of tenants on demand: got %+v, want %+v", got, want)
	}
	// Without policies for them there are none.
	r = newRig(t, `TenantPolicy gold {tenants: {names: [acme]}}`)
	if got, want := r.table.OnDemand(r.now), (DemandState{}); got != want {
		t.Errorf("unexpected state of tenants on demand: got %+v, want %+v", got, want)
	}
}

func TestLimits(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {any: true}, concurrency: {max: 3}, limits: [{name: steady, requests: 10, burst: 20}, {name: none, requests: 0}]}`)
	m := r.table.Match(r.now, requestOf("acme", "/"))
	m.Tenant.buckets()[0].Take(r.now, 5)
	m.Tenant.seat.gate.Enter(3)
	want := []LimitState{
		{Name: "steady", Policy: "p", Requests: 10, Per: time.Second, Burst: 20, Available: 15, Next: 100 * time.Millisecond, Reset: 500 * time.Millisecond},
		{Name: "none", Policy: "p", Per: time.Second},
		{Name: "concurrency", Requests: 3, Available: 2, Concurrent: true},
	}
	if diff := cmp.Diff(want, r.table.Limits(r.now, &m, nil)); diff != "" {
		t.Errorf("unexpected limits (-want +got):\n%s", diff)
	}
	// It appends.
	if got := r.table.Limits(r.now, &m, want[:1:1]); len(got) != 4 {
		t.Errorf("unexpected number of limits: got %d, want 4", len(got))
	}
}
