package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd"
)

// Office is the value of the coordinator's key: who was elected, and how large the fleet is, so that every member knows how often it
// may write.
type Office struct {
	ID      string `json:"id"`
	Members int    `json:"members"`
}

// meet learns who coordinates and how large the fleet is.
func (f *Fleet) meet(ctx context.Context) error {
	_, err := f.incumbent(ctx)
	return err
}

// incumbent reads the coordinator's key. The item has no key when there is no coordinator.
func (f *Fleet) incumbent(ctx context.Context) (etcd.Item, error) {
	key := coordinatorKey(f.o.Layout, f.o.Service)
	call, cancel := f.o.Client.Call(ctx)
	defer cancel()
	answer, err := f.o.Client.Etcd().Get(call, key)
	if err != nil {
		return etcd.Item{}, fmt.Errorf("cannot read %s: %w", key, f.o.Client.Explain(err))
	}
	if len(answer.Kvs) == 0 {
		f.elected("")
		return etcd.Item{}, nil
	}
	kv := answer.Kvs[0]
	var office Office
	if json.Unmarshal(kv.Value, &office) == nil { // a value that is none says nothing, but the key is taken
		f.elected(office.ID)
		f.size.Store(int64(office.Members))
	}
	return etcd.Item{Key: key, Value: kv.Value, Created: kv.CreateRevision, Modified: kv.ModRevision, Lease: kv.Lease}, nil
}

func (f *Fleet) elected(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.coordinator = id
}

// campaign takes the coordinator's place whenever nobody has it, for as long as the lease lives. Members look at different times, so
// they do not all try at once.
func (f *Fleet) campaign(ctx context.Context, lease clientv3.LeaseID) {
	for ctx.Err() == nil {
		now, err := f.incumbent(ctx)
		term := now.Created
		switch {
		case err != nil: // the lease, or the record, says what is wrong
		case now.Key == "":
			term, err = f.stand(ctx, lease)
		case now.Lease != int64(lease):
			term = 0
		}
		if err == nil && term > 0 {
			f.coordinate(ctx, term)
		}
		interval := max(f.o.TTL/3, spread(int(f.size.Load())))
		pause(ctx, interval-fraction(interval/3))
	}
}

// stand tries to be elected. The term is the revision at which the coordinator's key came to be; 0: somebody else was faster.
func (f *Fleet) stand(ctx context.Context, lease clientv3.LeaseID) (term int64, err error) {
	key := coordinatorKey(f.o.Layout, f.o.Service)
	call, cancel := f.o.Client.Call(ctx)
	defer cancel()
	answer, err := f.o.Client.Etcd().Txn(call).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, f.office(int(f.size.Load())), clientv3.WithLease(lease))).Commit()
	if err != nil || !answer.Succeeded {
		return 0, err
	}
	return answer.Header.Revision, nil
}

func (f *Fleet) office(members int) string {
	data, err := json.Marshal(Office{ID: f.id(), Members: members})
	if err != nil {
		panic("BUG: cannot encode an office: " + err.Error())
	}
	return string(data)
}

func (f *Fleet) id() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.own.ID
}

// coordinate looks after the fleet until the lease or the office is lost. Whoever is deposed stops counting before the next one begins,
// and cannot write as coordinator: every such write asks for the term.
func (f *Fleet) coordinate(ctx context.Context, term int64) {
	ctx, deposed := context.WithCancel(ctx)
	defer deposed()
	f.elected(f.id())
	f.log.Info().Int64("term", term).Msg("elected as coordinator of the fleet")
	defer f.log.Info().Int64("term", term).Msg("no longer coordinator of the fleet")
	defer f.gauges.depose()

	members, documents := make(chan etcd.View, 1), make(chan etcd.View, 1)
	var following sync.WaitGroup
	for prefix, views := range map[string]chan etcd.View{membersPrefix(f.o.Layout, f.o.Service): members, f.o.Layout.Policy(): documents} {
		follower := etcd.NewFollower(etcd.FollowerOptions{Client: f.o.Client, Prefix: prefix, Logger: zerolog.Nop()})
		following.Go(func() {
			// It returns no error; and what is wrong with etcd, the lease says and the policy source.
			_ = follower.Run(ctx, func(v etcd.View) { replace(views, v) }, func(error) {})
		})
	}
	defer following.Wait()
	defer deposed()

	r := roster{layout: f.o.Layout, decoded: make(map[string]decoded)}
	check := time.NewTicker(max(f.o.TTL/3, time.Millisecond))
	defer check.Stop()
	told := 0
	for {
		select {
		case <-ctx.Done():
			return
		case v := <-members:
			r.meet(v)
		case v := <-documents:
			r.want(WantOf(f.o.Layout, v))
		case <-check.C:
			if r.ahead() {
				if want, err := ReadWant(ctx, f.o.Client, f.o.Layout); err == nil {
					r.want(want)
				}
			}
			held, err := f.hold(ctx, term, &told, len(r.members))
			if err == nil && !held {
				return
			}
		}
		if !r.known() {
			continue
		}
		verdicts := Judge(r.members, r.wanted)
		f.size.Store(int64(len(r.members)))
		f.gauges.count(verdicts)
		f.tellOfDrift(&r, verdicts)
		pause(ctx, leastPace) // what comes meanwhile is judged together
	}
}

