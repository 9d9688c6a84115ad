// Package weir_test checks the house itself: which room may import which, what the binary may link, and that every room says
// what it is for.
package weir_test

import (
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// room is one package of the module and what it may import.
type room struct {
	// weir lists the packages of this module that it may import.
	weir []string
	// outside lists the modules' packages outside of the standard library that it may import, by prefix.
	outside []string
	// std, when not nil, lists the only packages of the standard library that it may import.
	std []string
}

// The libraries by what they are for.
const (
	logs       = "github.com/rs/zerolog"
	metrics    = "github.com/prometheus/client_golang/prometheus"
	fasthttp   = "github.com/valyala/fasthttp"
	yaml       = "gopkg.in/yaml.v3"
	fsnotify   = "github.com/fsnotify/fsnotify"
	cobra      = "github.com/spf13/cobra"
	pflag      = "github.com/spf13/pflag"
	memlimit   = "github.com/KimMachineGun/automemlimit"
	histograms = "github.com/HdrHistogram/hdrhistogram-go"
	unix       = "golang.org/x/sys/unix"
	jose       = "github.com/go-jose/go-jose/v4"           // signatures, keys and strict JSON of tokens
	spiffeid   = "github.com/spiffe/go-spiffe/v2/spiffeid" // the syntax of SPIFFE IDs, and nothing else of that module
	etcdClient = "go.etcd.io/etcd/client/v3"
	etcdAPI    = "go.etcd.io/etcd/api/v3" // the messages of the protocol, and its errors
	grpc       = "google.golang.org/grpc"
	zap        = "go.uber.org/zap" // to silence etcd's client, which would log past our own log
)

// rooms is the whole house. The arrows point down: cmd → proxy, control → admit → policy, limit, breaker.
var rooms = map[string]room{
	"weir/limit":   {},
	"weir/breaker": {},
	"weir/policy": {
		outside: []string{yaml, jose, spiffeid},
	},
	"weir/policy/reference": {
		weir: []string{"weir/policy"},
	},
	"weir/policy/diff": { // what is different, in words
		weir: []string{"weir/policy"},
	},
	"weir/admit": {
		weir:    []string{"weir/limit", "weir/breaker", "weir/policy", "weir/admit/token"},
		outside: []string{metrics},
	},
	"weir/admit/policytest": {
		weir: []string{"weir/admit", "weir/breaker", "weir/policy"},
	},
	"weir/admit/token": { // what an unsigned byte could reach, in a room that can be read on its own
		weir:    []string{"weir/policy"},
		outside: []string{jose},
	},
	"weir/admit/token/tokentest": {}, // for tests
	"weir/proxy/wire": {
		outside: []string{unix},
	},
	"weir/proxy/certs": {
		weir:    []string{"weir/policy"},
		outside: []string{metrics, logs},
	},
	"weir/proxy/certs/certtest": {}, // for tests
	"weir/proxy/upstream": {
		weir:    []string{"weir/policy", "weir/proxy/wire", "weir/proxy/certs", "weir/admit"},
		outside: []string{metrics, logs, unix},
	},
	"weir/proxy/ratelimit": {
		weir: []string{"weir/admit", "weir/proxy/wire"},
	},
	"weir/proxy/conformance": {}, // tests and nothing else
	"weir/proxy": {
		weir: []string{"weir/admit", "weir/admit/token", "weir/breaker", "weir/limit", "weir/policy", "weir/proxy/wire", "weir/proxy/upstream",
			"weir/proxy/certs", "weir/proxy/ratelimit"},
		outside: []string{fasthttp, metrics, logs, unix, spiffeid},
	},
	"weir/control": {
		weir:    []string{"weir/admit", "weir/limit", "weir/policy"},
		outside: []string{metrics, logs},
	},
	"weir/control/file": {
		weir:    []string{"weir/control", "weir/policy"},
		outside: []string{fsnotify, logs},
	},
	"weir/control/etcd": {
		weir:    []string{"weir/control", "weir/policy", "weir/policy/diff"},
		outside: []string{etcdClient, etcdAPI, grpc, zap, logs, metrics},
	},
	"weir/control/etcd/care": { // the cluster's own health, which needs more of etcd's interface than policies do
		weir:    []string{"weir/control/etcd"},
		outside: []string{etcdClient, etcdAPI, logs, metrics},
	},
	"weir/control/fleet": { // the etcd client itself for leases, which documents do not have
		weir:    []string{"weir/control", "weir/control/etcd", "weir/policy"},
		outside: []string{etcdClient, etcdAPI, logs, metrics},
	},
	"weir/control/distribute": { // writes etcd, but only by control/etcd
		weir:    []string{"weir/control", "weir/control/etcd", "weir/policy", "weir/policy/diff"},
		outside: []string{metrics, logs},
	},
	"weir/control/etcd/etcdtest": { // for tests
		outside: []string{etcdClient, "go.etcd.io/etcd/client/pkg/v3", "go.etcd.io/etcd/server/v3/embed", zap},
	},
	"weir/cmd/sidecar": {
		weir: []string{"weir/admit", "weir/admit/policytest", "weir/policy", "weir/policy/reference", "weir/proxy", "weir/proxy/upstream", "weir/control",
			"weir/control/file", "weir/control/distribute", "weir/control/etcd", "weir/control/etcd/care", "weir/control/fleet", "weir/policy/diff", "weir/limit"},
		outside: []string{cobra, pflag, logs, metrics, memlimit, histograms},
	},
}

// bans are the laws that the table above follows, each with its reason. They are checked on their own, so that a line added to the
// table in a hurry does not repeal one.
var bans = []struct {
	what   string
	in     func(pkg string) bool // the packages it is banned in
	banned func(imp string) bool
	reason string
}{
	{
		what:   "proxy and control import each other",
		in:     under("weir/proxy"),
		banned: under("weir/control"),
		reason: "they meet in one function, Apply(*policy.Snapshot): a request never waits for whoever talks about policy",
	},
	{
		what:   "control and proxy import each other",
		in:     under("weir/control"),
		banned: under("weir/proxy"),
		reason: "they meet in one function, Apply(*policy.Snapshot): policy can be watched, tested and shown without a byte of HTTP",
	},
	{
		what:   "fasthttp outside of proxy",
		in:     not(under("weir/proxy")),
		banned: under(fasthttp),
		reason: "no fasthttp type leaves proxy, so the other rooms never hold a context that is used again",
	},
	{
		what:   "prometheus registers itself",
		in:     under("weir"),
		banned: exactly(metrics + "/promauto"),
		reason: "registries are passed in: two sidecars in one test process must not share one",
	},
	{
		what:   "a leaf knows more than numbers and time",
		in:     anyOf("weir/limit", "weir/breaker"),
		banned: func(imp string) bool { return !isStd(imp) },
		reason: "a limiter or a breaker that can be read on its own can be trusted on its own",
	},
	{
		what:   "the nouns do something",
		in:     exactly("weir/policy"),
		banned: anyOf("net/http", "log", "log/slog", "os/exec", "time/tzdata", "sync"),
		reason: "policy has no goroutine, no I/O and no clock: the same documents always make the same snapshot",
	},
	{
		what:   "admission touches bytes",
		in:     under("weir/admit"),
		banned: anyOf("net/http", "io", "bufio", "os"),
		reason: "decisions are asked for by more than the proxy",
	},
	{
		what:   "another logger",
		in:     not(exactly("weir/control")), // which hands the errors of net/http's server, a *log.Logger, to zerolog
		banned: anyOf("log", "log/slog"),
		reason: "zerolog is the one logger; a line of another would be neither JSON nor levelled",
	},
	{
		what:   "etcd's client outside of its rooms",
		in:     not(anyOf("weir/control/etcd", "weir/control/etcd/care", "weir/control/fleet", "weir/control/etcd/etcdtest")),
		banned: under("go.etcd.io"),
		reason: "what is asked of etcd, how often and what happens without it must be readable in one place",
	},
	{
		what:   "templates and expression languages",
		in:     under("weir"),
		banned: anyOf("text/template", "html/template", "github.com/google/cel-go", "github.com/expr-lang/expr"),
		reason: "templates call methods by name, so the linker keeps every method of every type; documents are data, not programs",
	},
	{
		what:   "Kubernetes",
		in:     under("weir"),
		banned: under("k8s.io"),
		reason: "the data plane reads documents; whoever copies them out of a cluster is another binary",
	},
}

func TestImports(t *testing.T) {
	for _, pkg := range packages(t) {
		if strings.HasSuffix(pkg.path, "weir") {
			continue // this test
		}
		room, known := rooms[pkg.path]
		if !known {
			t.Errorf("package %s is not in the table of rooms: add it with what it may import, or put its code into a room that is there", pkg.path)
			continue
		}
		for _, imp := range pkg.imports {
			switch {
			case isStd(imp):
				if room.std != nil && !slices.Contains(room.std, imp) {
					t.Errorf("%s imports %s, which is not in its line of the table", pkg.path, imp)
				}
			case under("weir")(imp):
				if !slices.Contains(room.weir, imp) {
					t.Errorf("%s imports %s, which is not in its line of the table", pkg.path, imp)
				}
			default:
				if !slices.ContainsFunc(room.outside, func(prefix string) bool { return under(prefix)(imp) }) {
					t.Errorf("%s imports %s, which is not in its line of the table", pkg.path, imp)
				}
			}
			for _, ban := range bans {
				if ban.in(pkg.path) && ban.banned(imp) {
					t.Errorf("%s imports %s (%s): %s", pkg.path, imp, ban.what, ban.reason)
				}
			}
		}
	}
}

func TestEveryRoomIsThere(t *testing.T) {
	var there []string
	for _, pkg := range packages(t) {
		there = append(there, pkg.path)
	}
	for path := range rooms {
		if !slices.Contains(there, path) {
			t.Errorf("the table of rooms has %s, but there is no such package", path)
		}
	}
}

// Only one file may know the YAML library, so that its successor is a change of one line.
func TestYAMLIsBehindOneFile(t *testing.T) {
	var files []string
	for _, pkg := range packages(t) {
		for _, file := range pkg.files {
			if slices.Contains(importsOf(t, file), yaml) {
				files = append(files, file)
			}
		}
	}
	if len(files) > 1 {
		t.Errorf("%s is imported by %s, want one file", yaml, strings.Join(files, ", "))
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, pkg := range packages(t) {
		var docs []string
		for _, file := range pkg.files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if parsed.Doc != nil {
				docs = append(docs, filepath.Base(file))
			}
		}
		if len(docs) != 1 && len(pkg.files) > 0 {
			t.Errorf("package %s has its doc comment in %d files %v, want one", pkg.path, len(docs), docs)
		}
	}
}

// longest is how many lines a file may have that tells one story.
const longest = 500

// longFiles are allowed to be longer, each for a reason. Tests and generated files are not counted.
var longFiles = map[string]string{}

func TestFilesAreShort(t *testing.T) {
	for _, pkg := range packages(t) {
		for _, file := range pkg.files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(workingDirectory(t), file)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Count(string(data), "\n")
			_, excepted := longFiles[filepath.ToSlash(name)]
			switch {
			case lines > longest && !excepted:
				t.Errorf("%s has %d lines, want at most %d: does it tell one story?", name, lines, longest)
			case lines <= longest && excepted:
				t.Errorf("%s has %d lines and needs no exception any more", name, lines)
			}
		}
	}
}

