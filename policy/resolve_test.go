package policy

import (
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"weir/limit"
)

func TestCompileImpliesSidecarAndRoute(t *testing.T) {
	// One Backend alone, and a limit that names the Route it implies.
	s := mustCompile(t, set(t, "set.yaml", orders+`
		TenantPolicy base {tenants: {any: true}, limits: [{name: x, requests: 1, routes: [orders]}]}`))
	if diff := cmp.Diff([]Route{{Name: "orders", Cost: 1}}, s.Routes); diff != "" {
		t.Errorf("Routes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{0}, s.Policies[0].Limits[0].Routes); diff != "" {
		t.Errorf("the limit's Routes (-want +got):\n%s", diff)
	}

	// An empty Sidecar is the same as none, but for being written.
	with := mustCompile(t, set(t, "set.yaml", orders+"\nSidecar weir {}"))
	if diff := cmp.Diff(s.Sidecar, with.Sidecar); diff != "" {
		t.Errorf("Sidecar implied and written:\n%s", diff)
	}
	if len(s.Documents) != 2 || len(with.Documents) != 2 {
		t.Errorf("documents %v and %v, want those that were written", s.Documents, with.Documents)
	}
}

func TestCompileImpliesNoRouteBesideRoutes(t *testing.T) {
	s := mustCompile(t, set(t, "set.yaml", orders+"\nRoute some {backend: orders, match: [{path: /some}]}"))
	if len(s.Routes) != 1 || s.Routes[0].Name != "some" {
		t.Errorf("Routes %+v, want the written one alone", s.Routes)
	}
}

func TestCompileService(t *testing.T) {
	text := `Sidecar weir {service: orders, identity: [{path: '/{tenant}/*'}]}
		TenantPolicy all {tenants: {names: [a]}}
		TenantPolicy billing {services: [billing], tenants: {names: [b]}}
		TenantPolicy both {services: [billing, orders], tenants: {names: [c]}}
		TenantPolicy orders {services: [orders], tenants: {names: [d]}}` + orders
	f := func(o CompileOptions, service, policies string) string {
		t.Helper()
		s, problems := Compile(set(t, "set.yaml", text), o)
		if s == nil {
			t.Fatal(said(problems))
		}
		var names []string
		for _, p := range s.Policies {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); s.Sidecar.Service != service || got != policies {
			t.Errorf("service %s has %q, want %s with %q", s.Sidecar.Service, got, service, policies)
		}
		if len(s.Documents) != 6 {
			t.Errorf("%d documents, want all 6", len(s.Documents))
		}
		return s.Hash
	}

	// What the Sidecar says, unless the caller says otherwise.
	written := f(CompileOptions{}, "orders", "all both orders")
	same := f(CompileOptions{Service: "orders"}, "orders", "all both orders")
	other := f(CompileOptions{Service: "billing"}, "billing", "all billing both")
	if written != same || written == other {
		t.Errorf("hashes %s, %s and %s: the first two are the same snapshot, the third is not", written, same, other)
	}

	// The Sidecar's name when nobody says.
	text = strings.Replace(text, "service: orders, ", "", 1)
	f(CompileOptions{}, "weir", "all")
}

func TestHash(t *testing.T) {
	hash := func(lines string) string { return mustCompile(t, set(t, "set.yaml", lines)).Hash }
	was := hash("Route all {backend: orders}" + orders)
	same := func(lines string) {
		t.Helper()
		if hash(lines) != was {
			t.Errorf("another hash: %s", lines)
		}
	}
	different := func(lines string) {
		t.Helper()
		if hash(lines) == was {
			t.Errorf("the same hash: %s", lines)
		}
	}

	// Order, lines and what is a default anyway make no difference.
	same(orders[1:] + "\nRoute all {backend: orders}")
	same("Route all {backend: orders, timeout: 0s}" + orders)

	// Everything else does.
	different("Route all {backend: orders, timeout: 1s}" + orders)
	different("Route every {backend: orders}" + orders)
	different("Route all {backend: orders}" + orders + payments)
	different("Route all {backend: orders}" + orders + "\nSidecar weir {}")
}

func TestBackends(t *testing.T) {
	f := func(spec string, want Backend) {
		t.Helper()
		s := mustCompile(t, set(t, "set.yaml", "Backend b {"+spec+"}"))
		b := s.Backends[0]
		got := Backend{Endpoints: b.Endpoints, DNS: b.DNS, Balance: b.Balance, Health: b.Health, Retries: b.Retries, PoolPerTenant: b.PoolPerTenant, Capacity: b.Capacity}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", spec, diff)
		}
	}
	some := []EndpointSettings{{Network: "tcp", Address: "a:1", Weight: 1}}
	usual := RetrySettings{Budget: 0.1}

	// Nothing said: the one with the fewest requests, always healthy, nothing tried again.
	f("endpoints: [{address: 'a:1'}]", Backend{Endpoints: some, Retries: usual})

	// By name instead of by address.
	f("dns: {name: a.internal, port: 1}", Backend{DNS: &DNSSettings{"a.internal", 1, 5 * time.Second}, Retries: usual})
	f("dns: {name: a, port: 65535, refresh: 100ms}", Backend{DNS: &DNSSettings{"a", 65535, 100 * time.Millisecond}, Retries: usual})

	// The other ways to choose, and a pool for each tenant.
	f("endpoints: [{address: 'a:1'}], balance: RoundRobin", Backend{Endpoints: some, Balance: RoundRobin, Retries: usual})
	f("endpoints: [{address: 'a:1'}], balance: ConsistentHash, pool: {perTenant: true}",
		Backend{Endpoints: some, Balance: ConsistentHash, PoolPerTenant: true, Retries: usual})

	// Capacity that is found, that is given, and that is no bound.
	f("endpoints: [{address: 'a:1'}], capacity: {adaptive: true, concurrency: 9}",
		Backend{Endpoints: some, Retries: usual, Capacity: &CapacitySettings{Concurrency: 9, Adaptive: true}})
	f("endpoints: [{address: 'a:1'}], capacity: {concurrency: 9, queue: 5}",
		Backend{Endpoints: some, Retries: usual, Capacity: &CapacitySettings{Concurrency: 9, Queue: QueueSettings{5, 100 * time.Millisecond}}})
	f("endpoints: [{address: 'a:1'}], capacity: {concurrency: 9, queue: 0, queueTimeout: 1s}",
		Backend{Endpoints: some, Retries: usual, Capacity: &CapacitySettings{Concurrency: 9}})
	f("endpoints: [{address: 'a:1'}], capacity: {concurrency: 0}", Backend{Endpoints: some, Retries: usual})

	// Health by checks, by traffic, by both.
	f("endpoints: [{address: 'a:1'}], health: {path: /h}",
		Backend{Endpoints: some, Health: &HealthSettings{"/h", 5 * time.Second, 2, 3, nil}, Retries: usual})
	f("endpoints: [{address: 'a:1'}], health: {passive: {}}",
		Backend{Endpoints: some, Health: &HealthSettings{"", 5 * time.Second, 2, 3, &PassiveSettings{5, 30 * time.Second, 0.5}}, Retries: usual})
	f("endpoints: [{address: 'a:1'}], health: {path: /h, interval: 1s, healthy: 4, unhealthy: 6, passive: {consecutiveFailures: 7, ejectFor: 8s, maxEjected: 10%}}",
		Backend{Endpoints: some, Health: &HealthSettings{"/h", time.Second, 4, 6, &PassiveSettings{7, 8 * time.Second, 0.1}}, Retries: usual})

	// What is tried again; statuses ascending.
	f("endpoints: [{address: 'a:1'}], retries: {on: ['503', connect, '500']}",
		Backend{Endpoints: some, Retries: RetrySettings{Connect: true, Statuses: []int{500, 503}, Attempts: 1, Budget: 0.1}})
	f("endpoints: [{address: 'a:1'}], retries: {on: [reset], attempts: 0, budget: 0%}",
		Backend{Endpoints: some, Retries: RetrySettings{Reset: true}})
}

