package main

import (
	"io"
	"sync"
	"time"

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

const (
	// lossCheck is how often the log is asked whether it has lost lines.
	lossCheck = time.Second
	// lossReport is how long a loss that goes on is not told of again.
	lossReport = time.Minute
)

// tellOfLosses says when lines are lost, until ended is closed.
func (f *accessLogFile) tellOfLosses(ended <-chan struct{}, logger zerolog.Logger) {
	tick := time.NewTicker(lossCheck)
	defer tick.Stop()
	var told uint64
	var next time.Time
	for {
		var now time.Time
		select {
		case <-ended:
			return
		case now = <-tick.C:
		}
		if dropped := f.log.Dropped(); dropped > told && !now.Before(next) {
			logger.Warn().Uint64("lines", dropped-told).Str("path", f.currentPath()).
				Msg("access log is losing lines: its output does not take them")
			told, next = dropped, now.Add(lossReport)
		}
	}
}

func (f *accessLogFile) currentPath() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.path
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