// pkg is one package of the module without its tests.
type pkg struct {
	path    string
	imports []string
	files   []string // absolute
}

// packages lists the packages of the module.
func packages(t *testing.T) []pkg {
	t.Helper()
	dir := workingDirectory(t)
	out := goTool(t, "list", "-f", `{{.ImportPath}}	{{.Dir}}	{{join .GoFiles " "}}	{{join .Imports " "}}`, "./...")
	var all []pkg
	for line := range strings.Lines(out) {
		part := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		p := pkg{path: part[0], imports: strings.Fields(part[3])}
		for _, file := range strings.Fields(part[2]) {
			p.files = append(p.files, filepath.Join(part[1], file))
		}
		all = append(all, p)
	}
	if len(all) < 2 {
		t.Fatalf("go list found %d packages in %s", len(all), dir)
	}
	return all
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var imports []string
	for _, imp := range parsed.Imports {
		imports = append(imports, strings.Trim(imp.Path.Value, `"`))
	}
	return imports
}

// goTool runs the go command in the module and returns what it printed.
func goTool(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func workingDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// isStd says whether an import path belongs to the standard library: its first part has no dot, and is not ours.
func isStd(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".") && first != "weir"
}

func under(prefix string) func(string) bool {
	return func(path string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }
}

func exactly(want string) func(string) bool { return func(path string) bool { return path == want } }

func anyOf(want ...string) func(string) bool {
	return func(path string) bool { return slices.Contains(want, path) }
}

func not(f func(string) bool) func(string) bool { return func(path string) bool { return !f(path) } }
