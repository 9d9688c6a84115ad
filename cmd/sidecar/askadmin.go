package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"weir/policy"
)

// noSidecarError says that nobody answers at an admin port.
type noSidecarError struct {
	address string
	err     error
}

func (e *noSidecarError) Error() string {
	return fmt.Sprintf("no sidecar answers at %s (%v)", e.address, e.err)
}

func (e *noSidecarError) Unwrap() error { return e.err }

// askAdmin gets what a running sidecar shows at a path of its admin port. It fails with a [*noSidecarError] when nobody answers, and with
// what was answered unless that is a success.
func askAdmin(ctx context.Context, address, path string) ([]byte, error) {
	network, at := policy.SplitAddress(address)
	client := &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, at)
		}},
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sidecar"+path, nil)
	if err != nil {
		panic("BUG: cannot make a request of a path: " + err.Error())
	}
	answer, err := client.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the URL, which nobody wrote
		}
		return nil, &noSidecarError{address, err}
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("cannot read what %s answers: %w", address, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the sidecar at %s: %s", address, strings.TrimSpace(string(text)))
	}
	return text, nil
}
