package care

import (
	"fmt"
	"strconv"
	"strings"
)

// The oldest etcd that Weir works with.
const oldestMajor, oldestMinor = 3, 4

// Findings judges a cluster: members, leader, versions, space, fragmentation, alarms. It is pure.
func (s Survey) Findings() []Finding {
	list := []Finding{s.members()}
	answering := s.answering()
	if len(answering) == 0 {
		return list
	}
	if f, apart := oneCluster(answering); apart {
		return append(list, f)
	}
	list = append(list, leader(answering), versions(answering), s.alarms())
	for _, m := range answering {
		list = append(list, followed(m, answering), space(m), fragmentation(m))
	}
	return list
}

// members judges how many of the members answer.
func (s Survey) members() Finding {
	var silent []string
	answering, voting := 0, 0
	for _, m := range s.Distinct() {
		if m.Err != nil {
			silent = append(silent, fmt.Sprintf("%s: %v", m.Called(), m.Err))
			continue
		}
		answering++
		if !m.Learner {
			voting++
		}
	}
	const check, next = "members", "Start the member, or remove it with 'etcdctl member remove' when it will not come back."
	who := strings.Join(silent, "; ")
	majority := s.Voters/2 + 1
	switch {
	case answering == 0:
		return bad(Failure, Etcd, check, "", "See what fails above. Sidecars go on with what they have.", checkPage, "no member answers: %s", who)
	case s.ListErr != nil:
		return bad(Warning, Etcd, check, "", "Whoever checks needs no more than to be logged in.", checkPage, "cannot tell whether these are all members: %v", s.ListErr)
	case voting < majority:
		return bad(Failure, Etcd, check, "", "Start members until a majority is back: until then nothing can be written, nor read for certain. Sidecars go on with what they have.", checkPage,
			"%d of %d voting members answer, and %d are a majority: %s", voting, s.Voters, majority, who)
	case len(silent) > 0:
		more := voting - majority
		return bad(Warning, Etcd, check, "", next, checkPage, "%d of %d voting members answer, and %s: %s", voting, s.Voters, spare(more), who)
	case s.Voters == 1:
		return bad(Warning, Etcd, check, "", "Run three members where policies must change at any time. Sidecars go on without etcd.", checkPage, "there is one member: when it stops, nothing can be changed")
	case s.Voters%2 == 0:
		return bad(Warning, Etcd, check, "", "Add or remove one: an even number bears no more losses than one member less.", checkPage, "all of %d voting members answer, and %s", s.Voters, spare(s.Voters-majority))
	}
	return good(Etcd, check, "", "all of %d voting members answer, and %s", s.Voters, spare(s.Voters-majority))
}

// spare says how many members may be lost.
func spare(n int) string {
	switch n {
	case 0:
		return "none may be lost"
	case 1:
		return "one may be lost"
	}
	return fmt.Sprintf("%d may be lost", n)
}

// oneCluster sees that the endpoints lead to one cluster.
func oneCluster(members []Member) (Finding, bool) {
	for _, m := range members {
		if m.Cluster != members[0].Cluster {
			return bad(Failure, Etcd, "cluster", "", "Name the endpoints of one cluster only.", checkPage, "%s and %s are members of different clusters", members[0].Endpoint, m.Endpoint), true
		}
	}
	return Finding{}, false
}

// leader sees that the members follow one.
func leader(members []Member) Finding {
	const check, next = "leader", "Wait a moment and check again. When it stays so, look at the network between the members, and at their disks."
	first := members[0]
	for _, m := range members {
		switch {
		case m.Leader == 0:
			return bad(Failure, Etcd, check, "", next, checkPage, "%s knows no leader", m.Called())
		case m.Leader != first.Leader || m.Term != first.Term:
			return bad(Warning, Etcd, check, "", next, checkPage, "the members do not agree on a leader: %s follows %s in term %d, %s follows %s in term %d",
				first.Called(), called(members, first.Leader), first.Term, m.Called(), called(members, m.Leader), m.Term)
		}
	}
	return good(Etcd, check, "", "all follow %s", called(members, first.Leader))
}

// versions sees that members are new enough and alike.
func versions(members []Member) Finding {
	const check = "versions"
	for _, m := range members {
		major, minor, ok := parseVersion(m.Version)
		if ok && (major < oldestMajor || major == oldestMajor && minor < oldestMinor) {
			return bad(Failure, Etcd, check, "", "Upgrade etcd, one minor version at a time.", checkPage, "%s runs etcd %s, want %d.%d or newer", m.Called(), m.Version, oldestMajor, oldestMinor)
		}
	}
	first := members[0]
	for _, m := range members[1:] {
		if m.Version != first.Version {
			return bad(Warning, Etcd, check, "", "Finish the upgrade.", checkPage, "%s runs etcd %s, and %s runs %s", first.Called(), first.Version, m.Called(), m.Version)
		}
	}
	return good(Etcd, check, "", "all run etcd %s", first.Version)
}

