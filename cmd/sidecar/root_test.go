package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// call runs one command line in this process.
func call(env map[string]string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = execute(args, streams{in: strings.NewReader(""), out: &out, err: &err}, lookupIn(env))
	return code, out.String(), err.String()
}

func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}
}

func TestUsageErrors(t *testing.T) {
	f := func(env map[string]string, line, want string) {
		t.Helper()
		code, stdout, stderr := call(env, strings.Fields(line)...)
		if code != exitUsage {
			t.Errorf("sidecar %s: exit code %d, want %d", line, code, exitUsage)
		}
		if stdout != "" {
			t.Errorf("sidecar %s: printed to stdout: %s", line, stdout)
		}
		if !strings.Contains(stderr, want) {
			t.Errorf("sidecar %s: stderr %q, want it to contain %q", line, stderr, want)
		}
		if !strings.Contains(stderr, "--help' for usage.") {
			t.Errorf("sidecar %s: stderr %q does not say where help is", line, stderr)
		}
	}

	// an unknown command
	f(nil, "nosuch", `unknown command "nosuch" for "sidecar"`)
	// one that is nearly right
	f(nil, "validat", "validate")
	// help for an unknown command
	f(nil, "help nosuch", `unknown command "nosuch"`)
	// an unknown flag, and one that is nearly right
	f(nil, "version --nosuch", "unknown flag: --nosuch")
	f(nil, "run --lisen :1", "did you mean --listen?")
	f(nil, "version -x", "unknown shorthand flag")
	// a value that is not legal
	f(nil, "version -o xml", `"xml" is not one of table, wide, json`)
	f(nil, "version -o jsn", `did you mean "json"?`)
	f(nil, "run --log-level loud --backend x:1", `"loud" is not one of trace, debug, info, warn, error`)
	f(nil, "run --without-etcd hope --etcd http://x:1", `"hope" is not one of wait, serve`)
	f(nil, "run --etcd 127.0.0.1:2379", "want the URLs of its members, as in http://127.0.0.1:2379")
	f(nil, "run --etcd http://x:1 --etcd-username me", "--etcd-username and --etcd-password-file go together")
	f(nil, "demo --for soon", `cannot use "soon" for --for: want a duration, as in 500ms, 30s or 1m`)
	f(nil, "rollback --to abc", `cannot use "abc" for --to: want a whole number`)
	f(map[string]string{"SIDECAR_TO": "abc"}, "rollback", `cannot use SIDECAR_TO="abc": want a whole number`)
	f(nil, "get", "nothing to get: say which, one of all, sidecars, Sidecar")
	f(nil, "demo --for -1s", "want a positive duration")
	// the same from the environment
	f(map[string]string{"SIDECAR_OUTPUT": "xml"}, "version", `cannot use SIDECAR_OUTPUT="xml"`)
	// arguments where none are taken, and none where some are
	f(nil, "version now", `unknown command "now"`)
	f(nil, "run policies/", "unknown command")
	f(nil, "validate", "requires at least 1 arg")
	f(nil, "explain", "accepts 1 arg")
	// nothing to run, and too much
	f(nil, "run", "nothing to run")
	f(nil, "run --limit 5/s", "--limit needs --backend")
	f(nil, "run --backend 127.0.0.1:1 -f x.yaml", "exclude each other")
	// nothing to explain, and in two ways
	f(nil, "why", "nothing to explain")
	f(nil, "why --tenant acme", "nothing to explain")
	f(nil, "why -f x.yaml --request-id x", "[documents request-id]")
	f(nil, "why --path / -o xml", `"xml" is not one of text, json`)
	// flags that stand for bad documents
	f(nil, "run --backend nowhere", "nowhere")
	f(nil, "run --backend 127.0.0.1:1 --limit fast", "fast")
	// a cluster that cannot be one; its password is not repeated
	f(nil, "get all", "no etcd is named")
	f(nil, "get all --etcd localhost:2379", "want the URLs of its members")
	f(nil, "get all --etcd http://ann:secret@localhost:2379", `cannot use --etcd "…@localhost:2379": `)
	f(nil, "get all --etcd http://ann:secret@localhost:x", "--etcd-username and --etcd-password-file")
	f(nil, "get all --etcd http://localhost", "it needs a port")
	f(nil, "get all --etcd http://localhost:99999", "it needs a port")
	f(nil, "get all --etcd http://localhost:1/weir", "want the URLs of its members")
	f(nil, "get all --etcd http://a:1 --etcd-ca-file x", "without https nothing is encrypted")
	f(nil, "get all --etcd http://a:1,https://b:1", "some are https and some are not")
	f(nil, "get all --etcd http://a:1 --prefix weir", `cannot use --prefix "weir"`)
	f(nil, "get all --etcd https://a:1 --etcd-cert-file x", "go together")
	f(nil, "get all --etcd http://a:1 --etcd-username x", "go together")
	f(nil, "get all --etcd http://a:1 --etcd-timeout 0s", "want a positive duration")
	// documents in etcd
	f(nil, "apply policies/", `cannot use "policies/": documents are named with -f`)
	f(nil, "apply -f x.yaml --selector a=b", "--selector needs --prune")
	f(nil, "apply --confirm-removals --prune", "--prune needs -f")
	f(nil, "apply --confirm-removals --wait=-1s", "cannot use --wait=-1s")
	f(nil, "apply --confirm-removals --seen -1", "cannot use --seen -1")
	f(nil, "delete", "want either KIND NAME... or -f FILE")
	f(nil, "delete route", "the names of the Route documents are missing")
	f(nil, "history route a b", `cannot use "b"`)
	f(nil, "history --last 0", "want 1 or more")
	f(nil, "rollback route a", "want a revision")
	f(nil, "rollback --to 3 rout a", "did you mean Route?")
	f(nil, "get sidecars -o yaml", "sidecars are no documents")
	f(nil, "get sidecars --at 3", "is not remembered")
	f(nil, "get policytest", `"policytest" is not a kind`)
	f(nil, "diff --from 3 -f x.yaml", "want either documents with -f, or a revision")
	// clusters to distribute to; a password is not repeated
	f(nil, "sync --from http://a:1 --to http://ann:secret@b:1", "cannot use --to without the name of a cluster: want NAME=URL")
	f(nil, "sync --from http://a:1 --to eu=http://ann:secret@b:1", `cannot use --to eu= "…@b:1": want the URLs`)
	f(nil, "sync --from http://ann:secret@a:1 --to eu=http://b:1", `cannot use --from "…@a:1": want the URLs`)
	f(nil, "sync --from http://a:1 --to eu=foo", `cannot use --to eu= "foo": want the URLs`)
	f(nil, "export --at -1", "cannot use --at -1")
	// flags that exclude each other
	f(nil, "fmt -w --check x.yaml", "[check write]")
}

