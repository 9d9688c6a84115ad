package main

import (
	"cmp"
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

// silentError says that nobody answers at an admin address.
type silentError struct {
	address string
	err     error
}

func (e *silentError) Error() string {
	return fmt.Sprintf("nobody answers at %s: %v", e.address, e.err)
}
func (e *silentError) Unwrap() error { return e.err }

// askAdmin prints what the admin port at an address, by default the usual one, answers.
func askAdmin(ctx context.Context, out io.Writer, address, path string, query url.Values) error {
	address = cmp.Or(address, defaultAdmin)
	network, at := policy.SplitAddress(address)
	client := &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, at)
		}},
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sidecar"+path+"?"+query.Encode(), nil)
	if err != nil {
		panic("BUG: cannot make a request of an encoded query: " + err.Error())
	}
	answer, err := client.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the URL, which nobody wrote
		}
		return &silentError{address, err}
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("cannot read what %s answers: %w", address, err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the sidecar at %s: %s", address, strings.TrimSpace(string(text)))
	}
	_, err = out.Write(text)
	return err
}
