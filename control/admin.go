package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"weir/admit"
)

// AdminOptions are what the admin port shows and may do. Every func may be called from several goroutines at once; those that are
// nil take their endpoint away.
type AdminOptions struct {
	Logger   zerolog.Logger
	Gatherer prometheus.Gatherer
	// Status is Manager.Status.
	Status func() Status
	// Sync is the status of `sidecar sync`, which has no policy of its own in force: it takes the place of Status.
	Sync func() SyncStatus
	// Ready lists what must hold before traffic may come, besides an applied policy: bound listeners, not draining.
	Ready func() []Check
	// Tenants describes the tenant of that name, or all named tenants when it is empty.
	Tenants func(name string) TenantList
	// Breakers describes the breakers of that name, or all of them when it is empty.
	Breakers func(name string) []Breaker
	// Fleets describes the fleets that this sidecar is in: what is known when its context is done, however old.
	Fleets func(context.Context) []Fleet
	// Why explains how a request would be decided, or how a recent one was denied. Its errors are about the question.
	Why func(admit.Inquiry) (admit.Trace, error)
	// LogLevel can be read and set.
	LogLevel *LogLevel
	// Drain begins the end of the process and returns at once. It is called once at most.
	Drain func()
	// Pprof offers /debug/pprof/.
	Pprof bool
}

// Check is one condition of readiness.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Missing says what is missing when it is not OK.
	Missing string `json:"missing,omitempty"`
}

// endpoint is one path of the admin port.
type endpoint struct {
	path    string // a trailing / takes everything below it
	about   string // one line for the index
	methods map[string]http.HandlerFunc
}

// allow lists the methods for an Allow header.
func (e *endpoint) allow() string {
	var methods []string
	for method := range e.methods {
		methods = append(methods, method)
		if method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// admin is the handler of the admin port.
type admin struct {
	o         AdminOptions
	endpoints []endpoint
	drain     sync.Once
}

// NewAdmin returns the admin port's handler. It answers people in plain text and programs in JSON, on ?o=json or an Accept header
// with application/json. Changes asked for by other sites' pages in a browser are refused with 403. There is no other
// authentication: keep it on loopback.
func NewAdmin(o AdminOptions) http.Handler {
	a := &admin{o: o}
	get := func(path, about string, h http.HandlerFunc) {
		a.endpoints = append(a.endpoints, endpoint{path, about, map[string]http.HandlerFunc{http.MethodGet: h}})
	}
	get("/", "this list", a.index)
	get("/livez", "200 while the process can answer", a.livez)
	get("/readyz", "200 when traffic may come; ?verbose lists what it depends on", a.readyz)
	if o.Gatherer != nil {
		get("/metrics", "metrics in the Prometheus text format or OpenMetrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
			ErrorLog:          promLog{o.Logger},
			ErrorHandling:     promhttp.ContinueOnError,
			EnableOpenMetrics: true,
		}).ServeHTTP)
	}
	if o.Status != nil {
		get("/status", "revision, sources and counts of the policy in force", a.status)
		get("/policy", "the documents in force, as they were written", a.policy)
		get("/policy/problems", "what is wrong with documents and sources, and where", a.problems)
	}
	if o.Sync != nil {
		get("/status", "how far each cluster is, and why not further", a.syncStatus)
	}
	if o.Tenants != nil {
		get("/tenants", "named tenants with their limits and what is left of them; ?tenant=NAME shows one", a.tenants)
	}
	if o.Breakers != nil {
		get("/breakers", "breakers with their levels, and the rates and calls that they are judged by; ?breaker=NAME shows one", a.breakers)
	}
	if o.Fleets != nil {
		get("/fleet", "the sidecars of this service: who runs the latest policy, who does not, and why", a.fleet)
	}
	if o.Why != nil {
		get("/why", "how ?tenant=NAME&path=/…&method=… would be decided, or how ?request-id=ID was denied", a.why)
	}
	if o.LogLevel != nil {
		a.endpoints = append(a.endpoints, endpoint{"/loglevel", `the log's level; PUT a level, or {"level":"debug"}, to change it`,
			map[string]http.HandlerFunc{http.MethodGet: a.logLevel, http.MethodPut: a.setLogLevel}})
	}
	if o.Drain != nil {
		a.endpoints = append(a.endpoints, endpoint{"/drain", "POST to finish what is in flight and end",
			map[string]http.HandlerFunc{http.MethodPost: a.startDrain}})
	}
	if o.Pprof {
		get(pprofPrefix, "profiles for go tool pprof", a.pprof)
	}
	// A page in the operator's browser can reach loopback; it must not drain the process.
	return http.NewCrossOriginProtection().Handler(a)
}

// ServeHTTP finds the endpoint.
func (a *admin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	i := slices.IndexFunc(a.endpoints, func(e endpoint) bool {
		return e.path == r.URL.Path || e.path != "/" && strings.HasSuffix(e.path, "/") && strings.HasPrefix(r.URL.Path, e.path)
	})
	if i < 0 {
		a.fail(w, r, http.StatusNotFound, fmt.Sprintf("there is nothing at %s; there are:\n%s", r.URL.Path, a.list()))
		return
	}
	e := &a.endpoints[i]
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // net/http drops the body
	}
	handle, ok := e.methods[method]
	if !ok {
		w.Header().Set("Allow", e.allow())
		a.fail(w, r, http.StatusMethodNotAllowed, fmt.Sprintf("cannot %s %s, want %s", r.Method, e.path, e.allow()))
		return
	}
	handle(w, r)
}

// list is the index.
func (a *admin) list() string {
	var b strings.Builder
	for _, e := range a.endpoints {
		fmt.Fprintf(&b, "%-18s %s\n", e.path, e.about)
	}
	return b.String()
}

