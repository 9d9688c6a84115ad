package admit

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"weir/policy"
)

// router finds the most specific route of a request. It is immutable, safe for concurrent use, and allocates nothing.
//
// Conditions are compared in this order, the first difference decides:
//
//  1. host: a name, then "*." and a name, then any. The asterisk stands for exactly one label, so at most one wildcard
//     fits a host.
//  2. path: exact, then the longest prefix (the one of most segments), then any
//  3. headers: more conditions before fewer
//  4. methods: named before any
//  5. the route's name, ascending
//
// A condition that does not hold passes the request on to the next one in that order: a route for GET /a, one for
// POST /a and one for everything live side by side.
//
// Host names compare in lower case, without port and without trailing dot; everything else byte for byte. A header
// condition holds when the request has exactly one field of that name and it has exactly that value: of a repeated field
// nobody knows which one the backend will read.
//
// Hosts and paths are map look-ups, so the cost grows with the segments of the deepest prefix, not with the number of
// routes.
type router struct {
	hosts     map[string]*pathTable
	wildcards map[string]*pathTable // by what follows "*."
	anyHost   *pathTable
}

// pathTable holds the rules of one host.
type pathTable struct {
	exact    map[string][]rule
	prefixes []map[string][]rule // by the number of slashes in the prefix; nil where there is none
	anyPath  []rule
}

// rule is what is left of a RouteMatch below its host and path.
type rule struct {
	route   int
	methods []string          // empty: any
	headers []headerCondition // sorted by name
}

type headerCondition struct {
	name, value string
}

// newRouter compiles the routes of a snapshot.
func newRouter(routes []policy.Route) (*router, error) {
	r := &router{
		hosts:     make(map[string]*pathTable),
		wildcards: make(map[string]*pathTable),
		anyHost:   newPathTable(),
	}
	for i := range routes {
		matches := routes[i].Match
		if len(matches) == 0 {
			matches = []policy.RouteMatch{{}}
		}
		for j := range matches {
			if err := r.add(i, &matches[j]); err != nil {
				return nil, fmt.Errorf("cannot compile route %q: match[%d]: %w", routes[i].Name, j, err)
			}
		}
	}

	order := func(a, b rule) int {
		return cmp.Or(
			cmp.Compare(len(b.headers), len(a.headers)),
			cmp.Compare(min(len(b.methods), 1), min(len(a.methods), 1)),
			strings.Compare(routes[a.route].Name, routes[b.route].Name),
		)
	}
	r.anyHost.sort(order)
	for _, t := range r.hosts {
		t.sort(order)
	}
	for _, t := range r.wildcards {
		t.sort(order)
	}
	return r, nil
}

func (r *router) add(route int, m *policy.RouteMatch) error {
	table := r.anyHost
	if m.Host != "" {
		name, wildcard, err := parseHostPattern(m.Host)
		if err != nil {
			return err
		}
		tables := r.hosts
		if wildcard {
			tables = r.wildcards
		}
		if tables[name] == nil {
			tables[name] = newPathTable()
		}
		table = tables[name]
	}
	return table.add(m.Path, newRule(route, m))
}

// match returns the index of the route in the snapshot's Routes, or -1.
func (r *router) match(req *Request) int {
	if len(r.hosts)+len(r.wildcards) > 0 {
		var buf [maxHostBytes]byte
		host := lowerHostname(req.Host, &buf)
		if t := r.hosts[string(host)]; t != nil {
			if route := t.match(req); route >= 0 {
				return route
			}
		}
		if dot := bytes.IndexByte(host, '.'); dot > 0 {
			if t := r.wildcards[string(host[dot+1:])]; t != nil {
				if route := t.match(req); route >= 0 {
					return route
				}
			}
		}
	}
	return r.anyHost.match(req)
}

func newPathTable() *pathTable {
	return &pathTable{exact: make(map[string][]rule)}
}

func (t *pathTable) add(pattern string, r rule) error {
	if pattern == "" {
		t.anyPath = append(t.anyPath, r)
		return nil
	}
	path, prefix, err := parsePathPattern(pattern)
	if err != nil {
		return err
	}
	if !prefix {
		t.exact[path] = append(t.exact[path], r)
		return nil
	}
	depth := strings.Count(path, "/")
	for len(t.prefixes) <= depth {
		t.prefixes = append(t.prefixes, nil)
	}
	if t.prefixes[depth] == nil {
		t.prefixes[depth] = make(map[string][]rule)
	}
	t.prefixes[depth][path] = append(t.prefixes[depth][path], r)
	return nil
}

func (t *pathTable) sort(order func(a, b rule) int) {
	slices.SortStableFunc(t.anyPath, order)
	for _, byPath := range append(t.prefixes[:len(t.prefixes):len(t.prefixes)], t.exact) {
		for _, rules := range byPath {
			slices.SortStableFunc(rules, order)
		}
	}
}

func (t *pathTable) match(req *Request) int {
	path := req.Path
	if len(t.exact) > 0 {
		if route := firstOf(t.exact[string(path)], req); route >= 0 {
			return route
		}
	}
	if len(t.prefixes) > 0 {
		// A prefix of d slashes ends where the path's slash d+1 is, or the path itself: one look-up for each depth.
		depth, end := descend(path, len(t.prefixes)-1)
		for depth >= 0 {
			if route := firstOf(t.prefixes[depth][string(path[:end])], req); route >= 0 {
				return route
			}
			depth--
			end = bytes.LastIndexByte(path[:end], '/')
		}
	}
	return firstOf(t.anyPath, req)
}

// descend returns the depth, at most deepest, of the longest prefix that a path can have, and where that prefix ends.
func descend(path []byte, deepest int) (depth, end int) {
	slashes := 0
	for i, c := range path {
		if c != '/' {
			continue
		}
		if slashes == deepest {
			return deepest, i
		}
		slashes++
	}
	return slashes, len(path)
}

func newRule(route int, m *policy.RouteMatch) rule {
	r := rule{route: route, methods: slices.Clone(m.Methods)}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		r.headers = append(r.headers, headerCondition{name: name, value: m.Headers[name]})
	}
	return r
}

// firstOf returns the route of the first rule that takes the request, or -1.
func firstOf(rules []rule, req *Request) int {
	for i := range rules {
		if rules[i].takes(req) {
			return rules[i].route
		}
	}
	return -1
}

func (r *rule) takes(req *Request) bool {
	if len(r.methods) > 0 && !containsBytes(r.methods, req.Method) {
		return false
	}
	for i := range r.headers {
		value, count := req.Header.Lookup(r.headers[i].name)
		if count != 1 || string(value) != r.headers[i].value {
			return false
		}
	}
	return true
}

func containsBytes(list []string, b []byte) bool {
	for _, s := range list {
		if s == string(b) {
			return true
		}
	}
	return false
}
