package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"weir/control"
	"weir/control/etcd"
	"weir/control/etcd/care"
	"weir/control/fleet"
	"weir/policy"
)

// The pages that findings about policies and fleets lead to.
const (
	policiesPage = "docs/policies-from-etcd.md"
	fleetPage    = "docs/fleet.md"
)

// maxListed bounds how many problems of one sort are listed one by one.
const maxListed = 5

// storeFacts are what is in etcd about policies and sidecars.
type storeFacts struct {
	now        time.Time
	version    string // of this program
	service    string
	layout     etcd.Layout
	documents  etcd.Documents
	want       fleet.Want // what these ask of sidecars
	err        error      // they cannot be read
	local      []control.File
	members    []fleet.Member
	membersErr error
}

// lookAtStore reads documents and members, and judges them.
func lookAtStore(ctx context.Context, o checkOptions, local []control.File) (policies, members []care.Finding) {
	f := storeFacts{now: time.Now(), version: readBuild().Version, service: o.service, layout: o.etcd.layout(), local: local}
	client, err := etcd.Open(o.etcd.options())
	if err != nil {
		f.err, f.membersErr = err, err
		return f.policies(), f.fleet()
	}
	defer client.Close()
	var reading sync.WaitGroup
	reading.Go(func() {
		var view etcd.View
		if view, f.err = client.Read(ctx, f.layout.Policy(), 0); f.err == nil {
			f.documents, f.want = etcd.DocumentsOf(f.layout, view), fleet.WantOf(f.layout, view)
		}
	})
	reading.Go(func() { f.members, _, f.membersErr = fleet.ReadMembers(ctx, client, f.layout, o.service) })
	reading.Wait()
	return f.policies(), f.fleet()
}

func finding(level care.Level, category care.Category, check, of, next, page, message string) care.Finding {
	return care.Finding{Category: category, Check: check, Of: of, Level: level, Message: message, Next: next, Page: page}
}

// unread is the finding that something in etcd cannot be read.
func unread(category care.Category, what string, err error) care.Finding {
	next := "See what fails about the connection; 'sidecar check --only connection,etcd' tells more."
	if etcd.Denied(err) {
		next = "Grant the user's role to read below the prefix."
	}
	return finding(care.Failure, category, "read", "", next, policiesPage, fmt.Sprintf("cannot read the %s: %v", what, err))
}

// policies judges the documents.
func (f *storeFacts) policies() []care.Finding {
	if f.err != nil {
		return []care.Finding{unread(care.Policies, "documents", f.err)}
	}
	var list []care.Finding
	for _, key := range f.documents.Strange {
		list = append(list, finding(care.Warning, care.Policies, "keys", key, "Delete the key: sidecars pass over it.", policiesPage,
			fmt.Sprintf("the key %s is not of a document", key)))
	}
	var texts []control.File
	var problems []policy.Problem
	for _, s := range f.documents.Stored {
		problems = append(problems, s.Problems...)
		texts = append(texts, control.File{Path: fmt.Sprintf("etcd:%s/%s", s.Kind, s.Name), Data: []byte(s.Text)})
	}
	switch {
	case len(texts) == 0:
		return append(list, finding(care.Warning, care.Policies, "documents", "", "Write some with 'sidecar apply -f policies/', or name another --prefix.", policiesPage,
			"no documents lie below "+f.layout.Policy()))
	case len(problems) > 0: // what is together with them cannot be told
		return append(list, listed(problems, care.Failure, "Correct the document and apply it. Sidecars keep the last good version.")...)
	}
	return append(list, f.together(texts)...)
}

// together judges what documents say together. That is certain only with those that sidecars have besides.
func (f *storeFacts) together(texts []control.File) []care.Finding {
	x := examine(slices.Concat(texts, f.local), f.service)
	if x.errors == 0 {
		message := fmt.Sprintf("%s at revision %d, and valid together", count(len(texts), "document is there", "documents are there"), f.documents.Revision)
		return append([]care.Finding{finding(care.OK, care.Policies, "documents", "", "", "", message)}, listed(x.problems, care.Failure, "")...)
	}
	if len(f.local) == 0 {
		return listed(x.problems, care.Warning, "It is well if each sidecar has what is missing in its own files: name those with -f. Otherwise apply it, too.")
	}
	return listed(x.problems, care.Failure, "Correct the document and apply it. Sidecars keep the last good version.")
}

