package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"weir/control/etcd"
)

func (c *cli) exportCommand() *cobra.Command {
	var at int64
	var dir string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print all documents in etcd, or write them to files",
		Long: `Print all documents in etcd as they were written, now or at a revision of the past; with --dir write
each to a file of its own, KIND-NAME.yaml. What it writes is what 'sidecar apply -f' and 'sidecar run
-f' take. With -o json documents lose their comments; several on the standard output are separated by
lines of ---, as in YAML.

Files that are there and have another content are replaced; files of documents that are no longer there
are left alone, and named.`,
		Example: `  sidecar export --etcd http://127.0.0.1:2379 > backup.yaml
  sidecar export --at 1042 --dir policies/`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().Int64Var(&at, "at", 0, "`REVISION` of the past (default: now)")
	cmd.Flags().StringVar(&dir, "dir", "", "`DIR` to write to; it is made when it is not there")
	e := addEtcdFlags(cmd)
	output := choiceFlag(cmd, "output", "o", "how to write", "yaml", "yaml", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if at < 0 {
			return &usageError{command: cmd.CommandPath(), err: fmt.Errorf("cannot use --at %d: want a revision, as `sidecar history` lists them", at)}
		}
		return e.with(cmd, func(ctx context.Context, client *etcd.Client) error {
			docs, err := client.ReadDocuments(ctx, e.layout(), at)
			if err != nil {
				return err
			}
			for _, s := range docs.Stored {
				if s.Document == nil {
					fmt.Fprintf(c.err, "%s %s is exported as it is, and cannot be read: %s\n", s.Kind, oneLine(s.Name), s.Problems[0])
				}
			}
			if len(docs.Stored) == 0 {
				return fmt.Errorf("nothing to export: no documents are below %s at revision %d", docs.Layout.Policy(), docs.Revision)
			}
			if output.value == "json" {
				for i := range docs.Stored {
					docs.Stored[i].Text = jsonText(docs.Stored[i])
				}
			}
			if dir == "" {
				err = writeYAML(c.out, docs.Stored)
			} else {
				err = c.writeFiles(dir, docs.Stored, output.value)
			}
			if err == nil {
				fmt.Fprintf(c.err, "%s at revision %d\n", count(len(docs.Stored), "document", "documents"), docs.Revision)
			}
			return err
		})
	}
	return cmd
}

// jsonText is a document as JSON. One that cannot be read stays as it is.
func jsonText(s etcd.Stored) string {
	if s.Document == nil {
		return s.Text
	}
	var b bytes.Buffer
	if err := json.Indent(&b, s.Document.JSON(), "", "  "); err != nil {
		panic("BUG: a document's JSON is none: " + err.Error())
	}
	return b.String() + "\n"
}

// writeFiles writes a file for each document.
func (c *cli) writeFiles(dir string, stored []etcd.Stored, extension string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot export: %w", err)
	}
	written := make(map[string]bool)
	for _, s := range stored {
		name := strings.ToLower(string(s.Kind)) + "-" + s.Name + "." + extension
		if !filepath.IsLocal(name) || strings.ContainsAny(name, `/\`) {
			return fmt.Errorf("cannot export %s %q: that is no name for a file", s.Kind, s.Name)
		}
		written[name] = true
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && string(old) == s.Text {
			continue
		}
		// In one step, so that a sidecar that watches the folder never reads half of it.
		next := path + ".weir-export"
		if err := os.WriteFile(next, []byte(s.Text), 0o644); err != nil {
			return fmt.Errorf("cannot export: %w", err)
		}
		if err := os.Rename(next, path); err != nil {
			os.Remove(next)
			return fmt.Errorf("cannot export: %w", err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot export: %w", err)
	}
	for _, entry := range entries {
		if ext := filepath.Ext(entry.Name()); !written[entry.Name()] && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
			fmt.Fprintf(c.err, "%s is of no document in etcd, and left alone\n", filepath.Join(dir, entry.Name()))
		}
	}
	return nil
}
