package conformance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// front is what is pipelined before a case: two requests that are fine.
const front = "GET /front1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /front2 HTTP/1.1\r\nHost: a.test\r\n\r\n"

// manner is one way of sending a case.
type manner struct {
	name   string
	size   int // of the pieces; 0: whole
	fronts int // requests pipelined before it
}

var manners = []manner{
	{"whole", 0, 0}, {"in packets of 5 bytes", 5, 0}, {"in packets of 1 byte", 1, 0},
	{"whole behind two requests", 0, 2}, {"in packets of 5 bytes behind two", 5, 2}, {"in packets of 1 byte behind two", 1, 2},
}

// Documents of the sidecar that the cases suppose.
var (
	// The tenant `denied` has one request, which prepare spends; everybody else has more than there are cases.
	deniedPolicy = document("TenantPolicy", "denied", `tenants: {names: [denied]}, limits: [{name: steady, requests: 1, per: 1h}]`)
	plenty       = document("TenantPolicy", "everybody", `tenants: {any: true}, limits: [{name: steady, requests: 1000000, per: 1s}]`)
)

// rig is a sidecar in front of a backend. It serves one case at a time.
type rig struct {
	*sidecar
	b      *backend
	latest series // when everything had settled
}

func newRig(t testing.TB) *rig {
	b := startBackend(t, answerOK)
	s := startSidecar(t, `timeouts: {header: 2s, idle: 10s}, bounds: {bodyBytes: 64KiB}`,
		document("Backend", "b", `endpoints: [{address: "`+b.addr+`"}]`), deniedPolicy, plenty)
	r := &rig{sidecar: s, b: b}
	spent := r.converse(t, []string{"GET / HTTP/1.1\r\nHost: a.test\r\nX-Tenant-Id: denied\r\n\r\n"}, talk{answers: 1})
	if len(spent.answers) != 1 || spent.answers[0].status != 200 {
		t.Fatalf("cannot spend the one request of tenant denied: %q", spent.raw)
	}
	r.settled(t)
	until(t, func() string { return "a line for the spent request" }, func() bool { return len(r.log(0)) == 1 })
	return r
}

// sendRequests sends every case in every manner.
func sendRequests(t *testing.T, cases []requestCase, passed *scores) {
	rigs := make(chan *rig, atOnce)
	for range cap(rigs) {
		rigs <- newRig(t)
	}
	for i := range cases {
		c := &cases[i]
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			r := <-rigs
			defer func() { rigs <- r }()
			defer func() { passed.add(c.Category, !t.Failed()) }()
			r.runCase(t, c)
		})
	}
}

// runCase runs a case in all manners, then compares them with the access log.
func (r *rig) runCase(t *testing.T, c *requestCase) {
	r.settled(t)
	before := r.latest
	var ran []*exchangeSeen
	for i, m := range manners {
		if raced && i > 0 && i < len(manners)-1 {
			continue
		}
		ran = append(ran, r.runManner(t, c, m))
		if t.Failed() {
			return
		}
	}
	r.checkLog(t, ran, before)
}

// exchangeSeen is what was seen of one run of a case from both sides.
type exchangeSeen struct {
	manner    manner
	talked    talked
	forwarded []*message // whole requests at the backend
	heads     []*message // those and the ones that were broken off
}