// listed are findings of the first problems of documents; errors are of that level, with that to do next.
func listed(problems []policy.Problem, level care.Level, next string) []care.Finding {
	var list []care.Finding
	for i, p := range problems {
		if i == maxListed {
			return append(list, finding(care.Warning, care.Policies, "documents", "", "Read them all with 'sidecar export' and 'sidecar validate'.", policiesPage,
				fmt.Sprintf("there are %d more problems in documents", len(problems)-maxListed)))
		}
		if p.Severity == policy.Warning {
			list = append(list, finding(care.Warning, care.Policies, "documents", p.Origin.File, "See whether it is meant so.", policiesPage, p.String()))
		} else {
			list = append(list, finding(level, care.Policies, "documents", p.Origin.File, next, policiesPage, p.String()))
		}
	}
	return list
}

// fleet judges the sidecars.
func (f *storeFacts) fleet() []care.Finding {
	if f.membersErr != nil {
		return []care.Finding{unread(care.Fleet, "sidecars", f.membersErr)}
	}
	if len(f.members) == 0 {
		whose := ""
		if f.service != "" {
			whose = " of " + f.service
		}
		return []care.Finding{finding(care.Warning, care.Fleet, "members", "", "Start one with 'sidecar run --etcd', or see why it cannot register: its log says.", fleetPage,
			"no sidecar"+whose+" is registered below "+f.layout.Fleets())}
	}
	list := f.inSync()
	return append(list, f.versions(), f.clocks())
}

// inSync judges what each sidecar runs by what etcd has.
func (f *storeFacts) inSync() []care.Finding {
	var list []care.Finding
	well := 0
	for _, v := range fleet.Judge(f.members, f.want) {
		switch here := v.Member.Here(); {
		case v.State == fleet.StateInSync:
			well++
		case v.State == fleet.StateBehind && here != nil && here.Healthy:
			list = append(list, finding(care.Warning, care.Fleet, "in sync", v.Member.ID, "Wait a moment and check again, or use --wait.", fleetPage, v.String()))
		case v.State == fleet.StateBehind:
			list = append(list, finding(care.Failure, care.Fleet, "in sync", v.Member.ID, "Run 'sidecar check' where it runs, and read its log.", fleetPage, v.String()))
		default:
			list = append(list, finding(care.Failure, care.Fleet, "in sync", v.Member.ID, "Look at /policy/problems on its admin port. A restart applies what etcd has.", fleetPage, v.String()))
		}
	}
	all := count(len(f.members), "sidecar runs", "sidecars run")
	message := fmt.Sprintf("%d of %s what etcd has at revision %d", well, all, f.want.Revision)
	return append([]care.Finding{finding(care.OK, care.Fleet, "members", "", "", "", message)}, list...)
}

// versions sees that all sidecars are of one version.
func (f *storeFacts) versions() care.Finding {
	of := make(map[string][]string)
	for _, m := range f.members {
		version := cmp.Or(m.Version, unknown)
		of[version] = append(of[version], m.ID)
	}
	if len(of) == 1 {
		return finding(care.OK, care.Fleet, "versions", "", "", "", fmt.Sprintf("all run %s; this is %s", cmp.Or(f.members[0].Version, unknown), f.version))
	}
	var parts []string
	for version, ids := range of {
		slices.Sort(ids)
		parts = append(parts, fmt.Sprintf("%s run %s (as %s)", count(len(ids), "sidecar", "sidecars"), version, ids[0]))
	}
	slices.Sort(parts)
	return finding(care.Warning, care.Fleet, "versions", "", "Finish the upgrade.", fleetPage, strings.Join(parts, ", "))
}

// clockAhead is how far ahead the clock of a sidecar may be. How far one is behind cannot be told: its record may be old.
const clockAhead = 2 * time.Second

// clocks sees that no sidecar writes from the future.
func (f *storeFacts) clocks() care.Finding {
	ahead, who := time.Duration(0), ""
	for _, m := range f.members {
		if by := m.At.Sub(f.now); by > ahead {
			ahead, who = by, m.ID
		}
	}
	if ahead <= clockAhead {
		return finding(care.OK, care.Fleet, "clocks", "", "", "", "no sidecar's clock is ahead of ours")
	}
	return finding(care.Warning, care.Fleet, "clocks", who, "Let NTP or chrony run where it runs, and here.", fleetPage,
		fmt.Sprintf("the clock of %s is at least %s ahead of ours", who, ahead.Round(time.Second)))
}
