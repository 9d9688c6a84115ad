package main

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/spf13/cobra"

	"weir/admit/policytest"
	"weir/policy"
)

func (c *cli) testCommand() *cobra.Command {
	var filter string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test FILE|DIR|-...",
		Short: "Run unit tests of policies",
		Long: `Run the cases of PolicyTest documents against the other documents on the command line and those that
the tests name. Requests arrive on a clock of their own and are decided by the code that decides in
a sidecar; what became of them is compared with what the document expects. 'sidecar explain
PolicyTest.spec' lists the fields.

Exit codes: 0 when every case passes, 1 when one fails or documents cannot be read, 3 when they are
not valid.`,
		Example: `  sidecar test policies/
  sidecar test weir.yaml policies/ gold-test.yaml --run burst -v`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&filter, "run", "", "`REGEXP` of the cases to run, matched against \"document: case\"")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show what became of the requests of every case")
	output := choiceFlag(cmd, "output", "o", "how to print", "text", "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		chosen, err := regexp.Compile(filter)
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: fmt.Errorf("cannot use --run %q: %w", filter, err)}
		}
		docs, err := c.decodeTexts(args)
		if err != nil {
			return err
		}
		t := testRun{cli: c, chosen: chosen, named: docs}
		if err := t.all(); err != nil {
			return err
		}
		if output.value == "json" {
			err = writeJSON(c.out, t.report())
		} else {
			err = t.print(c.out, c.painterFor(c.out), verbose)
		}
		return cmp.Or(err, t.verdict())
	}
	return cmd
}

// decodeTexts reads and decodes what a command line names. What is wrong with it is printed.
func (c *cli) decodeTexts(names []string) ([]*policy.Document, error) {
	texts, err := readTexts(c.in, names)
	if err != nil {
		return nil, err
	}
	return c.decodeAll(texts)
}

// refuse prints findings that hold an error, and says so.
func (c *cli) refuse(f findings) error {
	if f.errors == 0 {
		return nil
	}
	if err := f.render(c.err, c.painterFor(c.err)); err != nil {
		return err
	}
	return errInvalid
}

// testRun is one run of the command.
type testRun struct {
	cli    *cli
	chosen *regexp.Regexp
	named  []*policy.Document // on the command line
	cases  []ranCase
}

// ranCase is one case that was run.
type ranCase struct {
	document *policy.Document
	index    int // within the document
	name     string
	result   *policytest.Result
}

// all runs the chosen cases of all tests.
func (t *testRun) all() error {
	isTest := func(d *policy.Document) bool { return d.Kind == policy.KindPolicyTest }
	if !slices.ContainsFunc(t.named, isTest) {
		return errors.New("nothing to test: no PolicyTest is among the documents; name its file, too")
	}
	for _, d := range t.named {
		if !isTest(d) {
			continue
		}
		if err := t.document(d); err != nil {
			return err
		}
	}
	if len(t.cases) == 0 {
		return fmt.Errorf("nothing to test: no case matches --run %q", t.chosen)
	}
	return nil
}

// document runs the chosen cases of one document.
func (t *testRun) document(d *policy.Document) error {
	spec := d.Spec.(*policy.PolicyTestSpec)
	var snapshot *policy.Snapshot
	for i := range spec.Cases {
		if !t.chosen.MatchString(d.Name + ": " + spec.Cases[i].Name) {
			continue
		}
		if snapshot == nil {
			var err error
			if snapshot, err = t.compile(d, spec); err != nil {
				return err
			}
		}
		result, err := policytest.Run(snapshot, &spec.Cases[i])
		if err != nil {
			return fmt.Errorf("cannot run PolicyTest %s: %w", d.Name, err)
		}
		t.cases = append(t.cases, ranCase{d, i, spec.Cases[i].Name, result})
	}
	return nil
}

// compile makes the snapshot that a test is for. Secrets are not needed for it: a test says itself who its requests are from.
func (t *testRun) compile(d *policy.Document, spec *policy.PolicyTestSpec) (*policy.Snapshot, error) {
	docs := t.named
	if len(spec.Documents) > 0 {
		var paths []string
		for _, path := range spec.Documents {
			paths = append(paths, policy.ResolvePath(d.Origin, path))
		}
		more, err := t.cli.decodeTexts(paths)
		if err != nil {
			return nil, err
		}
		known := make(map[policy.Origin]bool)
		for _, d := range docs {
			known[d.Origin] = true
		}
		more = slices.DeleteFunc(more, func(d *policy.Document) bool { return known[d.Origin] })
		docs = append(slices.Clip(docs), more...)
	}
	snapshot, problems := policy.Compile(docs, policy.CompileOptions{Service: spec.Service})
	if snapshot == nil {
		f := findings{}
		f.note(problems)
		return nil, t.cli.refuse(f)
	}
	return snapshot.WithKeys(make([]policy.Keys, len(snapshot.Sidecar.KeyFiles()))), nil
}

// verdict is the error that ends the command when a case failed.
func (t *testRun) verdict() error {
	failed := 0
	for i := range t.cases {
		if len(t.cases[i].result.Failures) > 0 {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %s failed", failed, count(len(t.cases), "case", "cases"))
}

// problems are the failures of a case, each at its place in the document.
func (rc *ranCase) problems() []policy.Problem {
	var problems []policy.Problem
	for _, f := range rc.result.Failures {
		message := f.Message
		if f.Detail != "" {
			message += "; " + f.Detail
		}
		path := fmt.Sprintf("spec.cases[%d].expect[%d].%s", rc.index, f.Expect, f.Field)
		problems = append(problems, rc.document.Problem(policy.Error, path, "%s", message))
	}
	return problems
}
