package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/control"
	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
	"weir/control/fleet"
)

// Two processes with a source in one etcd each: they join once it is known who they are, acknowledge what is applied, show each other on
// their admin ports, move with their service, and leave with their source.
func TestFleetOfProcesses(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	client, err := etcd.Open(etcd.Options{Endpoints: cluster.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	layout := etcd.LayoutAt("/weir")
	revision := cluster.Put(layout.Document("Backend", "orders"), "kind: Backend")
	type process struct {
		*fleets
		stop func()
	}
	start := func() process {
		t.Helper()
		f, err := newFleets(zerolog.Nop(), prometheus.NewRegistry(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = f.run(ctx, control.Static("platform"), client, layout, func(control.Batch) {}) })
		stop := func() { cancel(); running.Wait() }
		t.Cleanup(stop)
		f.report(control.Status{Hash: "h", Sources: []control.SourceStatus{{Name: "platform", Revision: revision, Healthy: true}},
			Objects: []control.Object{{Kind: "Backend", Name: "orders", State: control.Applied, Source: "platform", Text: "kind: Backend\n"}}})
		return process{f, stop}
	}
	first, second := start(), start()
	if seen := first.look(context.Background()); len(seen) != 0 {
		t.Errorf("before it is known who this is: %+v", seen)
	}
	first.serve("orders")
	first.listen("127.0.0.1:1")
	second.listen("127.0.0.1:2")
	second.serve("orders")
	second.serve("orders") // as it is
	there := func(service string, want int) {
		t.Helper()
		var got []fleet.Member
		for deadline := time.Now().Add(40 * time.Second); ; <-time.After(10 * time.Millisecond) {
			if got, _, err = fleet.ReadMembers(context.Background(), client, layout, service); err == nil && len(got) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d members of %q, want %d: %+v, %v", len(got), service, want, got, err)
			}
		}
	}
	there("orders", 2)
	page := func(f *fleets) string {
		w := httptest.NewRecorder()
		control.NewAdmin(control.AdminOptions{Fleets: f.look}).ServeHTTP(w, httptest.NewRequest("GET", "/fleet", nil))
		return w.Body.String()
	}
	if got := page(first.fleets); !strings.Contains(got, fmt.Sprintf("fleet orders, by source platform: 2 of 2 in sync at revision %d\n", revision)) ||
		!strings.Contains(got, "127.0.0.1:2") || strings.Count(got, "this one") != 1 {
		t.Errorf("/fleet:\n%s", got)
	}
	second.serve("carts")
	there("carts", 1)
	there("orders", 1)
	first.stop()
	second.stop()
	there("", 0)
	if seen := first.look(context.Background()); len(seen) != 0 {
		t.Errorf("after it has left: %+v", seen)
	}
}
