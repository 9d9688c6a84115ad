package proxy

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/conformance.md instead of comparing with it")

// behaviour is what a test of another proxy checks, in our words, and how it is here. It is the facts that are shared: every
// check is our own.
type behaviour struct {
	file  string // where the peer checks it, and by which name
	name  string
	does  string
	state state
	why   string             // of every state but holds
	check func(t *testing.T) // one of our tests by name, or a check that TestPeers runs; nil where there is nothing to check
}

// state says how a peer's behaviour is here.
type state string

const (
	holds   state = "holds"
	differs state = "differs on purpose"
	later   state = "later"
	nothing state = "no counterpart" // the test is of an interface or a protocol that is not here
)

// peers are the projects whose tests were read, each with its behaviours.
var peers = []struct {
	name, about string
	list        func() []behaviour
}{
	{"httputil", "Go, `net/http/httputil`", httputilBehaviours},
	{"haproxy", "HAProxy, `reg-tests`", haproxyBehaviours},
	{"nginx", "nginx, `nginx-tests`", nginxBehaviours},
	{"pingora", "Pingora", pingoraBehaviours},
	{"linkerd", "linkerd2-proxy, `linkerd/app/integration`", linkerdBehaviours},
	{"skipper", "Skipper, `proxy`", skipperBehaviours},
}

// TestPeers runs the checks that are not tests of their own, each once.
func TestPeers(t *testing.T) {
	done := make(map[string]bool)
	for _, p := range peers {
		for _, b := range p.list() {
			if b.check == nil {
				continue
			}
			if name := nameOf(b.check); !done[name] && !strings.HasPrefix(name, "Test") {
				done[name] = true
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					b.check(t)
				})
			}
		}
	}
}

// nameOf is a check's name in this package.
func nameOf(check func(t *testing.T)) string {
	name := runtime.FuncForPC(reflect.ValueOf(check).Pointer()).Name()
	_, name, _ = strings.Cut(name[strings.LastIndex(name, "/")+1:], ".")
	return name
}

func TestConformanceTableIsWhole(t *testing.T) {
	for _, p := range peers {
		seen := make(map[string]bool)
		for _, b := range p.list() {
			switch id := b.file + " " + b.name; {
			case seen[id]:
				t.Errorf("%s: %s is there twice", p.name, id)
			case b.file == "" || b.name == "" || b.does == "":
				t.Errorf("%s: %+v says too little", p.name, b)
			case (b.why == "") != (b.state == holds):
				t.Errorf("%s: %s %q because of %q", p.name, id, b.state, b.why)
			case (b.check == nil) != (b.state == later || b.state == nothing):
				t.Errorf("%s: %s is %q; a check is for what can be checked", p.name, id, b.state)
			case b.check != nil && strings.Contains(nameOf(b.check), "."):
				t.Errorf("%s: the check of %s has no name to be found by", p.name, id)
			}
			seen[b.file+" "+b.name] = true
		}
	}
}

const conformancePage = "../docs/conformance.md"

// TestConformancePageIsFresh compares the page with the table; with -update it writes it.
func TestConformancePageIsFresh(t *testing.T) {
	want := conformance()
	if *update {
		if err := os.WriteFile(conformancePage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(conformancePage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is stale: run go test ./proxy -run TestConformancePageIsFresh -update", conformancePage)
	}
}

func conformance() string {
	var page strings.Builder
	page.WriteString(`# Conformance

Generated from the tables in proxy/conformance_*_test.go by ` + "`go test ./proxy -run TestConformancePageIsFresh -update`" + `; do not edit.

The tests of other proxies are a record of what went wrong before. Each line is a behaviour that such a test checks, and how it is
here. The facts are shared, nothing else: every check is our own, and ` + "`go test ./proxy -run '<check>'`" + ` runs it.

| peer | behaviours | ` + string(holds) + ` | ` + string(differs) + ` | ` + string(later) + ` | ` + string(nothing) + ` |
|---|---|---|---|---|---|
`)
	total := make(map[state]int)
	all := 0
	for _, p := range peers {
		list := p.list()
		fmt.Fprintf(&page, "| [%s](#%s) | %d |", p.name, p.name, len(list))
		for _, s := range []state{holds, differs, later, nothing} {
			n := len(slices.DeleteFunc(slices.Clone(list), func(b behaviour) bool { return b.state != s }))
			total[s] += n
			fmt.Fprintf(&page, " %d |", n)
		}
		page.WriteString("\n")
		all += len(list)
	}
	fmt.Fprintf(&page, "| all | %d | %d | %d | %d | %d |\n", all, total[holds], total[differs], total[later], total[nothing])
	for _, p := range peers {
		fmt.Fprintf(&page, "\n## %s\n\n%s.\n\n| file | test | behaviour | here | check |\n|---|---|---|---|---|\n", p.name, p.about)
		for _, b := range p.list() {
			here := string(b.state)
			if b.why != "" {
				here += ": " + b.why
			}
			fmt.Fprintf(&page, "| %s | %s | %s | %s | %s |\n", b.file, b.name, cell(b.does), cell(here), checkedBy(b))
		}
	}
	return page.String()
}

// cell is text that a table can hold.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

func checkedBy(b behaviour) string {
	switch {
	case b.check == nil:
		return ""
	case strings.HasPrefix(nameOf(b.check), "Test"):
		return "`" + nameOf(b.check) + "`"
	}
	return "`TestPeers/" + nameOf(b.check) + "`"
}

// What the checks have in common.

// asks sends a request to a backend of that answer, and returns what the backend got and what came back.
func asks(t *testing.T, request, answer string, further ...string) (got, status, body string, s *sidecar) {
	t.Helper()
	arrived := make(chan string, 10)
	s = serve(t, documents(answering(t, answer, arrived).addr, further...))
	c := s.dial()
	c.say(request)
	method, _, _ := strings.Cut(request, " ")
	a, body := c.answer(method)
	select {
	case got = <-arrived:
	default:
	}
	return got, a.Status[:3], body, s
}

// refused checks that each request gets that status, that its connection ends, and that no backend hears of it.
func refused(t *testing.T, status int, requests ...string) {
	t.Helper()
	b := newBackend(t, func(*peer) { t.Error("a backend was asked") })
	s := serve(t, documents(b.addr))
	for i, r := range requests {
		c := s.dial()
		c.say(r)
		if a, body := c.answer("GET"); a.StatusCode != status {
			t.Errorf("%q got %d %s, want %d", r, a.StatusCode, body, status)
		}
		c.closed()
		s.logged(i + 1)
	}
}

// get11 is a GET with further fields.
func get11(target string, fields ...string) string { return requestOf("GET", target, fields...) }

func requestOf(method, target string, fields ...string) string {
	r := method + " " + target + " HTTP/1.1\r\nX-Tenant-ID: acme\r\n"
	host := true
	for _, f := range fields {
		host = host && !strings.HasPrefix(strings.ToLower(f), "host:")
		r += f + "\r\n"
	}
	if host {
		r += "Host: h\r\n"
	}
	return r + "\r\n"
}

// lacks checks that a head has none of these fields.
func lacks(t *testing.T, head string, names ...string) {
	t.Helper()
	for _, name := range names {
		if v := fields(head, name); len(v) > 0 {
			t.Errorf("%s: %q in %q", name, v, head)
		}
	}
}
