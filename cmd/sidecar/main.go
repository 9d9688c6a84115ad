// Command sidecar is Weir: a reverse proxy that stands in front of a service and holds each of its tenants to their limits.
//
// This package is the command line and the wiring, and nothing else: it reads flags and the environment, puts the rooms
// together and turns errors into exit codes. No other package reads flags, writes to the standard streams or ends the process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"weir/control/etcd"
)

// Exit codes, the same for every command.
const (
	exitFine    = 0
	exitFailed  = 1 // something went wrong at run time
	exitUsage   = 2 // the command line or the environment is wrong
	exitInvalid = 3 // the documents are wrong
)

func main() {
	etcd.SilenceGRPC()
	os.Exit(execute(os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.LookupEnv))
}

// streams are what a command reads and writes: results go to out, everything else to err.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// usageError is a mistake on the command line or in the environment, with the command whose help tells the way out.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// errInvalid says that documents are wrong. What is wrong with them was printed where it was found.
var errInvalid = errors.New("the documents are not valid")

// execute runs one command line and returns its exit code.
func execute(args []string, std streams, lookupEnv func(string) (string, bool)) int {
	c := newCLI(std, lookupEnv)
	err := c.run(context.Background(), args)
	var usage *usageError
	switch {
	case err == nil:
		return exitFine
	case errors.Is(err, errInvalid):
		return exitInvalid
	case errors.Is(err, errDifferent):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(std.err, "sidecar: %v\nRun '%s --help' for usage.\n", usage.err, usage.command)
		return exitUsage
	}
	fmt.Fprintf(std.err, "sidecar: %v\n", err)
	return exitFailed
}
