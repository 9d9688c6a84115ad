package policy

import (
	"encoding/json"
	"strings"
	"testing"
)

func burstProblem() Problem {
	return Problem{
		Origin: Origin{File: "gold.yaml", Line: 7, Column: 5}, Kind: KindTenantPolicy, Name: "gold",
		Path: "spec.limits[0].brust", Message: "unknown field", Suggestion: `did you mean "burst"?`,
		Excerpt: "    brust: 5\n    ^",
	}
}

func TestProblemString(t *testing.T) {
	f := func(p Problem, want string) {
		t.Helper()
		if got := p.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	f(burstProblem(), `gold.yaml:7:5: spec.limits[0].brust: unknown field; did you mean "burst"?`)
	// A warning says so.
	f(Problem{Severity: Warning, Origin: Origin{File: "a", Line: 1}, Message: "m"}, "a:1: warning: m")
	// What is not known is left out.
	f(Problem{Message: "no documents"}, "no documents")
	f(Problem{Origin: Origin{File: "a"}, Path: "spec", Message: "m"}, "a: spec: m")
	f(Problem{Origin: Origin{Line: 3, Column: 4}, Message: "m"}, "3:4: m")
}

func TestProblemRender(t *testing.T) {
	f := func(p Problem, color bool, want string) {
		t.Helper()
		var b strings.Builder
		if err := p.Render(&b, color); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("got\n%s\nwant\n%s", b.String(), want)
		}
	}
	f(burstProblem(), false, `gold.yaml:7:5: spec.limits[0].brust: unknown field
        brust: 5
        ^
    did you mean "burst"?
`)
	f(burstProblem(), true, "\x1b[1mgold.yaml:7:5: spec.limits[0].brust: unknown field\x1b[0m\n        brust: 5\n    \x1b[1;31m    ^\x1b[0m\n    \x1b[32mdid you mean \"burst\"?\x1b[0m\n")
	f(Problem{Message: "no documents"}, false, "no documents\n")
}

func TestProblemJSON(t *testing.T) {
	f := func(p Problem, want string) {
		t.Helper()
		got, err := json.Marshal(p)
		if err != nil || string(got) != want {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
	}
	f(burstProblem(), `{"severity":"error","file":"gold.yaml","line":7,"column":5,"kind":"TenantPolicy","name":"gold",`+
		`"path":"spec.limits[0].brust","message":"unknown field","suggestion":"did you mean \"burst\"?","excerpt":"    brust: 5\n    ^"}`)
	f(Problem{Severity: Warning, Message: "m"}, `{"severity":"warning","message":"m"}`)
}

func TestExcerpt(t *testing.T) {
	f := func(line string, column int, want string) {
		t.Helper()
		if got := excerpt(line, column); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	f("a: b", 4, "a: b\n   ^")
	// Characters count, not bytes.
	f("ü: b", 4, "ü: b\n   ^")
	// A tab keeps the caret in place.
	f("a:\tb", 4, "a:\tb\n  \t^")
	// Beyond either end.
	f("a", 9, "a\n ^")
	f("a", 0, "a\n^")
	f("", 1, "\n^")
	// Nothing reaches the terminal that could command it.
	f("a\x1b[31m\xff", 2, "a\ufffd[31m\ufffd\n ^")
	// A long line is cut, around the caret when that is far to the right.
	f(strings.Repeat("x", 200), 1, strings.Repeat("x", 120)+"…\n^")
	f(strings.Repeat("x", 199)+"y", 200, strings.Repeat("x", 79)+"y\n"+strings.Repeat(" ", 79)+"^")
}

func TestSortProblems(t *testing.T) {
	at := func(file string, line, column int) Problem {
		return Problem{Origin: Origin{File: file, Line: line, Column: column}}
	}
	ps := []Problem{at("b", 1, 1), at("a", 10, 1), at("a", 9, 3), at("a", 9, 2)}
	sortProblems(ps)
	var got []string
	for _, p := range ps {
		got = append(got, p.Origin.String())
	}
	if s := strings.Join(got, " "); s != "a:9:2 a:9:3 a:10:1 b:1:1" {
		t.Errorf("got %s", s)
	}
}
