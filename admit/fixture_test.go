package admit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weir/policy"
)

// snapshotOf compiles documents written one a line as "Kind name {spec}". A backend, and a Sidecar that believes
// X-Tenant-ID from anybody, are added where none is written.
func snapshotOf(t testing.TB, lines string) *policy.Snapshot {
	t.Helper()
	for _, usual := range []string{
		"Backend main {endpoints: [{address: 127.0.0.1:9000}]}",
		"Sidecar weir {identity: [{header: X-Tenant-ID, trust: any}]}",
	} {
		if kind, _, _ := strings.Cut(usual, " "); !strings.Contains(lines, kind+" ") {
			lines += "\n" + usual
		}
	}
	var text strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(lines), "\n") {
		kind, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		name, spec, _ := strings.Cut(rest, " ")
		fmt.Fprintf(&text, "---\napiVersion: %s\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", policy.APIVersion, kind, name, spec)
	}
	docs, problems := policy.Decode("set.yaml", []byte(text.String()))
	for _, p := range problems {
		t.Fatalf("cannot decode: %s", p)
	}
	snap, problems := policy.Compile(docs, policy.CompileOptions{})
	if snap == nil {
		t.Fatalf("cannot compile: %v", problems)
	}
	return snap
}

// rig is a table in use, and a clock that only moves by hand.
type rig struct {
	testing.TB
	table   *Table
	options Options
	now     int64
}

func newRig(t testing.TB, lines string) *rig {
	t.Helper()
	return newRigOf(t, Options{}, lines)
}

func newRigOf(t testing.TB, o Options, lines string) *rig {
	t.Helper()
	r := &rig{TB: t, options: o, now: int64(time.Hour)}
	r.options.Clock = func() int64 { return r.now }
	r.swap(lines)
	return r
}

// swap puts other documents in force.
func (r *rig) swap(lines string) {
	r.Helper()
	next, err := Build(r.table, snapshotOf(r, lines), r.now, r.options)
	if err != nil {
		r.Fatalf("unexpected error: %v", err)
	}
	r.table = next
	r.table.Adopt(r.now)
}

func (r *rig) wait(d time.Duration) { r.now += int64(d) }

// requestOf is a request for a path of a tenant; "" is no identity.
func requestOf(tenant, path string) *Request {
	req := &Request{Method: []byte("GET"), Host: []byte("h"), Path: []byte(path), Header: fieldList(nil), Peer: publicPeer, Client: publicPeer}
	if tenant != "" {
		req.Header = fieldList{{"X-Tenant-ID", tenant}}
	}
	return req
}

// open lets a request in, or not, and leaves it unsettled.
func (r *rig) open(tenant, path string) (*Match, *Verdict) {
	m := r.table.Match(r.now, requestOf(tenant, path))
	v := Verdict{Reason: m.Reason}
	if m.Reason == Passed {
		v = r.table.Decide(r.now, &m)
	}
	return &m, &v
}

func (r *rig) settle(m *Match, v *Verdict) {
	status := 200
	if v.Reason != Passed {
		status = v.Reason.Status()
	}
	r.table.Settle(m, v, Outcome{Reason: v.Reason, Status: status, Now: r.now})
}

// try makes one whole request.
func (r *rig) try(tenant, path string) Verdict {
	m, v := r.open(tenant, path)
	r.settle(m, v)
	return *v
}

// spend makes one whole request that says in X-Cost what it costs; "" says nothing.
func (r *rig) spend(tenant, cost string) Verdict {
	req := requestOf(tenant, "/")
	if cost != "" {
		req.Header = append(req.Header.(fieldList), [2]string{"X-Cost", cost})
	}
	m := r.table.Match(r.now, req)
	v := Verdict{Reason: m.Reason}
	if m.Reason == Passed {
		v = r.table.Decide(r.now, &m)
	}
	r.settle(&m, &v)
	return v
}

// transfer makes one whole request with a body of these pieces, waits as its meter says, and returns how long that was.
func (r *rig) transfer(tenant, path string, pieces ...int) time.Duration {
	r.Helper()
	m, v := r.open(tenant, path)
	if v.Reason != Passed {
		r.Fatalf("unexpected verdict: %v", v.Reason)
	}
	began, meter := r.now, r.table.Meter(m)
	for _, n := range pieces {
		meter.Begin(n)
		for wait := meter.Wait(r.now); wait > 0; wait = meter.Wait(r.now) {
			r.wait(wait)
		}
	}
	r.table.Settle(m, v, Outcome{Reason: Passed, Status: 200, Delays: meter.Delays()})
	return time.Duration(r.now - began)
}

// passes says how many of n requests to / pass now.
func (r *rig) passes(tenant string, n int) (passed int) {
	for range n {
		if r.try(tenant, "/").Reason == Passed {
			passed++
		}
	}
	return passed
}

// wantPasses makes n requests and compares how many pass.
func (r *rig) wantPasses(tenant string, n, want int) {
	r.Helper()
	if got := r.passes(tenant, n); got != want {
		r.Errorf("%q: unexpected number of %d requests passed: got %d, want %d", tenant, n, got, want)
	}
}

// want makes one request and compares the reason and the limit that refused, as "policy/limit".
func (r *rig) want(tenant, path string, reason Reason, limit string) {
	r.Helper()
	v := r.try(tenant, path)
	got := ""
	if v.Limit != nil {
		got = v.Limit.Policy() + "/" + v.Limit.Name()
	}
	if v.Reason != reason || got != limit {
		r.Errorf("%q for %s: unexpected verdict: got %v of %q, want %v of %q", tenant, path, v.Reason, got, reason, limit)
	}
}

// available is what a limit has left for a tenant that has a cell.
func (r *rig) available(tenant, limit string) int64 {
	r.Helper()
	s, ok := r.table.Tenant(r.now, tenant)
	if !ok {
		r.Fatalf("%q has no cell", tenant)
	}
	for _, l := range s.Limits {
		if l.Name == limit {
			return l.Available
		}
	}
	r.Fatalf("%q has no limit %q", tenant, limit)
	return 0
}

func (r *rig) wantAvailable(tenant, limit string, want int64) {
	r.Helper()
	if got := r.available(tenant, limit); got != want {
		r.Errorf("%q: unexpected tokens left of %q: got %d, want %d", tenant, limit, got, want)
	}
}
