package conformance

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// prose says what the cases of wire_cases.json expect, in the terms of more_cases.json.
var prose = map[string]outcome{
	"resp-01": {Status: []int{200}, Body: "ok", Reuse: "yes"},
	"resp-02": {Status: []int{200}, Body: "ok", Reuse: "no", When: "shut", Seen: []string{"Transfer-Encoding: chunked\r\n"}},
	"resp-04": {Cut: true, Reuse: "no"},
	"resp-05": {Status: []int{502}, OrCut: true, Reuse: "no"},
	"resp-07": {Status: []int{502}, Reuse: "no"},
	"resp-08": {Status: []int{502}, Reuse: "no"},
	"resp-10": {Status: []int{502}, Reuse: "no", NotSeen: []string{"gzip"}},
	"resp-11": {Status: []int{200}, Body: "ok", Reuse: "no", NotSeen: []string{"evil"}},
	"resp-13": {Status: []int{304}, Reuse: "yes", Seen: []string{`ETag: "x"`}},
	"resp-14": {Status: []int{200}, Body: "ok", Reuse: "yes"},
	"resp-16": {Status: []int{502}, Reuse: "no"},
	"resp-17": {Status: []int{502}, Reuse: "no"},
	"resp-19": {Status: []int{502}, Reuse: "no", NotSeen: []string{"Set-Cookie"}},
	"resp-20": {Status: []int{502}, Reuse: "no"},
	"resp-22": {Status: []int{502}, Reuse: "no"},
	"resp-23": {Status: []int{200, 502}},
	"resp-25": {Status: []int{502}, Reuse: "no", NotSeen: []string{"1000"}},
	"resp-26": {Status: []int{502}, Reuse: "no", NotSeen: []string{"hello"}},
	"resp-28": {Status: []int{502}, Reuse: "no"},
	"resp-29": {Status: []int{200}, Body: "ok", Reuse: "no", NotSeen: []string{"X-A", "Keep-Alive", "Proxy-Authenticate"}},
	"resp-31": {Status: []int{200}, Body: "ok", Reuse: "yes", NotSeen: []string{"\r\nX-T: 1\r\nContent", "HTTP/1.1 200 OK\r\nX-T"}},
}

// asked are the requests of the cases.
var asked = map[string]string{
	"":        "GET /case HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"HEAD":    "HEAD /case HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"GET 1.0": "GET /case HTTP/1.0\r\nHost: a.test\r\n\r\n",
	"upgrade": "GET /case HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
}

// scripted is a rig whose backend answers /case with raw bytes.
type scripted struct {
	*rig
	says atomic.Pointer[saying]
}

type saying struct {
	raw   string
	shuts bool
	said  chan struct{} // gets one when all is said, and shut
}

func newScripted(t testing.TB) *scripted {
	r := &scripted{}
	b := startBackend(t, func(c *backendConn, m *message) {
		says := r.says.Load()
		if m.target != "/case" || says == nil {
			answerOK(c, m)
			return
		}
		c.say(says.raw)
		if says.shuts {
			c.finish()
		}
		select {
		case says.said <- struct{}{}:
		default: // the request came again
		}
	})
	r.rig = &rig{b: b, sidecar: startSidecar(t, `timeouts: {header: 2s, idle: 10s}`,
		document("Backend", "b", `endpoints: [{address: "`+b.addr+`"}], timeouts: {response: 1s, idleBody: 1s}`), plenty)}
	return r
}

// sendAnswers lets a backend answer with the bytes of every case, and then keep its connection open, or close it.
func sendAnswers(t *testing.T, cases []answerCase, passed *scores) {
	rigs := make(chan *scripted, atOnce)
	for range cap(rigs) {
		rigs <- newScripted(t)
	}
	for i := range cases {
		c := &cases[i]
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			r := <-rigs
			defer func() { rigs <- r }()
			defer func() { passed.add(c.Category, !t.Failed()) }()
			r.runAnswer(t, c)
		})
	}
}

func (r *scripted) runAnswer(t *testing.T, c *answerCase) {
	for _, when := range []string{"open", "shut"} {
		if c.When != "" && c.When != when {
			continue
		}
		r.settled(t)
		before, at := r.latest, r.b.mark()
		r.says.Store(&saying{bytesOf(c.Raw, c.Parts), when == "shut", make(chan struct{}, 1)})
		method, _, _ := strings.Cut(c.Request, " ")
		request, found := asked[c.Request]
		if !found {
			t.Fatalf("nobody knows request %q", c.Request)
		}
		got := r.converse(t, []string{request}, talk{answers: 1, methods: []string{method}})
		select {
		case <-r.says.Load().said: // else the next request could be sooner than the end of this connection
		case <-time.After(patience):
			t.Fatal("the backend has not said its answer")
		}
		r.settled(t)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("%s, %s: %s", c.Name, when, fmt.Sprintf(format, args...))
		}
		checkAnswer(fail, &c.outcome, got)
		caseOn := r.connOf("/case", at)
		at = r.b.mark()
		next := r.converse(t, []string{"GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n"}, talk{answers: 1})
		if len(next.answers) != 1 || next.answers[0].status != 200 || next.answers[0].body != "ok" {
			fail("the next request is answered with %q", next.raw)
		}
		r.settled(t)
		same := r.connOf("/next", at) == caseOn
		if same && (c.Reuse == "no" || when == "shut") || !same && c.Reuse == "yes" && when == "open" {
			fail("the next request comes on the same connection: %v, want reuse %q", same, c.Reuse)
		}
		r.checkAnswerLog(t, fail, got, before)
	}
}

