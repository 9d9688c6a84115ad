package etcd

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// vanishedEvery is how often etcd is asked whether it has told of everything. It tells of the past ten times a second.
const vanishedEvery = 150 * time.Millisecond

// vanished finds where the record of changes was deleted last, up to a revision at which it is not there: somebody emptied the prefix
// with another tool, and what was before can still be told. It returns 0 when the record was never there, as far as etcd remembers.
//
// A key that is not there has no revision to go by, and etcd can only be asked for what it was at one. But a watch from the beginning
// tells of every time that it was deleted.
func (w *historian) vanished(ctx context.Context, at int64) (gone int64, err error) {
	ctx, cancel := w.client.Call(ctx)
	defer cancel()
	from := int64(1)
	for ctx.Err() == nil {
		var compacted int64
		if gone, compacted, err = w.deletions(ctx, from, at); err != nil || compacted <= from {
			return gone, err
		}
		from = compacted
	}
	return 0, ctx.Err()
}

// deletions watches from one revision to another. When the former is forgotten, it returns the first that is not.
func (w *historian) deletions(ctx context.Context, from, at int64) (last, compacted int64, err error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	client := w.client.Etcd()
	told := client.Watch(ctx, w.layout.Change(), clientv3.WithRev(from), clientv3.WithFilterPut())
	ask := time.NewTicker(vanishedEvery)
	defer ask.Stop()
	for {
		select {
		case answer, open := <-told:
			switch {
			case !open:
				return 0, 0, ctx.Err()
			case answer.CompactRevision > 0:
				return 0, answer.CompactRevision, nil
			case answer.Err() != nil:
				return 0, 0, rpctypes.Error(answer.Err())
			case answer.IsProgressNotify() && answer.Header.Revision >= at:
				return last, 0, nil
			}
			for _, e := range answer.Events {
				if e.Kv.ModRevision <= at {
					last = e.Kv.ModRevision
				}
			}
		case <-ask.C:
			if err := client.RequestProgress(ctx); err != nil {
				return 0, 0, rpctypes.Error(err)
			}
		}
	}
}
