package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

// The watch is spoken on a stream of our own rather than by etcd's client. That one resumes by itself, at once, without jitter and for
// ever, and tells nobody that it is not connected; and it takes any sign of progress for one of ours.

// message is an answer of the watch, or its end.
type message struct {
	stream pb.Watch_WatchClient
	answer *pb.WatchResponse
	err    error
}

// watch follows the changes after the view's revision until it cannot, and returns why.
func (c *course) watch(ctx context.Context, client *clientv3.Client) error {
	var helpers sync.WaitGroup
	defer helpers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages := make(chan message, 64)
	helpers.Go(func() { c.receive(ctx, client, messages) })
	first, err := c.opening(ctx, client, messages)
	if err == nil {
		err = c.created(ctx, first.answer)
	}
	if err != nil {
		return err
	}
	t := &tail{course: c, stream: first.stream, id: first.answer.WatchId, verdicts: make(chan verdict, 1), helpers: &helpers}
	return ended(t.run(ctx, messages))
}

// opening waits for the first answer. When it takes long that is told, but the question stays where it is: to take it back and ask again
// would only add to the load of a member that is busy with the questions of thousands.
func (c *course) opening(ctx context.Context, client *clientv3.Client, messages <-chan message) (message, error) {
	slow := time.NewTicker(c.o.Client.Timeout())
	defer slow.Stop()
	hopeless := time.NewTimer(c.o.Quiet + c.o.Stall)
	defer hopeless.Stop()
	for {
		select {
		case first := <-messages:
			return first, rpctypes.Error(first.err)
		case <-slow.C:
			c.trouble(c.o.Client.Explain(late(client, c.o.Client.Timeout())))
		case <-hopeless.C:
			return message{}, late(client, c.o.Quiet+c.o.Stall)
		case <-ctx.Done():
			return message{}, ctx.Err()
		}
	}
}

// late is the error of a watch that is not open after a time: a member is silent, or there is none.
func late(client *clientv3.Client, after time.Duration) error {
	if client.ActiveConnection().GetState() == connectivity.Ready {
		return &causeError{Stalled, fmt.Sprintf("connected, but no watch was opened within %s", after)}
	}
	return fmt.Errorf("no watch was opened within %s: %w", after, context.DeadlineExceeded)
}

// ended is the error of a watch that was open.
func ended(err error) error {
	err = rpctypes.Error(err)
	if status.Code(err) != codes.Unavailable || CauseOf(err) != Unreachable {
		return err
	}
	if strings.Contains(err.Error(), "keepalive") {
		return &causeError{Stalled, fmt.Sprintf("the connection is dead: %v", err)}
	}
	return &causeError{Ended, fmt.Sprintf("the connection is lost: %v", err)}
}

// subscribe asks for the changes after the view's revision, at a member that is in touch with a leader.
func (c *course) subscribe(ctx context.Context, client *clientv3.Client) (pb.Watch_WatchClient, error) {
	stream, err := pb.NewWatchClient(client.ActiveConnection()).Watch(clientv3.WithRequireLeader(ctx), grpc.WaitForReady(true),
		grpc.MaxCallRecvMsgSize(math.MaxInt32)) // what came while the watch was made is sent in one piece
	if err != nil {
		return nil, err
	}
	return stream, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key:            []byte(c.o.Prefix),
		RangeEnd:       []byte(clientv3.GetPrefixRangeEnd(c.o.Prefix)),
		StartRevision:  c.view.Revision + 1,
		ProgressNotify: true,
		Fragment:       true,
	}}})
}

// receive asks, and passes on what comes until the stream ends, and that it did.
func (c *course) receive(ctx context.Context, client *clientv3.Client, messages chan<- message) {
	stream, err := c.subscribe(ctx, client)
	for {
		m := message{stream: stream, err: err}
		if err == nil {
			m.answer, m.err = stream.Recv()
		}
		select {
		case messages <- m:
		case <-ctx.Done():
			return
		}
		if m.err != nil {
			return
		}
	}
}

// created checks the first answer.
func (c *course) created(ctx context.Context, first *pb.WatchResponse) error {
	if err := c.refused(first); err != nil {
		return err
	}
	if !first.Created {
		return errors.New("the watch began with something else than its creation")
	}
	if now := first.Header.GetRevision(); now < c.view.Revision {
		if err := c.wentBack(ctx, now); err != nil {
			return err
		}
	}
	resumed := c.cluster != 0
	c.cluster = first.Header.GetClusterId()
	c.open(resumed)
	return nil
}

