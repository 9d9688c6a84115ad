package admit

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"weir/policy"
)

// fieldList is Headers in the plainest way.
type fieldList [][2]string

func (l fieldList) Lookup(name string) (value []byte, count int) {
	for i := range l {
		if !strings.EqualFold(l[i][0], name) {
			continue
		}
		if count == 0 {
			value = []byte(strings.Trim(l[i][1], " \t"))
		}
		count++
	}
	return value, count
}

func (l fieldList) Nth(name string, i int) []byte {
	for j := range l {
		if !strings.EqualFold(l[j][0], name) {
			continue
		}
		if i == 0 {
			return []byte(strings.Trim(l[j][1], " \t"))
		}
		i--
	}
	return nil
}

// byteField is Headers of at most one field, and allocates nothing.
type byteField struct {
	name  string
	value []byte
}

func (f *byteField) Lookup(name string) ([]byte, int) {
	if f.value != nil && strings.EqualFold(f.name, name) {
		return f.value, 1
	}
	return nil, 0
}

func (f *byteField) Nth(name string, i int) []byte {
	value, count := f.Lookup(name)
	if i >= count {
		return nil
	}
	return value
}

// routeOf makes a route of conditions written as "METHOD,METHOD host/path Header=value Header=value"; "-" is any.
func routeOf(t testing.TB, name string, conditions ...string) policy.Route {
	t.Helper()
	route := policy.Route{Name: name}
	for _, c := range conditions {
		words := strings.Fields(c)
		if len(words) < 3 {
			t.Fatalf("condition %q: want methods, host and path", c)
		}
		var m policy.RouteMatch
		if words[0] != "-" {
			m.Methods = strings.Split(words[0], ",")
		}
		if words[1] != "-" {
			m.Host = words[1]
		}
		if words[2] != "-" {
			m.Path = words[2]
		}
		for _, w := range words[3:] {
			name, value, _ := strings.Cut(w, "=")
			if m.Headers == nil {
				m.Headers = make(map[string]string)
			}
			m.Headers[name] = value
		}
		route.Match = append(route.Match, m)
	}
	return route
}

