package proxy

import (
	"io"
	"strings"
	"testing"
)

const silent = "accessLog: {format: off}"

const kibibyte = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n"

// exchangeOf returns a function that sends the request and reads an answer of n bytes, and allocates nothing itself.
func exchangeOf(t testing.TB, c *peer, request string, n int) func() {
	t.Helper()
	out, in := []byte(request), make([]byte, n)
	return func() {
		if _, err := c.Conn.Write(out); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.Conn, in); err != nil {
			t.Fatal(err)
		}
	}
}

// canned is a backend that answers each read of its socket and allocates nothing for it.
func canned(t testing.TB, answer string) *backend {
	return newBackend(t, func(c *peer) {
		out, in := []byte(answer), make([]byte, 64<<10)
		for {
			if _, err := c.Conn.Read(in); err != nil {
				return
			}
			if _, err := c.Conn.Write(out); err != nil {
				return
			}
		}
	})
}

// sizeOf is how many bytes an answer to that request has.
func sizeOf(t testing.TB, c *peer, request string) int {
	t.Helper()
	c.say(request)
	head, err := c.head()
	if err != nil {
		t.Fatal(err)
	}
	length := 0
	for _, digit := range field(head, "Content-Length") {
		length = length*10 + int(digit-'0')
	}
	if _, err := c.take(length); err != nil {
		t.Fatal(err)
	}
	return len(head) + length
}

// benchmark sends requests over one keep-alive connection per processor, client and backend in the same process.
func benchmark(b *testing.B, request string, further ...string) {
	backend := canned(b, kibibyte+strings.Repeat("x", 1024))
	s := serve(b, documents(backend.addr, further...))
	c := s.dial()
	sizeOf(b, c, request) // the only one that may be allowed
	size := sizeOf(b, c, request)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		exchange := exchangeOf(b, s.dial(), request, size)
		for pb.Next() {
			exchange()
		}
	})
}

const browserGet = "GET /api/items?page=2 HTTP/1.1\r\nHost: api.example.com\r\nX-Tenant-ID: acme\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n" +
	"Accept: application/json\r\nAccept-Encoding: gzip, br\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"

func BenchmarkProxy(b *testing.B) {
	benchmark(b, browserGet, silent, limited("limits: [{name: l, requests: 1000000000, per: 1s}]"))
}

const calm = "qpsBaseline: {}\n  failures: {minRequests: 1000000000, slowerThan: 1h}"

// BenchmarkProxyBreakers has a breaker for the backend and one for each tenant.
func BenchmarkProxyBreakers(b *testing.B) {
	benchmark(b, browserGet, silent, limited("limits: [{name: l, requests: 1000000000, per: 1s}]"),
		document("BreakerPolicy", "all", "target: {kind: Backend, name: b}", calm), document("BreakerPolicy", "each", "target: {kind: Backend, name: b}", "perTenant: true", calm))
}

// BenchmarkProxyStaleFor keeps answers besides. The requests have no cookie.
func BenchmarkProxyStaleFor(b *testing.B) {
	benchmark(b, strings.Replace(browserGet, "Cookie", "X-Other", 1), silent, limited("limits: [{name: l, requests: 1000000000, per: 1s}]"),
		document("BreakerPolicy", "all", "target: {kind: Backend, name: b}", calm), document("Route", "r", "backend: b", "fallback: {staleFor: 1h}"))
}

func BenchmarkProxyLogged(b *testing.B) {
	benchmark(b, browserGet, limited("limits: [{name: l, requests: 1000000000, per: 1s}]"))
}

func BenchmarkDenied(b *testing.B) {
	benchmark(b, browserGet, silent, limited("limits: [{name: l, requests: 0, per: 1s}]"))
}

func BenchmarkLimited(b *testing.B) {
	benchmark(b, browserGet, silent, limited("limits: [{name: l, requests: 1, per: 24h}]"))
}

// BenchmarkDirect is what client and backend cost without a proxy.
func BenchmarkDirect(b *testing.B) {
	backend := canned(b, kibibyte+strings.Repeat("x", 1024))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		exchange := exchangeOf(b, dial(b, backend.addr), browserGet, len(kibibyte)+1024)
		for pb.Next() {
			exchange()
		}
	})
}
