package care

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

const mib = 1 << 20

// well is a cluster of three members that lacks nothing.
func well() Survey {
	s := Survey{Voters: 3}
	for i, name := range []string{"a", "b", "c"} {
		s.Members = append(s.Members, Member{
			Endpoint: "http://" + name, Given: true, ID: uint64(i + 1), Name: name, Cluster: 7, Version: "3.6.1", Leader: 2, Term: 4,
			Index: 9000, Applied: 9000, Size: 100 * mib, InUse: 90 * mib, Quota: 2048 * mib,
		})
	}
	return s
}

// find is the finding of a check; of is empty for the worst of all.
func find(t *testing.T, findings []Finding, check, of string) Finding {
	t.Helper()
	var found *Finding
	for i, f := range findings {
		if f.Check == check && (of == "" || f.Of == of) && (found == nil || f.Level > found.Level) {
			found = &findings[i]
		}
	}
	if found == nil {
		t.Fatalf("no finding of the check %q in %+v", check, findings)
	}
	return *found
}

// expect compares a finding. Whatever is bad must say what to do next, and where that is explained.
func expect(t *testing.T, f Finding, level Level, want string) {
	t.Helper()
	if f.Level != level || !strings.Contains(f.Message, want) {
		t.Errorf("%s: got %s: %s; want %s with %q", f.Check, f.Level, f.Message, level, want)
	}
	if f.Level != OK && (f.Next == "" || f.Page == "") {
		t.Errorf("%s: %s: says nothing of the way back", f.Check, f.Message)
	}
}