func TestRouterMatch(t *testing.T) {
	f := func(routes []policy.Route, method, host, path string, fields fieldList, want string) {
		t.Helper()
		r, err := newRouter(routes)
		if err != nil {
			t.Fatalf("unexpected error: %v", err)
		}
		got := "none"
		if i := r.match(&Request{Method: []byte(method), Host: []byte(host), Path: []byte(path), Header: fields}); i >= 0 {
			got = routes[i].Name
		}
		if got != want {
			t.Errorf("unexpected route of %s %s%s: got %s, want %s", method, host, path, got, want)
		}
	}
	all := func(rs ...policy.Route) []policy.Route { return rs }

	// No route matches nothing, and a route without a list matches everything.
	f(nil, "GET", "a.test", "/", nil, "none")
	f(all(routeOf(t, "all")), "GET", "a.test", "/x", nil, "all")
	f(all(routeOf(t, "all")), "OPTIONS", "", "*", nil, "all")
	// Any condition of the list suffices.
	or := all(routeOf(t, "or", "- - /a", "- - /b"))
	f(or, "GET", "a.test", "/a", nil, "or")
	f(or, "GET", "a.test", "/b", nil, "or")
	f(or, "GET", "a.test", "/c", nil, "none")
	// All fields of one condition must hold.
	and := all(routeOf(t, "and", "GET a.test /a X-Beta=1"))
	f(and, "GET", "a.test", "/a", fieldList{{"x-beta", "1"}}, "and")
	f(and, "PUT", "a.test", "/a", fieldList{{"x-beta", "1"}}, "none")
	f(and, "GET", "b.test", "/a", fieldList{{"x-beta", "1"}}, "none")
	f(and, "GET", "a.test", "/b", fieldList{{"x-beta", "1"}}, "none")
	f(and, "GET", "a.test", "/a", fieldList{{"x-beta", "2"}}, "none")
	f(and, "GET", "a.test", "/a", nil, "none")
	// A repeated field fulfils no header condition, even if its values are equal.
	f(and, "GET", "a.test", "/a", fieldList{{"X-Beta", "1"}, {"x-beta", "1"}}, "none")
	// A condition on an empty value needs the field.
	empty := []policy.Route{{Name: "empty", Match: []policy.RouteMatch{{Headers: map[string]string{"X-Beta": ""}}}}}
	f(empty, "GET", "a.test", "/", fieldList{{"X-Beta", ""}}, "empty")
	f(empty, "GET", "a.test", "/", nil, "none")
	// Methods compare by case.
	f(and, "get", "a.test", "/a", fieldList{{"x-beta", "1"}}, "none")

	// Hosts compare without case, port and trailing dot.
	host := all(routeOf(t, "host", "- Api.Example.com -"))
	f(host, "GET", "api.example.com", "/", nil, "host")
	f(host, "GET", "API.example.COM:8080", "/", nil, "host")
	f(host, "GET", "api.example.com.", "/", nil, "host")
	f(host, "GET", "api.example.com.:80", "/", nil, "host")
	f(host, "GET", "api.example.com..", "/", nil, "none")
	f(host, "GET", "x.api.example.com", "/", nil, "none")
	f(host, "GET", "example.com", "/", nil, "none")
	f(host, "GET", "", "/", nil, "none")
	f(host, "GET", strings.Repeat("a", 300)+".api.example.com", "/", nil, "none")
	f(all(routeOf(t, "six", "- [2001:DB8::1] -")), "GET", "[2001:db8::1]:80", "/", nil, "six")
	f(all(routeOf(t, "six", "- [2001:db8::1] -")), "GET", "[2001:db8::1", "/", nil, "none")
	// Only ASCII letters fold: the Kelvin sign is no k.
	f(all(routeOf(t, "k", "- k.test -")), "GET", "\u212a.test", "/", nil, "none")
	// A wildcard is exactly one label.
	wild := all(routeOf(t, "wild", "- *.Example.com -"))
	f(wild, "GET", "a.example.com", "/", nil, "wild")
	f(wild, "GET", "A.EXAMPLE.com.:80", "/", nil, "wild")
	f(wild, "GET", "a.b.example.com", "/", nil, "none")
	f(wild, "GET", "example.com", "/", nil, "none")
	f(wild, "GET", ".example.com", "/", nil, "none")
	f(wild, "GET", "aexample.com", "/", nil, "none")

	// A prefix is everything below, and itself; paths compare by case.
	prefix := all(routeOf(t, "prefix", "- - /a/b/*"))
	f(prefix, "GET", "", "/a/b", nil, "prefix")
	f(prefix, "GET", "", "/a/b/", nil, "prefix")
	f(prefix, "GET", "", "/a/b/c/d/e", nil, "prefix")
	f(prefix, "GET", "", "/a/bc", nil, "none")
	f(prefix, "GET", "", "/a", nil, "none")
	f(prefix, "GET", "", "/A/b", nil, "none")
	f(prefix, "GET", "", "/x/a/b", nil, "none")
	root := all(routeOf(t, "root", "- - /*"))
	f(root, "GET", "", "/", nil, "root")
	f(root, "GET", "", "/x/y", nil, "root")
	f(root, "OPTIONS", "", "*", nil, "none")
	f(append(root, prefix...), "GET", "", "x/a/b", nil, "none")
	// An exact path is only that.
	f(all(routeOf(t, "exact", "- - /a")), "GET", "", "/a/", nil, "none")
	f(all(routeOf(t, "exact", "- - /")), "GET", "", "/", nil, "exact")

	// Host before path: the exact host wins over the wildcard, and that over any, whatever the paths.
	hosts := all(routeOf(t, "any", "- - /a/b"), routeOf(t, "wild", "- *.test /a/*"), routeOf(t, "exact", "- x.test /*"))
	f(hosts, "GET", "x.test", "/a/b", nil, "exact")
	f(hosts, "GET", "y.test", "/a/b", nil, "wild")
	f(hosts, "GET", "y.other", "/a/b", nil, "any")
	// A host whose paths do not fit passes the request on.
	f(hosts, "GET", "y.test", "/b", nil, "none")
	f(append(hosts, routeOf(t, "zz")), "GET", "y.test", "/b", nil, "zz")
	// Path: exact, longer prefix, shorter prefix, any.
	paths := all(routeOf(t, "a", "- - -"), routeOf(t, "b", "- - /*"), routeOf(t, "c", "- - /a/*"), routeOf(t, "d", "- - /a/b/c/*"), routeOf(t, "e", "- - /a/b/c"))
	f(paths, "GET", "", "/a/b/c", nil, "e")
	f(paths, "GET", "", "/a/b/c/", nil, "d")
	f(paths, "GET", "", "/a/b", nil, "c")
	f(paths, "GET", "", "/b", nil, "b")
	f(paths, "GET", "", "*", nil, "a")
	// Path before headers, headers before methods, methods before name.
	f(all(routeOf(t, "a", "GET - /a/* A=1 B=2"), routeOf(t, "b", "- - /a")), "GET", "", "/a", fieldList{{"A", "1"}, {"B", "2"}}, "b")
	f(all(routeOf(t, "a", "GET - /a A=1"), routeOf(t, "b", "- - /a A=1 B=2")), "GET", "", "/a", fieldList{{"A", "1"}, {"B", "2"}}, "b")
	f(all(routeOf(t, "a", "- - /a A=1"), routeOf(t, "b", "GET,PUT - /a A=1")), "GET", "", "/a", fieldList{{"A", "1"}}, "b")
	// Neither more nor fewer methods, but the name.
	f(all(routeOf(t, "b", "GET - /a"), routeOf(t, "a", "GET,PUT - /a")), "GET", "", "/a", nil, "a")
	f(all(routeOf(t, "b", "GET,PUT - /a"), routeOf(t, "a", "GET - /a")), "GET", "", "/a", nil, "a")
	// What fails on method or headers passes the request on to the next condition.
	verbs := all(routeOf(t, "get", "GET - /a"), routeOf(t, "post", "POST - /a"), routeOf(t, "beta", "- - /a X-Beta=1"), routeOf(t, "rest"))
	f(verbs, "GET", "", "/a", nil, "get")
	f(verbs, "POST", "", "/a", nil, "post")
	f(verbs, "POST", "", "/a", fieldList{{"X-BETA", "1"}}, "beta")
	f(verbs, "PUT", "", "/a", nil, "rest")
	f(verbs, "GET", "", "/b", nil, "rest")
}

