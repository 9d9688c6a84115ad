package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"weir/control/etcd/care"
)

// checkOptions are what the command line says is to be looked at.
type checkOptions struct {
	etcd    *etcdFlags
	only    []string // categories; none: all
	service string
	files   []string // documents that the sidecars have besides those in etcd
	admin   string
	wait    time.Duration
}

func (c *cli) checkCommand() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look at everything between this machine and a working fleet",
		Long: `Look at everything that policies from etcd need: the connection to each member, its latency and clock;
the cluster's members, leader, versions, alarms, space and fragmentation; what our user may do;
certificates, theirs and ours; the documents; the sidecars that follow them, who is behind and who runs
something else; and the sidecar on this machine. Nothing is changed.

--only looks at some categories: setup, connection, etcd, permissions, certificates, policies, fleet and
sidecar. 'sidecar check --only etcd' shows etcd's own health. Without --etcd, only the sidecar on this
machine is looked at.

Documents in etcd may refer to backends and routes that each sidecar has in its own files. Name those
with -f, and references are checked, too.

Exit codes: 0 when all is well, though there may be warnings; 1 when something failed.`,
		Example: `  sidecar check --etcd https://etcd-0:2379,https://etcd-1:2379 --etcd-ca-file ca.crt
  sidecar check --only etcd,certificates -o json
  sidecar check --service orders -f sidecar.yaml --wait 1m`,
		Args: cobra.NoArgs,
	}
	o.etcd = addEtcdFlags(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&o.only, "only", nil, "`CATEGORY` to look at; several with commas (default: all)")
	f.StringVar(&o.service, "service", "", "`NAME` of the service whose sidecars and permissions are looked at (default: all sidecars)")
	// Not --file, for the reason that `why` has.
	f.StringSliceVarP(&o.files, "documents", "f", nil, "`FILE|DIR` of documents that sidecars have besides; several are read as one set")
	f.StringVar(&o.admin, "admin", "", "`ADDRESS` of a sidecar's admin port, host:port or unix:/path (default \""+defaultAdmin+"\", if one answers there)")
	f.DurationVar(&o.wait, "wait", 0, "look again and again for so long, until nothing fails")
	output := choiceFlag(cmd, "output", "o", "how to print", "table", "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.check(); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		ctx, stop := untilInterrupted(cmd.Context())
		defer stop()
		found, err := c.lookUntilWell(ctx, o)
		if err != nil {
			return err
		}
		report := newCheckReport(found)
		if output.value == "json" {
			err = writeJSON(c.out, report)
		} else {
			err = report.print(c.out, c.painterFor(c.out), c.marks())
		}
		return cmp.Or(err, report.verdict())
	}
	return cmd
}

// check reports what can be known to be wrong before anything is looked at.
func (o *checkOptions) check() error {
	legal := make([]string, 0, len(care.Categories()))
	for _, category := range care.Categories() {
		legal = append(legal, string(category))
	}
	for _, name := range o.only {
		if slices.Contains(legal, name) {
			continue
		}
		err := fmt.Errorf("cannot use --only %q: want some of %s", name, strings.Join(legal, ", "))
		if meant := nearest(name, legal); meant != "" {
			err = fmt.Errorf("%w; did you mean %q?", err, meant)
		}
		return err
	}
	if o.wait < 0 {
		return fmt.Errorf("cannot use --wait %v: want a positive duration", o.wait)
	}
	if o.etcd.given() {
		return o.etcd.check()
	}
	for _, category := range care.Categories() {
		if category != care.Sidecar && slices.Contains(o.only, string(category)) {
			return fmt.Errorf("cannot look at %s: %w", category, o.etcd.check())
		}
	}
	return nil
}

// wants says whether one of the categories is to be looked at.
func (o *checkOptions) wants(categories ...care.Category) bool {
	return len(o.only) == 0 || slices.ContainsFunc(categories, func(c care.Category) bool { return slices.Contains(o.only, string(c)) })
}

// lookUntilWell looks once or, with --wait, until nothing fails or time is up.
func (c *cli) lookUntilWell(ctx context.Context, o checkOptions) ([]care.Finding, error) {
	const pause = time.Second
	deadline := time.NewTimer(o.wait)
	defer deadline.Stop()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for told := -1; ; {
		found, err := c.look(ctx, o)
		if err != nil || o.wait == 0 || care.Worst(found) < care.Failure {
			return found, err
		}
		if failures := newCheckReport(found).Failures; failures != told {
			told = failures
			fmt.Fprintf(c.err, "waiting for %s to go\n", count(failures, "failure", "failures"))
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return found, nil
		case <-ctx.Done():
			return nil, errors.New("interrupted while waiting")
		}
	}
}

// look looks at everything once, at the same time, and returns what was found in the order of the categories.
func (c *cli) look(ctx context.Context, o checkOptions) ([]care.Finding, error) {
	texts, err := readTexts(c.in, o.files)
	if err != nil {
		return nil, err
	}
	var looking sync.WaitGroup
	var cluster, policies, fleet, local []care.Finding
	if o.etcd.given() {
		if o.wants(care.Setup, care.Connection, care.Etcd, care.Permissions, care.Certificates) {
			looking.Go(func() {
				cluster = care.Examine(ctx, care.Subject{Etcd: o.etcd.eager(), Layout: o.etcd.layout(), Service: o.service}).Findings()
			})
		}
		if o.wants(care.Policies, care.Fleet) {
			looking.Go(func() { policies, fleet = lookAtStore(ctx, o, texts) })
		}
	}
	if o.wants(care.Sidecar) {
		looking.Go(func() { local = lookAtSidecar(ctx, o.admin) })
	}
	looking.Wait()
	found := slices.Concat(cluster, policies, fleet, local)
	found = slices.DeleteFunc(found, func(f care.Finding) bool { return !o.wants(f.Category) })
	slices.SortStableFunc(found, func(a, b care.Finding) int {
		return cmp.Compare(slices.Index(care.Categories(), a.Category), slices.Index(care.Categories(), b.Category))
	})
	return found, nil
}
