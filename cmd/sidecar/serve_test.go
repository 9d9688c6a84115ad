package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weir/policy"
)

// --listen moves a listener. It never takes TLS away.
func TestListenSettings(t *testing.T) {
	plain := policy.ListenerSettings{Name: "a", Network: "tcp", Address: ":1"}
	secure := policy.ListenerSettings{Name: "b", Network: "tcp", Address: ":2", TLS: &policy.ListenerTLS{CertFile: "x"}}
	f := func(flag string, listeners []policy.ListenerSettings, want ...policy.ListenerSettings) {
		t.Helper()
		got, err := listenSettings(flag, listeners)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("--listen %q: %v (-want +got):\n%s", flag, err, diff)
		}
	}
	both := []policy.ListenerSettings{plain, secure}
	f("", both, both...)
	f(":9", []policy.ListenerSettings{plain}, policy.ListenerSettings{Name: "a", Network: "tcp", Address: ":9"})
	f("unix:/s", []policy.ListenerSettings{secure}, policy.ListenerSettings{Name: "b", Network: "unix", Address: "/s", TLS: secure.TLS})
	f(":9", []policy.ListenerSettings{plain, plain}, policy.ListenerSettings{Name: "listen", Network: "tcp", Address: ":9"})
	if got, err := listenSettings(":9", both); err == nil || !strings.Contains(err.Error(), "some of them with TLS") {
		t.Errorf("two listeners, one with TLS: %v %v", got, err)
	}
}