func TestNewRouterFailure(t *testing.T) {
	f := func(host, path, want string) {
		t.Helper()
		_, err := newRouter([]policy.Route{{Name: "r", Match: []policy.RouteMatch{{}, {Host: host, Path: path}}}})
		if err == nil {
			t.Fatalf("expecting an error for host %q, path %q", host, path)
		}
		if got := err.Error(); !strings.Contains(got, `route "r": match[1]: `) || !strings.Contains(got, want) {
			t.Errorf("unexpected error: got %q, want it to name the route and to contain %q", got, want)
		}
	}

	// An asterisk that is not the whole first label.
	f("a.*.test", "", "want a name of 1 to 253 bytes, or *. and a name")
	f("a*.test", "", `host "a*.test"`)
	f("*.*.test", "", `host "*.*.test"`)
	f("*", "", `host "*"`)
	// No name.
	f("*.", "", `host "*."`)
	f(":80", "", `host ":80"`)
	// Longer than any host.
	f(strings.Repeat("a", 254), "", "1 to 253 bytes")
	// A path without slash, or with another asterisk.
	f("", "a", "want / first")
	f("", "*", "want / first")
	f("", "/a*", "only as the last segment")
	f("", "/*/a", "only as the last segment")
}

// refRoute is the documented order, written down as plainly as possible: of all conditions that hold, the least.
func refRoute(routes []policy.Route, req *Request) string {
	type candidate struct {
		host, prefix, headers, methods int
		name                           string
	}
	var holding []candidate
	host := strings.ToLower(string(req.Host))
	host, _, _ = strings.Cut(host, ":")
	host = strings.TrimSuffix(host, ".")
	for _, route := range routes {
		matches := route.Match
		if len(matches) == 0 {
			matches = []policy.RouteMatch{{}}
		}
		for _, m := range matches {
			c := candidate{headers: len(m.Headers), methods: min(1, len(m.Methods)), name: route.Name}
			switch under, wildcard := strings.CutPrefix(m.Host, "*"); {
			case m.Host == "":
			case wildcard:
				label, ok := strings.CutSuffix(host, under)
				if !ok || label == "" || strings.Contains(label, ".") {
					continue
				}
				c.host = 1
			case m.Host == host:
				c.host = 2
			default:
				continue
			}
			switch base, prefix := strings.CutSuffix(m.Path, "/*"); {
			case m.Path == "":
			case prefix:
				if string(req.Path) != base && !strings.HasPrefix(string(req.Path), base+"/") {
					continue
				}
				c.prefix = 1 + len(base)
			case m.Path == string(req.Path):
				c.prefix = 1000
			default:
				continue
			}
			if len(m.Methods) > 0 && !slices.Contains(m.Methods, string(req.Method)) {
				continue
			}
			holds := true
			for name, want := range m.Headers {
				value, count := req.Header.Lookup(name)
				holds = holds && count == 1 && string(value) == want
			}
			if holds {
				holding = append(holding, c)
			}
		}
	}
	if len(holding) == 0 {
		return "none"
	}
	return slices.MinFunc(holding, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.host, a.host), cmp.Compare(b.prefix, a.prefix), cmp.Compare(b.headers, a.headers),
			cmp.Compare(b.methods, a.methods), cmp.Compare(a.name, b.name))
	}).name
}

