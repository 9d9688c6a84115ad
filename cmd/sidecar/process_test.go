package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// running is the program itself, as a process of its own before a backend.
type running struct {
	t              testing.TB
	cmd            *exec.Cmd
	listen, admin  string // where it serves
	stdout, stderr *output
	ended          chan struct{} // closed once it has ended
	endedWith      int           // its exit code, valid then; -1 after a signal
}

// setting changes how a process is started.
type setting func(*exec.Cmd)

// withPrefix starts it through another program, as in `sh -c 'ulimit …; exec "$@"' -`.
func withPrefix(words ...string) setting {
	return func(cmd *exec.Cmd) {
		path, err := exec.LookPath(words[0])
		if err != nil {
			panic(err)
		}
		cmd.Args = append(words, append([]string{cmd.Path}, cmd.Args[1:]...)...)
		cmd.Path = path
	}
}

// withBinary starts this binary and not the one of the tests.
func withBinary(path string) setting { return func(cmd *exec.Cmd) { cmd.Path = path } }

// withStdout sends its standard output elsewhere.
func withStdout(f *os.File) setting { return func(cmd *exec.Cmd) { cmd.Stdout = f } }

// launch starts the program with these documents and waits until it serves. It is ended with the test, if not before.
func launch(t testing.TB, documents string, settings ...setting) *running {
	t.Helper()
	p := start(t, documents, settings...)
	line := p.says("serving")
	p.listen, p.admin = fmt.Sprint(line["listen"]), fmt.Sprint(line["admin"])
	return p
}

// start is launch without the wait.
func start(t testing.TB, documents string, settings ...setting) *running {
	t.Helper()
	path := filepath.Join(t.TempDir(), "documents.yaml")
	if err := os.WriteFile(path, []byte(documents), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &running{t: t, stdout: &output{}, stderr: &output{}, ended: make(chan struct{})}
	p.cmd = exec.Command("sidecar", "run", "-f", path)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	for _, set := range settings {
		set(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // the exit code says it
		p.endedWith = p.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("the process said:\n%s", p.stderr)
		}
	})
	return p
}

// says waits for a line on stderr whose message begins like this.
func (p *running) says(message string) (found map[string]any) {
	p.t.Helper()
	until(p.t, "the process says "+strconv.Quote(message), func() bool {
		ended := false
		select {
		case <-p.ended:
			ended = true
		default:
		}
		if found = p.said(message); found == nil && ended {
			p.t.Fatalf("the process ended with %d and did not say %q:\n%s", p.endedWith, message, p.stderr)
		}
		return found != nil
	})
	return found
}

// said is the first line on stderr whose message begins like this, or nil.
func (p *running) said(message string) map[string]any {
	for _, line := range p.stderr.lines() {
		if text, _ := line["message"].(string); strings.HasPrefix(text, message) {
			return line
		}
	}
	return nil
}

// logged waits for the lines of the access log that satisfy the condition, and returns them when there are n or more.
func (p *running) logged(n int, fields ...string) (lines []map[string]any) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("the access log has %d lines with %v", n, fields), func() bool {
		lines = nil
	line:
		for _, line := range p.stdout.lines() {
			for i := 0; i < len(fields); i += 2 {
				if fmt.Sprint(line[fields[i]]) != fields[i+1] {
					continue line
				}
			}
			lines = append(lines, line)
		}
		return len(lines) >= n
	})
	return lines
}

// metric is the sum of a metric over all series that have all of these labels, each as in `state="idle"`.
func (p *running) metric(name string, labels ...string) (sum float64) {
	p.t.Helper()
	text, err := p.ask("/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
series:
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(rest, label) {
				continue series
			}
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
		if err != nil {
			p.t.Fatal(err)
		}
		sum += value
	}
	return sum
}

// ask asks the admin port.
func (p *running) ask(path string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+p.admin+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := ask(req)
	return string(answer), err
}

