package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/admit"
	"weir/policy"
)

// adminRig is an admin port with everything switched on.
type adminRig struct {
	t       *testing.T
	h       http.Handler
	status  Status
	checks  []Check
	drained int
	level   *LogLevel
	log     bytes.Buffer
	asked   admit.Inquiry // the last question of /why
}

// why answers for one id, and for every path but one.
func (r *adminRig) why(q admit.Inquiry) (admit.Trace, error) {
	r.asked = q
	switch {
	case q.RequestID != "" && q.RequestID != "known":
		return admit.Trace{}, &admit.NotRecentError{RequestID: q.RequestID}
	case q.Path == "bad":
		return admit.Trace{}, errors.New("cannot use path")
	}
	return admit.Trace{
		Request: admit.TraceRequest{Method: "POST", Host: "h", Path: "/pay", Cost: 1},
		Limits:  []admit.TraceLimit{{Policy: "gold", Name: "steady", Requests: 1, Per: admit.Span(time.Hour), Burst: 1, State: admit.RuleAsked}},
		Verdict: admit.TraceVerdict{Passes: true, Reason: "passed"},
	}, nil
}

func newAdminRig(t *testing.T) *adminRig {
	t.Helper()
	level, err := NewLogLevel("info")
	if err != nil {
		t.Fatal(err)
	}
	r := &adminRig{t: t, level: level}
	registry := prometheus.NewRegistry()
	if _, err := newMetrics(registry); err != nil {
		t.Fatal(err)
	}
	r.h = NewAdmin(AdminOptions{
		Logger:   zerolog.New(&r.log),
		Gatherer: registry,
		Status:   func() Status { return r.status },
		Ready:    func() []Check { return r.checks },
		Tenants: func(name string) TenantList {
			list := TenantList{OnDemand: 7, Overflow: 1, Capacity: 65536, Tenants: []Tenant{
				{Name: "acme", InFlight: 3, Waiting: 2, Concurrency: 50, Weight: 4, Limits: []TenantLimit{
					{Policy: "gold", Name: "steady", Requests: 1000, Per: "1s", Burst: 2000, Available: 1999},
					{Policy: "all", Name: "trial", Requests: 5, Per: "1m0s", Burst: 5, Available: 0, Shadow: true},
					{Policy: "gold", Name: "traffic", Bytes: 10 << 20, Per: "1s", Burst: 20 << 20, Available: 5}}},
				{Name: "globex", Weight: 1}}}
			if name != "" {
				list.Tenants = list.Tenants[:1]
			}
			return list
		},
		Breakers: func(name string) []Breaker {
			if name == "none" {
				return nil
			}
			return []Breaker{
				{Name: "orders", Target: "Backend orders", Level: "degraded", Since: time.Date(2026, 5, 4, 9, 0, 15, 0, time.UTC), Share: 1,
					Rate: &BreakerRate{Offered: 310, Passed: 305.25, Baseline: 200, High: 270}, Calls: &BreakerCalls{Requests: 3100, Failures: 2, Slow: 1}},
				{Name: "pay", Target: "Route pay", PerTenant: true, Level: "normal", Share: 0.4, Calls: &BreakerCalls{}},
				{Name: "pay", Target: "Route pay", PerTenant: true, Tenant: "acme", Level: "open", Until: time.Date(2026, 5, 4, 9, 1, 2, 0, time.UTC), Calls: &BreakerCalls{Requests: 20, Failures: 20}},
				{Name: "quiet", Target: "Backend orders", Level: "normal", Share: 1, Rate: &BreakerRate{}},
				{Name: "steady", Target: "Backend orders", Level: "half_open", Until: time.Date(2026, 5, 4, 9, 1, 2, 0, time.UTC), Rate: &BreakerRate{Baseline: 20, Low: 13, High: 27}},
				{Name: "up", Target: "Backend orders", Level: "normal", Share: 1, Rate: &BreakerRate{Baseline: 20, Low: 13}},
			}
		},
		Why:      r.why,
		LogLevel: level,
		Drain:    func() { r.drained++ },
		Pprof:    true,
	})
	return r
}

// do sends a request, and returns status, header and body.
func (r *adminRig) do(method, target, body string, header ...string) (int, http.Header, string) {
	r.t.Helper()
	request := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.h.ServeHTTP(w, request)
	return w.Code, w.Header(), w.Body.String()
}

