package admit

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weir/policy"
)

// stream is one direction of a request that goes on.
type stream struct {
	*Meter
	r *rig
}

func (r *rig) stream(tenant, path string) stream {
	r.Helper()
	m, v := r.open(tenant, path)
	if v.Reason != Passed {
		r.Fatalf("unexpected verdict: %v", v.Reason)
	}
	meter := r.table.Meter(m)
	return stream{&meter, r}
}

// wants begins a piece and compares how long it has to wait.
func (s stream) wants(n int, want time.Duration) {
	s.r.Helper()
	s.Begin(n)
	s.still(want)
}

// still compares how long the piece has to wait.
func (s stream) still(want time.Duration) {
	s.r.Helper()
	if got := s.Wait(s.r.now); got != want {
		s.r.Errorf("unexpected wait: got %v, want %v", got, want)
	}
}

func TestMeter(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {names: [acme, globex]}, limits: [{name: traffic, bytes: 1000, burst: 3000}]}`)
	s := r.stream("acme", "/")
	s.wants(3000, 0)
	s.wants(1000, time.Second)
	r.wait(400 * time.Millisecond)
	s.still(600 * time.Millisecond)
	r.wait(600 * time.Millisecond)
	s.still(0)
	// Asked again, it has passed: nothing is debited twice.
	s.still(0)
	r.wantAvailable("acme", "traffic", 0)
	// Another stream of the tenant stands behind this one; both directions of one request are two.
	s.wants(500, 500*time.Millisecond)
	other := r.stream("acme", "/")
	other.wants(500, time.Second)
	r.wait(500 * time.Millisecond)
	s.still(0)
	s.wants(500, time.Second)
	other.still(500 * time.Millisecond)
	// Another tenant has a bucket of its own.
	r.stream("globex", "/").wants(3000, 0)
	// Requests are not refused meanwhile.
	r.wantPasses("acme", 100, 100)
}

// A tenant without limits in bytes, and the zero value, have nothing to ask.
func TestMeterOff(t *testing.T) {
	r := newRig(t, `
		Route r {backend: main, match: [{path: /r}]}
		Route s {backend: main, match: [{path: /s}]}
		TenantPolicy p {tenants: {names: [acme]}, limits: [{name: steady, requests: 1000}, {name: traffic, bytes: 1000, routes: [r]}]}`)
	var zero Meter
	if zero.On() || zero.Wait(r.now) != 0 || zero.Piece() != math.MaxInt || zero.Delays() != 0 {
		t.Error("the zero value limits something")
	}
	if s := r.stream("acme", "/s"); s.On() {
		t.Error("a limit of another route applies")
	}
	if s := r.stream("acme", "/r"); !s.On() {
		t.Error("the limit does not apply on its route")
	}
}

// Who shares a bucket means the same as for requests.
func TestMeterBuckets(t *testing.T) {
	f := func(bucket string, otherRoute, otherTenant time.Duration) {
		t.Helper()
		r := newRig(t, `
			Route a {backend: main, match: [{path: /a}]}
			Route b {backend: main, match: [{path: /b}]}
			TenantPolicy p {tenants: {any: true}, limits: [{name: traffic, bytes: 1000, bucket: `+bucket+`}]}`)
		r.stream("acme", "/a").wants(1000, 0)
		r.stream("acme", "/b").wants(1000, otherRoute)
		r = newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [{name: traffic, bytes: 1000, bucket: `+bucket+`}]}`)
		r.stream("acme", "/").wants(1000, 0)
		r.stream("globex", "/").wants(1000, otherTenant)
	}

	f("Tenant", time.Second, 0)
	f("TenantAndRoute", 0, 0)
	f("Shared", time.Second, time.Second)
}

// Of several limits the longest wait holds, and who waits for his own takes nothing of what he shares.
func TestMeterSeveral(t *testing.T) {
	f := func(limits string) {
		t.Helper()
		r := newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [`+limits+`]}`)
		s := r.stream("acme", "/")
		s.wants(1000, 0)
		s.wants(1000, time.Second)
		r.wantAvailable("acme", "ceiling", 9000)
		r.wait(time.Second)
		s.still(0)
		r.wantAvailable("acme", "ceiling", 8000)
	}
	own, ceiling := `{name: own, bytes: 1000}`, `{name: ceiling, bytes: 1, per: 1h, burst: 10000, bucket: Shared}`
	f(own + ", " + ceiling)
	f(ceiling + ", " + own)

	r := newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [{name: a, bytes: 1000}, {name: b, bytes: 500, burst: 1000}, {name: c, bytes: 2000}]}`)
	r.stream("acme", "/").wants(1000, 0)
	if waited := r.transfer("acme", "/", 1000); waited != 2*time.Second {
		t.Errorf("unexpected wait: got %v, want 2s, that of b", waited)
	}
	if waited := r.transfer("acme", "/", 500, 500, 500, 500); waited != 4*time.Second {
		t.Errorf("unexpected wait: got %v, want 4s", waited)
	}
}

