package etcd

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"weir/control/etcd/etcdtest"
	"weir/proxy/certs/certtest"
)

// keyPair are the files of a certificate.
type keyPair struct{ cert, key string }

// issue writes a certificate of an authority to the files.
func (p keyPair) issue(t *testing.T, from *certtest.Authority, leaf certtest.Leaf) {
	t.Helper()
	leaf.Names = []string{"127.0.0.1", "localhost"}
	cert, key := from.Issue(leaf)
	replace(t, p.cert, string(cert))
	replace(t, p.key, string(key))
}

func pairIn(dir, name string) keyPair {
	return keyPair{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
}

// Certificates and authorities of both sides are replaced, and expire, while a watch goes on.
func TestCertificatesAreRotated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := certtest.New("first"), certtest.New("second")
	server, client, ca, serverCA := pairIn(dir, "server"), pairIn(dir, "client"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server-ca.pem")
	server.issue(t, first, certtest.Leaf{})
	client.issue(t, first, certtest.Leaf{})
	replace(t, ca, string(first.PEM))
	replace(t, serverCA, string(first.PEM)+string(second.PEM))
	cluster := etcdtest.Start(t, etcdtest.Options{TLS: &transport.TLSInfo{
		CertFile: server.cert, KeyFile: server.key, TrustedCAFile: serverCA, ClientCertAuth: true, ClientCertFile: server.cert, ClientKeyFile: server.key,
	}})
	relay := etcdtest.NewRelay(t, cluster.Address(0))
	c := open(t, Options{Endpoints: []string{"https://" + relay.Address()}, Timeout: time.Second, TLS: TLSFiles{CAFile: ca, CertFile: client.cert, KeyFile: client.key}})
	writer := open(t, Options{Endpoints: cluster.Endpoints(), TLS: TLSFiles{CAFile: serverCA, CertFile: client.cert, KeyFile: client.key}})
	revision := int64(0)
	put := func(value string) {
		t.Helper()
		var err error
		if revision, err = writer.Commit(t.Context(), []Write{{Key: "/w/a", Value: []byte(value), Expect: revision}}); err != nil {
			t.Fatal(err)
		}
	}
	reconnect := func() { relay.Cut(); relay.Heal() }
	put("1")
	w := follow(t, brisk(c))
	w.has("a=1")
	w.connected()

	// The server's certificate comes from another authority, which the client does not trust until its file says so.
	server.issue(t, second, certtest.Leaf{})
	reconnect()
	w.failing(Certificate)
	replace(t, ca, string(first.PEM)+string(second.PEM))
	put("2")
	w.has("a=2")

	// The server's certificate expires, and is replaced.
	server.issue(t, second, certtest.Leaf{Begins: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)})
	reconnect()
	w.failing(Certificate)
	server.issue(t, second, certtest.Leaf{})
	put("3")
	w.has("a=3")

	// The client's certificate expires, and is replaced.
	client.issue(t, first, certtest.Leaf{Begins: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)})
	reconnect()
	w.failing(Certificate)
	client.issue(t, second, certtest.Leaf{})
	put("4")
	w.has("a=4")
	w.lists(1)
}

// guarded is a cluster that asks who one is.
type guarded struct {
	*etcdtest.Cluster
	t    *testing.T
	root *clientv3.Client
}

// newGuarded starts one with a root user, and a user "sidecar" with the password "first" and the role "sidecar", which may nothing yet.
func newGuarded(t *testing.T) guarded {
	t.Helper()
	g := guarded{etcdtest.Start(t, etcdtest.Options{Configure: func(c *embed.Config) { c.BcryptCost = 4 }}), t, nil}
	plain := g.Client()
	ctx := t.Context()
	g.done(plain.UserAdd(ctx, "root", "root"))
	g.done(plain.UserGrantRole(ctx, "root", "root"))
	g.done(plain.RoleAdd(ctx, "sidecar"))
	g.done(plain.UserAdd(ctx, "sidecar", "first"))
	g.done(plain.UserGrantRole(ctx, "sidecar", "sidecar"))
	g.done(plain.AuthEnable(ctx))
	var err error
	if g.root, err = clientv3.New(clientv3.Config{Endpoints: g.Endpoints(), Username: "root", Password: "root"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.root.Close() })
	return g
}

