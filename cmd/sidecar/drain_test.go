package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// onDemand is a service that answers a request under /wait once it is told to, and any other at once.
func onDemand(t *testing.T) (s *service, arrived <-chan struct{}, answer chan<- struct{}) {
	come, tell := make(chan struct{}, 1), make(chan struct{})
	s = newService(t, func(c net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.URL.Path == "/wait" {
				come <- struct{}{}
				select {
				case <-tell:
				case <-t.Context().Done():
					return
				}
			}
			if _, err := io.WriteString(c, helloAnswer); err != nil {
				return
			}
		}
	})
	return s, come, tell
}

const waitingGet = "GET /wait HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: acme\r\n\r\n"

func TestDrainLetsRequestsFinish(t *testing.T) {
	f := func(begin func(*running)) {
		t.Helper()
		s, arrived, answer := onDemand(t)
		p := launch(t, documentsFor(s.address()))
		idle, fresh, busy := p.dial(), p.dial(), p.dial()
		idle.send(plainGet)
		if resp, _ := idle.gets(200); resp.Close {
			t.Error("an answer ends its connection before the drain")
		}
		busy.send(waitingGet)
		<-arrived
		begin(p)
		p.says("draining")
		// Idle connections end without a word, also one that was never used.
		for _, c := range []*client{idle, fresh} {
			if got := c.isClosed(); got != "" {
				t.Errorf("an idle connection was told %q", got)
			}
		}
		// Nobody gets in any more, and the admin port still says why.
		until(t, "the listener is closed", func() bool {
			c, err := net.Dial("tcp", p.listen)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		if ready, err := p.ask("/readyz?verbose"); err != nil || !strings.Contains(ready, " 503 ") || !strings.Contains(ready, "told to end") {
			t.Errorf("readiness is %q, %v", ready, err)
		}
		if alive, err := p.ask("/livez"); err != nil || !strings.Contains(alive, " 200 ") {
			t.Errorf("liveness is %q, %v", alive, err)
		}
		select {
		case <-p.ended:
			t.Error("the process ended before its last request")
		default:
		}
		// The request in flight gets its answer, and is told that it was the last.
		answer <- struct{}{}
		if resp, _ := busy.gets(200); !resp.Close {
			t.Error("the last answer does not end its connection")
		}
		busy.isClosed()
		p.ends(exitFine)
		p.says("ended: every request in flight was answered")
	}
	f(func(p *running) { p.signal(syscall.SIGTERM) })
	f(func(p *running) { p.signal(syscall.SIGINT) })
	f(func(p *running) {
		resp, err := http.Post("http://"+p.admin+"/drain", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Errorf("POST /drain got %d", resp.StatusCode)
		}
	})
}

// Readiness goes first: while it is off, and for as long as lameDuck says, everybody is still served.
func TestLameDuckServesWhileNotReady(t *testing.T) {
	s := newService(t, hello)
	p := launch(t, documentsFor(s.address(), "timeouts: {lameDuck: 1500ms}"))
	kept := p.dial()
	kept.send(plainGet)
	kept.gets(200)
	quiet := p.dial()
	quiet.send(plainGet)
	quiet.gets(200)

	begun := time.Now()
	p.signal(syscall.SIGTERM)
	until(t, "it is not ready", func() bool {
		ready, err := p.ask("/readyz")
		return err == nil && strings.Contains(ready, " 503 ")
	})
	for _, c := range []*client{kept, p.dial()} {
		c.send(plainGet)
		if resp, _ := c.gets(200); !resp.Close {
			t.Error("a lame duck's answer does not end its connection")
		}
		c.isClosed()
	}
	if got := quiet.isClosed(); got != "" {
		t.Errorf("the quiet connection was told %q", got)
	}
	if took := time.Since(begun); took < 1500*time.Millisecond {
		t.Errorf("a quiet connection was closed after %v", took)
	}
	p.ends(exitFine)
}

func TestDrainCutsWhatTakesTooLong(t *testing.T) {
	s, arrived, _ := onDemand(t)
	p := launch(t, documentsFor(s.address(), "timeouts: {drain: 200ms}"))
	c := p.dial()
	c.send(waitingGet)
	<-arrived
	p.signal(syscall.SIGTERM)
	if resp, _ := c.gets(503); !resp.Close {
		t.Error("the answer does not end its connection")
	}
	p.ends(exitFailed)
	if text := p.stderr.String(); !strings.Contains(text, "cannot finish 1 connections within timeouts.drain (200ms)") {
		t.Errorf("the process said %s", text)
	}
	p.logged(1, "reason", "draining", "status", "503")
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	s, arrived, _ := onDemand(t)
	p := launch(t, documentsFor(s.address()))
	c := p.dial()
	c.send(waitingGet)
	<-arrived
	p.signal(syscall.SIGTERM)
	p.says("draining")
	p.signal(syscall.SIGTERM)
	p.ends(-1)
	if got := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !got.Signaled() || got.Signal() != syscall.SIGTERM {
		t.Errorf("the process ended with %v", got)
	}
}

// balancer passes connections on to processes that are ready, each in turn, as what stands before a service does.
type balancer struct {
	t    *testing.T
	ln   net.Listener
	done sync.WaitGroup

	mu    sync.Mutex
	ready []*running
	next  int
}

func newBalancer(t *testing.T) *balancer {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{t: t, ln: ln}
	b.done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.done.Go(func() { b.pass(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { ln.Close(); b.done.Wait() })
	return b
}

// add takes a process that is ready, and watches until it is not.
func (b *balancer) add(p *running) {
	b.mu.Lock()
	b.ready = append(b.ready, p)
	b.mu.Unlock()
	b.done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			ready, err := p.ask("/readyz")
			if err == nil && strings.Contains(ready, " 200 ") {
				continue
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			for i := range b.ready {
				if b.ready[i] == p {
					b.ready = append(b.ready[:i:i], b.ready[i+1:]...)
					return
				}
			}
			return
		}
	})
}

func (b *balancer) choose() (address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	return b.ready[b.next%len(b.ready)].listen
}

func (b *balancer) pass(c *net.TCPConn) {
	defer c.Close()
	to, err := net.Dial("tcp", b.choose())
	if err != nil {
		b.t.Errorf("a process that is ready does not listen: %v", err)
		return
	}
	defer to.Close()
	var there sync.WaitGroup
	there.Go(func() { io.Copy(to, c); to.(*net.TCPConn).CloseWrite() })
	io.Copy(c, to)
	c.Close()
	there.Wait()
}

func TestRollingRestartsFailNoRequest(t *testing.T) {
	const restarts, clients = 20, 12
	s := newService(t, hello)
	documents := documentsFor(s.address(), "timeouts: {lameDuck: 300ms}", "accessLog: {format: \"off\"}")
	b := newBalancer(t)
	old := launch(t, documents)
	b.add(old)

	stop := make(chan struct{})
	var load sync.WaitGroup
	var answered, connections, failed atomic.Int64
	for i := range clients {
		load.Go(func() {
			// It sends the next request once it has the answer, over the same connection as long as it may. It tries nothing twice.
			var c net.Conn
			var r *bufio.Reader
			pause := time.NewTicker(time.Duration(1+i*10) * time.Millisecond) // from busy to rather idle
			defer pause.Stop()
			for n := 0; ; n++ {
				select {
				case <-stop:
					if c != nil {
						c.Close()
					}
					return
				case <-pause.C:
				}
				err := error(nil)
				if c == nil {
					if c, err = net.Dial("tcp", b.ln.Addr().String()); err != nil {
						t.Errorf("cannot connect: %v", err)
						return
					}
					connections.Add(1)
					r = bufio.NewReader(c)
				}
				c.SetDeadline(time.Now().Add(patience))
				text := plainGet
				if n%2 == 1 {
					text = "POST / HTTP/1.1\r\nHost: weir\r\nContent-Length: 5\r\n\r\nhello"
				}
				var resp *http.Response
				if _, err = io.WriteString(c, text); err == nil {
					resp, err = http.ReadResponse(r, nil)
				}
				if err == nil {
					var body []byte
					body, err = io.ReadAll(resp.Body)
					if err == nil && (resp.StatusCode != 200 || string(body) != "hello") {
						err = fmt.Errorf("got %d %q", resp.StatusCode, body)
					}
				}
				if err != nil {
					if failed.Add(1) < 10 {
						t.Errorf("client %d, request %d: %v", i, n, err)
					}
					c.Close()
					c = nil
					continue
				}
				answered.Add(1)
				if resp.Close || n%100 == 99 { // now and then a new one, without being told
					c.Close()
					c = nil
				}
			}
		})
	}
	var atLeast int64
	for range restarts {
		atLeast += 50
		until(t, "requests are answered", func() bool { return answered.Load() >= atLeast })
		next := launch(t, documents)
		b.add(next)
		old.stops()
		atLeast = answered.Load()
		old = next
	}
	close(stop)
	load.Wait()
	old.stops()
	t.Logf("%d restarts: %d requests over %d connections, %d failed", restarts, answered.Load(), connections.Load(), failed.Load())
}
