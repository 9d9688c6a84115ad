package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"weir/control/etcd"
	"weir/policy/diff"
)

func (c *cli) rollbackCommand() *cobra.Command {
	var to int64
	cmd := &cobra.Command{
		Use:   "rollback --to REVISION [KIND NAME...]",
		Short: "Make documents in etcd what they were at a revision",
		Long: `Make all documents in etcd, or only those named, what they were at a revision, to the letter: what
came since is deleted, and what was deleted comes back. It is a change like others, with the guards of
'sidecar apply', and itself in the history. 'sidecar history' lists the revisions that etcd still
remembers.`,
		Example: `  sidecar history --etcd http://127.0.0.1:2379
  sidecar rollback --to 1042 --dry-run
  sidecar rollback --to 1042 tenantpolicy gold --wait`,
		ValidArgsFunction: completeKinds(),
	}
	cmd.Flags().Int64Var(&to, "to", 0, "`REVISION` to go back to")
	o := addChangeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var only []diff.Key
		err := error(nil)
		if len(args) > 0 {
			only, err = parseKeys(args)
		}
		switch {
		case !cmd.Flags().Changed("to"):
			err = errors.New("want a revision to go back to, as `sidecar history` lists them: name it with --to")
		case to <= 0:
			err = fmt.Errorf("cannot use --to %d: want a revision, as `sidecar history` lists them", to)
		}
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		if o.message == "" {
			o.message = fmt.Sprintf("to revision %d", to)
		}
		return c.change(cmd, o, func(ctx context.Context, client *etcd.Client, before etcd.Documents) (etcd.Plan, error) {
			then, err := client.ReadDocuments(ctx, o.etcd.layout(), to)
			if err != nil {
				return etcd.Plan{}, err
			}
			return c.planBack(before, then, only)
		})
	}
	return cmd
}

// planBack plans to make documents what they were. What could not be read then does not come back.
func (c *cli) planBack(now, then etcd.Documents, only []diff.Key) (etcd.Plan, error) {
	concerned := func(key diff.Key) bool { return len(only) == 0 || slices.Contains(only, key) }
	for _, key := range only {
		if _, there := then.Find(key); there {
			continue
		}
		if _, there := now.Find(key); !there {
			return etcd.Plan{}, noSuchDocument(then, key)
		}
	}
	var put []etcd.Stored
	var remove []diff.Key
	f := findings{}
	for _, s := range then.Stored {
		if concerned(s.Key) {
			put = append(put, s)
			f.note(s.Problems)
		}
	}
	for _, s := range now.Stored {
		if _, there := then.Find(s.Key); !there && concerned(s.Key) {
			remove = append(remove, s.Key)
		}
	}
	return etcd.PlanOf(now, put, remove), c.refuse(f)
}
