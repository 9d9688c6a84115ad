package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"weir/admit"
	"weir/control"
	"weir/policy"
	"weir/proxy"
)

// defaultAdmin is where a sidecar has its admin port unless it was told otherwise.
const defaultAdmin = "127.0.0.1:9901"

// whyOptions are what the command line asks.
type whyOptions struct {
	inquiry admit.Inquiry
	files   []string // documents to answer from; none: a running sidecar is asked
	service string
	admin   string
}

func (c *cli) whyCommand() *cobra.Command {
	var o whyOptions
	q := &o.inquiry
	cmd := &cobra.Command{
		Use:   "why",
		Short: "Say how a request would be decided, or why one was refused",
		Long: `Say how a request would be decided, step by step: which identity source said who it is from, which
route takes it, every limit of every policy with the line it is written in and what replaced it, what
is left of each, the verdict, and when the request would pass.

A running sidecar is asked on its admin port; it spends nothing for the answer. With -f the answer
comes from documents: every bucket is full then. With --tenant the tenant is taken as given; without,
it is found in the headers, the host, the path or the client's address, as for a request.

--request-id explains a request that was refused, as it was decided then; a sidecar remembers its
last 1,024 refusals. The id is in the answer's X-Request-Id, in its body and in the access log.`,
		Example: `  sidecar why --tenant acme --path /pay -X POST
  sidecar why --request-id 7f0c62a1b3de4e0f9a51c0de8e2d4b66 --admin 127.0.0.1:9901
  sidecar why -f policies/ --path /pay -H 'X-Tenant-ID: acme' --client 10.0.0.7`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&q.Tenant, "tenant", "", "`NAME` of the tenant (default: found as for a request)")
	f.StringVar(&q.Path, "path", "", "`PATH` of the request, as in /pay")
	f.StringVarP(&q.Method, "method", "X", "", "`METHOD` of the request (default \"GET\")")
	f.StringVar(&q.Host, "host", "", "`HOST` of the request (default \"localhost\")")
	f.StringArrayVarP(&q.Headers, "header", "H", nil, "`'NAME: VALUE'` of a header; may be given again")
	f.StringVar(&q.Client, "client", "", "`IP` at the other end of the connection (default \"127.0.0.1\")")
	f.StringVar(&q.SPIFFE, "spiffe-id", "", "`ID` of the client's certificate, as in spiffe://example.org/ns/acme")
	f.StringVar(&q.RequestID, "request-id", "", "`ID` of a request that was refused")
	// Not --file: where SIDECAR_FILE is set for `run`, as in a container, it is the sidecar that should be asked.
	f.StringSliceVarP(&o.files, "documents", "f", nil, "`FILE|DIR` of documents to answer from; several are read as one set")
	f.StringVar(&o.service, "service", "", "`NAME` of the service, with -f (default: as the documents say)")
	f.StringVar(&o.admin, "admin", "", "`ADDRESS` of a sidecar's admin port, host:port or unix:/path (default \""+defaultAdmin+"\")")
	output := choiceFlag(cmd, "output", "o", "how to print", "text", "text", "json")
	cmd.MarkFlagsMutuallyExclusive("documents", "request-id")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.check(); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		if len(o.files) == 0 {
			return askSidecar(cmd.Context(), c.out, o, output.value)
		}
		trace, err := c.whyOf(o)
		if err != nil {
			return err
		}
		text := []byte(trace.Text())
		if output.value == "json" {
			text = trace.JSON()
		}
		_, err = c.out.Write(text)
		return err
	}
	return cmd
}

// check reports what can be known to be wrong before anybody is asked.
func (o *whyOptions) check() error {
	switch {
	case o.inquiry.RequestID != "":
	case o.inquiry.Path == "":
		return errors.New("nothing to explain: describe a request with --path and --tenant, or name one that was refused with --request-id")
	case o.inquiry.Path[0] != '/':
		return fmt.Errorf("cannot use --path %q: want one that begins with /", o.inquiry.Path)
	}
	return nil
}

// askSidecar prints what a running sidecar answers.
func askSidecar(ctx context.Context, out io.Writer, o whyOptions, output string) error {
	query := control.WhyQuery(o.inquiry)
	query.Set("o", output)
	address := cmp.Or(o.admin, defaultAdmin)
	text, err := askAdmin(ctx, address, "/why?"+query.Encode())
	var absent *noSidecarError
	switch {
	case errors.As(err, &absent):
		return fmt.Errorf("%w; start one, name its admin port with --admin, or answer from documents with -f", err)
	case err != nil:
		return err
	}
	_, err = out.Write(text)
	return err
}

// whyOf answers from documents.
func (c *cli) whyOf(o whyOptions) (admit.Trace, error) {
	texts, err := readTexts(c.in, o.files)
	if err != nil {
		return admit.Trace{}, err
	}
	s, err := c.snapshotOf(texts, o)
	if err != nil {
		return admit.Trace{}, err
	}
	return proxy.WhyOf(s, proxy.SystemClock(), o.inquiry)
}

// snapshotOf compiles documents as `sidecar run` would. A tenant that is given is not looked for, so that the identity sources and
// their secrets are of no matter: documents are often asked about where the secrets are not.
func (c *cli) snapshotOf(texts []control.File, o whyOptions) (*policy.Snapshot, error) {
	f := examine(texts, o.service)
	if f.snapshot == nil {
		if err := f.render(c.err, c.painterFor(c.err)); err != nil {
			return nil, err
		}
		fmt.Fprintln(c.err, f.summary())
		return nil, errInvalid
	}
	if o.inquiry.Tenant != "" {
		s := *f.snapshot
		s.Sidecar.Identity = nil
		return &s, nil
	}
	var applied *policy.Snapshot
	manager, err := control.NewManager(control.Options{
		Logger: zerolog.Nop(), Registerer: prometheus.NewRegistry(), Compile: policy.CompileOptions{Service: o.service},
		Apply: func(s *policy.Snapshot) error { applied = s; return nil },
	})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer func() { stop(); manager.Wait() }()
	if err := manager.Start(ctx, control.Static("the command line", texts...)); err != nil {
		var invalid *control.InvalidError
		if errors.As(err, &invalid) {
			return nil, explainInvalid(c.err, invalid.Problems)
		}
		return nil, err
	}
	return applied, nil
}
