package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// set decodes documents written one a line as "Kind name {spec}". Each takes five lines of the file, so the spec of the nth is on
// line 5n, and what stands at its beginning in column 7.
func set(t testing.TB, file, lines string) []*Document {
	t.Helper()
	var text strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(lines), "\n") {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, spec, _ := strings.Cut(rest, " ")
		fmt.Fprintf(&text, "---\napiVersion: %s\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", APIVersion, kind, name, spec)
	}
	docs, problems := Decode(file, []byte(text.String()))
	for _, p := range problems {
		t.Fatalf("cannot decode: %s", p)
	}
	return docs
}

// said lists problems as text, one a line.
func said(problems []Problem) string {
	var all []string
	for _, p := range problems {
		all = append(all, p.String())
	}
	return strings.Join(all, "\n")
}

// mustCompile compiles documents that have no errors.
func mustCompile(t testing.TB, docs []*Document) *Snapshot {
	t.Helper()
	s, problems := Compile(docs, CompileOptions{})
	if s == nil {
		t.Fatalf("cannot compile:\n%s", said(problems))
	}
	if len(problems) > 0 {
		t.Fatalf("a snapshot and problems:\n%s", said(problems))
	}
	return s
}

const (
	orders   = "\nBackend orders {endpoints: [{address: 127.0.0.1:9000}]}"
	payments = "\nBackend payments {endpoints: [{address: 127.0.0.1:9001}]}"
	identity = "\nSidecar weir {identity: [{host: '{tenant}.example.com'}]}"
)

