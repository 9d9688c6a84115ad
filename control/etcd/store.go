package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Item is one key with its value.
type Item struct {
	Key   string
	Value []byte
	// Created and Modified are the revisions of the store at which the key came to be and was written last; Version counts the writes
	// in between.
	Created, Modified, Version int64
	// Lease is what the key lives by; 0: it stays.
	Lease int64
}

// View is what lay below a prefix at one revision of the store.
type View struct {
	Revision int64
	Items    []Item // sorted by key
}

// Find returns the item of a key.
func (v View) Find(key string) (Item, bool) {
	i, ok := slices.BinarySearchFunc(v.Items, key, func(item Item, key string) int { return strings.Compare(item.Key, key) })
	if !ok {
		return Item{}, false
	}
	return v.Items[i], true
}

// pageItems is how many keys are asked for at once, so that no answer is larger than etcd can send.
const pageItems = 512

// Read reads everything below a prefix, as it was at one revision; 0 means now. It fails with [rpctypes.ErrCompacted] when that revision
// is forgotten.
func (c *Client) Read(ctx context.Context, prefix string, revision int64) (View, error) {
	v := View{Revision: revision}
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		page, err := c.page(ctx, from, end, v.Revision)
		if err != nil {
			return View{}, fmt.Errorf("cannot read %s: %w", prefix, c.Explain(err))
		}
		if v.Revision == 0 {
			v.Revision = page.Header.Revision
		}
		for _, kv := range page.Kvs {
			v.Items = append(v.Items, itemOf(kv))
		}
		if !page.More {
			return v, nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

func (c *Client) page(ctx context.Context, from, end string, revision int64) (*clientv3.GetResponse, error) {
	ctx, cancel := c.Call(ctx)
	defer cancel()
	return c.Etcd().Get(ctx, from, clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithLimit(pageItems))
}

// Write is one key to be put or deleted.
type Write struct {
	Key string
	// Value is what to put; nil deletes the key.
	Value []byte
	// Expect is the revision at which the key must have been written last; 0: it must not be there.
	Expect int64
}

// MaxWrites is how many writes fit into one transaction of a cluster with default settings.
const MaxWrites = 128

// ErrConflict says that somebody else has written one of the keys since it was read.
var ErrConflict = errors.New("changed by somebody else meanwhile")

// Commit does all of the writes or, with [ErrConflict] and the keys that differ, none. It returns the revision of the store that has
// them. There are at most [MaxWrites].
func (c *Client) Commit(ctx context.Context, writes []Write) (revision int64, err error) {
	if len(writes) > MaxWrites {
		return 0, fmt.Errorf("cannot write %d keys at once, want at most %d", len(writes), MaxWrites)
	}
	ctx, cancel := c.Call(ctx)
	defer cancel()
	var (
		conditions   []clientv3.Cmp
		puts, checks []clientv3.Op
	)
	for _, w := range writes {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(w.Key), "=", w.Expect))
		checks = append(checks, clientv3.OpGet(w.Key, clientv3.WithKeysOnly()))
		if w.Value == nil {
			puts = append(puts, clientv3.OpDelete(w.Key))
		} else {
			puts = append(puts, clientv3.OpPut(w.Key, string(w.Value)))
		}
	}
	answer, err := c.Etcd().Txn(ctx).If(conditions...).Then(puts...).Else(checks...).Commit()
	if err != nil {
		return 0, fmt.Errorf("cannot write %d keys: %w", len(writes), c.Explain(err))
	}
	if answer.Succeeded {
		return answer.Header.Revision, nil
	}
	var changed []string
	for i, r := range answer.Responses {
		var now int64
		if kvs := r.GetResponseRange().Kvs; len(kvs) > 0 {
			now = kvs[0].ModRevision
		}
		if now != writes[i].Expect {
			changed = append(changed, writes[i].Key)
		}
	}
	return 0, fmt.Errorf("cannot write %d keys: %w: %s", len(writes), ErrConflict, strings.Join(changed, ", "))
}