// want sends a request and looks for texts in the answer's body.
func (r *adminRig) want(method, target, body string, status int, texts ...string) {
	r.t.Helper()
	code, _, got := r.do(method, target, body)
	if code != status {
		r.t.Errorf("%s %s: status %d, want %d: %s", method, target, code, status, got)
	}
	for _, text := range texts {
		if !strings.Contains(got, text) {
			r.t.Errorf("%s %s: no %q in:\n%s", method, target, text, got)
		}
	}
}

// json sends a GET and decodes the answer.
func (r *adminRig) json(target string, status int, into any) {
	r.t.Helper()
	code, header, body := r.do("GET", target, "", "Accept", "application/json")
	if code != status || header.Get("Content-Type") != "application/json" {
		r.t.Errorf("GET %s: status %d, type %s, want %d in JSON", target, code, header.Get("Content-Type"), status)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		r.t.Errorf("GET %s: %v: %s", target, err, body)
	}
}

func appliedStatus() Status {
	return Status{
		Revision: 12, Hash: "abc123", AppliedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Counts: Counts{Applied: 1, LastGood: 1, Refused: 1},
		Objects: []Object{
			{Kind: "Backend", Name: "orders", State: Applied, Source: "file", Origin: "b.yaml:1:1", Digest: "d1", Text: backendDoc("orders", "127.0.0.1:1")},
			{Kind: "TenantPolicy", Name: "acme", State: LastGood, Source: "file", Origin: "t.yaml:9:1", Stored: true, Digest: "d2", Text: policyDoc("acme", 5)},
			{Kind: "TenantPolicy", Name: "new", State: Refused},
		},
		Problems: []policy.Problem{{Origin: policy.Origin{File: "t.yaml", Line: 3, Column: 5}, Kind: "TenantPolicy", Name: "acme",
			Path: "spec.brust", Message: "unknown field", Suggestion: `did you mean "burst"?`, Excerpt: "brust: 1\n^"}},
		Sources:  []SourceStatus{{Name: "file", Healthy: true, Files: 2, Documents: 3}, {Name: "etcd", Error: "gone"}},
		LastGood: LastGoodStatus{Path: "/var/lib/weir/last-good.yaml", InUse: 1, Error: "disk full"},
	}
}

func TestAdminLive(t *testing.T) {
	r := newAdminRig(t)
	r.want("GET", "/livez", "", 200, "ok")
	r.want("HEAD", "/livez", "", 200)
}

func TestAdminReady(t *testing.T) {
	r := newAdminRig(t)
	// nothing is there yet
	r.checks = []Check{{Name: "listeners", Missing: "listener http is not bound"}}
	r.want("GET", "/readyz", "", 503, "not ready: no policy is applied yet; listener http is not bound\n")
	r.want("GET", "/readyz?verbose", "", 503, "[-] policy: no policy is applied yet\n[-] listeners: listener http is not bound\n")
	var answer struct {
		Ready  bool
		Checks []Check
	}
	r.json("/readyz", 503, &answer)
	if answer.Ready || len(answer.Checks) != 2 {
		t.Errorf("got %+v", answer)
	}
	// all is
	r.status = appliedStatus()
	r.checks[0] = Check{Name: "listeners", OK: true}
	r.want("GET", "/readyz", "", 200, "ready\n")
	r.want("GET", "/readyz?verbose", "", 200, "[+] policy ok\n[+] listeners ok\n")
}

func TestAdminMetrics(t *testing.T) {
	r := newAdminRig(t)
	r.want("GET", "/metrics", "", 200, "# TYPE weir_policy_revision gauge")
	_, header, body := r.do("GET", "/metrics", "", "Accept", "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("asked for OpenMetrics, got %s", header.Get("Content-Type"))
	}
}

