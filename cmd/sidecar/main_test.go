package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"weir/control/etcd/etcdtest"
	"weir/proxy/certs/certtest"
)

func TestMain(m *testing.M) {
	testscript.Main(checked{m}, map[string]func(){"sidecar": main, "drippers": dripUntilKilled})
}

// checked runs the tests and fails when a goroutine outlives them.
type checked struct{ m *testing.M }

func (c checked) Run() int {
	code := c.m.Run()
	http.DefaultClient.CloseIdleConnections()
	// Two goroutines of fasthttp look only now and then whether they are still needed.
	if err := goleak.Find(
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// patience is how long a script waits for something that should come at once.
const patience = 20 * time.Second

// TestScripts runs the scripts in testdata/script with this program as `sidecar`. Besides the commands of testscript they have
//
//	exits CODE PROGRAM [ARG...]       run a program that must end with this code
//	free NAME...                      set variables to loopback addresses that nobody listens on
//	envsubst FROM TO                  copy a file with its $VARIABLES replaced
//	taken NAME                        listen on a loopback address until the script ends
//	service NAME                      start a service that says what it was asked
//	http [-X METHOD] [-H FIELD] URL   ask once; the answer, head and body, is the stdout
//	await [-H FIELD] URL PATTERN      ask until the answer matches
//	certificate FOLDER                make an authority, and a certificate for 127.0.0.1 signed by it: ca.crt, tls.crt, tls.key
//
// With -tls FOLDER, http and await believe that authority and show that certificate.
//
//	signal NAME                       send a signal to the programs in the background
//	etcd                              set ETCD to the URL of a cluster that all scripts share, and PREFIX to one of the script's own
func TestScripts(t *testing.T) {
	cluster := sync.OnceValue(func() *etcdtest.Cluster { return etcdtest.Start(t, etcdtest.Options{}) })
	testscript.Run(t, testscript.Params{
		Dir:                 "../../testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    cmdExits,
			"free":     cmdFree,
			"envsubst": cmdEnvsubst,
			"taken":    cmdTaken,
			"service":  cmdService,
			"http":     cmdHTTP,
			"await":    cmdAwait,
			"signal":   cmdSignal,

			"certificate": cmdCertificate,
			"etcd": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Setenv("ETCD", cluster().Endpoint(0))
				ts.Setenv("PREFIX", "/"+ts.Name())
			},
		},
	})
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("cannot run %s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s ended with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func cmdFree(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		address, err := freeAddress()
		ts.Check(err)
		ts.Setenv(name, address)
	}
}

// tried counts the ports that freeAddress looked at, so that it gives none of them twice.
var tried atomic.Int32

// freeAddress returns a loopback address that nobody listens on. Its port is below those that the kernel gives to clients, so
// nobody gets it by chance before it is used.
func freeAddress() (string, error) {
	const first, ports = 20000, 12000
	var err error
	for range 100 {
		port := first + (os.Getpid()*97+int(tried.Add(1)))%ports
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", err
}

func cmdEnvsubst(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: envsubst FROM TO")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o644))
}

func cmdTaken(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	ts.Defer(func() { l.Close() })
}

func cmdService(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	server := &http.Server{Handler: http.HandlerFunc(describe)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	ts.Setenv(args[0], l.Addr().String())
	ts.Defer(func() { server.Close(); <-done })
}

// describe answers with the request as it arrived.
func describe(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "the service saw %s %s\n", r.Method, r.URL.RequestURI())
	r.Header.Write(w)
	io.Copy(w, r.Body)
}

func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	req, rest := parseRequest(ts, args)
	if neg || len(rest) > 0 {
		ts.Fatalf("usage: http [-X METHOD] [-H FIELD]... URL")
	}
	answer, err := ask(req)
	ts.Check(err)
	ts.Stdout().Write(answer)
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	req, rest := parseRequest(ts, args)
	if neg || len(rest) != 1 {
		ts.Fatalf("usage: await [-X METHOD] [-H FIELD]... URL PATTERN")
	}
	want, err := regexp.Compile("(?m)" + rest[0])
	ts.Check(err)
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := ask(req)
		if err == nil && want.Match(answer) {
			ts.Stdout().Write(answer)
			return
		}
		for _, cmd := range ts.BackgroundCmds() {
			if cmd.Process.Signal(syscall.Signal(0)) != nil {
				ts.Fatalf("%s: %s has ended", req.URL, cmd)
			}
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			ts.Fatalf("%s: no answer matches %s within %v; the last one: %s%v", req.URL, rest[0], patience, answer, err)
		}
	}
}

// parseRequest reads the flags and the URL of http and await.
func parseRequest(ts *testscript.TestScript, args []string) (req *http.Request, rest []string) {
	method, header, folder := http.MethodGet, make(http.Header), ""
	for len(args) > 2 && strings.HasPrefix(args[0], "-") {
		switch name, value, ok := strings.Cut(args[1], ":"); {
		case args[0] == "-X":
			method = args[1]
		case args[0] == "-tls":
			folder = args[1]
		case args[0] == "-H" && ok:
			header.Add(name, strings.TrimSpace(value))
		default:
			ts.Fatalf("unknown flag or bad value: %s %s", args[0], args[1])
		}
		args = args[2:]
	}
	if len(args) == 0 {
		ts.Fatalf("the URL is missing")
	}
	req, err := http.NewRequest(method, args[0], nil)
	ts.Check(err)
	req.Header = header
	if folder != "" {
		req = req.WithContext(context.WithValue(req.Context(), identityFolder{}, ts.MkAbs(folder)))
	}
	return req, args[1:]
}

// identityFolder is where a request's -tls is kept.
type identityFolder struct{}

// identity is what -tls says: whom to believe and what to show.
func identity(folder string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}

func cmdCertificate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: certificate FOLDER")
	}
	ca := certtest.New("ca")
	cert, key := ca.Issue(certtest.Leaf{Names: []string{"127.0.0.1"}})
	ts.Check(os.MkdirAll(ts.MkAbs(args[0]), 0o755))
	for name, data := range map[string][]byte{"ca.crt": ca.PEM, "tls.crt": cert, "tls.key": key} {
		ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[0]), name), data, 0o600))
	}
}

// ask sends a request on a connection of its own and returns the answer as text, with line feeds alone.
func ask(req *http.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(req.Context(), patience)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	if folder, ok := ctx.Value(identityFolder{}).(string); ok {
		var err error
		if transport.TLSClientConfig, err = identity(folder); err != nil {
			return nil, err
		}
	}
	resp, err := transport.RoundTrip(req.Clone(ctx))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer bytes.Buffer
	fmt.Fprintf(&answer, "%s %s\n", resp.Proto, resp.Status)
	var head bytes.Buffer
	resp.Header.Write(&head)
	answer.WriteString(strings.ReplaceAll(head.String(), "\r\n", "\n") + "\n")
	_, err = answer.ReadFrom(resp.Body)
	return answer.Bytes(), err
}

func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP}
	signal, ok := signals[args[0]]
	if !ok || len(args) != 1 {
		ts.Fatalf("usage: signal TERM|INT|HUP")
	}
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(signal))
	}
}
