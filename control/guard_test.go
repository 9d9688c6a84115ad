package control

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weir/policy"
)

// tenantsDoc is a TenantPolicy of a selector, as in names: [a, b].
func tenantsDoc(name, selector string) string {
	return doc("TenantPolicy", name, "{tenants: {"+selector+"}}")
}

// numbered are the names t-0 to t-(n-1), as a selector.
func numbered(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("t-%d", i))
	}
	return "names: [" + strings.Join(names, ", ") + "]"
}

func decodeAll(t *testing.T, texts ...string) []*policy.Document {
	t.Helper()
	docs, problems := policy.Decode("test", []byte(joined(texts...)))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return docs
}

func TestRemovedTenants(t *testing.T) {
	f := func(before, after []string, want string, many bool) {
		t.Helper()
		r := RemovedTenants(decodeAll(t, before...), decodeAll(t, after...))
		got := ""
		if len(r.Gone) > 0 {
			got = r.String()
		}
		if diff := cmp.Diff(want, got); diff != "" || r.Many() != many {
			t.Errorf("many: %v, want %v (-want +got):\n%s", r.Many(), many, diff)
		}
	}
	list := func(texts ...string) []string { return texts }
	backend := backendDoc("orders", "127.0.0.1:1")
	// nothing was there, nothing is gone, only others go
	f(list(backend), list(tenantsDoc("a", "names: [x]")), "", false)
	f(list(tenantsDoc("a", "names: [x, y]")), list(tenantsDoc("b", "names: [y]"), tenantsDoc("c", "names: [x]")), "", false)
	f(list(backend, tenantsDoc("a", "any: true")), list(tenantsDoc("a", "any: true")), "", false)
	// all of them, however few
	f(list(tenantsDoc("a", "names: [x]")), list(backend), "1 of 1 tenants (100 %): x", true)
	f(list(tenantsDoc("a", "names: [y, x]")), list(backend), "2 of 2 tenants (100 %): x, y", true)
	// some of few
	f(list(tenantsDoc("a", "names: [x, y]")), list(tenantsDoc("a", "names: [y]")), "1 of 2 tenants (50 %): x", false)
	f(list(tenantsDoc("a", "names: [x, y, z]")), list(tenantsDoc("a", "names: [y]")), "2 of 3 tenants (66 %): x, z", false)
	f(list(tenantsDoc("a", "names: [w, x, y, z]")), list(tenantsDoc("a", "names: [y]")), "3 of 4 tenants (75 %): w, x, z", true)
	// on either side of 30 %
	f(list(tenantsDoc("a", numbered(10))), list(tenantsDoc("a", numbered(7))), "3 of 10 tenants (30 %): t-7, t-8, t-9", false)
	f(list(tenantsDoc("a", numbered(13))), list(tenantsDoc("a", numbered(9))), "4 of 13 tenants (30 %): t-10, t-11, t-12, t-9", true)
	f(list(tenantsDoc("a", numbered(20))), list(tenantsDoc("a", numbered(2))),
		"18 of 20 tenants (90 %): t-10, t-11, t-12, t-13, t-14 and 13 more", true)
	// selectors count one each, and the last `any` counts for all; a tenant may be called like one
	f(list(tenantsDoc("a", "match: 'eu-*'"), tenantsDoc("b", "unknown: true"), tenantsDoc("c", numbered(9))), list(tenantsDoc("c", numbered(8))),
		`3 of 11 tenants (27 %): t-8, match "eu-*", unknown`, false)
	f(list(tenantsDoc("a", "any: true"), tenantsDoc("c", numbered(99))), list(tenantsDoc("c", numbered(99))), "1 of 100 tenants (1 %): any", true)
	f(list(tenantsDoc("a", "any: true"), tenantsDoc("b", "any: true")), list(tenantsDoc("b", "any: true")), "", false)
	f(list(tenantsDoc("a", "names: [any, x]")), list(tenantsDoc("a", "names: [x]")), "1 of 2 tenants (50 %): any", false)
}