// parseVersion reads the first two numbers of a version.
func parseVersion(version string) (major, minor int, ok bool) {
	a, rest, found := strings.Cut(version, ".")
	b, _, _ := strings.Cut(rest, ".")
	major, errMajor := strconv.Atoi(a)
	minor, errMinor := strconv.Atoi(b)
	return major, minor, found && errMajor == nil && errMinor == nil
}

// alarms judges what the cluster has raised.
func (s Survey) alarms() Finding {
	const check = "alarms"
	if s.AlarmErr != nil {
		return bad(Warning, Etcd, check, "", "Whoever checks needs to be logged in.", checkPage, "%v", s.AlarmErr)
	}
	var raised []string
	full, other := false, false
	for _, a := range s.Alarms {
		raised = append(raised, a.Kind+" by "+a.Name)
		full = full || a.Kind == AlarmNoSpace
		other = other || a.Kind != AlarmNoSpace
	}
	all := strings.Join(raised, ", ")
	switch {
	case other:
		return bad(Failure, Etcd, check, "", "Replace the member whose store differs: remove it, empty its data directory, and add it again.", carePage+"#corrupt", "alarm: %s", all)
	case full:
		return bad(Failure, Etcd, check, "", "Compact the history, run 'sidecar etcd-defrag --disarm', and raise the quota if what is in use is near it. Sidecars go on with what they have.", spacePage,
			"alarm: %s: the store has reached its quota, and refuses every write but deletions", all)
	}
	return good(Etcd, check, "", "there are no alarms")
}

// followed judges how far a member is behind what the cluster has agreed on. Members are not asked at one moment, so a few entries mean
// nothing.
func followed(m Member, all []Member) Finding {
	const check = "replication"
	var agreed uint64
	for _, o := range all {
		agreed = max(agreed, o.Index)
	}
	lag := max(agreed, m.Applied) - m.Applied
	level := OK
	switch {
	case lag >= farBehind:
		level = Failure
	case lag >= behind:
		level = Warning
	default:
		return good(Etcd, check, m.Endpoint, "%s has followed to entry %d", m.Called(), m.Applied)
	}
	return bad(level, Etcd, check, m.Endpoint, "Look at its disk and its network; a member that has just started catches up by itself.", checkPage,
		"%s is %d entries behind, want under %d", m.Called(), lag, behind)
}

// space judges how much of its quota the store of a member takes.
func space(m Member) Finding {
	const check = "space"
	if m.Quota <= 0 {
		return good(Etcd, check, m.Endpoint, "%s takes %s; it does not say its quota, as before etcd 3.6", m.Called(), Bytes(m.Size))
	}
	share := float64(m.Size) / float64(m.Quota)
	level := OK
	switch {
	case share >= almostFull:
		level = Failure
	case share >= nearlyFull:
		level = Warning
	default:
		return good(Etcd, check, m.Endpoint, "%s takes %s of its quota of %s", m.Called(), Bytes(m.Size), Bytes(m.Quota))
	}
	next := "Raise --quota-backend-bytes of the members (8 GiB at most), or find out who writes so much."
	if float64(m.InUse) < nearlyFull*float64(m.Quota) {
		next = "Run 'sidecar etcd-defrag': what is in use is far less."
	}
	return bad(level, Etcd, check, m.Endpoint, next, spacePage, "%s takes %s, %s of its quota of %s; %s of it is in use", m.Called(), Bytes(m.Size), percent(share), Bytes(m.Quota), Bytes(m.InUse))
}

// fragmentation judges how much of the store is air.
func fragmentation(m Member) Finding {
	const check = "fragmentation"
	if !DefaultNeed().Met(m) {
		return good(Etcd, check, m.Endpoint, "%s has %s of air in %s (%s)", m.Called(), Bytes(m.Free()), Bytes(m.Size), percent(m.Fragmentation()))
	}
	return bad(Warning, Etcd, check, m.Endpoint, "Run 'sidecar etcd-defrag', or have it run now and then.", carePage+"#defragment",
		"%s has %s of air in %s (%s), want less than %s or %s", m.Called(), Bytes(m.Free()), Bytes(m.Size), percent(m.Fragmentation()),
		percent(DefaultNeed().Fragmentation), Bytes(DefaultNeed().Free))
}
