package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"weir/control"
	"weir/control/etcd/care"
	"weir/policy"
)

const operationsPage = "docs/operations.md"

// shownStatus is what /status of the admin port shows. Problems are written for people there, so they are read as such.
type shownStatus struct {
	control.Status
	Problems []shownProblem `json:"problems"`
}

type shownProblem struct {
	Severity string `json:"severity"`
	File     string `json:"file"`
	Name     string `json:"name"`
	Message  string `json:"message"`
}

// lookAtSidecar judges the sidecar at an admin port; at the usual one when none is named, if there is one.
func lookAtSidecar(ctx context.Context, admin string) []care.Finding {
	address := cmp.Or(admin, defaultAdmin)
	text, err := askAdmin(ctx, address, "/status?o=json")
	var absent *noSidecarError
	switch {
	case errors.As(err, &absent) && admin == "":
		return []care.Finding{finding(care.OK, care.Sidecar, "answer", "", "", "", fmt.Sprintf("none answers at %s, so there is none to look at", address))}
	case err != nil:
		return []care.Finding{finding(care.Failure, care.Sidecar, "answer", address, "Start it, or name its admin port with --admin.", operationsPage, err.Error())}
	}
	var s shownStatus
	if err := json.Unmarshal(text, &s); err != nil {
		return []care.Finding{finding(care.Failure, care.Sidecar, "answer", address, "See what listens there, and name the sidecar's admin port with --admin.", operationsPage,
			fmt.Sprintf("what answers at %s is not a sidecar: %v", address, err))}
	}
	list := judgeSidecar(address, s)
	if _, err := askAdmin(ctx, address, "/readyz"); err != nil {
		list = append(list, finding(care.Failure, care.Sidecar, "ready", address, "Ask /readyz?verbose on its admin port what is missing.", operationsPage, err.Error()))
	}
	return list
}

// judgeSidecar judges the status of a sidecar.
func judgeSidecar(address string, s shownStatus) []care.Finding {
	add := func(level care.Level, check, of, next, message string, args ...any) care.Finding {
		page := policiesPage
		if level == care.OK {
			page = ""
		}
		return finding(level, care.Sidecar, check, of, next, page, fmt.Sprintf(message, args...))
	}
	list := []care.Finding{add(care.OK, "answer", address, "", "the one at %s runs its policy number %d, of %s", address, s.Revision,
		count(s.Counts.Applied+s.Counts.LastGood, "document", "documents"))}
	for _, source := range s.Sources {
		if source.Healthy {
			list = append(list, add(care.OK, "source", source.Name, "", "its source %s is read", source.Name))
			continue
		}
		list = append(list, add(care.Failure, "source", source.Name, "Mend the source; the sidecar runs what it read before.",
			"its source %s is not read: %s", source.Name, cmp.Or(source.Error, "some of it cannot be read")))
	}
	if s.LastGood.InUse > 0 {
		list = append(list, add(care.Warning, "last good", "", "It follows its sources by itself once they are read.",
			"%s in force come from the file of last good ones", count(s.LastGood.InUse, "document", "documents")))
	}
	if s.LastGood.Path == "" && s.Remote() {
		list = append(list, add(care.Warning, "last good", "", "Name a file with --last-good, or in the Sidecar's lastGood, on a volume that outlives the process.",
			"no last good documents are kept: it cannot start as it is while etcd is away"))
	}
	if s.LastGood.Error != "" {
		list = append(list, add(care.Warning, "last good", s.LastGood.Path, "Let it write there: without the file it cannot start while etcd is away.",
			"the last good documents are not kept: %s", s.LastGood.Error))
	}
	wrong := slices.DeleteFunc(slices.Clone(s.Problems), func(p shownProblem) bool { return p.Severity != policy.Error.String() })
	if len(wrong) > 0 {
		first, more := wrong[0], ""
		if len(wrong) > 1 {
			more = fmt.Sprintf(" (and %d more)", len(wrong)-1)
		}
		list = append(list, add(care.Failure, "problems", "", "Read /policy/problems on its admin port.", "it has problems: %s: %s%s",
			cmp.Or(first.Name, first.File), first.Message, more))
	}
	return list
}
