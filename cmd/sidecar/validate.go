package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"weir/control"
	"weir/policy"
)

func (c *cli) validateCommand() *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use:   "validate FILE|DIR|-...",
		Short: "Check documents and say everything that is wrong with them",
		Long: `Check documents as 'sidecar run' would: their form, their values and what they say together. What is
named on one command line is one set, and so are the files that a Sidecar in it names. Every problem
is printed with its place, the line and, where there is one, a suggestion.

Exit codes: 0 when the documents are valid, though there may be warnings; 3 when they are not; 1 when
they cannot be read.`,
		Example: `  sidecar validate policies/
  sidecar validate sidecar.yaml policies/ -o json
  cat policies/*.yaml | sidecar validate -`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&service, "service", "", "`NAME` of the service to check for (default: as the documents say)")
	output := choiceFlag(cmd, "output", "o", "how to print", "text", "text", "json")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		texts, err := readTexts(c.in, args)
		if err != nil {
			return err
		}
		f := examine(texts, service)
		if output.value == "json" {
			err = f.printJSON(c)
		} else {
			err = f.printText(c)
		}
		if err == nil && f.errors > 0 {
			err = errInvalid
		}
		return err
	}
	return cmd
}

// findings is what is to be said about a set of documents.
type findings struct {
	documents int // that have a name at least, good or bad
	errors    int
	problems  []policy.Problem
	snapshot  *policy.Snapshot // of the documents, when they are valid; without API keys
	partial   bool             // documents were not checked against each other, since some of them could not be read
}

// examine decodes texts and, when all of them can be, compiles them as one set.
func examine(texts []control.File, service string) findings {
	var f findings
	var docs []*policy.Document
	for _, t := range texts {
		decoded, problems := policy.Decode(t.Path, t.Data)
		docs = append(docs, decoded...)
		f.note(problems)
	}
	f.documents = len(docs)
	if f.errors > 0 {
		f.partial = true
		return f
	}
	if len(docs) > 0 && !slices.ContainsFunc(docs, func(d *policy.Document) bool { return !d.Kind.PassedOver() }) {
		return f // nothing of it could be in force, so it need not be whole
	}
	snapshot, problems := policy.Compile(docs, policy.CompileOptions{Service: service})
	f.note(problems)
	if f.snapshot = snapshot; snapshot != nil {
		f.note(snapshot.Warnings)
		f.note(examineKeys(snapshot.Sidecar.KeyFiles()))
	}
	return f
}

// examineKeys checks the files of keys. One that cannot be read is a warning only: documents are often checked where the keys are
// not.
func examineKeys(files []policy.KeyFile) []policy.Problem {
	var problems []policy.Problem
	for _, f := range files {
		data, err := control.ReadFile(f.Path)
		if err != nil {
			problems = append(problems, policy.Problem{
				Severity: policy.Warning,
				Origin:   policy.Origin{File: f.Path},
				Message:  fmt.Sprintf("cannot check the %s: %v", f.Holds(), err),
			})
			continue
		}
		_, _, found := f.Parse(data)
		problems = append(problems, found...)
	}
	return problems
}

func (f *findings) note(problems []policy.Problem) {
	f.problems = append(f.problems, problems...)
	for _, p := range problems {
		if p.Severity == policy.Error {
			f.errors++
		}
	}
}

// render writes every problem for a person.
func (f *findings) render(w io.Writer, paint painter) error {
	for _, p := range f.problems {
		if err := p.Render(w, bool(paint)); err != nil {
			return fmt.Errorf("cannot write problems: %w", err)
		}
	}
	return nil
}

func (f *findings) printText(c *cli) error {
	if err := f.render(c.out, c.painterFor(c.out)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.out, f.summary())
	return err
}

// summary is the closing line.
func (f *findings) summary() string {
	if f.errors == 0 {
		s := fmt.Sprintf("%s valid", count(f.documents, "document is", "documents are"))
		if n := len(f.problems); n > 0 {
			s += ", with " + count(n, "warning", "warnings")
		}
		return s
	}
	s := count(f.errors, "error", "errors")
	if n := len(f.problems) - f.errors; n > 0 {
		s += " and " + count(n, "warning", "warnings")
	}
	if f.partial {
		s += "; what documents say together is checked once these are gone"
	}
	return s
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (f *findings) printJSON(c *cli) error {
	problems := f.problems
	if problems == nil {
		problems = []policy.Problem{} // an empty list, not null
	}
	return writeJSON(c.out, struct {
		Valid     bool             `json:"valid"`
		Documents int              `json:"documents"`
		Errors    int              `json:"errors"`
		Warnings  int              `json:"warnings"`
		Problems  []policy.Problem `json:"problems"`
	}{f.errors == 0, f.documents, f.errors, len(f.problems) - f.errors, problems})
}