func TestHelp(t *testing.T) {
	f := func(line, want string) {
		t.Helper()
		code, stdout, stderr := call(nil, strings.Fields(line)...)
		if code != exitFine || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("sidecar %s: exit code %d, stderr %q, stdout %q; want 0 and %q in stdout", line, code, stderr, stdout, want)
		}
	}

	// without a command, by flag and by command
	f("", "Available Commands:")
	f("--help", "Exit codes:")
	f("help", "Available Commands:")
	f("help", "Say how a request would be decided, or why one was refused")
	f("help run", "--backend ADDRESS")
	f("run -h", "[SIDECAR_LISTEN]")
	// the legal values of a flag
	f("demo -h", "--output table|json")
	// completion is cobra's
	f("completion bash", "bash completion")
	f("--version", "sidecar version ")
}

// Every command has a line for the list and, when it does something, an example; every flag can be set in the environment and
// its help says so.
func TestEveryCommandExplainsItself(t *testing.T) {
	root := newCLI(streams{}, lookupIn(nil)).root
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			return // cobra's own
		}
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s: Short, Long or Example is missing", cmd.CommandPath())
		}
		if strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short ends with a full stop", cmd.CommandPath())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !builtin(f.Name) && !strings.HasSuffix(f.Usage, "["+variable(f.Name)+"]") {
				t.Errorf("%s --%s: the help does not name %s", cmd.CommandPath(), f.Name, variable(f.Name))
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
}

