package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"weir/control"
)

// serveAdmin serves an admin port, and returns what ends it: who is being answered then has a second.
func serveAdmin(ln net.Listener, o control.AdminOptions) (stop func()) {
	server := control.NewAdminServer(control.NewAdmin(o), o.Logger)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			o.Logger.Error().Err(err).Msg("admin port ended")
		}
	})
	return func() {
		ending, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ending) != nil {
			_ = server.Close() // a scrape that hangs does not hold up the end
		}
		serving.Wait()
	}
}
