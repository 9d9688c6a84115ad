package main

import (
	"context"
	"errors"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"weir/policy"
)

// runOptions is what the command line says about a sidecar. Empty strings leave a matter to the documents, or to their
// defaults.
type runOptions struct {
	files    []string // files and directories of documents, read as one set
	etcd     etcdFlags
	alone    string // what to do at a start without etcd: wait or serve
	backend  string // host:port or unix:/path of the one backend
	limit    string // N/UNIT for each tenant; goes with backend
	listen   string // host:port or unix:/path, in place of the documents' listeners
	admin    string // host:port or unix:/path, in place of the documents' admin address
	service  string // the fleet, in place of the document's
	lastGood string // file that keeps the last applied documents, in place of the document's
	logLevel string // trace, debug, info, warn or error
}

// The values of --without-etcd.
const (
	withoutEtcdWait  = "wait"  // not ready, until etcd answers
	withoutEtcdServe = "serve" // with the documents from elsewhere, if they suffice
)

// check reports what can be known to be wrong before anything is read or bound.
func (o runOptions) check() error {
	switch {
	case o.etcd.given() && o.etcd.check() != nil:
		return o.etcd.check()
	case o.backend == "" && o.limit != "":
		return errors.New("--limit needs --backend; with documents, limits are written in a TenantPolicy")
	case o.backend == "" && len(o.files) == 0 && !o.etcd.given():
		return errors.New("nothing to run: name the service with --backend HOST:PORT, or its documents with -f FILE, -f DIRECTORY or --etcd URL")
	case o.backend != "" && len(o.files) > 0:
		return errors.New("--backend and -f exclude each other; with documents, the service is written as a Backend")
	case o.backend != "":
		_, err := policy.Quickstart(o.quickstart())
		return err
	}
	return nil
}

// quickstart is what the flags say without documents.
func (o runOptions) quickstart() policy.QuickstartOptions {
	return policy.QuickstartOptions{Backend: o.backend, Limit: o.limit, Listen: o.listen, Admin: o.admin, Service: o.service}
}

func (c *cli) runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the sidecar in front of a service",
		Long: `Run the sidecar in front of a service until SIGTERM or Ctrl-C, which let requests in flight end
first. SIGHUP reads documents, API keys and certificates and opens the access log again; changed
files are also picked up without it.

Without documents, --backend names the service and --limit what each tenant may ask of it; the
tenant is what X-Tenant-ID says, and requests without one share a bucket. With documents, --listen,
--admin, --service and --last-good win over the fields they stand for.

Documents come from -f (or --backend), then from --etcd, then from what spec.policies of the
Sidecar names; a later one takes the place of an earlier one of its kind and name. The Sidecar
itself is that of -f, --backend or --etcd, the first that has one.

Without etcd, the sidecar starts from its last-good file and goes on as it was. On a first start
there is nothing in that: then it waits, not ready, unless --without-etcd=serve has it do without.

The access log goes to stdout, everything else to stderr.`,
		Example: `  sidecar run --backend 127.0.0.1:9000 --limit 100/s
  sidecar run -f policies/ --listen :8080 --admin 127.0.0.1:9901
  sidecar run -f sidecar.yaml --etcd http://127.0.0.1:2379 --last-good /var/lib/weir/last-good.yaml
  SIDECAR_BACKEND=unix:/run/app.sock SIDECAR_LIMIT=6000/m sidecar run`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringSliceVarP(&o.files, "file", "f", nil, "`FILE|DIR` of documents; several are read as one set")
	f.StringVar(&o.backend, "backend", "", "`ADDRESS` of the service: host:port or unix:/path")
	f.StringVar(&o.limit, "limit", "", "`N/UNIT` that each tenant may ask for, as in 100/s, 6000/m or 1000/h")
	f.StringVar(&o.listen, "listen", "", "`ADDRESS` to serve on (default \":8080\", or as the documents say)")
	f.StringVar(&o.admin, "admin", "", "`ADDRESS` of the admin port (default \"127.0.0.1:9901\", or as the documents say)")
	f.StringVar(&o.service, "service", "", "`NAME` of the service, whose policies apply (default: as the documents say)")
	f.StringVar(&o.lastGood, "last-good", "", "`FILE` that keeps the last applied documents, to start from when their source is broken")
	etcd := addEtcdFlags(cmd)
	alone := choiceFlag(cmd, "without-etcd", "", "what a start does without etcd and a last-good file", withoutEtcdWait, withoutEtcdWait, withoutEtcdServe)
	level := choiceFlag(cmd, "log-level", "", "least severe messages to log", "info", "trace", "debug", "info", "warn", "error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.etcd, o.logLevel, o.alone = *etcd, level.value, alone.value
		if err := o.check(); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		ctx, stop := untilInterrupted(cmd.Context())
		defer stop()
		// Whoever reads our output may end without taking us along: writes to it fail, and are counted.
		signal.Ignore(syscall.SIGPIPE)
		return runSidecar(ctx, o, c.out, c.err)
	}
	return cmd
}

// untilInterrupted returns a context that ends with the first Ctrl-C or SIGTERM. A second one ends the process at once.
func untilInterrupted(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
