package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control"
	"weir/control/etcd"
	"weir/control/etcd/care"
	"weir/control/etcd/etcdtest"
	"weir/control/fleet"
	"weir/policy"
	"weir/policy/diff"
)

// expectFinding looks for a finding of that level whose message has a text.
func expectFinding(t *testing.T, list []care.Finding, check string, level care.Level, want string) {
	t.Helper()
	for _, f := range list {
		if f.Check != check || f.Level != level || !strings.Contains(f.Message, want) {
			continue
		}
		if level != care.OK && (f.Next == "" || f.Page == "") {
			t.Errorf("%s: %s: says nothing of the way back", check, f.Message)
		}
		return
	}
	t.Errorf("no %s of %s with %q in %+v", level, check, want, list)
}

const (
	storedRoute = "apiVersion: weir.dev/v1alpha1\nkind: Route\nmetadata: {name: pay}\nspec: {backend: orders}\n"
	localOrders = "apiVersion: weir.dev/v1alpha1\nkind: Backend\nmetadata: {name: orders}\nspec: {endpoints: [{address: \"127.0.0.1:9000\"}]}\n"
)

func TestCheckPolicies(t *testing.T) {
	layout := etcd.LayoutAt("/weir")
	f := func(documents map[string]string, local, check string, level care.Level, want string) {
		t.Helper()
		facts := storeFacts{layout: layout, documents: etcd.Documents{Revision: 7}}
		for key, text := range documents {
			kind, name, _ := strings.Cut(key, "/")
			facts.documents.Stored = append(facts.documents.Stored, etcd.NewStored(etcdName, diff.Key{Kind: policy.Kind(kind), Name: name}, text))
		}
		if local != "" {
			facts.local = []control.File{{Path: "local.yaml", Data: []byte(local)}}
		}
		expectFinding(t, facts.policies(), check, level, want)
	}

	// nothing there
	f(nil, "", "documents", care.Warning, "no documents lie below /weir/v1/policy/")
	// alone and together
	f(map[string]string{"Backend/orders": localOrders, "Route/pay": storedRoute}, "", "documents", care.OK, "2 documents are there at revision 7, and valid together")
	// what etcd's documents refer to may be in files, which are named or not
	f(map[string]string{"Route/pay": storedRoute}, "", "documents", care.Warning, `etcd:Route/pay:4:17: spec.backend: no Backend is named "orders"`)
	f(map[string]string{"Route/pay": storedRoute}, localOrders, "documents", care.OK, "1 document is there")
	f(map[string]string{"Route/pay": storedRoute}, strings.ReplaceAll(localOrders, "name: orders", "name: carts"), "documents", care.Failure, "orders")
	// a document that cannot be read
	f(map[string]string{"Route/pay": storedRoute + "x: 1\n"}, "", "documents", care.Failure, "etcd:Route/pay:5:1")
	// keys that hold something else than they say, and of another shape
	f(map[string]string{"Route/refund": storedRoute}, "", "documents", care.Failure, "the text says Route pay")
	f(map[string]string{"Route/pay": storedRoute + "---\n" + localOrders}, "", "documents", care.Failure, "the key holds 2 documents, want one")
	facts := storeFacts{layout: layout, documents: etcd.Documents{Strange: []string{"/weir/v1/policy/Route"}}}
	expectFinding(t, facts.policies(), "keys", care.Warning, "the key /weir/v1/policy/Route is not of a document")

	facts = storeFacts{err: errors.New("no answer")}
	expectFinding(t, facts.policies(), "read", care.Failure, "cannot read the documents: no answer")
}

// Many problems do not hide the rest.
func TestCheckListsFewProblems(t *testing.T) {
	facts := storeFacts{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		facts.documents.Stored = append(facts.documents.Stored, etcd.NewStored(etcdName, diff.Key{Kind: policy.KindRoute, Name: name}, "kind: Rout"))
	}
	list := facts.policies()
	if len(list) != maxListed+1 || !strings.Contains(list[maxListed].Message, "more problems") {
		t.Errorf("got %+v", list)
	}
}