// A limit in shadow is debited, delays nobody, and counts whom it would have.
func TestMeterShadow(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: dark, bytes: 1000, mode: Shadow}, {name: traffic, bytes: 1000000}]}`)
	counts := func(limit int) [4]uint64 {
		d := r.table.named["acme"].own.decisions[limit]
		return [4]uint64{d.allow.Load(), d.delay.Load(), d.shadowDelay.Load(), d.bytes.Load()}
	}
	f := func(want time.Duration, dark, traffic [4]uint64, pieces ...int) {
		t.Helper()
		if got := r.transfer("acme", "/", pieces...); got != want {
			t.Errorf("unexpected wait: got %v, want %v", got, want)
		}
		if diff := cmp.Diff([2][4]uint64{dark, traffic}, [2][4]uint64{counts(0), counts(1)}); diff != "" {
			t.Errorf("unexpected counts (-want +got):\n%s", diff)
		}
	}
	f(0, [4]uint64{1, 0, 0, 1000}, [4]uint64{1, 0, 0, 1000}, 1000)
	f(0, [4]uint64{1, 0, 1, 1100}, [4]uint64{2, 0, 0, 1100}, 50, 50)
	// A request without a body was never delayed.
	f(0, [4]uint64{2, 0, 1, 1100}, [4]uint64{3, 0, 0, 1100})
	f(time.Second, [4]uint64{2, 0, 2, 2000000}, [4]uint64{3, 1, 0, 2000000}, 1000000, 1000000-1100)
	// Clients are told of the enforced one alone, with its unit.
	m, v := r.open("acme", "/")
	want := []LimitState{{Name: "traffic", Policy: "p", Unit: policy.UnitBytes, Requests: 1e6, Per: time.Second, Burst: 1e6, Next: time.Microsecond, Reset: time.Second}}
	if diff := cmp.Diff(want, r.table.Limits(r.now, m, nil)); diff != "" {
		t.Errorf("unexpected limits (-want +got):\n%s", diff)
	}
	r.settle(m, v)
}

func TestMeterPiece(t *testing.T) {
	f := func(limits string, want int) {
		t.Helper()
		r := newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [`+limits+`]}`)
		if got := r.stream("acme", "/").Piece(); got != want {
			t.Errorf("%s: unexpected piece: got %d, want %d", limits, got, want)
		}
	}
	// What refills in 50 ms.
	f("{name: a, bytes: 1000000}", 50000)
	f("{name: a, bytes: 100000000, per: 10s, burst: 20MiB}", 500000)
	// At least 1 KiB, but never more than the bucket holds.
	f("{name: a, bytes: 100}", 100)
	f("{name: a, bytes: 100, burst: 1MiB}", 1<<10)
	f("{name: a, bytes: 1000000, burst: 700}", 700)
	f("{name: a, bytes: 1, per: 744h}", 1)
	// The slowest decides; shadow does not.
	f("{name: a, bytes: 1000000}, {name: b, bytes: 100000}, {name: c, bytes: 2000000}", 5000)
	f("{name: a, bytes: 1000000}, {name: b, bytes: 100, mode: Shadow}", 50000)
	f("{name: b, bytes: 100, mode: Shadow}", math.MaxInt)
}

// Whoever waits feels a changed limit, raised or lowered, as soon as he looks.
func TestMeterChange(t *testing.T) {
	limit := func(terms string) string {
		return `TenantPolicy p {tenants: {any: true}, limits: [{name: traffic, ` + terms + `}]}`
	}
	r := newRig(t, limit("bytes: 1000, per: 1h"))
	s := r.stream("acme", "/")
	s.wants(1000, 0)
	s.wants(1000, time.Hour)
	r.swap(limit("bytes: 1000, per: 1m"))
	r.stream("acme", "/").wants(0, time.Minute) // a tenant on demand is brought along by whoever comes
	s.still(time.Minute)
	r.wait(30 * time.Second)
	r.swap(limit("bytes: 1000, per: 2m"))
	r.stream("acme", "/").wants(0, time.Minute)
	s.still(time.Minute)
	r.wait(time.Minute)
	s.still(0)
	// One whose wait is over is not held up again by a change.
	s.wants(1000, 2*time.Minute)
	r.wait(2 * time.Minute)
	r.swap(limit("bytes: 1000, per: 1h, burst: 500"))
	r.stream("acme", "/").Begin(0)
	s.still(0)
}

// A limit of the same name in another unit is another limit: debts in bytes are none in requests.
func TestMeterUnitChange(t *testing.T) {
	f := func(bucket string) {
		t.Helper()
		limit := func(terms string) string {
			return `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: x, per: 1h, bucket: ` + bucket + `, ` + terms + `}]}`
		}
		r := newRig(t, limit("bytes: 10MiB"))
		r.stream("acme", "/").Begin(1)
		r.transfer("acme", "/", 10<<20, 1000)
		r.swap(limit("requests: 5"))
		r.wantPasses("acme", 10, 5)
		r.swap(limit("bytes: 10MiB"))
		if waited := r.transfer("acme", "/", 10<<20); waited != 0 {
			t.Errorf("%s: unexpected wait: %v", bucket, waited)
		}
	}
	f("Tenant")
	f("TenantAndRoute")
	f("Shared")
}

// A tenant on demand that owes bytes keeps its place until they are paid.
func TestMeterKeepsCell(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [{name: traffic, bytes: 1000}]}`)
	r.transfer("acme", "/", 1000)
	cell := r.table.cell("acme")
	if cell.atRest(r.now) {
		t.Error("a cell that owes is at rest")
	}
	if r.wait(time.Second); !cell.atRest(r.now) {
		t.Error("a cell that owes nothing is not at rest")
	}
}

func TestMeterAllocatesNothing(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [{name: a, bytes: 1000}, {name: b, bytes: 1000, bucket: Shared}, {name: c, bytes: 1, mode: Shadow}]}`)
	req := requestOf("", "/")
	req.Header = &byteField{"X-Tenant-ID", []byte("acme")}
	n := testing.AllocsPerRun(1000, func() {
		m := r.table.Match(r.now, req)
		v := r.table.Decide(r.now, &m)
		meter := r.table.Meter(&m)
		for range 3 {
			meter.Begin(meter.Piece())
			for wait := meter.Wait(r.now); wait > 0; wait = meter.Wait(r.now) {
				r.wait(wait)
			}
		}
		r.table.Settle(&m, &v, Outcome{Reason: Passed, Status: 200, Delays: meter.Delays()})
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
