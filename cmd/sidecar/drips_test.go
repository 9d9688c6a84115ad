package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// drippers are clients that hold what they can get by doing next to nothing: a third sends heads byte by byte, a third
// bodies, and a third reads long answers byte by byte. One that is ended comes back, until they are stopped.
type drippers struct {
	address string
	every   time.Duration // a byte
	stopped chan struct{}
	done    sync.WaitGroup

	connected [3]atomic.Int64
	ended     [3]atomic.Int64
}

const (
	dripHead = iota
	dripBody
	dripRead
)

// startDrippers starts n of them.
func startDrippers(address string, n int, every time.Duration) *drippers {
	d := &drippers{address: address, every: every, stopped: make(chan struct{})}
	for i := range n {
		d.done.Go(func() { // they do not drip in step
			wait := time.NewTimer(every * time.Duration(i) / time.Duration(n))
			defer wait.Stop()
			select {
			case <-wait.C:
				d.drip(i % 3)
			case <-d.stopped:
			}
		})
	}
	return d
}

func (d *drippers) stop() {
	close(d.stopped)
	d.done.Wait()
}

// drip is the life of one.
func (d *drippers) drip(kind int) {
	for {
		select {
		case <-d.stopped:
			return
		default:
		}
		if d.connect(kind) {
			d.ended[kind].Add(1)
		}
	}
}

// connect drips over one connection, and says whether that was ended by the other side.
func (d *drippers) connect(kind int) (ended bool) {
	nc, err := net.Dial("tcp", d.address)
	if err != nil {
		return false
	}
	defer nc.Close()
	d.connected[kind].Add(1)
	defer d.connected[kind].Add(-1)
	tcp := nc.(*net.TCPConn)
	first := [...]string{
		dripHead: "GET / HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: slow\r\nX-A: ",
		dripBody: "POST / HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: slow\r\nContent-Length: 1000000\r\n\r\n",
		dripRead: "GET /long HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: slow\r\n\r\n",
	}[kind]
	if kind == dripRead {
		_ = tcp.SetReadBuffer(4 << 10)
	}
	if _, err := io.WriteString(tcp, first); err != nil {
		return true
	}
	var cut chan struct{} // closed when the other side has ended a connection that we write to
	if kind != dripRead {
		cut = make(chan struct{})
		go func() { defer close(cut); io.Copy(io.Discard, tcp) }()
		defer func() { tcp.Close(); <-cut }()
	}
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	one := []byte("x")
	for {
		select {
		case <-d.stopped:
			return false
		case <-cut:
			return true
		case <-tick.C:
		}
		if kind == dripRead {
			if _, err = tcp.Read(one); wasReset(tcp) {
				return true // reading would go on for long with what has arrived
			}
		} else {
			_, err = tcp.Write(one)
		}
		if err != nil {
			return true
		}
	}
}

// wasReset says whether the other side has ended a connection with a reset.
func wasReset(c *net.TCPConn) (yes bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		yes = err == nil && n > 0
	})
	return yes || err != nil
}

// helloOrLong answers at once; under /long with as many bytes as are taken.
func helloOrLong(c net.Conn, r *bufio.Reader) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if req.URL.Path != "/long" {
			if _, err := io.WriteString(c, helloAnswer); err != nil {
				return
			}
			continue
		}
		const size = 1 << 30
		_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10) // all the machine's memory for TCP would be ours otherwise
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size); err != nil {
			return
		}
		piece := make([]byte, 32<<10)
		for sent := 0; sent < size; sent += len(piece) {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	}
}

// paced sends good requests at a steady rate over a few connections for a while, whether or not answers have come, and
// returns how long each took from the moment it was due.
func paced(t testing.TB, address string, perSecond int, during time.Duration) []time.Duration {
	t.Helper()
	const connections = 8
	transport := &http.Transport{MaxIdleConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	total := int(during.Seconds() * float64(perSecond))
	took := make([]time.Duration, total)
	var next atomic.Int64
	var workers sync.WaitGroup
	begun := time.Now()
	for range connections {
		workers.Go(func() {
			wait := time.NewTimer(time.Hour)
			defer wait.Stop()
			for i := next.Add(1) - 1; i < int64(total); i = next.Add(1) - 1 {
				due := begun.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
				wait.Reset(time.Until(due))
				<-wait.C
				req, err := http.NewRequest(http.MethodGet, "http://"+address+"/", nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("X-Tenant-ID", "good")
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Errorf("a good request failed: %v", err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("a good request got %d", resp.StatusCode)
					return
				}
				took[i] = time.Since(due)
			}
		})
	}
	workers.Wait()
	slices.Sort(took)
	return took
}

func TestDrippersAreEndedAndHarmNobody(t *testing.T) {
	s := newService(t, helloOrLong)
	p := launch(t, documentsFor(s.address(), "timeouts: {header: 1s, body: 1s, send: 1s, request: 4s}", "accessLog: {successSample: 0}"))
	const many = 300
	d := startDrippers(p.listen, many, 100*time.Millisecond)
	until(t, "every dripper is connected", func() bool {
		return d.connected[dripHead].Load()+d.connected[dripBody].Load()+d.connected[dripRead].Load() == many
	})
	took := paced(t, p.listen, 200, 4*time.Second)
	// Each kind was ended, again and again, and for its own reason.
	for kind, what := range []string{"heads", "bodies", "reads"} {
		until(t, "drippers of "+what+" are ended", func() bool { return d.ended[kind].Load() >= many/3 })
	}
	d.stop()
	p.logged(many/3, "cause", "head_timeout", "status", "408")
	p.logged(many/3, "cause", "body_timeout", "status", "408")
	t.Logf("good requests: p50 %v, p99 %v, slowest %v", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	until(t, "nothing is held for them any more", func() bool {
		return p.metric("weir_client_connections") == 0 && p.metric("weir_upstream_connections", `state="active"`) == 0
	})
	if panics := p.metric("weir_panics_recovered_total"); panics != 0 {
		t.Errorf("%v defects were met", panics)
	}
	for _, line := range p.stdout.lines() {
		if fmt.Sprint(line["tenant"]) == "good" || strings.HasPrefix(fmt.Sprint(line["reason"]), "backend_") {
			t.Errorf("logged %v", line)
			break
		}
	}
	p.stops()
}

// dripUntilKilled is a program: drippers ADDRESS COUNT.
func dripUntilKilled() {
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	startDrippers(os.Args[1], count, time.Second).done.Wait()
}
