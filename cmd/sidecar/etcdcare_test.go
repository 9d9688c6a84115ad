package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"weir/control/etcd/care"
)

// The commands that the page on etcd prints, in consoles, in a CronJob and in a unit of systemd, are such that this program takes them.
func TestCareIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/etcd-care.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	var lines [][]string
	for _, m := range regexp.MustCompile(`(?m)^(?:\$ |ExecStart=/usr/bin/)(sidecar .*)$`).FindAllStringSubmatch(page, -1) {
		lines = append(lines, strings.Fields(m[1])[1:])
	}
	if len(lines) < 7 {
		t.Errorf("the page has %d commands, want at least 7", len(lines))
	}
	lines = append(lines, cronJob(t, page))
	for _, line := range lines {
		root := newCLI(streams{}, lookupIn(nil)).root
		cmd, flags, err := root.Find(line)
		if err == nil {
			err = cmd.ParseFlags(flags)
		}
		if err != nil || cmd == root || len(cmd.Flags().Args()) > 0 {
			t.Errorf("sidecar %s: %v", strings.Join(line, " "), err)
		}
	}
}

// cronJob is what the CronJob of the page runs.
func cronJob(t *testing.T, page string) []string {
	t.Helper()
	_, text, _ := strings.Cut(page, "```yaml\n")
	text, _, found := strings.Cut(text, "```")
	var job struct {
		Kind string
		Spec struct {
			ConcurrencyPolicy string `yaml:"concurrencyPolicy"`
			JobTemplate       struct {
				Spec struct {
					Template struct {
						Spec struct {
							RestartPolicy string `yaml:"restartPolicy"`
							Containers    []struct {
								Args         []string
								VolumeMounts []struct{ Name string } `yaml:"volumeMounts"`
							}
							Volumes []struct{ Name string }
						}
					}
				}
			} `yaml:"jobTemplate"`
		}
	}
	if err := yaml.Unmarshal([]byte(text), &job); !found || err != nil {
		t.Fatalf("the CronJob of the page: %v", err)
	}
	pod := job.Spec.JobTemplate.Spec.Template.Spec
	if job.Kind != "CronJob" || job.Spec.ConcurrencyPolicy != "Forbid" || pod.RestartPolicy != "Never" || len(pod.Containers) != 1 {
		t.Fatalf("the page has the CronJob %+v", job)
	}
	if !slices.Equal(pod.Containers[0].VolumeMounts, pod.Volumes) {
		t.Errorf("volumes %v are mounted as %v", pod.Volumes, pod.Containers[0].VolumeMounts)
	}
	return pod.Containers[0].Args
}

// The page says of every category what is looked at, and has the sections that findings lead to.
func TestFindingsLeadSomewhere(t *testing.T) {
	data, err := os.ReadFile("../../docs/etcd-care.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, category := range care.Categories() {
		if !strings.Contains(page, fmt.Sprintf("| `%s` |", category)) {
			t.Errorf("the page does not say what is looked at in %s", category)
		}
	}
	for _, heading := range []string{"What check looks at", "Space", "Corrupt", "Defragment"} {
		if !strings.Contains(page, "\n## "+heading+"\n") {
			t.Errorf("findings lead to %q, which the page does not have", heading)
		}
	}
}
