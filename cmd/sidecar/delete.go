package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"weir/control/etcd"
	"weir/policy"
	"weir/policy/diff"
)

func (c *cli) deleteCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | -f FILE|DIR|-...",
		Short: "Delete documents from etcd",
		Long: `Delete documents from etcd, by kind and name or those that files name. A document to which others refer
is not deleted; they are named. The guards are those of 'sidecar apply': what will be different is
printed, and taking many tenants out of policy needs --confirm-removals.

Exit codes: 0 deleted; 1 not deleted, or with --wait not applied everywhere in time; 2 wrong usage;
3 others refer to it.`,
		Example: `  sidecar delete tenantpolicy gold --etcd http://127.0.0.1:2379
  sidecar delete -f old/ --dry-run`,
		ValidArgsFunction: completeKinds(),
	}
	cmd.Flags().StringSliceVarP(&files, "documents", "f", nil, "`FILE|DIR` of documents, or - for the standard input, that name what to delete")
	o := addChangeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var keys []diff.Key
		var err error
		switch {
		case (len(args) > 0) == (len(files) > 0):
			err = errors.New("want either KIND NAME... or -f FILE")
		case len(args) > 0:
			keys, err = parseKeys(args)
		}
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		named, err := c.readStored(files)
		if err != nil {
			return err
		}
		for _, s := range named {
			keys = append(keys, s.Key)
		}
		return c.change(cmd, o, func(_ context.Context, _ *etcd.Client, before etcd.Documents) (etcd.Plan, error) {
			for _, key := range keys {
				if _, there := before.Find(key); !there && len(args) > 0 {
					return etcd.Plan{}, noSuchDocument(before, key)
				}
			}
			return etcd.PlanOf(before, nil, keys), nil
		})
	}
	return cmd
}

// noSuchDocument says that a document is not there, and which one was probably meant.
func noSuchDocument(d etcd.Documents, key diff.Key) error {
	var names []string
	for _, s := range d.Stored {
		if s.Kind == key.Kind {
			names = append(names, s.Name)
		}
	}
	err := fmt.Errorf("no %s is named %q below %s at revision %d", key.Kind, key.Name, d.Layout.Policy(), d.Revision)
	if meant := policy.Closest(key.Name, names); meant != "" {
		err = fmt.Errorf("%w; did you mean %q?", err, meant)
	}
	return err
}
