package control

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// Files of TLS are watched, so that a snapshot that could not be applied for want of one is tried again when it comes.
func TestTLSFilesAreWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sidecar := doc("Sidecar", "weir", `{listeners: [
  {name: a, address: ":1", tls: {certFile: /tls/a.crt, keyFile: /tls/a.key, clientCAFile: /tls/ca.crt}},
  {name: b, address: ":2", tls: {certFile: /tls/b.pem, keyFile: /tls/b.pem}}, {name: c, address: ":3"}]}`)
		backend := func(tls string) Batch {
			return files("self.yaml", joined(sidecar, doc("Backend", "orders", `{endpoints: [{address: "a:1"}]`+tls+`}`)))
		}
		r := newRig(t, "", backend(""))
		r.start()
		listeners := []string{"/tls/a.crt", "/tls/a.key", "/tls/b.pem", "/tls/ca.crt"}
		if diff := cmp.Diff(listeners, r.watched); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}
		r.fail = errors.New("no such certificate")
		r.source.say(backend(", tls: {caFile: /tls/orders.crt}"))
		if diff := cmp.Diff(append(listeners, "/tls/orders.crt"), r.watched); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}
		r.want(1, "last_good Backend/orders", "applied Sidecar/weir")
		r.fail = nil
		r.m.Reload() // as a change of a watched file makes the source do
		synctest.Wait()
		r.want(2, "applied Backend/orders", "applied Sidecar/weir")
		r.source.say(backend(""))
		if diff := cmp.Diff(listeners, r.watched); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}
	})
}
