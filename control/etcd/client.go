package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"

	"weir/policy"
)

// Options say how a cluster is reached.
type Options struct {
	// Endpoints are the members' client URLs, http or https and not both; at least one.
	Endpoints []string
	// TLS secures https endpoints. The zero value trusts the system's authorities and shows no certificate.
	TLS TLSFiles
	// Username logs in, with the password of PasswordFile. Empty does not log in.
	Username     string
	PasswordFile string
	// Timeout bounds one call. 0 means 5 s.
	Timeout time.Duration
	// KeepAlive is the time without a sign of life after which the connection is probed; a probe may go unanswered for half of it.
	// 0 means 10 s, which is also the least that gRPC takes.
	KeepAlive time.Duration
	// Eager connects at once, each time, as is right for a command that somebody waits for. Otherwise connections after the first to
	// each member are spread over half a second, since thousands of sidecars lose theirs together.
	Eager  bool
	Logger zerolog.Logger
}

// TLSFiles are files in PEM, read again for each connection.
type TLSFiles struct {
	CAFile, CertFile, KeyFile string
	// ServerName is what the server's certificate must carry. Empty means the host of the endpoint.
	ServerName string
}

// OptionsOf are what a document says of a cluster, with paths that are resolved. The rest is for the caller to set.
func OptionsOf(s *policy.EtcdSource) Options {
	o := Options{Endpoints: s.Endpoints, Username: s.Username, PasswordFile: s.PasswordFile}
	if t := s.TLS; t != nil {
		o.TLS = TLSFiles{CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile, ServerName: t.ServerName}
	}
	return o
}

// ErrNoPassword says that a user is named and its password cannot be had.
var ErrNoPassword = errors.New("no password")

// Client is a connection to a cluster. It connects when it is first used, and again by itself; certificates and authorities are read
// anew for each connection, the password with each [Client.Renew]. It is safe for concurrent use.
type Client struct {
	o    Options
	line *line

	mu      sync.Mutex
	current *clientv3.Client
	closed  bool
}

// Open checks options and prepares a connection; it does not wait for one. It fails when the options contradict themselves or files
// that they name cannot be read.
func Open(o Options) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = 10 * time.Second
	}
	if len(o.Endpoints) == 0 {
		return nil, errors.New("cannot reach etcd: no endpoint is given, want URLs as in http://127.0.0.1:2379")
	}
	c := &Client{o: o, line: &line{members: len(o.Endpoints), eager: o.Eager}}
	made, err := c.connect()
	if err != nil {
		return nil, err
	}
	c.current = made
	return c, nil
}

// connect makes a client of etcd's own kind. It does not wait for the cluster.
func (c *Client) connect() (*clientv3.Client, error) {
	secure, err := c.secure()
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if secure {
		if creds, err = newRotating(c.o.TLS, c.line); err != nil {
			return nil, err
		}
	}
	config := clientv3.Config{
		Endpoints:            c.o.Endpoints,
		DialTimeout:          c.o.Timeout,
		DialKeepAliveTime:    c.o.KeepAlive,
		DialKeepAliveTimeout: c.o.KeepAlive / 2,
		PermitWithoutStream:  false,        // etcd hangs up on whoever probes a connection that has nothing open
		Logger:               zap.NewNop(), // whoever calls says what failed, in the log that the user reads
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(creds), grpc.WithContextDialer(c.line.dial), redial(),
			grpc.WithChainUnaryInterceptor(lazyLogin())},
	}
	if c.o.Username != "" {
		password, err := readPassword(c.o.PasswordFile)
		if err != nil {
			return nil, err
		}
		config.Username, config.Password = c.o.Username, password
	}
	made, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("cannot use etcd at %s: %w", strings.Join(c.o.Endpoints, ","), err)
	}
	return made, nil
}

// secure reports whether the endpoints ask for TLS.
func (c *Client) secure() (bool, error) {
	secure := 0
	for _, e := range c.o.Endpoints {
		if strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs://") {
			secure++
		}
	}
	if secure > 0 && secure < len(c.o.Endpoints) {
		return false, fmt.Errorf("cannot use etcd at %s: some endpoints are https and some are not, want all or none", strings.Join(c.o.Endpoints, ","))
	}
	return secure > 0, nil
}

// readPassword reads a password, without the line break that editors add.
func readPassword(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w: cannot read the password of etcd: %w", ErrNoPassword, err)
	}
	password := strings.TrimRight(string(data), "\r\n")
	if password == "" {
		return "", fmt.Errorf("%w: the file %s is empty", ErrNoPassword, path)
	}
	return password, nil
}

// SilenceGRPC keeps gRPC, below etcd's client, from writing to the standard error: what it would say of lost connections is in the errors
// that callers log. It acts on the whole process and is called before anything is opened.
func SilenceGRPC() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) }

// Etcd is the client of etcd's own kind, for one call or one watch. Whoever keeps it misses the next Renew.
func (c *Client) Etcd() *clientv3.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// Endpoints are the members' client URLs as they were given.
func (c *Client) Endpoints() []string { return c.o.Endpoints }

// Timeout is how long one call may take.
func (c *Client) Timeout() time.Duration { return c.o.Timeout }

// Call is ctx for one call.
func (c *Client) Call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.o.Timeout)
}

// Renew drops the connections and the token, and makes new ones with the files as they are now. The calls and watches of the client
// before end with an error. When a file cannot be read, the client before stays.
func (c *Client) Renew() error { return c.RenewFrom(c.Etcd()) }

// RenewFrom is Renew unless somebody has done it since used was the client: those who share a connection find out together that it
// is dead.
func (c *Client) RenewFrom(used *clientv3.Client) error {
	made, err := c.connect()
	if err != nil {
		return err
	}
	c.mu.Lock()
	old := made
	if !c.closed && c.current == used {
		c.current, old = made, used
	}
	c.mu.Unlock()
	_ = old.Close()
	return nil
}

// Close ends the connections, and with them all calls and watches.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if err := c.current.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("cannot close the connection to etcd: %w", err)
	}
	return nil
}
