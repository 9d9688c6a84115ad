package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuickstart(t *testing.T) {
	docs, err := Quickstart(QuickstartOptions{
		Backend: "127.0.0.1:9000", Limit: "100/m", Listen: "127.0.0.1:8081", Admin: "unix:/run/weir.sock", Service: "orders",
	})
	if err != nil {
		t.Fatal(err)
	}
	s := mustCompile(t, docs)

	// One line says that anybody is believed, and nothing else is wrong.
	const want = "command line:8:23: warning: spec.identity[0].header: X-Tenant-ID is believed from anybody: whoever can reach the listener chooses its tenant"
	if diff := cmp.Diff(want, said(s.Warnings)); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}

	// What the flags say.
	if s.Sidecar.Service != "orders" || s.Sidecar.Admin.Address != "unix:/run/weir.sock" ||
		!cmp.Equal(s.Sidecar.Listeners, []ListenerSettings{{"http", "tcp", "127.0.0.1:8081", nil}}) {
		t.Errorf("Sidecar %+v", s.Sidecar)
	}

	// Every request goes to the backend.
	if len(s.Routes) != 1 || len(s.Routes[0].Match) != 0 || s.Routes[0].Backend != 0 ||
		!cmp.Equal(s.Backends[0].Endpoints, []EndpointSettings{{"tcp", "127.0.0.1:9000", 1}}) {
		t.Errorf("Backends %+v, Routes %+v", s.Backends, s.Routes)
	}

	// Each tenant has the limit for itself; those without an identity share one bucket under the same limit.
	limits := s.Plan(s.Covering("anybody", nil)).Limits
	if len(limits) != 1 || limits[0].Requests != 100 || limits[0].Per != time.Minute || limits[0].Burst != 100 || limits[0].Bucket != BucketTenant {
		t.Errorf("limits %+v", limits)
	}
	if s.Sidecar.UnknownTenant != UnknownShared || !cmp.Equal(s.Plan(s.AnyPolicies()), s.Plan(s.Covering("anybody", nil))) {
		t.Errorf("the unknown: %v", s.Sidecar.UnknownTenant)
	}
}

func TestQuickstartYAML(t *testing.T) {
	f := func(o QuickstartOptions, want string) {
		t.Helper()
		got, err := QuickstartYAML(o)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("text (-want +got):\n%s", diff)
		}
	}

	// The usual two flags.
	f(QuickstartOptions{Backend: "127.0.0.1:9000", Limit: "100/s"}, `apiVersion: weir.dev/v1alpha1
kind: Sidecar
metadata: {name: weir}
spec:
  identity: [{header: X-Tenant-ID, trust: any}]
  unknownTenant: Shared
---
apiVersion: weir.dev/v1alpha1
kind: Backend
metadata: {name: backend}
spec:
  endpoints: [{address: "127.0.0.1:9000"}]
---
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata: {name: every-tenant}
spec:
  tenants: {any: true}
  limits: [{name: steady, requests: 100, per: 1s}]
`)

	// All of them, and no limit.
	f(QuickstartOptions{Backend: "unix:/run/a.sock", Listen: ":80", Admin: "127.0.0.1:1", Service: "orders"}, `apiVersion: weir.dev/v1alpha1
kind: Sidecar
metadata: {name: weir}
spec:
  service: "orders"
  listeners: [{name: http, address: ":80"}]
  admin: {address: "127.0.0.1:1"}
  identity: [{header: X-Tenant-ID, trust: any}]
  unknownTenant: Shared
---
apiVersion: weir.dev/v1alpha1
kind: Backend
metadata: {name: backend}
spec:
  endpoints: [{address: "unix:/run/a.sock"}]
---
apiVersion: weir.dev/v1alpha1
kind: TenantPolicy
metadata: {name: every-tenant}
spec:
  tenants: {any: true}
`)
}

func TestQuickstartKeptAsAFileSaysNothingAboutTrust(t *testing.T) {
	text, err := QuickstartYAML(QuickstartOptions{Backend: "127.0.0.1:9000", Limit: "1/h"})
	if err != nil {
		t.Fatal(err)
	}
	docs, problems := Decode("weir.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(said(problems))
	}
	if s := mustCompile(t, docs); len(s.Warnings) > 0 {
		t.Errorf("warnings:\n%s", said(s.Warnings))
	}
}

func TestQuickstartErrors(t *testing.T) {
	f := func(o QuickstartOptions, want string) {
		t.Helper()
		docs, err := Quickstart(o)
		if docs != nil || err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	limit := func(s string) QuickstartOptions { return QuickstartOptions{Backend: "127.0.0.1:9000", Limit: s} }

	// Limits that are none.
	for _, s := range []string{"100/x", "100", "/s", "x/s", "-1/s", "+1/s", "1.5/s", "1/s/s", "1 /s", "99999999999999999999/s"} {
		f(limit(s), `cannot read limit "`+s+`", want N/s, N/m or N/h, as in 100/s`)
	}
	f(limit("0/s"), `cannot use limit "0/s": 0 requests, want 1 to 1000000000`)
	f(limit("1000000001/h"), `cannot use limit "1000000001/h": 1000000001 requests, want 1 to 1000000000`)

	// Addresses and names that are none.
	f(QuickstartOptions{}, `cannot start without a backend, want host:port or unix:/path`)
	f(QuickstartOptions{Backend: "9000"}, `cannot use backend "9000": "9000" is not host:port or unix:/path`)
	f(QuickstartOptions{Backend: "a:1", Listen: "x"}, `cannot listen on "x": "x" is not host:port, :port or unix:/path`)
	f(QuickstartOptions{Backend: "a:1", Admin: "x"}, `cannot use admin address "x": "x" is not host:port, :port or unix:/path`)
	f(QuickstartOptions{Backend: "a:1", Service: "A B"},
		`cannot use service "A B": "A B" is not a DNS label: 1 to 63 of a-z, 0-9 and -, with no - at either end`)

	// The admin port where the listener is.
	f(QuickstartOptions{Backend: "a:1", Listen: ":1", Admin: ":1"},
		`cannot use admin address ":1": ":1" is already at spec.listeners[0].address on line 5`)

	// More than a document can have.
	f(QuickstartOptions{Backend: strings.Repeat("x", MaxSource)}, fmt.Sprintf("cannot use the flags: %d bytes are too many; a source has at most 8MiB", MaxSource+367))

	// Text that would be YAML of its own.
	f(QuickstartOptions{Backend: "\"}]\nx: \xff"}, "cannot use backend \"\\\"}]\\nx: \\xff\": \"\\\"}]\\nx: ÿ\" is not host:port or unix:/path")
}

func FuzzQuickstart(f *testing.F) {
	f.Add("127.0.0.1:9000", "100/s", ":8080", "127.0.0.1:9901", "orders")
	f.Add("unix:/a", "1/h", "", "", "")
	f.Add("\"\n---\n", "0/s", "'", "#", "{}")
	f.Fuzz(func(t *testing.T, backend, limit, listen, admin, service string) {
		docs, err := Quickstart(QuickstartOptions{backend, limit, listen, admin, service})
		if err != nil {
			return
		}
		if len(docs) != 3 {
			t.Fatalf("%d documents, want 3", len(docs))
		}
		// The only thing left to be wrong is the default port of the other address.
		if s, problems := Compile(docs, CompileOptions{}); s == nil && (listen != "" && admin != "" || len(problems) != 2) {
			t.Fatalf("cannot compile:\n%s", said(problems))
		}
	})
}
