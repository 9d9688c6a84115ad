package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choice is a flag with a few legal values.
type choice struct {
	value string
	legal []string
}

func (c *choice) String() string { return c.value }

// Type is what help texts show as the flag's value.
func (c *choice) Type() string { return strings.Join(c.legal, "|") }

func (c *choice) Set(s string) error {
	if slices.Contains(c.legal, s) {
		c.value = s
		return nil
	}
	err := fmt.Errorf("%q is not one of %s", s, strings.Join(c.legal, ", "))
	if meant := nearest(s, c.legal); meant != "" {
		err = fmt.Errorf("%w; did you mean %q?", err, meant)
	}
	return err
}

// choiceFlag defines a flag with a default and its legal values.
func choiceFlag(cmd *cobra.Command, name, short, usage, value string, legal ...string) *choice {
	c := &choice{value: value, legal: legal}
	cmd.Flags().VarP(c, name, short, usage)
	err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(legal, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic("BUG: cannot complete a flag that was just defined: " + err.Error())
	}
	return c
}

// writeJSON prints v indented.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("cannot write JSON: %w", err)
	}
	return nil
}

// isTerminal says whether w is a terminal: a character device other than the null device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// painter colours text, or leaves it as it is.
type painter bool

// painterFor says whether text for w may be coloured: on a terminal that can, unless NO_COLOR is set (no-color.org).
func (c *cli) painterFor(w io.Writer) painter {
	if v, _ := c.lookupEnv("NO_COLOR"); v != "" {
		return false
	}
	term, _ := c.lookupEnv("TERM")
	return painter(isTerminal(w) && term != "dumb")
}

func (p painter) bold(s string) string   { return p.paint("1", s) }
func (p painter) red(s string) string    { return p.paint("31", s) }
func (p painter) green(s string) string  { return p.paint("32", s) }
func (p painter) yellow(s string) string { return p.paint("33", s) }

func (p painter) paint(code, s string) string {
	if !p {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
