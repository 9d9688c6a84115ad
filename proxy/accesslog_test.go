package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weir/policy"
)

func TestFieldsOfALine(t *testing.T) {
	f := func(request string, status int, fields map[string]any) {
		t.Helper()
		b := answering(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", nil)
		s := serve(t, documents(b.addr, limited(oneAnHour), document("Route", "r", "match: [{path: /p}]", "backend: b"),
			document("Backend", "b", `endpoints: [{address: "`+b.addr+`"}]`)))
		began := time.Now()
		c := s.dial()
		for _, part := range strings.SplitAfter(request, "|") {
			c.say(strings.TrimSuffix(part, "|"))
			c.answer("POST")
		}
		lines := s.logged(strings.Count(request, "|") + 1)
		line := lines[len(lines)-1]
		at, err := time.Parse("2006-01-02T15:04:05.000Z", line.text("time"))
		if err != nil || at.Before(began.Add(-time.Second)) || at.After(time.Now()) {
			t.Errorf("time %v, %v", line["time"], err)
		}
		if took := line["duration_ms"].(float64); took <= 0 || took > 1e4 || line["overhead_ms"].(float64) > took {
			t.Errorf("duration %v, overhead %v", took, line["overhead_ms"])
		}
		if len(line.text("request_id")) != 32 {
			t.Errorf("request_id %v", line["request_id"])
		}
		for _, name := range []string{"time", "duration_ms", "overhead_ms", "request_id"} {
			delete(line, name)
		}
		if line["endpoint"] == b.addr {
			line["endpoint"] = "b's"
		}
		fields["status"] = float64(status)
		if diff := cmp.Diff(fields, map[string]any(line)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", request, diff)
		}
	}
	with := func(fields map[string]any) map[string]any {
		all := map[string]any{"tenant": "acme", "route": "r", "method": "POST", "host": "h", "path": "/p", "reason": "passed",
			"bytes_in": 5.0, "bytes_out": 0.0, "client": "127.0.0.1"}
		maps.Copy(all, fields)
		return all
	}

	f(post(5, "hello"), 200, with(map[string]any{"backend": "b", "endpoint": "b's", "bytes_out": 3.0}))
	f(post(5, "hello")+"|"+post(5, "hello"), 429, with(map[string]any{"reason": "limited", "policy": "gold", "limit": "steady", "by": "policy", "phase": "decision"}))
	f(strings.Replace(post(5, "hello"), "/p", "/q?x", 1), 404, with(map[string]any{"reason": "no_route", "route": "", "path": "/q", "bytes_in": 0.0,
		"by": "policy", "phase": "decision"}))
	f("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400,
		with(map[string]any{"reason": "bad_request", "cause": "bad_length", "tenant": "", "route": "", "bytes_in": 0.0, "by": "client", "phase": "request_head"}))
}

// TestHostileBytesStayInTheirLine: whatever a client sends, a line is one line of JSON, and says what was sent as far as JSON can.
func TestHostileBytesStayInTheirLine(t *testing.T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	hostile := [][]byte{
		every, []byte("\n{\"status\":200}\n"), []byte(`","status":"`), []byte("\\"), []byte("\xff\xfe"), []byte("\xe2\x80\xa8"), []byte("\x00"),
		bytes.Repeat([]byte("x"), 1<<20), nil,
	}
	for _, text := range hostile {
		var out logLines
		l := NewAccessLog(&out)
		l.write(&record{tenant: text, method: text, host: text, path: text, requestID: text, status: 1, route: string(text), client: netip.MustParseAddr("::1%eth0")})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		lines := out.lines(t)
		if len(lines) != 1 || bytes.Count(out.all, []byte("\n")) != 1 {
			t.Fatalf("%.40q became %d lines", text, len(lines))
		}
		want := strings.ToValidUTF8(string(text), "\ufffd")
		if got := lines[0].text("path"); got != want && !bytes.Contains(text, []byte("\xff")) || lines[0]["status"] != 1.0 {
			t.Errorf("%.40q became %.40q", text, got)
		}
	}
	// Through the wire, as far as the guard lets it pass.
	s := serve(t, documents("127.0.0.1:1"))
	c := s.dial()
	c.say("GET /\"\xff\xfe{}<> HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: \"}\\\r\n\r\n")
	c.answer("GET")
	if line := s.logged(1)[0]; line.text("tenant") != `"}\` && line["status"] != 400.0 {
		t.Errorf("%v", line)
	}
}

func TestWhatIsLogged(t *testing.T) {
	f := func(settings string, wantDenials, least, most int) {
		t.Helper()
		s := serve(t, documents(answering(t, ok, nil).addr, "accessLog: "+settings, limited("limits: [{name: l, requests: 400, per: 1h}]")))
		c := s.dial()
		for range 410 {
			c.say(get)
			c.answer("GET")
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		denials, successes := 0, 0
		for _, line := range s.log.lines(t) {
			if line["status"] == 429.0 {
				denials++
			} else {
				successes++
			}
		}
		if denials != wantDenials || successes < least || successes > most {
			t.Errorf("%s: %d denials and %d successes", settings, denials, successes)
		}
	}

	f("{format: json}", 10, 400, 400)
	f("{successSample: 10}", 10, 10, 90) // 40 and a bit more than eight times the standard deviation
	f("{successSample: 0}", 10, 0, 0)
	f("{format: off}", 0, 0, 0)
}

// stuck is an output that takes nothing until it is freed.
type stuck struct {
	free  chan struct{}
	asked atomic.Bool
	mu    sync.Mutex
	taken []byte
}

func (s *stuck) Write(p []byte) (int, error) {
	s.asked.Store(true)
	<-s.free
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = append(s.taken, p...)
	return len(p), nil
}

func (s *stuck) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Count(s.taken, []byte("\n"))
}

func TestStuckOutputStopsNoRequest(t *testing.T) {
	s := serve(t, documents(answering(t, ok, nil).addr))
	out := &stuck{free: make(chan struct{})}
	s.access.SetOutput(out)
	const requests = 3 * logRing
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			c := s.dial()
			in := make([]byte, len(ok))
			for range requests / 2 {
				c.say(get)
				if _, err := io.ReadFull(c.Conn, in); err != nil {
					t.Errorf("no answer: %v", err)
					return
				}
			}
		})
	}
	clients.Wait()
	until(t, "every request is settled", func() bool { return s.requests() == requests })
	// The ring and the batch hold some; all others are lost, and counted while nothing moves.
	lost := int(s.access.Dropped())
	if lost < requests-logRing-2*logBatch/200 || lost > requests-logRing {
		t.Errorf("%d of %d lines counted as lost", lost, requests)
	}
	if n := int(s.metric("weir_log_dropped_total")); n != lost {
		t.Errorf("the metric says %d, want %d", n, lost)
	}
	// What is not lost arrives once the output moves again, and nothing is counted twice.
	close(out.free)
	access := s.access
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if got := out.count(); got+lost != requests || int(access.Dropped()) != lost {
		t.Errorf("%d lines written and %d lost, want %d in all", got, access.Dropped(), requests)
	}
}

func TestCloseAndChangeOfAStuckLogAreBounded(t *testing.T) {
	out := &stuck{free: make(chan struct{})}
	l := NewAccessLog(out)
	line := func() { l.write(&record{path: bytes.Repeat([]byte("x"), logBatch/2), status: 1}) }
	line()
	until(t, "the writer is stuck", func() bool { return out.asked.Load() })
	for range 8 {
		line()
	}
	began := time.Now()
	var next logLines
	l.SetOutput(&next)
	err := l.Close()
	if err == nil || !strings.Contains(err.Error(), "took nothing for 1s") {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(began); took < 2*logPatience || took > 4*logPatience {
		t.Errorf("it took %v, want a second each", took)
	}
	// The new output gets what comes once the old one lets go.
	close(out.free)
	until(t, "the rest is written", func() bool { return out.count()+len(next.lines(t)) == 9 })
	if out.count() != 1 {
		t.Errorf("the old output got %d lines, want the one that it was stuck with", out.count())
	}
	<-l.done
}

func TestChangeOfTheOutputLosesNothing(t *testing.T) {
	outputs := make([]logLines, 20)
	l := NewAccessLog(&outputs[0])
	const each = 50
	for i := range outputs {
		l.SetOutput(&outputs[i])
		for range each {
			l.write(&record{status: 1})
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	total := 0
	for i := range outputs {
		total += len(outputs[i].lines(t))
	}
	if total != each*len(outputs) || l.Dropped() != 0 {
		t.Errorf("%d lines, %d lost, want %d", total, l.Dropped(), each*len(outputs))
	}
}

type refusing struct{}

func (refusing) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestRefusedLinesAreCounted(t *testing.T) {
	l := NewAccessLog(refusing{})
	for range 10 {
		l.write(&record{status: 1})
	}
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Close: %v", err)
	}
	if l.Dropped() != 10 {
		t.Errorf("%d lost, want 10", l.Dropped())
	}
}

func TestOpenLogOutput(t *testing.T) {
	var stdout, stderr bytes.Buffer
	f := func(path string, want io.Writer) {
		t.Helper()
		out, closer, err := OpenLogOutput(path, &stdout, &stderr)
		if err != nil || out != want || closer.Close() != nil {
			t.Errorf("%q: %v, %v", path, out, err)
		}
	}
	f("stdout", &stdout)
	f("", &stdout)
	f("stderr", &stderr)

	// A file is appended to.
	path := t.TempDir() + "/access.log"
	for _, text := range []string{"a\n", "b\n"} {
		out, closer, err := OpenLogOutput(path, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(out, text)
		if err := closer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(path); string(b) != "a\nb\n" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if _, _, err := OpenLogOutput(t.TempDir(), nil, nil); err == nil || !strings.Contains(err.Error(), "want stdout, stderr or a file") {
		t.Errorf("a directory: %v", err)
	}
}

// TestOrderOfFields: people read lines by it.
func TestOrderOfFields(t *testing.T) {
	var out bytes.Buffer
	l := NewAccessLog(&out)
	l.write(&record{cause: "c", limit: "l", shadowLimit: "s", backend: "b", endpoint: "e"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var names []string
	decoder := json.NewDecoder(&out)
	for depth := 0; ; {
		token, err := decoder.Token()
		if err != nil {
			break
		}
		if depth++; depth%2 == 0 && token != json.Delim('}') {
			names = append(names, token.(string))
		}
	}
	want := strings.Fields("time tenant route method host path status reason cause policy limit shadow backend endpoint duration_ms overhead_ms bytes_in bytes_out client request_id")
	if !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}

func TestWanted(t *testing.T) {
	f := func(format string, sample int, failed, want bool) {
		t.Helper()
		if got := wanted(&policy.AccessLog{Format: format, SuccessSample: sample}, failed); got != want {
			t.Errorf("%s %d %v: %v", format, sample, failed, got)
		}
	}
	f("json", 1, false, true)
	f("json", 0, false, false)
	f("json", 0, true, true)
	f("json", 1000000, true, true)
	f("off", 1, true, false)
}

// TestRing: many writers, one reader that is too slow: what comes is whole, in each writer's order, and what does not is told.
func TestRing(t *testing.T) {
	r := newLineRing()
	const writers, each = 4, 50_000
	var lost [writers]int
	var running sync.WaitGroup
	var left atomic.Int64
	left.Store(writers)
	for w := range writers {
		running.Go(func() {
			defer left.Add(-1)
			for i := range each {
				if !r.put(fmt.Appendf(nil, "%d %d", w, i)) {
					lost[w]++
					runtime.Gosched()
				}
			}
		})
	}
	var got, last [writers]int
	for {
		ended := left.Load() == 0
		line, more := r.take(nil)
		if !more && ended {
			break
		}
		var w, i int
		if _, err := fmt.Sscanf(string(line), "%d %d", &w, &i); more && (err != nil || got[w] > 0 && i <= last[w]) {
			t.Fatalf("%q after %d: %v", line, last[w], err)
		} else if more {
			got[w]++
			last[w] = i
		}
	}
	running.Wait()
	if sum := got[0] + got[1] + got[2] + got[3]; sum < logRing || sum == writers*each {
		t.Errorf("%d taken: nothing was lost, or almost everything", sum)
	}
	for w := range writers {
		if got[w]+lost[w] != each {
			t.Errorf("writer %d: %d taken and %d lost of %d", w, got[w], lost[w], each)
		}
	}
}

func BenchmarkAccessLog(b *testing.B) {
	l := NewAccessLog(io.Discard)
	r := record{
		time: time.Now(), tenant: []byte("acme"), method: []byte("GET"), host: []byte("api.example.com"), path: []byte("/api/items?page=2"),
		route: "items", reason: "passed", status: 200, duration: 123456, overhead: 12345, bytesOut: 1024, client: netip.MustParseAddr("10.1.2.3"),
		requestID: []byte("0123456789abcdef0123456789abcdef"), backend: "b", endpoint: "127.0.0.1:9000",
	}
	b.ReportAllocs()
	for b.Loop() {
		l.write(&r)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(l.Dropped())/float64(b.N), "lost/line")
}
