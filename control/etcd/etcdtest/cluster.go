package etcdtest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Options say what cluster a test needs. The zero value is one member without TLS.
type Options struct {
	// Members is how many there are; 0 means 1.
	Members int
	// TLS is what the members show their clients and ask of them; nil is plain text.
	TLS *transport.TLSInfo
	// QuotaBytes is how large the store may grow; 0 means etcd's default.
	QuotaBytes int64
	// Configure, if set, changes the settings of each member before it starts.
	Configure func(*embed.Config)
}

// Cluster is a running cluster. Its members keep their addresses and their data over Stop and Restart.
type Cluster struct {
	t       testing.TB
	members []*member
}

type member struct {
	config *embed.Config
	server *embed.Etcd // nil while stopped
}

// Start starts a cluster that ends with the test, and waits until it has a leader.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	var err error
	for range 5 { // a port that was free may be taken before a member listens on it
		c := &Cluster{t: t}
		if err = c.start(o); err == nil {
			t.Cleanup(c.Close)
			return c
		}
		c.Close()
	}
	t.Fatalf("cannot start etcd: %v", err)
	return nil
}

func (c *Cluster) start(o Options) error {
	dir := c.t.TempDir()
	var initial []string
	for i := range max(o.Members, 1) {
		config := embed.NewConfig()
		config.Name = fmt.Sprintf("m%d", i)
		config.Dir = filepath.Join(dir, config.Name)
		config.UnsafeNoFsync = true // a test's data need not outlive the machine
		config.BcryptCost = 4       // the least, or each login takes a second under the race detector
		config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		config.Logger, config.LogLevel = "zap", "fatal"
		config.TickMs, config.ElectionMs = 50, 500
		config.QuotaBackendBytes = o.QuotaBytes
		scheme := "http"
		if o.TLS != nil {
			scheme, config.ClientTLSInfo = "https", *o.TLS
		}
		peer, client := address("http"), address(scheme)
		config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		initial = append(initial, config.Name+"="+peer.String())
		if o.Configure != nil {
			o.Configure(config)
		}
		c.members = append(c.members, &member{config: config})
	}
	for _, m := range c.members {
		m.config.InitialCluster = strings.Join(initial, ",")
		server, err := embed.StartEtcd(m.config)
		if err != nil {
			return err
		}
		m.server = server
	}
	for i := range c.members {
		if err := c.ready(i); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) ready(i int) error {
	select {
	case <-c.members[i].server.Server.ReadyNotify():
		return nil
	case err := <-c.members[i].server.Err():
		return err
	case <-time.After(time.Minute):
		return fmt.Errorf("member %d is not ready after a minute", i)
	}
}

// address is a free one on loopback.
func address(scheme string) url.URL {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic("BUG: no free port on loopback: " + err.Error())
	}
	defer l.Close()
	return url.URL{Scheme: scheme, Host: l.Addr().String()}
}

// Endpoints are the members' client URLs.
func (c *Cluster) Endpoints() []string {
	urls := make([]string, 0, len(c.members))
	for i := range c.members {
		urls = append(urls, c.Endpoint(i))
	}
	return urls
}

// Endpoint is the client URL of a member.
func (c *Cluster) Endpoint(i int) string { return c.members[i].config.ListenClientUrls[0].String() }

// Address is host:port of Endpoint, for a Relay.
func (c *Cluster) Address(i int) string { return c.members[i].config.ListenClientUrls[0].Host }

// Server is a member that runs.
func (c *Cluster) Server(i int) *embed.Etcd { return c.members[i].server }

// Leader is the member that leads now, or -1.
func (c *Cluster) Leader() int {
	for i, m := range c.members {
		if m.server != nil && m.server.Server.Leader() == m.server.Server.MemberID() {
			return i
		}
	}
	return -1
}

// Stop ends a member at once; what it has stored stays.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	m := c.members[i]
	if m.server == nil {
		c.t.Fatalf("member %d is stopped already", i)
	}
	m.server.Close()
	m.server = nil
}

// Restart starts a member that was stopped, where it was and with what it had, and waits until it is ready. Of a cluster that has lost its
// quorum, all but the last to come back are not ready yet: see Resume.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	c.Resume(i)
	if err := c.ready(i); err != nil {
		c.t.Fatalf("member %d does not come back: %v", i, err)
	}
}

// Resume is Restart that does not wait.
func (c *Cluster) Resume(i int) {
	c.t.Helper()
	var err error
	for range 50 { // the port lingers for a moment
		if c.members[i].server, err = embed.StartEtcd(c.members[i].config); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond) // there is no event for a port that has become free
	}
	c.t.Fatalf("cannot start member %d again: %v", i, err)
}

// Client is a client of etcd's own kind, of all members and without TLS or login. It ends with the test.
func (c *Cluster) Client() *clientv3.Client {
	c.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = client.Close() })
	return client
}

// Put writes a key past all of our own code, and returns the revision.
func (c *Cluster) Put(key, value string) int64 {
	c.t.Helper()
	client := c.Client()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := client.Put(ctx, key, value)
	if err != nil {
		c.t.Fatalf("cannot put %s: %v", key, err)
	}
	return answer.Header.Revision
}

// Close ends all members.
func (c *Cluster) Close() {
	for _, m := range c.members {
		if m.server != nil {
			m.server.Close()
			m.server = nil
		}
	}
}
