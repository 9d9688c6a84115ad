package proxy

import (
	"io"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bytesLimit is a policy for everybody with this limit in bytes.
func bytesLimit(terms string) string { return limited("limits: [{name: traffic, " + terms + "}]") }

const patient = "timeouts: {request: 0s}"

// endless says bytes until nobody takes them any more, in chunks if so.
func endless(c *peer, chunked bool) {
	piece := strings.Repeat("x", 10_000)
	if chunked {
		piece = "2710\r\n" + piece + "\r\n"
	}
	for {
		if _, err := io.WriteString(c, piece); err != nil {
			return
		}
	}
}

// TestManyStreamsKeepTheRate: 64 streams of one tenant get the limit together, to the byte almost, and share it fairly.
func TestManyStreamsKeepTheRate(t *testing.T) {
	const streams, rate, burst, seconds = 64, 1_000_000, 100_000, 5
	f := func(name string, run func(v *virtual, i int, got *atomic.Int64), script script) {
		t.Run(name, func(t *testing.T) {
			inBubble(t, documents("127.0.0.1:1", patient, bytesLimit("bytes: 1000000, burst: 100000")), script, func(v *virtual) {
				var got [streams]atomic.Int64
				for i := range streams {
					go run(v, i, &got[i])
				}
				<-time.After(seconds * time.Second)
				total, least, most := int64(0), int64(1<<62), int64(0)
				for i := range got {
					n := got[i].Load()
					total, least, most = total+n, min(least, n), max(most, n)
				}
				if want := float64(burst + seconds*rate); float64(total) > want || float64(total) < 0.97*want {
					t.Errorf("%d bytes in %d s, want %.0f", total, seconds, want)
				}
				if most-least > 3*rate/20 {
					t.Errorf("one stream got %d bytes, another %d", most, least)
				}
			})
		})
	}
	down := func(chunked bool) func(*virtual, int, *atomic.Int64) {
		return func(v *virtual, _ int, got *atomic.Int64) {
			c := v.connect()
			c.say(get)
			_, _ = c.head()
			var body io.Reader = c.r
			if chunked {
				body = httputil.NewChunkedReader(c.r)
			}
			buf := make([]byte, 64<<10)
			for {
				n, err := body.Read(buf)
				got.Add(int64(n))
				if err != nil {
					return
				}
			}
		}
	}
	f("download", down(false), func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		endless(c, false)
	})
	f("download in chunks", down(true), func(c *peer) {
		_, _ = c.head()
		c.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		endless(c, true)
	})

	var mu sync.Mutex
	arrived := make(map[string]*atomic.Int64) // by the path of the upload
	up := func(chunked bool) func(*virtual, int, *atomic.Int64) {
		framing := "Content-Length: 1000000000"
		if chunked {
			framing = "Transfer-Encoding: chunked"
		}
		return func(v *virtual, i int, got *atomic.Int64) {
			c := v.connect()
			mu.Lock()
			arrived["/"+strconv.Itoa(i)] = got
			mu.Unlock()
			c.say("POST /", strconv.Itoa(i), " HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\n", framing, "\r\n\r\n")
			endless(c, chunked)
		}
	}
	upload := func(c *peer) {
		head, err := c.head()
		if err != nil {
			return
		}
		mu.Lock()
		got := arrived[strings.Fields(head)[1]]
		mu.Unlock()
		var body io.Reader = c.r
		if field(head, "Transfer-Encoding") != "" {
			body = httputil.NewChunkedReader(c.r)
		}
		buf := make([]byte, 64<<10)
		for {
			n, err := body.Read(buf)
			got.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	f("upload", up(false), upload)
	f("upload in chunks", up(true), upload)
}

// said is a text of n bytes that tells where each of them belongs.
func said(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(strconv.Itoa(i) + " ")
	}
	return b.String()[:n]
}

// inChunks is a chunked body of pieces of that size.
func inChunks(text string, size int) string {
	var b strings.Builder
	for len(text) > 0 {
		n := min(size, len(text))
		b.WriteString(strconv.FormatInt(int64(n), 16) + "\r\n" + text[:n] + "\r\n")
		text = text[n:]
	}
	return b.String() + lastChunk
}

// TestPacedExchanges looks at how long exchanges take under a limit of 1000 bytes a second with a burst of 2000, and at what
// arrives: everything, whatever its framing, and the head of an answer at once.
func TestPacedExchanges(t *testing.T) {
	const limit = "bytes: 1000, burst: 2000"
	f := func(name, request, answer string, wantHead, want time.Duration, wantBody, wantUpload string) {
		t.Helper()
		var arrived string
		script := func(c *peer) {
			for {
				head, body, err := c.request()
				if err != nil {
					return
				}
				arrived = body
				if field(head, "Transfer-Encoding") != "" {
					b, _ := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(body)))
					arrived = string(b)
				}
				c.say(answer)
				if strings.HasPrefix(answer, "HTTP/1.0") {
					return
				}
			}
		}
		inBubble(t, documents("127.0.0.1:1", patient, bytesLimit(limit)), script, func(v *virtual) {
			c := v.connect()
			began := time.Now()
			go c.say(request)
			if _, err := c.r.Peek(1); err != nil {
				t.Fatalf("%s: no answer: %v", name, err)
			}
			if field(request, "Expect") != "" {
				if head, _ := c.head(); !strings.HasPrefix(head, "HTTP/1.1 100 ") {
					t.Fatalf("%s: got %q before the body", name, head)
				}
				go c.say(said(3000))
				_, _ = c.r.Peek(1)
			}
			headAfter := time.Since(began)
			method, _, _ := strings.Cut(request, " ")
			a, body := c.answer(method)
			took := time.Since(began)
			if a.StatusCode != 200 || body != wantBody {
				t.Errorf("%s: status %d and %d bytes, want %d", name, a.StatusCode, len(body), len(wantBody))
			}
			if headAfter != wantHead || took != want {
				t.Errorf("%s: the head came after %v and the end after %v, want %v and %v", name, headAfter, took, wantHead, want)
			}
			if arrived != wantUpload {
				t.Errorf("%s: %d bytes arrived at the backend, want %d", name, len(arrived), len(wantUpload))
			}
			line := v.logged(1)[0]
			if line["bytes_out"] != float64(len(wantBody)) || line["bytes_in"] != float64(len(wantUpload)) || line.text("reason") != "passed" {
				t.Errorf("%s: logged %v", name, line)
			}
			decision := "allow"
			if want > 0 {
				decision = "delay"
			}
			if n := v.metric("weir_limit_decisions_total", "limit", "traffic"); n != 1 || v.metric("weir_limit_decisions_total", "decision", decision) != 1 {
				t.Errorf("%s: %v decisions, want one %s", name, n, decision)
			}
			if n := v.metric("weir_limit_bytes_total"); n != float64(len(wantBody)+len(wantUpload)) {
				t.Errorf("%s: %v bytes counted", name, n)
			}
			if over := v.sum("weir_overhead_seconds"); over != 0 {
				t.Errorf("%s: pauses count as our own time: %v s", name, over)
			}
		})
	}

	head := func(framing string) string { return "HTTP/1.1 200 OK\r\n" + framing + "\r\n\r\n" }
	sized := func(n int) string { return head("Content-Length: "+strconv.Itoa(n)) + said(n) }
	// Within the burst nothing waits, and the next second's worth is there after a second.
	f("a small answer", get, sized(2), 0, 0, said(2), "")
	f("the burst", get, sized(2000), 0, 0, said(2000), "")
	f("beyond it", get, sized(3000), 0, time.Second, said(3000), "")
	f("a large answer", get, sized(100_000), 0, 98*time.Second, said(100_000), "")
	f("in chunks", get, head("Transfer-Encoding: chunked")+inChunks(said(10_000), 700), 0, 8*time.Second, said(10_000), "")
	f("in one chunk", get, head("Transfer-Encoding: chunked")+inChunks(said(5_000), 5_000), 0, 3*time.Second, said(5_000), "")
	f("to the end of the connection", get, "HTTP/1.0 200 OK\r\n\r\n"+said(5000), 0, 3*time.Second, said(5000), "")
	f("to a client of HTTP/1.0", "GET / HTTP/1.0\r\nX-Tenant-ID: acme\r\n\r\n", head("Transfer-Encoding: chunked")+inChunks(said(5000), 999), 0, 3*time.Second, said(5000), "")
	// There is no body to wait for.
	f("HEAD", strings.Replace(get, "GET", "HEAD", 1), head("Content-Length: 1000000"), 0, 0, "", "")
	// Uploads: what came with the head waits before a backend is asked, the rest as it goes. Both directions spend together.
	upload := func(n int) string { return post(n, said(n)) }
	f("a small upload", upload(1000), sized(2), 0, 0, said(2), said(1000))
	f("a large upload", upload(100_000), sized(2), 98*time.Second, 98*time.Second+2*time.Millisecond, said(2), said(100_000))
	chunkedPost := "POST / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\nTransfer-Encoding: chunked\r\n\r\n"
	f("an upload in chunks", chunkedPost+inChunks(said(50_000), 3000), sized(2000), 48*time.Second, 50*time.Second, said(2000), said(50_000))
	f("an upload that waits to be asked for", "POST / HTTP/1.1\r\nHost: h\r\nX-Tenant-ID: acme\r\nExpect: 100-continue\r\nContent-Length: 3000\r\n\r\n",
		sized(2), time.Second, time.Second+2*time.Millisecond, said(2), said(3000))
}

// sum is the sum of a histogram.
func (s *sidecar) sum(name string) (sum float64) {
	s.t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetHistogram().GetSampleSum()
			}
		}
	}
	return sum
}
