package admit

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// deny makes one request that is remembered under an id when it is denied.
func (r *rig) deny(recent *Recent, id string, req *Request) Verdict {
	m := r.table.Match(r.now, req)
	v := r.table.Decide(r.now, &m)
	status := m.Tenant.status(v.Reason)
	if v.Reason != Passed {
		recent.Remember(r.table, r.now, []byte(id), req, &m, &v, status)
	}
	r.table.Settle(&m, &v, Outcome{Reason: v.Reason, Status: status})
	return v
}

// Whatever denied a request: what is remembered is what Explain said right before, and it stays that when time goes on.
func TestRecentIsWhatWasExplained(t *testing.T) {
	r := everyRig(t)
	var recent Recent
	f := func(id string, req *Request) {
		t.Helper()
		want := r.table.Explain(r.now, Question{Request: req})
		if v := r.deny(&recent, id, req); v.Reason == Passed {
			t.Fatalf("%s passes", id)
		}
		then := r.now
		r.wait(time.Hour)
		r.try("acme", "/")
		got, at, ok := recent.Find(r.table, id)
		if !ok || at != then {
			t.Fatalf("%s: found %v of %d, want one of %d", id, ok, at, then)
		}
		// What is not remembered: whether there was a cell, and which entry of the route matched.
		want.Recorded, want.RequestID = true, id
		want.Tenant.Cell, want.Route.Match, want.Route.Before, want.Route.Why = "", "", "", ""
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-explained +remembered):\n%s", id, diff)
		}
	}

	r.try("acme", "/pay")
	r.try("acme", "/pay")
	f("limited", requestOf("acme", "/pay"))
	wrong := requestOf("", "/")
	wrong.Header = fieldList{{"X-API-Key", "k-wrong"}}
	f("wrong key", wrong)
	f("no identity", requestOf("", "/export/a"))
	f("no tenant", requestOf("two words", "/"))
	for range 5 {
		m := r.table.Match(r.now, requestOf("acme", "/"))
		if !r.table.enter(r.now, &m, new(Verdict)) {
			t.Fatal("the gate is full")
		}
	}
	f("concurrency", requestOf("acme", "/"))
}

// What has changed since is not guessed at: the rules that were asked are shown, and a note says so.
func TestRecentUnderOtherDocuments(t *testing.T) {
	r := newRig(t, `TenantPolicy old {tenants: {names: [acme]}, limits: [{name: steady, requests: 1, per: 1h}]}`)
	var recent Recent
	r.try("acme", "/")
	r.deny(&recent, "x", requestOf("acme", "/"))
	r.swap(`TenantPolicy new {tenants: {any: true}, limits: [{name: other, requests: 1, per: 1h}]}`)
	got, _, ok := recent.Find(r.table, "x")
	if !ok {
		t.Fatal("not found")
	}
	text := got.Text()
	for _, want := range []string{"limited by old/steady", "the documents have changed since", "0 of 1", "set.yaml:5:"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "other") {
		t.Errorf("a rule of now is in\n%s", text)
	}
}

func TestRecentForgets(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: none, requests: 0}]}`)
	var recent Recent
	f := func(id string, want bool) {
		t.Helper()
		if _, _, ok := recent.Find(r.table, id); ok != want {
			t.Errorf("%s: found %v, want %v", id, ok, want)
		}
	}

	// Nothing yet, and no memory for it.
	f("0", false)
	if recent.ring != nil {
		t.Error("there is a ring before the first denial")
	}
	// The last ones are there, those before are not.
	for n := range RecentDenials + 10 {
		r.deny(&recent, fmt.Sprint(n), requestOf("acme", "/"))
	}
	f("9", false)
	f("10", true)
	f(fmt.Sprint(RecentDenials+9), true)
	f("another", false)
	f("", false)
	// Of two with one id, the later.
	r.wait(time.Second)
	r.deny(&recent, "twice", requestOf("acme", "/"))
	r.wait(time.Second)
	r.deny(&recent, "twice", requestOf("acme", "/later"))
	if got, at, _ := recent.Find(r.table, "twice"); at != r.now || got.Request.Path != "/later" {
		t.Errorf("found %s of %d, want the later one", got.Request.Path, at)
	}
}

// What is too long is cut, what is too much is left out, and both are said.
func TestRecentBounds(t *testing.T) {
	var limits []string
	for n := range recentLevels + 3 {
		limits = append(limits, fmt.Sprintf("{name: l%d, requests: 1, per: 1h}", n))
	}
	r := newRig(t, `TenantPolicy p {tenants: {names: [acme]}, limits: [`+strings.Join(limits, ", ")+`]}`)
	var recent Recent
	r.try("acme", "/")
	long := "/" + strings.Repeat("a", 1000)
	req, id := requestOf("acme", long), []byte("x")
	m, v := r.open("acme", long)
	if n := testing.AllocsPerRun(100, func() { recent.Remember(r.table, r.now, id, req, m, v, 429) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	r.deny(&recent, "x", requestOf("acme", long))
	got, _, ok := recent.Find(r.table, "x")
	if !ok || got.Request.Path != long[:256] || len(got.Notes) != 2 {
		t.Fatalf("found %v: path %s, notes %q", ok, got.Request.Path, got.Notes)
	}
	told := 0
	for _, l := range got.Limits {
		if l.Level != nil {
			told++
		}
	}
	if len(got.Limits) != recentLevels+3 || told != recentLevels {
		t.Errorf("%d levels of %d limits, want %d", told, len(got.Limits), recentLevels)
	}
}

// Denials and questions at once: what is found is whole.
func TestRecentRaces(t *testing.T) {
	r := newRig(t, `TenantPolicy p {tenants: {any: true}, limits: [{name: none, requests: 0}]}`)
	var recent Recent
	var denying sync.WaitGroup
	for w := range 3 {
		denying.Go(func() {
			for n := range 5000 {
				id := fmt.Sprint(w, "-", n)
				r.deny(&recent, id, requestOf("acme", "/"+id))
			}
		})
	}
	for n := range 5000 {
		id := fmt.Sprint(n%3, "-", n)
		if got, _, ok := recent.Find(r.table, id); ok && got.Request.Path != "/"+id {
			t.Fatalf("%s leads to %s", id, got.Request.Path)
		}
	}
	denying.Wait()
	for n := range recent.next.Load() {
		if d := &recent.ring[n%RecentDenials]; n < RecentDenials && d.number+RecentDenials <= recent.next.Load() {
			t.Fatalf("place %d has denial %d of %d", n, d.number, recent.next.Load())
		}
	}
}

// BenchmarkRemember is what a denial costs more for being remembered.
func BenchmarkRemember(b *testing.B) {
	r := newRig(b, `TenantPolicy p {tenants: {names: [acme]}, limits: [{name: a, requests: 1, per: 1h}, {name: b, requests: 100, per: 1h}, {name: c, requests: 1000, per: 1h}]}`)
	var recent Recent
	r.try("acme", "/")
	req, id := requestOf("acme", "/api/items"), []byte("0123456789abcdef0123456789abcdef")
	m, v := r.open("acme", "/")
	b.ReportAllocs()
	for b.Loop() {
		recent.Remember(r.table, r.now, id, req, m, v, 429)
	}
}
