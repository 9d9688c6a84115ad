package conformance

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// requestCase is raw bytes of a client and what has to become of them.
type requestCase struct {
	ID          string   `json:"id"`
	Category    string   `json:"category"`
	Name        string   `json:"name"`
	Raw         string   `json:"raw"`
	Parts       [][2]any `json:"parts"`
	Clause      string   `json:"clause"`
	Expect      string   `json:"expect"`
	MaxRequests int      `json:"max_backend_requests"`
	MustNotSee  []string `json:"backend_must_not_see_request"`
	MustSee     []string `json:"backend_must_see"`
	MustClose   bool     `json:"client_conn_must_close"`
	// Methods are those of the requests where one is HEAD, whose answer has no body. Further cases only.
	Methods []string `json:"methods"`
	// NeverSeen must not be anywhere in what the backend gets. Further cases only.
	NeverSeen []string `json:"backend_must_not_see"`
}

// answerCase is raw bytes of a backend and what has to become of them.
type answerCase struct {
	ID       string   `json:"id"`
	Category string   `json:"category"`
	Name     string   `json:"name"`
	Raw      string   `json:"backend_raw"`
	Parts    [][2]any `json:"parts"`
	Clause   string   `json:"clause"`
	outcome
}

// outcome is what a client gets of an answer. The cases of wire_cases.json say it in prose: see prose.
type outcome struct {
	Request string   `json:"request"`  // GET (usual), HEAD, "GET 1.0", upgrade
	Status  []int    `json:"status"`   // any of these
	Body    string   `json:"body"`     // of a relayed answer
	Cut     bool     `json:"cut"`      // the client's connection ends before the answer is whole
	OrCut   bool     `json:"or_cut"`   // that is as good
	Reuse   string   `json:"reuse"`    // yes or no: whether the backend's connection gets the next request; empty: either
	Seen    []string `json:"seen"`     // the client gets this
	NotSeen []string `json:"not_seen"` // and never this
	When    string   `json:"when"`     // open or shut: only where the backend keeps its connection open, or closes it; empty: both in turn
}

type corpus struct {
	Requests []requestCase `json:"request_cases"`
	Answers  []answerCase  `json:"response_cases"`
}

// load reads both files.
func load(t testing.TB) (all corpus) {
	t.Helper()
	for _, name := range []string{"wire_cases.json", "more_cases.json"} {
		data, err := os.ReadFile("../../testdata/wire/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var c corpus
		if err := json.Unmarshal(data, &c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range c.Answers {
			if a := &c.Answers[i]; name == "wire_cases.json" {
				known, found := prose[a.ID]
				if !found {
					t.Errorf("nothing says what %s expects", a.ID)
				}
				a.Category, a.outcome = "resp", known
			}
		}
		all.Requests = append(all.Requests, c.Requests...)
		all.Answers = append(all.Answers, c.Answers...)
	}
	var ids []string
	for _, c := range all.Requests {
		ids = append(ids, c.ID)
	}
	for _, c := range all.Answers {
		ids = append(ids, c.ID)
	}
	slices.Sort(ids)
	if n := len(ids); n < 200 || len(slices.Compact(ids)) != n {
		t.Fatalf("%d cases, want at least 200 with an id of their own", n)
	}
	return all
}

// latin1 makes every character one byte.
func latin1(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

// bytesOf is raw, or the parts, each as often as it says.
func bytesOf(raw string, parts [][2]any) string {
	if parts == nil {
		return latin1(raw)
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(strings.Repeat(latin1(p[0].(string)), int(p[1].(float64))))
	}
	return b.String()
}

// statuses reads `reject:400,431 (…)`; nil when the case does not say reject.
func (c *requestCase) statuses(t testing.TB) (all []int) {
	t.Helper()
	list, rejects := strings.CutPrefix(c.Expect, "reject:")
	if !rejects {
		return nil
	}
	list, _, _ = strings.Cut(list, " ")
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// pieces cuts raw into pieces of size; 0: one piece. Where these were more than some thousand, they are larger.
func pieces(raw string, size int) (all []string) {
	const most = 4000
	if size == 0 {
		return []string{raw}
	}
	size = max(size, len(raw)/most)
	for len(raw) > size {
		all = append(all, raw[:size])
		raw = raw[size:]
	}
	return append(all, raw)
}