func TestHealthOfACluster(t *testing.T) {
	f := func(change func(*Survey), check string, level Level, want string) {
		t.Helper()
		s := well()
		change(&s)
		expect(t, find(t, s.Findings(), check, ""), level, want)
	}
	silent := func(names ...string) func(*Survey) {
		return func(s *Survey) {
			for i := range s.Members {
				if m := &s.Members[i]; slices.Contains(names, m.Name) {
					*m = Member{Endpoint: m.Endpoint, Name: m.Name, ID: m.ID, Err: errors.New("connection refused")}
				}
			}
		}
	}

	// nothing is wrong
	f(func(*Survey) {}, "members", OK, "all of 3 voting members answer, and one may be lost")
	f(func(*Survey) {}, "leader", OK, "all follow b")
	f(func(*Survey) {}, "versions", OK, "3.6.1")
	f(func(*Survey) {}, "alarms", OK, "no alarms")
	// one member is gone, then two, then all
	f(silent("c"), "members", Warning, "2 of 3 voting members answer, and none may be lost: c (http://c): connection refused")
	f(silent("b", "c"), "members", Failure, "1 of 3 voting members answer, and 2 are a majority")
	f(silent("a", "b", "c"), "members", Failure, "no member answers")
	// a learner does not vote
	f(func(s *Survey) { s.Members[2].Learner = true; s.Voters = 2 }, "members", Warning, "all of 2 voting members answer, and none may be lost")
	// an endpoint given that leads nowhere is no member when all members are known
	f(func(s *Survey) {
		s.Members = append(s.Members, Member{Endpoint: "http://old", Err: errors.New("refused")})
	}, "members", OK, "all of 3")
	// one member, an even number, and a list that cannot be had
	f(func(s *Survey) { s.Members, s.Voters = s.Members[:1], 1 }, "members", Warning, "there is one member")
	f(func(s *Survey) { s.Voters = 2; s.Members = s.Members[:2] }, "members", Warning, "none may be lost")
	f(func(s *Survey) { s.ListErr = errors.New("denied") }, "members", Warning, "cannot tell whether these are all")
	// two endpoints lead to one member
	f(func(s *Survey) { s.Members = append(s.Members, s.Members[0]) }, "members", OK, "all of 3")
	// members of two clusters
	f(func(s *Survey) { s.Members[1].Cluster = 8 }, "cluster", Failure, "http://a and http://b are members of different clusters")
	// no leader, another leader, another term
	f(func(s *Survey) { s.Members[2].Leader = 0 }, "leader", Failure, "c (http://c) knows no leader")
	f(func(s *Survey) { s.Members[2].Leader = 1 }, "leader", Warning, "follows a in term 4")
	f(func(s *Survey) { s.Members[2].Term = 5 }, "leader", Warning, "in term 5")
	// versions: too old, just new enough, mixed, unheard of
	f(func(s *Survey) { s.Members[0].Version = "3.3.27" }, "versions", Failure, "runs etcd 3.3.27, want 3.4 or newer")
	f(func(s *Survey) {
		s.Members[0].Version, s.Members[1].Version, s.Members[2].Version = "3.4.0", "3.4.0", "3.4.0"
	}, "versions", OK, "3.4.0")
	f(func(s *Survey) { s.Members[0].Version = "3.5.9" }, "versions", Warning, "runs etcd 3.5.9, and b (http://b) runs 3.6.1")
	f(func(s *Survey) { s.Members, s.Members[0].Version = s.Members[:1], "next" }, "versions", OK, "next")
	// alarms
	f(func(s *Survey) { s.Alarms = []Alarm{{1, "a", AlarmNoSpace}} }, "alarms", Failure, "NOSPACE by a: the store has reached its quota")
	f(func(s *Survey) { s.Alarms = []Alarm{{1, "a", AlarmNoSpace}, {2, "b", AlarmCorrupt}} }, "alarms", Failure, "alarm: NOSPACE by a, CORRUPT by b")
	f(func(s *Survey) { s.AlarmErr = errors.New("cannot list the alarms: denied") }, "alarms", Warning, "denied")
	// entries behind: at each threshold and just before it
	f(func(s *Survey) { s.Members[0].Applied = 9000 - behind + 1 }, "replication", OK, "followed to entry")
	f(func(s *Survey) { s.Members[0].Applied = 9000 - behind }, "replication", Warning, "is 1000 entries behind")
	f(func(s *Survey) { s.Members[0].Applied = 9000 - farBehind + 1 }, "replication", Warning, "4999")
	f(func(s *Survey) { s.Members[0].Applied = 9000 - farBehind }, "replication", Failure, "5000")
	// one that is ahead of what others said a moment ago is not behind
	f(func(s *Survey) { s.Members[0].Applied = 9002 }, "replication", OK, "")
	// space: at each threshold and just before it
	f(func(s *Survey) { s.Members[0].Size, s.Members[0].InUse, s.Members[0].Quota = 799, 700, 1000 }, "space", OK, "takes 799 B of its quota")
	f(func(s *Survey) { s.Members[0].Size, s.Members[0].InUse, s.Members[0].Quota = 800, 800, 1000 }, "space", Warning, "80 % of its quota")
	f(func(s *Survey) { s.Members[0].Size, s.Members[0].InUse, s.Members[0].Quota = 949, 900, 1000 }, "space", Warning, "95 % of its quota")
	f(func(s *Survey) { s.Members[0].Size, s.Members[0].InUse, s.Members[0].Quota = 950, 900, 1000 }, "space", Failure, "95 % of its quota")
	f(func(s *Survey) { s.Members, s.Members[0].Quota = s.Members[:1], 0 }, "space", OK, "does not say its quota")
	// fragmentation: a share and a number of bytes must both be passed
	f(func(s *Survey) { s.Members[0].Size, s.Members[0].InUse = 300*mib, 166*mib }, "fragmentation", OK, "134.0 MiB of air in 300.0 MiB (45 %)")
	f(func(s *Survey) { s.Members[0].Size, s.Members[0].InUse = 300*mib, 165*mib }, "fragmentation", Warning, "135.0 MiB of air in 300.0 MiB (45 %)")
	f(func(s *Survey) { s.Members[0].Size, s.Members[0].InUse = 110*mib, 10*mib+1 }, "fragmentation", OK, "(91 %)")
	f(func(s *Survey) { s.Members[0].Size, s.Members[0].InUse = 110*mib, 10*mib }, "fragmentation", Warning, "(91 %)")
}

