package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
	"weir/policy"
	"weir/policy/diff"
)

// storeTest is a cluster, and a folder to write documents to.
type storeTest struct {
	*etcdtest.Cluster
	dir string
}

func newStoreTest(t *testing.T) storeTest {
	t.Helper()
	return storeTest{etcdtest.Start(t, etcdtest.Options{}), t.TempDir()}
}

// call runs a command that finds the cluster in the environment.
func (s storeTest) call(args ...string) (code int, stdout, stderr string) {
	return call(map[string]string{"SIDECAR_ETCD": s.Endpoint(0)}, args...)
}

// policy writes a policy of one tenant, named as the tenant, to a file.
func (s storeTest) policy(t *testing.T, tenant string, rate int) string {
	t.Helper()
	path := filepath.Join(s.dir, fmt.Sprintf("%s-%d.yaml", tenant, rate))
	text := fmt.Sprintf("apiVersion: weir.dev/v1alpha1\nkind: TenantPolicy\nmetadata: {name: %s}\nspec: {tenants: {names: [%s]}, limits: [{name: steady, requests: %d}]}\n", tenant, tenant, rate)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Many people who apply different documents at once all succeed, and none of the documents is lost.
func TestApplyTogether(t *testing.T) {
	s := newStoreTest(t)
	const people, each = 4, 5
	var running sync.WaitGroup
	for person := range people {
		tenant := fmt.Sprintf("t%d", person)
		var paths []string
		for i := range each {
			paths = append(paths, s.policy(t, tenant, i+1))
		}
		running.Go(func() {
			for _, path := range paths {
				if code, _, stderr := s.call("apply", "-f", path); code != exitFine {
					t.Errorf("apply of %s: %d, %s", path, code, stderr)
				}
			}
		})
	}
	running.Wait()
	_, stdout, _ := s.call("get", "tenantpolicies")
	for person := range people {
		if want := fmt.Sprintf("limit steady %d/s, tenant t%d ", each, person); !strings.Contains(stdout, want) {
			t.Errorf("there is no %q in\n%s", want, stdout)
		}
	}
}

// Somebody is faster by a hair, with the same document: nothing is written, and it is said who it was and what they did.
func TestConflict(t *testing.T) {
	s := newStoreTest(t)
	if code, _, stderr := s.call("apply", "-f", s.policy(t, "acme", 100)); code != exitFine {
		t.Fatal(stderr)
	}
	f := func(theirs string, rate int, wantErr string) (stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		c := newCLI(streams{in: strings.NewReader(""), out: &out, err: &errs}, lookupIn(map[string]string{"SIDECAR_ETCD": s.Endpoint(0)}))
		ours, err := c.readStored([]string{s.policy(t, "acme", rate)})
		if err != nil {
			t.Fatal(err)
		}
		flags := &changeFlags{etcd: &etcdFlags{endpoints: s.Endpoints(), prefix: defaultPrefix, timeout: 5 * time.Second}, command: "apply", output: &choice{value: "text"}}
		faster := false
		cmd, _, err := c.root.Find([]string{"apply"})
		if err != nil {
			t.Fatal(err)
		}
		cmd.SetContext(t.Context())
		err = c.change(cmd, flags, func(_ context.Context, _ *etcd.Client, before etcd.Documents) (etcd.Plan, error) {
			if !faster {
				faster = true
				if code, _, stderr := s.call("apply", "-f", theirs, "--by", "bob", "-m", "mine"); code != exitFine {
					t.Fatal(stderr)
				}
			}
			return etcd.PlanOf(before, ours, nil), nil
		})
		if got := fmt.Sprint(err); !strings.Contains(got, wantErr) {
			t.Errorf("over %s: %v, want %s", theirs, err, wantErr)
		}
		return out.String(), errs.String()
	}
	// the same document
	_, stderr := f(s.policy(t, "acme", 70), 50, "nothing is written: somebody else changed")
	for _, want := range []string{"~ acme steady 100/s → 70/s (-30 %)", "apply by bob at ", ": mine"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("a conflict does not say %q: %s", want, stderr)
		}
	}
	if _, stdout, _ := s.call("get", "tenantpolicy", "acme"); !strings.Contains(stdout, "limit steady 70/s") {
		t.Errorf("what bob did is gone:\n%s", stdout)
	}
	// another one: ours is written, too
	stdout, _ := f(s.policy(t, "globex", 1), 30, "<nil>")
	if !strings.Contains(stdout, "1 document written") {
		t.Errorf("beside another document: %s", stdout)
	}
	// theirs is the same as ours: it is there, so nobody is in the way; but it is no longer what was shown
	f(s.policy(t, "acme", 20), 20, "somebody else changed")
}

