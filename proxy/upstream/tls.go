package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// secure makes TLS of a connection that was just dialled, or closes it.
func secure(ctx context.Context, nc net.Conn, config *tls.Config) (net.Conn, error) {
	u := &underTLS{Conn: nc, raw: rawOf(nc)}
	u.onControl = u.receive
	c := tls.Client(u, config)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, &handshakeError{err}
	}
	return c, nil
}

// handshakeError says that a connection was made, but not TLS.
type handshakeError struct{ error }

func (e *handshakeError) Unwrap() error { return e.error }

// tlsCause names what TLS has to say of a failure, and is otherwise where it has nothing to say.
func tlsCause(err error, otherwise Cause) Cause {
	var unverified *tls.CertificateVerificationError
	var said *net.OpError
	var shaking *handshakeError
	switch {
	case errors.As(err, &unverified):
		return TLSCertificate
	case errors.As(err, &said) && said.Op == "remote error":
		return TLSAlert
	case errors.As(err, &shaking), errors.As(err, &said) && said.Op == "local error":
		return TLSProtocol
	}
	return otherwise
}

// underTLS is the socket below a TLS connection. It can be looked at, and knows how much of the conversation is on the wire.
type underTLS struct {
	net.Conn
	raw syscall.RawConn // nil: not a kernel socket

	written atomic.Int64
	before  int64 // of written, when the present owner began
	record  recordReader
	cut     bool // the socket ended before TLS did; crypto/tls lets that pass for an end where a record is not cut

	// While looking, Read takes what is there and does not wait.
	looking   bool
	onControl func(fd uintptr) // u.receive, kept so that a look allocates nothing
	p         []byte
	n         int
	errno     syscall.Errno
}

// underOf returns what is below a connection made by secure; nil for any other.
func underOf(nc net.Conn) *underTLS {
	if c, ok := nc.(*tls.Conn); ok {
		u, _ := c.NetConn().(*underTLS)
		return u
	}
	return nil
}

func (u *underTLS) mark() { u.before = u.written.Load() }

func (u *underTLS) Write(p []byte) (int, error) {
	n, err := u.Conn.Write(p)
	u.written.Add(int64(n))
	return n, err
}

func (u *underTLS) Read(p []byte) (int, error) {
	n, err := u.read(p)
	u.record.pass(p[:n])
	u.cut = u.cut || err == io.EOF
	return n, err
}

func (u *underTLS) read(p []byte) (int, error) {
	if !u.looking {
		return u.Conn.Read(p)
	}
	u.p = p
	err := u.raw.Control(u.onControl)
	u.p = nil
	switch {
	case err != nil:
		return 0, err
	case u.errno == syscall.EAGAIN:
		return 0, os.ErrDeadlineExceeded // TLS goes on after it as if nothing had happened
	case u.errno != 0:
		return 0, u.errno
	case u.n == 0:
		return 0, io.EOF
	}
	return u.n, nil
}

func (u *underTLS) receive(fd uintptr) { u.n, u.errno = receive(fd, u.p) }

// silent says whether an idle connection can be used. What belongs to TLS alone is taken: session tickets may come late. Bytes
// meant for us, an end, or the beginning of either mean that it cannot.
func (u *underTLS) silent(c net.Conn) bool {
	var p [1]byte
	u.looking = true
	_, err := c.Read(p[:])
	u.looking = false
	return errors.Is(err, os.ErrDeadlineExceeded) && !u.record.within()
}

// recordReader follows the borders of TLS records (RFC 8446, section 5.1) in the bytes that pass.
type recordReader struct {
	head [5]byte
	got  int // bytes of head
	rest int // bytes of the record still to come
}

func (r *recordReader) pass(p []byte) {
	for len(p) > 0 {
		if r.rest > 0 {
			n := min(r.rest, len(p))
			r.rest -= n
			p = p[n:]
			continue
		}
		n := copy(r.head[r.got:], p)
		p = p[n:]
		if r.got += n; r.got == len(r.head) {
			r.got, r.rest = 0, int(r.head[3])<<8|int(r.head[4])
		}
	}
}

// within reports whether a record has begun and not ended.
func (r *recordReader) within() bool { return r.got > 0 || r.rest > 0 }

// wire is where the bytes of the request went, and how many they were on it; nil where that cannot be known.
func (c *Conn) wire() (syscall.RawConn, int64) {
	if u := c.under; u != nil {
		return u.raw, u.written.Load() - u.before
	}
	return c.raw, c.sent.Load()
}

// oneRecord is the most that TLS sends in one piece.
const oneRecord = 16 << 10

// writeRecords writes two pieces, as one record where they fit: that is one system call.
func (c *Conn) writeRecords(head, body []byte) (int64, error) {
	if len(head)+len(body) <= oneRecord {
		s := c.pool.shared
		both := s.large.Get().(*[maxHead]byte)
		defer s.large.Put(both)
		n := copy(both[:], head)
		n += copy(both[n:], body)
		n, err := c.nc.Write(both[:n])
		return int64(n), err
	}
	n, err := c.nc.Write(head)
	if err != nil {
		return int64(n), err
	}
	m, err := c.nc.Write(body)
	return int64(n + m), err
}
