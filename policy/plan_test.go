package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// snapshotOf makes a snapshot by hand, sorted as Compile sorts it.
func snapshotOf(policies ...TenantPolicy) *Snapshot {
	slices.SortFunc(policies, func(a, b TenantPolicy) int { return strings.Compare(a.Name, b.Name) })
	return &Snapshot{Policies: policies}
}

// selecting makes a policy of one selector, written "names a b", "match eu-*", "any" or "unknown". A limit is a name, with !
// behind it when it is final and ~ before it when it is in shadow.
func selecting(name, selector string, limits ...string) TenantPolicy {
	p := TenantPolicy{Name: name, Backend: -1}
	sort, rest, _ := strings.Cut(selector, " ")
	switch sort {
	case "names":
		p.Specificity, p.Names = SpecNames, strings.Fields(rest)
		slices.Sort(p.Names)
	case "match":
		p.Specificity, p.Pattern = SpecMatch, rest
	case "any":
		p.Specificity = SpecAny
	case "unknown":
		p.Specificity = SpecUnknown
	default:
		panic("BUG: no such selector: " + selector)
	}
	for _, limit := range limits {
		limit, final := strings.CutSuffix(limit, "!")
		limit, shadow := strings.CutPrefix(limit, "~")
		p.Limits = append(p.Limits, LimitRule{Policy: name, Name: limit, Requests: 1, Per: time.Second, Burst: 1, Final: final, Shadow: shadow})
	}
	return p
}

// standing lists the limits of a plan as policy/limit, those in shadow as policy/~limit.
func standing(plan Plan) string {
	var all []string
	for _, l := range plan.Limits {
		shadow := ""
		if l.Shadow {
			shadow = "~"
		}
		all = append(all, l.Policy+"/"+shadow+l.Name)
	}
	return strings.Join(all, " ")
}

func TestPlanLimits(t *testing.T) {
	f := func(tenant, want string, policies ...TenantPolicy) {
		t.Helper()
		s := snapshotOf(policies...)
		if got := standing(s.Plan(s.Covering(tenant, nil))); got != want {
			t.Errorf("the limits of %s are %q, want %q", tenant, got, want)
		}
	}

	// Limits of different names all apply, the most specific first.
	f("acme", "gold/a europe/b base/c",
		selecting("base", "any", "c"), selecting("europe", "match a*", "b"), selecting("gold", "names acme", "a"))

	// Within one policy they stay in document order; equally specific policies go by name.
	f("acme", "one/z one/a two/m", selecting("two", "any", "m"), selecting("one", "any", "z", "a"))

	// A limit of the same name replaces the less specific: names over match.
	f("acme", "gold/steady", selecting("a", "match a*", "steady"), selecting("gold", "names acme", "steady"))

	// Match over any.
	f("acme", "m/steady", selecting("a", "any", "steady"), selecting("m", "match a*", "steady"))

	// It replaces that limit only.
	f("acme", "gold/steady base/hourly", selecting("base", "any", "steady", "hourly"), selecting("gold", "names acme", "steady"))

	// Those whom the more specific policy does not cover keep the less specific limit.
	f("globex", "base/steady", selecting("base", "any", "steady"), selecting("gold", "names acme", "steady"))

	// A final limit is not replaced by a more specific one.
	f("acme", "base/steady", selecting("base", "any", "steady!"), selecting("gold", "names acme", "steady"))

	// Neither by several.
	f("acme", "base/steady",
		selecting("base", "any", "steady!"), selecting("m", "match a*", "steady"), selecting("gold", "names acme", "steady"))

	// Final in the middle: it replaces what is less specific and is not replaced itself.
	f("acme", "m/steady",
		selecting("base", "any", "steady"), selecting("m", "match a*", "steady!"), selecting("gold", "names acme", "steady"))

	// Final on the most specific changes nothing.
	f("acme", "gold/steady", selecting("base", "any", "steady"), selecting("gold", "names acme", "steady!"))

	// Of two final limits the least specific stands.
	f("acme", "base/steady", selecting("base", "any", "steady!"), selecting("gold", "names acme", "steady!"))

	// Of two equally specific the first by policy name stands.
	f("acme", "a/steady", selecting("b", "names acme", "steady"), selecting("a", "names acme", "steady"))

	// A final limit stands before an equally specific one whatever the names.
	f("acme", "b/steady", selecting("a", "any", "steady"), selecting("b", "any", "steady!"))

	// The length of a pattern does not count.
	f("eu-west-1", "a/steady", selecting("a", "match eu-*", "steady"), selecting("b", "match eu-west-*", "steady"))

	// A limit in shadow replaces no enforced one, however specific it is: both stand.
	f("acme", "gold/~steady base/steady", selecting("base", "any", "steady"), selecting("gold", "names acme", "~steady"))

	// Neither does an enforced one end the trial of a less specific one, not even when it is final.
	f("acme", "gold/steady base/~steady", selecting("base", "any", "~steady"), selecting("gold", "names acme", "steady!"))

	// Among those in shadow the same rules hold: specificity, final, the first by name.
	f("acme", "gold/~steady", selecting("base", "any", "~steady"), selecting("gold", "names acme", "~steady"))
	f("acme", "base/~steady", selecting("base", "any", "~steady!"), selecting("gold", "names acme", "~steady"))
	f("acme", "a/~steady", selecting("b", "any", "~steady"), selecting("a", "any", "~steady"))

	// An unknown policy never covers a tenant.
	f("acme", "base/steady", selecting("base", "any", "steady"), selecting("strangers", "unknown", "hourly"))

	// No policy: no limit.
	f("acme", "")
}