// The name that a backend's certificate must carry is the one written, else the one looked up; an endpoint's host is its own matter.
func TestServerName(t *testing.T) {
	f := func(spec, want string) {
		t.Helper()
		s := mustCompile(t, set(t, "dir/set.yaml", "\n\t\tSidecar weir {}\n\t\tBackend b "+spec))
		if got := s.Backends[0].TLS; got == nil || got.ServerName != want {
			t.Errorf("%s: TLS is %+v, want the name %q", spec, got, want)
		}
	}
	f("{dns: {name: orders.internal., port: 1}, tls: {}}", "orders.internal")
	f("{dns: {name: orders.internal, port: 1}, tls: {serverName: other.internal}}", "other.internal")
	f("{endpoints: [{address: 'orders.internal:1'}], tls: {}}", "")
}

func TestResolvePath(t *testing.T) {
	f := func(file, path, want string) {
		t.Helper()
		if got := ResolvePath(Origin{File: file}, path); got != want {
			t.Errorf("%s of %s is %s, want %s", path, file, got, want)
		}
	}

	// Relative: beside the document's file.
	f("etc/weir.yaml", "keys.txt", "etc/keys.txt")
	f("/etc/weir/weir.yaml", "../keys.txt", "/etc/keys.txt")
	f("weir.yaml", "policies/", "policies")

	// Absolute: as it is.
	f("etc/weir.yaml", "/keys.txt", "/keys.txt")

	// No file: the working directory.
	f(CommandLine, "keys.txt", "keys.txt")
	f("", "keys.txt", "keys.txt")

	// None.
	f("etc/weir.yaml", "", "")
}