func TestCheckFleet(t *testing.T) {
	now := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	at := func(id string, revision int64) fleet.Member {
		return fleet.Member{
			ID: id, Host: id, Version: "v1", At: now.Add(-time.Hour),
			Sources: []fleet.SourceState{{Name: "etcd", Here: true, Revision: revision, Healthy: true}},
		}
	}
	f := func(members []fleet.Member, check string, level care.Level, want string) {
		t.Helper()
		latest := fleet.Want{Revision: 5, Documents: []fleet.WantedDocument{}}
		facts := storeFacts{now: now, version: "v1", layout: etcd.LayoutAt("/weir"), members: members, want: latest}
		expectFinding(t, facts.fleet(), check, level, want)
	}
	changed := func(m fleet.Member, change func(*fleet.Member)) []fleet.Member {
		change(&m)
		return []fleet.Member{at("a", 5), m}
	}

	f(nil, "members", care.Warning, "no sidecar is registered below /weir/v1/fleet/")
	f([]fleet.Member{at("a", 5), at("b", 8)}, "members", care.OK, "2 of 2 sidecars run what etcd has at revision 5")
	// behind for a moment, and behind since it reads nothing
	f([]fleet.Member{at("a", 5), at("b", 4)}, "in sync", care.Warning, "b (b) is behind: it has applied revision 4, the latest change is 5")
	f([]fleet.Member{at("a", 5), at("b", 4)}, "members", care.OK, "1 of 2 sidecars")
	f(changed(at("b", 4), func(m *fleet.Member) { m.Sources[0].Healthy, m.Sources[0].Error = false, "denied" }), "in sync", care.Failure, "it cannot read its source: denied")
	f(changed(at("b", 5), func(m *fleet.Member) { m.Sources = nil }), "in sync", care.Failure, "b (b) is behind")
	// something else in force than etcd has
	f(changed(at("b", 5), func(m *fleet.Member) {
		m.Differences, m.DifferenceCount = []fleet.Difference{{Kind: policy.KindRoute, Name: "pay", State: fleet.LastGood}}, 1
	}), "in sync", care.Failure, "b (b) is drifted: it still runs Route pay, which is gone")
	// versions
	f([]fleet.Member{at("a", 5)}, "versions", care.OK, "all run v1; this is v1")
	f(changed(at("b", 5), func(m *fleet.Member) { m.Version = "v2" }), "versions", care.Warning, "1 sidecar run v1 (as a), 1 sidecar run v2 (as b)")
	// clocks: at the threshold and past it
	f(changed(at("b", 5), func(m *fleet.Member) { m.At = now.Add(clockAhead) }), "clocks", care.OK, "no sidecar's clock")
	f(changed(at("b", 5), func(m *fleet.Member) { m.At = now.Add(clockAhead + time.Second) }), "clocks", care.Warning, "the clock of b is at least 3s ahead of ours")

	facts := storeFacts{membersErr: errors.New("no answer")}
	expectFinding(t, facts.fleet(), "read", care.Failure, "cannot read the sidecars: no answer")
}

