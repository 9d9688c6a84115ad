package etcdtest

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// A cluster keeps what it has over a restart, and the line before it fails and heals as it is told.
func TestRelay(t *testing.T) {
	c := Start(t, Options{})
	r := NewRelay(t, c.Address(0))
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + r.Address()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	f := func(when string, patience time.Duration, want bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		answer, err := client.Get(ctx, "k")
		if got := err == nil && len(answer.Kvs) == 1; got != want {
			t.Errorf("%s: answered %v with %v, want %v", when, got, err, want)
		}
	}
	c.Put("k", "v")
	f("whole", 20*time.Second, true)
	r.Delay(20 * time.Millisecond)
	f("slow", 20*time.Second, true)
	r.Cut()
	f("cut", 100*time.Millisecond, false)
	r.Heal()
	f("healed", 20*time.Second, true)
	r.Stall()
	f("stalled", 100*time.Millisecond, false)
	r.Heal()
	f("healed again", 20*time.Second, true)
	c.Stop(0)
	f("stopped", 100*time.Millisecond, false)
	c.Restart(0)
	f("restarted", 20*time.Second, true)
}

// Three members go on without their leader.
func TestLeaderLoss(t *testing.T) {
	c := Start(t, Options{Members: 3})
	c.Put("k", "v")
	gone := c.Leader()
	if gone < 0 {
		t.Fatal("three members that are ready have no leader")
	}
	c.Stop(gone)
	c.Put("k", "w")
	if now := c.Leader(); now < 0 || now == gone {
		t.Errorf("the leader after the loss of %d is %d", gone, now)
	}
	c.Restart(gone)
}