func TestPlanOfTheUnknown(t *testing.T) {
	s := snapshotOf(
		selecting("base", "any", "steady", "hourly"),
		selecting("strangers", "unknown", "steady"),
		selecting("visitors", "unknown", "steady", "burst"),
	)
	f := func(policies []int, want string) {
		t.Helper()
		if got := standing(s.Plan(policies)); got != want {
			t.Errorf("limits %q, want %q", got, want)
		}
	}

	// The unknown policies alone.
	f(s.UnknownPolicies(), "strangers/steady visitors/burst")

	// The any policies alone, for the shared bucket.
	f(s.AnyPolicies(), "base/steady base/hourly")

	// Any is more specific than unknown where both are merged.
	f(append(s.UnknownPolicies(), s.AnyPolicies()...), "base/steady base/hourly visitors/burst")
}

func TestPlanSingleValues(t *testing.T) {
	with := func(p TenantPolicy, concurrency, backend int, reject *Reject) TenantPolicy {
		p.Concurrency, p.Backend, p.Reject = concurrency, backend, reject
		return p
	}
	legacy, off := &Reject{Status: 503, Headers: "Legacy"}, &Reject{Status: 420, Headers: "Off"}
	f := func(want Plan, policies ...TenantPolicy) {
		t.Helper()
		s := snapshotOf(policies...)
		if want.Headers == "" {
			want.Headers = "Off"
		}
		if diff := cmp.Diff(want, s.Plan(s.Covering("acme", nil))); diff != "" {
			t.Errorf("plan (-want +got):\n%s", diff)
		}
	}
	standard := Reject{Status: 429, Headers: "Standard"}

	// Nobody says anything: no bound, the route's backend, 429 with the standard fields.
	f(Plan{Weight: 1, Backend: -1, Reject: standard}, selecting("a", "any"))

	// The most specific wins, each value on its own.
	f(Plan{Weight: 1, Concurrency: 5, Backend: 1, Reject: *off},
		with(selecting("a", "any"), 9, 0, legacy),
		with(selecting("b", "match a*"), 7, 1, nil),
		with(selecting("c", "names acme"), 5, -1, off))

	// What the most specific leaves unsaid comes from the less specific. Backend 0 is a backend.
	f(Plan{Weight: 1, Concurrency: 9, Backend: 0, Reject: *legacy},
		with(selecting("a", "any"), 9, 0, legacy), selecting("c", "names acme"))

	f(Plan{Weight: 1, Concurrency: 9, Backend: 0, Reject: standard},
		with(selecting("a", "any"), 9, 1, nil), with(selecting("c", "names acme"), 0, 0, nil))

	// Equally specific: the first by name.
	f(Plan{Weight: 1, Concurrency: 3, Backend: 2, Reject: *off},
		with(selecting("b", "any"), 9, 1, legacy), with(selecting("a", "any"), 3, 2, off))

	// A reject equal to the default is said all the same.
	f(Plan{Weight: 1, Backend: -1, Reject: standard},
		with(selecting("a", "any"), 0, -1, legacy), with(selecting("c", "names acme"), 0, -1, &standard))

	weighs := func(p TenantPolicy, weight, concurrency, queue int) TenantPolicy {
		p.Weight, p.Concurrency, p.Queue.Length, p.Backend = weight, concurrency, queue, -1
		return p
	}
	// A weight of 1 is said, too.
	f(Plan{Weight: 1, Backend: -1, Reject: standard},
		weighs(selecting("a", "any"), 4, 0, 0), weighs(selecting("c", "names acme"), 1, 0, 0))
	f(Plan{Weight: 4, Backend: -1, Reject: standard},
		weighs(selecting("a", "any"), 4, 0, 0), weighs(selecting("c", "names acme"), 0, 0, 0))

	// The queue belongs to the concurrency that stands.
	f(Plan{Weight: 1, Concurrency: 5, Backend: -1, Reject: standard},
		weighs(selecting("a", "any"), 0, 9, 100), weighs(selecting("c", "names acme"), 0, 5, 0))
	f(Plan{Weight: 1, Concurrency: 9, Queue: QueueSettings{Length: 100}, Backend: -1, Reject: standard},
		weighs(selecting("a", "any"), 0, 9, 100), weighs(selecting("c", "names acme"), 0, 0, 0))
	// What answers tell is said apart from what refusals tell.
	telling := func(p TenantPolicy, headers string) TenantPolicy {
		p.Headers = headers
		return p
	}
	f(Plan{Weight: 1, Backend: -1, Reject: standard, Headers: "Both"},
		telling(selecting("a", "any"), "Legacy"), telling(selecting("b", "match a*"), "Both"), selecting("c", "names acme"))

	// Off is said all the same.
	f(Plan{Weight: 1, Backend: -1, Reject: standard, Headers: "Off"},
		telling(selecting("a", "any"), "Legacy"), telling(selecting("c", "names acme"), "Off"))
}