// hold makes sure that the office is still ours, and lets the members know how large the fleet is when that has changed by a tenth.
func (f *Fleet) hold(ctx context.Context, term int64, told *int, members int) (held bool, err error) {
	key := coordinatorKey(f.o.Layout, f.o.Service)
	var news []clientv3.Op
	if 10*max(members-*told, *told-members) > *told {
		news = append(news, clientv3.OpPut(key, f.office(members), clientv3.WithIgnoreLease()))
	}
	call, cancel := f.o.Client.Call(ctx)
	defer cancel()
	answer, err := f.o.Client.Etcd().Txn(call).If(clientv3.Compare(clientv3.CreateRevision(key), "=", term)).Then(news...).Commit()
	if err != nil {
		return false, err
	}
	if len(news) > 0 && answer.Succeeded {
		*told = members
	}
	return answer.Succeeded, nil
}

// maxDriftLines bounds how many members one judgement can write into the log; /fleet has them all.
const maxDriftLines = 10

// tellOfDrift logs the members that have drifted, and those that run again what they should. A change that is on its way can look like
// drift for a moment, so each has the time of a pace, and of a check, to mend.
func (f *Fleet) tellOfDrift(r *roster, verdicts []Verdict) {
	now, lines := time.Now(), 0
	since := make(map[string]drift)
	for _, v := range verdicts {
		if v.State != StateDrifted {
			continue
		}
		d, was := r.drifted[v.Member.ID]
		if !was {
			d.since = now
		}
		if !d.told && now.Sub(d.since) >= max(2*pace(len(verdicts)), f.o.TTL/3) {
			d.told = true
			if lines++; lines <= maxDriftLines {
				f.log.Warn().Str("id", v.Member.ID).Str("host", v.Member.Host).Str("address", v.Member.Address).Strs("reasons", v.Reasons).
					Msg("a member runs something else than etcd holds; mend the documents, or ask its /policy/problems and /policy")
			}
		}
		since[v.Member.ID] = d
	}
	if more := lines - maxDriftLines; more > 0 {
		f.log.Warn().Int("more", more).Msg("further members that run something else are listed by the admin port at /fleet")
	}
	mended := 0
	for id, d := range r.drifted {
		if _, still := since[id]; !still && d.told {
			mended++
		}
	}
	if mended > 0 {
		f.log.Info().Int("members", mended).Int("left", len(since)).Msg("members that ran something else run what etcd holds again, or are gone")
	}
	r.drifted = since
}

// roster is what a coordinator knows.
type roster struct {
	layout  etcd.Layout
	decoded map[string]decoded
	members []Member // nil: not known yet
	wanted  Want
	seen    struct{ members, documents bool }
	drifted map[string]drift
}

// decoded is a record as of one revision.
type decoded struct {
	modified int64
	member   Member
}

// drift is since when a member has drifted, and whether the log says so.
type drift struct {
	since time.Time
	told  bool
}

// meet takes over who is there. Records that did not change are not decoded again.
func (r *roster) meet(v etcd.View) {
	before := r.decoded
	r.decoded, r.members, r.seen.members = make(map[string]decoded, len(v.Items)), make([]Member, 0, len(v.Items)), true
	for _, item := range v.Items {
		service, id, ok := memberOf(r.layout, item.Key)
		if !ok {
			continue
		}
		d := before[item.Key]
		if d.modified != item.Modified {
			d = decoded{item.Modified, decodeMember(id, service, item.Value)}
		}
		r.decoded[item.Key] = d
		r.members = append(r.members, d.member)
	}
}

// want takes over what members should run, unless a later revision is known.
func (r *roster) want(w Want) {
	r.seen.documents = true
	if w.At >= r.wanted.At {
		r.wanted = w
	}
}

func (r *roster) known() bool { return r.seen.members && r.seen.documents }

// ahead reports whether a member has applied a later revision than is known here: a change whose news is late, or none at all.
func (r *roster) ahead() bool {
	return slices.ContainsFunc(r.members, func(m Member) bool { return m.Here() != nil && m.Here().Revision > r.wanted.At })
}

// replace puts a view where the latest one is.
func replace(views chan etcd.View, v etcd.View) {
	for {
		select {
		case views <- v:
			return
		default:
		}
		select {
		case <-views:
		default:
		}
	}
}
