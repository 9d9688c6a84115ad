package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How a lost connection comes back. After an outage of any length a member that answers again is found within redialMost, give or
// take the jitter; and thousands of clients whose member ends at one moment are not back at one moment.
const (
	redialFirst  = 200 * time.Millisecond
	redialMost   = 1500 * time.Millisecond
	redialJitter = 0.3
	redialSpread = 500 * time.Millisecond
	// connectWithin bounds one try to connect, with TLS and all. A machine that has vanished says nothing for so long.
	connectWithin = 3 * time.Second
)

// redial is how gRPC tries again.
func redial() grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           grpcbackoff.Config{BaseDelay: redialFirst, Multiplier: 1.6, Jitter: redialJitter, MaxDelay: redialMost},
		MinConnectTimeout: connectWithin,
	})
}

// line is the way to the members. It remembers why there is none: etcd's client only says that time has run out.
type line struct {
	members int  // the number of endpoints
	eager   bool // later connections are made at once, too

	mu      sync.Mutex
	dials   int
	failure error // of the latest try that failed; nil since one works
}

// dial connects to host:port, or to unix:/path. The first connection to each member is made at once. Later ones replace one that was
// lost, most likely by all of a member's clients together, so they are spread.
func (l *line) dial(ctx context.Context, address string) (net.Conn, error) {
	l.mu.Lock()
	l.dials++
	again := l.dials > l.members && !l.eager
	l.mu.Unlock()
	if again {
		select {
		case <-time.After(rand.N(redialSpread)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", strings.TrimPrefix(path, "//")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		l.note(err)
		return nil, err
	}
	return &lineConn{Conn: conn, line: l}, nil
}

// lineConn is a connection that works once something was heard on it: a balancer without a member accepts, and hangs up.
type lineConn struct {
	net.Conn
	line  *line
	works bool // of the one goroutine that reads
}

// Read notes how the first one ends.
func (c *lineConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch {
	case c.works || n == 0 && errors.Is(err, net.ErrClosed):
	case bytes.HasPrefix(b[:n], []byte("HTTP/1.")):
		c.line.note(errNotEtcd)
	default:
		c.works = n > 0
		c.line.note(err)
	}
	return n, err
}

// What a wrong address looks like. The errors for it say what happened, and not what is wrong.
var (
	errNoTLS   = errors.New("what answers there speaks no TLS: it may want http in place of https, or is no etcd")
	errNotEtcd = errors.New("what answers there speaks HTTP/1.1: it is no etcd, or not its port for clients, or it wants https")
	errHangsUp = errors.New("what listens there hangs up at once: it may want https in place of http, or the reverse, or be a balancer without a member")
)

// note remembers how a try has ended.
func (l *line) note(err error) {
	if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
		err = errNoTLS
	} else if errors.Is(err, io.EOF) {
		err = errHangsUp
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failure = err
}

// why is the reason for which there is no connection, or nil.
func (l *line) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// alertConn notes that the server refuses our certificate: TLS 1.3 says so only after the handshake.
type alertConn struct {
	net.Conn
	line *line
}

// Read notes alerts.
func (c alertConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if opError, ok := errors.AsType[*net.OpError](err); ok && opError.Op == "remote error" {
		c.line.note(err)
	}
	return n, err
}

// unconnected is the error of a call with the reason for which there was no connection.
type unconnected struct{ error }

// Unwrap is both.
func (e *unconnected) Unwrap() error { return e.error }

// Explain adds to the error of a call that ran out of time why there was no connection, if there was none. Other errors stay, and so do
// those that say it already.
func (c *Client) Explain(err error) error {
	if _, said := errors.AsType[*unconnected](err); said {
		return err
	}
	late := errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded || status.Code(err) == codes.Unavailable
	if why := c.line.why(); err != nil && late && why != nil {
		return &unconnected{fmt.Errorf("%w (there is no connection to %s: %w)", err, strings.Join(c.o.Endpoints, ","), why)}
	}
	return err
}

// lazyLogin lets the first question for a token pass without asking it. etcd's client asks while it is made, and would wait for a
// cluster that may be down; the first call that needs a token asks again.
func lazyLogin() grpc.UnaryClientInterceptor {
	var once sync.Once
	return func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
		first := false
		if method == pb.Auth_Authenticate_FullMethodName {
			once.Do(func() { first = true })
		}
		if first {
			return nil
		}
		return next(ctx, method, request, reply, conn, o...)
	}
}
