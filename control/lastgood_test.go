package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLastGoodRoundTrip(t *testing.T) {
	f := func(b Batch) {
		t.Helper()
		objects := resolve(nil, []*reading{readBatch("file", b)}, compileDocs).objects
		if len(objects) == 0 {
			t.Fatal("nothing to store")
		}
		kept := &lastGood{objects: objects, revisions: map[string]int64{"file": 7, "a \"b\"\n": 1 << 60}}
		back, problems := decodeLastGood("last-good.yaml", kept.encode())
		if len(problems) > 0 {
			t.Errorf("problems %v", problems)
		}
		show := func(objects map[objectKey]object) []string {
			var lines []string
			for _, key := range sortedKeys(objects) {
				o := objects[key]
				lines = append(lines, fmt.Sprintf("%v %s %s %s %s", key, o.digest, o.source, o.file, o.doc.Origin))
			}
			return lines
		}
		if diff := cmp.Diff(show(objects), show(back.objects)) + cmp.Diff(kept.revisions, back.revisions); diff != "" {
			t.Errorf("read back (-want +got):\n%s\n%s", diff, kept.encode())
		}
		if again := back.encode(); string(again) != string(kept.encode()) {
			t.Errorf("written again it is:\n%s", again)
		}
	}
	// several files, several documents
	f(files("b.yaml", joined(backendDoc("one", "127.0.0.1:1"), backendDoc("two", "127.0.0.1:2")), "t.yaml", policyDoc("acme", 1)))
	// comments, blank lines, markers of all sorts, Windows line ends
	f(files("a.yaml", "# about one\n\n"+backendDoc("one", "127.0.0.1:1")+"\n\n--- # next\n# about two\n"+backendDoc("two", "127.0.0.1:2")+"...\n"))
	f(files("a.yaml", strings.ReplaceAll("---\n"+backendDoc("one", "127.0.0.1:1")+"---\n\n\n# x\n"+backendDoc("two", "127.0.0.1:2"), "\n", "\r\n")))
	// JSON
	f(files("a.json", `{"apiVersion": "weir.dev/v1alpha1", "kind": "Backend", "metadata": {"name": "one"},
  "spec": {"endpoints": [{"address": "127.0.0.1:1"}]}}`))
	// a path that needs quoting
	f(files("a \"b\"\n---\n.yaml", backendDoc("one", "127.0.0.1:1")))
}

func TestLastGoodIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "last-good.yaml")
		r := newRig(t, path, twoTenants(policyDoc("acme", 10)))
		r.start()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, want 0600", info.Mode().Perm())
		}
		if s := r.m.Status().LastGood; s.Path != path || s.Error != "" || s.WrittenAt.IsZero() || s.InUse != 0 {
			t.Errorf("status %+v", s)
		}
		// The good version is kept, not the bad one.
		r.source.say(twoTenants(misspelt("TenantPolicy", "acme")))
		if text := readFile(t, path); !strings.Contains(text, "requests: 10") || strings.Contains(text, "wrongField") {
			t.Errorf("the file has:\n%s", text)
		}
		r.source.say(twoTenants(policyDoc("acme", 77)))
		if text := readFile(t, path); !strings.Contains(text, "requests: 77") {
			t.Errorf("the file has:\n%s", text)
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(entries) != 1 {
			t.Errorf("the folder has %v, %v", entries, err)
		}
	})
}

func TestStartFromLastGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good.yaml")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, path, files("self.yaml", sidecarDoc("weir"), "backend.yaml", backendDoc("orders", "127.0.0.1:1"),
			"tenants.yaml", joined(policyDoc("acme", 10), policyDoc("globex", 10))))
		r.start()
	})
	stored := readFile(t, path)
	f := func(b Batch, wantInUse int, want ...string) {
		t.Helper()
		writeFile(t, path, stored)
		synctest.Test(t, func(t *testing.T) {
			t.Helper()
			r := newRig(t, path, b)
			r.start()
			r.want(1, want...)
			if got := r.m.Status().LastGood.InUse; got != wantInUse {
				t.Errorf("%d documents from the last-good file, want %d", got, wantInUse)
			}
			if wantInUse > 0 {
				r.metric("weir_policy_source{last-good}", 1)
				r.metric("weir_policy_last_apply_successful", 0)
				r.logged("the last-good file stands in")
			}
			// When the source is whole again, it counts.
			r.source.say(files("self.yaml", sidecarDoc("weir"), "backend.yaml", backendDoc("orders", "127.0.0.1:1"), "tenants.yaml", policyDoc("acme", 20)))
			r.metric("weir_policy_source{last-good}", 0)
			r.metric("weir_policy_source{file}", 1)
			r.metric("weir_policy_last_apply_successful", 1)
		})
	}
	all := []string{"last_good Backend/orders", "last_good Sidecar/weir", "last_good TenantPolicy/acme", "last_good TenantPolicy/globex"}
	// the source is gone
	f(Batch{Err: errors.New("no such folder")}, 4, all...)
	f(Batch{Files: []File{{Path: ".", Err: errors.New("empty")}, {Path: "backend.yaml", Err: errors.New("no")}, {Path: "self.yaml", Err: errors.New("no")}, {Path: "tenants.yaml", Err: errors.New("no")}}}, 4, all...)
	// one document is broken: it alone is the stored one, and what is removed is removed
	f(files("self.yaml", sidecarDoc("weir"), "backend.yaml", backendDoc("orders", "127.0.0.1:2"), "tenants.yaml", misspelt("TenantPolicy", "acme")), 1,
		"applied Backend/orders", "applied Sidecar/weir", "last_good TenantPolicy/acme")
	// a broken Sidecar
	f(files("self.yaml", nameless, "backend.yaml", backendDoc("orders", "127.0.0.1:2"), "tenants.yaml", policyDoc("acme", 10)), 1,
		"applied Backend/orders", "last_good Sidecar/weir", "applied TenantPolicy/acme")
	// nothing is broken: the file is not even read
	f(files("self.yaml", sidecarDoc("weir"), "backend.yaml", backendDoc("orders", "127.0.0.1:2")), 0, "applied Backend/orders", "applied Sidecar/weir")
}

func TestLastGoodThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "not-there")
		path := filepath.Join(dir, "last-good.yaml")
		r := newRig(t, path, twoTenants(policyDoc("acme", 10)))
		r.start()
		r.want(1, "applied Backend/orders", "applied TenantPolicy/acme", "applied TenantPolicy/globex")
		r.metric("weir_policy_last_good_write_failures_total", 1)
		r.logged("last-good file not written")
		if got := r.m.Status().LastGood.Error; !strings.Contains(got, dir+", which must exist and be writable") {
			t.Errorf("error %q", got)
		}
		// The next occasion is used, even without a change.
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		r.m.Reload()
		synctest.Wait()
		if got := r.m.Status().LastGood; got.Error != "" || !strings.Contains(readFile(t, path), "acme") {
			t.Errorf("status %+v", got)
		}
	})
}

func TestLastGoodNamedByTheSidecarAmongItsPolicies(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kept.yaml")
	self := filepath.Join(dir, "self.yaml")
	sidecar := doc("Sidecar", "weir", "{lastGood: kept.yaml, identity: [{header: X-Tenant-ID, trust: any}]}")
	whole := joined(sidecar, backendDoc("orders", "127.0.0.1:1"))
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", files(self, whole))
		r.start()
		// The source finds the file in its folder: that must not make every document a second one.
		r.source.say(files(self, whole, path, readFile(t, path)))
		r.want(1, "applied Backend/orders", "applied Sidecar/weir")
		if problems := errorLines(r.m.Status().Problems); len(problems) > 0 {
			t.Errorf("problems %q", problems)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "", files(self, joined(sidecar, misspelt("Backend", "orders")), path, readFile(t, path)))
		r.start()
		r.want(1, "last_good Backend/orders", "applied Sidecar/weir")
	})
}

func FuzzDecodeLastGood(f *testing.F) {
	objects := resolve(nil, []*reading{readBatch("file", twoTenants(policyDoc("acme", 1)))}, compileDocs).objects
	f.Add((&lastGood{objects: objects}).encode())
	f.Add((&lastGood{objects: objects, revisions: map[string]int64{"etcd": 7}}).encode())
	f.Add([]byte("---\n# weir:origin source=\"file\" file=\"a\" line=-9\nkind: Backend\n"))
	f.Add([]byte("---\n# weir:origin source=\"file\" file=\"a\" line=99999999999\nkind: Backend\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		kept, _ := decodeLastGood("last-good.yaml", data)
		for key, o := range kept.objects {
			if o.key() != key || !o.stored || o.digest != o.doc.Digest() {
				t.Errorf("object %v is %+v", key, o)
			}
		}
	})
}