func TestCovering(t *testing.T) {
	s := snapshotOf(
		selecting("a", "any"), selecting("b", "match eu-*"), selecting("c", "names acme eu-1"),
		selecting("d", "unknown"), selecting("e", "match *"), selecting("f", "names eu-1"),
	)
	f := func(tenant string, want ...int) {
		t.Helper()
		s.coverage = nil
		if diff := cmp.Diff(append([]int{7}, want...), s.Covering(tenant, []int{7})); diff != "" {
			t.Errorf("by hand, %s (-want +got):\n%s", tenant, diff)
		}
		s.coverage = newCoverage(s)
		if diff := cmp.Diff(append([]int{7}, want...), s.Covering(tenant, []int{7})); diff != "" {
			t.Errorf("compiled, %s (-want +got):\n%s", tenant, diff)
		}
	}

	// By name, by star and as anybody.
	f("acme", 0, 2, 4)

	// Named twice and matched.
	f("eu-1", 0, 1, 2, 4, 5)

	// Matched.
	f("eu-2", 0, 1, 4)

	// Bytes are compared, case included.
	f("Acme", 0, 4)
}

func TestCoveringNobody(t *testing.T) {
	s := snapshotOf(selecting("a", "names acme"), selecting("b", "match eu-*"), selecting("c", "unknown"))
	s.coverage = newCoverage(s)
	if got := s.Covering("globex", nil); len(got) != 0 {
		t.Errorf("globex is covered by %v, want nobody", got)
	}
}

