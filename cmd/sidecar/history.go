package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weir/control/etcd"
	"weir/policy/diff"
)

func (c *cli) historyCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "history [KIND NAME]",
		Short: "Show who changed documents in etcd, when, why and how",
		Long: `Show the latest changes of the documents in etcd, of all or of one: the revision, who made it when and
with what, the message, and what became different in words. What was written past these commands is
shown, too, without who it was.

It goes back as far as etcd remembers, which is until the next compaction: see --auto-compaction-mode
and --auto-compaction-retention of etcd. Documents that should be kept for longer belong into a
repository; 'sidecar export' writes them.`,
		Example: `  sidecar history --etcd http://127.0.0.1:2379
  sidecar history tenantpolicy gold --last 5
  sidecar history -o json`,
		ValidArgsFunction: completeKinds(),
	}
	cmd.Flags().IntVar(&limit, "last", 20, "`N` changes at most, the latest")
	e := addEtcdFlags(cmd)
	output := choiceFlag(cmd, "output", "o", "how to print", "text", "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		only, err := historyOf(args)
		if limit < 1 {
			err = fmt.Errorf("cannot use --last %d: want 1 or more", limit)
		}
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		return e.with(cmd, func(ctx context.Context, client *etcd.Client) error {
			h, err := client.History(ctx, e.layout(), only, limit)
			if err != nil {
				return err
			}
			if only != nil && len(h.Entries) == 0 {
				docs, err := client.ReadDocuments(ctx, e.layout(), 0)
				if err != nil {
					return err
				}
				if _, there := docs.Find(*only); !there {
					return noSuchDocument(docs, *only)
				}
			}
			if output.value == "json" {
				return writeJSON(c.out, historyJSON(h))
			}
			c.printHistory(h, limit)
			return nil
		})
	}
	return cmd
}

// historyOf reads KIND NAME, or nothing.
func historyOf(args []string) (*diff.Key, error) {
	if len(args) == 0 {
		return nil, nil
	}
	keys, err := parseKeys(args)
	if err != nil {
		return nil, err
	}
	if len(keys) > 1 {
		return nil, fmt.Errorf("cannot use %q: want the history of one document, or of all", args[2])
	}
	return &keys[0], nil
}

// pastChange is one entry of the history as -o json prints it.
type pastChange struct {
	Revision int64         `json:"revision"`
	At       *time.Time    `json:"at,omitempty"`
	By       string        `json:"by,omitempty"`
	Command  string        `json:"command,omitempty"`
	Message  string        `json:"message,omitempty"`
	Part     int           `json:"part,omitempty"`
	Parts    int           `json:"parts,omitempty"`
	Changes  []diff.Change `json:"changes"`
}

// past is the history as -o json prints it.
type past struct {
	Forgotten bool         `json:"forgotten"` // etcd has compacted what was before
	Changes   []pastChange `json:"changes"`
}

func historyJSON(h etcd.History) past {
	p := past{Forgotten: h.Forgotten, Changes: []pastChange{}}
	for _, e := range h.Entries {
		shown := pastChange{Revision: e.Revision, Changes: e.Documents}
		if e.Change != nil {
			shown.At, shown.By, shown.Command, shown.Message = &e.Change.At, e.Change.By, e.Change.Command, e.Change.Message
			shown.Part, shown.Parts = e.Change.Part, e.Change.Parts
		}
		if shown.Changes == nil {
			shown.Changes = []diff.Change{} // an empty list, not null
		}
		p.Changes = append(p.Changes, shown)
	}
	return p
}

func (c *cli) printHistory(h etcd.History, limit int) {
	paint := c.painterFor(c.out)
	for _, e := range h.Entries {
		who := "somebody who recorded nothing, past the commands of the sidecar"
		if e.Change != nil {
			who = describeChange(*e.Change)
			if e.Change.Parts > 0 {
				who += fmt.Sprintf(" (part %d of %d)", e.Change.Part, e.Change.Parts)
			}
			if e.Change.Confirmed {
				who += " (removals confirmed)"
			}
		}
		fmt.Fprintln(c.out, paint.bold(fmt.Sprintf("revision %d", e.Revision))+"  "+who)
		var words strings.Builder
		writeChanges(&words, paint, e.Documents)
		for line := range strings.Lines(words.String()) {
			fmt.Fprint(c.out, "  "+line)
		}
	}
	end := "that is the whole history"
	switch {
	case h.Forgotten:
		end = "etcd has compacted what was before, and remembers no more"
	case len(h.Entries) == limit:
		end = fmt.Sprintf("these are the latest %d; --last shows more", limit)
	}
	fmt.Fprintln(c.err, end)
}
