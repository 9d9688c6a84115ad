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

	"weir/admit/token/tokentest"
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

func withKeySet(path string) Batch {
	return files("self.yaml", joined(doc("Sidecar", "weir", fmt.Sprintf("{identity: [{jwt: {jwksFile: %q, audience: orders}}]}", path)), backendDoc("orders", "127.0.0.1:1")))
}

// Key sets are followed as API keys are, and so is a file that is both.
func TestKeySets(t *testing.T) {
	one, two := tokentest.New("one", "EdDSA"), tokentest.New("two", "ES256")
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		write := func(data []byte) { writeFile(t, path, string(data)) }
		write(tokentest.Set(one))
		r := newRig(t, "", withKeySet(path))
		r.start()
		names := func() string {
			var all []string
			for _, set := range r.applied[len(r.applied)-1].Sidecar.KeySets {
				for _, key := range set {
					all = append(all, key.ID)
				}
			}
			return strings.Join(all, " ")
		}
		f := func(revision uint64, wantNames, wantProblem string) {
			t.Helper()
			r.m.Reload()
			synctest.Wait()
			r.want(revision, "applied Backend/orders", "applied Sidecar/weir")
			if got := names(); got != wantNames {
				t.Errorf("the keys are %q, want %q", got, wantNames)
			}
			if lines := strings.Join(errorLines(r.m.Status().Problems), "\n"); (lines == "") != (wantProblem == "") || !strings.Contains(lines, wantProblem) {
				t.Errorf("problems %q, want %q", lines, wantProblem)
			}
		}
		if diff := cmp.Diff([]string{path}, r.watched); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}

		f(1, "one", "")
		// A changed file is a change, and one that says the same in other words is not.
		write(tokentest.Set(one, two))
		f(2, "one two", "")
		write([]byte(strings.ReplaceAll(string(tokentest.Set(one, two)), ",", " ,\n")))
		f(2, "one two", "")
		// A bad one is not, nor one that is gone.
		write([]byte(`{"keys": [`))
		f(2, "one two", path+":1:10: no JSON")
		write([]byte(`{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}`))
		f(2, "one two", path+": keys[0]: a secret")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		f(2, "one two", "the keys read before stay in force")
		write(tokentest.Set(two))
		f(3, "two", "")
		// A key that cannot be used is reported, and the others are used.
		write([]byte(`{"keys": [{"kty": "XYZ"}, ` + one.JWK() + `]}`))
		f(4, "one", "")
		if problems := r.m.Status().Problems; len(problems) != 1 || !strings.Contains(problems[0].String(), "keys[0]: passed over") {
			t.Errorf("problems %v", problems)
		}

		// A Sidecar that names a file without keys is refused; so is one that takes API keys for a key set.
		r.source.say(withKeySet(path + "2"))
		r.want(4, "applied Backend/orders", "last_good Sidecar/weir")
		if lines := strings.Join(errorLines(r.m.Status().Problems), "\n"); !strings.Contains(lines, "spec.identity[0].jwt.jwksFile: cannot read the key set") {
			t.Errorf("problems %q", lines)
		}
		r.source.say(withKeys(path))
		r.want(4, "applied Backend/orders", "last_good Sidecar/weir")
	})
}

func TestStartFailsWithoutKeySet(t *testing.T) {
	f := func(content, want string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "jwks.json")
		if content != "" {
			writeFile(t, path, content)
		}
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "", withKeySet(path))
			err := r.m.Start(context.Background(), r.source)
			if _, ok := errors.AsType[*InvalidError](err); !ok || !strings.Contains(err.Error(), want) {
				t.Errorf("got error %v, want an InvalidError with %q", err, want)
			}
		})
	}
	// missing
	f("", "cannot read the key set")
	// broken
	f("{}", "no key set: ")
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