func TestCheckSidecar(t *testing.T) {
	f := func(status, check string, level care.Level, want string) {
		t.Helper()
		var s shownStatus
		if err := json.Unmarshal([]byte(status), &s); err != nil {
			t.Fatal(err)
		}
		expectFinding(t, judgeSidecar("127.0.0.1:9901", s), check, level, want)
	}

	f(`{"revision": 3, "objects": {"applied": 4, "lastGood": 1}}`, "answer", care.OK, "policy number 3, of 5 documents")
	f(`{"sources": [{"name": "etcd", "healthy": true}]}`, "source", care.OK, "its source etcd is read")
	f(`{"sources": [{"name": "etcd", "error": "denied"}]}`, "source", care.Failure, "its source etcd is not read: denied")
	f(`{"lastGood": {"inUse": 2}}`, "last good", care.Warning, "2 documents in force come from the file")
	f(`{"sources": [{"name": "etcd", "healthy": true, "revision": 7}]}`, "last good", care.Warning, "no last good documents are kept")
	f(`{"lastGood": {"error": "read-only"}}`, "last good", care.Warning, "are not kept: read-only")
	f(`{"problems": [{"severity": "warning", "message": "meant so?"}, {"severity": "error", "name": "pay", "message": "is wrong"}, {"severity": "error"}]}`,
		"problems", care.Failure, "it has problems: pay: is wrong (and 1 more)")

	// what a sidecar really shows can be read
	shown, err := json.Marshal(control.Status{Problems: []policy.Problem{{Kind: policy.KindRoute, Name: "pay", Origin: policy.Origin{File: "a.yaml"}, Message: "is wrong"}}})
	if err != nil {
		t.Fatal(err)
	}
	f(string(shown), "problems", care.Failure, "it has problems: pay: is wrong")

	// somebody asked for one that is not there
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	expectFinding(t, lookAtSidecar(context.Background(), address), "answer", care.Failure, "no sidecar answers at "+address)
}

func TestCheckUsage(t *testing.T) {
	f := func(line, want string) {
		t.Helper()
		code, stdout, stderr := call(nil, strings.Fields(line)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("sidecar %s: exit code %d, %s%s; want %d and %q", line, code, stdout, stderr, exitUsage, want)
		}
	}

	f("check --only etc", `cannot use --only "etc": want some of setup, connection, etcd, permissions, certificates, policies, fleet, sidecar; did you mean "etcd"?`)
	f("check --only etcd", "cannot look at etcd: no etcd is named")
	f("check --etcd 127.0.0.1:2379", "want the URLs of its members")
	f("check --wait -1s", "want a positive duration")
	f("check -o yaml", `"yaml" is not one of table, json`)
	f("etcd-defrag", "no etcd is named")
	f("etcd-defrag --etcd http://127.0.0.1:1 --min-fragmentation 45", "has no percent sign")
	f("etcd-defrag --etcd http://127.0.0.1:1 --min-free lots", "is not a size")
}

