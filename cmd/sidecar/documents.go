package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"weir/control"
	"weir/control/file"
)

// stdinName is how a command line and its messages call the standard input.
const stdinName = "-"

// inWords names what a command line names.
func inWords(names []string) string {
	words := slices.Clone(names)
	for i, name := range words {
		if name == stdinName {
			words[i] = "the standard input"
		}
	}
	return strings.Join(words, ", ")
}

// readTexts reads what a command line names, as `sidecar run` would: files, the documents in directories and what a Sidecar among
// them names; and besides, the standard input. It fails with all that it could not read at once.
func readTexts(stdin io.Reader, names []string) ([]control.File, error) {
	var texts []control.File
	paths := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == stdinName })
	if len(paths) > 0 {
		batch := file.Load(paths)
		if batch.Err != nil {
			return nil, fmt.Errorf("cannot read documents: %w", batch.Err)
		}
		texts = batch.Files
	}
	if len(paths) < len(names) {
		data, err := io.ReadAll(stdin)
		texts = append(texts, control.File{Path: stdinName, Data: data, Err: err})
	}
	var errs []error
	for _, t := range texts {
		if t.Err != nil {
			errs = append(errs, fmt.Errorf("cannot read %s: %w", t.Path, t.Err))
		}
	}
	return texts, errors.Join(errs...)
}

// readNamed is readTexts without what only a Sidecar names.
func readNamed(stdin io.Reader, names []string) ([]control.File, error) {
	texts, err := readTexts(stdin, names)
	named := func(t control.File) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			name = filepath.Clean(name)
			return t.Path == name || name == "." || strings.HasPrefix(t.Path, name+string(filepath.Separator))
		})
	}
	return slices.DeleteFunc(texts, func(t control.File) bool { return !named(t) }), err
}
