package care

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd"
)

// Need says which members are worth a defragmentation: those with so large a share of air, and so many bytes of it.
type Need struct {
	Fragmentation float64 // of the store on disk, 0 to 1
	Free          int64   // bytes
}

// DefaultNeed is where a defragmentation is worth its pause.
func DefaultNeed() Need { return Need{Fragmentation: 0.45, Free: 100 << 20} }

// Met reports whether a member is worth it.
func (n Need) Met(m Member) bool { return m.Free() >= n.Free && m.Fragmentation() >= n.Fragmentation }

// Step is one member in the order of work.
type Step struct {
	Member Member
	// Skip says why nothing is done to it; empty: it is defragmented.
	Skip string
}

// PlanDefrag decides which members are defragmented, in which order: followers by name, the leader last, since whoever is defragmented
// does not answer meanwhile, and without a leader nobody is answered. It fails with a [*RefusedError] when the cluster is not well enough to
// bear that one of its members pauses. In want of space every member is worth it: then nothing is written, and etcd counts freed pages
// only as it writes. It is pure.
func PlanDefrag(s Survey, need Need) ([]Step, error) {
	if err := ready(s); err != nil {
		return nil, err
	}
	var steps []Step
	for _, m := range s.Distinct() {
		step := Step{Member: m}
		switch {
		case m.Learner:
			step.Skip = "a learner, which gets the store of the others when it is promoted"
		case !need.Met(m) && !s.wantsSpace():
			step.Skip = fmt.Sprintf("%s of air (%s) is not worth it", Bytes(m.Free()), percent(m.Fragmentation()))
		}
		steps = append(steps, step)
	}
	slices.SortStableFunc(steps, func(a, b Step) int {
		switch {
		case a.Member.Leads() && !b.Member.Leads():
			return 1
		case b.Member.Leads() && !a.Member.Leads():
			return -1
		}
		return strings.Compare(a.Member.Name+a.Member.Endpoint, b.Member.Name+b.Member.Endpoint)
	})
	return steps, nil
}

// RefusedError says why a cluster is not touched.
type RefusedError struct {
	Reasons []string // at least one
}

// Error names all of the reasons.
func (e *RefusedError) Error() string {
	return "the cluster is not well enough to defragment a member: " + strings.Join(e.Reasons, "; ")
}

// ready fails unless every member is well. NOSPACE is no reason: defragmenting is the way back from it.
func ready(s Survey) error {
	var reasons []string
	note := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	if s.ListErr != nil {
		note("%v", s.ListErr)
	}
	if s.AlarmErr != nil {
		note("%v", s.AlarmErr)
	}
	for _, a := range s.Alarms {
		if a.Kind != AlarmNoSpace {
			note("%s has raised the alarm %s", a.Name, a.Kind)
		}
	}
	answering := s.answering()
	for _, m := range s.Distinct() {
		switch f := followed(m, answering); {
		case m.Err != nil:
			note("%s does not answer: %v", m.Called(), m.Err)
		case m.Leader == 0:
			note("%s knows no leader", m.Called())
		case f.Level != OK:
			note("%s", f.Message)
		}
	}
	if len(answering) == 0 {
		note("no member answers")
	} else if f, apart := oneCluster(answering); apart {
		note("%s", f.Message)
	} else if f := leader(answering); f.Level == Warning {
		note("%s", f.Message)
	}
	if len(reasons) == 0 {
		return nil
	}
	return &RefusedError{reasons}
}

// Defragmented is what became of one step.
type Defragmented struct {
	Step
	// After is the member afterwards, and Took how long it did not answer for. Both are zero for a step that was skipped or not reached.
	After Member
	Took  time.Duration
	Done  bool
	// Err is what ended the work here.
	Err error
}

// DefragOptions say how to go about it.
type DefragOptions struct {
	// Timeout bounds the defragmentation of one member. 0 means 10 minutes; it takes about 10 s for each GiB.
	Timeout time.Duration
	// Patience is how long a member may take afterwards until it is well again and has caught up. 0 means 1 minute.
	Patience time.Duration
	// Progress, if set, is told before each step that does something.
	Progress func(Step)
}

// Defrag carries a plan out, one member at a time, and goes on to the next only while every member is well and the one before has
// caught up. It stops at the first failure, and always returns what was done, one entry for each step.
func Defrag(ctx context.Context, c *etcd.Client, plan []Step, o DefragOptions) ([]Defragmented, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	done := make([]Defragmented, len(plan))
	for i, step := range plan {
		done[i].Step = step
	}
	for i := range done {
		d := &done[i]
		if d.Skip != "" {
			continue
		}
		if o.Progress != nil {
			o.Progress(d.Step)
		}
		if d.Err = one(ctx, c, d, i == len(done)-1, o); d.Err != nil {
			return done, fmt.Errorf("stopped at %s: %w", d.Member.Called(), d.Err)
		}
	}
	return done, nil
}