func (r *rig) runManner(t *testing.T, c *requestCase, m manner) *exchangeSeen {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s, %s: %s", c.Name, m.name, fmt.Sprintf(format, args...))
	}
	before, at := r.latest, r.b.mark()
	raw := bytesOf(c.Raw, c.Parts)
	if m.fronts > 0 {
		raw = front + raw
	}
	methods := append(make([]string, m.fronts), c.Methods...)
	x := &exchangeSeen{manner: m}
	x.talked = r.converse(t, pieces(raw, m.size), talk{
		answers: m.fronts + max(c.MaxRequests, 1), methods: methods, stays: c.MustClose,
		leaves: c.Expect == "wait", leavesAfter: m.fronts,
	})
	r.settled(t)
	grown := r.latest.since(before)

	sent := ""
	for _, stream := range r.b.since(at) {
		all, rest, err := strictly(stream)
		if err != nil {
			fail("a strict parser refuses what the backend gets: %v\n%q", err, stream)
			return x
		}
		whole := ""
		for _, req := range all {
			checkForwarded(fail, req)
			whole += req.whole
		}
		x.forwarded, x.heads = append(x.forwarded, all...), append(x.heads, all...)
		if rest != "" {
			if broken, used, _ := parseHead(rest); used > 0 {
				x.heads = append(x.heads, broken)
			}
		}
		if lines := leniently(stream); !slices.Equal(lines, linesOf(all)) {
			fail("a lenient parser sees %q, a strict one %q in\n%q", lines, linesOf(all), stream)
		}
		sent += stream
	}
	if n := len(x.forwarded) - m.fronts; n > c.MaxRequests {
		fail("%d requests at the backend, want at most %d:\n%q", n, c.MaxRequests, sent)
	}
	for _, req := range x.heads {
		for _, bad := range c.MustNotSee {
			if strings.HasPrefix(req.line, bad) {
				fail("the backend sees %q", req.line)
			}
		}
	}
	bodies := ""
	for _, req := range x.forwarded {
		bodies += req.body + "\n"
	}
	for _, want := range c.MustSee {
		if !strings.Contains(sent, latin1(want)) && !strings.Contains(bodies, latin1(want)) {
			fail("the backend does not see %q in %q", want, sent)
		}
	}
	ours := randomID.ReplaceAllString(sent, "") // a request id may hold any three digits
	for _, bad := range c.NeverSeen {
		if strings.Contains(ours, latin1(bad)) {
			fail("the backend sees %q in %q", bad, sent)
		}
	}
	checkAnswers(t, fail, c, x)
	if allowed := grown.sum("weir_limit_decisions_total", `decision="allow"`); allowed != len(x.heads) {
		fail("the limits were charged %d times for %d requests that reached the backend: %q", allowed, len(x.heads), sent)
	}
	return x
}

func linesOf(all []*message) (lines []string) {
	for _, m := range all {
		lines = append(lines, m.line)
	}
	return lines
}

// checkAnswers compares what the client read with what the case expects.
func checkAnswers(t *testing.T, fail func(string, ...any), c *requestCase, x *exchangeSeen) {
	t.Helper()
	answers := x.talked.answers
	for i, a := range answers {
		if i < x.manner.fronts && a.status != 200 {
			fail("a request in front of it was answered with %q", a.line)
		}
	}
	if x.talked.err != nil {
		fail("the client does not read whole answers: %v in %q", x.talked.err, x.talked.raw)
	}
	if x.talked.continued > 1 {
		fail("%d times 100", x.talked.continued)
	}
	if len(answers) < x.manner.fronts {
		fail("%d answers: %q", len(answers), x.talked.raw)
		return
	}
	answers = answers[x.manner.fronts:]
	forwarded := len(x.forwarded) - x.manner.fronts
	passed, refused := 0, 0
	for i, a := range answers {
		if a.status == 200 {
			passed++
			continue
		}
		if refused++; i != len(answers)-1 {
			fail("the connection goes on after %q: %q", a.line, x.talked.raw)
		}
		if !slices.Equal(a.get("Connection"), []string{"close"}) && (c.MustClose || c.Expect == "either") {
			fail("a refusal has Connection %q", a.get("Connection"))
		}
	}
	if c.MustClose && !x.talked.closed {
		fail("the connection stays open: %q", x.talked.raw)
	}
	if passed != forwarded {
		fail("%d answers of the backend for %d requests that it got", passed, forwarded)
	}
	switch want := c.statuses(t); {
	case want != nil:
		silent := strings.Contains(c.Expect, "close without answer") && len(answers) == 0
		if !silent && (len(answers) != 1 || !slices.Contains(want, answers[0].status)) {
			fail("answered with %q, want %s once", linesOf(answers), c.Expect)
		}
	case c.Expect == "forward":
		if refused > 0 || forwarded == 0 {
			fail("answered with %q, want it forwarded", linesOf(answers))
		}
	case c.Expect == "wait":
		if passed > 0 {
			fail("answered with %q, want it to wait", linesOf(answers))
		}
	case c.Expect != "either":
		fail("expects %q, which nobody knows", c.Expect)
	case passed == 0 && refused == 0:
		fail("got no answer at all")
	}
}

