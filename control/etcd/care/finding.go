package care

import (
	"fmt"
	"strings"
	"time"
)

// Level is how bad a finding is.
type Level int

// The levels, from fine to bad.
const (
	OK Level = iota
	Warning
	Failure
)

var levels = [...]string{OK: "ok", Warning: "warning", Failure: "failure"}

// String is the level's name in the JSON form.
func (l Level) String() string { return levels[l] }

// MarshalText is String.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Category is a group of checks.
type Category string

// The categories, in the order in which they are worth reading: what fails in one explains much of those after it.
const (
	Setup        Category = "setup"        // the command line and the files that it names
	Connection   Category = "connection"   // from this machine to each member
	Etcd         Category = "etcd"         // the cluster's own health
	Permissions  Category = "permissions"  // what our user may do
	Certificates Category = "certificates" // theirs and ours
	Policies     Category = "policies"     // the documents below the prefix
	Fleet        Category = "fleet"        // the sidecars that follow them
	Sidecar      Category = "sidecar"      // the one on this machine
)

// Categories are all of them, in order.
func Categories() []Category {
	return []Category{Setup, Connection, Etcd, Permissions, Certificates, Policies, Fleet, Sidecar}
}

// Finding is one thing that was looked at, and how it is.
type Finding struct {
	Category Category `json:"category"`
	// Check names what was looked at. It is the same however the finding turns out, so that programs can tell findings apart.
	Check string `json:"check"`
	// Of is what was looked at where there are several, as a member's endpoint.
	Of    string `json:"of,omitempty"`
	Level Level  `json:"level"`
	// Message says what is so, with the numbers that it was judged by.
	Message string `json:"message"`
	// Next says what to do about it, in whole sentences; Page is where that is explained. Both are empty when all is well.
	Next string `json:"next,omitempty"`
	Page string `json:"page,omitempty"`
}

// The pages that findings lead to.
const (
	carePage  = "docs/etcd-care.md"
	checkPage = carePage + "#what-check-looks-at"
	spacePage = carePage + "#space"
)

// good is a finding that needs nothing done.
func good(c Category, check, of, message string, args ...any) Finding {
	return Finding{Category: c, Check: check, Of: of, Message: fmt.Sprintf(message, args...)}
}

// bad is a finding with its way back.
func bad(l Level, c Category, check, of, next, page, message string, args ...any) Finding {
	return Finding{Category: c, Check: check, Of: of, Level: l, Message: fmt.Sprintf(message, args...), Next: next, Page: page}
}

// Worst is the worst level among findings.
func Worst(findings []Finding) Level {
	worst := OK
	for _, f := range findings {
		worst = max(worst, f.Level)
	}
	return worst
}

// Bytes writes a number of bytes for people, as in 1.5 GiB.
func Bytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 && n > -1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for ; (value >= 1024 || value <= -1024) && unit < len(units)-1; unit++ {
		value /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// percent is a share for people.
func percent(share float64) string { return fmt.Sprintf("%.0f %%", share*100) }

// span is a duration for people, to the precision that matters.
func span(d time.Duration) string {
	if d < 0 {
		d = -d
	}
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d < 2*day:
		return fmt.Sprintf("%.0f hours", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
