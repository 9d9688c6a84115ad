package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// cli is one command line while it runs.
type cli struct {
	streams
	lookupEnv func(string) (string, bool)
	root      *cobra.Command
	begun     bool // the command line was understood; whatever fails from here on is not a usage error
}

func newCLI(std streams, lookupEnv func(string) (string, bool)) *cli {
	c := &cli{streams: std, lookupEnv: lookupEnv}
	c.root = &cobra.Command{
		Use:   "sidecar",
		Short: "Hold each tenant of a service to its limits",
		Long: `Weir is a reverse proxy that stands in front of a service and holds each of its tenants to
their limits, told by YAML documents that may change at any time.

Every flag can also be given in the environment, as SIDECAR_ and its name in capitals:
--log-level=debug is SIDECAR_LOG_LEVEL=debug. A flag wins over the environment; an empty
variable counts as unset. NO_COLOR switches colours off.

Exit codes: 0 fine, 1 failed at run time, 2 wrong usage, 3 invalid documents.`,
		Example: `  sidecar demo                                            see it work, in one process
  sidecar run --backend 127.0.0.1:9000 --limit 100/s      limit every tenant of a service
  sidecar run -f policies/                                the same from documents
  sidecar validate policies/                              check documents
  sidecar test policies/                                  run their unit tests
  sidecar explain TenantPolicy.spec.limits                what a field means
  sidecar why --tenant acme --path /pay                   why a request is refused
  sidecar apply -f policies/ --etcd http://127.0.0.1:2379 put documents into etcd, for all sidecars
  sidecar check --etcd http://127.0.0.1:2379              what stands between here and a fleet
  sidecar sync -f distribution.yaml                       keep many clusters equal to one`,
		Version:            readBuild().Version,
		SilenceErrors:      true,
		SilenceUsage:       true,
		PersistentPreRunE:  c.begin,
		CompletionOptions:  cobra.CompletionOptions{HiddenDefaultCmd: false},
		DisableAutoGenTag:  true,
		DisableSuggestions: false,
	}
	c.root.SetIn(std.in)
	c.root.SetOut(std.out)
	c.root.SetErr(std.err)
	c.root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return suggestFlag(cmd, err) })
	c.root.AddCommand(
		c.runCommand(),
		c.validateCommand(),
		c.testCommand(),
		c.fmtCommand(),
		c.explainCommand(),
		c.whyCommand(),
		c.applyCommand(),
		c.getCommand(),
		c.diffCommand(),
		c.deleteCommand(),
		c.historyCommand(),
		c.rollbackCommand(),
		c.exportCommand(),
		c.checkCommand(),
		c.etcdDefragCommand(),
		c.syncCommand(),
		c.demoCommand(),
		c.versionCommand(),
	)
	c.root.InitDefaultHelpCmd()
	strictHelp(c.root)
	nameVariables(c.root)
	return c
}

// run executes args. Whatever fails before the command itself begins is a mistake in how it was called.
func (c *cli) run(ctx context.Context, args []string) error {
	c.root.SetArgs(args)
	cmd, err := c.root.ExecuteContextC(ctx)
	if err != nil && !c.begun {
		return &usageError{command: cmd.CommandPath(), err: err}
	}
	return err
}

// begin runs between the parsing of the command line and the command.
func (c *cli) begin(cmd *cobra.Command, _ []string) error {
	if err := c.readEnvironment(cmd); err != nil {
		return err
	}
	if err := cmd.ValidateFlagGroups(); err != nil { // cobra's own check comes after this hook
		return err
	}
	c.begun = true
	return nil
}

// readEnvironment sets the flags that were not given from their variables.
func (c *cli) readEnvironment(cmd *cobra.Command) (err error) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		value, found := c.lookupEnv(variable(f.Name))
		if err != nil || f.Changed || builtin(f.Name) || !found || value == "" {
			return
		}
		if setErr := f.Value.Set(value); setErr != nil {
			err = fmt.Errorf("cannot use %s=%q: %w", variable(f.Name), value, plainly(f, setErr))
			return
		}
		f.Changed = true
	})
	return err
}

// variable is the name of a flag in the environment.
func variable(flag string) string {
	return "SIDECAR_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// builtin says whether a flag is cobra's own: those ask for something else instead of setting something.
func builtin(flag string) bool {
	return flag == "help" || flag == "version" || flag == "no-descriptions"
}

// nameVariables adds the variable to the help text of every flag.
func nameVariables(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !builtin(f.Name) {
			f.Usage += " [" + variable(f.Name) + "]"
		}
	})
	for _, sub := range cmd.Commands() {
		nameVariables(sub)
	}
}

// strictHelp makes `help` of an unknown command a usage error.
func strictHelp(root *cobra.Command) {
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic("BUG: cobra has no help command: " + err.Error())
	}
	help.Run = nil
	help.RunE = func(_ *cobra.Command, args []string) error {
		cmd, rest, err := root.Find(args)
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("unknown command %q for %q", rest[0], cmd.CommandPath())
		}
		if err != nil {
			return &usageError{command: root.CommandPath(), err: err}
		}
		return cmd.Help()
	}
}

// plainly is the error of a value that cannot be parsed, in the place of that of the parser.
func plainly(f *pflag.Flag, err error) error {
	switch f.Value.Type() {
	case "int", "int64":
		return errors.New("want a whole number")
	case "bool":
		return errors.New("want true or false")
	case "duration":
		return errors.New("want a duration, as in 500ms, 30s or 1m")
	}
	return err
}

// suggestFlag says what a flag wants, and adds the flag that was probably meant to the error about an unknown one.
func suggestFlag(cmd *cobra.Command, err error) error {
	if invalid, is := errors.AsType[*pflag.InvalidValueError](err); is {
		return fmt.Errorf("cannot use %q for --%s: %w", invalid.GetValue(), invalid.GetFlag().Name, plainly(invalid.GetFlag(), invalid.Unwrap()))
	}
	word, isUnknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !isUnknown {
		return err
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if meant := nearest(word, names); meant != "" {
		return fmt.Errorf("%w; did you mean --%s?", err, meant)
	}
	return err
}

// nearest returns the candidate that cobra would suggest for a mistyped command, so that commands, flags and values are
// suggested alike. It returns "" when none is near.
func nearest(typed string, candidates []string) string {
	like := cobra.Command{SuggestionsMinimumDistance: 2}
	for _, name := range candidates {
		like.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	if meant := like.SuggestionsFor(typed); len(meant) > 0 {
		return meant[0]
	}
	return ""
}