func (a *admin) index(w http.ResponseWriter, r *http.Request) {
	type line struct {
		Path    string `json:"path"`
		Methods string `json:"methods"`
		About   string `json:"about"`
	}
	if !wantsJSON(r) {
		writeText(w, http.StatusOK, "Weir, a sidecar that enforces limits per tenant. Its admin port has:\n\n"+a.list())
		return
	}
	var lines []line
	for _, e := range a.endpoints {
		lines = append(lines, line{e.path, e.allow(), e.about})
	}
	writeJSON(w, http.StatusOK, lines)
}

func (a *admin) livez(w http.ResponseWriter, r *http.Request) {
	if wantsJSON(r) {
		writeJSON(w, http.StatusOK, Check{Name: "live", OK: true})
		return
	}
	writeText(w, http.StatusOK, "ok\n")
}

func (a *admin) readyz(w http.ResponseWriter, r *http.Request) {
	var checks []Check
	if a.o.Status != nil {
		status := a.o.Status()
		policy := Check{Name: "policy", OK: status.Revision > 0}
		if !policy.OK {
			policy.Missing = "no policy is applied yet"
			for _, source := range status.Sources {
				if source.Error != "" {
					policy.Missing += fmt.Sprintf(", waiting for the source %s: %s", source.Name, source.Error)
				}
			}
		}
		checks = append(checks, policy)
	}
	if a.o.Ready != nil {
		checks = append(checks, a.o.Ready()...)
	}
	status, missing := http.StatusOK, ""
	var b strings.Builder
	for _, c := range checks {
		if c.OK {
			fmt.Fprintf(&b, "[+] %s ok\n", c.Name)
			continue
		}
		status = http.StatusServiceUnavailable
		missing += "; " + c.Missing
		fmt.Fprintf(&b, "[-] %s: %s\n", c.Name, c.Missing)
	}
	switch {
	case wantsJSON(r):
		writeJSON(w, status, struct {
			Ready  bool    `json:"ready"`
			Checks []Check `json:"checks"`
		}{status == http.StatusOK, checks})
	case r.URL.Query().Has("verbose"):
		writeText(w, status, b.String())
	case status == http.StatusOK:
		writeText(w, status, "ready\n")
	default:
		writeText(w, status, "not ready: "+strings.TrimPrefix(missing, "; ")+"\n")
	}
}

func (a *admin) logLevel(w http.ResponseWriter, r *http.Request) {
	level := a.o.LogLevel.String()
	if wantsJSON(r) {
		writeJSON(w, http.StatusOK, map[string]string{"level": level})
		return
	}
	writeText(w, http.StatusOK, level+"\n")
}

func (a *admin) setLogLevel(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
	if err != nil {
		a.fail(w, r, http.StatusBadRequest, fmt.Sprintf("cannot read the level: %v", err))
		return
	}
	level := strings.TrimSpace(string(body))
	if strings.HasPrefix(level, "{") {
		var wanted struct {
			Level string `json:"level"`
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&wanted); err != nil {
			a.fail(w, r, http.StatusBadRequest, fmt.Sprintf(`cannot read the level, want {"level":"debug"}: %v`, err))
			return
		}
		level = wanted.Level
	}
	before := a.o.LogLevel.String()
	if err := a.o.LogLevel.Set(level); err != nil {
		a.fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	// Without a level of its own the line is written whatever the level is.
	a.o.Logger.Log().Str("from", before).Str("to", level).Msg("log level changed")
	a.logLevel(w, r)
}

func (a *admin) startDrain(w http.ResponseWriter, r *http.Request) {
	a.drain.Do(func() {
		a.o.Logger.Info().Str("peer", r.RemoteAddr).Msg("drain asked for on the admin port")
		a.o.Drain()
	})
	if wantsJSON(r) {
		writeJSON(w, http.StatusAccepted, map[string]bool{"draining": true})
		return
	}
	writeText(w, http.StatusAccepted, "draining\n")
}

// fail answers with an error.
func (a *admin) fail(w http.ResponseWriter, r *http.Request, status int, message string) {
	if wantsJSON(r) {
		writeJSON(w, status, map[string]string{"error": message})
		return
	}
	writeText(w, status, strings.TrimSuffix(message, "\n")+"\n")
}

// wantsJSON reports whether a program asks.
func wantsJSON(r *http.Request) bool {
	if o := r.URL.Query().Get("o"); o != "" {
		return o == "json"
	}
	return strings.Contains(r.Header.Get("Accept"), "application/json")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the client has gone: nobody is left to be told
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		panic("BUG: cannot encode an answer of the admin port: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// promLog hands promhttp's errors to the log.
type promLog struct{ log zerolog.Logger }

func (l promLog) Println(v ...any) {
	l.log.Error().Msg("metrics: " + strings.TrimSpace(fmt.Sprintln(v...)))
}

// NewAdminServer returns a server for the handler, with timeouts that a slow or idle client cannot outstay.
func NewAdminServer(h http.Handler, log zerolog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second, // profiles move it
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdLogger(log),
	}
}

// ListenAdmin binds an admin address: host:port, or unix:/path. A Unix socket that a process left behind is replaced; one that
// answers is in use.
func ListenAdmin(address string) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("cannot listen on admin address %s: %w", address, err)
		}
		return l, nil
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			return nil, errors.Join(fmt.Errorf("cannot listen on admin address %s: another process answers there", address), c.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("cannot replace the socket of admin address %s: %w", address, err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on admin address %s: %w", address, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot protect the socket of admin address %s: %w", address, err), l.Close())
	}
	return l, nil
}
