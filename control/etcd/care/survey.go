package care

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd"
)

// Member is what one member of a cluster says of itself.
type Member struct {
	// Endpoint is the client URL that it was asked at; Given says that whoever asks named it, and otherwise it is one of those that
	// the cluster advertises.
	Endpoint string
	Given    bool
	// Err says why it could not be asked; what follows is empty then, but for what the cluster says of it.
	Err     error
	ID      uint64
	Name    string
	Learner bool
	// Cluster is the cluster that it believes to be in.
	Cluster uint64
	Version string
	// Leader is the member that it believes to lead; 0: none.
	Leader uint64
	Term   uint64
	// Index is how far the cluster has agreed and Applied how far this member has followed, both as numbers of raft entries.
	Index, Applied uint64
	// Size is what its store takes on disk in bytes, InUse how much of that is in use, and Quota how large it may grow; 0 when it does
	// not say, as before etcd 3.6.
	Size, InUse, Quota int64
	// Errors are what it complains about itself.
	Errors []string
}

// Leads reports whether the member believes to lead.
func (m Member) Leads() bool { return m.Err == nil && m.ID != 0 && m.ID == m.Leader }

// Free is how many bytes a defragmentation would give back.
func (m Member) Free() int64 { return max(m.Size-m.InUse, 0) }

// Fragmentation is the share of the store on disk that is not in use.
func (m Member) Fragmentation() float64 {
	if m.Size <= 0 {
		return 0
	}
	return float64(m.Free()) / float64(m.Size)
}

// Called is what people call the member: its name, or where it is.
func (m Member) Called() string {
	if m.Name == "" {
		return m.Endpoint
	}
	return m.Name + " (" + m.Endpoint + ")"
}

// Alarm is something that a cluster has raised, and that stays until it is disarmed.
type Alarm struct {
	Member uint64
	Name   string // the member's, if known
	Kind   string // AlarmNoSpace, AlarmCorrupt or a newer one
}

// The alarms that etcd has.
const (
	AlarmNoSpace = "NOSPACE"
	AlarmCorrupt = "CORRUPT"
)

// Survey is how the members of a cluster are.
type Survey struct {
	// Members are those at the endpoints given, in their order, then those that the cluster has besides, by name.
	Members []Member
	// Voters is how many members vote, by the cluster's own word; 0 when that could not be asked, which ListErr says.
	Voters  int
	ListErr error
	// Alarms are sorted by member and kind. AlarmErr says why they could not be asked.
	Alarms   []Alarm
	AlarmErr error
}

// Ask asks every member how it is: those at the client's endpoints, and those that the cluster has besides. It takes at most three
// times the client's timeout, and does not fail: what could not be asked is part of the answer.
func Ask(ctx context.Context, c *etcd.Client) Survey {
	var s Survey
	var registered []*clientv3.Member
	var asking sync.WaitGroup
	s.Members = make([]Member, len(c.Endpoints()))
	for i, endpoint := range c.Endpoints() {
		asking.Go(func() { s.Members[i] = status(ctx, c, endpoint); s.Members[i].Given = true })
	}
	asking.Go(func() {
		if registered, s.ListErr = list(ctx, c); s.ListErr != nil {
			s.ListErr = fmt.Errorf("cannot list the members: %w", s.ListErr)
		}
	})
	asking.Go(func() { s.Alarms, s.AlarmErr = alarms(ctx, c) })
	asking.Wait()
	s.Members = append(s.Members, others(ctx, c, s.Members, registered)...)
	s.identify(registered)
	return s
}

// status asks one member.
func status(ctx context.Context, c *etcd.Client, endpoint string) Member {
	m := Member{Endpoint: endpoint}
	ctx, cancel := c.Call(ctx)
	defer cancel()
	// Etcd's client waits for a connection until time is up, and then tells no reason.
	conn, err := dial(ctx, endpoint)
	if err != nil {
		m.Err = err
		return m
	}
	_ = conn.Close()
	answer, err := c.Etcd().Status(ctx, endpoint)
	if err != nil {
		m.Err = fmt.Errorf("no status: %w", explain(ctx, err))
		return m
	}
	m.ID, m.Cluster = answer.Header.GetMemberId(), answer.Header.GetClusterId()
	m.Version, m.Leader, m.Term, m.Learner = answer.Version, answer.Leader, answer.RaftTerm, answer.IsLearner
	m.Index, m.Applied = answer.RaftIndex, answer.RaftAppliedIndex
	m.Size, m.InUse, m.Quota = answer.DbSize, answer.DbSizeInUse, answer.DbSizeQuota
	m.Errors = answer.Errors
	return m
}

