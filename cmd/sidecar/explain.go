package main

import (
	"io"

	"github.com/spf13/cobra"

	"weir/policy/reference"
)

func (c *cli) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain KIND[.FIELD...]",
		Short: "Say what a kind of document or one of its fields means",
		Long: `Say what a kind of document or one of its fields means: its type, default, legal values and whether
this version supports it. The same text is in docs/reference.md.`,
		Example: `  sidecar explain TenantPolicy
  sidecar explain TenantPolicy.spec.limits.burst`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			said, err := reference.Explain(args[0])
			if err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
			_, err = io.WriteString(c.out, said)
			return err
		},
	}
}
