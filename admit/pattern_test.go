package admit

import (
	"bytes"
	"strings"
	"testing"
)

func TestTemplateLabel(t *testing.T) {
	f := func(text, host, want string, wantFits bool) {
		t.Helper()
		tpl, err := parseHostTemplate(text)
		if err != nil {
			t.Fatalf("unexpected error: %v", err)
		}
		got, fits := tpl.label([]byte(host))
		if string(got) != want || fits != wantFits {
			t.Errorf("unexpected label of %q in %q: got %q, %v, want %q, %v", host, text, got, fits, want, wantFits)
		}
	}

	const first = "{tenant}.api.example.com"
	f(first, "acme.api.example.com", "acme", true)
	// Port, trailing dot and case make no other tenant.
	f(first, "acme.api.example.com:8080", "acme", true)
	f(first, "acme.api.example.com.", "acme", true)
	f(first, "AcMe.API.Example.com.:80", "acme", true)
	// Any place, and alone.
	f("api.{tenant}.example.com", "api.acme.example.com", "acme", true)
	f("api.{tenant}", "api.acme", "acme", true)
	f("{tenant}", "acme:80", "acme", true)
	// Another shape.
	f(first, "api.example.com", "", false)
	f(first, "x.acme.api.example.com", "", false)
	f(first, "acme.api.example.org", "", false)
	f(first, "acme-api.example.com", "", false)
	f(first, "acme.xapi.example.com", "", false)
	f(first, "", "", false)
	f("a.{tenant}.a", "a.a", "", false)
	f("api.{tenant}", "xapi.acme", "", false)
	f("{tenant}", "", "", false)
	f("{tenant}", "a.b", "", false)
	// IPv6 literals have no labels.
	f("{tenant}", "[::1]:80", "", false)
	f("{tenant}", "[::1", "", false)
	// An empty label is in its place.
	f(first, ".api.example.com", "", true)
}

func TestTemplateSegment(t *testing.T) {
	f := func(text, path, want string, wantFits bool) {
		t.Helper()
		tpl, err := parsePathTemplate(text)
		if err != nil {
			t.Fatalf("unexpected error: %v", err)
		}
		got, fits := tpl.segment([]byte(path))
		if string(got) != want || fits != wantFits {
			t.Errorf("unexpected segment of %q in %q: got %q, %v, want %q, %v", path, text, got, fits, want, wantFits)
		}
	}

	// However a template ends, it is a prefix.
	for _, text := range []string{"/t/{tenant}/", "/t/{tenant}", "/t/{tenant}/*"} {
		f(text, "/t/acme", "acme", true)
		f(text, "/t/acme/", "acme", true)
		f(text, "/t/acme/orders/4711", "acme", true)
		// The case of a segment counts.
		f(text, "/t/ACME/", "ACME", true)
		// Another shape, and a path that ends too early.
		f(text, "/", "", false)
		f(text, "/t", "", false)
		f(text, "/t/", "", false)
		f(text, "/tt/acme", "", false)
		f(text, "/T/acme", "", false)
		f(text, "/x/t/acme", "", false)
		f(text, "*", "", false)
		f(text, "", "", false)
		// An empty segment is in its place.
		f(text, "/t//orders", "", true)
	}
	f("/{tenant}", "/acme", "acme", true)
	f("/{tenant}", "/", "", false)
	// What follows in the template must follow in the path, whole.
	f("/t/{tenant}/orders/", "/t/acme/orders", "acme", true)
	f("/t/{tenant}/orders/", "/t/acme/orders/1", "acme", true)
	f("/t/{tenant}/orders/", "/t/acme/ordersx", "", false)
	f("/t/{tenant}/orders/", "/t/acme", "", false)
	f("/t/{tenant}/orders/", "/t/acme/users", "", false)
}

func TestParseTemplateFailure(t *testing.T) {
	host := func(text string) {
		t.Helper()
		if tpl, err := parseHostTemplate(text); err == nil || !strings.Contains(err.Error(), "want {tenant} once, as a whole label") {
			t.Errorf("unexpected host template %q: got %+v, %v, want an error", text, tpl, err)
		}
	}
	path := func(text string) {
		t.Helper()
		if tpl, err := parsePathTemplate(text); err == nil || !strings.Contains(err.Error(), "want / first, and {tenant} once, as a whole segment") {
			t.Errorf("unexpected path template %q: got %+v, %v, want an error", text, tpl, err)
		}
	}

	// No place for the tenant, two, a part of one, and other placeholders.
	host("")
	host("api.example.com")
	host("{tenant}.{tenant}.example.com")
	host("x{tenant}.example.com")
	host("{tenant}-api.example.com")
	host("{tenant}.{region}.example.com")
	host("*.{tenant}.example.com")
	path("")
	path("/t/")
	path("t/{tenant}/")
	path("{tenant}/")
	path("/{tenant}/{tenant}")
	path("/t-{tenant}/")
	path("/{tenant}x/")
	path("/{tenant}*")
	path("/*/{tenant}")
	path("/{region}/{tenant}")
}

