package policy

import (
	"cmp"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Severity of a Problem.
type Severity uint8

// Severities.
const (
	Error   Severity = iota // the document is refused
	Warning                 // the document is applied
)

// String is "error" or "warning".
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Problem is one thing wrong with one document, said so that its writer can mend it.
type Problem struct {
	Severity   Severity
	Origin     Origin
	Kind       Kind   // empty when unknown
	Name       string // empty when unknown
	Path       string // as in spec.limits[0].burst; empty for the whole document
	Message    string // what is wrong, with the offending value and the legal ones
	Suggestion string // did you mean "burst"?; empty when there is none
	Excerpt    string // the source line and a caret line below it; empty when there is no source
}

// String is the problem on one line: file:line:col: path: message; did you mean "…"?
// The parts that are unknown are left out.
func (p Problem) String() string {
	s := p.headline()
	if p.Suggestion != "" {
		s += "; " + p.Suggestion
	}
	return s
}

// Render writes the problem for a person: the headline, then indented the excerpt with its caret and the suggestion.
// With color it uses ANSI escapes; nothing else in the output does, since values are quoted.
func (p Problem) Render(w io.Writer, color bool) error {
	paint := func(code, s string) string {
		if color {
			return "\x1b[" + code + "m" + s + "\x1b[0m"
		}
		return s
	}
	var b strings.Builder
	b.WriteString(paint("1", p.headline()) + "\n")
	if source, caret, ok := strings.Cut(p.Excerpt, "\n"); ok {
		b.WriteString("    " + source + "\n    " + paint("1;31", caret) + "\n")
	}
	if p.Suggestion != "" {
		b.WriteString("    " + paint("32", p.Suggestion) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p Problem) headline() string {
	var b strings.Builder
	b.WriteString(p.Origin.String())
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if p.Severity == Warning {
		b.WriteString("warning: ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// MarshalJSON is the form of `validate -o json` and of the admin port's list of problems.
func (p Problem) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Severity   string `json:"severity"`
		File       string `json:"file,omitempty"`
		Line       int    `json:"line,omitempty"`
		Column     int    `json:"column,omitempty"`
		Kind       Kind   `json:"kind,omitempty"`
		Name       string `json:"name,omitempty"`
		Path       string `json:"path,omitempty"`
		Message    string `json:"message"`
		Suggestion string `json:"suggestion,omitempty"`
		Excerpt    string `json:"excerpt,omitempty"`
	}{
		p.Severity.String(), p.Origin.File, p.Origin.Line, p.Origin.Column,
		p.Kind, p.Name, p.Path, p.Message, p.Suggestion, p.Excerpt,
	})
}

// String is file:line:column without the parts that are unknown.
func (o Origin) String() string {
	parts := make([]string, 0, 3)
	if o.File != "" {
		parts = append(parts, o.File)
	}
	if o.Line > 0 {
		parts = append(parts, strconv.Itoa(o.Line))
		if o.Column > 0 {
			parts = append(parts, strconv.Itoa(o.Column))
		}
	}
	return strings.Join(parts, ":")
}

// sortProblems orders problems as a reader meets them: by file, line and column.
func sortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			strings.Compare(a.Origin.File, b.Origin.File),
			cmp.Compare(a.Origin.Line, b.Origin.Line),
			cmp.Compare(a.Origin.Column, b.Origin.Column),
		)
	})
}

// maxExcerpt is how many characters of a source line an excerpt shows.
const maxExcerpt = 120

// excerpt shows a source line, or the part of it around column, and a caret below that column.
func excerpt(line string, column int) string {
	chars := []rune(strings.ToValidUTF8(line, string(utf8.RuneError)))
	column = min(max(column, 1), len(chars)+1)
	from := 0
	if column > maxExcerpt*2/3 && len(chars) > maxExcerpt {
		from = column - maxExcerpt*2/3
	}
	shown := chars[from:min(len(chars), from+maxExcerpt)]
	var source, caret strings.Builder
	for i, c := range shown {
		// A tab stays one in both lines, so that the caret stands where it should however wide tabs are.
		pad := ' '
		if c == '\t' {
			pad = '\t'
		} else if !strconv.IsPrint(c) {
			c = utf8.RuneError
		}
		source.WriteRune(c)
		if i < column-1-from {
			caret.WriteRune(pad)
		}
	}
	if from+len(shown) < len(chars) {
		source.WriteRune('…')
	}
	return source.String() + "\n" + caret.String() + "^"
}
