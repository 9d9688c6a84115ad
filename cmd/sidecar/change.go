package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weir/control"
	"weir/control/etcd"
	"weir/policy"
	"weir/policy/diff"
)

// changeFlags are those of every command that changes documents in etcd.
type changeFlags struct {
	etcd    *etcdFlags
	command string // as the history calls it
	message string
	by      string
	seen    int64
	dryRun  bool
	confirm bool
	wait    time.Duration // 0: do not
	beside  []string
	output  *choice
}

// defaultWait is how long --wait waits when it is not told.
const defaultWait = 30 * time.Second

func addChangeFlags(cmd *cobra.Command) *changeFlags {
	o := &changeFlags{etcd: addEtcdFlags(cmd), command: cmd.Name()}
	f := cmd.Flags()
	f.StringVarP(&o.message, "message", "m", "", "`TEXT` that says why, for the history")
	f.StringVar(&o.by, "by", "", "`NAME` of who it is, for the history (default: user@host)")
	f.Int64Var(&o.seen, "seen", 0, "`REVISION` that was looked at: fail when a document was changed since that this would change")
	f.BoolVar(&o.dryRun, "dry-run", false, "do everything but write")
	f.BoolVar(&o.confirm, "confirm-removals", false, "many tenants may lose their policies")
	f.DurationVar(&o.wait, "wait", 0, "wait until every sidecar has applied it, at most for so long")
	f.Lookup("wait").NoOptDefVal = defaultWait.String()
	f.StringSliceVar(&o.beside, "beside", nil, "`FILE|DIR` of documents that sidecars have from elsewhere, for references")
	o.output = choiceFlag(cmd, "output", "o", "how to print", "text", "text", "json")
	return o
}

// check reports what can be known to be wrong before anybody is asked.
func (o *changeFlags) check() error {
	switch {
	case o.wait < 0:
		return fmt.Errorf("cannot use --wait=%v: want a positive duration", o.wait)
	case o.seen < 0:
		return fmt.Errorf("cannot use --seen %d: want a revision, as `sidecar get` and `sidecar diff` show it", o.seen)
	case len(o.message) > 1000:
		return fmt.Errorf("cannot use a --message of %d bytes: want at most 1000", len(o.message))
	}
	return nil
}

// changing is a change of documents on its way into etcd.
type changing struct {
	*changeFlags
	cli    *cli
	client *etcd.Client
	beside []*policy.Document
	// plan makes the change from what is there. It is asked again when somebody else was first.
	plan planner
}

// planner makes a change from what is there.
type planner func(ctx context.Context, client *etcd.Client, before etcd.Documents) (etcd.Plan, error)

// changed is what came of it, as -o json prints it.
type changed struct {
	Revision int64         `json:"revision"` // that has the change; in a dry run, that was looked at
	DryRun   bool          `json:"dryRun,omitempty"`
	Written  int           `json:"written"`
	Deleted  int           `json:"deleted"`
	Parts    int           `json:"parts"`
	Changes  []diff.Change `json:"changes"`
}

// change runs a command that changes documents: it reads what is there, plans, checks, shows, writes and waits.
func (c *cli) change(cmd *cobra.Command, o *changeFlags, plan planner) error {
	if err := o.check(); err != nil {
		return &usageError{command: cmd.CommandPath(), err: err}
	}
	beside, err := c.readBeside(o.beside)
	if err != nil {
		return err
	}
	return o.etcd.with(cmd, func(ctx context.Context, client *etcd.Client) error {
		ch := &changing{changeFlags: o, cli: c, client: client, beside: beside, plan: plan}
		return ch.run(ctx)
	})
}