// What a template yields can be put back in its place to give the host that it came from, and has nothing that a label cannot have.
func FuzzHostTemplate(f *testing.F) {
	f.Add("{tenant}.api.example.com", []byte("acme.api.example.com"))
	f.Add("{tenant}.api.example.com", []byte("ACME.API.example.com.:80"))
	f.Add("api.{tenant}", []byte("api."))
	f.Add("{tenant}", []byte("[::1]:80"))
	f.Add("a.{tenant}.a", []byte("a.a"))
	f.Fuzz(func(t *testing.T, text string, host []byte) {
		tpl, err := parseHostTemplate(text)
		if err != nil {
			return
		}
		sent := bytes.Clone(host)
		label, fits := tpl.label(host)
		if !bytes.Equal(host, sent) {
			t.Fatalf("the host changed: got %q, want %q", host, sent)
		}
		if !fits {
			return
		}
		if bytes.ContainsAny(label, ".[") {
			t.Fatalf("unexpected label: got %q of host %q", label, host)
		}
		if validTenant(label) && hasUpper(label) {
			t.Fatalf("unexpected capitals: got %q of host %q", label, host)
		}
		if rebuilt := append([]byte(tpl.before), append(bytes.Clone(label), tpl.after...)...); !equalsLower(hostname(sent), string(lowerASCII(rebuilt))) {
			t.Fatalf("unexpected label: got %q, which gives %q, want %q", label, rebuilt, sent)
		}
	})
}

func lowerASCII(s []byte) []byte {
	for i := range s {
		s[i] = lower(s[i])
	}
	return s
}

// What a template yields is a whole segment of the path, in the place of the placeholder.
func FuzzPathTemplate(f *testing.F) {
	f.Add("/t/{tenant}/", []byte("/t/acme/orders"))
	f.Add("/t/{tenant}", []byte("/t/"))
	f.Add("/{tenant}/*", []byte("/"))
	f.Add("/t/{tenant}/orders/", []byte("/t//orders"))
	f.Fuzz(func(t *testing.T, text string, path []byte) {
		tpl, err := parsePathTemplate(text)
		if err != nil {
			return
		}
		segment, fits := tpl.segment(path)
		segments, places := strings.Split(string(path), "/"), strings.Split(tpl.before+placeholder+tpl.after, "/")
		want := len(segments) >= len(places) && string(path) != tpl.before
		for i := 0; want && i < len(places); i++ {
			want = places[i] == placeholder || places[i] == segments[i]
		}
		if fits != want {
			t.Fatalf("unexpected fit of %q in %q: got %v, want %v", path, text, fits, want)
		}
		if place := strings.Count(tpl.before, "/"); fits && string(segment) != segments[place] {
			t.Fatalf("unexpected segment of %q in %q: got %q, want %q", path, text, segment, segments[place])
		}
	})
}

// lowerHostname never reads outside its buffer, never changes what was sent, and gives one spelling of a host.
func FuzzHostname(f *testing.F) {
	f.Add([]byte("API.example.com.:80"))
	f.Add([]byte("[::1]:80"))
	f.Add([]byte("["))
	f.Add([]byte(strings.Repeat("A", 254)))
	f.Fuzz(func(t *testing.T, host []byte) {
		var buf, again [maxHostBytes]byte
		sent := bytes.Clone(host)
		got := lowerHostname(host, &buf)
		if !bytes.Equal(host, sent) {
			t.Fatalf("the host changed: got %q, want %q", host, sent)
		}
		if len(got) > maxHostBytes || hasUpper(got) {
			t.Fatalf("unexpected name of %q: got %q", host, got)
		}
		if upper := lowerHostname(lowerASCII(sent), &again); !bytes.Equal(got, upper) {
			t.Fatalf("unexpected names: got %q and %q", got, upper)
		}
	})
}
