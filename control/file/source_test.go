package file

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/control"
	"weir/policy"
)

// rig is a source that runs, and what it said.
type rig struct {
	t       *testing.T
	dir     string
	s       *Source
	batches chan control.Batch
}

// run starts a source over paths below dir. It looks at sizes and times only as often as rescan says.
func run(t *testing.T, dir string, rescan time.Duration, paths ...string) *rig {
	t.Helper()
	for i := range paths {
		paths[i] = filepath.Join(dir, paths[i])
	}
	r := &rig{t: t, dir: dir, batches: make(chan control.Batch, 10000)}
	r.s = New(Options{Paths: paths, Logger: zerolog.Nop(), Debounce: time.Millisecond, Rescan: rescan})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.s.Run(ctx, func(b control.Batch) { r.batches <- b }); err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return r
}

// want waits until the source says this, whatever it says before.
func (r *rig) want(want ...string) {
	r.t.Helper()
	deadline := time.After(20 * time.Second)
	diff := "nothing"
	for {
		select {
		case b := <-r.batches:
			if diff = cmp.Diff(want, lines(r.dir, b)); diff == "" {
				return
			}
		case <-deadline:
			r.t.Fatalf("the source does not say it; the last time (-want +got):\n%s", diff)
		}
	}
}

const never = time.Hour

func TestRunNoticesChanges(t *testing.T) {
	dir := tree(t, "p/a.yaml", "1", "p/b.yaml", "1", "single/s.yaml", "1", "single/noise", "x")
	r := run(t, dir, never, "p", "single/s.yaml")
	r.want("p/a.yaml: 1", "p/b.yaml: 1", "single/s.yaml: 1")
	// written in place
	put(t, dir+"/p/a.yaml", "2")
	r.want("p/a.yaml: 2", "p/b.yaml: 1", "single/s.yaml: 1")
	// replaced by renaming, as editors do, twice
	for _, text := range []string{"2", "3"} {
		put(t, dir+"/single/.s.yaml.tmp", text)
		must(t, os.Rename(dir+"/single/.s.yaml.tmp", dir+"/single/s.yaml"))
		r.want("p/a.yaml: 2", "p/b.yaml: 1", "single/s.yaml: "+text)
	}
	// removed and added
	must(t, os.Remove(dir+"/p/b.yaml"))
	r.want("p/a.yaml: 2", "single/s.yaml: 3")
	put(t, dir+"/p/new/deep/c.yaml", "1")
	r.want("p/a.yaml: 2", "p/new/deep/c.yaml: 1", "single/s.yaml: 3")
	// in a folder that came later
	put(t, dir+"/p/new/deep/c.yaml", "2")
	r.want("p/a.yaml: 2", "p/new/deep/c.yaml: 2", "single/s.yaml: 3")
	// a single file goes and comes
	must(t, os.Remove(dir+"/single/s.yaml"))
	r.want("p/a.yaml: 2", "p/new/deep/c.yaml: 2", "single/s.yaml! no such file or directory")
	put(t, dir+"/single/s.yaml", "4")
	r.want("p/a.yaml: 2", "p/new/deep/c.yaml: 2", "single/s.yaml: 4")
	// the whole folder goes and comes
	must(t, os.RemoveAll(dir+"/p"))
	r.want("p! no such file or directory", "single/s.yaml: 4")
	put(t, dir+"/p/a.yaml", "5")
	r.want("p/a.yaml: 5", "single/s.yaml: 4")
	put(t, dir+"/p/a.yaml", "6")
	r.want("p/a.yaml: 6", "single/s.yaml: 4")
	// it is emptied
	must(t, os.Remove(dir+"/p/a.yaml"))
	r.want("p! the folder has no *.yaml, *.yml or *.json file; put documents there, or name another path", "single/s.yaml: 4")
}

