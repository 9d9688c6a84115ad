package wire

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/valyala/fasthttp"
)

const typicalRequest = "GET /api/v1/orders/12345?expand=items&limit=20 HTTP/1.1\r\n" +
	"Host: api.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n" +
	"Accept: application/json, text/plain, */*\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Accept-Language: en-GB,en;q=0.9\r\n" +
	"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n" +
	"Cache-Control: no-cache\r\n" +
	"Connection: keep-alive\r\n" +
	"Cookie: session=0123456789abcdef; theme=dark\r\n" +
	"Referer: https://app.example.com/orders\r\n" +
	"X-Request-ID: 7b1c2f34-5d6e-4f70-8a91-b2c3d4e5f607\r\n" +
	"X-Tenant-ID: acme\r\n\r\n"

const typicalResponse = "HTTP/1.1 200 OK\r\n" +
	"Server: legacy/2.1\r\n" +
	"Date: Mon, 01 Jun 2026 12:00:00 GMT\r\n" +
	"Content-Type: application/json; charset=utf-8\r\n" +
	"Content-Length: 1024\r\n" +
	"Connection: keep-alive\r\n" +
	"Cache-Control: private, max-age=0\r\n" +
	"ETag: \"5f3c-1a2b3c4d\"\r\n" +
	"Vary: Accept-Encoding\r\n\r\n"

func benchSettings() *Settings {
	s := DefaultSettings()
	s.Identity = []string{"X-Tenant-ID"}
	return s.normal()
}

func BenchmarkScanRequest(b *testing.B) {
	buf, s := []byte(typicalRequest), benchSettings()
	var h Head
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		h.reset()
		if n := ScanRequest(&h, buf, s); n != len(buf) || h.Fault != None {
			b.Fatal(n, h.Fault)
		}
	}
}

func BenchmarkScanRequestOddPath(b *testing.B) {
	buf := bytes.Replace([]byte(typicalRequest), []byte("/v1/"), []byte("/./%76;a=b/../v1//"), 1)
	s := benchSettings()
	var h Head
	b.ReportAllocs()
	for b.Loop() {
		h.reset()
		if n := ScanRequest(&h, buf, s); n != len(buf) || h.Fault != None {
			b.Fatal(n, h.Fault)
		}
	}
}

func BenchmarkAppendForward(b *testing.B) {
	var h Head
	ScanRequest(&h, []byte(typicalRequest), benchSettings())
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = h.AppendForward(dst[:0], Kinds(KindIdentity))
	}
}

func BenchmarkLookup(b *testing.B) {
	var h Head
	ScanRequest(&h, []byte(typicalRequest), benchSettings())
	b.ReportAllocs()
	for b.Loop() {
		h.Lookup("X-Tenant-ID")
	}
}

func BenchmarkScanResponse(b *testing.B) {
	buf, s := []byte(typicalResponse), benchSettings()
	var h ResponseHead
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		h.Reset()
		if n, err := ScanResponseHead(&h, buf, Asked{}, s); n != len(buf) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkChunks(b *testing.B) {
	chunk := append(append([]byte("1000\r\n"), make([]byte, 4096)...), '\r', '\n')
	body := append(bytes.Repeat(chunk, 16), "0\r\n\r\n"...)
	buf := make([]byte, len(body))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, body)
		var d Decoder
		d.Start(BodyChunked, 0, 0)
		if n, _, err := d.Decode(buf); n != 64<<10 || err != nil || !d.Done() {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkRoundTrip is a keep-alive request and its answer over loopback: under the guard with a raw answer, under the
// guard with an answer of the server above, and the server alone.
func BenchmarkRoundTrip(b *testing.B) {
	raw := []byte(typicalResponse + string(make([]byte, 1024)))
	b.Run("guard/raw", func(b *testing.B) {
		_, addr := startServer(b, true, func(_ *fasthttp.RequestCtx, c *Conn) { _ = c.Send(raw[:300], raw[300:]) })
		roundTrips(b, addr, len(raw))
	})
	b.Run("guard/own", func(b *testing.B) {
		body := make([]byte, 1024)
		_, addr := startServer(b, true, func(ctx *fasthttp.RequestCtx, _ *Conn) { ctx.SetBody(body) })
		roundTrips(b, addr, len("HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n")+1024)
	})
	b.Run("alone", func(b *testing.B) {
		body := make([]byte, 1024)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		s := &fasthttp.Server{
			Handler:               func(ctx *fasthttp.RequestCtx) { ctx.SetBody(body) },
			NoDefaultServerHeader: true, NoDefaultDate: true, NoDefaultContentType: true, ReduceMemoryUsage: true,
		}
		done := make(chan error)
		go func() { done <- s.Serve(ln) }()
		roundTrips(b, ln.Addr().String(), len("HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n")+1024)
		_ = s.Shutdown()
		<-done
	})
}

func roundTrips(b *testing.B, addr string, answer int) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	request, buf := []byte(typicalRequest), make([]byte, answer)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := nc.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(nc, buf); err != nil {
			b.Fatal(err)
		}
	}
}
