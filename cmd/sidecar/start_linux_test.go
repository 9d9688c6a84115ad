package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkStart starts the real binary, built as it is released, and measures the time from exec to the first answer that came
// through it from the backend. The targets are 42 ms at the median and 86 ms at p99; run it with -benchtime 100x or more.
func BenchmarkStart(b *testing.B) {
	binary, backend := buildReleased(b), startBackend(b)
	var took []time.Duration
	for b.Loop() {
		p := startSidecar(b, binary, backend)
		took = append(took, p.firstAnswer)
		p.stop(b)
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op") // it would count the end of the process, too
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
}

// BenchmarkIdle measures what the real binary holds once it has answered a request and settled. The target is about 15 MB.
func BenchmarkIdle(b *testing.B) {
	binary, backend := buildReleased(b), startBackend(b)
	info, err := os.Stat(binary)
	if err != nil {
		b.Fatal(err)
	}
	p := startSidecar(b, binary, backend)
	resident := settledMB(b, p.cmd.Process.Pid)
	p.stop(b)
	for b.Loop() { // once said it all
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(resident, "rss-MB")
	b.ReportMetric(float64(info.Size())/(1<<20), "binary-MiB")
}

// buildReleased builds the binary with the flags of a release.
func buildReleased(b *testing.B) string {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "sidecar")
	cmd := exec.Command("go", "build", "-tags", "grpcnotrace", "-trimpath", "-ldflags", "-s -w", "-o", binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("cannot build the binary: %v\n%s", err, out)
	}
	return binary
}

// startBackend starts a service that answers at once, and returns its address.
func startBackend(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) })}
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(l) })
	b.Cleanup(func() { server.Close(); wg.Wait() })
	return l.Addr().String()
}

// started is a sidecar that has answered a request.
type started struct {
	cmd         *exec.Cmd
	stderr      *bytes.Buffer
	firstAnswer time.Duration // from exec
}

// startSidecar starts the binary in front of a backend and returns when the first answer came through.
func startSidecar(b *testing.B, binary, backend string) *started {
	b.Helper()
	listen, err := freeAddress()
	if err != nil {
		b.Fatal(err)
	}
	admin, err := freeAddress()
	if err != nil {
		b.Fatal(err)
	}
	p := &started{stderr: &bytes.Buffer{}}
	p.cmd = exec.Command(binary, "run", "--backend", backend, "--limit", "1000000/s", "--listen", listen, "--admin", admin)
	p.cmd.Stderr = p.stderr
	start := time.Now()
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	for !answersOnce(ctx, listen) {
		if ctx.Err() != nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
			b.Fatalf("no answer within %v: %s", patience, p.stderr)
		}
	}
	p.firstAnswer = time.Since(start)
	return p
}

// answersOnce asks once over a new connection, and waits a moment when nobody listens yet.
func answersOnce(ctx context.Context, address string) bool {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		pause := time.NewTimer(100 * time.Microsecond)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: acme\r\nConnection: close\r\n\r\n")
	var answer bytes.Buffer
	_, err = answer.ReadFrom(conn)
	return err == nil && strings.HasPrefix(answer.String(), "HTTP/1.1 200") && strings.HasSuffix(answer.String(), "hello")
}

// stop ends the process in order.
func (p *started) stop(b *testing.B) {
	b.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		b.Fatalf("the sidecar ended with %v: %s", err, p.stderr)
	}
}

// settledMB returns the resident memory of a process once it has not grown for half a second.
func settledMB(b *testing.B, pid int) float64 {
	b.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last, calm := 0.0, 0
	for calm < 10 {
		<-tick.C
		now := residentMB(b, pid)
		if now > last {
			calm = 0
		} else {
			calm++
		}
		last = now
	}
	return last
}

func residentMB(b testing.TB, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) * 1024 / 1e6
		}
	}
	b.Fatal("the kernel says nothing of resident memory")
	return 0
}
