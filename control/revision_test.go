package control

import (
	"errors"
	"testing"
	"testing/synctest"
)

// The revision that a source is shown with is the one in force: not that of a batch that could not be applied, nor of no batch.
func TestRevisionInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(revision int64, b Batch) Batch {
			b.Revision = revision
			return b
		}
		r := newRig(t, "", at(7, twoTenants(policyDoc("acme", 10))))
		var told []Status
		r.m.o.OnStatus = func(s Status) { told = append(told, s) }
		r.start()
		f := func(what string, want int64) {
			t.Helper()
			if got := r.m.Status().Sources[0].Revision; got != want {
				t.Errorf("%s: revision %d, want %d", what, got, want)
			}
			if len(told) == 0 || told[len(told)-1].Sources[0].Revision != want {
				t.Errorf("%s: whoever asked to be told was not told of revision %d", what, want)
			}
			told = nil
		}
		f("started", 7)
		r.source.say(at(9, twoTenants(policyDoc("acme", 20))))
		f("changed", 9)
		r.source.say(at(11, twoTenants(policyDoc("acme", 20))))
		f("written again with the same content", 11)
		r.source.say(at(12, twoTenants(misspelt("TenantPolicy", "acme"))))
		f("one document is refused, and what is in force says so", 12)
		r.source.say(Batch{Err: errors.New("no leader")})
		f("not readable now", 12)
		r.fail = errors.New("port taken")
		r.source.say(at(13, twoTenants(policyDoc("acme", 30))))
		f("could not be applied", 12)
		r.fail = nil
		r.m.Reload()
		synctest.Wait()
		f("could be applied", 13)
	})
}
