package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"

	"weir/policy"
)

func TestMain(m *testing.M) {
	startClockOfFasthttp()
	goleak.VerifyTestMain(m,
		// fasthttp's own: one clock for the process, and a cleaner for each Serve that notices its end within ten seconds.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}

// startClockOfFasthttp has fasthttp begin its goroutine for the process, which must not be part of a test's bubble.
func startClockOfFasthttp() {
	client, server := net.Pipe()
	_ = client.Close()
	s := fasthttp.Server{LazyRequestTime: true}
	_ = s.ServeConn(server)
}

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

func within[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("not in %v: %s", patience, what)
	}
	return v
}

// documents is a sidecar before one backend, without limits. Of what else is given, documents stand beside or in the place of
// these, and everything else is a field of the sidecar's spec.
func documents(backend string, further ...string) string {
	sidecar := document("Sidecar", "t",
		`listeners: [{name: http, address: "127.0.0.1:0"}]`, `identity: [{header: X-Tenant-ID, trust: any}]`, "unknownTenant: Shared")
	rest := ""
	for _, f := range further {
		if strings.HasPrefix(f, "---") {
			rest += f
		} else {
			sidecar += "  " + f + "\n"
		}
	}
	if !strings.Contains(rest, "\nkind: Backend\n") {
		rest += document("Backend", "b", `endpoints: [{address: "`+backend+`"}]`)
	}
	if !strings.Contains(rest, "kind: TenantPolicy") {
		rest += document("TenantPolicy", "all", `tenants: {any: true}`)
	}
	return sidecar + rest
}

// document is one of these, with the fields of its spec.
func document(kind, name string, fields ...string) string {
	return "---\napiVersion: weir.dev/v1alpha1\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec:\n  " + strings.Join(fields, "\n  ") + "\n"
}

func compile(t testing.TB, text string) *policy.Snapshot {
	t.Helper()
	docs, problems := policy.Decode("test.yaml", []byte(text))
	if len(problems) == 0 {
		var s *policy.Snapshot
		if s, problems = policy.Compile(docs, policy.CompileOptions{}); s != nil {
			return s
		}
	}
	t.Fatalf("cannot compile: %v\n%s", problems, text)
	return nil
}

// sidecar is a proxy that serves on loopback, with all that it says.
type sidecar struct {
	*Proxy
	t        testing.TB
	addr     string
	registry *prometheus.Registry
	log      *logLines
	access   *AccessLog
	end      context.CancelFunc
	ended    chan error
	listener net.Listener
}

// serve starts a proxy with these documents. It is ended with the test, if not before.
func serve(t testing.TB, text string) *sidecar {
	t.Helper()
	return start(t, compile(t, text), SystemClock(), nil)
}

// serveSnapshot is serve with a change of what was compiled.
func serveSnapshot(t testing.TB, text string, change func(*policy.Snapshot)) *sidecar {
	t.Helper()
	snapshot := compile(t, text)
	change(snapshot)
	return start(t, snapshot, SystemClock(), nil)
}

// start is serve with a clock, with a listener unless it is nil, and with changes of the proxy before it serves.
func start(t testing.TB, snapshot *policy.Snapshot, clock Clock, ln net.Listener, change ...func(*Proxy)) *sidecar {
	t.Helper()
	s := &sidecar{t: t, registry: prometheus.NewRegistry(), log: &logLines{}, ended: make(chan error, 1), listener: ln}
	s.access = NewAccessLog(s.log)
	var err error
	s.Proxy, err = New(Options{
		Clock: clock, Logger: zerolog.New(s.log), Registerer: s.registry, AccessLog: s.access, Bounds: snapshot.Sidecar.Bounds,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(s.Proxy)
	}
	if err := s.Apply(snapshot); err != nil {
		t.Fatal(err)
	}
	if s.listener == nil {
		listeners, err := Listen(snapshot.Sidecar.Listeners)
		if err != nil {
			t.Fatal(err)
		}
		s.listener = listeners[0]
	}
	s.addr = addressOf(s.listener)
	ctx, cancel := context.WithCancel(context.Background())
	s.end = cancel
	go func() { s.ended <- s.Serve(ctx, []net.Listener{s.listener}); close(s.ended) }()
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

// stop drains the proxy, flushes the log and returns what Serve said; nil when it has ended before.
func (s *sidecar) stop() error {
	s.t.Helper()
	s.end()
	err := within(s.t, "the proxy ends", s.ended)
	if s.access != nil {
		err = errors.Join(err, s.access.Close())
		s.access = nil
	}
	return err
}

// requests is the sum of weir_requests_total over all series with these labels.
func (s *sidecar) requests(labels ...string) int {
	s.t.Helper()
	return int(s.metric("weir_requests_total", labels...))
}

// metric is the sum of a counter or gauge over all series with these labels, and the count of a histogram.
func (s *sidecar) metric(name string, labels ...string) (sum float64) {
	s.t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue series
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// logLines keeps what was logged. The lines of requests are those with a status.
type logLines struct {
	mu  sync.Mutex
	all []byte
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, p...)
	return len(p), nil
}

type logLine map[string]any

func (l logLine) text(key string) string { return fmt.Sprint(l[key]) }

func (l *logLines) lines(t testing.TB) (lines []logLine) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range bytes.Split(bytes.TrimSpace(l.all), []byte("\n")) {
		if len(b) == 0 {
			continue
		}
		var line logLine
		if err := json.Unmarshal(b, &line); err != nil {
			t.Fatalf("not JSON: %v: %q", err, b)
		}
		if line["status"] != nil {
			lines = append(lines, line)
		}
	}
	return lines
}

// logged waits for n lines of the access log.
func (s *sidecar) logged(n int) (lines []logLine) {
	s.t.Helper()
	until(s.t, strconv.Itoa(n)+" lines are logged", func() bool { lines = s.log.lines(s.t); return len(lines) >= n })
	return lines
}

// ends checks how the only request so far ended, everywhere it is said.
func (s *sidecar) ends(reason string, status int) logLine {
	s.t.Helper()
	return s.endsAfter(1, reason, status)
}

// endsAfter checks how the last of n requests ended.
func (s *sidecar) endsAfter(n int, reason string, status int) logLine {
	s.t.Helper()
	lines := s.logged(n)
	last := lines[len(lines)-1]
	if len(lines) != n || last.text("reason") != reason || last["status"] != float64(status) {
		s.t.Errorf("logged %d lines, the last %v; want %d with %s and %d", len(lines), last, n, reason, status)
	}
	class := strconv.Itoa(status/100) + "xx"
	if s.requests() != n || s.requests("reason", reason, "code", class) < 1 {
		s.t.Errorf("counted %d requests, %d with %s and %s; want %d and some", s.requests(), s.requests("reason", reason, "code", class), reason, class, n)
	}
	if got := s.metric("weir_inflight"); got != 0 {
		s.t.Errorf("%v in flight after the end", got)
	}
	return last
}

// backend is a legacy service that does as its script says, byte by byte.
type backend struct {
	t    testing.TB
	ln   net.Listener
	addr string

	mu     sync.Mutex
	conns  []net.Conn
	done   sync.WaitGroup
	closed chan struct{}
}

// script serves one connection; it is closed when the script returns.
type script func(c *peer)

func newBackend(t testing.TB, s script) *backend { return newBackendOn(t, "tcp", "127.0.0.1:0", s) }

func newBackendOn(t testing.TB, network, address string, s script) *backend {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{t: t, ln: ln, addr: addressOf(ln), closed: make(chan struct{})}
	b.done.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns = append(b.conns, nc)
			b.mu.Unlock()
			b.done.Go(func() {
				defer nc.Close()
				s(newPeer(t, nc))
			})
		}
	})
	t.Cleanup(b.close)
	return b
}

