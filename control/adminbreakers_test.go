package control

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAdminBreakers(t *testing.T) {
	r := newAdminRig(t)
	const want = `BREAKER  TARGET          TENANT    LEVEL                SINCE                 OFFERED  PASSED   BASELINE  CORRIDOR            CALLS  FAILED  SLOW
orders   Backend orders  (all)     degraded             2026-05-04T09:00:15Z  310.0/s  305.2/s  200.0/s   at most 270.0/s     3100   2       1
pay      Route pay       (others)  normal, 40% pass     never                 -        -        -         -                   0      0       0
pay      Route pay       acme      open until 09:01:02  never                 -        -        -         -                   20     20      0
quiet    Backend orders  (all)     normal               never                 0.0/s    0.0/s    -         -                   -      -       -
steady   Backend orders  (all)     half_open            never                 0.0/s    0.0/s    20.0/s    13.0/s to 27.0/s    -      -       -
up       Backend orders  (all)     normal               never                 0.0/s    0.0/s    20.0/s    at least 13.0/s     -      -       -
`
	_, _, text := r.do("GET", "/breakers", "")
	if diff := cmp.Diff(columns(want), columns(text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var got struct{ Breakers []Breaker }
	r.json("/breakers", 200, &got)
	if len(got.Breakers) != 6 || got.Breakers[0].Rate.Passed != 305.25 || got.Breakers[1].Rate != nil || !got.Breakers[2].PerTenant || got.Breakers[2].Until.IsZero() {
		t.Errorf("got %+v", got)
	}
	r.want("GET", "/breakers?breaker=none", "", 200, "no breakers\n")
	if _, _, none := r.do("GET", "/breakers?breaker=none&o=json", ""); none != "{\n  \"breakers\": []\n}\n" {
		t.Errorf("got %q", none)
	}
	if _, _, index := r.do("GET", "/", ""); !strings.Contains(index, "/breakers ") {
		t.Errorf("/breakers is not listed:\n%s", index)
	}
}

// columns are the cells of a table, which two spaces and more divide.
func columns(text string) (rows [][]string) {
	for line := range strings.Lines(text) {
		var cells []string
		for cell := range strings.SplitSeq(strings.TrimSpace(line), "  ") {
			if cell = strings.TrimSpace(cell); cell != "" {
				cells = append(cells, cell)
			}
		}
		rows = append(rows, cells)
	}
	return rows
}
