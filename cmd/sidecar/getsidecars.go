package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"weir/control/etcd"
	"weir/control/fleet"
)

// getSidecars shows the processes that read from here, and how they stand to what is there.
func (c *cli) getSidecars(ctx context.Context, client *etcd.Client, layout etcd.Layout, service, output string) error {
	members, _, err := fleet.ReadMembers(ctx, client, layout, service)
	if err != nil {
		return err
	}
	want, err := fleet.ReadWant(ctx, client, layout)
	if err != nil {
		return err
	}
	verdicts := fleet.Judge(members, want)
	inSync := fleet.Count(verdicts, fleet.StateInSync)
	if output == "json" {
		return writeJSON(c.out, sidecarList{want.Revision, inSync, shownVerdicts(verdicts)})
	}
	if len(verdicts) == 0 {
		of := ""
		if service != "" {
			of = fmt.Sprintf(" of service %q", service)
		}
		fmt.Fprintf(c.err, "no sidecar%s is registered below %s\n", of, layout.Fleets())
		return nil
	}
	paint := c.painterFor(c.out)
	t := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	head := "SERVICE\tSIDECAR\tREVISION\tVERSION\tADDRESS\tSTATE"
	if output == "wide" {
		head += "\tHASH\tSTARTED\tWRITTEN"
	}
	fmt.Fprintln(t, head)
	for _, v := range verdicts {
		revision := "none"
		if here := v.Member.Here(); here != nil {
			revision = fmt.Sprint(here.Revision)
		}
		cells := []string{v.Member.Service, v.Member.ID, revision, v.Member.Version, v.Member.Location(), stateWords(paint, v)}
		if output == "wide" {
			cells = append(cells, oneLine(v.Member.Hash[:min(12, len(v.Member.Hash))]), v.Member.Started.Format(time.RFC3339), v.Member.At.Format(time.RFC3339))
		}
		for i := range cells[:5] {
			cells[i] = oneLine(cells[i])
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("cannot write the sidecars: %w", err)
	}
	with := fmt.Sprintf("revision %d", want.Revision)
	if want.Revision == 0 {
		with = "a store that has no documents"
	}
	_, err = fmt.Fprintf(c.out, "%d of %d in sync with %s\n", inSync, len(verdicts), with)
	return err
}

// sidecarList is what -o json prints.
type sidecarList struct {
	Revision int64          `json:"revision"` // of the latest change of documents
	InSync   int            `json:"inSync"`
	Sidecars []shownSidecar `json:"sidecars"`
}

// shownSidecar is what a sidecar tells of itself, and how it stands.
type shownSidecar struct {
	fleet.Member
	State   fleet.State `json:"state"`
	Reasons []string    `json:"reasons,omitempty"`
}

func shownVerdicts(verdicts []fleet.Verdict) []shownSidecar {
	shown := make([]shownSidecar, 0, len(verdicts))
	for _, v := range verdicts {
		shown = append(shown, shownSidecar{v.Member, v.State, v.Reasons})
	}
	return shown
}

// stateWords say how a sidecar stands, and why.
func stateWords(paint painter, v fleet.Verdict) string {
	words := strings.ReplaceAll(string(v.State), "_", " ")
	if len(v.Reasons) > 0 {
		words = oneLine(words + ": " + strings.Join(v.Reasons, "; "))
	}
	switch v.State {
	case fleet.StateInSync:
		return paint.green(words)
	case fleet.StateBehind:
		return paint.yellow(words)
	default:
		return paint.red(words)
	}
}