// signal sends a signal.
func (p *running) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// ends waits for the process to end with this exit code.
func (p *running) ends(want int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("the process has not ended within %v", patience)
	}
	if p.endedWith != want {
		p.t.Errorf("the process ended with %d, want %d", p.endedWith, want)
	}
}

// stops ends the process in order.
func (p *running) stops() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.ends(exitFine)
}

// dial connects a client, which is closed with the test.
func (p *running) dial() *client {
	p.t.Helper()
	c, err := net.Dial("tcp", p.listen)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		p.t.Fatal(err)
	}
	return newClient(p.t, c)
}

func newClient(t testing.TB, c net.Conn) *client {
	return &client{TCPConn: c.(*net.TCPConn), t: t, r: bufio.NewReader(c)}
}

// client is a raw client.
type client struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

const plainGet = "GET / HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: acme\r\n\r\n"

// send writes bytes, which must be taken.
func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads an answer whole.
func (c *client) answer() (*http.Response, string, error) {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// gets reads an answer, which must have this status.
func (c *client) gets(status int) (*http.Response, string) {
	c.t.Helper()
	resp, body, err := c.answer()
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	if resp.StatusCode != status {
		c.t.Fatalf("got %d %q, want %d", resp.StatusCode, body, status)
	}
	return resp, body
}

// isClosed waits for the end of the connection and returns what came before it.
func (c *client) isClosed() string {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Fatalf("the connection was not closed: %v", err)
	}
	return string(rest)
}

// output keeps what a process writes.
type output struct {
	mu   sync.Mutex
	text []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// lines are those that are whole and JSON.
func (o *output) lines() (lines []map[string]any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for text := range bytes.Lines(o.text) {
		var line map[string]any
		if json.Unmarshal(text, &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines
}

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// documentsFor are a sidecar before one backend, without limits; further lines go into the sidecar's spec, further documents
// begin with their kind.
func documentsFor(backend string, further ...string) string {
	sidecar := `apiVersion: weir.dev/v1alpha1
kind: Sidecar
metadata: {name: orders}
spec:
  listeners: [{name: http, address: "127.0.0.1:0"}]
  admin: {address: "127.0.0.1:0"}
  identity: [{header: X-Tenant-ID, trust: any}]
  unknownTenant: Shared
`
	documents := "---\napiVersion: weir.dev/v1alpha1\nkind: Backend\nmetadata: {name: orders}\nspec: {endpoints: [{address: \"" + backend + "\"}]}\n"
	limits := "---\napiVersion: weir.dev/v1alpha1\nkind: TenantPolicy\nmetadata: {name: all}\nspec: {tenants: {any: true}}\n"
	for _, f := range further {
		if !strings.HasPrefix(f, "kind: ") {
			sidecar += "  " + f + "\n"
			continue
		}
		if strings.HasPrefix(f, "kind: TenantPolicy") {
			limits = ""
		}
		documents += "---\napiVersion: weir.dev/v1alpha1\n" + f + "\n"
	}
	return sidecar + documents + limits
}

// service is a backend that does to each connection what it is told, byte by byte.
type service struct {
	ln    net.Listener
	mu    sync.Mutex
	conns []net.Conn
	done  sync.WaitGroup
}

// newService starts one; a connection is closed when serve returns.
func newService(t testing.TB, serve func(c net.Conn, r *bufio.Reader)) *service {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{ln: ln}
	s.done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.done.Go(func() {
				defer c.Close()
				serve(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		s.done.Wait()
	})
	return s
}

func (s *service) address() string { return s.ln.Addr().String() }

const helloAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"

// hello answers every request at once, after its body.
func hello(c net.Conn, r *bufio.Reader) {
	for {
		if err := readMessage(r); err != nil {
			return
		}
		if _, err := io.WriteString(c, helloAnswer); err != nil {
			return
		}
	}
}

// readMessage reads a request whole.
func readMessage(r *bufio.Reader) error {
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err
}

// readHead reads up to the end of a head.
func readHead(r *bufio.Reader) error {
	for {
		line, err := r.ReadString('\n')
		if err != nil || line == "\r\n" {
			return err
		}
	}
}
