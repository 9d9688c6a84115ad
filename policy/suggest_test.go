package policy

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestClosest(t *testing.T) {
	f := func(word string, candidates []string, want string) {
		t.Helper()
		if got := closest(word, candidates); got != want {
			t.Errorf("%s among %v: got %q, want %q", word, candidates, got, want)
		}
	}
	fields := []string{"name", "requests", "per", "burst", "bucket"}
	// Swapped, missing, doubled and wrong letters.
	f("brust", fields, "burst")
	f("reqests", fields, "requests")
	f("nname", fields, "name")
	f("bukcet", fields, "bucket")
	// Another case only.
	f("REQUESTS", fields, "requests")
	// The nearest wins, then the first.
	f("buckst", []string{"burst", "bucket"}, "bucket")
	f("ac", []string{"aa", "ab"}, "aa")
	// Nothing is near.
	f("colour", fields, "")
	f("x", []string{"y"}, "")
	f("", fields, "")
	f("burst", nil, "")
	f(strings.Repeat("x", 1000), fields, "")
}

// The edit distance is a metric where nothing is swapped, and a swap of neighbours is one edit.
func TestEditDistance(t *testing.T) {
	word := rapid.StringOfN(rapid.SampledFrom([]rune("abü")), 0, 8, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d := editDistance(a, b)
		if (d == 0) != (a == b) {
			t.Fatalf("distance %d", d)
		}
		if d != editDistance(b, a) {
			t.Fatal("not symmetric")
		}
		m, n := utf8.RuneCountInString(a), utf8.RuneCountInString(b)
		if d > max(m, n) || d < m-n || d < n-m {
			t.Fatalf("distance %d of lengths %d and %d", d, m, n)
		}
		if editDistance(a+"xy"+b, a+"yx"+b) != 1 {
			t.Fatal("a swap is not one edit")
		}
	})
}

func TestList(t *testing.T) {
	f := func(want string, words ...string) {
		t.Helper()
		if got := list(words, "and"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f("")
	f("a", "a")
	f("a and b", "a", "b")
	f("a, b and c", "a", "b", "c")
}

func TestQuote(t *testing.T) {
	f := func(s, want string) {
		t.Helper()
		if got := quote(s); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f("a", `"a"`)
	f("a\x1b[31m\n", `"a\x1b[31m\n"`)
	f(strings.Repeat("ü", 60), `"`+strings.Repeat("ü", 60)+`"`)
	f(strings.Repeat("ü", 61), `"`+strings.Repeat("ü", 60)+`…"`)
}
