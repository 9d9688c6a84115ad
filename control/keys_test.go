package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

func keyLine(tenant, key string) string {
	return fmt.Sprintf("%s:%x\n", tenant, sha256.Sum256([]byte(key)))
}

func withKeys(path string) Batch {
	return files("self.yaml", joined(doc("Sidecar", "weir", fmt.Sprintf("{identity: [{apiKey: {keysFile: %q}}]}", path)), backendDoc("orders", "127.0.0.1:1")))
}

func TestAPIKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys")
		writeFile(t, path, keyLine("acme", "secret"))
		r := newRig(t, "", withKeys(path))
		r.start()
		tenant := func() string {
			keys := r.applied[len(r.applied)-1].Sidecar.APIKeys
			if len(keys) != 1 {
				t.Fatalf("%d tables", len(keys))
			}
			return keys[0][sha256.Sum256([]byte("secret"))]
		}
		if got := tenant(); got != "acme" {
			t.Errorf("the key is that of %q", got)
		}
		if diff := cmp.Diff([]string{path}, r.watched); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}

		// A changed file is a change.
		writeFile(t, path, keyLine("globex", "secret"))
		r.m.Reload()
		synctest.Wait()
		r.want(2, "applied Backend/orders", "applied Sidecar/weir")
		if got := tenant(); got != "globex" {
			t.Errorf("the key is that of %q", got)
		}

		// A bad one is not, nor one that is gone; both are reported, and the document is not to blame.
		writeFile(t, path, "no colon\n")
		r.m.Reload()
		synctest.Wait()
		r.want(2, "applied Backend/orders", "applied Sidecar/weir")
		r.metric("weir_policy_last_apply_successful", 0)
		if lines := errorLines(r.m.Status().Problems); len(lines) != 1 || !strings.Contains(lines[0], path+":1:1: ") {
			t.Errorf("problems %q", lines)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		r.m.Reload()
		synctest.Wait()
		r.want(2, "applied Backend/orders", "applied Sidecar/weir")
		if lines := errorLines(r.m.Status().Problems); len(lines) != 1 || !strings.Contains(lines[0], "the keys read before stay in force") {
			t.Errorf("problems %q", lines)
		}

		// A Sidecar that names a file without keys is refused, and the file is watched so that it can come.
		other := filepath.Join(filepath.Dir(path), "other")
		r.source.say(withKeys(other))
		r.want(2, "applied Backend/orders", "last_good Sidecar/weir")
		if lines := errorLines(r.m.Status().Problems); !strings.Contains(strings.Join(lines, "\n"), "self.yaml:4:39: spec.identity[0].apiKey.keysFile: cannot read the API keys") {
			t.Errorf("problems %q", lines)
		}
		if diff := cmp.Diff([]string{path, other}, r.watched, cmp.Transformer("set", func(list []string) map[string]bool {
			set := make(map[string]bool)
			for _, s := range list {
				set[s] = true
			}
			return set
		})); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}
		writeFile(t, other, keyLine("initech", "secret"))
		r.m.Reload()
		synctest.Wait()
		r.want(3, "applied Backend/orders", "applied Sidecar/weir")
		if got := tenant(); got != "initech" {
			t.Errorf("the key is that of %q", got)
		}
		// The file of before is forgotten: named again, it has to be good again.
		r.source.say(withKeys(path))
		r.want(3, "applied Backend/orders", "last_good Sidecar/weir")
		// No secret is shown anywhere.
		hash := fmt.Sprintf("%x", sha256.Sum256([]byte("secret")))
		for _, o := range r.m.Status().Objects {
			if strings.Contains(o.Text, hash) {
				t.Errorf("%s shows a key", o.Name)
			}
		}
	})
}

func TestStartFailsWithoutAPIKeys(t *testing.T) {
	f := func(content, want string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "keys")
		if content != "" {
			writeFile(t, path, content)
		}
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "", withKeys(path))
			err := r.m.Start(context.Background(), r.source)
			if _, ok := errors.AsType[*InvalidError](err); !ok || !strings.Contains(err.Error(), want) {
				t.Errorf("got error %v, want an InvalidError with %q", err, want)
			}
		})
	}
	// missing
	f("", "cannot read the API keys")
	// broken
	f("no colon\n", ":1:1: the line has no colon")
}
