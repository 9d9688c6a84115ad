package control

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"

	"weir/policy"
)

// remember reads the last-good file, once, and tells the sources what they had said before this start: a removal of many tenants is
// held whether the process was there to see it or not.
func (m *Manager) remember() {
	if path := m.lastGoodPath(); m.recalled == nil && path != "" {
		m.recalled = m.load(path)
	}
	if m.recalled == nil {
		return
	}
	for _, r := range m.readings {
		if r.stored != nil || r.inForce > 0 {
			continue
		}
		r.stored = make(map[objectKey]object)
		for key, o := range m.recalled.objects {
			if o.source == r.source {
				r.stored[key] = o
			}
		}
		if r.whole = m.recalled.revisions[r.source]; r.known {
			r.countFrom(r.revision)
		}
	}
}

// recall has what is broken at the start fall back to the last-good file, and reports whether that changes anything.
func (m *Manager) recall() bool {
	m.remember()
	if m.good != nil || m.recalled == nil || len(m.recalled.objects) == 0 {
		return false
	}
	m.good = m.recalled.objects
	m.log.Warn().Str("path", m.lastGoodPath()).Int("documents", len(m.good)).
		Msg("policy is broken or cannot be read at the start, the last-good file stands in for it")
	return true
}

// load reads the last-good file. It is empty when there is none or it cannot be read.
func (m *Manager) load(path string) *lastGood {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return &lastGood{} // a first start
	}
	if err != nil {
		m.log.Warn().Str("path", path).Msgf("last-good file: %s", unreadable(path, err))
		return &lastGood{}
	}
	kept, problems := decodeLastGood(path, data)
	for _, p := range problems {
		m.log.Warn().Str("path", path).Msgf("last-good file: %s", p)
	}
	return kept
}

// keep writes what is in force to the last-good file, if it is not there yet.
func (m *Manager) keep() {
	path := m.lastGoodPath()
	if path == "" {
		return
	}
	kept := &lastGood{objects: m.good, revisions: make(map[string]int64)}
	for _, r := range m.readings {
		if r.whole > 0 {
			kept.revisions[r.source] = r.whole
		}
	}
	data := kept.encode()
	if path == m.store.Path && m.store.Error == "" && bytes.Equal(data, m.stored) {
		return
	}
	m.store.Path, m.store.Error = path, ""
	if err := kept.write(path); err != nil {
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