func (b *backend) close() {
	close(b.closed)
	_ = b.ln.Close()
	b.mu.Lock()
	for _, nc := range b.conns {
		_ = nc.Close()
	}
	b.mu.Unlock()
	b.done.Wait()
}

// connections is how many were ever accepted.
func (b *backend) connections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns)
}

// answering is a backend that reads requests, bodies included, and gives each the same answer; what it read goes to got,
// which may be nil.
func answering(t testing.TB, answer string, got chan<- string) *backend {
	var b *backend
	ready := make(chan struct{})
	b = newBackend(t, func(c *peer) {
		<-ready
		for {
			head, body, err := c.request()
			if err != nil {
				return
			}
			if got != nil {
				select {
				case got <- head + body:
				case <-b.closed:
				}
			}
			c.say(answer)
		}
	})
	close(ready)
	return b
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// peer is one end of a connection that speaks and reads bytes.
type peer struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	return &peer{Conn: nc, t: t, r: bufio.NewReaderSize(nc, 64<<10)}
}

// dial connects as a client.
func (s *sidecar) dial() *peer {
	s.t.Helper()
	return dial(s.t, s.addr)
}

func dial(t testing.TB, address string) *peer {
	t.Helper()
	network := "tcp"
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		network, address = "unix", path
	}
	nc, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return newPeer(t, nc)
}

