package policy

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxQuoted is how many characters of an offending value a message repeats.
const maxQuoted = 60

// quote is an offending value as messages show it: in quotes, control characters escaped, shortened when it is long.
func quote(s string) string { return strconv.Quote(shorten(s)) }

// shorten cuts a long text and marks the cut.
func shorten(s string) string {
	n := 0
	for i := range s {
		if n == maxQuoted {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// didYouMean words a suggestion.
func didYouMean(meant string) string { return "did you mean " + quote(meant) + "?" }

// Closest returns the candidate that word resembles most, or "" when none is near. Case does not count as a difference; of
// equally near candidates the first wins.
func Closest(word string, candidates []string) string { return closest(word, candidates) }

// closest is Closest.
func closest(word string, candidates []string) string {
	if len(word) > 4*maxQuoted {
		return ""
	}
	best, least := "", 1+max(1, utf8.RuneCountInString(word)/3)
	for _, c := range candidates {
		if d := editDistance(strings.ToLower(word), strings.ToLower(c)); d < least && d < len(c) {
			best, least = c, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	older, old, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range old {
		old[j] = j
	}
	for i := range x {
		row[0] = i + 1
		for j := range y {
			replace := old[j]
			if x[i] != y[j] {
				replace++
			}
			row[j+1] = min(replace, old[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], older[j-1]+1)
			}
		}
		older, old, row = old, row, older
	}
	return old[len(y)]
}

// list joins words for a sentence: a, b and c.
func list(words []string, conjunction string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " " + conjunction + " " + words[last]
}