func TestAdminStatus(t *testing.T) {
	r := newAdminRig(t)
	r.status = appliedStatus()
	r.want("GET", "/status", "", 200, "revision     12\n", "abc123", "2026-01-02T03:04:05Z", "1 applied, 1 last good, 1 refused",
		"source file  healthy; 3 documents in 2 files", "source etcd  unreadable: gone", "/var/lib/weir/last-good.yaml, written never; 1 document in force from it", "not written: disk full")
	kept := r.status
	r.status.LastGood, r.status.Sources = LastGoodStatus{}, []SourceStatus{{Name: "etcd", Healthy: true, Files: 1, Documents: 1, Revision: 7}}
	r.want("GET", "/status", "", 200, "source etcd  healthy; 1 document at revision 7, read never\n", "last good    not kept: a start without etcd would have to do without")
	r.status = kept
	var got struct {
		Revision uint64
		Hash     string
		Objects  Counts
		Problems []struct{ Severity, Message, File string }
		Sources  []SourceStatus
	}
	r.json("/status?o=json", 200, &got)
	if got.Revision != 12 || got.Objects != (Counts{1, 1, 1}) || len(got.Problems) != 1 || got.Problems[0].File != "t.yaml" || len(got.Sources) != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestAdminPolicy(t *testing.T) {
	r := newAdminRig(t)
	r.status = appliedStatus()
	r.want("GET", "/policy", "", 200, "# revision: 12\n# hash: abc123\n", "---\n# origin: \"b.yaml:1:1\"\n# digest: d1\napiVersion:",
		"# read from the last-good file\n# state: last_good, see", `# refused: TenantPolicy "new"`)
	// what is shown can be read again
	_, header, body := r.do("GET", "/policy", "")
	docs, problems := policy.Decode("policy", []byte(body))
	if len(docs) != 2 || len(problems) > 0 || !strings.HasPrefix(header.Get("Content-Type"), "application/yaml") {
		t.Errorf("read back %d documents of type %s: %v", len(docs), header.Get("Content-Type"), problems)
	}
	var got struct {
		Revision  uint64
		Hash      string
		Documents []Object
	}
	r.json("/policy", 200, &got)
	if diff := cmp.Diff(r.status.Objects, got.Documents); diff != "" || got.Hash != "abc123" || got.Revision != 12 {
		t.Errorf("documents (-want +got):\n%s", diff)
	}
	// ?o=yaml wins over Accept
	if _, header, _ := r.do("GET", "/policy?o=yaml", "", "Accept", "application/json"); !strings.HasPrefix(header.Get("Content-Type"), "application/yaml") {
		t.Errorf("?o=yaml gives %s", header.Get("Content-Type"))
	}
}

func TestAdminProblems(t *testing.T) {
	r := newAdminRig(t)
	r.want("GET", "/policy/problems", "", 200, "no problems\n")
	if _, _, body := r.do("GET", "/policy/problems?o=json", ""); body != "[]\n" {
		t.Errorf("no problems are %q", body)
	}
	r.status = appliedStatus()
	r.want("GET", "/policy/problems", "", 200, "t.yaml:3:5: spec.brust: unknown field\n", "    ^\n", "did you mean")
	var got []struct{ File, Path, Name string }
	r.json("/policy/problems", 200, &got)
	if len(got) != 1 || got[0].Path != "spec.brust" || got[0].Name != "acme" {
		t.Errorf("got %+v", got)
	}
}

func TestAdminTenants(t *testing.T) {
	r := newAdminRig(t)
	r.want("GET", "/tenants", "", 200, "TENANT  WEIGHT  IN FLIGHT", "acme    4       3 of 50, 2 waiting  gold/steady", "1000/1s", "2000", "1999", "all/trial (shadow)",
		"gold/traffic", "10MiB/1s", "20971520",
		"globex  1       0                   none", "and 7 tenants on demand, of at most 65536\n", "newcomers share buckets")
	var got TenantList
	r.json("/tenants?tenant=acme", 200, &got)
	if len(got.Tenants) != 1 || got.Tenants[0].Limits[0].Available != 1999 || got.OnDemand != 7 || got.Overflow != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestAdminWhy(t *testing.T) {
	r := newAdminRig(t)
	f := func(target string, want admit.Inquiry) {
		t.Helper()
		r.want("GET", "/why?"+target, "", 200, "request   POST h/pay", "gold/steady  1/1h", "verdict  passes")
		if diff := cmp.Diff(want, r.asked); diff != "" {
			t.Errorf("%s asks (-want +got):\n%s", target, diff)
		}
	}

	// A request in words, every parameter.
	whole := admit.Inquiry{Tenant: "acme", Path: "/pay?x=1", Method: "POST", Host: "h", Headers: []string{"A: b", "C: d & e"}, Client: "10.0.0.7",
		SPIFFE: "spiffe://example.org/ns/acme/sa"}
	f(WhyQuery(whole).Encode(), whole)
	f("path=/", admit.Inquiry{Path: "/"})
	// The id of one that was denied, also as the header that the client was told it in.
	f("request-id=known", admit.Inquiry{RequestID: "known"})
	code, _, _ := r.do("GET", "/why", "", "X-Request-ID", "known")
	if code != 200 || r.asked.RequestID != "known" {
		t.Errorf("by header: status %d, asked %+v", code, r.asked)
	}
	// In JSON.
	var got struct {
		Verdict struct{ Passes bool }
		Limits  []struct{ Per string }
	}
	r.json("/why?path=/pay", 200, &got)
	if !got.Verdict.Passes || len(got.Limits) != 1 || got.Limits[0].Per != "1h0m0s" {
		t.Errorf("got %+v", got)
	}
	// What cannot be answered.
	r.want("GET", "/why", "", 400, "want ?path=/")
	r.want("GET", "/why?tenant=acme", "", 400, "want ?path=/")
	r.want("GET", "/why?path=/&tenannt=acme", "", 400, `cannot use parameter "tenannt", want tenant, path,`)
	r.want("GET", "/why?path=/&path=/x", "", 400, `cannot use parameter "path" 2 times`)
	r.want("GET", "/why?path=%zz", "", 400, "cannot read the query")
	r.want("GET", "/why?path=bad", "", 400, "cannot use path\n")
	r.want("GET", "/why?request-id=gone", "", 404, `request "gone" is not among the last 1024 denials`)
}

func TestAdminLogLevel(t *testing.T) {
	r := newAdminRig(t)
	r.want("GET", "/loglevel", "", 200, "info\n")
	r.want("PUT", "/loglevel", "debug\n", 200, "debug\n")
	r.want("PUT", "/loglevel", `{"level":"error"}`, 200, "error\n")
	if r.level.String() != "error" {
		t.Errorf("level %s", r.level)
	}
	if line := r.log.String(); !strings.Contains(line, `"from":"debug","to":"error"`) {
		t.Errorf("logged %s", line)
	}
	var got struct{ Level string }
	r.json("/loglevel", 200, &got)
	if got.Level != "error" {
		t.Errorf("got %+v", got)
	}
	// refused
	r.want("PUT", "/loglevel", "loud", 400, `"loud"`, "want trace, debug")
	r.want("PUT", "/loglevel", `{"lvl":"debug"}`, 400, `{"level":"debug"}`)
	r.want("PUT", "/loglevel", strings.Repeat("x", 2000), 400, "cannot read the level")
	if r.level.String() != "error" {
		t.Errorf("a refused level left %s", r.level)
	}
}

func TestAdminDrain(t *testing.T) {
	r := newAdminRig(t)
	r.want("POST", "/drain", "", 202, "draining")
	r.want("POST", "/drain?o=json", "", 202, `"draining": true`)
	if r.drained != 1 {
		t.Errorf("drained %d times, want once", r.drained)
	}
}

// A page in a browser on the same machine can send requests to loopback.
func TestAdminRefusesOtherSites(t *testing.T) {
	r := newAdminRig(t)
	f := func(want int, header ...string) {
		t.Helper()
		if code, _, _ := r.do("POST", "/drain", "", header...); code != want {
			t.Errorf("with %q: status %d, want %d", header, code, want)
		}
	}
	f(403, "Sec-Fetch-Site", "cross-site")
	f(403, "Origin", "https://evil.example")
	if r.drained != 0 {
		t.Error("drained by another site")
	}
	f(202, "Sec-Fetch-Site", "same-origin")
	f(202)
}

func TestAdminPprof(t *testing.T) {
	r := newAdminRig(t)
	r.want("GET", "/debug/pprof/", "", 200, "goroutine", "heap", "profile", "trace")
	r.want("GET", "/debug/pprof/goroutine?debug=1", "", 200, "goroutine profile:")
	for _, path := range []string{"heap", "profile?seconds=0", "trace?seconds=0"} {
		code, header, body := r.do("GET", "/debug/pprof/"+path, "")
		if code != 200 || header.Get("Content-Type") != "application/octet-stream" || len(body) == 0 {
			t.Errorf("%s: status %d, type %s, %d bytes", path, code, header.Get("Content-Type"), len(body))
		}
	}
	r.want("GET", "/debug/pprof/nothing", "", 404, `no profile is named "nothing"`)
	r.want("GET", "/debug/pprof/profile?seconds=9999", "", 400, "want 0 to 300")
	r.want("GET", "/debug/pprof/heap?debug=x", "", 400, `debug="x"`)
}

func TestAdminIndexAndErrors(t *testing.T) {
	r := newAdminRig(t)
	all := []string{"/livez", "/readyz", "/metrics", "/status", "/policy", "/policy/problems", "/tenants", "/breakers", "/why", "/loglevel", "/drain", "/debug/pprof/"}
	r.want("GET", "/", "", 200, all...)
	var lines []struct{ Path, Methods, About string }
	r.json("/?o=json", 200, &lines)
	if len(lines) != len(all)+1 {
		t.Errorf("%d lines, want %d", len(lines), len(all)+1)
	}
	// unknown
	r.want("GET", "/nope", "", 404, append(all, "/nope")...)
	r.want("GET", "/livez/", "", 404)
	var failure struct{ Error string }
	r.json("/nope", 404, &failure)
	if !strings.Contains(failure.Error, "/nope") {
		t.Errorf("got %+v", failure)
	}
	// the wrong method
	f := func(method, path, want string) {
		t.Helper()
		if code, header, _ := r.do(method, path, ""); code != 405 || header.Get("Allow") != want {
			t.Errorf("%s %s: status %d, allow %q, want 405, %q", method, path, code, header.Get("Allow"), want)
		}
	}
	f("POST", "/livez", "GET, HEAD")
	f("DELETE", "/loglevel", "GET, HEAD, PUT")
	f("GET", "/drain", "POST")
	f("POST", "/", "GET, HEAD")
}

func TestAdminLeavesOutWhatIsNotGiven(t *testing.T) {
	r := &adminRig{t: t, h: NewAdmin(AdminOptions{})}
	for _, path := range []string{"/metrics", "/status", "/policy", "/policy/problems", "/tenants", "/breakers", "/why", "/loglevel", "/drain", "/debug/pprof/"} {
		r.want("GET", path, "", 404)
	}
	r.want("GET", "/readyz", "", 200)
}

func TestAdminServer(t *testing.T) {
	f := func(address, network string) {
		t.Helper()
		l, err := ListenAdmin(address)
		if err != nil {
			t.Fatal(err)
		}
		server := NewAdminServer(NewAdmin(AdminOptions{}), zerolog.Nop())
		if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 || server.WriteTimeout == 0 || server.IdleTimeout == 0 {
			t.Error("a timeout is missing")
		}
		done := make(chan error)
		go func() { done <- server.Serve(l) }()
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
		}}}
		response, err := client.Get("http://admin/livez")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || string(body) != "ok\n" {
			t.Errorf("got %q, %v", body, err)
		}
		response.Body.Close()
		client.CloseIdleConnections()
		// taken
		if _, err := ListenAdmin(strings.Replace(address, "127.0.0.1:0", l.Addr().String(), 1)); err == nil || !strings.Contains(err.Error(), "admin address") {
			t.Errorf("an address in use: %v", err)
		}
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	}
	f("127.0.0.1:0", "tcp")
	path := filepath.Join(t.TempDir(), "admin.sock")
	f("unix:"+path, "unix")
	// a socket that a dead process left is replaced, and the new one is the operator's alone
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	l, err := ListenAdmin("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v, %v", info, err)
	}
	// what is not a socket is left alone
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "mine")
	if _, err := ListenAdmin("unix:" + file); err == nil || readFile(t, file) != "mine" {
		t.Errorf("a file in the way: %v", err)
	}
}

