package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/rs/zerolog/diode"

	"weir/policy"
)

const (
	// logRing is how many lines may wait for the writer. Beyond that the oldest are overwritten and counted.
	logRing = 8192
	// logPoll is how long a line may wait in the ring.
	logPoll = 10 * time.Millisecond
	// logFlush is how long a line may wait in the batch.
	logFlush = 100 * time.Millisecond
	// logBatch is how many bytes go to the file in one write.
	logBatch = 64 << 10
	// logPatience is how long the end of the process, or a change of the output, waits for an output that takes nothing.
	logPatience = time.Second
)

// AccessLog writes one JSON line for each request through a lossy ring: a request never waits for the file, whatever state
// the file is in. Lines that found the ring full, or that the output refused, are lost and counted. Safe for concurrent use.
type AccessLog struct {
	ring   diode.Writer
	logger zerolog.Logger
	batch  *batchWriter

	written     atomic.Uint64 // lines put into the ring
	overwritten atomic.Uint64 // of these, as far as the reader has noticed
}

// NewAccessLog starts a log that writes to out. Close flushes it; out is not closed.
func NewAccessLog(out io.Writer) *AccessLog {
	l := &AccessLog{batch: newBatchWriter(out)}
	l.ring = diode.NewWriter(l.batch, logRing, logPoll, func(missed int) { l.overwritten.Add(uint64(missed)) })
	l.logger = zerolog.New(l.ring)
	return l
}

// Dropped is how many lines were lost since the start, those included that a reader which is stuck has not noticed yet.
func (l *AccessLog) Dropped() uint64 {
	beyond := int64(l.written.Load()) - int64(l.batch.taken.Load()) - logRing
	return max(l.overwritten.Load(), uint64(max(beyond, 0))) + l.batch.refused.Load()
}

// SetOutput sends further lines to out; what is buffered goes to the output it was meant for. When that takes nothing,
// SetOutput returns after a second, and out is used as soon as it does.
func (l *AccessLog) SetOutput(out io.Writer) { l.batch.setOutput(out) }

// Close writes what is buffered and stops the log. It returns an error when the output does not take it within a second.
func (l *AccessLog) Close() error {
	done := make(chan error, 1)
	go func() { done <- l.ring.Close() }() // closes the batch behind it, too
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			err = fmt.Errorf("cannot write the end of the access log: %w", err)
		}
		return err
	case <-timer.C:
		return fmt.Errorf("cannot write the end of the access log: the output took nothing for %v", logPatience)
	}
}

// record is what one line says. Its slices belong to the exchange.
type record struct {
	time                       time.Time
	tenant, method, host, path []byte
	route, policy, limit       string
	reason, cause              string
	status                     int
	duration, overhead         int64 // nanoseconds
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
	l.written.Add(1)
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
	if r.limit != "" {
		e = e.Str("policy", r.policy).Str("limit", r.limit)
	}
	if r.backend != "" {
		e = e.Str("backend", r.backend)
	}
	if r.endpoint != "" {
		e = e.Str("endpoint", r.endpoint)
	}
	e.Float64("duration_ms", millis(r.duration)).
		Float64("overhead_ms", millis(r.overhead)).
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

// batchWriter gathers lines, so that a busy log costs a write for every 64 KiB and not for every request.
type batchWriter struct {
	taken   atomic.Uint64 // lines
	refused atomic.Uint64 // of these, that the output did not take

	busy  chan struct{} // holds an element while somebody uses what follows; not a mutex since setOutput waits for a while only
	out   io.Writer
	buf   []byte
	lines int // in buf

	next atomic.Pointer[io.Writer] // takes the place of out before the next line
	stop chan struct{}
	done chan struct{}
}

func newBatchWriter(out io.Writer) *batchWriter {
	w := &batchWriter{
		busy: make(chan struct{}, 1), out: out, buf: make([]byte, 0, logBatch),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go w.flushRegularly()
	return w
}

// Write takes one line.
func (w *batchWriter) Write(p []byte) (int, error) {
	w.taken.Add(1)
	w.busy <- struct{}{}
	defer func() { <-w.busy }()
	if next := w.next.Swap(nil); next != nil {
		_ = w.flushLocked()
		w.out = *next
	}
	if len(w.buf)+len(p) > logBatch {
		_ = w.flushLocked()
	}
	w.buf = append(w.buf, p...)
	w.lines++
	return len(p), nil
}

// flushLocked drops the batch when the output fails: a log that cannot be written must not grow.
func (w *batchWriter) flushLocked() error {
	if w.lines == 0 {
		return nil
	}
	_, err := w.out.Write(w.buf)
	if err != nil {
		w.refused.Add(uint64(w.lines))
	}
	w.buf, w.lines = w.buf[:0], 0
	return err
}

func (w *batchWriter) flush() error {
	w.busy <- struct{}{}
	defer func() { <-w.busy }()
	return w.flushLocked()
}

func (w *batchWriter) flushRegularly() {
	defer close(w.done)
	tick := time.NewTicker(logFlush)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
			_ = w.flush()
		}
	}
}

func (w *batchWriter) setOutput(out io.Writer) {
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	select {
	case w.busy <- struct{}{}:
		defer func() { <-w.busy }()
		_ = w.flushLocked()
		w.next.Store(nil)
		w.out = out
	case <-timer.C:
		w.next.Store(&out)
	}
}

// Close flushes; the ring calls it after the last line.
func (w *batchWriter) Close() error {
	close(w.stop)
	<-w.done
	return w.flush()
}

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
