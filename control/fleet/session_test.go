package fleet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"weir/control/etcd/etcdtest"
)

// A process that was stopped for longer than its lease may live does not ask whether it still has it.
func TestLifeEndsWhileTheProcessStandsStill(t *testing.T) {
	s := &session{client: open(t, "http://127.0.0.1:1"), ttl: time.Millisecond}
	err := s.keep(context.Background(), 1, time.Now().Add(-time.Second))
	if !errors.Is(err, errLost) || !strings.Contains(err.Error(), "stood still") {
		t.Errorf("got %v, want that the lease ran out while the process stood still", err)
	}
}

// A lease that is gone is given up at once, however long it was to live.
func TestLeaseThatIsGone(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, cluster.Endpoint(0))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := &session{client: c, ttl: 30 * time.Millisecond}
	if err := s.keep(ctx, 42, time.Now().Add(time.Hour)); !errors.Is(err, errLost) {
		t.Errorf("got %v, want that the lease is lost", err)
	}
}

// A life ends before its lease can, so that nobody coordinates by a lease that another one has outlived.
func TestLifeIsShorterThanItsLease(t *testing.T) {
	for _, ttl := range []int64{1, 2, 15, 60} {
		lease := time.Duration(ttl) * time.Second
		if got := lifeOf(ttl); got >= lease || got < lease*9/10 {
			t.Errorf("a life of %v by a lease of %v, want a little less than that", got, lease)
		}
	}
}

// A password that is rotated while a sidecar runs is read again when etcd refuses the one before.
func TestPasswordIsRotated(t *testing.T) {
	t.Parallel()
	// Passwords are hashed at the least cost, so that a slow machine answers in time.
	cluster := etcdtest.Start(t, etcdtest.Options{Configure: func(c *embed.Config) { c.BcryptCost = 4 }})
	ctx, plain, dir := context.Background(), cluster.Client(), t.TempDir()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	password := func(user, text string) string {
		t.Helper()
		path := filepath.Join(dir, user)
		must(nil, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	all := clientv3.GetPrefixRangeEnd("/")
	for user, text := range map[string]string{"root": "r", "sidecar": "first"} {
		must(plain.UserAdd(ctx, user, text))
		must(plain.RoleAdd(ctx, user))
		must(plain.UserGrantRole(ctx, user, user))
	}
	must(plain.RoleGrantPermission(ctx, "sidecar", "/", all, clientv3.PermissionType(clientv3.PermReadWrite)))
	must(plain.AuthEnable(ctx))
	root := openAs(t, "root", password("root", "r"), cluster.Endpoint(0))
	s := join(t, openAs(t, "sidecar", password("sidecar", "first"), cluster.Endpoint(0)), "web-1")
	eventually(t, "it is registered", func() bool { return s.registered(t) })

	must(root.Etcd().UserChangePassword(ctx, "sidecar", "second"))
	eventually(t, "it is refused", func() bool { return !s.registered(t) })
	password("sidecar", "second")
	eventually(t, "it is back", func() bool { return s.registered(t) && len(members(t, root)) == 1 })
}
