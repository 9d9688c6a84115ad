package main

import (
	"io"
	"sync"

	"github.com/rs/zerolog"

	"weir/proxy"
)

// accessLogFile is the access log and the output it goes to, which can change while it runs.
type accessLogFile struct {
	log            *proxy.AccessLog
	stdout, stderr io.Writer

	mu     sync.Mutex
	path   string
	closer io.Closer // of the present output; nil before the first
}

func newAccessLogFile(stdout, stderr io.Writer) *accessLogFile {
	return &accessLogFile{log: proxy.NewAccessLog(stdout), stdout: stdout, stderr: stderr, path: "stdout"}
}

// use sends the log to what a document's accessLog.path names.
func (f *accessLogFile) use(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if path == f.path {
		return nil
	}
	return f.openLocked(path)
}

// reopen opens the file again, after somebody has moved it away.
func (f *accessLogFile) reopen() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.openLocked(f.path)
}

func (f *accessLogFile) openLocked(path string) error {
	out, closer, err := proxy.OpenLogOutput(path, f.stdout, f.stderr)
	if err != nil {
		return err
	}
	f.log.SetOutput(out)
	if f.closer != nil {
		_ = f.closer.Close()
	}
	f.path, f.closer = path, closer
	return nil
}

// close writes what is left.
func (f *accessLogFile) close(logger zerolog.Logger) {
	if err := f.log.Close(); err != nil {
		logger.Warn().Err(err).Uint64("dropped", f.log.Dropped()).Msg("access log is not whole")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closer != nil {
		_ = f.closer.Close()
	}
}
