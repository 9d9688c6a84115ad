package policy

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The most that [Decode] takes at once. Ten thousand tenants, each with a document of its own, are a fifth of it.
const (
	MaxSource    = 8 << 20 // bytes
	MaxDocuments = 100_000
)

// source is the text of one document within its file.
type source struct {
	file  string
	first int      // the line of the file on which lines begins, counting from 1
	lines []string // without their line ends
}

// split cuts a stream into its documents. A line that begins with --- or ... is a boundary wherever it stands, even within
// quotes (YAML 1.2.2, section 9.1), so this needs no parser, and a broken document cannot hide where the next one begins.
func split(file string, data []byte) []*source {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	var out []*source
	current := &source{file: file, first: 1}
	next := func(line int) {
		if len(current.lines) > 0 {
			out = append(out, current)
		}
		current = &source{file: file, first: line}
	}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if isMarker(line, "---") {
			next(i + 1)
		}
		current.lines = append(current.lines, line)
		if isMarker(line, "...") {
			next(i + 2)
		}
	}
	next(0)
	return out
}

// isMarker reports whether a line is a document marker, possibly with more after a space.
func isMarker(line, marker string) bool {
	rest, ok := strings.CutPrefix(line, marker)
	return ok && (rest == "" || rest[0] == ' ' || rest[0] == '\t')
}

// empty reports whether there is nothing but blank lines, comments, directives and bare markers.
func (s *source) empty() bool {
	for _, line := range s.lines {
		if isMarker(line, "---") || isMarker(line, "...") {
			line = line[3:]
		}
		line = strings.TrimLeft(line, " \t")
		if line != "" && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

// body is the document as it was written, without its markers at either end.
func (s *source) body() string {
	lines := s.lines
	if isMarker(lines[0], "---") {
		lines = append([]string{strings.TrimLeft(lines[0][3:], " \t")}, lines[1:]...)
	}
	for len(lines) > 0 && strings.TrimLeft(lines[0], " \t") == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 {
		last := strings.TrimLeft(lines[len(lines)-1], " \t")
		if last != "" && last != "..." {
			return strings.Join(lines, "\n") + "\n"
		}
		lines = lines[:len(lines)-1]
	}
	return ""
}

// text is the source for a parser, with every line end a line feed.
func (s *source) text() string { return strings.Join(s.lines, "\n") + "\n" }

// check looks for what is no text at all, and for characters that other programs could take for line ends.
func (s *source) check() []Problem {
	for i, line := range s.lines {
		column := 1
		for at, c := range line {
			switch {
			case c == utf8.RuneError && !strings.HasPrefix(line[at:], string(utf8.RuneError)):
				return []Problem{s.problem(i+1, column, "", "not valid UTF-8")}
			case c < ' ' && c != '\t', c >= 0x7f && c < 0xa0, c == '\u2028', c == '\u2029', c == '\ufeff', c == 0xfffe, c == 0xffff:
				return []Problem{s.problem(i+1, column, "", "the character "+fmt.Sprintf("%U", c)+" is not allowed unless written as an escape in double quotes")}
			}
			column++
		}
	}
	return nil
}

// problem makes an error at a position within the source. Positions outside of it are moved to its nearest end.
func (s *source) problem(line, column int, path, message string) Problem {
	line = min(max(line, 1), len(s.lines))
	text := s.lines[line-1]
	column = min(max(column, 1), utf8.RuneCountInString(text)+1)
	return Problem{
		Origin:  Origin{File: s.file, Line: s.first + line - 1, Column: column},
		Path:    path,
		Message: message,
		Excerpt: excerpt(text, column),
	}
}
