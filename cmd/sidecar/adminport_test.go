package main

import (
	"net"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/control"
)

// Once stopped, the port is closed, also for whoever had a connection and asks for nothing.
func TestServeAdmin(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	stop := serveAdmin(ln, control.AdminOptions{Logger: zerolog.Nop(), Gatherer: prometheus.NewRegistry()})
	answer, err := http.Get("http://" + address + "/livez")
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", answer, err)
	}
	_ = answer.Body.Close()
	silent, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stop()
	if again, err := net.Dial("tcp", address); err == nil {
		_ = again.Close()
		t.Error("it still takes connections")
	}
	if n, err := silent.Read(make([]byte, 1)); err == nil {
		t.Errorf("a silent connection got %d bytes and goes on", n)
	}
}
