package etcd

import (
	"context"
	"net"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// liar answers in the place of etcd, with what etcd says except for what a test makes of it. It stands for what has been seen of
// watches: late, repeated, shuffled, silent, and of another store.
type liar struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	endpoint string
	server   *grpc.Server

	mu   sync.Mutex
	etcd *clientv3.Client
	lie  func(*pb.WatchResponse) []*pb.WatchResponse // what is passed on in the place of an answer
	ends map[int]context.CancelFunc                  // of the streams that are open
	next int
}

// newLiar starts one before a cluster, that lies with lie if that is not nil.
func newLiar(t *testing.T, client *clientv3.Client, lie func(*pb.WatchResponse) []*pb.WatchResponse) *liar {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{endpoint: "http://" + listener.Addr().String(), server: grpc.NewServer(), etcd: client, lie: lie, ends: make(map[int]context.CancelFunc)}
	pb.RegisterKVServer(l.server, l)
	pb.RegisterWatchServer(l.server, l)
	var running sync.WaitGroup
	running.Go(func() { _ = l.server.Serve(listener) })
	t.Cleanup(func() { l.hangUp(); l.server.Stop(); running.Wait() })
	return l
}

// use has another cluster answer from now on, and ends all streams.
func (l *liar) use(client *clientv3.Client) {
	l.mu.Lock()
	l.etcd = client
	l.mu.Unlock()
	l.hangUp()
}

// tell replaces the lie.
func (l *liar) tell(lie func(*pb.WatchResponse) []*pb.WatchResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lie = lie
}

// hangUp ends all streams.
func (l *liar) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range l.ends {
		end()
	}
}

// Range passes a question on.
func (l *liar) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	l.mu.Lock()
	client := l.etcd
	l.mu.Unlock()
	return pb.NewKVClient(client.ActiveConnection()).Range(ctx, r)
}

// Watch passes questions on, and answers as the test wants it.
func (l *liar) Watch(down pb.Watch_WatchServer) error {
	ctx, cancel := context.WithCancel(down.Context())
	defer cancel()
	l.mu.Lock()
	client, id := l.etcd, l.next
	l.next++
	l.ends[id] = cancel
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.ends, id)
	}()
	up, err := pb.NewWatchClient(client.ActiveConnection()).Watch(ctx)
	if err != nil {
		return err
	}
	go func() { // ends when this handler has
		for {
			question, err := down.Recv()
			if err != nil || up.Send(question) != nil {
				cancel()
				return
			}
		}
	}()
	for {
		answer, err := up.Recv()
		if err != nil {
			return err
		}
		l.mu.Lock()
		lie := l.lie
		l.mu.Unlock()
		answers := []*pb.WatchResponse{answer}
		if lie != nil {
			answers = lie(answer)
		}
		for _, a := range answers {
			if err := down.Send(a); err != nil {
				return err
			}
		}
	}
}

// copyOf is an answer that can be changed.
func copyOf(a *pb.WatchResponse) *pb.WatchResponse { return proto.Clone(a).(*pb.WatchResponse) }
