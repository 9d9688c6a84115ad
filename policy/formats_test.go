package policy

import (
	"strings"
	"testing"
)

func TestFormats(t *testing.T) {
	f := func(format string, legal ...string) {
		t.Helper()
		for _, s := range legal {
			if err := checkFormat(format, s); err != nil {
				t.Errorf("%s: %s", format, err)
			}
		}
	}
	f("dnslabel", "a", "orders-2", "2-orders", strings.Repeat("a", 63))
	f("tenant", "acme", "ACME", "user@example.com", "!~", strings.Repeat("x", 128))
	f("tenantpattern", "*", "eu-*", "*-eu", "a*b*c", strings.Repeat("*", 128))
	f("headername", "X-Tenant-ID", "x_tenant", "!#$%&'*+-.^_`|~0")
	f("method", "GET", "PURGE", "M-SEARCH", "custom")
	f("listen", ":8080", ":0", "127.0.0.1:80", "[::1]:80", "localhost:80", "unix:/run/x", "unix:/"+strings.Repeat("a", 106))
	f("endpoint", "127.0.0.1:80", "[2001:db8::1]:80", "orders:65535", "orders_db.internal:1", "unix:/run/x")
	f("dnsname", "orders", "orders.svc.cluster.local", "orders.svc.", "_http._tcp.orders", "Orders", strings.Repeat("a.", 126)+"a")
	f("target", "/", "/healthz", "/health?deep=1&x=%20", "/a//b")
	f("retrycause", "connect", "reset", "500", "503", "599")
	f("host", "example.com", "Example.com", "orders_db.internal", "localhost", "192.0.2.1", "2001:db8::1")
	f("hostpattern", "example.com", "*.example.com", "localhost", "192.0.2.1", "[2001:db8::1]", strings.Repeat("a.", 126)+"a")
	f("hosttemplate", "{tenant}.example.com", "api.{tenant}.example.com", "{tenant}")
	f("pathpattern", "/", "/*", "/a", "/a/", "/a/*", "/a/b.c;d=e", "/%C3%BC", "/.well-known/x")
	f("pathtemplate", "/{tenant}", "/t/{tenant}/", "/ns/{tenant}/*", "/{tenant}/*")
	f("spiffepattern", "/{tenant}", "/ns/{tenant}/*", "/ns/{tenant}/sa/gateway", "/A.b-c_9/{tenant}")
	f("clienturl", "http://127.0.0.1:2379", "https://etcd-0.etcd:2379", "https://[::1]:2379")
	f("keyprefix", "/weir", "/teams/a", "/"+strings.Repeat("a", 199))
	f("trustdomain", "example.com", "prod", "a_b-c.9", "192.0.2.1", strings.Repeat("a", 255))
}

