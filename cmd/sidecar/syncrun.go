package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/control"
	"weir/control/distribute"
	"weir/policy"
)

// runSync distributes until ctx ends; with --once or --dry-run until there is no more to do.
func runSync(ctx context.Context, o syncOptions, distribution *policy.Document, stdout, stderr io.Writer) error {
	level, err := control.NewLogLevel(o.logLevel)
	if err != nil {
		return err
	}
	logger := zerolog.New(level.Writer(zerolog.SyncWriter(stderr))).With().Timestamp().Logger()
	registry := prometheus.NewRegistry()
	if err := registerProcess(registry); err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	d, err := distribute.New(distribute.Options{
		Distribution: distribution, Logger: logger, Registerer: registry, By: processName(),
		NoRepair: o.noRepair, DryRun: o.dryRun, TakeOver: o.takeOver, Timeout: o.etcdTimeout,
		OnStatus: func() {
			select {
			case changed <- struct{}{}:
			default: // whoever waits will see ours, too
			}
		},
	})
	if err != nil {
		return err
	}
	stopAdmin := func() {}
	if o.status != "" {
		admin, err := control.ListenAdmin(o.status)
		if err != nil {
			return err
		}
		stopAdmin = serveSyncStatus(admin, d, registry, level, logger)
	}
	defer stopAdmin()
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(running) }()
	if !o.once && !o.dryRun {
		return <-ended
	}
	err = untilSettled(ctx, d, o.timeout, changed, ended)
	s := d.Status()
	stop()
	if err == nil {
		err = <-ended
	}
	if err != nil {
		return err
	}
	return o.conclude(&s, stdout)
}

// processName is what records at clusters call this process.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s:%d", host, os.Getpid())
}

// untilSettled waits until every cluster has come as far as it can, or time has run out. It fails when the distributor does.
func untilSettled(ctx context.Context, d *distribute.Distributor, timeout time.Duration, changed <-chan struct{}, ended <-chan error) error {
	late := time.NewTimer(timeout)
	defer late.Stop()
	for {
		s := d.Status()
		if distribute.Settled(&s) {
			return nil
		}
		select {
		case <-changed:
		case <-late.C:
			return nil // the status says who is not
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		}
	}
}

// conclude prints how far the clusters have come, and fails when one of them is not where it should be.
func (o *syncOptions) conclude(s *control.SyncStatus, stdout io.Writer) error {
	var err error
	if o.output == "json" {
		err = writeJSON(stdout, s)
	} else {
		_, err = io.WriteString(stdout, s.Text())
	}
	if err != nil {
		return err
	}
	if s.Revision == 0 {
		return fmt.Errorf("the source %s could not be read: %s", s.Source, cmp.Or(s.Error, "it has not answered in time; check that its address is right and its members run"))
	}
	var not []string
	for i := range s.Clusters {
		c := &s.Clusters[i]
		if !distribute.Equal(c) && (!o.dryRun || !distribute.Compared(c)) {
			not = append(not, strings.TrimSuffix(fmt.Sprintf("%s is %s: %s", c.Name, c.State, c.Reason), ": "))
		}
	}
	if len(not) > 0 {
		return fmt.Errorf("%d of %d clusters are not in step: %s", len(not), len(s.Clusters), strings.Join(not, "; "))
	}
	return nil
}

// serveSyncStatus serves the admin port of a distribution, and returns what ends it.
func serveSyncStatus(ln net.Listener, d *distribute.Distributor, registry *prometheus.Registry, level *control.LogLevel, logger zerolog.Logger) (stop func()) {
	ready := func() []control.Check {
		read := control.Check{Name: "source read", OK: d.Status().Revision > 0}
		if !read.OK {
			read.Missing = "the source was not read yet"
		}
		return []control.Check{read}
	}
	logger.Info().Str("admin", ln.Addr().String()).Msg("distributing")
	return serveAdmin(ln, control.AdminOptions{Logger: logger, Gatherer: registry, Sync: d.Status, Ready: ready, LogLevel: level})
}
