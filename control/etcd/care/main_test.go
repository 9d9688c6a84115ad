package care

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
	"weir/proxy/certs/certtest"
)

// TestMain also sees that nothing is left running. Members of one cluster talk to each other by HTTP, and one that is closed may leave a
// connection behind until its other end finds out.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/schedule.(*fifo).run"), // of a server that was closed
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"),
	)
}

// open is a client with little patience, of these endpoints.
func open(t *testing.T, endpoints ...string) *etcd.Client {
	t.Helper()
	c, err := etcd.Open(etcd.Options{Endpoints: endpoints, Timeout: time.Second, Eager: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// until waits for a condition.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not so after 20 s", what)
		}
	}
}

// pki are files of an authority and of what it has signed.
type pki struct {
	authority *certtest.Authority
	dir       string
}

func newPKI(t *testing.T) pki {
	p := pki{certtest.New("etcd-ca"), t.TempDir()}
	p.write(t, "ca.crt", p.authority.PEM)
	return p
}

func (p pki) path(name string) string { return filepath.Join(p.dir, name) }

func (p pki) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(p.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue writes a certificate that expires in so long, and its key.
func (p pki) issue(t *testing.T, name string, expires time.Duration) {
	t.Helper()
	now := time.Now()
	cert, key := p.authority.Issue(certtest.Leaf{Names: []string{"127.0.0.1"}, Begins: now.AddDate(0, -6, 0), Expires: now.Add(expires)})
	p.write(t, name+".crt", cert)
	p.write(t, name+".key", key)
}

// server is what a member with that certificate shows and asks for.
func (p pki) server(name string) *transport.TLSInfo {
	return &transport.TLSInfo{CertFile: p.path(name + ".crt"), KeyFile: p.path(name + ".key"), TrustedCAFile: p.path("ca.crt"), ClientCertAuth: true}
}

// fill writes so many bytes below /junk/, in values of 1 MiB.
func fill(t *testing.T, c *etcdtest.Cluster, bytes int) {
	t.Helper()
	client := c.Client()
	value := string(make([]byte, mib))
	for range bytes / mib {
		if _, err := client.Put(context.Background(), "/junk/a", value); err != nil {
			t.Fatal(err)
		}
	}
}

// compact forgets all old revisions, and returns when their space is free in the members.
func compact(t *testing.T, c *etcdtest.Cluster, members *etcd.Client) {
	t.Helper()
	client := c.Client()
	now, err := client.Get(context.Background(), "/junk/a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(context.Background(), now.Header.Revision); err != nil {
		t.Fatal(err)
	}
	until(t, "old revisions are gone", func() bool {
		if _, err := client.Put(context.Background(), "/junk/b", ""); err != nil { // etcd counts freed pages as it writes
			t.Fatal(err)
		}
		for _, m := range Ask(context.Background(), members).Members {
			if m.Err != nil || m.InUse > 5*mib {
				return false
			}
		}
		return true
	})
}

// compactFull forgets all old revisions of a store of one member that takes no writes.
func compactFull(t *testing.T, c *etcdtest.Cluster) {
	t.Helper()
	client := c.Client()
	now, err := client.Get(context.Background(), "/junk/a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(context.Background(), now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
}
