package etcd

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain also sees that nothing is left running. Members of one cluster talk to each other by HTTP, and one that is closed may leave a
// connection behind until its other end finds out.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"),
	)
}
