package main

import (
	"encoding/json"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewBuild(t *testing.T) {
	f := func(info debug.BuildInfo, want build) {
		t.Helper()
		want.Go, want.Platform = runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH
		if diff := cmp.Diff(want, newBuild(&info)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}

	// nothing stamped, as by `go run`
	f(debug.BuildInfo{}, build{Version: "devel", Commit: "unknown", Date: "unknown", Dependencies: []dependency{}})
	f(debug.BuildInfo{Main: debug.Module{Version: "(devel)"}},
		build{Version: "devel", Commit: "unknown", Date: "unknown", Dependencies: []dependency{}})
	// stamped, with a dependency and a replaced one
	f(debug.BuildInfo{
		Main: debug.Module{Path: "weir", Version: "v1.2.3"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "abc"},
			{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
			{Key: "vcs.modified", Value: "true"},
		},
		Deps: []*debug.Module{
			{Path: "example.com/a", Version: "v1.0.0", Sum: "h1:a"},
			{Path: "example.com/b", Version: "v2.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v2.0.1", Sum: "h1:f"}},
		},
	}, build{
		Version: "v1.2.3", Commit: "abc", Date: "2026-01-02T03:04:05Z", Dirty: true,
		Dependencies: []dependency{{"example.com/a", "v1.0.0", "h1:a"}, {"example.com/fork", "v2.0.1", "h1:f"}},
	})
}

func TestPrintBuild(t *testing.T) {
	f := func(dirty, wide bool, want string) {
		t.Helper()
		b := build{Version: "v1", Commit: "abc", Date: "then", Dirty: dirty, Go: "go1", Platform: "a/b",
			Dependencies: []dependency{{Module: "example.com/a", Version: "v1.0.0"}}}
		var got strings.Builder
		if err := b.print(&got, wide); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.String()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}

	f(false, false, "version   v1\ncommit    abc\ndate      then\ngo        go1\nplatform  a/b\n")
	f(true, true, "version   v1\ncommit    abc (modified)\ndate      then\ngo        go1\nplatform  a/b\n\nexample.com/a  v1.0.0\n")
}

func TestVersionJSON(t *testing.T) {
	code, stdout, _ := call(nil, "version", "-o", "json")
	var got build
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitFine {
		t.Fatalf("exit code %d, %v: %s", code, err, stdout)
	}
	if got.Go != runtime.Version() || got.Version == "" || got.Commit == "" {
		t.Errorf("got %+v", got)
	}
}
