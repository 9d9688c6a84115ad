package distribute

import (
	"fmt"
	"sync"
	"time"

	"weir/control"
	"weir/control/etcd"
)

// The states of a cluster.
const (
	starting    = "starting"    // the source or the cluster was not read yet
	inStep      = "in_step"     // it has what it should have
	behind      = "behind"      // it is known what to bring, and not brought
	drifted     = "drifted"     // others have written there, and nobody repairs it
	held        = "held"        // a change is held back
	yielded     = "yielded"     // another process brings other documents
	unreachable = "unreachable" // it cannot be read now
	failing     = "failing"     // it cannot be written now
)

// board is what is shown of a cluster. It is safe for concurrent use.
type board struct {
	changed func() // is called after each change of the state, from the cluster's goroutine

	mu     sync.Mutex
	shown  control.SyncCluster
	behind time.Time
}

func (b *board) found(n int)    { b.set(func(s *control.SyncCluster) { s.DriftFound += n }) }
func (b *board) repaired(n int) { b.set(func(s *control.SyncCluster) { s.DriftRepaired += n }) }
func (b *board) lagged(d time.Duration) {
	b.set(func(s *control.SyncCluster) { s.LagSeconds = d.Seconds() })
}

func (b *board) set(change func(*control.SyncCluster)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.shown)
}

// waits says since when a change waits; zero: none does.
func (b *board) waits(since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.behind = since
}

// at is the board at one time.
func (b *board) at(now time.Time) control.SyncCluster {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.shown
	if !b.behind.IsZero() {
		s.BehindSeconds = max(now.Sub(b.behind), 0).Seconds()
	}
	return s
}

// state says how the cluster is, and why.
func (c *cluster) state() (state, reason string) {
	switch {
	case c.yielded != "":
		return yielded, c.yielded
	case c.failure != nil:
		return failing, c.explain(c.failure)
	case c.lost != nil:
		return unreachable, c.lost.Error()
	case c.source == nil || !c.known:
		return starting, ""
	case c.held != "":
		return held, c.held
	case len(c.pending) == 0:
		return inStep, ""
	}
	drift := 0
	for _, d := range c.pending {
		if d.Drift() {
			drift++
		}
	}
	if drift == len(c.pending) {
		return drifted, "others have written there: " + countDocuments(drift)
	}
	return behind, "not as it should be: " + countDocuments(len(c.pending))
}

func countDocuments(n int) string {
	if n == 1 {
		return "1 document"
	}
	return fmt.Sprintf("%d documents", n)
}

// explain says what failed and what to do about it.
func (c *cluster) explain(err error) string {
	advice := etcd.CauseOf(err).Advice()
	if etcd.CauseOf(err) == etcd.Forbidden {
		advice = fmt.Sprintf("grant what is missing: etcdctl role grant-permission ROLE --prefix=true readwrite %s, and the same for %s", c.layout.Policy(), c.layout.Sync())
	}
	return fmt.Sprintf("%v; to do: %s", err, advice)
}

// show puts the state on the board, and tells the log when it is another than before.
func (c *cluster) show() {
	state, reason := c.state()
	now := c.o.Clock()
	differences := c.words(c.pending)
	var problems []string
	if c.want != nil {
		for _, p := range c.want.problems {
			problems = append(problems, p.String())
		}
	}
	c.board.mu.Lock()
	before := c.board.shown
	s := &c.board.shown
	if s.State != state {
		s.State, s.Since = state, now
	}
	s.Reason, s.Revision, s.Documents = reason, c.revision, len(c.have)
	s.Differences, s.Problems = differences, problems
	if state == inStep {
		s.Applied = c.want.catalog.revision
	}
	c.board.behind = c.behind
	c.board.mu.Unlock()
	c.log(before, state, reason, now)
	if c.board.changed != nil {
		c.board.changed()
	}
}

// log tells of states that somebody should know of, and of their ends.
func (c *cluster) log(before control.SyncCluster, state, reason string, now time.Time) {
	switch {
	case state == held && reason != before.Reason:
		c.logger.Warn().Str("why", reason).Int64("revision", c.source.revision).Msg("a change is held back from the cluster, which keeps what it has")
	case state == before.State:
	case state == unreachable || state == failing:
		c.logger.Warn().Str("why", reason).Msg("the cluster cannot be brought into step; it is tried again, and others do not wait")
	case state == inStep && before.State != starting && before.State != "":
		c.logger.Info().Str("was", before.State).Dur("after", now.Sub(before.Since)).Int64("revision", c.want.catalog.revision).Msg("the cluster is in step again")
	}
}
