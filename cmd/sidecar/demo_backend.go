package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	// legacyWork is how long the legacy service takes for a request.
	legacyWork = 4 * time.Millisecond
	// legacySlots is how many requests it works on at once; the others wait. So it serves about 1,000 a second.
	legacySlots = 4
)

// legacy is a service of the sort Weir is made for: it knows nothing of tenants, does a few things at once and lets
// everybody wait for everybody else.
type legacy struct {
	server http.Server
	slots  chan struct{}
	done   chan error
}

// startLegacy serves on l until stop.
func startLegacy(l net.Listener) *legacy {
	s := &legacy{slots: make(chan struct{}, legacySlots), done: make(chan error, 1)}
	s.server = http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 5 * time.Second}
	go func() { s.done <- s.server.Serve(l) }()
	return s
}

func (s *legacy) serve(w http.ResponseWriter, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-r.Context().Done():
		return
	}
	timer := time.NewTimer(legacyWork)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, "{\"service\":\"legacy\",\"path\":%q}\n", r.URL.Path)
}

// stop ends the service once the requests in flight are answered.
func (s *legacy) stop(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