// A removal of few becomes one of many, since somebody else was faster and has removed others: it is refused like any other.
func TestRemovalBecomesLarge(t *testing.T) {
	s := newStoreTest(t)
	layout := etcd.LayoutAt(defaultPrefix)
	var all []string
	for i := range 11 {
		all = append(all, s.policy(t, fmt.Sprintf("t%02d", i), 1))
	}
	if code, _, stderr := s.call("apply", "-f", strings.Join(all, ",")); code != exitFine {
		t.Fatal(stderr)
	}
	var out, errs bytes.Buffer
	c := newCLI(streams{in: strings.NewReader(""), out: &out, err: &errs}, lookupIn(nil))
	cmd, _, err := c.root.Find([]string{"delete"})
	if err != nil {
		t.Fatal(err)
	}
	cmd.SetContext(t.Context())
	flags := &changeFlags{etcd: &etcdFlags{endpoints: s.Endpoints(), prefix: defaultPrefix, timeout: 5 * time.Second}, command: "delete", output: &choice{value: "text"}}
	var ours []diff.Key // 3 of 11, and then 3 of 7
	for i := range 3 {
		ours = append(ours, diff.Key{Kind: policy.KindTenantPolicy, Name: fmt.Sprintf("t%02d", i)})
	}
	faster := false
	err = c.change(cmd, flags, func(_ context.Context, _ *etcd.Client, before etcd.Documents) (etcd.Plan, error) {
		if !faster {
			faster = true
			if code, _, stderr := s.call("delete", "tenantpolicy", "t03", "t04", "t05", "t06", "--confirm-removals"); code != exitFine {
				t.Fatal(stderr)
			}
		}
		return etcd.PlanOf(before, nil, ours), nil
	})
	if err == nil || !strings.Contains(err.Error(), "this takes out of policy 3 of 7 tenants") {
		t.Errorf("got %v", err)
	}
	left, err := s.Client().Get(t.Context(), layout.Policy()+"TenantPolicy/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || left.Count != 7 {
		t.Errorf("%d policies are left, %v, want 7", left.Count, err)
	}
}

