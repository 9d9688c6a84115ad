package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weir/policy"
)

// syncOptions is what the command line says about a distribution.
type syncOptions struct {
	file        string // of a Distribution
	from        []string
	to          []string // NAME=URL,…
	prefix      string
	selector    map[string]string
	once        bool
	dryRun      bool
	noRepair    bool
	takeOver    bool
	timeout     time.Duration // of once and dryRun
	etcdTimeout time.Duration
	status      string // admin address; empty: none
	statusOf    string
	logLevel    string
	output      string
}

// check reports what can be known to be wrong before anything is read.
func (o *syncOptions) check() error {
	byFlags := len(o.from) > 0 || len(o.to) > 0 || len(o.selector) > 0
	switch {
	case o.statusOf != "":
		return nil
	case o.file != "" && byFlags:
		return errors.New("-f and --from, --to, --selector exclude each other: with a document, it says where from and where to")
	case o.file == "" && (len(o.from) == 0 || len(o.to) == 0):
		return errors.New("nothing to distribute: say where from and where to with --from URL and --to NAME=URL, or with -f FILE of a Distribution")
	case o.timeout <= 0 || o.etcdTimeout <= 0:
		return errors.New("--timeout and --etcd-timeout want positive durations")
	}
	return o.checkEndpoints()
}

