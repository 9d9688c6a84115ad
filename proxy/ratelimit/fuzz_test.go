package ratelimit

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"

	"weir/admit"
)

// FuzzMerge holds what a client reads against a parser that is not ours: whatever a backend sends, its fields parse afterwards
// if they did before, nothing in them is loosened or lost, and a field that is not what the draft says is not touched.
func FuzzMerge(f *testing.F) {
	f.Add(`"steady";q=99;w=1`, "", `"steady";r=9;t=9`, "", int64(3))
	f.Add(`"a";q=10;w=1, "steady";q=5;w=60;qu="content-bytes"`, "", `"a";r=1;t=1`, `"steady";r=900, "b";r=0`, int64(0))
	f.Add(`"concurrency";q=9;qu="concurrent-requests"`, `"steady";q=1`, `"concurrency";r=9`, `"steady";r=1;pk=:YQ==:`, int64(10))
	f.Add(`a;q=1, "b`, `c";q=1`, `"steady";r=1.5;x=@1`, `("a" "b");r=1`, int64(1))
	f.Add(`"\"a\\";q=1;*x=%"f"`, "", `"steady";r=1;r=9;x=*a/b;y=?0`, ",", int64(1))
	f.Fuzz(func(t *testing.T, policy, policy2, limit, limit2 string, left int64) {
		ours := []admit.LimitState{steady(min(max(left, 0), 10)), gate(2)}
		var lines []string
		add := func(name, value string) {
			if value != "" {
				lines = append(lines, name+": "+value)
			}
		}
		add("RateLimit-Policy", policy)
		add("RateLimit", limit)
		add("RateLimit-Policy", policy2)
		add("RateLimit", limit2)
		for _, line := range lines {
			if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return // no field at all
			}
		}
		head := scan(t, "200 OK", lines...)
		before := told(&Terms{Form: "Off"}, head)
		after := told(&Terms{Form: "Standard", Limits: ours}, head)
		policyBefore, limitBefore := valuesOf(before, "RateLimit-Policy"), valuesOf(before, "RateLimit")
		policyAfter, limitAfter := valuesOf(after, "RateLimit-Policy"), valuesOf(after, "RateLimit")

		check(t, policyBefore, policyAfter, 'q', 'w', policyAtLeastAsStrict, values(t, admit.AppendPolicies(nil, ours), 'q', 'w'))
		check(t, limitBefore, limitAfter, 'r', 't', limitAtLeastAsStrict, values(t, admit.AppendLimits(nil, ours), 'r', 't'))
	})
}

// FuzzOlder is the same for Retry-After and the older fields, held against the readers of the standard library.
func FuzzOlder(f *testing.F) {
	f.Add("100", "9", "60", "1")
	f.Add("100", "8", "1893499999", "Tue, 01 Jan 2030 12:00:05 GMT")
	f.Add("-1", "8.0", "", "Tuesday, 01-Jan-30 12:00:07 GMT")
	f.Add("", "", "", "Sat, 31 Feb 2030 23:59:60 GMT")
	f.Fuzz(func(t *testing.T, limit, remaining, reset, retry string) {
		said := []string{"X-RateLimit-Limit: " + limit, "X-RateLimit-Remaining: " + remaining, "X-RateLimit-Reset: " + reset, "Retry-After: " + retry}
		for _, line := range said {
			if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return // no field at all
			}
		}
		head := scan(t, "429 x", said...)
		before := told(&Terms{Form: "Off"}, head)
		after := told(&Terms{Form: "Legacy", Limits: []admit.LimitState{steady(0)}, Unix: noon}, head)

		retryBefore, retryAfter := valuesOf(before, "Retry-After"), valuesOf(after, "Retry-After")
		switch was, ok := delay(retryBefore[0]); {
		case len(retryAfter) != 1 || !ok && retryAfter[0] != retryBefore[0]:
			t.Fatalf("%q became %q", retryBefore, retryAfter)
		case ok:
			if is, _ := delay(retryAfter[0]); is < was || is < 6 && len(retry) < 12 {
				t.Fatalf("%q became %q: %d after %d", retryBefore, retryAfter, is, was)
			}
		}
		if _, err := strconv.ParseUint(valuesOf(before, "X-RateLimit-Remaining")[0], 10, 63); err != nil && !slices.Equal(before[:3], after[:3]) {
			t.Fatalf("%q became %q", before, after)
		}
		if n := valuesOf(after, "X-RateLimit-Remaining"); len(n) != 1 {
			t.Fatalf("%q became %q", before, after)
		}
	})
}

