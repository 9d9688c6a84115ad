//go:build !linux

package upstream

import (
	"net"
	"syscall"
)

// Elsewhere every connection goes through net.Conn: slower, and a stale connection is found by using it.

func rawOf(net.Conn) syscall.RawConn { return nil }

func receive(uintptr, []byte) (int, syscall.Errno) { panic("BUG: receive without a descriptor") }

func send(uintptr, []byte, []byte, *[2]syscall.Iovec) (int, syscall.Errno) {
	panic("BUG: send without a descriptor")
}

func silent(uintptr) bool { panic("BUG: silent without a descriptor") }

func unacknowledged(net.Conn, uintptr) int { return -1 }