func TestRouterAgainstReference(t *testing.T) {
	var (
		hosts   = rapid.SampledFrom([]string{"", "", "a.test", "b.test", "x.b.test", "*.test", "*.b.test"})
		paths   = rapid.SampledFrom([]string{"", "/*", "/", "/a", "/a/*", "/a/b", "/a/b/*", "/ab/*", "/a/b/c/d/*", "/a/b/c/d"})
		methods = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"GET", "POST"}), 0, 2, rapid.ID)
		headers = rapid.MapOfN(rapid.SampledFrom([]string{"A", "B"}), rapid.SampledFrom([]string{"1", "2"}), 0, 2)
		match   = rapid.Custom(func(t *rapid.T) policy.RouteMatch {
			return policy.RouteMatch{Host: hosts.Draw(t, "host"), Path: paths.Draw(t, "path"), Methods: methods.Draw(t, "methods"), Headers: headers.Draw(t, "headers")}
		})
		field = rapid.Custom(func(t *rapid.T) [2]string {
			return [2]string{rapid.SampledFrom([]string{"a", "A", "b", "C"}).Draw(t, "name"), rapid.SampledFrom([]string{"1", "2"}).Draw(t, "value")}
		})
		sentHost = rapid.SampledFrom([]string{"", "a.test", "A.TEST:80", "b.test.", "x.b.test", "y.b.test", "q.test", "a.b.c.test", ".test", "other"})
		sentPath = rapid.SampledFrom([]string{"/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/d", "/a/b/c/d/e/f", "/ab", "/abc", "/b", "*", ""})
	)
	rapid.Check(t, func(t *rapid.T) {
		routes := make([]policy.Route, rapid.IntRange(0, 12).Draw(t, "routes"))
		for i := range routes {
			routes[i] = policy.Route{Name: fmt.Sprintf("r%02d", i), Match: rapid.SliceOfN(match, 0, 3).Draw(t, "match")}
		}
		// The order in which routes are given must not matter.
		routes = rapid.Permutation(routes).Draw(t, "order")
		r, err := newRouter(routes)
		if err != nil {
			t.Fatalf("unexpected error: %v", err)
		}
		for range 10 {
			req := &Request{
				Method: []byte(rapid.SampledFrom([]string{"GET", "POST", "PUT"}).Draw(t, "method")),
				Host:   []byte(sentHost.Draw(t, "sent host")),
				Path:   []byte(sentPath.Draw(t, "sent path")),
				Header: fieldList(rapid.SliceOfN(field, 0, 3).Draw(t, "fields")),
			}
			got, want := "none", refRoute(routes, req)
			if i := r.match(req); i >= 0 {
				got = routes[i].Name
			}
			if got != want {
				t.Fatalf("unexpected route of %s %s%s %v: got %s, want %s", req.Method, req.Host, req.Path, req.Header, got, want)
			}
		}
	})
}

