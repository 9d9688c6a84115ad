package proxy

import (
	"strings"
	"testing"
)

const kibibyte = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n"

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
