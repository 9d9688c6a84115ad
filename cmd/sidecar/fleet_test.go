package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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
		registry *prometheus.Registry
		run      func() (stop func())
		stop     func()
	}
	start := func() process {
		t.Helper()
		registry := prometheus.NewRegistry()
		f, err := newFleets(zerolog.Nop(), registry, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		run := func() func() {
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { _ = f.run(ctx, control.Static("platform"), client, layout, func(control.Batch) {}) })
			stop := func() { cancel(); running.Wait() }
			t.Cleanup(stop)
			return stop
		}
		f.report(control.Status{Hash: "h", Sources: []control.SourceStatus{{Name: "platform", Revision: revision, Healthy: true}},
			Objects: []control.Object{{Kind: "Backend", Name: "orders", State: control.Applied, Source: "platform", Text: "kind: Backend\n"}}})
		return process{f, registry, run, run()}
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
	// whoever coordinates shows the health of etcd, and nobody else does
	healthy := func(f process) bool {
		n, err := testutil.GatherAndCount(f.registry, "weir_etcd_db_size_bytes")
		return err == nil && n == 1
	}
	for deadline := time.Now().Add(40 * time.Second); healthy(first) == healthy(second); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("shown by both, or by none: %v", healthy(first))
		}
	}
	// a source that takes the place of one of its name waits for it to leave, and keeps the ID
	before := first.look(context.Background())[0].ID
	stopBefore, stopNow := first.stop, first.run()
	stopBefore()
	until(t, "the source that is left has the place", func() bool {
		seen := first.look(context.Background())
		return len(seen) == 1 && seen[0].Registered && seen[0].ID == before
	})
	there("orders", 2)
	second.serve("carts")
	there("carts", 1)
	there("orders", 1)
	stopNow()
	second.stop()
	there("", 0)
	if healthy(first) || healthy(second) {
		t.Error("the health of etcd is shown by those that have left")
	}
	if seen := first.look(context.Background()); len(seen) != 0 {
		t.Errorf("after it has left: %+v", seen)
	}
}

// Three sidecars as processes: each shows all of them, a change is acknowledged by all, a document that cannot be is named, and one that
// is paused or leaves is missed.
func TestFleet(t *testing.T) {
	s, service := newStore(t), newService(t, hello)
	s.limit("acme", 2)
	var all []*running
	for range 3 {
		all = append(all, launch(t, documentsFor(service.address()), with("--etcd", s.url())))
	}
	show := func(text string, who ...*running) {
		t.Helper()
		for _, p := range who {
			p.shows("/fleet", text)
		}
	}
	show("3 of 3 in sync", all...)
	show(fmt.Sprintf("fleet orders, by source etcd: 3 of 3 in sync at revision %d\n", s.limit("acme", 20)), all...)
	s.Put(keyOf("TenantPolicy", "acme"), "apiVersion: weir.dev/v1alpha1\nkind: TenantPolicy\nmetadata: {name: acme}\nspec: {limits: 3}\n")
	show("3 drifted", all...)
	show(": it runs the last good version of TenantPolicy acme\n", all...)
	s.limit("acme", 30)
	show("3 of 3 in sync", all...)

	// The coordinator stands still: it is taken for gone, and another one counts. It comes back with a new lease, and not into its office.
	coordinates := func(p *running) bool { return p.metric("weir_fleet_coordinator") == 1 }
	until(t, "one coordinates", func() bool { return slices.ContainsFunc(all, coordinates) })
	paused := all[slices.IndexFunc(all, coordinates)]
	others := slices.DeleteFunc(slices.Clone(all), func(p *running) bool { return p == paused })
	paused.signal(syscall.SIGSTOP)
	until(t, "another one coordinates", func() bool { return slices.ContainsFunc(others, coordinates) })
	show("2 of 2 in sync", others...)
	paused.signal(syscall.SIGCONT)
	paused.says("not registered with the fleet; requests are served as before, and it tries again")
	show("3 of 3 in sync", all...)
	if got := paused.metric("weir_fleet_registered"); coordinates(paused) || got != 1 {
		t.Errorf("it coordinates %v, is registered %v", coordinates(paused), got)
	}
	until(t, "the coordinator counts three", func() bool {
		return others[0].metric("weir_fleet_members", `state="in_sync"`)+others[1].metric("weir_fleet_members", `state="in_sync"`) == 3
	})
	paused.stops()
	show("2 of 2 in sync", others...)
	for _, p := range others {
		p.stops()
	}
}