// A kubelet writes a new folder, makes a link to it beside ..data, and renames that onto ..data.
func TestRunNoticesConfigMapSwap(t *testing.T) {
	dir := tree(t, "m/..1/x.yaml", "1", "m/..1/y.yaml", "1", "m/..data", "-> ..1", "m/x.yaml", "-> ..data/x.yaml", "m/y.yaml", "-> ..data/y.yaml")
	f := func(prefix string, paths ...string) {
		t.Helper()
		r := run(t, dir, never, paths...)
		for i := range 3 {
			version := fmt.Sprintf("%s%d", prefix, i)
			put(t, dir+"/m/.."+version+"/x.yaml", version)
			put(t, dir+"/m/.."+version+"/y.yaml", version)
			put(t, dir+"/m/..data_tmp", "-> .."+version)
			old, err := os.Readlink(dir + "/m/..data")
			must(t, err)
			must(t, os.Rename(dir+"/m/..data_tmp", dir+"/m/..data"))
			must(t, os.RemoveAll(dir+"/m/"+old))
			want := []string{"m/x.yaml: " + version}
			if len(paths) == 1 && paths[0] != dir+"/m/x.yaml" {
				want = append(want, "m/y.yaml: "+version)
			}
			r.want(want...)
		}
	}
	// the folder
	f("folder", "m")
	// one file of it
	f("file", "m/x.yaml")
}

// A link that moves, as continuous delivery does with releases.
func TestRunNoticesMovedLinks(t *testing.T) {
	dir := tree(t, "v1/a.yaml", "1", "v2/a.yaml", "2", "current", "-> v1", "elsewhere/e1", "1", "p/link.yaml", "-> ../elsewhere/e1")
	r := run(t, dir, never, "current", "p")
	r.want("current/a.yaml: 1", "p/link.yaml: 1")
	put(t, dir+"/next", "-> v2")
	must(t, os.Rename(dir+"/next", dir+"/current"))
	r.want("current/a.yaml: 2", "p/link.yaml: 1")
	put(t, dir+"/v2/a.yaml", "3")
	r.want("current/a.yaml: 3", "p/link.yaml: 1")
	// the target of a link changes
	put(t, dir+"/elsewhere/e1", "2")
	r.want("current/a.yaml: 3", "p/link.yaml: 2")
}

func TestRunFollowsTheSidecar(t *testing.T) {
	dir := tree(t, "etc/self.yaml", sidecar("one"), "etc/one/a.yaml", "1", "etc/two/b.yaml", "1")
	r := run(t, dir, never, "etc/self.yaml")
	self := func(policies ...string) string { return "etc/self.yaml: " + strings.TrimSpace(sidecar(policies...)) }
	r.want("etc/one/a.yaml: 1", self("one"))
	put(t, dir+"/etc/one/a.yaml", "2")
	r.want("etc/one/a.yaml: 2", self("one"))
	put(t, dir+"/etc/self.yaml", sidecar("two"))
	r.want(self("two"), "etc/two/b.yaml: 1")
	put(t, dir+"/etc/two/b.yaml", "2")
	r.want(self("two"), "etc/two/b.yaml: 2")
}

func TestReloadReportsInAnyCase(t *testing.T) {
	dir := tree(t, "a.yaml", "1")
	r := run(t, dir, never, "a.yaml")
	for range 3 {
		r.want("a.yaml: 1")
		r.s.Reload()
	}
	r.want("a.yaml: 1")
}

func TestWatchedFilesAreReported(t *testing.T) {
	dir := tree(t, "a.yaml", "1", "secrets/keys", "1")
	r := run(t, dir, never, "a.yaml")
	r.want("a.yaml: 1")
	r.s.Watch([]string{dir + "/secrets/keys"})
	r.want("a.yaml: 1")
	put(t, dir+"/secrets/keys", "changed")
	r.want("a.yaml: 1")
}

