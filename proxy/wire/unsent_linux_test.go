package wire

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// What a client does not read is kept by the backend, not by this machine's kernel.
func TestLittleIsKeptForClientsThatDoNotRead(t *testing.T) {
	g := newStepped(timeoutSettings())
	client, c := pair(t, g.Guard, "tcp")
	if err := client.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	say(t, client, get)()
	message(t, c)
	sending := background(t, func() { _ = c.Send(make([]byte, 16<<20), nil) })
	waitPhase(t, &c.writer, phaseSend)
	kept := 0
	if err := rawConn(c.nc).Control(func(fd uintptr) { kept, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		t.Fatal(err)
	}
	if kept == 0 || kept > 1<<20 {
		t.Errorf("the kernel keeps %d bytes for a client that does not read, want some and 1 MiB at most", kept)
	}
	_ = client.Close()
	sending()
}