func TestCoveringAllocatesNothing(t *testing.T) {
	s := snapshotOf(selecting("a", "any"), selecting("b", "match *u-*"), selecting("c", "names acme eu-1"))
	s.coverage = newCoverage(s)
	dst := make([]int, 0, 8)
	if n := testing.AllocsPerRun(100, func() { dst = s.Covering("eu-1", dst[:0]) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestNamedTenants(t *testing.T) {
	s := snapshotOf(selecting("a", "names globex acme"), selecting("b", "names acme initech"), selecting("c", "match eu-*"))
	if diff := cmp.Diff([]string{"acme", "globex", "initech"}, s.NamedTenants()); diff != "" {
		t.Errorf("named tenants (-want +got):\n%s", diff)
	}
}

func TestMatches(t *testing.T) {
	f := func(pattern, tenant string, want bool) {
		t.Helper()
		if got := matches(pattern, tenant); got != want {
			t.Errorf("matches(%q, %q) = %v, want %v", pattern, tenant, got, want)
		}
	}

	// Without a star: the same bytes.
	f("acme", "acme", true)
	f("acme", "acme2", false)
	// A star is any bytes, none included.
	f("*", "acme", true)
	f("eu-*", "eu-", true)
	f("eu-*", "eu-west", true)
	f("eu-*", "us-west", false)
	f("*-eu", "west-eu", true)
	f("*-eu", "eu", false)
	// Several stars.
	f("a*b*c", "abc", true)
	f("a*b*c", "a-c-b-b-c", true)
	f("a*b*c", "a-c-b", false)
	f("**", "x", true)
	// Head and tail do not share bytes.
	f("ab*ba", "aba", false)
	f("ab*ba", "abba", true)
	// A piece that comes again behind its first place.
	f("*ab*abc", "ababc", true)
	f("*ab*b", "ab", false)
}

// The plainest definition, to compare with.
func matchesSlowly(pattern, tenant string) bool {
	if pattern == "" {
		return tenant == ""
	}
	if pattern[0] == '*' {
		return matchesSlowly(pattern[1:], tenant) || tenant != "" && matchesSlowly(pattern, tenant[1:])
	}
	return tenant != "" && pattern[0] == tenant[0] && matchesSlowly(pattern[1:], tenant[1:])
}

func TestMatchesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern, tenant := rapid.StringMatching(`[ab*]{0,8}`).Draw(t, "pattern"), rapid.StringMatching(`[ab]{0,8}`).Draw(t, "tenant")
		if got, want := matches(pattern, tenant), matchesSlowly(pattern, tenant); got != want {
			t.Fatalf("matches(%q, %q) = %v, want %v", pattern, tenant, got, want)
		}
	})
}

func TestOverlapProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*]{1,6}`)
		a, b := pattern.Draw(t, "a"), pattern.Draw(t, "b")
		if example := overlap(a, b); example != "" {
			if !matches(a, example) || !matches(b, example) {
				t.Fatalf("overlap(%q, %q) = %q, which does not fit both", a, b, example)
			}
			return
		}
		if tenant := rapid.StringMatching(`[ab]{1,8}`).Draw(t, "tenant"); matches(a, tenant) && matches(b, tenant) {
			t.Fatalf("overlap(%q, %q) is empty, but %q fits both", a, b, tenant)
		}
	})
}

func TestOverlap(t *testing.T) {
	f := func(a, b, want string) {
		t.Helper()
		if got := overlap(a, b); got != want {
			t.Errorf("overlap(%q, %q) = %q, want %q", a, b, got, want)
		}
	}

	// Head of one, tail of the other.
	f("eu-*", "*-gold", "eu--gold")
	// The longer head.
	f("eu-*", "eu-west-*", "eu-west-")
	// What is between stands one after the other.
	f("a*b*", "*c*d", "abcd")
	// Stars alone: anybody.
	f("*", "**", "a")
	// One without a star.
	f("acme", "a*", "acme")
	f("a*", "acme", "acme")
	// None.
	f("eu-*", "us-*", "")
	f("*-eu", "*-us", "")
	f("acme", "b*", "")
	// Too long for a tenant.
	f(strings.Repeat("a", 100)+"*", "*"+strings.Repeat("b", 100), "")
}

// policies draws up to six policies over few tenants and few limit names, so that they meet often.
func policies(t *rapid.T) []TenantPolicy {
	selectors := []string{"names acme", "names acme eu-1", "names eu-1", "match eu-*", "match *", "any", "unknown"}
	limits := []string{"steady", "steady!", "~steady", "~steady!", "hourly", "hourly!"}
	all := make([]TenantPolicy, rapid.IntRange(0, 6).Draw(t, "policies"))
	for i := range all {
		names := rapid.SliceOfNDistinct(rapid.SampledFrom(limits), 0, 2, func(s string) string { return strings.Trim(s, "~!") }).Draw(t, "limits")
		all[i] = selecting(fmt.Sprintf("p%d", i), rapid.SampledFrom(selectors).Draw(t, "selector"), names...)
		all[i].Concurrency = rapid.IntRange(0, 3).Draw(t, "concurrency")
		all[i].Backend = rapid.IntRange(-1, 2).Draw(t, "backend")
	}
	return all
}

func TestPlanDependsOnTheSetAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := snapshotOf(policies(t)...)
		set := s.Covering(rapid.SampledFrom([]string{"acme", "eu-1", "globex"}).Draw(t, "tenant"), nil)
		want := s.Plan(set)
		given := rapid.Permutation(append(slices.Clone(set), set...)).Draw(t, "given") // any order, each twice
		before := slices.Clone(given)
		if diff := cmp.Diff(want, s.Plan(given)); diff != "" {
			t.Fatalf("Plan(%v) and Plan(%v) differ:\n%s", set, given, diff)
		}
		if !slices.Equal(given, before) {
			t.Fatalf("Plan changed its argument from %v to %v", before, given)
		}
	})
}

func TestPlanKeepsEveryNameAndEveryFinalLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := snapshotOf(policies(t)...)
		set := s.Covering(rapid.SampledFrom([]string{"acme", "eu-1", "globex"}).Draw(t, "tenant"), nil)
		stands := make(map[namesake]rankedLimit)
		for _, l := range s.Plan(set).Limits {
			if _, twice := stands[l.namesake()]; twice {
				t.Fatalf("two limits of one mode named %s", l.Name)
			}
			i := slices.IndexFunc(s.Policies, func(p TenantPolicy) bool { return p.Name == l.Policy })
			stands[l.namesake()] = rankedLimit{&l, s.Policies[i].Specificity, i}
		}
		for _, i := range set {
			for j := range s.Policies[i].Limits {
				met := s.ranked(i, j)
				winner, ok := stands[met.namesake()]
				switch {
				case !ok:
					t.Fatalf("no limit named %s stands", met.Name)
				case met.Final && (!winner.Final || winner.specificity > met.specificity):
					t.Fatalf("final %s/%s was replaced by %s", met.Policy, met.Name, winner.Policy)
				case !winner.Final && winner.specificity < met.specificity:
					t.Fatalf("%s/%s stands although %s is more specific", winner.Policy, winner.Name, met.Policy)
				case winner.Final == met.Final && winner.specificity == met.specificity && winner.policy > met.policy:
					t.Fatalf("%s/%s stands although %s comes first", winner.Policy, winner.Name, met.Policy)
				}
			}
		}
	})
}
