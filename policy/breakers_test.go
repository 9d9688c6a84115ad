package policy

import (
	"strings"
	"testing"
)

func TestFailedStatuses(t *testing.T) {
	f := func(statuses string, status int, want bool) {
		t.Helper()
		s := FailureSettings{Statuses: strings.Fields(statuses)}
		if got := s.Failed(status); got != want {
			t.Errorf("%d of %s: got %v, want %v", status, statuses, got, want)
		}
	}

	f("5xx", 500, true)
	f("5xx", 599, true)
	f("5xx", 499, false)
	f("5xx", 600, false)
	f("503 4xx", 503, true)
	f("503 4xx", 502, false)
	f("503 4xx", 404, true)
	f("100", 0, false)
}

func TestBreakerWarnings(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		s, problems := Compile(set(t, "set.yaml", orders+text), CompileOptions{})
		if s == nil {
			t.Fatalf("cannot compile: %s", said(problems))
		}
		got := strings.Split(strings.TrimSpace(said(s.Warnings)), "\n")
		for _, w := range want {
			if !strings.Contains(said(s.Warnings), w) {
				t.Errorf("got %q, want %q", got, w)
			}
		}
		if len(want) == 0 && len(s.Warnings) > 0 {
			t.Errorf("unexpected warnings: %q", got)
		}
	}
	document := func(kind, name, spec string) string {
		return "\n" + kind + " " + name + " " + spec
	}
	breaker := document("BreakerPolicy", "b", "{target: {kind: Backend, name: orders}, qpsBaseline: {}}")
	core := document("Route", "core", "{backend: orders, match: [{path: /pay}]}")
	spare := document("Route", "spare", "{backend: orders, criticality: NonCore, match: [{path: /avatars/*}]}")

	// Something to shed, by the backend and by the route itself.
	f(breaker + core + spare)
	f(document("BreakerPolicy", "b", "{target: {kind: Route, name: spare}, qpsBaseline: {}}") + spare)
	// Nothing to shed.
	f(breaker+core, "spec.qpsBaseline: Degraded sheds nothing")
	f(breaker, "spec.qpsBaseline: Degraded sheds nothing")
	// Nobody who sheds it.
	f(core+spare, "spec.criticality: NonCore means nothing here")
	f(document("BreakerPolicy", "b", "{target: {kind: Route, name: core}, failures: {}}")+core+spare, "spec.criticality: NonCore means nothing here")
	// Who only opens needs no route to shed.
	f(document("BreakerPolicy", "b", "{target: {kind: Backend, name: orders}, failures: {}}") + core)
}
