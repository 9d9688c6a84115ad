package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weir/control/etcd"
	"weir/policy"
	"weir/policy/diff"
)

// Words that get takes in the place of a kind. The plural of Sidecar is what runs; the documents are under its singular.
const (
	wordAll      = "all"
	wordSidecars = "sidecars"
)

func (c *cli) getCommand() *cobra.Command {
	var at int64
	var service string
	cmd := &cobra.Command{
		Use:   "get KIND [NAME...] | all | sidecars",
		Short: "Show documents in etcd, or the sidecars that read there",
		Long: `Show the documents in etcd of a kind, or all of them: what they say, and who wrote them when. Who it
was is known for as long as etcd remembers its past. -o yaml prints them as they were written, comments
and all, for 'sidecar apply -f -'.

'get sidecars' shows the processes that read there instead: which have applied the latest change, which
are behind, which run something else, and why. ('get sidecar' shows documents of the kind Sidecar.)`,
		Example: `  sidecar get all --etcd http://127.0.0.1:2379
  sidecar get tenantpolicies -o wide
  sidecar get tenantpolicy gold -o yaml > gold.yaml
  sidecar get sidecars --service orders`,
		ValidArgsFunction: completeKinds(wordAll, wordSidecars),
	}
	e := addEtcdFlags(cmd)
	cmd.Flags().Int64Var(&at, "at", 0, "`REVISION` of the past to show documents of (default: now)")
	cmd.Flags().StringVar(&service, "service", "", "`NAME` of the service whose sidecars are shown (default: of all)")
	output := choiceFlag(cmd, "output", "o", "how to print", "table", "table", "wide", "yaml", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkGet(args, at, output.value); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		return e.with(cmd, func(ctx context.Context, client *etcd.Client) error {
			if args[0] == wordSidecars {
				return c.getSidecars(ctx, client, e.layout(), service, output.value)
			}
			docs, err := client.ReadDocuments(ctx, e.layout(), at)
			if err != nil {
				return err
			}
			found, err := chosen(docs, args)
			if err != nil {
				return err
			}
			docs.Stored = found
			return c.show(ctx, client, docs, output.value, args[0] == wordAll)
		})
	}
	return cmd
}

// checkGet reports what can be known to be wrong before anybody is asked.
func checkGet(args []string, at int64, output string) error {
	switch {
	case len(args) == 0:
		return fmt.Errorf("nothing to get: say which, one of %s", strings.Join(kindNames(wordAll, wordSidecars), ", "))
	case at < 0:
		return fmt.Errorf("cannot use --at %d: want a revision, as `sidecar history` lists them", at)
	case args[0] != wordAll && args[0] != wordSidecars:
		_, err := parseKind(args[0])
		return err
	case len(args) > 1:
		return fmt.Errorf("cannot use %q: %s has no names", args[1], args[0])
	case args[0] == wordSidecars && at > 0:
		return fmt.Errorf("cannot use --at: which sidecars ran is not remembered")
	case args[0] == wordSidecars && output == "yaml":
		return fmt.Errorf("cannot use -o yaml: sidecars are no documents")
	}
	return nil
}

// chosen are the documents that the command line names.
func chosen(docs etcd.Documents, args []string) ([]etcd.Stored, error) {
	if args[0] == wordAll {
		return docs.Stored, nil
	}
	kind, err := parseKind(args[0])
	if err != nil {
		return nil, err
	}
	if len(args) == 1 {
		return slices.DeleteFunc(docs.Stored, func(s etcd.Stored) bool { return s.Kind != kind }), nil
	}
	var found []etcd.Stored
	for _, name := range args[1:] {
		s, there := docs.Find(diff.Key{Kind: kind, Name: name})
		if !there {
			return nil, noSuchDocument(docs, diff.Key{Kind: kind, Name: name})
		}
		found = append(found, s)
	}
	return found, nil
}

// row is one document as get shows it.
type row struct {
	Kind     policy.Kind      `json:"kind"`
	Name     string           `json:"name"`
	Summary  string           `json:"summary"`
	Revision int64            `json:"revision"`
	Created  int64            `json:"created"`
	Changed  *time.Time       `json:"changed,omitempty"` // absent when nobody recorded it, or etcd has forgotten
	By       string           `json:"by,omitempty"`
	Message  string           `json:"message,omitempty"`
	Problems []policy.Problem `json:"problems,omitempty"`
	Document json.RawMessage  `json:"document,omitempty"`
}

// show prints documents.
func (c *cli) show(ctx context.Context, client *etcd.Client, docs etcd.Documents, output string, kinds bool) error {
	if output == "yaml" {
		return writeYAML(c.out, docs.Stored)
	}
	var revisions []int64
	for _, s := range docs.Stored {
		revisions = append(revisions, s.Modified)
	}
	changes, err := client.Changes(ctx, docs.Layout, revisions)
	if err != nil {
		return err
	}
	rows := make([]row, 0, len(docs.Stored))
	for _, s := range docs.Stored {
		rows = append(rows, rowOf(s, changes))
	}
	if output == "json" {
		return writeJSON(c.out, struct {
			Revision  int64 `json:"revision"`
			Documents []row `json:"documents"`
		}{docs.Revision, rows})
	}
	if len(rows) == 0 {
		fmt.Fprintf(c.err, "no documents below %s at revision %d\n", docs.Layout.Policy(), docs.Revision)
		return nil
	}
	for _, key := range docs.Strange {
		fmt.Fprintf(c.err, "the key %q is of no document; nobody reads it\n", key)
	}
	return writeRows(c.out, rows, kinds, output == "wide")
}

func rowOf(s etcd.Stored, changes map[int64]etcd.Change) row {
	r := row{Kind: s.Kind, Name: s.Name, Revision: s.Modified, Created: s.Created, Problems: s.Problems}
	if s.Document == nil {
		r.Summary = "cannot be read: " + s.Problems[0].Message
	} else {
		r.Summary, r.Document = diff.Summary(s.Document), s.Document.JSON()
	}
	if change, known := changes[s.Modified]; known {
		r.Changed, r.By, r.Message = &change.At, change.By, change.Message
	}
	return r
}

func writeRows(w io.Writer, rows []row, kinds, wide bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	head := []string{"NAME", "SUMMARY", "REVISION", "CHANGED", "BY"}
	if kinds {
		head = append([]string{"KIND"}, head...)
	}
	if wide {
		head = append(head, "CREATED", "MESSAGE")
	}
	line(head...)
	for _, r := range rows {
		changed := "?"
		if r.Changed != nil {
			changed = r.Changed.Format(time.RFC3339)
		}
		summary := r.Summary
		if cut := []rune(summary); !wide && len(cut) > 80 {
			summary = string(cut[:79]) + "…"
		}
		cells := []string{oneLine(r.Name), oneLine(summary), fmt.Sprint(r.Revision), changed, oneLine(cmp.Or(r.By, "?"))}
		if kinds {
			cells = append([]string{oneLine(string(r.Kind))}, cells...)
		}
		if wide {
			cells = append(cells, fmt.Sprint(r.Created), oneLine(r.Message))
		}
		line(cells...)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("cannot write the documents: %w", err)
	}
	return nil
}

// writeYAML prints documents as they were written.
func writeYAML(w io.Writer, stored []etcd.Stored) error {
	for i, s := range stored {
		separator := "---\n"
		if i == 0 {
			separator = ""
		}
		if _, err := io.WriteString(w, separator+strings.TrimRight(s.Text, "\n")+"\n"); err != nil {
			return fmt.Errorf("cannot write the documents: %w", err)
		}
	}
	return nil
}