func (ch *changing) run(ctx context.Context) error {
	before, err := ch.client.ReadDocuments(ctx, ch.etcd.layout(), 0)
	if err != nil {
		return err
	}
	p, err := ch.plan(ctx, ch.client, before)
	if err != nil {
		return err
	}
	if err := ch.checkSeen(ctx, p); err != nil {
		return err
	}
	ch.remark(before)
	if err := ch.cli.validatePlan(p, ch.beside); err != nil {
		return err
	}
	if ch.output.value == "text" {
		writeChanges(ch.cli.out, ch.cli.painterFor(ch.cli.out), p.Changes)
	}
	if err := ch.guard(p); err != nil {
		return err
	}
	result := changed{Revision: before.Revision, DryRun: ch.dryRun, Parts: p.Parts(), Changes: p.Changes}
	result.Written, result.Deleted = p.Counts()
	switch {
	case ch.dryRun:
	case p.Empty() && !ch.confirm:
		result.Revision = lastWritten(before)
	default:
		if result.Revision, err = ch.write(ctx, p); err != nil {
			return err
		}
	}
	if err := ch.tell(result, p.Empty()); err != nil || ch.dryRun || ch.wait == 0 {
		return err
	}
	return ch.cli.await(ctx, ch.client, ch.etcd.layout(), result.Revision, ch.wait)
}

// lastWritten is the revision of the latest change that is there.
func lastWritten(d etcd.Documents) int64 {
	last := d.LastChange
	for _, s := range d.Stored {
		last = max(last, s.Modified)
	}
	return last
}

// remark tells of what is odd in the store and not our doing.
func (ch *changing) remark(before etcd.Documents) {
	sidecars := 0
	for _, s := range before.Stored {
		if s.Document == nil {
			fmt.Fprintf(ch.cli.err, "%s %s is in etcd already and cannot be read: %s\n", s.Kind, s.Name, s.Problems[0])
		}
		if s.Kind == policy.KindSidecar {
			sidecars++
		}
	}
	if sidecars > 1 {
		fmt.Fprintf(ch.cli.err, "%d Sidecars are in etcd below %s: a process can be only one of them\n", sidecars, ch.etcd.prefix)
	}
}

// guard refuses to take many tenants out of policy unless that is confirmed.
func (ch *changing) guard(p etcd.Plan) error {
	removed := control.RemovedTenants(p.Before.Decoded(), p.Decoded())
	if !removed.Many() || ch.confirm {
		return nil
	}
	const named = 5 // by the error itself
	if len(removed.Gone) > named {
		fmt.Fprintf(ch.cli.err, "tenants that no policy would name any more: %s\n", strings.Join(removed.Gone, ", "))
	}
	return fmt.Errorf("nothing is written: no policy would name %s any more; when that is meant, say so with --confirm-removals", removed)
}

// mostRetries bounds how often a change is tried again that others were faster than, with something else.
const mostRetries = 20

// write writes the plan. When somebody else was first and has changed other documents only, the plan is made and validated anew, and goes
// ahead if it is the same; else nothing is written.
func (ch *changing) write(ctx context.Context, p etcd.Plan) (int64, error) {
	change := etcd.Change{
		By: cmp.Or(ch.by, author(ch.cli.lookupEnv)), At: time.Now().UTC().Truncate(time.Second), Message: ch.message, Command: ch.command, Confirmed: ch.confirm,
	}
	for tries := 0; ; tries++ {
		revision, err := ch.client.Write(ctx, p, change)
		var part *etcd.PartError
		switch {
		case errors.As(err, &part):
			return 0, fmt.Errorf("%w; run the same command again for the rest, or go back with: sidecar rollback --to %d", err, p.Before.Revision)
		case !errors.Is(err, etcd.ErrConflict):
			return revision, err
		}
		now, err := ch.client.ReadDocuments(ctx, ch.etcd.layout(), 0)
		if err != nil {
			return 0, err
		}
		next, err := ch.plan(ctx, ch.client, now)
		if err != nil {
			return 0, err
		}
		if tries == mostRetries || !next.Same(p) {
			return 0, ch.conflict(ctx, p.Before, now)
		}
		if err := ch.cli.validatePlan(next, ch.beside); err != nil {
			return 0, err
		}
		if err := ch.guard(next); err != nil {
			return 0, err
		}
		p = next
	}
}

