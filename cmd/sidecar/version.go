package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

const unknown = "unknown"

// build is what the binary knows about itself. The toolchain stamps it; nothing is set by linker flags.
type build struct {
	Version      string       `json:"version"` // the module's version, or "devel"
	Commit       string       `json:"commit"`  // full revision, or "unknown"
	Date         string       `json:"date"`    // of the commit, RFC 3339, or "unknown"
	Dirty        bool         `json:"dirty"`   // built from a tree with changes
	Go           string       `json:"goVersion"`
	Platform     string       `json:"platform"`
	Dependencies []dependency `json:"dependencies"`
}

type dependency struct {
	Module  string `json:"module"`
	Version string `json:"version"`
	Sum     string `json:"sum,omitempty"`
}

// readBuild reads the information that the toolchain put into the binary.
func readBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return newBuild(info)
}

func newBuild(info *debug.BuildInfo) build {
	b := build{
		Version:      info.Main.Version,
		Commit:       unknown,
		Date:         unknown,
		Go:           runtime.Version(),
		Platform:     runtime.GOOS + "/" + runtime.GOARCH,
		Dependencies: make([]dependency, 0, len(info.Deps)),
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date = s.Value
		case "vcs.modified":
			b.Dirty = s.Value == "true"
		}
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.Dependencies = append(b.Dependencies, dependency{Module: m.Path, Version: m.Version, Sum: m.Sum})
	}
	return b
}

func (c *cli) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print what this binary was built from",
		Long: `Print the version, commit and date this binary was built from, the Go release that built it
and, with -o wide or -o json, every module that is linked into it.`,
		Example: `  sidecar version
  sidecar version -o json`,
		Args: cobra.NoArgs,
	}
	output := choiceFlag(cmd, "output", "o", "how to print", "table", "table", "wide", "json")
	cmd.RunE = func(*cobra.Command, []string) error {
		b := readBuild()
		if output.value == "json" {
			return writeJSON(c.out, b)
		}
		return b.print(c.out, output.value == "wide")
	}
	return cmd
}

// print writes the information as a table, with the dependencies when it is wide.
func (b build) print(w io.Writer, wide bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	dirty := ""
	if b.Dirty {
		dirty = " (modified)"
	}
	fmt.Fprintf(t, "version\t%s\ncommit\t%s%s\ndate\t%s\ngo\t%s\nplatform\t%s\n", b.Version, b.Commit, dirty, b.Date, b.Go, b.Platform)
	if wide {
		fmt.Fprintln(t)
		for _, d := range b.Dependencies {
			fmt.Fprintf(t, "%s\t%s\n", d.Module, d.Version)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("cannot write the version: %w", err)
	}
	return nil
}
