package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"weir/control"
	"weir/control/etcd"
)

// A source whose password file is missing says so, and looks again by itself and at once when it is told to.
func TestEtcdSourceWithoutItsFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &process{logger: zerolog.Nop()}
		s := p.etcdSource("platform", etcd.Options{
			Endpoints: []string{"http://127.0.0.1:1"}, Username: "sidecar", PasswordFile: t.TempDir() + "/missing",
		}, etcd.LayoutAt("/weir"))
		ctx, cancel := context.WithCancel(t.Context())
		tries := make(chan time.Time, 10)
		ended := make(chan error, 1)
		go func() {
			ended <- s.Run(ctx, func(b control.Batch) {
				if etcd.CauseOf(b.Err) != etcd.Files {
					t.Errorf("got %v, want that a file is missing", b.Err)
				}
				tries <- time.Now()
			})
		}()
		first := <-tries
		if second := <-tries; second.Sub(first) != openEvery {
			t.Errorf("it looked again after %s, want %s", second.Sub(first), openEvery)
		}
		told := time.Now()
		s.Reload()
		if third := <-tries; third != told {
			t.Errorf("it looked again %s after it was told to, want at once", third.Sub(told))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}
