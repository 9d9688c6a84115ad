package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"

	"weir/control"
	"weir/control/etcd"
	"weir/control/file"
	"weir/policy"
	"weir/proxy"
)

// process is a running sidecar: the rooms, put together.
type process struct {
	options  runOptions
	started  time.Time
	clock    proxy.Clock
	stdout   io.Writer
	stderr   io.Writer
	level    *control.LogLevel
	logger   zerolog.Logger
	registry *prometheus.Registry
	access   *accessLogFile
	files    *file.Source  // watches the files that documents are in, or depend on
	etcd     *etcd.Metrics // of the sources that are read from etcd
	fleets   *fleets
	manager  *control.Manager
	watching sync.WaitGroup
	// stopWaiting closes the admin port that is open while the start waits for etcd.
	stopWaiting func()
	proxy       *proxy.Proxy // made with the first snapshot, whose bounds it keeps
	serving     sync.WaitGroup
}

// runSidecar runs a sidecar until ctx ends or the admin port is told to drain, then lets requests in flight end. Everything
// is read and checked before anything is bound.
func runSidecar(ctx context.Context, o runOptions, stdout, stderr io.Writer) error {
	p, err := newProcess(o, stdout, stderr)
	if err != nil {
		return err
	}
	defer p.access.close(p.logger)
	watching, stopWatching := context.WithCancel(context.Background())
	defer func() { stopWatching(); p.manager.Wait(); p.watching.Wait() }()
	if err := p.startPolicy(ctx, watching); err != nil {
		return err
	}
	if p.proxy == nil {
		return nil // told to end while it waited for etcd
	}
	settings, err := listenSettings(o.listen, p.proxy.Snapshot().Sidecar.Listeners)
	if err != nil {
		return err
	}
	listeners, err := proxy.Listen(settings)
	if err != nil {
		return err
	}
	admin, err := p.listenAdmin()
	if err != nil {
		for _, ln := range listeners {
			_ = ln.Close()
		}
		return err
	}
	return p.serve(ctx, listeners, admin)
}

func newProcess(o runOptions, stdout, stderr io.Writer) (*process, error) {
	level, err := control.NewLogLevel(o.logLevel)
	if err != nil {
		return nil, err
	}
	p := &process{
		options: o, started: time.Now(), clock: proxy.SystemClock(), stdout: stdout, stderr: stderr, level: level,
		logger:   zerolog.New(level.Writer(zerolog.SyncWriter(stderr))).With().Timestamp().Logger(),
		registry: prometheus.NewRegistry(), stopWaiting: func() {},
	}
	p.access = newAccessLogFile(stdout, stderr)
	p.limitMemory()
	if err := registerProcess(p.registry); err != nil {
		return nil, err
	}
	if p.fleets, err = newFleets(p.logger, p.registry, p.started); err != nil {
		return nil, err
	}
	if p.etcd, err = etcd.NewMetrics(p.registry); err != nil {
		return nil, err
	}
	p.files = file.New(file.Options{Paths: o.files, Logger: p.logger})
	p.manager, err = control.NewManager(control.Options{
		Logger:       p.logger,
		Registerer:   p.registry,
		Compile:      policy.CompileOptions{Service: o.service},
		Apply:        p.apply,
		LastGood:     o.lastGood,
		WatchFiles:   p.files.Watch,
		Sources:      p.namedSources,
		AwaitSources: o.alone == withoutEtcdWait,
		OnWait:       p.wait,
		OnStatus:     p.fleets.report,
	})
	return p, err
}

// limitMemory keeps the process below the memory of its cgroup, so that the garbage collector works harder before the kernel
// kills.
func (p *process) limitMemory() {
	limit, err := memlimit.Set(memlimit.WithRatio(0.9), memlimit.WithProvider(memlimit.FromCgroup))
	if err == nil && limit > 0 && limit < 1<<60 { // a cgroup without a limit has the largest number
		p.logger.Info().Int64("bytes", limit).Msg("memory limit taken from the cgroup (GOMEMLIMIT)")
	}
}

// registerProcess registers what every process shows of itself.
func registerProcess(reg prometheus.Registerer) error {
	b := readBuild()
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_build_info", Help: "Always 1; its labels say what is running.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "go": b.Go},
	}, func() float64 { return 1 })
	for _, c := range []prometheus.Collector{
		info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("cannot register metrics: %w", err)
		}
	}
	return nil
}

