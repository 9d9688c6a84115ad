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

func (c *cli) applyCommand() *cobra.Command {
	var files []string
	var prune bool
	var selector map[string]string
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-...",
		Short: "Put documents into etcd, for all sidecars that read there",
		Long: `Put documents into etcd, from where every sidecar that reads below the prefix applies them, usually
within a second. Documents that are there already, to the letter, are not written.

Before anything is written the documents are validated together with all others that are there; with
--beside also with those that sidecars have from elsewhere, such as the routes in a team's directory.
What will be different is printed in words. All of it is written in one transaction, and only if
nobody has changed any of it meanwhile; more than 127 documents take several, each of which leaves no
reference without its document.

A change that takes many tenants out of policy (all of them, more than 30 %, or the last policy for
any tenant) is refused unless --confirm-removals says that it is meant. Without anything to change,
that flag releases removals which sidecars hold back since somebody made them in another way.

Exit codes: 0 applied, or nothing to do; 1 not written, or with --wait not applied everywhere in time;
2 wrong usage; 3 invalid documents.`,
		Example: `  sidecar apply -f policies/ --etcd http://127.0.0.1:2379 -m 'acme pays for more'
  sidecar apply -f gold.yaml --dry-run
  sidecar apply -f gold.yaml --seen 1042 --wait=1m
  sidecar apply -f team/ --prune --selector team=checkout --beside routes/`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("cannot use %q: documents are named with -f", args[0])
			}
			return nil
		},
	}
	f := cmd.Flags()
	// Not --file: SIDECAR_FILE is what a sidecar runs from.
	f.StringSliceVarP(&files, "documents", "f", nil, "`FILE|DIR` of documents, or - for the standard input; several are read as one set")
	f.BoolVar(&prune, "prune", false, "delete the documents that are in etcd and not among these")
	f.StringToStringVar(&selector, "selector", nil, "`LABEL=VALUE,...` that documents must have to be pruned; those applied must have them, too")
	f.Lookup("selector").DefValue = "" // help would show an empty list as []
	o := addChangeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case len(files) == 0 && !o.confirm:
			return &usageError{command: cmd.CommandPath(), err: errors.New("nothing to apply: name documents with -f FILE, -f DIRECTORY or -f -")}
		case len(selector) > 0 && !prune:
			return &usageError{command: cmd.CommandPath(), err: errors.New("--selector needs --prune: it says what may be pruned")}
		case prune && len(files) == 0:
			return &usageError{command: cmd.CommandPath(), err: errors.New("--prune needs -f: it deletes what is not among the documents")}
		}
		put, err := c.readStored(files)
		if err != nil {
			return err
		}
		if len(files) > 0 && len(put) == 0 {
			return fmt.Errorf("nothing to apply: there is no document in %s", inWords(files))
		}
		if err := c.refuseUnselected(put, selector); err != nil {
			return err
		}
		return c.change(cmd, o, func(_ context.Context, _ *etcd.Client, before etcd.Documents) (etcd.Plan, error) {
			var remove []diff.Key
			for _, s := range before.Stored {
				if prune && selected(s.Document, selector) {
					remove = append(remove, s.Key)
				}
			}
			return etcd.PlanOf(before, put, remove), nil
		})
	}
	return cmd
}

// selected says whether a document has all of the labels. One that cannot be read has none.
func selected(d *policy.Document, labels map[string]string) bool {
	for name, value := range labels {
		if d == nil || d.Metadata.Labels[name] != value {
			return false
		}
	}
	return true
}

// refuseUnselected fails for documents that a later --prune with the same selector would not find.
func (c *cli) refuseUnselected(put []etcd.Stored, selector map[string]string) error {
	f := findings{}
	for _, s := range put {
		if !selected(s.Document, selector) {
			f.note([]policy.Problem{s.Document.Problem(policy.Error, "metadata.labels", "has not the labels of --selector, so it could not be pruned one day")})
		}
	}
	return c.refuse(f)
}