// Of several parts the second fails: it says what is there, and how to go on.
func TestPartlyWritten(t *testing.T) {
	s := newStoreTest(t)
	var all strings.Builder
	for i := range 130 {
		fmt.Fprintf(&all, "---\napiVersion: weir.dev/v1alpha1\nkind: Backend\nmetadata: {name: n%03d}\nspec: {endpoints: [{address: \"127.0.0.1:9000\"}]}\n", i)
	}
	path := filepath.Join(s.dir, "all.yaml")
	if err := os.WriteFile(path, []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	c := newCLI(streams{out: &bytes.Buffer{}, err: &errs}, lookupIn(nil))
	put, err := c.readStored([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	client, err := etcd.Open(etcd.Options{Endpoints: s.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	layout := etcd.LayoutAt(defaultPrefix)
	before, err := client.ReadDocuments(t.Context(), layout, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Put(layout.Document(policy.KindBackend, "n129"), "somebody else's")
	ch := &changing{changeFlags: &changeFlags{etcd: &etcdFlags{prefix: defaultPrefix}}, cli: c, client: client}
	_, err = ch.write(t.Context(), etcd.PlanOf(before, put, nil))
	if !errors.Is(err, etcd.ErrConflict) || !strings.Contains(err.Error(), "1 of 2 parts are written, up to revision ") ||
		!strings.Contains(err.Error(), fmt.Sprintf("run the same command again for the rest, or go back with: sidecar rollback --to %d", before.Revision)) {
		t.Errorf("got %v", err)
	}
	if code, stdout, stderr := s.call("apply", "-f", path); code != exitFine || !strings.Contains(stdout, "3 documents written") {
		t.Errorf("the same command again: %d, %s%s", code, stdout, stderr)
	}
}

// --wait waits for those who read from here, and names who is behind.
func TestWait(t *testing.T) {
	s := newStoreTest(t)
	layout := etcd.LayoutAt(defaultPrefix)
	member := func(id string, revision int64, more string) (written int64) {
		t.Helper()
		record := fmt.Sprintf(`{"id":%q,"service":"orders","host":"h1","address":"127.0.0.1:9901","version":"v1","sources":[{"name":"etcd","here":true,"revision":%d,"healthy":true}]%s}`,
			id, revision, more)
		if !json.Valid([]byte(record)) {
			t.Fatal(record)
		}
		return s.Put(layout.Fleet("orders")+"members/"+id, record)
	}
	f := func(rate, wantCode int, want ...string) {
		t.Helper()
		code, stdout, stderr := s.call("apply", "-f", s.policy(t, "acme", rate), "--wait=300ms")
		if code != wantCode || !strings.Contains(stdout, "1 document written") {
			t.Errorf("code %d, want %d: %s%s", code, wantCode, stdout, stderr)
		}
		for _, w := range want {
			if !strings.Contains(stderr, w) {
				t.Errorf("it does not say %q: %s", w, stderr)
			}
		}
	}
	// nobody is there
	f(1, exitFine, "no sidecar is registered below /weir/v1/fleet/: there is nobody to wait for")
	// one has it, another does not
	before := member("a", 1000, "") + 1
	member("b", before, "") // written at before, so that the change comes next
	f(2, exitFailed, "1 of 2 sidecars have applied revision",
		fmt.Sprintf("b (h1, admin port 127.0.0.1:9901) is behind: it has applied revision %d, the latest change is %d", before, before+1),
		"is written, but 1 sidecar has not applied it within 300ms")
	// it has seen it and refuses it
	member("b", 1000, `,"differences":[{"kind":"TenantPolicy","name":"acme","state":"refused"}],"differenceCount":1`)
	f(3, exitFailed, "b (h1, admin port 127.0.0.1:9901) is drifted: it refuses TenantPolicy acme")
	// all have it
	member("b", 1000, "")
	f(4, exitFine, "2 of 2 sidecars have applied revision")

	// with nothing to write, it waits for the latest change and not for what the store has come to since
	written, err := s.Client().Get(t.Context(), layout.Document(policy.KindTenantPolicy, "acme"))
	if err != nil {
		t.Fatal(err)
	}
	latest := written.Kvs[0].ModRevision
	member("a", latest, "")
	member("b", latest, "")
	if code, _, stderr := s.call("apply", "-f", s.policy(t, "acme", 4), "--wait=5s"); code != exitFine || !strings.Contains(stderr, fmt.Sprintf("have applied revision %d,", latest)) {
		t.Errorf("nothing to change, and all have what there is: %d, %s", code, stderr)
	}
	member("a", 1000, "")
	member("b", 1000, "")

	code, stdout, stderr := s.call("get", "sidecars")
	if code != exitFine || !strings.Contains(stdout, "orders   a        1000      v1       h1, admin port 127.0.0.1:9901  in sync") ||
		!strings.Contains(stdout, "2 of 2 in sync with revision ") {
		t.Errorf("get sidecars: %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, _ = s.call("get", "sidecars", "-o", "json", "--service", "orders")
	var list struct {
		InSync   int
		Sidecars []struct{ ID, State string }
	}
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != exitFine || list.InSync != 2 || len(list.Sidecars) != 2 || list.Sidecars[0].State != "in_sync" {
		t.Errorf("get sidecars as JSON: %v, %s", err, stdout)
	}
}

// What is wrong already does not stand in the way of a change that does not make it worse.
func TestOldProblems(t *testing.T) {
	s := newStoreTest(t)
	layout := etcd.LayoutAt(defaultPrefix)
	s.Put(layout.Document(policy.KindRoute, "odd"), "apiVersion: weir.dev/v1alpha1\nkind: Route\nmetadata: {name: odd}\nspec: {backend: nowhere}\n")
	s.Put(layout.Document(policy.KindTenantPolicy, "broken"), "\x1b[2J")
	s.Put(layout.Policy()+"lost", "?")
	code, stdout, stderr := s.call("apply", "-f", s.policy(t, "acme", 1))
	if code != exitFine || !strings.Contains(stderr, "TenantPolicy broken is in etcd already and cannot be read: ") || strings.Contains(stdout+stderr, "\x1b") {
		t.Errorf("apply: %d, %q, %q", code, stdout, stderr)
	}
	code, stdout, stderr = s.call("get", "all")
	if code != exitFine || !strings.Contains(stdout, "cannot be read: ") || !strings.Contains(stderr, `the key "/weir/v1/policy/lost" is of no document`) || strings.Contains(stdout, "\x1b") {
		t.Errorf("get: %d, %q, %q", code, stdout, stderr)
	}
	// a Route that is wrong in another way than before is refused
	path := filepath.Join(s.dir, "odd.yaml")
	if err := os.WriteFile(path, []byte("apiVersion: weir.dev/v1alpha1\nkind: Route\nmetadata: {name: odd}\nspec: {backend: elsewhere}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := s.call("apply", "-f", path); code != exitInvalid || !strings.Contains(stderr, `no Backend is named "elsewhere"`) {
		t.Errorf("apply of a worse Route: %d, %s", code, stderr)
	}
	// and what cannot be read can be deleted
	if code, _, stderr := s.call("delete", "tenantpolicy", "broken"); code != exitFine {
		t.Errorf("delete: %d, %s", code, stderr)
	}
}

func TestParseKind(t *testing.T) {
	f := func(word string, want policy.Kind) {
		t.Helper()
		if got, err := parseKind(word); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", word, got, err, want)
		}
	}
	f("TenantPolicy", policy.KindTenantPolicy)
	f("tenantpolicies", policy.KindTenantPolicy)
	f("ROUTES", policy.KindRoute)
	f("backend", policy.KindBackend)
	f("breakerpolicies", policy.KindBreakerPolicy)
	f("sidecar", policy.KindSidecar)
	// tests are in no store
	f("policytest", "")
	f("", "")
	if keys, err := parseKeys([]string{"route", "a", "b"}); err != nil || len(keys) != 2 || keys[1] != (diff.Key{Kind: policy.KindRoute, Name: "b"}) {
		t.Errorf("got %v, %v", keys, err)
	}
}

// Two roles suffice: one reads, the other writes documents and reads who has applied them. Whoever may not do something is told what to do.
func TestRoles(t *testing.T) {
	s := newStoreTest(t)
	admin, ctx := s.Client(), t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	grant := func(role, prefix string, kind clientv3.PermissionType) {
		t.Helper()
		must(admin.RoleGrantPermission(ctx, role, prefix, clientv3.GetPrefixRangeEnd(prefix), kind))
	}
	for _, role := range []string{"root", "weir-reader", "weir-writer"} {
		if role != "root" {
			must(admin.RoleAdd(ctx, role))
		}
		must(admin.UserAdd(ctx, role, "secret"))
		must(admin.UserGrantRole(ctx, role, role))
	}
	grant("weir-reader", "/weir/v1/policy/", clientv3.PermissionType(clientv3.PermRead))
	grant("weir-writer", "/weir/v1/policy/", clientv3.PermissionType(clientv3.PermReadWrite))
	grant("weir-writer", "/weir/v1/fleet/", clientv3.PermissionType(clientv3.PermRead))
	must(admin.AuthEnable(ctx))
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := s.policy(t, "acme", 1)
	f := func(user, line string, wantCode int, want string) {
		t.Helper()
		args := strings.Fields(line)
		if user != "" {
			args = append(args, "--etcd-username", user, "--etcd-password-file", password)
		}
		code, stdout, stderr := s.call(args...)
		if code != wantCode || !strings.Contains(stdout+stderr, want) {
			t.Errorf("%s as %q: %d, %s%s; want %d and %q", line, user, code, stdout, stderr, wantCode, want)
		}
		if strings.Contains(stdout+stderr, "secret") {
			t.Errorf("%s shows the password: %s%s", line, stdout, stderr)
		}
	}
	f("weir-reader", "apply -f "+path, exitFailed, "grant what is missing")
	f("weir-reader", "get all", exitFine, "no documents")
	f("weir-writer", "apply -f "+path+" --wait=1s", exitFine, "1 document written")
	f("weir-reader", "diff -f "+path, exitFine, "")
	f("weir-reader", "history", exitFine, "apply by")
	f("weir-writer", "get sidecars", exitFine, "no sidecar is registered")
	f("nobody", "get all", exitFailed, "check username and passwordFile")
	f("", "get all", exitFailed, "user name is empty")
}
