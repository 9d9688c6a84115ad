package admit

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"weir/policy"
)

// explainRoute adds which entry of a route takes the request, and which route would without it.
func (t *Table) explainRoute(told *TraceRoute, route int, req *Request) {
	routes := t.snapshot.Routes
	entry := entryOf(&routes[route], req)
	told.Match = matchText(entry, &routes[route])
	others := append(append([]policy.Route(nil), routes[:route]...), routes[route+1:]...)
	second := firstRoute(others, req)
	if second < 0 {
		return
	}
	told.Before = others[second].Name
	told.Why = whyBefore(matchAt(&routes[route], entry), matchAt(&others[second], entryOf(&others[second], req)))
}

// firstRoute asks a router of these routes.
func firstRoute(routes []policy.Route, req *Request) int {
	r, err := newRouter(routes)
	if err != nil {
		panic("BUG: routes that were compiled cannot be compiled: " + err.Error())
	}
	return r.match(req)
}

// entryOf returns the most specific entry of a route that takes the request: each is made a route of its own.
func entryOf(r *policy.Route, req *Request) int {
	entries := make([]policy.Route, len(r.Match))
	for i := range entries {
		entries[i] = policy.Route{Name: fmt.Sprintf("%09d", i), Match: r.Match[i : i+1]}
	}
	return firstRoute(entries, req)
}

// matchAt returns an entry; the one that fits everything for a route without any.
func matchAt(r *policy.Route, entry int) policy.RouteMatch {
	if entry < 0 {
		return policy.RouteMatch{}
	}
	return r.Match[entry]
}

func matchText(entry int, r *policy.Route) string {
	if entry < 0 {
		return "every request"
	}
	m := &r.Match[entry]
	var parts []string
	if m.Host != "" {
		parts = append(parts, "host "+m.Host)
	}
	if m.Path != "" {
		parts = append(parts, "path "+m.Path)
	}
	if len(m.Methods) > 0 {
		parts = append(parts, "methods "+strings.Join(m.Methods, " "))
	}
	if len(m.Headers) > 0 {
		parts = append(parts, strconv.Itoa(len(m.Headers))+" headers")
	}
	return fmt.Sprintf("spec.match[%d]: %s", entry, cmp.Or(strings.Join(parts, ", "), "everything"))
}

// whyBefore says which of the router's rules puts an entry a before b. Both take the same request.
func whyBefore(a, b policy.RouteMatch) string {
	host := func(m *policy.RouteMatch) int {
		switch {
		case m.Host == "":
			return 0
		case strings.HasPrefix(m.Host, "*."):
			return 1
		}
		return 2
	}
	path := func(m *policy.RouteMatch) int {
		prefix, isPrefix := strings.CutSuffix(m.Path, "/*")
		switch {
		case m.Path == "":
			return -1
		case isPrefix:
			return strings.Count(prefix, "/")
		}
		return 1 << 30
	}
	switch {
	case host(&a) != host(&b):
		return "its host is more specific"
	case path(&a) != path(&b):
		return "its path is more specific"
	case len(a.Headers) != len(b.Headers):
		return "it asks for more headers"
	case min(len(a.Methods), 1) != min(len(b.Methods), 1):
		return "it names methods"
	}
	return "it is the first by name"
}