// What is in use decides what helps against a store that is nearly full.
func TestNextStepWhenNearlyFull(t *testing.T) {
	f := func(inUse int64, want string) {
		t.Helper()
		s := well()
		s.Members[0].Size, s.Members[0].InUse, s.Members[0].Quota = 900, inUse, 1000
		if got := find(t, s.Findings(), "space", "").Next; !strings.Contains(got, want) {
			t.Errorf("%d in use: got %q, want %q", inUse, got, want)
		}
	}

	// air, which defragmenting removes
	f(300, "etcd-defrag")
	// data
	f(850, "--quota-backend-bytes")
}

func facts() Facts {
	return Facts{
		Now: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), Service: "orders",
		Endpoints: []Endpoint{{URL: "http://127.0.0.1:1", Connect: time.Millisecond}, {URL: "http://127.0.0.1:2", Connect: time.Millisecond}},
		Latencies: []time.Duration{time.Millisecond, time.Millisecond},
		Survey:    well(), Access: Access{User: "orders", Login: LoginOn, WritePolicy: rpctypes.ErrPermissionDenied, Written: time.Millisecond, Roles: []string{"sidecar"}},
	}
}

func TestConnections(t *testing.T) {
	f := func(change func(*Facts), check string, level Level, want string) {
		t.Helper()
		facts := facts()
		change(&facts)
		expect(t, find(t, facts.Findings(), check, ""), level, want)
	}
	refused := errors.New("cannot connect: connection refused")

	f(func(*Facts) {}, "connection", OK, "connected in 1ms")
	// one of two does not answer, then both
	f(func(x *Facts) { x.Endpoints[0].Err = refused }, "connection", Warning, "http://127.0.0.1:1: cannot connect: connection refused")
	f(func(x *Facts) { x.Endpoints[0].Err, x.Endpoints[1].Err = refused, refused }, "connection", Failure, "refused")
	// plain text matters where others can read along
	f(func(x *Facts) { x.Endpoints[0].URL = "http://etcd:2379" }, "encryption", Warning, "neither passwords nor policies are encrypted")
	// latency: at each threshold and just past it
	f(func(x *Facts) { x.Latencies[0] = slowRead }, "latency", OK, "takes 100ms")
	f(func(x *Facts) { x.Latencies[0] = slowRead + time.Millisecond }, "latency", Warning, "takes 101ms, want under 100ms")
	f(func(x *Facts) { x.Latencies[0] = verySlowRead }, "latency", Warning, "takes 1s")
	f(func(x *Facts) { x.Latencies[0] = verySlowRead + time.Second }, "latency", Failure, "takes 2s")
	f(func(x *Facts) { x.Latencies[0] = 0 }, "latency", Warning, "does not come back")
	// clocks: only what is certain counts
	f(func(x *Facts) { x.Endpoints[0].Clock = Offset{-400 * time.Millisecond, 700 * time.Millisecond} }, "clock", OK, "in step")
	f(func(x *Facts) { x.Endpoints[0].Clock = Offset{clockApart, clockApart + time.Second} }, "clock", OK, "in step")
	f(func(x *Facts) { x.Endpoints[0].Clock = Offset{clockApart + time.Second, 4 * time.Second} }, "clock", Warning, "at least 3s ahead of ours")
	f(func(x *Facts) { x.Endpoints[0].Clock = Offset{-5 * time.Second, -4 * time.Second} }, "clock", Warning, "at least 4s behind ours")
	f(func(x *Facts) { x.Endpoints[0].Clock = Offset{-2 * time.Minute, -clockWrong} }, "clock", Warning, "1m behind")
	f(func(x *Facts) { x.Endpoints[0].Clock = Offset{-2 * time.Hour, -clockWrong - time.Second} }, "clock", Failure, "behind ours")
	f(func(x *Facts) { x.Endpoints[0].ClockErr = errors.New("no answer in time") }, "clock", OK, "not known: no answer in time")
	// options that nobody can use
	f(func(x *Facts) { x.SetupErr = errors.New("cannot read ca.pem") }, "files", Failure, "cannot read ca.pem")
	// a login that is refused, and a cluster that says nothing
	f(func(x *Facts) { x.ClientErr = rpctypes.ErrAuthFailed }, "login", Failure, "etcd refuses our login")
	f(func(x *Facts) { x.ClientErr, x.Access.User = rpctypes.ErrUserEmpty, "" }, "login", Failure, "nobody logs in")
	f(func(x *Facts) { x.ClientErr = errors.New("deadline exceeded") }, "answer", Failure, "does not answer")
}