// wentBack tells a member that lags, which catches up, from a store that went back in time, by asking the cluster rather than the
// member.
func (c *course) wentBack(ctx context.Context, member int64) error {
	ctx, cancel := c.o.Client.Call(ctx)
	defer cancel()
	answer, err := c.o.Client.Etcd().Get(ctx, c.o.Prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("cannot tell why a member is at revision %d, before ours: %w", member, err)
	}
	if now := answer.Header.Revision; now < c.view.Revision {
		return &causeError{Restored, fmt.Sprintf("the store is at revision %d, and was at %d", now, c.view.Revision)}
	}
	return nil
}

// refused is the error that an answer carries, if it does.
func (c *course) refused(answer *pb.WatchResponse) error {
	id := answer.Header.GetClusterId()
	switch {
	case c.cluster != 0 && id != 0 && id != c.cluster:
		return &causeError{Restored, fmt.Sprintf("another cluster answers: %x in the place of %x", id, c.cluster)}
	case answer.CompactRevision != 0:
		return &causeError{Compacted, fmt.Sprintf("revision %d is forgotten, the store begins at %d", c.view.Revision+1, answer.CompactRevision)}
	case answer.Canceled:
		return canceled(answer.CancelReason)
	}
	return nil
}

// canceled makes an error of etcd's out of the reason of a cancellation, which is a gRPC error as text.
func canceled(reason string) error {
	if _, text, ok := strings.Cut(reason, " desc = "); ok {
		reason = text
	}
	if reason == "" {
		return &causeError{Ended, "etcd has ended the watch"}
	}
	return rpctypes.Error(errors.New(reason))
}

// tail is a watch that is open.
type tail struct {
	*course
	stream   pb.Watch_WatchClient
	id       int64
	inbox    inbox
	verdicts chan verdict // of the comparison that runs, if one does
	checking bool
	helpers  *sync.WaitGroup
}

// run applies what comes until the watch ends.
func (t *tail) run(ctx context.Context, messages <-chan message) error {
	quiet := time.NewTimer(t.o.Quiet)
	defer quiet.Stop()
	digest := time.NewTimer(t.untilCheck())
	defer digest.Stop()
	asked := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.kick:
			return &causeError{Asked, "somebody asked for it"}
		case m := <-messages:
			if err := t.take(m, messages); err != nil {
				return err
			}
			asked = false
			quiet.Reset(t.o.Quiet)
			if t.apply() {
				t.check(ctx)
			}
		case <-quiet.C:
			if asked {
				return &causeError{Stalled, fmt.Sprintf("no sign of life for %s", t.o.Quiet+t.o.Stall)}
			}
			asked = true
			quiet.Reset(t.o.Stall)
			if err := t.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}); err != nil {
				continue // the end of the stream says why
			}
		case <-digest.C:
			digest.Reset(t.untilCheck())
			t.check(ctx)
		case v := <-t.verdicts:
			t.checking = false
			if err := t.judge(v); err != nil {
				return err
			}
		}
	}
}

// take puts a message and those that wait behind it into the inbox.
func (t *tail) take(m message, messages <-chan message) error {
	for {
		if m.err != nil {
			return m.err
		}
		if err := t.refused(m.answer); err != nil {
			return err
		}
		t.inbox.add(m.answer)
		// Only progress of this watch says that it is complete up to there. That of a whole stream, which an answer to our question is, has
		// run ahead of events before etcd 3.4.25 and 3.5.8.
		if progress := m.answer.Header.GetRevision(); len(m.answer.Events) == 0 && m.answer.WatchId == t.id && progress > t.view.Revision &&
			len(t.inbox.whole)+len(t.inbox.partial) == 0 {
			t.view.Revision = progress
		}
		select {
		case m = <-messages:
		default:
			return nil
		}
	}
}

// apply applies what is in the inbox and reports whether something may have been missed.
func (t *tail) apply() (suspicious bool) {
	now := t.o.Clock()
	before := t.view.Revision
	next, dropped := t.view.with(t.inbox.take())
	t.note(func(s *Stats) { s.InStep, s.Revision = now, next.Revision })
	if t.view = next; next.Revision > before {
		t.update(next)
	}
	return dropped
}
