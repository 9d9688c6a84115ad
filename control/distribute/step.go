package distribute

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"weir/control/etcd"
	"weir/policy"
)

// step brings what is wanted to the cluster. It returns an error when that is worth another try.
func (c *cluster) step(ctx context.Context) error {
	if !c.met || c.stale {
		if err := c.meet(ctx); err != nil {
			return err
		}
	}
	if c.yielded != "" {
		return nil
	}
	c.judge()
	if c.want == nil {
		return nil
	}
	if c.recalls {
		r, _ := parseRecord(c.record.Value) // meet has told of errors
		recall(c.ours, c.want, c.have, r.Revision)
		c.recalls = false
	}
	todo := c.todo()
	if slices.ContainsFunc(todo, c.untold) {
		// Before anybody is blamed: it may have been a process that does what this one does.
		if err := c.meet(ctx); err != nil {
			return err
		}
		if c.yielded != "" {
			return nil
		}
		todo = c.todo()
	}
	c.pending = todo
	if foreign := c.foreign(todo); foreign != "" {
		c.held = foreign
		return nil
	}
	c.tell(todo)
	if c.o.DryRun {
		return nil
	}
	c.pending = nil
	if c.o.NoRepair {
		behind := func(d Difference) bool { return !d.Drift() }
		c.pending = slices.DeleteFunc(slices.Clone(todo), behind)
		todo = slices.DeleteFunc(todo, Difference.Drift)
	}
	return c.write(ctx, todo)
}

// todo is what is not as it should be at the cluster.
func (c *cluster) todo() []Difference {
	own(c.ours, c.want, c.have)
	return compare(c.want, c.have, c.ours)
}

// judge decides on the latest catalog, once, and again as long as it is held and the cluster changes.
func (c *cluster) judge() {
	if c.judged == c.source && c.held == "" {
		return
	}
	w := c.rule.want(c.source, c.want)
	left := c.decoded(func(key string) bool { return w.left[key] })
	before, since := c.before()
	v := c.rule.judge(w, left, before, c.confirmable(since))
	c.judged = c.source
	if v.held == "" {
		if len(w.problems) > 0 && (c.want == nil || len(c.want.problems) == 0) {
			c.logger.Warn().Int("documents", len(w.problems)).Str("first", w.problems[0].String()).
				Msg("overlays make documents wrong; the cluster keeps what it has of them")
		}
		c.want, c.held, c.confirmed, c.replaced = w, "", c.confirmed || v.confirmed, 0
		return
	}
	c.held = v.held
}

// before are the documents that the cluster should have had until now, and when the source had been written last then.
func (c *cluster) before() (docs []*policy.Document, since int64) {
	if c.want != nil {
		return documents(c.want.texts), c.want.catalog.written
	}
	if r, err := parseRecord(c.record.Value); err == nil && c.distributed() {
		since = r.Written
	}
	return c.decoded(func(key string) bool { _, ok := c.ours[key]; return ok }), since
}

// confirmable is the revision from which on removals are confirmed. A source that was written last before that time is another store, or
// was restored: there, what was confirmed before it was first seen does not count.
func (c *cluster) confirmable(since int64) int64 {
	if c.source.written >= since {
		c.replaced = 0
		return since
	}
	if c.replaced == 0 {
		c.replaced = c.source.revision
	}
	return c.replaced
}

// foreign says why nothing is brought to a cluster that has documents which no distribution of this name has brought there; empty: it may.
func (c *cluster) foreign(todo []Difference) string {
	if c.o.TakeOver || c.distributed() {
		return ""
	}
	var theirs []string
	for _, d := range todo {
		if d.At > 0 {
			theirs = append(theirs, d.Key)
		}
	}
	if len(theirs) == 0 {
		return ""
	}
	return fmt.Sprintf("has documents that %s did not bring there and would change or delete: %s; if that is meant, start once with --take-over",
		c.rule.distribution.Name, some(theirs))
}

// untold reports drift that was not counted yet.
func (c *cluster) untold(d Difference) bool {
	at, ok := c.told[d.Key]
	return d.Drift() && (!ok || at != d.At)
}

// tell counts and logs drift, each once.
func (c *cluster) tell(todo []Difference) {
	keys, drifted := make(map[Cause][]string), make(map[string]bool)
	for _, d := range todo {
		drifted[d.Key] = d.Drift()
		if c.untold(d) {
			c.told[d.Key] = d.At
			c.metrics.drift[d.Cause].Inc()
			keys[d.Cause] = append(keys[d.Cause], d.Key)
		}
	}
	maps.DeleteFunc(c.told, func(key string, _ int64) bool { return !drifted[key] })
	for _, cause := range []Cause{Changed, Missing, Extra} {
		if n := len(keys[cause]); n > 0 {
			c.board.found(n)
			c.logger.Warn().Str("drift", string(cause)).Int("documents", n).Str("keys", some(keys[cause])).Bool("repair", !c.o.NoRepair && !c.o.DryRun).
				Msg("somebody else has written to the cluster")
		}
	}
}