// What could not be looked at is not well.
func TestNothingIsWellUnseen(t *testing.T) {
	f := func(change func(*Facts), want string) {
		t.Helper()
		facts := facts()
		change(&facts)
		for _, c := range []Category{Connection, Etcd, Permissions} {
			of := slices.DeleteFunc(facts.Findings(), func(f Finding) bool { return f.Category != c })
			if len(of) == 0 || (Worst(of) == OK) != (want == "") {
				t.Errorf("%q: %s: got %+v", want, c, of)
			}
			for _, f := range of {
				if f.Check == "looked at" {
					expect(t, f, Failure, want)
				}
			}
		}
	}

	f(func(*Facts) {}, "")
	f(func(x *Facts) { *x = Facts{SetupErr: errors.New("no such file")} }, "could not be looked at: no such file")
	f(func(x *Facts) {
		*x = Facts{Endpoints: []Endpoint{{URL: "http://a", Err: errors.New("connection refused")}}}
	}, "could not be looked at: no endpoint can be reached")
}

func TestPermissions(t *testing.T) {
	f := func(change func(*Facts), check string, level Level, want string) {
		t.Helper()
		facts := facts()
		change(&facts)
		expect(t, find(t, facts.Findings(), check, ""), level, want)
	}

	f(func(*Facts) {}, "login", OK, "orders is logged in, with the role sidecar")
	f(func(x *Facts) { x.Access = Access{} }, "login", OK, "nobody logs in")
	f(func(x *Facts) { x.Access.Login = LoginOff }, "login", Warning, "whoever reaches it may change every limit")
	f(func(*Facts) {}, "read policies", OK, "may read policies")
	f(func(x *Facts) { x.Access.ReadPolicy = rpctypes.ErrPermissionDenied }, "read policies", Failure, "may not read policies")
	f(func(x *Facts) { x.Access.WriteMember = rpctypes.ErrPermissionDenied }, "register a sidecar", Failure, "may not register")
	f(func(x *Facts) { x.Access.WriteMember = rpctypes.ErrNoSpace }, "register a sidecar", Failure, "no space left")
	f(func(x *Facts) { x.Access.WriteMember = errors.New("no answer in time") }, "register a sidecar", Failure, "cannot register a sidecar: no answer")
	// without a service it cannot be told where it would write
	f(func(x *Facts) { x.Service, x.Access.WriteMember = "", rpctypes.ErrPermissionDenied }, "register a sidecar", Warning, "no service is named")
	f(func(*Facts) {}, "change policies", OK, "may not change policies, as is right")
	f(func(x *Facts) { x.Access.WritePolicy = nil }, "change policies", OK, "may change policies")
	f(func(*Facts) {}, "write", OK, "takes 1ms")
}