// checkSeen fails when a document that the plan writes was changed since the revision that its author looked at.
func (ch *changing) checkSeen(ctx context.Context, p etcd.Plan) error {
	if ch.seen == 0 {
		return nil
	}
	saw, err := ch.client.ReadDocuments(ctx, ch.etcd.layout(), ch.seen)
	if err != nil {
		return err
	}
	if len(p.Overtaken(saw)) == 0 {
		return nil
	}
	return ch.conflict(ctx, saw, p.Before)
}

// conflict says who was first, and what is different for it.
func (ch *changing) conflict(ctx context.Context, saw, now etcd.Documents) error {
	differences := etcd.Differences(saw, now)
	writeChanges(ch.cli.err, ch.cli.painterFor(ch.cli.err), differences)
	revisions := []int64{now.LastChange}
	for _, d := range differences {
		if s, there := now.Find(diff.Key{Kind: d.Kind, Name: d.Name}); there {
			revisions = append(revisions, s.Modified)
		}
	}
	changes, err := ch.client.Changes(ctx, ch.etcd.layout(), revisions)
	if err != nil {
		return err
	}
	for _, revision := range slices.Sorted(maps.Keys(changes)) {
		fmt.Fprintf(ch.cli.err, "revision %d: %s\n", revision, describeChange(changes[revision]))
	}
	return fmt.Errorf("nothing is written: somebody else changed, since revision %d, what is shown above; look at it, and try again", saw.Revision)
}

// describeChange says who it was, when and why.
func describeChange(c etcd.Change) string {
	s := fmt.Sprintf("%s by %s at %s", c.Command, oneLine(c.By), c.At.Format(time.RFC3339))
	if c.Message != "" {
		s += ": " + oneLine(c.Message)
	}
	return s
}

// tell prints what came of the change.
func (ch *changing) tell(r changed, empty bool) error {
	if ch.output.value == "json" {
		if r.Changes == nil {
			r.Changes = []diff.Change{} // an empty list, not null
		}
		return writeJSON(ch.cli.out, r)
	}
	verb := ""
	if ch.dryRun {
		verb = "would be "
	}
	var what []string
	if r.Written > 0 {
		what = append(what, count(r.Written, "document", "documents")+" "+verb+"written")
	}
	if r.Deleted > 0 {
		what = append(what, count(r.Deleted, "document", "documents")+" "+verb+"deleted")
	}
	if r.Parts > 1 {
		what = append(what, fmt.Sprintf("in %d transactions", r.Parts))
	}
	var err error
	switch {
	case ch.dryRun && empty:
		_, err = fmt.Fprintf(ch.cli.out, "revision %d: nothing would change\n", r.Revision)
	case empty && ch.confirm:
		_, err = fmt.Fprintf(ch.cli.out, "revision %d: the removals until now are confirmed\n", r.Revision)
	case empty:
		_, err = fmt.Fprintf(ch.cli.out, "revision %d: nothing to change\n", r.Revision)
	default:
		_, err = fmt.Fprintf(ch.cli.out, "revision %d: %s\n", r.Revision, strings.Join(what, ", "))
	}
	return err
}

// writeChanges prints differences in words, a line each.
func writeChanges(w io.Writer, paint painter, changes []diff.Change) {
	for _, c := range changes {
		for _, d := range c.Differences {
			switch c.Action {
			case diff.Added:
				fmt.Fprintln(w, paint.green("+ "+d.Text))
			case diff.Removed:
				fmt.Fprintln(w, paint.red("- "+d.Text))
			default:
				fmt.Fprintln(w, paint.yellow("~ "+d.Text))
			}
		}
	}
}

// author is who runs this, as in user@host.
func author(lookupEnv func(string) (string, bool)) string {
	user := strconv.Itoa(os.Getuid())
	for _, name := range []string{"LOGNAME", "USER"} {
		if value, _ := lookupEnv(name); value != "" {
			user = value
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return user + "@" + host
}

// oneLine is what somebody else wrote, without what would change the terminal.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if strconv.IsPrint(c) {
			return c
		}
		return '�'
	}, s)
}
