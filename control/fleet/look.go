package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"weir/control"
)

// lookAgain is how long what was read stays good enough for who looks at it, and lookFor how long one may wait for it to be read.
const (
	lookAgain = time.Second
	lookFor   = 2 * time.Second
)

// look is what was read last for those who look at the fleet.
type look struct {
	mu    sync.Mutex
	at    time.Time // of the last try
	fleet control.Fleet
}

// Look describes the fleet. It reads it anew once a second at most, and without etcd it shows what it knows and says how old that is.
func (f *Fleet) Look(ctx context.Context) control.Fleet {
	l := &f.looking
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.IsZero() || time.Since(l.at) >= lookAgain {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookFor) // others will see it, too
		defer cancel()
		if seen, err := f.read(ctx); err != nil {
			_, advice := explain(err, f.registration.write)
			l.fleet.Error = fmt.Sprintf("%v; to do: %s", err, advice)
		} else {
			l.fleet = seen
		}
		l.at = time.Now()
	}
	seen := l.fleet
	seen.Source, seen.Service, seen.ID = f.o.Source, f.o.Service, f.id()
	seen.Registered, seen.Unregistered = f.registration.state()
	f.mu.Lock()
	seen.Coordinator = f.coordinator
	f.mu.Unlock()
	if !seen.ReadAt.IsZero() {
		seen.Age = time.Since(seen.ReadAt).Seconds()
	}
	return seen
}

// read reads the fleet, and then what it should run: so that no member can have applied what is not known here.
func (f *Fleet) read(ctx context.Context) (control.Fleet, error) {
	if _, err := f.incumbent(ctx); err != nil {
		return control.Fleet{}, err
	}
	members, _, err := ReadMembers(ctx, f.o.Client, f.o.Layout, f.o.Service)
	if err != nil {
		return control.Fleet{}, err
	}
	want, err := ReadWant(ctx, f.o.Client, f.o.Layout)
	if err != nil {
		return control.Fleet{}, err
	}
	verdicts := Judge(members, want)
	seen := control.Fleet{
		Revision: want.Revision, ReadAt: time.Now(),
		InSync: Count(verdicts, StateInSync), Behind: Count(verdicts, StateBehind), Drifted: Count(verdicts, StateDrifted),
	}
	for _, v := range verdicts {
		seen.Members = append(seen.Members, shown(v))
	}
	return seen, nil
}

// shown is a verdict for people.
func shown(v Verdict) control.FleetMember {
	m := v.Member
	s := control.FleetMember{
		ID: m.ID, Version: m.Version, Host: m.Host, Address: m.Address, Started: m.Started, Hash: m.Hash, AppliedAt: m.AppliedAt,
		State: string(v.State), Reasons: v.Reasons, Problems: m.ProblemCount,
	}
	if here := m.Here(); here != nil {
		s.Revision = here.Revision
	}
	if len(m.Problems) > 0 {
		s.FirstProblem = m.Problems[0]
	}
	return s
}
