package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weir/control/etcd"
	"weir/control/etcd/care"
	"weir/policy"
)

// defragOptions are what the command line says about a defragmentation.
type defragOptions struct {
	etcd          *etcdFlags
	fragmentation percentFlag
	free          sizeFlag
	all           bool
	dryRun        bool
	disarm        bool
	work          care.DefragOptions
}

func (c *cli) etcdDefragCommand() *cobra.Command {
	usual := care.DefaultNeed()
	o := defragOptions{fragmentation: percentFlag(100 * usual.Fragmentation), free: sizeFlag(usual.Free)}
	cmd := &cobra.Command{
		Use:   "etcd-defrag",
		Short: "Give etcd's unused space back, one member at a time",
		Long: `Defragment the members of an etcd cluster whose stores hold much air: one at a time, the leader last,
and only while every member is well. A member does not answer while it is defragmented, about 10 s for
each GiB. After each one the command waits until it has caught up, and it stops at the first failure.

All members of the cluster are found, whichever of them --etcd names. They must be reachable from here.
With a login, it is that of a user with the role root.

Defragmenting is also the way back when the store has run full and raised the alarm NOSPACE: compact its
history, then defragment with --disarm, which ends the alarm once there is space.

Exit codes: 0 when all that is worth it was done, which may be nothing; 1 when something failed, or the
cluster was not well enough to begin.`,
		Example: `  sidecar etcd-defrag --etcd https://etcd-0:2379 --dry-run
  sidecar etcd-defrag --etcd https://etcd-0:2379 --min-fragmentation 30% --min-free 50MiB
  sidecar etcd-defrag --disarm`,
		Args: cobra.NoArgs,
	}
	o.etcd = addEtcdFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, in order, and do nothing")
	f.Var(&o.fragmentation, "min-fragmentation", "leave members alone whose share of air is less")
	f.Var(&o.free, "min-free", "leave members alone that would give back less")
	f.BoolVar(&o.all, "all-members", false, "leave no member alone")
	f.BoolVar(&o.disarm, "disarm", false, "end the alarm NOSPACE afterwards, if there is space")
	f.DurationVar(&o.work.Timeout, "defrag-timeout", 10*time.Minute, "longest that one member may take")
	f.DurationVar(&o.work.Patience, "patience", time.Minute, "longest that a member may take to catch up afterwards")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.etcd.check(); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		client, err := etcd.Open(o.etcd.eager())
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, stop := untilInterrupted(cmd.Context())
		defer stop()
		return c.defrag(ctx, client, o)
	}
	return cmd
}

// defrag plans, and carries the plan out unless it is a dry run.
func (c *cli) defrag(ctx context.Context, client *etcd.Client, o defragOptions) error {
	want := care.Need{Fragmentation: float64(o.fragmentation) / 100, Free: int64(o.free)}
	if o.all {
		want = care.Need{}
	}
	plan, err := care.PlanDefrag(care.Ask(ctx, client), want)
	if err != nil {
		return fmt.Errorf("%w; 'sidecar check --only etcd' tells more", err)
	}
	if o.dryRun {
		return printPlan(c.out, plan)
	}
	o.work.Progress = func(s care.Step) {
		fmt.Fprintf(c.err, "defragmenting %s, %s of which %s are in use\n", s.Member.Called(), care.Bytes(s.Member.Size), care.Bytes(s.Member.InUse))
	}
	done, err := care.Defrag(ctx, client, plan, o.work)
	if err := errors.Join(printDefragmented(c.out, done), err); err != nil {
		if etcd.Denied(err) {
			err = fmt.Errorf("%w; log in with a user that has the role root", err)
		}
		return err
	}
	if !o.disarm {
		return nil
	}
	gone, err := care.Disarm(ctx, client)
	for _, a := range gone {
		fmt.Fprintf(c.err, "disarmed %s of %s\n", a.Kind, a.Name)
	}
	return err
}

func printPlan(w io.Writer, plan []care.Step) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tENDPOINT\tLEADER\tSIZE\tIN USE\tAIR\tPLAN")
	turn := 0
	for _, s := range plan {
		what := "leave alone: " + s.Skip
		if s.Skip == "" {
			turn++
			what = fmt.Sprintf("defragment, %d.", turn)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.0f%%\t%s\n", s.Member.Name, s.Member.Endpoint, yes(s.Member.Leads()),
			care.Bytes(s.Member.Size), care.Bytes(s.Member.InUse), s.Member.Fragmentation()*100, what)
	}
	return flush(t)
}

func printDefragmented(w io.Writer, done []care.Defragmented) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tENDPOINT\tBEFORE\tAFTER\tTOOK\tRESULT")
	for _, d := range done {
		after, took, result := "-", "-", "not reached"
		switch {
		case d.Skip != "":
			result = "left alone: " + d.Skip
		case d.Err != nil:
			result = "failed"
		case d.Done:
			result = "done"
		}
		if d.Done {
			after, took = care.Bytes(d.After.Size), d.Took.Round(time.Millisecond).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", d.Member.Name, d.Member.Endpoint, care.Bytes(d.Member.Size), after, took, result)
	}
	return flush(t)
}

func flush(t *tabwriter.Writer) error {
	if err := t.Flush(); err != nil {
		return fmt.Errorf("cannot write the table: %w", err)
	}
	return nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// percentFlag and sizeFlag are flags of what documents also know.
type (
	percentFlag policy.Percent
	sizeFlag    policy.Size
)

func (p *percentFlag) String() string { return policy.Percent(*p).String() }

// Type is what help texts show as the flag's value.
func (*percentFlag) Type() string { return "PERCENT" }

func (p *percentFlag) Set(text string) error {
	v, err := policy.ParsePercent(text)
	*p = percentFlag(v)
	return err
}

func (s *sizeFlag) String() string { return policy.Size(*s).String() }

// Type is what help texts show as the flag's value.
func (*sizeFlag) Type() string { return "SIZE" }

func (s *sizeFlag) Set(text string) error {
	v, err := policy.ParseSize(text)
	*s = sizeFlag(v)
	return err
}
