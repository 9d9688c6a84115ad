//go:build !race

package admit

import "testing"

// TestWaitingAllocatesNothingOnceWarm is not for the race detector, which makes pools forget.
func TestWaitingAllocatesNothingOnceWarm(t *testing.T) {
	f := func(documents string) {
		t.Helper()
		r := newRig(t, documents)
		req := requestOf("", "/")
		req.Header = &byteField{"X-Tenant-ID", []byte("acme")}
		n := testing.AllocsPerRun(1000, func() {
			r.now += 1e9
			m1, m2 := r.table.Match(r.now, req), r.table.Match(r.now, req)
			v1 := r.table.Decide(r.now, &m1)
			v2 := r.table.Decide(r.now, &m2)
			if !v2.Waits() {
				t.Fatal("nobody waits")
			}
			r.settle(&m1, &v1)
			<-v2.Ready()
			r.table.Resume(r.now, &m2, &v2)
			r.settle(&m2, &v2)
		})
		if n != 0 {
			t.Errorf("unexpected allocations: got %v, want 0", n)
		}
	}

	f(`TenantPolicy p {tenants: {names: [acme]}, concurrency: {max: 1, queue: 2}}`)
	f(`Backend main {endpoints: [{address: 127.0.0.1:9000}], capacity: {concurrency: 1, queue: 2}}
		TenantPolicy p {tenants: {names: [acme]}}`)
}
