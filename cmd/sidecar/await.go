package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weir/control/etcd"
	"weir/control/fleet"
)

// How often the fleet is looked at while it is waited for: often at first, since most changes are everywhere within a second.
const (
	lookFirst = 50 * time.Millisecond
	lookLast  = time.Second
)

// await waits until every sidecar that reads from here has applied a revision, and says who is behind when they take longer than that.
func (c *cli) await(ctx context.Context, client *etcd.Client, layout etcd.Layout, revision int64, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	started, live := time.Now(), isTerminal(c.err)
	var last []fleet.Verdict
	var unread error
	for pause, shown := lookFirst, -1; ; pause = min(2*pause, lookLast) {
		members, _, err := fleet.ReadMembers(ctx, client, layout, "")
		if err == nil {
			last = fleet.Behind(members, revision)
		}
		unread = err
		applied := len(members) - len(last)
		switch {
		case err != nil: // it may come back in time
		case len(members) == 0:
			fmt.Fprintf(c.err, "no sidecar is registered below %s: there is nobody to wait for\n", layout.Fleets())
			return nil
		case len(last) == 0:
			c.progress(live, "%d of %d sidecars have applied revision %d, after %.1f s\n", applied, len(members), revision, time.Since(started).Seconds())
			return nil
		case live:
			c.progress(live, "%d of %d sidecars have applied revision %d …", applied, len(members), revision)
		case applied != shown:
			c.progress(live, "%d of %d sidecars have applied revision %d\n", applied, len(members), revision)
			shown = applied
		}
		if !pauseFor(ctx, pause) {
			break
		}
	}
	c.progress(live, "")
	if unread != nil && !errors.Is(ctx.Err(), context.Canceled) && len(last) == 0 {
		return fmt.Errorf("revision %d is written, but who has applied it cannot be read: %w", revision, unread)
	}
	for _, v := range last {
		fmt.Fprintf(c.err, "  %s\n", oneLine(v.String()))
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("revision %d is written, but you did not wait until it was applied everywhere", revision)
	}
	return fmt.Errorf("revision %d is written, but %s not applied it within %v", revision, count(len(last), "sidecar has", "sidecars have"), patience)
}

// progress writes a line in the place of the one before, where that can be done.
func (c *cli) progress(live bool, format string, args ...any) {
	if live {
		format = "\r\x1b[K" + format
	}
	fmt.Fprintf(c.err, format, args...)
}

// pauseFor waits, and reports false when ctx ended first.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