func TestMarks(t *testing.T) {
	f := func(env map[string]string, want string) {
		t.Helper()
		c := newCLI(streams{}, lookupIn(env))
		if got := c.marks(); strings.Join(got[:], " ") != want {
			t.Errorf("%v: got %s, want %s", env, got, want)
		}
	}
	const signs, words = "√ ‼ ×", "[ok] [warning] [failed]"

	f(map[string]string{"LANG": "en_US.UTF-8"}, signs)
	f(map[string]string{"LC_CTYPE": "C.utf8"}, signs)
	f(map[string]string{"LANG": "C"}, words)
	f(nil, words)
	// the first that is set counts
	f(map[string]string{"LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}, words)
	f(map[string]string{"LC_ALL": "", "LANG": "en_US.UTF-8"}, signs)
}

func TestCheckReportIsReadable(t *testing.T) {
	var out bytes.Buffer
	r := newCheckReport([]care.Finding{
		finding(care.OK, care.Etcd, "leader", "", "", "", "all follow m0"),
		finding(care.Warning, care.Etcd, "members", "", "Run three members.", "docs/etcd-care.md", "there is one member"),
		finding(care.Failure, care.Fleet, "in sync", "a", "Read its log.", "docs/fleet.md", "a is behind"),
	})
	if err := r.print(&out, false, newCLI(streams{}, lookupIn(nil)).marks()); err != nil {
		t.Fatal(err)
	}
	const want = `etcd
----
[ok] all follow m0
[warning] there is one member
    Run three members.
    see docs/etcd-care.md

fleet
-----
[failed] a is behind
    Read its log.
    see docs/fleet.md

1 failure and 1 warning
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if got := newCheckReport(nil); got.summary() != "all is well" || got.verdict() != nil {
		t.Errorf("nothing found: %s, %v", got.summary(), got.verdict())
	}
}

// The whole command against a cluster: well, without it, and waiting for it.
func TestCheckCommand(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.Put("/weir/v1/policy/Backend/orders", localOrders)
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"SIDECAR_ETCD": cluster.Endpoint(0), "SIDECAR_ETCD_TIMEOUT": "1s"}
	f := func(line string, code int, want ...string) {
		t.Helper()
		got, stdout, stderr := call(env, strings.Fields(line)...)
		if got != code {
			t.Errorf("sidecar %s: exit code %d, want %d; %s%s", line, got, code, stdout, stderr)
		}
		for _, w := range want {
			if !strings.Contains(stdout+stderr, w) {
				t.Errorf("sidecar %s: %q is missing in\n%s%s", line, w, stdout, stderr)
			}
		}
	}

	const most = "setup,connection,etcd,permissions,certificates,policies,fleet"
	f("check --only "+most, exitFine, "setup\n-----", "[ok] all follow m0", "1 document is there at revision 2", "no sidecar is registered", "warnings\n")
	f("check --only sidecar --admin "+address, exitFailed, "no sidecar answers at "+address, "1 check failed")
	f("check --only etcd --wait 1m", exitFine)
	// warnings are not waited for
	f("check --only fleet --wait 2s", exitFine, "no sidecar is registered")
	if _, _, stderr := call(env, "check", "--only", "fleet", "--wait", "2s"); stderr != "" {
		t.Errorf("a warning is waited for: %s", stderr)
	}
	code, stdout, _ := call(env, "check", "--only", most, "-o", "json")
	var report struct {
		Well     bool
		Findings []struct{ Category, Check, Level, Message string }
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitFine || !report.Well {
		t.Errorf("JSON: %v, exit code %d, %s", err, code, stdout)
	}
	var categories []string
	for _, f := range report.Findings {
		categories = append(categories, f.Category)
	}
	if got := strings.Join(slices.Compact(categories), ","); got != "setup,connection,etcd,permissions,policies,fleet" {
		t.Errorf("categories in the order %s", got)
	}

	cluster.Stop(0)
	f("check --only "+most, exitFailed, "connection refused", "cannot read the documents", "cannot read the sidecars", "failures")
	f("check --only etcd", exitFailed, "could not be looked at: no endpoint can be reached")
	f("check --only connection --wait 100ms", exitFailed, "waiting for 1 failure to go", "connection refused")
}

func TestDefragCommand(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	client := cluster.Client()
	for range 8 {
		cluster.Put("/junk", string(make([]byte, 1<<20)))
	}
	ctx := context.Background()
	if _, err := client.Compact(ctx, 9, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	cluster.Put("/junk", "") // etcd counts freed pages as it writes
	env := map[string]string{"SIDECAR_ETCD": cluster.Endpoint(0)}
	f := func(line string, code int, want ...string) {
		t.Helper()
		got, stdout, stderr := call(env, strings.Fields(line)...)
		if got != code {
			t.Errorf("sidecar %s: exit code %d, want %d; %s%s", line, got, code, stdout, stderr)
		}
		for _, w := range want {
			if !strings.Contains(stdout+stderr, w) {
				t.Errorf("sidecar %s: %q is missing in\n%s%s", line, w, stdout, stderr)
			}
		}
	}

	f("etcd-defrag --dry-run", exitFine, "MEMBER", "m0", "yes", "leave alone:", "is not worth it")
	f("etcd-defrag --dry-run --all-members", exitFine, "defragment, 1.")
	f("etcd-defrag", exitFine, "left alone:")
	if size := cluster.Server(0).Server.Backend().Size(); size < 8<<20 {
		t.Errorf("what is not worth it and a dry run have changed the store to %d bytes", size)
	}
	f("etcd-defrag --all-members --disarm", exitFine, "defragmenting m0", "done")
	if size := cluster.Server(0).Server.Backend().Size(); size > 4<<20 {
		t.Errorf("the store takes %d bytes afterwards", size)
	}
	cluster.Stop(0)
	env["SIDECAR_ETCD_TIMEOUT"] = "500ms"
	f("etcd-defrag --all-members", exitFailed, "the cluster is not well enough to defragment a member", "does not answer", "sidecar check --only etcd")
}