// write does what is to be done, in as few transactions as it fits into.
func (c *cluster) write(ctx context.Context, todo []Difference) error {
	parts := chunks(todo)
	for i, part := range parts {
		if err := c.commit(ctx, part, i+1, len(parts)); err != nil {
			return err
		}
	}
	if c.held != "" {
		return nil
	}
	c.confirmed = false
	changed := slices.ContainsFunc(todo, func(d Difference) bool { return !d.Drift() })
	now := c.o.Clock()
	line := c.logger.Info().Int64("revision", c.want.catalog.revision).Int("documents", len(todo)).Int("transactions", len(parts))
	if changed && !c.behind.IsZero() {
		lag := now.Sub(c.behind)
		c.metrics.lag.Observe(lag.Seconds())
		c.board.lagged(lag)
		line = line.Dur("lag", lag)
	}
	if len(todo) > 0 {
		line.Msg("brought to the cluster")
	}
	c.behind = time.Time{}
	return c.refresh(ctx)
}

// refresh writes the record alone, where it is not ours yet, or where removals were confirmed since: a confirmation holds for what came
// before it, and the record says what that is.
func (c *cluster) refresh(ctx context.Context) error {
	r, err := parseRecord(c.record.Value)
	if err == nil && r.same(c.identity()) && (r.Written > c.want.catalog.change.ConfirmedRemovals || r.Written == c.want.catalog.written) {
		return nil
	}
	return c.commit(ctx, nil, 0, 0)
}

// commit writes some differences, with who did it and why.
func (c *cluster) commit(ctx context.Context, part []Difference, number, of int) error {
	value := c.identity().encode()
	writes := []etcd.Write{{Key: c.layout.Sync(), Value: value, Expect: c.record.Modified}}
	var change []byte
	if len(part) > 0 {
		change = c.changeOf(part, number, of).Encode()
		writes = append(writes, etcd.Write{Key: c.layout.Change(), Value: change, Expect: c.change.Modified})
	}
	for _, d := range part {
		writes = append(writes, etcd.Write{Key: c.layout.Policy() + d.Key, Value: d.Put, Expect: d.At})
	}
	revision, err := c.client.Commit(ctx, writes)
	switch {
	case errors.Is(err, etcd.ErrConflict):
		c.metrics.writes[writeConflict].Inc()
		c.stale = true
		return err
	case err != nil:
		c.metrics.writes[writeFailed].Inc()
		c.stale = true
		return err
	}
	c.metrics.writes[writeCommitted].Inc()
	c.revision, c.holding = revision, true
	c.record = etcd.Item{Key: c.layout.Sync(), Value: value, Modified: revision}
	if len(part) > 0 {
		c.change = etcd.Item{Key: c.layout.Change(), Value: change, Modified: revision}
	}
	repaired := 0
	for _, d := range part {
		delete(c.told, d.Key)
		if d.Drift() {
			repaired++
		}
		if d.Put == nil {
			delete(c.have, d.Key)
			delete(c.ours, d.Key)
			continue
		}
		c.have[d.Key] = etcd.Item{Key: c.layout.Policy() + d.Key, Value: d.Put, Modified: revision}
		c.ours[d.Key] = revision
	}
	c.board.repaired(repaired)
	return nil
}

// changeOf says who changes documents, and why. What was confirmed at the source is confirmed here: the sidecars of the cluster ask, too.
func (c *cluster) changeOf(part []Difference, number, of int) etcd.Change {
	change := etcd.Change{
		By: fmt.Sprintf("sync from %s at %d", c.o.source(), c.want.catalog.revision), At: c.o.Clock().UTC(), Command: "sync",
		Message: c.want.catalog.change.Message,
	}
	if !slices.ContainsFunc(part, func(d Difference) bool { return !d.Drift() }) {
		change.Message = "what others wrote is taken back"
	}
	if of > 1 {
		change.Part, change.Parts = number, of
	}
	if before, err := etcd.ParseChange(c.change.Value); err == nil {
		change.ConfirmedRemovals = before.ConfirmedRemovals
	}
	if c.confirmed {
		change.ConfirmedRemovals = c.revision
	}
	return change
}

// some names the first of many.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
