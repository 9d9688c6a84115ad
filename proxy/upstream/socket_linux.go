package upstream

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawOf returns descriptor access to a kernel socket, and nil for any other connection.
func rawOf(nc net.Conn) syscall.RawConn {
	var raw syscall.RawConn
	var err error
	switch nc := nc.(type) {
	case *net.TCPConn:
		raw, err = nc.SyscallConn()
	case *net.UnixConn:
		raw, err = nc.SyscallConn()
	}
	if err != nil {
		return nil
	}
	return raw
}

// receive reads once into p, which must not be empty, without waiting. 0 and no error is the peer's end.
func receive(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		var n uintptr
		var errno syscall.Errno
		if len(p) <= brief {
			n, _, errno = syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		} else {
			n, _, errno = syscall.Syscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		}
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

// send writes once what it can of a and b, in one call and without waiting. The vector belongs to the caller's connection,
// so that nothing is allocated.
func send(fd uintptr, a, b []byte, vector *[2]syscall.Iovec) (int, syscall.Errno) {
	vector[0].Base, vector[1].Base = unsafe.SliceData(a), unsafe.SliceData(b)
	vector[0].SetLen(len(a))
	vector[1].SetLen(len(b))
	for {
		var n uintptr
		var errno syscall.Errno
		if len(a)+len(b) <= brief {
			n, _, errno = syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(vector)), 2)
		} else {
			n, _, errno = syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(vector)), 2)
		}
		if errno == syscall.EINTR {
			continue
		}
		*vector = [2]syscall.Iovec{} // keeps nobody's bytes alive
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

// silent says whether the peer has neither closed nor sent anything that is still unread.
func silent(fd uintptr) bool {
	var b byte
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1,
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return errno == syscall.EAGAIN
		}
	}
}

// unacknowledged is how many of the bytes written the peer's kernel has not confirmed; -1 where that cannot be known.
func unacknowledged(nc net.Conn, fd uintptr) int {
	if _, ok := nc.(*net.TCPConn); !ok {
		return -1
	}
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	if err != nil {
		return -1
	}
	return n
}