// hopByHop and what must not be in a request that is forwarded.
var hopByHop = regexp.MustCompile(`(?i)\r\n(connection|keep-alive|proxy-connection|proxy-authorization|te|trailer|upgrade|expect|proxy|http2-settings|` +
	`x_tenant_id|x_forwarded_[a-z]+):`)

// upgrade is the one use of Connection that may reach a backend.
const upgrade = "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"

// checkForwarded holds a request at the backend to the invariants.
func checkForwarded(fail func(string, ...any), m *message) {
	if i := control.FindStringIndex(strings.ReplaceAll(m.head, "\r\n", "")); i != nil {
		fail("control bytes or bare line ends in %q", m.head)
	}
	if found := hopByHop.FindString(strings.Replace(m.head, upgrade, "\r\n", 1)); found != "" {
		fail("%q in %q", found, m.head)
	}
	for _, name := range []string{"Host", "X-Request-Id", "X-Forwarded-For", "Via"} {
		if n := len(m.get(name)); n != 1 && !(name == "Via" && n > 1) {
			fail("%d fields %s in %q", n, name, m.head)
		}
	}
	if n := len(m.get("X-Tenant-Id")); n > 1 {
		fail("%d identities in %q", n, m.head)
	}
	line, host, body, err := byNetHTTP(m.whole)
	if err != nil || line != m.line || host != m.get("Host")[0] || body != m.body {
		fail("net/http reads %q %q %q (%v) in %q", line, host, body, err, m.whole)
	}
}

// talk is how a client speaks.
type talk struct {
	answers     int      // so many are enough: then the client closes its sending side
	methods     []string // of the requests; GET when there are fewer
	stays       bool     // it never closes its sending side: the sidecar has to
	leaves      bool     // it closes its sending side after the last byte
	leavesAfter int      // but not before it has so many answers
}

// talked is what a client has read.
type talked struct {
	raw       string
	answers   []*message // final ones
	continued int        // times 100
	interim   []*message // all 1xx
	closed    bool       // the sidecar closed first
	reset     bool       // the connection ended with RST
	err       error      // what was read is no sequence of whole answers
}

// converse sends pieces over a new connection and reads until its end.
func (s *sidecar) converse(t testing.TB, out []string, how talk) (got talked) {
	t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := nc.(*net.TCPConn)
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	written := make(chan struct{})
	go func() {
		defer close(written)
		for _, p := range out { // each piece is a packet: Go sets TCP_NODELAY
			if _, err := io.WriteString(c, p); err != nil {
				return
			}
		}
	}()
	defer func() { _ = c.Close(); <-written }()
	left := false
	leave := func() {
		if !left {
			<-written
			left = true
			_ = c.CloseWrite()
		}
	}
	if how.leaves && how.leavesAfter == 0 {
		leave()
	}
	buf := make([]byte, 64<<10)
	parsed := 0
	for {
		n, err := c.Read(buf)
		got.raw += string(buf[:n])
		for broken := error(nil); broken == nil && parsed < len(got.raw); {
			method := "GET"
			if i := len(got.answers); i < len(how.methods) && how.methods[i] != "" {
				method = how.methods[i]
			}
			a, used, wrong := nextAnswer(got.raw[parsed:], method, err == io.EOF)
			if broken = wrong; used == 0 {
				break
			}
			parsed += used
			if a.status >= 200 {
				got.answers = append(got.answers, a)
				continue
			}
			got.interim = append(got.interim, a)
			if a.status == 100 {
				got.continued++
			}
		}
		if err != nil {
			got.reset = errors.Is(err, syscall.ECONNRESET)
			if parsed < len(got.raw) {
				_, _, wrong := nextAnswer(got.raw[parsed:], "GET", true)
				got.err = errors.Join(fmt.Errorf("%q is no whole answer", got.raw[parsed:]), wrong)
			}
			if err != io.EOF && !got.reset {
				t.Fatalf("the sidecar does not close: %v after %q", err, got.raw)
			}
			got.closed = !left
			return got
		}
		if enough := len(got.answers) >= how.answers && !how.stays; enough || how.leaves && len(got.answers) >= how.leavesAfter {
			leave()
		}
	}
}

