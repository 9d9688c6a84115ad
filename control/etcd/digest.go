package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// verdict is what a comparison of the copy with the store has found.
type verdict struct {
	view View     // the copy that was compared
	upTo int64    // it is complete up to there; 0: that is not known
	keys []string // at which it differs
	err  error    // it could not be compared
}

// untilCheck is the time to the next comparison. It differs between sidecars, so that they do not all list at once.
func (c *course) untilCheck() time.Duration {
	return time.Duration(float64(c.o.DigestEvery) * (0.8 + 0.4*c.o.Random()))
}

// check begins a comparison, unless one runs.
func (t *tail) check(ctx context.Context) {
	if t.checking {
		return
	}
	t.checking = true
	view := t.view
	t.helpers.Go(func() { t.verdicts <- compare(ctx, t.o.Client, t.o.Prefix, view) })
}

// compare compares a view with the store: as it is now, and if they differ as it was at the view's revision, since the events in
// between may just be on their way.
func compare(ctx context.Context, client *Client, prefix string, view View) verdict {
	now, err := client.Read(ctx, prefix, 0)
	if err != nil {
		return verdict{view: view, err: err}
	}
	if len(view.differences(now)) == 0 {
		return verdict{view: view, upTo: now.Revision}
	}
	then, err := client.Read(ctx, prefix, view.Revision)
	if err != nil {
		return verdict{view: view, err: err}
	}
	return verdict{view: view, keys: view.differences(then)}
}

// manyKeys is how many keys a log line names.
const manyKeys = 10

// judge acts on a verdict: it returns an error when the watch cannot go on.
func (t *tail) judge(v verdict) error {
	switch {
	case v.err != nil && (Denied(v.err) || errors.Is(v.err, rpctypes.ErrCompacted)):
		return v.err
	case v.err != nil:
		t.o.Logger.Debug().Err(v.err).Str("prefix", t.o.Prefix).Msg("the copy could not be compared with etcd; the watch goes on")
	case len(v.keys) > 0:
		t.note(func(s *Stats) { s.Drifts++ })
		t.o.Logger.Warn().Str("prefix", t.o.Prefix).Int64("revision", v.view.Revision).Int("keys", len(v.keys)).
			Strs("first", v.keys[:min(len(v.keys), manyKeys)]).Msg("the copy has drifted from etcd, and is made anew")
		return &causeError{Drift, fmt.Sprintf("it differs at %d keys", len(v.keys))}
	case v.upTo > t.view.Revision && v.view.Revision == t.view.Revision:
		// Nothing has come since, so the copy is complete up to the list, and a watch can be resumed from there when the revisions before
		// are forgotten.
		t.view.Revision = v.upTo
		t.note(func(s *Stats) { s.Revision = v.upTo })
	}
	return nil
}
