package etcd

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd/etcdtest"
	"weir/policy"
)

// All that a document says of a cluster arrives. Without tls, the authorities of the system are trusted.
func TestOptionsOf(t *testing.T) {
	f := func(s policy.EtcdSource, want Options) {
		t.Helper()
		if got := OptionsOf(&s); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	endpoints := []string{"https://a:2379", "https://b:2379"}
	f(policy.EtcdSource{Endpoints: endpoints, Username: "weir", PasswordFile: "/p"}, Options{Endpoints: endpoints, Username: "weir", PasswordFile: "/p"})
	f(policy.EtcdSource{Endpoints: endpoints, TLS: &policy.ClientTLS{CAFile: "/ca", CertFile: "/cert", KeyFile: "/key", ServerName: "etcd"}},
		Options{Endpoints: endpoints, TLS: TLSFiles{CAFile: "/ca", CertFile: "/cert", KeyFile: "/key", ServerName: "etcd"}})
}

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

// A wrong address says what is wrong with it: time that runs out says nothing.
func TestWrongAddress(t *testing.T) {
	listen := func(answer string) string {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.CopyN(io.Discard, conn, 16)
				_, _ = io.WriteString(conn, answer)
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
		}()
		return l.Addr().String()
	}
	f := func(endpoint, want string) {
		t.Helper()
		c, err := Open(Options{Endpoints: []string{endpoint}, Timeout: 500 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Read(t.Context(), "/weir", 0)
		if again := c.Explain(err); again != err {
			t.Errorf("%s: explained twice: %v", endpoint, again)
		}
		if err == nil || !strings.Contains(err.Error(), want) || CauseOf(err) != Unreachable {
			t.Errorf("%s: got %v (%s), want %q", endpoint, err, CauseOf(err), want)
		}
	}
	web := listen("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	f("http://"+web, "speaks HTTP/1.1: it is no etcd")
	f("https://"+web, "speaks no TLS: it may want http")
	mute := listen("")
	f("http://"+mute, "it may want https in place of http")
	f("https://"+mute, "or the reverse")
}

// Those who share a connection and find together that it is dead make one new one.
func TestRenewFrom(t *testing.T) {
	c := open(t, Options{Endpoints: []string{"http://127.0.0.1:1"}})
	f := func(what string, used *clientv3.Client, want bool) {
		t.Helper()
		before := c.Etcd()
		if err := c.RenewFrom(used); err != nil || (c.Etcd() != before) != want {
			t.Errorf("%s: renewed %v, %v, want %v", what, c.Etcd() != before, err, want)
		}
	}
	first := c.Etcd()
	f("the first to find out", first, true)
	f("the next one, who has used the same", first, false)
	f("one who has used the new one", c.Etcd(), true)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	f("one who comes after the end", c.Etcd(), false)
}

// The first connection to a member is made at once, and so are all of a command's; those that replace lost ones are spread.
func TestLaterConnectionsAreSpread(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	const dials = 8 // of which each waits for a quarter of a second on average
	f := func(l *line, wantSpread bool) {
		t.Helper()
		begun := time.Now()
		for range dials {
			conn, err := l.dial(t.Context(), listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		}
		if took := time.Since(begun); (took > redialSpread) != wantSpread {
			t.Errorf("%+v: %d connections took %s, want them spread: %v", l, dials, took, wantSpread)
		}
	}
	f(&line{members: dials}, false)
	f(&line{members: 1, eager: true}, false)
	f(&line{members: 1}, true)
}
