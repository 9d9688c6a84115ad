package file

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

// watch is told by the kernel what changes in folders. All names in it are absolute and free of symbolic links but for their last
// part, so that one folder has one name however it is reached. Without inotify it is silent.
type watch struct {
	log     zerolog.Logger
	watcher *fsnotify.Watcher // nil without inotify
	events  chan string       // names of what changed; an empty one when the kernel lost some
	done    chan struct{}
	names   map[string]bool // files and folders of concern
	folders map[string]bool // folders all of whose files are of concern
	refused map[string]bool // folders that cannot be watched, each logged once
}

func newWatch(log zerolog.Logger) *watch {
	w := &watch{log: log, events: make(chan string), done: make(chan struct{}), refused: make(map[string]bool)}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn().Err(err).Msg("cannot watch policy files, changes are found by looking at them now and then")
		close(w.done)
		return w
	}
	w.watcher = watcher
	go w.forward()
	return w
}

// close ends the watch and what it runs.
func (w *watch) close() {
	if w.watcher != nil {
		if err := w.watcher.Close(); err != nil {
			w.log.Warn().Err(err).Msg("cannot close the watch on policy files")
		}
		for {
			select {
			case <-w.events: // let it go
			case <-w.done:
				return
			}
		}
	}
}

// forward makes one stream of the watcher's two.
func (w *watch) forward() {
	defer close(w.done)
	for {
		select {
		case event, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			w.events <- event.Name
		case err, ok := <-w.watcher.Errors:
			if !ok {
				return
			}
			w.log.Warn().Err(err).Msg("events of policy files were lost, reading all of them")
			w.events <- ""
		}
	}
}

// concerns reports whether a change of that name can change what is read.
func (w *watch) concerns(name string) bool {
	switch {
	case name == "" || w.names[name]:
		return true
	case filepath.Base(name) == "..data": // a ConfigMap's link
		return true
	}
	return w.folders[filepath.Dir(name)] && !hidden(name)
}

// follow watches exactly what documents and further files at these paths depend on, and reports whether anything new is among it.
func (w *watch) follow(paths, further []string) bool {
	if w.watcher == nil {
		return false
	}
	w.names, w.folders = make(map[string]bool), make(map[string]bool)
	wanted := make(map[string]bool)
	for _, path := range slices.Concat(paths, further) {
		w.want(wanted, path)
		real, err := realPath(path)
		if err != nil {
			continue
		}
		if info, err := os.Stat(real); err == nil && info.IsDir() {
			w.wantFolder(wanted, real)
		}
	}
	watched := make(map[string]bool)
	for _, folder := range w.watcher.WatchList() {
		watched[folder] = true
		if !wanted[folder] {
			_ = w.watcher.Remove(folder) // it is gone already, or its events will not concern us
		}
	}
	fresh := false
	for folder := range wanted {
		if watched[folder] {
			continue
		}
		if err := w.watcher.Add(folder); err != nil {
			if !w.refused[folder] {
				w.refused[folder] = true
				w.log.Warn().Err(err).Str("path", folder).Msg("cannot watch a folder, changes in it are found by looking now and then")
			}
			continue
		}
		delete(w.refused, folder)
		fresh = true
	}
	return fresh
}

// want watches the name of a file or folder in its parent, and for a link also that of what it points to.
func (w *watch) want(wanted map[string]bool, path string) {
	parent, err := realPath(filepath.Dir(path))
	if err != nil {
		return // not even the parent is there: it is looked for now and then
	}
	name := filepath.Join(parent, filepath.Base(path))
	wanted[parent] = true
	w.names[name], w.names[parent] = true, true
	if target, err := filepath.EvalSymlinks(name); err == nil && target != name {
		wanted[filepath.Dir(target)] = true
		w.names[target] = true
	}
}

// wantFolder watches a folder and those below it, and what links in them point to.
func (w *watch) wantFolder(wanted map[string]bool, dir string) {
	wanted[dir] = true
	w.names[dir], w.folders[dir] = true, true
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		switch {
		case hidden(path):
		case entry.IsDir():
			w.wantFolder(wanted, path)
		case entry.Type() == fs.ModeSymlink && isDocument(path):
			w.want(wanted, path)
		}
	}
}

// realPath is the absolute path of something that exists, without links.
func realPath(path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(absolute)
}
