package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// onePipe is a listener with one connection, in memory.
type onePipe struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newOnePipe() (l *onePipe, client net.Conn) {
	client, server := net.Pipe()
	l = &onePipe{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conns <- server
	return l, client
}

func (l *onePipe) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *onePipe) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *onePipe) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// seen is a request as net/http reads it behind the proxy.
type seen struct {
	method string
	body   int64
}

// strict reads requests as net/http does, and says what is wrong with one, or with what it would be taken for elsewhere.
func strict(raw io.Reader, answer func(*http.Request)) (requests []seen, wrong string) {
	var section bytes.Buffer
	r := bufio.NewReader(io.TeeReader(raw, &section))
	for {
		before := section.Len() - r.Buffered()
		request, err := http.ReadRequest(r)
		if err != nil {
			if rest := section.Bytes()[before:]; err == io.EOF || err == io.ErrUnexpectedEOF && !bytes.Contains(rest, []byte("\r\n\r\n")) {
				return requests, ""
			}
			return requests, err.Error()
		}
		head, _, _ := bytes.Cut(section.Bytes()[before:], []byte("\r\n\r\n"))
		text := string(head) + "\r\n"
		lengths, encodings := fields(text, "Content-Length"), fields(text, "Transfer-Encoding")
		switch {
		case len(lengths)+len(encodings) > 1 || len(encodings) == 1 && encodings[0] != "chunked":
			wrong = "framing"
		case len(fields(text, "Host")) != 1:
			wrong = "Host"
		case len(fields(text, "X-Tenant-ID")) > 1:
			wrong = "identity"
		case strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n\x00"):
			wrong = "line end"
		case !strings.HasPrefix(text, request.Method+" "+request.RequestURI+" HTTP/1.1\r\n"):
			wrong = "request line"
		}
		if wrong != "" {
			return requests, wrong + " of " + text
		}
		n, err := io.Copy(io.Discard, request.Body)
		if err != nil {
			return requests, "" // cut: the proxy gave up in the middle, and it does not look whole
		}
		requests = append(requests, seen{request.Method, n})
		answer(request)
	}
}

// FuzzRequest sends bytes of a client through the whole proxy, in memory. What comes out behind it has one meaning, and
// there is one answer for each request that was settled.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		get, post(5, "hello") + get, post(5, "hel"), "GET / HTTP/1.1\r\nHo", "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n" + get,
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: x\r\n\r\n" + get,
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
		"GET http://h/a?b HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: a\r\nx-tenant-id: b\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", "\r\n\r\n",
		"GET /limited HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: none\r\nContent-Length: 3\r\n\r\nabc" + get,
	} {
		f.Add([]byte(seed))
	}
	snapshot := compile(f, documents("127.0.0.1:1", document("TenantPolicy", "all", "tenants: {any: true}"),
		document("TenantPolicy", "none", "tenants: {names: [none]}", "limits: [{name: l, requests: 0, per: 1h}]")))
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) {
			var behind []seen
			var wrong string
			var backends sync.WaitGroup
			var lines logLines
			access := NewAccessLog(&lines)
			p, err := New(Options{Clock: SystemClock(), Logger: zerolog.Nop(), Registerer: prometheus.NewRegistry(), AccessLog: access, Bounds: snapshot.Sidecar.Bounds})
			if err != nil {
				t.Fatal(err)
			}
			p.dial = func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				backends.Go(func() {
					defer theirs.Close()
					requests, fault := strict(theirs, func(r *http.Request) {
						answer := ok
						if r.Method == "HEAD" {
							answer = strings.TrimSuffix(ok, "ok")
						}
						_, _ = io.WriteString(theirs, answer)
					})
					behind, wrong = append(behind, requests...), wrong+fault // one client, so one connection at a time
				})
				return ours, nil
			}
			if err := p.Apply(snapshot); err != nil {
				t.Fatal(err)
			}
			ln, client := newOnePipe()
			ctx, end := context.WithCancel(context.Background())
			served := make(chan error, 1)
			go func() { served <- p.Serve(ctx, []net.Listener{ln}) }()
			var answers bytes.Buffer
			var moving sync.WaitGroup
			moving.Go(func() { _, _ = io.Copy(&answers, client) })
			moving.Go(func() { _, _ = client.Write(data) })
			synctest.Wait() // until the proxy waits for more, or has closed
			_ = client.Close()
			moving.Wait()
			end()
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			backends.Wait()
			if err := access.Close(); err != nil {
				t.Fatal(err)
			}
			if wrong != "" {
				t.Fatalf("behind the proxy: %s", wrong)
			}
			checkAnswers(t, lines.lines(t), behind, &answers)
			<-time.After(20 * time.Second) // no time at all here: fasthttp's cleaner notices the end
		})
	})
}

// checkAnswers compares what was logged with what each side has seen.
func checkAnswers(t *testing.T, lines []logLine, behind []seen, answers *bytes.Buffer) {
	t.Helper()
	r := bufio.NewReader(answers)
	for _, line := range lines {
		if line.text("reason") == "passed" {
			if len(behind) == 0 || behind[0].method != line.text("method") || float64(behind[0].body) != line["bytes_in"] {
				t.Fatalf("%v was passed, and the backend saw %v", line, behind)
			}
			behind = behind[1:]
		}
		if line.text("reason") == "client_gone" {
			continue // nobody was there to be answered
		}
		status := 100
		for status < 200 {
			a, err := http.ReadResponse(r, &http.Request{Method: line.text("method")})
			if err != nil {
				t.Fatalf("no answer for %v: %v", line, err)
			}
			if _, err := io.Copy(io.Discard, a.Body); err != nil {
				t.Fatalf("the answer for %v is cut: %v", line, err)
			}
			status = a.StatusCode
		}
		if float64(status) != line["status"] {
			t.Fatalf("the answer for %v is %d", line, status)
		}
	}
	if len(behind) != 0 || r.Buffered() > 0 || answers.Len() > 0 {
		t.Fatalf("beyond what was logged: behind %v, answers %q", behind, answers)
	}
}
