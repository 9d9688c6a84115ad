package etcd

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"weir/control/etcd/etcdtest"
)

func TestCommitComparesRevisions(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c, err := Open(Options{Endpoints: cluster.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	first, err := c.Commit(ctx, []Write{{Key: "/w/a", Value: []byte("1")}, {Key: "/w/b", Value: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Commit(ctx, []Write{{Key: "/w/a", Value: []byte("2"), Expect: first}, {Key: "/w/b", Value: []byte("2")}}); !errors.Is(err, ErrConflict) {
		t.Errorf("a key that is there, as one that is not: got %v, want a conflict", err)
	}
	second, err := c.Commit(ctx, []Write{{Key: "/w/a", Expect: first}, {Key: "/w/b", Value: []byte("2"), Expect: first}})
	if err != nil {
		t.Fatal(err)
	}
	now, err := c.Read(ctx, "/w/", 0)
	if err != nil || len(now.Items) != 1 || now.Items[0].Key != "/w/b" || now.Items[0].Modified != second || now.Items[0].Version != 2 {
		t.Errorf("now: %+v, %v", now, err)
	}
	then, err := c.Read(ctx, "/w/", first)
	if err != nil || len(then.Items) != 2 || then.Revision != first {
		t.Errorf("at the first revision: %+v, %v", then, err)
	}
	if _, err := cluster.Client().Compact(ctx, second); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(ctx, "/w/", first); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("at a forgotten revision: got %v, want compacted", err)
	}
}