func TestAdminSyncStatus(t *testing.T) {
	status := func() SyncStatus {
		return SyncStatus{
			Distribution: "platform", Source: "http://127.0.0.1:2379/weir", Revision: 7, Documents: 3, Problems: []string{"x: broken"},
			Clusters: []SyncCluster{
				{Name: "eu", State: "in_step", Applied: 7, Documents: 3, LagSeconds: 0.0123, DriftFound: 2, DriftRepaired: 1},
				{Name: "us", State: "held", BehindSeconds: 61, Reason: "would take away", Differences: []string{"gold: removed"}},
			},
		}
	}
	admin := NewAdmin(AdminOptions{Sync: status})
	text := httptest.NewRecorder()
	admin.ServeHTTP(text, httptest.NewRequest(http.MethodGet, "/status", nil))
	want := `platform from http://127.0.0.1:2379/weir, revision 7, 3 documents
CLUSTER  STATE    SINCE  APPLIED  DOCUMENTS  LAG   BEHIND  DRIFT          REASON
eu       in_step  never  7        3          12ms  -       2, 1 repaired  -
us       held     never  0        0          -     1m1s    0              would take away
us: gold: removed
not distributed: x: broken
`
	if got := text.Body.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	asJSON := httptest.NewRecorder()
	admin.ServeHTTP(asJSON, httptest.NewRequest(http.MethodGet, "/status?o=json", nil))
	var got SyncStatus
	if err := json.Unmarshal(asJSON.Body.Bytes(), &got); err != nil || !cmp.Equal(got, status()) {
		t.Errorf("as JSON: %+v, %v", got, err)
	}
}