func TestEnvironment(t *testing.T) {
	f := func(env map[string]string, line string, want runOptions) {
		t.Helper()
		c := newCLI(streams{out: &bytes.Buffer{}, err: &bytes.Buffer{}}, lookupIn(env))
		cmd, args, err := c.root.Find(append([]string{"run"}, strings.Fields(line)...))
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		if err := c.readEnvironment(cmd); err != nil {
			t.Fatal(err)
		}
		var o runOptions
		o.files, _ = cmd.Flags().GetStringSlice("file")
		o.backend, _ = cmd.Flags().GetString("backend")
		o.lastGood, _ = cmd.Flags().GetString("last-good")
		o.logLevel = cmd.Flags().Lookup("log-level").Value.String()
		if strings.Join(o.files, "|") != strings.Join(want.files, "|") || o.backend != want.backend ||
			o.lastGood != want.lastGood || o.logLevel != want.logLevel {
			t.Errorf("run %s with %v: got %+v, want %+v", line, env, o, want)
		}
	}

	// nothing said
	f(nil, "", runOptions{logLevel: "info"})
	// the environment stands for flags; dashes are underscores
	f(map[string]string{"SIDECAR_BACKEND": "a:1", "SIDECAR_LAST_GOOD": "/x", "SIDECAR_LOG_LEVEL": "debug"}, "",
		runOptions{backend: "a:1", lastGood: "/x", logLevel: "debug"})
	// a flag wins
	f(map[string]string{"SIDECAR_BACKEND": "a:1"}, "--backend b:2", runOptions{backend: "b:2", logLevel: "info"})
	// an empty variable counts as unset
	f(map[string]string{"SIDECAR_LOG_LEVEL": ""}, "", runOptions{logLevel: "info"})
	// lists are separated by commas, as in flags
	f(map[string]string{"SIDECAR_FILE": "a,b"}, "", runOptions{files: []string{"a", "b"}, logLevel: "info"})
	f(nil, "-f a,b -f c", runOptions{files: []string{"a", "b", "c"}, logLevel: "info"})
}

func TestNearest(t *testing.T) {
	f := func(typed, want string) {
		t.Helper()
		if got := nearest(typed, []string{"listen", "limit", "last-good"}); got != want {
			t.Errorf("nearest(%q) = %q, want %q", typed, got, want)
		}
	}

	// a letter left out, one too many, two swapped
	f("lisen", "listen")
	f("limits", "limit")
	f("lsiten", "listen")
	// the beginning of one
	f("last", "last-good")
	// nothing near
	f("colour", "")
}

func TestIsTerminal(t *testing.T) {
	f := func(name string, want bool) {
		t.Helper()
		file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if got := isTerminal(file); got != want {
			t.Errorf("isTerminal(%s) = %t, want %t", name, got, want)
		}
	}

	// a file and the null device are none
	f(filepath.Join(t.TempDir(), "file"), false)
	f(os.DevNull, false)
	// a pseudo-terminal is one
	f("/dev/ptmx", true)
	// neither is what is no file
	if isTerminal(&bytes.Buffer{}) {
		t.Error("a buffer is taken for a terminal")
	}
}

func TestPainter(t *testing.T) {
	f := func(p painter, want string) {
		t.Helper()
		if got := p.bold("a") + p.red("b") + p.green("c") + p.yellow("d"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}

	f(false, "abcd")
	f(true, "\x1b[1ma\x1b[0m\x1b[31mb\x1b[0m\x1b[32mc\x1b[0m\x1b[33md\x1b[0m")
}

func TestNoColor(t *testing.T) {
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	f := func(env map[string]string, want painter) {
		t.Helper()
		c := newCLI(streams{}, lookupIn(env))
		if got := c.painterFor(tty); got != want {
			t.Errorf("with %v: %t, want %t", env, got, want)
		}
		if c.painterFor(&bytes.Buffer{}) {
			t.Errorf("with %v: a pipe would be coloured", env)
		}
	}

	// a terminal that can
	f(map[string]string{"TERM": "xterm"}, true)
	// one that cannot, or should not
	f(map[string]string{"TERM": "dumb"}, false)
	f(map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false)
	// an empty NO_COLOR says nothing
	f(map[string]string{"TERM": "xterm", "NO_COLOR": ""}, true)
}
