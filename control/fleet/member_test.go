package fleet

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weir/policy"
)

var update = flag.Bool("update", false, "write the golden file anew")

// exampleMember has every field.
func exampleMember() Member {
	at := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	prints := Prints{1, 0xffffffff}
	return Member{
		ID: "web-1-5f1a2b", Instance: "00112233445566", Service: "orders", Version: "v1.2.3", Host: "web-1", Address: "127.0.0.1:9901",
		Started: at, At: at.Add(time.Hour), Hash: strings.Repeat("ab", 32), AppliedAt: at.Add(time.Minute),
		Sources: []SourceState{
			{Name: "platform", Here: true, Revision: 42, Healthy: true, Prints: prints.String()},
			{Name: "team", Revision: 7, Error: "cannot read /weir/v1/policy/: context deadline exceeded"},
		},
		Differences: []Difference{
			{policy.KindTenantPolicy, "gold", Refused, ""}, {policy.KindRoute, "checkout", LastGood, ""}, {policy.KindBackend, "orders", Replaced, "team"},
		},
		DifferenceCount: 3,
		Problems:        []string{`platform:TenantPolicy/gold:9:5: spec.limits[0].per: "soon" is no duration, want one as in 1s`},
		ProblemCount:    2,
	}
}

// Other versions read the record, so its form is a promise.
func TestRecordIsGolden(t *testing.T) {
	const path = "testdata/member.json"
	data := exampleMember().encode()
	var indented bytes.Buffer
	if err := json.Indent(&indented, data, "", "  "); err != nil {
		t.Fatal(err)
	}
	indented.WriteByte('\n')
	if *update {
		if err := os.WriteFile(path, indented.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), indented.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	back := decodeMember("web-1-5f1a2b", "orders", want)
	if diff := cmp.Diff(exampleMember(), back, cmpopts.EquateEmpty(), cmp.AllowUnexported(Member{})); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

// A newer version may have written it.
func TestRecordOfAnotherVersion(t *testing.T) {
	m := decodeMember("a", "orders", []byte(`{"id":"b","service":"carts","version":"v9","shares":{"acme":3},"sources":[{"name":"etcd","here":true,"revision":4,"lag":1}]}`))
	if m.ID != "a" || m.Service != "orders" || m.Version != "v9" || m.Here() == nil || m.Here().Revision != 4 || m.unreadable != "" {
		t.Errorf("got %+v", m)
	}
	if m := decodeMember("a", "orders", []byte("{")); m.ID != "a" || m.Service != "orders" || m.unreadable == "" {
		t.Errorf("a record that is none: got %+v", m)
	}
}

// A record is bounded, whatever goes wrong in its sidecar, and keeps what others need.
func TestRecordIsBounded(t *testing.T) {
	m := exampleMember()
	long := strings.Repeat("ä", 1000)
	m.Host, m.Version, m.Address = long, long, long
	m.Sources[1].Error = long
	for i := range 50 {
		name := strings.Repeat("x", 60) + fmt.Sprint(i)
		m.Sources = append(m.Sources, SourceState{Name: name, Error: long})
		m.Differences = append(m.Differences, Difference{policy.KindTenantPolicy, name, LastGood, name})
		m.Problems = append(m.Problems, long)
	}
	m.DifferenceCount, m.ProblemCount = len(m.Differences), len(m.Problems)
	data := m.encode()
	if len(data) > maxRecord || !utf8.Valid(data) || bytes.ContainsRune(data, utf8.RuneError) {
		t.Errorf("the record has %d bytes, want at most %d of UTF-8:\n%s", len(data), maxRecord, data)
	}
	got := decodeMember(m.ID, m.Service, data)
	if got.Here() == nil || got.Here().Prints == "" || got.DifferenceCount != 53 || got.ProblemCount != 51 {
		t.Errorf("got %+v", got)
	}
	if len(m.Problems) != 51 || len(m.Sources) != 52 {
		t.Error("what was encoded has changed")
	}
}

func TestShorten(t *testing.T) {
	f := func(in string, most int, want string) {
		t.Helper()
		if got := shorten(in, most); got != want {
			t.Errorf("shorten(%q, %d): got %q, want %q", in, most, got, want)
		}
	}
	f("short", 5, "short")
	f("longer", 5, "lo…")
	// a character is whole or not there
	f("äöüäöü", 6, "ä…")
	f("äöüäöü", 7, "äö…")
	f("日本語日本語", 7, "日…")
}

func TestMemberID(t *testing.T) {
	id := memberID("orders", "web-1", "127.0.0.1:9901")
	if id != memberID("orders", "web-1", "127.0.0.1:9901") {
		t.Error("it is not the same over restarts")
	}
	if id == memberID("orders", "web-1", "127.0.0.1:9902") {
		t.Error("two processes on a host have the same")
	}
	if got := memberID("orders", "Web/1 "+strings.Repeat("x", 100), ""); strings.ContainsAny(got, "/ W") || len(got) > 70 {
		t.Errorf("got %q, want what fits into a key", got)
	}
}

func FuzzDecodeMember(f *testing.F) {
	f.Add(exampleMember().encode())
	f.Add([]byte(`{"sources":[{"here":true,"prints":"00"}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := decodeMember("a", "orders", data)
		Judge([]Member{m}, Want{Revision: 1, At: 9, Documents: []WantedDocument{{policy.KindRoute, "a", 0, 1}}})
		if out := m.encode(); len(out) > maxRecord && len(m.Sources) <= 1 {
			t.Errorf("a record of %d bytes became one of %d", len(data), len(out))
		}
	})
}
