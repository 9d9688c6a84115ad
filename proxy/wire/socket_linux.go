package wire

import (
	"net"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket reads and writes a TCP or Unix socket from inside the poller's callbacks: the buffer is taken only when bytes are
// there, and the system calls, which cannot block, skip the scheduler's hand-off.
type socket struct {
	c   *Conn
	raw syscall.RawConn

	// Of the reader.
	readable func(fd uintptr) bool // made once: a method value allocates
	dst      []byte                // nil: the connection's buffer
	in       phase
	final    bool // look once more, but do not wait
	parked   bool
	n        int
	readErr  error

	// Of the writer.
	writable func(fd uintptr) bool
	iov      [2]unix.Iovec
	waited   bool
	cause    Cause
}

// newSocket returns nil when c is not over a plain socket.
func newSocket(c *Conn) *socket {
	raw := rawConn(c.nc)
	if raw == nil {
		return nil
	}
	_ = raw.Control(boundUnsent) // a Unix socket has no such bound, and needs none
	s := &socket{c: c, raw: raw}
	s.readable, s.writable = s.tryRead, s.tryWrite
	return s
}

// mostUnsent is how many bytes that the network has not asked for yet the kernel keeps for a client. Without this bound, clients
// that read slowly make it keep megabytes each, until TCP has no memory left for anybody on the machine.
const mostUnsent = 256 << 10

func boundUnsent(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, mostUnsent)
}

func rawConn(nc net.Conn) syscall.RawConn {
	var raw syscall.RawConn
	var err error
	switch t := nc.(type) {
	case *net.TCPConn:
		raw, err = t.SyscallConn()
	case *net.UnixConn:
		raw, err = t.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	return raw
}

// read waits for bytes, in dst or appended to the connection's buffer. It returns 0 and None at the end of the stream, and
// for an idle connection that is to close; else 0 and the cause.
func (s *socket) read(dst []byte, in phase) (int, Cause) {
	s.dst, s.in, s.final = dst, in, false
	for {
		s.n, s.readErr, s.parked = 0, nil, false
		err := s.raw.Read(s.readable)
		if err == nil {
			err = s.readErr
		}
		if s.n > 0 {
			if s.parked {
				s.c.unpark(in)
			}
			return s.n, None
		}
		cause := s.c.unparkFailed(in, err)
		if err == nil || in != phaseIdle || s.final || cause == PeerGone {
			s.dst = nil
			return 0, cause
		}
		// An idle connection was woken to close: a request that has arrived by now is served.
		s.final = true
	}
}

// tryRead is called by the poller; false waits for the next edge.
func (s *socket) tryRead(fd uintptr) bool {
	c, dst := s.c, s.dst
	if dst == nil {
		if c.blk == nil {
			c.blk = c.g.getBlock()
		}
		dst = c.blk.buf[c.w:]
	}
	for {
		n, errno := rawRead(fd, dst)
		switch errno {
		case 0:
			s.n = n
			return true
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			// A drain that began after the read counts from the next one: what arrived before it is served.
			if s.in == phaseIdle && !s.final && c.g.draining.Load() {
				s.final = true
				continue
			}
		default:
			s.readErr = errno
			return true
		}
		break
	}
	if s.in == phaseIdle {
		c.release()
		return s.final
	}
	if !s.parked {
		s.parked = true
		if !c.park(s.in) {
			return true
		}
	}
	return false
}

// awaitGone waits, without reading, until the client has left or the wait is ended from outside.
func (s *socket) awaitGone() {
	_ = s.raw.Read(func(uintptr) bool { return s.c.PeerClosed() })
}

// write sends a and b whole.
func (s *socket) write(a, b []byte) Cause {
	s.iov = [2]unix.Iovec{}
	s.setVector(0, a)
	s.setVector(1, b)
	s.cause, s.waited = None, false
	err := s.raw.Write(s.writable)
	s.iov = [2]unix.Iovec{}
	if s.waited && !s.c.writer.enter(phaseBusy) {
		return SendTimeout
	}
	if err != nil {
		return PeerGone
	}
	return s.cause
}

func (s *socket) setVector(i int, b []byte) {
	if len(b) > 0 {
		s.iov[i].Base = &b[0]
		s.iov[i].SetLen(len(b))
	}
}

// tryWrite is called by the poller; false waits until the client takes more.
func (s *socket) tryWrite(fd uintptr) bool {
	for s.iov[0].Len+s.iov[1].Len > 0 {
		n, errno := rawWritev(fd, &s.iov)
		switch errno {
		case 0:
			s.advance(n)
		case syscall.EINTR:
		case syscall.EAGAIN:
			s.waited = true
			if !s.c.writer.enter(phaseSend) {
				s.cause = SendTimeout
				return true
			}
			return false
		default:
			s.cause = PeerGone
			return true
		}
	}
	return true
}

// advance drops n bytes that were taken.
func (s *socket) advance(n int) {
	for i := range s.iov {
		v := &s.iov[i]
		took := min(n, int(v.Len))
		n -= took
		if v.SetLen(int(v.Len) - took); v.Len == 0 {
			v.Base = nil
		} else {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), took))
		}
	}
}

// handOff is the size from which copying in the kernel takes long enough for the scheduler to know of the call.
const handOff = 64 << 10

func rawRead(fd uintptr, p []byte) (int, syscall.Errno) {
	var n uintptr
	var errno syscall.Errno
	if len(p) < handOff {
		n, _, errno = syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	} else {
		n, _, errno = syscall.Syscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func rawWritev(fd uintptr, iov *[2]unix.Iovec) (int, syscall.Errno) {
	first, count := 0, 2
	if iov[0].Len == 0 {
		first, count = 1, 1
	} else if iov[1].Len == 0 {
		count = 1
	}
	var n uintptr
	var errno syscall.Errno
	if iov[0].Len+iov[1].Len < handOff {
		n, _, errno = syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[first])), uintptr(count))
	} else {
		n, _, errno = syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[first])), uintptr(count))
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// peerProbe asks the kernel about the other end without reading.
type peerProbe struct {
	raw        syscall.RawConn
	mu         sync.Mutex
	poll, peek func(fd uintptr)
	fds        [1]unix.PollFd
	yes        bool
}

// newPeerProbe returns nil when there is no socket to ask, not even below TLS.
func newPeerProbe(nc net.Conn) *peerProbe {
	raw := rawConn(below(nc))
	if raw == nil {
		return nil
	}
	p := &peerProbe{raw: raw}
	p.poll, p.peek = p.doPoll, p.doPeek
	return p
}

// gone reports whether the other end has closed its sending side, or the connection is broken or closed.
func (p *peerProbe) gone() bool { return p.ask(p.poll, true) }

// pending reports whether bytes wait to be read.
func (p *peerProbe) pending() bool { return p.ask(p.peek, false) }

func (p *peerProbe) ask(f func(fd uintptr), failed bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.yes = false
	if p.raw.Control(f) != nil {
		return failed
	}
	return p.yes
}

func (p *peerProbe) doPoll(fd uintptr) {
	p.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
	n, err := unix.Poll(p.fds[:], 0)
	p.yes = err == nil && n > 0
}

func (p *peerProbe) doPeek(fd uintptr) {
	var b [1]byte
	n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	p.yes = err == nil && n > 0
}
