package care

import (
	"cmp"
	"context"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
)

// examine looks at a cluster as a sidecar of the service orders would, with little patience.
func examine(o etcd.Options) Facts {
	o.Timeout, o.Eager = cmp.Or(o.Timeout, time.Second), true
	return Examine(context.Background(), Subject{Etcd: o, Layout: etcd.LayoutAt("/weir"), Service: "orders"})
}

func TestExamineThreeMembers(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Options{Members: 3})
	all := examine(etcd.Options{Endpoints: c.Endpoints()})
	for _, f := range all.Findings() {
		if f.Level != OK && f.Check != "login" && f.Check != "latency" { // which is as this machine is
			t.Errorf("a cluster that is well: %+v", f)
		}
	}
	if got := find(t, all.Findings(), "login", ""); got.Level != Warning {
		t.Errorf("a cluster that asks nobody who they are: %+v", got)
	}
	if all.Survey.Members[0].Quota == 0 || all.Survey.Members[0].Size == 0 || all.Access.Written == 0 {
		t.Errorf("numbers are missing: %+v", all)
	}

	// the members that nobody named are found
	one := examine(etcd.Options{Endpoints: c.Endpoints()[:1]})
	if len(one.Survey.Members) != 3 || !one.Survey.Members[0].Given || one.Survey.Members[1].Given {
		t.Errorf("members: %+v", one.Survey.Members)
	}
	expect(t, find(t, one.Findings(), "members", ""), OK, "all of 3")

	// nothing was written
	if answer, err := c.Client().Get(context.Background(), "", clientv3.WithFromKey()); err != nil || answer.Count != 0 || answer.Header.Revision != 1 {
		t.Errorf("the check has left something: %v, %v", answer, err)
	}

	gone := (c.Leader() + 1) % 3
	c.Stop(gone)
	two := examine(etcd.Options{Endpoints: c.Endpoints()})
	expect(t, find(t, two.Findings(), "members", ""), Warning, "2 of 3 voting members answer, and none may be lost: m")
	expect(t, find(t, two.Findings(), "connection", c.Endpoint(gone)), Warning, "connection refused")
	expect(t, find(t, two.Findings(), "register a sidecar", ""), OK, "may")

	for i := range 3 {
		if i != gone && i != c.Leader() {
			c.Stop(i)
			break
		}
	}
	begun := time.Now()
	last := examine(etcd.Options{Endpoints: c.Endpoints()})
	expect(t, find(t, last.Findings(), "members", ""), Failure, "1 of 3 voting members answer, and 2 are a majority")
	expect(t, find(t, last.Findings(), "latency", ""), Warning, "does not come back")
	expect(t, find(t, last.Findings(), "read policies", ""), Failure, "cannot read policies")
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("a broken cluster took %v", took)
	}
}

// Nobody there, a machine that has vanished, and a port of something else: all of it is said in bounded time.
func TestExamineBrokenLines(t *testing.T) {
	t.Parallel() // it mostly waits
	c := etcdtest.Start(t, etcdtest.Options{})
	relay := etcdtest.NewRelay(t, c.Address(0))
	line := "http://" + relay.Address()
	patience := 300 * time.Millisecond // enough to see that nobody answers
	f := func(what string, endpoints []string, check, of string, level Level, want string) {
		t.Helper()
		begun := time.Now()
		facts := examine(etcd.Options{Endpoints: endpoints, Timeout: patience})
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s: took %v", what, took)
		}
		expect(t, find(t, facts.Findings(), check, of), level, want)
	}

	relay.Cut()
	f("a line that is cut", []string{line}, "connection", "", OK, "connected")
	f("a line that is cut", []string{line}, "members", "", Failure, "no member answers")
	relay.Stall()
	f("a machine that has vanished", []string{line}, "clock", line, OK, "not known: no answer in time")
	f("a machine that has vanished", []string{line}, "members", "", Failure, "no member answers")
	f("nobody listens", []string{"http://127.0.0.1:1"}, "connection", "", Failure, "connection refused")
	f("no TLS is there", []string{strings.Replace(c.Endpoint(0), "http:", "https:", 1)}, "connection", "", Failure, "cannot agree on TLS")
	patience = 2 * time.Second
	f("one of two has vanished", []string{line, c.Endpoint(0)}, "latency", line, Warning, "does not come back")
	relay.Heal()
	patience = 10 * time.Second
	f("the line is back", []string{line}, "members", "", Warning, "there is one member")
	relay.Delay(60 * time.Millisecond)
	f("a slow line", []string{line}, "latency", line, Warning, "want under 100ms")
}

