package policy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hashA and hashB are the SHA-256 of "a" and "b".
const (
	hashA = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
	hashB = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
)

func TestParseAPIKeys(t *testing.T) {
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	f := func(text string, want APIKeyTable) {
		t.Helper()
		got, problems := ParseAPIKeys("keys", []byte(text))
		if len(problems) > 0 {
			t.Errorf("problems:\n%s", said(problems))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("table (-want +got):\n%s", diff)
		}
	}

	// Nothing in it.
	f("", APIKeyTable{})
	f("\n# only a comment\n  # another\n\t\n", APIKeyTable{})

	// Two keys of one tenant, and one of another; no line end at the end.
	f("acme:"+hashA+"\nacme:"+hashB, APIKeyTable{a: "acme", b: "acme"})
	f("acme:"+hashA+"\nglobex:"+hashB+"\n", APIKeyTable{a: "acme", b: "globex"})

	// Line ends of Windows, white space around the line, digits in upper case.
	f("  acme:"+strings.ToUpper(hashA)+" \r\n\tglobex:"+hashB+"\r\n", APIKeyTable{a: "acme", b: "globex"})

	// The last colon separates, so a tenant may have colons; and a # within.
	f("urn:acme:1#x:"+hashA, APIKeyTable{a: "urn:acme:1#x"})

	// The longest tenant.
	f(strings.Repeat("x", 128)+":"+hashA, APIKeyTable{a: strings.Repeat("x", 128)})
}

func TestParseAPIKeysErrors(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		table, problems := ParseAPIKeys("keys", []byte(text))
		if table != nil {
			t.Errorf("a table besides errors")
		}
		if diff := cmp.Diff(want, strings.Split(said(problems), "\n")); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
		for _, p := range problems {
			if p.Excerpt != "" {
				t.Errorf("an excerpt, which may show a key: %s", p.Excerpt)
			}
		}
	}

	// The key itself, in place of its hash. It must not appear.
	f("acme:s3cret-key", "keys:1:6: what follows the colon has 10 bytes, want the 64 hex digits of the key's SHA-256")

	// No colon; a line that is a key alone.
	f("# keys\n\n  s3cret-key\n", "keys:3:3: the line has no colon, want tenant:sha256-hex-of-the-key")

	// As many bytes, but not hex digits.
	f("acme:"+hashA[:62]+"g0", "keys:1:68: not a hex digit, want the 64 hex digits of the key's SHA-256")
	f("acme:"+hashA[:61]+"é0", "keys:1:67: not a hex digit, want the 64 hex digits of the key's SHA-256")

	// Tenants that cannot be.
	f(":"+hashA, "keys:1:1: the tenant has 0 bytes, want 1 to 128")
	f(strings.Repeat("x", 129)+":"+hashA, "keys:1:1: the tenant has 129 bytes, want 1 to 128")
	f("ac me:"+hashA, "keys:1:3: the tenant has a byte that is not visible ASCII")
	f("caf\u00e9:"+hashA, "keys:1:4: the tenant has a byte that is not visible ASCII")
	f("\xff:"+hashA, "keys:1:1: the tenant has a byte that is not visible ASCII")

	// One key of two tenants.
	f("acme:"+hashA+"\nother:"+hashB+"\n globex:"+hashA,
		"keys:3:2: the same key belongs to another tenant in line 1, want one tenant for each key")

	// All at once, warnings too.
	f("x\nacme:"+hashA+"\nacme:"+hashA+"\ny",
		"keys:1:1: the line has no colon, want tenant:sha256-hex-of-the-key",
		"keys:3:1: warning: the same tenant and key are in line 2 already",
		"keys:4:1: the line has no colon, want tenant:sha256-hex-of-the-key")
}

func TestParseAPIKeysWarning(t *testing.T) {
	table, problems := ParseAPIKeys("keys", []byte("acme:"+hashA+"\nacme:"+hashA))
	if len(table) != 1 || said(problems) != "keys:2:1: warning: the same tenant and key are in line 1 already" {
		t.Errorf("%d keys and %q", len(table), said(problems))
	}
}

func FuzzParseAPIKeys(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("# comment\n\nacme:" + hashA + "\nurn:x:" + hashB + "\r\n"))
	f.Add([]byte("acme:key\n:" + hashA + "\nno colon"))
	f.Add([]byte("acme:" + hashA + "\nglobex:" + strings.ToUpper(hashA)))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, problems := ParseAPIKeys("keys", data)
		lines := bytes.Split(data, []byte("\n"))
		failed := false
		for _, p := range problems {
			failed = failed || p.Severity == Error
			if p.Origin.Line < 1 || p.Origin.Line > len(lines) || p.Origin.Column < 1 || p.Origin.Column > len(lines[p.Origin.Line-1])+1 {
				t.Errorf("%s is not within the file", p)
			}
		}
		if failed != (table == nil) {
			t.Fatalf("table nil is %v and errors %v", table == nil, failed)
		}
		var again bytes.Buffer
		for _, hash := range table.sortedHashes() {
			if err := checkTenant(table[hash]); err != nil {
				t.Fatalf("took a tenant that is none: %v", err)
			}
			fmt.Fprintf(&again, "%s:%x\n", table[hash], hash)
		}
		if reread, problems := ParseAPIKeys("keys", again.Bytes()); len(problems) > 0 || table != nil && !cmp.Equal(table, reread) {
			t.Fatalf("what was written is not what is read: %q\n%s", again.String(), said(problems))
		}
	})
}
