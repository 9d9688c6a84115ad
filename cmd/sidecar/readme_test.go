package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weir/control/etcd/etcdtest"
)

// TestReadme runs what the README prints, in its order: every line of a console block that starts with a dollar sign. A command that
// the test cannot run fails it. The addresses are replaced by free ones, and the demo is shorter; .ci/run has it as printed.
func TestReadme(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t)
	defer r.close(t)
	documents := yamlBlock.FindSubmatch(page)
	if documents == nil {
		t.Fatal("the README has no documents")
	}
	if err := os.WriteFile(filepath.Join(r.dir, "weir.yaml"), documents[1], 0o600); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, block := range consoleBlock.FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(block[1]) {
			if command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ "); ok {
				r.run(t, command)
				ran++
			}
		}
	}
	if ran < 5 {
		t.Errorf("the README has %d commands, want at least 5", ran)
	}
}

var (
	consoleBlock = regexp.MustCompile("(?s)```console\n(.*?)```")
	yamlBlock    = regexp.MustCompile("(?s)```yaml\n(.*?)```")
)

// reader is somebody who follows the README.
type reader struct {
	dir     string            // where he is
	place   *strings.Replacer // of addresses
	backend *http.Server
	serving sync.WaitGroup
	sidecar *exec.Cmd // in the background
	stderr  bytes.Buffer
}

func newReader(t *testing.T) *reader {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{dir: t.TempDir(), backend: &http.Server{Handler: http.HandlerFunc(describe)}}
	r.serving.Go(func() { r.backend.Serve(l) })
	listen, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SIDECAR_LISTEN", listen)
	t.Setenv("SIDECAR_ADMIN", admin)
	r.place = strings.NewReplacer("127.0.0.1:9000", l.Addr().String(), "127.0.0.1:8080", listen, "127.0.0.1:9901", admin,
		"http://127.0.0.1:2379", etcdtest.Start(t, etcdtest.Options{}).Endpoint(0))
	return r
}

func (r *reader) run(t *testing.T, command string) {
	t.Helper()
	words := shellWords(r.place.Replace(command))
	switch {
	case command == "go test ./...":
		// This is it.
	case strings.HasPrefix(command, "go run ./cmd/sidecar demo"):
		words[len(words)-1] = "1s"
		if out, err := exec.Command("sidecar", words[3:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	case words[0] == "make":
		makefile, err := os.ReadFile("../../Makefile")
		if err != nil || !bytes.Contains(makefile, []byte("\n"+words[1]+":")) {
			t.Errorf("%s: the Makefile has no such target", command)
		}
	case strings.HasPrefix(command, "bin/sidecar run "):
		r.stop(t) // the one before
		r.sidecar = exec.Command("sidecar", words[1:]...)
		r.sidecar.Dir, r.sidecar.Stderr = r.dir, &r.stderr
		if err := r.sidecar.Start(); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	case words[0] == "bin/sidecar":
		cmd := exec.Command("sidecar", words[1:]...)
		cmd.Dir = r.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	case words[0] == "curl":
		r.curl(t, command, words[1:])
	default:
		t.Errorf("%s: the test does not know how to run this", command)
	}
}

// curl does what the program of that name would do, until the sidecar is there and the answer is 200.
func (r *reader) curl(t *testing.T, command string, words []string) {
	t.Helper()
	header := make(http.Header)
	var address string
	for i := 0; i < len(words); i++ {
		switch {
		case words[i] == "-i":
		case words[i] == "-H" && i+1 < len(words):
			i++
			name, value, _ := strings.Cut(words[i], ":")
			header.Set(name, strings.TrimSpace(value))
		default:
			address = words[i]
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	req.Header = header
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := ask(req)
		if err == nil && bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: no good answer within %v: %v\n%s", command, patience, err, answer)
		}
	}
}

// stop ends the sidecar in the background, if there is one.
func (r *reader) stop(t *testing.T) {
	if r.sidecar == nil {
		return
	}
	if err := r.sidecar.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := r.sidecar.Wait(); err != nil {
		t.Errorf("the sidecar of the README ended with %v\n%s", err, r.stderr.String())
	}
	r.sidecar = nil
}

func (r *reader) close(t *testing.T) {
	r.stop(t)
	r.backend.Close()
	r.serving.Wait()
}

// shellWords splits a command line at spaces outside of single quotes.
func shellWords(line string) []string {
	quoted := false
	return strings.FieldsFunc(line, func(c rune) bool {
		if c == '\'' {
			quoted = !quoted
			return true
		}
		return c == ' ' && !quoted
	})
}

var metricName = regexp.MustCompile(`(?m)^# TYPE (weir_[a-z_]+) `)
var documentedName = regexp.MustCompile("(?m)^\\| `(weir_[a-z_]+)` ")

// Every metric of a sidecar that has served its first request is in docs/metrics.md, and every metric in there exists.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t)
	defer r.close(t)
	documents := filepath.Join(t.TempDir(), "metrics.yaml")
	if err := os.WriteFile(documents, []byte(r.place.Replace(string(demoYAML))), 0o600); err != nil {
		t.Fatal(err)
	}
	r.run(t, "bin/sidecar run -f "+documents)
	r.run(t, "curl -i -H 'X-Tenant-ID: greedy' http://127.0.0.1:8080/")
	req, err := http.NewRequest(http.MethodGet, r.place.Replace("http://127.0.0.1:9901/metrics"), nil)
	if err != nil {
		t.Fatal(err)
	}
	// A request is counted once it has ended, which may be a moment after its answer was read.
	answer, err := ask(req)
	for until := time.Now().Add(5 * time.Second); err == nil && !bytes.Contains(answer, []byte("weir_requests_total{")) && time.Now().Before(until); {
		answer, err = ask(req)
	}
	if err != nil {
		t.Fatal(err)
	}
	documented, exist := make(map[string]bool), make(map[string]bool)
	for _, m := range documentedName.FindAllSubmatch(page, -1) {
		documented[string(m[1])] = true
	}
	for _, m := range metricName.FindAllSubmatch(answer, -1) {
		exist[string(m[1])] = true
		if !documented[string(m[1])] {
			t.Errorf("docs/metrics.md says nothing of %s", m[1])
		}
	}
	for name := range documented {
		// These are there only with limits in bytes and in shadow, with backends that are found by name or have a capacity, and with breakers
		// or TLS.
		sometimes := slices.Contains([]string{"weir_limit_bytes_total", "weir_shadow_verdicts_total", "weir_upstream_dns_failures_total",
			"weir_backend_capacity", "weir_queue_length", "weir_queue_dropped_total",
			"weir_policy_stale_seconds", "weir_policy_store_revision", "weir_policy_drift_total"}, name) || strings.HasPrefix(name, "weir_tls_") || strings.HasPrefix(name, "weir_breaker_") ||
			strings.HasPrefix(name, "weir_fleet_") || strings.HasPrefix(name, "weir_etcd_") || // with a policy source in etcd
			strings.HasPrefix(name, "weir_sync_") // of `sidecar sync`
		if !exist[name] && !sometimes {
			t.Errorf("docs/metrics.md has %s, but the sidecar does not", name)
		}
	}
}
