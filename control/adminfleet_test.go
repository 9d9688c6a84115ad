package control

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fleetOfThree is a fleet of which the last member is the coordinator and the first one who shows it.
func fleetOfThree() Fleet {
	at := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	return Fleet{
		Source: "platform", Service: "orders", ID: "web-1-aa", Registered: true, Coordinator: "web-3-cc", Revision: 42,
		InSync: 1, Behind: 1, Drifted: 1, ReadAt: at, Age: 0.5,
		Members: []FleetMember{
			{ID: "web-1-aa", Version: "v1", Host: "web-1", Address: "127.0.0.1:9901", Revision: 42, Hash: "0123456789abcdef", AppliedAt: at, State: "in_sync"},
			{ID: "web-2-bb", State: "behind", Reasons: []string{"it has applied nothing from here yet"}},
			{ID: "web-3-cc", Version: "v1", Host: "web-3", Address: "unix:/run/weir", Revision: 42, Hash: "01", AppliedAt: at, State: "drifted",
				Reasons: []string{"it refuses Route a", "it still runs Route b, which is gone"}, Problems: 2, FirstProblem: "a:1: b"},
		},
	}
}

func TestAdminFleet(t *testing.T) {
	f := func(want string, fleets ...Fleet) {
		t.Helper()
		h := NewAdmin(AdminOptions{Fleets: func(context.Context) []Fleet { return fleets }})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/fleet", nil))
		if diff := cmp.Diff(columns(want), columns(w.Body.String())); w.Code != 200 || diff != "" {
			t.Errorf("%d (-want +got):\n%s", w.Code, diff)
		}
	}
	const table = `ID        STATE    REVISION  SINCE                 HASH          VERSION  HOST   ADMIN           PROBLEMS
web-1-aa  in sync  42        2026-05-04T09:00:00Z  0123456789ab  v1       web-1  127.0.0.1:9901  0         this one
web-2-bb  behind   0         never                 -             -        -      -               0
web-3-cc  drifted  42        2026-05-04T09:00:00Z  01            v1       web-3  unix:/run/weir  2         coordinator
web-2-bb: it has applied nothing from here yet
web-3-cc: it refuses Route a
web-3-cc: it still runs Route b, which is gone
`
	f("fleet orders, by source platform: 1 of 3 in sync at revision 42, 1 behind, 1 drifted\n"+table, fleetOfThree())
	// without etcd
	stale := fleetOfThree()
	stale.Error, stale.Age, stale.Registered, stale.Unregistered = "gone; to do: wait", 75, false, "gone, too"
	f("fleet orders, by source platform: 1 of 3 in sync at revision 42, 1 behind, 1 drifted\n"+
		"this was so at 2026-05-04T09:00:00Z, 75 seconds ago; etcd cannot be read now: gone; to do: wait\n"+
		"this sidecar, web-1-aa, is not registered: gone, too\n"+table, stale)
	// without etcd since the start, and a second fleet
	f("fleet orders, by source team: not known yet\n"+
		"etcd cannot be read now: gone\n"+
		"this sidecar, web-1-aa, is not registered: gone\n"+
		"\n"+
		"fleet carts, by source other: 0 of 0 in sync at revision 3\n",
		Fleet{Source: "team", Service: "orders", ID: "web-1-aa", Error: "gone", Unregistered: "gone"},
		Fleet{Source: "other", Service: "carts", Registered: true, Revision: 3, ReadAt: time.Unix(1, 0)})
	// with nothing in the store that could have a revision
	f("fleet carts, by source other: 0 of 0 in sync with a store that has no documents\n",
		Fleet{Source: "other", Service: "carts", Registered: true, ReadAt: time.Unix(1, 0)})
	f("no fleet: none of the policy sources is in etcd\n")
}

func TestAdminFleetAsJSON(t *testing.T) {
	f := func(want string, fleets ...Fleet) {
		t.Helper()
		h := NewAdmin(AdminOptions{Fleets: func(context.Context) []Fleet { return fleets }})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/fleet?o=json", nil))
		if got := strings.Join(strings.Fields(w.Body.String()), ""); w.Code != 200 || got != want {
			t.Errorf("%d\ngot  %s\nwant %s", w.Code, got, want)
		}
	}
	f(`{"fleets":[]}`)
	f(`{"fleets":[{"source":"team","service":"orders","id":"a","registered":false,"unregistered":"gone","revision":0,"inSync":0,"behind":0,"drifted":0,`+
		`"ageSeconds":0,"error":"gone","members":[]}]}`,
		Fleet{Source: "team", Service: "orders", ID: "a", Error: "gone", Unregistered: "gone"})
	one := fleetOfThree()
	one.Members = one.Members[2:]
	f(`{"fleets":[{"source":"platform","service":"orders","id":"web-1-aa","registered":true,"coordinator":"web-3-cc","revision":42,"inSync":1,"behind":1,`+
		`"drifted":1,"readAt":"2026-05-04T09:00:00Z","ageSeconds":0.5,"members":[{"id":"web-3-cc","version":"v1","host":"web-3","address":"unix:/run/weir",`+
		`"revision":42,"hash":"01","appliedAt":"2026-05-04T09:00:00Z","state":"drifted","reasons":["itrefusesRoutea","itstillrunsRouteb,whichisgone"],`+
		`"problems":2,"firstProblem":"a:1:b"}]}]}`, one)
}

// A sidecar without fleets has no such page.
func TestAdminWithoutFleet(t *testing.T) {
	w := httptest.NewRecorder()
	NewAdmin(AdminOptions{}).ServeHTTP(w, httptest.NewRequest("GET", "/fleet", nil))
	if w.Code != 404 {
		t.Errorf("got %d", w.Code)
	}
}