func (g guarded) done(_ any, err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// grant gives the role of sidecars a permission below a prefix.
func (g guarded) grant(prefix string, what clientv3.PermissionType) {
	g.t.Helper()
	g.done(g.root.RoleGrantPermission(g.t.Context(), "sidecar", prefix, clientv3.GetPrefixRangeEnd(prefix), what))
}

func (g guarded) put(value string) {
	g.t.Helper()
	g.done(g.root.Put(g.t.Context(), "/w/a", value))
}

// The password is changed in etcd and later in the file; the user is removed and made again; the permission is taken and given back.
// Each heals by itself.
func TestUsersAreRotated(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	g.grant("/w/", clientv3.PermissionType(clientv3.PermRead))
	relay, endpoint := lineTo(t, g.Cluster, 0)
	password := filepath.Join(t.TempDir(), "password")
	replace(t, password, "first\n")
	g.put("1")
	o := brisk(open(t, Options{Endpoints: []string{endpoint}, Username: "sidecar", PasswordFile: password, Timeout: time.Second}))
	o.Random = func() float64 { return 0 } // the waits after a refusal are long
	w := follow(t, o)
	w.has("a=1")
	w.connected()
	reconnect := func() { relay.Cut(); relay.Heal() }

	g.done(g.root.UserChangePassword(t.Context(), "sidecar", "second"))
	reconnect()
	w.failing(Login)
	replace(t, password, "second\n")
	g.put("2")
	w.has("a=2")

	g.done(g.root.UserDelete(t.Context(), "sidecar"))
	reconnect()
	w.failing(Login)
	g.done(g.root.UserAdd(t.Context(), "sidecar", "third"))
	g.done(g.root.UserGrantRole(t.Context(), "sidecar", "sidecar"))
	replace(t, password, "third\n")
	g.put("3")
	w.has("a=3")

	g.done(g.root.RoleRevokePermission(t.Context(), "sidecar", "/w/", clientv3.GetPrefixRangeEnd("/w/")))
	reconnect()
	w.failing(Forbidden)
	g.grant("/w/", clientv3.PermissionType(clientv3.PermRead))
	g.put("4")
	w.has("a=4")

	// The file is gone, just when the password is asked for.
	g.done(g.root.UserChangePassword(t.Context(), "sidecar", "fourth"))
	replace(t, password, "")
	reconnect()
	w.failing(Files)
	replace(t, password, "fourth")
	g.put("5")
	w.has("a=5")
	w.lists(1)
}

// A permission that is taken while the watch goes on, which etcd does not end, is noticed by the next comparison.
func TestRevokedWhileWatching(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	g.grant("/w/", clientv3.PermissionType(clientv3.PermRead))
	password := filepath.Join(t.TempDir(), "password")
	replace(t, password, "first")
	g.put("1")
	o := brisk(open(t, Options{Endpoints: g.Endpoints(), Username: "sidecar", PasswordFile: password}))
	o.DigestEvery = 200 * time.Millisecond
	w := follow(t, o)
	w.has("a=1")
	w.connected()
	g.done(g.root.RoleRevokePermission(t.Context(), "sidecar", "/w/", clientv3.GetPrefixRangeEnd("/w/")))
	w.failing(Forbidden)
	w.logged("role grant-permission", 1)
}

// The role of docs/policies-from-etcd.md is enough for a sidecar, and allows no more.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	layout := LayoutAt("/weir")
	g.grant(layout.Policy(), clientv3.PermissionType(clientv3.PermRead))
	g.grant(layout.Fleet("orders"), clientv3.PermissionType(clientv3.PermReadWrite))
	password := filepath.Join(t.TempDir(), "password")
	replace(t, password, "first")
	c := open(t, Options{Endpoints: g.Endpoints(), Username: "sidecar", PasswordFile: password})
	w := follow(t, FollowerOptions{Client: c, Prefix: layout.Policy()})
	w.has("")
	w.connected()
	f := func(key string, want error) {
		t.Helper()
		_, err := c.Commit(t.Context(), []Write{{Key: key, Value: []byte("x")}})
		if got := rpctypes.Error(err); (got == nil) != (want == nil) || CauseOf(err) != Forbidden && want != nil {
			t.Errorf("writing %s: got %v, want %v", key, err, want)
		}
	}
	f(layout.Document("TenantPolicy", "gold"), rpctypes.ErrPermissionDenied)
	f(layout.Change(), rpctypes.ErrPermissionDenied)
	f(layout.Fleet("orders")+"members/1", nil)
	f(layout.Fleet("billing")+"members/1", rpctypes.ErrPermissionDenied)
	if _, err := c.Read(t.Context(), layout.Fleet("billing"), 0); CauseOf(err) != Forbidden {
		t.Errorf("reading another service: %v, want it to be forbidden", err)
	}
	// A lease, which members live by, needs no permission of its own.
	lease, err := c.Etcd().Grant(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Etcd().KeepAliveOnce(context.WithoutCancel(t.Context()), lease.ID); err != nil {
		t.Error(err)
	}
}
