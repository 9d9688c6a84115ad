package control

import (
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
)

// SyncStatus is what /status of `sidecar sync` shows.
type SyncStatus struct {
	// Distribution is the document's name, and Source where it takes documents from.
	Distribution string `json:"distribution"`
	Source       string `json:"source"`
	// Revision is the source's, up to which it was read. 0: not yet.
	Revision  int64 `json:"revision"`
	Documents int   `json:"documents"`
	// Error says why the source cannot be read now. The clusters keep what they have.
	Error string `json:"error,omitempty"`
	// Problems are documents of the source that are not distributed, each with the reason.
	Problems []string      `json:"problems"`
	Clusters []SyncCluster `json:"clusters"`
}

// SyncCluster is how a cluster is that gets documents.
type SyncCluster struct {
	Name string `json:"name"`
	// Place is where its documents are: endpoints and prefix.
	Place string `json:"place"`
	// State is starting, in_step, behind, drifted, held, yielded, unreachable or failing; Since is when it became so.
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Applied is the source's revision with which the cluster was in step last, and Revision the cluster's own.
	Applied   int64 `json:"applied"`
	Revision  int64 `json:"revision"`
	Documents int   `json:"documents"`
	// LagSeconds is how long the latest change took from when it was seen at the source until it was written at the cluster.
	// BehindSeconds is for how long a change has been waiting now.
	LagSeconds    float64 `json:"lagSeconds"`
	BehindSeconds float64 `json:"behindSeconds"`
	// DriftFound and DriftRepaired count documents that others wrote, deleted or added at the cluster.
	DriftFound    int `json:"driftFound"`
	DriftRepaired int `json:"driftRepaired"`
	// Reason says why it is not in step.
	Reason string `json:"reason,omitempty"`
	// Differences are what would be written, each in words, where nothing is.
	Differences []string `json:"differences,omitempty"`
	// Problems are documents that the cluster does not get, each with the reason.
	Problems []string `json:"problems,omitempty"`
}

// Text is the status for people.
func (s *SyncStatus) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s, revision %d, %d documents\n", s.Distribution, s.Source, s.Revision, s.Documents)
	if s.Error != "" {
		fmt.Fprintf(&b, "the source cannot be read, clusters keep what they have: %s\n", s.Error)
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CLUSTER\tSTATE\tSINCE\tAPPLIED\tDOCUMENTS\tLAG\tBEHIND\tDRIFT\tREASON")
	for i := range s.Clusters {
		c := &s.Clusters[i]
		drift := "0"
		if c.DriftFound > 0 {
			drift = fmt.Sprintf("%d, %d repaired", c.DriftFound, c.DriftRepaired)
		}
		reason := c.Reason
		if reason == "" {
			reason = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n",
			c.Name, c.State, stamp(c.Since), c.Applied, c.Documents, seconds(c.LagSeconds), seconds(c.BehindSeconds), drift, reason)
	}
	_ = t.Flush()
	for i := range s.Clusters {
		for _, d := range s.Clusters[i].Differences {
			fmt.Fprintf(&b, "%s: %s\n", s.Clusters[i].Name, d)
		}
		for _, p := range s.Clusters[i].Problems {
			fmt.Fprintf(&b, "%s: %s\n", s.Clusters[i].Name, p)
		}
	}
	for _, p := range s.Problems {
		fmt.Fprintf(&b, "not distributed: %s\n", p)
	}
	return b.String()
}

// seconds is a duration for people, to the millisecond.
func seconds(s float64) string {
	if s == 0 {
		return "-"
	}
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

func (a *admin) syncStatus(w http.ResponseWriter, r *http.Request) {
	s := a.o.Sync()
	if wantsJSON(r) {
		s.Problems = orEmpty(s.Problems)
		s.Clusters = orEmpty(s.Clusters)
		writeJSON(w, http.StatusOK, s)
		return
	}
	writeText(w, http.StatusOK, s.Text())
}