// say writes; a peer that does not want to hear is the reader's matter.
func (p *peer) say(parts ...string) { _, _ = io.WriteString(p, strings.Join(parts, "")) }

// head reads to the empty line.
func (p *peer) head() (string, error) {
	var head strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

// take reads n bytes.
func (p *peer) take(n int) (string, error) {
	b := make([]byte, n)
	n, err := io.ReadFull(p.r, b)
	return string(b[:n]), err
}

// request reads one request; the body as it came, chunks included.
func (p *peer) request() (head, body string, err error) {
	if head, err = p.head(); err != nil {
		return head, "", err
	}
	if n := field(head, "Content-Length"); n != "" {
		length, _ := strconv.Atoi(n)
		body, err = p.take(length)
		return head, body, err
	}
	if field(head, "Transfer-Encoding") == "" {
		return head, "", nil
	}
	for {
		line, err := p.r.ReadString('\n')
		body += line
		if err != nil {
			return head, body, err
		}
		size, err := strconv.ParseInt(strings.TrimRight(line, "\r\n"), 16, 64)
		if err != nil {
			return head, body, err
		}
		piece, err := p.take(int(size) + 2)
		body += piece
		if size == 0 || err != nil {
			return head, body, err
		}
	}
}

// field is the value of the first field of that name.
func field(head, name string) string {
	if values := fields(head, name); len(values) > 0 {
		return values[0]
	}
	return ""
}

func fields(head, name string) (values []string) {
	for _, line := range strings.Split(head, "\r\n") {
		if n, v, found := strings.Cut(line, ":"); found && strings.EqualFold(n, name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

// answer reads one answer to a request of that method; the body decoded.
func (p *peer) answer(method string) (*http.Response, string) {
	p.t.Helper()
	a, body, err := p.tryAnswer(method)
	if err != nil {
		p.t.Fatalf("no answer: %v", err)
	}
	return a, body
}

func (p *peer) tryAnswer(method string) (*http.Response, string, error) {
	a, err := http.ReadResponse(p.r, &http.Request{Method: method})
	if err != nil {
		return nil, "", err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	return a, string(body), err
}

// expect reads an answer of that status and returns it.
func (p *peer) expect(status int) (*http.Response, string) {
	p.t.Helper()
	a, body := p.answer("GET")
	if a.StatusCode != status {
		p.t.Fatalf("status %d %q, want %d", a.StatusCode, body, status)
	}
	return a, body
}

// rest reads until the end and says how it came: nil for a clean one.
func (p *peer) rest() (string, error) {
	b, err := io.ReadAll(p.r)
	return string(b), err
}

// closed checks that nothing but a clean end follows.
func (p *peer) closed() {
	p.t.Helper()
	if b, err := p.rest(); b != "" || err != nil {
		p.t.Errorf("then %q, %v, want the end", b, err)
	}
}

// open checks that the connection carries another request.
func (p *peer) open() {
	p.t.Helper()
	p.say(get)
	p.answer("GET")
}

const get = "GET / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\n\r\n"

// post is a request with a body of which the first bytes may follow.
func post(length int, body string) string {
	return "POST /p HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\nContent-Length: " + strconv.Itoa(length) + "\r\n\r\n" + body
}