func TestFormatsErrors(t *testing.T) {
	f := func(format string, illegal ...string) {
		t.Helper()
		for _, s := range illegal {
			if checkFormat(format, s) == nil {
				t.Errorf("%s: %q is taken", format, s)
			}
		}
	}
	f("dnslabel", "", "-a", "a-", "A", "a_b", "a.b", "ä", strings.Repeat("a", 64))
	f("tenant", "", " ", "a b", "a\n", "a\x7f", "ü", strings.Repeat("x", 129))
	f("tenantpattern", "", "acme", "a *", strings.Repeat("*", 129))
	f("headername", "", "X Y", "X:", "X-ü", "(x)")
	f("method", "", "get", "Post", "G T", "GET,POST")
	f("listen", "", "8080", ":", ":-1", ":65536", ":080", ":+80", "::1:80", "a b:80", "unix:", "unix:/", "unix:x", "unix://x", "unix:/ ", "unix:/a\x00", "unix:/"+strings.Repeat("a", 107))
	f("endpoint", "", "orders", ":80", "orders:0", "orders:", "256.1.1.1:80", "1.2.3:80", "http://orders:80", "or/ders:80", "-a:80")
	f("dnsname", "", ".", "192.0.2.1", "::1", "[::1]", "orders:80", "http://orders", "a..b", "a..", "a b", "-a", strings.Repeat("a.", 127)+"a")
	f("target", "", "healthz", "http://a/", "/a b", "/a#b", `/a\b`, "/a%zz", "/ü", "/a\n", "/a\r\nX: y", "*")
	f("retrycause", "", "connection", "Connect", "5xx", "404", "499", "600", "5000", "50", "+50")
	f("host", "", "*", "*.example.com", "example.com:443", "example.com.", "a..b", "[2001:db8::1]", "a b", "1.2.3")
	f("hostpattern", "", "*", "*.", "*example.com", "a.*.com", "*.*.com", "Example.com", "example.com:80", "example.com.", "a..b", "2001:db8::1", "[192.0.2.1]", "*.[::1]", "[::1", strings.Repeat("a", 64), strings.Repeat("a.", 127)+"a")
	f("hosttemplate", "", "example.com", "{tenant}-x.example.com", "{tenant}.{tenant}", "{Tenant}.x", "{tenant}.X", "{tenant}..x", "*.{tenant}.x")
	f("pathpattern", "", "*", "a", "a/*", "/a*", "/*/a", "/a/*/*", "/a?b", "/a#b", "/a b", "/a//b", "//", "/./a", "/a/..", "/../*", "/a%", "/a%2", "/a%2g", `/a\b`, "/ü", "/{tenant}")
	f("pathtemplate", "", "{tenant}", "/t", "/t{tenant}", "/{tenant}/{tenant}", "/{tenant}x/", "/{tenant}/../x", "/*/{tenant}", "/{tenant}?x")
	f("clienturl", "", "127.0.0.1:2379", "http://127.0.0.1", "https://a:0", "https://a:2379/", "https://a:2379/v3", "https://u@a:2379", "unix:/run/etcd", "tcp://a:1", "HTTPS://a:1")
	f("keyprefix", "", "/", "weir", "/weir/", "/a//b", "/a b", "/ü", "/"+strings.Repeat("a", 200))
	f("spiffepattern", "", "/ns", "{tenant}", "/{tenant}/", "/ns/{tenant}/sa/", "/ns/{tenant}/%41", "/ns/{tenant}/a:b", "/{tenant}/../x", "/ns/x{tenant}")
	f("trustdomain", "", "Example.com", "spiffe://example.com", "example.com/x", "example.com:8443", "a b", "ü", strings.Repeat("a", 256))
}

func TestFormatSuggestions(t *testing.T) {
	f := func(format, s, want string) {
		t.Helper()
		err := checkFormat(format, s)
		if err == nil {
			t.Errorf("%s: %q is taken", format, s)
		} else if got := err.(*refusal).meant; got != want {
			t.Errorf("%s: %q: got %q, want %q", format, s, got, want)
		}
	}
	f("dnslabel", "My_Orders", "my-orders")
	f("dnslabel", "äh", "")
	f("tenant", " acme", "acme")
	f("headername", "X-Tenant-ID: ", "X-Tenant-ID")
	f("method", "get", "GET")
	f("listen", "8080", ":8080")
	f("listen", "localhost:8080/", "")
	f("listen", "http://localhost:8080/", "localhost:8080")
	f("listen", "/run/x", "unix:/run/x")
	f("listen", "unix://run/x", "unix:/run/x")
	f("listen", "::1:80", "[::1]:80")
	f("endpoint", ":9000", "127.0.0.1:9000")
	f("endpoint", "9000", "127.0.0.1:9000")
	f("host", "https://Example.com:8443/x", "Example.com")
	f("host", "[2001:db8::1]:443", "2001:db8::1")
	f("host", "example.com.", "example.com")
	f("hostpattern", "https://API.example.com:8080/x", "api.example.com")
	f("hosttemplate", "{TENANT}.Example.com", "{tenant}.example.com")
	f("pathpattern", "a/*", "/a/*")
	f("pathtemplate", "t/{tenant}", "/t/{tenant}")
}

func FuzzFormats(f *testing.F) {
	for _, s := range []string{"", "8080", ":80", "[::1]:80", "/a/*", "*.Example.com:80", "{Tenant}.x", "t/{tenant}", "unix://x", "unix:/ ", "::0%\xa4", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, format := range []string{"dnslabel", "tenant", "tenantpattern", "headername", "method", "listen", "endpoint", "host", "hostpattern", "hosttemplate", "pathpattern", "pathtemplate", "spiffepattern", "trustdomain"} {
			err := checkFormat(format, s)
			if err == nil {
				if !isVisible(s) {
					t.Fatalf("%s: %q is taken", format, s)
				}
				continue
			}
			// Suggestions are legal themselves.
			if meant := err.(*refusal).meant; meant != "" && checkFormat(format, meant) != nil {
				t.Fatalf("%s: %q is refused with %q, which is refused", format, s, meant)
			}
		}
	})
}
