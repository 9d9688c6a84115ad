package weir_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"weir/admit"
	"weir/policy"
)

// guides are the pages that people wrote.
func guides(t *testing.T) map[string]string {
	t.Helper()
	pages := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			pages[name] = string(data)
		}
	}
	if len(pages) < 8 {
		t.Fatalf("found %d pages, want all of them", len(pages))
	}
	return pages
}

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	for name, page := range guides(t) {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", name, m[1])
			}
		}
	}
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// Every YAML block in the guides is what this version takes: whole documents, or a spec of a Sidecar.
func TestExamplesAreValid(t *testing.T) {
	found := 0
	for name, page := range guides(t) {
		for _, m := range yamlBlock.FindAllStringSubmatch(page, -1) {
			text := m[1]
			if strings.HasPrefix(text, "apiVersion:") && !strings.HasPrefix(text, "apiVersion: weir.dev/") {
				continue // of Kubernetes; the commands in them are checked where the command line is known
			}
			if strings.HasPrefix(text, "spec:") {
				text = "apiVersion: weir.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: example}\n" + text
			}
			found++
			docs, problems := policy.Decode(name, []byte(text))
			if strings.Contains(text, "\nkind: Backend\n") {
				_, more := policy.Compile(docs, policy.CompileOptions{})
				problems = append(problems, more...)
			}
			for _, p := range problems {
				t.Errorf("%s: %s\n%s", name, p, p.Excerpt)
			}
		}
	}
	if found == 0 {
		t.Error("no example was found")
	}
}

// The table of reasons has every reason with its status.
func TestReasonsAreDocumented(t *testing.T) {
	page := guides(t)["docs/metrics.md"]
	for r := range admit.ReasonCount {
		reason := admit.Reason(r)
		_, row, found := strings.Cut(page, "`"+reason.String()+"`")
		row, _, _ = strings.Cut(row, "\n")
		switch status := reason.Status(); {
		case !found:
			t.Errorf("docs/metrics.md says nothing of %s", reason)
		case status != 0 && !strings.Contains(row, strconv.Itoa(status)):
			t.Errorf("docs/metrics.md says of %s %q, want its status %d", reason, row, status)
		}
	}
}