// one defragments one member.
func one(ctx context.Context, c *etcd.Client, d *Defragmented, last bool, o DefragOptions) error {
	before := Ask(ctx, c)
	if err := ready(before); err != nil { // much may have happened since the plan was made
		return err
	}
	if !last && before.member(d.Member.ID).Leads() {
		return errors.New("it has become the leader meanwhile, which comes last; run it again for a new plan")
	}
	begun := time.Now()
	if err := defragment(ctx, c, d.Member.Endpoint, o.Timeout); err != nil {
		return err
	}
	d.Took, d.Done = time.Since(begun), true
	after, err := recovered(ctx, c, d.Member.ID, before.agreed(), o.Patience)
	d.After = after
	return err
}

// defragment asks one member to, once.
func defragment(ctx context.Context, c *etcd.Client, endpoint string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := dial(ctx, endpoint)
	if err != nil {
		return err
	}
	_ = conn.Close()
	if _, err := c.Etcd().Defragment(ctx, endpoint); err != nil {
		return fmt.Errorf("cannot defragment: %w", explain(ctx, err))
	}
	return nil
}

// settle is how often a member is asked whether it is well again.
const settle = 200 * time.Millisecond

// recovered waits until every member is well and one of them has applied what the cluster had agreed on before.
func recovered(ctx context.Context, c *etcd.Client, id, index uint64, patience time.Duration) (Member, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(settle)
	defer tick.Stop()
	why := errors.New("it was not asked in time")
	for {
		s := Ask(ctx, c)
		m, err := s.member(id), ready(s)
		switch {
		case err == nil && m.Applied >= index:
			return m, nil
		case ctx.Err() != nil: // an interrupted survey says nothing of the cluster
		case err == nil:
			why = fmt.Errorf("it has applied entry %d, want %d", m.Applied, index)
		default:
			why = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return m, fmt.Errorf("it was defragmented, and the cluster is not well again within %s: %w", patience, why)
		}
	}
}

// Disarm ends the alarms about space. It fails when there are others, and when a member is still so full that the alarm would be raised again.
func Disarm(ctx context.Context, c *etcd.Client) ([]Alarm, error) {
	s := Ask(ctx, c)
	if err := ready(s); err != nil {
		return nil, fmt.Errorf("cannot disarm: %w", err)
	}
	for _, m := range s.Distinct() {
		if m.Quota > 0 && float64(m.Size) >= almostFull*float64(m.Quota) {
			return nil, fmt.Errorf("cannot disarm: %s still takes %s of its quota of %s, and the alarm would be raised again at once; compact the history, defragment again, or raise the quota",
				m.Called(), Bytes(m.Size), Bytes(m.Quota))
		}
	}
	var gone []Alarm
	for _, a := range s.Alarms {
		if err := disarm(ctx, c, a); err != nil {
			return gone, err
		}
		gone = append(gone, a)
	}
	return gone, nil
}

func disarm(ctx context.Context, c *etcd.Client, a Alarm) error {
	ctx, cancel := c.Call(ctx)
	defer cancel()
	alarm := &clientv3.AlarmMember{MemberID: a.Member, Alarm: etcdserverpb.AlarmType_NOSPACE}
	if _, err := c.Etcd().AlarmDisarm(ctx, alarm); err != nil {
		return fmt.Errorf("cannot disarm %s of %s: %w", a.Kind, a.Name, explain(ctx, err))
	}
	return nil
}

func (s Survey) wantsSpace() bool {
	return slices.ContainsFunc(s.Alarms, func(a Alarm) bool { return a.Kind == AlarmNoSpace })
}

func (s Survey) answering() []Member {
	return slices.DeleteFunc(s.Distinct(), func(m Member) bool { return m.Err != nil })
}

// agreed is how far the cluster has agreed.
func (s Survey) agreed() uint64 {
	var index uint64
	for _, m := range s.answering() {
		index = max(index, m.Index)
	}
	return index
}

// member is the one with a number; without one that answers, a member that has Err.
func (s Survey) member(id uint64) Member {
	for _, m := range s.Members {
		if m.ID == id && m.Err == nil {
			return m
		}
	}
	return Member{ID: id, Err: errors.New("it does not answer")}
}