func TestCompileErrors(t *testing.T) {
	f := func(lines string, want ...string) {
		t.Helper()
		s, problems := Compile(set(t, "set.yaml", lines), CompileOptions{})
		if s != nil {
			t.Fatalf("no error, want %q", want)
		}
		var got []string
		for _, p := range problems {
			if p.Severity == Error {
				got = append(got, p.String())
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("errors (-want +got):\n%s", diff)
		}
	}

	// Two documents of one kind and name: the later one is wrong.
	f(`Backend orders {endpoints: [{address: 127.0.0.1:9000}]}
		Backend orders {endpoints: [{address: 127.0.0.1:9001}]}`,
		`set.yaml:9:18: metadata.name: a second Backend is named "orders", want one of each name; the first is at set.yaml:2:1`)

	// Three: both later ones name the first.
	f(`Route all {backend: orders}
		Route all {backend: orders}
		Route all {backend: orders}`+orders,
		`set.yaml:9:18: metadata.name: a second Route is named "all", want one of each name; the first is at set.yaml:2:1`,
		`set.yaml:14:18: metadata.name: a second Route is named "all", want one of each name; the first is at set.yaml:2:1`)

	// A second Sidecar, whatever its name.
	f(`Sidecar one {}
		Sidecar another {}`+orders,
		`set.yaml:9:18: metadata.name: a second Sidecar is named "another", want one for a process; the first is "one" at set.yaml:2:1`)

	// A reference to a Backend that is missing, with what was meant.
	f(`Route all {backend: ordres}`+orders+payments,
		`set.yaml:5:17: spec.backend: no Backend is named "ordres", want orders or payments; did you mean "orders"?`)

	// None is near.
	f(`Route all {backend: x}`+orders+payments,
		`set.yaml:5:17: spec.backend: no Backend is named "x", want orders or payments`)

	// There is no Backend at all.
	f(`Route all {backend: orders}`,
		`set.yaml:5:17: spec.backend: no Backend is named "orders", want one that exists (there is none)`)

	// In a split.
	f(`Route all {split: [{backend: orders}, {backend: ordesr, weight: 5}]}`+orders,
		`set.yaml:5:45: spec.split[1].backend: no Backend is named "ordesr", want orders; did you mean "orders"?`)

	// A policy's Backend.
	f(`TenantPolicy gold {tenants: {any: true}, backend: gold}`+orders,
		`set.yaml:5:39: spec.backend: no Backend is named "gold", want orders`)

	// A limit's Routes, and the first eight of many candidates.
	f(`TenantPolicy gold {tenants: {any: true}, limits: [{name: a, requests: 1}, {name: b, requests: 1, routes: [r1, r0]}]}`+
		tenRoutes()+orders,
		`set.yaml:5:99: spec.limits[1].routes[1]: no Route is named "r0", want r1, r10, r2, r3, r4, r5, r6, r7 or one of 2 more; did you mean "r1"?`)

	// A policy of another service is checked too.
	f(`TenantPolicy gold {services: [billing], tenants: {any: true}, backend: gold}`+orders,
		`set.yaml:5:60: spec.backend: no Backend is named "gold", want orders`)

	// More than one request a nanosecond.
	f(`TenantPolicy gold {tenants: {any: true}, limits: [{name: a, requests: 1000001, per: 1ms}]}`+orders,
		`set.yaml:5:59: spec.limits[0].requests: 1000001 in 1ms is more than one a nanosecond, want at most 1000000`)
	f(`TenantPolicy gold {tenants: {any: true}, limits: [{name: a, bytes: 1GiB}]}`+orders,
		`set.yaml:5:56: spec.limits[0].bytes: 1073741824 in 1s is more than one a nanosecond, want at most 1000000000`)

	// A bucket that takes years to refill.
	f(`TenantPolicy gold {tenants: {any: true}, limits: [{name: a, requests: 1, per: 744h, burst: 48}]}`+orders,
		`set.yaml:5:80: spec.limits[0].burst: a bucket of 48 takes more than 4 years to refill at 1 in 744h0m0s, want at most 47`)

	// A listener on the admin port's default address.
	f(`Sidecar weir {listeners: [{name: a, address: "127.0.0.1:9901"}]}`+orders,
		`set.yaml:5:7: spec.admin.address: "127.0.0.1:9901" is the address of listener a already`)

	// The admin port on the listener's.
	f(`Sidecar weir {admin: {address: ":8080"}}`+orders,
		`set.yaml:5:25: spec.admin.address: ":8080" is the address of listener http already`)

	// All at once, in the order of the file.
	f(`Route all {backend: ordres}
		TenantPolicy gold {tenants: {any: true}, backend: ordres, limits: [{name: a, requests: 1, routes: [al]}]}
		Backend orders {endpoints: [{address: 127.0.0.1:9000}]}
		Backend orders {endpoints: [{address: 127.0.0.1:9000}]}`,
		`set.yaml:5:17: spec.backend: no Backend is named "ordres", want orders; did you mean "orders"?`,
		`set.yaml:10:39: spec.backend: no Backend is named "ordres", want orders; did you mean "orders"?`,
		`set.yaml:10:88: spec.limits[0].routes[0]: no Route is named "al", want all; did you mean "all"?`,
		`set.yaml:19:18: metadata.name: a second Backend is named "orders", want one of each name; the first is at set.yaml:12:1`)
}

func tenRoutes() string {
	var b strings.Builder
	for i := range 10 {
		fmt.Fprintf(&b, "\nRoute r%d {backend: orders, match: [{path: /%d}]}", i+1, i)
	}
	return b.String()
}

func TestCompileNothing(t *testing.T) {
	s, problems := Compile(nil, CompileOptions{})
	if s != nil || said(problems) != "no documents" {
		t.Errorf("got %v and %q, want no snapshot and %q", s, said(problems), "no documents")
	}
}

func TestCompileFirstIsByOrigin(t *testing.T) {
	// Whatever order they come in, the one of the file that sorts first is the first.
	a, b := set(t, "a.yaml", orders), set(t, "b.yaml", orders)
	for _, docs := range [][]*Document{{a[0], b[0]}, {b[0], a[0]}} {
		_, problems := Compile(docs, CompileOptions{})
		const want = `b.yaml:4:18: metadata.name: a second Backend is named "orders", want one of each name; the first is at a.yaml:2:1`
		if !strings.Contains(said(problems), want) {
			t.Errorf("got %q, want %q", said(problems), want)
		}
	}
}

func TestCompileErrorsComeWithWarnings(t *testing.T) {
	s, problems := Compile(set(t, "set.yaml", `Route all {backend: x}
		TenantPolicy gold {tenants: {any: true}}`), CompileOptions{})
	want := []Severity{Error, Warning}
	var got []Severity
	for _, p := range problems {
		got = append(got, p.Severity)
	}
	if s != nil || !slices.Equal(got, want) {
		t.Errorf("got %v:\n%s", got, said(problems))
	}
}

func TestCompileWarnings(t *testing.T) {
	f := func(lines string, want ...string) {
		t.Helper()
		s := mustCompile(t, set(t, "set.yaml", lines))
		var got []string
		for _, p := range s.Warnings {
			if p.Severity != Warning {
				t.Errorf("not a warning: %s", p)
			}
			got = append(got, strings.Replace(p.String(), "warning: ", "", 1))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("warnings (-want +got):\n%s", diff)
		}
	}

	// A set that is as it should be.
	f(identity + orders + `
		TenantPolicy base {tenants: {any: true}, limits: [{name: a, requests: 1}]}
		TenantPolicy gold {tenants: {names: [acme]}, limits: [{name: a, requests: 2}]}`)

	// Nothing that could be served.
	f(identity,
		`no Route, and 0 Backends where a single one would imply a Route: every request is answered with 404`)
	f(identity+orders+payments,
		`no Route, and 2 Backends where a single one would imply a Route: every request is answered with 404`)

	// Those who wait for a backend would find no connection; with a pool for each tenant they may.
	f(identity+`
		Backend b {endpoints: [{address: 'a:1'}], pool: {maxConnections: 10}, capacity: {concurrency: 11}}`,
		`set.yaml:10:91: spec.capacity.concurrency: 11 is more than the 10 of pool.maxConnections: requests beyond these are refused with pool_full instead of waiting`)
	f(identity + `
		Backend b {endpoints: [{address: 'a:1'}], pool: {maxConnections: 10}, capacity: {concurrency: 10}}`)
	f(identity + `
		Backend b {endpoints: [{address: 'a:1'}], pool: {maxConnections: 10, perTenant: true}, capacity: {concurrency: 11}}`)

	// Nobody is believed for the header.
	f(`Sidecar weir {identity: [{host: '{tenant}.example.com'}, {header: X-Tenant-ID}]}`+orders,
		`set.yaml:5:60: spec.identity[1].header: nobody is believed for X-Tenant-ID, since spec.trustedProxies is empty; list the proxies, or say trust: any`)
	f(`Sidecar weir {trustedProxies: [10.0.0.0/8], identity: [{header: X-Tenant-ID}]}` + orders)
	f(`Sidecar weir {identity: [{header: X-Tenant-ID, trust: any}]}` + orders)

	// Nobody is asked for a certificate, so no policy ever applies.
	f(`Sidecar weir {listeners: [{name: a, address: ':1', tls: {certFile: c, keyFile: k}}], identity: [{spiffe: {pathPattern: '/{tenant}'}}]}`+orders+`
		TenantPolicy a {tenants: {names: [acme]}}`,
		`set.yaml:5:99: spec.identity[0].spiffe: no client is asked for a certificate, since no listener has tls.clientCAFile`,
		`set.yaml:15:17: spec.tenants: no request is ever identified as a tenant, since the Sidecar has no identity source that anybody is believed for`)
	f(`Sidecar weir {listeners: [{name: a, address: ':1', tls: {certFile: c, keyFile: k, clientCAFile: ca}}], identity: [{spiffe: {pathPattern: '/{tenant}'}}]}` + orders + `
		TenantPolicy a {tenants: {names: [acme]}}`)

	// Tokens for whomever.
	f(`Sidecar weir {identity: [{jwt: {jwksFile: k}}]}`+orders+`
		TenantPolicy a {tenants: {names: [acme]}}`,
		`set.yaml:5:25: spec.identity[0].jwt: tokens issued for any audience are believed, since audience is not set; any service that gets one can use it here`)
	f(`Sidecar weir {identity: [{jwt: {jwksFile: k, audience: orders}}]}` + orders)

	// No tenant can ever be told; one line for all policies, and none for those of the unknown.
	f(orders+`
		TenantPolicy a {tenants: {names: [acme]}}
		TenantPolicy b {tenants: {match: 'a*'}}`,
		`set.yaml:10:17: spec.tenants: no request is ever identified as a tenant, since the Sidecar has no identity source that anybody is believed for`)
	f(`Sidecar weir {unknownTenant: Default}` + orders + `
		TenantPolicy a {tenants: {unknown: true}}`)

	// A mode of unknownTenant without policies to go by.
	f(`Sidecar weir {unknownTenant: Default}`+orders,
		`set.yaml:5:23: spec.unknownTenant: Default is Deny here: no TenantPolicy of this service has tenants: {unknown: true}`)
	f(`Sidecar weir {unknownTenant: Shared}`+orders,
		`set.yaml:5:23: spec.unknownTenant: Shared is Deny here: no TenantPolicy of this service has tenants: {any: true}`)

	// A policy for the unknown whom the Sidecar denies.
	f(orders+`
		TenantPolicy a {tenants: {unknown: true}}`,
		`set.yaml:10:27: spec.tenants.unknown: never applies: the Sidecar's unknownTenant is Deny, want Default`)

	// Two policies for the unknown with a limit of one name.
	f(`Sidecar weir {unknownTenant: Default}`+orders+`
		TenantPolicy a {tenants: {unknown: true}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {unknown: true}, limits: [{name: x, requests: 2}]}`,
		`set.yaml:20:50: spec.limits[0].name: limit x has no effect for the unknown: TenantPolicy a has one of that name (set.yaml:15:43), which is equally specific and comes first by name`)

	// A match that another Route has, or the same one. Order and case do not make a difference.
	f(orders+`
		Route a {backend: orders, match: [{host: api.example.com, methods: [PUT, GET], headers: {X-A: b}}]}
		Route b {backend: orders, match: [{path: /b}, {host: api.example.com, methods: [GET, PUT], headers: {x-a: b}}, {path: /b}]}`,
		`set.yaml:15:45: spec.match[1]: never matches: the same is at Route a spec.match[0], which comes first by name`,
		`set.yaml:15:110: spec.match[2]: never matches: the same is at Route b spec.match[0], which comes first by name`)

	// Two that take everything.
	f(orders+`
		Route a {backend: orders}
		Route b {backend: orders, match: [{}]}
		Route c {backend: orders}`,
		`set.yaml:15:33: spec.match[0]: never matches: the same is at Route a spec.match, which comes first by name`,
		`set.yaml:20:7: spec.match: never matches: the same is at Route a spec.match, which comes first by name`)
}

func TestCompileLimitConflicts(t *testing.T) {
	f := func(policies string, want ...string) {
		t.Helper()
		s := mustCompile(t, set(t, "set.yaml", identity+orders+policies))
		var got []string
		for _, p := range s.Warnings {
			got = append(got, fmt.Sprintf("%s %s: %s", p.Name, p.Path, p.Message))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("warnings (-want +got):\n%s", diff)
		}
	}

	// The same tenant named in two policies: both apply.
	f(`
		TenantPolicy a {tenants: {names: [acme]}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {names: [acme]}, limits: [{name: y, requests: 1}]}`)

	// With limits of one name, the first by name stands.
	f(`
		TenantPolicy a {tenants: {names: [acme]}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {names: [globex, acme]}, limits: [{name: y, requests: 1}, {name: x, requests: 1}]}`,
		`b spec.limits[1].name: limit x has no effect for tenant "acme": TenantPolicy a has one of that name (set.yaml:15:43), which is equally specific and comes first by name`)

	// For several tenants.
	f(`
		TenantPolicy a {tenants: {names: [a, b, c]}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {names: [b, c, d]}, limits: [{name: x, requests: 1}]}`,
		`b spec.limits[0].name: limit x has no effect for 2 tenants, "b" the first: TenantPolicy a has one of that name (set.yaml:15:46), which is equally specific and comes first by name`)

	// Different tenants do not meet.
	f(`
		TenantPolicy a {tenants: {names: [acme]}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {names: [globex]}, limits: [{name: x, requests: 1}]}`)

	// Policies for anybody meet.
	f(`
		TenantPolicy a {tenants: {any: true}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {any: true}, limits: [{name: x, requests: 1}]}`,
		`b spec.limits[0].name: limit x has no effect for any tenant it covers: TenantPolicy a has one of that name (set.yaml:15:39), which is equally specific and comes first by name`)

	// Patterns that overlap meet, with an example.
	f(`
		TenantPolicy a {tenants: {match: 'eu-*'}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {match: '*-gold'}, limits: [{name: x, requests: 1}]}
		TenantPolicy c {tenants: {match: 'us-*'}, limits: [{name: y, requests: 1}]}`,
		`b spec.limits[0].name: limit x has no effect for tenants such as "eu--gold": TenantPolicy a has one of that name (set.yaml:15:43), which is equally specific and comes first by name`)
	f(`
		TenantPolicy a {tenants: {match: 'eu-*'}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {match: 'us-*'}, limits: [{name: x, requests: 1}]}`)

	// A final limit of a less specific policy cannot be replaced.
	f(`
		TenantPolicy a {tenants: {names: [acme]}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {any: true}, limits: [{name: x, requests: 1, final: true}]}`,
		`a spec.limits[0].name: limit x has no effect for any tenant it covers: TenantPolicy b has one of that name (set.yaml:20:39), which is final and less specific`)

	// Of a pattern: for those whom it fits.
	f(`
		TenantPolicy a {tenants: {names: [acme, globex]}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {match: 'g*'}, limits: [{name: x, requests: 1, final: true}]}`,
		`a spec.limits[0].name: limit x has no effect for tenant "globex": TenantPolicy b has one of that name (set.yaml:20:41), which is final and less specific`)

	// Two final ones: the less specific stands, and the other is reported.
	f(`
		TenantPolicy a {tenants: {names: [acme]}, limits: [{name: x, requests: 1, final: true}]}
		TenantPolicy b {tenants: {any: true}, limits: [{name: x, requests: 1, final: true}]}`,
		`a spec.limits[0].name: limit x has no effect for any tenant it covers: TenantPolicy b has one of that name (set.yaml:20:39), which is final and less specific`)

	// Final in an equally specific policy, though its name comes later.
	f(`
		TenantPolicy a {tenants: {any: true}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {any: true}, limits: [{name: x, requests: 1, final: true}]}`,
		`a spec.limits[0].name: limit x has no effect for any tenant it covers: TenantPolicy b has one of that name (set.yaml:20:39), which is final and equally specific`)

	// A limit that a more specific one replaces is as it should be, final or not.
	f(`
		TenantPolicy a {tenants: {names: [acme]}, limits: [{name: x, requests: 1, final: true}]}
		TenantPolicy b {tenants: {any: true}, limits: [{name: x, requests: 1}]}`)

	// Limits in shadow meet one another only.
	f(`
		TenantPolicy a {tenants: {any: true}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {tenants: {any: true}, limits: [{name: x, requests: 2, mode: Shadow}]}
		TenantPolicy c {tenants: {names: [acme]}, limits: [{name: x, requests: 3, mode: Shadow, final: true}]}`)
	f(`
		TenantPolicy a {tenants: {any: true}, limits: [{name: x, requests: 1, mode: Shadow}]}
		TenantPolicy b {tenants: {any: true}, limits: [{name: x, requests: 2, mode: Shadow}]}`,
		`b spec.limits[0].name: shadow limit x has no effect for any tenant it covers: TenantPolicy a has one of that name (set.yaml:15:39), which is equally specific and comes first by name`)

	// A policy of another service meets nobody here.
	f(`
		TenantPolicy a {tenants: {any: true}, limits: [{name: x, requests: 1}]}
		TenantPolicy b {services: [billing], tenants: {any: true}, limits: [{name: x, requests: 1}]}`)
}

// Whatever falls beside limits that are not more specific is reported, and nothing else is.
func TestCompileReportsWhatFalls(t *testing.T) {
	tenants := []string{"acme", "eu-1", "globex"}
	rapid.Check(t, func(r *rapid.T) {
		var lines strings.Builder
		lines.WriteString(identity + orders)
		for _, p := range policies(r) {
			selector := map[Specificity]string{SpecAny: "any: true", SpecUnknown: "unknown: true", SpecMatch: "match: '" + p.Pattern + "'",
				SpecNames: "names: [" + strings.Join(p.Names, ", ") + "]"}[p.Specificity]
			var limits []string
			for _, l := range p.Limits {
				mode := map[bool]string{false: "Enforce", true: "Shadow"}[l.Shadow]
				limits = append(limits, fmt.Sprintf("{name: %s, requests: 1, final: %v, mode: %s}", l.Name, l.Final, mode))
			}
			fmt.Fprintf(&lines, "\nTenantPolicy %s {tenants: {%s}, limits: [%s]}", p.Name, selector, strings.Join(limits, ", "))
		}
		s := mustCompile(t, set(t, "set.yaml", lines.String()))

		want := make(map[string]bool)
		for _, tenant := range tenants {
			covering := s.Covering(tenant, nil)
			for _, i := range covering {
				notMore := slices.DeleteFunc(slices.Clone(covering), func(k int) bool { return s.Policies[k].Specificity > s.Policies[i].Specificity })
				stand := s.Plan(notMore).Limits
				for j, l := range s.Policies[i].Limits {
					if !slices.ContainsFunc(stand, func(m LimitRule) bool { return m.Policy == l.Policy && m.Name == l.Name }) {
						want[fmt.Sprintf("%s spec.limits[%d].name", l.Policy, j)] = true
					}
				}
			}
		}
		got := make(map[string]bool)
		for _, p := range s.Warnings {
			if strings.HasSuffix(p.Path, ".name") && !strings.Contains(p.Message, "for the unknown") {
				got[p.Name+" "+p.Path] = true
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			r.Fatalf("limits that fall (-want +got):\n%s\n%s", diff, lines.String())
		}
	})
}

func TestCompileIsDeterministic(t *testing.T) {
	docs := append(set(t, "b.yaml", `
		Sidecar weir {unknownTenant: Shared, identity: [{header: X-Tenant-ID}]}
		Backend orders {endpoints: [{address: 127.0.0.1:9000}]}
		Route b {backend: orders}
		TenantPolicy gold {tenants: {names: [b, a]}, limits: [{name: x, requests: 1, routes: [b, a]}]}`),
		set(t, "a.yaml", `
		Backend payments {endpoints: [{address: 127.0.0.1:9001}]}
		Route a {backend: payments}
		TenantPolicy iron {tenants: {names: [b, a]}, limits: [{name: x, requests: 1}]}
		TenantPolicy base {tenants: {match: '*'}, limits: [{name: x, requests: 1, final: true}]}`)...)
	want := mustCompile(t, docs)
	if len(want.Warnings) < 3 {
		t.Fatalf("only %d warnings; there should be several to put in order", len(want.Warnings))
	}
	rapid.Check(t, func(r *rapid.T) {
		got := mustCompile(t, rapid.Permutation(docs).Draw(r, "docs"))
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(Snapshot{}, coverage{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			r.Fatalf("another order, another snapshot:\n%s", diff)
		}
	})
}
