package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"weir/control/etcd/etcdtest"
	"weir/proxy/certs/certtest"
)

// trouble is what may happen to etcd while a sidecar runs.
type trouble struct {
	name string
	// etcd makes a cluster and says how it is reached.
	etcd func(t *testing.T) *patient
	// cause is what the metric and the log call it; empty: whoever reads does not notice.
	cause string
}

// patient is a cluster that can be made ill and well.
type patient struct {
	args       []string // of a sidecar that reads it
	client     *clientv3.Client
	fall, rise func()
	notice     func() // what makes the sidecar notice, where it need not otherwise; nil: nothing
}

// Whatever happens to etcd: requests go on, limits stay, the sidecar is ready; a metric and a log line name the cause and the way back;
// and once that is taken, changes apply again without a restart.
func TestTroubleWithEtcd(t *testing.T) {
	for _, trouble := range []trouble{
		{"partition", partitioned, "unreachable"},
		{"a machine that vanishes", vanishing, "stalled"},
		{"a paused process", paused, "stalled"},
		{"a full disk", full, ""},
		{"a user who is revoked", revoked, "login"},
		{"a certificate that expires", expiring, "certificate"},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			t.Parallel()
			etcd, service := trouble.etcd(t), newService(t, hello)
			put := func(requests int) error {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_, err := etcd.client.Put(ctx, keyOf("TenantPolicy", "acme"), limitDocument("acme", requests))
				return err
			}
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(put(3))
			p := launch(t, documentsFor(service.address()), with(etcd.args...))
			connected := func() float64 { return p.metric("weir_etcd_connected", `source="etcd"`) }
			goesOn := func(tenant string) {
				t.Helper()
				if got := p.passes(tenant, 1); got != 1 {
					t.Error("a request is refused")
				}
				if ready, err := p.ask("/readyz"); err != nil || !strings.Contains(ready, "200 OK") {
					t.Errorf("readiness is %q, %v", ready, err)
				}
			}
			goesOn("acme")

			etcd.fall()
			goesOn("acme")
			if etcd.notice != nil {
				etcd.notice()
			}
			if trouble.cause != "" {
				until(t, "the metric says that etcd is lost", func() bool {
					return connected() == 0 && p.metric("weir_etcd_watch_restarts_total", `cause="`+trouble.cause+`"`) > 0
				})
				line := p.says("etcd is lost; what is known stays in force")
				until(t, "the log names the cause "+trouble.cause+" after "+fmt.Sprint(line["cause"]), func() bool {
					for _, line := range p.stderr.lines() {
						if line["cause"] == trouble.cause && line["to_do"] != "" {
							return true
						}
					}
					return false
				})
				p.shows("/status", "unreadable: ")
			}
			goesOn("acme")
			if got := p.passes("acme", 5); got != 0 {
				t.Errorf("%d requests passed beyond the limit", got)
			}
			goesOn("globex")

			etcd.rise()
			until(t, "etcd is back", func() bool { return connected() == 1 })
			must(put(1000))
			until(t, "a change is applied", func() bool { return p.passes("acme", 1) == 1 })
			p.shows("/policy/problems", "no problems")
			p.stops()
		})
	}
}

