package main

import (
	"fmt"
	"io"
	"strings"

	"weir/control/etcd/care"
)

// checkReport is what was found, in the JSON form.
type checkReport struct {
	Well     bool           `json:"well"` // nothing failed
	Failures int            `json:"failures"`
	Warnings int            `json:"warnings"`
	Findings []care.Finding `json:"findings"`
}

func newCheckReport(found []care.Finding) checkReport {
	r := checkReport{Findings: append([]care.Finding{}, found...)}
	for _, f := range found {
		switch f.Level {
		case care.Failure:
			r.Failures++
		case care.Warning:
			r.Warnings++
		}
	}
	r.Well = r.Failures == 0
	return r
}

// verdict is the error that ends the command when something failed.
func (r checkReport) verdict() error {
	if r.Well {
		return nil
	}
	return fmt.Errorf("%s failed", count(r.Failures, "check", "checks"))
}

// marks are how the levels are shown: signs where the terminal has them, else words.
type marks [care.Failure + 1]string

// marks are those that a terminal can show, as its locale says.
func (c *cli) marks() marks {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} { // the first that is set counts
		if v, _ := c.lookupEnv(name); v != "" {
			if v = strings.ToUpper(v); strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8") {
				return marks{care.OK: "√", care.Warning: "‼", care.Failure: "×"}
			}
			break
		}
	}
	return marks{care.OK: "[ok]", care.Warning: "[warning]", care.Failure: "[failed]"}
}

// print writes findings for a person, below the names of their categories.
func (r checkReport) print(w io.Writer, paint painter, signs marks) error {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	colours := [...]func(string) string{care.OK: paint.green, care.Warning: paint.yellow, care.Failure: paint.red}
	category := care.Category("")
	for _, f := range r.Findings {
		if f.Category != category {
			if category != "" {
				line("")
			}
			category = f.Category
			line("%s", paint.bold(string(category)))
			line("%s", strings.Repeat("-", len(category)))
		}
		line("%s %s", colours[f.Level](signs[f.Level]), f.Message)
		if f.Next != "" {
			line("    %s", f.Next)
		}
		if f.Page != "" {
			line("    see %s", f.Page)
		}
	}
	line("")
	line("%s", r.summary())
	if _, err := io.WriteString(w, text.String()); err != nil {
		return fmt.Errorf("cannot write what was found: %w", err)
	}
	return nil
}

// summary is the closing line.
func (r checkReport) summary() string {
	var parts []string
	if r.Failures > 0 {
		parts = append(parts, count(r.Failures, "failure", "failures"))
	}
	if r.Warnings > 0 {
		parts = append(parts, count(r.Warnings, "warning", "warnings"))
	}
	if len(parts) == 0 {
		return "all is well"
	}
	return strings.Join(parts, " and ")
}
