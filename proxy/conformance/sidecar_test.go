package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// built is where the binary is built once, by the first test that needs it.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// atOnce is how many cases run at the same time, each with processes of its own: they wait more than they compute.
const atOnce = 10

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
		panic(err)
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// binary is the path of the sidecar.
func binary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "weir"); built.err != nil {
			return
		}
		args := []string{"build", "-o", filepath.Join(built.dir, "sidecar"), "weir/cmd/sidecar"}
		if raced {
			args = slices.Insert(args, 1, "-race")
		}
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%v\n%s", err, out)
			return
		}
		built.err = lookAtSources("../..")
	})
	if built.err != nil {
		t.Fatalf("cannot build the sidecar: %v", built.err)
	}
	return filepath.Join(built.dir, "sidecar")
}

// lookAtSources looks at every source of the module. The go command takes a test's result from its cache while no file that the
// test looked at has changed, and does not know what the build looked at.
func lookAtSources(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(path, ".go") || strings.HasPrefix(entry.Name(), "go.")) {
			_, err = os.Stat(path)
		}
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".git") {
			return fs.SkipDir
		}
		return err
	})
}

// sidecar is a process of the real binary.
type sidecar struct {
	t           testing.TB
	cmd         *exec.Cmd
	addr, admin string
	http        *http.Client
	cuts        bool          // the process is told to cut a request, and ends with 1
	stderr      *bytes.Buffer // valid once the process has ended
	drained     chan struct{} // closed when its outputs have ended

	mu    sync.Mutex
	lines []logLine
}

// logLine is what is looked at of a line of the access log.
type logLine struct {
	Tenant, Route, Method, Path, Reason, Cause, By, Phase, Policy, Limit, Backend, Endpoint string
	Status                                                                                  int
	RequestID                                                                               string `json:"request_id"`
	BytesIn                                                                                 int64  `json:"bytes_in"`
	BytesOut                                                                                int64  `json:"bytes_out"`
}

// document is one document, with the fields of its spec in flow style.
func document(kind, name, spec string) string {
	return "---\napiVersion: weir.dev/v1alpha1\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
}

// startSidecar starts the binary. settings are further fields of the Sidecar's spec, in flow style. It is stopped with the test, and has to
// end with 0 then.
func startSidecar(t testing.TB, settings string, documents ...string) *sidecar {
	t.Helper()
	for try := 0; ; try++ {
		s, err := tryStart(t, settings, documents)
		if err == nil {
			t.Cleanup(s.stop)
			return s
		}
		if try == 3 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
}

func tryStart(t testing.TB, settings string, documents []string) (*sidecar, error) {
	t.Helper()
	s := &sidecar{
		t: t, addr: freeAddress(t), admin: freeAddress(t), stderr: &bytes.Buffer{}, drained: make(chan struct{}),
		http: &http.Client{Timeout: patience, Transport: &http.Transport{}},
	}
	shared := "unknownTenant: Shared, "
	if strings.Contains(settings, "unknownTenant") {
		shared = ""
	}
	file := filepath.Join(t.TempDir(), "weir.yaml")
	text := document("Sidecar", "conformance", `listeners: [{name: http, address: "`+s.addr+`"}], admin: {address: "`+s.admin+`"}, `+
		`identity: [{header: X-Tenant-Id, trust: any}], `+shared+settings) + strings.Join(documents, "")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(binary(t), "run", "-f", file)
	s.cmd.Stderr = s.stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.readLog(stdout)
	for end := time.Now().Add(patience); ; {
		resp, err := s.http.Get("http://" + s.admin + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == 200 {
				return s, nil
			}
		}
		select {
		case <-s.drained:
			s.http.CloseIdleConnections()
			err := s.cmd.Wait()
			return nil, fmt.Errorf("the sidecar did not start: %v\n%s\n%s", err, s.stderr, text)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			_ = s.cmd.Process.Kill()
			return nil, fmt.Errorf("the sidecar is not ready within %v", patience)
		}
	}
}

// tried counts the ports that freeAddress looked at, so that it gives none of them twice.
var tried atomic.Int32

// freeAddress returns a loopback address that nobody listens on. Its port is below those that the kernel gives to clients.
func freeAddress(t testing.TB) string {
	t.Helper()
	const first, ports = 10000, 10000
	for range 200 {
		port := first + (os.Getpid()*131+int(tried.Add(1)))%ports
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			_ = l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

func (s *sidecar) readLog(stdout io.Reader) {
	defer close(s.drained)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l logLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			l.Reason = "no JSON: " + lines.Text()
		}
		s.mu.Lock()
		s.lines = append(s.lines, l)
		s.mu.Unlock()
	}
}

// log returns the lines after the first n.
func (s *sidecar) log(n int) []logLine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]logLine(nil), s.lines[min(n, len(s.lines)):]...)
}

// stop ends the process in order.
func (s *sidecar) stop() {
	s.http.CloseIdleConnections()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.drained:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.drained
		s.t.Errorf("the sidecar did not end within %v", patience)
	}
	if err := s.cmd.Wait(); s.cmd.ProcessState.ExitCode() != map[bool]int{true: 1}[s.cuts] || strings.Contains(s.stderr.String(), "panic") {
		s.t.Errorf("the sidecar ended with %v:\n%s", err, s.stderr)
	}
}

// series is the value of every series of ours, by its text in the exposition format.
type series map[string]float64

// metrics scrapes the admin port.
func (s *sidecar) metrics() series {
	s.t.Helper()
	resp, err := s.http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	all := make(series)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), "} "); ok && strings.HasPrefix(name, "weir_") {
			all[name+"}"], _ = strconv.ParseFloat(value, 64)
		} else if name, value, ok := strings.Cut(lines.Text(), " "); ok && strings.HasPrefix(name, "weir_") {
			all[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return all
}

// sum adds up the series of a metric that have all of these labels, each as `name="value"`.
func (m series) sum(metric string, labels ...string) (total int) {
next:
	for name, value := range m {
		if name != metric && !strings.HasPrefix(name, metric+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(name, l) {
				continue next
			}
		}
		total += int(value)
	}
	return total
}

// since returns what has grown.
func (m series) since(before series) series {
	grown := make(series)
	for name, value := range m {
		if d := value - before[name]; d != 0 {
			grown[name] = d
		}
	}
	return grown
}

// until waits for a condition.
func until(t testing.TB, what func() string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what())
		}
	}
}