func TestLimitRules(t *testing.T) {
	f := func(limit string, want LimitRule) {
		t.Helper()
		s := mustCompile(t, set(t, "set.yaml", "TenantPolicy p {tenants: {any: true}, limits: ["+limit+"]}"+orders+
			"\nRoute b {backend: orders}\nRoute a {backend: orders, match: [{path: /a}]}"))
		want.Policy, want.Name, want.Origin = "p", "x", Origin{"set.yaml", 5, 39}
		if diff := cmp.Diff(want, s.Policies[0].Limits[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", limit, diff)
		}
	}

	// The burst is the number of requests, unless written.
	f("{name: x, requests: 10}", LimitRule{Requests: 10, Per: time.Second, Burst: 10})
	f("{name: x, requests: 10, burst: 1, per: 1m}", LimitRule{Requests: 10, Per: time.Minute, Burst: 1})

	// Bytes: sizes, which are plain numbers too.
	f("{name: x, bytes: 10MiB}", LimitRule{Unit: UnitBytes, Requests: 10 << 20, Per: time.Second, Burst: 10 << 20})
	f("{name: x, bytes: 512, burst: 64KiB}", LimitRule{Unit: UnitBytes, Requests: 512, Per: time.Second, Burst: 64 << 10})
	f("{name: x, bytes: 1KiB, burst: 100}", LimitRule{Unit: UnitBytes, Requests: 1 << 10, Per: time.Second, Burst: 100})
	f("{name: x, bytes: 10TiB, per: 24h}", LimitRule{Unit: UnitBytes, Requests: 10 << 40, Per: 24 * time.Hour, Burst: 10 << 40})

	// None: it blocks.
	f("{name: x, requests: 0}", LimitRule{Per: time.Second})

	// Who shares the bucket, and the flags.
	f("{name: x, requests: 1, bucket: Shared, mode: Shadow}", LimitRule{Requests: 1, Per: time.Second, Burst: 1, Bucket: BucketShared, Shadow: true})
	f("{name: x, requests: 1, bucket: TenantAndRoute, final: true}",
		LimitRule{Requests: 1, Per: time.Second, Burst: 1, Bucket: BucketTenantAndRoute, Final: true})

	// Routes by index, ascending.
	f("{name: x, requests: 1, routes: [b, a]}", LimitRule{Requests: 1, Per: time.Second, Burst: 1, Routes: []int{0, 1}})

	// The fastest and the slowest that documents can say.
	f("{name: x, requests: 1000000, per: 1ms, burst: 1000000000}", LimitRule{Requests: 1e6, Per: time.Millisecond, Burst: 1e9})
	f("{name: x, requests: 1, per: 744h, burst: 47}", LimitRule{Requests: 1, Per: 744 * time.Hour, Burst: 47})
}

// The largest burst is exact, and the buckets take whatever a document may say.
func TestMostBurst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		per := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(744*time.Hour)).Draw(t, "per"))
		requests := rapid.Int64Range(1, int64(per)).Draw(t, "requests")
		most := mostBurst(requests, per)
		refills := func(burst *big.Int) bool {
			time := new(big.Int).Mul(burst, big.NewInt(int64(per)))
			return time.Cmp(new(big.Int).Mul(big.NewInt(int64(longestRefill)), big.NewInt(requests))) <= 0
		}
		if !refills(big.NewInt(most)) {
			t.Fatalf("mostBurst(%d, %s) = %d takes too long", requests, per, most)
		}
		if more := new(big.Int).Add(big.NewInt(most), big.NewInt(1)); more.IsInt64() && refills(more) {
			t.Fatalf("mostBurst(%d, %s) = %d, but one more is in time", requests, per, most)
		}
		if _, err := limit.NewRate(requests, per, most); err != nil {
			t.Fatalf("a legal limit: %v", err)
		}
	})
}

func TestCompileRefusesOtherKinds(t *testing.T) {
	d := *set(t, "set.yaml", orders)[0]
	d.Kind = "Gateway"
	s, problems := Compile([]*Document{&d}, CompileOptions{})
	const want = "set.yaml:3:7: kind: Gateway is not supported by this version"
	if s != nil || !strings.Contains(said(problems), want) {
		t.Errorf("got %q, want %q", said(problems), want)
	}
}

