package conformance

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write docs/conformance-wire.md anew")

// score counts the cases of one group that pass.
type score struct{ passed, of int }

// scores are those of the requests or of the answers, by category.
type scores struct {
	mu   sync.Mutex
	want int // cases
	rows map[string]*score
}

func newScores(want int) *scores { return &scores{want: want, rows: make(map[string]*score)} }

// add notes the end of a case.
func (s *scores) add(category string, passed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows[category] == nil {
		s.rows[category] = &score{}
	}
	s.rows[category].of++
	if passed {
		s.rows[category].passed++
	}
}

func (s *scores) total() (t score) {
	for _, r := range s.rows {
		t.passed, t.of = t.passed+r.passed, t.of+r.of
	}
	return t
}

// groups says what the categories are, in the order of the page.
var groups = []struct{ category, what string }{
	{"cl", "Content-Length"},
	{"te", "Transfer-Encoding"},
	{"chunk", "chunks and their extensions"},
	{"trailer", "trailer sections"},
	{"hdr", "field names, values, bounds, identities and claims"},
	{"hop", "Connection, Expect and Upgrade"},
	{"host", "Host"},
	{"target", "targets"},
	{"line", "request lines, and other protocols"},
	{"conn", "persistence and upgrades"},
	{"pipe", "pipelines"},
	{"deny", "refusals by policy with a body behind them"},
	{"resp", "answers of every kind"},
	{"answer-framing", "framing of answers"},
	{"answer-status", "status lines"},
	{"answer-head", "field sections of answers"},
	{"answer-interim", "1xx answers"},
	{"answer-bodyless", "answers without a body"},
	{"answer-chunks", "chunks of answers"},
	{"answer-cut", "answers that break off or stall"},
}

// TestWire sends every case through the binary, prints how many pass, and compares the page that says so.
func TestWire(t *testing.T) {
	all := load(t)
	requests, answers := newScores(len(all.Requests)), newScores(len(all.Answers))
	t.Run("requests", func(t *testing.T) { sendRequests(t, all.Requests, requests) })
	t.Run("answers", func(t *testing.T) { sendAnswers(t, all.Answers, answers) })
	r, a := requests.total(), answers.total()
	t.Logf("%d of %d request cases pass, each in %d manners; %d of %d answer cases pass", r.passed, r.of, len(manners), a.passed, a.of)
	if r.of == requests.want && a.of == answers.want { // else only some were asked for
		checkPage(t, page(t, requests, answers))
	}
}

func checkPage(t *testing.T, want []byte) {
	t.Helper()
	const path = "../../docs/conformance-wire.md"
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/conformance-wire.md is stale; run go generate ./proxy/conformance")
	}
}

// page is docs/conformance-wire.md.
func page(t *testing.T, requests, answers *scores) []byte {
	t.Helper()
	var b bytes.Buffer
	r, a := requests.total(), answers.total()
	fmt.Fprintf(&b, `# Conformance of the wire

<!-- Written by go generate ./proxy/conformance, from what passed. -->

Raw bytes through the real binary, in front of a backend that records every byte: **%d of %d request cases** and **%d of %d answer
cases** pass. They are in [wire_cases.json](../testdata/wire/wire_cases.json) and [more_cases.json](../testdata/wire/more_cases.json); run them
with `+"`go test -v ./proxy/conformance`"+`.

A request is sent in %d manners: %s. Of every one this has to hold:

* A strict parser of RFC 9112, the most lenient one, and that of net/http read the same requests in what the backend gets, as many as
  the case allows, and none that it forbids.
* What is forwarded has one framing field at most, one Host, CRLF line ends, no control byte and no hop-by-hop field.
* The limits are charged once for each request of which the backend got anything.
* A refusal is one answer with Connection: close, then the end of the connection.
* The client's answers, the access log and the metrics agree, request by request.

An answer is sent twice: the backend then keeps its connection open, or closes it. Of every one this has to hold:

* Nothing that breaks off looks whole, and nothing that breaks HTTP is passed on.
* No byte of the backend is in an error of ours.
* A connection on which anything is left, or that broke a rule, gets no further request.
* The fault is the backend's in the access log and in the metrics.

| requests | pass |
|---|---|
`, r.passed, r.of, a.passed, a.of, len(manners), mannerNames())
	left := len(requests.rows) + len(answers.rows)
	for _, g := range groups {
		if s := requests.rows[g.category]; s != nil {
			fmt.Fprintf(&b, "| %s | %d of %d |\n", g.what, s.passed, s.of)
			left--
		}
	}
	b.WriteString("\n| answers | pass |\n|---|---|\n")
	for _, g := range groups {
		if s := answers.rows[g.category]; s != nil {
			fmt.Fprintf(&b, "| %s | %d of %d |\n", g.what, s.passed, s.of)
			left--
		}
	}
	if left != 0 {
		t.Errorf("%d categories have no name", left)
	}
	return b.Bytes()
}

func mannerNames() string {
	var names []string
	for _, m := range manners {
		names = append(names, m.name)
	}
	return strings.Join(names, ", ")
}