// connOf is the connection on which a target came since a mark; -1: none.
func (r *rig) connOf(target string, since mark) int {
	for i, c := range r.b.all() {
		in, _ := c.received()
		if i < len(since) {
			in = in[since[i]:]
		}
		if strings.Contains(in, " "+target+" ") {
			return i
		}
	}
	return -1
}

// checkAnswer compares what the client read with what the case expects.
func checkAnswer(fail func(string, ...any), want *outcome, got talked) {
	cut := got.err != nil || len(got.answers) == 0
	switch {
	case cut && !want.Cut && !want.OrCut:
		fail("the answer is cut: %v: %q", got.err, got.raw)
	case !cut && want.Cut:
		fail("an answer that was cut looks whole: %q", got.raw)
	case !cut && !slices.Contains(want.Status, got.answers[0].status):
		fail("the status is %d, want one of %v: %q", got.answers[0].status, want.Status, got.raw)
	case cut:
	case ours(got.answers[0]):
		checkOurs(fail, got.answers[0])
	case want.Body != "" && got.answers[0].body != want.Body:
		fail("the body is %q, want %q", got.answers[0].body, want.Body)
	}
	// Our request ids are random: they may hold any three digits.
	said := randomID.ReplaceAllString(got.raw, "")
	for _, s := range want.NotSeen {
		if strings.Contains(said, latin1(s)) {
			fail("the client sees %q in %q", s, got.raw)
		}
	}
	for _, s := range want.Seen {
		if !strings.Contains(got.raw, latin1(s)) {
			fail("the client does not see %q in %q", s, got.raw)
		}
	}
	if len(got.answers) > 1 {
		fail("the client reads %d answers", len(got.answers))
	}
	for _, m := range append(got.answers, got.interim...) {
		if found := hopByHop.FindString(strings.ReplaceAll(m.head, "\r\nConnection: close\r\n", "\r\n")); found != "" {
			fail("the client gets %q in %q", found, m.head)
		}
	}
}

// ours says whether an answer is not the backend's.
func ours(m *message) bool { return len(m.get("Proxy-Status")) == 1 }

// checkOurs holds an error of ours to its form: nothing in it comes from the backend.
func checkOurs(fail func(string, ...any), m *message) {
	if kind := m.get("Content-Type"); !slices.Equal(kind, []string{"application/problem+json"}) || len(m.get("X-Request-Id")) != 1 {
		fail("an error of ours is %q", m.whole)
	}
	for _, f := range m.fields {
		if !slices.Contains([]string{"Date", "Content-Type", "Content-Length", "X-Request-Id", "Proxy-Status", "Connection"}, f[0]) {
			fail("an error of ours has the field %q", f)
		}
	}
}

// checkAnswerLog says whether the client's answer, the access log and the metrics agree on how a case ended.
func (r *scripted) checkAnswerLog(t *testing.T, fail func(string, ...any), got talked, before series) {
	t.Helper()
	grown := r.latest.since(before)
	from := before.sum("weir_requests_total")
	if ended := grown.sum("weir_requests_total"); ended != 2 {
		fail("%d requests are counted, want 2", ended)
	}
	until(t, func() string { return fmt.Sprintf("two lines in the log: %v", r.log(from)) }, func() bool { return len(r.log(from)) >= 2 })
	line := r.log(from)[0]
	if n := grown.sum("weir_requests_total", `reason="`+line.Reason+`"`, fmt.Sprintf(`code="%dxx"`, line.Status/100)); n == 0 {
		fail("the log has %+v, the metrics %v", line, grown)
	}
	failed := !strings.HasPrefix(line.Reason, "passed")
	switch {
	case got.err != nil || len(got.answers) == 0:
		if !failed {
			fail("the answer was cut, the log has %+v", line)
		}
	case failed != ours(got.answers[0]) || line.Status != got.answers[0].status:
		fail("answered with %q, the log has %+v", got.answers[0].line, line)
	}
	if failed && line.Reason != "backend_protocol" && line.Reason != "backend_reset" && line.Reason != "response_timeout" && line.Reason != "body_idle_timeout" {
		fail("a fault of the backend is %q in the log", line.Reason)
	}
	// The next request was fine. The case itself is counted by its class or its cause; by several where it was tried again, which a GET
	// may be that finds its connection closed.
	all, fine := grown.sum("weir_upstream_requests_total"), grown.sum("weir_upstream_requests_total", `code="2xx"`)
	if failed && (all < 2 || fine != 1) || !failed && all != 2 || grown.sum("weir_upstream_requests_total", `code="canceled"`) != 0 {
		fail("the log has %+v, the backend's counters %v", line, grown)
	}
}
