package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// CommandLine is the file in the Origin of documents that flags stand for.
const CommandLine = "command line"

// QuickstartOptions are the flags of `sidecar run` without a file.
type QuickstartOptions struct {
	Backend string // host:port, or unix:/path; required
	Limit   string // for each tenant: N/s, N/m or N/h; empty: none
	Listen  string // host:port, or unix:/path; empty: the Sidecar's default
	Admin   string // host:port, or unix:/path; empty: the Sidecar's default
	Service string // empty: the Sidecar's default
}

// Quickstart returns the documents that the flags stand for: [QuickstartYAML], decoded. An error names the value and what is legal.
func Quickstart(o QuickstartOptions) ([]*Document, error) {
	text, err := QuickstartYAML(o)
	if err != nil {
		return nil, err
	}
	docs, problems := Decode(CommandLine, []byte(text))
	if len(problems) == 0 {
		return docs, nil
	}
	// Line and column of a text that nobody wrote would mislead: name the flag instead.
	switch p := problems[0]; p.Path {
	case "spec.endpoints[0].address":
		return nil, fmt.Errorf("cannot use backend %s: %s", quote(o.Backend), p.Message)
	case "spec.listeners[0].address":
		return nil, fmt.Errorf("cannot listen on %s: %s", quote(o.Listen), p.Message)
	case "spec.admin.address":
		return nil, fmt.Errorf("cannot use admin address %s: %s", quote(o.Admin), p.Message)
	case "spec.service":
		return nil, fmt.Errorf("cannot use service %s: %s", quote(o.Service), p.Message)
	default:
		return nil, fmt.Errorf("cannot use the flags: %s", p.Message)
	}
}

// QuickstartYAML writes the documents that the flags stand for, so that they can be kept as a file and grown from there:
// X-Tenant-ID is believed from anybody, each tenant has the limit for itself with a burst of the same number, and requests
// without an identity share one bucket.
func QuickstartYAML(o QuickstartOptions) (string, error) {
	if o.Backend == "" {
		return "", errors.New("cannot start without a backend, want host:port or unix:/path")
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }

	line("apiVersion: %s", APIVersion)
	line("kind: Sidecar")
	line("metadata: {name: weir}")
	line("spec:")
	if o.Service != "" {
		line("  service: %s", strconv.Quote(o.Service))
	}
	if o.Listen != "" {
		line("  listeners: [{name: http, address: %s}]", strconv.Quote(o.Listen))
	}
	if o.Admin != "" {
		line("  admin: {address: %s}", strconv.Quote(o.Admin))
	}
	line("  identity: [{header: X-Tenant-ID, trust: any}]")
	line("  unknownTenant: Shared")
	line("---")
	line("apiVersion: %s", APIVersion)
	line("kind: Backend")
	line("metadata: {name: backend}")
	line("spec:")
	line("  endpoints: [{address: %s}]", strconv.Quote(o.Backend))
	line("---")
	line("apiVersion: %s", APIVersion)
	line("kind: TenantPolicy")
	line("metadata: {name: every-tenant}")
	line("spec:")
	line("  tenants: {any: true}")
	if o.Limit != "" {
		requests, per, err := parseRate(o.Limit)
		if err != nil {
			return "", err
		}
		line("  limits: [{name: steady, requests: %d, per: %s}]", requests, per)
	}
	return b.String(), nil
}

// parseRate reads N/s, N/m or N/h.
func parseRate(s string) (requests int64, per string, err error) {
	const most = 1_000_000_000 // as in Limit.Requests
	number, unit, _ := strings.Cut(s, "/")
	requests, err = strconv.ParseInt(number, 10, 64)
	switch {
	case err != nil || !isDigits(number) || unit != "s" && unit != "m" && unit != "h":
		return 0, "", fmt.Errorf("cannot read limit %s, want N/s, N/m or N/h, as in 100/s", quote(s))
	case requests < 1 || requests > most:
		return 0, "", fmt.Errorf("cannot use limit %s: %d requests, want 1 to %d", quote(s), requests, most)
	}
	return requests, "1" + unit, nil
}