// apply puts a snapshot in force.
func (p *process) apply(s *policy.Snapshot) error {
	if p.proxy == nil {
		made, err := proxy.New(proxy.Options{
			Clock: p.clock, Logger: p.logger, Registerer: p.registry, AccessLog: p.access.log, Bounds: s.Sidecar.Bounds,
		})
		if err != nil {
			return err
		}
		p.proxy = made
	}
	if err := p.access.use(s.Sidecar.AccessLog.Path); err != nil {
		return err
	}
	if err := p.proxy.Apply(s); err != nil {
		return err
	}
	p.fleets.serve(s.Sidecar.Service)
	return nil
}

// listenSettings are the addresses to serve on: the documents', or the flag's in the place of them. The flag moves a single
// listener, TLS and all; of several it would have to forget what they are for, which is refused where that is TLS.
func listenSettings(flag string, listeners []policy.ListenerSettings) ([]policy.ListenerSettings, error) {
	if flag == "" {
		return listeners, nil
	}
	moved := policy.ListenerSettings{Name: "listen"}
	if len(listeners) == 1 {
		moved = listeners[0]
	} else if slices.ContainsFunc(listeners, func(l policy.ListenerSettings) bool { return l.TLS != nil }) {
		return nil, fmt.Errorf("cannot serve plain HTTP on --listen %s in the place of %d listeners, some of them with TLS; "+
			"leave the flag out, or write a single listener", flag, len(listeners))
	}
	moved.Network, moved.Address = policy.SplitAddress(flag)
	return []policy.ListenerSettings{moved}, nil
}

func (p *process) listenAdmin() (net.Listener, error) {
	address := p.options.admin
	if address == "" {
		address = p.proxy.Snapshot().Sidecar.Admin.Address
	}
	return control.ListenAdmin(address)
}

// serve serves until the end, in this order: the proxy drains while the admin port still answers, then that ends too.
func (p *process) serve(ctx context.Context, listeners []net.Listener, admin net.Listener) error {
	p.fleets.listen(admin.Addr().String())
	stopAdmin := serveAdmin(admin, control.AdminOptions{
		Logger: p.logger, Gatherer: p.registry, Status: p.manager.Status, Ready: p.ready, Tenants: p.tenants, Breakers: p.breakers,
		Fleets: p.fleets.look, Why: p.proxy.Why, LogLevel: p.level, Drain: p.proxy.Drain, Pprof: p.proxy.Snapshot().Sidecar.Admin.Pprof,
	})
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	p.serving.Go(func() { p.reloadOn(hangUp) })
	ended := make(chan struct{})
	p.serving.Go(func() { p.access.tellOfLosses(ended, p.logger) })

	line := p.logger.Info().Str("admin", admin.Addr().String())
	for _, ln := range listeners {
		line = line.Str("listen", ln.Addr().String())
	}
	line.Dur("start", time.Since(p.started)).Msg("serving")
	if err := releaseStartPages(); err != nil {
		p.logger.Debug().Err(err).Msg("the memory of the program's code stays as the start has left it")
	}
	err := p.proxy.Serve(ctx, listeners)

	signal.Stop(hangUp)
	close(hangUp)
	close(ended)
	stopAdmin()
	p.serving.Wait()
	if err == nil {
		p.logger.Info().Msg("ended: every request in flight was answered")
	}
	return err
}

// reloadOn reads everything again at each SIGHUP.
func (p *process) reloadOn(hangUp <-chan os.Signal) {
	for range hangUp {
		p.logger.Info().Msg("SIGHUP: reading documents, keys and certificates, and opening the access log again")
		p.manager.Reload()
		p.proxy.ReloadCertificates()
		if err := p.access.reopen(); err != nil {
			p.logger.Error().Err(err).Msg("access log goes on where it was")
		}
	}
}

// ready lists what must hold before traffic may come, besides an applied policy. The admin port is up only after the
// listeners are bound.
func (p *process) ready() []control.Check {
	draining := control.Check{Name: "not draining", OK: !p.proxy.Draining()}
	if !draining.OK {
		draining.Missing = "the process was told to end"
	}
	return []control.Check{{Name: "listeners bound", OK: true}, draining}
}

// explainInvalid prints what a start failed on, and returns what it comes to: documents that are wrong, or that cannot be
// read at all.
func explainInvalid(w io.Writer, problems []policy.Problem) error {
	f := findings{}
	f.note(problems)
	if err := f.render(w, false); err != nil {
		return err
	}
	inDocument := func(p policy.Problem) bool { return p.Severity == policy.Error && p.Origin.Line > 0 }
	if !slices.ContainsFunc(problems, inDocument) {
		return errors.New("nothing to run: no document could be read")
	}
	fmt.Fprintln(w, f.summary())
	return errInvalid
}
