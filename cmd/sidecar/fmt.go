package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"weir/control"
	"weir/policy"
)

func (c *cli) fmtCommand() *cobra.Command {
	var write, check bool
	cmd := &cobra.Command{
		Use:   "fmt FILE|DIR|-...",
		Short: "Lay out documents in the usual way",
		Long: `Print documents with the usual order of fields and indentation; comments stay. With -w files are
changed in place, with --check nothing is: the files that would change are listed, and the exit code
is 3 when there are any.`,
		Example: `  sidecar fmt policies/gold.yaml
  sidecar fmt -w policies/
  sidecar fmt --check policies/`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().BoolVarP(&write, "write", "w", false, "change the files in place")
	cmd.Flags().BoolVar(&check, "check", false, "list the files that would change, and change none")
	cmd.MarkFlagsMutuallyExclusive("write", "check")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		texts, err := readNamed(c.in, args)
		if err != nil {
			return err
		}
		laidOut := make([][]byte, len(texts))
		var f findings
		for i, t := range texts {
			var problems []policy.Problem
			laidOut[i], problems = policy.Fmt(t.Data)
			for _, p := range problems {
				p.Origin.File = t.Path
				f.note([]policy.Problem{p})
			}
		}
		if err := f.render(c.err, c.painterFor(c.err)); err != nil {
			return err
		}
		if f.errors > 0 {
			return errInvalid // and nothing is changed
		}
		switch {
		case check:
			return listUnformatted(c.out, texts, laidOut)
		case write:
			return c.rewrite(texts, laidOut)
		}
		_, err = c.out.Write(bytes.Join(laidOut, []byte("---\n")))
		return err
	}
	return cmd
}

// listUnformatted names the texts that differ from their laid-out form.
func listUnformatted(w io.Writer, texts []control.File, laidOut [][]byte) error {
	var err error
	for i, t := range texts {
		if !bytes.Equal(t.Data, laidOut[i]) {
			fmt.Fprintln(w, t.Path)
			err = errInvalid
		}
	}
	return err
}

// rewrite changes the files that differ from their laid-out form, and names them.
func (c *cli) rewrite(texts []control.File, laidOut [][]byte) error {
	for i, t := range texts {
		switch {
		case t.Path == stdinName:
			if _, err := c.out.Write(laidOut[i]); err != nil {
				return err
			}
		case !bytes.Equal(t.Data, laidOut[i]):
			if err := replaceFile(t.Path, laidOut[i]); err != nil {
				return err
			}
			fmt.Fprintln(c.out, t.Path)
		}
	}
	return nil
}

// replaceFile changes a file in one step, so that a sidecar that watches it never reads half of it.
func replaceFile(name string, data []byte) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("cannot rewrite %s: %w", name, err)
	}
	next := name + ".weir-fmt"
	if err := os.WriteFile(next, data, info.Mode().Perm()); err != nil {
		return fmt.Errorf("cannot rewrite %s: %w", name, err)
	}
	if err := os.Rename(next, name); err != nil {
		os.Remove(next)
		return fmt.Errorf("cannot rewrite %s: %w", name, err)
	}
	return nil
}