func TestExamineCertificates(t *testing.T) {
	p := newPKI(t)
	const day = 24 * time.Hour
	p.issue(t, "server", 90*day)
	p.issue(t, "client", 90*day)
	c := etcdtest.Start(t, etcdtest.Options{TLS: p.server("server")})
	ours := etcd.TLSFiles{CAFile: p.path("ca.crt"), CertFile: p.path("client.crt"), KeyFile: p.path("client.key")}
	f := func(files etcd.TLSFiles, check, of string, level Level, want string) {
		t.Helper()
		facts := examine(etcd.Options{Endpoints: c.Endpoints(), TLS: files})
		expect(t, find(t, facts.Findings(), check, of), level, want)
	}
	endpoint := c.Endpoint(0)

	f(ours, "connection", endpoint, OK, "connected")
	f(ours, "members", "", Warning, "there is one member")
	f(ours, "clock", endpoint, OK, "in step")
	f(ours, "expiry", endpoint, OK, "valid for 90 days")
	f(ours, "expiry", ours.CAFile, OK, "authority that signs etcd's certificates, CN=etcd-ca")
	// no certificate of ours, though the member asks for one
	f(etcd.TLSFiles{CAFile: ours.CAFile}, "connection", endpoint, Failure, "the member refuses the connection: tls: certificate required")
	// an authority that has signed nothing here
	stranger := newPKI(t)
	f(etcd.TLSFiles{CAFile: stranger.path("ca.crt"), CertFile: ours.CertFile, KeyFile: ours.KeyFile}, "trust", endpoint, Failure, "unknown authority")
	// files that are not there, and that are none
	f(etcd.TLSFiles{CAFile: p.path("none")}, "files", "", Failure, "no such file")
	f(etcd.TLSFiles{CAFile: ours.KeyFile}, "expiry", ours.KeyFile, Failure, "no certificate in PEM")
	// certificates that expire soon, and that have expired; etcd reads its own anew
	p.issue(t, "client", 2*day+time.Minute)
	p.issue(t, "server", 3*day+time.Minute)
	f(ours, "expiry", ours.CertFile, Warning, "expires in 2 days")
	f(ours, "expiry", endpoint, Warning, "expires in 3 days")
	p.issue(t, "server", -4*day)
	f(ours, "expiry", endpoint, Failure, "expired 4 days ago")
	p.issue(t, "server", 90*day)
	p.issue(t, "client", -4*day)
	f(ours, "expiry", ours.CertFile, Failure, "expired 4 days ago")
	f(ours, "connection", endpoint, Failure, "the member refuses the connection: tls: ")
}

func TestExaminePermissions(t *testing.T) {
	// Passwords are hashed at the least cost: under the race detector each would take seconds.
	c := etcdtest.Start(t, etcdtest.Options{Configure: func(c *embed.Config) { c.BcryptCost = 4 }})
	p := newPKI(t)
	p.write(t, "password", []byte("secret\n"))
	p.write(t, "wrong", []byte("guessed\n"))
	client, ctx := c.Client(), context.Background()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(client.RoleAdd(ctx, "sidecar"))
	grant := func(prefix string, may clientv3.PermissionType) {
		must(client.RoleGrantPermission(ctx, "sidecar", prefix, clientv3.GetPrefixRangeEnd(prefix), may))
	}
	grant("/weir/v1/policy/", clientv3.PermissionType(clientv3.PermRead))
	grant("/weir/v1/fleet/orders/", clientv3.PermissionType(clientv3.PermReadWrite))
	for user, role := range map[string]string{"root": "root", "orders": "sidecar", "idle": ""} {
		must(client.UserAdd(ctx, user, "secret"))
		if role != "" {
			must(client.UserGrantRole(ctx, user, role))
		}
	}
	must(client.AuthEnable(ctx))
	f := func(user, password, service, check string, level Level, want string) {
		t.Helper()
		o := etcd.Options{Endpoints: c.Endpoints(), Timeout: 20 * time.Second, Eager: true} // to check a password takes etcd long
		if user != "" {
			o.Username, o.PasswordFile = user, p.path(password)
		}
		facts := Examine(ctx, Subject{Etcd: o, Layout: etcd.LayoutAt("/weir"), Service: service})
		expect(t, find(t, facts.Findings(), check, ""), level, want)
	}

	// a sidecar as it should be
	f("orders", "password", "orders", "login", OK, "orders is logged in, with the role sidecar")
	f("orders", "password", "orders", "read policies", OK, "may")
	f("orders", "password", "orders", "register a sidecar", OK, "may")
	f("orders", "password", "orders", "change policies", OK, "may not change policies, as is right")
	f("orders", "password", "orders", "members", Warning, "there is one member")
	f("orders", "password", "orders", "write", OK, "takes")
	// the fleet of another service, and none named
	f("orders", "password", "carts", "register a sidecar", Failure, "may not register a sidecar")
	f("orders", "password", "", "register a sidecar", Warning, "no service is named")
	// root may do all, somebody without a role nothing
	f("root", "password", "carts", "change policies", OK, "may change policies")
	f("idle", "password", "orders", "read policies", Failure, "may not read policies")
	// a wrong password, a user that was revoked, no login, no password file
	f("orders", "wrong", "orders", "login", Failure, "etcd refuses our login")
	f("gone", "password", "orders", "login", Failure, "etcd refuses our login")
	f("", "", "orders", "login", Failure, "etcd asks who we are, and nobody logs in")
	f("orders", "none", "orders", "answer", Failure, "cannot read the password of etcd")
}