// delay reads Retry-After with the standard library, from noon on.
func delay(value string) (seconds int64, ok bool) {
	if n, err := strconv.ParseUint(value, 10, 63); err == nil {
		return int64(n), true
	}
	at, err := http.ParseTime(value)
	return max(at.Unix()-noon, 0), err == nil
}

// quota is a member as the other parser reads it. A missing window is -1.
type quota struct {
	name, unit     string
	amount, window int64
}

func valuesOf(lines []string, name string) (values []string) {
	for _, line := range lines {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			values = append(values, strings.Trim(value, " \t"))
		}
	}
	return values
}

// values reads what we say.
func values(t *testing.T, text []byte, amount, window byte) []quota {
	t.Helper()
	members, ok := read([]string{string(text)}, amount, window)
	if !ok {
		t.Fatalf("%q is not what the draft says", text)
	}
	return members
}

// read reads a field as the draft says. False means that it is something else.
func read(lines []string, amount, window byte) (quotas []quota, ok bool) {
	list, err := httpsfv.UnmarshalList(lines)
	if err != nil || len(list) == 0 {
		return nil, false
	}
	for _, m := range list {
		item, isItem := m.(httpsfv.Item)
		if !isItem {
			return nil, false
		}
		q := quota{window: -1, unit: admit.UnitRequests}
		if q.name, ok = item.Value.(string); !ok {
			return nil, false
		}
		n, there := item.Params.Get(string(amount))
		if q.amount, ok = n.(int64); !ok || !there || q.amount < 0 {
			return nil, false
		}
		if n, there := item.Params.Get(string(window)); there {
			if q.window, ok = n.(int64); !ok || q.window < 0 {
				return nil, false
			}
		}
		if unit, there := item.Params.Get("qu"); there && amount == 'q' {
			if q.unit, ok = unit.(string); !ok {
				return nil, false
			}
		}
		quotas = append(quotas, q)
	}
	return quotas, true
}

func check(t *testing.T, before, after []string, amount, window byte, strict func(a, b quota) bool, ours []quota) {
	t.Helper()
	_, parses := httpsfv.UnmarshalList(before)
	if _, err := httpsfv.UnmarshalList(after); parses == nil && err != nil {
		t.Fatalf("%q no longer parses: %q: %v", before, after, err)
	}
	theirs, valid := read(before, amount, window)
	if !valid && len(before) > 0 {
		if !slices.Equal(before, after) {
			t.Fatalf("%q is not what the draft says, and became %q", before, after)
		}
		return
	}
	result, valid := read(after, amount, window)
	if !valid {
		t.Fatalf("%q became %q, which is not what the draft says", before, after)
	}
	for _, q := range theirs {
		if !slices.ContainsFunc(result, func(r quota) bool { return r.name == q.name && r.unit == q.unit && strict(r, q) }) {
			t.Fatalf("%v of %q was loosened or lost in %q", q, before, after)
		}
	}
	if len(before) > 0 && slices.Equal(before, after) {
		return // theirs says it all, or has something that we do not read
	}
	for _, q := range ours {
		if !slices.ContainsFunc(result, func(r quota) bool { return r.name == q.name && strict(r, q) }) {
			t.Fatalf("%v was lost in %q", q, after)
		}
	}
}

// limitAtLeastAsStrict says whether a leaves no more than b, and as much for no less long.
func limitAtLeastAsStrict(a, b quota) bool {
	return a.amount < b.amount || a.amount == b.amount && (a.window < 0 || b.window >= 0 && a.window >= b.window)
}

// policyAtLeastAsStrict says whether a gives no more than b in the long run.
func policyAtLeastAsStrict(a, b quota) bool {
	switch {
	case a.window < 0 && b.window < 0:
		return a.amount <= b.amount
	case a.window < 0 || b.window < 0:
		return a.window < 0
	}
	return float64(a.amount)*float64(b.window) <= float64(b.amount)*float64(a.window)
}
