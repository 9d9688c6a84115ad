package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"weir/control/etcd"
	"weir/policy/diff"
)

// errDifferent ends `diff` when there are differences; they were printed.
var errDifferent = errors.New("there are differences")

func (c *cli) diffCommand() *cobra.Command {
	var files []string
	var from, to int64
	var prune bool
	cmd := &cobra.Command{
		Use:   "diff -f FILE|DIR|-... | --from REVISION [--to REVISION]",
		Short: "Say in words what applying documents would change in etcd",
		Long: `Say in words what 'sidecar apply' of documents would change in etcd, or what was changed there between
two revisions. The last line, on the standard error, has the revision that was looked at: give it to
'sidecar apply --seen', which fails when somebody has changed the same documents since.

Exit codes, as those of diff: 0 no differences; 1 there are some, or they cannot be told; 2 wrong
usage; 3 invalid documents.`,
		Example: `  sidecar diff -f policies/ --etcd http://127.0.0.1:2379
  sidecar diff --from 1042
  sidecar diff --from 1042 --to 1050 -o json`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringSliceVarP(&files, "documents", "f", nil, "`FILE|DIR` of documents, or - for the standard input; several are read as one set")
	f.BoolVar(&prune, "prune", false, "say also which documents are in etcd and not among these")
	f.Int64Var(&from, "from", 0, "`REVISION` to compare with")
	f.Int64Var(&to, "to", 0, "`REVISION` to compare (default: now)")
	e := addEtcdFlags(cmd)
	output := choiceFlag(cmd, "output", "o", "how to print", "text", "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		switch {
		case (len(files) > 0) == (from != 0):
			err = errors.New("want either documents with -f, or a revision with --from")
		case from < 0 || to < 0 || len(files) > 0 && to != 0:
			err = errors.New("--from and --to are two revisions, as `sidecar history` lists them; without --to it is now")
		}
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		put, err := c.readStored(files)
		if err != nil {
			return err
		}
		return e.with(cmd, func(ctx context.Context, client *etcd.Client) error {
			after, err := client.ReadDocuments(ctx, e.layout(), to)
			if err != nil {
				return err
			}
			if len(files) > 0 {
				return c.printDifferences(after.Revision, differencesTo(after, put, prune), output.value)
			}
			changes, err := differencesFrom(ctx, client, from, after)
			if err != nil {
				return err
			}
			return c.printDifferences(after.Revision, changes, output.value)
		})
	}
	return cmd
}

// differencesTo is what applying documents would change.
func differencesTo(now etcd.Documents, put []etcd.Stored, prune bool) []diff.Change {
	var remove []diff.Key
	for _, s := range now.Stored {
		if prune {
			remove = append(remove, s.Key)
		}
	}
	p := etcd.PlanOf(now, put, remove)
	return p.Changes
}

// differencesFrom is what was changed since a revision.
func differencesFrom(ctx context.Context, client *etcd.Client, from int64, after etcd.Documents) ([]diff.Change, error) {
	before, err := client.ReadDocuments(ctx, after.Layout, from)
	if err != nil {
		return nil, err
	}
	return etcd.Differences(before, after), nil
}

// printDifferences prints them, and fails when there are some.
func (c *cli) printDifferences(revision int64, changes []diff.Change, output string) error {
	if output == "json" {
		if changes == nil {
			changes = []diff.Change{} // an empty list, not null
		}
		err := writeJSON(c.out, struct {
			Revision int64         `json:"revision"`
			Changes  []diff.Change `json:"changes"`
		}{revision, changes})
		if err != nil {
			return err
		}
	} else {
		writeChanges(c.out, c.painterFor(c.out), changes)
		fmt.Fprintf(c.err, "revision %d\n", revision)
	}
	if len(changes) > 0 {
		return errDifferent
	}
	return nil
}
