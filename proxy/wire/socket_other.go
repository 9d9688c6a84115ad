//go:build !linux

package wire

import "net"

// socket is what Linux has: elsewhere connections work through their own Read and Write.
type socket struct{}

func newSocket(*Conn) *socket { return nil }

func (*socket) read([]byte, phase) (int, Cause) { panic("BUG: no socket on this system") }

func (*socket) awaitGone() { panic("BUG: no socket on this system") }

func (*socket) write(_, _ []byte) Cause { panic("BUG: no socket on this system") }

// peerProbe cannot ask here: a client that leaves is noticed when it is read from or written to.
type peerProbe struct{}

func newPeerProbe(net.Conn) *peerProbe { return nil }

func (*peerProbe) gone() bool { return false }

func (*peerProbe) pending() bool { return false }
