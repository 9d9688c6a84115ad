package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd/etcdtest"
	"weir/policy"
)

// store is an etcd cluster with documents, and a line to it that can fail.
type store struct {
	*etcdtest.Cluster
	line *etcdtest.Relay
}

func newStore(t testing.TB) *store {
	t.Helper()
	c := etcdtest.Start(t, etcdtest.Options{})
	return &store{c, etcdtest.NewRelay(t, c.Address(0))}
}

// url is the end of the line.
func (s *store) url() string { return "http://" + s.line.Address() }

// keyOf is where a document lies.
func keyOf(kind, name string) string { return "/weir/v1/policy/" + kind + "/" + name }

// limit writes a policy for a tenant, so many requests in an hour, and returns the revision.
func (s *store) limit(tenant string, requests int) int64 {
	return s.Put(keyOf("TenantPolicy", tenant), limitDocument(tenant, requests))
}

func limitDocument(tenant string, requests int) string {
	return fmt.Sprintf("apiVersion: weir.dev/v1alpha1\nkind: TenantPolicy\nmetadata: {name: %s}\n"+
		"spec: {tenants: {names: [%s]}, limits: [{name: hourly, requests: %d, per: 1h}]}\n", tenant, tenant, requests)
}

// with adds arguments.
func with(args ...string) setting {
	return func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, args...) }
}

// passes sends n requests of a tenant and counts those that the service answered. Any other answer must be a 429.
func (p *running) passes(tenant string, n int) (passed int) {
	p.t.Helper()
	c := p.dial()
	defer c.Close()
	for range n {
		c.send("GET / HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: " + tenant + "\r\n\r\n")
		resp, body, err := c.answer()
		switch {
		case err != nil:
			p.t.Fatal(err)
		case resp.StatusCode == 200:
			passed++
		case resp.StatusCode != 429:
			p.t.Fatalf("got %d %s", resp.StatusCode, body)
		}
	}
	return passed
}

// shows waits until a page of the admin port contains all of these.
func (p *running) shows(path string, texts ...string) {
	p.t.Helper()
	var page string
	for _, text := range texts {
		until(p.t, path+" shows "+text, func() bool {
			page, _ = p.ask(path)
			return strings.Contains(page, text)
		})
	}
}

// From the first request on, a sidecar holds tenants to what etcd says, whether the command line or its Sidecar names it.
func TestPoliciesFromEtcd(t *testing.T) {
	f := func(source string, run func(url string) (documents string, args setting)) {
		t.Helper()
		s, service := newStore(t), newService(t, hello)
		s.limit("acme", 2)
		documents, args := run(s.url())
		p := launch(t, strings.ReplaceAll(documents, "BACKEND", service.address()), args)
		if got := p.passes("acme", 5); got != 2 {
			t.Errorf("%s: %d of 5 requests passed, want 2", source, got)
		}
		p.shows("/policy", `# origin: "`+source+`:TenantPolicy/acme:1:1"`)
		p.shows("/status", "source "+source, " at revision ")
		p.shows("/why?tenant=acme&path=/", source+":TenantPolicy/acme:4:")
		p.says("no last-good file is kept")
		// A change, a document that is broken, and one that goes.
		s.limit("acme", 20)
		until(t, "the limit has changed", func() bool { return p.passes("acme", 1) == 1 })
		s.Put(keyOf("TenantPolicy", "acme"), "kind: [")
		p.says("policy problem: " + source + ":TenantPolicy/acme:1:")
		if got := p.passes("acme", 1); got != 1 {
			t.Errorf("%s: a broken document has taken its limit away, or let nobody pass", source)
		}
		p.stops()
	}
	f("etcd", func(url string) (string, setting) {
		return documentsFor("BACKEND"), with("--etcd", url)
	})
	f("platform", func(url string) (string, setting) {
		return documentsFor("BACKEND", "policies: [{name: platform, etcd: {endpoints: ["+url+"]}}]"), with()
	})
}