// Whoever changes a document after it was compiled changes nothing in the snapshot.
func TestSnapshotDoesNotReferToDocuments(t *testing.T) {
	data, err := os.ReadFile("../testdata/snapshots/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs, _ := Decode("everything.yaml", data)
	given := slices.Clone(docs)
	s := mustCompile(t, docs)
	if !slices.Equal(docs, given) {
		t.Error("Compile changed the order of its argument")
	}
	before := shown(s)
	for _, d := range docs {
		switch spec := d.Spec.(type) {
		case *SidecarSpec:
			clear(spec.TrustedProxies)
			clear(spec.Listeners)
			clear(spec.Identity[6].ClientCIDR)
			spec.Identity[2].APIKey.KeysFile = "changed"
			clear(spec.Identity)
		case *BackendSpec:
			clear(spec.Endpoints)
			if spec.DNS != nil {
				spec.DNS.Name = "changed"
			}
			if spec.Health != nil {
				spec.Health.Path, spec.Health.Passive.EjectFor = "changed", 77
			}
			if spec.Retries != nil {
				clear(spec.Retries.On)
				spec.Retries.Attempts = 77
			}
		case *RouteSpec:
			for i := range spec.Match {
				clear(spec.Match[i].Methods)
				clear(spec.Match[i].Headers)
			}
			for i := range spec.Split {
				clear(spec.Split[i].Tenants)
			}
			clear(spec.Match)
			clear(spec.Split)
		case *TenantPolicySpec:
			clear(spec.Tenants.Names)
			for i := range spec.Limits {
				clear(spec.Limits[i].Routes)
				if spec.Limits[i].Requests != nil {
					*spec.Limits[i].Requests = 77
				}
			}
			clear(spec.Limits)
			if spec.Reject != nil {
				spec.Reject.Status = 499
			}
		}
	}
	if diff := cmp.Diff(before, shown(s)); diff != "" {
		t.Errorf("the snapshot changed:\n%s", diff)
	}
}

// Whatever decodes either compiles or is refused with a reason, in any order with the same outcome.
func FuzzCompile(f *testing.F) {
	for _, name := range []string{"smallest", "everything", "conflicts"} {
		data, err := os.ReadFile("../testdata/snapshots/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, _ := Decode("fuzz.yaml", data)
		s, problems := Compile(docs, CompileOptions{})
		slices.Reverse(docs)
		again, problemsAgain := Compile(docs, CompileOptions{})
		if diff := cmp.Diff(problems, problemsAgain); diff != "" {
			t.Fatalf("another order, other problems:\n%s", diff)
		}
		if s == nil {
			if !slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Error }) {
				t.Fatal("refused without a reason")
			}
			return
		}
		if shown(s) != shown(again) {
			t.Fatal("another order, another snapshot")
		}
		for _, r := range s.Routes {
			if (r.Backend < 0) == (len(r.Split) == 0) || r.Backend >= len(s.Backends) {
				t.Fatalf("Route %s goes to Backend %d and %d parts", r.Name, r.Backend, len(r.Split))
			}
		}
		for _, p := range s.Policies {
			for _, l := range p.Limits {
				if l.Requests < 0 || l.Per <= 0 || (l.Burst > 0) != (l.Requests > 0) {
					t.Fatalf("limit %+v", l)
				}
			}
		}
	})
}

func TestUnknownTenant(t *testing.T) {
	f := func(mode, policies string, want UnknownMode) {
		t.Helper()
		s := mustCompile(t, set(t, "set.yaml", "Sidecar weir {unknownTenant: "+mode+"}"+orders+policies))
		if s.Sidecar.UnknownTenant != want {
			t.Errorf("%s is %s, want %s", mode, s.Sidecar.UnknownTenant, want)
		}
	}
	const (
		any       = "\nTenantPolicy a {tenants: {any: true}}"
		unknown   = "\nTenantPolicy u {tenants: {unknown: true}}"
		elsewhere = "\nTenantPolicy b {services: [billing], tenants: {any: true}}\nTenantPolicy c {services: [billing], tenants: {unknown: true}}"
	)

	// As written, when there are policies to go by.
	f("Deny", any+unknown, UnknownDeny)
	f("Default", unknown, UnknownDefault)
	f("Shared", any, UnknownShared)

	// Never unlimited: without them, or with those of another service alone, it is Deny.
	f("Default", any, UnknownDeny)
	f("Default", elsewhere, UnknownDeny)
	f("Shared", unknown, UnknownDeny)
	f("Shared", elsewhere, UnknownDeny)
}

func TestAdminBesideListeners(t *testing.T) {
	f := func(sidecar string) {
		t.Helper()
		mustCompile(t, set(t, "set.yaml", "Sidecar weir "+sidecar+orders))
	}

	// Two ports, a port that the kernel chooses, and a name that is a socket here and a host there.
	f(`{admin: {address: "127.0.0.1:8080"}}`)
	f(`{listeners: [{name: a, address: "unix:/a"}], admin: {address: "127.0.0.1:0"}}`)
}
