package control

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"strings"
	"time"
)

// The profiles, served from runtime/pprof itself: net/http/pprof would link html/template, which keeps every exported method of
// the binary alive.

const pprofPrefix = "/debug/pprof/"

// maxProfileSeconds bounds how long one request can keep a profile running.
const maxProfileSeconds = 300

func (a *admin) pprof(w http.ResponseWriter, r *http.Request) {
	switch name := strings.TrimPrefix(r.URL.Path, pprofPrefix); name {
	case "":
		a.listProfiles(w)
	case "profile":
		a.record(w, r, "profile", 30, pprof.StartCPUProfile, pprof.StopCPUProfile)
	case "trace":
		a.record(w, r, "trace", 1, trace.Start, trace.Stop)
	default:
		a.profile(w, r, name)
	}
}

// listProfiles lists what there is.
func (a *admin) listProfiles(w http.ResponseWriter) {
	var b strings.Builder
	for _, p := range pprof.Profiles() {
		fmt.Fprintf(&b, "%-14s %d\n", p.Name(), p.Count())
	}
	b.WriteString("profile        CPU for ?seconds=30\ntrace          execution trace for ?seconds=1\n")
	writeText(w, http.StatusOK, b.String())
}

// profile writes what is there now: in the format of go tool pprof, or as text with ?debug=1.
func (a *admin) profile(w http.ResponseWriter, r *http.Request, name string) {
	p := pprof.Lookup(name)
	if p == nil {
		a.fail(w, r, http.StatusNotFound, fmt.Sprintf("no profile is named %q; GET %s lists them", name, pprofPrefix))
		return
	}
	debug, err := number(r, "debug", 0, 2)
	if err != nil {
		a.fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	var b bytes.Buffer
	if err := p.WriteTo(&b, debug); err != nil {
		a.fail(w, r, http.StatusInternalServerError, fmt.Sprintf("cannot write profile %s: %v", name, err))
		return
	}
	if debug > 0 {
		writeText(w, http.StatusOK, b.String())
		return
	}
	attach(w, name)
	_, _ = w.Write(b.Bytes())
}

// record runs a profile for some seconds, or until the client leaves.
func (a *admin) record(w http.ResponseWriter, r *http.Request, name string, usual int, start func(io.Writer) error, stop func()) {
	seconds, err := number(r, "seconds", usual, maxProfileSeconds)
	if err != nil {
		a.fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	length := time.Duration(seconds) * time.Second
	// The profile is held back until it ends, so that a failure to start can still be answered with a status. Writers that have no
	// deadline keep none.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(length + 30*time.Second))
	var b bytes.Buffer
	if err := start(&b); err != nil {
		a.fail(w, r, http.StatusConflict, fmt.Sprintf("cannot start %s, is one running already? %v", name, err))
		return
	}
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
	stop()
	attach(w, name)
	_, _ = w.Write(b.Bytes())
}

func attach(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
}

// number reads a whole number from 0 to most from the query.
func number(r *http.Request, name string, usual, most int) (int, error) {
	value := r.URL.Query().Get(name)
	if value == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("cannot use %s=%q, want 0 to %d", name, value, most)
	}
	return n, nil
}
