package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"weir/control"
	"weir/control/etcd"
	"weir/control/file"
	"weir/policy"
)

// etcdName is what the source of --etcd is called, and one of spec.policies that has no other name.
const etcdName = "etcd"

// startPolicy starts the policy and returns once the first snapshot is in force, or ctx is done, which leaves no proxy.
func (p *process) startPolicy(ctx, watching context.Context) error {
	if len(p.options.files) == 0 {
		p.watching.Go(func() { p.watchFiles(watching) })
	}
	starting, cancel := context.WithCancel(watching)
	interrupted := context.AfterFunc(ctx, cancel)
	err := p.manager.Start(starting, p.ownSources()...)
	interrupted() // from here on documents are followed until the last request is answered
	p.stopWaiting()
	var invalid *control.InvalidError
	switch {
	case err != nil && ctx.Err() != nil:
		p.logger.Info().Msg("ended while it waited for its policy sources")
		return nil
	case errors.As(err, &invalid):
		err := explainInvalid(p.stderr, invalid.Problems)
		nowhere := func(problem policy.Problem) bool { return problem.Origin == policy.Origin{} } // there is no document to blame
		if p.options.etcd.given() && len(invalid.Unread) == 0 && len(invalid.Problems) == 1 && nowhere(invalid.Problems[0]) {
			return fmt.Errorf("nothing to run: no document lies below %s in etcd, and none comes from elsewhere; put some there with `sidecar apply`, or name another --prefix",
				p.options.etcd.layout().Policy())
		}
		if len(invalid.Unread) == 0 {
			return err
		}
		return fmt.Errorf("nothing to run: without the policy source %s the documents do not suffice, and no last-good file has its own; "+
			"mend it, name a file that an earlier run has kept with --last-good, or leave out --without-etcd=serve to wait for it",
			strings.Join(invalid.Unread, " and "))
	case err != nil:
		return err
	}
	p.warnOfNoLastGood()
	return nil
}

// watchFiles has everything read again when a file changes that documents depend on, where no source of files does so: keys and
// certificates.
func (p *process) watchFiles(ctx context.Context) {
	changed := false // the first word is not of a change
	_ = p.files.Run(ctx, func(control.Batch) {
		if changed {
			p.manager.Reload()
		}
		changed = true
	}) // it ends with ctx alone
}

// ownSources are where the command line says that documents come from, in order.
func (p *process) ownSources() []control.Source {
	var sources []control.Source
	if p.options.backend != "" {
		text, err := policy.QuickstartYAML(p.options.quickstart())
		if err != nil {
			panic("BUG: options were not checked: " + err.Error())
		}
		sources = append(sources, control.Static(policy.CommandLine, control.File{Path: policy.CommandLine, Data: []byte(text)}))
	}
	if len(p.options.files) > 0 {
		sources = append(sources, p.files)
	}
	if flags := &p.options.etcd; flags.given() {
		sources = append(sources, p.etcdSource(etcdName, flags.options(), flags.layout()))
	}
	return sources
}

// namedSources are those that spec.policies of the Sidecar names, in order.
func (p *process) namedSources(s *policy.Snapshot) []control.NamedSource {
	var named []control.NamedSource
	add := func(name string, settings any, open func() control.Source) {
		text, err := json.Marshal(settings)
		if err != nil {
			panic("BUG: cannot encode the settings of a source: " + err.Error())
		}
		named = append(named, control.NamedSource{Name: name, Settings: string(text), Open: open})
	}
	var unnamed []string
	for _, source := range s.Sidecar.Sources {
		switch {
		case source.Etcd != nil:
			add(source.Name, source.Etcd, func() control.Source {
				return p.etcdSource(source.Name, etcd.OptionsOf(source.Etcd), etcd.LayoutAt(source.Etcd.Prefix))
			})
		case source.Name != file.Name:
			add(source.Name, source.File, func() control.Source {
				return file.New(file.Options{Name: source.Name, Paths: []string{source.File}, Logger: p.logger})
			})
		default:
			unnamed = append(unnamed, source.File)
		}
	}
	// A Sidecar in a file has the files without a name read together with itself. One in etcd has nobody to read them yet.
	if len(unnamed) > 0 && p.sidecarIsInEtcd(s) {
		add(file.Name, unnamed, func() control.Source { return file.New(file.Options{Paths: unnamed, Logger: p.logger}) })
	}
	return named
}

// sidecarIsInEtcd reports whether the Sidecar of a snapshot was read from --etcd.
func (p *process) sidecarIsInEtcd(s *policy.Snapshot) bool {
	return slices.ContainsFunc(s.Documents, func(d policy.DocumentInfo) bool {
		return d.Kind == policy.KindSidecar && strings.HasPrefix(d.Origin.File, etcdName+":"+string(policy.KindSidecar)+"/")
	})
}

func (p *process) etcdSource(name string, o etcd.Options, layout etcd.Layout) *etcdSource {
	o.Logger = p.logger
	return &etcdSource{name: name, options: o, layout: layout, log: p.logger, metrics: p.etcd, fleets: p.fleets, again: make(chan struct{}, 1)}
}

// etcdSource is a policy source with a connection of its own, which it opens when it is run and closes when it ends. While it cannot be
// opened, for want of a certificate or a password, the source is one that cannot be read.
type etcdSource struct {
	name    string
	options etcd.Options
	layout  etcd.Layout
	log     zerolog.Logger
	metrics *etcd.Metrics
	fleets  *fleets
	again   chan struct{}               // holds one token when it is to be opened again at once
	open    atomic.Pointer[etcd.Source] // nil until it is
}

// Name is what the command line or the Sidecar calls it.
func (s *etcdSource) Name() string { return s.name }

// Reload has it read again, or opened at once.
func (s *etcdSource) Reload() {
	if open := s.open.Load(); open != nil {
		open.Reload()
		return
	}
	select {
	case s.again <- struct{}{}:
	default: // it is tried anyway
	}
}

// openEvery is the time between two tries to open a connection whose files cannot be read.
const openEvery = 5 * time.Second

// Run reads the documents and follows them until ctx is done.
func (s *etcdSource) Run(ctx context.Context, update func(control.Batch)) error {
	retry := time.NewTicker(openEvery)
	defer retry.Stop()
	for {
		client, err := etcd.Open(s.options)
		if err == nil {
			defer func() { _ = client.Close() }() // nothing is lost with it
			source := etcd.NewSource(etcd.SourceOptions{Name: s.name, Client: client, Layout: s.layout, Logger: s.log, Metrics: s.metrics})
			s.open.Store(source)
			return s.fleets.run(ctx, source, client, s.layout, update)
		}
		update(control.Batch{Err: err})
		select {
		case <-ctx.Done():
			return nil
		case <-s.again:
		case <-retry.C:
		}
	}
}

// warnOfNoLastGood says that a start without etcd has nothing to go by.
func (p *process) warnOfNoLastGood() {
	usesEtcd := p.options.etcd.given() || slices.ContainsFunc(p.proxy.Snapshot().Sidecar.Sources,
		func(s policy.PolicySourceSettings) bool { return s.Etcd != nil })
	if usesEtcd && cmp.Or(p.options.lastGood, p.proxy.Snapshot().Sidecar.LastGood) == "" {
		p.logger.Warn().Msg("no last-good file is kept, so a start without etcd would have to do without its documents; name one with --last-good or in the Sidecar's lastGood")
	}
}
