package control

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"weir/policy"
)

// The last-good file is a stream of YAML documents, each as it was written, below a comment that says where it came from. It is
// made of the same text the sources hold, so a person can read, compare and restore it.
const (
	lastGoodHeader = "# The documents in force, kept by the sidecar so that it starts when its sources are broken. Do not edit.\n"
	originPrefix   = "# weir:origin "
	originFormat   = originPrefix + "source=%q file=%q line=%d"
	originHeld     = " held" // behind the origin of a document whose removal is held
	revisionFormat = "# weir:revision source=%q revision=%d"
)

// lastGood is what the file holds.
type lastGood struct {
	objects map[objectKey]object
	// revisions say, by source, up to which one removals were applied: the greatest there is for a source that took the place of another
	// and was not read since, of which nothing is confirmed. Sources without revisions are not in it.
	revisions map[string]int64
}

// encode writes objects sorted by kind and name.
func (l *lastGood) encode() []byte {
	var b bytes.Buffer
	b.WriteString(lastGoodHeader)
	for _, source := range slices.Sorted(maps.Keys(l.revisions)) {
		fmt.Fprintf(&b, revisionFormat+"\n", source, l.revisions[source])
	}
	for _, key := range sortedKeys(l.objects) {
		o := l.objects[key]
		text := o.doc.Text()
		held := ""
		if o.held {
			held = originHeld
		}
		fmt.Fprintf(&b, "---\n"+originFormat+"%s\n%s", o.source, o.file, o.doc.Origin.Line-leadingLines(text), held, text)
	}
	return b.Bytes()
}

// leadingLines counts the lines before the first one that is neither blank nor a comment.
func leadingLines(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			break
		}
		n++
	}
	return n
}

// decodeLastGood reads objects back, with the origins they had. The sources' names and files are the ones they came from, so that
// they fall under the same rules as before the restart. Problems are positioned in the file itself.
func decodeLastGood(path string, data []byte) (*lastGood, []policy.Problem) {
	// Documents of one file are decoded together, each on the lines where it once stood, so that its origin comes out right.
	type origin struct {
		source, file string
		held         bool
	}
	type text struct {
		line int
		text string
	}
	texts := make(map[origin][]text)
	var order []origin
	kept := &lastGood{objects: make(map[objectKey]object), revisions: make(map[string]int64)}
	for i, part := range splitDocuments(string(data)) {
		if i == 0 {
			kept.decodeHeader(part)
		}
		comment, rest, _ := strings.Cut(part, "\n")
		var from origin
		var line int
		if _, err := fmt.Sscanf(comment, originFormat, &from.source, &from.file, &line); err != nil {
			continue // the header, or what somebody added by hand
		}
		from.held = strings.HasSuffix(strings.TrimSpace(comment), originHeld)
		if texts[from] == nil {
			order = append(order, from)
		}
		texts[from] = append(texts[from], text{line, rest})
	}
	if len(order) == 0 {
		return kept, []policy.Problem{{Origin: policy.Origin{File: path}, Message: "no documents; the file was not written by this program, or was cut short"}}
	}
	var problems []policy.Problem
	for _, from := range order {
		parts := texts[from]
		slices.SortStableFunc(parts, func(a, b text) int { return a.line - b.line })
		var b strings.Builder
		at := 1 // the line that would be written next
		for i, part := range parts {
			if i > 0 {
				b.WriteString(strings.Repeat("\n", max(0, part.line-1-at)) + "---\n")
				at += max(0, part.line-1-at) + 1
			}
			if pad := min(part.line, maxPadding) - at; pad > 0 {
				b.WriteString(strings.Repeat("\n", pad))
				at += pad
			}
			b.WriteString(part.text)
			at += strings.Count(part.text, "\n")
		}
		docs, found := policy.Decode(from.file, []byte(b.String()))
		problems = append(problems, found...)
		for _, doc := range docs {
			kept.objects[objectKey{doc.Kind, doc.Name}] = object{doc: doc, digest: doc.Digest(), source: from.source, file: from.file, held: from.held, stored: true}
		}
	}
	return kept, problems
}

// decodeHeader reads the comment at the top. What it does not know it passes over: versions to come may write more.
func (l *lastGood) decodeHeader(text string) {
	for line := range strings.Lines(text) {
		var source string
		var revision int64
		if _, err := fmt.Sscanf(line, revisionFormat, &source, &revision); err == nil {
			l.revisions[source] = revision
		}
	}
}

// maxPadding bounds the empty lines that a wrong line number in the file can ask for.
const maxPadding = 1 << 18

// splitDocuments cuts a stream at its document markers. In YAML a line that begins with --- is one wherever it stands, even
// within a scalar, so no parser is needed.
func splitDocuments(data string) []string {
	var parts []string
	var part strings.Builder
	for line := range strings.Lines(data) {
		if strings.TrimRight(line, "\r\n") == "---" {
			parts = append(parts, part.String())
			part.Reset()
			continue
		}
		part.WriteString(line)
	}
	return append(parts, part.String())
}

// write replaces the file at path: whole or not at all.
func (l *lastGood) write(path string) error {
	data := l.encode()
	// What cannot be read back is worth nothing on the day it is needed.
	back, problems := decodeLastGood(path, data)
	for key, o := range l.objects {
		if back.objects[key].digest != o.digest {
			return fmt.Errorf("cannot store %s %q of %s so that it reads back the same: %s", key.kind, key.name, o.doc.Origin, firstError(problems))
		}
	}
	return replaceFile(path, data)
}

// replaceFile writes data beside path, brings it to the disk and renames it, so that path always is a whole file, old or new.
func replaceFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp") // mode 0600, and hidden from sources that read the folder
	if err != nil {
		return fmt.Errorf("cannot make a file in %s, which must exist and be writable: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cannot write %s: %w", f.Name(), err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("cannot replace %s: %w", path, err)
	}
	// The new name itself must reach the disk too. Some file systems cannot sync a folder; the file is whole either way.
	if d, openErr := os.Open(dir); openErr == nil {
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}
