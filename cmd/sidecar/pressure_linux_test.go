package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Without a descriptor left the process waits for one, serves whom it has, and says so.
func TestNoDescriptorLeft(t *testing.T) {
	s := newService(t, hello)
	p := launch(t, documentsFor(s.address()), withPrefix("sh", "-c", `ulimit -n 40; exec "$@"`, "-"))
	inside := p.dial()
	inside.send(plainGet)
	inside.gets(200)
	var hungry []*client
	for range 60 { // more than there are descriptors; the kernel takes them
		c := p.dial()
		c.send(plainGet)
		hungry = append(hungry, c)
	}
	line := p.says("cannot accept")
	if line["level"] != "warn" || !strings.Contains(fmt.Sprint(line["error"]), "too many open files") {
		t.Errorf("said %v", line)
	}
	// Who is inside is answered. One of the hungry may have taken the one open connection to the backend for a moment.
	for range 20 {
		inside.send(plainGet)
		if resp, body, err := inside.answer(); err != nil || resp.StatusCode != 200 && resp.StatusCode/100 != 5 {
			t.Fatalf("got %v %q, %v", resp, body, err)
		}
	}
	// As they leave, the others get in; those that were let in when no descriptor was left for their backend are told so.
	for _, c := range hungry {
		if resp, body, err := c.answer(); err != nil || resp.StatusCode != 200 && resp.StatusCode/100 != 5 {
			t.Fatalf("got %v %q, %v", resp, body, err)
		}
		c.Close()
	}
	last := p.dial()
	last.send(plainGet)
	last.gets(200)
	p.stops()
}

func TestBackendThatRefusesAndComesBack(t *testing.T) {
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p := launch(t, documentsFor(address))
	c := p.dial()
	for range 50 {
		c.send(plainGet)
		if resp, body := c.gets(502); resp.Close || !strings.Contains(body, "Backend unreachable") {
			t.Fatalf("got %q, close %v", body, resp.Close)
		}
	}
	line := p.logged(50, "reason", "backend_refused", "status", "502")[0]
	if line["endpoint"] != address || line["backend"] != "orders" {
		t.Errorf("logged %v", line)
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if nc, err := ln.Accept(); err == nil {
			defer nc.Close()
			hello(nc, newClient(t, nc).r)
		}
	}()
	c.send(plainGet)
	c.gets(200)
	c.Close()
	p.stops()
}

func TestAccessLogThatCannotBeWritten(t *testing.T) {
	s := newService(t, hello)
	f := func(p *running) {
		t.Helper()
		c := p.dial()
		for range 200 {
			c.send(plainGet)
			c.gets(200)
		}
		until(t, "lost lines are counted", func() bool { return p.metric("weir_log_dropped_total") == 200 })
		if line := p.says("access log is losing lines"); line["level"] != "warn" {
			t.Errorf("said %v", line)
		}
		c.Close()
		p.stops()
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	// A file on a full disk, and standard output on one.
	f(launch(t, documentsFor(s.address(), "accessLog: {path: /dev/full}")))
	f(launch(t, documentsFor(s.address()), withStdout(full)))
	// Standard output whose reader has gone.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := launch(t, documentsFor(s.address()), withStdout(w))
	w.Close()
	r.Close()
	f(p)
}

// Standard output that is closed from the start is nowhere: no line of the log comes out at another descriptor.
func TestClosedStandardOutput(t *testing.T) {
	s := newService(t, hello)
	p := launch(t, documentsFor(s.address()), withPrefix("sh", "-c", `exec "$@" >&- <&-`, "-"))
	c := p.dial()
	for range 200 {
		c.send(plainGet)
		c.gets(200)
	}
	p.signal(syscall.SIGTERM)
	if rest := c.isClosed(); rest != "" {
		t.Errorf("the client got %q besides its answers", rest)
	}
	p.ends(exitFine)
}

// An output that takes nothing costs lines, not requests, and does not hold up the end for long.
func TestAccessLogThatHangs(t *testing.T) {
	s := newService(t, hello)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := launch(t, documentsFor(s.address()), withStdout(w))
	w.Close()
	c := p.dial()
	const requests = 20000
	batch := strings.Repeat(plainGet, 100)
	for range requests / 100 {
		c.send(batch)
		for range 100 {
			c.gets(200)
		}
	}
	if p.metric("weir_log_dropped_total") == 0 {
		t.Error("no line was lost")
	}
	c.Close()
	begun := time.Now()
	p.stops()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// A last-good file that cannot be written does not keep a policy from being applied.
func TestLastGoodThatCannotBeWritten(t *testing.T) {
	s := newService(t, hello)
	f := func(path string) {
		t.Helper()
		p := launch(t, documentsFor(s.address(), "lastGood: "+path))
		line := p.says("last-good")
		if line["level"] != "error" && line["level"] != "warn" {
			t.Errorf("said %v", line)
		}
		until(t, "the failure is counted", func() bool { return p.metric("weir_policy_last_good_write_failures_total") >= 1 })
		c := p.dial()
		c.send(plainGet)
		c.gets(200)
		c.Close()
		p.stops()
	}
	// A folder that is not there.
	f(filepath.Join(t.TempDir(), "missing", "good.yaml"))
	// A disk that is full.
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Logf("a full disk is not tried: cannot mount one: %v", err)
		return
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(dir, "filler"), bytes.Repeat([]byte("x"), 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	f(filepath.Join(dir, "good.yaml"))
}

// Standard error that cannot be written costs messages only.
func TestMessagesThatCannotBeWritten(t *testing.T) {
	s := newService(t, hello)
	listen, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	documents := strings.Replace(documentsFor(s.address()), `listeners: [{name: http, address: "127.0.0.1:0"}]`,
		`listeners: [{name: http, address: "`+listen+`"}]`, 1)
	p := start(t, documents, withPrefix("sh", "-c", `exec "$@" 2>/dev/full`, "-"))
	p.listen = listen
	until(t, "it listens", func() bool {
		c, err := net.Dial("tcp", listen)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	c := p.dial()
	c.send(plainGet)
	c.gets(200)
	p.signal(syscall.SIGHUP)
	c.send(plainGet)
	c.gets(200)
	c.Close()
	p.stops()
}