func TestRescanFindsWhatNobodyTold(t *testing.T) {
	dir := tree(t, "a.yaml", "1", "keys", "1")
	s := New(Options{Paths: []string{dir + "/a.yaml"}, Debounce: time.Millisecond, Rescan: time.Millisecond})
	r := &rig{t: t, dir: dir, s: s, batches: make(chan control.Batch, 10000)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.follow(ctx, silent(), func(b control.Batch) { r.batches <- b }); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	r.want("a.yaml: 1")
	put(t, dir+"/a.yaml", "second")
	r.want("a.yaml: second")
	s.Watch([]string{dir + "/keys"})
	r.want("a.yaml: second")
	put(t, dir+"/keys", "second")
	r.want("a.yaml: second")
}

func silent() *watch { return &watch{events: make(chan string)} }

// Many changes are read few times, and the last one is never lost.
func TestRapidChangesCoalesce(t *testing.T) {
	dir := tree(t, "p/a.yaml", "start")
	ctx, cancel := context.WithCancel(context.Background())
	s := New(Options{Paths: []string{dir + "/p"}, Debounce: 20 * time.Millisecond, Rescan: never})
	r := &rig{t: t, dir: dir, s: s, batches: make(chan control.Batch, 10000)}
	var running sync.WaitGroup
	said := 0
	running.Go(func() {
		if err := s.Run(ctx, func(b control.Batch) { said++; r.batches <- b }); err != nil {
			t.Error(err)
		}
	})
	r.want("p/a.yaml: start")
	for i := range 300 {
		put(t, dir+"/p/a.yaml", fmt.Sprint(i))
	}
	r.want("p/a.yaml: 299")
	cancel()
	running.Wait()
	if said > 100 {
		t.Errorf("300 changes were reported %d times", said)
	}
}

func TestDebounce(t *testing.T) {
	d := debounce{length: 50}
	f := func(at int64, want time.Duration) {
		t.Helper()
		if got := d.changed(time.Unix(0, at)); got != want {
			t.Errorf("at %d: wait %d, want %d", at, got, want)
		}
	}
	// every change starts anew
	f(1000, 50)
	f(1040, 50)
	f(1450, 50)
	// until the first one has waited ten times as long
	f(1470, 30)
	f(1500, 0)
	f(1600, 0)
	// and then from the beginning
	d.over()
	f(1700, 50)
	f(2190, 10)
}

func TestNoiseIsIgnored(t *testing.T) {
	dir := tree(t, "p/a.yaml", "1", "single/s.yaml", "1")
	w := newWatch(zerolog.Nop())
	defer w.close()
	w.follow([]string{dir + "/p", dir + "/single/s.yaml"}, []string{dir + "/keys"})
	f := func(path string, want bool) {
		t.Helper()
		if got := w.concerns(filepath.Join(dir, path)); got != want {
			t.Errorf("%s concerns us: %t, want %t", path, got, want)
		}
	}
	f("p/a.yaml", true)
	f("p/new.yaml", true)
	f("p/folder", true)
	f("p/.a.yaml.swp", false)
	f("p", true)
	f("p/..data", true)
	f("single/s.yaml", true)
	f("single/other.yaml", false)
	f("keys", true)
	f("other", false)
}

func TestWatchTellsWhatItCannotWatch(t *testing.T) {
	dir := tree(t, "p/a.yaml", "1")
	var log bytes.Buffer
	w := newWatch(zerolog.New(&log))
	w.close()
	for range 2 {
		if w.follow([]string{dir + "/p"}, nil) {
			t.Error("a closed watcher watches something new")
		}
	}
	if n := strings.Count(log.String(), `"path":"`+dir+`/p"`); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, log.String())
	}
}

// The whole way: files, source, manager.
func TestWithAManager(t *testing.T) {
	backend := func(port int) string {
		return fmt.Sprintf("apiVersion: weir.dev/v1alpha1\nkind: Backend\nmetadata: {name: orders}\nspec: {endpoints: [{address: \"127.0.0.1:%d\"}]}\n", port)
	}
	dir := tree(t, "p/backend.yaml", backend(1), "keys", "")
	applied := make(chan *policy.Snapshot, 1000)
	s := New(Options{Paths: []string{dir + "/p"}, Logger: zerolog.Nop(), Debounce: time.Millisecond, Rescan: never})
	m, err := control.NewManager(control.Options{
		Logger:     zerolog.Nop(),
		Registerer: prometheus.NewRegistry(),
		Apply:      func(s *policy.Snapshot) error { applied <- s; return nil },
		WatchFiles: s.Watch,
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	must(t, m.Start(ctx, s))
	defer m.Wait()
	defer cancel()
	want := func(port int, keys int) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case got := <-applied:
				address := fmt.Sprintf("127.0.0.1:%d", port)
				if tables := got.Sidecar.APIKeys; got.Backends[0].Endpoints[0].Address == address && (keys == 0 || len(tables) == 1 && len(tables[0]) == keys) {
					return
				}
			case <-deadline:
				t.Fatalf("no snapshot with port %d; problems %v", port, m.Status().Problems)
			}
		}
	}
	want(1, 0)
	put(t, dir+"/p/backend.yaml", backend(2))
	want(2, 0)
	// the broken one stays at its last good version while another moves on
	put(t, dir+"/p/backend.yaml", "kind: Backend\nmetadata: {\n")
	put(t, dir+"/p/self.yaml", "apiVersion: weir.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: weir}\nspec: {identity: [{apiKey: {keysFile: ../keys}}]}\n")
	want(2, 0)
	// the keys change, and nothing else
	put(t, dir+"/keys", fmt.Sprintf("acme:%064x\nglobex:%064x\n", 1, 2))
	want(2, 2)
}
