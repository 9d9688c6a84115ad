package care

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd"
)

// Access is what our user may do, found out without changing anything.
type Access struct {
	// User is who we log in as; empty: nobody.
	User string
	// Login says whether etcd asks who we are at all.
	Login Login
	// ReadPolicy, WriteMember and WritePolicy say why it may not: nil when it may.
	ReadPolicy, WriteMember, WritePolicy error
	// Written is how long a write took that the members agreed on and that changed nothing; 0 when none was possible.
	Written time.Duration
	// Roles are those of the user, if it may know them.
	Roles []string
}

// Login says whether a cluster asks its clients who they are.
type Login int

// What is known of that. Clusters before etcd 3.5 do not say.
const (
	LoginUnknown Login = iota
	LoginOff
	LoginOn
)

// unwritten is the end of keys that nobody writes: they are only asked about.
const unwritten = "check"

// try finds out what else we may do: whether we may write below the fleet of a service, as a sidecar must. Writes are tried in a
// transaction whose condition never holds. Etcd checks the permission for all of it all the same.
func (a *Access) try(ctx context.Context, c *etcd.Client, layout etcd.Layout, service string) {
	var asking sync.WaitGroup
	asking.Go(func() { a.Login = login(ctx, c) })
	asking.Go(func() {
		begun := time.Now()
		if a.WriteMember = mayWrite(ctx, c, layout.Fleet(cmp.Or(service, unwritten))+"members/"+unwritten); a.WriteMember == nil {
			a.Written = time.Since(begun)
		}
	})
	asking.Go(func() { a.WritePolicy = mayWrite(ctx, c, layout.Policy()+unwritten) })
	asking.Go(func() { a.Roles = roles(ctx, c, a.User) })
	asking.Wait()
}

func login(ctx context.Context, c *etcd.Client) Login {
	ctx, cancel := c.Call(ctx)
	defer cancel()
	answer, err := c.Etcd().AuthStatus(ctx)
	switch {
	case err != nil && etcd.Denied(err):
		return LoginOn
	case err != nil:
		return LoginUnknown
	case answer.Enabled:
		return LoginOn
	}
	return LoginOff
}

func mayRead(ctx context.Context, c *etcd.Client, prefix string) error {
	ctx, cancel := c.Call(ctx)
	defer cancel()
	_, err := c.Etcd().Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
	if err != nil {
		return explain(ctx, err)
	}
	return nil
}

func mayWrite(ctx context.Context, c *etcd.Client, key string) error {
	ctx, cancel := c.Call(ctx)
	defer cancel()
	never := clientv3.Compare(clientv3.Version(key), "<", 0)
	answer, err := c.Etcd().Txn(ctx).If(never).Then(clientv3.OpPut(key, "")).Commit()
	switch {
	case err != nil:
		return explain(ctx, err)
	case answer.Succeeded:
		panic("BUG: a key was written less than no times")
	}
	return nil
}

// roles are those of the user; none when it may not know them.
func roles(ctx context.Context, c *etcd.Client, user string) []string {
	if user == "" {
		return nil
	}
	ctx, cancel := c.Call(ctx)
	defer cancel()
	answer, err := c.Etcd().UserGet(ctx, user)
	if err != nil {
		return nil
	}
	return slices.Sorted(slices.Values(answer.Roles))
}

// refused reports whether etcd does not let us in at all, which is another thing than a permission that is missing.
func refused(err error) bool {
	return etcd.Denied(err) && !errors.Is(rpctypes.Error(err), rpctypes.ErrPermissionDenied)
}

// full reports whether a write failed since the store has no space left.
func full(err error) bool { return errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace) }