// --backend is the service, etcd has the limits.
func TestBackendWithPoliciesFromEtcd(t *testing.T) {
	s, service := newStore(t), newService(t, hello)
	s.limit("acme", 2)
	p := start(t, "", func(cmd *exec.Cmd) {
		cmd.Args = []string{cmd.Args[0], "run", "--backend", service.address(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--etcd", s.url()}
	})
	p.serves()
	if got := p.passes("acme", 5); got != 2 {
		t.Errorf("%d of 5 requests passed, want 2", got)
	}
	if got := p.passes("globex", 5); got != 5 {
		t.Errorf("%d of 5 requests of a tenant without limits passed, want all", got)
	}
	p.stops()
}

// serves waits until the process serves.
func (p *running) serves() {
	p.t.Helper()
	line := p.says("serving")
	p.listen, p.admin = fmt.Sprint(line["listen"]), fmt.Sprint(line["admin"])
}

// Everything is in etcd, the Sidecar too. Files that it names beside that are followed: documents, with a name of their own or without,
// and keys.
func TestSidecarFromEtcd(t *testing.T) {
	s, service, folder := newStore(t), newService(t, hello), t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := func(tenant, key string) string { return fmt.Sprintf("%s:%x\n", tenant, sha256.Sum256([]byte(key))) }
	keys := write("keys", key("acme", "one"))
	sidecar := documentsFor(service.address(), fmt.Sprintf("policies: [{file: {path: %s}}, {name: team, file: {path: %s}}]",
		write("acme.yaml", limitDocument("acme", 2)), write("globex.yaml", limitDocument("globex", 2))))
	sidecar = strings.Replace(sidecar, "identity: [", "identity: [{apiKey: {keysFile: "+keys+"}}, ", 1)
	for _, document := range strings.Split(sidecar, "---\n") {
		d, problems := policy.Decode("", []byte(document))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		s.Put(keyOf(string(d[0].Kind), d[0].Name), document)
	}
	p := start(t, "", func(cmd *exec.Cmd) { cmd.Args = []string{cmd.Args[0], "run", "--etcd", s.url()} })
	p.serves()
	if got := p.passes("acme", 5); got != 2 {
		t.Errorf("%d of 5 requests passed, want 2", got)
	}
	p.shows("/policy", `acme.yaml:1:1`, `origin: "etcd:Sidecar/orders:1:1"`)
	p.shows("/status", "source etcd", "source file", "source team")
	write("globex.yaml", limitDocument("globex", 0))
	until(t, "the file of the source team is read again", func() bool {
		page, err := p.ask("/policy")
		return err == nil && strings.Contains(page, "requests: 0, per")
	})
	write("keys", key("acme", "two"))
	c := p.dial()
	until(t, "the keys are read again", func() bool {
		c.send("GET / HTTP/1.1\r\nHost: weir\r\nX-API-Key: two\r\n\r\n")
		resp, _, err := c.answer()
		return err == nil && resp.StatusCode == 429 // acme's, whose bucket is empty
	})
	p.stops()
}

// Without etcd, a sidecar starts from its last-good file, says so, and is in step again when etcd is back.
func TestStartWithoutEtcd(t *testing.T) {
	s, service := newStore(t), newService(t, hello)
	s.limit("acme", 2)
	lastGood := filepath.Join(t.TempDir(), "last-good.yaml")
	documents := documentsFor(service.address(), "lastGood: "+lastGood)
	first := launch(t, documents, with("--etcd", s.url()))
	until(t, "it is kept", func() bool {
		page, err := first.ask("/status")
		return err == nil && strings.Contains(page, lastGood+", written 2")
	})
	first.stops()

	s.line.Cut()
	p := launch(t, documents, with("--etcd", s.url()))
	p.says("policy is broken or cannot be read at the start, the last-good file stands in")
	p.shows("/readyz", "200 OK")
	p.shows("/status", "source etcd", "unreadable: ", "1 document in force from it")
	if got := p.metric("weir_policy_source", `source="last-good"`); got != 1 {
		t.Errorf(`weir_policy_source{source="last-good"} is %v, want 1`, got)
	}
	if got := p.passes("acme", 5); got != 2 {
		t.Errorf("%d of 5 requests passed, want 2 as before", got)
	}
	s.limit("globex", 1)
	s.line.Heal()
	until(t, "the last-good file is not in use any more", func() bool { return p.metric("weir_policy_source", `source="last-good"`) == 0 })
	if got := p.passes("globex", 5); got != 1 {
		t.Errorf("%d of 5 requests of a new tenant passed, want 1", got)
	}
	if got := p.passes("acme", 5); got != 0 {
		t.Errorf("%d requests passed: the bucket was filled by the return of etcd", got)
	}
	p.stops()
}

// On a first start there is nothing to go by. It waits and says for what, or does without when it is told to.
func TestFirstStartWithoutEtcd(t *testing.T) {
	s, service := newStore(t), newService(t, hello)
	s.limit("acme", 2)
	s.line.Cut()
	documents := documentsFor(service.address())
	p := start(t, documents, with("--etcd", s.url()))
	p.admin = fmt.Sprint(p.says("waiting: the admin port says what for")["admin"])
	p.shows("/readyz", "503 Service Unavailable", "no policy is applied yet, waiting for the source etcd: ")
	p.shows("/livez", "200 OK")
	p.shows("/metrics", "weir_policy_revision 0")
	s.line.Heal()
	p.serves()
	p.shows("/readyz", "200 OK")
	if got := p.passes("acme", 5); got != 2 {
		t.Errorf("%d of 5 requests passed, want 2", got)
	}
	p.stops()

	s.line.Cut()
	waiting := start(t, documents, with("--etcd", s.url()))
	waiting.says("not ready: waiting for policy sources")
	waiting.stops()

	without := launch(t, documents, with("--etcd", s.url(), "--without-etcd", "serve"))
	if got := without.passes("acme", 5); got != 5 {
		t.Errorf("%d of 5 requests passed, want all", got)
	}
	s.line.Heal()
	until(t, "the limit is in force", func() bool { return without.passes("acme", 1) == 0 })
	without.stops()

	s.line.Cut()
	nothing := start(t, "", func(cmd *exec.Cmd) {
		cmd.Args = []string{cmd.Args[0], "run", "--etcd", s.url(), "--without-etcd", "serve"}
	})
	nothing.ends(exitFailed)
	if !strings.Contains(nothing.stderr.String(), "nothing to run: without the policy source etcd the documents do not suffice") {
		t.Errorf("it said %s", nothing.stderr)
	}
}

// An emptied prefix lifts nobody's limit, and the way out is in the log.
func TestEmptiedPrefix(t *testing.T) {
	s, service := newStore(t), newService(t, hello)
	for _, tenant := range []string{"acme", "globex", "initech"} {
		s.limit(tenant, 2)
	}
	p := launch(t, documentsFor(service.address()), with("--etcd", s.url()))
	if _, err := s.Client().Delete(t.Context(), "/weir/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	p.says("policy problem: etcd: held back: the removal of 3 of 3 tenants (100 %): acme, globex, initech")
	if got := p.passes("acme", 5); got != 2 {
		t.Errorf("%d of 5 requests passed, want 2", got)
	}
	if got := p.metric("weir_policy_held_removals", `source="etcd"`); got != 3 {
		t.Errorf("weir_policy_held_removals is %v, want 3", got)
	}
	s.limit("acme", 2)
	code, stdout, stderr := call(map[string]string{"SIDECAR_ETCD": s.Endpoint(0)}, "apply", "--confirm-removals")
	if code != exitFine || !strings.Contains(stdout, "the removals until now are confirmed") {
		t.Fatalf("apply --confirm-removals: %d, %s%s", code, stdout, stderr)
	}
	until(t, "the removal has passed", func() bool { return p.metric("weir_policy_held_removals", `source="etcd"`) == 0 })
	if got := p.passes("globex", 5); got != 5 {
		t.Errorf("%d of 5 requests passed, want all", got)
	}
	p.stops()
}
