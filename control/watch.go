package control

import (
	"slices"

	"weir/policy"
)

// watch has the files watched that a snapshot is made of, or lacks: when one comes that Apply had missed, it is tried again.
func (m *Manager) watch(s *policy.Snapshot) {
	if m.o.WatchFiles == nil {
		return
	}
	paths := m.keys.paths()
	if s != nil {
		paths = append(paths, s.TLSFiles()...)
	}
	slices.Sort(paths)
	if paths = slices.Compact(paths); !slices.Equal(paths, m.watched) {
		m.watched = paths
		m.o.WatchFiles(paths)
	}
}
