package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// Clients that drip their bodies hold half of a backend's connections at most, so that everybody else is served.
func TestDrippedBodiesLeaveConnectionsToOthers(t *testing.T) {
	const connections, drippers = 20, 60
	s := newService(t, hello)
	documents := strings.Replace(documentsFor(s.address(), "bounds: {bodyRate: 0}"),
		"spec: {endpoints", fmt.Sprintf("spec: {pool: {maxConnections: %d}, endpoints", connections), 1)
	p := launch(t, documents)
	held := func() float64 { return p.metric("weir_upstream_connections", `state="active"`) }
	var slow []*client
	for i := range drippers {
		c := p.dial()
		if i%2 == 0 {
			c.send("POST / HTTP/1.1\r\nHost: weir\r\nContent-Length: 10\r\n\r\n1234")
		} else {
			c.send("POST / HTTP/1.1\r\nHost: weir\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n")
		}
		slow = append(slow, c)
		if want := min(float64(i+1), connections/2+1); i <= connections/2 {
			until(t, "the body is on its way to the backend", func() bool { return held() == want })
		}
	}
	// Requests without a body, with one, and with one that is longer than what is waited for.
	good := p.dial()
	for range 20 {
		good.send(plainGet)
		good.gets(200)
		good.send("POST / HTTP/1.1\r\nHost: weir\r\nContent-Length: 5\r\n\r\nhel")
		good.send("lo")
		good.gets(200)
		good.send("POST / HTTP/1.1\r\nHost: weir\r\nContent-Length: 500000\r\n\r\n" + strings.Repeat("x", 500_000))
		good.gets(200)
		good.send("POST / HTTP/1.1\r\nHost: weir\r\nTransfer-Encoding: chunked\r\n\r\n7a120\r\n")
		good.send(strings.Repeat("x", 500_000) + "\r\n0\r\n\r\n")
		good.gets(200)
		good.send("POST / HTTP/1.1\r\nHost: weir\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		if line, err := good.r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		good.r.ReadString('\n')
		good.send("hello")
		good.gets(200)
	}
	if got := held(); got > connections/2+1 {
		t.Errorf("%v connections are held, want half of %d at most", got, connections)
	}
	// Who goes on is served, whether he waited outside or not.
	for i, c := range slow {
		if i%2 == 0 {
			io.WriteString(c, "567890")
		} else {
			io.WriteString(c, "0\r\n\r\n")
		}
		c.gets(200)
	}
	good.Close()
	for _, c := range slow {
		c.Close()
	}
	p.stops()
	for _, line := range p.stdout.lines() {
		if line["reason"] != "passed" {
			t.Errorf("logged %v", line)
		}
	}
}

// How a request ends while its body is waited for, before it has a connection to the backend: by the client, and told so.
func TestEndsWhileABodyIsGathered(t *testing.T) {
	s := newService(t, hello)
	documents := strings.Replace(documentsFor(s.address(), "bounds: {bodyRate: 0}", "timeouts: {body: 700ms, request: 3s}"),
		"spec: {endpoints", "spec: {pool: {maxConnections: 2}, endpoints", 1)
	p := launch(t, documents)
	var holding []func()
	for range 2 { // these have the connections, as they drip on
		c := p.dial()
		c.send("POST / HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: slow\r\nContent-Length: 1000\r\n\r\n")
		holding = append(holding, c.drips("x", 20*time.Millisecond))
	}
	until(t, "both connections are in use", func() bool { return p.metric("weir_upstream_connections", `state="active"`) == 2 })
	const begun = "POST / HTTP/1.1\r\nHost: weir\r\nX-Tenant-ID: %s\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n"
	leaves, stalls, breaks := p.dial(), p.dial(), p.dial()
	leaves.send(fmt.Sprintf(begun, "leaves"))
	stalls.send(fmt.Sprintf(begun, "stalls"))
	breaks.send(fmt.Sprintf(begun, "breaks") + "x\r\n")
	breaks.gets(400)
	leaves.Close()
	p.logged(1, "tenant", "leaves", "reason", "client_gone", "status", "499")
	stalls.gets(408)
	p.logged(1, "tenant", "stalls", "reason", "client_timeout", "cause", "body_timeout")
	p.logged(1, "tenant", "breaks", "reason", "client_body", "cause", "bad_chunk")
	for _, stop := range holding {
		stop()
	}
	p.stops()
}