// settled waits until nothing is under way: all connections of clients are closed, and the sidecar and the backend agree on their own.
func (r *rig) settled(t testing.TB) {
	t.Helper()
	state := ""
	until(t, func() string { return "an end of everything under way: " + state }, func() bool {
		now := r.metrics()
		accepted, open := r.b.state()
		clients, dials := now.sum("weir_client_connections"), now.sum("weir_upstream_dials_total")
		active, idle := now.sum("weir_upstream_connections", `state="active"`), now.sum("weir_upstream_connections", `state="idle"`)
		state = fmt.Sprintf("%d clients; %d dials and %d accepted; %d active, %d idle and %d open", clients, dials, accepted, active, idle, open)
		r.latest = now
		return clients == 0 && dials == accepted && active == 0 && idle == open
	})
}

// checkLog says whether the answers, the requests at the backend, the access log and the metrics agree.
func (r *rig) checkLog(t *testing.T, ran []*exchangeSeen, before series) {
	t.Helper()
	grown := r.latest.since(before)
	from, ended := before.sum("weir_requests_total"), grown.sum("weir_requests_total")
	until(t, func() string { return fmt.Sprintf("%d lines in the log: %v", ended, r.log(from)) }, func() bool { return len(r.log(from)) >= ended })
	lines := r.log(from)
	if len(lines) != ended {
		t.Errorf("%d requests in the metrics, %d in the log: %v", ended, len(lines), lines)
	}
	counted := make(map[string]int)
	byID := make(map[string]logLine)
	for _, l := range lines {
		counted[fmt.Sprintf(`code="%dxx",reason="%s"`, l.Status/100, l.Reason)]++
		byID[l.RequestID] = l
	}
	for labels, n := range counted {
		code, reason, _ := strings.Cut(labels, ",")
		if m := grown.sum("weir_requests_total", code, reason); m != n {
			t.Errorf("%s: %d in the log, %d in the metrics", labels, n, m)
		}
	}
	told := 0
	for _, x := range ran {
		var ids []string
		for _, req := range x.heads {
			ids = append(ids, req.get("X-Request-Id")[0])
		}
		for i, a := range x.talked.answers {
			told++
			if a.status != 200 {
				ids = append(ids, a.get("X-Request-Id")...)
				if l := byID[strings.Join(a.get("X-Request-Id"), "")]; l.Status != a.status {
					t.Errorf("%s: answer %d is %q, the log has %+v", x.manner.name, i, a.line, l)
				}
			}
		}
		for i, req := range x.forwarded {
			if l := byID[ids[i]]; l.Status != 200 || l.Reason != "passed" {
				t.Errorf("%s: %q was answered by the backend, the log has %+v", x.manner.name, req.line, l)
			}
		}
		for _, id := range ids {
			if _, found := byID[id]; !found {
				t.Errorf("%s: request %s is not in the log", x.manner.name, id)
			}
		}
	}
	for _, l := range lines {
		if l.Reason == "client_gone" {
			told++ // nobody was there to read
		}
	}
	if told != len(lines) {
		t.Errorf("%d answers, %d lines in the log: %+v", told, len(lines), lines)
	}
}