// list asks who the members are: as the cluster agrees, or else as one member believes, since without a majority there is no agreement.
func list(ctx context.Context, c *etcd.Client) ([]*clientv3.Member, error) {
	ask := func(options ...clientv3.OpOption) ([]*clientv3.Member, error) {
		ctx, cancel := c.Call(ctx)
		defer cancel()
		answer, err := c.Etcd().MemberList(ctx, options...)
		if err != nil {
			return nil, explain(ctx, err)
		}
		members := make([]*clientv3.Member, 0, len(answer.Members))
		for _, m := range answer.Members {
			members = append(members, (*clientv3.Member)(m))
		}
		return members, nil
	}
	members, err := ask()
	if err != nil && !etcd.Denied(err) {
		members, err = ask(clientv3.WithSerializable())
	}
	return members, err
}

// alarms asks for what the cluster has raised.
func alarms(ctx context.Context, c *etcd.Client) ([]Alarm, error) {
	ctx, cancel := c.Call(ctx)
	defer cancel()
	answer, err := c.Etcd().AlarmList(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list the alarms: %w", explain(ctx, err))
	}
	var raised []Alarm
	for _, a := range answer.Alarms {
		raised = append(raised, Alarm{Member: a.MemberID, Kind: a.Alarm.String()})
	}
	slices.SortFunc(raised, func(a, b Alarm) int { return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(a.Kind, b.Kind)) })
	return raised, nil
}

// others asks the members that none of the endpoints given has led to.
func others(ctx context.Context, c *etcd.Client, given []Member, registered []*clientv3.Member) []Member {
	missing := slices.DeleteFunc(slices.Clone(registered), func(r *clientv3.Member) bool {
		return slices.ContainsFunc(given, func(m Member) bool { return m.ID == r.ID || m.Err != nil && slices.Contains(r.ClientURLs, m.Endpoint) })
	})
	slices.SortFunc(missing, func(a, b *clientv3.Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	found := make([]Member, len(missing))
	var asking sync.WaitGroup
	for i, r := range missing {
		asking.Go(func() { found[i] = statusOf(ctx, c, r) })
	}
	asking.Wait()
	return found
}

// statusOf asks a member at the addresses that it advertises, until one of them leads to it.
func statusOf(ctx context.Context, c *etcd.Client, r *clientv3.Member) Member {
	m := Member{Err: errors.New("it advertises no client URL, as one that has not started yet")}
	for _, endpoint := range r.ClientURLs {
		if m = status(ctx, c, endpoint); m.Err == nil && m.ID != r.ID {
			m = Member{Endpoint: endpoint, Err: errors.New("another member answers there")}
		}
		if m.Err == nil {
			break
		}
	}
	m.ID, m.Learner = r.ID, r.IsLearner
	return m
}

// identify adds what the list of members says of each.
func (s *Survey) identify(registered []*clientv3.Member) {
	names := make(map[uint64]string)
	for _, r := range registered {
		names[r.ID] = r.Name
		if !r.IsLearner {
			s.Voters++
		}
		for i := range s.Members {
			if m := &s.Members[i]; m.ID == 0 && slices.Contains(r.ClientURLs, m.Endpoint) {
				m.ID, m.Learner = r.ID, r.IsLearner
			}
		}
	}
	for i := range s.Members {
		s.Members[i].Name = names[s.Members[i].ID]
	}
	for i := range s.Alarms {
		s.Alarms[i].Name = cmp.Or(names[s.Alarms[i].Member], fmt.Sprintf("%x", s.Alarms[i].Member))
	}
}

// Distinct are the members, each once, though several endpoints may lead to one. Endpoints that lead nowhere are not among them when the
// cluster has said who its members are.
func (s Survey) Distinct() []Member {
	var list []Member
	for _, m := range s.Members {
		if m.ID == 0 && s.Voters > 0 {
			continue
		}
		if m.ID == 0 || !slices.ContainsFunc(list, func(o Member) bool { return o.ID == m.ID && o.Cluster == m.Cluster }) {
			list = append(list, m)
		}
	}
	return list
}

// explain makes an error of a call readable: gRPC's words are for programmers.
func explain(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}