func TestCertificates(t *testing.T) {
	now := facts().Now
	valid := func(left time.Duration) Certificate {
		return Certificate{Subject: "CN=etcd", Begins: now.AddDate(-1, 0, 0), Expires: now.Add(left)}
	}
	const day = 24 * time.Hour
	f := func(change func(*Facts), check string, level Level, want string) {
		t.Helper()
		facts := facts()
		facts.Endpoints[0].URL, facts.Endpoints[0].Chain = "https://etcd:2379", []Certificate{valid(300 * day)}
		change(&facts)
		expect(t, find(t, facts.Findings(), check, ""), level, want)
	}

	// at each threshold and past it
	f(func(*Facts) {}, "expiry", OK, "https://etcd:2379 shows the certificate CN=etcd: valid for 300 days")
	f(func(x *Facts) { x.Endpoints[0].Chain[0] = valid(expiresSoon) }, "expiry", OK, "valid for 30 days")
	f(func(x *Facts) { x.Endpoints[0].Chain[0] = valid(expiresSoon - time.Second) }, "expiry", Warning, "expires in 30 days, on 2026-05-30")
	f(func(x *Facts) { x.Endpoints[0].Chain[0] = valid(time.Second) }, "expiry", Warning, "expires in 1s")
	f(func(x *Facts) { x.Endpoints[0].Chain[0] = valid(0) }, "expiry", Failure, "expired 0s ago, on 2026-05-01")
	// not seen, since the member does not answer
	f(func(x *Facts) { x.Endpoints[0].Chain = nil }, "expiry", Warning, "https://etcd:2379: its certificate could not be seen")
	f(func(x *Facts) {
		x.Endpoints = x.Endpoints[:1]
		x.Endpoints[0].Chain, x.Endpoints[0].Err = nil, errors.New("refused")
	}, "expiry", Failure, "could not be seen")
	// not valid yet
	f(func(x *Facts) { x.Endpoints[0].Chain[0].Begins = now.Add(time.Hour) }, "expiry", Failure, "not valid before 2026-05-01T01:00:00Z")
	// the one of the chain that expires first counts
	f(func(x *Facts) { x.Endpoints[0].Chain = append(x.Endpoints[0].Chain, valid(day)) }, "expiry", Warning, "expires in 24 hours")
	// another reason not to believe it, and one that is told already
	f(func(x *Facts) { x.Endpoints[0].Distrust = errors.New("signed by unknown authority") }, "trust", Failure, "signed by unknown authority")
	f(func(x *Facts) { x.Endpoints[0].Chain[0], x.Endpoints[0].Distrust = valid(-day), errors.New("expired") }, "expiry", Failure, "expired")
	// our own files
	f(func(x *Facts) {
		x.Files = []File{{Path: "tls.crt", Holds: "our certificate", Certificate: valid(2 * day)}}
	}, "expiry", Warning, "our certificate, CN=etcd in tls.crt: expires in 2 days")
	f(func(x *Facts) {
		x.Files = []File{{Path: "tls.crt", Holds: "our certificate", Err: errors.New("no such file")}}
	}, "expiry", Failure, "our certificate: no such file")
}

