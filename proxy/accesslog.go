package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"weir/policy"
)

const (
	// logPoll is how long a line may wait in the ring, and for the lines that go to the file with it.
	logPoll = 10 * time.Millisecond
	// logBatch is how many bytes go to the file in one write.
	logBatch = 64 << 10
	// logPatience is how long the end of the process, or a change of the output, waits for an output that takes nothing.
	logPatience = time.Second
)

// AccessLog writes one JSON line for each request through a lossy ring: a request never waits for the file, whatever state
// the file is in. Lines that found the ring full, or that the output refused, are lost and counted. Safe for concurrent use.
type AccessLog struct {
	logger  zerolog.Logger
	ring    *lineRing
	dropped atomic.Uint64

	outputs chan io.Writer            // changes, while the writer listens
	next    atomic.Pointer[io.Writer] // the change that it did not listen to
	stop    chan struct{}
	stopped sync.Once
	done    chan struct{}
	failed  error // of the last write; valid when done

	// The writer's own.
	out   io.Writer
	batch []byte
	lines uint64 // in batch
}

// NewAccessLog starts a log that writes to out. Close flushes it; out is not closed.
func NewAccessLog(out io.Writer) *AccessLog {
	l := &AccessLog{
		ring: newLineRing(), outputs: make(chan io.Writer), stop: make(chan struct{}), done: make(chan struct{}),
		out: out, batch: make([]byte, 0, logBatch),
	}
	l.logger = zerolog.New(ringWriter{l})
	go l.run()
	return l
}

// Dropped is how many lines were lost since the start.
func (l *AccessLog) Dropped() uint64 { return l.dropped.Load() }

// SetOutput sends further lines to out; what is buffered goes to the output it was meant for. When that takes nothing,
// SetOutput returns after a second, and out is used as soon as it does.
func (l *AccessLog) SetOutput(out io.Writer) {
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	select {
	case l.outputs <- out:
		l.next.Store(nil)
	case <-l.done:
	case <-timer.C:
		l.next.Store(&out)
	}
}

// Close writes what is buffered and stops the log. It returns an error when the output does not take it, or not within a
// second.
func (l *AccessLog) Close() error {
	l.stopped.Do(func() { close(l.stop) })
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	select {
	case <-l.done:
		if l.failed != nil {
			return fmt.Errorf("cannot write the end of the access log: %w", l.failed)
		}
		return nil
	case <-timer.C:
		return fmt.Errorf("cannot write the end of the access log: the output took nothing for %v", logPatience)
	}
}

// run is the writer.
func (l *AccessLog) run() {
	defer close(l.done)
	tick := time.NewTicker(logPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.drain()
		case out := <-l.outputs:
			l.drain()
			l.out = out
		case <-l.stop:
			l.drain() // at most a ring's worth is there, and nobody adds to it
			return
		}
	}
}

// drain writes the lines that are there, many with one write, and no more than a ring's: whoever waits for the writer has his
// turn then.
func (l *AccessLog) drain() {
	for range logRing {
		if next := l.next.Swap(nil); next != nil {
			l.flush()
			l.out = *next
		}
		var more bool
		if l.batch, more = l.ring.take(l.batch); !more {
			break
		}
		if l.lines++; len(l.batch) >= logBatch {
			l.flush()
		}
	}
	l.flush()
}

// flush drops the batch when the output fails: a log that cannot be written must not grow.
func (l *AccessLog) flush() {
	if l.lines == 0 {
		return
	}
	if _, l.failed = l.out.Write(l.batch); l.failed != nil {
		l.dropped.Add(l.lines)
	}
	l.batch, l.lines = l.batch[:0], 0
	if cap(l.batch) > 4*logBatch {
		l.batch = make([]byte, 0, logBatch)
	}
}

// ringWriter is the log as zerolog sees it: each Write is a line.
type ringWriter struct{ log *AccessLog }

func (w ringWriter) Write(line []byte) (int, error) {
	if !w.log.ring.put(line) {
		w.log.dropped.Add(1)
	}
	return len(line), nil
}

// record is what one line says. Its slices belong to the exchange.
type record struct {
	time                       time.Time
	tenant, method, host, path []byte
	route, policy, limit       string
	shadowPolicy, shadowLimit  string // of the limit in shadow that would have refused
	reason, cause, by, phase   string
	breaker, fallback          string // the breaker that turned the request away, and what the client got then
	status                     int
	duration, queued, overhead int64 // nanoseconds
	bytesIn, bytesOut          int64
	client                     netip.Addr
	requestID                  []byte
	backend, endpoint          string
}

// wanted says whether a request is logged under these settings: failures and denials always, successes by sample.
func wanted(s *policy.AccessLog, failed bool) bool {
	if s.Format == "off" {
		return false
	}
	if failed || s.SuccessSample == 1 {
		return true
	}
	return s.SuccessSample > 1 && rand.IntN(s.SuccessSample) == 0
}

// write puts one line into the ring.
func (l *AccessLog) write(r *record) {
	var stamp, client [64]byte
	e := l.logger.Log().
		Bytes("time", r.time.UTC().AppendFormat(stamp[:0], "2006-01-02T15:04:05.000Z07:00")).
		Bytes("tenant", r.tenant).
		Str("route", r.route).
		Bytes("method", r.method).
		Bytes("host", r.host).
		Bytes("path", r.path).
		Int("status", r.status).
		Str("reason", r.reason)
	if r.cause != "" {
		e = e.Str("cause", r.cause)
	}
	if r.by != "" {
		e = e.Str("by", r.by).Str("phase", r.phase)
	}
	if r.limit != "" {
		e = e.Str("policy", r.policy).Str("limit", r.limit)
	}
	if r.breaker != "" {
		e = e.Str("breaker", r.breaker)
	}
	if r.fallback != "" {
		e = e.Str("fallback", r.fallback)
	}
	if r.shadowLimit != "" {
		var both [128]byte // two DNS labels and a slash
		e = e.Bytes("shadow", append(append(append(both[:0], r.shadowPolicy...), '/'), r.shadowLimit...))
	}
	if r.backend != "" {
		e = e.Str("backend", r.backend)
	}
	if r.endpoint != "" {
		e = e.Str("endpoint", r.endpoint)
	}
	e = e.Float64("duration_ms", millis(r.duration))
	if r.queued > 0 {
		e = e.Float64("queued_ms", millis(r.queued))
	}
	e.Float64("overhead_ms", millis(r.overhead)).
		Int64("bytes_in", r.bytesIn).
		Int64("bytes_out", r.bytesOut).
		Bytes("client", appendAddr(client[:0], r.client)).
		Bytes("request_id", r.requestID).
		Send()
}

// appendAddr writes an address; nothing for a peer without one, as on a Unix socket.
func appendAddr(dst []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return dst
	}
	return a.AppendTo(dst)
}

// millis rounds nanoseconds to thousandths of a millisecond, so that lines stay short.
func millis(ns int64) float64 { return float64(ns/1000) / 1000 }

// OpenLogOutput opens what `accessLog.path` names: stdout, stderr or a file that is appended to. The closer closes the file,
// and does nothing for the standard streams.
func OpenLogOutput(path string, stdout, stderr io.Writer) (io.Writer, io.Closer, error) {
	switch path {
	case "stdout", "":
		return stdout, io.NopCloser(nil), nil
	case "stderr":
		return stderr, io.NopCloser(nil), nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open access log %q (want stdout, stderr or a file that can be appended to): %w", path, err)
	}
	return f, f, nil
}
