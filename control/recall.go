package control

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"

	"weir/policy"
)

// recall reads the last-good file, so that what is broken at the start has a version to fall back to.
func (m *Manager) recall() {
	path := m.lastGoodPath()
	if path == "" {
		return
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return // a first start
	}
	var problems []policy.Problem
	if err == nil {
		m.good, problems = decodeLastGood(path, data)
	} else {
		problems = []policy.Problem{unreadable(path, err)}
	}
	for _, p := range problems {
		m.log.Warn().Str("path", path).Msgf("last-good file: %s", p)
	}
	if len(m.good) > 0 {
		m.log.Warn().Str("path", path).Int("documents", len(m.good)).Msg("policy is broken at the start, the last-good file stands in for what is")
	}
}

// keep writes what is in force to the last-good file, if it is not there yet.
func (m *Manager) keep() {
	path := m.lastGoodPath()
	if path == "" {
		return
	}
	data := encodeLastGood(m.good)
	if path == m.store.Path && m.store.Error == "" && bytes.Equal(data, m.stored) {
		return
	}
	m.store.Path, m.store.Error = path, ""
	if err := writeLastGood(path, m.good); err != nil {
		m.store.Error = err.Error()
		m.metrics.storeErrors.Inc()
		m.log.Error().Err(err).Str("path", path).Msg("last-good file not written; a start with a broken source would fail")
	} else {
		m.stored = data
		m.store.WrittenAt = m.o.Clock()
	}
	s := m.Status()
	inUse := s.LastGood.InUse
	s.LastGood = m.store
	s.LastGood.InUse = inUse
	m.tell(&s)
}

// lastGoodPath is the file in use: the option, else what the Sidecar in force names, else what one that was read names.
func (m *Manager) lastGoodPath() string {
	switch {
	case m.o.LastGood != "":
		return m.o.LastGood
	case m.snapshot != nil:
		return m.snapshot.Sidecar.LastGood
	}
	for _, r := range m.readings {
		for _, f := range r.files {
			for _, o := range f.objects {
				if spec, ok := o.doc.Spec.(*policy.SidecarSpec); ok && spec.LastGood != "" {
					return policy.ResolvePath(o.doc.Origin, spec.LastGood)
				}
			}
		}
	}
	return ""
}

// samePath reports whether two paths are one, as far as their names tell.
func samePath(a, b string) bool {
	absoluteA, errA := filepath.Abs(a)
	absoluteB, errB := filepath.Abs(b)
	return errA == nil && errB == nil && absoluteA == absoluteB
}
