package main

import (
	"errors"
	"net/http"

	"weir/control"
	"weir/policy"
)

// wait opens the admin port for the time in which the start waits for etcd, so that whoever looks is told what it waits for. s is what
// the other sources come to, nil: nothing. The admin port of the running process takes its place after stopWaiting.
func (p *process) wait(s *policy.Snapshot) {
	address := p.options.admin
	if address == "" && s != nil {
		address = s.Sidecar.Admin.Address
	}
	if address == "" {
		address = policy.NewSpec(policy.KindSidecar).(*policy.SidecarSpec).Admin.Address
	}
	l, err := control.ListenAdmin(address)
	if err != nil {
		p.logger.Warn().Err(err).Msg("waiting without an admin port")
		return
	}
	server := control.NewAdminServer(control.NewAdmin(control.AdminOptions{
		Logger: p.logger, Gatherer: p.registry, Status: p.manager.Status, LogLevel: p.level,
	}), p.logger)
	ended := make(chan struct{})
	p.stopWaiting = func() {
		_ = server.Close()
		<-ended
	}
	go func() {
		defer close(ended)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			p.logger.Error().Err(err).Msg("admin port ended")
		}
	}()
	p.logger.Info().Str("admin", l.Addr().String()).Msg("waiting: the admin port says what for")
}
