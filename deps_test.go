package weir_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// How the binary is built, here and everywhere else.
const (
	buildTags    = "grpcnotrace"
	buildLdflags = "-s -w"
	mainPackage  = "./cmd/sidecar"
)

// largestBinary is how many bytes the stripped binary may have. Some 3 MiB of it are etcd's client with gRPC and protobuf.
const largestBinary = 18 << 20

// Packages that nothing linked into the binary may bring along. text/template is not among them, for cobra imports it: the linker
// drops it as long as nobody sets a template of cobra's, and TestNoMethodsByName checks that it did.
var bannedDependencies = []string{
	"html/template", "k8s.io", "github.com/google/cel-go", "github.com/expr-lang/expr", "testing",
	"go.etcd.io/etcd/server", // tests run it; the sidecar only asks it
}

func TestDependencies(t *testing.T) {
	for _, dep := range strings.Fields(goTool(t, "list", "-deps", "-tags", buildTags, mainPackage)) {
		if slices.ContainsFunc(bannedDependencies, func(banned string) bool { return under(banned)(dep) }) {
			t.Errorf("the binary depends on %s; go list -deps and go mod why say who brings it", dep)
		}
	}
}

// Who calls methods by a name that is known only at run time makes the linker keep every exported method of every type. Templates do.
// The linker marks such functions among those that it can reach; there must be none.
func TestNoMethodsByName(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "sidecar")
	cmd := exec.Command("go", "build", "-tags", buildTags, "-ldflags", "-dumpdep", "-o", binary, mainPackage)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cannot build the binary: %v\n%s", err, out[max(0, len(out)-2000):])
	}
	if !strings.Contains(string(out), "main.main -> ") {
		t.Fatal("the linker did not print what it reaches, so there is nothing to check")
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "<ReflectMethod>") {
			t.Errorf("the linker has to keep every method: %s", line)
		}
	}
}

func TestBinaryIsSmall(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "sidecar")
	goTool(t, "build", "-tags", buildTags, "-trimpath", "-ldflags", buildLdflags, "-o", binary, mainPackage)
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > largestBinary {
		t.Errorf("the stripped binary has %d bytes, want at most %d", info.Size(), largestBinary)
	}
	t.Logf("stripped binary: %.1f MiB", float64(info.Size())/(1<<20))
}