func connect(t *testing.T, c clientv3.Config) *clientv3.Client {
	t.Helper()
	c.Logger, c.DialTimeout = zap.NewNop(), patience
	client, err := clientv3.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func partitioned(t *testing.T) *patient {
	s := newStore(t)
	return &patient{args: []string{"--etcd", s.url()}, client: s.Client(), fall: s.line.Cut, rise: s.line.Heal}
}

func vanishing(t *testing.T) *patient {
	s := newStore(t)
	return &patient{args: []string{"--etcd", s.url()}, client: s.Client(), fall: s.line.Stall, rise: s.line.Heal}
}

// paused is an etcd in a process of its own that gets SIGSTOP.
func paused(t *testing.T) *patient {
	e := startEtcd(t)
	signal := func(s syscall.Signal) func() {
		return func() {
			if err := e.cmd.Process.Signal(s); err != nil {
				t.Error(err)
			}
		}
	}
	return &patient{
		args: []string{"--etcd", e.url}, client: connect(t, clientv3.Config{Endpoints: []string{e.url}}),
		fall: signal(syscall.SIGSTOP), rise: signal(syscall.SIGCONT),
	}
}

// full is a store at its quota: it refuses writes until its alarm is disarmed. Whoever reads does not notice.
func full(t *testing.T) *patient {
	c := etcdtest.Start(t, etcdtest.Options{QuotaBytes: 4 << 20})
	client := c.Client()
	ctx := t.Context()
	return &patient{
		args: []string{"--etcd", c.Endpoint(0)}, client: client,
		fall: func() {
			filler := strings.Repeat("x", 512<<10)
			var err error
			for range 100 {
				if _, err = client.Put(ctx, "/filler", filler); err != nil {
					break
				}
			}
			if err == nil || !strings.Contains(err.Error(), "database space exceeded") {
				t.Errorf("the store is not full: %v", err)
			}
		},
		rise: func() {
			at, err := client.Get(ctx, "/filler")
			if err == nil {
				_, err = client.Compact(ctx, at.Header.Revision, clientv3.WithCompactPhysical())
			}
			if err == nil {
				_, err = client.Defragment(ctx, c.Endpoint(0))
			}
			if err == nil {
				_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
			}
			if err != nil {
				t.Error(err)
			}
		},
	}
}

// revoked is a cluster whose user loses and gets back its account.
func revoked(t *testing.T) *patient {
	s := newStore(t)
	root := s.Client()
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	must(root.UserAdd(ctx, "root", "root"))
	must(root.UserGrantRole(ctx, "root", "root"))
	must(root.RoleAdd(ctx, "reader"))
	must(root.RoleGrantPermission(ctx, "reader", "/weir/", clientv3.GetPrefixRangeEnd("/weir/"), clientv3.PermissionType(clientv3.PermRead)))
	account := func() {
		must(root.UserAdd(ctx, "sidecar", "secret"))
		must(root.UserGrantRole(ctx, "sidecar", "reader"))
	}
	account()
	must(root.AuthEnable(ctx))
	root = connect(t, clientv3.Config{Endpoints: s.Endpoints(), Username: "root", Password: "root"})
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &patient{
		args: []string{"--etcd", s.url(), "--etcd-username", "sidecar", "--etcd-password-file", password}, client: root,
		fall: func() { must(root.UserDelete(ctx, "sidecar")) },
		rise: account,
		// A watch that is open stays so; whoever connects again is asked who he is.
		notice: func() { s.line.Cut(); s.line.Heal() },
	}
}

// expiring is a cluster whose certificate expires and is replaced.
func expiring(t *testing.T) *patient {
	folder := t.TempDir()
	ca := certtest.New("ca")
	files := map[string]string{"ca": filepath.Join(folder, "ca.crt"), "cert": filepath.Join(folder, "tls.crt"), "key": filepath.Join(folder, "tls.key")}
	issue := func(expires time.Time) {
		cert, key := ca.Issue(certtest.Leaf{Names: []string{"127.0.0.1"}, Expires: expires})
		for name, data := range map[string][]byte{"ca": ca.PEM, "cert": cert, "key": key} {
			if err := os.WriteFile(files[name], data, 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	issue(time.Now().Add(time.Hour))
	info := transport.TLSInfo{CertFile: files["cert"], KeyFile: files["key"]}
	c := etcdtest.Start(t, etcdtest.Options{TLS: &info})
	line := etcdtest.NewRelay(t, c.Address(0))
	return &patient{
		args: []string{"--etcd", "https://" + line.Address(), "--etcd-ca-file", files["ca"]}, client: connect(t, clientv3.Config{Endpoints: c.Endpoints(), TLS: &tls.Config{RootCAs: certtest.Pool(ca)}}),
		fall:   func() { issue(time.Now().Add(-time.Minute)) },
		rise:   func() { issue(time.Now().Add(time.Hour)) },
		notice: func() { line.Cut(); line.Heal() }, // connections that are open stay so
	}
}

// etcdProcess is a single member in a process of its own.
type etcdProcess struct {
	cmd *exec.Cmd
	url string
}

func startEtcd(t testing.TB) *etcdProcess {
	t.Helper()
	client, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	e := &etcdProcess{exec.Command("etcd-member", client, peer, t.TempDir()), "http://" + client}
	e.cmd.Stderr = os.Stderr
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait() // it was killed
	})
	until(t, "etcd listens", func() bool {
		c, err := net.Dial("tcp", client)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return e
}

// etcdUntilKilled is the program of such a process: CLIENT-ADDRESS PEER-ADDRESS FOLDER.
func etcdUntilKilled() {
	config := embed.NewConfig()
	client, peer := url.URL{Scheme: "http", Host: os.Args[1]}, url.URL{Scheme: "http", Host: os.Args[2]}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.Name + "=" + peer.String()
	config.Dir, config.UnsafeNoFsync = os.Args[3], true
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(config)
	if err == nil {
		err = <-server.Err()
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
