package control

import (
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
)

// Fleet is what /fleet shows of the sidecars that read their policy from one place.
type Fleet struct {
	// Source is the policy source in whose etcd the fleet is.
	Source  string `json:"source"`
	Service string `json:"service"`
	// ID is this sidecar's. Registered says that its record is up to date, and Unregistered why it is not.
	ID           string `json:"id"`
	Registered   bool   `json:"registered"`
	Unregistered string `json:"unregistered,omitempty"`
	// Coordinator is the ID of the elected member. Empty means that there is none, or that it is not known.
	Coordinator string `json:"coordinator,omitempty"`
	// Revision is that of the store at which documents were changed last.
	Revision int64 `json:"revision"`
	// InSync, Behind and Drifted count the members by state.
	InSync  int `json:"inSync"`
	Behind  int `json:"behind"`
	Drifted int `json:"drifted"`
	// ReadAt is when all of this was read. Zero means never.
	ReadAt time.Time `json:"readAt,omitzero"`
	// Age is how many seconds ago that was.
	Age float64 `json:"ageSeconds"`
	// Error says why it could not be read now; what is shown is from ReadAt then.
	Error string `json:"error,omitempty"`
	// Members are sorted by ID.
	Members []FleetMember `json:"members"`
}

// FleetMember is one sidecar, as it described itself.
type FleetMember struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Host    string `json:"host"`
	// Address is that of its admin port, as seen from its host.
	Address string    `json:"address"`
	Started time.Time `json:"started,omitzero"`
	// Revision is the store's that it has applied, Hash what it runs, and AppliedAt since when.
	Revision  int64     `json:"revision"`
	Hash      string    `json:"hash"`
	AppliedAt time.Time `json:"appliedAt,omitzero"`
	// State is in_sync, behind or drifted, and Reasons say why.
	State   string   `json:"state"`
	Reasons []string `json:"reasons,omitempty"`
	// Problems are how many it has, and FirstProblem is one of them.
	Problems     int    `json:"problems"`
	FirstProblem string `json:"firstProblem,omitempty"`
}

func (a *admin) fleet(w http.ResponseWriter, r *http.Request) {
	fleets := a.o.Fleets(r.Context())
	if wantsJSON(r) {
		for i := range fleets {
			fleets[i].Members = orEmpty(fleets[i].Members)
		}
		writeJSON(w, http.StatusOK, struct {
			Fleets []Fleet `json:"fleets"`
		}{orEmpty(fleets)})
		return
	}
	if len(fleets) == 0 {
		writeText(w, http.StatusOK, "no fleet: none of the policy sources is in etcd\n")
		return
	}
	var b strings.Builder
	for i := range fleets {
		if i > 0 {
			b.WriteByte('\n')
		}
		fleets[i].render(&b)
	}
	writeText(w, http.StatusOK, b.String())
}

// render writes a fleet for people: a sentence, and a table with a line for each member and one more for each reason.
func (f *Fleet) render(b *strings.Builder) {
	fmt.Fprintf(b, "fleet %s, by source %s: ", f.Service, f.Source)
	if f.ReadAt.IsZero() {
		b.WriteString("not known yet\n")
	} else {
		fmt.Fprintf(b, "%d of %d in sync", f.InSync, len(f.Members))
		if f.Revision > 0 { // else the store is empty, and nobody recorded how that came to be
			fmt.Fprintf(b, " at revision %d", f.Revision)
		} else {
			b.WriteString(" with a store that has no documents")
		}
		if f.Behind > 0 {
			fmt.Fprintf(b, ", %d behind", f.Behind)
		}
		if f.Drifted > 0 {
			fmt.Fprintf(b, ", %d drifted", f.Drifted)
		}
		b.WriteByte('\n')
	}
	if f.Error != "" {
		if !f.ReadAt.IsZero() {
			fmt.Fprintf(b, "this was so at %s, %.0f seconds ago; ", stamp(f.ReadAt), f.Age)
		}
		fmt.Fprintf(b, "etcd cannot be read now: %s\n", f.Error)
	}
	if !f.Registered {
		fmt.Fprintf(b, "this sidecar, %s, is not registered: %s\n", f.ID, f.Unregistered)
	}
	if len(f.Members) == 0 {
		return
	}
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tSTATE\tREVISION\tSINCE\tHASH\tVERSION\tHOST\tADMIN\tPROBLEMS")
	for i := range f.Members {
		m := &f.Members[i]
		var marks []string
		if m.ID == f.ID {
			marks = append(marks, "this one")
		}
		if m.ID == f.Coordinator {
			marks = append(marks, "coordinator")
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", m.ID, strings.ReplaceAll(m.State, "_", " "), m.Revision, stamp(m.AppliedAt),
			orDash(m.Hash[:min(len(m.Hash), 12)]), orDash(m.Version), orDash(m.Host), orDash(m.Address), m.Problems, strings.Join(marks, ", "))
	}
	_ = t.Flush()
	for i := range f.Members {
		for _, reason := range f.Members[i].Reasons {
			fmt.Fprintf(b, "%s: %s\n", f.Members[i].ID, reason)
		}
	}
}

// orDash keeps the columns of a table where they are.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