// checkEndpoints checks the URLs of --from and --to.
func (o *syncOptions) checkEndpoints() error {
	const login = "who logs in is said in a Distribution, with -f"
	for _, member := range o.from {
		if _, err := checkEndpoint("--from", strings.TrimSpace(member), login); err != nil {
			return err
		}
	}
	for _, to := range o.to {
		name, urls, named := strings.Cut(to, "=")
		if !named || strings.ContainsAny(name, ":/@") {
			return errors.New("cannot use --to without the name of a cluster: want NAME=URL, as in eu=http://etcd.eu:2379")
		}
		for member := range strings.SplitSeq(urls, ",") {
			if _, err := checkEndpoint("--to "+name+"=", strings.TrimSpace(member), login); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cli) syncCommand() *cobra.Command {
	var o syncOptions
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Keep the documents of many etcd clusters equal to those of one",
		Long: `Bring the documents of one etcd cluster, the source, to others and keep them so, until SIGTERM or
Ctrl-C: each change within a second, and what others write, delete or add at the clusters is taken
back. Each cluster is looked after on its own; one that is down, slow, full or refuses us holds up
none of the others, and gets the latest when it is back.

With -f a document of the kind Distribution says which cluster gets which documents, and in what they
differ there; 'sidecar explain Distribution.spec' lists its fields. --from, --to and --selector are
for the case that all get the same.

Nothing is brought to a cluster that has documents of somebody else's, unless --take-over says so;
nothing that takes many tenants away, before 'sidecar apply --confirm-removals' says so at the source;
and nothing that does not go together there.

--once ends as soon as each cluster has come as far as it can: with 0 when all are in step, with 1
otherwise. --dry-run writes nothing and says in words what would be written. --status serves /status,
/metrics, /livez and /readyz; --status-of asks one that runs.`,
		Example: `  sidecar sync --from http://etcd.platform:2379 --to eu=http://etcd.eu:2379 --to us=http://etcd.us:2379
  sidecar sync -f distribution.yaml --dry-run
  sidecar sync -f distribution.yaml --status 127.0.0.1:9902
  sidecar sync --status-of 127.0.0.1:9902`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	// Not --file: where SIDECAR_FILE is set for `run`, it names policies.
	f.StringVarP(&o.file, "distribution", "f", "", "`FILE` of a Distribution")
	f.StringSliceVar(&o.from, "from", nil, "`URL` of each member of the source; several with commas")
	f.StringArrayVar(&o.to, "to", nil, "`NAME=URL` of a cluster, with commas between the URLs of its members; may be repeated")
	f.StringVar(&o.prefix, "prefix", defaultPrefix, "`PATH` below which the keys lie, in all clusters")
	f.StringToStringVar(&o.selector, "selector", nil, "`LABEL=VALUE` that documents must have to be distributed")
	f.Lookup("selector").DefValue = "" // help would show an empty list as []
	f.BoolVar(&o.once, "once", false, "end when each cluster has come as far as it can")
	f.BoolVar(&o.dryRun, "dry-run", false, "write nothing, and say what would be written")
	f.BoolVar(&o.noRepair, "no-repair", false, "report what others have written at the clusters, and leave it")
	f.BoolVar(&o.takeOver, "take-over", false, "replace documents at the clusters that this distribution has not brought there")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "longest that --once and --dry-run may take")
	f.DurationVar(&o.etcdTimeout, "etcd-timeout", 5*time.Second, "longest that one call to etcd may take")
	f.StringVar(&o.status, "status", "", "`ADDRESS` to serve the status on, host:port or unix:/path (default: none)")
	f.StringVar(&o.statusOf, "status-of", "", "`ADDRESS` of a sync that runs, whose status is printed")
	level := choiceFlag(cmd, "log-level", "", "least severe messages to log", "info", "trace", "debug", "info", "warn", "error")
	output := choiceFlag(cmd, "output", "o", "how to print a status", "text", "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.logLevel, o.output = level.value, output.value
		if err := o.check(); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		if o.statusOf != "" {
			return c.printStatusOf(cmd.Context(), o)
		}
		distribution, err := c.distribution(o)
		if err != nil {
			var usage *flagError
			if errors.As(err, &usage) {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
			return err
		}
		ctx, stop := untilInterrupted(cmd.Context())
		defer stop()
		return runSync(ctx, o, distribution, c.out, c.err)
	}
	return cmd
}

// flagError is what is wrong with the document that flags stand for.
type flagError struct{ problem policy.Problem }

// printStatusOf prints the status of a sync that runs.
func (c *cli) printStatusOf(ctx context.Context, o syncOptions) error {
	text, err := askAdmin(ctx, o.statusOf, "/status?"+url.Values{"o": {o.output}}.Encode())
	var absent *noSidecarError
	switch {
	case errors.As(err, &absent):
		return fmt.Errorf("nobody answers at %s (%w); start 'sidecar sync' with --status, or name another address", absent.address, absent.err)
	case err != nil:
		return err
	}
	_, err = c.out.Write(text)
	return err
}

func (e *flagError) Error() string {
	text := fmt.Sprintf("cannot use --from, --to and --selector: %s: %s", e.problem.Path, e.problem.Message)
	if e.problem.Suggestion != "" {
		text += "; " + e.problem.Suggestion
	}
	return text
}

// distribution reads the one Distribution of the file, or makes one of the flags.
func (c *cli) distribution(o syncOptions) (*policy.Document, error) {
	if o.file == "" {
		docs, problems := policy.Decode(policy.CommandLine, []byte(o.text()))
		if len(problems) > 0 {
			return nil, &flagError{problems[0]}
		}
		return docs[0], nil
	}
	texts, err := readTexts(c.in, []string{o.file})
	if err != nil {
		return nil, err
	}
	var found findings
	var distributions []*policy.Document
	for _, t := range texts {
		docs, problems := policy.Decode(t.Path, t.Data)
		found.note(problems)
		for _, d := range docs {
			if d.Kind == policy.KindDistribution {
				distributions = append(distributions, d)
			}
		}
	}
	switch {
	case found.errors > 0:
		if err := found.render(c.err, c.painterFor(c.err)); err != nil {
			return nil, err
		}
		fmt.Fprintln(c.err, found.summary())
		return nil, errInvalid
	case len(distributions) != 1:
		return nil, fmt.Errorf("cannot use %s: want one document of the kind Distribution in it, got %d", o.file, len(distributions))
	}
	return distributions[0], nil
}

// text is the document that the flags stand for.
func (o *syncOptions) text() string {
	var b strings.Builder
	quoted := func(urls []string) string {
		var all []string
		for _, u := range urls {
			all = append(all, strconv.Quote(strings.TrimSpace(u)))
		}
		return strings.Join(all, ", ")
	}
	etcd := func(urls []string) string {
		return fmt.Sprintf("{endpoints: [%s], prefix: %s}", quoted(urls), strconv.Quote(o.prefix))
	}
	fmt.Fprintf(&b, "apiVersion: %s\nkind: Distribution\nmetadata: {name: command-line}\nspec:\n  from: %s\n  to:\n", policy.APIVersion, etcd(o.from))
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(o.selector)) {
		labels = append(labels, strconv.Quote(name)+": "+strconv.Quote(o.selector[name]))
	}
	for _, to := range o.to {
		name, urls, _ := strings.Cut(to, "=")
		fmt.Fprintf(&b, "  - {name: %s, etcd: %s, selector: {matchLabels: {%s}}}\n",
			strconv.Quote(name), etcd(strings.Split(urls, ",")), strings.Join(labels, ", "))
	}
	return b.String()
}