func TestPlan(t *testing.T) {
	fragmented := func() Survey {
		s := well()
		for i := range s.Members {
			s.Members[i].Size, s.Members[i].InUse = 400*mib, 100*mib
		}
		return s
	}
	f := func(change func(*Survey), want string) {
		t.Helper()
		s := fragmented()
		change(&s)
		plan, err := PlanDefrag(s, DefaultNeed())
		var got []string
		for _, step := range plan {
			word := step.Member.Name
			if step.Skip != "" {
				word += ": " + step.Skip
			}
			got = append(got, word)
		}
		if err != nil {
			got = append(got, err.Error())
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
		}
	}
	const no = "the cluster is not well enough to defragment a member: "

	// the leader is last
	f(func(*Survey) {}, "a, c, b")
	// in the order of names, not of endpoints; a member that two endpoints lead to comes once
	f(func(s *Survey) { slices.Reverse(s.Members); s.Members = append(s.Members, s.Members[0]) }, "a, c, b")
	// what is not worth it is left out, learners too
	f(func(s *Survey) { s.Members[0].InUse = 399 * mib }, "a: 1.0 MiB of air (0 %) is not worth it, c, b")
	f(func(s *Survey) { s.Members[2].Learner = true }, "a, c: a learner, which gets the store of the others when it is promoted, b")
	// nothing is touched unless all are well
	f(func(s *Survey) { s.Members[2].Err = errors.New("refused") }, no+"c (http://c) does not answer: refused")
	f(func(s *Survey) { s.Members[2].Leader = 0 }, no+"c (http://c) knows no leader")
	f(func(s *Survey) { s.Members[2].Leader = 1 }, no+"the members do not agree on a leader: a (http://a) follows b in term 4, c (http://c) follows a in term 4")
	f(func(s *Survey) { s.Members[2].Applied -= behind }, no+"c (http://c) is 1000 entries behind, want under 1000")
	f(func(s *Survey) { s.Members[2].Cluster = 9 }, no+"http://a and http://c are members of different clusters")
	f(func(s *Survey) { s.ListErr = errors.New("cannot list the members: denied") }, no+"cannot list the members: denied")
	f(func(s *Survey) { s.AlarmErr = errors.New("cannot list the alarms: denied") }, no+"cannot list the alarms: denied")
	f(func(s *Survey) { s.Alarms = []Alarm{{1, "a", AlarmCorrupt}} }, no+"a has raised the alarm CORRUPT")
	f(func(s *Survey) { s.Members = nil }, no+"no member answers")
	// but for want of space, which this mends, however little air is known of
	f(func(s *Survey) { s.Alarms = []Alarm{{1, "a", AlarmNoSpace}}; s.Members[0].InUse = 399 * mib }, "a, c, b")
	f(func(s *Survey) { s.Alarms = []Alarm{{1, "a", AlarmNoSpace}} }, "a, c, b")
}

func TestOffset(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(1_800_000_000_000 + ms) }
	f := func(date, before, after time.Time, least, most, certain time.Duration) {
		t.Helper()
		if got := offset(date, before, after); got != (Offset{least, most}) || got.Certain() != certain {
			t.Errorf("got %v, certain %v; want %v to %v, certain %v", got, got.Certain(), least, most, certain)
		}
	}

	// a second that is now
	f(at(0), at(300), at(400), -400*time.Millisecond, 700*time.Millisecond, 0)
	// one that has not begun yet, and one that is over
	f(at(5000), at(300), at(400), 4600*time.Millisecond, 5700*time.Millisecond, 4600*time.Millisecond)
	f(at(-5000), at(300), at(400), -5400*time.Millisecond, -4300*time.Millisecond, -4300*time.Millisecond)
}

func TestPlace(t *testing.T) {
	f := func(endpoint, want string) {
		t.Helper()
		network, address, err := place(endpoint)
		got := network + " " + address
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", endpoint, got, want)
		}
	}

	f("http://etcd-0:2379", "tcp etcd-0:2379")
	f("https://[::1]:2379", "tcp [::1]:2379")
	f("https://etcd", "tcp etcd:443")
	f("unix:///run/etcd.sock", "unix /run/etcd.sock")
	f("etcd:2379", `cannot use the endpoint "etcd:2379": want a URL as in https://etcd-0:2379`)
	f("http://%zz", `cannot use the endpoint "http://%zz": parse "http://%zz": invalid URL escape "%zz"`)
}

func TestBytes(t *testing.T) {
	f := func(n int64, want string) {
		t.Helper()
		if got := Bytes(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}

	f(0, "0 B")
	f(1023, "1023 B")
	f(1024, "1.0 KiB")
	f(1536*mib, "1.5 GiB")
	f(-2*mib, "-2.0 MiB")
}
