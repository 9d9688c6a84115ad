package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"weir/control"
	"weir/policy"
)

// wait is what the process does while its start waits for etcd: the admin port says what for, and SIGHUP has it look again. s is what
// the other sources come to, nil: nothing. It returns at once; stopWaiting ends it, and makes room for the running process.
func (p *process) wait(s *policy.Snapshot) {
	var waiting sync.WaitGroup
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	waiting.Go(func() {
		for range hangUp {
			p.manager.Reload()
		}
	})
	stopAdmin := func() {}
	if l, err := control.ListenAdmin(p.waitingAddress(s)); err == nil {
		stopAdmin = serveAdmin(l, control.AdminOptions{Logger: p.logger, Gatherer: p.registry, Status: p.manager.Status, LogLevel: p.level})
		p.logger.Info().Str("admin", l.Addr().String()).Msg("waiting: the admin port says what for")
	} else {
		p.logger.Warn().Err(err).Msg("waiting without an admin port")
	}
	p.stopWaiting = func() {
		signal.Stop(hangUp)
		close(hangUp)
		stopAdmin()
		waiting.Wait()
	}
}

// waitingAddress is the admin address as far as it is known.
func (p *process) waitingAddress(s *policy.Snapshot) string {
	switch {
	case p.options.admin != "":
		return p.options.admin
	case s != nil:
		return s.Sidecar.Admin.Address
	}
	return policy.NewSpec(policy.KindSidecar).(*policy.SidecarSpec).Admin.Address
}
