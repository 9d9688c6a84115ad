package control

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// LogLevel is the level of a process's log, which may change while it runs. It stands in for zerolog's global level. The zero
// value is debug; use [NewLogLevel]. It is safe for concurrent use.
//
// Lines below the level are dropped in front of the writer, after they were formatted: right for a log of events, too dear for a
// line per request.
type LogLevel struct {
	level atomic.Int32
}

// NewLogLevel returns a level that is one of trace, debug, info, warn and error.
func NewLogLevel(name string) (*LogLevel, error) {
	l := new(LogLevel)
	return l, l.Set(name)
}

// Set changes the level.
func (l *LogLevel) Set(name string) error {
	switch name {
	case "trace", "debug", "info", "warn", "error":
	default:
		return fmt.Errorf("cannot set log level %q, want trace, debug, info, warn or error", name)
	}
	level, err := zerolog.ParseLevel(name)
	if err != nil {
		return fmt.Errorf("cannot set log level %q: %w", name, err)
	}
	l.level.Store(int32(level))
	return nil
}

// String is the level's name.
func (l *LogLevel) String() string { return zerolog.Level(l.level.Load()).String() }

// Writer returns a writer for zerolog.New that passes on to w what is at the level or above. Loggers derived from that one follow
// the level too.
func (l *LogLevel) Writer(w io.Writer) zerolog.LevelWriter { return levelWriter{w, l} }

type levelWriter struct {
	io.Writer
	level *LogLevel
}

func (w levelWriter) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	if level != zerolog.NoLevel && int32(level) < w.level.level.Load() {
		return len(p), nil
	}
	return w.Writer.Write(p)
}