// routeSets are the shapes that 1,000 routes take, each with a request for every route.
var routeSets = []struct {
	name string
	pair func(i int) (match policy.RouteMatch, req Request)
}{
	{"hosts", func(i int) (policy.RouteMatch, Request) {
		host := fmt.Sprintf("svc-%d.api.example.com", i)
		return policy.RouteMatch{Host: host, Path: "/*"}, Request{Host: []byte(host + ":8080"), Path: []byte("/v1/orders/4711")}
	}},
	{"wildcards", func(i int) (policy.RouteMatch, Request) {
		host := fmt.Sprintf("svc-%d.example.com", i)
		return policy.RouteMatch{Host: "*." + host}, Request{Host: []byte("acme." + host), Path: []byte("/v1/orders/4711")}
	}},
	{"paths", func(i int) (policy.RouteMatch, Request) {
		path := fmt.Sprintf("/v1/resource-%d", i)
		return policy.RouteMatch{Path: path}, Request{Host: []byte("api.example.com"), Path: []byte(path)}
	}},
	{"prefixes", func(i int) (policy.RouteMatch, Request) {
		prefix := fmt.Sprintf("/v1/service-%d", i)
		return policy.RouteMatch{Path: prefix + "/*"}, Request{Host: []byte("api.example.com"), Path: []byte(prefix + "/orders/4711")}
	}},
	{"mixed", func(i int) (policy.RouteMatch, Request) {
		host, prefix := fmt.Sprintf("svc-%d.example.com", i%50), "/v1"+strings.Repeat("/deep", i%3)+fmt.Sprintf("/r%d", i)
		return policy.RouteMatch{Host: host, Path: prefix + "/*", Methods: []string{"GET"}}, Request{Host: []byte(host), Path: []byte(prefix + "/4711/items")}
	}},
}

func routeSet(t testing.TB, pair func(i int) (policy.RouteMatch, Request)) (*router, []Request) {
	t.Helper()
	const n = 1000
	routes, reqs := make([]policy.Route, n), make([]Request, n)
	for i := range n {
		match, req := pair(i)
		routes[i] = policy.Route{Name: fmt.Sprintf("r%d", i), Match: []policy.RouteMatch{match}}
		req.Method, req.Header = []byte("GET"), &byteField{}
		reqs[i] = req
	}
	r, err := newRouter(routes)
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
	for i := range reqs {
		if got := r.match(&reqs[i]); got != i {
			t.Fatalf("unexpected route of %s%s: got %d, want %d", reqs[i].Host, reqs[i].Path, got, i)
		}
	}
	return r, reqs
}

func TestRouterMatchAllocatesNothing(t *testing.T) {
	f := func(r *router, req Request) {
		t.Helper()
		if n := testing.AllocsPerRun(100, func() { r.match(&req) }); n != 0 {
			t.Errorf("unexpected allocations for %s%s: got %v, want 0", req.Host, req.Path, n)
		}
	}

	for _, set := range routeSets {
		r, reqs := routeSet(t, set.pair)
		f(r, reqs[500])
		// A host in capitals, and a miss.
		upper := reqs[500]
		upper.Host = []byte(strings.ToUpper(string(upper.Host)))
		f(r, upper)
		miss := reqs[500]
		miss.Host, miss.Path = []byte(strings.Repeat("x", 200)), []byte(strings.Repeat("/x", 4000))
		f(r, miss)
	}
	// Header conditions.
	r, err := newRouter([]policy.Route{routeOf(t, "beta", "GET - /a X-Beta=1")})
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
	f(r, Request{Method: []byte("GET"), Path: []byte("/a"), Header: &byteField{"x-beta", []byte("1")}})
}

func BenchmarkRouterMatch(b *testing.B) {
	for _, set := range routeSets {
		b.Run(set.name, func(b *testing.B) {
			r, reqs := routeSet(b, set.pair)
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(reqs), func(i, j int) { reqs[i], reqs[j] = reqs[j], reqs[i] })
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if r.match(&reqs[i]) < 0 {
					b.Fatal("no route")
				}
				if i++; i == len(reqs) {
					i = 0
				}
			}
		})
	}
}
